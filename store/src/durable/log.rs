//! The log: frames in numbered segments.
//!
//! A segment is a file `log-<first sequence in hex>` with a header of its own (magic, form, salt, first sequence, CRC-32) and then
//! frames without a gap. Room is taken ahead, as zeros, and but for the first segment, which is small, by a thread of its own. A new segment is made durable before anything is written to it, and
//! only when everything in the one before is.

use std::io;
use std::sync::Arc;

use orlop_core::store::StoreError;

use super::ahead::{self, Ahead};
use super::disk::{Disk, DiskFile};
use super::record::{Decoder, FRAME_HEADER, finish_frame, has_later_frame, parse_frame};

/// The length of a segment's header.
pub(super) const SEGMENT_HEADER: u64 = 32;

const MAGIC: [u8; 8] = *b"OrlopLog";
const FORM: u32 = 1;
const PREFIX: &str = "log-";

/// How long the first segment of a log is at most, so that a new store is there at once and a small one is small.
const FIRST_BYTES: u64 = 1 << 20;

/// How many times as long as the segment before it one is at most.
const GROWTH: u64 = 4;

/// Logs with shorter segments, as tests have them, take their room without writing to it.
const AHEAD_FROM: u64 = 8 << 10;

/// Why nothing more could be appended.
#[derive(Debug)]
pub(super) enum AppendError {
    /// Nothing was written, and the log can go on.
    Nothing(io::Error),
    /// It may or may not be on disk, and the log cannot go on: after a failed sync nobody knows what the disk has.
    Unknown(io::Error),
}

/// The error of a store that could not read or write.
pub(super) fn refused(what: &str, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::NoSpace(format!("{what}: {error}"))
        }
        _ => StoreError::Unavailable(format!("{what}: {error}")),
    }
}

pub(super) fn corrupt(disk: &dyn Disk, name: &str, offset: u64, why: &str) -> StoreError {
    StoreError::Corrupt(format!("{} at offset {offset}: {why}", disk.describe(name)))
}

/// The log, open for appending.
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
    name: String,
    offset: u64,
    /// The sequence number of the next frame.
    sequence: u64,
    salt: u64,
    /// How far there is room in this segment.
    room: u64,
    segment_bytes: u64,
    ahead: Ahead,
}

/// A segment that was found.
struct Found {
    name: String,
    first: u64,
}

fn segments(disk: &dyn Disk) -> io::Result<Vec<Found>> {
    let mut found: Vec<_> = disk
        .list()?
        .into_iter()
        .filter_map(|name| {
            Some(Found {
                first: number(&name, PREFIX)?,
                name,
            })
        })
        .collect();
    found.sort_by_key(|segment| segment.first);
    Ok(found)
}

/// The number in a file's name.
pub(super) fn number(name: &str, prefix: &str) -> Option<u64> {
    let digits = name
        .strip_prefix(prefix)
        .filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

fn header(salt: u64, first: u64) -> [u8; SEGMENT_HEADER as usize] {
    let mut header = [0; SEGMENT_HEADER as usize];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORM.to_le_bytes());
    header[12..20].copy_from_slice(&salt.to_le_bytes());
    header[20..28].copy_from_slice(&first.to_le_bytes());
    let crc = crc32fast::hash(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// The salt in a segment's header; `None` when the header is not whole or is another segment's.
fn salt_of(bytes: &[u8], first: u64) -> Option<u64> {
    let salt = Decoder(bytes.get(12..)?).u64()?;
    (bytes.get(..SEGMENT_HEADER as usize)? == header(salt, first)).then_some(salt)
}

impl Log {
    /// Opens the log, replays the payloads of all frames from `sequence` on, and cuts off what a crash left half written. `known` is the
    /// salt, where a checkpoint has it; `fresh` is the salt of a log to be made.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        segment_bytes: u64,
        sequence: u64,
        known: Option<u64>,
        fresh: u64,
        mut replay: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<Self, StoreError> {
        let failed = |what: String| move |error: io::Error| refused(&what, &error);
        let mut found = segments(&*disk).map_err(failed("cannot list the log".to_owned()))?;
        remove_ahead(&*disk).map_err(failed("cannot remove what was made ahead".to_owned()))?;
        // What a checkpoint has made superfluous, if a crash came before it was removed.
        for old in found.extract_if(.., |segment| segment.first < sequence) {
            disk.remove(&old.name).map_err(failed(format!(
                "cannot remove {}",
                disk.describe(&old.name)
            )))?;
        }
        if let Some(newest) = found.last()
            // The first segment after a checkpoint was there before the checkpoint.
            && (known.is_none() || newest.first > sequence)
            && never_begun(&*disk, newest)?
        {
            tracing::warn!(segment = %disk.describe(&newest.name), "removing a segment that was never begun");
            // For good: a later segment must not be found together with it.
            disk.remove(&newest.name)
                .and_then(|()| disk.sync_names())
                .map_err(failed(format!(
                    "cannot remove {}",
                    disk.describe(&newest.name)
                )))?;
            found.pop();
        }
        let mut log: Option<Self> = None;
        let mut salt = known;
        let last = found.len().wrapping_sub(1);
        for (at, Found { name, first }) in found.into_iter().enumerate() {
            let expected = log.as_ref().map_or(sequence, |log| log.sequence);
            let file = disk
                .open(&name)
                .map_err(failed(format!("cannot open {}", disk.describe(&name))))?;
            let reading = || failed(format!("cannot read {}", disk.describe(&name)));
            let length = file.len().map_err(reading())?;
            let bytes = file
                .read(0, usize::try_from(length).unwrap_or(usize::MAX))
                .map_err(reading())?;
            let Some(own) =
                salt_of(&bytes, first).filter(|&own| salt.is_none_or(|salt| salt == own))
            else {
                return Err(corrupt(&*disk, &name, 0, "the segment's header is damaged"));
            };
            salt = Some(own);
            if let Some(before) = &log
                && first != expected
            {
                return Err(corrupt(
                    &*disk,
                    &before.name,
                    before.offset,
                    &format!(
                        "frame {expected} is missing, while the next segment begins with {first}"
                    ),
                ));
            }
            if first != expected {
                let why = format!("the log begins with frame {first}, where {expected} is needed");
                return Err(corrupt(&*disk, &name, 0, &why));
            }
            let mut next = Self {
                disk: disk.clone(),
                file,
                name,
                offset: SEGMENT_HEADER,
                sequence: expected,
                salt: own,
                room: length,
                segment_bytes,
                ahead: Ahead::new(disk.clone()),
            };
            next.read(&bytes, at == last, &mut replay)?;
            log = Some(next);
        }
        match (log, known) {
            (Some(log), _) => Ok(log),
            (None, Some(_)) => Err(corrupt(
                &*disk,
                &segment_name(sequence),
                0,
                "the segment is missing",
            )),
            (None, None) => {
                let room = first_bytes(segment_bytes);
                let written = segment_bytes >= AHEAD_FROM;
                let file = create(&*disk, room, written, fresh, sequence)
                    .map_err(failed("cannot make the log".to_owned()))?;
                let name = segment_name(sequence);
                Ok(Self {
                    ahead: Ahead::new(disk.clone()),
                    disk,
                    room,
                    file,
                    name,
                    offset: SEGMENT_HEADER,
                    sequence,
                    salt: fresh,
                    segment_bytes,
                })
            }
        }
    }

    /// Replays the frames of a segment.
    fn read(
        &mut self,
        bytes: &[u8],
        last: bool,
        replay: &mut impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), StoreError> {
        let mut at = SEGMENT_HEADER as usize;
        while let Some((sequence, payload)) = parse_frame(&bytes[at..], self.salt) {
            if sequence != self.sequence {
                let why = format!("frame {sequence} stands where {} is due", self.sequence);
                return Err(corrupt(&*self.disk, &self.name, at as u64, &why));
            }
            replay(payload).map_err(|why| corrupt(&*self.disk, &self.name, at as u64, &why))?;
            self.sequence += 1;
            at += FRAME_HEADER + payload.len();
        }
        self.offset = at as u64;
        if !last {
            // Whether this is its end is seen from where the next segment begins.
            return Ok(());
        }
        let rest = &bytes[at..];
        if !blank(rest) && has_later_frame(rest, self.salt, self.sequence) {
            return Err(corrupt(
                &*self.disk,
                &self.name,
                self.offset,
                &format!("frame {} is damaged, and whole ones follow", self.sequence),
            ));
        }
        let failed = |error| {
            refused(
                &format!("cannot mend {}", self.disk.describe(&self.name)),
                &error,
            )
        };
        if !blank(rest) {
            tracing::warn!(
                segment = %self.disk.describe(&self.name),
                offset = self.offset,
                "cutting off a write that was interrupted"
            );
            self.file.cut(self.offset).map_err(failed)?;
            self.room = self.offset;
        }
        // What was read may be no further than the page cache, if a crash of the process alone came before the sync.
        self.file.sync().map_err(failed)?;
        if self.segment_bytes < AHEAD_FROM {
            // Without room ahead it is slower, no more.
            self.room = self.segment_bytes;
            let _ = self.file.reserve(self.room);
        }
        Ok(())
    }

    /// Writes a frame and makes it durable.
    pub(super) fn append(&mut self, frame: &mut [u8]) -> Result<(), AppendError> {
        if self.offset > SEGMENT_HEADER && self.offset + frame.len() as u64 > self.room {
            self.roll()?;
        }
        finish_frame(frame, self.salt, self.sequence);
        if let Err(error) = self.file.write(self.offset, frame) {
            // Half of it must not stand before the next.
            self.file
                .cut(self.offset)
                .and_then(|()| self.file.sync())
                .map_err(AppendError::Unknown)?;
            let _ = self.file.reserve(self.room);
            return Err(AppendError::Nothing(error));
        }
        self.file.sync().map_err(AppendError::Unknown)?;
        self.offset += frame.len() as u64;
        self.sequence += 1;
        if self.segment_bytes >= AHEAD_FROM && self.offset > self.room / 2 {
            self.ahead.begin(
                self.segment_bytes
                    .min(self.room * GROWTH)
                    .max(FIRST_BYTES.min(self.segment_bytes)),
            );
        }
        Ok(())
    }

    /// Begins a new segment.
    pub(super) fn roll(&mut self) -> Result<(), AppendError> {
        if self.offset == SEGMENT_HEADER {
            return Ok(());
        }
        match self.next() {
            Ok((file, room)) => {
                // Its room that was not needed goes with the segment: to give it back now would make every client wait.
                self.file = file;
                self.room = room;
                self.name = segment_name(self.sequence);
                self.offset = SEGMENT_HEADER;
                Ok(())
            }
            Err(error) => {
                // The old segment goes on, so the new one must not be found.
                let name = segment_name(self.sequence);
                let removed = self.disk.remove(&name).or_else(|e| match e.kind() {
                    io::ErrorKind::NotFound => Ok(()),
                    _ => Err(e),
                });
                removed
                    .and_then(|()| self.disk.sync_names())
                    .map_err(AppendError::Unknown)?;
                Err(AppendError::Nothing(error))
            }
        }
    }

    /// The file of the next segment, durable, and how long it is.
    fn next(&mut self) -> io::Result<ahead::Blank> {
        let Some((mut file, room)) = self.ahead.take() else {
            let room = first_bytes(self.segment_bytes).max(self.room.min(self.segment_bytes));
            let written = self.segment_bytes >= AHEAD_FROM && room <= FIRST_BYTES;
            let file = create(&*self.disk, room, written, self.salt, self.sequence)?;
            return Ok((file, room));
        };
        file.write(0, &header(self.salt, self.sequence))?;
        file.sync()?;
        self.disk
            .rename(ahead::NAME, &segment_name(self.sequence))?;
        self.disk.sync_names()?;
        Ok((file, room))
    }

    /// The sequence number of the next frame.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn salt(&self) -> u64 {
        self.salt
    }
}

/// Whether a crash came while a segment was made: its header is not whole, and nothing else was ever written to it.
fn never_begun(disk: &dyn Disk, segment: &Found) -> Result<bool, StoreError> {
    let failed = |error| {
        refused(
            &format!("cannot read {}", disk.describe(&segment.name)),
            &error,
        )
    };
    let file = disk.open(&segment.name).map_err(failed)?;
    let header = file.read(0, SEGMENT_HEADER as usize).map_err(failed)?;
    if salt_of(&header, segment.first).is_some() {
        return Ok(false);
    }
    let length = usize::try_from(file.len().map_err(failed)?).unwrap_or(usize::MAX);
    let rest = file
        .read(SEGMENT_HEADER, length.saturating_sub(header.len()))
        .map_err(failed)?;
    Ok(blank(&rest))
}

/// Whether bytes are all zero, as room is that was taken ahead.
fn blank(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes
        .chunks(ZEROS.len())
        .all(|chunk| chunk == &ZEROS[..chunk.len()])
}

/// Removes the segments before a sequence number, which must begin one.
pub(super) fn remove_before(disk: &dyn Disk, sequence: u64) -> io::Result<()> {
    for old in segments(disk)?
        .into_iter()
        .filter(|segment| segment.first < sequence)
    {
        disk.remove(&old.name)?;
    }
    Ok(())
}

fn segment_name(first: u64) -> String {
    format!("{PREFIX}{first:016x}")
}

/// How long the first segment of a log is.
fn first_bytes(segment_bytes: u64) -> u64 {
    if segment_bytes < AHEAD_FROM {
        segment_bytes
    } else {
        segment_bytes.min(FIRST_BYTES)
    }
}

fn remove_ahead(disk: &dyn Disk) -> io::Result<()> {
    if disk.list()?.iter().any(|name| name == ahead::NAME) {
        disk.remove(ahead::NAME)?;
    }
    Ok(())
}

/// Makes a segment durable. Its room is full of zeros, or only reserved.
fn create(
    disk: &dyn Disk,
    length: u64,
    written: bool,
    salt: u64,
    first: u64,
) -> io::Result<Box<dyn DiskFile>> {
    let mut file = disk.create(&segment_name(first))?;
    file.reserve(length)?;
    let mut at = 0;
    while written && at < length {
        at += ahead::fill(&mut *file, at, length)?;
    }
    file.write(0, &header(salt, first))?;
    file.sync()?;
    disk.sync_names()?;
    Ok(file)
}
