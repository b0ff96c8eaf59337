//! A Kubernetes control plane in this process, and kube-rs as its client: no socket, no files, no other program.
//!
//! `cargo run --example quickstart`

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, PostParams};
use orlop::ControlPlane;
use orlop::sim::SimulatedNodes;
use serde_json::{from_value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let plane = ControlPlane::builder()
        .in_memory()
        .with_defaults()
        .simulated_nodes(SimulatedNodes::new(2))
        .start()
        .await?;
    let deployments: Api<Deployment> = Api::default_namespaced(plane.kube_client());
    let container = json!({"name": "web", "image": "nginx"});
    let labels = json!({"app": "web"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [container]}});
    let spec = json!({"replicas": 3, "selector": {"matchLabels": labels}, "template": template});
    let web = from_value(json!({"metadata": {"name": "web"}, "spec": spec}))?;
    deployments.create(&PostParams::default(), &web).await?;
    loop {
        let status = deployments.get("web").await?.status.unwrap_or_default();
        println!("{}/3 pods ready", status.ready_replicas.unwrap_or(0));
        if status.ready_replicas == Some(3) {
            break;
        }
        plane
            .env()
            .sleep(std::time::Duration::from_millis(100))
            .await;
    }
    plane.shutdown().await;
    Ok(())
}
