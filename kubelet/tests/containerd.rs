//! Pods on a real runtime: containerd, whose socket `ORLOP_CRI_SOCKET` names, with the image `local.test/busybox:1.35`. Needs root.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use orlop_api::typed::Informer;
use orlop_core::client::DeleteOptions;
use orlop_core::env::{CancelToken, Env, TaskGroup};
use orlop_core::informer::InformerFactory;
use orlop_core::resource::Resource;
use orlop_core::runtime::{ContainerFilter, Runtime, SandboxFilter};
use orlop_core::testing::FakeApi;
use orlop_kubelet::cgroups::{CgroupManager, NodeLimits};
use orlop_kubelet::config::KubeletConfig;
use orlop_kubelet::container::{ConfigSources, ContainerConfigs, NodeFacts};
use orlop_kubelet::hooks::HookRunner;
use orlop_kubelet::images::ImageManager;
use orlop_kubelet::kubelet::{Kubelet, Parts};
use orlop_kubelet::objects::ObjectCache;
use orlop_kubelet::probes::{NodeProber, ProbeManager};
use orlop_kubelet::tokens::TokenManager;
use orlop_kubelet::volumes::{AllocatableSource, Contents, VolumeManager};
use orlop_runtime_cri::CriRuntime;
use serde_json::{Value, json};

const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");
const MAPS: Resource = Resource::namespaced("", "v1", "configmaps", "ConfigMap");
const EVENTS: Resource = Resource::namespaced("", "v1", "events", "Event");
const IMAGE: &str = "local.test/busybox:1.35";

/// An agent with all its real parts.
async fn agent(
    api: &FakeApi,
    runtime: Arc<dyn Runtime>,
    env: &Env,
    config: &KubeletConfig,
) -> (Kubelet, CancelToken, TaskGroup) {
    let (client, config) = (api.client(), Arc::new(config.clone()));
    let tasks = TaskGroup::new(env.clone());
    let builder =
        Kubelet::builder(client.clone(), runtime.clone(), env.clone()).config((*config).clone());
    let recorder = builder.recorder();
    let waker = builder.waker();
    let wake: Arc<dyn Fn(&str) + Send + Sync> = Arc::new(move |uid| waker.wake(uid));
    let objects = ObjectCache::new(client.clone(), env.clone(), &tasks.token());
    objects.on_change(wake.clone());
    let allocatable: AllocatableSource = Arc::new(Default::default);
    let contents = Contents {
        objects: objects.clone(),
        tokens: TokenManager::new(client.clone(), env.clone()),
        allocatable: allocatable.clone(),
    };
    let volumes = VolumeManager::new(&config.root_dir, env.clone());
    let volumes = Arc::new(volumes.with_defaults(client.clone(), contents));
    let cgroups = CgroupManager::of_machine(&config, &*runtime, env.clone());
    let cgroups = cgroups.await.unwrap();
    cgroups
        .make_roots(NodeLimits::of_machine(&config))
        .await
        .unwrap();
    let factory = InformerFactory::new(client.clone(), env.clone());
    let services = Informer::<Service>::all(&factory);
    factory.start(&tasks);
    let configs = ContainerConfigs::new(ConfigSources {
        config: config.clone(),
        client: client.clone(),
        runtime: runtime.clone(),
        objects: objects.clone(),
        services: Arc::new(services),
        volumes: volumes.clone(),
        cgroups: Arc::new(cgroups.clone()),
        recorder: recorder.clone(),
        env: env.clone(),
        allocatable,
        node: NodeFacts::of_machine(cgroups.hierarchies()),
    });
    let prober = Arc::new(NodeProber::new(env.clone(), runtime.clone()));
    let of_probes = TaskGroup::with_parent(env.clone(), &tasks.token());
    let probes = ProbeManager::new(of_probes, prober, recorder.clone(), wake);
    let images = ImageManager::new(
        &config,
        runtime.clone(),
        objects,
        recorder.clone(),
        env.clone(),
    );
    let kubelet = builder
        .parts(Parts {
            volumes,
            configs: Arc::new(configs),
            images: Arc::new(images),
            probes: Arc::new(probes),
            hooks: Arc::new(HookRunner::new(env.clone(), runtime, recorder)),
            cgroups: Arc::new(cgroups),
        })
        .build()
        .unwrap();
    let token = CancelToken::new();
    let (own, stop) = (kubelet.clone(), token.clone());
    env.spawn("kubelet", async move { own.run(&stop).await });
    (kubelet, token, tasks)
}

struct World {
    api: FakeApi,
    env: Env,
}

impl World {
    async fn create(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        spec["terminationGracePeriodSeconds"] = json!(2);
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                container["image"] = json!(IMAGE);
                container["imagePullPolicy"] = json!("IfNotPresent");
                container["terminationMessagePath"] = json!("/dev/termination-log");
            }
        }
        let client = self.api.client();
        let pods = client.resource(&PODS).namespace("default");
        let pod = json!({"metadata": {"name": name}, "spec": spec});
        pods.create(&pod).await.unwrap();
    }

    fn pod(&self, name: &str) -> Value {
        let pod = self.api.object(&PODS, "default", name);
        pod.map_or(Value::Null, |pod| (*pod.value().unwrap()).clone())
    }

    fn container(&self, pod: &str) -> Value {
        self.pod(pod)["status"]["containerStatuses"][0].clone()
    }

    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        for _ in 0..600 {
            if holds() {
                return;
            }
            self.env.sleep(Duration::from_millis(50)).await;
        }
        let pods = self.api.objects(&PODS);
        let pods: Vec<_> = pods
            .iter()
            .map(|pod| pod.value().unwrap()["status"].clone())
            .collect();
        let events = self.api.objects(&EVENTS);
        let events: Vec<_> = events
            .iter()
            .map(|e| e.value().unwrap()["message"].clone())
            .collect();
        panic!("{what}: {pods:#?} {events:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_live_and_end_in_containers() {
    let Ok(socket) = std::env::var("ORLOP_CRI_SOCKET") else {
        println!("skipped: pods_live_and_end_in_containers: ORLOP_CRI_SOCKET names no runtime");
        return;
    };
    let env = Env::tokio();
    let runtime = CriRuntime::connect(&format!("unix://{socket}"), env.clone()).await;
    let runtime: Arc<dyn Runtime> = Arc::new(runtime.unwrap());
    let directory = tempfile::tempdir().unwrap();
    let mut config = KubeletConfig::new("n1");
    config.root_dir = directory.path().join("kubelet");
    config.pod_logs_dir = directory.path().join("pods");
    config.container_logs_dir = Some(directory.path().join("containers"));
    config.node_ips = vec!["192.0.2.1".parse().unwrap()];
    config.cgroup_root = "orlop-pods-test".to_owned();
    config.restrict_oom_score_adj = true;
    config.relist_period = Duration::from_millis(200);
    let world = World {
        api: FakeApi::new(env.clone()),
        env: env.clone(),
    };
    let client = world.api.client();
    let maps = client.resource(&MAPS).namespace("default");
    maps.create(&json!({"metadata": {"name": "settings"}, "data": {"colour": "green"}}))
        .await
        .unwrap();
    let (_kubelet, stop, tasks) = agent(&world.api, runtime.clone(), &env, &config).await;

    world.create("web", json!({
        "volumes": [{"name": "config", "configMap": {"name": "settings"}}, {"name": "scratch", "emptyDir": {}}],
        "initContainers": [{"name": "prepare", "command": ["sh", "-c", "cat /config/colour > /scratch/colour"],
            "volumeMounts": [{"name": "config", "mountPath": "/config"}, {"name": "scratch", "mountPath": "/scratch"}]}],
        "containers": [{"name": "c", "command": ["sh", "-c", "trap 'exit 0' TERM; echo $IP $(cat /scratch/colour); touch /scratch/ready; while true; do sleep 0.2; done"],
            "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "resources": {"limits": {"memory": "64Mi"}},
            "readinessProbe": {"exec": {"command": ["cat", "/scratch/ready"]}, "periodSeconds": 1},
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}],
    })).await;
    world.create("crash", json!({"containers": [{"name": "c", "command": ["sh", "-c", "echo bye > /dev/termination-log; exit 3"]}]})).await;
    world
        .create(
            "oom",
            json!({"restartPolicy": "Never", "containers": [{"name": "c",
        "command": ["sh", "-c", "tail /dev/zero"], "resources": {"limits": {"memory": "20Mi"}}}]}),
        )
        .await;
    world
        .create(
            "none",
            json!({"containers": [{"name": "c", "command": ["/no/such/program"]}]}),
        )
        .await;

    let condition = |pod: &str, kind: &str| {
        let pod = world.pod(pod);
        let all = pod["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let found = all.into_iter().find(|one| one["type"] == kind);
        found.map_or(Value::Null, |one| one["status"].clone())
    };
    world
        .until("web is ready", || condition("web", "Ready") == "True")
        .await;
    let ip = world.pod("web")["status"]["podIP"]
        .as_str()
        .unwrap()
        .to_owned();
    let id = world.container("web")["containerID"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(id.starts_with("containerd://"), "{id}");
    let links: Vec<_> = std::fs::read_dir(directory.path().join("containers"))
        .unwrap()
        .collect();
    let web = links.iter().flatten().find(|link| {
        link.file_name()
            .to_string_lossy()
            .starts_with("web_default_c-")
    });
    let log = std::fs::read_to_string(web.unwrap().path()).unwrap();
    assert!(log.contains(&format!("{ip} green")), "{log}");

    world
        .until("crash waits", || {
            world.container("crash")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
        .await;
    let crash = world.container("crash");
    assert_eq!(crash["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(crash["lastState"]["terminated"]["message"], "bye\n");
    assert_eq!(crash["restartCount"], 1);
    world
        .until("oom is killed", || {
            world.pod("oom")["status"]["phase"] == "Failed"
        })
        .await;
    assert_eq!(
        world.container("oom")["state"]["terminated"]["reason"],
        "OOMKilled"
    );
    world
        .until("none says why", || {
            let none = world.container("none");
            ["RunContainerError", "CrashLoopBackOff"]
                .iter()
                .any(|reason| none["state"]["waiting"]["reason"] == *reason)
        })
        .await;

    // Another agent adopts what runs.
    stop.cancel();
    tasks.shutdown().await;
    let (kubelet, stop, tasks) = agent(&world.api, runtime.clone(), &env, &config).await;
    env.sleep(Duration::from_secs(3)).await;
    assert_eq!(world.container("web")["containerID"], id.as_str());
    assert_eq!(world.container("web")["restartCount"], 0);
    assert_eq!(condition("web", "Ready"), "True");

    for name in ["web", "crash", "oom", "none"] {
        let options = DeleteOptions {
            grace_period_seconds: Some(2),
            ..DeleteOptions::default()
        };
        let pods = client.resource(&PODS).namespace("default");
        pods.delete(name, options).await.unwrap();
    }
    world
        .until("all are gone", || {
            world.api.objects(&PODS).is_empty() && kubelet.pods().is_empty()
        })
        .await;
    let left = runtime.sandboxes(&SandboxFilter::default()).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    let left = runtime
        .containers(&ContainerFilter::default())
        .await
        .unwrap();
    assert!(left.is_empty(), "{left:?}");
    let files = |path: &Path| std::fs::read_dir(path).map_or(0, Iterator::count);
    assert_eq!(files(&config.root_dir.join("pods")), 0);
    assert_eq!(files(&config.pod_logs_dir), 0);
    assert_eq!(files(&directory.path().join("containers")), 0);
    stop.cancel();
    tasks.shutdown().await;
    let cgroups = CgroupManager::of_machine(&config, &*runtime, env.clone());
    cgroups.await.unwrap().remove_empty_roots().await.unwrap();
}

/// Kills and restarts the runtime by what `ORLOP_CRI_RESTART` says, a command of the shell that returns when it is up again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_outlive_the_runtimes_own_restart() {
    let (Ok(socket), Ok(restart)) = (
        std::env::var("ORLOP_CRI_SOCKET"),
        std::env::var("ORLOP_CRI_RESTART"),
    ) else {
        println!("skipped: pods_outlive_the_runtimes_own_restart: ORLOP_CRI_RESTART says nothing");
        return;
    };
    let env = Env::tokio();
    let runtime = CriRuntime::connect(&format!("unix://{socket}"), env.clone()).await;
    let runtime: Arc<dyn Runtime> = Arc::new(runtime.unwrap());
    let directory = tempfile::tempdir().unwrap();
    let mut config = KubeletConfig::new("n1");
    config.root_dir = directory.path().join("kubelet");
    config.pod_logs_dir = directory.path().join("pods");
    config.container_logs_dir = None;
    config.node_ips = vec!["192.0.2.1".parse().unwrap()];
    config.cgroup_root = "orlop-restart-test".to_owned();
    config.restrict_oom_score_adj = true;
    let world = World {
        api: FakeApi::new(env.clone()),
        env: env.clone(),
    };
    let (kubelet, stop, tasks) = agent(&world.api, runtime, &env, &config).await;
    let spec = json!({"containers": [{"name": "c", "command": ["sleep", "1000"]}]});
    world.create("web", spec.clone()).await;
    let running = |pod: &str| world.pod(pod)["status"]["phase"] == "Running";
    world.until("it runs", || running("web")).await;
    let before = world.container("web");

    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let over = done.clone();
    let shell = std::thread::spawn(move || {
        let ended = std::process::Command::new("sh")
            .arg("-c")
            .arg(restart)
            .status();
        over.store(true, std::sync::atomic::Ordering::Release);
        ended
    });
    // One that comes while the runtime is away has to wait.
    world.create("late", spec).await;
    world
        .until("the runtime is back", || {
            done.load(std::sync::atomic::Ordering::Acquire)
        })
        .await;
    assert!(shell.join().unwrap().unwrap().success());
    world.until("the late one runs", || running("late")).await;
    env.sleep(Duration::from_secs(2)).await;
    assert_eq!(world.container("web"), before);
    for name in ["web", "late"] {
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            ..DeleteOptions::default()
        };
        let client = world.api.client();
        let pods = client.resource(&PODS).namespace("default");
        pods.delete(name, options).await.unwrap();
    }
    world
        .until("all are gone", || kubelet.pods().is_empty())
        .await;
    stop.cancel();
    tasks.shutdown().await;
}
