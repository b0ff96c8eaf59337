//! The Node: how it comes into the cluster, what is told of it, and its heartbeat.
//!
//! [`NodeManager::run`] registers the Node, then keeps three things going: the status, which is looked at every
//! `nodeStatusUpdateFrequency` and at once when something says so ([`NodeInfo::tell`]); the Lease; and a watch of the Node itself, whose
//! address ranges for pods are passed on to the runtime. What the others of the node agent want to know of the Node is in [`NodeInfo`].

mod addresses;
mod conditions;
mod info;
mod lease;
mod machine;
mod register;
mod resources;
mod status;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeStatus};
use orlop_api::typed::{Api, Informer, Notice};
use orlop_core::client::Client;
use orlop_core::env::{CancelToken, Env, Moment, TaskGroup};
use orlop_core::events::{EventRecorder, EventType, ObjectReference};
use orlop_core::informer::InformerFactory;
use orlop_core::network::Cidr;
use orlop_core::runtime::{Runtime, RuntimeStatus};
use orlop_core::status::Status;
use parking_lot::Mutex;

pub use self::conditions::Pressure;
pub use self::info::NodeInfo;
use self::lease::Heartbeat;
pub use self::machine::MachineInfo;
pub(crate) use self::machine::MemInfo;
pub(crate) use self::resources::Amounts;
use self::status::Facts;
use crate::blocking::blocking;
use crate::config::KubeletConfig;

/// How long to wait after a failed registration: doubled each time, up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(7));
/// How often the runtime is asked whether it is ready.
const RUNTIME_PERIOD: Duration = Duration::from_secs(5);
/// How long a runtime may be silent before it counts as gone.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(30);
/// How often the status is tried to be told before the next turn.
const STATUS_TRIES: usize = 5;

/// Says what the node runs out of.
pub type PressureSource = Arc<dyn Fn() -> Pressure + Send + Sync>;
/// Says why the node is not ready; nothing if it is.
pub type ReadyCheck = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Keeps the Node of this machine.
pub struct NodeManager {
    env: Env,
    client: Arc<dyn Client>,
    runtime: Arc<dyn Runtime>,
    events: EventRecorder,
    config: Arc<KubeletConfig>,
    machine: MachineInfo,
    port: u16,
    pressure: PressureSource,
    checks: Vec<ReadyCheck>,
    info: NodeInfo,
    health: Mutex<Health>,
}

/// What the runtime last said.
struct Health {
    status: Option<RuntimeStatus>,
    answered: Option<Moment>,
    /// What the node was last found to lack, as the condition says it.
    not_ready: Option<String>,
}

impl std::fmt::Debug for NodeManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeManager")
            .field("node", &self.config.node_name)
            .finish_non_exhaustive()
    }
}

impl NodeManager {
    /// A manager of a node that is not registered yet.
    pub fn new(
        env: Env,
        client: Arc<dyn Client>,
        runtime: Arc<dyn Runtime>,
        events: EventRecorder,
        config: Arc<KubeletConfig>,
        machine: MachineInfo,
    ) -> Self {
        let capacity = resources::capacity(&machine, config.max_pods);
        let allocatable = resources::allocatable(&capacity, &config);
        let info = NodeInfo::new(capacity, allocatable, config.node_ips.clone());
        Self {
            port: config.listen.port(),
            env,
            client,
            runtime,
            events,
            config,
            machine,
            pressure: Arc::new(Pressure::default),
            checks: Vec::new(),
            info,
            health: Mutex::new(Health {
                status: None,
                answered: None,
                not_ready: None,
            }),
        }
    }

    /// Who knows what the node runs out of. It calls [`NodeInfo::tell`] when that changes.
    #[must_use]
    pub fn with_pressure(mut self, source: PressureSource) -> Self {
        self.pressure = source;
        self
    }

    /// A further reason for which the node may not be ready.
    #[must_use]
    pub fn with_check(mut self, check: ReadyCheck) -> Self {
        self.checks.push(check);
        self
    }

    /// The port of the node agent's HTTPS API, where it is not the configured one.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// What is known of the Node.
    #[must_use]
    pub fn info(&self) -> NodeInfo {
        self.info.clone()
    }

    /// Registers the Node and keeps it until `token` is cancelled.
    pub async fn run(self: Arc<Self>, token: CancelToken) {
        let group = TaskGroup::with_parent(self.env.clone(), &token);
        if self.config.node_ips.is_empty() {
            // Without a network of its own there is nothing to detect; a simulation says its addresses.
            let found = token.run(blocking(addresses::detect)).await.flatten();
            self.info.set_addresses(found.into_iter().collect());
        }
        self.look_at_runtime().await;
        self.event(
            EventType::Normal,
            "Starting",
            "Starting kubelet.".to_owned(),
        );
        let watch = self.clone();
        group.spawn_until_cancelled("node watch", async move { watch.follow().await });
        if token.run(self.register()).await.is_none() {
            return;
        }
        let heartbeat = Heartbeat {
            env: self.env.clone(),
            client: self.client.clone(),
            node_name: self.config.node_name.clone(),
            duration: self.config.node_lease_duration,
            info: self.info.clone(),
        };
        group.spawn_until_cancelled("node lease", heartbeat.run());
        let runtime = self.clone();
        group.spawn_until_cancelled(
            "runtime status",
            async move { runtime.watch_runtime().await },
        );
        token.run(self.tell_status()).await;
        group.shutdown().await;
    }

    // Registration.

    async fn register(&self) {
        let mut pause = BACKOFF.0;
        loop {
            match self.register_once().await {
                Ok(()) => return,
                Err(status) => {
                    tracing::error!(node = %self.config.node_name, error = %status, "unable to register node with API server");
                }
            }
            self.env.sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    async fn register_once(&self) -> Result<(), Status> {
        let nodes = self.nodes();
        let architecture = &self.machine.architecture;
        if self.config.register_node {
            let mut status = NodeStatus::default();
            // What changed is told with the first status.
            self.fill(&mut status).await;
            let node = register::initial(&self.config, architecture, status);
            match nodes.create(&node).await {
                Ok(made) => {
                    tracing::info!(node = %self.config.node_name, "successfully registered node");
                    self.info.set_node(Some(made));
                    return Ok(());
                }
                Err(status) if status.is_already_exists() => {}
                Err(status) => return Err(status),
            }
        }
        let found = nodes.get(&self.config.node_name).await?;
        if self.config.register_node
            && let Some(patch) = register::reconcile(&found, &self.config, architecture)
        {
            let changed = nodes.patch(&self.config.node_name, patch).await?;
            self.info.set_node(Some(changed));
        } else {
            self.info.set_node(Some(found));
        }
        Ok(())
    }

    fn nodes(&self) -> Api<Node> {
        Api::<Node>::all(self.client.clone()).field_manager("kubelet")
    }

    // Status.

    async fn tell_status(&self) {
        let mut last_told = None;
        loop {
            // What is told from here on is for the next turn.
            let told = self.info.told();
            for _ in 0..STATUS_TRIES {
                match self.tell_status_once(&mut last_told).await {
                    Ok(()) => break,
                    Err(status) => {
                        tracing::warn!(node = %self.config.node_name, error = %status, "error updating node status, will retry");
                    }
                }
            }
            let pause = self.env.sleep(self.config.node_status_update_frequency);
            futures::future::select(pause, Box::pin(told)).await;
        }
    }

    /// Tells the status, if it changed or was not told for long.
    async fn tell_status_once(&self, last_told: &mut Option<Moment>) -> Result<(), Status> {
        let nodes = self.nodes();
        let name = &self.config.node_name;
        let node = match self.info.node() {
            Some(node) if last_told.is_some() => node,
            // The first time, and when it is not known: as it is on the server.
            _ => nodes.get(name).await?,
        };
        let old = node.status.clone().unwrap_or_default();
        let mut new = old.clone();
        let (changes, not_ready) = self.fill(&mut new).await;
        let rebooted = old
            .node_info
            .as_ref()
            .is_some_and(|info| !info.boot_id.is_empty() && info.boot_id != self.machine.boot_id);
        let now = self.env.now();
        let due = last_told
            .is_none_or(|last| now.since(last) >= self.config.node_status_report_frequency);
        if !due && !status::differs(&old, &new) {
            return Ok(());
        }
        let mut told = None;
        for patch in status::patches(&old, &new) {
            told = Some(nodes.patch_status(name, patch).await?);
        }
        self.info.set_node(told);
        *last_told = Some(now);
        self.health.lock().not_ready = not_ready;
        for change in changes {
            self.event(
                EventType::Normal,
                change,
                format!("Node {name} status is now: {change}"),
            );
        }
        if rebooted {
            let id = &self.machine.boot_id;
            self.event(
                EventType::Warning,
                "Rebooted",
                format!("Node {name} has been rebooted, boot id: {id}"),
            );
        }
        Ok(())
    }

    /// Brings a status up to date. Returns which conditions changed, and why the node is not ready.
    async fn fill(&self, status: &mut NodeStatus) -> (Vec<&'static str>, Option<String>) {
        let images = match self.runtime.images().await {
            Ok(images) => Some(images),
            Err(error) => {
                tracing::debug!(%error, "the runtime does not list its images");
                None
            }
        };
        let not_ready = self.not_ready();
        let runtime = self.health.lock().status.clone();
        let ips = self.info.addresses();
        let facts = Facts {
            node_name: &self.config.node_name,
            ips: &ips,
            port: self.port,
            machine: &self.machine,
            capacity: self.info.capacity(),
            allocatable: self.info.allocatable(),
            runtime: runtime.as_ref(),
            images,
            pressure: (self.pressure)(),
            not_ready: not_ready.as_deref(),
            now: self.env.wall(),
        };
        (status::update(status, facts), not_ready)
    }

    fn not_ready(&self) -> Option<String> {
        let mut errors = Vec::new();
        {
            let health = self.health.lock();
            let now = self.env.now();
            match (&health.status, health.answered) {
                (Some(status), Some(at)) => {
                    if now.since(at) > RUNTIME_PATIENCE {
                        errors.push("container runtime is down".to_owned());
                    }
                    errors.extend(conditions::runtime_errors(status));
                }
                _ => errors
                    .push("container runtime status check may not have completed yet".to_owned()),
            }
        }
        errors.extend(self.checks.iter().filter_map(|check| check()));
        if self.info.addresses().is_empty() {
            errors.push(
                "can't get ip address of node: no default route, and no address is configured"
                    .to_owned(),
            );
        }
        conditions::aggregate(&errors)
    }

    // The runtime.

    async fn watch_runtime(&self) {
        loop {
            self.env.sleep(RUNTIME_PERIOD).await;
            self.look_at_runtime().await;
            let now = self.not_ready();
            if self.health.lock().not_ready != now {
                self.info.tell();
            }
        }
    }

    async fn look_at_runtime(&self) {
        match self
            .env
            .timeout(RUNTIME_PATIENCE, self.runtime.status())
            .await
        {
            Ok(Ok(status)) => {
                let mut health = self.health.lock();
                health.status = Some(status);
                health.answered = Some(self.env.now());
            }
            Ok(Err(error)) => tracing::warn!(%error, "container runtime sanity check failed"),
            Err(_) => tracing::warn!("container runtime sanity check timed out"),
        }
    }

    // The Node as others change it.

    async fn follow(&self) {
        let factory = InformerFactory::new(self.client.clone(), self.env.clone());
        let name = self.config.node_name.clone();
        let informer = Informer::<Node>::scoped(&factory, |scope| {
            scope.field_selector = format!("metadata.name={name}");
        });
        let group = TaskGroup::new(self.env.clone());
        let mut notices = informer.subscribe();
        factory.start(&group);
        let mut cidrs = Vec::new();
        let mut unschedulable = None;
        loop {
            let node = match notices.next().await {
                Ok(None) => return,
                Ok(Some(Notice::Added { object, .. } | Notice::Updated { new: object, .. })) => {
                    object
                }
                Ok(Some(Notice::Deleted { .. })) => {
                    self.info.set_node(None);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "the node does not fit its type");
                    continue;
                }
            };
            self.info.set_node(Some(node.clone()));
            let spec = node.spec.clone().unwrap_or_default();
            let held = spec.unschedulable.unwrap_or(false);
            if unschedulable.replace(held).unwrap_or(false) != held {
                let change = if held {
                    "NodeNotSchedulable"
                } else {
                    "NodeSchedulable"
                };
                let message = format!("Node {} status is now: {change}", self.config.node_name);
                self.event(EventType::Normal, change, message);
            }
            let given = pod_cidrs(
                &spec
                    .pod_cidrs
                    .unwrap_or_else(|| spec.pod_cidr.into_iter().collect()),
            );
            if given != cidrs && !given.is_empty() {
                self.pass_on(&given).await;
                cidrs = given;
            }
        }
    }

    async fn pass_on(&self, cidrs: &[Cidr]) {
        let mut pause = BACKOFF.0;
        while let Err(error) = self.runtime.set_pod_cidrs(cidrs).await {
            tracing::warn!(%error, "the runtime does not take the node's address ranges");
            if error.is_unsupported() {
                return;
            }
            self.env.sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    fn event(&self, kind: EventType, reason: &str, message: String) {
        // The uid is the name, as upstream has it: events of a node are found by that.
        let about = ObjectReference {
            kind: "Node".to_owned(),
            name: self.config.node_name.clone(),
            uid: self.config.node_name.clone(),
            ..ObjectReference::default()
        };
        self.events.event(about, kind, reason, message);
    }
}

fn pod_cidrs(texts: &[String]) -> Vec<Cidr> {
    let parse = |text: &String| match text.parse() {
        Ok(cidr) => Some(cidr),
        Err(error) => {
            tracing::warn!(%error, "the node has a range for pods that is none");
            None
        }
    };
    texts.iter().filter_map(parse).collect()
}

/// The address that the machine has for others, where none is configured. Reads the routes, so call it where that may wait.
#[must_use]
pub fn detect_address() -> Option<IpAddr> {
    addresses::detect()
}
