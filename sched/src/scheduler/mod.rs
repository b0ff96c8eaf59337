//! [`Scheduler`]: the pods and nodes of a control plane, scheduled.

mod binding;
mod condition;
mod shared;
#[cfg(test)]
mod tests;
mod waiting;
mod watching;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::{Either, select};
use orlop_core::client::Client;
use orlop_core::env::{CancelToken, Env, Moment, TaskGroup};
use orlop_core::events::{EventBroadcaster, EventRecorder};
use orlop_core::scheduling::{Handle, Snapshot};
use tokio::sync::Semaphore;

use self::shared::Shared;
use crate::error::Error;
use crate::framework::{Cursor, Failure, Framework, Scratch};
use crate::metrics::SchedulerMetrics;
use crate::profile::Profile;
use crate::queue::{Attempt, QueueOptions};

/// After how many decisions in a row other tasks get their turn.
const BURST: usize = 32;

/// Builds a [`Scheduler`].
pub struct SchedulerBuilder {
    client: Arc<dyn Client>,
    env: Env,
    profiles: Vec<Profile>,
    queue: QueueOptions,
    metrics: SchedulerMetrics,
    recorder: Option<EventRecorder>,
    parallel_bindings: usize,
    patience: Option<Duration>,
}

impl fmt::Debug for SchedulerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchedulerBuilder")
            .field("profiles", &self.profiles)
            .finish_non_exhaustive()
    }
}

impl SchedulerBuilder {
    /// Adds a profile. A scheduler has one or more, all with the same QueueSort.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profiles.push(profile);
        self
    }

    /// Adds the profile `default-scheduler` with the default plug-ins.
    #[must_use]
    pub fn with_defaults(self) -> Self {
        self.profile(Profile::default_scheduler())
    }

    /// How the queue waits.
    #[must_use]
    pub fn queue(mut self, options: QueueOptions) -> Self {
        self.queue = options;
        self
    }

    /// Where to count.
    #[must_use]
    pub fn metrics(mut self, metrics: SchedulerMetrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Who tells of what happens to pods. Without one, events are written through the client, in the name of each profile.
    #[must_use]
    pub fn events(mut self, recorder: EventRecorder) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// How many bindings, and writes of conditions, may be under way at once; 512 without a word.
    #[must_use]
    pub fn parallel_bindings(mut self, limit: usize) -> Self {
        self.parallel_bindings = limit.max(1);
        self
    }

    /// How long to count on a bound pod that the API does not show. Without a word, for ever: its watch tells sooner or later.
    #[must_use]
    pub fn assume_for(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// The scheduler.
    ///
    /// # Errors
    /// [`Error`] for no profile, two of one name, an incomplete one, and different orders of the queue.
    pub fn build(self) -> Result<Scheduler, Error> {
        let mut frameworks: BTreeMap<String, Arc<Framework>> = BTreeMap::new();
        let mut sort: Option<String> = None;
        for profile in self.profiles {
            let name = profile.name().to_owned();
            let framework = Framework::new(profile)?;
            let this = framework.queue_sort_name().to_owned();
            match sort.replace(this.clone()) {
                Some(other) if other != this => return Err(Error::QueueSortsDiffer(other, this)),
                _ => {}
            }
            if frameworks
                .insert(name.clone(), Arc::new(framework))
                .is_some()
            {
                return Err(Error::DuplicateProfile(name));
            }
        }
        if frameworks.is_empty() {
            return Err(Error::NoProfile);
        }
        let shared = Shared::new(
            self.client,
            self.env,
            Arc::new(frameworks),
            self.queue,
            self.metrics,
            Arc::new(Semaphore::new(self.parallel_bindings)),
            self.patience,
        );
        Ok(Scheduler {
            shared,
            recorder: self.recorder,
        })
    }
}

/// Binds the pods of a control plane to its nodes.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use orlop_core::{client::Client, env::{CancelToken, Env}};
/// use orlop_sched::Scheduler;
/// # async fn example(client: Arc<dyn Client>, env: Env, cancel: CancelToken) -> Result<(), orlop_sched::Error> {
/// Scheduler::builder(client, env).with_defaults().build()?.run(cancel).await;
/// # Ok(())
/// # }
/// ```
///
/// A pod with a kind of constraint that no plug-in of its profile looks after (topology spread, affinity to pods, claimed volumes,
/// claimed devices, groups) is scheduled without regard to it, and a `Warning` event with the reason `ConstraintNotServed` says so,
/// once for each pod.
///
/// A plug-in that panics fails the attempt of its pod, not the scheduler.
pub struct Scheduler {
    shared: Arc<Shared>,
    recorder: Option<EventRecorder>,
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("profiles", &self.shared.frameworks.keys())
            .finish_non_exhaustive()
    }
}

impl Scheduler {
    /// A scheduler without profiles yet.
    #[must_use]
    pub fn builder(client: Arc<dyn Client>, env: Env) -> SchedulerBuilder {
        SchedulerBuilder {
            client,
            env,
            profiles: Vec::new(),
            queue: QueueOptions::default(),
            metrics: SchedulerMetrics::default(),
            recorder: None,
            parallel_bindings: 512,
            patience: None,
        }
    }

    /// Schedules until it is cancelled, then ends what is under way.
    pub async fn run(self, cancel: CancelToken) {
        let shared = self.shared;
        let env = shared.env.clone();
        let group = Arc::new(TaskGroup::with_parent(env.clone(), &cancel));
        // Bindings end by themselves, also while the rest stops.
        let bindings = TaskGroup::new(env.clone());
        let recorders: BTreeMap<String, EventRecorder> = match self.recorder {
            Some(recorder) => shared
                .frameworks
                .keys()
                .map(|name| (name.clone(), recorder.clone()))
                .collect(),
            None => {
                let broadcaster = EventBroadcaster::start(&group, shared.client.clone());
                shared
                    .frameworks
                    .keys()
                    .map(|name| (name.clone(), broadcaster.recorder(name)))
                    .collect()
            }
        };
        shared.set_recorders(recorders);
        let handle: Arc<dyn Handle> = shared.clone();
        for framework in shared.frameworks.values() {
            framework.attach(&handle);
        }
        let synced = watching::start(&shared, &group);
        if cancel.run(synced).await.is_some() {
            tracing::info!(profiles = ?shared.frameworks.keys(), "scheduling");
            let mut cycle = Cycle {
                shared: shared.clone(),
                snapshot: Snapshot::default(),
                cursors: BTreeMap::new(),
                scratch: Scratch::default(),
            };
            cancel.run(cycle.run(&bindings)).await;
        }
        shared.waiting.close();
        bindings.idle().await;
        group.shutdown().await;
    }
}

/// The one task that decides.
struct Cycle {
    shared: Arc<Shared>,
    snapshot: Snapshot,
    cursors: BTreeMap<String, Cursor>,
    scratch: Scratch,
}

impl Cycle {
    async fn run(&mut self, bindings: &TaskGroup) {
        let shared = self.shared.clone();
        let mut burst = 0;
        loop {
            let now = shared.env.now();
            shared.expire(now);
            let (attempt, next) = {
                let mut queue = shared.queue.lock();
                let attempt = queue.pop(now);
                (attempt, queue.next_flush())
            };
            let Some(attempt) = attempt else {
                shared.show_sizes();
                let next = next
                    .into_iter()
                    .chain(shared.cache.lock().next_expiry())
                    .min();
                self.idle(next).await;
                burst = 0;
                continue;
            };
            // A binding needs room before its pod is decided on, so that decisions don't run away from bindings.
            let Ok(room) = shared.room.clone().acquire_owned().await else {
                return;
            };
            self.attempt(attempt, room, bindings);
            burst += 1;
            if burst == BURST {
                burst = 0;
                shared.show_sizes();
                yield_now().await;
            }
        }
    }

    /// Waits until the queue has something new, or until a moment.
    async fn idle(&self, until: Option<Moment>) {
        let woken = pin!(self.shared.wake.notified());
        let Some(until) = until else {
            return woken.await;
        };
        match select(woken, self.shared.env.sleep_until(until)).await {
            Either::Left(_) | Either::Right(_) => {}
        }
    }

    /// One pod: decides, assumes, reserves, asks for permission, and hands over to the binding.
    fn attempt(
        &mut self,
        attempt: Attempt,
        room: tokio::sync::OwnedSemaphorePermit,
        bindings: &TaskGroup,
    ) {
        let shared = self.shared.clone();
        let started = shared.env.now();
        let pod = attempt.pod().clone();
        let Some(framework) = shared.frameworks.get(pod.scheduler_name()).cloned() else {
            shared.queue.lock().done(&pod);
            return;
        };
        if shared.skips(&pod) {
            shared.queue.lock().done(&pod);
            return;
        }
        if attempt.number() == 1 {
            shared.warn_of_unserved(&framework, &pod);
        }
        // Nothing here is left half done by a panic: the state belongs to this attempt, and the snapshot is only read.
        let decided = catch_unwind(AssertUnwindSafe(|| self.decide(&framework, &attempt)));
        let decided = decided.unwrap_or_else(|panic| Err(Failure::Error(panic_message(&*panic))));
        let result = match decided {
            Ok(decided) => decided,
            Err(failure) => {
                let group = bindings;
                shared.fail(&framework, attempt, &failure, started, group, Some(room));
                return;
            }
        };
        let task = binding::Binding {
            shared,
            framework,
            attempt,
            node: result.node,
            state: result.state,
            waits: result.waits,
            started,
        };
        bindings.spawn("bind", task.run(room));
    }

    fn decide(
        &mut self,
        framework: &Arc<Framework>,
        attempt: &Attempt,
    ) -> Result<Decided, Failure> {
        let shared = &self.shared;
        let pod = attempt.pod();
        shared.cache.lock().update(&mut self.snapshot);
        let cursor = self
            .cursors
            .entry(framework.name().to_string())
            .or_default();
        let began = shared.env.now();
        let mut tie = |bound| shared.env.random_below(bound);
        let placement =
            framework.schedule(pod, &self.snapshot, cursor, &mut tie, &mut self.scratch);
        shared.metrics.decision(shared.env.now().since(began));
        let placement = placement?;
        let node = self.snapshot.node(placement.node).name().clone();
        tracing::debug!(%pod, %node, evaluated = placement.evaluated, feasible = placement.feasible, "a node for the pod");
        let assumed = Arc::new(pod.on_node(&node));
        shared
            .cache
            .lock()
            .assume(assumed)
            .map_err(|error| Failure::Error(error.to_string()))?;
        let mut state = std::mem::take(&mut self.scratch.state);
        // From here on a failure has to be undone.
        let reserved = catch_unwind(AssertUnwindSafe(|| {
            framework.reserve(&mut state, pod, &node)?;
            framework
                .permit(&mut state, pod, &node)
                .inspect_err(|_| framework.unreserve(&mut state, pod, &node))
        }));
        let waits =
            match reserved.unwrap_or_else(|panic| Err(Failure::Error(panic_message(&*panic)))) {
                Ok(waits) => waits,
                Err(failure) => {
                    shared.forget(pod.key());
                    return Err(failure);
                }
            };
        if !waits.is_empty() {
            // Before the task runs: who allows it may be quicker.
            shared.waiting.add(
                pod,
                &node,
                waits
                    .iter()
                    .map(|(place, _)| framework.plugin_name(*place).to_owned()),
            );
        }
        Ok(Decided { node, state, waits })
    }
}

/// What the binding goes on with.
struct Decided {
    node: Arc<str>,
    state: orlop_core::scheduling::CycleState,
    waits: Vec<(usize, Duration)>,
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    format!("a scheduler plug-in panicked: {text}")
}

/// Lets other tasks run.
fn yield_now() -> impl Future<Output = ()> {
    let mut yielded = false;
    std::future::poll_fn(move |context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}
