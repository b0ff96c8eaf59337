//! A watcher: a bounded queue that the cache fills and a request empties.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::Stream;
use orlop_core::client::WatchEvent;
use orlop_core::revision::Revision;
use orlop_core::status::Status;
use parking_lot::Mutex;

use super::kind::{Bucket, CacheEvent, KindCache};
use super::selection::Selection;

/// How many changes may wait for a watcher beyond those of its start; with more, it is dropped.
const QUEUE_LIMIT: usize = 4_096;

/// The changes that wait for a watcher.
pub(super) struct Queue {
    state: Mutex<QueueState>,
}

struct QueueState {
    events: VecDeque<Arc<CacheEvent>>,
    /// The most that may wait; history at the start does not count against it.
    limit: usize,
    /// Why no more will come.
    closed: Option<Closed>,
    waker: Option<Waker>,
}

enum Closed {
    /// It did not keep up: what waits is delivered, then the stream ends, and the client comes back with the last revision it saw.
    Slow,
    /// It must list again.
    Failed(Box<Status>),
}

impl Queue {
    pub(super) fn new(missed: Vec<Arc<CacheEvent>>) -> Self {
        let limit = QUEUE_LIMIT + missed.len();
        Self {
            state: Mutex::new(QueueState {
                events: missed.into(),
                limit,
                closed: None,
                waker: None,
            }),
        }
    }

    /// Adds a change. Never waits.
    pub(super) fn push(&self, event: &Arc<CacheEvent>) {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return;
        }
        if state.events.len() >= state.limit {
            state.closed = Some(Closed::Slow);
        } else {
            state.events.push_back(event.clone());
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn close(&self, status: Status) {
        let mut state = self.state.lock();
        state.closed.get_or_insert(Closed::Failed(Box::new(status)));
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// What a watcher yields.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// How the selection sees the change.
    pub(crate) event: WatchEvent,
    /// The commit.
    pub(crate) revision: Revision,
}

/// One watch of one kind: a stream of the changes that its selection sees. Ends when the watcher was too slow.
pub(crate) struct Watcher {
    cache: Arc<KindCache>,
    bucket: Bucket,
    id: u64,
    queue: Arc<Queue>,
    selection: Arc<Selection>,
    /// Changes up to this one are not told of: the client knows them, or asked for a revision that is yet to come.
    after: Revision,
}

impl Watcher {
    pub(super) fn new(
        cache: Arc<KindCache>,
        bucket: Bucket,
        id: u64,
        queue: Arc<Queue>,
        selection: Arc<Selection>,
        after: Revision,
    ) -> Self {
        Self {
            cache,
            bucket,
            id,
            queue,
            selection,
            after,
        }
    }

    /// How the selection sees a change: what begins to match appears, what ceases to match goes.
    fn view(&self, event: &CacheEvent) -> Option<WatchEvent> {
        let now = !event.deleted && self.selection.matches(&event.object);
        let before = event
            .previous
            .as_ref()
            .is_some_and(|previous| self.selection.matches(previous));
        match (before, now) {
            (false, true) => Some(WatchEvent::Added(event.object.clone())),
            (true, true) => Some(WatchEvent::Modified(event.object.clone())),
            // Who no longer matches goes as it last matched, at the revision of the change.
            (true, false) => {
                let last = event.previous.as_ref().unwrap_or(&event.object);
                Some(WatchEvent::Deleted(last.with_revision(event.revision)))
            }
            (false, false) => None,
        }
    }
}

impl Stream for Watcher {
    type Item = Result<Delivery, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let event = {
                let mut state = self.queue.state.lock();
                match state.events.pop_front() {
                    Some(event) => event,
                    None => match state.closed.take() {
                        Some(Closed::Slow) => {
                            state.closed = Some(Closed::Slow);
                            return Poll::Ready(None);
                        }
                        Some(Closed::Failed(status)) => {
                            state.closed = Some(Closed::Slow);
                            return Poll::Ready(Some(Err(*status)));
                        }
                        None => {
                            state.waker = Some(cx.waker().clone());
                            return Poll::Pending;
                        }
                    },
                }
            };
            if event.revision <= self.after {
                continue;
            }
            if let Some(view) = self.view(&event) {
                return Poll::Ready(Some(Ok(Delivery {
                    event: view,
                    revision: event.revision,
                })));
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.cache.remove_watcher(&self.bucket, self.id);
    }
}
