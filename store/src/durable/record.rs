//! What is written: records, and the checked frames that hold them.
//!
//! All numbers are little-endian. A *frame* is a magic number (4 bytes), the length of its payload (4), its sequence number (8), a
//! CRC-32 (4) over the store's salt, the length, the sequence and the payload, and then the payload. A frame is written and synced
//! before the next is begun, so a damaged frame with a whole one after it was once acknowledged, and a damaged frame at the end is
//! the write that a crash interrupted. The salt is drawn when the store is made; it keeps bytes inside a value from looking
//! like a frame.

use std::sync::Arc;

use bytes::Bytes;
use orlop_core::revision::Revision;
use orlop_core::store::{Change, KeyRange, KeyValue, LeaseId, Op};

/// The length of a frame before its payload.
pub(super) const FRAME_HEADER: usize = 20;

const FRAME_MAGIC: [u8; 4] = *b"oLfR";

const COMMIT: u8 = 1;
const GRANT: u8 = 2;
const REVOKE: u8 = 3;
const COMPACT: u8 = 4;

const DELETE: u8 = 0;
const PUT: u8 = 1;
const PUT_WITH_LEASE: u8 = 2;

/// One thing that happened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A commit with the keys that it wrote and deleted.
    Commit { revision: u64, ops: Vec<Op> },
    /// A lease was granted, with its time to live in seconds.
    Grant { lease: LeaseId, ttl: u64 },
    /// A lease ended. The commit that deleted its keys stands before.
    Revoke { lease: LeaseId },
    /// History before a revision was given up.
    Compact { revision: u64 },
}

pub(super) fn encode_commit(out: &mut Vec<u8>, revision: u64, changes: &Arc<[Change]>) {
    out.push(COMMIT);
    out.extend_from_slice(&revision.to_le_bytes());
    put_length(out, changes.len());
    for change in changes.iter() {
        match change {
            Change::Put { kv, .. } => {
                match kv.lease {
                    None => out.push(PUT),
                    Some(lease) => {
                        out.push(PUT_WITH_LEASE);
                        out.extend_from_slice(&lease.0.to_le_bytes());
                    }
                }
                put_bytes(out, &kv.key);
                put_bytes(out, &kv.value);
            }
            Change::Delete { key, .. } => {
                out.push(DELETE);
                put_bytes(out, key);
            }
        }
    }
}

pub(super) fn encode_grant(out: &mut Vec<u8>, lease: LeaseId, ttl: u64) {
    out.push(GRANT);
    out.extend_from_slice(&lease.0.to_le_bytes());
    out.extend_from_slice(&ttl.to_le_bytes());
}

pub(super) fn encode_revoke(out: &mut Vec<u8>, lease: LeaseId) {
    out.push(REVOKE);
    out.extend_from_slice(&lease.0.to_le_bytes());
}

pub(super) fn encode_compact(out: &mut Vec<u8>, revision: u64) {
    out.push(COMPACT);
    out.extend_from_slice(&revision.to_le_bytes());
}

/// Writes a key with its value and its history.
pub(super) fn encode_key_value(out: &mut Vec<u8>, kv: &KeyValue) {
    put_bytes(out, &kv.key);
    put_bytes(out, &kv.value);
    for number in [kv.create_revision.0, kv.mod_revision.0, kv.version] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.push(u8::from(kv.lease.is_some()));
    if let Some(lease) = kv.lease {
        out.extend_from_slice(&lease.0.to_le_bytes());
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    // The store refuses transactions of 4 GiB long before.
    let length = u32::try_from(length).expect("no transaction has 2³² parts");
    out.extend_from_slice(&length.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Reads what was encoded. Everything yields `None` where the bytes do not fit the form.
#[derive(Debug)]
pub(super) struct Decoder<'a>(pub(super) &'a [u8]);

impl Decoder<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn lease(&mut self) -> Option<LeaseId> {
        self.array().map(i64::from_le_bytes).map(LeaseId)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    /// A copy, so that a small value does not keep the buffer of a whole file alive.
    fn bytes(&mut self) -> Option<Bytes> {
        let length = self.u32()? as usize;
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Bytes::copy_from_slice(first))
    }

    pub(super) fn record(&mut self) -> Option<Record> {
        Some(match self.u8()? {
            COMMIT => {
                let revision = self.u64()?;
                let count = self.u32()?;
                let mut ops = Vec::new();
                for _ in 0..count {
                    ops.push(match self.u8()? {
                        DELETE => Op::Delete(KeyRange::Key(self.bytes()?)),
                        PUT => Op::Put {
                            key: self.bytes()?,
                            value: self.bytes()?,
                            lease: None,
                        },
                        PUT_WITH_LEASE => {
                            let lease = Some(self.lease()?);
                            Op::Put {
                                key: self.bytes()?,
                                value: self.bytes()?,
                                lease,
                            }
                        }
                        _ => return None,
                    });
                }
                Record::Commit { revision, ops }
            }
            GRANT => Record::Grant {
                lease: self.lease()?,
                ttl: self.u64()?,
            },
            REVOKE => Record::Revoke {
                lease: self.lease()?,
            },
            COMPACT => Record::Compact {
                revision: self.u64()?,
            },
            _ => return None,
        })
    }

    pub(super) fn key_value(&mut self) -> Option<KeyValue> {
        Some(KeyValue {
            key: self.bytes()?,
            value: self.bytes()?,
            create_revision: Revision(self.u64()?),
            mod_revision: Revision(self.u64()?),
            version: self.u64()?,
            lease: match self.u8()? {
                0 => None,
                1 => Some(self.lease()?),
                _ => return None,
            },
        })
    }

    pub(super) fn lease_with_ttl(&mut self) -> Option<(LeaseId, u64)> {
        Some((self.lease()?, self.u64()?))
    }
}

/// An empty frame, to append the payload to.
pub(super) fn begin_frame(out: &mut Vec<u8>) {
    out.clear();
    out.resize(FRAME_HEADER, 0);
}

/// Fills in the header of a frame whose payload is there.
pub(super) fn finish_frame(frame: &mut [u8], salt: u64, sequence: u64) {
    let length =
        u32::try_from(frame.len() - FRAME_HEADER).expect("the queue's bound is far below 4 GiB");
    let crc = frame_crc(salt, length, sequence, &frame[FRAME_HEADER..]);
    frame[..4].copy_from_slice(&FRAME_MAGIC);
    frame[4..8].copy_from_slice(&length.to_le_bytes());
    frame[8..16].copy_from_slice(&sequence.to_le_bytes());
    frame[16..20].copy_from_slice(&crc.to_le_bytes());
}

/// The sequence number and the payload of the frame that bytes begin with; `None` where they do not begin with a whole one.
pub(super) fn parse_frame(bytes: &[u8], salt: u64) -> Option<(u64, &[u8])> {
    let mut header = Decoder(bytes);
    if header.array()? != FRAME_MAGIC {
        return None;
    }
    let (length, sequence, crc) = (header.u32()?, header.u64()?, header.u32()?);
    let payload = header.0.get(..length as usize)?;
    (frame_crc(salt, length, sequence, payload) == crc).then_some((sequence, payload))
}

/// The length of the payload that a frame's header announces, to know how much to read.
pub(super) fn announced(header: &[u8]) -> Option<usize> {
    let mut header = Decoder(header);
    (header.array()? == FRAME_MAGIC).then_some(())?;
    header.u32().map(|length| length as usize)
}

/// Whether a whole frame with a later sequence number is anywhere in bytes.
pub(super) fn has_later_frame(bytes: &[u8], salt: u64, sequence: u64) -> bool {
    let starts = bytes
        .windows(4)
        .enumerate()
        .filter(|(_, window)| *window == FRAME_MAGIC);
    starts
        .filter_map(|(at, _)| parse_frame(&bytes[at..], salt))
        .any(|(found, _)| found > sequence)
}

fn frame_crc(salt: u64, length: u32, sequence: u64, payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_le_bytes());
    crc.update(&length.to_le_bytes());
    crc.update(&sequence.to_le_bytes());
    crc.update(payload);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(lease: Option<LeaseId>) -> KeyValue {
        KeyValue {
            key: "k".into(),
            value: "value".into(),
            create_revision: Revision(3),
            mod_revision: Revision(9),
            version: 4,
            lease,
        }
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let lease = LeaseId(-7);
        let changes: Arc<[Change]> = Arc::new([
            Change::Put {
                kv: kv(None),
                prev: None,
            },
            Change::Put {
                kv: kv(Some(lease)),
                prev: Some(kv(None)),
            },
            Change::Delete {
                key: "gone".into(),
                revision: Revision(9),
                prev: None,
            },
        ]);
        let mut out = Vec::new();
        encode_commit(&mut out, 9, &changes);
        encode_grant(&mut out, lease, 60);
        encode_revoke(&mut out, lease);
        encode_compact(&mut out, 5);
        let put = |lease| Op::Put {
            key: "k".into(),
            value: "value".into(),
            lease,
        };
        let wanted = [
            Record::Commit {
                revision: 9,
                ops: vec![
                    put(None),
                    put(Some(lease)),
                    Op::Delete(KeyRange::key("gone")),
                ],
            },
            Record::Grant { lease, ttl: 60 },
            Record::Revoke { lease },
            Record::Compact { revision: 5 },
        ];
        let mut decoder = Decoder(&out);
        for record in wanted {
            assert_eq!(decoder.record(), Some(record));
        }
        assert!(decoder.is_empty());
        for length in 0..out.len() {
            let mut decoder = Decoder(&out[..length]);
            while !decoder.is_empty() && decoder.record().is_some() {}
        }
        let mut out = Vec::new();
        encode_key_value(&mut out, &kv(Some(lease)));
        encode_key_value(&mut out, &kv(None));
        let mut decoder = Decoder(&out);
        assert_eq!(decoder.key_value(), Some(kv(Some(lease))));
        assert_eq!(decoder.key_value(), Some(kv(None)));
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let mut frame = Vec::new();
        begin_frame(&mut frame);
        frame.extend_from_slice(b"some payload");
        finish_frame(&mut frame, 42, 7);
        assert_eq!(parse_frame(&frame, 42), Some((7, b"some payload".as_ref())));
        assert_eq!(parse_frame(&frame, 43), None);
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse_frame(&damaged, 42), None, "bit {bit}");
        }
        assert!(has_later_frame(
            &[b"oLfRnoise".as_ref(), &frame].concat(),
            42,
            6
        ));
        assert!(!has_later_frame(&frame, 42, 7));
    }
}
