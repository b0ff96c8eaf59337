//! Checkpoints: the live state at one revision, so that the log before it is not needed any more.
//!
//! A checkpoint is a file `checkpoint-<sequence in hex>`: the state before the frame of that number, which begins a segment. It holds
//! frames like the log's, numbered from zero: the first tells of the whole, then come keys in order, and the last one says how many
//! they are. It is written under another name and renamed when it is on disk, so what has the name is whole.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use orlop_core::store::{KeyRange, LeaseId, StoreError};
use parking_lot::RwLock;

use super::disk::{Disk, DiskFile};
use super::log::{corrupt, number, refused};
use super::record::{
    Decoder, FRAME_HEADER, announced, begin_frame, encode_key_value, finish_frame, parse_frame,
};
use crate::mvcc::Index;

const PREFIX: &str = "checkpoint-";
const UNFINISHED: &str = "checkpoint.unfinished";

/// The salt stands before the first frame, which is checked with it.
const SALT: u64 = 8;

/// About how long a frame is.
const FRAME_BYTES: usize = 256 << 10;

/// How many keys are read under one hold of the index's lock.
const KEYS_STEP: usize = 512;

/// What a checkpoint is made of beside the keys.
#[derive(Debug)]
pub(super) struct Mark {
    /// The first frame of the log after it.
    pub(super) sequence: u64,
    pub(super) salt: u64,
    pub(super) revision: u64,
    pub(super) leases: Vec<(LeaseId, u64)>,
}

/// Why a checkpoint was not made.
#[derive(Debug)]
pub(super) enum Unfinished {
    /// It was told to stop.
    Stopped,
    Failed(io::Error),
}

impl From<io::Error> for Unfinished {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// What became of a checkpoint that was asked for.
#[derive(Clone, Debug)]
pub(super) enum Asking {
    /// It was made, or could not be.
    Done(Result<(), StoreError>),
    /// One was on its way that began earlier. It is over now.
    Busy,
}

/// Where to tell it.
pub(super) type Asked = tokio::sync::oneshot::Sender<Asking>;

struct Writer<'a> {
    file: Box<dyn DiskFile>,
    frame: Vec<u8>,
    sequence: u64,
    offset: u64,
    mark: &'a Mark,
}

impl Writer<'_> {
    fn flush(&mut self) -> io::Result<()> {
        finish_frame(&mut self.frame, self.mark.salt, self.sequence);
        self.file.write(self.offset, &self.frame)?;
        self.offset += self.frame.len() as u64;
        self.sequence += 1;
        begin_frame(&mut self.frame);
        Ok(())
    }
}

/// Writes a checkpoint and removes older ones. The index must be pinned at its revision. Returns its size in bytes.
pub(super) fn write(
    disk: &dyn Disk,
    index: &RwLock<Index>,
    mark: &Mark,
    stop: &AtomicBool,
) -> Result<u64, Unfinished> {
    let mut file = disk.create(UNFINISHED)?;
    file.write(0, &mark.salt.to_le_bytes())?;
    let mut out = Writer {
        file,
        frame: Vec::new(),
        sequence: 0,
        offset: SALT,
        mark,
    };
    begin_frame(&mut out.frame);
    for number in [mark.sequence, mark.revision, mark.leases.len() as u64] {
        out.frame.extend_from_slice(&number.to_le_bytes());
    }
    for (lease, ttl) in &mark.leases {
        out.frame.extend_from_slice(&lease.0.to_le_bytes());
        out.frame.extend_from_slice(&ttl.to_le_bytes());
    }
    out.flush()?;
    let everything = KeyRange::Prefix(Bytes::new());
    let mut after = None;
    let mut count: u64 = 0;
    loop {
        if stop.load(Ordering::Acquire) {
            return Err(Unfinished::Stopped);
        }
        let page = index.read().page(
            &everything,
            after.as_ref(),
            mark.revision,
            usize::MAX,
            KEYS_STEP,
        );
        for kv in &page.items {
            encode_key_value(&mut out.frame, kv);
            count += 1;
            if out.frame.len() > FRAME_BYTES {
                out.flush()?;
            }
        }
        let Some(resume) = page.resume else { break };
        after = Some(resume);
    }
    if out.frame.len() > FRAME_HEADER {
        out.flush()?;
    }
    // An empty key is no key: the end.
    out.frame.extend_from_slice(&0u32.to_le_bytes());
    out.frame.extend_from_slice(&count.to_le_bytes());
    out.flush()?;
    out.file.sync()?;
    disk.rename(UNFINISHED, &name(mark.sequence))?;
    disk.sync_names()?;
    for (old, sequence) in all(disk)? {
        if sequence < mark.sequence {
            disk.remove(&old)?;
        }
    }
    Ok(out.offset)
}

/// Gives the room back that a checkpoint took which was not finished.
pub(super) fn remove_unfinished(disk: &dyn Disk) {
    if let Err(error) = disk.remove(UNFINISHED) {
        tracing::warn!(%error, "what there is of a checkpoint could not be removed");
    }
}

fn name(sequence: u64) -> String {
    format!("{PREFIX}{sequence:016x}")
}

fn all(disk: &dyn Disk) -> io::Result<Vec<(String, u64)>> {
    Ok(disk
        .list()?
        .into_iter()
        .filter_map(|name| number(&name, PREFIX).map(|sequence| (name, sequence)))
        .collect())
}

/// Reads the newest checkpoint, if there is one, into an index, and removes what is older or unfinished.
pub(super) fn read(
    disk: &dyn Disk,
    history: usize,
) -> Result<Option<(Mark, Index, u64)>, StoreError> {
    let failed =
        |what: &str, error: &io::Error| refused(&format!("cannot {what} the checkpoint"), error);
    if disk
        .list()
        .map_err(|e| failed("look for", &e))?
        .iter()
        .any(|name| name == UNFINISHED)
    {
        disk.remove(UNFINISHED)
            .map_err(|e| failed("remove the rest of", &e))?;
    }
    let mut found = all(disk).map_err(|e| failed("look for", &e))?;
    let Some(position) = (0..found.len()).max_by_key(|&at| found[at].1) else {
        return Ok(None);
    };
    let (name, sequence) = found.swap_remove(position);
    let file = disk.open(&name).map_err(|e| failed("open", &e))?;
    let length = file.len().map_err(|e| failed("read", &e))?;
    let damaged = |offset: u64| corrupt(disk, &name, offset, "the checkpoint is damaged");
    let salt = Decoder(
        &file
            .read(0, SALT as usize)
            .map_err(|e| failed("read", &e))?,
    )
    .u64()
    .ok_or_else(|| damaged(0))?;
    let mut offset = SALT;
    let mut due = 0;
    let mut next = || -> Result<(u64, Vec<u8>), StoreError> {
        let at = offset;
        let header = file
            .read(at, FRAME_HEADER)
            .map_err(|e| failed("read", &e))?;
        let payload =
            announced(&header).filter(|&payload| at + (FRAME_HEADER + payload) as u64 <= length);
        let frame_length = FRAME_HEADER + payload.ok_or_else(|| damaged(at))?;
        let frame = file
            .read(at, frame_length)
            .map_err(|e| failed("read", &e))?;
        parse_frame(&frame, salt)
            .filter(|(sequence, _)| *sequence == due)
            .ok_or_else(|| damaged(at))?;
        due += 1;
        offset += frame_length as u64;
        Ok((at, frame))
    };
    let (at, frame) = next()?;
    let mark = decode_mark(&frame[FRAME_HEADER..], salt)
        .filter(|mark| mark.sequence == sequence)
        .ok_or_else(|| damaged(at))?;
    let mut index = Index::at(mark.revision, history);
    index.load();
    for &(lease, ttl) in &mark.leases {
        index
            .leases_mut()
            .grant(lease, ttl)
            .map_err(|_| damaged(at))?;
    }
    let mut count: u64 = 0;
    'frames: loop {
        let (at, frame) = next()?;
        let mut decoder = Decoder(&frame[FRAME_HEADER..]);
        while !decoder.is_empty() {
            if decoder.0.starts_with(&0u32.to_le_bytes()) {
                decoder.u32();
                if decoder.u64() != Some(count) {
                    return Err(damaged(at));
                }
                break 'frames;
            }
            index.restore(decoder.key_value().ok_or_else(|| damaged(at))?);
            count += 1;
        }
    }
    for (old, _) in found {
        disk.remove(&old)
            .map_err(|e| failed("remove an older one than", &e))?;
    }
    Ok(Some((mark, index, length)))
}

fn decode_mark(payload: &[u8], salt: u64) -> Option<Mark> {
    let mut decoder = Decoder(payload);
    let (sequence, revision, count) = (decoder.u64()?, decoder.u64()?, decoder.u64()?);
    let mut leases = Vec::new();
    for _ in 0..count {
        leases.push(decoder.lease_with_ttl()?);
    }
    Some(Mark {
        sequence,
        salt,
        revision,
        leases,
    })
}
