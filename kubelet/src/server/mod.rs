//! The kubelet's HTTPS API, on port 10250: what the API server asks for `kubectl logs`, `exec`, `attach` and `port-forward`, what
//! metrics are scraped from, and how the agent itself is.
//!
//! Paths, codes and texts are upstream's. Everybody has to prove who they are, by a certificate of the cluster or a token that the API
//! believes, and the API says whether they may: the subresource of `nodes` is that of the path (`proxy` where it has none of its own).

mod access;
mod answer;
mod configz;
mod container_logs;
mod query;
mod routes;
mod streams;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Method, Request, Response};
use k8s_openapi::api::core::v1::Pod;
use orlop_core::env::{CancelToken, Env, TaskGroup};
use orlop_core::runtime::{Connection, Runtime};
use orlop_wire::body::Body;
use orlop_wire::listener::{ConnectionLimits, PeerInfo, serve_connection};
use orlop_wire::stream::io::into_connection;
use prometheus_client::registry::Registry;
use tower_service::Service;

pub use self::access::Access;
use self::access::Shown;
use self::answer::{internal_error, json, metrics, not_allowed, openmetrics, text};
use self::routes::Route;
use crate::config::KubeletConfig;
use crate::stats::{StatsProvider, cadvisor_metrics, resource_metrics};

/// The pods of a node, as its agent knows them.
pub trait PodDirectory: Send + Sync + 'static {
    /// All pods that are bound to the node, and its static pods, each with the status that the agent knows: newer than the API's.
    fn pods(&self) -> Vec<Arc<Pod>>;

    /// The pod of a name.
    fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.pods().into_iter().find(|pod| {
            pod.metadata.name.as_deref() == Some(name)
                && pod.metadata.namespace.as_deref() == Some(namespace)
        })
    }

    /// Whether the agent gets on with its work.
    ///
    /// # Errors
    /// Why not.
    fn sync_loop(&self) -> Result<(), String>;
}

/// What a [`KubeletServer`] is made of.
#[derive(Clone)]
pub struct ServerParts {
    /// How the agent is set up.
    pub config: Arc<KubeletConfig>,
    /// Its pods.
    pub pods: Arc<dyn PodDirectory>,
    /// What runs them.
    pub runtime: Arc<dyn Runtime>,
    /// What they use.
    pub stats: Arc<StatsProvider>,
    /// The agent's own metrics, for `/metrics`.
    pub metrics: Arc<Registry>,
    /// Metrics of probes, for `/metrics/probes`.
    pub probe_metrics: Arc<Registry>,
    /// Who may ask for what.
    pub access: Access,
    /// Time and tasks.
    pub env: Env,
}

/// The API of an agent, to be put behind a listener. Clones are the same one.
#[derive(Clone)]
pub struct KubeletServer {
    parts: Arc<ServerParts>,
    /// The streams that outlive their requests.
    tasks: Arc<TaskGroup>,
    /// Whoever is at the other end is known to be the API server.
    trusted: bool,
}

impl fmt::Debug for KubeletServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubeletServer")
            .field("node", &self.parts.config.node_name)
            .field("streams", &self.tasks.running())
            .field("trusted", &self.trusted)
            .finish_non_exhaustive()
    }
}

impl KubeletServer {
    /// The API of an agent.
    #[must_use]
    pub fn new(parts: ServerParts) -> Self {
        Self {
            tasks: Arc::new(TaskGroup::new(parts.env.clone())),
            parts: Arc::new(parts),
            trusted: false,
        }
    }

    /// The same for connections of which it is known that the API server is at the other end: nobody is asked who that is.
    #[must_use]
    pub fn for_api_server(&self) -> Self {
        Self {
            trusted: true,
            ..self.clone()
        }
    }

    /// Opens a connection in memory, for an API server in the same process: HTTP/1.1 is spoken on it, and nobody is asked who speaks.
    #[must_use]
    pub fn connect(&self) -> Connection {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let service = self.for_api_server();
        let (env, stop) = (self.parts.env.clone(), self.tasks.token());
        self.tasks.spawn("kubelet connection", async move {
            let limits = ConnectionLimits::in_memory();
            let peer = PeerInfo::default();
            if let Err(error) = serve_connection(far, peer, service, &limits, &env, &stop).await {
                tracing::debug!(%error, "connection in memory failed");
            }
        });
        into_connection(near)
    }

    /// Ends all streams and waits until they have ended.
    pub async fn shutdown(&self) {
        self.tasks.shutdown().await;
    }

    /// A token that is cancelled when the server shuts down.
    #[must_use]
    pub fn token(&self) -> CancelToken {
        self.tasks.token()
    }

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        if !self.trusted
            && let Err(refusal) = self
                .admit(Shown::by(&request), request.method().clone(), &path)
                .await
        {
            return *refusal;
        }
        let route = match Route::of(request.method(), &path) {
            Ok(route) => route,
            Err(refusal) => return *refusal,
        };
        let parts = &*self.parts;
        match route {
            Route::Healthz(check) => self.healthz(check),
            Route::Pods => answer::pods(&parts.pods.pods()),
            Route::RunningPods => streams::running_pods(&*parts.runtime).await,
            Route::Configz => json(&configz::configz(&parts.config)),
            Route::Metrics => openmetrics(&parts.metrics),
            Route::ProbeMetrics => openmetrics(&parts.probe_metrics),
            Route::ResourceMetrics => metrics(resource_metrics(&parts.stats).await),
            Route::CadvisorMetrics => match cadvisor_metrics(&parts.stats).await {
                Ok(text) => metrics(text),
                Err(error) => internal_error(error),
            },
            Route::Summary => match parts.stats.summary().await {
                Ok(summary) => {
                    let query = query::pairs(request.uri());
                    let few = query::first(&query, "only_cpu_and_memory");
                    json(&if few == Some("true") {
                        summary.only_cpu_and_memory()
                    } else {
                        summary
                    })
                }
                Err(error) => internal_error(error),
            },
            Route::ContainerLogs(of) => container_logs::serve(parts, &of, request.uri()).await,
            Route::Exec(of) => streams::exec(&self, &of, request).await,
            Route::Attach(of) => streams::attach(&self, &of, request).await,
            Route::Run(of) => streams::run(parts, &of, request.uri()).await,
            Route::PortForward(of) => streams::port_forward(&self, &of, request).await,
            Route::Checkpoint(of) => streams::checkpoint(parts, &of).await,
            Route::Disabled(what) => not_allowed(what),
        }
    }

    /// Finds out who asks and whether they may.
    async fn admit(
        &self,
        shown: Shown,
        method: Method,
        path: &str,
    ) -> Result<(), Box<Response<Body>>> {
        let access = &self.parts.access;
        let user = match access.user(shown).await {
            Ok(Some(user)) => user,
            Ok(None) => return Err(Box::new(text(401, "Unauthorized"))),
            Err(error) => {
                tracing::warn!(%error, "cannot tell who asks");
                return Err(Box::new(text(401, "Unauthorized")));
            }
        };
        let verb = match method {
            Method::POST => "create",
            Method::GET => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        };
        let subresources = routes::subresources(path);
        let node = &self.parts.config.node_name;
        for subresource in subresources {
            match access.may(&user, verb, node, subresource).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot tell whether somebody may");
                    let name = &user.name;
                    return Err(Box::new(text(
                        500,
                        format!(
                            "Authorization error (user={name}, verb={verb}, resource=nodes, subresource={subresource})"
                        ),
                    )));
                }
            }
        }
        Err(Box::new(text(
            403,
            format!(
                "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n",
                user.name,
                subresources.join(" ")
            ),
        )))
    }

    fn healthz(&self, check: Option<&str>) -> Response<Body> {
        let sync_loop = || self.parts.pods.sync_loop();
        match check {
            None => match sync_loop() {
                Ok(()) => text(200, "ok"),
                Err(error) => {
                    tracing::warn!(%error, "the agent does not get on");
                    text(
                        500,
                        "[+]ping ok\n[+]log ok\n[-]syncloop failed: reason withheld\nhealthz check failed\n",
                    )
                }
            },
            Some("ping" | "log") => text(200, "ok"),
            Some("syncloop") => match sync_loop() {
                Ok(()) => text(200, "ok"),
                Err(error) => text(500, format!("internal server error: {error}\n")),
            },
            Some(_) => answer::not_found_page(),
        }
    }
}

impl Service<Request<Body>> for KubeletServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move { Ok(server.answer(request).await) })
    }
}
