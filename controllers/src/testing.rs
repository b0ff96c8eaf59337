//! A small world for tests: an API in memory, a manager, and nodes that run pods by saying so.

use std::sync::Arc;
use std::time::Duration;

use orlop_core::client::{Client, DeleteOptions, Patch};
use orlop_core::controller::Controller;
use orlop_core::env::{Env, SimEnv, SimOptions, TaskGroup};
use orlop_core::object::Object;
use orlop_core::resource::Resource;
use orlop_core::testing::FakeApi;
use serde_json::{Value, json};

use crate::common::resources::PODS;
use crate::manager::ControllerManager;

pub(crate) const EVENTS: Resource = Resource::namespaced("", "v1", "events", "Event");

/// Runs `test` in a world with some controllers and pods that become ready a second after they are made.
pub(crate) fn run<F, Fut>(controllers: Vec<Arc<dyn Controller>>, test: F)
where
    F: FnOnce(World) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    run_after(Vec::new(), controllers, test);
}

/// The same, with objects that were there before the controllers began.
pub(crate) fn run_after<F, Fut>(
    there: Vec<(Resource, Value)>,
    controllers: Vec<Arc<dyn Controller>>,
    test: F,
) where
    F: FnOnce(World) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    // In an order that differs from the order in which things happened.
    let sim = SimEnv::with_options(SimOptions {
        seed: 7,
        shuffle: true,
        ..SimOptions::default()
    });
    let api = FakeApi::new(sim.env());
    let client = api.client();
    sim.block_on(async move {
        for (resource, object) in there {
            client
                .resource(&resource)
                .namespace("default")
                .create(&object)
                .await
                .unwrap();
        }
    });
    let world = World::new(&sim, api, controllers);
    sim.block_on(test(world));
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) api: FakeApi,
    pub(crate) env: Env,
    pub(crate) group: Arc<TaskGroup>,
    /// Whether pods become ready.
    pub(crate) healthy: Arc<std::sync::atomic::AtomicBool>,
}

impl World {
    fn new(sim: &SimEnv, api: FakeApi, controllers: Vec<Arc<dyn Controller>>) -> Self {
        let env = sim.env();
        let group = Arc::new(TaskGroup::new(env.clone()));
        let client = api.client();
        let mut builder = ControllerManager::builder(move |_| client.clone(), env.clone());
        for controller in controllers {
            builder = builder.shared_controller(controller);
        }
        let manager = builder.build().unwrap();
        let stop = group.token();
        group.spawn("manager", async move { manager.run(&stop).await });
        let world = Self {
            api,
            env,
            group: group.clone(),
            healthy: Arc::new(true.into()),
        };
        let kubelet = world.clone();
        group.spawn_until_cancelled("kubelet", async move { kubelet.kubelet().await });
        world
    }

    async fn kubelet(self) {
        loop {
            self.env.sleep(Duration::from_millis(500)).await;
            for pod in self.api.objects(&PODS) {
                let pods = self.api.client();
                let pods = pods.resource(&PODS).namespace(pod.namespace());
                let value = pod.value().unwrap();
                if pod.is_terminating() {
                    let options = DeleteOptions {
                        grace_period_seconds: Some(0),
                        ..DeleteOptions::default()
                    };
                    let _ = pods.delete(pod.name(), options).await;
                } else if value["spec"]["nodeName"].is_null() {
                    let body = json!({"target": {"name": "node-1"}});
                    let _ = pods.create_subresource(pod.name(), "binding", &body).await;
                } else if value["status"]["phase"] == "Pending"
                    && self.healthy.load(std::sync::atomic::Ordering::Relaxed)
                {
                    let now = self.env.wall().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                    let address = format!("10.0.0.{}", 1 + pod.revision().0 % 250);
                    let patch = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [
                        {"type": "Ready", "status": "True", "lastTransitionTime": now}]}});
                    let _ = pods.patch_status(pod.name(), Patch::Merge(patch)).await;
                }
            }
        }
    }

    pub(crate) fn client(&self) -> Arc<dyn Client> {
        self.api.client()
    }

    pub(crate) async fn create(&self, resource: &Resource, object: Value) -> Object {
        self.client()
            .resource(resource)
            .namespace("default")
            .create(&object)
            .await
            .unwrap()
    }

    pub(crate) async fn patch(&self, resource: &Resource, name: &str, patch: Value) -> Object {
        self.client()
            .resource(resource)
            .namespace("default")
            .patch(name, Patch::Merge(patch))
            .await
            .unwrap()
    }

    pub(crate) async fn sleep(&self, seconds: u64) {
        self.env.sleep(Duration::from_secs(seconds)).await;
    }

    pub(crate) fn get(&self, resource: &Resource, name: &str) -> Option<Value> {
        let namespace = if resource.namespaced { "default" } else { "" };
        self.api
            .object(resource, namespace, name)
            .map(|object| (*object.value().unwrap()).clone())
    }

    pub(crate) fn list(&self, resource: &Resource) -> Vec<Value> {
        self.api
            .objects(resource)
            .iter()
            .map(|object| (*object.value().unwrap()).clone())
            .collect()
    }

    /// The messages of the events about an object, by reason.
    pub(crate) fn events(&self, name: &str, reason: &str) -> Vec<String> {
        let mut events: Vec<(String, String)> = self
            .list(&EVENTS)
            .iter()
            .filter(|event| event["involvedObject"]["name"] == name && event["reason"] == reason)
            .map(|event| {
                (
                    event["metadata"]["name"].to_string(),
                    event["message"].as_str().unwrap().to_owned(),
                )
            })
            .collect();
        events.sort();
        events.into_iter().map(|(_, message)| message).collect()
    }

    /// Waits until something holds, for a minute at most.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..600 {
            if holds(self) {
                return;
            }
            self.env.sleep(Duration::from_millis(100)).await;
        }
        panic!(
            "it never came to this: {what}; the writes were {:#?}",
            self.api.writes()
        );
    }

    pub(crate) async fn stop(self) {
        self.group.shutdown().await;
    }
}

pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    object["status"]["conditions"]
        .as_array()
        .and_then(|conditions| {
            conditions
                .iter()
                .find(|condition| condition["type"] == kind)
        })
        .unwrap_or(&Value::Null)
}
