//! Taking a snapshot of a whole etcd.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use futures::StreamExt;
use orlop_core::store::StoreError;
use tonic::{Status, Streaming};

use super::EtcdStore;
use crate::etcd::proto::maintenance::{SnapshotRequest, SnapshotResponse};

/// How long etcd may be silent while it sends a snapshot. It writes one before it sends the first of it.
const SILENCE: Duration = Duration::from_secs(60);

impl EtcdStore {
    /// Writes a snapshot of the member in use to a file, in place of what the file holds, as `etcdctl snapshot save` does: of all its keys,
    /// whatever the [prefix](super::EtcdOptions::prefix). The file ends with its checksum, and is not synced. Look at it with
    /// [`snapshot::read`](crate::snapshot::read) before it is relied upon: a connection that breaks is told, damage on the way is not.
    ///
    /// Returns its length in bytes.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when etcd does not send it to the end; [`StoreError::NoSpace`] and [`StoreError::Unavailable`] for the file.
    pub async fn snapshot(&self, file: &File) -> Result<u64, StoreError> {
        let cluster = self.feed.cluster();
        let unsent = |status: Status| {
            StoreError::Unavailable(format!("etcd sends no snapshot: {}", status.message()))
        };
        let unwritable = |error: io::Error| {
            let text = format!("the snapshot cannot be written: {error}");
            match error.kind() {
                io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::FileTooLarge => StoreError::NoSpace(text),
                _ => StoreError::Unavailable(text),
            }
        };
        file.set_len(0).map_err(unwritable)?;
        let request = futures::stream::iter([SnapshotRequest {}]).boxed();
        let path = "/etcdserverpb.Maintenance/Snapshot";
        let mut parts: Streaming<SnapshotResponse> = cluster
            .open(cluster.current(), path, request)
            .await
            .map_err(unsent)?;
        let mut written = 0;
        loop {
            let part = cluster
                .env()
                .timeout(SILENCE, parts.message())
                .await
                .map_err(|silent| {
                    StoreError::Unavailable(format!("etcd sends no more of a snapshot: {silent}"))
                })?
                .map_err(unsent)?;
            let Some(part) = part else {
                return Ok(written);
            };
            file.write_all_at(&part.blob, written).map_err(unwritable)?;
            written += part.blob.len() as u64;
        }
    }
}
