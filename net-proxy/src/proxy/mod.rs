//! [`Proxy`]: from the API to a backend.

mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use orlop_api::typed::Informer;
use orlop_core::client::Client;
use orlop_core::env::{CancelToken, Env, TaskGroup};
use orlop_core::events::EventBroadcaster;
use orlop_core::informer::InformerFactory;

use self::worker::{FIRST_RETRY, Feed, Worker};
use crate::Error;
use crate::backend::Backend;
use crate::config::ProxyConfig;
use crate::conntrack::Conntrack;
use crate::exec::Exec;
use crate::health::{Answer, ProxyHealth, ServiceHealth, serve};
use crate::metrics::ProxyMetrics;
use crate::nft::NftBackend;
use crate::sysctl;
use crate::view::Tracker;

/// Which Services and slices are this proxy's business: neither headless ones nor those of another proxy.
const OURS: &str = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";
/// How long to wait before an address is tried again that could not be listened on.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// A node's service proxy.
pub struct Proxy {
    client: Arc<dyn Client>,
    env: Env,
    config: ProxyConfig,
    backend: Box<dyn Backend>,
    metrics: ProxyMetrics,
    health: Arc<ProxyHealth>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("node", &self.config.node_name)
            .field("mode", &self.backend.mode())
            .finish_non_exhaustive()
    }
}

/// Puts a [`Proxy`] together.
pub struct ProxyBuilder {
    client: Arc<dyn Client>,
    env: Env,
    config: Option<ProxyConfig>,
    backend: Option<Box<dyn Backend>>,
}

impl fmt::Debug for ProxyBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl ProxyBuilder {
    /// How it is set up. It must be said.
    #[must_use]
    pub fn config(mut self, config: ProxyConfig) -> Self {
        self.config = Some(config);
        self
    }

    /// Who makes views come true; nftables without.
    #[must_use]
    pub fn backend(mut self, backend: impl Backend) -> Self {
        self.backend = Some(Box::new(backend));
        self
    }

    /// The proxy. It does nothing until it runs.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn build(self) -> Result<Proxy, Error> {
        let config = self
            .config
            .ok_or_else(|| Error::Config("no configuration was given".to_owned()))?;
        config.validate()?;
        let metrics = ProxyMetrics::default();
        let backend = self.backend.unwrap_or_else(|| {
            Box::new(NftBackend::new(self.env.clone(), &config, metrics.clone()))
        });
        let health = ProxyHealth::new(self.env.clone(), 2 * config.sync_period);
        Ok(Proxy {
            client: self.client,
            env: self.env,
            config,
            backend,
            metrics,
            health: Arc::new(health),
        })
    }
}

impl Proxy {
    /// Begins to put a proxy together.
    #[must_use]
    pub fn builder(client: Arc<dyn Client>, env: Env) -> ProxyBuilder {
        ProxyBuilder {
            client,
            env,
            config: None,
            backend: None,
        }
    }

    /// The proxy's metrics.
    #[must_use]
    pub fn metrics(&self) -> ProxyMetrics {
        self.metrics.clone()
    }

    /// Whether the proxy keeps up.
    #[must_use]
    pub fn health(&self) -> Arc<ProxyHealth> {
        self.health.clone()
    }

    /// Proxies until it is cancelled. What was applied stays in force then.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if this machine lacks what is needed. Whatever happens later is tried again.
    pub async fn run(&mut self, cancel: &CancelToken) -> Result<(), Error> {
        self.config.families = self.backend.probe(&self.config.families).await?;
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32);
        sysctl::prepare(&self.config, cpus);
        let tasks = TaskGroup::with_parent(self.env.clone(), cancel);
        self.listen(&tasks);
        let recorder = EventBroadcaster::start(&tasks, self.client.clone())
            .recorder_on("kube-proxy", &self.config.node_name);
        let factory = InformerFactory::new(self.client.clone(), self.env.clone());
        let services = Informer::<Service>::scoped(&factory, |scope| {
            scope.label_selector = OURS.to_owned();
        });
        let slices = Informer::<EndpointSlice>::scoped(&factory, |scope| {
            scope.label_selector = OURS.to_owned();
        });
        let node_name = self.config.node_name.clone();
        let node = Informer::<Node>::scoped(&factory, |scope| {
            scope.field_selector = format!("metadata.name={node_name}");
        });
        let mut feed = Feed {
            services: services.subscribe(),
            slices: slices.subscribe(),
            node: node.subscribe(),
        };
        factory.start(&tasks);
        let exec = Exec::new(self.env.clone(), self.config.command_prefix.clone());
        let service_health = ServiceHealth::new(
            self.env.clone(),
            node_name.clone(),
            recorder,
            self.health.clone(),
        );
        let mut worker = Worker {
            tracker: Tracker::new(node_name),
            missing: self.config.families.iter().copied().collect(),
            no_local: BTreeMap::new(),
            fronts: BTreeMap::new(),
            checks: BTreeMap::new(),
            conntrack: Conntrack::new(exec, self.config.conntrack_program.clone()),
            service_health,
            retry: FIRST_RETRY,
            proxy: self,
        };
        for &family in &worker.proxy.config.families {
            worker.proxy.health.updated(family);
        }
        let token = tasks.token();
        token.run(factory.synced()).await;
        worker.run(&mut feed, &token).await;
        worker.service_health.shutdown().await;
        tasks.shutdown().await;
        Ok(())
    }

    /// Removes everything that this or an earlier run applied.
    ///
    /// # Errors
    /// What could not be removed.
    pub async fn cleanup(&mut self) -> Result<(), Error> {
        self.backend.cleanup().await
    }

    /// Serves health and metrics.
    fn listen(&self, tasks: &TaskGroup) {
        let (health, metrics) = (self.health.clone(), self.metrics.clone());
        let routes = move |path: &str| match path {
            "/healthz" => Some(health.answer(false, &metrics)),
            "/livez" => Some(health.answer(true, &metrics)),
            _ => None,
        };
        self.listen_on(tasks, self.config.healthz_address, routes);
        let (metrics, mode) = (self.metrics.clone(), self.backend.mode());
        let routes = move |path: &str| match path {
            "/metrics" => Some(Answer {
                content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
                ..Answer::text(StatusCode::OK, metrics.encode())
            }),
            "/healthz" => Some(Answer::text(StatusCode::OK, "ok")),
            "/proxyMode" => Some(Answer::text(StatusCode::OK, mode)),
            _ => None,
        };
        self.listen_on(tasks, self.config.metrics_address, routes);
    }

    fn listen_on(
        &self,
        tasks: &TaskGroup,
        address: Option<SocketAddr>,
        routes: impl Fn(&str) -> Option<Answer> + Clone + Send + Sync + 'static,
    ) {
        let Some(address) = address else { return };
        let (env, token) = (self.env.clone(), tasks.token());
        tasks.spawn("listen", async move {
            loop {
                match serve(address, routes.clone(), env.clone(), token.clone()).await {
                    Ok(server) => return server.await,
                    Err(error) => tracing::warn!(%error, "tried again soon"),
                }
                if token.run(env.sleep(LISTEN_AGAIN)).await.is_none() {
                    return;
                }
            }
        });
    }
}
