//! What pods say, over a real containerd: configurations, images, cgroups, and what is left of a container.

#[path = "../../runtime-cri/tests/support/containerd.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{Container, Pod};
use orlop_core::env::{Env, TaskGroup};
use orlop_core::events::EventRecorder;
use orlop_core::resource::Resource;
use orlop_core::runtime::{
    CgroupDriver, ContainerId, ContainerState, EnvVar, Image, Mount, Runtime, SandboxConfig,
    SandboxId,
};
use orlop_core::testing::FakeApi;
use orlop_kubelet::cgroups::{CgroupManager, Hierarchies, NodeLimits};
use orlop_kubelet::config::KubeletConfig;
use orlop_kubelet::container::{ConfigSources, ContainerConfigs, NoServices, NodeFacts};
use orlop_kubelet::images::{ImageCollector, ImageManager};
use orlop_kubelet::logs::LogRotator;
use orlop_kubelet::objects::ObjectCache;
use orlop_kubelet::parts::{
    Cgroups, Configs, ContainerKind, ContainerRequest, Images, PartError, PodVolumes, Volumes,
};
use orlop_runtime_cri::CriRuntime;
use serde_json::{Value, json};
use support::{BUSYBOX, Containerd, PRIVATE, isolated, missing, registry};

/// No volumes.
struct NoVolumes;

#[async_trait]
impl Volumes for NoVolumes {
    async fn set_up(&self, _: &Arc<Pod>) -> Result<PodVolumes, PartError> {
        Ok(PodVolumes::default())
    }
    async fn mounts(
        &self,
        _: &Pod,
        _: &Container,
        _: &PodVolumes,
        _: &[EnvVar],
    ) -> Result<Vec<Mount>, PartError> {
        Ok(Vec::new())
    }
    async fn tear_down(&self, _: &str) -> Result<(), PartError> {
        Ok(())
    }
    async fn on_disk(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A node without a node agent: its parts alone.
struct Node {
    runtime: Arc<CriRuntime>,
    cgroups: CgroupManager,
    configs: ContainerConfigs,
    images: ImageManager,
    config: Arc<KubeletConfig>,
    api: FakeApi,
    env: Env,
    _group: TaskGroup,
    _containerd: Containerd,
}

fn on_node(test: &str, body: impl AsyncFnOnce(Node)) {
    isolated(test, missing, |dir| {
        let containerd = Containerd::start(dir);
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .worker_threads(2)
            .build();
        tokio.unwrap().block_on(async {
            let node = Node::new(dir, containerd).await;
            let _root = Root(node.config.cgroup_root.clone());
            let cgroups = node.cgroups.clone();
            body(node).await;
            cgroups.remove_empty_roots().await.unwrap();
        });
    });
}

/// Takes the cgroups of a test away at its end, also when it fails. No namespace does.
struct Root(String);

impl Drop for Root {
    fn drop(&mut self) {
        for hierarchy in Hierarchies::of_machine().unwrap().all() {
            clear(&hierarchy.path.join(self.0.trim_start_matches('/')));
        }
    }
}

fn clear(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            clear(&entry.path());
        }
    }
    let inside = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    for pid in inside.lines().filter_map(|line| line.parse().ok()) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    for _ in 0..20 {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(Duration::from_millis(20));
            }
            _ => return,
        }
    }
}

impl Node {
    async fn new(dir: &Path, containerd: Containerd) -> Self {
        let env = Env::tokio();
        let runtime = Arc::new(CriRuntime::new(&containerd.socket(), env.clone()).unwrap());
        for _ in 0..300 {
            if runtime.status().await.is_ok() {
                break;
            }
            env.sleep(Duration::from_millis(50)).await;
        }
        let api = FakeApi::new(env.clone());
        let group = TaskGroup::new(env.clone());
        let objects = ObjectCache::new(api.client(), env.clone(), &group.token());
        let mut config = KubeletConfig::new("node");
        config.root_dir = dir.join("kubelet");
        config.pod_logs_dir = dir.join("pods");
        config.container_logs_dir = Some(dir.join("links"));
        config.container_log_max_size = 100;
        config.resolv_conf = None;
        config.restrict_oom_score_adj = true;
        config.cgroup_root = format!("/orlop-containers-{:08x}", rand());
        let config = Arc::new(config);
        let hierarchies = Hierarchies::of_machine().unwrap();
        let node = NodeFacts::of_machine(Some(&hierarchies));
        let driver = CgroupDriver::Cgroupfs;
        let cgroups = CgroupManager::new(&config, hierarchies, driver, env.clone()).unwrap();
        let limits = NodeLimits::of_machine(&config);
        cgroups.make_roots(limits).await.unwrap();
        let configs = ContainerConfigs::new(ConfigSources {
            config: config.clone(),
            client: api.client(),
            runtime: runtime.clone(),
            objects: objects.clone(),
            services: Arc::new(NoServices),
            volumes: Arc::new(NoVolumes),
            cgroups: Arc::new(cgroups.clone()),
            recorder: EventRecorder::silent(),
            env: env.clone(),
            allocatable: Arc::new(BTreeMap::new),
            node,
        });
        let silent = EventRecorder::silent();
        let images = ImageManager::new(&config, runtime.clone(), objects, silent, env.clone());
        Self {
            runtime,
            cgroups,
            configs,
            images,
            config,
            api,
            env,
            _group: group,
            _containerd: containerd,
        }
    }

    async fn sandbox(&self, pod: &Arc<Pod>) -> (SandboxId, SandboxConfig) {
        let config = self.configs.sandbox(pod, 0).await.unwrap();
        let id = self.runtime.run_sandbox(&config).await.unwrap();
        (id, config)
    }

    async fn start(&self, pod: &Arc<Pod>, sandbox: &(SandboxId, SandboxConfig)) -> ContainerId {
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let image = self
            .images
            .ensure(pod, container, &sandbox.1)
            .await
            .unwrap();
        let config = self.configured(pod, &sandbox.0, &image).await;
        let id = self
            .runtime
            .create_container(&sandbox.0, &config)
            .await
            .unwrap();
        self.runtime.start_container(&id).await.unwrap();
        id
    }

    async fn configured(
        &self,
        pod: &Arc<Pod>,
        sandbox: &SandboxId,
        image: &Image,
    ) -> orlop_core::runtime::ContainerConfig {
        let addresses: Vec<IpAddr> = self.runtime.sandbox(sandbox).await.unwrap().addresses;
        let request = ContainerRequest {
            pod,
            container: &pod.spec.as_ref().unwrap().containers[0],
            kind: ContainerKind::Regular,
            target: None,
            attempt: 0,
            pod_ips: &addresses,
            image,
            volumes: &PodVolumes::default(),
        };
        self.configs.container(&request).await.unwrap()
    }

    async fn exited(&self, id: &ContainerId) -> orlop_core::runtime::Container {
        for _ in 0..600 {
            let container = self.runtime.container(id).await.unwrap();
            if container.state == ContainerState::Exited {
                return container;
            }
            self.env.sleep(Duration::from_millis(50)).await;
        }
        panic!("it still runs");
    }
}

/// A number by which the cgroups of two tests differ.
fn rand() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) as u32
}

fn pod(spec: Value) -> Arc<Pod> {
    let pod =
        json!({"metadata": {"name": "web", "namespace": "ns", "uid": "1f0e-77"}, "spec": spec});
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn shell(script: &str, more: Value) -> Value {
    let mut container = json!({
        "name": "c", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script],
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    container
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    container
}

#[test]
fn a_container_is_what_its_pod_says() {
    on_node("a_container_is_what_its_pod_says", async |node| {
        let script = "echo $GREETING $0; hostname; cat /etc/hosts; id -u; id -G; cat /proc/self/cgroup; \
                      grep NoNewPrivs /proc/self/status; touch /new || echo sealed; echo said > /dev/termination-log; exit 3";
        let more = json!({
            "args": ["$(NAME)"],
            "env": [{"name": "NAME", "value": "me"}, {"name": "GREETING", "value": "hello $(NAME)"}],
            "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "500m", "memory": "64Mi"}},
            "securityContext": {"runAsUser": 1000, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false},
        });
        let pod = pod(json!({
            "containers": [shell(script, more)],
            "hostname": "hull", "subdomain": "deck", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["mast"]}],
            "securityContext": {"runAsGroup": 2000, "fsGroup": 3000, "supplementalGroups": [4000]},
        }));
        let sandbox = node.sandbox(&pod).await;
        let parent = sandbox.1.cgroup_parent.clone();
        assert_eq!(
            parent,
            format!("{}/kubepods/pod1f0e-77", node.config.cgroup_root)
        );
        let id = node.start(&pod, &sandbox).await;
        let ended = node.exited(&id).await;
        let log = fs::read_to_string(ended.log_path.as_ref().unwrap()).unwrap();
        for line in [
            "hello me me",
            "hull",
            "# Kubernetes-managed hosts file.",
            "1.2.3.4\tmast",
            "1000",
            "2000 3000 4000",
            "NoNewPrivs:\t1",
            "sealed",
        ] {
            assert!(log.contains(&format!(" F {line}\n")), "{line:?} in {log}");
        }
        let address = node.runtime.sandbox(&sandbox.0).await.unwrap().addresses[0];
        assert!(
            log.contains(&format!("{address}\thull.deck.ns.svc.cluster.local\thull")),
            "{log}"
        );
        assert!(log.contains(&format!("{parent}/{id}")), "{log}");
        let exit = ended.exit.clone().unwrap();
        assert_eq!(exit.code, 3);
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let said = node
            .configs
            .termination_message(&pod, container, &ended)
            .await;
        assert_eq!(said, "said\n");

        // What the pod was given is taken back, and what is left in it dies.
        assert_eq!(node.cgroups.on_machine().await, ["1f0e-77"]);
        let memory = node.cgroups.usage(&parent).await.memory;
        assert!(memory.is_none_or(|memory| memory.available.is_some_and(|left| left <= 64 << 20)));
        node.runtime.remove_sandbox(&sandbox.0).await.unwrap();
        node.cgroups.remove("1f0e-77").await.unwrap();
        assert!(node.cgroups.on_machine().await.is_empty());
    });
}

#[test]
fn logs_are_put_aside_while_they_are_written() {
    on_node("logs_are_put_aside_while_they_are_written", async |node| {
        let script = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.05; done";
        let pod = pod(
            json!({"containers": [shell(script, json!({}))], "terminationGracePeriodSeconds": 0}),
        );
        let sandbox = node.sandbox(&pod).await;
        let id = node.start(&pod, &sandbox).await;
        let rotator = LogRotator::new(&node.config, node.runtime.clone(), node.env.clone());
        let log: PathBuf = node.runtime.container(&id).await.unwrap().log_path.unwrap();
        for _ in 0..3 {
            node.env.sleep(Duration::from_millis(1100)).await;
            rotator.round().await.unwrap();
        }
        node.env.sleep(Duration::from_millis(300)).await;
        let names: Vec<String> = fs::read_dir(log.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(
            names.iter().filter(|name| name.ends_with(".gz")).count() >= 1,
            "{names:?}"
        );
        assert!(
            fs::read_to_string(&log).unwrap().contains("line"),
            "a new one is written"
        );
        let links: Vec<_> = fs::read_dir(node.config.container_logs_dir.as_ref().unwrap())
            .unwrap()
            .collect();
        assert_eq!(links.len(), 1);
        node.runtime.remove_sandbox(&sandbox.0).await.unwrap();
        node.cgroups.remove("1f0e-77").await.unwrap();
    });
}

#[test]
fn a_secret_opens_a_registry_and_unused_images_go() {
    on_node(
        "a_secret_opens_a_registry_and_unused_images_go",
        async |node| {
            let (user, password) = registry::LOGIN;
            let auth = STANDARD.encode(format!("{user}:{password}"));
            let file = json!({"auths": {registry::HOST: {"auth": auth}}}).to_string();
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": "pull", "namespace": "ns"}, "data": {".dockerconfigjson": STANDARD.encode(file)}});
            const SECRETS: Resource = Resource::namespaced("", "v1", "secrets", "Secret");
            let client = node.api.client();
            client
                .resource(&SECRETS)
                .namespace("ns")
                .create(&secret)
                .await
                .unwrap();
            let container =
                json!({"name": "c", "image": PRIVATE, "imagePullPolicy": "IfNotPresent"});
            let without = pod(json!({"containers": [container.clone()]}));
            let with =
                pod(json!({"containers": [container], "imagePullSecrets": [{"name": "pull"}]}));
            let own = &with.spec.as_ref().unwrap().containers[0];
            let sandbox = SandboxConfig::new("ns", "web", "1f0e-77");
            let denied = node
                .images
                .ensure(&without, own, &sandbox)
                .await
                .unwrap_err();
            assert_eq!(denied.waiting.as_deref(), Some("ErrImagePull"), "{denied}");
            let again = node
                .images
                .ensure(&without, own, &sandbox)
                .await
                .unwrap_err();
            assert_eq!(
                again.waiting.as_deref(),
                Some("ImagePullBackOff"),
                "{again}"
            );
            let other = Pod {
                metadata: Default::default(),
                ..Pod::clone(&with)
            };
            let mut other = other;
            other.metadata.namespace = Some("ns".to_owned());
            other.metadata.uid = Some("other".to_owned());
            let image = node
                .images
                .ensure(&Arc::new(other), own, &sandbox)
                .await
                .unwrap();
            assert!(image.size > 0);

            let mut config = KubeletConfig::clone(&node.config);
            config.image_minimum_gc_age = Duration::ZERO;
            let silent = EventRecorder::silent();
            let collector =
                ImageCollector::new(&config, node.runtime.clone(), silent, node.env.clone());
            collector
                .collect()
                .await
                .or_else(|error| {
                    // The machine's disk may really be so full that this is not enough.
                    let full =
                        matches!(error, orlop_kubelet::images::CollectError::NotEnough { .. });
                    full.then_some(()).ok_or(error)
                })
                .unwrap();
            collector.delete_unused().await.unwrap();
            let left = node.runtime.images().await.unwrap();
            assert!(
                left.iter().all(|image| !image.answers_to(PRIVATE)),
                "{left:?}"
            );
        },
    );
}
