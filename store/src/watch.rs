//! Watches: every watcher reads the history by itself, at its own pace.
//!
//! A writer rings one bell and goes on. One task hears it, looks which watchers the new commits concern, and wakes those alone; a
//! woken watcher takes what concerns it out of the shared history. Nothing is queued for a watcher: one that is too slow finds,
//! when it comes, that history no longer has what it needs, and its stream ends with [`StoreError::Lagged`].

mod registry;
mod spans;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::Stream;
use futures::task::AtomicWaker;
use orlop_core::env::CancelToken;
use orlop_core::revision::Revision;
use orlop_core::store::{Change, KeyRange, StoreError, WatchItem, WatchRequest, WatchStream};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use self::registry::Registry;
use crate::mvcc::{FIRST, Index};

/// How many commits are looked at under one hold of the index's lock.
const SCAN_STEP: usize = 512;

/// How many matching items a watcher takes at once.
const TAKE_STEP: usize = 128;

/// How many holds of the lock a watcher takes before it lets other tasks run.
const SCANS_PER_POLL: usize = 8;

/// What watchers read: the commits of a store that can be seen. Every commit takes the next revision, so that none can be missing between two.
pub(crate) trait Published: Send + Sync + 'static {
    /// The newest commit that can be seen.
    fn visible(&self) -> u64;

    /// The oldest revision that can be watched from.
    fn watchable(&self) -> u64;

    /// The commits that can be seen, from a revision on, at most `limit`; `None` when history does not reach back to it.
    fn commits(&self, from: u64, limit: usize) -> Option<impl Iterator<Item = &Arc<[Change]>>>;
}

impl Published for Index {
    fn visible(&self) -> u64 {
        Index::visible(self)
    }

    fn watchable(&self) -> u64 {
        Index::watchable(self)
    }

    fn commits(&self, from: u64, limit: usize) -> Option<impl Iterator<Item = &Arc<[Change]>>> {
        Index::commits(self, from, limit)
    }
}

/// What the watchers of a store share.
#[derive(Debug)]
pub(crate) struct Hub {
    registry: Mutex<Registry>,
    /// How many watchers there are; lets a writer go by without ringing.
    watchers: AtomicUsize,
    bell: Notify,
    /// All published commits up to this one have been offered to the watchers.
    offered: AtomicU64,
    closed: AtomicBool,
}

/// One watcher, as the task that wakes it sees it.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    waker: AtomicWaker,
    /// The first commit of interest since the watcher last looked; zero for none.
    first: AtomicU64,
}

impl Slot {
    fn mark(&self, revision: u64) -> bool {
        self.first
            .compare_exchange(0, revision, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

impl Hub {
    pub(crate) fn new(visible: u64) -> Self {
        Self {
            registry: Mutex::default(),
            watchers: AtomicUsize::new(0),
            bell: Notify::new(),
            offered: AtomicU64::new(visible),
            closed: AtomicBool::new(false),
        }
    }

    /// Tells the watchers that commits were published. Costs a writer the same however many there are.
    pub(crate) fn ring(&self) {
        if self.watchers.load(Ordering::Acquire) > 0 {
            self.bell.notify_one();
        }
    }

    /// The commit up to which every watcher that waits was told what concerns it.
    pub(crate) fn seen(&self) -> u64 {
        if self.watchers.load(Ordering::Acquire) == 0 {
            u64::MAX
        } else {
            self.offered.load(Ordering::Acquire)
        }
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let slots = self.registry.lock().all();
        for slot in slots {
            slot.waker.wake();
        }
    }

    /// Wakes watchers until it is cancelled.
    pub(crate) async fn run<P: Published>(&self, index: &RwLock<P>, token: CancelToken) {
        while token.run(self.bell.notified()).await.is_some() {
            while self.offer(index) {
                yield_now().await;
            }
        }
        self.close();
    }

    /// Offers commits to the watchers. True when there are more.
    fn offer<P: Published>(&self, index: &RwLock<P>) -> bool {
        let offered = self.offered.load(Ordering::Acquire);
        let (commits, visible) = {
            let index = index.read();
            let commits = index
                .commits(offered + 1, SCAN_STEP)
                .map(|commits| commits.cloned().collect::<Vec<_>>());
            (commits, index.visible())
        };
        let mut wake = Vec::new();
        let reached;
        {
            let registry = self.registry.lock();
            if let Some(commits) = commits {
                if commits.is_empty() {
                    return false;
                }
                reached = offered + commits.len() as u64;
                for (revision, commit) in (offered + 1..).zip(commits) {
                    for change in commit.iter() {
                        registry.interested(change.key(), |slot| {
                            if slot.mark(revision) {
                                wake.push(slot.clone());
                            }
                        });
                    }
                }
                wake.extend(registry.progress());
            } else {
                // History went by while this task did not run. Whoever waits has to see for itself what it missed.
                reached = visible;
                wake = registry.all();
                for slot in &wake {
                    slot.mark(offered + 1);
                }
            }
            self.offered.fetch_max(reached, Ordering::AcqRel);
        }
        for slot in wake {
            slot.waker.wake();
        }
        reached < visible
    }

    fn register<P: Published>(
        &self,
        index: &RwLock<P>,
        slot: &Arc<Slot>,
        request: &WatchRequest,
    ) -> u64 {
        let mut registry = self.registry.lock();
        let id = registry.insert(&request.keys, request.progress, slot.clone());
        if self.watchers.fetch_add(1, Ordering::AcqRel) == 0 {
            // Nobody listened until now, so nobody was told: begin with the present.
            self.offered
                .fetch_max(index.read().visible(), Ordering::AcqRel);
        }
        id
    }

    fn unregister(&self, id: u64, request: &WatchRequest) {
        self.registry.lock().remove(&request.keys, id);
        self.watchers.fetch_sub(1, Ordering::AcqRel);
    }

    /// Opens a watch.
    pub(crate) fn watch<P: Published>(
        self: &Arc<Self>,
        index: &Arc<RwLock<P>>,
        request: WatchRequest,
    ) -> Result<WatchStream, StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable("the store is closed".to_owned()));
        }
        let slot = Arc::new(Slot::default());
        let id = self.register(index, &slot, &request);
        let mut watcher = Watcher {
            hub: self.clone(),
            index: index.clone(),
            request,
            id,
            slot,
            cursor: 0,
            waiting: false,
            reached: 0,
            told: 0,
            ready: VecDeque::new(),
            ended: false,
        };
        let index = index.read();
        watcher.cursor = match watcher.request.from {
            Revision::ZERO => index.visible() + 1,
            // Nothing ever happened at the first revision.
            Revision(from) => from.max(FIRST + 1),
        };
        if watcher.cursor < index.watchable() {
            return Err(StoreError::Compacted {
                requested: watcher.request.from,
                oldest: Revision(index.watchable()),
            });
        }
        drop(index);
        Ok(Box::pin(watcher))
    }
}

/// One watch.
struct Watcher<P: Published> {
    hub: Arc<Hub>,
    index: Arc<RwLock<P>>,
    request: WatchRequest,
    id: u64,
    slot: Arc<Slot>,
    /// The next commit to look at.
    cursor: u64,
    /// Whether all published commits had been looked at when it looked last. Since then the hub has known what came.
    waiting: bool,
    /// The newest commit that was looked at.
    reached: u64,
    /// The newest commit that the reader knows of.
    told: u64,
    ready: VecDeque<Arc<[Change]>>,
    ended: bool,
}

impl<P: Published> Watcher<P> {
    /// Takes the next commits of interest from history.
    fn look(&mut self) -> Result<(), StoreError> {
        // In this order: what was offered before has been marked before.
        let offered = self.hub.offered.load(Ordering::Acquire);
        let first = self.slot.first.swap(0, Ordering::AcqRel);
        if self.waiting {
            // Commits between were offered, and were not of interest.
            self.cursor = self
                .cursor
                .max(if first == 0 { offered + 1 } else { first });
        }
        self.waiting = false;
        let index = self.index.read();
        let visible = index.visible();
        if self.cursor > visible {
            self.reached = visible;
            self.waiting = true;
            return Ok(());
        }
        let Some(commits) = index.commits(self.cursor, SCAN_STEP) else {
            return Err(StoreError::Lagged {
                at: Revision(self.cursor - 1),
            });
        };
        for commit in commits {
            if let Some(changes) = select(commit, &self.request.keys) {
                self.ready.push_back(changes);
            }
            self.cursor += 1;
            if self.ready.len() == TAKE_STEP {
                break;
            }
        }
        self.reached = self.cursor - 1;
        self.waiting = self.cursor > visible;
        Ok(())
    }
}

/// The changes of a commit that lie in a range; the commit itself when all do.
fn select(commit: &Arc<[Change]>, keys: &KeyRange) -> Option<Arc<[Change]>> {
    let matching = commit
        .iter()
        .filter(|change| keys.contains(change.key()))
        .count();
    if matching == commit.len() {
        Some(commit.clone())
    } else if matching == 0 {
        None
    } else {
        Some(
            commit
                .iter()
                .filter(|change| keys.contains(change.key()))
                .cloned()
                .collect(),
        )
    }
}

impl<P: Published> Stream for Watcher<P> {
    type Item = Result<WatchItem, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut registered = false;
        for _ in 0..SCANS_PER_POLL {
            if let Some(changes) = self.ready.pop_front() {
                self.told = changes
                    .first()
                    .map_or(self.told, |change| change.revision().0);
                return Poll::Ready(Some(Ok(WatchItem::Changes(changes))));
            }
            if self.waiting && registered {
                if self.request.progress && self.reached > self.told {
                    self.told = self.reached;
                    return Poll::Ready(Some(Ok(WatchItem::Progress(Revision(self.told)))));
                }
                return Poll::Pending;
            }
            if self.hub.closed.load(Ordering::Acquire) {
                self.ended = true;
                return Poll::Ready(Some(Err(StoreError::Unavailable(
                    "the store is closed".to_owned(),
                ))));
            }
            if !registered {
                self.slot.waker.register(cx.waker());
                registered = true;
            }
            if let Err(error) = self.look() {
                self.ended = true;
                return Poll::Ready(Some(Err(error)));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<P: Published> Drop for Watcher<P> {
    fn drop(&mut self) {
        self.hub.unregister(self.id, &self.request);
    }
}

/// Lets other tasks run.
async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
