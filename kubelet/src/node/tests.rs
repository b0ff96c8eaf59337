use std::collections::BTreeMap;
use std::future::Future;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;
use orlop_core::client::{DeleteOptions, Operation, Patch};
use orlop_core::env::SimEnv;
use orlop_core::events::EventBroadcaster;
use orlop_core::network::{Attachment, NetworkError, NetworkPlugin, SandboxNetwork};
use orlop_core::resource::Resource;
use orlop_core::testing::{FakeApi, SimulatedNetwork, SimulatedRuntime};
use serde_json::{Value, json};

use super::*;

const NODES: Resource = Resource::cluster("", "v1", "nodes", "Node");
const LEASES: Resource = Resource::namespaced("coordination.k8s.io", "v1", "leases", "Lease");
const EVENTS: Resource = Resource::namespaced("", "v1", "events", "Event");

/// A network that can be broken, and that notes its ranges.
struct Breakable {
    inner: SimulatedNetwork,
    broken: Arc<Mutex<bool>>,
    ranges: Arc<Mutex<Vec<Vec<String>>>>,
}

#[async_trait]
impl NetworkPlugin for Breakable {
    async fn attach(&self, request: &SandboxNetwork) -> Result<Attachment, NetworkError> {
        self.inner.attach(request).await
    }

    async fn detach(&self, network: &SandboxNetwork) -> Result<(), NetworkError> {
        self.inner.detach(network).await
    }

    async fn status(&self) -> Result<(), NetworkError> {
        if *self.broken.lock() {
            return Err(NetworkError::NotReady("cni plugin not initialized".into()));
        }
        Ok(())
    }

    async fn set_pod_cidrs(&self, cidrs: &[Cidr]) -> Result<(), NetworkError> {
        let text = cidrs.iter().map(ToString::to_string).collect();
        self.ranges.lock().push(text);
        Ok(())
    }
}

struct World {
    env: Env,
    api: FakeApi,
    broken: Arc<Mutex<bool>>,
    ranges: Arc<Mutex<Vec<Vec<String>>>>,
    pressure: Arc<Mutex<Pressure>>,
    info: NodeInfo,
    group: TaskGroup,
}

impl World {
    fn new(env: Env, change: impl FnOnce(&FakeApi, &mut KubeletConfig)) -> Self {
        let api = FakeApi::new(env.clone());
        let group = TaskGroup::new(env.clone());
        let mut config = KubeletConfig::new("n1");
        config.node_ips = vec!["10.0.0.1".parse().unwrap()];
        change(&api, &mut config);
        let (broken, ranges) = (
            Arc::new(Mutex::new(false)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let network = Breakable {
            inner: SimulatedNetwork::new("10.88.0.0/16".parse().unwrap()),
            broken: broken.clone(),
            ranges: ranges.clone(),
        };
        let runtime = SimulatedRuntime::with_network(env.clone(), Arc::new(network));
        let events = EventBroadcaster::start(&group, api.client()).recorder_on("kubelet", "n1");
        let machine = MachineInfo {
            boot_id: "b2".into(),
            ..MachineInfo::simulated(2, 4 << 30, 100 << 30)
        };
        let pressure = Arc::new(Mutex::new(Pressure::default()));
        let source = pressure.clone();
        let manager = NodeManager::new(
            env.clone(),
            api.client(),
            Arc::new(runtime),
            events,
            Arc::new(config),
            machine,
        )
        .with_pressure(Arc::new(move || *source.lock()))
        .with_port(10251);
        let info = manager.info();
        let token = group.token();
        group.spawn("node", Arc::new(manager).run(token));
        Self {
            env,
            api,
            broken,
            ranges,
            pressure,
            info,
            group,
        }
    }

    async fn until(&self, seconds: u64) {
        self.env
            .sleep_until(Moment::from_start(Duration::from_secs(seconds)))
            .await;
    }

    fn node(&self) -> Value {
        (*self.api.object(&NODES, "", "n1").unwrap().value().unwrap()).clone()
    }

    fn lease(&self) -> Value {
        let lease = self.api.object(&LEASES, "kube-node-lease", "n1").unwrap();
        (*lease.value().unwrap()).clone()
    }

    fn condition(&self, kind: &str) -> Value {
        let node = self.node();
        let all = node["status"]["conditions"].as_array().unwrap();
        all.iter().find(|one| one["type"] == kind).unwrap().clone()
    }

    fn events(&self) -> Vec<String> {
        let text = |event: &orlop_core::object::Object| {
            let event = event.value().unwrap();
            assert_eq!(event["involvedObject"]["kind"], "Node");
            assert_eq!(event["involvedObject"]["uid"], "n1");
            format!(
                "{}: {}",
                event["reason"].as_str().unwrap(),
                event["message"].as_str().unwrap()
            )
        };
        self.api.objects(&EVENTS).iter().map(text).collect()
    }
}

fn run<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Env) -> F) {
    let sim = SimEnv::new(5);
    sim.block_on(test(sim.env()));
}

#[test]
fn a_node_is_registered_with_all_that_is_known() {
    run(|env| async move {
        let world = World::new(env, |_, config| {
            config.node_labels = BTreeMap::from([("disk".into(), "fast".into())]);
            config.provider_id = "kind://n1".into();
            config.register_with_taints = vec![Taint {
                key: "dedicated".into(),
                value: Some("x".into()),
                effect: "NoSchedule".into(),
                time_added: None,
            }];
        });
        world.until(1).await;
        let node = world.node();
        assert_eq!(
            node["metadata"]["labels"],
            json!({"kubernetes.io/hostname": "n1", "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "amd64", "disk": "fast"})
        );
        assert_eq!(
            node["metadata"]["annotations"],
            json!({"volumes.kubernetes.io/controller-managed-attach-detach": "true"})
        );
        assert_eq!(
            node["spec"],
            json!({"providerID": "kind://n1", "taints": [{"effect": "NoSchedule", "key": "dedicated", "value": "x"}]})
        );
        let status = &node["status"];
        assert_eq!(
            status["addresses"],
            json!([{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "n1"}])
        );
        assert_eq!(
            status["capacity"],
            json!({"cpu": "2", "memory": "4Gi", "ephemeral-storage": "100Gi", "pods": "110"})
        );
        assert_eq!(status["allocatable"]["memory"], "3996Mi");
        assert_eq!(
            status["daemonEndpoints"],
            json!({"kubeletEndpoint": {"Port": 10251}})
        );
        let info = &status["nodeInfo"];
        assert_eq!(info["kubeletVersion"], orlop_api::KUBERNETES_VERSION);
        assert!(
            info["containerRuntimeVersion"]
                .as_str()
                .unwrap()
                .starts_with("simulated://")
        );
        assert_eq!(info["bootID"], "b2");
        assert_eq!(status["runtimeHandlers"][0]["name"], "");
        assert_eq!(status["images"], json!([]));
        let ready = world.condition("Ready");
        assert_eq!(
            (&ready["status"], &ready["reason"]),
            (&json!("True"), &json!("KubeletReady"))
        );
        assert_eq!(
            world.condition("PIDPressure")["reason"],
            "KubeletHasSufficientPID"
        );
        assert_eq!(world.info.allocatable()["pods"].value(), 110);
        assert_eq!(
            world.info.uid().as_deref(),
            node["metadata"]["uid"].as_str()
        );
        world.until(2).await;
        assert!(
            world
                .events()
                .contains(&"Starting: Starting kubelet.".to_owned())
        );
        world.group.shutdown().await;
    });
}

#[test]
fn a_node_that_is_there_is_put_right_and_its_taints_stay() {
    run(|env| async move {
        let (api_env, seen) = (env.clone(), Arc::new(Mutex::new(None)));
        let keep = seen.clone();
        let world = World::new(env, move |api, _| *keep.lock() = Some(api.clone()));
        // Before the manager's first step.
        let api = seen.lock().clone().unwrap();
        let old = json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/arch": "sparc", "mine": "yes"}},
            "spec": {"taints": [{"key": "a", "effect": "NoExecute"}]},
            "status": {"nodeInfo": {"bootID": "b1", "architecture": "", "containerRuntimeVersion": "", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": ""},
                "conditions": [{"type": "NetworkUnavailable", "status": "False", "reason": "RouteCreated"},
                    {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}});
        api.client().resource(&NODES).create(&old).await.unwrap();
        let _ = api_env;
        world.until(3).await;
        let node = world.node();
        assert_eq!(node["metadata"]["labels"]["kubernetes.io/arch"], "amd64");
        assert_eq!(node["metadata"]["labels"]["mine"], "yes");
        assert_eq!(node["spec"]["taints"][0]["key"], "a");
        assert_eq!(
            world.condition("NetworkUnavailable")["reason"],
            "RouteCreated"
        );
        assert_eq!(world.condition("Ready")["status"], "True");
        let events = world.events();
        for want in [
            "Rebooted: Node n1 has been rebooted, boot id: b2",
            "NodeReady: Node n1 status is now: NodeReady",
            "NodeHasNoDiskPressure: Node n1 status is now: NodeHasNoDiskPressure",
        ] {
            assert!(
                events.iter().any(|event| event == want),
                "{want}: {events:?}"
            );
        }
        world.group.shutdown().await;
    });
}

#[test]
fn what_does_not_change_is_told_every_five_minutes() {
    run(|env| async move {
        let world = World::new(env, |_, _| {});
        world.until(299).await;
        let first = world.api.calls("patch", &NODES);
        assert_eq!(
            world.condition("Ready")["lastHeartbeatTime"],
            "2026-01-01T00:00:00Z"
        );
        world.until(311).await;
        assert_eq!(world.api.calls("patch", &NODES), first + 1);
        let ready = world.condition("Ready");
        assert_eq!(ready["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert_ne!(ready["lastHeartbeatTime"], "2026-01-01T00:00:00Z");
        world.group.shutdown().await;
    });
}

#[test]
fn losing_the_network_is_told_within_seconds_and_so_is_pressure() {
    run(|env| async move {
        let world = World::new(env, |_, _| {});
        world.until(61).await;
        *world.broken.lock() = true;
        world.until(67).await;
        let ready = world.condition("Ready");
        assert_eq!(
            (&ready["status"], &ready["reason"]),
            (&json!("False"), &json!("KubeletNotReady"))
        );
        let message = ready["message"].as_str().unwrap();
        assert!(
            message.starts_with("container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:"),
            "{message}"
        );
        *world.broken.lock() = false;
        world.until(73).await;
        assert_eq!(world.condition("Ready")["status"], "True");
        world.pressure.lock().disk = true;
        world.info.tell();
        world.env.sleep(Duration::from_millis(1)).await;
        assert_eq!(world.condition("DiskPressure")["status"], "True");
        world.until(80).await;
        let events = world.events();
        for want in ["NodeNotReady", "NodeReady", "NodeHasDiskPressure"] {
            let want = format!("{want}: Node n1 status is now: {want}");
            assert!(events.contains(&want), "{want}: {events:?}");
        }
        world.group.shutdown().await;
    });
}

#[test]
fn the_lease_is_renewed_four_times_in_its_time() {
    run(|env| async move {
        let world = World::new(env, |api, _| {
            // The first tries fail: the namespace of Leases may be younger than the node.
            api.refuse(2, |request| {
                (request.target.resource == LEASES).then(|| Status::unavailable("not yet"))
            });
        });
        world.until(1).await;
        let lease = world.lease();
        assert_eq!(lease["spec"]["holderIdentity"], "n1");
        assert_eq!(lease["spec"]["leaseDurationSeconds"], 40);
        let owner = &lease["metadata"]["ownerReferences"][0];
        assert_eq!(
            (&owner["kind"], &owner["name"]),
            (&json!("Node"), &json!("n1"))
        );
        assert_eq!(owner["uid"], world.node()["metadata"]["uid"]);
        let before = world.api.calls("update", &LEASES);
        world.until(101).await;
        let renewed = world.api.calls("update", &LEASES) - before;
        assert!((9..=10).contains(&renewed), "{renewed}");
        let time: Timestamp = world.lease()["spec"]["renewTime"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let age = world.env.wall().duration_since(time);
        assert!(age.as_secs() <= 11, "{age:?}");
        assert!(
            world.lease()["spec"]["renewTime"]
                .as_str()
                .unwrap()
                .contains('.')
        );
        // Somebody deletes it.
        let client = world.api.client();
        let leases = client.resource(&LEASES).namespace("kube-node-lease");
        leases.delete("n1", DeleteOptions::default()).await.unwrap();
        world.until(115).await;
        assert_eq!(world.lease()["spec"]["holderIdentity"], "n1");
        // The server is away for a minute.
        let until = world.env.now() + Duration::from_secs(60);
        let clock = world.env.clone();
        world.api.refuse(usize::MAX, move |request| {
            let away = request.target.resource == LEASES && clock.now() < until;
            away.then(|| Status::unavailable("away"))
        });
        world.until(185).await;
        let time: Timestamp = world.lease()["spec"]["renewTime"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!(world.env.wall().duration_since(time).as_secs() <= 10);
        world.group.shutdown().await;
    });
}

#[test]
fn ranges_for_pods_reach_the_runtime() {
    run(|env| async move {
        let world = World::new(env, |_, _| {});
        world.until(1).await;
        let client = world.api.client();
        let nodes = client.resource(&NODES);
        let patch = json!({"spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00::/64"]}});
        nodes.patch("n1", Patch::Merge(patch)).await.unwrap();
        nodes
            .patch("n1", Patch::Merge(json!({"spec": {"unschedulable": true}})))
            .await
            .unwrap();
        world.until(2).await;
        assert_eq!(*world.ranges.lock(), [["10.244.1.0/24", "fd00::/64"]]);
        let seen = world.info.node().unwrap();
        assert_eq!(seen.spec.as_ref().unwrap().unschedulable, Some(true));
        world.until(3).await;
        let want = "NodeNotSchedulable: Node n1 status is now: NodeNotSchedulable";
        assert!(world.events().contains(&want.to_owned()));
        nodes.delete("n1", DeleteOptions::default()).await.unwrap();
        world.until(60).await;
        assert_eq!(world.info.node(), None);
        assert!(
            world.api.object(&NODES, "", "n1").is_none(),
            "who deletes a node means it"
        );
        world.group.shutdown().await;
    });
}

#[test]
fn registration_is_tried_until_it_succeeds() {
    run(|env| async move {
        let world = World::new(env, |api, _| {
            api.refuse(5, |request| {
                let creates = matches!(request.operation, Operation::Create(..));
                (creates && request.target.resource == NODES).then(|| Status::unavailable("no"))
            });
        });
        world.until(2).await;
        assert!(world.api.object(&NODES, "", "n1").is_none());
        world.until(5).await;
        assert_eq!(world.condition("Ready")["status"], "True");
        world.group.shutdown().await;
    });
}

#[test]
fn a_node_that_is_not_to_be_registered_waits_for_its_object() {
    run(|env| async move {
        let world = World::new(env, |_, config| config.register_node = false);
        world.until(5).await;
        assert!(world.api.object(&NODES, "", "n1").is_none());
        let client = world.api.client();
        client
            .resource(&NODES)
            .create(&json!({"metadata": {"name": "n1"}}))
            .await
            .unwrap();
        world.until(15).await;
        assert_eq!(world.condition("Ready")["status"], "True");
        world.group.shutdown().await;
    });
}
