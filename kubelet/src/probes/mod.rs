//! Probes: whether containers have started up, are alive and are ready.
//!
//! Every probe is one task, owned by the [`ProbeManager`]. It sleeps until its time comes, runs the probe, and when a result has come
//! as often in a row as its threshold says, tells the pod's worker at once. Until a container has started up, its startup probe alone
//! is run.

mod dial;
mod grpc;
pub(crate) mod http;
mod metrics;
mod prober;
#[cfg(test)]
mod tests;
mod url;
mod worker;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use orlop_core::env::{CancelToken, Env, Flag, TaskGroup};
use orlop_core::events::EventRecorder;
use orlop_core::runtime::ContainerId;
use parking_lot::Mutex;

pub use self::metrics::ProbeMetrics;
pub use self::prober::{NodeProber, Outcome, ProbeTarget, Prober};
pub(crate) use self::prober::{http_url, user_agent};
use self::worker::{Purpose, Worker};
use crate::parts::{ProbeFailure, ProbeState, Probes};

/// Tells the worker of a pod, by its uid, that something about it has changed.
pub type Waker = Arc<dyn Fn(&str) + Send + Sync>;

/// Probes the containers of a node.
pub struct ProbeManager {
    shared: Arc<Shared>,
    tasks: TaskGroup,
    /// When this process began: what ran before was probed by another.
    since: Timestamp,
    host_ip: Option<IpAddr>,
}

impl std::fmt::Debug for ProbeManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProbeManager")
            .field("containers", &self.shared.containers.lock().len())
            .field("probes", &self.tasks.running())
            .finish_non_exhaustive()
    }
}

/// What the manager and its workers know.
struct Shared {
    env: Env,
    prober: Arc<dyn Prober>,
    events: EventRecorder,
    wake: Waker,
    metrics: ProbeMetrics,
    containers: Mutex<BTreeMap<ContainerId, Watched>>,
}

/// A container that is probed.
struct Watched {
    uid: String,
    state: ProbeState,
    started_up: Flag,
    workers: Vec<(Purpose, CancelToken)>,
}

impl Watched {
    fn end(&self, which: impl Fn(Purpose) -> bool) {
        for (purpose, token) in &self.workers {
            if which(*purpose) {
                token.cancel();
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.end(|_| true);
    }
}

impl Shared {
    /// Keeps the result of a probe, and tells the pod's worker if that is news.
    fn set(&self, id: &ContainerId, purpose: Purpose, well: bool) {
        let uid = {
            let mut containers = self.containers.lock();
            let Some(watched) = containers.get_mut(id) else {
                return;
            };
            let before = watched.state;
            match purpose {
                Purpose::Startup => {
                    watched.state.started = Some(well);
                    if well {
                        watched.started_up.set();
                    } else {
                        watched.state.failed = Some(ProbeFailure::Startup);
                    }
                }
                Purpose::Liveness => {
                    watched.state.failed = (!well).then_some(ProbeFailure::Liveness);
                }
                Purpose::Readiness => watched.state.ready = Some(well),
            }
            if watched.state == before {
                return;
            }
            watched.uid.clone()
        };
        (self.wake)(&uid);
    }
}

impl ProbeManager {
    /// A manager without probes, which runs them in `tasks` and calls `wake` whenever a result changes.
    pub fn new(
        tasks: TaskGroup,
        prober: Arc<dyn Prober>,
        events: EventRecorder,
        wake: Waker,
    ) -> Self {
        let env = tasks.env().clone();
        Self {
            since: env.wall(),
            shared: Arc::new(Shared {
                env,
                prober,
                events,
                wake,
                metrics: ProbeMetrics::default(),
                containers: Mutex::default(),
            }),
            tasks,
            host_ip: None,
        }
    }

    /// The node's address, for pods in its network that have none of their own yet.
    #[must_use]
    pub fn host_ip(mut self, ip: Option<IpAddr>) -> Self {
        self.host_ip = ip;
        self
    }

    /// The metrics of the probes.
    #[must_use]
    pub fn metrics(&self) -> &ProbeMetrics {
        &self.shared.metrics
    }

    /// Ends all probes and waits until they have.
    pub async fn shutdown(&self) {
        self.tasks.shutdown().await;
    }

    /// What was last told of a container that was there before this process: it is not to lose its readiness by a restart of the node
    /// agent.
    fn inherited<'a>(
        &self,
        pod: &'a Pod,
        container: &Container,
        id: &ContainerId,
        started: Timestamp,
    ) -> Option<&'a ContainerStatus> {
        let status = pod.status.as_ref().filter(|_| started < self.since)?;
        let regular = status.container_statuses.iter().flatten();
        let init = status.init_container_statuses.iter().flatten();
        regular.chain(init).find(|one| {
            let known = one.container_id.as_deref().unwrap_or_default();
            let known = known.split_once("://").map_or(known, |(_, known)| known);
            one.name == container.name && known == id.as_str()
        })
    }
}

impl Probes for ProbeManager {
    fn watch(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        id: &ContainerId,
        started: Timestamp,
        pod_ip: Option<IpAddr>,
    ) {
        let mut containers = self.shared.containers.lock();
        if containers.contains_key(id) {
            return;
        }
        let has = |purpose: Purpose| purpose.of(container).is_some();
        if !Purpose::ALL.into_iter().any(has) {
            return;
        }
        let known = self.inherited(pod, container, id, started);
        let was_started = known.is_some_and(|known| known.started == Some(true));
        let was_ready = known.is_some_and(|known| known.ready);
        let deleted = pod.metadata.deletion_timestamp.is_some();
        let mut watched = Watched {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            state: ProbeState {
                started: has(Purpose::Startup).then_some(was_started || deleted),
                ready: has(Purpose::Readiness).then_some(was_ready),
                failed: None,
            },
            started_up: Flag::new(),
            workers: Vec::new(),
        };
        if watched.state.started != Some(false) {
            watched.started_up.set();
        }
        let in_host_network = pod.spec.as_ref().and_then(|spec| spec.host_network);
        let host_ip = self.host_ip.filter(|_| in_host_network == Some(true));
        let target = ProbeTarget {
            pod: pod.clone(),
            container: Arc::new(container.clone()),
            id: id.clone(),
            ip: pod_ip.or(host_ip),
        };
        let group = self.tasks.token();
        for purpose in Purpose::ALL {
            let Some(probe) = purpose.of(container) else {
                continue;
            };
            let needless = match purpose {
                Purpose::Startup => watched.started_up.is_set(),
                Purpose::Liveness => deleted,
                Purpose::Readiness => false,
            };
            if needless {
                continue;
            }
            let worker = Worker {
                shared: self.shared.clone(),
                target: target.clone(),
                purpose,
                probe: probe.clone(),
                started_up: watched.started_up.clone(),
                running_since: started,
                adopted: started < self.since,
                record: self.shared.metrics.of(purpose.as_str(), &target),
            };
            let token = group.child();
            watched.workers.push((purpose, token.clone()));
            self.tasks.spawn("probe", async move {
                token.run(worker.run()).await;
            });
        }
        containers.insert(id.clone(), watched);
    }

    fn state(&self, id: &ContainerId) -> ProbeState {
        let containers = self.shared.containers.lock();
        containers.get(id).map(|one| one.state).unwrap_or_default()
    }

    fn forget(&self, id: &ContainerId) {
        self.shared.containers.lock().remove(id);
    }

    fn terminating(&self, uid: &str) {
        let mut containers = self.shared.containers.lock();
        for watched in containers.values_mut().filter(|one| one.uid == uid) {
            watched.end(|purpose| purpose != Purpose::Readiness);
            watched.state.failed = None;
            if watched.state.started.is_some() {
                watched.state.started = Some(true);
            }
            watched.started_up.set();
        }
    }

    fn forget_pod(&self, uid: &str) {
        self.shared
            .containers
            .lock()
            .retain(|_, one| one.uid != uid);
    }
}
