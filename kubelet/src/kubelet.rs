//! [`Kubelet`]: the node agent, put together.

mod builder;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, select};
use k8s_openapi::api::core::v1::Pod;
use orlop_api::typed::{Informer, Notice};
use orlop_core::client::Client;
use orlop_core::env::{CancelToken, Env, TaskGroup};
use orlop_core::events::EventRecorder;
use orlop_core::informer::InformerFactory;
use orlop_core::runtime::{Container, Runtime};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

pub use self::builder::{KubeletBuilder, MissingParts, Parts};
use crate::config::KubeletConfig;
use crate::pod::context::{Context, Desired, Entry, Eviction};
use crate::pod::kill::restored_pod;
use crate::pod::status::Verdict;
use crate::pod::worker::Worker;
use crate::pod::{KnownNode, Waker, admit, spec, view};
use crate::server::PodDirectory;
use crate::static_pods::StaticPods;

/// How often what nobody knows is looked for on the machine.
const HOUSEKEEPING: Duration = Duration::from_secs(30);
/// What containers of an evicted pod have to end by themselves: upstream's grace for a hard eviction.
const EVICTION_GRACE: Duration = Duration::from_secs(1);

/// A further reason for which a pod may not be taken: the reason and message of its status.
pub type Admit = Arc<dyn Fn(&Pod) -> Result<(), (String, String)> + Send + Sync>;

/// The node agent. Clones are the same one.
///
/// ```
/// # use std::sync::Arc;
/// # use orlop_core::{client::Client, env::{CancelToken, Env}, runtime::Runtime};
/// # use orlop_kubelet::{config::KubeletConfig, kubelet::{Kubelet, MissingParts, Parts}};
/// # async fn example(client: Arc<dyn Client>, runtime: Arc<dyn Runtime>, env: Env, parts: Parts, stop: CancelToken) -> Result<(), MissingParts> {
/// let kubelet = Kubelet::builder(client, runtime, env)
///     .config(KubeletConfig::new("node-1"))
///     .parts(parts)
///     .build()?;
/// kubelet.run(&stop).await; // returns when `stop` is cancelled; containers go on
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Kubelet(Arc<Inner>);

struct Inner {
    cx: Arc<Context>,
    tasks: TaskGroup,
    static_pods: StaticPods,
    /// Whether the API has told of all pods of the node.
    api_listed: AtomicBool,
    /// Whether the manifests were read.
    files_read: AtomicBool,
    /// Rung when there may be something to tidy up.
    housekeeping: Notify,
    /// Who is asked beside this node's own rules.
    admits: Mutex<Vec<Admit>>,
}

impl fmt::Debug for Kubelet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kubelet")
            .field("node", &self.0.cx.config.node_name)
            .field("pods", &self.0.cx.entries.lock().len())
            .finish_non_exhaustive()
    }
}

/// A container of a pod, as the runtime has it.
#[derive(Clone, Debug)]
pub struct PodContainer {
    /// The pod, with the agent's own view of its status.
    pub pod: Arc<Pod>,
    /// The containers of that name, the newest first: the one that runs or ran last, then what is kept of those before it.
    pub containers: Vec<Arc<Container>>,
}

/// Stops tasks when it is dropped.
struct StopOnDrop(CancelToken);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Kubelet {
    /// A builder. Its tasks run in `env`.
    #[must_use]
    pub fn builder(client: Arc<dyn Client>, runtime: Arc<dyn Runtime>, env: Env) -> KubeletBuilder {
        KubeletBuilder::new(client, runtime, env)
    }

    /// Looks after the pods of the node until the token is cancelled. What runs goes on then, to be adopted by who comes next. To be called
    /// once.
    pub async fn run(&self, token: &CancelToken) {
        let tasks = &self.0.tasks;
        let _stop = StopOnDrop(tasks.token());
        self.0.cx.writer.start(tasks);
        let cx = self.0.cx.clone();
        tasks.spawn_until_cancelled("runtime", async move { cx.view.follow().await });
        let own = self.clone();
        tasks.spawn_until_cancelled("pods of the API", async move { own.follow_api().await });
        let own = self.clone();
        tasks.spawn_until_cancelled("static pods", async move {
            own.0.static_pods.follow(&own).await;
        });
        let own = self.clone();
        tasks.spawn_until_cancelled("housekeeping", async move { own.keep_house().await });
        token.cancelled().await;
        tasks.shutdown().await;
    }

    /// The pods of this node, static ones too, with the agent's own view of their status, in order of their uids.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        let entries = self.0.cx.entries.lock();
        entries.values().map(|entry| shown(entry)).collect()
    }

    /// A pod by its name, and if given its uid, which for a static pod may be its mirror's.
    #[must_use]
    pub fn find_pod(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Arc<Pod>> {
        self.find(namespace, name, uid).map(|entry| shown(&entry))
    }

    fn find(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Arc<Entry>> {
        let entries = self.0.cx.entries.lock();
        let mut named = entries.values().filter(|entry| {
            let desired = entry.desired.lock();
            let same =
                spec::namespace(&desired.pod) == namespace && spec::name(&desired.pod) == name;
            let mirror = desired.api.as_ref().map(|api| spec::uid(api).to_owned());
            same && uid.is_none_or(|uid| uid == entry.uid || mirror.as_deref() == Some(uid))
        });
        let first = named.next()?;
        // Of two with the same name, the one that is not going is meant.
        let better = named.find(|entry| !entry.is_gone());
        Some(better.filter(|_| first.is_gone()).unwrap_or(first).clone())
    }

    /// A pod and its containers of a name, as the runtime has them. `None` if there is no such pod.
    #[must_use]
    pub fn container(&self, namespace: &str, pod: &str, container: &str) -> Option<PodContainer> {
        let entry = self.find(namespace, pod, None)?;
        let seen = self.0.cx.view.get(&entry.uid);
        Some(PodContainer {
            pod: shown(&entry),
            containers: seen.named(container).cloned().collect(),
        })
    }

    /// All that the runtime has of a pod.
    #[must_use]
    pub fn observed(&self, uid: &str) -> Arc<crate::pod::Observed> {
        self.0.cx.view.get(uid)
    }

    /// Drives a pod out of the node: its containers are ended at once, and its phase becomes `Failed`. Whether there is such a pod, which
    /// has not come to its end.
    pub fn evict(&self, uid: &str, reason: &str, message: &str) -> bool {
        let Some(entry) = self.0.cx.entries.lock().get(uid).cloned() else {
            return false;
        };
        {
            let mut desired = entry.desired.lock();
            if desired.finished || desired.evicted.is_some() || spec::is_finished(&desired.pod) {
                return false;
            }
            desired.evicted = Some(Eviction {
                verdict: Verdict {
                    reason: reason.to_owned(),
                    message: message.to_owned(),
                },
                grace: EVICTION_GRACE,
                at: self.0.cx.env.wall(),
            });
        }
        entry.bell.notify_one();
        true
    }

    /// Has somebody asked before a pod is taken, as who watches what the machine has left. Pods that run here already are not asked about.
    pub fn admit_by(&self, admit: Admit) {
        self.0.admits.lock().push(admit);
    }

    /// What tells events in the agent's name.
    #[must_use]
    pub fn recorder(&self) -> EventRecorder {
        self.0.cx.recorder.clone()
    }

    /// What wakes the workers of pods.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.0.cx.waker.clone()
    }

    /// What is known of the node.
    #[must_use]
    pub fn node(&self) -> KnownNode {
        self.0.cx.node.clone()
    }

    /// How the agent is set up.
    #[must_use]
    pub fn config(&self) -> &KubeletConfig {
        &self.0.cx.config
    }

    /// The runtime.
    #[must_use]
    pub fn runtime(&self) -> Arc<dyn Runtime> {
        self.0.cx.runtime.clone()
    }

    /// The API.
    #[must_use]
    pub fn client(&self) -> Arc<dyn Client> {
        self.0.cx.client.clone()
    }

    /// The environment.
    #[must_use]
    pub fn env(&self) -> Env {
        self.0.cx.env.clone()
    }

    /// The metrics of pods and their workers, under upstream's names.
    #[must_use]
    pub fn metrics(&self) -> Arc<Registry> {
        self.0.cx.metrics.registry()
    }

    /// Whether all sources of pods have been read.
    #[must_use]
    pub fn has_synced(&self) -> bool {
        self.0.api_listed.load(Ordering::Acquire) && self.0.files_read.load(Ordering::Acquire)
    }

    /// Whether the agent gets on with its work, for `/healthz/syncloop` and the node's readiness.
    ///
    /// # Errors
    /// Why not: the runtime could not be listed for three minutes.
    pub fn healthy(&self) -> Result<(), String> {
        match self.0.cx.view.age() {
            None => Err("PLEG is not healthy: pleg has yet to be successful".to_owned()),
            Some((age, allowed)) if age > allowed => Err(format!(
                "PLEG is not healthy: pleg was last seen active {} ago; threshold is {}",
                spec::go_duration(age),
                spec::go_duration(allowed)
            )),
            Some(_) => Ok(()),
        }
    }

    pub(crate) fn cx(&self) -> &Arc<Context> {
        &self.0.cx
    }

    /// Notes that the manifests were read.
    pub(crate) fn files_read(&self) {
        if !self.0.files_read.swap(true, Ordering::AcqRel) {
            self.0.housekeeping.notify_one();
        }
    }

    /// Takes the pods of the node from the API, for ever.
    async fn follow_api(&self) {
        let cx = &self.0.cx;
        let factory = InformerFactory::new(cx.client.clone(), cx.env.clone());
        let informer = Informer::<Pod>::scoped(&factory, |scope| {
            scope.field_selector = format!("spec.nodeName={}", cx.config.node_name);
        });
        let mut notices = informer.subscribe();
        factory.start(&self.0.tasks);
        informer.synced().await;
        match informer.list() {
            Ok(mut first) => {
                // Those that were there first are admitted first.
                first.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|at| at.0));
                for pod in first {
                    self.take(pod, None);
                }
            }
            Err(error) => tracing::warn!(%error, "a pod does not fit its type"),
        }
        self.0.api_listed.store(true, Ordering::Release);
        self.0.housekeeping.notify_one();
        self.0.static_pods.wake();
        loop {
            match notices.next().await {
                Ok(Some(Notice::Added { object, .. })) => self.take(object, None),
                Ok(Some(Notice::Updated { old, new })) => {
                    if spec::uid(&old) != spec::uid(&new) {
                        self.let_go(&old);
                    }
                    self.take(new, Some(&old));
                }
                Ok(Some(Notice::Deleted { object, .. })) => self.let_go(&object),
                Ok(None) => return,
                Err(error) => tracing::warn!(%error, "a pod does not fit its type"),
            }
        }
    }

    /// Takes a pod of the API, new or changed.
    fn take(&self, pod: Arc<Pod>, old: Option<&Pod>) {
        let uid = spec::uid(&pod);
        if uid.is_empty() {
            return;
        }
        if spec::is_mirror(&pod) {
            self.0.static_pods.mirror(pod);
            return;
        }
        let known = self.0.cx.entries.lock().get(uid).cloned();
        let Some(entry) = known else {
            self.add(pod.clone(), Some(pod));
            return;
        };
        let quiet = old.is_some_and(|old| !changes_work(old, &pod));
        {
            let mut desired = entry.desired.lock();
            if desired.gone {
                return;
            }
            desired.api = Some(pod.clone());
            desired.pod = pod.clone();
        }
        if quiet {
            // The API may have been told otherwise by somebody.
            let told = entry.told.lock().clone();
            if let Some(status) = told.and_then(|told| told.status.clone()) {
                self.0.cx.writer.set(&entry.uid, pod, Arc::new(status));
            }
        } else {
            entry.bell.notify_one();
        }
    }

    /// Notes that the API has a pod no more.
    fn let_go(&self, pod: &Arc<Pod>) {
        if spec::is_mirror(pod) {
            self.0.static_pods.mirror_gone(pod);
            return;
        }
        let Some(entry) = self.0.cx.entries.lock().get(spec::uid(pod)).cloned() else {
            return;
        };
        {
            let mut desired = entry.desired.lock();
            desired.pod = pod.clone();
            desired.gone = true;
        }
        entry.bell.notify_one();
    }

    /// Begins to look after a pod.
    pub(crate) fn add(&self, pod: Arc<Pod>, api: Option<Arc<Pod>>) {
        let info = view(&pod);
        let ends = spec::is_finished(&pod) || spec::is_being_deleted(&pod);
        let rejected = match &info {
            Ok(info) if !ends => self.admit(&pod, info).err(),
            Ok(_) => None,
            Err(verdict) => Some(verdict.clone()),
        };
        let desired = Desired {
            pod,
            api,
            gone: false,
            rejected,
            evicted: None,
            finished: false,
        };
        self.spawn(desired, info.ok().map(Arc::new));
    }

    fn spawn(&self, desired: Desired, info: Option<Arc<orlop_core::scheduling::PodInfo>>) {
        let cx = &self.0.cx;
        let uid = spec::uid(&desired.pod).to_owned();
        cx.names.claim(&desired.pod, &uid);
        let entry = Arc::new(Entry {
            bell: cx.waker.bell(&uid),
            uid: uid.clone(),
            desired: Mutex::new(desired),
            told: Mutex::new(None),
            info,
            seen_at: cx.env.now(),
        });
        let count = {
            let mut entries = cx.entries.lock();
            entries.insert(uid, entry.clone());
            entries.len()
        };
        cx.metrics.desired(count);
        let worker = Worker::new(cx.clone(), entry);
        self.0
            .tasks
            .spawn_until_cancelled("pod worker", worker.run());
    }

    fn admit(&self, pod: &Pod, info: &orlop_core::scheduling::PodInfo) -> Result<(), Verdict> {
        let cx = &self.0.cx;
        let began = pod
            .status
            .as_ref()
            .is_some_and(|status| status.start_time.is_some());
        let admits = self.0.admits.lock().clone();
        for admit in admits.iter().filter(|_| !began) {
            admit(pod).map_err(|(reason, message)| Verdict { reason, message })?;
        }
        let others: Vec<_> = {
            let entries = cx.entries.lock();
            let counting = entries.values().filter(|entry| entry.counts());
            counting.filter_map(|entry| entry.info.clone()).collect()
        };
        let name = &cx.config.node_name;
        admit(pod, info, &others, &cx.node.get(), name, cx.config.max_pods)
    }

    /// Ends and removes what is on the machine of pods that no source has, as soon as all sources have been read, and now and then.
    async fn keep_house(&self) {
        let cx = &self.0.cx;
        loop {
            if self.has_synced() && !cx.view.has_listed() {
                let listed = std::pin::pin!(cx.view.first_list.notified());
                select(listed, cx.env.sleep(Duration::from_secs(1))).await;
                continue;
            }
            if self.has_synced() {
                self.tidy().await;
            }
            let rung = std::pin::pin!(self.0.housekeeping.notified());
            if let Either::Right(((), rung)) = select(rung, cx.env.sleep(HOUSEKEEPING)).await {
                // A bell that rang at the same moment is not lost.
                let _ = rung.now_or_never();
            }
        }
    }

    async fn tidy(&self) {
        let cx = &self.0.cx;
        let running = cx.view.uids();
        let (volumes, cgroups) = (&cx.parts.volumes, &cx.parts.cgroups);
        let on_disk = volumes.on_disk().await;
        let left: BTreeSet<String> = on_disk
            .into_iter()
            .chain(cgroups.on_machine().await)
            .collect();
        let is_known = |uid: &String| cx.entries.lock().contains_key(uid);
        for uid in running.iter().filter(|uid| !is_known(uid)) {
            let seen = cx.view.get(uid);
            if uid.is_empty() || seen.is_empty() {
                continue;
            }
            tracing::info!(uid, "a pod that nobody knows runs here: it is ended");
            let desired = Desired {
                pod: Arc::new(restored_pod(uid, &seen)),
                api: None,
                gone: true,
                rejected: None,
                evicted: None,
                finished: true,
            };
            self.spawn(desired, None);
        }
        for uid in left.iter().filter(|uid| !is_known(uid)) {
            if let Err(error) = volumes.tear_down(uid).await {
                tracing::warn!(uid, %error, "the volumes of a pod that is gone are still there");
                continue;
            }
            if let Err(error) = cgroups.remove(uid).await {
                tracing::warn!(uid, %error, "the cgroup of a pod that is gone is still there");
            }
        }
    }
}

impl PodDirectory for Kubelet {
    fn pods(&self) -> Vec<Arc<Pod>> {
        Self::pods(self)
    }

    fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.find_pod(namespace, name, None)
    }

    fn sync_loop(&self) -> Result<(), String> {
        self.healthy()
    }
}

/// A pod with the agent's own view of its status.
fn shown(entry: &Entry) -> Arc<Pod> {
    let told = entry.told.lock().clone();
    told.unwrap_or_else(|| entry.pod())
}

/// Whether a worker has something to do about a change of its pod. What it told the API itself it knows.
fn changes_work(old: &Pod, new: &Pod) -> bool {
    let phase = |pod: &Pod| spec::is_finished(pod);
    let foreign = |pod: &Pod| {
        let status = pod.status.as_ref();
        let all = status.and_then(|status| status.conditions.as_deref());
        let gates = spec::spec(pod).readiness_gates.as_deref();
        let of_gates = all.unwrap_or_default().iter().filter(|one| {
            let mut gates = gates.unwrap_or_default().iter();
            gates.any(|gate| gate.condition_type == one.type_)
        });
        of_gates.cloned().collect::<Vec<_>>()
    };
    let (was, is) = (&old.metadata, &new.metadata);
    old.spec != new.spec
        || was.deletion_timestamp != is.deletion_timestamp
        || was.deletion_grace_period_seconds != is.deletion_grace_period_seconds
        || was.labels != is.labels
        || was.annotations != is.annotations
        || was.generation != is.generation
        || phase(old) != phase(new)
        || foreign(old) != foreign(new)
}

#[cfg(test)]
mod tests;
