//! Ending containers.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container as Spec, Lifecycle, Pod, PodSpec};
use orlop_core::env::Flag;
use orlop_core::runtime::{Container, ContainerState, RuntimeError};

use super::observed::{Observed, container_name};
use super::spec;
use super::worker::Worker;
use crate::labels;
use crate::parts::{ContainerKind, ProbeFailure};

/// What a container has at least to end by itself, whatever its hook took.
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// How one container is to be ended.
struct Ending<'a> {
    container: &'a Container,
    message: String,
    grace: Duration,
    /// Those that have to be gone before.
    after: Vec<Flag>,
    /// Set when it is gone.
    gone: Flag,
}

impl Worker {
    /// Ends all containers of the pod: sidecars after the others, in the reverse of the order in which they were started; then stops its
    /// sandboxes.
    ///
    /// # Errors
    /// The first one of the runtime.
    pub(super) async fn kill_all(
        &self,
        pod: &Arc<Pod>,
        seen: &Observed,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let rank = |container: &Container| {
            let mut all = spec::init_containers(pod).iter();
            let at =
                all.position(|one| spec::is_sidecar(one) && one.name == container_name(container));
            // The last sidecar follows those that are none, the first one is the last to go.
            at.map_or(0, |at| spec::init_containers(pod).len() - at)
        };
        let alive: Vec<&Arc<Container>> = seen.alive().collect();
        let flags: Vec<(usize, Flag)> = alive.iter().map(|one| (rank(one), Flag::new())).collect();
        let endings = alive.iter().zip(&flags).map(|(container, (rank, gone))| {
            let before = flags.iter().filter(|(other, _)| other < rank);
            let ending = Ending {
                container,
                message: format!("Stopping container {}", container_name(container)),
                grace,
                after: before.map(|(_, flag)| flag.clone()).collect(),
                gone: gone.clone(),
            };
            self.end(pod, ending)
        });
        let ended = join_all(endings).await;
        ended.into_iter().collect::<Result<Vec<()>, _>>()?;
        for sandbox in &seen.sandboxes {
            self.cx.runtime.stop_sandbox(&sandbox.id).await?;
        }
        Ok(())
    }

    /// Ends one container.
    ///
    /// # Errors
    /// The runtime's.
    pub(super) async fn kill_one(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        message: String,
        probe: Option<ProbeFailure>,
    ) -> Result<(), RuntimeError> {
        let own = spec::find(pod, container_name(container)).map(|(_, own)| own);
        let probe = own.as_ref().and_then(|own| match probe? {
            ProbeFailure::Liveness => own.liveness_probe.as_ref(),
            ProbeFailure::Startup => own.startup_probe.as_ref(),
        });
        let of_probe = probe.and_then(|probe| probe.termination_grace_period_seconds);
        // What a deletion says is stronger than what a probe says.
        let of_probe = of_probe.filter(|_| !spec::is_being_deleted(pod));
        let grace = match of_probe.and_then(|seconds| u64::try_from(seconds).ok()) {
            Some(seconds) => Duration::from_secs(seconds),
            None => spec::grace(pod),
        };
        let ending = Ending {
            container,
            message,
            grace,
            after: Vec::new(),
            gone: Flag::new(),
        };
        self.end(pod, ending).await
    }

    async fn end(&self, pod: &Arc<Pod>, ending: Ending<'_>) -> Result<(), RuntimeError> {
        let env = &self.cx.env;
        let container = ending.container;
        let name = container_name(container);
        let (kind, own) = spec::find(pod, name)
            .unwrap_or_else(|| (ContainerKind::Regular, restored_container(container)));
        let until = env.now() + ending.grace;
        let begins = self.state.lock().ending.insert(container.id.clone());
        if begins {
            let about = spec::container_reference(pod, kind, name);
            self.cx.recorder.normal(about, "Killing", ending.message);
        }
        let hook = own.lifecycle.as_ref().and_then(|all| all.pre_stop.as_ref());
        // A hook is run once, also when the ending is begun again with less time.
        let hook = hook.filter(|_| begins && !ending.grace.is_zero());
        if let Some(hook) = hook.filter(|_| container.state == ContainerState::Running) {
            let addresses = self.cx.view.get(&self.entry.uid);
            let ip = addresses.addresses().first().copied();
            let run = self.cx.parts.hooks.run(pod, &own, &container.id, ip, hook);
            if let Ok(Err(error)) = env.timeout(ending.grace, run).await {
                tracing::debug!(pod = %spec::in_words(pod), container = name, %error, "a preStop hook failed");
                // What it said may be secret.
                let about = spec::container_reference(pod, kind, name);
                let message = "PreStopHook failed";
                self.cx
                    .recorder
                    .warning(about, "FailedPreStopHook", message);
            }
        }
        for before in &ending.after {
            let left = until.since(env.now());
            if left.is_zero() || env.timeout(left, before.wait()).await.is_err() {
                break;
            }
        }
        let left = until.since(env.now()).max(LEAST_GRACE);
        let stopped = self.cx.runtime.stop_container(&container.id, left).await;
        self.cx.parts.probes.forget(&container.id);
        if stopped.is_ok() {
            ending.gone.set();
        }
        stopped
    }
}

/// What is known of a container whose pod is not known any more, by what it was labelled with.
fn restored_container(container: &Container) -> Spec {
    let hook = container.annotations.get(labels::PRE_STOP_HANDLER);
    let hook = hook.and_then(|text| serde_json::from_str(text).ok());
    Spec {
        name: container_name(container).to_owned(),
        lifecycle: hook.map(|hook| Lifecycle {
            pre_stop: Some(hook),
            ..Lifecycle::default()
        }),
        ..Spec::default()
    }
}

/// The pod of which a runtime has something and nobody else knows, by what its parts are labelled with.
pub(crate) fn restored_pod(uid: &str, seen: &Observed) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.uid = Some(uid.to_owned());
    if let Some(sandbox) = seen.sandboxes.first() {
        pod.metadata.name = Some(sandbox.metadata.name.clone());
        pod.metadata.namespace = Some(sandbox.metadata.namespace.clone());
    }
    let mut own = PodSpec::default();
    for container in &seen.containers {
        let label = |key: &str| container.labels.get(key).cloned();
        if pod.metadata.name.is_none() {
            pod.metadata.name = label(labels::POD_NAME);
            pod.metadata.namespace = label(labels::POD_NAMESPACE);
        }
        let grace = container
            .annotations
            .get(labels::POD_TERMINATION_GRACE_PERIOD);
        let grace = grace.and_then(|text| text.parse().ok());
        own.termination_grace_period_seconds = own.termination_grace_period_seconds.or(grace);
    }
    pod.spec = Some(own);
    pod
}
