//! How long does it take until a pod that was created is `Running`, and how much of that is ours?
//!
//! A control plane in memory with scheduler and controllers, and a node over a real containerd, all in this process. The time counts
//! from the create to the change by which a watcher sees that the pod runs: admission, scheduling, the kubelet with the pod's cgroups and
//! the mount of its token, the engine, and the status written. Removing the pods is not in it. One pod, and ten created at once.
//!
//! Beside it in the same run: the bare engine (`engine`), which makes the same sandbox and container by the three calls that they take, for
//! ten pods at once, too. What `node` takes longer is ours.
//!
//! `cargo bench --bench pod_start`; needs root, containerd, runc, CNI's plug-ins, a static busybox and unshare.

#![allow(clippy::disallowed_methods, reason = "a bench measures real time")]

#[path = "../runtime-cri/tests/support/containerd.rs"]
mod containerd;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use futures::StreamExt;
use futures::future::join_all;
use orlop::core::client::{Client, DeleteOptions, ListOptions, WatchEvent, WatchOptions};
use orlop::core::env::Env;
use orlop::core::resource::Resource;
use orlop::core::runtime::{
    ContainerConfig, ImageSpec, PullRequest, Runtime as _, SandboxConfig, SandboxId,
};
use orlop::kubelet::cgroups::Hierarchies;
use orlop::kubelet::config::KubeletConfig;
use orlop::runtime_cri::CriRuntime;
use orlop::{ControlPlane, HostNode};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use self::containerd::{BUSYBOX, Containerd, isolated};

const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");
const ACCOUNTS: Resource = Resource::namespaced("", "v1", "serviceaccounts", "ServiceAccount");
/// How many pods are started at once.
const COUNTS: [usize; 2] = [1, 10];
/// The node's address: on the loopback of the bench's own network.
const ADDRESS: &str = "192.0.2.10";
/// What every container runs.
const COMMAND: [&str; 2] = ["sleep", "1000000"];

fn main() {
    isolated::isolated_program("pod_start", containerd::missing, |directory| {
        let address = format!("{ADDRESS}/32");
        isolated::run("ip", &["address", "add", &address, "dev", "lo"]);
        let engine = Containerd::start(directory);
        let runtime = support::runtime();
        let mut criterion = Criterion::default().configure_from_args();
        let mut group = support::group(&mut criterion, "pod_start");
        let cri = runtime.block_on(connected(&engine));
        for count in COUNTS {
            bare(&mut group, &runtime, &cri, count);
        }
        let cgroups = Cgroups(format!("/orlop-bench-{}", directory_name(directory)));
        let plane = runtime.block_on(start(directory, cri, &cgroups.0));
        for count in COUNTS {
            through_the_api(&mut group, &runtime, &*plane.admin(), count);
        }
        group.finish();
        criterion.final_summary();
        runtime.block_on(plane.shutdown());
    });
}

/// The last part of a path that nobody else has.
fn directory_name(directory: &Path) -> String {
    let name = directory.file_name().unwrap_or_default();
    name.to_string_lossy().trim_start_matches('.').to_owned()
}

/// Names are unique over all rounds.
fn name() -> String {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    format!("bench-{}", NAMES.fetch_add(1, Ordering::Relaxed))
}

/// The engine, when it answers and has the image.
async fn connected(engine: &Containerd) -> Arc<CriRuntime> {
    let env = Env::tokio();
    let runtime = CriRuntime::new(&engine.socket(), env.clone()).expect("an address");
    for _ in 0..300 {
        if runtime.status().await.is_ok() {
            break;
        }
        env.sleep(Duration::from_millis(50)).await;
    }
    runtime
        .pull_image(&PullRequest::new(BUSYBOX))
        .await
        .expect("the image");
    Arc::new(runtime)
}

fn bare(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    cri: &Arc<CriRuntime>,
    count: usize,
) {
    let round = async || {
        let began = Instant::now();
        let sandboxes = join_all((0..count).map(|_| start_bare(cri))).await;
        let elapsed = began.elapsed();
        join_all(sandboxes.iter().map(|sandbox| async {
            cri.stop_sandbox(sandbox).await.expect("an end");
            cri.remove_sandbox(sandbox).await.expect("a removal");
        }))
        .await;
        elapsed
    };
    group.bench_function(format!("engine/{count}"), |bench| {
        bench.iter_custom(|rounds| (0..rounds).map(|_| runtime.block_on(round())).sum());
    });
}

async fn start_bare(cri: &CriRuntime) -> SandboxId {
    let name = name();
    let config = SandboxConfig::new("default", &name, &name);
    let sandbox = cri.run_sandbox(&config).await.expect("a sandbox");
    let mut config = ContainerConfig::new("app", ImageSpec::new(BUSYBOX));
    config.command = COMMAND.map(str::to_owned).into();
    let container = cri
        .create_container(&sandbox, &config)
        .await
        .expect("a container");
    cri.start_container(&container).await.expect("a start");
    sandbox
}

/// A control plane and this machine as its node.
async fn start(directory: &Path, cri: Arc<CriRuntime>, cgroups: &str) -> ControlPlane {
    let mut config = KubeletConfig::new("node");
    config.node_ips = ADDRESS.parse().into_iter().collect();
    config.root_dir = directory.join("kubelet");
    config.pod_logs_dir = directory.join("pods");
    config.container_logs_dir = Some(directory.join("links"));
    config.resolv_conf = None;
    config.restrict_oom_score_adj = true;
    config.cgroup_root = cgroups.to_owned();
    // However full the disk is that this happens to run on.
    config.eviction_hard.clear();
    let plane = ControlPlane::builder()
        .in_memory()
        .with_defaults()
        .node(HostNode::new(cri, config).without_proxy())
        .start()
        .await
        .expect("a control plane");
    let (admin, env) = (plane.admin(), plane.env().clone());
    // Pods are refused until their account is there.
    for _ in 0..600 {
        let account = admin.resource(&ACCOUNTS).namespace("default");
        if account.find("default").await.expect("an answer").is_some() {
            break;
        }
        env.sleep(Duration::from_millis(10)).await;
    }
    // The first pod waits until the node is ready.
    round(&*admin, 1).await;
    plane
}

fn through_the_api(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    client: &dyn Client,
    count: usize,
) {
    group.bench_function(format!("node/{count}"), |bench| {
        bench.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| runtime.block_on(round(client, count)))
                .sum()
        });
    });
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "app", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "command": COMMAND,
            }],
        },
    })
}

/// Creates pods, and measures until all of them run. Afterwards they are removed.
async fn round(client: &dyn Client, count: usize) -> Duration {
    let pods = || client.resource(&PODS).namespace("default");
    let from = pods()
        .list(ListOptions::default())
        .await
        .expect("a list")
        .revision;
    let options = WatchOptions {
        from: Some(from),
        ..WatchOptions::default()
    };
    let mut changes = pods().watch(options).await.expect("a watch");
    let names: BTreeSet<String> = (0..count).map(|_| name()).collect();

    let began = Instant::now();
    join_all(names.iter().map(|name| async {
        pods().create(&pod(name)).await.expect("a create");
    }))
    .await;
    let mut waiting = names.clone();
    while !waiting.is_empty() {
        if let WatchEvent::Modified(pod) = next(&mut changes).await {
            let pod: Value = serde_json::from_slice(pod.stored_json()).expect("a pod");
            match pod["status"]["phase"].as_str() {
                Some("Running") => {
                    waiting.remove(pod["metadata"]["name"].as_str().unwrap_or_default());
                }
                Some("Failed" | "Succeeded") => panic!("it does not run: {pod}"),
                _ => {}
            }
        }
    }
    let elapsed = began.elapsed();

    join_all(names.iter().map(|name| async {
        let options = DeleteOptions::default();
        pods().delete(name, options).await.expect("a delete");
    }))
    .await;
    let mut left = count;
    while left > 0 {
        if let WatchEvent::Deleted(_) = next(&mut changes).await {
            left -= 1;
        }
    }
    elapsed
}

async fn next(changes: &mut orlop::core::client::ObjectWatch) -> WatchEvent {
    let change = tokio::time::timeout(Duration::from_secs(120), changes.next()).await;
    let change = change.expect("a change within two minutes");
    change.expect("more changes").expect("a change")
}

/// The cgroups of the node, which no namespace takes back.
struct Cgroups(String);

impl Drop for Cgroups {
    fn drop(&mut self) {
        fn remove(directory: &Path) {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    remove(&entry.path());
                }
            }
            let _ = fs::remove_dir(directory);
        }
        for hierarchy in Hierarchies::of_machine().iter().flat_map(Hierarchies::all) {
            remove(&hierarchy.path.join(self.0.trim_start_matches('/')));
        }
    }
}
