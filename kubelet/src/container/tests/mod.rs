//! Configurations of sandboxes and containers, over a world of simulated parts.

mod amounts;
mod confinement;
mod containers;
mod environment;
mod sandboxes;

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, Pod, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use orlop_core::env::{Env, SimEnv, TaskGroup};
use orlop_core::events::EventBroadcaster;
use orlop_core::network::Protocol;
use orlop_core::resource::Resource;
use orlop_core::runtime::*;
use orlop_core::testing::{FakeApi, SimulatedRuntime};
use serde_json::{Value, json};

use super::dns::{NodeDns, of_pod};
use super::*;
use crate::config::KubeletConfig;
use crate::labels;
use crate::objects::ObjectCache;
use crate::parts::*;

const EVENTS: Resource = Resource::namespaced("", "v1", "events", "Event");

/// Volumes that mount what they are asked for from `/volumes`.
struct Plain;

#[async_trait]
impl Volumes for Plain {
    async fn set_up(&self, _: &Arc<Pod>) -> Result<PodVolumes, PartError> {
        Ok(PodVolumes::default())
    }
    async fn mounts(
        &self,
        _: &Pod,
        container: &Container,
        _: &PodVolumes,
        _: &[EnvVar],
    ) -> Result<Vec<Mount>, PartError> {
        let wanted = container.volume_mounts.iter().flatten();
        Ok(wanted
            .map(|own| Mount::host(format!("/volumes/{}", own.name), &own.mount_path))
            .collect())
    }
    async fn tear_down(&self, _: &str) -> Result<(), PartError> {
        Ok(())
    }
    async fn on_disk(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Cgroups of one name.
struct Named;

#[async_trait]
impl Cgroups for Named {
    async fn ensure(&self, _: &Pod) -> Result<String, PartError> {
        Ok("/kubepods/pod1f0e".to_owned())
    }
    async fn remove(&self, _: &str) -> Result<(), PartError> {
        Ok(())
    }
    async fn on_machine(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Services that are there, or not read yet.
struct Listed(Option<Vec<Arc<Service>>>);

impl Services for Listed {
    fn in_namespace(&self, namespace: &str) -> Option<Vec<Arc<Service>>> {
        let there = |own: &&Arc<Service>| own.metadata.namespace.as_deref() == Some(namespace);
        Some(self.0.as_ref()?.iter().filter(there).cloned().collect())
    }
}

fn service(namespace: &str, name: &str, address: &str, ports: Value) -> Arc<Service> {
    let service = json!({"metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": address, "ports": ports}});
    Arc::new(serde_json::from_value(service).unwrap())
}

struct World {
    api: FakeApi,
    group: TaskGroup,
    objects: ObjectCache,
    configs: ContainerConfigs,
    config: Arc<KubeletConfig>,
    root: tempfile::TempDir,
}

fn node() -> NodeFacts {
    NodeFacts {
        memory: 1000 << 20,
        cgroup_v2: false,
        counts_swap: false,
        page_sizes: ["2MB".to_owned()].into(),
        hosts_file: PathBuf::from("/etc/hosts"),
    }
}

impl World {
    fn new(env: &Env, services: Option<Vec<Arc<Service>>>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let api = FakeApi::new(env.clone());
        let group = TaskGroup::new(env.clone());
        let recorder = EventBroadcaster::start(&group, api.client()).recorder("kubelet");
        let objects = ObjectCache::new(api.client(), env.clone(), &group.token());
        let mut config = KubeletConfig::new("node");
        config.root_dir = root.path().join("kubelet");
        config.pod_logs_dir = root.path().join("pods");
        config.node_ips = vec!["10.0.0.9".parse().unwrap()];
        config.cluster_dns = vec!["10.96.0.10".parse().unwrap()];
        config.resolv_conf = Some(root.path().join("resolv.conf"));
        fs::write(
            root.path().join("resolv.conf"),
            "nameserver 1.1.1.1\nsearch home.\n",
        )
        .unwrap();
        fs::write(root.path().join("hosts"), "127.0.0.1 localhost me\n").unwrap();
        let config = Arc::new(config);
        let configs = ContainerConfigs::new(ConfigSources {
            config: config.clone(),
            client: api.client(),
            runtime: Arc::new(SimulatedRuntime::new(env.clone())),
            objects: objects.clone(),
            services: Arc::new(Listed(services)),
            volumes: Arc::new(Plain),
            cgroups: Arc::new(Named),
            recorder,
            env: env.clone(),
            allocatable: Arc::new(|| [("cpu".to_owned(), Text("4".to_owned()))].into()),
            node: NodeFacts {
                hosts_file: root.path().join("hosts"),
                ..node()
            },
        });
        Self {
            api,
            group,
            objects,
            configs,
            config,
            root,
        }
    }

    async fn make(&self, resource: Resource, mut object: Value) {
        let (group, version) = (resource.group.to_string(), resource.version.to_string());
        let api_version = if group.is_empty() {
            version
        } else {
            format!("{group}/{version}")
        };
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(resource.kind);
        let client = self.api.client();
        let namespace = object["metadata"]["namespace"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let own = client.resource(&resource);
        let own = if namespace.is_empty() {
            own
        } else {
            own.namespace(&namespace)
        };
        own.create(&object).await.unwrap();
    }

    async fn container(&self, pod: &Arc<Pod>) -> Result<ContainerConfig, PartError> {
        self.container_of(pod, &PodVolumes::default(), &["10.88.0.7".parse().unwrap()])
            .await
    }

    async fn container_of(
        &self,
        pod: &Arc<Pod>,
        volumes: &PodVolumes,
        pod_ips: &[IpAddr],
    ) -> Result<ContainerConfig, PartError> {
        let request = ContainerRequest {
            pod,
            container: &pod.spec.as_ref().unwrap().containers[0],
            kind: ContainerKind::Regular,
            target: None,
            attempt: 3,
            pod_ips,
            image: &image(None),
            volumes,
        };
        self.configs.container(&request).await
    }

    async fn refusal(&self, pod: &Arc<Pod>) -> String {
        let error = self.container(pod).await.unwrap_err();
        assert_eq!(error.waiting.as_deref(), Some("CreateContainerConfigError"));
        assert_eq!(error.event, "Failed");
        error.message
    }

    async fn shut(self) {
        self.objects.shutdown().await;
        self.group.shutdown().await;
    }
}

fn image(user: Option<ImageUser>) -> Image {
    Image {
        id: ImageId::new("sha256:1"),
        tags: Vec::new(),
        digests: Vec::new(),
        size: 0,
        user,
        pinned: false,
    }
}

fn pod_of(spec: Value) -> Arc<Pod> {
    let pod = json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "1f0e", "labels": {"app": "web"},
            "annotations": {"note": "x"}},
        "spec": spec,
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn pod(container: Value) -> Arc<Pod> {
    pod_of(json!({"containers": [container]}))
}

fn env(config: &ContainerConfig) -> Vec<(String, String)> {
    let text = |own: &EnvVar| {
        (
            own.name.clone(),
            String::from_utf8(own.value.to_vec()).unwrap(),
        )
    };
    config.env.iter().map(text).collect()
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

fn with_container(mut spec: Value) -> Value {
    spec["containers"] = json!([{"name": "c"}]);
    spec
}
