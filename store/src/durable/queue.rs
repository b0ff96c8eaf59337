//! What waits to be written: one batch, which grows while the one before is on its way to the disk.

use orlop_core::revision::Revision;
use orlop_core::store::{LeaseId, StoreError};
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::answer::{Answer, Done};
use super::checkpoint::Asked;
use super::record::{FRAME_HEADER, begin_frame};

/// What happens to a lease when the batch is on disk.
#[derive(Debug)]
pub(super) enum LeaseEvent {
    Granted(LeaseId),
    Ended(LeaseId),
}

/// What is written and synced at once.
#[derive(Debug)]
pub(super) struct Batch {
    /// A frame whose header has yet to be filled in. Empty but for that when nothing has to be written.
    pub(super) frame: Vec<u8>,
    /// The newest revision when the batch is on disk.
    pub(super) revision: u64,
    pub(super) commits: usize,
    pub(super) leases: Vec<LeaseEvent>,
    /// The revision to compact to.
    pub(super) compact: Option<Revision>,
    /// Who wants a checkpoint now.
    pub(super) checkpoint: Vec<Asked>,
    /// How many wait for it.
    waiting: usize,
    answer: Answer,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut frame = Vec::new();
        begin_frame(&mut frame);
        Self {
            frame,
            revision: 0,
            commits: 0,
            leases: Vec::new(),
            compact: None,
            checkpoint: Vec::new(),
            waiting: 0,
            answer: Answer::default(),
        }
    }

    /// Whether there is anything to write.
    pub(super) fn writes(&self) -> bool {
        self.frame.len() > FRAME_HEADER
    }

    /// Empties the batch and keeps its room, unless that was unusually much.
    pub(super) fn clear(&mut self, keep: usize) {
        self.frame.clear();
        self.frame.shrink_to(keep);
        begin_frame(&mut self.frame);
        self.revision = 0;
        self.commits = 0;
        self.leases.clear();
        self.compact = None;
        self.checkpoint.clear();
        self.waiting = 0;
        self.answer = Answer::default();
    }

    /// Tells everybody who waits.
    pub(super) fn answer(&self, outcome: Result<(), StoreError>) {
        self.answer.give(outcome);
    }
}

#[derive(Debug)]
struct Queued {
    batch: Batch,
    closed: bool,
    /// Why nothing can be written until the store is opened again.
    broken: Option<StoreError>,
}

/// The batch that is being filled.
#[derive(Debug)]
pub(super) struct Queue {
    queued: Mutex<Queued>,
    filled: Condvar,
    /// Rings when the batch was taken, so that there is room again.
    room: Notify,
    bound: usize,
}

impl Queue {
    pub(super) fn new(bound: usize) -> Self {
        let queued = Queued {
            batch: Batch::new(),
            closed: false,
            broken: None,
        };
        Self {
            queued: Mutex::new(queued),
            filled: Condvar::new(),
            room: Notify::new(),
            bound,
        }
    }

    /// Waits for room. Take it before looking whether there is any.
    pub(super) fn room(&self) -> impl Future<Output = ()> + Send + '_ {
        self.room.notified()
    }

    /// Whether anything can be queued now: `false` when it is full.
    pub(super) fn check(&self) -> Result<bool, StoreError> {
        let queued = self.queued.lock();
        if let Some(broken) = &queued.broken {
            return Err(broken.clone());
        }
        if queued.closed {
            return Err(StoreError::Unavailable("the store is closed".to_owned()));
        }
        Ok(queued.batch.frame.len() < self.bound)
    }

    /// Adds to the batch. Call it, like [`check`](Self::check) before, with the index locked: the order of the batch is that of the
    /// index.
    pub(super) fn add(&self, fill: impl FnOnce(&mut Batch)) -> Done {
        let mut queued = self.queued.lock();
        fill(&mut queued.batch);
        queued.batch.waiting += 1;
        let done = queued.batch.answer.done();
        // Whoever finds the batch begun has nobody to wake.
        let first = queued.batch.waiting == 1;
        drop(queued);
        if first {
            self.filled.notify_one();
        }
        done
    }

    /// Waits for a batch that is not empty and swaps it for an empty one. False when the queue is closed and nothing is left.
    pub(super) fn take(&self, empty: &mut Batch) -> bool {
        let mut queued = self.queued.lock();
        while queued.batch.waiting == 0 {
            if queued.closed {
                return false;
            }
            self.filled.wait(&mut queued);
        }
        std::mem::swap(&mut queued.batch, empty);
        drop(queued);
        self.room.notify_waiters();
        true
    }

    /// Takes what is queued, to refuse it, and refuses all that comes later if `broken` says so. Call it with the index locked.
    pub(super) fn refuse(&self, broken: Option<StoreError>) -> Batch {
        let mut queued = self.queued.lock();
        if queued.broken.is_none() {
            queued.broken = broken;
        }
        let batch = std::mem::replace(&mut queued.batch, Batch::new());
        drop(queued);
        self.room.notify_waiters();
        batch
    }

    /// Lets nothing more in.
    pub(super) fn close(&self) {
        self.queued.lock().closed = true;
        self.filled.notify_all();
        self.room.notify_waiters();
    }
}
