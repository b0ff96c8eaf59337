//! Rules of the API that kubectl does not show, asked byte by byte.

use std::io::Read;
use std::sync::Arc;

use flate2::read::GzDecoder;
use http::{Method, Request};
use http_body_util::BodyExt;
use orlop::ControlPlane;
use orlop::core::env::Env;
use orlop::core::resource::Resource;
use orlop::core::store::Store;
use orlop::store::MemoryStore;
use orlop::wire::kubeconfig::{Credentials, Token};
use serde_json::{Value, json};

use crate::support::{Answer, Raw, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CONFIG_MAPS: Resource = Resource::namespaced("", "v1", "configmaps", "ConfigMap");
const JSON: (&str, &str) = ("content-type", "application/json");

/// A server on which nothing happens by itself.
fn quiet() -> Server {
    Server::start(&[
        "--store",
        "memory",
        "--without",
        "scheduler,controller-manager,nodes",
    ])
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
}

fn revision(answer: &Answer) -> u64 {
    answer.json()["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_done() {
    let server = quiet();
    let admin = Raw::admin(&server);
    for path in ["/nothing", "/apis/nothing.example.com/v1/things"] {
        let answer = admin.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (404, "404 page not found\n"),
            "{path}"
        );
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    }
    // Of a group and version that are served, the API itself says so.
    for path in ["/api/v1/nothing", "/apis/apps/v1/nothing"] {
        let answer = admin.get(path).await;
        assert_eq!(
            answer.refusal(404),
            "the server could not find the requested resource",
            "{path}"
        );
    }
    for (method, path) in [
        (Method::POST, "/api/v1/namespaces/default/configmaps/m"),
        (Method::PUT, "/api/v1/namespaces/default/configmaps"),
        (Method::PATCH, "/api/v1/namespaces/default/configmaps"),
        (
            Method::GET,
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        ),
        (Method::DELETE, "/api/v1/namespaces"),
        (Method::POST, "/version"),
    ] {
        let answer = admin.send(method.clone(), path, &[], "").await;
        let message = answer.refusal(405);
        assert_eq!(
            message, "the server does not allow this method on the requested resource",
            "{method} {path}"
        );
    }
    let answer = admin
        .send(
            Method::GET,
            "/api/v1/namespaces",
            &[("accept", "text/foo")],
            "",
        )
        .await;
    assert_eq!(
        answer.refusal(406),
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
    );
    let answer = admin
        .send(Method::POST, MAPS, &[("content-type", "text/foo")], "x")
        .await;
    assert_eq!(
        answer.refusal(415),
        "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"
    );
    let answer = admin
        .send(Method::PATCH, &format!("{MAPS}/m"), &[JSON], "{}")
        .await;
    assert_eq!(
        answer.refusal(415),
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
    );
    let answer = admin
        .send(Method::POST, MAPS, &[JSON], "x".repeat((3 << 20) + 1))
        .await;
    assert_eq!(
        answer.refusal(413),
        "Request entity too large: limit is 3145728"
    );
    let answer = admin
        .send(Method::POST, MAPS, &[JSON], "{\"metadata\":")
        .await;
    assert_eq!(
        answer.refusal(400),
        "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({\"metadata\":)"
    );
}

#[tokio::test]
async fn who_asks_is_found_out_first() {
    let server = quiet();
    let nobody = Raw::with_credentials(&server, Credentials::default());
    assert_eq!(
        nobody.get(MAPS).await.refusal(403),
        "configmaps is forbidden: User \"system:anonymous\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(
        nobody.get("/nothing").await.refusal(403),
        "forbidden: User \"system:anonymous\" cannot get path \"/nothing\""
    );
    for open in ["/healthz", "/livez", "/readyz"] {
        let answer = nobody.get(open).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (200, "ok"),
            "{open}"
        );
    }
    assert_eq!(nobody.get("/version").await.json()["minor"], "36");
    let token = Some(Token::Text("wrong".to_owned()));
    let liar = Raw::with_credentials(
        &server,
        Credentials {
            token,
            ..Credentials::default()
        },
    );
    assert_eq!(liar.get(MAPS).await.refusal(401), "Unauthorized");
    assert_eq!(liar.get("/version").await.refusal(401), "Unauthorized");
}

#[tokio::test]
async fn lists_come_in_pages_and_at_revisions() {
    let server = quiet();
    let admin = Raw::admin(&server);
    let mut revisions = Vec::new();
    for name in ["a", "b", "c", "d"] {
        revisions.push(revision(&admin.post(MAPS, &map(name)).await));
    }
    assert!(revisions.is_sorted());
    let first = admin.get(&format!("{MAPS}?limit=2")).await.json();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 2);
    // The pages after the first show what was there when it was read.
    admin
        .send(Method::DELETE, &format!("{MAPS}/d"), &[], "")
        .await;
    admin.post(MAPS, &map("e")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = admin
        .get(&format!("{MAPS}?limit=2&continue={token}"))
        .await
        .json();
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second["metadata"]["continue"], Value::Null);
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );

    let at = |revision: u64, how: &str| {
        format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch={how}")
    };
    assert_eq!(
        names(&admin.get(&at(revisions[1], "Exact")).await.json()),
        ["a", "b"]
    );
    assert_eq!(
        names(&admin.get(&at(revisions[1], "NotOlderThan")).await.json()),
        ["a", "b", "c", "e"]
    );
    let ahead = admin.get(&format!("{MAPS}?resourceVersion=99999999")).await;
    assert!(
        ahead
            .refusal(504)
            .starts_with("Timeout: Too large resource version: 99999999, current: ")
    );
    assert_eq!(ahead.header("retry-after"), "1");
    for (query, code, message) in [
        (
            "resourceVersionMatch=Exact",
            422,
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            "limit=x",
            400,
            "strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        ("continue=abc", 400, "continue key is not valid"),
        ("resourceVersion=abc", 400, "Invalid value: \"abc\""),
        (
            "watch=1&sendInitialEvents=true",
            422,
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (
            "sendInitialEvents=true",
            422,
            "sendInitialEvents is forbidden for list",
        ),
    ] {
        let answer = admin.get(&format!("{MAPS}?{query}")).await;
        assert!(
            answer.refusal(code).contains(message),
            "{query}: {:?}",
            answer.body
        );
    }
}

#[tokio::test]
async fn watches_begin_where_they_are_told() {
    let server = quiet();
    let admin = Raw::admin(&server);
    let before = revision(&admin.get(MAPS).await);
    let a = revision(&admin.post(MAPS, &map("a")).await);
    let b = revision(&admin.post(MAPS, &map("b")).await);
    admin
        .send(Method::DELETE, &format!("{MAPS}/a"), &[], "")
        .await;
    let now = revision(&admin.get(MAPS).await);
    let watch = async |query: &str| {
        let answer = admin
            .get(&format!("{MAPS}?watch=true&timeoutSeconds=1{query}"))
            .await;
        assert_eq!(answer.status, 200, "{query}: {:?}", answer.body);
        answer
            .events()
            .iter()
            .map(|event| {
                let metadata = &event["object"]["metadata"];
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                (
                    text(&event["type"]),
                    text(&metadata["name"]),
                    text(&metadata["resourceVersion"]).parse().unwrap_or(0),
                )
            })
            .collect::<Vec<(String, String, u64)>>()
    };
    let event =
        |kind: &str, name: &str, revision: u64| (kind.to_owned(), name.to_owned(), revision);
    let history = [
        event("ADDED", "a", a),
        event("ADDED", "b", b),
        event("DELETED", "a", now),
    ];
    assert_eq!(watch(&format!("&resourceVersion={before}")).await, history);
    assert_eq!(watch(&format!("&resourceVersion={b}")).await, history[2..]);
    assert_eq!(watch(&format!("&resourceVersion={now}")).await, []);
    // Without a revision, or with 0: what is there, then what happens.
    assert_eq!(watch("").await, [event("ADDED", "b", b)]);
    assert_eq!(watch("&resourceVersion=0").await, [event("ADDED", "b", b)]);
    assert_eq!(watch("&fieldSelector=metadata.name%3Dnone").await, []);
    // A streaming list ends with a bookmark that says so.
    let streaming =
        "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let answer = admin
        .get(&format!("{MAPS}?watch=true&timeoutSeconds=1{streaming}"))
        .await;
    let events = answer.events();
    assert_eq!(events[0]["object"]["metadata"]["name"], "b");
    assert_eq!(events[1]["type"], "BOOKMARK");
    assert_eq!(
        events[1]["object"]["metadata"]["annotations"],
        json!({"k8s.io/initial-events-end": "true"})
    );
    assert_eq!(events[1]["object"]["kind"], "ConfigMap");
    assert!(
        events[1]["object"]["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >= now
    );
    // Selected by a label that comes and goes.
    let labelled = |labels: Value| json!({"metadata": {"labels": labels}}).to_string();
    let merge = [("content-type", "application/merge-patch+json")];
    for labels in [json!({"x": "y"}), json!({"x": null})] {
        admin
            .send(
                Method::PATCH,
                &format!("{MAPS}/b"),
                &merge,
                labelled(labels),
            )
            .await;
    }
    let kinds: Vec<_> = watch(&format!("&resourceVersion={now}&labelSelector=x%3Dy"))
        .await
        .into_iter()
        .map(|event| event.0)
        .collect();
    assert_eq!(kinds, ["ADDED", "DELETED"]);
}

#[tokio::test]
async fn a_dry_run_leaves_nothing() {
    let server = quiet();
    let admin = Raw::admin(&server);
    let before = revision(&admin.get(MAPS).await);
    let answer = admin.post(&format!("{MAPS}?dryRun=All"), &map("m")).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json()["metadata"]["resourceVersion"], Value::Null);
    assert!(answer.json()["metadata"]["uid"].is_string());
    assert_eq!(
        admin.get(&format!("{MAPS}/m")).await.refusal(404),
        "configmaps \"m\" not found"
    );
    assert_eq!(revision(&admin.get(MAPS).await), before);
    assert!(
        admin
            .post(&format!("{MAPS}?dryRun=Some"), &map("m"))
            .await
            .refusal(422)
            .contains("dryRun: Unsupported value")
    );

    let odd = "{\"metadata\":{\"name\":\"m\",\"nope\":1},\"data\":{\"a\":\"b\",\"a\":\"c\"},\"other\":{}}";
    let send = |mode: &str| {
        let path = format!("{MAPS}?dryRun=All&fieldValidation={mode}");
        async { admin.send(Method::POST, &{ path }, &[JSON], odd).await }
    };
    let warned = send("Warn").await;
    let warnings: Vec<_> = warned
        .headers
        .get_all("warning")
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect();
    assert_eq!(
        warnings,
        [
            "299 - \"duplicate field \\\"data.a\\\"\"",
            "299 - \"unknown field \\\"metadata.nope\\\"\"",
            "299 - \"unknown field \\\"other\\\"\"",
        ]
    );
    assert_eq!(warned.json()["data"], json!({"a": "c"}));
    let ignored = send("Ignore").await;
    assert_eq!(
        (ignored.status.as_u16(), ignored.header("warning")),
        (201, "")
    );
    assert_eq!(
        send("Strict").await.refusal(400),
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"data.a\", unknown field \"metadata.nope\", unknown field \"other\""
    );
    assert!(
        send("Maybe")
            .await
            .refusal(422)
            .contains("fieldValidation: Unsupported value: \"Maybe\"")
    );
}

#[tokio::test]
async fn answers_come_in_the_form_that_is_asked_for() {
    let server = quiet();
    let admin = Raw::admin(&server);
    let mut large = map("large");
    large["data"]["filling"] = json!("x".repeat(200_000));
    admin.post(MAPS, &large).await;
    let plain = admin.get(MAPS).await;
    let packed = admin
        .send(Method::GET, MAPS, &[("accept-encoding", "gzip")], "")
        .await;
    assert_eq!(
        (
            plain.header("content-encoding"),
            packed.header("content-encoding")
        ),
        ("", "gzip")
    );
    assert!(packed.body.len() < plain.body.len() / 10);
    let mut text = String::new();
    GzDecoder::new(&packed.body[..])
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, plain.text());

    let protobuf = "application/vnd.kubernetes.protobuf";
    let answer = admin
        .send(
            Method::GET,
            &format!("{MAPS}/large"),
            &[("accept", protobuf)],
            "",
        )
        .await;
    assert_eq!(answer.header("content-type"), protobuf);
    assert_eq!(&answer.body[..4], b"k8s\0");
    // The same bytes under another name make the same object.
    let renamed = answer.body.iter().copied().collect::<Vec<_>>();
    let at = renamed
        .windows(5)
        .position(|window| window == b"large")
        .unwrap();
    let mut renamed = renamed;
    renamed[at..at + 5].copy_from_slice(b"other");
    let answer = admin
        .send(
            Method::PUT,
            &format!("{MAPS}/other"),
            &[("content-type", protobuf)],
            renamed,
        )
        .await;
    assert_eq!(answer.refusal(404), "configmaps \"other\" not found");
    let yaml = admin
        .send(
            Method::GET,
            &format!("{MAPS}/large"),
            &[("accept", "application/yaml")],
            "",
        )
        .await;
    assert_eq!(yaml.header("content-type"), "application/yaml");
    assert!(
        yaml.text().starts_with("apiVersion: v1\n"),
        "{}",
        &yaml.text()[..80]
    );
    let table = admin
        .send(
            Method::GET,
            MAPS,
            &[("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")],
            "",
        )
        .await
        .json();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][1]["name"], "Data");
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..2],
        [json!("large"), json!(2)]
    );
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let partial = admin
        .send(Method::GET, MAPS, &[("accept", accept)], "")
        .await
        .json();
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert_eq!(partial["items"][0]["data"], Value::Null);

    // What rarely changes is not sent twice.
    let aggregated = (
        "accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    );
    for (path, accept) in [
        ("/apis", aggregated),
        ("/openapi/v2", ("accept", "application/json")),
    ] {
        let first = admin.send(Method::GET, path, &[accept], "").await;
        let tag = first.header("etag").to_owned();
        assert!(first.status == 200 && tag.len() > 2, "{path}");
        let second = admin
            .send(Method::GET, path, &[accept, ("if-none-match", &tag)], "")
            .await;
        assert_eq!(
            (second.status.as_u16(), second.body.len()),
            (304, 0),
            "{path}"
        );
    }
    let index = admin.get("/openapi/v3").await.json();
    let apps = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    let document = admin.get(apps).await;
    assert!(
        document.header("cache-control").contains("immutable"),
        "{:?}",
        document.headers
    );
    assert!(document.json()["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
}

/// Answers of a control plane in this process, to the administrator.
async fn ask(plane: &ControlPlane, path: &str) -> (u16, Vec<Value>) {
    let request = Request::get(path)
        .body(kube::client::Body::empty())
        .unwrap();
    let answer = plane.kube_client().send(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let documents = serde_json::Deserializer::from_slice(&body).into_iter();
    (status, documents.map(Result::unwrap).collect())
}

#[tokio::test]
async fn what_history_has_lost_is_expired() {
    let env = Env::tokio();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(env.clone()));
    let plane = async || {
        let builder = ControlPlane::builder()
            .env(env.clone())
            .shared_store(store.clone());
        builder
            .with_defaults()
            .without_scheduler()
            .without_controllers()
            .start()
            .await
            .unwrap()
    };
    let first = plane().await;
    let maps = first.admin();
    let maps = maps.resource(&CONFIG_MAPS).namespace("default");
    let mut revisions = Vec::new();
    for name in ["a", "b", "c"] {
        revisions.push(maps.create(&map(name)).await.unwrap().revision());
    }
    let (status, page) = ask(&first, &format!("{MAPS}?limit=1")).await;
    assert_eq!((status, names(&page[0])), (200, vec!["a"]));
    let token = page[0]["metadata"]["continue"].as_str().unwrap().to_owned();
    let last = maps.create(&map("d")).await.unwrap().revision();
    first.shutdown().await;
    store.compact(last).await.unwrap();

    // A server that begins now has no older history.
    let second = plane().await;
    let (status, page) = ask(&second, &format!("{MAPS}?limit=1&continue={token}")).await;
    let refusal = &page[0];
    assert_eq!((status, &refusal["reason"]), (410, &json!("Expired")));
    assert!(
        refusal["message"]
            .as_str()
            .unwrap()
            .starts_with("The provided continue parameter is too old"),
        "{refusal}"
    );
    // The token that comes with it goes on where the list was, with what is there now.
    let token = refusal["metadata"]["continue"].as_str().unwrap();
    let (status, page) = ask(&second, &format!("{MAPS}?limit=9&continue={token}")).await;
    assert_eq!((status, names(&page[0])), (200, vec!["b", "c", "d"]));

    let exact = format!(
        "{MAPS}?resourceVersion={}&resourceVersionMatch=Exact",
        revisions[0]
    );
    let (status, page) = ask(&second, &exact).await;
    assert_eq!((status, &page[0]["reason"]), (410, &json!("Expired")));
    let watch = format!(
        "{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={}",
        revisions[0]
    );
    let (status, events) = ask(&second, &watch).await;
    assert_eq!((status, events.len()), (200, 1), "{events:?}");
    assert_eq!(events[0]["type"], "ERROR");
    let refusal = &events[0]["object"];
    assert_eq!(
        (&refusal["code"], &refusal["reason"]),
        (&json!(410), &json!("Expired"))
    );
    assert!(
        refusal["message"]
            .as_str()
            .unwrap()
            .starts_with("too old resource version: "),
        "{refusal}"
    );
    second.shutdown().await;
}
