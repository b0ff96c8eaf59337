use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use orlop_core::client::{Operation, Patch};
use orlop_core::env::{CancelToken, Env, SimEnv};
use orlop_core::status::Status;
use orlop_core::testing::FakeApi;
use parking_lot::Mutex;
use serde_json::json;

use super::*;

struct Room {
    env: Env,
    api: FakeApi,
    cache: ObjectCache,
    woken: Arc<Mutex<Vec<String>>>,
}

fn run<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Room) -> F) {
    let sim = SimEnv::new(3);
    let env = sim.env();
    let api = FakeApi::new(env.clone());
    let cache = ObjectCache::new(api.client(), env.clone(), &CancelToken::new());
    let woken = Arc::new(Mutex::new(Vec::new()));
    let log = woken.clone();
    cache.on_change(Arc::new(move |uid| log.lock().push(uid.to_owned())));
    sim.block_on(test(Room {
        env,
        api,
        cache,
        woken,
    }));
}

impl Room {
    async fn put(&self, name: &str, value: &str, immutable: bool) {
        let body =
            json!({"metadata": {"name": name}, "data": {"k": value}, "immutable": immutable});
        let client = self.api.client();
        let maps = client
            .resource(&ObjectKind::ConfigMap.resource())
            .namespace("ns");
        if maps.find(name).await.unwrap().is_none() {
            maps.create(&body).await.unwrap();
        } else {
            maps.patch(name, Patch::Merge(body)).await.unwrap();
        }
    }

    async fn value(&self, name: &str) -> Option<String> {
        let map = self.cache.config_map("ns", name).await.unwrap()?;
        map.data.as_ref().and_then(|data| data.get("k").cloned())
    }

    fn lists(&self) -> usize {
        self.api.calls("list", &ObjectKind::ConfigMap.resource())
    }

    fn gets(&self) -> usize {
        self.api.calls("get", &ObjectKind::ConfigMap.resource())
    }

    async fn settle(&self) {
        self.env.sleep(Duration::from_millis(10)).await;
    }
}

fn pod(uid: &str, maps: &[&str]) -> Pod {
    let volumes: Vec<_> = maps
        .iter()
        .map(|name| json!({"name": name, "configMap": {"name": name}}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": uid, "namespace": "ns", "uid": uid},
        "spec": {"containers": [], "volumes": volumes},
    }))
    .unwrap()
}

#[test]
fn everything_that_a_pod_names_is_found() {
    let env = |map: &str, secret: &str| {
        json!([
            {"name": "A", "valueFrom": {"configMapKeyRef": {"name": map, "key": "k"}}},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}},
            {"name": "C", "value": "v"},
        ])
    };
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {
            "imagePullSecrets": [{"name": "pull"}, {"name": ""}],
            "initContainers": [{"name": "i", "env": env("m-init", "s-init")}],
            "containers": [{"name": "c", "env": env("m-c", "s-c"),
                "envFrom": [{"configMapRef": {"name": "m-from"}}, {"secretRef": {"name": "s-from", "optional": true}}]}],
            "ephemeralContainers": [{"name": "e", "env": env("m-e", "s-e")}],
            "volumes": [
                {"name": "a", "configMap": {"name": "m-vol"}},
                {"name": "b", "secret": {"secretName": "s-vol"}},
                {"name": "c", "projected": {"sources": [
                    {"configMap": {"name": "m-proj"}}, {"secret": {"name": "s-proj"}}, {"serviceAccountToken": {"path": "t"}}]}},
                {"name": "d", "emptyDir": {}},
            ],
        },
    }))
    .unwrap();
    let mut names: BTreeMap<ObjectKind, Vec<String>> = BTreeMap::new();
    for object in references(&pod) {
        assert_eq!(object.namespace, "ns");
        names.entry(object.kind).or_default().push(object.name);
    }
    assert_eq!(
        names[&ObjectKind::ConfigMap],
        ["m-c", "m-e", "m-from", "m-init", "m-proj", "m-vol"]
    );
    assert_eq!(
        names[&ObjectKind::Secret],
        ["pull", "s-c", "s-e", "s-from", "s-init", "s-proj", "s-vol"]
    );
}

#[test]
fn one_watch_serves_all_pods_and_ends_with_the_last() {
    run(|room| async move {
        room.put("m", "1", false).await;
        room.cache.register(&pod("u1", &["m"]));
        room.cache.register(&pod("u2", &["m"]));
        assert_eq!(room.cache.watched(), 0);
        for _ in 0..3 {
            assert_eq!(room.value("m").await.as_deref(), Some("1"));
        }
        assert_eq!((room.lists(), room.cache.watched()), (1, 1));
        room.put("m", "2", false).await;
        room.settle().await;
        assert_eq!(room.value("m").await.as_deref(), Some("2"));
        assert_eq!(room.lists(), 1);
        assert_eq!(*room.woken.lock(), ["u1", "u2"]);
        room.cache.unregister("u1");
        assert_eq!(room.cache.watched(), 1);
        room.cache.unregister("u2");
        assert_eq!(room.cache.watched(), 0);
        room.cache.shutdown().await;
    });
}

#[test]
fn who_waits_for_a_missing_object_is_woken() {
    run(|room| async move {
        room.cache.register(&pod("u", &["m"]));
        assert_eq!(room.value("m").await, None);
        room.put("m", "1", false).await;
        room.settle().await;
        assert_eq!(*room.woken.lock(), ["u"]);
        assert_eq!(room.value("m").await.as_deref(), Some("1"));
        let client = room.api.client();
        let maps = client
            .resource(&ObjectKind::ConfigMap.resource())
            .namespace("ns");
        maps.delete("m", Default::default()).await.unwrap();
        room.settle().await;
        assert_eq!(*room.woken.lock(), ["u", "u"]);
        assert_eq!(room.value("m").await, None);
    });
}

#[test]
fn an_immutable_object_is_not_watched() {
    run(|room| async move {
        room.put("m", "1", true).await;
        room.cache.register(&pod("u", &["m"]));
        assert_eq!(room.value("m").await.as_deref(), Some("1"));
        room.settle().await;
        assert_eq!(room.cache.watched(), 0);
        let asked = (room.lists(), room.gets());
        assert_eq!(room.value("m").await.as_deref(), Some("1"));
        assert_eq!((room.lists(), room.gets()), asked);
    });
}

#[test]
fn an_idle_watch_ends_and_begins_again() {
    run(|room| async move {
        room.put("m", "1", false).await;
        room.cache.register(&pod("u", &["m"]));
        for _ in 0..10 {
            assert_eq!(room.value("m").await.as_deref(), Some("1"));
            room.env.sleep(Duration::from_secs(60)).await;
            assert_eq!(room.cache.watched(), 1);
        }
        let lists = room.lists();
        room.env.sleep(Duration::from_secs(301)).await;
        assert_eq!(room.cache.watched(), 0);
        room.put("m", "2", false).await;
        assert_eq!(room.value("m").await.as_deref(), Some("2"));
        assert_eq!(room.lists(), lists + 1);
    });
}

#[test]
fn what_no_pod_names_is_asked_for_each_time() {
    run(|room| async move {
        room.put("m", "1", false).await;
        let gets = room.gets();
        for n in 1..3 {
            assert_eq!(room.value("m").await.as_deref(), Some("1"));
            assert_eq!((room.gets(), room.lists()), (gets + n, 0));
        }
        assert_eq!(room.cache.watched(), 0);
    });
}

#[test]
fn a_pod_that_changes_names_other_objects() {
    run(|room| async move {
        room.put("a", "1", false).await;
        room.put("b", "1", false).await;
        room.cache.register(&pod("u", &["a"]));
        room.value("a").await;
        room.cache.register(&pod("u", &["b"]));
        assert_eq!(room.cache.watched(), 0);
        room.value("b").await;
        assert_eq!(room.cache.watched(), 1);
    });
}

#[test]
fn a_watch_that_cannot_begin_leaves_the_reason_of_the_api() {
    run(|room| async move {
        room.put("m", "1", false).await;
        let refuse = |request: &orlop_core::client::Request| {
            (request.target.resource.plural == "configmaps"
                && matches!(
                    request.operation,
                    Operation::List(_) | Operation::Get(_) | Operation::Watch(_)
                ))
            .then(|| Status::forbidden(&request.target.resource, "m", "no relationship found"))
        };
        room.api.refuse(3, refuse);
        room.cache.register(&pod("u", &["m"]));
        let begin = room.env.now();
        let error = room.cache.config_map("ns", "m").await.unwrap_err();
        assert!(error.message.contains("no relationship found"), "{error}");
        assert!(room.env.now().since(begin) <= Duration::from_secs(2));
        // The watch goes on trying; the pod is told when it works.
        room.env.sleep(Duration::from_secs(10)).await;
        assert_eq!(*room.woken.lock(), ["u"]);
        assert_eq!(room.value("m").await.as_deref(), Some("1"));
    });
}
