//! Pods on virtual time.

mod ends;
mod fakes;
mod lives;
mod restarts;

use std::future::Future;

use orlop_core::client::DeleteOptions;
use orlop_core::env::SimEnv;
use orlop_core::object::Object;
use orlop_core::resource::Resource;
use orlop_core::runtime::{ContainerFilter, SandboxFilter};
use orlop_core::testing::FakeApi;
use serde_json::{Value, json};

use self::fakes::{Fakes, TestRuntime};
use super::*;

const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");
const EVENTS: Resource = Resource::namespaced("", "v1", "events", "Event");
const NODES: Resource = Resource::cluster("", "v1", "nodes", "Node");

/// An API, a runtime, and the agent between them.
#[derive(Clone)]
struct World {
    env: Env,
    api: FakeApi,
    runtime: Arc<TestRuntime>,
    fakes: Arc<Fakes>,
    config: KubeletConfig,
}

impl World {
    /// Runs a test in a world of its own.
    fn run<F: Future<Output = ()> + Send + 'static>(seed: u64, test: impl FnOnce(World) -> F) {
        let sim = SimEnv::new(seed);
        let env = sim.env();
        let runtime = Arc::new(TestRuntime::new(env.clone()));
        let mut config = KubeletConfig::new("n1");
        config.node_ips = vec!["192.168.0.1".parse().unwrap()];
        config.pod_logs_dir = "/nonexistent/pods".into();
        config.container_logs_dir = None;
        let world = World {
            api: FakeApi::new(env.clone()),
            fakes: Arc::new(Fakes::new(runtime.clone())),
            env,
            runtime,
            config,
        };
        sim.block_on(test(world));
    }

    /// Begins to run an agent.
    fn start(&self) -> (Kubelet, CancelToken) {
        let builder = Kubelet::builder(self.api.client(), self.runtime.clone(), self.env.clone())
            .config(self.config.clone());
        *self.fakes.waker.lock() = Some(builder.waker());
        let kubelet = builder
            .parts(Parts {
                volumes: self.fakes.clone(),
                configs: self.fakes.clone(),
                images: self.fakes.clone(),
                probes: self.fakes.clone(),
                hooks: self.fakes.clone(),
                cgroups: self.fakes.clone(),
            })
            .build()
            .unwrap();
        let token = CancelToken::new();
        let (own, stop) = (kubelet.clone(), token.clone());
        self.env
            .spawn("kubelet", async move { own.run(&stop).await });
        (kubelet, token)
    }

    async fn create(&self, name: &str, spec: Value) -> Object {
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                if container["image"].is_null() {
                    container["image"] = json!("example/app:1");
                }
            }
        }
        let pod = json!({"metadata": {"name": name}, "spec": spec});
        let client = self.api.client();
        let pods = client.resource(&PODS).namespace("default");
        pods.create(&pod).await.unwrap()
    }

    async fn delete(&self, name: &str, grace: Option<i64>) {
        let options = DeleteOptions {
            grace_period_seconds: grace,
            ..DeleteOptions::default()
        };
        let client = self.api.client();
        let pods = client.resource(&PODS).namespace("default");
        pods.delete(name, options).await.unwrap();
    }

    async fn sleep(&self, seconds: f64) {
        self.env.sleep(Duration::from_secs_f64(seconds)).await;
    }

    fn pod(&self, name: &str) -> Option<Value> {
        let pod = self.api.object(&PODS, "default", name)?;
        Some((*pod.value().unwrap()).clone())
    }

    fn status(&self, name: &str) -> Value {
        self.pod(name).unwrap()["status"].clone()
    }

    fn condition(&self, name: &str, kind: &str) -> Value {
        let status = self.status(name);
        let all = status["conditions"].as_array().unwrap();
        let found = all.iter().find(|one| one["type"] == kind);
        found.cloned().unwrap_or(Value::Null)
    }

    fn container(&self, pod: &str, name: &str) -> Value {
        let status = self.status(pod);
        let lists = [
            "containerStatuses",
            "initContainerStatuses",
            "ephemeralContainerStatuses",
        ];
        let mut all = lists
            .iter()
            .flat_map(|list| status[*list].as_array().cloned())
            .flatten();
        all.find(|one| one["name"] == name).unwrap_or(Value::Null)
    }

    /// The events of a reason: where and what.
    fn events(&self, reason: &str) -> Vec<(String, String)> {
        let all = self.api.objects(&EVENTS);
        let all = all.iter().map(|event| event.value().unwrap());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        all.filter(|event| event["reason"] == reason)
            .map(|event| {
                (
                    text(&event["involvedObject"]["fieldPath"]),
                    text(&event["message"]),
                )
            })
            .collect()
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.runtime.log.lock())
    }

    /// How many sandboxes and containers there are.
    async fn left(&self) -> (usize, usize) {
        let inner = &self.runtime.inner;
        let sandboxes = inner.sandboxes(&SandboxFilter::default()).await.unwrap();
        let containers = inner.containers(&ContainerFilter::default()).await.unwrap();
        (sandboxes.len(), containers.len())
    }
}
