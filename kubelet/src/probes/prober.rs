//! How one probe is run.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    Container, GRPCAction, HTTPGetAction, Pod, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use orlop_core::env::Env;
use orlop_core::runtime::{ContainerId, Runtime};

use super::dial::{dial, join_host_port};
use super::url::Url;
use super::{grpc, http};

/// How much of a command's output is shown, in bytes.
const OUTPUT_LIMIT: usize = 10 << 10;

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is well; what was said.
    Success(String),
    /// All is well but for something that is worth an event.
    Warning(String),
    /// Not well, and why.
    Failure(String),
}

/// What a probe is sent to.
#[derive(Clone, Debug)]
pub struct ProbeTarget {
    /// The pod.
    pub pod: Arc<Pod>,
    /// The container, as it stands in the pod.
    pub container: Arc<Container>,
    /// The container's id.
    pub id: ContainerId,
    /// The pod's address; the node's, for a pod in the host's network.
    pub ip: Option<IpAddr>,
}

/// Runs probes. [`NodeProber`] is the one that does; another may stand in for it where nothing runs.
#[async_trait]
pub trait Prober: Send + Sync + 'static {
    /// Runs a probe once.
    ///
    /// # Errors
    /// Why it could not be run at all: that says nothing of the container.
    async fn probe(&self, target: &ProbeTarget, probe: &Probe) -> Result<Outcome, String>;
}

/// Runs commands through the runtime and asks servers over the node's network.
#[derive(Clone)]
pub struct NodeProber {
    env: Env,
    runtime: Arc<dyn Runtime>,
}

impl std::fmt::Debug for NodeProber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeProber")
    }
}

impl NodeProber {
    /// A prober of the containers of a runtime.
    pub fn new(env: Env, runtime: Arc<dyn Runtime>) -> Self {
        Self { env, runtime }
    }

    async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<Outcome, String> {
        let running = self.runtime.exec_sync(id, command);
        match self.env.timeout(timeout, running).await {
            Ok(Ok(output)) => {
                let mut said = output.stdout;
                said.extend_from_slice(&output.stderr);
                said.truncate(OUTPUT_LIMIT);
                let said = String::from_utf8_lossy(&said).into_owned();
                Ok(match output.code {
                    0 => Outcome::Success(said),
                    _ => Outcome::Failure(said),
                })
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Ok(Outcome::Failure(format!(
                "command timed out: {:?} timed out after {}",
                command.join(" "),
                seconds(timeout)
            ))),
        }
    }

    async fn http(
        &self,
        target: &ProbeTarget,
        action: &HTTPGetAction,
        timeout: Duration,
    ) -> Result<Outcome, String> {
        let url = http_url(target.ip, &target.container, action)?;
        let headers = action.http_headers.as_deref().unwrap_or_default();
        let agent = user_agent("probe");
        let getting = http::get(&self.env, &url, headers, &agent, false);
        Ok(match self.env.timeout(timeout, getting).await {
            Ok(Ok(got)) if (200..300).contains(&got.status) => {
                Outcome::Success(String::from_utf8_lossy(&got.body).into_owned())
            }
            Ok(Ok(got)) if (300..400).contains(&got.status) => Outcome::Warning(format!(
                "Probe terminated redirects, Response body: {}",
                String::from_utf8_lossy(&got.body)
            )),
            Ok(Ok(got)) => {
                Outcome::Failure(format!("HTTP probe failed with statuscode: {}", got.status))
            }
            Ok(Err(http::GetError::Body(why))) => return Err(why),
            Ok(Err(error)) => Outcome::Failure(format!("Get \"{url}\": {error}")),
            Err(_) => Outcome::Failure(format!(
                "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            )),
        })
    }

    async fn tcp(
        &self,
        target: &ProbeTarget,
        action: &TCPSocketAction,
        timeout: Duration,
    ) -> Result<Outcome, String> {
        let port = container_port(&action.port, &target.container)?;
        let host = host(action.host.as_deref(), target.ip)?;
        Ok(match self.env.timeout(timeout, dial(&host, port)).await {
            Ok(Ok(stream)) => {
                // Closed without a handshake: probes leave no sockets behind that wait.
                let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
                Outcome::Success(String::new())
            }
            Ok(Err(why)) => Outcome::Failure(why),
            Err(_) => Outcome::Failure(format!(
                "dial tcp {}: i/o timeout",
                join_host_port(&host, port)
            )),
        })
    }

    async fn grpc(
        &self,
        target: &ProbeTarget,
        action: &GRPCAction,
        timeout: Duration,
    ) -> Result<Outcome, String> {
        let port = valid_port(action.port)?;
        let host = host(None, target.ip)?;
        let service = action.service.as_deref().unwrap_or_default();
        let agent = user_agent("probe");
        Ok(grpc::check(&self.env, &host, port, service, &agent, timeout).await)
    }
}

#[async_trait]
impl Prober for NodeProber {
    async fn probe(&self, target: &ProbeTarget, probe: &Probe) -> Result<Outcome, String> {
        let timeout = Duration::from_secs(at_least_one(probe.timeout_seconds, 1));
        if let Some(exec) = &probe.exec {
            let command = exec.command.as_deref().unwrap_or_default();
            return self.exec(&target.id, command, timeout).await;
        }
        if let Some(action) = &probe.http_get {
            return self.http(target, action, timeout).await;
        }
        if let Some(action) = &probe.tcp_socket {
            return self.tcp(target, action, timeout).await;
        }
        if let Some(action) = &probe.grpc {
            return self.grpc(target, action, timeout).await;
        }
        let meta = &target.pod.metadata;
        Err(format!(
            "missing probe handler for {}_{}({}):{}",
            meta.name.as_deref().unwrap_or_default(),
            meta.namespace.as_deref().unwrap_or_default(),
            meta.uid.as_deref().unwrap_or_default(),
            target.container.name
        ))
    }
}

/// A number of seconds or times from a probe; what is left out, and nonsense, counts as the default.
pub(super) fn at_least_one(given: Option<i32>, default: u64) -> u64 {
    given
        .and_then(|given| u64::try_from(given).ok())
        .filter(|given| *given > 0)
        .unwrap_or(default)
}

/// The address that an `httpGet` means.
pub(crate) fn http_url(
    ip: Option<IpAddr>,
    container: &Container,
    action: &HTTPGetAction,
) -> Result<Url, String> {
    let https = action
        .scheme
        .as_deref()
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    let port = container_port(&action.port, container)?;
    let host = host(action.host.as_deref(), ip)?;
    let path = action.path.as_deref().unwrap_or_default();
    Ok(Url::new(https, &host, port, path))
}

/// The name by which requests of the node agent are known; `purpose` is `probe` or `lifecycle`.
pub(crate) fn user_agent(purpose: &str) -> String {
    let version = orlop_api::KUBERNETES_VERSION.trim_start_matches('v');
    let minor = version.rfind('.').map_or(version, |end| &version[..end]);
    format!("kube-{purpose}/{minor}")
}

fn host(given: Option<&str>, ip: Option<IpAddr>) -> Result<String, String> {
    match given.filter(|given| !given.is_empty()) {
        Some(given) => Ok(given.to_owned()),
        None => ip.map(|ip| ip.to_string()).ok_or_else(|| {
            "failed to find networking container: the pod has no address".to_owned()
        }),
    }
}

/// The number of a port that is given as one or by the name that the container gives it.
fn container_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    match port {
        IntOrString::Int(number) => valid_port(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            match ports.find(|port| port.name.as_deref() == Some(name)) {
                Some(port) => valid_port(port.container_port),
                None => valid_port(
                    name.parse()
                        .map_err(|_| format!("strconv.Atoi: parsing {name:?}: invalid syntax"))?,
                ),
            }
        }
    }
}

fn valid_port(number: i32) -> Result<u16, String> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

/// A duration of whole seconds as Go writes it: `1s`, `1m30s`, `1h0m0s`.
pub(crate) fn seconds(duration: Duration) -> String {
    let all = duration.as_secs();
    let (hours, minutes, seconds) = (all / 3600, all / 60 % 60, all % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ContainerPort;

    use super::*;

    #[test]
    fn ports_are_found_by_number_and_by_name() {
        let container = Container {
            ports: Some(vec![ContainerPort {
                name: Some("web".into()),
                container_port: 8080,
                host_port: Some(80),
                ..ContainerPort::default()
            }]),
            ..Container::default()
        };
        let name = |name: &str| container_port(&IntOrString::String(name.into()), &container);
        assert_eq!(container_port(&IntOrString::Int(5), &container), Ok(5));
        assert_eq!(name("web"), Ok(8080));
        assert_eq!(name("81"), Ok(81));
        assert_eq!(
            name("nope").unwrap_err(),
            "strconv.Atoi: parsing \"nope\": invalid syntax"
        );
        assert_eq!(
            container_port(&IntOrString::Int(70_000), &container).unwrap_err(),
            "invalid port number: 70000"
        );
        assert_eq!(name("0").unwrap_err(), "invalid port number: 0");
    }

    #[test]
    fn durations_and_agents_are_written_as_upstream_does() {
        for (secs, want) in [(1, "1s"), (60, "1m0s"), (90, "1m30s"), (3600, "1h0m0s")] {
            assert_eq!(seconds(Duration::from_secs(secs)), want);
        }
        assert_eq!(user_agent("probe"), "kube-probe/1.36");
    }
}
