//! Watches: from where they begin, what selectors make of changes, and how they end.

use std::collections::BTreeMap;

use super::*;

fn path(query: &str) -> String {
    format!("{CONFIG_MAPS}?watch=1&{query}")
}

#[test]
fn where_a_watch_begins() {
    with_cluster(1, |cluster| async move {
        let made = cluster
            .post(CONFIG_MAPS, &config_map("a", json!({"x": "1"})))
            .await
            .expect(201);
        let at = revision(&made);
        let own = "labelSelector=x";

        // Without a version, and from zero: what is there, then what changes.
        for version in ["", "resourceVersion=0"] {
            let mut watch = cluster.watch(&path(&format!("{own}&{version}"))).await;
            assert_eq!(watch.brief().await, ("ADDED".into(), "a".into()));
            assert!(watch.is_silent().await);
        }
        // After a version: only what changes.
        let mut after = cluster
            .watch(&path(&format!("{own}&resourceVersion={at}")))
            .await;
        assert!(after.is_silent().await);
        // From before: what changed since.
        let mut before = cluster
            .watch(&path(&format!("{own}&resourceVersion={}", at - 1)))
            .await;
        assert_eq!(before.brief().await, ("ADDED".into(), "a".into()));
        // From a version that is yet to come: nothing before it.
        let mut ahead = cluster
            .watch(&path(&format!("{own}&resourceVersion={}", at + 1)))
            .await;
        let quiet = format!(
            "{own}&sendInitialEvents=false&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        );
        let mut quiet = cluster.watch(&path(&quiet)).await;
        assert!(quiet.is_silent().await);

        let change = json!({"data": {"a": "2"}});
        let object = format!("{CONFIG_MAPS}/a");
        cluster.patch(&object, MERGE, &change).await.expect(200);
        for watch in [&mut after, &mut before, &mut quiet] {
            assert_eq!(watch.brief().await, ("MODIFIED".into(), "a".into()));
        }
        assert!(ahead.is_silent().await, "that is the version it asked for");
        cluster.delete(&object, None).await.expect(200);
        for watch in [&mut after, &mut ahead] {
            let event = watch.next().await;
            assert_eq!(event["type"], "DELETED");
            assert_eq!(event["object"]["data"]["a"], "2");
            assert!(revision(&event["object"]) > at + 1);
        }
    });
}

#[test]
fn streaming_lists_say_where_the_list_ends() {
    with_cluster(2, |cluster| async move {
        let map = config_map("a", json!({"x": "1"}));
        cluster.post(CONFIG_MAPS, &map).await.expect(201);
        let query = "labelSelector=x&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        let mut watch = cluster
            .watch(&path(&format!("{query}&allowWatchBookmarks=true")))
            .await;
        assert_eq!(watch.brief().await.0, "ADDED");
        let end = watch.next().await;
        assert_eq!(end["type"], "BOOKMARK");
        assert_eq!(
            end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
            "true"
        );
        // Who does not want bookmarks gets none.
        let mut bare = cluster.watch(&path(query)).await;
        assert_eq!(bare.brief().await.0, "ADDED");
        assert!(bare.is_silent().await);
        let refused = cluster.get(&path("sendInitialEvents=true")).await;
        assert!(refused.refused(422).contains("resourceVersionMatch"));
    });
}

#[test]
fn selectors_make_changes_appear_and_go() {
    with_cluster(3, |cluster| async move {
        let mut watch = cluster.watch(&path("labelSelector=on%3Dyes")).await;
        let object = format!("{CONFIG_MAPS}/a");
        let map = config_map("a", json!({"on": "no"}));
        cluster.post(CONFIG_MAPS, &map).await.expect(201);
        assert!(watch.is_silent().await);
        let on = |value: &str| json!({"metadata": {"labels": {"on": value}}});
        cluster.patch(&object, MERGE, &on("yes")).await.expect(200);
        assert_eq!(watch.brief().await.0, "ADDED");
        let same = json!({"data": {"b": "1"}});
        cluster.patch(&object, MERGE, &same).await.expect(200);
        assert_eq!(watch.brief().await.0, "MODIFIED");
        let gone = cluster.patch(&object, MERGE, &on("no")).await.expect(200);
        let event = watch.next().await;
        assert_eq!(event["type"], "DELETED");
        // As it last matched, at the version of the change.
        assert_eq!(event["object"]["metadata"]["labels"]["on"], "yes");
        assert_eq!(revision(&event["object"]), revision(&gone));
        cluster.delete(&object, None).await.expect(200);
        assert!(watch.is_silent().await);
    });
}

#[test]
fn a_watch_misses_nothing_while_many_write() {
    with_cluster(4, |cluster| async move {
        let start = cluster.get(CONFIG_MAPS).await.expect(200);
        let from = revision(&start);
        let mut whole = cluster
            .watch(&path(&format!("resourceVersion={from}")))
            .await;
        let mut chosen = cluster
            .watch(&path(&format!(
                "resourceVersion={from}&labelSelector=on%3D1"
            )))
            .await;
        let writers = (0..8).map(|writer| {
            let cluster = cluster.clone();
            async move {
                let object = format!("{CONFIG_MAPS}/w{writer}");
                let map = config_map(&format!("w{writer}"), json!({"on": "0"}));
                cluster.post(CONFIG_MAPS, &map).await.expect(201);
                for step in 1..20 {
                    let labels = json!({"metadata": {"labels": {"on": (step % 2).to_string()}}});
                    cluster.patch(&object, MERGE, &labels).await.expect(200);
                }
                cluster.delete(&object, None).await.expect(200);
            }
        });
        futures::future::join_all(writers).await;
        let (mut last, mut count) = (from, 0);
        let mut there: BTreeMap<String, bool> = BTreeMap::new();
        while let Some(event) = whole.next_within(Duration::from_secs(1)).await {
            let now = revision(&event["object"]);
            assert!(now > last, "in order, each once");
            last = now;
            count += 1;
        }
        assert_eq!(count, 8 * 21);
        while let Some(event) = chosen.next_within(Duration::from_secs(1)).await {
            let name = event["object"]["metadata"]["name"]
                .as_str()
                .unwrap()
                .to_owned();
            let was = there
                .insert(name, event["type"] != "DELETED")
                .unwrap_or(false);
            assert_eq!(event["type"] == "ADDED", !was, "{event}");
        }
        assert!(there.len() == 8 && there.values().all(|there| !there));
    });
}

#[test]
fn bookmarks_come_and_watches_end_in_time() {
    with_cluster(5, |cluster| async move {
        let query = "labelSelector=none&timeoutSeconds=70&allowWatchBookmarks=true";
        let started = cluster.env.now();
        let mut watch = cluster.watch(&path(query)).await;
        let other = config_map("other", json!({}));
        let made = cluster.post(CONFIG_MAPS, &other).await.expect(201);
        let mut bookmarks = 0;
        while let Some(event) = watch.next_within(Duration::from_secs(100)).await {
            assert_eq!(event["type"], "BOOKMARK");
            assert!(revision(&event["object"]) >= revision(&made));
            bookmarks += 1;
        }
        assert_eq!(bookmarks, 2, "one in the minute, one before the end");
        assert_eq!(cluster.env.now().since(started).as_secs(), 70);
    });
}

#[test]
fn both_views_of_events_are_watched() {
    with_cluster(6, |cluster| async move {
        let new = "/apis/events.k8s.io/v1/namespaces/default/events";
        let core = "/api/v1/namespaces/default/events";
        let mut watch = cluster
            .watch(&format!("{new}?watch=1&fieldSelector=regarding.name%3Dp"))
            .await;
        let event = json!({
            "metadata": {"name": "e", "namespace": "default"}, "message": "hello",
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        });
        cluster.post(core, &event).await.expect(201);
        let seen = watch.next().await;
        assert_eq!(seen["object"]["apiVersion"], "events.k8s.io/v1");
        assert_eq!(seen["object"]["note"], "hello");
        let list = cluster
            .get(&format!("{new}?fieldSelector=regarding.name%3Dp"))
            .await
            .expect(200);
        assert_eq!(names(&list), ["e"]);
        let other = cluster
            .get(&format!("{new}?fieldSelector=regarding.name%3Dq"))
            .await
            .expect(200);
        assert!(names(&other).is_empty());
        let refused = cluster
            .get(&format!("{new}?fieldSelector=involvedObject.name%3Dp"))
            .await;
        assert_eq!(
            refused.refused(400),
            "field label not supported: involvedObject.name"
        );
    });
}
