//! Sending a snapshot.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use orlop_core::env::Env;
use tonic::Code;

use super::super::error::GrpcError;
use super::super::{Inner, VERSION, frame};
use crate::etcd::proto::maintenance::SnapshotResponse;
use crate::snapshot;

/// How many bytes go into one message.
const BLOB: usize = 256 * 1024;

/// The length of the checksum at the end, which is a message of its own.
const CHECKSUM: u64 = 32;

/// How much is left to send.
struct Sending {
    file: File,
    left: u64,
}

/// Saves a snapshot beside the data, in a file without a name, and sends it.
pub(in super::super) fn snapshot(
    server: Arc<Inner>,
) -> impl Stream<Item = Result<Bytes, GrpcError>> + Send {
    enum State {
        Begin(Arc<Inner>),
        Send(Arc<Inner>, Sending),
        End,
    }
    futures::stream::unfold(State::Begin(server), |state| async move {
        let (server, mut sending) = match state {
            State::Begin(server) => match save(&server).await {
                Ok(sending) => (server, sending),
                Err(error) => return Some((Err(error), State::End)),
            },
            State::Send(server, sending) if sending.left > 0 => (server, sending),
            State::Send(..) | State::End => return None,
        };
        match next(&mut sending) {
            Ok(message) => Some((Ok(message), State::Send(server, sending))),
            Err(error) => Some((Err(error), State::End)),
        }
    })
}

async fn save(server: &Inner) -> Result<Sending, GrpcError> {
    let mut file = scratch(&server.options.scratch_dir, &server.env).map_err(|e| failed(&e))?;
    let own = file.try_clone().map_err(|e| failed(&e))?;
    let info = snapshot::save(&*server.store, &server.env, own).await?;
    file.seek(SeekFrom::Start(0)).map_err(|e| failed(&e))?;
    tracing::info!(revision = %info.revision, bytes = info.bytes, "a snapshot is sent");
    Ok(Sending {
        file,
        left: info.bytes,
    })
}

/// A file that is gone when it is closed, however that comes.
fn scratch(dir: &Path, env: &Env) -> io::Result<File> {
    let path = dir.join(format!(".snapshot-{:016x}", env.random_u64()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn failed(error: &io::Error) -> GrpcError {
    GrpcError::new(
        Code::Unavailable,
        format!("etcdserver: the snapshot could not be made: {error}"),
    )
}

/// The next message: a part of the database with how much of that is left, and at last the checksum.
fn next(sending: &mut Sending) -> Result<Bytes, GrpcError> {
    let database = sending.left.saturating_sub(CHECKSUM);
    let part = if database > 0 { database } else { sending.left };
    let length = usize::try_from(part).unwrap_or(usize::MAX).min(BLOB);
    let mut blob = BytesMut::zeroed(length);
    sending
        .file
        .read_exact(&mut blob)
        .map_err(|error| failed(&error))?;
    sending.left -= length as u64;
    frame::encoded(&SnapshotResponse {
        header: None,
        remaining_bytes: sending.left.saturating_sub(CHECKSUM),
        blob: blob.freeze(),
        version: VERSION.to_owned(),
    })
}
