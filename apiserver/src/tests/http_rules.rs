//! What is said to requests that are odd, malformed or hostile.

use super::*;

#[test]
fn paths_that_name_nothing() {
    with_cluster(41, |cluster| async move {
        for unknown in ["/nope", "/apis/nope.io/v1/x", "/apis/nope.io"] {
            let answer = cluster.get(unknown).await;
            assert_eq!(
                (answer.code, answer.text()),
                (404, "404 page not found\n".into())
            );
        }
        for missing in [
            "/api/v1/foos",
            "/api/v2/pods",
            "/apis/apps/v9",
            "/apis/apps/v1/foos",
            "/api/v1/namespaces/default/nodes",
            "/api/v1/namespaces/default/configmaps/x/status",
        ] {
            let answer = cluster.get(missing).await;
            assert_eq!(
                answer.refused(404),
                "the server could not find the requested resource",
                "{missing}"
            );
        }
        for (method, path) in [
            (Method::HEAD, CONFIG_MAPS),
            (Method::OPTIONS, CONFIG_MAPS),
            (Method::POST, "/version"),
            (Method::POST, "/api/v1/pods"),
            (Method::DELETE, "/api/v1/namespaces"),
        ] {
            let answer = cluster.ask(method, path, &[], "{}").await;
            assert_eq!(answer.code, 405, "{path}");
        }
    });
}

#[test]
fn bodies_that_cannot_be_read() {
    with_cluster(42, |cluster| async move {
        let unrecognized = "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: ";
        let send = |body: Bytes, kind: &'static str| {
            let cluster = cluster.clone();
            async move {
                let headers = [("content-type", kind)];
                cluster.ask(Method::POST, CONFIG_MAPS, &headers, body).await
            }
        };
        for (body, why) in [
            ("", "unexpected end of JSON input ()"),
            (
                "{\"a\" 1}",
                "invalid character '1' after object key ({\"a\" 1})",
            ),
            (
                "{\"kind\":5}",
                "json: cannot unmarshal number into Go struct field .kind of type string",
            ),
        ] {
            let message = send(body.into(), JSON).await.refused(400);
            assert!(message.starts_with(unrecognized), "{message}");
            assert!(message.ends_with(why), "{message}");
        }
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        let message = send(deep.into(), JSON).await.refused(400);
        assert!(message.contains("exceeded max depth"), "{message}");
        let deep = format!("a: {}", "[".repeat(100_000));
        assert_eq!(send(deep.into(), "application/yaml").await.code, 400);
        let torn = Bytes::from_static(b"k8s\0\x0a\xff\xff");
        assert_eq!(
            send(torn, "application/vnd.kubernetes.protobuf").await.code,
            400
        );
        assert_eq!(send("{}".into(), "text/plain").await.code, 415);
        let large = send(vec![b'x'; (3 << 20) + 1].into(), JSON).await;
        assert_eq!(
            large.refused(413),
            "Request entity too large: limit is 3145728"
        );
    });
}

#[test]
fn values_that_do_not_parse() {
    with_cluster(43, |cluster| async move {
        let mut hungry = pod("p");
        hungry["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1x"}});
        assert_eq!(
            cluster.post(PODS, &hungry).await.refused(400),
            "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression \
             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        );
        let mut timed = config_map("t", json!({}));
        timed["metadata"]["creationTimestamp"] = json!("yesterday");
        assert!(
            cluster
                .post(CONFIG_MAPS, &timed)
                .await
                .refused(400)
                .contains("parsing time \"yesterday\"")
        );
        let mut empty = config_map("n", json!({}));
        empty["data"]["a"] = Value::Null;
        let made = cluster.post(CONFIG_MAPS, &empty).await.expect(201);
        assert_eq!(made["data"]["a"], "");
        let late = format!("{CONFIG_MAPS}?timeout=abc");
        assert_eq!(
            cluster.get(&late).await.refused(400),
            "invalid timeout specified in the request URL - time: invalid duration \"abc\""
        );
    });
}

#[test]
fn impersonation_needs_a_user() {
    with_cluster(44, |cluster| async move {
        let headers = [("impersonate-group", "devs")];
        let answer = cluster
            .ask(Method::GET, "/api/v1/pods?limit=1", &headers, Bytes::new())
            .await;
        assert_eq!(answer.code, 500);
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
        let text = answer.text();
        assert!(
            text.starts_with("Internal Server Error: \"/api/v1/pods?limit=1\": requested [{"),
            "{text}"
        );
        assert!(text.ends_with("without impersonating a user\n"), "{text}");
    });
}
