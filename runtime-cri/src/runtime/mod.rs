//! [`CriRuntime`].

mod commands;
mod containers;
mod events;
mod images;
mod sandboxes;
mod stats;
mod streams;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use orlop_core::env::Env;
use orlop_core::network::Cidr;
use orlop_core::runtime::{
    AttachRequest, CgroupDriver, Connection, Container, ContainerConfig, ContainerFilter,
    ContainerId, ContainerStats, EventStream, ExecOutput, ExecRequest, Image, ImageFilesystems,
    ImageId, ImageSpec, Process, PullRequest, Resources, Runtime, RuntimeError, RuntimeStatus,
    Sandbox, SandboxConfig, SandboxFilter, SandboxId, SandboxStats,
};

use crate::convert;
use crate::engine::{Engine, PATIENCE, socket_of};
use crate::error::CriError;
use crate::known::Known;
use crate::messages::{self as cri, Call};
use crate::refusal::{About, refusal};

/// How many things are looked up at once for a list.
const LOOKS_AT_ONCE: usize = 16;

/// A [`Runtime`] that is a container engine behind CRI v1.
///
/// Clones share the connection and what is known of sandboxes and containers.
#[derive(Clone)]
pub struct CriRuntime {
    engine: Engine,
    known: Arc<Known>,
    /// Set once the engine said that it has no statistics of sandboxes.
    no_sandbox_stats: Arc<AtomicBool>,
}

impl fmt::Debug for CriRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CriRuntime").finish_non_exhaustive()
    }
}

impl CriRuntime {
    /// A runtime behind an endpoint, such as `unix:///run/containerd/containerd.sock` or the path alone. Nothing is connected to before
    /// the first call, so that the engine may start later.
    ///
    /// # Errors
    /// [`CriError::Endpoint`].
    ///
    /// # Panics
    /// Outside a tokio runtime, in which the connection lives.
    pub fn new(endpoint: &str, env: Env) -> Result<Self, CriError> {
        Ok(Self {
            engine: Engine::new(socket_of(endpoint)?, env),
            known: Arc::default(),
            no_sandbox_stats: Arc::default(),
        })
    }

    /// The same, having asked the engine whether it is there and speaks CRI v1.
    ///
    /// # Errors
    /// [`CriError`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(endpoint: &str, env: Env) -> Result<Self, CriError> {
        let runtime = Self::new(endpoint, env)?;
        let version = runtime.engine.call(cri::VersionRequest::default()).await;
        let endpoint = endpoint.to_owned();
        match version {
            // Engines leave the version out, or say it with more: `v1`, `1.0`, `v1.2`.
            Ok(version) if version.runtime_api_version.starts_with("v1alpha") => {
                Err(CriError::NotV1 {
                    endpoint,
                    why: format!("it speaks {}", version.runtime_api_version),
                })
            }
            Ok(_) => Ok(runtime),
            Err(status) if status.code() == tonic::Code::Unimplemented => Err(CriError::NotV1 {
                endpoint,
                why: status.message().to_owned(),
            }),
            Err(status) => Err(CriError::Engine {
                endpoint,
                source: refusal::<cri::VersionRequest>(status, About::Engine),
            }),
        }
    }

    fn env(&self) -> &Env {
        self.engine.env()
    }

    /// Makes a call that takes no longer than usual.
    async fn call<C: Call>(&self, request: C, about: About<'_>) -> Result<C::Answer, RuntimeError> {
        self.call_within(request, about, PATIENCE).await
    }

    /// Makes a call that may take so long.
    async fn call_within<C: Call>(
        &self,
        request: C,
        about: About<'_>,
        limit: Duration,
    ) -> Result<C::Answer, RuntimeError> {
        let answer = self.engine.call_within(request, limit).await;
        answer.map_err(|status| refusal::<C>(status, about))
    }

    async fn engine_status(&self) -> Result<RuntimeStatus, RuntimeError> {
        let version = self.call(cri::VersionRequest::default(), About::Engine);
        let status = self.call(cri::StatusRequest::default(), About::Engine);
        let (version, status) = futures::future::try_join(version, status).await?;
        Ok(convert::runtime_status(version, status))
    }

    async fn tell_pod_cidrs(&self, cidrs: &[Cidr]) -> Result<(), RuntimeError> {
        let cidrs: Vec<_> = cidrs.iter().map(ToString::to_string).collect();
        let request = cri::UpdateRuntimeConfigRequest {
            runtime_config: Some(cri::RuntimeConfig {
                network_config: Some(cri::NetworkConfig {
                    pod_cidr: cidrs.join(","),
                }),
            }),
        };
        match self.call(request, About::Engine).await {
            // It has no use for them.
            Ok(_) | Err(RuntimeError::Unsupported(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn ask_cgroup_driver(&self) -> Result<CgroupDriver, RuntimeError> {
        let config = self
            .call(cri::RuntimeConfigRequest {}, About::Engine)
            .await?;
        let linux = config
            .linux
            .ok_or(RuntimeError::Unsupported("cgroup_driver"))?;
        Ok(match linux.cgroup_driver() {
            cri::CgroupDriver::Systemd => CgroupDriver::Systemd,
            cri::CgroupDriver::Cgroupfs => CgroupDriver::Cgroupfs,
        })
    }
}

/// Takes the absence of what is to be stopped or removed for success.
fn unless_gone(done: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    match done {
        Err(error) if error.is_not_found() => Ok(()),
        done => done,
    }
}

#[async_trait]
impl Runtime for CriRuntime {
    async fn status(&self) -> Result<RuntimeStatus, RuntimeError> {
        self.engine_status().await
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxId, RuntimeError> {
        self.make_sandbox(config).await
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.halt_sandbox(id).await
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.delete_sandbox(id).await
    }

    async fn sandboxes(&self, filter: &SandboxFilter) -> Result<Vec<Sandbox>, RuntimeError> {
        self.list_sandboxes(filter).await
    }

    async fn sandbox(&self, id: &SandboxId) -> Result<Sandbox, RuntimeError> {
        Ok(self.look_up_sandbox(id).await?.sandbox)
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        self.make_container(sandbox, config).await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.begin_container(id).await
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        self.halt_container(id, grace).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.delete_container(id).await
    }

    async fn containers(&self, filter: &ContainerFilter) -> Result<Vec<Container>, RuntimeError> {
        self.list_containers(filter).await
    }

    async fn container(&self, id: &ContainerId) -> Result<Container, RuntimeError> {
        self.look_up_container(id).await
    }

    async fn update_container(
        &self,
        id: &ContainerId,
        resources: &Resources,
    ) -> Result<(), RuntimeError> {
        self.limit_container(id, resources).await
    }

    async fn update_sandbox(
        &self,
        id: &SandboxId,
        overhead: &Resources,
        resources: &Resources,
    ) -> Result<(), RuntimeError> {
        self.limit_sandbox(id, overhead, resources).await
    }

    async fn reopen_log(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.open_log_anew(id).await
    }

    async fn checkpoint_container(
        &self,
        id: &ContainerId,
        location: &Path,
    ) -> Result<(), RuntimeError> {
        self.write_checkpoint(id, location).await
    }

    async fn pull_image(&self, request: &PullRequest) -> Result<ImageId, RuntimeError> {
        self.fetch_image(request).await
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        self.list_images().await
    }

    async fn remove_image(&self, image: &ImageSpec) -> Result<(), RuntimeError> {
        self.delete_image(image).await
    }

    async fn image(&self, image: &ImageSpec) -> Result<Option<Image>, RuntimeError> {
        self.look_up_image(image).await
    }

    async fn image_filesystems(&self) -> Result<ImageFilesystems, RuntimeError> {
        self.measure_filesystems().await
    }

    async fn exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<Process, RuntimeError> {
        self.begin_command(id, request).await
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
    ) -> Result<ExecOutput, RuntimeError> {
        self.run_command(id, command).await
    }

    async fn attach(
        &self,
        id: &ContainerId,
        request: &AttachRequest,
    ) -> Result<Process, RuntimeError> {
        self.join_container(id, request).await
    }

    async fn port_forward(&self, id: &SandboxId, port: u16) -> Result<Connection, RuntimeError> {
        self.reach_port(id, port).await
    }

    async fn container_stats(
        &self,
        filter: &ContainerFilter,
    ) -> Result<Vec<ContainerStats>, RuntimeError> {
        self.measure_containers(filter).await
    }

    async fn sandbox_stats(
        &self,
        filter: &SandboxFilter,
    ) -> Result<Vec<SandboxStats>, RuntimeError> {
        self.measure_sandboxes(filter).await
    }

    async fn events(&self) -> Result<EventStream, RuntimeError> {
        self.follow_events().await
    }

    async fn set_pod_cidrs(&self, cidrs: &[Cidr]) -> Result<(), RuntimeError> {
        self.tell_pod_cidrs(cidrs).await
    }

    async fn cgroup_driver(&self) -> Result<CgroupDriver, RuntimeError> {
        self.ask_cgroup_driver().await
    }
}

#[cfg(test)]
mod tests;
