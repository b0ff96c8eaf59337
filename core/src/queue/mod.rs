//! The work queue: what is to be done, each thing once, and again later when it fails.

mod limit;
mod metrics;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::env::{Env, Moment};

pub use self::limit::{RateLimit, TokenBucket};
pub use self::metrics::{QueueMetrics, WorkQueueMetrics};

/// A queue of things to do. Clones share it.
///
/// The rules are those of client-go's work queue:
///
/// * an item that is added while it waits is there once;
/// * an item that is added while somebody works on it waits until [`done`](Self::done) is called, and comes again then: nobody ever works
///   on an item that somebody else works on;
/// * items come in the order in which they were first added;
/// * after [`shut_down`](Self::shut_down) no more are added; what is queued is still handed out.
///
/// Whoever got an item calls [`done`](Self::done) when finished, then [`forget`](Self::forget) if it went well, or
/// [`add_rate_limited`](Self::add_rate_limited) to have it again after a wait that grows from time to time.
///
/// ```
/// use std::time::Duration;
/// use orlop_core::env::SimEnv;
/// use orlop_core::queue::{RateLimit, WorkQueue};
/// let sim = SimEnv::new(1);
/// let queue = WorkQueue::new(sim.env(), RateLimit::default());
/// sim.block_on(async move {
///     queue.add("a");
///     queue.add("a");
///     queue.add_after("b", Duration::from_secs(3600));
///     assert_eq!(queue.get().await, Some("a"));
///     queue.done(&"a");
///     assert_eq!(queue.get().await, Some("b")); // an hour later
/// });
/// ```
pub struct WorkQueue<T>(Arc<Inner<T>>);

struct Inner<T> {
    env: Env,
    limit: RateLimit,
    metrics: Arc<dyn QueueMetrics>,
    state: Mutex<State<T>>,
    wake: Notify,
    drained: Notify,
}

struct State<T> {
    order: VecDeque<T>,
    /// All that needs to be worked on, with when it was added.
    dirty: BTreeMap<T, Moment>,
    /// All that is being worked on, since when.
    processing: BTreeMap<T, Moment>,
    /// What is to be added later, by time, and the time of each.
    waiting: BTreeMap<(Moment, u64), T>,
    due: BTreeMap<T, (Moment, u64)>,
    sequence: u64,
    failures: BTreeMap<T, u32>,
    bucket: Option<TokenBucket>,
    closing: bool,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for WorkQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        f.debug_struct("WorkQueue")
            .field("queued", &state.order.len())
            .field("processing", &state.processing.len())
            .field("waiting", &state.waiting.len())
            .finish()
    }
}

impl<T: Ord + Clone> WorkQueue<T> {
    /// An empty queue without metrics.
    #[must_use]
    pub fn new(env: Env, limit: RateLimit) -> Self {
        Self::with_metrics(env, limit, Arc::new(()))
    }

    /// An empty queue that tells what happens in it.
    #[must_use]
    pub fn with_metrics(env: Env, limit: RateLimit, metrics: Arc<dyn QueueMetrics>) -> Self {
        let bucket = limit
            .bucket
            .map(|(per_second, burst)| TokenBucket::new(per_second, burst, env.now()));
        Self(Arc::new(Inner {
            env,
            limit,
            metrics,
            state: Mutex::new(State {
                order: VecDeque::new(),
                dirty: BTreeMap::new(),
                processing: BTreeMap::new(),
                waiting: BTreeMap::new(),
                due: BTreeMap::new(),
                sequence: 0,
                failures: BTreeMap::new(),
                bucket,
                closing: false,
            }),
            wake: Notify::new(),
            drained: Notify::new(),
        }))
    }

    /// Adds an item.
    pub fn add(&self, item: T) {
        let now = self.0.env.now();
        self.add_locked(&mut self.0.state.lock(), item, now);
    }

    fn add_locked(&self, state: &mut State<T>, item: T, now: Moment) {
        if state.closing || state.dirty.contains_key(&item) {
            return;
        }
        state.dirty.insert(item.clone(), now);
        let waits = !state.processing.contains_key(&item);
        if waits {
            state.order.push_back(item);
        }
        self.0.metrics.added(state.order.len());
        if waits {
            self.0.wake.notify_one();
        }
    }

    /// Adds an item after a while. Of two such calls the earlier time counts.
    pub fn add_after(&self, item: T, wait: Duration) {
        let now = self.0.env.now();
        let mut state = self.0.state.lock();
        if state.closing {
            return;
        }
        if wait.is_zero() {
            self.add_locked(&mut state, item, now);
            return;
        }
        let at = now + wait;
        if let Some(known) = state.due.get(&item).copied() {
            if known.0 <= at {
                return;
            }
            state.waiting.remove(&known);
        }
        let place = (at, state.sequence);
        state.sequence += 1;
        state.due.insert(item.clone(), place);
        state.waiting.insert(place, item);
        let first = state.waiting.first_key_value().map(|(place, _)| *place) == Some(place);
        drop(state);
        if first {
            // Somebody who sleeps has to look at the clock again.
            self.0.wake.notify_one();
        }
    }

    /// Adds an item after a wait that doubles with every call, until [`forget`](Self::forget).
    pub fn add_rate_limited(&self, item: T) {
        let now = self.0.env.now();
        let wait = {
            let mut state = self.0.state.lock();
            let failures = state.failures.entry(item.clone()).or_insert(0);
            let own = self.0.limit.wait_after(*failures);
            *failures = failures.saturating_add(1);
            let common = state
                .bucket
                .as_mut()
                .map_or(Duration::ZERO, |bucket| bucket.reserve(now));
            own.max(common)
        };
        self.0.metrics.retried();
        self.add_after(item, wait);
    }

    /// Forgets how often an item failed.
    pub fn forget(&self, item: &T) {
        self.0.state.lock().failures.remove(item);
    }

    /// How often an item was added by [`add_rate_limited`](Self::add_rate_limited) since it was last forgotten.
    #[must_use]
    pub fn num_requeues(&self, item: &T) -> u32 {
        self.0.state.lock().failures.get(item).copied().unwrap_or(0)
    }

    /// Waits for the next item; `None` when the queue is shut down and empty. Nothing is lost when this future is dropped.
    pub async fn get(&self) -> Option<T> {
        loop {
            let next = {
                let now = self.0.env.now();
                let mut guard = self.0.state.lock();
                let state = &mut *guard;
                self.ripen(state, now);
                if let Some(item) = state.order.pop_front() {
                    let added = state.dirty.remove(&item).unwrap_or(now);
                    state.processing.insert(item.clone(), now);
                    self.0.metrics.taken(state.order.len(), now.since(added));
                    return Some(item);
                }
                if state.closing {
                    // The others who wait are to hear of it, too.
                    self.0.wake.notify_one();
                    return None;
                }
                state.waiting.first_key_value().map(|((at, _), _)| *at)
            };
            let woken = self.0.wake.notified();
            match next {
                None => woken.await,
                Some(at) => match select(std::pin::pin!(woken), self.0.env.sleep_until(at)).await {
                    Either::Left(_) | Either::Right(_) => {}
                },
            }
        }
    }

    /// Moves what is due from the waiting to the queue.
    fn ripen(&self, state: &mut State<T>, now: Moment) {
        while let Some(entry) = state.waiting.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let item = entry.remove();
            state.due.remove(&item);
            self.add_locked(state, item, now);
        }
    }

    /// The work on an item is finished. If it was added meanwhile, it is queued again now.
    pub fn done(&self, item: &T) {
        let now = self.0.env.now();
        let mut state = self.0.state.lock();
        if let Some(began) = state.processing.remove(item) {
            self.0.metrics.finished(now.since(began));
        }
        if state.dirty.contains_key(item) {
            state.order.push_back(item.clone());
            self.0.wake.notify_one();
        }
        if state.processing.is_empty() && state.order.is_empty() {
            self.0.drained.notify_waiters();
        }
    }

    /// How many items wait to be worked on now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.state.lock().order.len()
    }

    /// Whether none wait.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many items are to be added later.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.state.lock().waiting.len()
    }

    /// Adds no more. What is queued is still handed out; what was to be added later is dropped.
    pub fn shut_down(&self) {
        let mut state = self.0.state.lock();
        state.closing = true;
        state.waiting.clear();
        state.due.clear();
        let idle = state.processing.is_empty() && state.order.is_empty();
        drop(state);
        // A stored permit for who comes next, and all who wait now.
        self.0.wake.notify_one();
        self.0.wake.notify_waiters();
        if idle {
            self.0.drained.notify_waiters();
        }
    }

    /// Shuts down and waits until all that was queued has been worked on.
    pub async fn shut_down_with_drain(&self) {
        self.shut_down();
        loop {
            let drained = self.0.drained.notified();
            let mut drained = std::pin::pin!(drained);
            drained.as_mut().enable();
            {
                let state = self.0.state.lock();
                if state.processing.is_empty() && state.order.is_empty() {
                    return;
                }
            }
            drained.await;
        }
    }

    /// Whether it was shut down.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        self.0.state.lock().closing
    }

    /// Tells the metrics how long the current work has taken so far; to be called before they are read.
    pub fn observe(&self) {
        let now = self.0.env.now();
        let state = self.0.state.lock();
        let ages: Vec<Duration> = state
            .processing
            .values()
            .map(|began| now.since(*began))
            .collect();
        drop(state);
        self.0.metrics.unfinished(
            ages.iter().sum(),
            ages.iter().max().copied().unwrap_or_default(),
        );
    }

    /// What is being worked on now.
    #[must_use]
    pub fn processing(&self) -> BTreeSet<T> {
        self.0.state.lock().processing.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
