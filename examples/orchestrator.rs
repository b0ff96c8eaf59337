//! An orchestrator of one's own: a durable store, an admission rule, a scheduling policy and a controller, put together and served to
//! everybody by TLS.
//!
//! `cargo run --example orchestrator` shows it at work; with `-- --serve` it goes on until ctrl-c, for kubectl.

use std::time::Duration;

use async_trait::async_trait;
use orlop::ControlPlane;
use orlop::core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest};
use orlop::core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop::core::env::Env;
use orlop::core::object::ObjectKey;
use orlop::core::resource::Resource;
use orlop::core::scheduling::{CycleState, NodeView, PodInfo, SchedulerPlugin, Score};
use orlop::core::status::Status;
use orlop::sched::Profile;
use orlop::sim::SimulatedNodes;
use orlop::store::{DurableOptions, DurableStore};
use orlop::wire::kubeconfig::{Credentials, Kubeconfig};
use serde_json::json;

const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");
const NAMESPACES: Resource = Resource::cluster("", "v1", "namespaces", "Namespace");

/// Images need a version.
struct DenyLatestTag;

#[async_trait]
impl AdmissionPlugin for DenyLatestTag {
    fn name(&self) -> &'static str {
        "DenyLatestTag"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        matches!(
            operation,
            AdmissionOperation::Create | AdmissionOperation::Update
        )
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), Status> {
        if !request.is("", "pods") {
            return Ok(());
        }
        let containers = request
            .object
            .pointer("/spec/containers")
            .and_then(|list| list.as_array());
        let latest = containers
            .into_iter()
            .flatten()
            .filter_map(|container| container["image"].as_str())
            .any(|image| image.ends_with(":latest") || !image.contains(':'));
        if latest {
            Err(request.forbidden("images need a version"))
        } else {
            Ok(())
        }
    }
}

/// Prefers the node with the most pods.
struct PackTightly;

impl SchedulerPlugin for PackTightly {
    fn name(&self) -> &str {
        "PackTightly"
    }
    fn as_score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

impl Score for PackTightly {
    fn score(&self, _: &CycleState, pod: &PodInfo, node: NodeView<'_>) -> i64 {
        let used = node.requested().milli_cpu + pod.requests().milli_cpu;
        100 * used / node.allocatable().milli_cpu.max(1)
    }
}

/// Says when a namespace appears.
struct Announcer;

#[async_trait]
impl Controller for Announcer {
    fn name(&self) -> &str {
        "announcer"
    }

    fn interests(&self) -> Interests {
        Interests::new().for_each(NAMESPACES)
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        match ctx.store(&NAMESPACES).get(key) {
            Some(namespace) if !namespace.is_terminating() => {
                println!("namespace {} is there", key.name)
            }
            _ => println!("namespace {} goes", key.name),
        }
        Ok(Action::Done)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("orlop-orchestrator-{}", std::process::id()));
    let env = Env::tokio();
    let store = DurableStore::open(
        directory.join("store"),
        DurableOptions::default(),
        env.clone(),
    )?;
    let plane = ControlPlane::builder()
        .env(env)
        .store(store)
        .with_defaults()
        .admission(DenyLatestTag)
        .scheduler(Profile::default_scheduler().weighted(PackTightly, 10)?)
        .controller(Announcer)
        .simulated_nodes(SimulatedNodes::new(3))
        .start()
        .await?;
    let serving = plane.listen("127.0.0.1:0".parse()?).await?;
    let admin = Credentials {
        certificate: Some(plane.pki().admin.clone()),
        ..Credentials::default()
    };
    let authority = plane.pki().authority.certificate_pem();
    let kubeconfig = directory.join("kubeconfig");
    Kubeconfig::for_cluster(
        "orchestrator",
        &serving.url(),
        Some(authority),
        "admin",
        &admin,
    )
    .store(&kubeconfig)?;
    let client = plane.admin();
    let pods = client.resource(&PODS).namespace("default");
    let pod = |image: &str| {
        let container = json!({"name": "c", "image": image});
        json!({"metadata": {"name": "web"}, "spec": {"containers": [container]}})
    };
    if let Err(refusal) = pods.create(&pod("nginx:latest")).await {
        println!("refused: {refusal}");
    }
    pods.create(&pod("nginx:1.27")).await?;
    loop {
        let web = pods.get("web").await?.value()?;
        if let Some(node) = web["spec"]["nodeName"].as_str() {
            println!("web is on {node}");
            break;
        }
        plane.env().sleep(Duration::from_millis(20)).await;
    }
    if std::env::args().nth(1).as_deref() == Some("--serve") {
        println!(
            "try: kubectl --kubeconfig {} get pods",
            kubeconfig.display()
        );
        tokio::signal::ctrl_c().await?;
    }
    plane.shutdown().await;
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}
