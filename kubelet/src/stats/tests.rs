use std::sync::Arc;
use std::time::Duration;

use orlop_core::env::SimEnv;
use orlop_core::runtime::{ContainerConfig, ImageSpec, PullRequest, Runtime, SandboxConfig};
use orlop_core::testing::SimulatedRuntime;

use super::*;
use crate::config::KubeletConfig;
use crate::labels;

#[test]
fn a_summary_has_the_node_and_the_pods_that_run() {
    let sim = SimEnv::new(1);
    let env = sim.env();
    sim.block_on(async move {
        let runtime: Arc<dyn Runtime> = Arc::new(SimulatedRuntime::new(env.clone()));
        runtime.pull_image(&PullRequest::new("example/web:1")).await.unwrap();
        for name in ["web-1", "web-0"] {
            let sandbox = SandboxConfig::new("default", name, name);
            let sandbox = runtime.run_sandbox(&sandbox).await.unwrap();
            for container in ["web", "done"] {
                let mut config = ContainerConfig::new(container, ImageSpec::new("example/web:1"));
                config.labels.insert(labels::POD_UID.to_owned(), name.to_owned());
                let id = runtime.create_container(&sandbox, &config).await.unwrap();
                runtime.start_container(&id).await.unwrap();
                if container == "done" {
                    runtime.stop_container(&id, Duration::ZERO).await.unwrap();
                }
            }
        }
        let config = Arc::new(KubeletConfig::new("node-1"));
        let stats = StatsProvider::new(config, runtime, None, env.clone());
        let stats = stats.volumes(Arc::new(|uid| {
            Box::pin(async move {
                vec![crate::volumes::VolumeUsage {
                    name: format!("data of {uid}"),
                    used_bytes: 4096,
                    ..Default::default()
                }]
            })
        }));
        let summary = stats.summary().await.unwrap();
        assert_eq!(summary.node.node_name, "node-1");
        assert!(summary.node.fs.is_some() && summary.node.rlimit.is_some());
        let pods: Vec<&str> = summary.pods.iter().map(|pod| &*pod.pod_ref.name).collect();
        assert_eq!(pods, ["web-0", "web-1"]);
        let pod = &summary.pods[0];
        assert_eq!(pod.containers.len(), 1, "the one that runs");
        assert_eq!(pod.volumes[0].name, "data of web-0");
        let taken = pod.ephemeral_storage.as_ref().unwrap().used_bytes.unwrap();
        assert!(taken >= 4096);
        // In upstream's words, and back.
        let json = serde_json::to_value(&summary).unwrap();
        assert!(json["pods"][0]["ephemeral-storage"]["usedBytes"].is_u64());
        assert_eq!(json["pods"][0]["podRef"]["namespace"], "default");
        assert_eq!(serde_json::from_value::<Summary>(json).unwrap(), summary);
        let few = summary.only_cpu_and_memory();
        assert!(few.node.fs.is_none() && few.pods[0].volumes.is_empty());
        // As metrics.
        let text = resource_metrics(&stats).await;
        assert!(text.contains("container_start_time_seconds{container=\"web\",namespace=\"default\",pod=\"web-0\"}"), "{text}");
        let text = cadvisor_metrics(&stats).await.unwrap();
        assert!(text.contains("image=\""), "{text}");
    });
}
