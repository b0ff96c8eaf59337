//! A scheduling plug-in of one's own: ten lines that fill one node after the other, instead of spreading.
//!
//! `cargo run --example custom_scheduler_plugin`

use std::collections::BTreeMap;
use std::time::Duration;

use orlop::ControlPlane;
use orlop::core::client::ListOptions;
use orlop::core::resource::Resource;
use orlop::core::scheduling::{CycleState, NodeView, PodInfo, SchedulerPlugin, Score};
use orlop::sched::Profile;
use orlop::sim::SimulatedNodes;
use serde_json::json;

const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");

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

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let profile = Profile::default_scheduler().weighted(PackTightly, 10)?;
    let plane = ControlPlane::builder()
        .in_memory()
        .with_defaults()
        .scheduler(profile)
        .simulated_nodes(SimulatedNodes::new(4))
        .start()
        .await?;
    let client = plane.admin();
    let pods = client.resource(&PODS).namespace("default");
    let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}});
    for number in 0..12 {
        let name = format!("p{number}");
        pods.create(&json!({"metadata": {"name": name}, "spec": {"containers": [container]}}))
            .await?;
    }
    let mut nodes: BTreeMap<String, usize> = BTreeMap::new();
    while nodes.values().sum::<usize>() < 12 {
        plane.env().sleep(Duration::from_millis(50)).await;
        nodes.clear();
        for pod in pods.list(ListOptions::default()).await?.items {
            if let Some(node) = pod.value()?["spec"]["nodeName"].as_str() {
                *nodes.entry(node.to_owned()).or_default() += 1;
            }
        }
    }
    println!("pods by node: {nodes:?}");
    plane.shutdown().await;
    Ok(())
}
