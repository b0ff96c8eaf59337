use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Probe;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use orlop_core::env::SimEnv;
use orlop_core::events::EventBroadcaster;
use orlop_core::resource::Resource;
use orlop_core::testing::FakeApi;
use serde_json::{Value, json};

use super::*;

mod sockets;

/// Answers what was told before; the last answer for good. Notes when it was asked.
struct Scripted {
    env: Env,
    answers: Mutex<BTreeMap<i32, VecDeque<Result<Outcome, String>>>>,
    asked: Mutex<Vec<(i32, u64)>>,
    takes: Duration,
}

fn yes() -> Result<Outcome, String> {
    Ok(Outcome::Success(String::new()))
}

fn no() -> Result<Outcome, String> {
    Ok(Outcome::Failure("no".into()))
}

#[async_trait]
impl Prober for Scripted {
    /// Probes are told apart by their `grpc` port.
    async fn probe(&self, _: &ProbeTarget, probe: &Probe) -> Result<Outcome, String> {
        let port = probe.grpc.as_ref().map(|grpc| grpc.port).unwrap();
        let at = self.env.now().since_start().as_secs();
        self.asked.lock().push((port, at));
        self.env.sleep(self.takes).await;
        let mut answers = self.answers.lock();
        let left = answers.get_mut(&port).unwrap();
        if left.len() > 1 {
            left.pop_front().unwrap()
        } else {
            left[0].clone()
        }
    }
}

struct World {
    env: Env,
    probes: ProbeManager,
    prober: Arc<Scripted>,
    woken: Arc<Mutex<Vec<u64>>>,
    api: FakeApi,
    pod: Arc<Pod>,
    container: Container,
    _events: TaskGroup,
}

const STARTUP: i32 = 1;
const LIVENESS: i32 = 2;
const READINESS: i32 = 3;
const EVENTS: Resource = Resource::namespaced("", "v1", "events", "Event");

impl World {
    fn new(env: Env, container: Value, answers: &[(i32, &[Result<Outcome, String>])]) -> Self {
        Self::slow(env, container, answers, Duration::ZERO)
    }

    fn slow(
        env: Env,
        container: Value,
        answers: &[(i32, &[Result<Outcome, String>])],
        takes: Duration,
    ) -> Self {
        let api = FakeApi::new(env.clone());
        let writing = TaskGroup::new(env.clone());
        let events = EventBroadcaster::start(&writing, Arc::new(api.clone()).client());
        let answers = answers
            .iter()
            .map(|(port, all)| (*port, all.iter().cloned().collect()));
        let prober = Arc::new(Scripted {
            env: env.clone(),
            answers: Mutex::new(answers.collect()),
            asked: Mutex::default(),
            takes,
        });
        let woken = Arc::new(Mutex::new(Vec::new()));
        let wake: Waker = {
            let (woken, env) = (woken.clone(), env.clone());
            Arc::new(move |uid| {
                assert_eq!(uid, "u1");
                woken.lock().push(env.now().since_start().as_secs());
            })
        };
        let recorder = events.recorder_on("kubelet", "n1");
        let probes = ProbeManager::new(TaskGroup::new(env.clone()), prober.clone(), recorder, wake);
        let container: Container = serde_json::from_value(container).unwrap();
        let pod = json!({"metadata": {"name": "p", "namespace": "default", "uid": "u1"},
            "spec": {"containers": [container]}});
        Self {
            env,
            probes,
            prober,
            woken,
            api,
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            container,
            _events: writing,
        }
    }

    fn watch(&self) -> ContainerId {
        let id = ContainerId::new("c1");
        let wall = self.env.wall();
        self.probes
            .watch(&self.pod, &self.container, &id, wall, None);
        id
    }

    async fn until(&self, second: u64) {
        let at = Duration::from_secs(second) + Duration::from_millis(500);
        self.env
            .sleep_until(orlop_core::env::Moment::from_start(at))
            .await;
    }

    fn asked(&self, port: i32) -> Vec<u64> {
        let asked = self.prober.asked.lock();
        asked
            .iter()
            .filter(|(one, _)| *one == port)
            .map(|(_, at)| *at)
            .collect()
    }

    fn messages(&self) -> Vec<String> {
        let events = self.api.objects(&EVENTS);
        let text = |event: &orlop_core::object::Object| {
            let value = event.value().unwrap();
            assert_eq!(value["involvedObject"]["fieldPath"], "spec.containers{c}");
            format!(
                "{} {}",
                value["reason"].as_str().unwrap(),
                value["message"].as_str().unwrap()
            )
        };
        events.iter().map(text).collect()
    }
}

fn probe(port: i32, rest: Value) -> Value {
    let mut probe = json!({"grpc": {"port": port}, "periodSeconds": 10, "failureThreshold": 3,
        "successThreshold": 1, "timeoutSeconds": 1});
    for (name, value) in rest.as_object().unwrap() {
        probe[name] = value.clone();
    }
    probe
}

fn run<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Env) -> F) {
    let sim = SimEnv::new(3);
    sim.block_on(test(sim.env()));
}

fn state(started: Option<bool>, ready: Option<bool>, failed: Option<ProbeFailure>) -> ProbeState {
    ProbeState {
        started,
        ready,
        failed,
    }
}

#[test]
fn readiness_begins_after_its_delay_and_changes_by_thresholds() {
    run(|env| async move {
        let spec = probe(
            READINESS,
            json!({"initialDelaySeconds": 5, "failureThreshold": 2, "successThreshold": 2}),
        );
        let answers = [yes(), no(), yes(), yes(), no(), no(), yes()];
        let world = World::new(
            env,
            json!({"name": "c", "readinessProbe": spec}),
            &[(READINESS, &answers)],
        );
        let id = world.watch();
        assert_eq!(world.probes.state(&id), state(None, Some(false), None));
        world.until(34).await;
        assert_eq!(world.probes.state(&id), state(None, Some(false), None));
        world.until(35).await;
        assert_eq!(world.probes.state(&id), state(None, Some(true), None));
        world.until(45).await;
        assert_eq!(
            world.probes.state(&id),
            state(None, Some(true), None),
            "one failure is none"
        );
        world.until(55).await;
        assert_eq!(world.probes.state(&id), state(None, Some(false), None));
        assert_eq!(world.asked(READINESS), [5, 15, 25, 35, 45, 55]);
        assert_eq!(*world.woken.lock(), [35, 55]);
        world.until(56).await;
        assert_eq!(world.messages(), ["Unhealthy Readiness probe failed: no"]);
        world.probes.forget(&id);
        world.until(200).await;
        assert_eq!(world.asked(READINESS).len(), 6);
        assert_eq!(world.probes.state(&id), ProbeState::default());
        assert_eq!(world.probes.tasks.running(), 0);
    });
}

#[test]
fn liveness_fails_once_and_for_all() {
    run(|env| async move {
        let world = World::new(
            env,
            json!({"name": "c", "livenessProbe": probe(LIVENESS, json!({"periodSeconds": 3}))}),
            &[(LIVENESS, &[yes(), no()])],
        );
        let id = world.watch();
        world.watch();
        world.until(8).await;
        assert_eq!(world.probes.state(&id), state(None, None, None));
        world.until(60).await;
        assert_eq!(
            world.probes.state(&id),
            state(None, None, Some(ProbeFailure::Liveness))
        );
        assert_eq!(
            world.asked(LIVENESS),
            [0, 3, 6, 9],
            "no probe of a container that is to be killed"
        );
        assert_eq!(*world.woken.lock(), [9]);
    });
}

#[test]
fn nothing_else_is_probed_before_startup() {
    run(|env| async move {
        let container = json!({"name": "c",
            "startupProbe": probe(STARTUP, json!({"periodSeconds": 4, "failureThreshold": 5})),
            "livenessProbe": probe(LIVENESS, json!({})),
            "readinessProbe": probe(READINESS, json!({}))});
        let answers = [
            (STARTUP, &[no(), no(), no(), yes()][..]),
            (LIVENESS, &[yes()]),
            (READINESS, &[yes()]),
        ];
        let world = World::new(env, container, &answers);
        let id = world.watch();
        assert_eq!(
            world.probes.state(&id),
            state(Some(false), Some(false), None)
        );
        world.until(11).await;
        assert_eq!(
            (world.asked(LIVENESS).len(), world.asked(READINESS).len()),
            (0, 0)
        );
        world.until(40).await;
        assert_eq!(world.probes.state(&id), state(Some(true), Some(true), None));
        assert_eq!(world.asked(STARTUP), [0, 4, 8, 12]);
        assert_eq!(
            world.asked(READINESS),
            [12, 20, 30, 40],
            "at once, then as planned"
        );
        assert_eq!(world.asked(LIVENESS), [20, 30, 40]);
    });
}

#[test]
fn a_container_that_does_not_start_up_is_given_up() {
    run(|env| async move {
        let container = json!({"name": "c",
            "startupProbe": probe(STARTUP, json!({"failureThreshold": 2})),
            "readinessProbe": probe(READINESS, json!({}))});
        let world = World::new(env, container, &[(STARTUP, &[no()]), (READINESS, &[yes()])]);
        let id = world.watch();
        world.until(60).await;
        assert_eq!(
            world.probes.state(&id),
            state(Some(false), Some(false), Some(ProbeFailure::Startup))
        );
        assert_eq!(world.asked(STARTUP), [0, 10]);
        assert_eq!(world.messages(), ["Unhealthy Startup probe failed: no"]);
    });
}

#[test]
fn what_could_not_be_run_says_nothing() {
    run(|env| async move {
        let answers = [
            Err("a".into()),
            Err("b".into()),
            Err("c".into()),
            Err("d".into()),
            yes(),
        ];
        let world = World::new(
            env,
            json!({"name": "c", "readinessProbe": probe(READINESS, json!({"failureThreshold": 1}))}),
            &[(READINESS, &answers)],
        );
        let id = world.watch();
        world.until(9).await;
        assert_eq!(world.asked(READINESS), [0, 0, 0], "three tries");
        assert_eq!(world.probes.state(&id), state(None, Some(false), None));
        let want = "Unhealthy Readiness probe errored and resulted in unknown state: c";
        assert_eq!(world.messages(), [want]);
        world.until(10).await;
        assert_eq!(world.asked(READINESS), [0, 0, 0, 10, 10]);
        assert_eq!(world.probes.state(&id), state(None, Some(true), None));
    });
}

#[test]
fn a_warning_is_told_and_counts_as_well() {
    run(|env| async move {
        let world = World::new(
            env,
            json!({"name": "c", "readinessProbe": probe(READINESS, json!({}))}),
            &[(READINESS, &[Ok(Outcome::Warning("elsewhere".into()))])],
        );
        let id = world.watch();
        world.until(1).await;
        assert_eq!(world.probes.state(&id).ready, Some(true));
        assert_eq!(
            world.messages(),
            ["ProbeWarning Readiness probe warning: elsewhere"]
        );
    });
}

#[test]
fn a_slow_probe_does_not_pile_up() {
    run(|env| async move {
        let world = World::slow(
            env,
            json!({"name": "c", "readinessProbe": probe(READINESS, json!({"periodSeconds": 2}))}),
            &[(READINESS, &[yes()])],
            Duration::from_secs(5),
        );
        world.watch();
        world.until(21).await;
        assert_eq!(world.asked(READINESS), [0, 5, 10, 15, 20]);
    });
}

#[test]
fn a_pod_that_ends_is_not_killed_by_its_probes() {
    run(|env| async move {
        let container = json!({"name": "c",
            "startupProbe": probe(STARTUP, json!({})),
            "livenessProbe": probe(LIVENESS, json!({})),
            "readinessProbe": probe(READINESS, json!({}))});
        let answers = [
            (STARTUP, &[no()][..]),
            (LIVENESS, &[no()]),
            (READINESS, &[yes()]),
        ];
        let world = World::new(env, container, &answers);
        let id = world.watch();
        world.until(1).await;
        world.probes.terminating("other");
        assert_eq!(world.probes.state(&id).started, Some(false));
        world.probes.terminating("u1");
        world.until(60).await;
        assert_eq!(world.probes.state(&id), state(Some(true), Some(true), None));
        assert_eq!(world.asked(STARTUP), [0]);
        assert_eq!(world.asked(LIVENESS).len(), 0);
        world.probes.forget_pod("u1");
        world.until(61).await;
        assert_eq!(world.probes.tasks.running(), 0);
    });
}

#[test]
fn a_container_that_was_there_before_keeps_its_state() {
    run(|env| async move {
        let container = json!({"name": "c",
            "startupProbe": probe(STARTUP, json!({})), "readinessProbe": probe(READINESS, json!({"failureThreshold": 1}))});
        let mut world = World::new(env, container, &[(STARTUP, &[no()]), (READINESS, &[no()])]);
        let mut pod = (*world.pod).clone();
        pod.status = serde_json::from_value(
            json!({"containerStatuses": [{"name": "c", "ready": true, "started": true,
            "containerID": "containerd://c1", "image": "", "imageID": "", "restartCount": 0}]}),
        )
        .unwrap();
        world.pod = Arc::new(pod.clone());
        let before = world.env.wall() - Duration::from_secs(100);
        let (known, other) = (ContainerId::new("c1"), ContainerId::new("c2"));
        world
            .probes
            .watch(&world.pod, &world.container, &known, before, None);
        world
            .probes
            .watch(&world.pod, &world.container, &other, before, None);
        assert_eq!(
            world.probes.state(&known),
            state(Some(true), Some(true), None)
        );
        assert_eq!(
            world.probes.state(&other),
            state(Some(false), Some(false), None)
        );
        world.until(10).await;
        assert_eq!(
            world.probes.state(&known),
            state(Some(true), Some(false), None),
            "but it is probed"
        );
        pod.metadata.deletion_timestamp = Some(Time(world.env.wall()));
        let last = ContainerId::new("c3");
        world.probes.watch(
            &Arc::new(pod),
            &world.container,
            &last,
            world.env.wall(),
            None,
        );
        assert_eq!(
            world.probes.state(&last),
            state(Some(true), Some(false), None)
        );
    });
}

#[test]
fn what_is_counted_goes_with_the_probe() {
    run(|env| async move {
        let world = World::new(
            env,
            json!({"name": "c", "readinessProbe": probe(READINESS, json!({}))}),
            &[(READINESS, &[no(), yes(), Err("x".into())])],
        );
        let mut registry = prometheus_client::registry::Registry::default();
        world.probes.metrics().register(&mut registry);
        let id = world.watch();
        world.until(35).await;
        let show = |registry: &_| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
            text
        };
        let text = show(&registry);
        for (result, times) in [("successful", 1), ("failed", 1), ("unknown", 2)] {
            let line = format!(
                "prober_probe_total{{probe_type=\"Readiness\",result=\"{result}\",container=\"c\",pod=\"p\",namespace=\"default\",pod_uid=\"u1\"}} {times}\n"
            );
            assert!(text.contains(&line), "{line}{text}");
        }
        assert!(text.contains("prober_probe_duration_seconds_count{"));
        world.probes.forget(&id);
        world.until(36).await;
        assert!(!show(&registry).contains("pod_uid"));
    });
}

#[test]
fn thousands_of_probes_are_cheap() {
    run(|env| async move {
        let world = World::new(
            env,
            json!({"name": "c", "readinessProbe": probe(READINESS, json!({}))}),
            &[(READINESS, &[yes()])],
        );
        for n in 0..5000 {
            let id = ContainerId::new(format!("c{n}"));
            world
                .probes
                .watch(&world.pod, &world.container, &id, world.env.wall(), None);
        }
        world.until(95).await;
        assert_eq!(world.asked(READINESS).len(), 50_000);
        world.probes.shutdown().await;
        assert_eq!(world.probes.tasks.running(), 0);
    });
}
