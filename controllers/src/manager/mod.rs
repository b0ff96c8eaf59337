//! The manager: runs controllers.
//!
//! For each controller it keeps a queue of keys and as many workers as the controller wants; it feeds the queue from the informers (which
//! controllers share), tries failed keys again with growing waits, counts, and sees to it that only one manager of many works.

mod catalog;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use orlop_core::client::Client;
use orlop_core::controller::{Action, Context, Controller, ReconcileError};
use orlop_core::env::{CancelToken, Env, TaskGroup};
use orlop_core::events::EventBroadcaster;
use orlop_core::informer::InformerFactory;
use orlop_core::leader_election::{LeaderElectionOptions, LeaderElector};
use orlop_core::object::ObjectKey;
use orlop_core::queue::{RateLimit, WorkQueue, WorkQueueMetrics};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub use self::catalog::{Catalog, FixedCatalog};

use crate::{
    bootstrap_token, certificates, daemonset, deployment, endpoints, endpointslice,
    garbage_collector, job, namespace, node_ipam, node_lifecycle, pod_gc, replicaset, root_ca,
    serviceaccount, ttl_after_finished,
};

/// The identity for which the manager asks a client for its informers and its lease; Kubernetes' `system:kube-controller-manager`, which
/// may list and watch everything.
pub const MANAGER_IDENTITY: &str = "kube-controller-manager";

/// Why a manager cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two controllers have one name.
    #[error("there are two controllers named {0:?}")]
    Duplicate(String),
    /// The default controllers need to know which resources there are; see [`Builder::catalog`].
    #[error("the default controllers need a catalog of the API's resources")]
    NoCatalog,
    /// Something was asked to be left out that is not there.
    #[error("there is no controller named {0:?} to leave out")]
    Unknown(String),
}

type ClientFor = Box<dyn Fn(&str) -> Arc<dyn Client> + Send + Sync>;

/// Puts a [`ControllerManager`] together. Nothing is in it that was not asked for.
pub struct Builder {
    client_for: ClientFor,
    env: Env,
    controllers: Vec<Arc<dyn Controller>>,
    defaults: bool,
    without: Vec<String>,
    catalog: Option<Arc<dyn Catalog>>,
    root_ca: Option<String>,
    signers: Option<certificates::Signers>,
    node_ipam: Option<node_ipam::NodeIpamController>,
    bootstrap_tokens: bool,
    election: Option<LeaderElectionOptions>,
    metrics: Option<Metrics>,
    rate_limit: RateLimit,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self
            .controllers
            .iter()
            .map(|controller| controller.name())
            .collect();
        f.debug_struct("Builder")
            .field("controllers", &names)
            .field("defaults", &self.defaults)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// Adds a controller.
    #[must_use]
    pub fn controller(self, controller: impl Controller) -> Self {
        self.shared_controller(Arc::new(controller))
    }

    /// Adds a controller that somebody else holds, too.
    #[must_use]
    pub fn shared_controller(mut self, controller: Arc<dyn Controller>) -> Self {
        self.controllers.push(controller);
        self
    }

    /// Adds all controllers of this crate. They need a [`catalog`](Self::catalog); the publisher of the cluster's CA is among them if there
    /// is a [`root_ca`](Self::root_ca).
    #[must_use]
    pub fn with_defaults(mut self) -> Self {
        self.defaults = true;
        self
    }

    /// Leaves a controller out, by name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.without.push(name.to_owned());
        self
    }

    /// Who knows which resources the API has, for the garbage collector and the namespace controller.
    #[must_use]
    pub fn catalog(mut self, catalog: impl Catalog) -> Self {
        self.catalog = Some(Arc::new(catalog));
        self
    }

    /// The certificate (PEM) of the authority that signed the API server's, to be published in every namespace.
    #[must_use]
    pub fn root_ca(mut self, pem: impl Into<String>) -> Self {
        self.root_ca = Some(pem.into());
        self
    }

    /// Who signs certificates that were approved, beside the other default controllers (`--cluster-signing-cert-file`). Without, nobody here
    /// does.
    #[must_use]
    pub fn signers(mut self, signers: certificates::Signers) -> Self {
        self.signers = Some(signers);
        self
    }

    /// Gives nodes their ranges of pod addresses, beside the other default controllers (`--allocate-node-cidrs`).
    #[must_use]
    pub fn node_ipam(mut self, controller: node_ipam::NodeIpamController) -> Self {
        self.node_ipam = Some(controller);
        self
    }

    /// Adds the two controllers of bootstrap tokens to the default ones, which they are not among.
    #[must_use]
    pub fn bootstrap_tokens(mut self) -> Self {
        self.bootstrap_tokens = true;
        self
    }

    /// Works only while it holds a lease.
    #[must_use]
    pub fn leader_election(mut self, options: LeaderElectionOptions) -> Self {
        self.election = Some(options);
        self
    }

    /// Adds the metrics of the queues and controllers to a registry.
    #[must_use]
    pub fn metrics(mut self, registry: &mut Registry) -> Self {
        self.metrics = Some(Metrics::register(registry));
        self
    }

    /// How long failed keys wait. Kubernetes' waits, by default.
    #[must_use]
    pub fn rate_limit(mut self, limit: RateLimit) -> Self {
        self.rate_limit = limit;
        self
    }

    /// The manager.
    ///
    /// # Errors
    /// See [`enum@Error`].
    pub fn build(self) -> Result<ControllerManager, Error> {
        let mut all = self.controllers;
        if self.defaults {
            let catalog = self.catalog.ok_or(Error::NoCatalog)?;
            all.extend([
                Arc::new(deployment::DeploymentController::new()) as Arc<dyn Controller>,
                Arc::new(replicaset::ReplicaSetController::new()),
                Arc::new(daemonset::DaemonSetController::new()),
                Arc::new(endpoints::EndpointsController::new()),
                Arc::new(endpointslice::EndpointSliceController::new()),
                Arc::new(namespace::NamespaceController::new(catalog.clone())),
                Arc::new(garbage_collector::GarbageCollector::new(catalog)),
                Arc::new(serviceaccount::ServiceAccountController::new()),
                Arc::new(job::JobController::new()),
                Arc::new(ttl_after_finished::TtlAfterFinishedController::new()),
                Arc::new(node_lifecycle::NodeLifecycleController::new()),
                Arc::new(node_lifecycle::TaintEvictionController::new()),
                Arc::new(pod_gc::PodGarbageCollector::new()),
                Arc::new(certificates::ApprovingController::new()),
                Arc::new(certificates::CleanerController::new()),
            ]);
            if let Some(signers) = self.signers {
                all.push(Arc::new(certificates::SigningController::new(signers)));
            }
            if let Some(controller) = self.node_ipam {
                all.push(Arc::new(controller));
            }
            if self.bootstrap_tokens {
                all.push(Arc::new(bootstrap_token::TokenCleaner::new()));
                all.push(Arc::new(bootstrap_token::BootstrapSigner::new()));
            }
            if let Some(pem) = self.root_ca {
                all.push(Arc::new(root_ca::RootCaPublisher::new(pem)));
            }
        }
        let mut controllers: BTreeMap<String, Arc<dyn Controller>> = BTreeMap::new();
        for controller in all {
            let name = controller.name().to_owned();
            if controllers.insert(name.clone(), controller).is_some() {
                return Err(Error::Duplicate(name));
            }
        }
        for name in self.without {
            if controllers.remove(&name).is_none() {
                return Err(Error::Unknown(name));
            }
        }
        Ok(ControllerManager {
            client_for: self.client_for,
            env: self.env,
            controllers: controllers.into_values().collect(),
            election: self.election,
            metrics: self.metrics,
            rate_limit: self.rate_limit,
            synced: Arc::new(AtomicBool::new(false)),
        })
    }
}

/// Runs controllers until it is told to stop.
pub struct ControllerManager {
    client_for: ClientFor,
    env: Env,
    controllers: Vec<Arc<dyn Controller>>,
    election: Option<LeaderElectionOptions>,
    metrics: Option<Metrics>,
    rate_limit: RateLimit,
    synced: Arc<AtomicBool>,
}

impl fmt::Debug for ControllerManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControllerManager")
            .field("controllers", &self.names())
            .finish_non_exhaustive()
    }
}

impl ControllerManager {
    /// Begins with nothing. `client_for` gives a client for an identity: a controller's (the service account in
    /// `kube-system`), or [`MANAGER_IDENTITY`].
    pub fn builder(
        client_for: impl Fn(&str) -> Arc<dyn Client> + Send + Sync + 'static,
        env: Env,
    ) -> Builder {
        Builder {
            client_for: Box::new(client_for),
            env,
            controllers: Vec::new(),
            defaults: false,
            without: Vec::new(),
            catalog: None,
            root_ca: None,
            signers: None,
            node_ipam: None,
            bootstrap_tokens: false,
            election: None,
            metrics: None,
            rate_limit: RateLimit::default(),
        }
    }

    /// The names of the controllers.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.controllers
            .iter()
            .map(|controller| controller.name())
            .collect()
    }

    /// Tells when all local copies have their first list; for a readiness check. Stays as it is over a change of leaders.
    #[must_use]
    pub fn synced(&self) -> Arc<AtomicBool> {
        self.synced.clone()
    }

    /// Runs the controllers until `cancel`, or until the lease is lost. Returns when all work has ended.
    pub async fn run(&self, cancel: &CancelToken) {
        match &self.election {
            None => self.lead(cancel).await,
            Some(options) => {
                let client = (self.client_for)(MANAGER_IDENTITY);
                let elector = LeaderElector::new(client, self.env.clone(), options.clone());
                elector
                    .run(cancel, |token| async move { self.lead(&token).await })
                    .await;
            }
        }
    }

    async fn lead(&self, cancel: &CancelToken) {
        let group = TaskGroup::with_parent(self.env.clone(), cancel);
        let informers = InformerFactory::new((self.client_for)(MANAGER_IDENTITY), self.env.clone());
        let mut running = Vec::new();
        for controller in &self.controllers {
            let name = controller.name();
            let client = (self.client_for)(controller.identity());
            let queue = match &self.metrics {
                Some(metrics) => WorkQueue::with_metrics(
                    self.env.clone(),
                    self.rate_limit.clone(),
                    metrics.queues.queue(name),
                ),
                None => WorkQueue::new(self.env.clone(), self.rate_limit.clone()),
            };
            let events =
                EventBroadcaster::start(&group, client.clone()).recorder(controller.event_source());
            let ctx = Context::new(
                client,
                self.env.clone(),
                events,
                informers.clone(),
                queue.clone(),
            );
            let interests = controller.interests();
            for scope in interests.scopes() {
                let _ = informers.informer(scope.clone());
            }
            controller.prepare(&ctx);
            let mut fed = Vec::new();
            for (scope, keys) in interests.watched() {
                let (ctx, keys) = (ctx.clone(), keys.clone());
                fed.push(informers.informer(scope.clone()).handle(
                    &group,
                    "controller-watch",
                    move |notice| {
                        for key in keys(&ctx, &notice) {
                            ctx.queue().add(key);
                        }
                    },
                ));
            }
            let read: Vec<_> = interests
                .scopes()
                .map(|scope| informers.informer(scope.clone()))
                .collect();
            running.push((controller.clone(), ctx, fed, read));
        }
        informers.start(&group);
        let count = running.len();
        let waiting = Arc::new(std::sync::atomic::AtomicUsize::new(count));
        for (controller, ctx, fed, read) in running {
            let workers = Workers {
                controller,
                ctx,
                metrics: self.metrics.clone(),
                cancel: group.token(),
            };
            let (waiting, synced) = (waiting.clone(), self.synced.clone());
            let token = group.token();
            group.spawn("controller", async move {
                let caught_up = async {
                    for handler in &fed {
                        handler.synced().await;
                    }
                    for informer in &read {
                        informer.synced().await;
                    }
                };
                if token.run(caught_up).await.is_none() {
                    return;
                }
                if waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
                    synced.store(true, Ordering::Release);
                }
                workers.run().await;
            });
        }
        group.token().cancelled().await;
        group.idle().await;
    }
}

struct Workers {
    controller: Arc<dyn Controller>,
    ctx: Context,
    metrics: Option<Metrics>,
    cancel: CancelToken,
}

impl Workers {
    /// Runs until it is cancelled; the keys at work are finished.
    async fn run(self) {
        let label = Label {
            name: self.controller.name().to_owned(),
        };
        if let Some(metrics) = &self.metrics {
            metrics.running.get_or_create(&label).set(1);
        }
        let workers = futures::future::join_all(
            (0..self.controller.workers().max(1)).map(|_| self.work(&label)),
        );
        let background = self.background();
        let stop = async {
            self.cancel.cancelled().await;
            self.ctx.queue().shut_down();
        };
        let observe = self.cancel.run(async {
            // The age of unfinished work is read at intervals, as upstream does.
            if self.metrics.is_none() {
                return;
            }
            loop {
                self.ctx
                    .env()
                    .sleep(std::time::Duration::from_secs(10))
                    .await;
                self.ctx.queue().observe();
            }
        });
        futures::future::join4(workers, background, stop, observe).await;
        if let Some(metrics) = &self.metrics {
            metrics.running.get_or_create(&label).set(0);
        }
    }

    async fn background(&self) {
        let run = AssertUnwindSafe(self.controller.run(&self.ctx, &self.cancel))
            .catch_unwind()
            .await;
        if run.is_err() {
            tracing::error!(
                controller = self.controller.name(),
                "the controller's own task panicked and has ended"
            );
        }
    }

    async fn work(&self, label: &Label) {
        while let Some(key) = self.ctx.queue().get().await {
            // What is still queued when it is told to stop is left to who comes next.
            if self.cancel.is_cancelled() {
                self.ctx.queue().done(&key);
                continue;
            }
            let result = self.reconcile(&key).await;
            let (queue, word) = (self.ctx.queue(), Outcome::of(&result));
            match result {
                Ok(Action::Done) => queue.forget(&key),
                Ok(Action::RequeueAfter(wait)) => {
                    queue.forget(&key);
                    queue.add_after(key.clone(), wait);
                }
                Err(error) => {
                    // Others write and delete, too.
                    let expected = error.status().is_some_and(|status| {
                        status.is_conflict() || status.is_not_found() || status.is_already_exists()
                    });
                    if expected {
                        tracing::debug!(controller = %label.name, %key, %error, "will be tried again");
                    } else {
                        tracing::warn!(controller = %label.name, %key, %error, "will be tried again");
                    }
                    queue.add_rate_limited(key.clone());
                }
            }
            queue.done(&key);
            if let Some(metrics) = &self.metrics {
                metrics
                    .reconciles
                    .get_or_create(&Outcome {
                        controller: label.name.clone(),
                        result: word,
                    })
                    .inc();
            }
        }
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, ReconcileError> {
        tracing::trace!(controller = self.controller.name(), %key, "reconcile");
        // One object that makes a controller panic must not keep it from all others.
        let outcome = AssertUnwindSafe(self.controller.reconcile(&self.ctx, key))
            .catch_unwind()
            .await;
        outcome.unwrap_or_else(|panic| {
            let what = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or(panic.downcast_ref::<&str>().copied());
            Err(ReconcileError::other(format!(
                "the controller panicked: {}",
                what.unwrap_or("without a word")
            )))
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    controller: String,
    result: String,
}

impl Outcome {
    fn of(result: &Result<Action, ReconcileError>) -> String {
        match result {
            Ok(Action::Done) => "success",
            Ok(Action::RequeueAfter(_)) => "requeue_after",
            Err(_) => "error",
        }
        .to_owned()
    }
}

#[derive(Clone)]
struct Metrics {
    queues: WorkQueueMetrics,
    running: Family<Label, Gauge>,
    reconciles: Family<Outcome, Counter>,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            queues: WorkQueueMetrics::register(registry),
            running: Family::default(),
            reconciles: Family::default(),
        };
        registry.register(
            "running_managed_controllers",
            "Controllers that run",
            metrics.running.clone(),
        );
        registry.register(
            "controller_runtime_reconcile",
            "Reconciles of each controller, by their result",
            metrics.reconciles.clone(),
        );
        metrics
    }
}

#[cfg(test)]
mod tests;
