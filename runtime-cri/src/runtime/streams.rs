//! Streams into containers and sandboxes.

use std::time::Duration;

use futures::FutureExt;
use orlop_core::runtime::{
    AttachRequest, Connection, ContainerId, ContainerState, ExecRequest, Process, RuntimeError,
    SandboxId,
};

use super::CriRuntime;
use crate::messages as cri;
use crate::refusal::About;
use crate::streaming::{self, Wanted};

/// How long after its streams ended a container may take to be known as exited.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// How often that is looked at.
const LOOKS_EVERY: Duration = Duration::from_millis(50);

impl CriRuntime {
    pub(super) async fn begin_command(
        &self,
        id: &ContainerId,
        request: &ExecRequest,
    ) -> Result<Process, RuntimeError> {
        if request.command.is_empty() {
            return Err(RuntimeError::InvalidRequest("no command".to_owned()));
        }
        if request.tty && request.stderr {
            let why = "a terminal has no separate standard error";
            return Err(RuntimeError::InvalidRequest(why.to_owned()));
        }
        let wanted = Wanted {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            tty: request.tty,
        };
        let asked = wanted.asked();
        let message = cri::ExecRequest {
            container_id: id.as_str().to_owned(),
            cmd: request.command.clone(),
            tty: asked.tty,
            stdin: asked.stdin,
            stdout: asked.stdout,
            stderr: asked.stderr,
        };
        let address = self.call(message, About::Container(id.as_str())).await?.url;
        streaming::command(self.env(), &address, wanted).await
    }

    pub(super) async fn join_container(
        &self,
        id: &ContainerId,
        request: &AttachRequest,
    ) -> Result<Process, RuntimeError> {
        let wanted = Wanted {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            tty: request.tty,
        };
        let asked = wanted.asked();
        let message = cri::AttachRequest {
            container_id: id.as_str().to_owned(),
            stdin: asked.stdin,
            tty: asked.tty,
            stdout: asked.stdout,
            stderr: asked.stderr,
        };
        let address = self.call(message, About::Container(id.as_str())).await?.url;
        let process = streaming::command(self.env(), &address, wanted).await?;
        // The streams tell of their own end; how the program ended the engine knows.
        let (runtime, id, detached) = (self.clone(), id.clone(), process.exit);
        let exit = async move {
            let detached = detached.await;
            runtime.code_of(&id, detached.err()).await
        };
        Ok(Process {
            exit: exit.boxed(),
            ..process
        })
    }

    /// The exit code of a container whose streams have ended.
    async fn code_of(
        &self,
        id: &ContainerId,
        detached: Option<RuntimeError>,
    ) -> Result<i32, RuntimeError> {
        let give_up = self.env().now() + ENDS_WITHIN;
        loop {
            let container = self.look_up_container(id).await?;
            if container.state == ContainerState::Exited {
                return Ok(container.exit.map_or(-1, |exit| exit.code));
            }
            if self.env().now() >= give_up {
                let why = "the engine let go of a container that runs on";
                return Err(detached.unwrap_or_else(|| RuntimeError::Failed(why.to_owned())));
            }
            self.env().sleep(LOOKS_EVERY).await;
        }
    }

    pub(super) async fn reach_port(
        &self,
        id: &SandboxId,
        port: u16,
    ) -> Result<Connection, RuntimeError> {
        let message = cri::PortForwardRequest {
            pod_sandbox_id: id.as_str().to_owned(),
            port: vec![i32::from(port)],
        };
        let address = self.call(message, About::Sandbox(id.as_str())).await?.url;
        streaming::port(self.env(), &address, port).await
    }
}
