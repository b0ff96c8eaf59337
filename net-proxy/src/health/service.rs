//! Load balancers that ask whether this node has endpoints of a Service (`healthCheckNodePort`).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use orlop_core::env::{Env, TaskGroup};
use orlop_core::events::{EventRecorder, ObjectReference};
use orlop_core::object::ObjectKey;

use super::{Answer, ProxyHealth, serve};
use crate::Error;

/// The small servers of all Services that are asked for.
#[derive(Debug)]
pub(crate) struct ServiceHealth {
    env: Env,
    node: String,
    recorder: EventRecorder,
    health: Arc<ProxyHealth>,
    servers: BTreeMap<ObjectKey, Server>,
}

#[derive(Debug)]
struct Server {
    port: u16,
    endpoints: Arc<AtomicUsize>,
    /// Ends the listeners when it is dropped.
    tasks: TaskGroup,
}

impl ServiceHealth {
    pub(crate) fn new(
        env: Env,
        node: String,
        recorder: EventRecorder,
        health: Arc<ProxyHealth>,
    ) -> Self {
        Self {
            env,
            node,
            recorder,
            health,
            servers: BTreeMap::new(),
        }
    }

    /// Serves for these Services and no others, with so many endpoints each. A port that could not be listened on is tried again.
    pub(crate) async fn sync(&mut self, wanted: &BTreeMap<ObjectKey, (u16, usize)>, at: &[IpAddr]) {
        let servers = std::mem::take(&mut self.servers);
        for (key, server) in servers {
            if wanted
                .get(&key)
                .is_some_and(|&(port, _)| port == server.port)
            {
                self.servers.insert(key, server);
            } else {
                // Another Service may want the port at once.
                server.tasks.shutdown().await;
            }
        }
        for (key, &(port, count)) in wanted {
            if let Some(server) = self.servers.get(key) {
                server.endpoints.store(count, Ordering::Relaxed);
                continue;
            }
            match self.start(key, port, count, at).await {
                Ok(server) => {
                    self.servers.insert(key.clone(), server);
                }
                Err(error) => {
                    let message = format!(
                        "node {} failed to start healthcheck {:?} on port {port}: {error}",
                        self.node,
                        key.to_string()
                    );
                    tracing::warn!(service = %key, port, %error, "no health check");
                    let about = ObjectReference {
                        kind: "Service".to_owned(),
                        namespace: key.namespace.to_string(),
                        name: key.name.to_string(),
                        uid: key.to_string(),
                        api_version: "v1".to_owned(),
                        ..ObjectReference::default()
                    };
                    self.recorder
                        .warning(about, "FailedToStartServiceHealthcheck", message);
                }
            }
        }
    }

    async fn start(
        &self,
        key: &ObjectKey,
        port: u16,
        count: usize,
        at: &[IpAddr],
    ) -> Result<Server, Error> {
        let tasks = TaskGroup::new(self.env.clone());
        let endpoints = Arc::new(AtomicUsize::new(count));
        for &address in at {
            let (key, health, counted) = (key.clone(), self.health.clone(), endpoints.clone());
            let routes = move |_: &str| {
                Some(answer(
                    &key,
                    counted.load(Ordering::Relaxed),
                    health.is_healthy(),
                ))
            };
            let address = SocketAddr::new(address, port);
            let server = serve(address, routes, self.env.clone(), tasks.token()).await?;
            tasks.spawn("service health", server);
        }
        Ok(Server {
            port,
            endpoints,
            tasks,
        })
    }

    /// Ends all servers.
    pub(crate) async fn shutdown(&mut self) {
        for server in std::mem::take(&mut self.servers).into_values() {
            server.tasks.shutdown().await;
        }
    }
}

/// What a load balancer is told, in the form that it knows from Kubernetes.
fn answer(key: &ObjectKey, endpoints: usize, healthy: bool) -> Answer {
    let status = if endpoints > 0 && healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{}\",\n\t\t\"name\": \"{}\"\n\t}},\n\t\"localEndpoints\": {endpoints},\n\t\"serviceProxyHealthy\": {healthy}\n}}",
        key.namespace, key.name
    );
    Answer {
        headers: vec![("x-load-balancing-endpoint-weight", endpoints.to_string())],
        ..Answer::json(status, body)
    }
}
