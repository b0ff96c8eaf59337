//! What a pod worker needs of the other rooms of this crate.
//!
//! A worker decides what is to happen to one pod, and when. How volumes are made, what a container's configuration says, where an
//! image comes from, how a probe is sent and which cgroup a pod has is known here by these traits alone, so that each can be tried
//! alone, and so that the worker can be tried on virtual time with parts that do nothing real.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use orlop_core::runtime::{ContainerConfig, ContainerId, EnvVar, Image, Mount, SandboxConfig};

/// Why a part could not do what a pod needs. The pod shows it: as the reason and message of a waiting container, and as an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PartError {
    /// The reason of the container's `waiting` state, where it has one of its own (`ErrImagePull`, `CreateContainerConfigError`, …).
    pub waiting: Option<Cow<'static, str>>,
    /// The reason of the event (`FailedMount`, `Failed`, `BackOff`, …); no event if empty.
    pub event: Cow<'static, str>,
    /// What went wrong.
    pub message: String,
}

impl PartError {
    /// A failure with the reasons for a container's state and for an event.
    pub fn new(
        waiting: impl Into<Cow<'static, str>>,
        event: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            waiting: Some(waiting.into()),
            event: event.into(),
            message: message.into(),
        }
    }

    /// A failure that is about the whole pod.
    pub fn of_pod(event: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            waiting: None,
            event: event.into(),
            message: message.into(),
        }
    }
}

/// Which list of the pod a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContainerKind {
    /// `spec.initContainers`; a sidecar if its restart policy is `Always`.
    Init,
    /// `spec.containers`.
    Regular,
    /// `spec.ephemeralContainers`, seen as a container.
    Ephemeral,
}

/// The volumes of one pod, ready to be mounted: where each is on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodVolumes {
    /// By the volume's name.
    pub by_name: BTreeMap<String, ReadyVolume>,
}

/// A volume that is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadyVolume {
    /// Its directory, file or device on the host.
    pub path: PathBuf,
    /// Whether it can only be read, whatever the container asks for.
    pub read_only: bool,
    /// Whether a new subPath may be made in it.
    pub may_create_sub_path: bool,
}

/// Volumes of pods.
#[async_trait]
pub trait Volumes: Send + Sync + 'static {
    /// Makes all volumes of a pod ready, and brings those that are up to date (new contents of ConfigMaps, Secrets, tokens, downward
    /// API). Idempotent: called at every sync of the pod.
    ///
    /// # Errors
    /// With the event `FailedMount`; the worker asks again.
    async fn set_up(&self, pod: &Arc<Pod>) -> Result<PodVolumes, PartError>;

    /// The mounts of one container: its `volumeMounts`, subPaths prepared. `env` is the container's environment, for `subPathExpr`.
    ///
    /// # Errors
    /// With waiting reason `CreateContainerConfigError` for a bad subPath or an unknown volume.
    async fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        volumes: &PodVolumes,
        env: &[EnvVar],
    ) -> Result<Vec<Mount>, PartError>;

    /// Unmounts and removes everything of a pod whose containers are gone: volumes, and the pod's directory. Idempotent.
    ///
    /// # Errors
    /// What could not be removed; the worker asks again.
    async fn tear_down(&self, uid: &str) -> Result<(), PartError>;

    /// The uids of all pods that have a directory.
    async fn on_disk(&self) -> Vec<String>;
}

/// What a container's configuration is made of.
#[derive(Clone, Debug)]
pub struct ContainerRequest<'a> {
    /// The pod.
    pub pod: &'a Arc<Pod>,
    /// The container, an ephemeral one too, as it stands in the pod.
    pub container: &'a Container,
    /// Which list it stands in.
    pub kind: ContainerKind,
    /// The name of the container whose processes an ephemeral container wants to see (`targetContainerName`), by the runtime's id.
    pub target: Option<ContainerId>,
    /// How many of its name there were before: the restart count.
    pub attempt: u32,
    /// The addresses of the pod, the main one first.
    pub pod_ips: &'a [IpAddr],
    /// The image, which is there.
    pub image: &'a Image,
    /// The pod's volumes.
    pub volumes: &'a PodVolumes,
}

/// Turns a pod's words into a runtime's.
#[async_trait]
pub trait Configs: Send + Sync + 'static {
    /// The configuration of a pod's sandbox. Makes the directory of its logs.
    ///
    /// # Errors
    /// With the event `FailedCreatePodSandBox`.
    async fn sandbox(&self, pod: &Arc<Pod>, attempt: u32) -> Result<SandboxConfig, PartError>;

    /// The configuration of a container. Makes what it mounts beside volumes (`/etc/hosts`, the termination log).
    ///
    /// # Errors
    /// With waiting reason `CreateContainerConfigError` (a ConfigMap that is missing, `runAsNonRoot` and an image that runs as root, …).
    async fn container(&self, request: &ContainerRequest<'_>)
    -> Result<ContainerConfig, PartError>;

    /// What a container said at its end (`terminationMessagePath` and `terminationMessagePolicy`), at most 4096 bytes of its file and
    /// 2048 bytes or 80 lines of its log.
    async fn termination_message(
        &self,
        pod: &Pod,
        container: &Container,
        ended: &orlop_core::runtime::Container,
    ) -> String;
}

/// Images for containers.
#[async_trait]
pub trait Images: Send + Sync + 'static {
    /// Makes sure that a container's image is there, by its pull policy, with the pull secrets of the pod and its service account, one
    /// pull at a time if so configured, with back-off. Records the events `Pulling`, `Pulled`, `Failed`, `BackOff` itself.
    ///
    /// # Errors
    /// With waiting reason `ErrImagePull`, `ImagePullBackOff`, `ErrImageNeverPull`, `InvalidImageName`, `ImageInspectError`,
    /// `RegistryUnavailable`, ….
    async fn ensure(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        sandbox: &SandboxConfig,
    ) -> Result<Image, PartError>;
}

/// What the probes of a container say. `None`: it has no such probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeState {
    /// Whether it has started up. A sidecar's or container's `started`.
    pub started: Option<bool>,
    /// Whether it is ready.
    pub ready: Option<bool>,
    /// Whether a liveness or startup probe has given it up, and why: it is to be killed.
    pub failed: Option<ProbeFailure>,
}

/// Which probe gave a container up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeFailure {
    /// The liveness probe.
    Liveness,
    /// The startup probe.
    Startup,
}

/// Probes of containers.
pub trait Probes: Send + Sync + 'static {
    /// Begins to probe a container that runs. Idempotent for the same id. Whenever [`state`](Self::state) changes, the pod's worker is
    /// woken (by what the implementation was made with).
    fn watch(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        id: &ContainerId,
        started: Timestamp,
        pod_ip: Option<IpAddr>,
    );

    /// What the probes of a container say now. Before a first answer: not started, not ready.
    fn state(&self, id: &ContainerId) -> ProbeState;

    /// Ends the probes of a container.
    fn forget(&self, id: &ContainerId);

    /// Ends the liveness and startup probes of all containers of a pod that is being deleted; readiness goes on.
    fn terminating(&self, uid: &str);

    /// Ends all probes of a pod.
    fn forget_pod(&self, uid: &str);
}

/// Hooks: `postStart` and `preStop`.
#[async_trait]
pub trait Hooks: Send + Sync + 'static {
    /// Runs a hook to its end. To bound it in time, drop the future.
    ///
    /// # Errors
    /// What went wrong, for the events `FailedPostStartHook` and `FailedPreStopHook`.
    async fn run(
        &self,
        pod: &Pod,
        container: &Container,
        id: &ContainerId,
        pod_ip: Option<IpAddr>,
        handler: &LifecycleHandler,
    ) -> Result<(), String>;
}

/// Cgroups of pods.
#[async_trait]
pub trait Cgroups: Send + Sync + 'static {
    /// Makes a pod's cgroup, with the pod's limits, or brings its limits up to date. Idempotent. Returns the parent for the runtime
    /// (`SandboxConfig::cgroup_parent`); empty where cgroups are left to the runtime.
    ///
    /// # Errors
    /// With the event `FailedCreatePodContainer`.
    async fn ensure(&self, pod: &Pod) -> Result<String, PartError>;

    /// Kills what is left in a pod's cgroup and removes it. Idempotent.
    ///
    /// # Errors
    /// What could not be removed; the worker asks again.
    async fn remove(&self, uid: &str) -> Result<(), PartError>;

    /// The uids of all pods that have a cgroup.
    async fn on_machine(&self) -> Vec<String>;
}
