//! Eviction: what a node does before it runs out of memory, disk or process ids.
//!
//! Every ten seconds the [`EvictionManager`] looks at what is left. When that is less than a threshold says, the node is under pressure,
//! and stays so for `evictionPressureTransitionPeriod` after the last sign of it. First what nobody needs is given up (unused images);
//! if that is not enough, one pod is evicted, and when it is gone the machine is looked at again. Pods that took more disk than their own
//! limits allow go without any pressure.

mod rank;
mod requests;
mod signals;
#[cfg(test)]
mod tests;
mod threshold;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use orlop_core::env::{CancelToken, Env, Moment};
use orlop_core::events::{EventRecorder, ObjectReference};
use orlop_core::quantity::{Format, Quantity};
use orlop_core::runtime::{ContainerFilter, Runtime, SandboxFilter};
use parking_lot::Mutex;

use self::requests::{Side, containers, of_container, of_pod};
pub use self::signals::{Machine, Seen, ThisMachine};
pub use self::threshold::{Amount, Observation, Observations, Signal, Threshold};
pub use self::usage::{Disk, DiskUsage, PodDirectories, PodDisk};
use self::usage::{Parts, PodUse, empty_dirs, pod_of};
use crate::config::KubeletConfig;
use crate::labels;
use crate::node::Pressure;

/// How often the machine is looked at.
const PERIOD: Duration = Duration::from_secs(10);
/// How long to wait for an evicted pod to be gone, and how often to look.
const CLEANUP: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(1));

/// The reason of evicted pods.
pub const REASON: &str = "Evicted";

/// Ends a pod for good: its uid, the reason and the message of its status. Whether it is ended by that: one that has ended already is not.
pub type Evict = Arc<dyn Fn(&str, &str, &str) -> bool + Send + Sync>;
/// Gives up what nobody needs, such as unused images.
pub type Reclaim = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// What an [`EvictionManager`] works with.
#[derive(Clone)]
pub struct EvictionParts {
    /// Says what containers use.
    pub runtime: Arc<dyn Runtime>,
    /// Looks at the machine; [`ThisMachine`].
    pub machine: Arc<dyn Machine>,
    /// Measures pods' directories; [`PodDirectories`].
    pub disk: Arc<dyn DiskUsage>,
    /// The pods that run, or are about to.
    pub pods: Arc<dyn Fn() -> Vec<Arc<Pod>> + Send + Sync>,
    /// Whether nothing is left of a pod, by its uid.
    pub gone: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// Evicts a pod.
    pub evict: Evict,
    /// Removes unused images.
    pub reclaim: Option<Reclaim>,
    /// Is called when the pressure has changed.
    pub changed: Arc<dyn Fn() + Send + Sync>,
    /// For events of the node and of evicted pods.
    pub events: EventRecorder,
}

/// Watches what the machine has left, and evicts pods.
pub struct EvictionManager {
    env: Env,
    parts: EvictionParts,
    node_name: String,
    thresholds: Vec<Threshold>,
    transition: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pressure: Pressure,
    /// When each was last seen.
    memory: Option<Moment>,
    disk: Option<Moment>,
    pid: Option<Moment>,
}

impl std::fmt::Debug for EvictionManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EvictionManager")
            .field("thresholds", &self.thresholds)
            .field("pressure", &self.pressure())
            .finish_non_exhaustive()
    }
}

impl EvictionManager {
    /// A manager with the thresholds of the configuration.
    ///
    /// # Errors
    /// What is wrong with a threshold.
    pub fn new(env: Env, config: &KubeletConfig, parts: EvictionParts) -> Result<Self, String> {
        Ok(Self {
            env,
            parts,
            node_name: config.node_name.clone(),
            thresholds: Threshold::parse_all(&config.eviction_hard)?,
            transition: config.eviction_pressure_transition_period,
            state: Mutex::default(),
        })
    }

    /// What the node runs out of.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.state.lock().pressure
    }

    /// Whether a pod may begin here now; the reason and message of its failure if not. Under pressure of memory, pods that asked for
    /// some may, and those that tolerate the pressure; under pressure of disk or process ids none but critical ones.
    ///
    /// # Errors
    /// Reason and message.
    pub fn admit(&self, pod: &Pod) -> Result<(), (String, String)> {
        let pressure = self.pressure();
        let kinds = [
            (pressure.memory, "MemoryPressure"),
            (pressure.disk, "DiskPressure"),
            (pressure.pid, "PIDPressure"),
        ];
        let kinds: Vec<&str> = kinds
            .into_iter()
            .filter_map(|(holds, kind)| holds.then_some(kind))
            .collect();
        if kinds.is_empty() || requests::is_critical(pod) {
            return Ok(());
        }
        let memory_alone = kinds == ["MemoryPressure"];
        if memory_alone && (!requests::is_best_effort(pod) || tolerates_memory_pressure(pod)) {
            return Ok(());
        }
        Err((
            REASON.to_owned(),
            format!("The node had condition: [{}]. ", kinds.join(" ")),
        ))
    }

    /// Watches until `token` is cancelled.
    pub async fn run(&self, token: CancelToken) {
        token
            .run(async {
                loop {
                    match self.synchronize().await {
                        Some(uid) => self.wait_for(&uid).await,
                        None => self.env.sleep(PERIOD).await,
                    }
                }
            })
            .await;
    }

    async fn wait_for(&self, uid: &str) {
        let end = self.env.now() + CLEANUP.0;
        while self.env.now() < end {
            self.env.sleep(CLEANUP.1).await;
            if (self.parts.gone)(uid) {
                return;
            }
        }
        tracing::warn!(uid, "timed out waiting for an evicted pod to be cleaned up");
    }

    /// Looks at the machine once. Returns the uid of the pod that was evicted, if one was.
    pub async fn synchronize(&self) -> Option<String> {
        let seen = self.parts.machine.look().await;
        let met = threshold::met(&self.thresholds, &seen.signals);
        self.note(&met);
        let pods = (self.parts.pods)();
        if let Some(uid) = self.over_their_limits(&pods, &seen).await {
            return Some(uid);
        }
        let first = *met.first()?;
        let resource = first.signal.resource();
        tracing::warn!(resource, "eviction manager: attempting to reclaim");
        self.parts.events.warning(
            self.node(),
            "EvictionThresholdMet",
            format!("Attempting to reclaim {resource}"),
        );
        if self.reclaim(first).await {
            return None;
        }
        self.evict_one(first, &seen, pods).await
    }

    /// Keeps what the node runs out of.
    fn note(&self, met: &[&Threshold]) {
        let now = self.env.now();
        let changed = {
            let mut state = self.state.lock();
            for threshold in met {
                let last = match threshold.signal {
                    Signal::Memory => &mut state.memory,
                    Signal::Pid => &mut state.pid,
                    _ => &mut state.disk,
                };
                *last = Some(now);
            }
            let holds = |last: Option<Moment>| {
                last.is_some_and(|last| last == now || now.since(last) < self.transition)
            };
            let pressure = Pressure {
                memory: holds(state.memory),
                disk: holds(state.disk),
                pid: holds(state.pid),
            };
            std::mem::replace(&mut state.pressure, pressure) != pressure
        };
        if changed {
            (self.parts.changed)();
        }
    }

    /// Gives up what nobody needs. Whether that was enough.
    async fn reclaim(&self, threshold: &Threshold) -> bool {
        if matches!(threshold.signal, Signal::Memory | Signal::Pid) {
            return false;
        }
        let Some(reclaim) = &self.parts.reclaim else {
            return false;
        };
        reclaim().await;
        let seen = self.parts.machine.look().await;
        let enough = threshold::met(&self.thresholds, &seen.signals).is_empty();
        if enough {
            tracing::info!(
                resource = threshold.signal.resource(),
                "eviction manager: able to reduce pressure without evicting pods"
            );
        }
        enough
    }

    async fn evict_one(
        &self,
        threshold: &Threshold,
        seen: &Seen,
        mut pods: Vec<Arc<Pod>>,
    ) -> Option<String> {
        let on_disk = !matches!(threshold.signal, Signal::Memory | Signal::Pid);
        let usage = self.usage(&pods, |_| on_disk).await;
        rank::rank(&mut pods, &usage, threshold.signal, seen.dedicated_image_fs);
        for pod in pods.iter().filter(|pod| !requests::is_critical(pod)) {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            let message = message(threshold, seen, pod, usage.get(uid));
            if let Some(uid) = self.evict(pod, &message) {
                return Some(uid);
            }
        }
        tracing::warn!(
            "eviction manager: eviction thresholds have been met, but no pods are active to evict"
        );
        None
    }

    fn evict(&self, pod: &Pod, message: &str) -> Option<String> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if !(self.parts.evict)(&uid, REASON, message) {
            return None;
        }
        tracing::warn!(uid, message, "eviction manager: evicting a pod");
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let about = ObjectReference {
            kind: "Pod".to_owned(),
            namespace: text(&pod.metadata.namespace),
            name: text(&pod.metadata.name),
            uid: uid.clone(),
            api_version: "v1".to_owned(),
            resource_version: text(&pod.metadata.resource_version),
            ..ObjectReference::default()
        };
        self.parts.events.warning(about, REASON, message);
        Some(uid)
    }

    /// Evicts the first pod that took more disk than its limits allow.
    async fn over_their_limits(&self, pods: &[Arc<Pod>], seen: &Seen) -> Option<String> {
        let limited: Vec<_> = pods
            .iter()
            .filter(|pod| has_disk_limit(pod) && !requests::is_critical(pod))
            .cloned()
            .collect();
        if limited.is_empty() {
            return None;
        }
        let usage = self.usage(&limited, |_| true).await;
        for pod in &limited {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            let over = usage.get(uid).and_then(|used| over_limit(pod, used, seen));
            if let Some(uid) = over.and_then(|message| self.evict(pod, &message)) {
                return Some(uid);
            }
        }
        None
    }

    /// What pods use. Their directories are measured where `measured` says so.
    async fn usage(
        &self,
        pods: &[Arc<Pod>],
        measured: impl Fn(&Pod) -> bool,
    ) -> BTreeMap<String, PodUse> {
        let mut known = BTreeMap::new();
        let runtime = &self.parts.runtime;
        let stats = runtime.container_stats(&ContainerFilter::default()).await;
        let stats = stats.unwrap_or_else(|error| {
            tracing::warn!(%error, "eviction manager: failed to get stats of containers");
            Vec::new()
        });
        for pod in pods {
            let disk = if measured(pod) {
                self.parts.disk.of(pod).await
            } else {
                PodDisk::default()
            };
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let measured = !disk.logs.is_empty() || !disk.empty_dirs.is_empty();
            if measured || stats.iter().any(|one| pod_of(one) == Some(&uid)) {
                known.insert(uid, PodUse::new(pod, disk));
            }
        }
        for one in &stats {
            if let Some(used) = pod_of(one).and_then(|uid| known.get_mut(uid)) {
                used.add(one);
            }
        }
        if self.thresholds.iter().any(|one| one.signal == Signal::Pid) {
            let sandboxes = runtime.sandbox_stats(&SandboxFilter::default()).await;
            for one in sandboxes.unwrap_or_default() {
                let uid = one.labels.get(labels::POD_UID).cloned().unwrap_or_default();
                if let Some(used) = known.get_mut(&uid) {
                    used.processes = one.processes.unwrap_or(0);
                }
            }
        }
        known
    }

    fn node(&self) -> ObjectReference {
        ObjectReference {
            kind: "Node".to_owned(),
            name: self.node_name.clone(),
            uid: self.node_name.clone(),
            ..ObjectReference::default()
        }
    }
}

fn tolerates_memory_pressure(pod: &Pod) -> bool {
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref());
    tolerations.unwrap_or_default().iter().any(|one| {
        let key = one.key.as_deref().unwrap_or_default();
        let exists = one.operator.as_deref() == Some("Exists");
        let value = one.value.as_deref().unwrap_or_default();
        let key_fits = key == "node.kubernetes.io/memory-pressure" || (key.is_empty() && exists);
        let effect = one.effect.as_deref().unwrap_or_default();
        key_fits && (exists || value.is_empty()) && (effect.is_empty() || effect == "NoSchedule")
    })
}

const STORAGE: &str = "ephemeral-storage";

fn has_disk_limit(pod: &Pod) -> bool {
    let sized = empty_dirs(pod).any(|volume| {
        volume
            .empty_dir
            .as_ref()
            .is_some_and(|dir| dir.size_limit.is_some())
    });
    sized || of_pod(pod, Side::Limits, STORAGE).is_some()
}

fn bytes(number: u64) -> Quantity {
    Quantity::new(i64::try_from(number).unwrap_or(i64::MAX), Format::BinarySi)
}

/// Why a pod that took too much disk is to go.
fn over_limit(pod: &Pod, used: &PodUse, seen: &Seen) -> Option<String> {
    for volume in empty_dirs(pod) {
        let limit = volume
            .empty_dir
            .as_ref()
            .and_then(|dir| dir.size_limit.as_ref());
        let limit = limit.and_then(|limit| Quantity::parse(&limit.0).ok());
        let taken = used
            .empty_dirs
            .get(&volume.name)
            .copied()
            .unwrap_or_default();
        if let Some(limit) = limit.filter(|limit| *limit > Quantity::ZERO)
            && bytes(taken.bytes) > limit
        {
            let name = &volume.name;
            return Some(format!(
                "Usage of EmptyDir volume {name:?} exceeds the limit \"{limit}\". "
            ));
        }
    }
    let all = Parts {
        written: true,
        logs_and_volumes: true,
    };
    if let Some(limit) = of_pod(pod, Side::Limits, STORAGE)
        && bytes(used.disk(all).bytes) > limit
    {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "
        ));
    }
    for (_, container) in containers(pod) {
        let (Some(limit), Some(one)) = (
            of_container(container, Side::Limits, STORAGE),
            used.containers.get(&container.name),
        ) else {
            continue;
        };
        let mut taken = one.logs;
        if !seen.dedicated_image_fs {
            taken += one.written.unwrap_or_default();
        }
        if bytes(taken.bytes) > limit {
            let name = &container.name;
            return Some(format!(
                "Container {name} exceeded its local ephemeral storage limit \"{limit}\". "
            ));
        }
    }
    None
}

/// What an evicted pod says.
fn message(threshold: &Threshold, seen: &Seen, pod: &Pod, used: Option<&PodUse>) -> String {
    let resource = threshold.signal.resource();
    let mut text = format!("The node was low on resource: {resource}. ");
    if let Some(one) = seen.signals.get(&threshold.signal) {
        let quantity = threshold.amount.show(one.capacity);
        let available = Quantity::new(one.available, Format::BinarySi);
        text.push_str(&format!(
            "Threshold quantity: {quantity}, available: {available}. "
        ));
    }
    for (_, container) in containers(pod) {
        let Some(one) = used.and_then(|used| used.containers.get(&container.name)) else {
            continue;
        };
        let taken = match threshold.signal.resource() {
            "memory" => one.memory,
            STORAGE => one.written.map(|written| written.bytes + one.logs.bytes),
            _ => None,
        };
        let request = of_container(container, Side::Requests, resource).unwrap_or(Quantity::ZERO);
        if let Some(taken) = taken.map(bytes).filter(|taken| *taken > request) {
            let name = &container.name;
            text.push_str(&format!(
                "Container {name} was using {taken}, request is {request}, has larger consumption of {resource}. "
            ));
        }
    }
    text
}
