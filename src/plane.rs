//! The builder that puts a control plane together, and the control plane.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use orlop_api::resources::{self, Verb};
use orlop_apiserver::authentication::{DEFAULT_ISSUER, SigningKey, StaticTokens};
use orlop_apiserver::bootstrap::KUBELET_CLIENT;
use orlop_apiserver::http::HttpService;
use orlop_apiserver::{ApiServer, LocalClient, ServiceRange};
use orlop_controllers::certificates::Signers;
use orlop_controllers::manager::{Catalog, ControllerManager};
use orlop_controllers::node_ipam::{NodeIpamController, NodeIpamOptions, RangeError};
use orlop_core::admission::AdmissionPlugin;
use orlop_core::auth::{Authenticator, Authorizer, UserInfo};
use orlop_core::client::Client;
use orlop_core::controller::Controller;
use orlop_core::env::{Env, TaskGroup};
use orlop_core::leader_election::LeaderElector;
use orlop_core::network::Cidr;
use orlop_core::node::NodeConnector;
use orlop_core::resource::Resource;
use orlop_core::status::Status;
use orlop_core::store::Store;
use orlop_kubelet::agent::{AgentError, NodeAgent};
use orlop_net_proxy::Proxy;
use orlop_sched::{Profile, Scheduler, SchedulerBuilder};
use orlop_store::MemoryStore;
use orlop_store::layers::{Metered, StoreMetrics};
use orlop_wire::listener::{Listener, ServerTls};
use orlop_wire::pki::{ClientVerifier, ClusterPki, ClusterPkiOptions};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::connector::{Connector, KubeletDialer};
use crate::election::{self, Election};
use crate::host_node::HostNode;
use crate::identities;
use crate::not_acted_on::not_acted_on;
use crate::sim::{self, SimulatedNodes};

/// How long the API server's certificate for kubelets is good for: it is made anew at every start.
const CERTIFICATE_VALIDITY: Duration = Duration::from_secs(365 * 86_400);

/// Why a control plane does not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing says where everything is to be kept.
    #[error("a control plane needs a store: say .store(…) or .in_memory()")]
    NoStore,
    /// The API server does not start.
    #[error(transparent)]
    ApiServer(#[from] orlop_apiserver::Error),
    /// The scheduler does not start.
    #[error(transparent)]
    Scheduler(#[from] orlop_sched::Error),
    /// The controllers do not start.
    #[error(transparent)]
    Controllers(#[from] orlop_controllers::manager::Error),
    /// The networks of pods cannot be divided among nodes.
    #[error("the networks of pods cannot be divided among nodes: {0}")]
    ClusterCidrs(#[from] RangeError),
    /// The kubelet of this machine does not start.
    #[error(transparent)]
    Kubelet(#[from] AgentError),
    /// The service proxy of this machine does not start.
    #[error(transparent)]
    Proxy(#[from] orlop_net_proxy::Error),
    /// Certificates, keys or sockets.
    #[error(transparent)]
    Wire(#[from] orlop_wire::Error),
    /// The key that signs service account tokens cannot be used.
    #[error("the service account key cannot be used: {0}")]
    Key(String),
    /// The API refuses what the parts need.
    #[error("the control plane cannot set itself up: {0}")]
    Setup(Box<Status>),
    /// An address that cannot be listened at.
    #[error("cannot listen at {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Setup(Box::new(status))
    }
}

/// Chooses the parts of a [`ControlPlane`]. Nothing is there that was not asked for; [`with_defaults`](Self::with_defaults) asks for what
/// Kubernetes has.
#[must_use]
pub struct ControlPlaneBuilder {
    env: Option<Env>,
    store: Option<Arc<dyn Store>>,
    memory: bool,
    defaults: bool,
    profiles: Vec<Profile>,
    no_scheduler: bool,
    controllers: Vec<Arc<dyn Controller>>,
    without: Vec<String>,
    no_controllers: bool,
    nodes: Option<SimulatedNodes>,
    pki: Option<ClusterPki>,
    tokens: Option<StaticTokens>,
    issuer: String,
    address: SocketAddr,
    services: ServiceRange,
    cluster_cidrs: Vec<Cidr>,
    host: Option<HostNode>,
    connector: Option<Arc<dyn NodeConnector>>,
    election: Option<Election>,
    extend: Vec<Extend>,
}

/// What is handed on to the API server's builder.
type Extend = Box<dyn FnOnce(orlop_apiserver::Builder) -> orlop_apiserver::Builder + Send>;

impl std::fmt::Debug for ControlPlaneBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlPlaneBuilder")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl ControlPlaneBuilder {
    fn new() -> Self {
        Self {
            env: None,
            store: None,
            memory: false,
            defaults: false,
            profiles: Vec::new(),
            no_scheduler: false,
            controllers: Vec::new(),
            without: Vec::new(),
            no_controllers: false,
            nodes: None,
            pki: None,
            tokens: None,
            issuer: DEFAULT_ISSUER.to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 6443)),
            services: ServiceRange::default(),
            cluster_cidrs: Vec::new(),
            host: None,
            connector: None,
            election: None,
            extend: Vec::new(),
        }
    }

    /// The environment to live in; tokio's, by default.
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// Where everything is kept.
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// The same, for a store that somebody else holds, too.
    pub fn shared_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Everything is kept in memory, and gone with the control plane.
    pub fn in_memory(mut self) -> Self {
        self.memory = true;
        self
    }

    /// What Kubernetes has: RBAC, the usual admission plug-ins, the default scheduler and the controllers.
    pub fn with_defaults(mut self) -> Self {
        self.defaults = true;
        self
    }

    /// One more admission plug-in, behind the default ones.
    pub fn admission(mut self, plugin: impl AdmissionPlugin) -> Self {
        self.extend
            .push(Box::new(|builder| builder.admission(plugin)));
        self
    }

    /// One more way to find out who asks.
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.extend
            .push(Box::new(|builder| builder.authenticator(authenticator)));
        self
    }

    /// One more authorizer, asked before the default ones.
    pub fn authorizer(mut self, authorizer: impl Authorizer) -> Self {
        self.extend
            .push(Box::new(|builder| builder.authorizer(authorizer)));
        self
    }

    /// A scheduling profile. The first one given takes the place of the default profile.
    pub fn scheduler(mut self, profile: Profile) -> Self {
        self.profiles.push(profile);
        self
    }

    /// No scheduler: pods wait for somebody else's.
    pub fn without_scheduler(mut self) -> Self {
        self.no_scheduler = true;
        self
    }

    /// One more controller. It acts as the service account of its name in `kube-system`, and may do what its
    /// [`interests`](Controller::interests) say: change its subjects, make and delete what it owns, read what it watches.
    pub fn controller(mut self, controller: impl Controller) -> Self {
        self.controllers.push(Arc::new(controller));
        self
    }

    /// Leaves one of the default controllers out, by its name.
    pub fn without_controller(mut self, name: &str) -> Self {
        self.without.push(name.to_owned());
        self
    }

    /// None of the default controllers.
    pub fn without_controllers(mut self) -> Self {
        self.no_controllers = true;
        self
    }

    /// Nodes that run nothing, but let pods look as if they ran.
    pub fn simulated_nodes(mut self, nodes: SimulatedNodes) -> Self {
        self.nodes = Some(nodes);
        self
    }

    /// The certificates and keys; new ones are made, by default.
    pub fn pki(mut self, pki: ClusterPki) -> Self {
        self.pki = Some(pki);
        self
    }

    /// Static tokens (`--token-auth-file`).
    pub fn static_tokens(mut self, tokens: StaticTokens) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Who signs service account tokens (`--service-account-issuer`).
    pub fn issuer(mut self, issuer: &str) -> Self {
        issuer.clone_into(&mut self.issuer);
        self
    }

    /// Where clients reach the API server: in discovery, and behind the Service `default/kubernetes`.
    pub fn advertise(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// The addresses and ports that Services are given.
    pub fn service_range(mut self, range: ServiceRange) -> Self {
        self.services = range;
        self
    }

    /// The way to nodes and pods, for logs, `exec`, `attach`, `port-forward` and the proxies. By default kubelets are dialled with a certificate of
    /// the PKI's. What runs on the node of this process is reached in memory all the same.
    pub fn node_connector(mut self, connector: Arc<dyn NodeConnector>) -> Self {
        self.connector = Some(connector);
        self
    }

    /// Lets the scheduler, the controllers and the simulated nodes work only while they hold a lease each: for several control planes on one store. The
    /// identity must be different for each of them.
    pub fn leader_election(mut self, identity: &str) -> Self {
        self.election = Some(Election::new(identity));
        self
    }

    /// The networks of all pods (`--cluster-cidr`), of which every node is given a part (`--allocate-node-cidrs`): one, or one of each family.
    /// Without, nodes get their ranges from elsewhere.
    pub fn cluster_cidrs(mut self, cidrs: impl IntoIterator<Item = Cidr>) -> Self {
        self.cluster_cidrs = cidrs.into_iter().collect();
        self
    }

    /// This machine as a node. Containers outlive the control plane, and are taken over by the next one.
    pub fn node(mut self, node: HostNode) -> Self {
        self.host = Some(node);
        self
    }

    /// Puts the parts together and starts them.
    ///
    /// # Errors
    /// See [`enum@Error`].
    pub async fn start(self) -> Result<ControlPlane, Error> {
        let env = self.env.unwrap_or_else(Env::tokio);
        let store = match self.store {
            Some(store) => store,
            None if self.memory => Arc::new(MemoryStore::new(env.clone())) as Arc<dyn Store>,
            None => return Err(Error::NoStore),
        };
        let pki = match self.pki {
            Some(pki) => pki,
            None => ClusterPki::create(&ClusterPkiOptions::new(), env.wall())?,
        };
        let key = SigningKey::from_pem(&pki.service_account.key)
            .map_err(|error| Error::Key(error.to_string()))?;
        let mut metrics = Registry::default();
        let counted = StoreMetrics::register(&mut metrics);
        let store = Arc::new(Metered::new(store, env.clone(), counted));
        let mut api = ApiServer::builder(store, env.clone())
            .more_metrics(metrics)
            .service_accounts(key, &self.issuer)
            .address(self.address.ip(), self.address.port())
            .client_ca(pki.authority.certificate_pem())
            .service_range(self.services);
        let beyond = match self.connector {
            Some(connector) => connector,
            None => connector(&pki, &env)?,
        };
        let connector = Connector::new(beyond);
        api = api
            .node_connector(Arc::new(connector.clone()))
            .nodes_join_by_token();
        if self.defaults {
            // What a controller of the embedder's is for is acted on.
            let subjects: Vec<Resource> = self
                .controllers
                .iter()
                .filter_map(|controller| controller.interests().subject().cloned())
                .collect();
            let idle = not_acted_on().filter(|(resource, _)| !subjects.contains(resource));
            api = api.with_defaults().not_acted_on(idle);
        }
        if let Some(tokens) = self.tokens {
            api = api.static_tokens(tokens);
        }
        for extend in self.extend {
            api = extend(api);
        }
        let api = Arc::new(api.start().await?);
        let tasks = TaskGroup::new(env.clone());
        let admin: Arc<dyn Client> = Arc::new(api.client(identities::admin(), "orlop"));

        for controller in &self.controllers {
            identities::grant(&*admin, controller.identity(), &controller.interests()).await?;
        }
        api.caught_up().await?;
        let mut synced = Vec::new();
        let defaults = self.defaults && !self.no_controllers;
        if defaults || !self.controllers.is_empty() {
            let clients = api.clone();
            let mut manager = ControllerManager::builder(
                move |name| {
                    Arc::new(clients.client(identities::controller(name), name)) as Arc<dyn Client>
                },
                env.clone(),
            )
            .catalog(Served)
            .root_ca(pki.authority.certificate_pem())
            .signers(Signers::all(pki.authority.clone()));
            if !self.cluster_cidrs.is_empty() {
                let options = NodeIpamOptions::new(self.cluster_cidrs);
                manager = manager.node_ipam(NodeIpamController::new(&options)?);
            }
            if defaults {
                manager = manager.with_defaults();
            }
            for name in &self.without {
                manager = manager.without(name);
            }
            for controller in self.controllers {
                manager = manager.shared_controller(controller);
            }
            if let Some(election) = &self.election {
                manager = manager.leader_election(election.of(election::CONTROLLERS));
            }
            let manager = manager.build()?;
            if self.election.is_none() {
                synced.push(manager.synced());
            }
            run_manager(
                &tasks,
                "controller-manager",
                manager,
                self.election.is_some(),
            );
        }

        if (self.defaults && !self.no_scheduler) || !self.profiles.is_empty() {
            let client: Arc<dyn Client> =
                Arc::new(api.client(identities::scheduler(), "kube-scheduler"));
            let mut profiles = self.profiles;
            if profiles.is_empty() {
                profiles.push(Profile::default_scheduler());
            }
            let make = {
                let (client, env) = (client.clone(), env.clone());
                move || {
                    let scheduler = Scheduler::builder(client.clone(), env.clone());
                    let add = |scheduler: SchedulerBuilder, profile: &Profile| {
                        scheduler.profile(profile.clone())
                    };
                    profiles.iter().fold(scheduler, add).build()
                }
            };
            let scheduler = make()?;
            let token = tasks.token();
            match &self.election {
                None => tasks.spawn("scheduler", async move { scheduler.run(token).await }),
                Some(election) => {
                    let elector =
                        LeaderElector::new(client, env.clone(), election.of(election::SCHEDULER));
                    tasks.spawn("scheduler", async move {
                        election::again_and_again(&elector, &token, |led| async {
                            match make() {
                                Ok(scheduler) => scheduler.run(led).await,
                                Err(error) => tracing::error!(%error, "no scheduler"),
                            }
                        })
                        .await;
                    });
                }
            }
        }

        if let Some(nodes) = self.nodes.filter(|nodes| nodes.count > 0) {
            sim::grant(&*admin).await?;
            api.caught_up().await?;
            let clients = api.clone();
            let mut manager = ControllerManager::builder(
                move |_| Arc::new(clients.client(sim::identity(), "kubelet")) as Arc<dyn Client>,
                env.clone(),
            )
            .controller(sim::Driver::new(nodes));
            if let Some(election) = &self.election {
                manager = manager.leader_election(election.of(election::SIMULATED_NODES));
            }
            let manager = manager.build()?;
            run_manager(&tasks, "simulated nodes", manager, self.election.is_some());
        }
        if let Some(host) = self.host {
            start_host(host, &api, &env, &tasks, &connector).await?;
        }
        // A control plane that is started is one that works: its controllers know what there is. Of what cannot be read nobody will ever know.
        while api.unreadable().is_empty()
            && !synced.iter().all(|synced| synced.load(Ordering::Acquire))
        {
            env.sleep(Duration::from_millis(2)).await;
        }
        Ok(ControlPlane { api, pki, tasks })
    }
}

/// Runs controllers: once, or whenever they hold their lease.
fn run_manager(tasks: &TaskGroup, what: &'static str, manager: ControllerManager, elected: bool) {
    let token = tasks.token();
    tasks.spawn(what, async move {
        manager.run(&token).await;
        while elected && !token.is_cancelled() {
            tracing::warn!("{what}: the lease was lost, and is waited for");
            manager.run(&token).await;
        }
    });
}

/// Starts the kubelet and the proxy of this machine.
async fn start_host(
    host: HostNode,
    api: &Arc<ApiServer>,
    env: &Env,
    tasks: &TaskGroup,
    connector: &Connector,
) -> Result<(), Error> {
    let name = host.config.node_name.clone();
    let client: Arc<dyn Client> = Arc::new(api.client(identities::node(&name), "kubelet"));
    let (runtime, config) = (host.runtime, host.config);
    let agent = NodeAgent::with_volumes(client, runtime, env.clone(), config, host.volumes).await?;
    let server = agent.server().clone();
    connector.add(&name, Arc::new(move || server.connect()));
    let stop = tasks.token();
    tasks.spawn("kubelet", async move {
        if let Err(error) = agent.run(&stop).await {
            tracing::error!(%error, "the kubelet of this machine ended");
        }
    });
    if let Some(config) = host.proxy {
        let client: Arc<dyn Client> = Arc::new(api.client(identities::proxy(), "kube-proxy"));
        let mut proxy = Proxy::builder(client, env.clone()).config(config).build()?;
        let stop = tasks.token();
        tasks.spawn("service proxy", async move {
            if let Err(error) = proxy.run(&stop).await {
                tracing::error!(%error, "the service proxy of this machine ended");
            }
        });
    }
    Ok(())
}

/// The way to nodes: with a certificate of the API server's own, which a kubelet of another process knows it by.
fn connector(pki: &ClusterPki, env: &Env) -> Result<Arc<dyn NodeConnector>, Error> {
    let own = pki.authority.issue_client(
        KUBELET_CLIENT,
        std::iter::empty::<String>(),
        env.wall(),
        CERTIFICATE_VALIDITY,
    )?;
    let authority = pki.authority.certificate_pem();
    Ok(Arc::new(KubeletDialer::new(
        Some(own),
        Some(authority),
        env,
    )?))
}

/// The resources that the API server serves, from the same table that discovery shows.
struct Served;

#[async_trait]
impl Catalog for Served {
    async fn resources(&self) -> Result<Vec<Resource>, Status> {
        let whole = |info: &&resources::ResourceInfo| {
            info.stored_as.is_none()
                && [Verb::List, Verb::Watch, Verb::Delete]
                    .into_iter()
                    .all(|verb| info.allows(verb))
        };
        Ok(resources::builtin()
            .iter()
            .filter(whole)
            .map(|info| info.resource.clone())
            .collect())
    }
}

/// A control plane that runs in this process.
///
/// It stops when it is told to ([`shutdown`](Self::shutdown)); when it is dropped, its tasks are told to stop and not waited for.
pub struct ControlPlane {
    api: Arc<ApiServer>,
    pki: ClusterPki,
    tasks: TaskGroup,
}

impl std::fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlPlane")
            .field("api", &self.api)
            .finish_non_exhaustive()
    }
}

/// Where a control plane listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServingAt {
    /// The address, with the port that was chosen if none was asked for.
    pub address: SocketAddr,
}

impl ServingAt {
    /// The URL for clients.
    #[must_use]
    pub fn url(&self) -> String {
        // Nobody connects to "any address".
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            ip => ip,
        };
        format!("https://{}", SocketAddr::new(ip, self.address.port()))
    }
}

impl ControlPlane {
    /// Begins to choose the parts.
    pub fn builder() -> ControlPlaneBuilder {
        ControlPlaneBuilder::new()
    }

    /// The API server.
    #[must_use]
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// The certificates and keys.
    #[must_use]
    pub fn pki(&self) -> &ClusterPki {
        &self.pki
    }

    /// The environment.
    #[must_use]
    pub fn env(&self) -> &Env {
        self.api.env()
    }

    /// A client with an identity, in process.
    #[must_use]
    pub fn client(&self, user: UserInfo, name: &str) -> Arc<dyn Client> {
        Arc::new(self.local_client(user, name))
    }

    fn local_client(&self, user: UserInfo, name: &str) -> LocalClient {
        self.api.client(user, name)
    }

    /// The administrator's client, in process.
    #[must_use]
    pub fn admin(&self) -> Arc<dyn Client> {
        self.client(identities::admin(), "orlop-admin")
    }

    /// The service of HTTP requests: each is authenticated by what it brings.
    #[must_use]
    pub fn service(&self) -> HttpService {
        self.api.service()
    }

    /// A kube-rs client of the administrator, in process: no socket, no TLS.
    #[cfg(feature = "kube")]
    #[must_use]
    pub fn kube_client(&self) -> kube::Client {
        crate::kube_client::client(self.api.service_as(identities::admin()))
    }

    /// Listens at an address, by TLS. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Listen`] for an address that is taken or not this machine's.
    pub async fn listen(&self, address: SocketAddr) -> Result<ServingAt, Error> {
        let socket = TcpListener::bind(address)
            .await
            .map_err(|error| Error::Listen { address, error })?;
        self.serve(socket)
    }

    /// Serves the connections of a socket, by TLS. Needs a tokio runtime.
    ///
    /// # Errors
    /// For certificates that cannot be used.
    pub fn serve(&self, socket: TcpListener) -> Result<ServingAt, Error> {
        let address = socket.local_addr().map_err(|error| Error::Listen {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            error,
        })?;
        let clients = ClientVerifier::from_pem(self.pki.authority.certificate_pem())?;
        let tls = ServerTls::new(&self.pki.server, Some(&clients), self.env())?;
        let listener = Listener::tls(tls);
        let (service, env, token) = (self.api.service(), self.env().clone(), self.tasks.token());
        self.tasks.spawn("listener", async move {
            if let Err(error) = listener.serve(socket, service, &env, &token).await {
                tracing::error!(%error, "the listener ended");
            }
        });
        Ok(ServingAt { address })
    }

    /// Stops everything: requests under way are answered, work under way is finished, nothing is lost.
    pub async fn shutdown(&self) {
        self.api.begin_shutdown();
        self.tasks.shutdown().await;
        self.api.shutdown().await;
    }
}
