//! [`NodeAgent`]: everything that a node needs, put together for this machine.
//!
//! The [`Kubelet`] looks after pods by its parts. A node is more: it is registered and keeps its status and its Lease, it defends the
//! machine against what runs on it, it tidies up. This is where the parts are made, and where they learn of one another.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use orlop_api::typed::Informer;
use orlop_core::client::Client;
use orlop_core::env::{CancelToken, Env, TaskGroup};
use orlop_core::informer::InformerFactory;
use orlop_core::runtime::Runtime;
use orlop_wire::listener::{Listener, ServerTls};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::blocking::blocking;
use crate::cgroups::{CgroupError, CgroupManager, NodeLimits};
use crate::config::KubeletConfig;
use crate::container::{ConfigSources, ContainerConfigs, NodeFacts};
use crate::downward::Allocatable;
use crate::eviction::{EvictionManager, EvictionParts, PodDirectories, ThisMachine};
use crate::hooks::HookRunner;
use crate::images::{ImageCollector, ImageManager};
use crate::kubelet::{Kubelet, MissingParts, Parts};
use crate::logs::LogRotator;
use crate::node::{MachineInfo, NodeManager, detect_address};
use crate::objects::ObjectCache;
use crate::pod::spec::{is_finished, reference};
use crate::probes::{NodeProber, ProbeManager};
use crate::server::{Access, KubeletServer, ServerParts};
use crate::stats::StatsProvider;
use crate::tokens::TokenManager;
use crate::volumes::{AllocatableSource, Contents, VolumeManager};

/// Why a node agent does not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// A directory cannot be made, or the machine cannot be looked at.
    #[error("{what}: {source}")]
    Machine {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Cgroups cannot be made as asked.
    #[error(transparent)]
    Cgroups(#[from] CgroupError),
    /// The configuration says what cannot be.
    #[error("{0}")]
    Config(String),
    /// The machine has no address that others could reach.
    #[error(
        "this machine has no default route, so its address is not known: it has to be configured"
    )]
    NoAddress,
    /// The kubelet was not given its parts.
    #[error(transparent)]
    Parts(#[from] MissingParts),
}

/// The agent of this machine, as a node of a cluster.
pub struct NodeAgent {
    env: Env,
    kubelet: Kubelet,
    server: KubeletServer,
    node: Arc<NodeManager>,
    eviction: Arc<EvictionManager>,
    images: ImageCollector,
    logs: LogRotator,
    cgroups: CgroupManager,
    limits: NodeLimits,
    tasks: TaskGroup,
    probes: Arc<ProbeManager>,
    objects: ObjectCache,
    services: InformerFactory,
}

impl fmt::Debug for NodeAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeAgent")
            .field("kubelet", &self.kubelet)
            .finish_non_exhaustive()
    }
}

impl NodeAgent {
    /// Makes the agent of this machine: its directories, its cgroups' place, its parts. Nothing runs yet.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn new(
        client: Arc<dyn Client>,
        runtime: Arc<dyn Runtime>,
        env: Env,
        config: KubeletConfig,
    ) -> Result<Self, AgentError> {
        Self::with_volumes(client, runtime, env, config, |volumes| volumes).await
    }

    /// The same, with other kinds of volumes: `volumes` is given the manager that has the usual ones.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn with_volumes(
        client: Arc<dyn Client>,
        runtime: Arc<dyn Runtime>,
        env: Env,
        mut config: KubeletConfig,
        volumes: impl FnOnce(VolumeManager) -> VolumeManager + Send,
    ) -> Result<Self, AgentError> {
        let failed = |what: String| move |source| AgentError::Machine { what, source };
        let root = config.root_dir.clone();
        blocking(move || make_private(&root))
            .await
            .map_err(failed(format!("cannot use {}", config.root_dir.display())))?;
        config.root_dir = std::path::absolute(&config.root_dir)
            .map_err(failed(format!("cannot use {}", config.root_dir.display())))?;
        if config.node_ips.is_empty() {
            let found = blocking(detect_address).await;
            config.node_ips = vec![found.ok_or(AgentError::NoAddress)?];
        }
        let root = config.root_dir.clone();
        let machine = blocking(move || MachineInfo::read(&root))
            .await
            .map_err(failed("cannot look at this machine".to_owned()))?;
        let cgroups = CgroupManager::of_machine(&config, &*runtime, env.clone()).await?;
        let limits = NodeLimits::of_machine(&config);
        let config = Arc::new(config);
        let host_ip = config.node_ips.first().copied();

        let tasks = TaskGroup::new(env.clone());
        let builder = Kubelet::builder(client.clone(), runtime.clone(), env.clone())
            .config((*config).clone());
        let (recorder, waker, known) = (builder.recorder(), builder.waker(), builder.node());
        let wake: Arc<dyn Fn(&str) + Send + Sync> = {
            let waker = waker.clone();
            Arc::new(move |uid: &str| waker.wake(uid))
        };

        let node = NodeManager::new(
            env.clone(),
            client.clone(),
            runtime.clone(),
            recorder.clone(),
            config.clone(),
            machine,
        );
        let info = node.info();
        let allocatable: Allocatable = info
            .allocatable()
            .iter()
            .map(|(name, amount)| {
                (
                    name.clone(),
                    k8s_openapi::apimachinery::pkg::api::resource::Quantity(amount.to_string()),
                )
            })
            .collect();
        known.update(|facts| {
            facts.addresses.clone_from(&config.node_ips);
            facts.labels.clone_from(&config.node_labels);
        });
        known.follow(info.clone());

        let objects = ObjectCache::new(client.clone(), env.clone(), &tasks.token());
        objects.on_change(wake.clone());
        let allocatable_now: AllocatableSource = Arc::new(move || allocatable.clone());
        let contents = Contents {
            objects: objects.clone(),
            tokens: TokenManager::new(client.clone(), env.clone()),
            allocatable: allocatable_now.clone(),
        };
        let tell = recorder.clone();
        let volumes = volumes(
            VolumeManager::new(&config.root_dir, env.clone())
                .with_defaults(client.clone(), contents),
        )
        .on_outdated(move |pod: &Arc<Pod>, error| {
            tell.warning(reference(pod), &error.event, error.message.clone());
        });
        if let Ok(status) = runtime.status().await {
            let handler = status.handlers.first();
            let possible = handler.is_some_and(|handler| handler.recursive_read_only_mounts);
            volumes.set_recursive_read_only(possible);
        }
        let volumes = Arc::new(volumes);
        let factory = InformerFactory::new(client.clone(), env.clone());
        let services = Informer::<Service>::all(&factory);
        let configs = ContainerConfigs::new(ConfigSources {
            config: config.clone(),
            client: client.clone(),
            runtime: runtime.clone(),
            objects: objects.clone(),
            services: Arc::new(services),
            volumes: volumes.clone(),
            cgroups: Arc::new(cgroups.clone()),
            recorder: recorder.clone(),
            env: env.clone(),
            allocatable: allocatable_now,
            node: NodeFacts::of_machine(cgroups.hierarchies()),
        });
        let prober = Arc::new(NodeProber::new(env.clone(), runtime.clone()));
        let probes = ProbeManager::new(
            TaskGroup::with_parent(env.clone(), &tasks.token()),
            prober,
            recorder.clone(),
            wake,
        );
        let probes = Arc::new(probes.host_ip(host_ip));
        let kubelet = builder
            .parts(Parts {
                volumes: volumes.clone(),
                configs: Arc::new(configs),
                images: Arc::new(ImageManager::new(
                    &config,
                    runtime.clone(),
                    objects.clone(),
                    recorder.clone(),
                    env.clone(),
                )),
                probes: probes.clone(),
                hooks: Arc::new(HookRunner::new(
                    env.clone(),
                    runtime.clone(),
                    recorder.clone(),
                )),
                cgroups: Arc::new(cgroups.clone()),
            })
            .build()?;

        let images = ImageCollector::new(&config, runtime.clone(), recorder.clone(), env.clone());
        let eviction = EvictionManager::new(
            env.clone(),
            &config,
            EvictionParts {
                machine: Arc::new(ThisMachine::new(runtime.clone(), &config.root_dir)),
                disk: Arc::new(PodDirectories(config.clone())),
                pods: Arc::new({
                    let kubelet = kubelet.clone();
                    move || {
                        let all = kubelet.pods().into_iter();
                        all.filter(|pod| !is_finished(pod)).collect()
                    }
                }),
                gone: Arc::new({
                    let kubelet = kubelet.clone();
                    move |uid: &str| !kubelet.observed(uid).is_active()
                }),
                evict: Arc::new({
                    let kubelet = kubelet.clone();
                    move |uid: &str, reason: &str, message: &str| {
                        kubelet.evict(uid, reason, message)
                    }
                }),
                reclaim: Some(Arc::new({
                    let images = images.clone();
                    move || {
                        let images = images.clone();
                        Box::pin(async move {
                            if let Err(error) = images.delete_unused().await {
                                tracing::warn!(%error, "unused images cannot be removed");
                            }
                        })
                    }
                })),
                changed: Arc::new({
                    let info = info.clone();
                    move || info.tell()
                }),
                events: recorder,
                runtime: runtime.clone(),
            },
        );
        let eviction = Arc::new(eviction.map_err(AgentError::Config)?);
        let pressure = eviction.clone();
        kubelet.admit_by(Arc::new(move |pod: &Pod| pressure.admit(pod)));
        let pressure = eviction.clone();
        let (checked, node) = (
            kubelet.clone(),
            node.with_pressure(Arc::new(move || pressure.pressure())),
        );
        let node = node.with_check(Arc::new(move || checked.healthy().err()));
        let mut probe_metrics = Registry::default();
        probes.metrics().register(&mut probe_metrics);
        let stats = StatsProvider::new(
            config.clone(),
            runtime.clone(),
            cgroups.hierarchies().cloned(),
            env.clone(),
        );
        let stats = stats.volumes(Arc::new(move |uid: String| {
            let volumes = volumes.clone();
            Box::pin(async move { volumes.usage(&uid).await })
        }));
        let server = KubeletServer::new(ServerParts {
            config: config.clone(),
            pods: Arc::new(kubelet.clone()),
            runtime: runtime.clone(),
            stats: Arc::new(stats),
            metrics: kubelet.metrics(),
            probe_metrics: Arc::new(probe_metrics),
            access: Access::new(client, env.clone()),
            env: env.clone(),
        });
        Ok(Self {
            server,
            logs: LogRotator::new(&config, runtime, env.clone()),
            node: Arc::new(node),
            env,
            kubelet,
            eviction,
            images,
            cgroups,
            limits,
            tasks,
            probes,
            objects,
            services: factory,
        })
    }

    /// What looks after the pods.
    #[must_use]
    pub fn kubelet(&self) -> &Kubelet {
        &self.kubelet
    }

    /// The HTTPS API: a service for a listener, or for the API server of the same process.
    #[must_use]
    pub fn server(&self) -> &KubeletServer {
        &self.server
    }

    /// Serves the HTTPS API on a socket, until the agent's [`run`](Self::run) ends.
    pub fn serve(&self, socket: TcpListener, tls: ServerTls) {
        let (service, env, stop) = (self.server.clone(), self.env.clone(), self.tasks.token());
        self.tasks.spawn("kubelet listener", async move {
            if let Err(error) = Listener::tls(tls).serve(socket, service, &env, &stop).await {
                tracing::error!(%error, "the listener ended");
            }
        });
    }

    /// The cgroups of pods.
    #[must_use]
    pub fn cgroups(&self) -> &CgroupManager {
        &self.cgroups
    }

    /// The node's addresses.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.kubelet.config().node_ips
    }

    /// Is this node until the token is cancelled. What runs on it goes on then.
    ///
    /// # Errors
    /// [`AgentError::Cgroups`] when the cgroup of all pods cannot be made.
    pub async fn run(&self, token: &CancelToken) -> Result<(), AgentError> {
        self.cgroups.make_roots(self.limits).await?;
        let tasks = &self.tasks;
        self.services.start(tasks);
        self.images.start(tasks);
        self.logs.start(tasks);
        let (node, stop) = (self.node.clone(), tasks.token());
        tasks.spawn("node", async move { node.run(stop).await });
        let (eviction, stop) = (self.eviction.clone(), tasks.token());
        tasks.spawn("eviction", async move { eviction.run(stop).await });
        self.kubelet.run(token).await;
        self.server.shutdown().await;
        self.probes.shutdown().await;
        self.objects.shutdown().await;
        tasks.shutdown().await;
        if self.kubelet.pods().is_empty()
            && let Err(error) = self.cgroups.remove_empty_roots().await
        {
            tracing::debug!(%error, "cgroups are left");
        }
        Ok(())
    }

    /// The environment.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.env
    }
}

/// Makes a directory that nobody else may look into, if it is not there.
fn make_private(directory: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(directory)
}
