//! Parts that do nothing real, and a runtime that can go away.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, LifecycleHandler, Pod};
use orlop_core::env::Env;
use orlop_core::runtime::*;
use orlop_core::testing::SimulatedRuntime;
use parking_lot::Mutex;

use crate::parts::*;
use crate::pod::{Waker, spec};

/// A simulated runtime that can be away, can be without events, and whose programs need not heed a signal.
pub(super) struct TestRuntime {
    pub(super) inner: SimulatedRuntime,
    pub(super) env: Env,
    pub(super) away: AtomicBool,
    pub(super) silent: AtomicBool,
    /// Names of containers that run until they are killed.
    pub(super) stubborn: Mutex<BTreeSet<String>>,
    /// What was started and stopped: `start NAME` and `stop NAME GRACE`.
    pub(super) log: Mutex<Vec<String>>,
}

impl TestRuntime {
    pub(super) fn new(env: Env) -> Self {
        Self {
            inner: SimulatedRuntime::new(env.clone()),
            env,
            away: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            stubborn: Mutex::default(),
            log: Mutex::default(),
        }
    }

    fn there(&self) -> Result<(), RuntimeError> {
        if self.away.load(Ordering::Acquire) {
            return Err(RuntimeError::Unavailable("connection refused".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl Runtime for TestRuntime {
    async fn status(&self) -> Result<RuntimeStatus, RuntimeError> {
        self.there()?;
        self.inner.status().await
    }
    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxId, RuntimeError> {
        self.there()?;
        self.inner.run_sandbox(config).await
    }
    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.there()?;
        self.inner.stop_sandbox(id).await
    }
    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.there()?;
        self.inner.remove_sandbox(id).await
    }
    async fn sandboxes(&self, filter: &SandboxFilter) -> Result<Vec<Sandbox>, RuntimeError> {
        self.there()?;
        self.inner.sandboxes(filter).await
    }
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        self.there()?;
        if config.working_dir == "/refused" {
            return Err(RuntimeError::Failed("no such directory".to_owned()));
        }
        self.inner.create_container(sandbox, config).await
    }
    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.there()?;
        let name = self.inner.container(id).await?.metadata.name;
        self.log.lock().push(format!("start {name}"));
        self.inner.start_container(id).await
    }
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        self.there()?;
        let name = self.inner.container(id).await?.metadata.name;
        self.log
            .lock()
            .push(format!("stop {name} {}", grace.as_secs()));
        if self.stubborn.lock().contains(&name) {
            self.env.sleep(grace).await;
            return self.inner.stop_container(id, Duration::ZERO).await;
        }
        self.inner.stop_container(id, grace).await
    }
    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.there()?;
        self.inner.remove_container(id).await
    }
    async fn containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>, RuntimeError> {
        self.there()?;
        self.inner.containers(filter).await
    }
    async fn pull_image(&self, request: &PullRequest) -> Result<ImageId, RuntimeError> {
        self.there()?;
        self.inner.pull_image(request).await
    }
    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        self.there()?;
        self.inner.images().await
    }
    async fn remove_image(&self, image: &ImageSpec) -> Result<(), RuntimeError> {
        self.there()?;
        self.inner.remove_image(image).await
    }
    async fn image(&self, image: &ImageSpec) -> Result<Option<Image>, RuntimeError> {
        self.there()?;
        self.inner.image(image).await
    }
    async fn events(&self) -> Result<EventStream, RuntimeError> {
        self.there()?;
        if self.silent.load(Ordering::Acquire) {
            return Err(RuntimeError::Unsupported("events"));
        }
        self.inner.events().await
    }
}

/// All parts in one.
pub(super) struct Fakes {
    pub(super) runtime: Arc<TestRuntime>,
    pub(super) env: Env,
    pub(super) waker: Mutex<Option<Waker>>,
    /// The uids that have volumes or a cgroup.
    pub(super) disk: Mutex<BTreeSet<String>>,
    /// What the probes say of containers, by name.
    pub(super) probes: Mutex<BTreeMap<String, ProbeState>>,
    pub(super) watched: Mutex<BTreeMap<ContainerId, (String, String)>>,
    /// How long hooks take, and which fail, by container.
    pub(super) hooks: Mutex<BTreeMap<String, (Duration, bool)>>,
    pub(super) hooks_run: Mutex<Vec<String>>,
    /// Fails to set up volumes so many times more.
    pub(super) mount_failures: Mutex<u32>,
}

impl Fakes {
    pub(super) fn new(runtime: Arc<TestRuntime>) -> Self {
        Self {
            env: runtime.env.clone(),
            runtime,
            waker: Mutex::default(),
            disk: Mutex::default(),
            probes: Mutex::default(),
            watched: Mutex::default(),
            hooks: Mutex::default(),
            hooks_run: Mutex::default(),
            mount_failures: Mutex::default(),
        }
    }

    /// Has the probes of a container say something.
    pub(super) fn probe(&self, name: &str, state: ProbeState) {
        self.probes.lock().insert(name.to_owned(), state);
        if let Some(waker) = &*self.waker.lock() {
            waker.wake_all();
        }
    }
}

#[async_trait]
impl Volumes for Fakes {
    async fn set_up(&self, pod: &Arc<Pod>) -> Result<PodVolumes, PartError> {
        let mut failures = self.mount_failures.lock();
        if *failures > 0 {
            *failures -= 1;
            return Err(PartError::of_pod("FailedMount", "no such ConfigMap"));
        }
        self.disk.lock().insert(spec::uid(pod).to_owned());
        Ok(PodVolumes::default())
    }
    async fn mounts(
        &self,
        _: &Pod,
        _: &Spec,
        _: &PodVolumes,
        _: &[EnvVar],
    ) -> Result<Vec<Mount>, PartError> {
        Ok(vec![Mount::host("/on/host", "/inside")])
    }
    async fn tear_down(&self, uid: &str) -> Result<(), PartError> {
        self.disk.lock().remove(uid);
        Ok(())
    }
    async fn on_disk(&self) -> Vec<String> {
        self.disk.lock().iter().cloned().collect()
    }
}

#[async_trait]
impl Configs for Fakes {
    async fn sandbox(&self, pod: &Arc<Pod>, attempt: u32) -> Result<SandboxConfig, PartError> {
        let mut config = SandboxConfig::new(spec::namespace(pod), spec::name(pod), spec::uid(pod));
        config.metadata.attempt = attempt;
        if spec::uses_host_network(pod) {
            config.security.namespaces.network = NamespaceMode::Node;
        }
        Ok(config)
    }
    async fn container(
        &self,
        request: &ContainerRequest<'_>,
    ) -> Result<ContainerConfig, PartError> {
        let container = request.container;
        if container.command.as_deref() == Some(&["unconfigured".to_owned()]) {
            let message = "configmap \"x\" not found";
            return Err(PartError::new(
                "CreateContainerConfigError",
                "Failed",
                message,
            ));
        }
        let image = ImageSpec {
            image: request.image.id.as_str().to_owned(),
            user_specified: container.image.clone().unwrap_or_default(),
            ..ImageSpec::default()
        };
        let mut config = ContainerConfig::new(&container.name, image);
        config.command = container.command.clone().unwrap_or_default();
        config.working_dir = container.working_dir.clone().unwrap_or_default();
        Ok(config)
    }
    async fn termination_message(&self, _: &Pod, container: &Spec, _: &Container) -> String {
        format!("{} says good bye", container.name)
    }
}

#[async_trait]
impl Images for Fakes {
    async fn ensure(
        &self,
        _: &Arc<Pod>,
        container: &Spec,
        _: &SandboxConfig,
    ) -> Result<Image, PartError> {
        let name = container.image.as_deref().unwrap_or_default();
        let failed =
            |error: RuntimeError| PartError::new("ErrImagePull", "Failed", error.to_string());
        let request = PullRequest::new(name);
        self.runtime
            .inner
            .pull_image(&request)
            .await
            .map_err(failed)?;
        let image = self.runtime.inner.image(&ImageSpec::new(name)).await;
        Ok(image.map_err(failed)?.unwrap())
    }
}

impl Probes for Fakes {
    fn watch(
        &self,
        pod: &Arc<Pod>,
        container: &Spec,
        id: &ContainerId,
        _: Timestamp,
        _: Option<IpAddr>,
    ) {
        let of = (spec::uid(pod).to_owned(), container.name.clone());
        self.watched.lock().insert(id.clone(), of);
    }
    fn state(&self, id: &ContainerId) -> ProbeState {
        let watched = self.watched.lock();
        let state = watched.get(id).map(|(_, name)| {
            let unanswered = ProbeState {
                started: Some(false),
                ready: Some(false),
                failed: None,
            };
            self.probes.lock().get(name).copied().unwrap_or(unanswered)
        });
        state.unwrap_or_default()
    }
    fn forget(&self, id: &ContainerId) {
        self.watched.lock().remove(id);
    }
    fn terminating(&self, _: &str) {}
    fn forget_pod(&self, uid: &str) {
        self.watched.lock().retain(|_, (of, _)| of != uid);
    }
}

#[async_trait]
impl Hooks for Fakes {
    async fn run(
        &self,
        _: &Pod,
        container: &Spec,
        _: &ContainerId,
        _: Option<IpAddr>,
        _: &LifecycleHandler,
    ) -> Result<(), String> {
        self.hooks_run.lock().push(container.name.clone());
        let own = self.hooks.lock().get(&container.name).copied();
        let (takes, fails) = own.unwrap_or_default();
        self.env.sleep(takes).await;
        if fails {
            return Err("the hook failed".to_owned());
        }
        Ok(())
    }
}

#[async_trait]
impl Cgroups for Fakes {
    async fn ensure(&self, pod: &Pod) -> Result<String, PartError> {
        Ok(format!("/kubepods/pod{}", spec::uid(pod)))
    }
    async fn remove(&self, _: &str) -> Result<(), PartError> {
        Ok(())
    }
    async fn on_machine(&self) -> Vec<String> {
        Vec::new()
    }
}
