use std::future::Future;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::{apps::v1::Deployment, networking::v1::IPAddress};
use orlop_core::client::{Client, DeleteOptions, ListOptions, Patch, WatchOptions};
use orlop_core::env::{Env, SimEnv, TaskGroup};
use orlop_core::informer::InformerFactory;
use orlop_core::resource::Resource;
use orlop_core::testing::FakeApi;
use serde_json::json;

use super::*;

fn run<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Arc<dyn Client>, Env) -> F) {
    let sim = SimEnv::new(7);
    let env = sim.env();
    let client = Arc::new(FakeApi::new(env.clone())).client();
    sim.block_on(test(client, env));
}

fn map(name: &str, value: &str) -> ConfigMap {
    let mut map = ConfigMap {
        data: Some([("k".to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    };
    map.metadata.name = Some(name.into());
    map
}

#[test]
fn every_kind_knows_its_resource() {
    assert_eq!(
        Deployment::resource(),
        Resource::namespaced("apps", "v1", "deployments", "Deployment")
    );
    assert_eq!(
        Namespace::resource(),
        Resource::cluster("", "v1", "namespaces", "Namespace")
    );
    let address = Resource::cluster("networking.k8s.io", "v1", "ipaddresses", "IPAddress");
    assert_eq!(IPAddress::resource(), address);
    assert_eq!(
        crate::resources::find_gvk(&address.gvk()).unwrap().resource,
        address
    );
}

#[test]
fn objects_are_made_read_changed_and_deleted() {
    run(|client, _| async move {
        let maps = Api::<ConfigMap>::namespaced(client, "default").field_manager("test");
        let made = maps.create(&map("a", "1")).await.unwrap();
        assert_eq!(made.metadata.namespace.as_deref(), Some("default"));
        assert!(
            maps.create(&map("a", "1"))
                .await
                .unwrap_err()
                .is_already_exists()
        );
        let mut changed = (*made).clone();
        changed.data = map("a", "2").data;
        maps.update(&changed).await.unwrap();
        assert_eq!(maps.get("a").await.unwrap().data, changed.data);
        let patched = maps
            .patch("a", Patch::Merge(json!({"data": {"k": null, "l": "3"}})))
            .await
            .unwrap();
        assert_eq!(
            patched.data,
            Some([("l".to_owned(), "3".to_owned())].into())
        );
        maps.create(&map("b", "1")).await.unwrap();
        let list = maps.list(ListOptions::default()).await.unwrap();
        let names: Vec<_> = list
            .items
            .iter()
            .map(|map| map.metadata.name.as_deref().unwrap())
            .collect();
        assert_eq!(names, ["a", "b"]);
        maps.delete("a", DeleteOptions::default()).await.unwrap();
        assert_eq!(maps.find("a").await.unwrap(), None);
    });
}

#[test]
fn watches_and_informers_have_types() {
    run(|client, env| async move {
        let maps = Api::<ConfigMap>::namespaced(client.clone(), "default");
        maps.create(&map("a", "1")).await.unwrap();
        let group = TaskGroup::new(env.clone());
        let factory = InformerFactory::new(client, env);
        let informer = Informer::<ConfigMap>::all(&factory);
        let mut notices = informer.subscribe();
        factory.start(&group);
        informer.synced().await;
        assert_eq!(
            informer.get("default", "a").unwrap().unwrap().data,
            map("a", "1").data
        );
        assert_eq!(
            informer.in_namespace("other").unwrap(),
            Vec::<Arc<ConfigMap>>::new()
        );

        let mut watch = Box::pin(maps.watch(WatchOptions::default()).await.unwrap());
        let Some(Ok(Event::Added(first))) = watch.next().await else {
            panic!()
        };
        assert_eq!(first.metadata.name.as_deref(), Some("a"));
        maps.update(&map("a", "2")).await.unwrap();
        let Some(Ok(Event::Modified(second))) = watch.next().await else {
            panic!()
        };
        assert_eq!(second.data, map("a", "2").data);

        assert!(
            matches!(notices.next().await.unwrap(), Some(Notice::Added { object, .. }) if object.data == map("a", "1").data)
        );
        assert!(
            matches!(notices.next().await.unwrap(), Some(Notice::Updated { new, .. }) if new.data == map("a", "2").data)
        );
        assert_eq!(informer.list().unwrap().len(), 1);
        group.shutdown().await;
    });
}
