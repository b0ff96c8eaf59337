//! Backups of a durable store, its size, and giving room back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use orlop_core::env::Env;
use orlop_core::store::{KeyValue, StoreError};
use parking_lot::RwLock;
use tokio::sync::oneshot;

use super::DurableStore;
use super::checkpoint::{self, Asking, Mark, Unfinished};
use super::disk::{Directory, Disk};
use super::log::{Log, refused};
use crate::mvcc::Index;
use crate::snapshot::{self, Record, SnapshotInfo};
use crate::upkeep::{StoreSize, Upkeep};

/// The room that the log of a restored store begins with.
const FIRST_SEGMENT: u64 = 1 << 20;

/// The longest time to live of a lease in seconds: etcd's.
const MAX_TTL: u64 = 9_000_000_000;

impl DurableStore {
    /// Saves the newest state as a snapshot of etcd's form (see [`snapshot`]), while the store runs. The file is written beside its place, for
    /// its owner alone (0600), and has its name when it is on disk. One that is there is replaced only if so wanted.
    ///
    /// History is kept meanwhile, however much is written.
    ///
    /// # Errors
    /// [`StoreError::InvalidRequest`] when the path is taken; [`StoreError::NoSpace`] and [`StoreError::Unavailable`] when it cannot be
    /// written; [`StoreError::Compacted`] when clients compact faster than it is written.
    pub async fn backup(
        &self,
        path: impl AsRef<Path>,
        replace: bool,
    ) -> Result<SnapshotInfo, StoreError> {
        let pin = self.pipe.shared.pin();
        let env = self.pipe.shared.env.clone();
        let saved = snapshot::save_as(self, &env, path.as_ref(), replace).await;
        drop(pin);
        self.pipe.shared.trim();
        saved
    }

    /// Makes a store of a snapshot, in a directory that is not there yet or is empty. [`DurableStore::open`] then finds the snapshot's keys,
    /// leases and revision; history begins with it. It reads and writes files, so it blocks.
    ///
    /// The store is made beside its place and gets there by one rename: a crash leaves the whole of it or nothing.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with the offset when the snapshot was damaged; [`StoreError::InvalidRequest`] when the directory holds
    /// anything; [`StoreError::NoSpace`] and [`StoreError::Unavailable`] when it cannot be written.
    pub fn restore(
        snapshot: impl AsRef<Path>,
        dir: impl AsRef<Path>,
        env: &Env,
    ) -> Result<SnapshotInfo, StoreError> {
        let (snapshot, dir) = (snapshot.as_ref(), dir.as_ref());
        let unusable = |path: &Path, error: &io::Error| {
            refused(&format!("cannot use {}", path.display()), error)
        };
        let file = File::open(snapshot).map_err(|error| unusable(snapshot, &error))?;
        must_be_free(dir)?;
        let (info, index, leases) = restored(&file)?;

        let beside = snapshot::beside(dir);
        let disk = Arc::new(Directory::open(&beside)?);
        let failed = |error: io::Error| unusable(&beside, &error);
        // What an attempt left that was killed. The lock says that it is over.
        for name in disk.list().map_err(failed)? {
            disk.remove(&name).map_err(failed)?;
        }
        let mark = Mark {
            sequence: 1,
            salt: env.random_u64(),
            revision: info.revision.0,
            leases,
        };
        // The segment that begins after the checkpoint.
        let nothing = |_: &[u8]| Ok(());
        let log = Log::open(disk.clone(), FIRST_SEGMENT, 1, None, mark.salt, nothing)?;
        drop(log);
        let stop = AtomicBool::new(false);
        match checkpoint::write(&*disk, &RwLock::new(index), &mark, &stop) {
            Ok(_) => {}
            Err(Unfinished::Failed(error)) => return Err(failed(error)),
            Err(Unfinished::Stopped) => {
                return Err(StoreError::Unavailable("it was stopped".to_owned()));
            }
        }
        // Nobody can have opened it here; there somebody may.
        std::fs::rename(&beside, dir).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => taken(dir),
            _ => unusable(dir, &error),
        })?;
        drop(disk);
        snapshot::sync_parent(dir).map_err(|error| unusable(dir, &error))?;
        Ok(info)
    }
}

fn taken(dir: &Path) -> StoreError {
    StoreError::InvalidRequest(format!(
        "{} is not empty: a snapshot is restored to a new directory",
        dir.display()
    ))
}

fn must_be_free(dir: &Path) -> Result<(), StoreError> {
    match std::fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(taken(dir)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(refused(&format!("cannot use {}", dir.display()), &error)),
    }
}

type Leases = Vec<(orlop_core::store::LeaseId, u64)>;

/// The state that a snapshot holds.
fn restored(file: &File) -> Result<(SnapshotInfo, Index, Leases), StoreError> {
    let mut keys: BTreeMap<Bytes, KeyValue> = BTreeMap::new();
    let mut leases = Vec::new();
    let info = snapshot::read(file, &mut |record| {
        match record {
            Record::Lease {
                lease, ttl_seconds, ..
            } => leases.push((lease, ttl_seconds.clamp(1, MAX_TTL))),
            Record::Put(kv) => {
                keys.insert(kv.key.clone(), kv);
            }
            Record::Delete { key, .. } => {
                keys.remove(&key);
            }
        }
        Ok(())
    })?;
    let mut index = Index::at(info.revision.0, 0);
    while let Some((_, kv)) = keys.pop_first() {
        index.restore(kv);
    }
    Ok((info, index, leases))
}

#[async_trait]
impl Upkeep for DurableStore {
    fn size(&self) -> StoreSize {
        let disk = self.disk.lock().clone();
        let lengths = disk.and_then(|disk| {
            let mut total = 0;
            for name in disk.list().ok()? {
                // One may go while they are looked at.
                total += disk.open(&name).and_then(|file| file.len()).unwrap_or(0);
            }
            Some(total)
        });
        let in_use = self
            .in_use
            .iter()
            .map(|bytes| bytes.load(Ordering::Acquire))
            .sum();
        StoreSize {
            total: lengths.unwrap_or(0).max(in_use),
            in_use,
        }
    }

    /// Begins a new segment of the log, makes a checkpoint of the newest state, and removes the segments before.
    async fn defragment(&self) -> Result<(), StoreError> {
        loop {
            let (asked, done) = oneshot::channel();
            let mut asked = Some(asked);
            self.pipe
                .queued(|_| {
                    let done = self
                        .pipe
                        .queue
                        .add(|batch| batch.checkpoint.extend(asked.take()));
                    Ok(((), Some(done)))
                })
                .await?;
            let closed = |_| StoreError::Unavailable("the store is closed".to_owned());
            match done.await.map_err(closed)? {
                Asking::Done(outcome) => return outcome,
                Asking::Busy => {}
            }
        }
    }
}
