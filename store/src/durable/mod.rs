//! The durable store: the index in memory, and a log on disk.
//!
//! A commit is checked and ordered under the index's lock, and its record goes into the batch that is being filled. One thread writes the
//! batch as one frame, syncs it once, and only then makes its commits visible and answers their clients: so nobody ever sees, or acts
//! on, what is not on disk, and however many clients there are, they share a sync.

mod ahead;
mod answer;
mod backup;
mod checkpoint;
#[cfg(test)]
mod crash_suite;
mod disk;
mod log;
mod queue;
mod record;
#[cfg(test)]
mod sim_disk;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use orlop_core::env::{Env, TaskGroup};
use orlop_core::revision::Revision;
use orlop_core::store::{
    Commit, LeaseId, LeaseInfo, Op, RangeRequest, RangeResult, Store, StoreError, Transaction,
    TransactionResult, Txn, WatchRequest, WatchStream,
};
use parking_lot::Mutex;

use self::answer::Done;
use self::disk::{Directory, Disk};
use self::log::{Log, refused};
use self::queue::{LeaseEvent, Queue};
use self::record::{Decoder, Record, encode_commit, encode_compact, encode_grant, encode_revoke};
use self::writer::{Checkpoints, Pipe, Writer};
use crate::memory::HISTORY_BYTES;
use crate::mvcc::{Applied, Index, Transacted, tighten, tighten_steps, validate};
use crate::shared::Shared;

/// How long after a failed write the next attempt is made to end a lease that has run out.
const LEASE_RETRY: Duration = Duration::from_secs(1);

/// How many old commits every new one forgets at most, when history is to become shorter.
const FORGOTTEN: usize = 2;

/// The most bytes that one transaction may write.
const TRANSACTION_BYTES: usize = 64 << 20;

/// How a [`DurableStore`] uses memory and disk. Begin with the [`Default`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DurableOptions {
    /// About how many bytes of history are kept in memory: superseded values, and what watchers can still be told of. When there is
    /// more, the oldest is compacted. 64 MiB.
    pub history_bytes: usize,
    /// The size of a segment of the log, which is taken from the disk ahead. 64 MiB. The first ones of a log are smaller.
    pub segment_bytes: u64,
    /// A checkpoint is made when the log has grown by so many bytes since the last one, or by the size of the last one if that is more.
    /// 128 MiB. The log on disk stays below about twice that.
    pub checkpoint_bytes: u64,
    /// About how many bytes may wait for the disk before clients have to wait to queue more. 16 MiB.
    pub queue_bytes: usize,
}

impl Default for DurableOptions {
    fn default() -> Self {
        Self {
            history_bytes: HISTORY_BYTES,
            segment_bytes: 64 << 20,
            checkpoint_bytes: 128 << 20,
            queue_bytes: 16 << 20,
        }
    }
}

/// A store in a directory of a local disk: the default.
///
/// A commit is acknowledged when it is on disk, and found again after `kill -9` and after a power cut, as far as the disk keeps what it
/// says. All keys are in memory. The state comes back when the directory is opened again; the history, as far as the
/// last checkpoint does not hide it.
///
/// * No room on the disk: writes fail with [`StoreError::NoSpace`], reads go on, and writes do again once there is room.
/// * A failed write: the writes fail with [`StoreError::Unavailable`], and nothing of them stays.
/// * A failed sync: the writes fail with [`StoreError::OutcomeUnknown`], later ones with [`StoreError::Unavailable`] until the store is opened
///   again, because nobody knows what the disk has. Reads go on.
/// * Damage found while opening is reported with the file and the offset as [`StoreError::Corrupt`]; it is never read as data, and nothing is
///   repaired by leaving out what was acknowledged. A write that a crash interrupted is cut off: it was never acknowledged.
///
/// Leases are kept over a restart; their time begins anew then.
///
/// A dropped [`commit`](Store::commit) future does not take the commit back.
pub struct DurableStore {
    pipe: Arc<Pipe>,
    thread: Mutex<Option<JoinHandle<()>>>,
    tasks: TaskGroup,
    /// Holds the directory's lock as long as the writer may run.
    disk: Mutex<Option<Arc<dyn Disk>>>,
    /// The bytes of the last checkpoint, and of the log since then.
    in_use: [Arc<AtomicU64>; 2],
}

impl fmt::Debug for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let visible = self.pipe.shared.index.read().visible();
        f.debug_struct("DurableStore")
            .field("revision", &visible)
            .finish_non_exhaustive()
    }
}

impl DurableStore {
    /// Opens the store in a directory, or makes one. Reads all of it, so it blocks for a while: up to seconds for millions of keys.
    ///
    /// The directory is made for its owner alone (0700, files 0600) and locked against a second opener.
    ///
    /// It spawns two tasks in the [`Env`], which end with the store, and a thread of its own for the disk.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when what is there was damaged, [`StoreError::NoSpace`] or [`StoreError::Unavailable`] when the directory cannot be
    /// used: also when it is open already.
    pub fn open(
        dir: impl AsRef<Path>,
        options: DurableOptions,
        env: Env,
    ) -> Result<Self, StoreError> {
        Self::open_disk(Arc::new(Directory::open(dir.as_ref())?), &options, env)
    }

    fn open_disk(
        disk: Arc<dyn Disk>,
        options: &DurableOptions,
        env: Env,
    ) -> Result<Self, StoreError> {
        // What is found by its name must be found again: the process before this one may have been killed between making a file and
        // syncing its name.
        disk.sync_names()
            .map_err(|error| refused("the directory could not be synced", &error))?;
        let (mut index, sequence, salt, checkpoint_bytes) =
            match checkpoint::read(&*disk, options.history_bytes)? {
                Some((mark, index, bytes)) => (index, mark.sequence, Some(mark.salt), bytes),
                None => (Index::new(options.history_bytes), 1, None, 0),
            };
        index.load();
        index.leases_mut().grant_all(env.now());
        let mut grown = 0;
        let log = Log::open(
            disk.clone(),
            options.segment_bytes,
            sequence,
            salt,
            env.random_u64(),
            |payload| {
                grown += payload.len() as u64;
                replay(&mut index, payload, &env)
            },
        )?;
        index.loaded();
        index.leases_mut().grant_all(env.now());
        tracing::info!(
            revision = index.visible(),
            log_bytes = grown,
            "the store is open"
        );

        let tasks = TaskGroup::new(env.clone());
        let pipe = Arc::new(Pipe {
            shared: Shared::new(index, env),
            queue: Queue::new(options.queue_bytes),
            trouble: Mutex::new(None),
        });
        pipe.shared.start(&tasks);
        let (last, grown) = (
            Arc::new(AtomicU64::new(checkpoint_bytes)),
            Arc::new(AtomicU64::new(grown)),
        );
        let writer = Writer {
            pipe: pipe.clone(),
            disk: disk.clone(),
            log,
            checkpoints: Checkpoints {
                after: options.checkpoint_bytes,
                last: last.clone(),
                grown: grown.clone(),
                stop: Arc::new(AtomicBool::new(false)),
                running: None,
                waiting: Arc::default(),
            },
        };
        let thread = std::thread::Builder::new()
            .name("store-log".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| {
                StoreError::Unavailable(format!("no thread for the store: {error}"))
            })?;
        let (own, token) = (pipe.clone(), tasks.token());
        tasks.spawn("store-leases", async move {
            while let Some(lease) = own.shared.next_expired(&token).await {
                let Some(ended) = token.run(own.revoke(lease)).await else {
                    return;
                };
                if let Err(error) = ended {
                    tracing::warn!(%lease, %error, "a lease that ran out could not be ended yet");
                    if token.run(own.shared.env.sleep(LEASE_RETRY)).await.is_none() {
                        return;
                    }
                }
            }
        });
        Ok(Self {
            pipe,
            thread: Mutex::new(Some(thread)),
            tasks,
            disk: Mutex::new(Some(disk)),
            in_use: [last, grown],
        })
    }

    /// Ends the store: lets in no more writes, waits until all that were let in are on disk and answered, ends the watches, and gives the
    /// directory free. What is in memory can still be read.
    pub async fn close(&self) {
        self.tasks.shutdown().await;
        self.pipe.queue.close();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            join(thread);
        }
        self.disk.lock().take();
    }
}

/// Waits for the writer: for one batch at most, which is on its way.
fn join(thread: JoinHandle<()>) {
    // A panic was reported when it happened.
    let _ = thread.join();
}

impl Drop for DurableStore {
    fn drop(&mut self) {
        self.tasks.token().cancel();
        self.pipe.queue.close();
        self.pipe.shared.hub.close();
        if let Some(thread) = self.thread.get_mut().take() {
            join(thread);
        }
    }
}

/// Brings what a frame of the log holds into the index.
fn replay(index: &mut Index, payload: &[u8], env: &Env) -> Result<(), String> {
    let mut decoder = Decoder(payload);
    while !decoder.is_empty() {
        match decoder.record().ok_or("a record that cannot be read")? {
            Record::Commit { revision, ops } => {
                if revision != index.newest() + 1 {
                    return Err(format!(
                        "revision {revision} stands where {} is due",
                        index.newest() + 1
                    ));
                }
                match index.commit(Txn {
                    compare: Vec::new(),
                    ops,
                }) {
                    Ok(Applied::Changed(..)) => index.publish(revision),
                    Ok(Applied::Unchanged(_)) => {
                        return Err(format!("revision {revision} changes nothing"));
                    }
                    Err(error) => return Err(format!("revision {revision} does not fit: {error}")),
                }
                index.trim(u64::MAX, &mut Vec::new());
            }
            Record::Grant { lease, ttl } => {
                index
                    .leases_mut()
                    .grant(lease, ttl)
                    .map_err(|error| error.to_string())?;
                index.leases_mut().granted(lease, env.now());
            }
            Record::Revoke { lease } => index.leases_mut().ended(lease),
            // A checkpoint may have gone further.
            Record::Compact { revision } => {
                let _ = index.compact(revision);
                while index.trim(u64::MAX, &mut Vec::new()) {}
            }
        }
    }
    Ok(())
}

impl Pipe {
    /// Queues something when there is room, and waits until it is on disk. The closure runs with the index locked.
    async fn queued<T>(
        &self,
        mut attempt: impl FnMut(&mut Index) -> Result<(T, Option<Done>), StoreError> + Send,
    ) -> Result<T, StoreError>
    where
        T: Send,
    {
        let (value, done) = loop {
            let room = self.queue.room();
            {
                // As much as comes in goes: by those who write, because they hold the lock already, and out of the lock to the end.
                let mut forgotten = Vec::with_capacity(FORGOTTEN);
                let mut index = self.shared.locked();
                if self.queue.check()? {
                    let queued = attempt(&mut index)?;
                    index.trim_some(self.shared.hub.seen(), FORGOTTEN, &mut forgotten);
                    break queued;
                }
            }
            room.await;
        };
        if let Some(done) = done {
            done.await?;
        }
        Ok(value)
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        let mut txn = Some(txn);
        self.queued(move |index| {
            let txn = txn.take().unwrap_or_default();
            match index.commit(txn)? {
                // What it was decided on has to be on disk before anybody hears of it.
                Applied::Unchanged(commit) => Ok((commit, self.settled(index))),
                Applied::Changed(changes, commit) => {
                    let done = self.queue.add(|batch| {
                        encode_commit(&mut batch.frame, index.newest(), &changes);
                        batch.revision = index.newest();
                        batch.commits += 1;
                    });
                    Ok((commit, Some(done)))
                }
            }
        })
        .await
    }

    async fn transact(&self, transaction: Transaction) -> Result<TransactionResult, StoreError> {
        let mut transaction = Some(transaction);
        self.queued(move |index| {
            let transaction = transaction.take().unwrap_or_default();
            match index.transact(transaction, TRANSACTION_BYTES)? {
                // What it read has to be on disk before anybody hears of it.
                Transacted::Unchanged(result) => Ok((result, self.settled(index))),
                Transacted::Changed(changes, result) => {
                    let done = self.queue.add(|batch| {
                        encode_commit(&mut batch.frame, index.newest(), &changes);
                        batch.revision = index.newest();
                        batch.commits += 1;
                    });
                    Ok((result, Some(done)))
                }
            }
        })
        .await
    }

    /// What to wait for until the newest state is on disk; `None` when it is.
    fn settled(&self, index: &Index) -> Option<Done> {
        (index.newest() > index.visible()).then(|| self.queue.add(|_| ()))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.queued(|index| {
            index.leases_mut().end(lease)?;
            let applied = index.commit(index.revocation(lease))?;
            let done = self.queue.add(|batch| {
                if let Applied::Changed(changes, _) = &applied {
                    encode_commit(&mut batch.frame, index.newest(), changes);
                    batch.revision = index.newest();
                    batch.commits += 1;
                }
                encode_revoke(&mut batch.frame, lease);
                batch.leases.push(LeaseEvent::Ended(lease));
            });
            Ok(((), Some(done)))
        })
        .await
    }
}

#[async_trait]
impl Store for DurableStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResult, StoreError> {
        self.pipe.shared.range(&request)
    }

    async fn commit(&self, mut txn: Txn) -> Result<Commit, StoreError> {
        validate(&txn)?;
        tighten(&mut txn);
        let bytes: usize = txn
            .ops
            .iter()
            .map(|op| match op {
                Op::Put { key, value, .. } => key.len() + value.len(),
                Op::Delete(_) => 0,
            })
            .sum();
        if bytes > TRANSACTION_BYTES {
            return Err(StoreError::InvalidRequest(format!(
                "a transaction of {bytes} bytes; the most is {TRANSACTION_BYTES}"
            )));
        }
        self.pipe.commit(txn).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        self.pipe.shared.watch(request)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.pipe
            .queued(|index| {
                index.can_compact(revision.0)?;
                let done = self.pipe.queue.add(|batch| {
                    encode_compact(&mut batch.frame, revision.0);
                    batch.compact = batch.compact.max(Some(revision));
                });
                Ok(((), Some(done)))
            })
            .await?;
        self.pipe.shared.trim();
        Ok(())
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(Revision(self.pipe.shared.index.read().visible()))
    }

    async fn grant_lease(
        &self,
        id: Option<LeaseId>,
        ttl_seconds: u64,
    ) -> Result<LeaseId, StoreError> {
        self.pipe
            .queued(|index| {
                let id = self.pipe.shared.lease_id(index, id, ttl_seconds)?;
                index.leases_mut().grant(id, ttl_seconds)?;
                let done = self.pipe.queue.add(|batch| {
                    encode_grant(&mut batch.frame, id, ttl_seconds);
                    batch.leases.push(LeaseEvent::Granted(id));
                });
                Ok((id, Some(done)))
            })
            .await
    }

    async fn renew_lease(&self, id: LeaseId) -> Result<u64, StoreError> {
        let ttl = self
            .pipe
            .shared
            .index
            .write()
            .leases_mut()
            .renew(id, self.pipe.shared.env.now())?;
        self.pipe.shared.leases.notify_one();
        Ok(ttl)
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        self.pipe.revoke(id).await
    }

    async fn lease(&self, id: LeaseId, keys: bool) -> Result<LeaseInfo, StoreError> {
        let now = self.pipe.shared.env.now();
        {
            let index = self.pipe.shared.index.read();
            if !keys || index.newest() == index.visible() {
                return index.leases().info(id, now, keys);
            }
        }
        // The keys are those of the newest state, which has to be on disk before anybody hears of it.
        self.pipe
            .queued(|index| Ok((index.leases().info(id, now, keys), self.pipe.settled(index))))
            .await?
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError> {
        let index = self.pipe.shared.index.read();
        Ok(index.leases().all().map(|(id, _)| id).collect())
    }

    async fn transact(
        &self,
        mut transaction: Transaction,
    ) -> Result<TransactionResult, StoreError> {
        transaction.validate()?;
        tighten_steps(&mut transaction);
        self.pipe.transact(transaction).await
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        self.pipe.trouble.lock().clone().map_or(Ok(()), Err)
    }
}
