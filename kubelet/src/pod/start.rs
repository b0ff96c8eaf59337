//! Making a pod's sandbox and starting its containers.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container as Spec, Pod};
use orlop_core::runtime::{
    Container, ContainerConfig, ContainerId, ContainerState, RuntimeError, SandboxConfig, SandboxId,
};

use super::observed::{Observed, restart_count};
use super::spec;
use super::status::Waiting;
use super::worker::{Stop, Worker};
use crate::blocking::blocking;
use crate::labels;
use crate::parts::{ContainerKind, ContainerRequest, PartError, PodVolumes};

/// How soon a container whose image or configuration is not to be had is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// What containers of a pod are started with.
pub(super) struct Stage<'a> {
    pub(super) pod: &'a Arc<Pod>,
    pub(super) volumes: &'a PodVolumes,
    pub(super) sandbox: &'a SandboxId,
    pub(super) config: &'a SandboxConfig,
}

/// Why a container was not started.
pub(super) enum NotStarted {
    /// The runtime is away: nothing is known.
    Away,
    /// It waits, and is tried again after a while.
    Waits(Duration),
}

impl From<Stop> for NotStarted {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Away => Self::Away,
            Stop::Again(after) => Self::Waits(after),
        }
    }
}

/// Whether a container is of its kind in metrics.
fn metric(kind: ContainerKind) -> &'static str {
    match kind {
        ContainerKind::Init => "init_container",
        ContainerKind::Regular => "container",
        ContainerKind::Ephemeral => "ephemeral_container",
    }
}

impl Worker {
    /// Makes a sandbox.
    pub(super) async fn create_sandbox(
        &self,
        pod: &Arc<Pod>,
        attempt: u32,
        cgroup_parent: String,
    ) -> Result<(SandboxId, SandboxConfig), Stop> {
        self.cx.metrics.sandbox_wanted();
        let failed = |message: String| {
            self.cx.metrics.sandbox_failed();
            let message = format!("Failed to create pod sandbox: {message}");
            let about = spec::reference(pod);
            self.cx
                .recorder
                .warning(about, "FailedCreatePodSandBox", message);
        };
        let mut attempt = attempt;
        loop {
            let config = match self
                .sandbox_config(pod, attempt, cgroup_parent.clone())
                .await
            {
                Ok(config) => config,
                Err(error) => {
                    failed(error.message);
                    return Err(self.again());
                }
            };
            match self.cx.runtime.run_sandbox(&config).await {
                Ok(id) => return Ok((id, config)),
                Err(RuntimeError::Unavailable(_)) => return Err(Stop::Away),
                // One that was asked for and not waited for: the next number is free.
                Err(RuntimeError::AlreadyExists(_)) if attempt < u32::MAX => attempt += 1,
                Err(error) => {
                    failed(error.to_string());
                    return Err(self.again());
                }
            }
        }
    }

    pub(super) async fn sandbox_config(
        &self,
        pod: &Arc<Pod>,
        attempt: u32,
        cgroup_parent: String,
    ) -> Result<SandboxConfig, PartError> {
        let mut config = self.cx.parts.configs.sandbox(pod, attempt).await?;
        config.metadata.namespace = spec::namespace(pod).to_owned();
        config.metadata.name = spec::name(pod).to_owned();
        config.metadata.uid = self.entry.uid.clone();
        config.metadata.attempt = attempt;
        if !cgroup_parent.is_empty() {
            config.cgroup_parent = cgroup_parent;
        }
        for (label, value) in self.pod_labels(pod) {
            config.labels.insert(label.to_owned(), value);
        }
        Ok(config)
    }

    fn pod_labels(&self, pod: &Pod) -> [(&'static str, String); 3] {
        [
            (labels::POD_NAME, spec::name(pod).to_owned()),
            (labels::POD_NAMESPACE, spec::namespace(pod).to_owned()),
            (labels::POD_UID, self.entry.uid.clone()),
        ]
    }

    /// Starts a container, unless it has to wait because it keeps ending.
    pub(super) async fn start(
        &self,
        stage: &Stage<'_>,
        kind: ContainerKind,
        container: &Spec,
    ) -> Result<(), NotStarted> {
        let seen = self.cx.view.get(&self.entry.uid);
        if let Some(left) = self.backs_off(stage.pod, kind, container, &seen) {
            return Err(NotStarted::Waits(left));
        }
        self.cx.metrics.container_wanted(metric(kind));
        match self.try_start(stage, kind, container, &seen).await {
            Ok(()) => {
                self.state.lock().waiting.remove(&container.name);
                Ok(())
            }
            Err(Failed::Away) => Err(NotStarted::Away),
            Err(Failed::Waits(waiting)) => {
                self.cx
                    .metrics
                    .container_failed(metric(kind), &waiting.reason);
                let mut state = self.state.lock();
                state.waiting.insert(container.name.clone(), waiting);
                Err(NotStarted::Waits(TRY_AGAIN))
            }
        }
    }

    /// How much longer a container has to wait because it keeps ending.
    fn backs_off(
        &self,
        pod: &Pod,
        kind: ContainerKind,
        container: &Spec,
        seen: &Observed,
    ) -> Option<Duration> {
        let exited = |one: &&Arc<Container>| one.state == ContainerState::Exited;
        let latest = seen.named(&container.name).find(exited)?;
        let ended = latest.finished.unwrap_or(latest.created);
        let key = format!("{} {}", container.name, spec::container_hash(container));
        let now = self.cx.env.wall();
        let mut state = self.state.lock();
        let Some((wait, left)) = state.back_offs.waits(&key, ended, now) else {
            state.back_offs.restart(&key, ended, now);
            return None;
        };
        let (name, pod_name) = (&container.name, spec::in_words(pod));
        let wait = spec::go_duration(wait);
        state.waiting.insert(
            name.clone(),
            Waiting {
                reason: "CrashLoopBackOff".to_owned(),
                message: format!(
                    "back-off {wait} restarting failed container={name} pod={pod_name}"
                ),
            },
        );
        drop(state);
        self.cx.recorder.warning(
            spec::container_reference(pod, kind, name),
            "BackOff",
            format!("Back-off restarting failed container {name} in pod {pod_name}"),
        );
        Some(left)
    }

    async fn try_start(
        &self,
        stage: &Stage<'_>,
        kind: ContainerKind,
        container: &Spec,
        seen: &Observed,
    ) -> Result<(), Failed> {
        let (cx, pod) = (&self.cx, stage.pod);
        let about = || spec::container_reference(pod, kind, &container.name);
        let refused = |reason: &str, event: &str, message: String| {
            if !event.is_empty() {
                cx.recorder
                    .warning(about(), event, format!("Error: {message}"));
            }
            Failed::waits(reason, message)
        };
        let image = cx.parts.images.ensure(pod, container, stage.config).await;
        let image = image.map_err(|error| {
            // What was wrong with the image is told by who fetches images.
            let reason = error.waiting.as_deref().unwrap_or("ErrImagePull");
            cx.recorder
                .warning(about(), "Failed", format!("Error: {reason}"));
            Failed::waits(reason, error.message)
        })?;
        let target = self
            .target(pod, kind, container, seen)
            .map_err(|message| refused("CreateContainerConfigError", "Failed", message))?;
        let addresses = cx.view.get(&self.entry.uid).addresses().to_vec();
        let pod_ips = if spec::uses_host_network(pod) {
            self.host_ips()
        } else {
            addresses
        };
        let mut attempt = self.attempt(container, seen);
        let id = loop {
            let request = ContainerRequest {
                pod,
                container,
                kind,
                target: target.clone(),
                attempt,
                pod_ips: &pod_ips,
                image: &image,
                volumes: stage.volumes,
            };
            let config = self.container_config(&request).await.map_err(|error| {
                let reason = error.waiting.as_deref();
                let reason = reason.unwrap_or("CreateContainerConfigError").to_owned();
                refused(&reason, &error.event, error.message)
            })?;
            match cx.runtime.create_container(stage.sandbox, &config).await {
                Ok(id) => break id,
                Err(RuntimeError::Unavailable(_)) => return Err(Failed::Away),
                // One that was asked for and not waited for.
                Err(RuntimeError::AlreadyExists(_)) if attempt < u32::MAX => attempt += 1,
                Err(error) => {
                    return Err(refused("CreateContainerError", "Failed", error.to_string()));
                }
            }
        };
        cx.recorder.normal(about(), "Created", "Container created");
        if let Err(error) = cx.runtime.start_container(&id).await {
            if matches!(error, RuntimeError::Unavailable(_)) {
                return Err(Failed::Away);
            }
            return Err(refused("RunContainerError", "Failed", error.to_string()));
        }
        cx.recorder.normal(about(), "Started", "Container started");
        self.link_log(pod, container, &id).await;
        let hooks = container.lifecycle.as_ref();
        let Some(hook) = hooks.and_then(|hooks| hooks.post_start.as_ref()) else {
            return Ok(());
        };
        let ip = pod_ips.first().copied();
        let Err(error) = cx.parts.hooks.run(pod, container, &id, ip, hook).await else {
            return Ok(());
        };
        // What it said may be secret.
        cx.recorder
            .warning(about(), "FailedPostStartHook", "PostStartHook failed");
        if let Ok(made) = cx.runtime.container(&id).await {
            let killed = self.kill_one(pod, &made, "FailedPostStartHook".to_owned(), None);
            if let Err(error) = killed.await {
                tracing::warn!(pod = %spec::in_words(pod), %error, "a container could not be ended");
            }
        }
        Err(Failed::waits("PostStartHookError", error))
    }

    /// How many there were before a container that is to be made.
    fn attempt(&self, container: &Spec, seen: &Observed) -> u32 {
        if let Some(latest) = seen.latest(&container.name) {
            return restart_count(latest) + 1;
        }
        // The runtime may have forgotten those that the API was told of.
        let state = self.state.lock();
        let told = state.status.as_ref();
        let lists = told.map(|told| [&told.container_statuses, &told.init_container_statuses]);
        let known = lists
            .into_iter()
            .flatten()
            .flatten()
            .flatten()
            .find(|one| one.name == container.name);
        known.map_or(0, |known| u32::try_from(known.restart_count).unwrap_or(0))
    }

    /// The container whose processes an ephemeral one is to see.
    fn target(
        &self,
        pod: &Pod,
        kind: ContainerKind,
        container: &Spec,
        seen: &Observed,
    ) -> Result<Option<ContainerId>, String> {
        if kind != ContainerKind::Ephemeral {
            return Ok(None);
        }
        let all = spec::spec(pod).ephemeral_containers.as_deref();
        let own = all
            .unwrap_or_default()
            .iter()
            .find(|one| one.name == container.name);
        let Some(wanted) = own.and_then(|own| own.target_container_name.as_deref()) else {
            return Ok(None);
        };
        let target = seen.latest(wanted);
        let running = target.filter(|target| target.state == ContainerState::Running);
        match running {
            Some(running) => Ok(Some(running.id.clone())),
            None if wanted.is_empty() => Ok(None),
            None => Err(format!("unable to find target container {wanted}")),
        }
    }

    /// A container's configuration, with its volumes and all that it is found by after a restart.
    async fn container_config(
        &self,
        request: &ContainerRequest<'_>,
    ) -> Result<ContainerConfig, PartError> {
        let (pod, container) = (request.pod, request.container);
        let parts = &self.cx.parts;
        let mut config = parts.configs.container(request).await?;
        let mounts = parts
            .volumes
            .mounts(pod, container, request.volumes, &config.env)
            .await?;
        let missing: Vec<_> = mounts
            .into_iter()
            .filter(|mount| {
                let mut there = config.mounts.iter();
                !there.any(|one| one.container_path == mount.container_path)
            })
            .collect();
        config.mounts.splice(0..0, missing);
        config.metadata.name.clone_from(&container.name);
        config.metadata.attempt = request.attempt;
        for (label, value) in self.pod_labels(pod) {
            config.labels.insert(label.to_owned(), value);
        }
        config
            .labels
            .insert(labels::CONTAINER_NAME.to_owned(), container.name.clone());
        let mut note = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                config.annotations.insert(key.to_owned(), value);
            }
        };
        note(
            labels::CONTAINER_HASH,
            Some(spec::container_hash(container)),
        );
        note(
            labels::CONTAINER_RESTART_COUNT,
            Some(request.attempt.to_string()),
        );
        note(
            labels::TERMINATION_MESSAGE_PATH,
            container.termination_message_path.clone(),
        );
        note(
            labels::TERMINATION_MESSAGE_POLICY,
            container.termination_message_policy.clone(),
        );
        let grace = spec::spec(pod).termination_grace_period_seconds;
        note(
            labels::POD_TERMINATION_GRACE_PERIOD,
            grace.map(|grace| grace.to_string()),
        );
        let hook = container.lifecycle.as_ref();
        let hook = hook.and_then(|all| all.pre_stop.as_ref());
        note(
            labels::PRE_STOP_HANDLER,
            hook.and_then(|hook| serde_json::to_string(hook).ok()),
        );
        Ok(config)
    }

    /// Makes the link by which collectors of logs find a container's log.
    async fn link_log(&self, pod: &Pod, container: &Spec, id: &ContainerId) {
        let Some(directory) = self.cx.config.container_logs_dir.clone() else {
            return;
        };
        let Ok(made) = self.cx.runtime.container(id).await else {
            return;
        };
        let Some(log) = made.log_path.clone() else {
            return;
        };
        let link = directory.join(format!(
            "{}_{}_{}-{id}.log",
            spec::name(pod),
            spec::namespace(pod),
            container.name
        ));
        let linked = blocking(move || {
            if !log.exists() {
                return Ok(());
            }
            std::fs::create_dir_all(&directory)?;
            std::os::unix::fs::symlink(&log, &link)
        });
        if let Err(error) = linked.await
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            tracing::warn!(pod = %spec::in_words(pod), %error, "a log could not be linked");
        }
    }
}

/// Why a container was not started, before it is written down.
enum Failed {
    Away,
    Waits(Waiting),
}

impl Failed {
    fn waits(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Waits(Waiting {
            reason: reason.into(),
            message: message.into(),
        })
    }
}
