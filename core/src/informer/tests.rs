//! The informer against an API in memory, on virtual time.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::client::{Client, DeleteOptions};
use crate::env::{SimEnv, TaskGroup};
use crate::resource::Resource;
use crate::status::Status;
use crate::testing::FakeApi;

const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");

async fn create(api: &FakeApi, name: &str) {
    api.client()
        .resource(&PODS)
        .namespace("default")
        .create(&json!({"metadata": {"name": name}}))
        .await
        .unwrap();
}

async fn delete(api: &FakeApi, name: &str) {
    api.client()
        .resource(&PODS)
        .namespace("default")
        .delete(name, DeleteOptions::default())
        .await
        .unwrap();
}

fn told(notices: &[Notice]) -> Vec<String> {
    notices
        .iter()
        .map(|notice| {
            let word = match notice {
                Notice::Added { initial: true, .. } => "initial",
                Notice::Added { .. } => "added",
                Notice::Updated { .. } => "updated",
                Notice::Deleted { unseen: true, .. } => "gone",
                Notice::Deleted { .. } => "deleted",
            };
            format!("{word} {}", notice.object().name())
        })
        .collect()
}

fn drain(subscription: &mut Subscription) -> Vec<String> {
    told(&std::iter::from_fn(|| subscription.try_next()).collect::<Vec<_>>())
}

fn world(options: ReflectorOptions) -> (SimEnv, Arc<FakeApi>, InformerFactory, TaskGroup) {
    let sim = SimEnv::new(3);
    let api = Arc::new(FakeApi::new(sim.env()));
    let client: Arc<dyn Client> = api.clone();
    let options = InformerOptions {
        reflector: options,
        ..InformerOptions::default()
    };
    let factory = InformerFactory::with_options(client, sim.env(), options);
    let group = TaskGroup::new(sim.env());
    (sim, api, factory, group)
}

#[test]
fn one_informer_serves_early_and_late_readers() {
    for streaming_list in [false, true] {
        let (sim, api, factory, group) = world(ReflectorOptions {
            streaming_list,
            ..ReflectorOptions::default()
        });
        sim.block_on(async move {
            create(&api, "a").await;
            let informer = factory.informer(&PODS);
            let mut early = informer.subscribe();
            factory.start(&group);
            informer.synced().await;
            create(&api, "b").await;
            group.env().sleep(Duration::from_secs(1)).await;
            assert_eq!(drain(&mut early), ["initial a", "added b"]);
            assert!(early.has_synced());
            let mut late = factory.informer(&PODS).subscribe();
            delete(&api, "a").await;
            group.env().sleep(Duration::from_secs(1)).await;
            assert_eq!(drain(&mut late), ["initial a", "initial b", "deleted a"]);
            assert_eq!(drain(&mut early), ["deleted a"]);
            assert_eq!(
                api.calls("list", &PODS) + api.calls("watch", &PODS),
                2,
                "{streaming_list}"
            );
            group.shutdown().await;
        });
    }
}

#[test]
fn a_lost_history_is_made_good_by_a_list() {
    let (sim, api, factory, group) = world(ReflectorOptions::default());
    sim.block_on(async move {
        create(&api, "a").await;
        create(&api, "b").await;
        let informer = factory.informer(&PODS);
        let mut reader = informer.subscribe();
        factory.start(&group);
        informer.synced().await;
        assert_eq!(drain(&mut reader), ["initial a", "initial b"]);
        // The watch is cut, and what happens meanwhile is compacted away.
        api.refuse(10, |request| {
            matches!(request.operation, crate::client::Operation::Watch(_))
                .then(|| Status::unavailable("down"))
        });
        api.cut_watches();
        delete(&api, "a").await;
        create(&api, "c").await;
        api.compact();
        group.env().sleep(Duration::from_secs(600)).await;
        let mut heard = drain(&mut reader);
        heard.sort();
        assert_eq!(heard, ["added c", "gone a", "updated b"]);
        assert_eq!(informer.indexer().len(), 2);
        group.shutdown().await;
    });
}

#[test]
fn an_empty_collection_syncs_too() {
    for streaming_list in [false, true] {
        let (sim, _api, factory, group) = world(ReflectorOptions {
            streaming_list,
            ..ReflectorOptions::default()
        });
        sim.block_on(async move {
            let informer = factory.informer(&PODS);
            factory.start(&group);
            group
                .env()
                .timeout(Duration::from_secs(5), informer.synced())
                .await
                .unwrap();
            group.shutdown().await;
        });
    }
}

#[test]
fn a_server_that_is_down_at_first_is_asked_again() {
    let (sim, api, factory, group) = world(ReflectorOptions::default());
    sim.block_on(async move {
        create(&api, "a").await;
        api.refuse(4, |_| Some(Status::unavailable("down")));
        let informer = factory.informer(&PODS);
        factory.start(&group);
        let began = group.env().now();
        informer.synced().await;
        // 0.8 + 1.6 + 3.2 + 6.4 seconds, each lengthened by up to itself.
        let took = group.env().now().since(began).as_secs_f64();
        assert!((12.0..=24.0).contains(&took), "{took}");
        group.shutdown().await;
    });
}

#[test]
fn a_slow_reader_holds_at_most_one_notice_an_object_past_its_limit() {
    let sim = SimEnv::new(9);
    let api = Arc::new(FakeApi::new(sim.env()));
    let options = InformerOptions {
        pending_limit: 2,
        ..InformerOptions::default()
    };
    let factory = InformerFactory::with_options(api.clone(), sim.env(), options);
    let group = TaskGroup::new(sim.env());
    sim.block_on(async move {
        let informer = factory.informer(&PODS);
        let mut reader = informer.subscribe();
        factory.start(&group);
        informer.synced().await;
        for name in ["a", "b", "c"] {
            create(&api, name).await;
            group.env().sleep(Duration::from_millis(10)).await;
        }
        for round in 0..50 {
            for name in ["a", "b"] {
                let patch = json!({"metadata": {"labels": {"round": round.to_string()}}});
                let patch = crate::client::Patch::Merge(patch);
                api.client()
                    .resource(&PODS)
                    .namespace("default")
                    .patch(name, patch)
                    .await
                    .unwrap();
            }
            group.env().sleep(Duration::from_millis(10)).await;
        }
        delete(&api, "c").await;
        group.env().sleep(Duration::from_secs(1)).await;
        let waiting: Vec<Notice> = std::iter::from_fn(|| reader.try_next()).collect();
        assert_eq!(told(&waiting), ["added a", "added b"]);
        assert_eq!(waiting[0].object().metadata().labels["round"], "49");
        group.shutdown().await;
    });
}

#[test]
fn a_resync_shows_everything_again() {
    let (sim, api, factory, group) = world(ReflectorOptions {
        resync: Some(Duration::from_secs(60)),
        ..ReflectorOptions::default()
    });
    sim.block_on(async move {
        create(&api, "a").await;
        let informer = factory.informer(&PODS);
        let mut reader = informer.subscribe();
        factory.start(&group);
        informer.synced().await;
        group.env().sleep(Duration::from_secs(130)).await;
        assert_eq!(drain(&mut reader), ["initial a", "updated a", "updated a"]);
        group.shutdown().await;
    });
}

#[test]
fn a_handler_knows_when_it_has_seen_what_was_there() {
    let (sim, api, factory, group) = world(ReflectorOptions::default());
    sim.block_on(async move {
        for n in 0..5 {
            create(&api, &format!("p{n}")).await;
        }
        let informer = factory.informer(&PODS);
        let seen = Arc::new(parking_lot::Mutex::new(0));
        let count = seen.clone();
        let sync = informer.handle(&group, "test", move |_| *count.lock() += 1);
        assert!(!sync.has_synced());
        factory.start(&group);
        sync.synced().await;
        assert_eq!(*seen.lock(), 5);
        group.shutdown().await;
    });
}
