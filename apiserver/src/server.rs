//! The server: its parts, how they are chosen, and its life.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orlop_core::admission::{AdmissionPlugin, ObjectReader};
use orlop_core::auth::{Authenticator, Authorizer, SYSTEM_MASTERS, UserInfo};
use orlop_core::env::{CancelToken, Env, TaskGroup};
use orlop_core::node::NodeConnector;
use orlop_core::resource::Resource;
use orlop_core::revision::Revision;
use orlop_core::status::Status;
use orlop_core::store::{Store, StoreError};

use crate::admission;
use crate::authentication::{
    Authentication, BootstrapTokens, OpenIdDiscovery, ServiceAccountTokens, SigningKey,
    StaticTokens, TokenIssuer, VerifyingKey,
};
use crate::authorization::{AggregationController, Masters, NodeAuthorizer, RbacAuthorizer, Union};
use crate::bootstrap;
use crate::cache::Caches;
use crate::client::LocalClient;
use crate::connect::Connections;
use crate::http::{HttpService, InFlight};
use crate::metrics::Metrics;
use crate::registry::{Registry, ServiceAllocator, ServiceRange};

/// The user that the server itself is.
pub(crate) const SERVER: &str = "system:apiserver";

/// How often the Service `kubernetes` is looked at.
const KEEP_SERVICE_EVERY: Duration = Duration::from_secs(10);
/// How long a server that ends tries to be no endpoint any more.
const GOODBYE: Duration = Duration::from_secs(2);
/// How often the cluster's own objects are tried to be made while other servers change them, and how long it waits in between.
const BOOTSTRAP_ATTEMPTS: usize = 20;
const BOOTSTRAP_AGAIN: Duration = Duration::from_millis(50);
/// How often the addresses and ports of Services are looked at.
const REPAIR_SERVICES_EVERY: Duration = Duration::from_secs(180);
/// How often history is compacted; as much of it is kept.
const COMPACT_EVERY: Duration = Duration::from_secs(300);

const CLUSTER_ROLES: Resource = Resource::cluster(
    "rbac.authorization.k8s.io",
    "v1",
    "clusterroles",
    "ClusterRole",
);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store refuses.
    #[error("the store cannot be read: {0}")]
    Store(#[from] StoreError),
    /// The objects that every cluster has cannot be made.
    #[error("the cluster's own objects cannot be made: {0}")]
    Bootstrap(Status),
    /// Two admission plug-ins of one name.
    #[error("admission plug-in {0} is there twice")]
    DuplicatePlugin(&'static str),
}

/// The parts of a running server.
pub(crate) struct Server {
    pub(crate) env: Env,
    pub(crate) registry: Registry,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    /// The same, when it is the usual one: what `TokenReview` asks.
    pub(crate) authentication: Option<Arc<Authentication>>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) oidc: Option<OpenIdDiscovery>,
    pub(crate) metrics: Metrics,
    pub(crate) in_flight: Arc<InFlight>,
    /// The ways to nodes and pods.
    pub(crate) connections: Connections,
    /// Host and port at which clients reach the server.
    pub(crate) address: String,
    bootstrapped: AtomicBool,
    /// Cancelled when the end is near: watches end, so that nobody waits for them.
    pub(crate) stopping: CancelToken,
    /// This server among those that share the store, if others can reach it.
    members: Option<bootstrap::Members>,
    port: u16,
}

impl Server {
    pub(crate) fn is_bootstrapped(&self) -> bool {
        self.bootstrapped.load(Ordering::Acquire)
    }

    /// The addresses of the API servers that are alive; none where this one cannot be reached by others.
    async fn alive(&self) -> Result<Vec<IpAddr>, StoreError> {
        match &self.members {
            Some(members) => members.alive().await,
            None => Ok(Vec::new()),
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }
}

/// Chooses the parts of an [`ApiServer`]. Nothing is there that was not asked for.
pub struct Builder {
    store: Arc<dyn Store>,
    env: Env,
    tokens: Option<StaticTokens>,
    service_accounts: Option<(SigningKey, String)>,
    service_account_keys: Vec<VerifyingKey>,
    authenticators: Vec<Arc<dyn Authenticator>>,
    authorizers: Vec<Arc<dyn Authorizer>>,
    admission: Vec<Arc<dyn AdmissionPlugin>>,
    connector: Option<Arc<dyn NodeConnector>>,
    defaults: bool,
    anonymous: bool,
    address: String,
    port: u16,
    host: IpAddr,
    services: ServiceRange,
    client_ca: String,
    nodes_join_by_token: bool,
    not_acted_on: Vec<(Resource, &'static str)>,
    metrics: Vec<prometheus_client::registry::Registry>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Builder {
    fn new(store: Arc<dyn Store>, env: Env) -> Self {
        Self {
            store,
            env,
            tokens: None,
            service_accounts: None,
            service_account_keys: Vec::new(),
            authenticators: Vec::new(),
            authorizers: Vec::new(),
            admission: Vec::new(),
            connector: None,
            defaults: false,
            anonymous: true,
            address: "127.0.0.1:6443".to_owned(),
            port: 6443,
            host: IpAddr::from([127, 0, 0, 1]),
            services: ServiceRange::default(),
            client_ca: String::new(),
            nodes_join_by_token: false,
            not_acted_on: Vec::new(),
            metrics: Vec::new(),
        }
    }

    /// Metrics of other parts that `/metrics` is to show beside the server's own, such as the store's.
    #[must_use]
    pub fn more_metrics(mut self, registry: prometheus_client::registry::Registry) -> Self {
        self.metrics.push(registry);
        self
    }

    /// What Kubernetes has by default: the RBAC and Node authorizers, the admission plug-ins that are on, and the objects that
    /// every cluster begins with.
    #[must_use]
    pub fn with_defaults(mut self) -> Self {
        self.defaults = true;
        self
    }

    /// Static tokens (`--token-auth-file`).
    #[must_use]
    pub fn static_tokens(mut self, tokens: StaticTokens) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Service account tokens, signed by a key and issued under a name.
    #[must_use]
    pub fn service_accounts(mut self, key: SigningKey, issuer: &str) -> Self {
        self.service_accounts = Some((key, issuer.to_owned()));
        self
    }

    /// More keys by which service account tokens are believed (`--service-account-key-file`), beside the one that signs them: those of
    /// tokens that were signed before, or are by another server.
    #[must_use]
    pub fn service_account_keys(mut self, keys: impl IntoIterator<Item = VerifyingKey>) -> Self {
        self.service_account_keys.extend(keys);
        self
    }

    /// One more way to find out who asks, asked after client certificates.
    #[must_use]
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.authenticators.push(Arc::new(authenticator));
        self
    }

    /// One more authorizer, asked before the default ones.
    #[must_use]
    pub fn authorizer(mut self, authorizer: impl Authorizer) -> Self {
        self.authorizers.push(Arc::new(authorizer));
        self
    }

    /// One more admission plug-in, behind the default ones.
    #[must_use]
    pub fn admission(mut self, plugin: impl AdmissionPlugin) -> Self {
        self.admission.push(Arc::new(plugin));
        self
    }

    /// The way to nodes and pods: for logs, `exec`, `attach`, `portforward` and the proxies. Without one, they answer 503.
    #[must_use]
    pub fn node_connector(mut self, connector: Arc<dyn NodeConnector>) -> Self {
        self.connector = Some(connector);
        self
    }

    /// Whether requests without credentials are let in as `system:anonymous`. They are by default; what they may do is little.
    #[must_use]
    pub fn anonymous(mut self, allowed: bool) -> Self {
        self.anonymous = allowed;
        self
    }

    /// Where clients reach the server: in discovery, and behind the Service `default/kubernetes`.
    #[must_use]
    pub fn address(mut self, host: IpAddr, port: u16) -> Self {
        self.address = SocketAddr::new(host, port).to_string();
        self.host = host;
        self.port = port;
        self
    }

    /// The certificates (PEM) of the authority that signs client certificates. They are published for extension servers; it is
    /// the listener that verifies by them.
    #[must_use]
    pub fn client_ca(mut self, pem: &str) -> Self {
        pem.clone_into(&mut self.client_ca);
        self
    }

    /// Makes the bindings by which machines join with a bootstrap token and nodes get their client certificates without a person's approval
    /// (kubeadm makes them under other names), and by which the API server uses kubelets as [`bootstrap::KUBELET_CLIENT`].
    #[must_use]
    pub fn nodes_join_by_token(mut self) -> Self {
        self.nodes_join_by_token = true;
        self
    }

    /// The addresses and ports that Services are given.
    #[must_use]
    pub fn service_range(mut self, range: ServiceRange) -> Self {
        self.services = range;
        self
    }

    /// Resources that are stored and that nothing acts on, each with the warning that a client gets when it makes one: only who puts the
    /// control plane together knows which controllers and plug-ins there are.
    #[must_use]
    pub fn not_acted_on(
        mut self,
        resources: impl IntoIterator<Item = (Resource, &'static str)>,
    ) -> Self {
        self.not_acted_on.extend(resources);
        self
    }

    /// Reads the store, makes what every cluster has, and begins to serve.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn start(self) -> Result<ApiServer, Error> {
        let tasks = TaskGroup::new(self.env.clone());
        let caches = Caches::new(
            self.env.clone(),
            self.store.clone(),
            Registry::stored_resources(),
        );
        caches.start(&tasks).await?;
        let reader: Arc<dyn ObjectReader> = caches.clone();

        let audiences: Vec<String> = self
            .service_accounts
            .iter()
            .map(|(_, issuer)| issuer.clone())
            .collect();
        let mut authentication = Authentication::new(audiences.clone()).anonymous(self.anonymous);
        if let Some(tokens) = self.tokens {
            authentication = authentication.token(tokens);
        }
        for authenticator in self.authenticators {
            authentication = authentication.request(authenticator);
        }
        let mut issuer = None;
        let mut oidc = None;
        if let Some((key, name)) = self.service_accounts {
            let mut verifying = vec![key.verifying_key().clone()];
            for other in self.service_account_keys {
                if verifying.iter().all(|known| known.id() != other.id()) {
                    verifying.push(other);
                }
            }
            oidc = Some(OpenIdDiscovery::new(
                &name,
                &self.address,
                None,
                verifying.clone(),
            ));
            authentication = authentication.token(ServiceAccountTokens::new(
                vec![name.clone()],
                verifying,
                &audiences,
                reader.clone(),
                self.env.clone(),
            ));
            issuer = Some(Arc::new(TokenIssuer::new(
                name,
                key,
                audiences.clone(),
                reader.clone(),
                self.env.clone(),
            )));
        }
        if self.defaults {
            authentication = authentication.token(BootstrapTokens::new(
                reader.clone(),
                self.env.clone(),
                &audiences,
            ));
        }

        let mut authorizers = self.authorizers;
        // The server's own identity is in this group: without it nothing could be set up.
        authorizers.push(Arc::new(Masters));
        if self.defaults {
            authorizers.push(Arc::new(NodeAuthorizer::new(
                reader.clone(),
                bootstrap::node_rules(),
            )));
            authorizers.push(Arc::new(RbacAuthorizer::new(reader.clone())));
        }
        let authorizer: Arc<dyn Authorizer> = Arc::new(Union::new(authorizers));

        let mut plugins = if self.defaults {
            admission::default_plugins(&reader, &authorizer, &self.env)
        } else {
            Vec::new()
        };
        plugins.extend(self.admission);
        for (index, plugin) in plugins.iter().enumerate() {
            if plugins[..index]
                .iter()
                .any(|other| other.name() == plugin.name())
            {
                return Err(Error::DuplicatePlugin(plugin.name()));
            }
        }

        let services = ServiceAllocator::new(self.env.clone(), self.services.clone());
        let own = SocketAddr::new(self.host, self.port);
        let members = (self.defaults && bootstrap::is_endpoint(own))
            .then(|| bootstrap::Members::new(self.store.clone(), own));
        let authentication = Arc::new(authentication);
        let stopping = CancelToken::new();
        let server = Arc::new(Server {
            env: self.env.clone(),
            registry: Registry {
                env: self.env.clone(),
                store: self.store,
                caches,
                admission: plugins,
                services,
                tokens: issuer,
                event_lease: crate::registry::EventLease::default(),
                not_acted_on: self
                    .not_acted_on
                    .into_iter()
                    .map(|(resource, warning)| (resource.qualified(), warning))
                    .collect(),
            },
            authenticator: authentication.clone(),
            authentication: Some(authentication),
            authorizer,
            oidc,
            metrics: Metrics::new(self.metrics),
            in_flight: Arc::new(InFlight::new()),
            connections: Connections::new(self.connector, &self.env, &stopping),
            address: self.address,
            bootstrapped: AtomicBool::new(!self.defaults),
            stopping,
            members,
            port: self.port,
        });
        server
            .registry
            .repair_services()
            .await
            .map_err(Error::Bootstrap)?;
        let api = ApiServer {
            server: server.clone(),
            tasks,
        };
        if self.defaults {
            let mut config = bootstrap::Config {
                advertise: Some(own),
                servers: server.alive().await?,
                service_range: self.services.cidr(),
                client_ca: self.client_ca,
                nodes_join_by_token: self.nodes_join_by_token,
            };
            bootstrap_all(&api.loopback(), &server.env, &config).await?;
            let (client, caches) = (Arc::new(api.loopback()), server.registry.caches.clone());
            api.tasks
                .spawn_until_cancelled("clusterrole-aggregation", async move {
                    aggregate_roles(AggregationController::new(client, caches.clone()), &caches)
                        .await;
                });
            let (client, env, alive) = (api.loopback(), server.env.clone(), server.clone());
            api.tasks
                .spawn_until_cancelled("kubernetes-service", async move {
                    loop {
                        env.sleep(KEEP_SERVICE_EVERY).await;
                        if alive.is_stopping() {
                            return;
                        }
                        match alive.alive().await {
                            Ok(servers) => config.servers = servers,
                            Err(error) => {
                                tracing::debug!(%error, "the store does not tell which API servers there are");
                                continue;
                            }
                        }
                        if let Err(status) = bootstrap::keep_service(&client, &env, &config).await {
                            tracing::debug!(%status, "the service kubernetes is looked at again in a moment");
                        }
                    }
                });
            server.bootstrapped.store(true, Ordering::Release);
        }
        let repaired = server.clone();
        api.tasks
            .spawn_until_cancelled("service-repair", async move {
                loop {
                    repaired.env.sleep(REPAIR_SERVICES_EVERY).await;
                    if let Err(status) = repaired.registry.repair_services().await {
                        tracing::debug!(%status, "what Services have is looked at again in a moment");
                    }
                }
            });
        let compacted = server.clone();
        api.tasks
            .spawn_until_cancelled("compaction", async move { compact(&compacted).await });
        Ok(api)
    }
}

/// Makes what every cluster has, beside other servers that do the same: who lost a race looks again.
async fn bootstrap_all(
    client: &LocalClient,
    env: &Env,
    config: &bootstrap::Config,
) -> Result<(), Error> {
    let mut attempt = 1;
    loop {
        match bootstrap::run(client, env, config).await {
            Err(status)
                if attempt < BOOTSTRAP_ATTEMPTS
                    && (status.is_conflict()
                        || status.is_already_exists()
                        || status.is_not_found()) =>
            {
                tracing::debug!(%status, "another API server makes the cluster's own objects, too");
                env.sleep(env.jitter(BOOTSTRAP_AGAIN, 1.0)).await;
                attempt += 1;
            }
            outcome => return outcome.map_err(Error::Bootstrap),
        }
    }
}

/// Keeps the rules of aggregated cluster roles up to date.
async fn aggregate_roles(mut aggregation: AggregationController, caches: &Caches) {
    loop {
        if let Err(status) = aggregation.sync().await {
            tracing::debug!(%status, "cluster roles are aggregated again in a moment");
        }
        caches.changed(&CLUSTER_ROLES).await;
    }
}

/// Forgets history that is older than the interval. Several servers may do so: each forgets only what was there before its last look.
async fn compact(server: &Server) {
    let mut last = Revision::ZERO;
    loop {
        server.env.sleep(COMPACT_EVERY).await;
        if !last.is_zero() {
            match server.registry.store.compact(last).await {
                Ok(()) | Err(StoreError::Compacted { .. }) => {}
                Err(error) => tracing::warn!(%error, "history cannot be compacted"),
            }
        }
        if let Ok(revision) = server.registry.store.revision().await {
            last = revision;
        }
    }
}

/// A Kubernetes API server, in this process.
///
/// Clients reach it in three ways, and by the same path: as a [`Client`](orlop_core::client::Client) with an identity
/// ([`ApiServer::client`]), as a tower service of HTTP requests ([`ApiServer::service`]), and over a socket by a listener in front
/// of that service.
pub struct ApiServer {
    server: Arc<Server>,
    tasks: TaskGroup,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer")
            .field("address", &self.server.address)
            .finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Begins to choose the parts of a server over a store.
    pub fn builder(store: Arc<dyn Store>, env: Env) -> Builder {
        Builder::new(store, env)
    }

    /// A client with an identity. `name` is what it calls itself: the owner of the fields that it writes.
    #[must_use]
    pub fn client(&self, user: UserInfo, name: &str) -> LocalClient {
        LocalClient::new(self.server.clone(), user, name)
    }

    /// The server's own client: a member of `system:masters`.
    #[must_use]
    pub fn loopback(&self) -> LocalClient {
        self.client(
            UserInfo::new(
                SERVER,
                [SYSTEM_MASTERS, orlop_core::auth::ALL_AUTHENTICATED],
            ),
            "kube-apiserver",
        )
    }

    /// The service of HTTP requests, each authenticated by what it brings.
    #[must_use]
    pub fn service(&self) -> HttpService {
        HttpService::new(self.server.clone(), None)
    }

    /// The service of HTTP requests that all come from one user: for clients in the same process.
    #[must_use]
    pub fn service_as(&self, user: UserInfo) -> HttpService {
        HttpService::new(self.server.clone(), Some(user))
    }

    /// Waits until all that has been written is seen by everyone: by authorizers and admission too, which read from the cache.
    ///
    /// # Errors
    /// When the store cannot be asked, or the cache does not catch up.
    pub async fn caught_up(&self) -> Result<(), Status> {
        self.server
            .registry
            .caches
            .wait_until_current()
            .await
            .map(drop)
    }

    /// The resources whose objects cannot be read from the store, each with why: what is stored was damaged, or the key that it was encrypted with is not
    /// known. Requests for them are refused; everything else works. They are tried again now and then.
    #[must_use]
    pub fn unreadable(&self) -> Vec<(String, Arc<str>)> {
        self.server.registry.caches.unreadable()
    }

    /// The environment that the server lives in.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.server.env
    }

    /// Says that the end is near: `/readyz` fails from now on, watches over HTTP end, and so do streams of containers and proxies; everything else goes on.
    pub fn begin_shutdown(&self) {
        self.server.stopping.cancel();
    }

    /// Stops the server's own tasks. Requests under way are answered.
    pub async fn shutdown(&self) {
        self.begin_shutdown();
        self.server.connections.tasks.shutdown().await;
        if let Some(members) = &self.server.members {
            let goodbye = async {
                match members.leave().await {
                    Ok(Some(left)) => {
                        bootstrap::leave_service(&self.loopback(), &left, self.server.port).await
                    }
                    Ok(None) => Ok(()),
                    Err(error) => Err(crate::cache::store_status(error)),
                }
            };
            if !matches!(self.server.env.timeout(GOODBYE, goodbye).await, Ok(Ok(()))) {
                tracing::debug!("the Service kubernetes leads here for a while");
            }
        }
        self.tasks.shutdown().await;
    }
}
