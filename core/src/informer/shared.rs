//! [`SharedInformer`]: one copy of a collection for many readers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::delta_fifo::{Delta, DeltaFifo, DeltaItem, DeltaKind};
use super::factory::Scope;
use super::indexer::Indexer;
use super::reflector::{Reflector, ReflectorOptions};
use crate::client::Client;
use crate::env::{CancelToken, Env, Flag, TaskGroup};
use crate::object::{Object, ObjectKey};
use crate::revision::Revision;

/// How a [`SharedInformer`] works.
#[derive(Clone, Debug)]
pub struct InformerOptions {
    /// How it lists and watches.
    pub reflector: ReflectorOptions,
    /// How many notices may wait for a subscriber before those about one object are merged. From then on what waits is bounded by the
    /// number of objects.
    pub pending_limit: usize,
}

impl Default for InformerOptions {
    fn default() -> Self {
        Self {
            reflector: ReflectorOptions::default(),
            pending_limit: 1024,
        }
    }
}

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// An object is there.
    Added {
        /// The object.
        object: Object,
        /// Whether it was there before the subscription began, or before the first list.
        initial: bool,
    },
    /// An object changed, or (with two equal versions) is shown again by a resync.
    Updated {
        /// How it was.
        old: Object,
        /// How it is.
        new: Object,
    },
    /// An object went.
    Deleted {
        /// How it last looked.
        object: Object,
        /// Whether its last state is not known: nobody saw the deletion, and `object` is what we had.
        unseen: bool,
    },
}

impl Notice {
    /// The object as it is, or last was.
    #[must_use]
    pub fn object(&self) -> &Object {
        match self {
            Self::Added { object, .. } | Self::Deleted { object, .. } => object,
            Self::Updated { new, .. } => new,
        }
    }

    /// How the object was before, for an update.
    #[must_use]
    pub fn old(&self) -> Option<&Object> {
        match self {
            Self::Updated { old, .. } => Some(old),
            _ => None,
        }
    }
}

/// A local copy of a collection with subscribers. Clones are the same informer.
///
/// Every subscriber has a buffer of its own: a slow one makes nobody wait. Past a limit the notices about one object are merged (two
/// updates into one from the first state to the last; what came and went while nobody looked is not told), so that a buffer never
/// holds more than the limit and one notice an object.
#[derive(Clone)]
pub struct SharedInformer(Arc<Inner>);

struct Inner {
    scope: Scope,
    env: Env,
    options: InformerOptions,
    indexer: Indexer,
    fifo: Arc<DeltaFifo>,
    reflector: Reflector,
    /// Held while a change is put into the indexer and told: who subscribes misses nothing and hears nothing twice.
    subscribers: Mutex<Vec<Arc<Buffer>>>,
    synced: Flag,
    stop: CancelToken,
    started: AtomicBool,
}

impl fmt::Debug for SharedInformer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedInformer")
            .field("scope", &self.0.scope)
            .field("indexer", &self.0.indexer)
            .finish()
    }
}

impl SharedInformer {
    /// An informer that does not run yet.
    #[must_use]
    pub fn new(client: Arc<dyn Client>, env: Env, scope: Scope, options: InformerOptions) -> Self {
        let indexer = Indexer::new();
        let fifo = Arc::new(DeltaFifo::new(indexer.clone()));
        let reflector = Reflector::new(
            client,
            env.clone(),
            scope.clone(),
            options.reflector.clone(),
            fifo.clone(),
        );
        Self(Arc::new(Inner {
            scope,
            env,
            options,
            indexer,
            fifo,
            reflector,
            subscribers: Mutex::default(),
            synced: Flag::new(),
            stop: CancelToken::new(),
            started: AtomicBool::new(false),
        }))
    }

    /// The collection that it follows.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.0.scope
    }

    /// The local copy. Read it; only the informer writes.
    #[must_use]
    pub fn indexer(&self) -> Indexer {
        self.0.indexer.clone()
    }

    /// Adds an index to the local copy; see [`Indexer::add_index`].
    pub fn add_index(
        &self,
        name: &str,
        words_of: impl Fn(&Object) -> Vec<String> + Send + Sync + 'static,
    ) {
        self.0.indexer.add_index(name, words_of);
    }

    /// Whether the local copy holds the first list.
    #[must_use]
    pub fn has_synced(&self) -> bool {
        self.0.synced.is_set()
    }

    /// Waits until the local copy holds the first list.
    pub async fn synced(&self) {
        self.0.synced.wait().await;
    }

    /// The revision up to which the server's changes have been received.
    #[must_use]
    pub fn last_revision(&self) -> Option<Revision> {
        self.0.reflector.last_revision()
    }

    /// Begins to tell of changes. What is there already comes first, as [`Notice::Added`].
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        let buffer = Arc::new(Buffer::new(self.0.options.pending_limit));
        let mut subscribers = self.0.subscribers.lock();
        for object in self.0.indexer.list() {
            buffer.push(
                Notice::Added {
                    object,
                    initial: true,
                },
                true,
            );
        }
        if self.0.stop.is_cancelled() {
            buffer.close();
        }
        subscribers.push(buffer.clone());
        drop(subscribers);
        Subscription {
            buffer,
            informer: self.clone(),
        }
    }

    /// Calls `handle` with every notice, in a task of its own in `group`.
    pub fn handle(
        &self,
        group: &TaskGroup,
        name: &'static str,
        mut handle: impl FnMut(Notice) + Send + 'static,
    ) -> Arc<HandlerSync> {
        let mut subscription = self.subscribe();
        let sync = Arc::new(HandlerSync {
            informer: self.clone(),
            buffer: subscription.buffer.clone(),
        });
        group.spawn_until_cancelled(name, async move {
            while let Some(notice) = subscription.next().await {
                handle(notice);
                subscription.buffer.settle();
            }
        });
        sync
    }

    /// Runs it as tasks of `group`. The second call does nothing.
    pub fn start(&self, group: &TaskGroup) {
        if self.0.started.swap(true, Ordering::AcqRel) {
            return;
        }
        let feed = self.clone();
        group.spawn_until_cancelled("informer-feed", async move {
            let run = feed.0.stop.run(feed.0.reflector.run());
            run.await;
        });
        let drain = self.clone();
        group.spawn_until_cancelled("informer-drain", async move {
            drain.0.stop.run(drain.drain()).await;
            for buffer in drain.0.subscribers.lock().iter() {
                buffer.close();
            }
        });
    }

    /// Stops it for good. Its subscriptions end; its local copy stays as it is.
    pub fn stop(&self) {
        self.0.stop.cancel();
        self.0.fifo.close();
        for buffer in self.0.subscribers.lock().iter() {
            buffer.close();
        }
    }

    /// The environment in which it runs.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.0.env
    }

    async fn drain(&self) {
        loop {
            // An empty first list is a sync without a pop.
            if self.0.fifo.has_synced() {
                self.0.synced.set();
            }
            let wait = self
                .0
                .fifo
                .pop(|key, deltas, initial| self.apply(key, deltas, initial));
            if self.has_synced() {
                if wait.await.is_none() {
                    return;
                }
                continue;
            }
            // `pop` sleeps over an empty first list, which wakes the queue but gives it nothing to pop.
            match futures::future::select(
                std::pin::pin!(wait),
                std::pin::pin!(self.0.fifo.populated()),
            )
            .await
            {
                futures::future::Either::Left((None, _)) => return,
                futures::future::Either::Left((Some(()), _))
                | futures::future::Either::Right(_) => {}
            }
        }
    }

    fn apply(&self, key: &ObjectKey, deltas: Vec<Delta>, initial: bool) {
        let mut subscribers = self.0.subscribers.lock();
        // Who dropped its subscription is forgotten.
        subscribers.retain(|buffer| Arc::strong_count(buffer) > 1);
        for Delta { kind, item } in deltas {
            let notice = match (kind, item) {
                (DeltaKind::Deleted, item) => {
                    let unseen = matches!(item, DeltaItem::Tombstone(_));
                    if self.0.indexer.remove(key).is_none() {
                        continue;
                    }
                    Notice::Deleted {
                        object: item.object().clone(),
                        unseen,
                    }
                }
                (_, item) => {
                    let new = item.object().clone();
                    match self.0.indexer.upsert(new.clone()) {
                        None => Notice::Added {
                            object: new,
                            initial,
                        },
                        Some(old) => Notice::Updated { old, new },
                    }
                }
            };
            for buffer in subscribers.iter() {
                buffer.push(notice.clone(), initial);
            }
        }
    }
}

/// Tells whether a handler has been told of everything that was there at first.
pub struct HandlerSync {
    informer: SharedInformer,
    buffer: Arc<Buffer>,
}

impl fmt::Debug for HandlerSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerSync")
            .field("synced", &self.has_synced())
            .finish()
    }
}

impl HandlerSync {
    /// Whether the handler has returned from every notice about what was there at first.
    #[must_use]
    pub fn has_synced(&self) -> bool {
        self.informer.has_synced() && self.buffer.initial.load(Ordering::Acquire) == 0
    }

    /// Waits until [`has_synced`](Self::has_synced).
    pub async fn synced(&self) {
        self.informer.synced().await;
        loop {
            let settled = self.buffer.settled.notified();
            let mut settled = std::pin::pin!(settled);
            settled.as_mut().enable();
            if self.has_synced() {
                return;
            }
            settled.await;
        }
    }
}

/// What one subscriber has not been told yet.
struct Buffer {
    limit: usize,
    pending: Mutex<Pending>,
    wake: Notify,
    /// How many initial notices the subscriber has not finished with.
    initial: AtomicUsize,
    settled: Notify,
}

#[derive(Default)]
struct Pending {
    notices: BTreeMap<u64, (Notice, bool)>,
    latest: BTreeMap<ObjectKey, u64>,
    next: u64,
    closed: bool,
    /// Whether the notice that was taken last was an initial one.
    taken_initial: bool,
}

impl Buffer {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            pending: Mutex::default(),
            wake: Notify::new(),
            initial: AtomicUsize::new(0),
            settled: Notify::new(),
        }
    }

    fn push(&self, notice: Notice, initial: bool) {
        let mut guard = self.pending.lock();
        let pending = &mut *guard;
        let key = notice.object().key();
        if pending.notices.len() >= self.limit
            && let Some(place) = pending.latest.get(&key).copied()
            && let Some((earlier, _)) = pending.notices.get_mut(&place)
        {
            match merge(earlier, notice) {
                Some(merged) => *earlier = merged,
                None => {
                    pending.latest.remove(&key);
                    if let Some((_, true)) = pending.notices.remove(&place) {
                        self.initial.fetch_sub(1, Ordering::AcqRel);
                        self.settled.notify_waiters();
                    }
                }
            }
            return;
        }
        let place = pending.next;
        pending.next += 1;
        pending.notices.insert(place, (notice, initial));
        pending.latest.insert(key, place);
        if initial {
            self.initial.fetch_add(1, Ordering::AcqRel);
        }
        drop(guard);
        self.wake.notify_one();
    }

    fn take(&self) -> Option<Option<Notice>> {
        self.settle();
        let mut pending = self.pending.lock();
        let Some((place, (notice, initial))) = pending.notices.pop_first() else {
            return pending.closed.then_some(None);
        };
        let key = notice.object().key();
        if pending.latest.get(&key) == Some(&place) {
            pending.latest.remove(&key);
        }
        pending.taken_initial = initial;
        Some(Some(notice))
    }

    /// The subscriber is done with the notice that it took.
    fn settle(&self) {
        if std::mem::take(&mut self.pending.lock().taken_initial) {
            self.initial.fetch_sub(1, Ordering::AcqRel);
            self.settled.notify_waiters();
        }
    }

    fn close(&self) {
        self.pending.lock().closed = true;
        self.wake.notify_one();
    }
}

/// Two notices about one object as one; `None` for "nothing to tell".
fn merge(earlier: &Notice, later: Notice) -> Option<Notice> {
    match (earlier, later) {
        (
            Notice::Added { initial, .. },
            Notice::Updated { new: object, .. } | Notice::Added { object, .. },
        ) => Some(Notice::Added {
            object,
            initial: *initial,
        }),
        (Notice::Added { .. }, Notice::Deleted { .. }) => None,
        (
            Notice::Updated { old, .. },
            Notice::Updated { new, .. } | Notice::Added { object: new, .. },
        )
        | (
            Notice::Deleted { object: old, .. },
            Notice::Added { object: new, .. } | Notice::Updated { new, .. },
        ) => Some(Notice::Updated {
            old: old.clone(),
            new,
        }),
        (_, deleted @ Notice::Deleted { .. }) => Some(deleted),
    }
}

/// What a [`SharedInformer`] tells one of its readers. Dropping it ends it.
pub struct Subscription {
    buffer: Arc<Buffer>,
    informer: SharedInformer,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("informer", &self.informer)
            .finish_non_exhaustive()
    }
}

impl Subscription {
    /// The next notice; `None` when the informer was stopped. Nothing is lost when this future is dropped.
    pub async fn next(&mut self) -> Option<Notice> {
        loop {
            if let Some(taken) = self.buffer.take() {
                return taken;
            }
            self.buffer.wake.notified().await;
        }
    }

    /// The next notice, if one waits.
    pub fn try_next(&mut self) -> Option<Notice> {
        self.buffer.take().flatten()
    }

    /// Whether everything that was there at first has been taken and, by asking for more, been finished with.
    #[must_use]
    pub fn has_synced(&self) -> bool {
        self.informer.has_synced() && self.buffer.initial.load(Ordering::Acquire) == 0
    }

    /// The local copy that the notices are about. It is never older than a notice.
    #[must_use]
    pub fn indexer(&self) -> Indexer {
        self.informer.indexer()
    }
}
