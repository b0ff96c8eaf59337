//! The [`Runtime`]: what runs containers, the fourth of the five joints.
//!
//! A runtime keeps *sandboxes* (what the containers of one pod share: a network namespace with its addresses, a cgroup, a hostname),
//! *containers* inside them, and *images* that containers are made of. It knows nothing of Kubernetes: a node agent tells it what to
//! do and reads back what is there. The trait offers what the Container Runtime Interface (CRI) v1 offers, in Rust terms: one type for
//! a thing whether it is listed or looked up, streams and futures instead of URLs, and cancellation by dropping a future instead of
//! timeouts in requests.
//!
//! An implementation proves itself with the conformance suite, [`conformance::runtime`](crate::conformance::runtime()).
//! [`SimulatedRuntime`](crate::testing::SimulatedRuntime) is one that runs nothing, for tests.
//!
//! ```
//! use std::time::Duration;
//! use orlop_core::env::SimEnv;
//! use orlop_core::runtime::{ContainerConfig, ContainerState, ImageSpec, PullRequest, Runtime, SandboxConfig};
//! use orlop_core::testing::SimulatedRuntime;
//!
//! let sim = SimEnv::new(1);
//! let runtime = SimulatedRuntime::new(sim.env());
//! sim.block_on(async move {
//!     runtime.pull_image(&PullRequest::new("example/web:1")).await?;
//!     let sandbox = runtime.run_sandbox(&SandboxConfig::new("default", "web-0", "1f0e")).await?;
//!     let config = ContainerConfig::new("web", ImageSpec::new("example/web:1"));
//!     let container = runtime.create_container(&sandbox, &config).await?;
//!     runtime.start_container(&container).await?;
//!     assert_eq!(runtime.container(&container).await?.state, ContainerState::Running);
//!     runtime.stop_container(&container, Duration::from_secs(30)).await?;
//!     runtime.remove_sandbox(&sandbox).await
//! })
//! # .unwrap();
//! ```

mod container;
mod error;
mod event;
mod image;
mod sandbox;
mod security;
mod signal;
mod stats;
mod status;
mod stream;

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;

pub use self::container::{
    Container, ContainerConfig, ContainerFilter, ContainerId, ContainerMetadata, ContainerState,
    Device, EnvVar, Exit, IdMapping, Mount, MountPropagation, MountSource, Resources, User,
};
pub use self::error::RuntimeError;
pub use self::event::{EventKind, EventStream, EventSubject, RuntimeEvent};
pub use self::image::{
    FilesystemUsage, Image, ImageFilesystems, ImageId, ImageSpec, ImageUser, PullRequest,
    RegistryAuth,
};
pub use self::sandbox::{
    DnsConfig, NamespaceMode, Namespaces, Sandbox, SandboxConfig, SandboxFilter, SandboxId,
    SandboxMetadata, SandboxState, UserNamespace,
};
pub use self::security::{
    Capabilities, ContainerSecurity, Identity, SandboxSecurity, SeLinuxOptions, SecurityProfile,
    SupplementalGroupsPolicy,
};
pub use self::signal::Signal;
pub use self::stats::{
    ContainerStats, CpuUsage, InterfaceUsage, MemoryUsage, Pressure, PressureStats, SandboxStats,
    SwapUsage,
};
pub use self::status::{
    CgroupDriver, RuntimeCondition, RuntimeFeatures, RuntimeHandler, RuntimeStatus, RuntimeVersion,
    condition,
};
pub use self::stream::{
    AttachRequest, ByteSink, ByteStream, Connection, ExecOutput, ExecRequest, OUTPUT_LIMIT,
    Process, ResizeSink, TerminalSize,
};

/// Labels or annotations.
pub type Labels = std::collections::BTreeMap<String, String>;

/// Whether every wanted label is there with the wanted value.
fn labels_match(wanted: &Labels, have: &Labels) -> bool {
    wanted
        .iter()
        .all(|(name, value)| have.get(name) == Some(value))
}

/// What runs containers.
///
/// # Contract
///
/// * What a call has answered is seen by every call that starts later, and survives a restart of the process that implements the
///   trait: sandboxes, containers and images belong to the machine.
/// * `stop_…` and `remove_…` are idempotent: they succeed for what is stopped already and for what is not there.
/// * Other calls that name something that is not there fail with [`RuntimeError::NotFound`].
/// * A sandbox that stops takes its containers with it; a sandbox or a container that is removed need not be stopped before.
/// * A container is started once. It goes from [`Created`](ContainerState::Created) to [`Running`](ContainerState::Running) to
///   [`Exited`](ContainerState::Exited), and never back; to run again, another one is made.
/// * A future that is dropped stops waiting. Whether what it asked for is still done is open (except for
///   [`exec_sync`](Self::exec_sync), whose command is killed): the caller looks and asks again, which idempotence allows.
/// * Lists come in order of creation, oldest first, and by id among equals.
///
/// Thirteen methods are required. The others have a body: where it can be made of the required ones it is, and where it cannot it
/// refuses with [`RuntimeError::Unsupported`], by which a caller knows what a runtime lacks.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    // What it is.

    /// What the runtime is, whether it and its network are ready, and what it can do.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`].
    async fn status(&self) -> Result<RuntimeStatus, RuntimeError>;

    // Sandboxes.

    /// Makes a sandbox and starts it. When this returns, the sandbox is [`Ready`](SandboxState::Ready) and, unless it is in the
    /// host's network, has its addresses. After an error nothing is left of it.
    ///
    /// # Errors
    /// [`RuntimeError::AlreadyExists`] when a sandbox with the same [`SandboxMetadata`] is there; [`RuntimeError::InvalidRequest`];
    /// [`RuntimeError::Unsupported`] for a [handler](SandboxConfig::handler) that is not known; [`RuntimeError::Failed`].
    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxId, RuntimeError>;

    /// Kills what runs in a sandbox and gives its network back. The sandbox and its containers stay, to be looked at.
    ///
    /// # Errors
    /// [`RuntimeError::Failed`]: ask again.
    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;

    /// Removes a sandbox with all its containers, running or not.
    ///
    /// # Errors
    /// [`RuntimeError::Failed`]: ask again.
    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;

    /// The sandboxes that a filter lets through.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`].
    async fn sandboxes(&self, filter: &SandboxFilter) -> Result<Vec<Sandbox>, RuntimeError>;

    /// One sandbox.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`].
    async fn sandbox(&self, id: &SandboxId) -> Result<Sandbox, RuntimeError> {
        let filter = SandboxFilter {
            id: Some(id.clone()),
            ..SandboxFilter::default()
        };
        let found = self.sandboxes(&filter).await?.pop();
        found.ok_or_else(|| RuntimeError::not_found("sandbox", id))
    }

    // Containers.

    /// Makes a container in a sandbox, without starting it. Its image must have been pulled.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] for the sandbox or the image; [`RuntimeError::WrongState`] in a sandbox that is not ready;
    /// [`RuntimeError::AlreadyExists`] for a [`ContainerMetadata`] that the sandbox has already; [`RuntimeError::InvalidRequest`].
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError>;

    /// Starts a container that was made and never started.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`RuntimeError::WrongState`] when it was started before; [`RuntimeError::Failed`] when its
    /// program cannot be executed, and then the container is [`Exited`](ContainerState::Exited), with a code other than zero.
    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Sends a running container its stop signal, and kills it after `grace` if it still runs. Returns when it has ended. A grace of
    /// zero kills at once.
    ///
    /// # Errors
    /// [`RuntimeError::Failed`]: ask again.
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError>;

    /// Removes a container, running or not, with its writable layer. Its log stays.
    ///
    /// # Errors
    /// [`RuntimeError::Failed`]: ask again.
    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// The containers that a filter lets through.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`].
    async fn containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>, RuntimeError>;

    /// One container.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`].
    async fn container(&self, id: &ContainerId) -> Result<Container, RuntimeError> {
        let filter = ContainerFilter {
            id: Some(id.clone()),
            ..ContainerFilter::default()
        };
        let found = self.containers(&filter).await?.pop();
        found.ok_or_else(|| RuntimeError::not_found("container", id))
    }

    /// Gives a container other limits. A field of [`Resources`] that is `None` (or empty) stays as it is.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`RuntimeError::WrongState`] when it has exited; [`RuntimeError::Unsupported`].
    async fn update_container(
        &self,
        id: &ContainerId,
        resources: &Resources,
    ) -> Result<(), RuntimeError> {
        let _ = (id, resources);
        Err(RuntimeError::Unsupported("update_container"))
    }

    /// Tells the runtime what the containers of a sandbox may take together, and what the sandbox itself takes.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`RuntimeError::Unsupported`].
    async fn update_sandbox(
        &self,
        id: &SandboxId,
        overhead: &Resources,
        resources: &Resources,
    ) -> Result<(), RuntimeError> {
        let _ = (id, overhead, resources);
        Err(RuntimeError::Unsupported("update_sandbox"))
    }

    /// Closes the log file of a running container and opens it anew under the same name, after it was moved away.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`RuntimeError::WrongState`] when the container does not run; [`RuntimeError::Unsupported`].
    async fn reopen_log(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let _ = id;
        Err(RuntimeError::Unsupported("reopen_log"))
    }

    /// Writes the state of a running container to a file, from which it can be restored.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`RuntimeError::WrongState`]; [`RuntimeError::Unsupported`].
    async fn checkpoint_container(
        &self,
        id: &ContainerId,
        location: &std::path::Path,
    ) -> Result<(), RuntimeError> {
        let _ = (id, location);
        Err(RuntimeError::Unsupported("checkpoint_container"))
    }

    // Images.

    /// Fetches an image, or finds it there already.
    ///
    /// # Errors
    /// [`RuntimeError::ImageNotFound`], [`RuntimeError::Denied`], [`RuntimeError::Unavailable`] when the registry does not answer,
    /// [`RuntimeError::InvalidRequest`] for what is no image name, [`RuntimeError::NoSpace`].
    async fn pull_image(&self, request: &PullRequest) -> Result<ImageId, RuntimeError>;

    /// All images that are there.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`].
    async fn images(&self) -> Result<Vec<Image>, RuntimeError>;

    /// Removes an image, with all its names. Containers that were made of it go on. [Pinned](Image::pinned) images are removed too:
    /// sparing them is for the collector of images to do.
    ///
    /// # Errors
    /// [`RuntimeError::Failed`]: ask again.
    async fn remove_image(&self, image: &ImageSpec) -> Result<(), RuntimeError>;

    /// The image that a name or an id means, if it is there.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`].
    async fn image(&self, image: &ImageSpec) -> Result<Option<Image>, RuntimeError> {
        let mut all = self.images().await?;
        Ok(all
            .iter()
            .position(|have| have.answers_to(&image.image))
            .map(|at| all.swap_remove(at)))
    }

    /// How much of which file systems images and containers take.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`].
    async fn image_filesystems(&self) -> Result<ImageFilesystems, RuntimeError> {
        Err(RuntimeError::Unsupported("image_filesystems"))
    }

    // Streams.

    /// Runs a command in a running container. Dropping the [`Process`] closes its streams, and ends it where the runtime can: engines
    /// behind CRI do not, so a command that waits for nothing from its streams goes on until its container ends.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`RuntimeError::WrongState`] when the container does not run; [`RuntimeError::InvalidRequest`]
    /// for no command at all, or for a terminal beside a separate standard error; [`RuntimeError::Failed`] when the command cannot
    /// be executed; [`RuntimeError::Unsupported`].
    async fn exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<Process, RuntimeError> {
        let _ = (id, request);
        Err(RuntimeError::Unsupported("exec"))
    }

    /// Runs a command in a running container to its end and returns what it wrote, at most [`OUTPUT_LIMIT`] bytes of each stream
    /// (the rest is read and thrown away). To bound it in time, drop the future: the command is killed.
    ///
    /// # Errors
    /// As [`exec`](Self::exec). A command that ends with a code other than zero is not an error.
    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
    ) -> Result<ExecOutput, RuntimeError> {
        let request = ExecRequest {
            command: command.to_vec(),
            stdout: true,
            stderr: true,
            ..ExecRequest::default()
        };
        let process = self.exec(id, &request).await?;
        let (stdout, stderr, code) = futures::join!(
            collect(process.stdout),
            collect(process.stderr),
            process.exit
        );
        Ok(ExecOutput {
            stdout: stdout?,
            stderr: stderr?,
            code: code?,
        })
    }

    /// Joins the streams of a running container's own program. The container outlives the [`Process`]: dropping it only lets go.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`RuntimeError::WrongState`] when the container does not run; [`RuntimeError::Unsupported`].
    async fn attach(
        &self,
        id: &ContainerId,
        request: &AttachRequest,
    ) -> Result<Process, RuntimeError> {
        let _ = (id, request);
        Err(RuntimeError::Unsupported("attach"))
    }

    /// Opens a TCP connection to a port inside a sandbox, on its loopback address.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; [`RuntimeError::WrongState`] when the sandbox is not ready; [`RuntimeError::Refused`] when nothing
    /// listens there; [`RuntimeError::Unsupported`].
    async fn port_forward(&self, id: &SandboxId, port: u16) -> Result<Connection, RuntimeError> {
        let _ = (id, port);
        Err(RuntimeError::Unsupported("port_forward"))
    }

    // What goes on.

    /// What containers use now: those that a filter lets through and that run.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`].
    async fn container_stats(
        &self,
        filter: &ContainerFilter,
    ) -> Result<Vec<ContainerStats>, RuntimeError> {
        let _ = filter;
        Err(RuntimeError::Unsupported("container_stats"))
    }

    /// What sandboxes use now, with their containers: those that a filter lets through and that are ready.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`].
    async fn sandbox_stats(
        &self,
        filter: &SandboxFilter,
    ) -> Result<Vec<SandboxStats>, RuntimeError> {
        let _ = filter;
        Err(RuntimeError::Unsupported("sandbox_stats"))
    }

    /// Tells of every change from now on. A caller whose runtime has no events lists now and then instead, and one that lists now and
    /// then anyway may lose events.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`].
    async fn events(&self) -> Result<EventStream, RuntimeError> {
        Err(RuntimeError::Unsupported("events"))
    }

    // How it is set up.

    /// Tells the runtime which addresses the pods of this node are given. Called again whenever they change.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidRequest`]. A runtime that has no use for them succeeds, which is the default.
    async fn set_pod_cidrs(&self, cidrs: &[crate::network::Cidr]) -> Result<(), RuntimeError> {
        let _ = cidrs;
        Ok(())
    }

    /// Which driver of cgroups the runtime uses, so that a node agent uses the same.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`]: the node agent follows its own configuration.
    async fn cgroup_driver(&self) -> Result<CgroupDriver, RuntimeError> {
        Err(RuntimeError::Unsupported("cgroup_driver"))
    }
}

/// Reads a stream to its end and keeps the beginning.
async fn collect(stream: Option<ByteStream>) -> Result<Vec<u8>, RuntimeError> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else {
        return Ok(kept);
    };
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        let room = OUTPUT_LIMIT - kept.len();
        kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    Ok(kept)
}
