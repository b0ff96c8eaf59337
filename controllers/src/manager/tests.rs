use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use async_trait::async_trait;
use orlop_core::controller::Interests;
use orlop_core::env::SimEnv;
use orlop_core::testing::FakeApi;
use serde_json::json;

use super::*;
use crate::common::resources::{CONFIG_MAPS, PODS};

/// Panics over one object, fails three times over another, and counts.
#[derive(Default)]
struct Clumsy {
    calls: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

#[async_trait]
impl Controller for Clumsy {
    fn name(&self) -> &str {
        "clumsy-controller"
    }

    fn identity(&self) -> &str {
        "clumsy"
    }

    fn workers(&self) -> usize {
        3
    }

    fn interests(&self) -> Interests {
        Interests::new().for_each(CONFIG_MAPS).reads(PODS)
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        assert!(ctx.informer(&PODS).has_synced());
        let now = 1 + self.at_once.fetch_add(1, Ordering::Relaxed);
        self.most_at_once.fetch_max(now, Ordering::Relaxed);
        ctx.env().sleep(Duration::from_secs(1)).await;
        self.at_once.fetch_sub(1, Ordering::Relaxed);
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        match &*key.name {
            "bad" if calls < 20 => panic!("clumsy"),
            "slow" => Ok(Action::RequeueAfter(Duration::from_secs(100))),
            _ => Ok(Action::Done),
        }
    }
}

fn world() -> (SimEnv, FakeApi, Builder) {
    let sim = SimEnv::new(4);
    let api = FakeApi::new(sim.env());
    let client = api.client();
    let builder = ControllerManager::builder(
        move |identity| {
            assert!(
                [MANAGER_IDENTITY, "clumsy"].contains(&identity),
                "{identity}"
            );
            client.clone()
        },
        sim.env(),
    );
    (sim, api, builder)
}

#[test]
fn a_panic_is_one_objects_own_affair() {
    let (sim, api, builder) = world();
    let mut registry = Registry::default();
    let clumsy = Arc::new(Clumsy::default());
    let manager = builder
        .shared_controller(clumsy.clone())
        .metrics(&mut registry)
        .build()
        .unwrap();
    let env = sim.env();
    let counted = clumsy.clone();
    sim.block_on(async move {
        let group = TaskGroup::new(env.clone());
        let (stop, synced) = (group.token(), manager.synced());
        group.spawn("manager", async move { manager.run(&stop).await });
        for name in ["bad", "a", "b", "c", "d", "slow"] {
            let map = json!({"metadata": {"name": name}});
            api.client()
                .resource(&CONFIG_MAPS)
                .namespace("n")
                .create(&map)
                .await
                .unwrap();
        }
        env.sleep(Duration::from_secs(10)).await;
        assert!(synced.load(Ordering::Relaxed));
        // Five once, and the bad one again and again.
        assert!(counted.calls.load(Ordering::Relaxed) > 8);
        assert_eq!(counted.most_at_once.load(Ordering::Relaxed), 3);
        env.sleep(Duration::from_secs(200)).await;
        group.shutdown().await;
        let after = counted.calls.load(Ordering::Relaxed);
        env.sleep(Duration::from_secs(500)).await;
        assert_eq!(
            counted.calls.load(Ordering::Relaxed),
            after,
            "stopped is stopped"
        );
    });
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for part in [
        "workqueue_adds_total{name=\"clumsy-controller\"}",
        "controller_runtime_reconcile_total{controller=\"clumsy-controller\",result=\"error\"}",
        "result=\"requeue_after\"} 3",
        "running_managed_controllers{name=\"clumsy-controller\"} 0",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn what_cannot_be_built_says_why() {
    let (_, _, builder) = world();
    let twice = builder
        .controller(Clumsy::default())
        .controller(Clumsy::default())
        .build();
    assert!(matches!(twice, Err(Error::Duplicate(name)) if name == "clumsy-controller"));
    let (_, _, builder) = world();
    assert!(matches!(
        builder.with_defaults().build(),
        Err(Error::NoCatalog)
    ));
    let (_, _, builder) = world();
    assert!(matches!(
        builder.without("job-controller").build(),
        Err(Error::Unknown(_))
    ));
    let (_, _, builder) = world();
    let all = builder
        .with_defaults()
        .catalog(FixedCatalog::new([]))
        .root_ca("PEM")
        .without("job-controller")
        .build()
        .unwrap();
    assert_eq!(all.names().len(), 15);
}

#[test]
fn of_two_managers_one_works() {
    let (sim, api, _) = world();
    let env = sim.env();
    sim.block_on(async move {
        let group = TaskGroup::new(env.clone());
        let mut both = Vec::new();
        for identity in ["one", "two"] {
            let (client, counted) = (api.client(), Arc::new(Clumsy::default()));
            let manager = ControllerManager::builder(move |_| client.clone(), env.clone())
                .shared_controller(counted.clone())
                .leader_election(LeaderElectionOptions::new(
                    "kube-system",
                    "kube-controller-manager",
                    identity,
                ))
                .build()
                .unwrap();
            let stop = group.token().child();
            let token = stop.clone();
            group.spawn("manager", async move { manager.run(&token).await });
            both.push((stop, counted));
        }
        api.client()
            .resource(&CONFIG_MAPS)
            .namespace("n")
            .create(&json!({"metadata": {"name": "a"}}))
            .await
            .unwrap();
        env.sleep(Duration::from_secs(30)).await;
        let calls = |n: usize| -> usize {
            let (_, counted): &(CancelToken, Arc<Clumsy>) = &both[n];
            counted.calls.load(Ordering::Relaxed)
        };
        let leader = usize::from(calls(1) > 0);
        assert_eq!((calls(leader), calls(1 - leader)), (1, 0));
        both[leader].0.cancel();
        env.sleep(Duration::from_secs(10)).await;
        assert_eq!(calls(1 - leader), 1, "the other takes over at once");
        group.shutdown().await;
    });
}
