//! [`Worker`]: looks after one pod from its first sight to its last.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use orlop_core::env::Moment;
use orlop_core::runtime::{ContainerId, ContainerState, RuntimeError, SandboxState};
use parking_lot::Mutex;

use super::actions::{Actions, decide};
use super::backoff::BackOffs;
use super::context::{Context, Entry};
use super::observed::Observed;
use super::spec;
use super::start::{NotStarted, Stage};
use super::status::{Verdict, Waiting};
use crate::parts::{ContainerKind, PartError, ProbeState};

/// The first wait after something failed, and the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The worker of one pod.
///
/// It goes through three states, and never back: it *syncs* the pod as long as it is to run, it *terminates* it, and when nothing runs any
/// more the pod is *terminated*: what it had is given back, and the worker waits until the pod is gone from its source.
pub(crate) struct Worker {
    pub(crate) cx: Arc<Context>,
    pub(crate) entry: Arc<Entry>,
    pub(super) state: Mutex<State>,
}

/// What a worker remembers.
pub(super) struct State {
    pub(super) back_offs: BackOffs,
    /// Why containers wait.
    pub(super) waiting: BTreeMap<String, Waiting>,
    /// What ended containers said.
    pub(super) messages: BTreeMap<ContainerId, String>,
    /// The status that was told last.
    pub(super) status: Option<Arc<PodStatus>>,
    /// Containers whose end has begun.
    pub(super) ending: BTreeSet<ContainerId>,
    /// Containers that ran before this agent did and were ready then: until when that is believed.
    pub(super) adopted: BTreeMap<ContainerId, Moment>,
    /// Why the pod was brought to its end by its worker.
    pub(super) verdict: Option<Verdict>,
    /// How often something failed in a row.
    failures: u32,
    /// Whether its start was measured.
    measured: bool,
    /// Whether the runtime was looked at since the worker began: before, nothing is known of the pod, and nothing is told.
    pub(super) looked: bool,
}

/// Why a sync came to nothing.
#[derive(Debug)]
pub(super) enum Stop {
    /// The runtime is away: nothing is known, and nothing is changed.
    Away,
    /// Something failed and was told: again after a while.
    Again(Duration),
}

impl From<RuntimeError> for Stop {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Unavailable(_) => Self::Away,
            error => {
                tracing::warn!(%error, "the runtime refused");
                Self::Again(FIRST_WAIT)
            }
        }
    }
}

/// What came of a sync.
enum Synced {
    /// The pod is to be looked at again after a while at the latest.
    Until(Duration),
    /// It has come to its end.
    Ended,
}

impl Worker {
    pub(crate) fn new(cx: Arc<Context>, entry: Arc<Entry>) -> Self {
        let state = State {
            back_offs: BackOffs::new(cx.config.max_container_restart_period),
            waiting: BTreeMap::new(),
            messages: BTreeMap::new(),
            status: entry.pod().status.clone().map(Arc::new),
            ending: BTreeSet::new(),
            adopted: BTreeMap::new(),
            verdict: None,
            failures: 0,
            measured: false,
            looked: false,
        };
        Self {
            cx,
            entry,
            state: Mutex::new(state),
        }
    }

    /// Looks after the pod until it is gone.
    pub(crate) async fn run(self) {
        self.wait_for_name().await;
        let waited = self.cx.env.now().since(self.entry.seen_at);
        self.cx.metrics.worker_started(waited);
        let rejected = self.entry.desired.lock().rejected.clone();
        if let Some(verdict) = rejected {
            self.reject(&verdict);
        } else {
            self.sync_until_the_end().await;
            self.terminate().await;
            self.give_back().await;
        }
        self.entry.desired.lock().finished = true;
        self.wait_until_gone().await;
        self.leave();
    }

    /// Waits until no other pod has the same name.
    async fn wait_for_name(&self) {
        let pod = self.entry.pod();
        while !self.cx.names.has(&pod, &self.entry.uid) {
            self.entry.bell.notified().await;
        }
    }

    /// Tells the API that the node does not take the pod.
    fn reject(&self, verdict: &Verdict) {
        let pod = self.entry.pod();
        let about = spec::reference(&pod);
        self.cx
            .recorder
            .warning(about, &verdict.reason, verdict.message.clone());
        let status = PodStatus {
            phase: Some("Failed".to_owned()),
            reason: Some(verdict.reason.clone()),
            message: Some(format!("Pod was rejected: {}", verdict.message)),
            observed_generation: pod.metadata.generation,
            ..pod.status.clone().unwrap_or_default()
        };
        self.tell(&pod, status);
    }

    /// Believes what the API says of containers that ran before this agent did, until their probes have had time to answer.
    fn adopt(&self, pod: &Pod, seen: &Observed) {
        let status = pod.status.as_ref();
        let told = status
            .into_iter()
            .flat_map(|status| [&status.container_statuses, &status.init_container_statuses]);
        let now = self.cx.env.now();
        for one in told.flatten().flatten().filter(|one| one.ready) {
            let latest = seen.latest(&one.name);
            let running = latest.filter(|latest| latest.state == ContainerState::Running);
            let Some(running) = running else { continue };
            let id = one.container_id.as_deref().unwrap_or_default();
            if !id.ends_with(&format!("://{}", running.id)) {
                continue;
            }
            let probes = spec::find(pod, &one.name).map(|(_, own)| own);
            let probes = probes.map(|own| [own.readiness_probe, own.startup_probe]);
            let longest = probes.into_iter().flatten().flatten().map(|probe| {
                let number = |value: Option<i32>, default: i32| {
                    u64::try_from(value.unwrap_or(default)).unwrap_or(0)
                };
                let tries = number(probe.failure_threshold, 3);
                let each = number(probe.period_seconds, 10).max(number(probe.timeout_seconds, 1));
                Duration::from_secs(number(probe.initial_delay_seconds, 0) + tries * each)
            });
            if let Some(longest) = longest.max() {
                let mut state = self.state.lock();
                state.adopted.insert(running.id.clone(), now + longest);
            }
        }
    }

    async fn sync_until_the_end(&self) {
        while !self.entry.must_end() {
            let began = self.cx.env.now();
            let synced = self
                .interruptible(self.sync(), || self.entry.must_end())
                .await;
            let took = self.cx.env.now().since(began);
            self.cx.metrics.worked("sync", took);
            let wait = match synced {
                None | Some(Ok(Synced::Ended)) => return,
                Some(Ok(Synced::Until(wait))) => {
                    self.state.lock().failures = 0;
                    wait
                }
                Some(Err(Stop::Again(wait))) => wait,
                // The worker is woken when the runtime is back.
                Some(Err(Stop::Away)) => LONGEST_WAIT,
            };
            self.wait(wait).await;
        }
    }

    /// Waits for a while, or until the worker is woken.
    async fn wait(&self, wait: Duration) {
        let bell = pin!(self.entry.bell.notified());
        select(bell, self.cx.env.sleep(wait)).await;
    }

    /// Does something until it is done, or is not to go on. Whenever the worker is woken meanwhile, the API is told how the pod is.
    async fn interruptible<T>(
        &self,
        work: impl Future<Output = T>,
        stop: impl Fn() -> bool,
    ) -> Option<T> {
        let mut work = pin!(work);
        let mut woken = false;
        let output = loop {
            let bell = pin!(self.entry.bell.notified());
            match select(work.as_mut(), bell).await {
                Either::Left((output, _)) => break Some(output),
                Either::Right(((), _)) if stop() => break None,
                Either::Right(((), _)) => {
                    woken = true;
                    self.report(false).await;
                }
            }
        };
        if woken {
            self.entry.bell.notify_one();
        }
        output
    }

    /// How long to wait after a failure.
    pub(super) fn again(&self) -> Stop {
        let mut state = self.state.lock();
        let factor = 1u32 << state.failures.min(8);
        state.failures = state.failures.saturating_add(1);
        Stop::Again((FIRST_WAIT * factor).min(LONGEST_WAIT))
    }

    fn failed(&self, pod: &Pod, error: PartError) -> Stop {
        if !error.event.is_empty() {
            let about = spec::reference(pod);
            self.cx.recorder.warning(about, &error.event, error.message);
        }
        self.again()
    }

    /// Brings the pod one step nearer to what it is to be.
    async fn sync(&self) -> Result<Synced, Stop> {
        let pod = self.entry.pod();
        let seen = self.look(&pod).await?;
        if self.report(false).await || self.is_past_deadline(&pod) {
            return Ok(Synced::Ended);
        }
        let parts = &self.cx.parts;
        let parent = parts.cgroups.ensure(&pod).await;
        let parent = parent.map_err(|error| self.failed(&pod, error))?;
        let volumes = parts.volumes.set_up(&pod).await;
        let volumes = volumes.map_err(|error| self.failed(&pod, error))?;

        let probe = |id: &ContainerId| self.probe(id);
        let actions = decide(&pod, &seen, &probe);
        self.kill(&pod, &seen, &actions).await?;
        self.prune(&seen).await?;

        let mut wait = self.cx.env.jitter(self.cx.config.sync_frequency, 0.2);
        let mut config = None;
        let mut sandbox = actions.sandbox.clone();
        if actions.create_sandbox {
            let made = self.create_sandbox(&pod, actions.attempt, parent.clone());
            let (id, made) = made.await?;
            (sandbox, config) = (Some(id), Some(made));
            self.cx.view.refresh(&self.entry.uid).await?;
            self.report(false).await;
        }
        let starts = actions.ephemeral.len() + actions.init.len() + actions.regular.len();
        if let Some(sandbox) = sandbox.filter(|_| starts > 0) {
            let config = match config {
                Some(config) => config,
                None => {
                    let config = self.sandbox_config(&pod, actions.attempt, parent).await;
                    config.map_err(|error| self.failed(&pod, error))?
                }
            };
            let stage = Stage {
                pod: &pod,
                volumes: &volumes,
                sandbox: &sandbox,
                config: &config,
            };
            let (again, started) = self.start_all(&stage, &actions).await?;
            wait = wait.min(again);
            let ephemeral = spec::spec(&pod).ephemeral_containers.is_some();
            if started && (!actions.init.is_empty() || actions.create_sandbox && ephemeral) {
                // A sidecar that was started may be all that the next container waits for.
                wait = Duration::ZERO;
            }
        }
        if actions.kill_pod || !actions.kill.is_empty() || actions.create_sandbox || starts > 0 {
            self.cx.view.refresh(&self.entry.uid).await?;
            if self.report(false).await {
                return Ok(Synced::Ended);
            }
        }
        Ok(Synced::Until(wait.min(self.next_look(&pod))))
    }

    /// Looks at what the runtime has of the pod.
    async fn look(&self, pod: &Pod) -> Result<Arc<Observed>, Stop> {
        self.cx.view.facts().await?;
        let seen = self.cx.view.refresh(&self.entry.uid).await?;
        if !std::mem::replace(&mut self.state.lock().looked, true) {
            self.adopt(pod, &seen);
        }
        Ok(seen)
    }

    /// Ends what is to be ended.
    async fn kill(&self, pod: &Arc<Pod>, seen: &Observed, actions: &Actions) -> Result<(), Stop> {
        if actions.kill_pod {
            if actions.create_sandbox && actions.sandbox.is_some() {
                let message = "Pod sandbox changed, it will be killed and re-created.";
                let about = spec::reference(pod);
                self.cx.recorder.normal(about, "SandboxChanged", message);
            }
            self.kill_all(pod, seen, spec::grace(pod)).await?;
            if actions.create_sandbox {
                // Init containers run anew in the new sandbox: what they did in the old one says nothing.
                for container in spec::init_containers(pod) {
                    for old in seen.named(&container.name) {
                        self.remove(old).await?;
                    }
                }
                // What remains of the old ones must not be taken for the new ones.
                self.cx.view.refresh(&self.entry.uid).await?;
            }
            return Ok(());
        }
        for kill in &actions.kill {
            if let Some(container) = seen.by_id(&kill.id) {
                let (message, probe) = (kill.message.clone(), kill.probe);
                self.kill_one(pod, container, message, probe).await?;
            }
        }
        if !actions.kill.is_empty() {
            self.cx.view.refresh(&self.entry.uid).await?;
        }
        Ok(())
    }

    /// Starts what is to be started. Returns when to look again at the latest, and whether anything was started.
    async fn start_all(
        &self,
        stage: &Stage<'_>,
        actions: &Actions,
    ) -> Result<(Duration, bool), Stop> {
        let pod = stage.pod;
        let mut wait = Duration::MAX;
        let mut any = false;
        let mut note = |started: Result<(), NotStarted>| match started {
            Ok(()) => {
                any = true;
                Ok(true)
            }
            Err(NotStarted::Away) => Err(Stop::Away),
            Err(NotStarted::Waits(after)) => {
                wait = wait.min(after);
                Ok(false)
            }
        };
        let ephemeral = spec::ephemeral_containers(pod);
        for at in &actions.ephemeral {
            let container = &ephemeral[*at];
            note(self.start(stage, ContainerKind::Ephemeral, container).await)?;
        }
        for at in &actions.init {
            let container = &spec::init_containers(pod)[*at];
            let started = note(self.start(stage, ContainerKind::Init, container).await)?;
            if !started && !spec::is_sidecar(container) {
                return Ok((wait, any));
            }
        }
        for at in &actions.regular {
            let container = &spec::containers(pod)[*at];
            note(self.start(stage, ContainerKind::Regular, container).await)?;
        }
        Ok((wait, any))
    }

    /// Removes ended containers, but for the newest one of each name, which is kept to be looked at, and sandboxes that nothing is in.
    async fn prune(&self, seen: &Observed) -> Result<(), Stop> {
        let mut ended: BTreeMap<&str, u32> = BTreeMap::new();
        let mut kept = Vec::new();
        for container in &seen.containers {
            let dead = matches!(
                container.state,
                ContainerState::Exited | ContainerState::Created
            );
            let count = ended.entry(super::observed::container_name(container));
            let count = count.or_default();
            *count += u32::from(dead);
            if dead && *count > 1 {
                self.remove(container).await?;
            } else {
                kept.push(&container.sandbox);
            }
        }
        for sandbox in seen.sandboxes.iter().skip(1) {
            let empty = !kept.contains(&&sandbox.id);
            if sandbox.state == SandboxState::NotReady && empty {
                self.cx.runtime.remove_sandbox(&sandbox.id).await?;
            }
        }
        Ok(())
    }

    /// Whether the pod has run for longer than it may.
    fn is_past_deadline(&self, pod: &Pod) -> bool {
        if self.left_of_deadline(pod) != Some(Duration::ZERO) {
            return false;
        }
        let message = "Pod was active on the node longer than the specified deadline";
        let about = spec::reference(pod);
        self.cx.recorder.normal(about, "DeadlineExceeded", message);
        self.state.lock().verdict = Some(Verdict {
            reason: "DeadlineExceeded".to_owned(),
            message: message.to_owned(),
        });
        true
    }

    /// How much of the pod's time is left.
    fn left_of_deadline(&self, pod: &Pod) -> Option<Duration> {
        let allowed = u64::try_from(spec::spec(pod).active_deadline_seconds?).ok()?;
        let state = self.state.lock();
        let began = state.status.as_ref()?.start_time.as_ref()?.0;
        let ran = self.cx.env.wall().duration_since(began);
        let ran = Duration::try_from(ran).unwrap_or_default();
        Some(Duration::from_secs(allowed).saturating_sub(ran))
    }

    /// When something is due of which nobody tells.
    fn next_look(&self, pod: &Pod) -> Duration {
        let now = self.cx.env.now();
        let deadline = self.left_of_deadline(pod);
        let state = self.state.lock();
        let adopted = state.adopted.values().map(|until| until.since(now));
        let adopted = adopted.filter(|left| !left.is_zero());
        let soonest = adopted.chain(deadline).min();
        soonest.map_or(Duration::MAX, |left| left + Duration::from_millis(1))
    }

    /// What the probes of a container say, or what is believed until they can say anything.
    pub(super) fn probe(&self, id: &ContainerId) -> ProbeState {
        let mut said = self.cx.parts.probes.state(id);
        let mut state = self.state.lock();
        let Some(until) = state.adopted.get(id).copied() else {
            return said;
        };
        let answered = said.ready != Some(false) && said.started != Some(false);
        if answered || said.failed.is_some() || self.cx.env.now() >= until {
            state.adopted.remove(id);
            return said;
        }
        said.started = said.started.map(|_| true);
        said.ready = said.ready.map(|_| true);
        said
    }

    pub(super) fn host_ips(&self) -> Vec<IpAddr> {
        let own = &self.cx.config.node_ips;
        if own.is_empty() {
            self.cx.node.addresses()
        } else {
            own.clone()
        }
    }

    /// Ends all that the pod has running.
    async fn terminate(&self) {
        let began = self.cx.env.now();
        let uid = &self.entry.uid;
        self.cx.parts.probes.terminating(uid);
        self.state.lock().waiting.clear();
        loop {
            let grace = self.entry.grace();
            let shorter = || self.entry.grace() < grace;
            match self.interruptible(self.end_all(grace), shorter).await {
                Some(Ok(())) => break,
                // The time was cut: what is left of it is given.
                None => {}
                Some(Err(stop)) => {
                    let wait = match stop {
                        Stop::Away => LONGEST_WAIT,
                        Stop::Again(wait) => wait,
                    };
                    self.wait(wait).await;
                }
            }
        }
        self.cx.parts.probes.forget_pod(uid);
        if !self.has_nothing_to_tell(&self.entry.pod()) {
            self.report(true).await;
        }
        let took = self.cx.env.now().since(began);
        self.cx.metrics.worked("terminating", took);
    }

    /// Whether the API knows already that the pod has come to its end, and the runtime has nothing of it: one that an earlier agent refused,
    /// or whose containers were removed.
    fn has_nothing_to_tell(&self, pod: &Pod) -> bool {
        spec::is_finished(pod) && self.cx.view.get(&self.entry.uid).is_empty()
    }

    async fn end_all(&self, grace: Duration) -> Result<(), Stop> {
        let pod = self.entry.pod();
        let seen = self.look(&pod).await?;
        if !self.has_nothing_to_tell(&pod) {
            self.report(false).await;
        }
        if !seen.is_active() {
            return Ok(());
        }
        if let Err(error) = self.kill_all(&pod, &seen, grace).await {
            if !matches!(error, RuntimeError::Unavailable(_)) {
                let message = format!("error killing pod: {error}");
                let about = spec::reference(&pod);
                self.cx.recorder.warning(about, "FailedKillPod", message);
                return Err(self.again());
            }
            return Err(error.into());
        }
        let seen = self.cx.view.refresh(&self.entry.uid).await?;
        if seen.is_active() {
            return Err(self.again());
        }
        Ok(())
    }

    /// Gives back what the pod had beside containers: volumes, then its cgroup.
    async fn give_back(&self) {
        let began = self.cx.env.now();
        let (parts, uid) = (&self.cx.parts, &self.entry.uid);
        loop {
            let result = async {
                parts.volumes.tear_down(uid).await?;
                parts.cgroups.remove(uid).await
            };
            let Err(error) = result.await else { break };
            let pod = self.entry.pod();
            tracing::warn!(pod = %spec::in_words(&pod), %error, "a pod's volumes or cgroup are still there");
            if let Stop::Again(wait) = self.failed(&pod, error) {
                self.wait(wait).await;
            }
        }
        let took = self.cx.env.now().since(began);
        self.cx.metrics.worked("terminated", took);
    }

    /// Waits until the pod is gone from its source. If its deletion was asked for, it is this worker that grants it.
    async fn wait_until_gone(&self) {
        let mut removed = false;
        loop {
            let (pod, api, gone) = {
                let desired = self.entry.desired.lock();
                (desired.pod.clone(), desired.api.clone(), desired.gone)
            };
            let deleted = spec::is_being_deleted(&pod);
            if (gone || deleted) && !removed {
                match self.remove_all(&pod).await {
                    Ok(()) => removed = true,
                    Err(stop) => {
                        let wait = match stop {
                            Stop::Away => LONGEST_WAIT,
                            Stop::Again(wait) => wait,
                        };
                        self.wait(wait).await;
                        continue;
                    }
                }
            }
            if gone {
                return;
            }
            if deleted && !spec::is_static(&pod) {
                self.cx.writer.delete(&self.entry.uid, api.unwrap_or(pod));
            }
            self.entry.bell.notified().await;
        }
    }

    /// Makes room for who comes after.
    fn leave(&self) {
        let uid = &self.entry.uid;
        self.cx.writer.forget(uid);
        self.cx.entries.lock().remove(uid);
        self.cx.waker.forget(uid);
        self.cx.metrics.desired(self.cx.entries.lock().len());
        if let Some(next) = self.cx.names.release(&self.entry.pod(), uid) {
            self.cx.waker.wake(&next);
        }
        self.cx.ended.notify_one();
    }

    pub(super) fn now(&self) -> Timestamp {
        self.cx.env.wall()
    }

    /// Notes how long it took until the pod ran.
    pub(super) fn measure(&self, status: &PodStatus) {
        let mut state = self.state.lock();
        if status.phase.as_deref() == Some("Running") && !state.measured {
            state.measured = true;
            let took = self.cx.env.now().since(self.entry.seen_at);
            self.cx.metrics.pod_started(took);
        }
    }
}
