//! Hooks: what a container wants done right after its start (`postStart`) and before its end (`preStop`).

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod};
use orlop_core::env::Env;
use orlop_core::events::{EventRecorder, ObjectReference};
use orlop_core::runtime::{ContainerId, Runtime};

use crate::parts::Hooks;
use crate::probes::http::{self, GetError};
use crate::probes::{http_url, user_agent};

/// How much of a command's output is shown, in bytes.
const OUTPUT_LIMIT: usize = 10 << 10;

/// Runs hooks: commands through the runtime, requests over the node's network.
#[derive(Clone)]
pub struct HookRunner {
    env: Env,
    runtime: Arc<dyn Runtime>,
    events: EventRecorder,
}

impl std::fmt::Debug for HookRunner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HookRunner")
    }
}

impl HookRunner {
    /// A runner of the hooks of a runtime's containers.
    pub fn new(env: Env, runtime: Arc<dyn Runtime>, events: EventRecorder) -> Self {
        Self {
            env,
            runtime,
            events,
        }
    }

    async fn exec(&self, id: &ContainerId, command: &[String]) -> Result<(), (String, String)> {
        let output = self.runtime.exec_sync(id, command).await;
        let output = output.map_err(|error| (error.to_string(), String::new()))?;
        if output.code == 0 {
            return Ok(());
        }
        let text = |bytes: &[u8]| {
            let end = bytes.len().min(OUTPUT_LIMIT);
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        };
        let error = format!(
            "command '{}' exited with {}: {}",
            command.join(" "),
            output.code,
            text(&output.stderr)
        );
        let mut said = output.stdout;
        said.extend_from_slice(&output.stderr);
        Err((error, text(&said)))
    }

    /// Any answer will do, whatever its status.
    async fn http(
        &self,
        pod: &Pod,
        container: &Container,
        ip: Option<IpAddr>,
        action: &HTTPGetAction,
    ) -> Result<(), String> {
        let mut url = http_url(ip, container, action)?;
        let headers = action.http_headers.as_deref().unwrap_or_default();
        let agent = user_agent("lifecycle");
        let told = |error: &GetError| format!("Get \"{url}\": {error}");
        match http::get(&self.env, &url, headers, &agent, true).await {
            Ok(_) | Err(GetError::Body(_)) => return Ok(()),
            Err(GetError::NotTls) => {}
            Err(error) => return Err(told(&error)),
        }
        // Hooks over TLS were sent without it before Kubernetes 1.23: a server that lives by that is still served. The credentials
        // are not for an open wire.
        let refusal = told(&GetError::NotTls);
        url.https = false;
        let mut headers = headers.to_vec();
        headers.retain(|header| !header.name.eq_ignore_ascii_case("authorization"));
        match http::get(&self.env, &url, &headers, &agent, true).await {
            Ok(_) | Err(GetError::Body(_)) => {
                let host = url.authority();
                self.events.warning(
                    about(pod),
                    "LifecycleHTTPFallback",
                    format!(
                        "request to HTTPS lifecycle hook {host} got HTTP response, retry with HTTP succeeded"
                    ),
                );
                Ok(())
            }
            Err(_) => Err(refusal),
        }
    }
}

#[async_trait]
impl Hooks for HookRunner {
    async fn run(
        &self,
        pod: &Pod,
        container: &Container,
        id: &ContainerId,
        pod_ip: Option<IpAddr>,
        handler: &LifecycleHandler,
    ) -> Result<(), String> {
        let place = format!("Container {:?} in Pod {:?}", container.name, long_name(pod));
        let failed = if let Some(exec) = &handler.exec {
            let command = exec.command.as_deref().unwrap_or_default();
            let failed = self.exec(id, command).await.err();
            failed.map(|(error, said)| {
                let command = command.join(" ");
                format!(
                    "Exec lifecycle hook ([{command}]) for {place} failed - error: {error}, message: {said:?}"
                )
            })
        } else if let Some(action) = &handler.http_get {
            let failed = self.http(pod, container, pod_ip, action).await.err();
            failed.map(|error| {
                let path = action.path.as_deref().unwrap_or_default();
                format!("HTTP lifecycle hook ({path}) for {place} failed - error: {error}")
            })
        } else if let Some(sleep) = &handler.sleep {
            let seconds = u64::try_from(sleep.seconds).unwrap_or_default();
            self.env.sleep(Duration::from_secs(seconds)).await;
            None
        } else {
            // `tcpSocket` was never implemented for hooks, and is kept by the API for old objects only.
            Some("Cannot run handler: invalid handler: no exec, httpGet or sleep".to_owned())
        };
        failed.map_or(Ok(()), |message| {
            tracing::debug!(message);
            Err(message)
        })
    }
}

/// A pod as upstream names it in messages: `name_namespace(uid)`.
fn long_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    format!(
        "{}_{}({})",
        text(&meta.name),
        text(&meta.namespace),
        text(&meta.uid)
    )
}

fn about(pod: &Pod) -> ObjectReference {
    let meta = &pod.metadata;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    ObjectReference {
        kind: "Pod".to_owned(),
        namespace: text(&meta.namespace),
        name: text(&meta.name),
        uid: text(&meta.uid),
        api_version: "v1".to_owned(),
        resource_version: text(&meta.resource_version),
        field_path: String::new(),
    }
}
