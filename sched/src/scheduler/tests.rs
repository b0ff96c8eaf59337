//! The whole scheduler on an API in memory, on virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use orlop_core::client::{Client, DeleteOptions, Patch};
use orlop_core::env::{CancelToken, Env, SimEnv, SimOptions, TaskGroup};
use orlop_core::resource::Resource;
use orlop_core::scheduling::{
    CycleState, Filter, Handle, NodeView, Permit, PodInfo, PostFilter, PostFilterResult, Rejection,
    Reserve, SchedulerPlugin, Snapshot, Verdict,
};
use orlop_core::status::Status;
use orlop_core::testing::FakeApi;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::Scheduler;
use crate::{Profile, SchedulerMetrics};

const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");
const NODES: Resource = Resource::cluster("", "v1", "nodes", "Node");
const EVENTS: Resource = Resource::namespaced("", "v1", "events", "Event");

async fn add_node(client: &Arc<dyn Client>, name: &str, cpu: &str) {
    let node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}},
    });
    client.resource(&NODES).create(&node).await.unwrap();
}

fn spec(cpu: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
}

async fn add_pod(client: &Arc<dyn Client>, name: &str, spec: Value) {
    let pod = json!({"metadata": {"name": name, "namespace": "d"}, "spec": spec, "status": {"phase": "Pending"}});
    client
        .resource(&PODS)
        .namespace("d")
        .create(&pod)
        .await
        .unwrap();
}

fn bindings(api: &FakeApi) -> BTreeMap<String, String> {
    let placed = |value: &Value| value["spec"]["nodeName"].as_str().map(str::to_owned);
    api.objects(&PODS)
        .iter()
        .filter_map(|pod| Some((pod.name().to_owned(), placed(&pod.value().unwrap())?)))
        .collect()
}

fn condition(api: &FakeApi, name: &str) -> Value {
    let pod = api.object(&PODS, "d", name).unwrap().value().unwrap();
    pod["status"]["conditions"][0].clone()
}

fn events(api: &FakeApi, reason: &str) -> Vec<String> {
    let mut messages: Vec<String> = api
        .objects(&EVENTS)
        .iter()
        .map(|event| event.value().unwrap())
        .filter(|event| event["reason"] == reason)
        .map(|event| {
            event["message"]
                .as_str()
                .or(event["note"].as_str())
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    messages.sort();
    messages
}

/// Runs a scheduler beside a test.
fn with_scheduler<F, O>(
    seed: u64,
    profile: Profile,
    test: impl FnOnce(FakeApi, Arc<dyn Client>, Env) -> F + Send + 'static,
) -> O
where
    F: Future<Output = O> + Send + 'static,
    O: Send + 'static,
{
    let sim = SimEnv::with_options(SimOptions {
        seed,
        ..SimOptions::default()
    });
    let env = sim.env();
    sim.block_on(async move {
        let api = FakeApi::new(env.clone());
        let client = api.client();
        let group = TaskGroup::new(env.clone());
        let cancel = CancelToken::new();
        let scheduler = Scheduler::builder(client.clone(), env.clone())
            .profile(profile)
            .build()
            .unwrap();
        group.spawn("scheduler", scheduler.run(cancel.clone()));
        let output = test(api, client, env).await;
        cancel.cancel();
        group.idle().await;
        output
    })
}

async fn seconds(env: &Env, seconds: u64) {
    env.sleep(Duration::from_secs(seconds)).await;
}

#[test]
fn two_hundred_pods_on_twenty_nodes_alike_for_the_same_seed() {
    let run = |seed| {
        with_scheduler(
            seed,
            Profile::default_scheduler(),
            |api, client, env| async move {
                for node in 0..20 {
                    add_node(&client, &format!("n{node}"), "4").await;
                }
                for pod in 0..200 {
                    add_pod(&client, &format!("p{pod}"), spec("300m")).await;
                    if pod % 50 == 0 {
                        seconds(&env, 1).await;
                    }
                }
                seconds(&env, 30).await;
                bindings(&api)
            },
        )
    };
    let first = run(1);
    assert_eq!(first.len(), 200);
    let mut used: BTreeMap<&str, usize> = BTreeMap::new();
    for node in first.values() {
        *used.entry(node).or_default() += 1;
    }
    // 13 pods would still fit on a node, but the emptiest node is the best one.
    assert!(
        used.len() == 20 && used.values().all(|pods| *pods == 10),
        "{used:?}"
    );
    assert_eq!(first, run(1));
    assert_ne!(first, run(2), "the choice among equals depends on the seed");
}

#[test]
fn a_pod_that_fits_nowhere_says_why_and_comes_back() {
    with_scheduler(
        3,
        Profile::default_scheduler(),
        |api, client, env| async move {
            add_pod(&client, "p", spec("2")).await;
            seconds(&env, 1).await;
            let first = condition(&api, "p");
            assert_eq!(first["message"], "no nodes available to schedule pods");
            assert_eq!(
                (&first["type"], &first["status"], &first["reason"]),
                (
                    &json!("PodScheduled"),
                    &json!("False"),
                    &json!("Unschedulable")
                )
            );

            add_node(&client, "small", "1").await;
            add_node(&client, "tainted", "4").await;
            let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
            client
                .resource(&NODES)
                .patch("tainted", Patch::Merge(taint))
                .await
                .unwrap();
            seconds(&env, 20).await;
            let second = condition(&api, "p");
            assert_eq!(
                second["message"],
                "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s)."
            );
            // The status is the same as before, so the time is, too.
            assert_eq!(second["lastTransitionTime"], first["lastTransitionTime"]);
            assert!(
                events(&api, "FailedScheduling")
                    .contains(&second["message"].as_str().unwrap().to_owned())
            );

            let attempts = api.calls("patch", &PODS);
            client
                .resource(&NODES)
                .patch(
                    "tainted",
                    Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}})),
                )
                .await
                .unwrap();
            seconds(&env, 20).await;
            assert_eq!(api.calls("patch", &PODS), attempts, "a label does not help");

            client
                .resource(&NODES)
                .patch("tainted", Patch::Merge(json!({"spec": {"taints": null}})))
                .await
                .unwrap();
            seconds(&env, 20).await;
            assert_eq!(
                bindings(&api),
                BTreeMap::from([("p".to_owned(), "tainted".to_owned())])
            );
            assert_eq!(
                events(&api, "Scheduled"),
                ["Successfully assigned d/p to tainted"]
            );
        },
    );
}

#[test]
fn room_that_becomes_free_is_used() {
    with_scheduler(
        4,
        Profile::default_scheduler(),
        |api, client, env| async move {
            add_node(&client, "n", "1").await;
            add_pod(&client, "first", spec("800m")).await;
            seconds(&env, 1).await;
            let high = json!({"priority": 10, "containers": spec("800m")["containers"]});
            add_pod(&client, "low", spec("800m")).await;
            add_pod(&client, "high", high).await;
            seconds(&env, 30).await;
            assert_eq!(bindings(&api).len(), 1);
            let gone = DeleteOptions {
                grace_period_seconds: Some(0),
                ..DeleteOptions::default()
            };
            client
                .resource(&PODS)
                .namespace("d")
                .delete("first", gone)
                .await
                .unwrap();
            seconds(&env, 30).await;
            let placed = bindings(&api);
            assert!(
                placed.contains_key("high") && !placed.contains_key("low"),
                "{placed:?}"
            );
            // A pod at its end takes nothing either.
            client
                .resource(&PODS)
                .namespace("d")
                .patch_status(
                    "high",
                    Patch::Merge(json!({"status": {"phase": "Succeeded"}})),
                )
                .await
                .unwrap();
            seconds(&env, 30).await;
            assert!(bindings(&api).contains_key("low"));
        },
    );
}

#[test]
fn gated_foreign_and_unserved_pods() {
    with_scheduler(
        5,
        Profile::default_scheduler(),
        |api, client, env| async move {
            add_node(&client, "n", "4").await;
            add_pod(
                &client,
                "gated",
                json!({"schedulingGates": [{"name": "g"}], "containers": []}),
            )
            .await;
            add_pod(
                &client,
                "foreign",
                json!({"schedulerName": "other", "containers": []}),
            )
            .await;
            add_pod(
                &client,
                "spread",
                json!({"topologySpreadConstraints": [{"maxSkew": 1}], "containers": []}),
            )
            .await;
            seconds(&env, 10).await;
            assert_eq!(bindings(&api).into_keys().collect::<Vec<_>>(), ["spread"]);
            assert_eq!(
                events(&api, "ConstraintNotServed"),
                [
                    "The pod has constraints that scheduler profile \"default-scheduler\" has no plug-in for, and is scheduled \
              without regard to them: PodTopologySpread"
                ]
            );
            client
                .resource(&PODS)
                .namespace("d")
                .patch(
                    "gated",
                    Patch::Merge(json!({"spec": {"schedulingGates": null}})),
                )
                .await
                .unwrap();
            seconds(&env, 10).await;
            assert!(bindings(&api).contains_key("gated"));
        },
    );
}

#[test]
fn refused_bindings_cut_watches_and_compaction_heal() {
    for seed in 0..10 {
        with_scheduler(
            seed,
            Profile::default_scheduler(),
            |api, client, env| async move {
                for node in 0..4 {
                    add_node(&client, &format!("n{node}"), "4").await;
                }
                api.refuse(15, |request| {
                    (request.target.subresource.as_deref() == Some("binding"))
                        .then(|| Status::internal("no luck"))
                });
                for pod in 0..40 {
                    add_pod(&client, &format!("p{pod}"), spec("300m")).await;
                    match pod {
                        10 | 20 => api.cut_watches(),
                        30 => {
                            api.compact();
                            api.cut_watches();
                        }
                        _ => {}
                    }
                    env.sleep(Duration::from_millis(100)).await;
                }
                seconds(&env, 120).await;
                let placed = bindings(&api);
                assert_eq!(placed.len(), 40);
                for node in 0..4 {
                    let pods = placed
                        .values()
                        .filter(|on| **on == format!("n{node}"))
                        .count();
                    assert!(pods <= 13, "{pods} × 300m on 4 cores");
                }
            },
        );
    }
}

/// Takes part where the tests want it to.
#[derive(Default)]
struct Probe {
    handle: Mutex<Option<Arc<dyn Handle>>>,
    wait: Option<Duration>,
    panics: AtomicBool,
    reserved: Arc<AtomicUsize>,
}

impl SchedulerPlugin for Probe {
    fn name(&self) -> &str {
        "Probe"
    }

    fn attach(&self, handle: Arc<dyn Handle>) {
        *self.handle.lock() = Some(handle);
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_post_filter(&self) -> Option<&dyn PostFilter> {
        Some(self)
    }

    fn as_reserve(&self) -> Option<&dyn Reserve> {
        Some(self)
    }

    fn as_permit(&self) -> Option<&dyn Permit> {
        Some(self)
    }
}

impl Filter for Probe {
    fn filter(&self, _: &CycleState, pod: &PodInfo, _: NodeView<'_>) -> Verdict {
        assert!(!self.panics.swap(false, Ordering::Relaxed), "out of order");
        if pod.name() == "unwanted" {
            Verdict::unschedulable("node(s) don't like it")
        } else {
            Verdict::Success
        }
    }
}

impl PostFilter for Probe {
    fn post_filter(
        &self,
        _: &mut CycleState,
        _: &Arc<PodInfo>,
        snapshot: &Snapshot,
        rejections: &[Option<&Rejection>],
    ) -> PostFilterResult {
        assert_eq!(rejections.len(), snapshot.len());
        let verdict = Verdict::unschedulable(
            "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
        );
        PostFilterResult {
            verdict,
            nominated_node: None,
        }
    }
}

impl Reserve for Probe {
    fn reserve(&self, _: &mut CycleState, _: &PodInfo, _: &Arc<str>) -> Verdict {
        self.reserved.fetch_add(1, Ordering::Relaxed);
        Verdict::Success
    }

    fn unreserve(&self, _: &mut CycleState, _: &PodInfo, _: &Arc<str>) {
        self.reserved.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Permit for Probe {
    fn permit(&self, _: &mut CycleState, pod: &PodInfo, _: &Arc<str>) -> Verdict {
        match self.wait {
            Some(time) if pod.name().starts_with("wait") => Verdict::Wait(time),
            _ => Verdict::Success,
        }
    }
}

#[test]
fn what_no_plugin_can_help_says_so() {
    let profile = Profile::default_scheduler()
        .plugin(Probe::default())
        .unwrap();
    with_scheduler(6, profile, |api, client, env| async move {
        add_node(&client, "n", "1").await;
        add_pod(&client, "unwanted", spec("100m")).await;
        seconds(&env, 5).await;
        assert_eq!(
            condition(&api, "unwanted")["message"],
            "0/1 nodes are available: 1 node(s) don't like it. preemption: 0/1 nodes are available: 1 Preemption is not \
             helpful for scheduling."
        );
    });
}

#[test]
fn permission_is_given_refused_or_runs_out() {
    let probe = Arc::new(Probe {
        wait: Some(Duration::from_secs(60)),
        ..Probe::default()
    });
    let profile = Profile::default_scheduler()
        .shared(probe.clone(), 1)
        .unwrap();
    with_scheduler(7, profile, move |api, client, env| async move {
        add_node(&client, "n", "4").await;
        for name in ["wait-a", "wait-b", "wait-c", "free"] {
            add_pod(&client, name, spec("100m")).await;
        }
        seconds(&env, 5).await;
        assert_eq!(bindings(&api).into_keys().collect::<Vec<_>>(), ["free"]);
        let handle = probe.handle.lock().clone().unwrap();
        let waiting = handle.waiting_pods();
        assert_eq!(
            waiting
                .iter()
                .map(|waiting| waiting.pod.name())
                .collect::<Vec<_>>(),
            ["wait-a", "wait-b", "wait-c"]
        );
        assert!(handle.allow(waiting[0].pod.uid(), "Probe"));
        assert!(handle.reject(waiting[1].pod.uid(), "Probe", "not with me".to_owned()));
        seconds(&env, 5).await;
        assert_eq!(
            bindings(&api).into_keys().collect::<Vec<_>>(),
            ["free", "wait-a"]
        );
        assert_eq!(condition(&api, "wait-b")["message"], "not with me");
        seconds(&env, 52).await;
        assert_eq!(
            condition(&api, "wait-c")["message"],
            "timeout after 60s waiting on permit"
        );
        // Refused ones gave back what was reserved, and were tried again since.
        let waiting = handle.waiting_pods().len();
        assert_eq!(probe.reserved.load(Ordering::Relaxed), 2 + waiting);
    });
}

#[test]
fn a_panic_fails_one_attempt() {
    let probe = Probe {
        panics: AtomicBool::new(true),
        ..Probe::default()
    };
    let profile = Profile::default_scheduler().plugin(probe).unwrap();
    with_scheduler(8, profile, |api, client, env| async move {
        add_node(&client, "n", "4").await;
        add_pod(&client, "p", spec("100m")).await;
        seconds(&env, 10).await;
        assert_eq!(
            events(&api, "FailedScheduling"),
            ["a scheduler plug-in panicked: out of order"]
        );
        assert_eq!(bindings(&api).len(), 1);
    });
}

#[test]
fn a_second_start_binds_nothing_twice() {
    let sim = SimEnv::new(9);
    let env = sim.env();
    sim.block_on(async move {
        let api = FakeApi::new(env.clone());
        let client = api.client();
        add_node(&client, "n", "1").await;
        for pod in 0..8 {
            add_pod(&client, &format!("p{pod}"), spec("200m")).await;
        }
        for _ in 0..3 {
            let mut registry = Registry::default();
            let metrics = SchedulerMetrics::register(&mut registry);
            let cancel = CancelToken::new();
            let scheduler = Scheduler::builder(client.clone(), env.clone())
                .with_defaults()
                .metrics(metrics)
                .build()
                .unwrap();
            let group = TaskGroup::new(env.clone());
            group.spawn("scheduler", scheduler.run(cancel.clone()));
            seconds(&env, 20).await;
            cancel.cancel();
            group.idle().await;
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            assert!(
                text.contains("scheduler_pending_pods{queue=\"unschedulable\"} 3"),
                "{text}"
            );
            assert!(
                text.contains("scheduler_schedule_attempts_total{"),
                "{text}"
            );
        }
        assert_eq!(bindings(&api).len(), 5);
        assert_eq!(events(&api, "Scheduled").len(), 5);
    });
}
