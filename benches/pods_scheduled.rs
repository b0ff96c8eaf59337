//! How many pods a second are scheduled on 1,000 nodes?
//!
//! 5,000 pods (100m of CPU, 500Mi of memory) wait before the scheduler starts, on nodes of 4 CPUs, 32 GiB and 110 pods, as in
//! Kubernetes' `SchedulingBasic`. The time counts from the first bind that a watcher sees to the last. Nodes are objects; nothing
//! runs on them.
//!
//! * `https`: scheduler and watcher are clients by HTTP/2 over TLS with certificates of their own, the store is durable. This compares
//!   with a kube-scheduler beside its API server.
//! * `in process`: the same without HTTP, on the durable store and on the one in memory.
//! * `decisions`: the scheduler's decision alone, the bound of all others.
//!
//! `cargo bench --bench pods_scheduled`

#![allow(clippy::disallowed_methods, reason = "a bench measures real time")]

#[path = "support/plane.rs"]
mod plane;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput};
use futures::StreamExt;
use orlop::core::auth::UserInfo;
use orlop::core::client::{Client, ListOptions, Patch, WatchEvent, WatchOptions};
use orlop::core::env::TaskGroup;
use orlop::core::scheduling::{NodeInfo, NodeState, PodInfo, Snapshot};
use orlop::sched::{DecisionLoop, Profile, Scheduler};
use serde_json::{Value, json};

use self::plane::{NODES, PODS, Plane, pod};

const NODE_COUNT: usize = 1_000;
const POD_COUNT: usize = 5_000;
/// What the scheduler is to the API server.
const IDENTITY: &str = "system:kube-scheduler";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    decisions(&mut criterion);
    end_to_end(&mut criterion);
    criterion.final_summary();
}

fn node(number: usize) -> Value {
    let name = format!("node-{number:04}");
    let resources = json!({"cpu": "4", "memory": "32Gi", "pods": "110"});
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "allocatable": resources, "capacity": resources,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

fn decisions(criterion: &mut Criterion) {
    let nodes: Vec<NodeState> = (0..NODE_COUNT)
        .map(|number| {
            NodeState::new(Arc::new(
                NodeInfo::from_value(node(number)).expect("a node"),
            ))
        })
        .collect();
    let pods: Vec<Arc<PodInfo>> = (0..POD_COUNT)
        .map(|number| {
            let mut pod = pod(&format!("pod-{number}"));
            pod["metadata"]["namespace"] = "default".into();
            pod["metadata"]["uid"] = format!("uid-{number}").into();
            Arc::new(PodInfo::from_value(pod).expect("a pod"))
        })
        .collect();
    let empty = DecisionLoop::new(Profile::default_scheduler(), Snapshot::new(&nodes), 42)
        .expect("a profile");
    let mut group = support::group(criterion, "pods_scheduled");
    group.throughput(Throughput::Elements(POD_COUNT as u64));
    group.bench_function("decisions", |bench| {
        bench.iter_batched(
            || empty.fork(),
            |mut decisions| {
                for pod in &pods {
                    decisions.place(pod.clone()).expect("a node");
                }
                decisions
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn end_to_end(criterion: &mut Criterion) {
    let runtime = support::runtime();
    let mut group = support::group(criterion, "pods_scheduled");
    group
        .warm_up_time(Duration::from_millis(1))
        .throughput(Throughput::Elements(POD_COUNT as u64));
    for (name, durable, https) in [
        ("in process, memory", false, false),
        ("in process, durable", true, false),
        ("https, durable", true, true),
    ] {
        group.bench_function(name, |bench| {
            bench.iter_custom(|rounds| {
                (0..rounds)
                    .map(|_| runtime.block_on(schedule(durable, https)))
                    .sum()
            });
        });
    }
    group.finish();
}

/// Sets everything up, and measures from the first bind to the last.
async fn schedule(durable: bool, https: bool) -> Duration {
    let plane = Plane::start(durable).await;
    let admin = plane.plane.admin();
    for number in 0..NODE_COUNT {
        plane.make(&NODES, "", node(number)).await;
        // A new node is tainted until its controller has seen that it is ready.
        let ready = Patch::Merge(json!({"spec": {"taints": null}}));
        admin
            .resource(&NODES)
            .patch(&format!("node-{number:04}"), ready)
            .await
            .expect("a patch");
    }
    let fill = (0..64).map(|part| {
        let client = plane.local();
        async move {
            for number in (part..POD_COUNT).step_by(64) {
                let body = pod(&format!("pod-{number}"));
                client
                    .resource(&PODS)
                    .namespace("default")
                    .create(&body)
                    .await
                    .expect("a create");
            }
        }
    });
    futures::future::join_all(fill).await;

    let client: Arc<dyn Client> = if https {
        Arc::new(plane.remote_as(IDENTITY))
    } else {
        plane.plane.client(
            UserInfo::new(IDENTITY, ["system:authenticated"]),
            "kube-scheduler",
        )
    };
    let watcher: Arc<dyn Client> = if https {
        Arc::new(plane.remote())
    } else {
        plane.plane.admin()
    };
    let from = watcher
        .resource(&PODS)
        .list(ListOptions {
            limit: 1,
            ..ListOptions::default()
        })
        .await
        .expect("a list");
    let options = WatchOptions {
        from: Some(from.revision),
        ..WatchOptions::default()
    };
    let mut changes = watcher
        .resource(&PODS)
        .watch(options)
        .await
        .expect("a watch");

    let scheduler = Scheduler::builder(client, plane.plane.env().clone())
        .with_defaults()
        .build()
        .expect("a scheduler");
    let tasks = TaskGroup::new(plane.plane.env().clone());
    let token = tasks.token();
    tasks.spawn("scheduler", async move { scheduler.run(token).await });

    let (mut first, mut bound) = (None, 0);
    while bound < POD_COUNT {
        match changes
            .next()
            .await
            .expect("more changes")
            .expect("a change")
        {
            WatchEvent::Modified(pod) if is_bound(pod.stored_json()) => {
                first.get_or_insert_with(Instant::now);
                bound += 1;
            }
            _ => {}
        }
    }
    let elapsed = first.map_or(Duration::ZERO, |first| first.elapsed());
    tasks.shutdown().await;
    plane.plane.shutdown().await;
    elapsed
}

/// Whether a pod's JSON says on which node it is. Nobody changes these pods but to bind them, so that a look for the field's name will do.
fn is_bound(json: &[u8]) -> bool {
    const FIELD: &[u8] = br#""nodeName":"#;
    json.windows(FIELD.len()).any(|window| window == FIELD)
}
