//! The thread that writes: one frame and one sync for all that was queued meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use orlop_core::store::StoreError;
use parking_lot::Mutex;

use super::checkpoint::{self, Mark, Unfinished};
use super::disk::Disk;
use super::log::{self, AppendError, Log, refused};
use super::queue::{Batch, LeaseEvent, Queue};
use crate::mvcc::TRIM_STEP;
use crate::shared::Shared;

/// How much room an empty batch keeps.
const BATCH_KEEPS: usize = 1 << 20;

/// What the writer shares with the store.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) shared: Shared,
    pub(super) queue: Queue,
    /// Why the last write failed, until one succeeds.
    pub(super) trouble: Mutex<Option<StoreError>>,
}

pub(super) struct Writer {
    pub(super) pipe: Arc<Pipe>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) log: Log,
    pub(super) checkpoints: Checkpoints,
}

/// When the next checkpoint is due, and the one that is under way.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// A checkpoint is made when the log has grown by so many bytes, or by the size of the last checkpoint if that is more: so
    /// checkpoints never write more than the log does.
    pub(super) after: u64,
    pub(super) last: Arc<AtomicU64>,
    /// The bytes of the log since the last one was begun.
    pub(super) grown: u64,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) running: Option<JoinHandle<()>>,
}

impl Writer {
    /// Writes until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut unwound = Unwound(Some(self.pipe.clone()));
        let mut batch = Batch::new();
        while self.pipe.queue.take(&mut batch) {
            self.write(&mut batch);
            batch.clear(BATCH_KEEPS);
            self.checkpoint_when_due();
        }
        self.checkpoints.stop.store(true, Ordering::Release);
        if let Some(running) = self.checkpoints.running.take() {
            // A panic was reported when it happened.
            let _ = running.join();
        }
        unwound.0 = None;
    }

    fn write(&mut self, batch: &mut Batch) {
        if batch.writes() {
            let bytes = batch.frame.len() as u64;
            if let Err(error) = self.log.append(&mut batch.frame) {
                self.fail(batch, error);
                return;
            }
            self.checkpoints.grown += bytes;
            *self.pipe.trouble.lock() = None;
        }
        publish(&self.pipe.shared, batch);
        batch.answer(&Ok(()));
    }

    /// Takes back what is not on disk, and all that was decided on top of it.
    fn fail(&self, batch: &mut Batch, error: AppendError) {
        let (own, others, broken) = match error {
            AppendError::Nothing(error) => {
                tracing::error!(%error, "the log could not be written");
                let refusal = refused("the log could not be written", &error);
                (refusal.clone(), refusal, None)
            }
            AppendError::Unknown(error) => {
                tracing::error!(%error, "the disk failed; the store takes no writes until it is opened again");
                let broken = StoreError::Unavailable(format!(
                    "the disk failed ({error}); the store takes no writes until it is opened again"
                ));
                (
                    StoreError::OutcomeUnknown(format!("the disk failed: {error}")),
                    broken.clone(),
                    Some(broken),
                )
            }
        };
        *self.pipe.trouble.lock() = Some(others.clone());
        let mut queued = {
            let mut index = self.pipe.shared.index.write();
            index.roll_back();
            self.pipe.queue.refuse(broken)
        };
        batch.answer(&Err(own));
        queued.answer(&Err(others));
    }

    fn checkpoint_when_due(&mut self) {
        let due = &self.checkpoints;
        if due.grown < due.after.max(due.last.load(Ordering::Acquire)) {
            return;
        }
        if self
            .checkpoints
            .running
            .as_ref()
            .is_some_and(|running| !running.is_finished())
        {
            return;
        }
        // Without room for a segment there is none for a checkpoint; the log tells when it matters.
        if self.log.roll().is_err() {
            self.checkpoints.grown = 0;
            return;
        }
        self.checkpoints.grown = 0;
        let mark = {
            let mut index = self.pipe.shared.index.write();
            let revision = index.visible();
            index.set_pin(Some(revision));
            Mark {
                sequence: self.log.sequence(),
                salt: self.log.salt(),
                revision,
                leases: index.leases().all().collect(),
            }
        };
        let (pipe, disk) = (self.pipe.clone(), self.disk.clone());
        let (last, stop) = (self.checkpoints.last.clone(), self.checkpoints.stop.clone());
        let spawned = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || {
                let unpin = Unpin(&pipe.shared);
                let written = checkpoint::write(&*disk, &pipe.shared.index, &mark, &stop);
                drop(unpin);
                pipe.shared.trim();
                match written {
                    Ok(bytes) => {
                        last.store(bytes, Ordering::Release);
                        if let Err(error) = log::remove_before(&*disk, mark.sequence) {
                            tracing::warn!(%error, "old segments of the log could not be removed");
                        }
                    }
                    Err(unfinished) => {
                        if let Unfinished::Failed(error) = unfinished {
                            tracing::warn!(%error, "no checkpoint could be made");
                        }
                        checkpoint::remove_unfinished(&*disk);
                    }
                }
            });
        match spawned {
            Ok(running) => self.checkpoints.running = Some(running),
            Err(error) => {
                tracing::warn!(%error, "no checkpoint could be begun");
                self.pipe.shared.index.write().set_pin(None);
            }
        }
    }
}

/// Lets everybody see what is on disk.
fn publish(shared: &Shared, batch: &Batch) {
    {
        let mut index = shared.index.write();
        if batch.commits > 0 {
            index.publish(batch.revision);
        }
        for event in &batch.leases {
            match *event {
                LeaseEvent::Granted(lease) => index.leases_mut().granted(lease, shared.env.now()),
                LeaseEvent::Ended(lease) => index.leases_mut().ended(lease),
            }
        }
        if let Some(revision) = batch.compact {
            // Another one may have gone further meanwhile.
            let _ = index.compact(revision.0);
        }
    }
    shared.hub.ring();
    if !batch.leases.is_empty() {
        shared.leases.notify_one();
    }
    // As much as came in goes, a little at a time.
    for _ in 0..=batch.commits / TRIM_STEP * 2 {
        if !shared.index.write().trim(shared.hub.seen()) {
            break;
        }
    }
}

struct Unpin<'a>(&'a Shared);

impl Drop for Unpin<'_> {
    fn drop(&mut self) {
        self.0.index.write().set_pin(None);
    }
}

/// Refuses everything when the writer dies of a panic.
struct Unwound(Option<Arc<Pipe>>);

impl Drop for Unwound {
    fn drop(&mut self) {
        let Some(pipe) = self.0.take() else { return };
        let broken = StoreError::Unavailable("the store's writer has died".to_owned());
        let mut queued = {
            let mut index = pipe.shared.index.write();
            index.roll_back();
            pipe.queue.refuse(Some(broken.clone()))
        };
        queued.answer(&Err(broken));
    }
}
