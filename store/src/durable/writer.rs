//! The thread that writes: one frame and one sync for all that was queued meanwhile.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use orlop_core::store::StoreError;
use parking_lot::Mutex;

use super::checkpoint::{self, Asked, Asking, Mark, Unfinished};
use super::disk::Disk;
use super::log::{self, AppendError, Log, refused};
use super::queue::{Batch, LeaseEvent, Queue};
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
    pub(super) grown: Arc<AtomicU64>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) running: Option<JoinHandle<()>>,
    /// Who waits for the one that is under way; `None` when none is.
    pub(super) waiting: Arc<Mutex<Option<Waiting>>>,
}

/// Who waits for a checkpoint.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Who asked for it.
    asked: Option<Asked>,
    /// Who asked for one when it was under way.
    busy: Vec<Asked>,
}

impl Checkpoints {
    fn under_way(&self) -> bool {
        self.waiting.lock().is_some()
    }
}

impl Writer {
    /// Writes until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut unwound = Unwound(Some(self.pipe.clone()));
        let mut batch = Batch::new();
        while self.pipe.queue.take(&mut batch) {
            self.write(&mut batch);
            for asked in batch.checkpoint.drain(..) {
                self.checkpoint_for(asked);
            }
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
            self.checkpoints.grown.fetch_add(bytes, Ordering::Relaxed);
            *self.pipe.trouble.lock() = None;
        }
        publish(&self.pipe.shared, batch);
        batch.answer(Ok(()));
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
        let queued = {
            let mut index = self.pipe.shared.index.write();
            index.roll_back();
            self.pipe.queue.refuse(broken)
        };
        batch.answer(Err(own));
        queued.answer(Err(others));
    }

    fn checkpoint_when_due(&mut self) {
        let due = &self.checkpoints;
        let grown = due.grown.load(Ordering::Relaxed);
        if grown < due.after.max(due.last.load(Ordering::Acquire)) || due.under_way() {
            return;
        }
        // Without room for a segment there is none for a checkpoint; the log tells when it matters.
        let _ = self.checkpoint(None);
    }

    /// Makes a checkpoint for somebody who asks for it.
    fn checkpoint_for(&mut self, asked: Asked) {
        let mut asked = Some(asked);
        if let Some(waiting) = self.checkpoints.waiting.lock().as_mut() {
            // The one that is on its way may be of an older state.
            waiting.busy.extend(asked.take());
        }
        let Some(asked) = asked else { return };
        if let Err((asked, error)) = self.checkpoint(Some(asked)) {
            let refusal = refused("the log could not be continued", &error);
            asked.into_iter().for_each(|asked| {
                // Whoever does not wait any more does not want to know.
                let _ = asked.send(Asking::Done(Err(refusal.clone())));
            });
        }
    }

    fn checkpoint(&mut self, asked: Option<Asked>) -> Result<(), (Option<Asked>, io::Error)> {
        self.checkpoints.grown.store(0, Ordering::Relaxed);
        match self.log.roll() {
            Ok(()) => {}
            Err(AppendError::Nothing(error)) => return Err((asked, error)),
            // Both segments may be found, so neither can go on.
            Err(AppendError::Unknown(error)) => {
                let shown = io::Error::new(error.kind(), error.to_string());
                self.fail(&mut Batch::new(), AppendError::Unknown(error));
                return Err((asked, shown));
            }
        }
        let pin = self.pipe.shared.pin();
        let mark = Mark {
            sequence: self.log.sequence(),
            salt: self.log.salt(),
            revision: pin.revision,
            leases: self.pipe.shared.index.read().leases().all().collect(),
        };
        let (pipe, disk) = (self.pipe.clone(), self.disk.clone());
        let (last, stop) = (self.checkpoints.last.clone(), self.checkpoints.stop.clone());
        *self.checkpoints.waiting.lock() = Some(Waiting {
            asked,
            busy: Vec::new(),
        });
        let over = Over(self.checkpoints.waiting.clone());
        let spawned = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || {
                let written = checkpoint::write(&*disk, &pipe.shared.index, &mark, &stop);
                drop(pin);
                pipe.shared.trim();
                let outcome = match written {
                    Ok(bytes) => {
                        last.store(bytes, Ordering::Release);
                        if let Err(error) = log::remove_before(&*disk, mark.sequence) {
                            tracing::warn!(%error, "old segments of the log could not be removed");
                        }
                        Ok(())
                    }
                    Err(unfinished) => {
                        checkpoint::remove_unfinished(&*disk);
                        Err(match unfinished {
                            Unfinished::Failed(error) => {
                                tracing::warn!(%error, "no checkpoint could be made");
                                refused("no checkpoint could be made", &error)
                            }
                            Unfinished::Stopped => {
                                StoreError::Unavailable("the store is closed".to_owned())
                            }
                        })
                    }
                };
                over.tell(outcome);
            });
        match spawned {
            Ok(running) => self.checkpoints.running = Some(running),
            Err(error) => tracing::warn!(%error, "no checkpoint could be begun"),
        }
        Ok(())
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
}

/// Tells those who wait for a checkpoint that it is over, however it ends.
struct Over(Arc<Mutex<Option<Waiting>>>);

impl Over {
    fn tell(&self, outcome: Result<(), StoreError>) {
        let Some(waiting) = self.0.lock().take() else {
            return;
        };
        // Whoever does not wait any more does not want to know.
        if let Some(asked) = waiting.asked {
            let _ = asked.send(Asking::Done(outcome));
        }
        for busy in waiting.busy {
            let _ = busy.send(Asking::Busy);
        }
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        let error = StoreError::Unavailable("no checkpoint could be made".to_owned());
        self.tell(Err(error));
    }
}

/// Refuses everything when the writer dies of a panic.
struct Unwound(Option<Arc<Pipe>>);

impl Drop for Unwound {
    fn drop(&mut self) {
        let Some(pipe) = self.0.take() else { return };
        let broken = StoreError::Unavailable("the store's writer has died".to_owned());
        let queued = {
            let mut index = pipe.shared.index.write();
            index.roll_back();
            pipe.queue.refuse(Some(broken.clone()))
        };
        queued.answer(Err(broken));
    }
}
