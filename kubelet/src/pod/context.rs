//! What all workers share, and what is known of each pod.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use orlop_core::client::Client;
use orlop_core::env::{Env, Moment};
use orlop_core::events::EventRecorder;
use orlop_core::runtime::Runtime;
use orlop_core::scheduling::PodInfo;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::admission::KnownNode;
use super::metrics::Metrics;
use super::runtime_view::RuntimeView;
use super::spec;
use super::status::Verdict;
use super::waker::Waker;
use super::writer::StatusWriter;
use crate::config::KubeletConfig;
use crate::kubelet::Parts;

/// What all workers share.
pub(crate) struct Context {
    pub(crate) env: Env,
    pub(crate) client: Arc<dyn Client>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) config: KubeletConfig,
    pub(crate) parts: Parts,
    pub(crate) waker: Waker,
    pub(crate) recorder: EventRecorder,
    pub(crate) view: RuntimeView,
    pub(crate) writer: StatusWriter,
    pub(crate) node: KnownNode,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) names: Names,
    pub(crate) entries: Mutex<BTreeMap<String, Arc<Entry>>>,
    /// Rung when a worker has ended: its pod is gone.
    pub(crate) ended: Notify,
}

/// Which uids want a pod's name, the one that has it first.
#[derive(Default)]
pub(crate) struct Names(Mutex<BTreeMap<(String, String), Vec<String>>>);

fn key(pod: &Pod) -> (String, String) {
    (spec::namespace(pod).to_owned(), spec::name(pod).to_owned())
}

impl Names {
    pub(crate) fn claim(&self, pod: &Pod, uid: &str) {
        let mut names = self.0.lock();
        names.entry(key(pod)).or_default().push(uid.to_owned());
    }

    pub(crate) fn has(&self, pod: &Pod, uid: &str) -> bool {
        let names = self.0.lock();
        let first = names.get(&key(pod)).and_then(|all| all.first());
        first.is_some_and(|first| first == uid)
    }

    /// Gives a name back. Returns who has it now.
    pub(crate) fn release(&self, pod: &Pod, uid: &str) -> Option<String> {
        let mut names = self.0.lock();
        let all = names.get_mut(&key(pod))?;
        all.retain(|one| one != uid);
        let next = all.first().cloned();
        if next.is_none() {
            names.remove(&key(pod));
        }
        next
    }
}

/// One pod, as its sources and its worker know it.
pub(crate) struct Entry {
    pub(crate) uid: String,
    pub(crate) bell: Arc<Notify>,
    pub(crate) desired: Mutex<Desired>,
    /// The pod with the status that was told last.
    pub(crate) told: Mutex<Option<Arc<Pod>>>,
    /// What admission compares.
    pub(crate) info: Option<Arc<PodInfo>>,
    pub(crate) seen_at: Moment,
}

/// What is wanted of a pod.
pub(crate) struct Desired {
    pub(crate) pod: Arc<Pod>,
    /// The pod in the API: itself, or for a static pod its mirror.
    pub(crate) api: Option<Arc<Pod>>,
    /// Whether its source has it no more.
    pub(crate) gone: bool,
    /// Why the node refuses it.
    pub(crate) rejected: Option<Verdict>,
    /// Why it is driven out.
    pub(crate) evicted: Option<Eviction>,
    /// Whether it takes nothing of the node any more.
    pub(crate) finished: bool,
}

/// That a pod is driven out of its node.
#[derive(Clone)]
pub(crate) struct Eviction {
    pub(crate) verdict: Verdict,
    pub(crate) grace: Duration,
    pub(crate) at: Timestamp,
}

impl Entry {
    pub(crate) fn pod(&self) -> Arc<Pod> {
        self.desired.lock().pod.clone()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.desired.lock().gone
    }

    /// Whether it counts when another pod asks to be admitted.
    pub(crate) fn counts(&self) -> bool {
        let desired = self.desired.lock();
        desired.rejected.is_none() && !desired.finished && !spec::is_finished(&desired.pod)
    }

    /// Whether the pod is to run no more, by what others say.
    pub(crate) fn must_end(&self) -> bool {
        let desired = self.desired.lock();
        desired.gone
            || desired.evicted.is_some()
            || spec::is_being_deleted(&desired.pod)
            || spec::is_finished(&desired.pod)
    }

    /// How long its containers may take to end.
    pub(crate) fn grace(&self) -> Duration {
        let desired = self.desired.lock();
        let own = spec::grace(&desired.pod);
        match &desired.evicted {
            Some(eviction) => own.min(eviction.grace),
            None => own,
        }
    }
}
