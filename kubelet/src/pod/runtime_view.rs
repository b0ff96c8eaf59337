//! [`RuntimeView`]: what the runtime has, by pods, and who is woken when that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use futures::{FutureExt, StreamExt};
use orlop_core::env::{Env, Moment};
use orlop_core::runtime::{
    Container, ContainerFilter, ContainerState, EventStream, NamespaceMode, Runtime, RuntimeError,
    RuntimeEvent, Sandbox, SandboxFilter, SandboxId, SandboxState,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::metrics::Metrics;
use super::observed::Observed;
use super::waker::Waker;
use crate::labels;

/// How often everything is listed although the runtime tells of changes by itself: upstream's period of the evented PLEG.
const RELIST_WITH_EVENTS: Duration = Duration::from_secs(300);
/// For how long listing may fail before the agent counts as stuck: upstream's threshold.
const RELIST_THRESHOLD: Duration = Duration::from_secs(180);

/// What is known of the runtime itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Its name, which begins the ids of containers in the API.
    pub(crate) name: String,
    /// Whether its default handler can mount read-only with all that lies below.
    pub(crate) recursive_read_only: bool,
}

#[derive(Default)]
struct State {
    pods: BTreeMap<String, Arc<Observed>>,
    /// How many looks at the runtime have begun.
    looks: u64,
    /// The look that showed what is known of a pod. One that began earlier and came back later says nothing new.
    shown_by: BTreeMap<String, u64>,
    /// When everything was listed last.
    listed_at: Option<Moment>,
    facts: Option<Arc<Facts>>,
    /// Whether everything was listed at least once.
    listed: bool,
    /// Whether the runtime answered when it was last asked.
    up: bool,
}

/// A copy of what the runtime has. Workers read afresh what they act upon; this is for those who only look, and to notice changes.
pub(crate) struct RuntimeView {
    runtime: Arc<dyn Runtime>,
    env: Env,
    waker: Waker,
    period: Duration,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Rung when everything was listed for the first time.
    pub(crate) first_list: Notify,
}

impl RuntimeView {
    pub(crate) fn new(
        runtime: Arc<dyn Runtime>,
        env: Env,
        waker: Waker,
        period: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            runtime,
            env,
            waker,
            period: period.max(Duration::from_millis(10)),
            metrics,
            state: Mutex::default(),
            first_list: Notify::new(),
        }
    }

    /// What was last seen of a pod.
    pub(crate) fn get(&self, uid: &str) -> Arc<Observed> {
        self.state.lock().pods.get(uid).cloned().unwrap_or_default()
    }

    /// The uids of all pods of which there is something.
    pub(crate) fn uids(&self) -> Vec<String> {
        self.state.lock().pods.keys().cloned().collect()
    }

    /// How long ago everything was listed, and how long that may be; `None` if it never was.
    pub(crate) fn age(&self) -> Option<(Duration, Duration)> {
        let state = self.state.lock();
        let age = self.env.now().since(state.listed_at?);
        // A runtime that tells of changes is not listed often, as long as it answers.
        let pause = if state.up {
            RELIST_WITH_EVENTS
        } else {
            Duration::ZERO
        };
        Some((age, pause + RELIST_THRESHOLD))
    }

    pub(crate) fn has_listed(&self) -> bool {
        self.state.lock().listed
    }

    /// The runtime's name and abilities; asked for once.
    ///
    /// # Errors
    /// The runtime does not answer.
    pub(crate) async fn facts(&self) -> Result<Arc<Facts>, RuntimeError> {
        if let Some(known) = self.state.lock().facts.clone() {
            return Ok(known);
        }
        let status = self.runtime.status().await?;
        let default = status.handlers.iter().find(|one| one.name.is_empty());
        let facts = Arc::new(Facts {
            name: status.version.name,
            recursive_read_only: default.is_some_and(|one| one.recursive_read_only_mounts),
        });
        self.state.lock().facts = Some(facts.clone());
        Ok(facts)
    }

    /// Reads afresh what there is of a pod.
    ///
    /// # Errors
    /// The runtime does not answer: what was seen stays.
    pub(crate) async fn refresh(&self, uid: &str) -> Result<Arc<Observed>, RuntimeError> {
        let look = self.look();
        let labels = BTreeMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
        let sandboxes = SandboxFilter {
            labels: labels.clone(),
            ..SandboxFilter::default()
        };
        let containers = ContainerFilter {
            labels,
            ..ContainerFilter::default()
        };
        let mut sandboxes = self.runtime.sandboxes(&sandboxes).await?;
        let mut containers = self.runtime.containers(&containers).await?;
        for sandbox in &mut sandboxes {
            if lacks_addresses(sandbox) {
                found(self.runtime.sandbox(&sandbox.id).await, sandbox)?;
            }
        }
        for container in &mut containers {
            if lacks_exit(container) {
                found(self.runtime.container(&container.id).await, container)?;
            }
        }
        let seen = Arc::new(Observed::sorted(sandboxes, containers));
        self.store(uid, look, seen.clone());
        Ok(seen)
    }

    /// The number of a look that begins now.
    fn look(&self) -> u64 {
        let mut state = self.state.lock();
        state.looks += 1;
        state.looks
    }

    /// Keeps what a look showed of a pod. Whether that is something else than before.
    fn store(&self, uid: &str, look: u64, seen: Arc<Observed>) -> bool {
        let mut state = self.state.lock();
        match state.shown_by.get_mut(uid) {
            Some(by) if *by > look => return false,
            Some(by) => *by = look,
            None => {
                state.shown_by.insert(uid.to_owned(), look);
            }
        }
        if seen.is_empty() {
            return state.pods.remove(uid).is_some();
        }
        match state.pods.get_mut(uid) {
            Some(before) if *before == seen => false,
            Some(before) => {
                *before = seen;
                true
            }
            None => {
                state.pods.insert(uid.to_owned(), seen);
                true
            }
        }
    }

    /// Lists everything and wakes the workers of pods of which something is different.
    async fn relist(&self) -> Result<(), RuntimeError> {
        let (began, look) = (self.env.now(), self.look());
        let listed = self.list().await;
        self.metrics
            .relisted(self.env.now().since(began), listed.is_ok());
        let (sandboxes, containers) = match listed {
            Ok(listed) => listed,
            Err(error) => {
                if std::mem::replace(&mut self.state.lock().up, false) {
                    tracing::warn!(%error, "the runtime does not answer");
                }
                return Err(error);
            }
        };
        let mut running = (0, 0, 0, 0);
        let mut owners: BTreeMap<SandboxId, String> = BTreeMap::new();
        let mut pods: BTreeMap<String, (Vec<Sandbox>, Vec<Container>)> = BTreeMap::new();
        for sandbox in sandboxes {
            running.0 += usize::from(sandbox.state == SandboxState::Ready);
            let uid = sandbox.metadata.uid.clone();
            owners.insert(sandbox.id.clone(), uid.clone());
            pods.entry(uid).or_default().0.push(sandbox);
        }
        for container in containers {
            match container.state {
                ContainerState::Running => running.1 += 1,
                ContainerState::Created => running.2 += 1,
                _ => running.3 += 1,
            }
            let label = container.labels.get(labels::POD_UID).cloned();
            if let Some(uid) = label.or_else(|| owners.get(&container.sandbox).cloned()) {
                pods.entry(uid).or_default().1.push(container);
            }
        }
        let (pods_running, containers_running, created, exited) = running;
        self.metrics
            .running(pods_running, containers_running, created, exited);
        let gone: Vec<String> = {
            let state = self.state.lock();
            let gone = state.pods.keys().filter(|uid| !pods.contains_key(*uid));
            gone.cloned().collect()
        };
        for uid in gone {
            if self.store(&uid, look, Arc::default()) {
                self.waker.wake(&uid);
            }
        }
        for (uid, (sandboxes, containers)) in pods {
            let seen = Arc::new(Observed::sorted(sandboxes, containers));
            if self.store(&uid, look, seen) {
                self.waker.wake(&uid);
            }
        }
        let (was_up, was_listed) = {
            let mut state = self.state.lock();
            let state = &mut *state;
            let (pods, shown_by) = (&state.pods, &mut state.shown_by);
            // What is gone is remembered for as long as an older look may come back.
            shown_by.retain(|uid, by| *by >= look || pods.contains_key(uid));
            state.listed_at = Some(self.env.now());
            (
                std::mem::replace(&mut state.up, true),
                std::mem::replace(&mut state.listed, true),
            )
        };
        if !was_listed {
            self.first_list.notify_waiters();
        }
        if !was_up {
            // Whoever waited for the runtime goes on.
            self.waker.wake_all();
        }
        Ok(())
    }

    async fn list(&self) -> Result<(Vec<Sandbox>, Vec<Container>), RuntimeError> {
        self.facts().await?;
        let sandboxes = self.runtime.sandboxes(&SandboxFilter::default()).await?;
        let containers = self.runtime.containers(&ContainerFilter::default()).await?;
        Ok((sandboxes, containers))
    }

    /// Follows the runtime, for ever: by its events, or where it has none by listing again and again.
    pub(crate) async fn follow(&self) {
        loop {
            // Events are asked for before the list, so that none falls between.
            let events = match self.runtime.events().await {
                Ok(events) => Some(events),
                Err(error) if error.is_unsupported() => None,
                Err(_) => {
                    // What it has cannot be listed either, but who looks must know.
                    let _ = self.relist().await;
                    self.env.sleep(self.period).await;
                    continue;
                }
            };
            if self.relist().await.is_err() {
                self.env.sleep(self.period).await;
                continue;
            }
            match events {
                Some(events) => self.follow_events(events).await,
                None => loop {
                    self.env.sleep(self.period).await;
                    // A failed list is tried again after the same while.
                    let _ = self.relist().await;
                },
            }
        }
    }

    /// Returns when the stream has ended, or it is time to list again.
    async fn follow_events(&self, mut events: EventStream) {
        let until = self.env.now() + RELIST_WITH_EVENTS;
        let mut end = self.env.sleep_until(until);
        loop {
            let first = match select(events.next(), &mut end).await {
                Either::Left((Some(Ok(event)), _)) => event,
                Either::Left((Some(Err(error)), _)) => {
                    tracing::debug!(%error, "the runtime's events ended");
                    return;
                }
                Either::Left((None, _)) => {
                    // A runtime that went away is not asked without a pause.
                    self.env.sleep(self.period).await;
                    return;
                }
                Either::Right(_) => return,
            };
            let mut changed = vec![first];
            while let Some(Some(Ok(event))) = events.next().now_or_never() {
                changed.push(event);
            }
            let mut uids = BTreeSet::new();
            for event in changed {
                uids.extend(self.owner(&event).await);
            }
            for uid in uids {
                let before = self.get(&uid);
                match self.refresh(&uid).await {
                    Ok(after) if after == before => {}
                    Ok(_) => self.waker.wake(&uid),
                    Err(_) => return,
                }
            }
        }
    }

    /// The pod that an event is about.
    async fn owner(&self, event: &RuntimeEvent) -> Option<String> {
        let id = event.subject.sandbox();
        let known = {
            let state = self.state.lock();
            let mut pods = state.pods.iter();
            let owns =
                |(_, seen): &(&String, &Arc<Observed>)| seen.sandboxes.iter().any(|s| s.id == *id);
            pods.find(owns).map(|(uid, _)| uid.clone())
        };
        match known {
            Some(uid) => Some(uid),
            None => Some(self.runtime.sandbox(id).await.ok()?.metadata.uid),
        }
    }
}

/// A sandbox that is ready and not in the host's network has addresses; a list may leave them out.
fn lacks_addresses(sandbox: &Sandbox) -> bool {
    sandbox.state == SandboxState::Ready
        && sandbox.addresses.is_empty()
        && sandbox.namespaces.network != NamespaceMode::Node
}

/// How a container ended; a list may leave it out.
fn lacks_exit(container: &Container) -> bool {
    container.state == ContainerState::Exited && container.exit.is_none()
}

fn found<T>(answer: Result<T, RuntimeError>, into: &mut T) -> Result<(), RuntimeError> {
    match answer {
        Ok(found) => *into = found,
        // It went between two calls: the next look will not find it.
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use orlop_core::env::SimEnv;
    use orlop_core::runtime::SandboxConfig;
    use orlop_core::testing::SimulatedRuntime;

    use super::*;

    #[test]
    fn an_older_look_does_not_hide_what_a_newer_one_showed() {
        let sim = SimEnv::new(1);
        let runtime = Arc::new(SimulatedRuntime::new(sim.env()));
        let view = RuntimeView::new(
            runtime.clone(),
            sim.env(),
            Waker::new(),
            Duration::from_secs(1),
            Arc::new(Metrics::new()),
        );
        sim.block_on(async move {
            let old = view.look();
            let mut config = SandboxConfig::new("d", "web", "u");
            let label = (labels::POD_UID.to_owned(), "u".to_owned());
            config.labels.extend([label]);
            runtime.run_sandbox(&config).await.unwrap();
            assert_eq!(view.refresh("u").await.unwrap().sandboxes.len(), 1);
            assert!(!view.store("u", old, Arc::default()));
            assert_eq!(view.get("u").sandboxes.len(), 1);
            let new = view.look();
            assert!(view.store("u", new, Arc::default()));
            assert!(view.uids().is_empty());
        });
    }
}
