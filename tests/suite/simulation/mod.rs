//! A whole cluster on virtual time: the same seed gives the same log, and what fails heals.

mod log;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use orlop::ControlPlane;
use orlop::core::client::{Client, DeleteOptions, ListOptions, Patch};
use orlop::core::env::{Env, SimEnv, SimOptions, TaskGroup};
use orlop::core::resource::Resource;
use orlop::core::status::Status;
use orlop::core::store::Store;
use orlop::sim::SimulatedNodes;
use orlop::store::MemoryStore;
use orlop::store::layers::{CallFaults, Cut, Delayed, FaultPlan, Faulty, Latency, Operation};
use orlop::wire::pki::{ClusterPki, ClusterPkiOptions};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

use self::log::Log;

const DEPLOYMENTS: Resource = Resource::namespaced("apps", "v1", "deployments", "Deployment");
const REPLICA_SETS: Resource = Resource::namespaced("apps", "v1", "replicasets", "ReplicaSet");
const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");

/// Certificates and keys hold randomness of the operating system, so they are made once and read by every run.
struct Keys(TempDir);

impl Keys {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn pki(&self, env: &Env) -> ClusterPki {
        ClusterPki::load_or_create(self.0.path(), &ClusterPkiOptions::new(), env.wall()).unwrap()
    }
}

async fn plane(env: &Env, pki: ClusterPki, store: impl Store) -> ControlPlane {
    ControlPlane::builder()
        .env(env.clone())
        .store(store)
        .with_defaults()
        .pki(pki)
        .simulated_nodes(SimulatedNodes::new(3))
        .start()
        .await
        .unwrap()
}

fn web(replicas: u32, image: &str) -> Value {
    let labels = json!({"app": "web"});
    json!({
        "metadata": {"name": "web", "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "web", "image": image}]},
            },
        },
    })
}

/// Whether the deployment is as it was asked to be, and its pods with it.
async fn rolled_out(client: &dyn Client, replicas: usize, image: &str) -> Result<bool, Status> {
    let deployment = client
        .resource(&DEPLOYMENTS)
        .namespace("default")
        .get("web")
        .await?;
    let deployment = deployment.value().unwrap();
    let status = &deployment["status"];
    let done = status["observedGeneration"] == deployment["metadata"]["generation"]
        && [
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
        ]
        .iter()
        .all(|count| status[count] == replicas);
    let pods = client
        .resource(&PODS)
        .namespace("default")
        .list(ListOptions::default())
        .await?;
    let mut good = 0;
    for pod in &pods.items {
        let pod = pod.value().unwrap();
        good += usize::from(
            pod["status"]["phase"] == "Running" && pod["spec"]["containers"][0]["image"] == image,
        );
    }
    Ok(done && good == replicas && pods.items.len() == replicas)
}

/// Asks every 100 virtual milliseconds until the answer is yes.
async fn until<'a>(
    env: &Env,
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> BoxFuture<'a, Result<bool, Status>>,
) {
    let end = env.now() + limit;
    let mut last = Ok(false);
    while env.now() < end {
        last = ask().await;
        if let Ok(true) = last {
            return;
        }
        env.sleep(Duration::from_millis(100)).await;
    }
    panic!("{what}: not within {limit:?} of virtual time: {last:?}");
}

/// A deployment's life, from its creation to the end of its last pod.
async fn life(env: &Env, client: &dyn Client) {
    const LIMIT: Duration = Duration::from_secs(120);
    let deployments = || client.resource(&DEPLOYMENTS).namespace("default");
    let done = |replicas, image| {
        until(env, "a rollout", LIMIT, move || {
            Box::pin(rolled_out(client, replicas, image))
        })
    };
    deployments().create(&web(3, "nginx:1.27")).await.unwrap();
    done(3, "nginx:1.27").await;
    deployments()
        .patch("web", Patch::Merge(json!({"spec": {"replicas": 5}})))
        .await
        .unwrap();
    done(5, "nginx:1.27").await;
    let container = json!({"name": "web", "image": "nginx:1.28"});
    let patch = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    deployments()
        .patch("web", Patch::Strategic(patch))
        .await
        .unwrap();
    done(5, "nginx:1.28").await;
    deployments()
        .delete("web", DeleteOptions::default())
        .await
        .unwrap();
    until(env, "the end of everything", LIMIT, || {
        Box::pin(async {
            let mut left = 0;
            for resource in [&DEPLOYMENTS, &REPLICA_SETS, &PODS] {
                let list = client
                    .resource(resource)
                    .namespace("default")
                    .list(ListOptions::default())
                    .await?;
                left += list.items.len();
            }
            Ok(left == 0)
        })
    })
    .await;
}

/// Everything that happened in one run, a line an event.
fn run(keys: &Keys, options: SimOptions) -> Vec<String> {
    let sim = SimEnv::with_options(options);
    let env = sim.env();
    let pki = keys.pki(&env);
    sim.block_on(async move {
        let plane = plane(&env, pki, MemoryStore::new(env.clone())).await;
        let client = plane.admin();
        let log = Log::follow_everything(&env, client.clone()).await;
        life(&env, &*client).await;
        // What was under way comes to its end.
        env.sleep(Duration::from_secs(30)).await;
        let lines = log.stop().await;
        plane.shutdown().await;
        lines
    })
}

/// Where two logs part, for a person.
#[track_caller]
fn same(one: &[String], other: &[String]) {
    for (number, (left, right)) in one.iter().zip(other).enumerate() {
        assert_eq!(
            left,
            right,
            "the logs part at line {number} of {}",
            one.len()
        );
    }
    assert_eq!(one.len(), other.len());
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let keys = Keys::new();
    let with_seed = |seed| SimOptions {
        seed,
        ..SimOptions::default()
    };
    let first = run(&keys, with_seed(7));
    let has = |text: &str| first.iter().any(|line| line.contains(text));
    assert!(
        has("ADDED deployments")
            && has("DELETED pods")
            && has("\"phase\":\"Running\"")
            && has("ADDED events")
    );
    same(&first, &run(&keys, with_seed(7)));
    let other = run(&keys, with_seed(8));
    assert_ne!(first, other);
}

#[test]
fn the_order_of_tasks_is_the_seed_s_too() {
    let keys = Keys::new();
    let with_seed = |seed| SimOptions {
        seed,
        shuffle: true,
        ..SimOptions::default()
    };
    same(&run(&keys, with_seed(11)), &run(&keys, with_seed(11)));
}

/// What is there, for who looks for what went wrong.
async fn picture(client: &dyn Client) -> String {
    let mut picture = String::new();
    for resource in [&DEPLOYMENTS, &REPLICA_SETS, &PODS] {
        let objects = client
            .resource(resource)
            .namespace("default")
            .list(ListOptions::default())
            .await
            .unwrap();
        for object in &objects.items {
            let mut value = object.value().unwrap().as_ref().clone();
            value["metadata"]["managedFields"].take();
            picture.push_str(&format!("{} {}: {value}\n", resource.kind, object.name()));
        }
    }
    picture
}

const MAPS: Resource = Resource::namespaced("", "v1", "configmaps", "ConfigMap");

/// Writes config maps, one after the other, and keeps what it was told of each: whether it is there.
async fn write_maps(env: Env, client: Arc<dyn Client>, told: Arc<Mutex<Vec<(String, bool)>>>) {
    for number in 0.. {
        let name = format!("map-{number}");
        let map = json!({"metadata": {"name": name}, "data": {"number": number.to_string()}});
        let made = client
            .resource(&MAPS)
            .namespace("default")
            .create(&map)
            .await;
        told.lock().push((name, made.is_ok()));
        env.sleep(Duration::from_millis(500)).await;
    }
}

/// Nothing that was acknowledged is lost, and nothing is there in half.
async fn check_maps(client: &dyn Client, told: &[(String, bool)]) {
    let mut acknowledged = 0;
    for (number, (name, made)) in told.iter().enumerate() {
        let found = client.resource(&MAPS).namespace("default").get(name).await;
        match found {
            Ok(map) => assert_eq!(map.value().unwrap()["data"]["number"], number.to_string()),
            Err(status) => assert!(status.is_not_found() && !made, "{name}: {status}"),
        }
        acknowledged += usize::from(*made);
    }
    // What was asked for meanwhile was of some weight, in both ways.
    assert!(
        acknowledged > 100 && acknowledged < told.len(),
        "{acknowledged} of {}",
        told.len()
    );
}

/// A rollout over a store that fails in many ways: first nothing may go wrong, then, when the store is well again, all must come right.
fn with_faults(keys: &Keys, seed: u64) {
    println!("seed {seed}");
    // ORLOP_LOG shows what the parts say.
    let filter = tracing_subscriber::EnvFilter::from_env("ORLOP_LOG");
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_test_writer()
        .try_init();
    let sim = SimEnv::with_options(SimOptions {
        seed,
        shuffle: true,
        ..SimOptions::default()
    });
    let env = sim.env();
    let pki = keys.pki(&env);
    sim.block_on(async move {
        // The store is some way off, and what is between can break.
        let far = Delayed::new(
            Arc::new(MemoryStore::new(env.clone())),
            env.clone(),
            Latency::Exponential(Duration::from_micros(500)),
        )
        .changes(Latency::Uniform(Duration::ZERO, Duration::from_millis(3)));
        let (store, faults) = Faulty::new(Arc::new(far), env.clone());
        let plane = plane(&env, pki, store).await;
        let client = plane.admin();
        let deployments = || client.resource(&DEPLOYMENTS).namespace("default");
        let told = Arc::new(Mutex::new(Vec::new()));
        let tasks = TaskGroup::new(env.clone());
        tasks.spawn_until_cancelled("maps", write_maps(env.clone(), client.clone(), told.clone()));

        // Each request may fail, and what failed may have happened; the user tries again, as users do.
        faults.set(FaultPlan::everything(0.12));
        until(&env, "a creation", Duration::from_secs(120), || {
            Box::pin(async {
                match deployments().create(&web(3, "nginx:1.27")).await {
                    Ok(_) => Ok(true),
                    Err(status) => Ok(status.is_already_exists()),
                }
            })
        })
        .await;
        env.sleep(Duration::from_secs(60)).await;
        let patch = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "nginx:1.28"}]);
        until(&env, "an update", Duration::from_secs(120), || {
            Box::pin(async { Ok(deployments().patch("web", Patch::Json(patch.clone())).await.is_ok()) })
        })
        .await;
        // In the middle of it the store is out of reach: first it refuses, then it is silent. Then its disk is full for a while, and at last
        // answers alone get lost.
        let lost = CallFaults {
            lost_answer: 0.3,
            ..CallFaults::default()
        };
        faults.schedule([
            (Duration::from_secs(50), FaultPlan::everything(0.05).no_space()),
            (Duration::from_secs(70), FaultPlan::none().on(Operation::Commit, lost)),
        ]);
        for (cut, duration) in [(Cut::Refuse, 20), (Cut::Silence, 15)] {
            env.sleep(Duration::from_secs(5)).await;
            faults.cut(cut);
            env.sleep(Duration::from_secs(duration)).await;
            faults.heal();
        }
        env.sleep(Duration::from_secs(45)).await;
        let counts = faults.counts();
        assert!(
            counts.unavailable > 20
                && counts.lost_requests > 5
                && counts.lost_answers > 5
                && counts.no_space > 5
                && counts.watches_ended > 1,
            "{counts:?}"
        );
        faults.clear();
        tasks.shutdown().await;

        // What failed often is tried again after 1,000 seconds at the latest, as in Kubernetes.
        let end = env.now() + Duration::from_secs(1_100);
        while !rolled_out(&*client, 3, "nginx:1.28").await.unwrap_or(false) {
            if env.now() >= end {
                panic!("it does not heal:\n{}", picture(&*client).await);
            }
            env.sleep(Duration::from_millis(100)).await;
        }
        let told = told.lock().clone();
        check_maps(&*client, &told).await;
        plane.shutdown().await;
    });
}

#[test]
fn a_rollout_survives_a_failing_store() {
    let keys = Keys::new();
    // ORLOP_TEST_SEEDS asks for others: `7` to see one again, `1-100` for many.
    let seeds = std::env::var("ORLOP_TEST_SEEDS").unwrap_or_else(|_| "1-4".to_owned());
    let (first, last) = seeds.split_once('-').unwrap_or((&seeds, &seeds));
    let number = |text: &str| text.parse::<u64>().unwrap();
    for seed in number(first)..=number(last) {
        with_faults(&keys, seed);
    }
}
