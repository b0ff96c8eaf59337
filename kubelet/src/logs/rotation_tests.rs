use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orlop_core::env::{Env, SimEnv};
use orlop_core::runtime::*;
use orlop_core::testing::SimulatedRuntime;
use parking_lot::Mutex;

use super::*;
use crate::config::KubeletConfig;
use crate::labels;

/// A runtime that begins logs anew, unless it is told not to.
struct Writer {
    own: SimulatedRuntime,
    refuse: Mutex<bool>,
}

#[async_trait]
impl Runtime for Writer {
    async fn status(&self) -> Result<RuntimeStatus, RuntimeError> {
        self.own.status().await
    }
    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxId, RuntimeError> {
        self.own.run_sandbox(config).await
    }
    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.own.stop_sandbox(id).await
    }
    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.own.remove_sandbox(id).await
    }
    async fn sandboxes(&self, filter: &SandboxFilter) -> Result<Vec<Sandbox>, RuntimeError> {
        self.own.sandboxes(filter).await
    }
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        self.own.create_container(sandbox, config).await
    }
    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.own.start_container(id).await
    }
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        self.own.stop_container(id, grace).await
    }
    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.own.remove_container(id).await
    }
    async fn containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>, RuntimeError> {
        self.own.containers(filter).await
    }
    async fn reopen_log(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        if *self.refuse.lock() {
            return Err(RuntimeError::WrongState("it has ended".to_owned()));
        }
        let log = self.own.container(id).await?.log_path.unwrap();
        fs::write(log, "").map_err(|error| RuntimeError::Failed(error.to_string()))
    }
    async fn pull_image(&self, request: &PullRequest) -> Result<ImageId, RuntimeError> {
        self.own.pull_image(request).await
    }
    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        self.own.images().await
    }
    async fn remove_image(&self, image: &ImageSpec) -> Result<(), RuntimeError> {
        self.own.remove_image(image).await
    }
}

struct World {
    runtime: Arc<Writer>,
    rotator: LogRotator,
    container: Container,
    log: PathBuf,
    links: PathBuf,
    env: Env,
    _root: tempfile::TempDir,
}

async fn world(env: Env) -> World {
    let root = tempfile::tempdir().unwrap();
    let mut config = KubeletConfig::new("node");
    config.pod_logs_dir = root.path().join("pods");
    config.container_logs_dir = Some(root.path().join("containers"));
    config.container_log_max_size = 10;
    config.container_log_max_files = 3;
    let own = SimulatedRuntime::new(env.clone());
    let refuse = Mutex::new(false);
    let runtime = Arc::new(Writer { own, refuse });
    runtime.pull_image(&PullRequest::new("a:1")).await.unwrap();
    let mut sandbox = SandboxConfig::new("ns", "web", "u");
    sandbox.log_directory = Some(config.pod_logs_dir.join("ns_web_u"));
    let sandbox = runtime.run_sandbox(&sandbox).await.unwrap();
    let mut wanted = ContainerConfig::new("c", ImageSpec::new("a:1"));
    wanted.log_path = Some("c/0.log".into());
    let label = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let words = [
        (labels::POD_NAME, "web"),
        (labels::POD_NAMESPACE, "ns"),
        (labels::CONTAINER_NAME, "c"),
    ];
    wanted.labels = words.map(label).into();
    let id = runtime.create_container(&sandbox, &wanted).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    let container = runtime.container(&id).await.unwrap();
    let log = container.log_path.clone().unwrap();
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    World {
        rotator: LogRotator::new(&config, runtime.clone(), env.clone()),
        runtime,
        container,
        log,
        links: root.path().join("containers"),
        env,
        _root: root,
    }
}

impl World {
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.log.parent().unwrap()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    async fn write(&self, text: &str) {
        fs::write(&self.log, text).unwrap();
        self.rotator.round().await.unwrap();
        self.env.sleep(Duration::from_secs(1)).await;
    }
}

#[test]
fn a_log_that_is_full_is_put_aside_and_the_oldest_goes() {
    let sim = SimEnv::new(1);
    let env = sim.env();
    sim.block_on(async move {
        let world = world(env).await;
        world.write("small").await;
        assert_eq!(world.files(), ["0.log"]);
        world.write("the first one").await;
        assert_eq!(world.files(), ["0.log", "0.log.20260101-000001"]);
        assert_eq!(fs::read(&world.log).unwrap(), b"");
        world.write("the second one").await;
        assert_eq!(
            world.files(),
            ["0.log", "0.log.20260101-000001.gz", "0.log.20260101-000002"]
        );
        let first = world.log.with_file_name("0.log.20260101-000001.gz");
        let mut text = String::new();
        let mut decoder = flate2::read::GzDecoder::new(fs::File::open(first).unwrap());
        decoder.read_to_string(&mut text).unwrap();
        assert_eq!(text, "the first one");
        world.write("the third one").await;
        assert_eq!(
            world.files(),
            ["0.log", "0.log.20260101-000002.gz", "0.log.20260101-000003"]
        );
        // What an earlier run left.
        for name in ["0.log.20260101-000002", "0.log.20260101-000003.tmp"] {
            fs::write(world.log.with_file_name(name), "left").unwrap();
        }
        world.write("the fourth one").await;
        assert_eq!(
            world.files(),
            ["0.log", "0.log.20260101-000003.gz", "0.log.20260101-000004"]
        );
        world.rotator.remove(&world.log).await.unwrap();
        assert!(world.files().is_empty());
    });
}

#[test]
fn a_log_stays_where_it_is_if_the_runtime_does_not_begin_a_new_one() {
    let sim = SimEnv::new(1);
    let env = sim.env();
    sim.block_on(async move {
        let world = world(env).await;
        let (id, log) = (&world.container.id, &world.log);
        *world.runtime.refuse.lock() = true;
        world.write("more than enough").await;
        assert_eq!(world.files(), ["0.log"]);
        assert_eq!(fs::read(log).unwrap(), b"more than enough");
        let error = world.rotator.rotate(id, log).await.unwrap_err();
        assert!(matches!(error, RotationError::Reopen { .. }), "{error}");
        // One that is gone is begun anew.
        *world.runtime.refuse.lock() = false;
        fs::remove_file(log).unwrap();
        world.rotator.round().await.unwrap();
        assert_eq!(fs::read(log).unwrap(), b"");
        // The log of what has ended is left alone.
        fs::write(log, "more than enough").unwrap();
        let ended = world.runtime.stop_container(id, Duration::ZERO).await;
        ended.unwrap();
        world.rotator.round().await.unwrap();
        assert_eq!(world.files(), ["0.log"]);
    });
}

#[test]
fn links_lead_to_logs_as_long_as_they_are_there() {
    let sim = SimEnv::new(1);
    let env = sim.env();
    sim.block_on(async move {
        let world = world(env).await;
        fs::write(&world.log, "").unwrap();
        let links = world.rotator.links().unwrap();
        links.make(&world.container).await.unwrap();
        links.make(&world.container).await.unwrap();
        let link = format!("web_ns_c-{}.log", world.container.id);
        let link = world.links.join(link);
        assert_eq!(fs::read_link(&link).unwrap(), world.log);
        let foreign = world.links.join("foreign.log");
        std::os::unix::fs::symlink("/nowhere", &foreign).unwrap();
        let names = || {
            let entries = fs::read_dir(&world.links).unwrap();
            let paths = entries.map(|entry| entry.unwrap().path());
            paths.collect::<BTreeSet<_>>()
        };
        // A log that is just rotated.
        fs::remove_file(&world.log).unwrap();
        let all = std::slice::from_ref(&world.container);
        links.tidy(all).await.unwrap();
        assert!(names().contains(&link));
        world.rotator.round().await.unwrap();
        let removed = world.runtime.remove_container(&world.container.id).await;
        removed.unwrap();
        world.rotator.round().await.unwrap();
        assert!(names().contains(&link), "its log is still there");
        fs::remove_file(&world.log).unwrap();
        world.rotator.round().await.unwrap();
        assert_eq!(names(), [foreign].into());
        links.make(&world.container).await.unwrap();
        links.remove(&world.container).await.unwrap();
        links.remove(&world.container).await.unwrap();
        assert!(!names().contains(&link));
    });
}
