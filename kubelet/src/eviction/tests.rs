use std::future::Future;

use async_trait::async_trait;
use jiff::Timestamp;
use orlop_core::env::{SimEnv, TaskGroup};
use orlop_core::events::EventBroadcaster;
use orlop_core::resource::Resource;
use orlop_core::runtime::{
    Container, ContainerConfig, ContainerId, ContainerMetadata, ContainerStats, FilesystemUsage,
    Image, ImageId, ImageSpec, Labels, MemoryUsage, PullRequest, RuntimeError, RuntimeStatus,
    Sandbox, SandboxConfig, SandboxId,
};
use orlop_core::testing::FakeApi;
use serde_json::{Value, json};

use super::*;

type Answer<T> = Result<T, RuntimeError>;

fn none<T>() -> Answer<T> {
    Err(RuntimeError::Unsupported("here"))
}

/// A runtime that only says what containers use.
#[derive(Default)]
struct Stats(Mutex<Vec<ContainerStats>>);

#[async_trait]
impl Runtime for Stats {
    async fn container_stats(&self, _: &ContainerFilter) -> Answer<Vec<ContainerStats>> {
        Ok(self.0.lock().clone())
    }
    async fn status(&self) -> Answer<RuntimeStatus> {
        none()
    }
    async fn run_sandbox(&self, _: &SandboxConfig) -> Answer<SandboxId> {
        none()
    }
    async fn stop_sandbox(&self, _: &SandboxId) -> Answer<()> {
        none()
    }
    async fn remove_sandbox(&self, _: &SandboxId) -> Answer<()> {
        none()
    }
    async fn sandboxes(&self, _: &SandboxFilter) -> Answer<Vec<Sandbox>> {
        none()
    }
    async fn create_container(&self, _: &SandboxId, _: &ContainerConfig) -> Answer<ContainerId> {
        none()
    }
    async fn start_container(&self, _: &ContainerId) -> Answer<()> {
        none()
    }
    async fn stop_container(&self, _: &ContainerId, _: Duration) -> Answer<()> {
        none()
    }
    async fn remove_container(&self, _: &ContainerId) -> Answer<()> {
        none()
    }
    async fn containers(&self, _: &ContainerFilter) -> Answer<Vec<Container>> {
        none()
    }
    async fn pull_image(&self, _: &PullRequest) -> Answer<ImageId> {
        none()
    }
    async fn images(&self) -> Answer<Vec<Image>> {
        none()
    }
    async fn remove_image(&self, _: &ImageSpec) -> Answer<()> {
        none()
    }
}

struct Fake {
    seen: Mutex<Seen>,
    disk: Mutex<BTreeMap<String, PodDisk>>,
}

#[async_trait]
impl Machine for Fake {
    async fn look(&self) -> Seen {
        self.seen.lock().clone()
    }
}

#[async_trait]
impl DiskUsage for Fake {
    async fn of(&self, pod: &Arc<Pod>) -> PodDisk {
        self.disk
            .lock()
            .get(pod.metadata.uid.as_deref().unwrap())
            .cloned()
            .unwrap_or_default()
    }
}

struct World {
    env: Env,
    stats: Arc<Stats>,
    fake: Arc<Fake>,
    pods: Arc<Mutex<Vec<Arc<Pod>>>>,
    evicted: Arc<Mutex<Vec<(String, String)>>>,
    reclaimed: Arc<Mutex<usize>>,
    changes: Arc<Mutex<usize>>,
    /// What removing images leaves.
    after_reclaim: Arc<Mutex<Option<Observation>>>,
    events: EventRecorder,
}

const GI: i64 = 1 << 30;

fn left(available: i64) -> Observation {
    Observation {
        available,
        capacity: 100 * GI,
    }
}

impl World {
    fn new(env: Env) -> Self {
        Self {
            env,
            stats: Arc::default(),
            fake: Arc::new(Fake {
                seen: Mutex::default(),
                disk: Mutex::default(),
            }),
            pods: Arc::default(),
            evicted: Arc::default(),
            reclaimed: Arc::default(),
            changes: Arc::default(),
            after_reclaim: Arc::default(),
            events: EventRecorder::silent(),
        }
    }

    fn manager(&self) -> EvictionManager {
        let (pods, evicted, changes) = (
            self.pods.clone(),
            self.evicted.clone(),
            self.changes.clone(),
        );
        let (reclaimed, after, fake) = (
            self.reclaimed.clone(),
            self.after_reclaim.clone(),
            self.fake.clone(),
        );
        let present = self.pods.clone();
        let going = self.pods.clone();
        let parts = EvictionParts {
            runtime: self.stats.clone(),
            machine: self.fake.clone(),
            disk: self.fake.clone(),
            pods: Arc::new(move || pods.lock().clone()),
            gone: Arc::new(move |uid| {
                !present
                    .lock()
                    .iter()
                    .any(|pod| pod.metadata.uid.as_deref() == Some(uid))
            }),
            evict: Arc::new(move |uid, reason, message| {
                assert_eq!(reason, "Evicted");
                if uid == "ended" {
                    return false;
                }
                evicted.lock().push((uid.to_owned(), message.to_owned()));
                going
                    .lock()
                    .retain(|pod| pod.metadata.uid.as_deref() != Some(uid));
                true
            }),
            reclaim: Some(Arc::new(move || {
                *reclaimed.lock() += 1;
                if let Some(left) = *after.lock() {
                    fake.seen.lock().signals.insert(Signal::ImageFs, left);
                }
                Box::pin(async {})
            })),
            changed: Arc::new(move || *changes.lock() += 1),
            events: self.events.clone(),
        };
        EvictionManager::new(self.env.clone(), &KubeletConfig::new("n1"), parts).unwrap()
    }

    fn see(&self, signal: Signal, available: i64) {
        self.fake
            .seen
            .lock()
            .signals
            .insert(signal, left(available));
    }

    fn pod(&self, uid: &str, spec: Value) {
        let mut spec = spec;
        spec.as_object_mut()
            .unwrap()
            .entry("containers")
            .or_insert(json!([{"name": "c"}]));
        let pod =
            json!({"metadata": {"name": uid, "namespace": "default", "uid": uid}, "spec": spec});
        self.pods
            .lock()
            .push(Arc::new(serde_json::from_value(pod).unwrap()));
    }

    fn uses(&self, uid: &str, memory: i64, written: i64) {
        self.stats.0.lock().push(ContainerStats {
            id: ContainerId::new(uid),
            metadata: ContainerMetadata {
                name: "c".into(),
                attempt: 0,
            },
            labels: Labels::from([(labels::POD_UID.to_owned(), uid.to_owned())]),
            cpu: None,
            memory: Some(MemoryUsage {
                at: Timestamp::UNIX_EPOCH,
                working_set: memory as u64,
                available: None,
                usage: None,
                rss: None,
                page_faults: None,
                major_page_faults: None,
                pressure: None,
            }),
            swap: None,
            writable_layer: Some(FilesystemUsage {
                at: Timestamp::UNIX_EPOCH,
                mountpoint: "/".into(),
                used_bytes: written as u64,
                inodes_used: Some(7),
            }),
            io_pressure: None,
        });
    }

    fn evicted(&self) -> Vec<String> {
        self.evicted
            .lock()
            .iter()
            .map(|(uid, _)| uid.clone())
            .collect()
    }
}

fn run<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(World) -> F) {
    let sim = SimEnv::new(1);
    sim.block_on(test(World::new(sim.env())));
}

fn requests(memory: &str) -> Value {
    json!([{"name": "c", "resources": {"requests": {"memory": memory}}}])
}

#[test]
fn the_pod_that_takes_the_most_beyond_its_request_goes_first() {
    run(|world| async move {
        let manager = world.manager();
        world.see(Signal::Memory, GI);
        world.pod("within", json!({"containers": requests("8Gi")}));
        world.pod("over", json!({"containers": requests("1Gi")}));
        world.pod("important", json!({"priority": 1000}));
        world.pod("more", json!({}));
        world.pod("critical", json!({"priority": 2_000_001_000}));
        for (uid, gi) in [
            ("within", 7),
            ("over", 2),
            ("important", 9),
            ("more", 3),
            ("critical", 50),
        ] {
            world.uses(uid, gi * GI, 0);
        }
        assert_eq!(manager.synchronize().await, None, "enough is left");
        world.see(Signal::Memory, 97_304 << 10);
        for _ in 0..6 {
            manager.synchronize().await;
        }
        assert_eq!(world.evicted(), ["more", "over", "important", "within"]);
        assert_eq!(
            world.evicted.lock()[1].1,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 97304Ki. \
             Container c was using 2Gi, request is 1Gi, has larger consumption of memory. "
        );
        assert_eq!(
            world.evicted.lock()[3].1,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 97304Ki. "
        );
        assert_eq!(*world.reclaimed.lock(), 0, "images take no memory");
        assert!(manager.pressure().memory && !manager.pressure().disk);
    });
}

#[test]
fn a_pod_of_which_nothing_is_known_goes_before_all() {
    run(|world| async move {
        let manager = world.manager();
        world.pod("known", json!({}));
        world.pod("unknown", json!({"priority": 5}));
        world.uses("known", 5 * GI, 0);
        world.see(Signal::Memory, 0);
        assert_eq!(manager.synchronize().await.as_deref(), Some("unknown"));
    });
}

#[test]
fn images_go_before_pods() {
    run(|world| async move {
        let manager = world.manager();
        world.pod("p", json!({}));
        world.uses("p", 0, GI);
        world.see(Signal::ImageFs, 10 * GI);
        *world.after_reclaim.lock() = Some(left(50 * GI));
        assert_eq!(manager.synchronize().await, None);
        assert_eq!(*world.reclaimed.lock(), 1);
        assert!(manager.pressure().disk);
        *world.after_reclaim.lock() = None;
        world.see(Signal::ImageFs, 10 * GI);
        assert_eq!(manager.synchronize().await.as_deref(), Some("p"));
        assert_eq!(
            world.evicted.lock()[0].1,
            "The node was low on resource: ephemeral-storage. Threshold quantity: 16106128000, available: 10Gi. \
             Container c was using 1Gi, request is 0, has larger consumption of ephemeral-storage. "
        );
    });
}

#[test]
fn pressure_lasts_for_a_while_and_is_told_when_it_changes() {
    run(|world| async move {
        let manager = Arc::new(world.manager());
        let group = TaskGroup::new(world.env.clone());
        let (task, token) = (manager.clone(), group.token());
        group.spawn("eviction", async move { task.run(token).await });
        world.see(Signal::NodeFsInodes, GI);
        world.env.sleep(Duration::from_secs(15)).await;
        assert_eq!(
            manager.pressure(),
            Pressure {
                disk: true,
                ..Pressure::default()
            }
        );
        assert_eq!(*world.changes.lock(), 1);
        world.see(Signal::NodeFsInodes, 50 * GI);
        world.env.sleep(Duration::from_secs(290)).await;
        assert!(manager.pressure().disk);
        world.env.sleep(Duration::from_secs(20)).await;
        assert_eq!(manager.pressure(), Pressure::default());
        assert_eq!(*world.changes.lock(), 2);
        group.shutdown().await;
    });
}

#[test]
fn one_pod_at_a_time_and_the_next_when_it_is_gone() {
    run(|world| async move {
        let manager = Arc::new(world.manager());
        for uid in ["a", "b", "c"] {
            world.pod(uid, json!({}));
            world.uses(uid, GI, 0);
        }
        world.see(Signal::Memory, 0);
        let group = TaskGroup::new(world.env.clone());
        let token = group.token();
        group.spawn("eviction", async move { manager.run(token).await });
        world.env.sleep(Duration::from_millis(500)).await;
        assert_eq!(world.evicted().len(), 1);
        world.env.sleep(Duration::from_secs(1)).await;
        assert_eq!(world.evicted().len(), 2);
        world.see(Signal::Memory, 50 * GI);
        world.env.sleep(Duration::from_secs(60)).await;
        assert_eq!(world.evicted().len(), 2);
        group.shutdown().await;
    });
}

#[test]
fn who_takes_more_disk_than_allowed_goes_without_pressure() {
    let dir = |name: &str, bytes: u64| PodDisk {
        empty_dirs: BTreeMap::from([(name.to_owned(), Disk { bytes, inodes: 1 })]),
        logs: BTreeMap::from([(
            "c".to_owned(),
            Disk {
                bytes: 2 << 20,
                inodes: 1,
            },
        )]),
    };
    let limit = json!([{"name": "c", "resources": {"limits": {"ephemeral-storage": "10Mi"}}}]);
    let two = json!([{"name": "c", "resources": {"limits": {"ephemeral-storage": "10Mi"}}},
        {"name": "d", "resources": {"limits": {"ephemeral-storage": "1Gi"}}}]);
    let volume = json!([{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}]);
    let memory = json!([{"name": "scratch", "emptyDir": {"medium": "Memory"}}]);
    let cases = [
        (json!({"volumes": volume}), 1 << 20, 0, None),
        (
            json!({"volumes": volume}),
            (1 << 20) + 1,
            0,
            Some("Usage of EmptyDir volume \"scratch\" exceeds the limit \"1Mi\". "),
        ),
        (
            json!({"containers": limit, "volumes": [{"name": "scratch", "emptyDir": {}}]}),
            4 << 20,
            4 << 20,
            None,
        ),
        (
            json!({"containers": limit, "volumes": [{"name": "scratch", "emptyDir": {}}]}),
            5 << 20,
            4 << 20,
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. "),
        ),
        (
            json!({"containers": limit, "volumes": memory}),
            50 << 20,
            4 << 20,
            None,
        ),
        (
            json!({"containers": two}),
            0,
            9 << 20,
            Some("Container c exceeded its local ephemeral storage limit \"10Mi\". "),
        ),
        (json!({}), 1 << 40, 1 << 40, None),
    ];
    for (spec, in_volume, written, want) in cases {
        run(|world| async move {
            let manager = world.manager();
            world.pod("p", spec.clone());
            world.uses("p", 0, written);
            world
                .fake
                .disk
                .lock()
                .insert("p".into(), dir("scratch", in_volume));
            manager.synchronize().await;
            let got = world
                .evicted
                .lock()
                .first()
                .map(|(_, message)| message.clone());
            assert_eq!(got.as_deref(), want, "{spec}");
        });
    }
}

#[test]
fn under_pressure_not_every_pod_may_begin() {
    run(|world| async move {
        let manager = world.manager();
        let pod = |spec: Value| -> Pod {
            serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
        };
        let idle = pod(json!({"containers": [{"name": "c"}]}));
        let burstable = pod(json!({"containers": requests("1Gi")}));
        let tolerant = pod(
            json!({"containers": [], "tolerations": [{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]}),
        );
        let critical = pod(json!({"containers": [], "priority": 2_000_000_000}));
        for one in [&idle, &burstable, &tolerant, &critical] {
            assert_eq!(manager.admit(one), Ok(()));
        }
        world.see(Signal::Memory, 0);
        manager.synchronize().await;
        let refused = manager.admit(&idle).unwrap_err();
        assert_eq!(
            refused,
            (
                "Evicted".into(),
                "The node had condition: [MemoryPressure]. ".into()
            )
        );
        for one in [&burstable, &tolerant, &critical] {
            assert_eq!(manager.admit(one), Ok(()));
        }
        world.see(Signal::NodeFs, 0);
        manager.synchronize().await;
        let message = "The node had condition: [MemoryPressure DiskPressure]. ";
        for one in [&idle, &burstable, &tolerant] {
            assert_eq!(manager.admit(one).unwrap_err().1, message);
        }
        assert_eq!(manager.admit(&critical), Ok(()));
    });
}

#[test]
fn evictions_are_told_and_who_has_ended_is_passed_over() {
    run(|mut world| async move {
        let api = FakeApi::new(world.env.clone());
        let group = TaskGroup::new(world.env.clone());
        world.events = EventBroadcaster::start(&group, api.client()).recorder_on("kubelet", "n1");
        let manager = world.manager();
        world.pod("ended", json!({}));
        world.pod("p", json!({}));
        world.uses("ended", 9 * GI, 0);
        world.uses("p", GI, 0);
        world.see(Signal::Memory, 0);
        assert_eq!(manager.synchronize().await.as_deref(), Some("p"));
        world.env.sleep(Duration::from_secs(1)).await;
        let events = api.objects(&Resource::namespaced("", "v1", "events", "Event"));
        let text = |event: &orlop_core::object::Object| {
            let event = event.value().unwrap();
            let word = |name: &str| event[name].as_str().unwrap().to_owned();
            let about = event["involvedObject"]["name"].as_str().unwrap();
            (about.to_owned(), word("reason"), word("message"))
        };
        let told: BTreeMap<_, _> = events
            .iter()
            .map(text)
            .map(|(a, b, c)| (a, (b, c)))
            .collect();
        assert_eq!(
            told["n1"],
            (
                "EvictionThresholdMet".into(),
                "Attempting to reclaim memory".into()
            )
        );
        assert_eq!(told["p"].0, "Evicted");
        assert!(told["p"].1.starts_with(
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 0. "
        ));
        assert_eq!(told.len(), 2);
        group.shutdown().await;
    });
}
