//! DELETE: grace, finalizers, preconditions, collections.

use super::*;

async fn bound_pod(cluster: &Cluster, name: &str) -> String {
    cluster.post(PODS, &pod(name)).await.expect(201);
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n"}});
    let path = format!("{PODS}/{name}");
    cluster
        .post(&format!("{path}/binding"), &binding)
        .await
        .expect(201);
    path
}

#[test]
fn pods_are_given_time_which_can_only_be_shortened() {
    with_cluster(21, |cluster| async move {
        let path = bound_pod(&cluster, "p").await;
        let first = cluster.delete(&path, None).await.expect(200);
        let told = &first["metadata"]["deletionTimestamp"];
        assert_eq!(first["metadata"]["deletionGracePeriodSeconds"], 30);
        assert_eq!(first["metadata"]["generation"], 2);
        cluster.env.sleep(Duration::from_secs(5)).await;
        // Again, and with more time: nothing changes.
        for options in [None, Some(json!({"gracePeriodSeconds": 60}))] {
            let again = cluster.delete(&path, options).await.expect(200);
            assert_eq!(revision(&again), revision(&first));
        }
        let less = cluster
            .delete(&path, Some(json!({"gracePeriodSeconds": 10})))
            .await
            .expect(200);
        assert_eq!(less["metadata"]["deletionGracePeriodSeconds"], 10);
        // Counted from the first time: twenty seconds earlier than it was to be.
        let time = |value: &Value| {
            let time: jiff::Timestamp = value.as_str().unwrap().parse().unwrap();
            time.as_second()
        };
        assert_eq!(
            time(told) - time(&less["metadata"]["deletionTimestamp"]),
            20
        );
        let now = cluster
            .delete(&path, Some(json!({"gracePeriodSeconds": 0})))
            .await
            .expect(200);
        assert_eq!(now["metadata"]["deletionGracePeriodSeconds"], 0);
        assert_eq!(cluster.get(&path).await.code, 404);
        assert_eq!(cluster.delete(&path, None).await.code, 404);
    });
}

#[test]
fn pods_that_are_nowhere_go_at_once() {
    with_cluster(22, |cluster| async move {
        cluster.post(PODS, &pod("p")).await.expect(201);
        let path = format!("{PODS}/p");
        let dry = format!("{path}?dryRun=All");
        cluster.delete(&dry, None).await.expect(200);
        let gone = cluster.delete(&path, None).await.expect(200);
        assert_eq!(gone["kind"], "Pod");
        assert_eq!(gone["metadata"]["deletionGracePeriodSeconds"], 0);
        assert_eq!(cluster.get(&path).await.code, 404);
    });
}

#[test]
fn finalizers_hold_an_object() {
    with_cluster(23, |cluster| async move {
        let mut map = config_map("f", json!({}));
        map["metadata"]["finalizers"] = json!(["x.io/f"]);
        cluster.post(CONFIG_MAPS, &map).await.expect(201);
        let path = format!("{CONFIG_MAPS}/f");
        let waits = cluster.delete(&path, None).await.expect(200);
        assert_eq!(waits["metadata"]["deletionGracePeriodSeconds"], 0);
        let again = cluster.delete(&path, None).await.expect(200);
        assert_eq!(revision(&again), revision(&waits));
        let more = json!({"metadata": {"finalizers": ["x.io/f", "y.io/g"]}});
        assert_eq!(cluster.patch(&path, MERGE, &more).await.code, 422);
        let exists = cluster.post(CONFIG_MAPS, &config_map("f", json!({}))).await;
        assert!(exists.refused(409).starts_with("object is being deleted: "));
        let none = json!({"metadata": {"finalizers": null}});
        let dry = format!("{path}?dryRun=All");
        cluster.patch(&dry, MERGE, &none).await.expect(200);
        cluster.get(&path).await.expect(200);
        cluster.patch(&path, MERGE, &none).await.expect(200);
        assert_eq!(cluster.get(&path).await.code, 404);
    });
}

#[test]
fn preconditions_are_kept() {
    with_cluster(24, |cluster| async move {
        let map = config_map("c", json!({}));
        let made = cluster.post(CONFIG_MAPS, &map).await.expect(201);
        let path = format!("{CONFIG_MAPS}/c");
        for wrong in [json!({"uid": "other"}), json!({"resourceVersion": "1"})] {
            let options = json!({"preconditions": wrong});
            assert_eq!(cluster.delete(&path, Some(options)).await.code, 409);
        }
        let mut other = made.clone();
        other["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
        let refused = cluster.put(&path, &other).await.refused(409);
        assert!(refused.contains("Precondition failed: UID in precondition: 0"));
        let right = json!({"preconditions": {"uid": made["metadata"]["uid"]}});
        let gone = cluster.delete(&path, Some(right)).await.expect(200);
        assert_eq!(gone["status"], "Success");
        assert_eq!(gone["details"]["uid"], made["metadata"]["uid"]);
    });
}

#[test]
fn a_collection_goes_as_far_as_it_is_selected() {
    with_cluster(25, |cluster| async move {
        for name in ["a", "b", "c"] {
            let labels = json!({"go": (name != "b").to_string()});
            let map = config_map(name, labels);
            cluster.post(CONFIG_MAPS, &map).await.expect(201);
        }
        let own = format!("{CONFIG_MAPS}?labelSelector=go");
        let some = format!("{CONFIG_MAPS}?labelSelector=go%3Dtrue");
        let dry = format!("{some}&dryRun=All");
        assert_eq!(
            names(&cluster.delete(&dry, None).await.expect(200)),
            ["a", "c"]
        );
        assert_eq!(names(&cluster.get(&own).await.expect(200)), ["a", "b", "c"]);
        assert_eq!(
            names(&cluster.delete(&some, None).await.expect(200)),
            ["a", "c"]
        );
        assert_eq!(names(&cluster.get(&own).await.expect(200)), ["b"]);
    });
}

#[test]
fn options_that_are_none_delete_nothing() {
    with_cluster(26, |cluster| async move {
        let map = config_map("c", json!({}));
        cluster.post(CONFIG_MAPS, &map).await.expect(201);
        let path = format!("{CONFIG_MAPS}/c");
        for wrong in [
            json!({"kind": "Foo", "apiVersion": "v1"}),
            json!({"gracePeriodSeconds": "soon"}),
            json!({"preconditions": "none"}),
            json!([]),
        ] {
            let answer = cluster.delete(&path, Some(wrong)).await;
            assert_eq!(answer.code, 400, "{}", answer.text());
        }
        let both = json!({"orphanDependents": true, "propagationPolicy": "Orphan"});
        assert_eq!(cluster.delete(&path, Some(both)).await.code, 422);
        let right = json!({"kind": "DeleteOptions", "apiVersion": "apps/v1", "gracePeriodSeconds": 0, "new": 1});
        cluster.delete(&path, Some(right)).await.expect(200);
    });
}
