//! What the deciding task, the watching tasks and the bindings share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orlop_core::client::Client;
use orlop_core::env::{Env, Moment, TaskGroup};
use orlop_core::events::{EventRecorder, EventType, ObjectReference};
use orlop_core::informer::Indexer;
use orlop_core::object::ObjectKey;
use orlop_core::scheduling::{
    Actions, ClusterEvent, EventResource, Handle, PodInfo, Subject, WaitingPod,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::condition;
use super::waiting::Waiting;
use crate::cache::Cache;
use crate::framework::{Failure, Framework};
use crate::metrics::SchedulerMetrics;
use crate::queue::{Attempt, QueueOptions, SchedulingQueue};

/// Shared state. Locks are taken one at a time and never held over an await.
pub(super) struct Shared {
    pub(super) client: Arc<dyn Client>,
    pub(super) env: Env,
    pub(super) frameworks: Arc<BTreeMap<String, Arc<Framework>>>,
    pub(super) cache: Mutex<Cache>,
    pub(super) queue: Mutex<SchedulingQueue>,
    pub(super) waiting: Waiting,
    pub(super) metrics: SchedulerMetrics,
    /// Wakes the deciding task.
    pub(super) wake: Notify,
    /// Room for bindings.
    pub(super) room: Arc<Semaphore>,
    /// The pods as the API shows them.
    pub(super) pods: RwLock<Option<Indexer>>,
    /// By profile; known once the scheduler runs.
    recorders: RwLock<BTreeMap<String, EventRecorder>>,
}

impl Shared {
    pub(super) fn new(
        client: Arc<dyn Client>,
        env: Env,
        frameworks: Arc<BTreeMap<String, Arc<Framework>>>,
        queue: QueueOptions,
        metrics: SchedulerMetrics,
        room: Arc<Semaphore>,
        patience: Option<Duration>,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            env,
            cache: Mutex::new(Cache::new(patience)),
            queue: Mutex::new(SchedulingQueue::new(frameworks.clone(), queue)),
            frameworks,
            waiting: Waiting::default(),
            metrics,
            wake: Notify::new(),
            room,
            pods: RwLock::new(None),
            recorders: RwLock::default(),
        })
    }

    pub(super) fn set_recorders(&self, recorders: BTreeMap<String, EventRecorder>) {
        *self.recorders.write() = recorders;
    }

    /// Whether a pod is one of ours.
    pub(super) fn is_ours(&self, pod: &PodInfo) -> bool {
        self.frameworks.contains_key(pod.scheduler_name())
    }

    /// The pod as the API shows it now, if it is still the same and still waits.
    pub(super) fn current(&self, pod: &PodInfo) -> Option<Arc<PodInfo>> {
        let object = self.pods.read().as_ref()?.get(pod.key())?;
        if object.uid() != &**pod.uid() {
            return None;
        }
        let current = PodInfo::from_object(&object).ok()?;
        (current.node_name().is_none() && !current.is_finished()).then(|| Arc::new(current))
    }

    /// Whether an attempt would be in vain: the pod is being deleted, or has a place.
    pub(super) fn skips(&self, pod: &PodInfo) -> bool {
        if pod.is_terminating() {
            self.tell(
                pod,
                EventType::Warning,
                "FailedScheduling",
                format!("skip schedule deleting pod: {pod}"),
            );
            return true;
        }
        self.cache.lock().is_assumed(pod.key())
    }

    /// Tells an event about a pod.
    pub(super) fn tell(&self, pod: &PodInfo, kind: EventType, reason: &str, message: String) {
        let recorder = self.recorders.read().get(pod.scheduler_name()).cloned();
        let Some(recorder) = recorder else { return };
        let about = ObjectReference {
            kind: "Pod".to_owned(),
            namespace: pod.namespace().to_owned(),
            name: pod.name().to_owned(),
            uid: pod.uid().to_string(),
            api_version: "v1".to_owned(),
            ..ObjectReference::default()
        };
        recorder.event(about, kind, reason, message);
    }

    pub(super) fn warn_of_unserved(&self, framework: &Framework, pod: &PodInfo) {
        let unserved = framework.unserved(pod);
        if !unserved.is_empty() {
            let message = format!(
                "The pod has constraints that scheduler profile {:?} has no plug-in for, and is scheduled without regard to \
                 them: {}",
                framework.name(),
                unserved.join(", ")
            );
            self.tell(pod, EventType::Warning, "ConstraintNotServed", message);
        }
    }

    /// Something happened: brings back the pods that it may help.
    pub(super) fn happened(&self, event: ClusterEvent) {
        let name = event.to_string();
        let helped = self.queue.lock().happened(event, self.env.now());
        if helped > 0 {
            self.metrics.incoming(&name, "active", helped);
            self.wake.notify_one();
        }
    }

    /// An assumed pod was not bound after all: what it took is free again.
    pub(super) fn forget(&self, key: &ObjectKey) {
        let forgotten = self.cache.lock().forget(key);
        if let Some(pod) = forgotten {
            self.freed(pod);
        }
    }

    /// What a pod took is free.
    pub(super) fn freed(&self, pod: Arc<PodInfo>) {
        self.happened(ClusterEvent {
            resource: EventResource::AssignedPod,
            actions: Actions::DELETE,
            subject: Subject::Pod {
                old: Some(pod),
                new: None,
            },
        });
    }

    /// Gives up on assumed pods that the API does not show.
    pub(super) fn expire(&self, now: Moment) {
        let late = {
            let mut cache = self.cache.lock();
            match cache.next_expiry() {
                Some(next) if next <= now => cache.expire(now),
                _ => return,
            }
        };
        for pod in late {
            tracing::warn!(%pod, "the API does not show the pod's binding; it is no longer counted");
            self.freed(pod);
        }
    }

    pub(super) fn show_sizes(&self) {
        {
            let queue = self.queue.lock();
            self.metrics.depths(queue.depths());
            for (profile, place, pods) in queue.refusals() {
                if let Some(framework) = self.frameworks.get(profile) {
                    self.metrics
                        .unschedulable(profile, framework.plugin_name(place), pods);
                }
            }
        }
        let cache = self.cache.lock();
        self.metrics
            .cache(cache.node_count(), cache.pod_count(), cache.assumed_count());
    }

    /// An attempt failed: the pod goes back to the queue, and its condition and an event say why.
    pub(super) fn fail(
        self: &Arc<Self>,
        framework: &Framework,
        attempt: Attempt,
        failure: &Failure,
        started: Moment,
        tasks: &TaskGroup,
        room: Option<OwnedSemaphorePermit>,
    ) {
        if let Some(write) = self.failed(framework, attempt, failure, started) {
            tasks.spawn("condition", async move {
                write.run().await;
                drop(room);
            });
        }
    }

    /// As [`fail`](Self::fail), but the caller writes the condition.
    pub(super) fn failed(
        self: &Arc<Self>,
        framework: &Framework,
        attempt: Attempt,
        failure: &Failure,
        started: Moment,
    ) -> Option<condition::Write> {
        let now = self.env.now();
        let pod = attempt.pod().clone();
        self.metrics
            .attempt(framework.name(), failure.result(), now.since(started));
        let Some(current) = self.current(&pod) else {
            // It went, or somebody else gave it a node.
            self.queue.lock().done(&pod);
            return None;
        };
        let message = failure.to_string();
        tracing::debug!(%pod, reason = failure.reason(), %message, "the pod was not scheduled");
        self.queue
            .lock()
            .add_unschedulable(attempt, current, failure.plugins(), now);
        self.wake.notify_one();
        self.tell(
            &pod,
            EventType::Warning,
            "FailedScheduling",
            message.clone(),
        );
        let nominated = match failure {
            Failure::Unfit(fit) => fit.nominated_node.clone(),
            _ => None,
        };
        Some(condition::Write::new(
            self.clone(),
            pod,
            failure.reason(),
            message,
            nominated,
        ))
    }
}

impl Handle for Shared {
    fn client(&self) -> &Arc<dyn Client> {
        &self.client
    }

    fn env(&self) -> &Env {
        &self.env
    }

    fn waiting_pods(&self) -> Vec<WaitingPod> {
        self.waiting.list()
    }

    fn allow(&self, uid: &str, plugin: &str) -> bool {
        self.waiting.allow(uid, plugin)
    }

    fn reject(&self, uid: &str, plugin: &str, reason: String) -> bool {
        self.waiting.reject(uid, plugin, reason)
    }

    fn activate(&self, pods: &[ObjectKey]) {
        self.queue.lock().activate(pods);
        self.wake.notify_one();
    }
}
