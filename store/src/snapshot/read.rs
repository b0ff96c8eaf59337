//! Reading a snapshot.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use orlop_core::revision::Revision;
use orlop_core::store::{KeyValue, LeaseId, StoreError};
use ring::digest::{Context, SHA256};

use super::bolt::{Database, damaged, unreadable};
use super::message::{decode_key_value, decode_lease};
use super::{CHECKSUM, COMPACTED, KEYS, LEASES, META, SECTOR, SnapshotInfo, parse_revision_key};

/// How many bytes are read at once to check them.
const STEP: usize = 1 << 20;

/// What a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A lease.
    Lease {
        /// Its id.
        lease: LeaseId,
        /// The time to live in seconds that it was granted.
        ttl_seconds: u64,
        /// How many seconds it had left, where that was recorded.
        remaining_seconds: Option<u64>,
    },
    /// A key was written, at its `mod_revision`.
    Put(KeyValue),
    /// A key was deleted.
    Delete {
        /// The key.
        key: Bytes,
        /// The commit that deleted it.
        revision: Revision,
    },
}

/// The SHA-256 of the first `length` bytes of a file.
pub(super) fn checksum(file: &File, length: u64) -> io::Result<[u8; CHECKSUM as usize]> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; STEP];
    let mut at = 0;
    while at < length {
        let step = usize::try_from(length - at).map_or(STEP, |left| left.min(STEP));
        file.read_exact_at(&mut buffer[..step], at)?;
        context.update(&buffer[..step]);
        at += step as u64;
    }
    let mut sum = [0; CHECKSUM as usize];
    sum.copy_from_slice(context.finish().as_ref());
    Ok(sum)
}

/// Reads a snapshot of etcd's or of our own: first the leases, then what happened to keys, in order of revisions. What comes later
/// about a key holds. It reads files, so it blocks.
///
/// The whole file is checked against its checksum, where it has one, before anything is visited.
///
/// # Errors
/// [`StoreError::Corrupt`] with the offset for a file that is no snapshot, is cut off or was damaged; [`StoreError::Unavailable`] where it
/// cannot be read; and what the visitor returns, which ends the visit.
pub fn read(
    file: &File,
    visit: &mut dyn FnMut(Record) -> Result<(), StoreError>,
) -> Result<SnapshotInfo, StoreError> {
    let bytes = file.metadata().map_err(|error| unreadable(&error))?.len();
    let (length, has_checksum) = match bytes % SECTOR {
        0 => (bytes, false),
        CHECKSUM => (bytes - CHECKSUM, true),
        _ => {
            return Err(damaged(
                bytes,
                "no snapshot ends here: it was cut off, or is none",
            ));
        }
    };
    if has_checksum {
        let mut wanted = [0; CHECKSUM as usize];
        file.read_exact_at(&mut wanted, length)
            .map_err(|error| unreadable(&error))?;
        if checksum(file, length).map_err(|error| unreadable(&error))? != wanted {
            return Err(damaged(
                length,
                "the checksum is not that of what is before it",
            ));
        }
    }
    let mut database = Database::open(file, length)?;
    let buckets = database.buckets()?;
    let bucket = |name: &[u8]| buckets.iter().find(|bucket| bucket.name == name);
    let Some(keys) = bucket(KEYS) else {
        return Err(damaged(0, "it has no bucket for keys, as every etcd's has"));
    };
    let mut info = SnapshotInfo {
        // That of an empty store.
        revision: Revision(1),
        keys: 0,
        leases: 0,
        bytes,
        checksum: has_checksum,
    };
    if let Some(meta) = bucket(META) {
        database.visit(meta, &mut |element| {
            if element.key == COMPACTED {
                let (revision, ..) = parse_revision_key(element.value)
                    .ok_or_else(|| damaged(element.offset, "the compacted revision is none"))?;
                info.revision = info.revision.max(Revision(revision));
            }
            Ok(())
        })?;
    }
    if let Some(leases) = bucket(LEASES) {
        database.visit(leases, &mut |element| {
            let (lease, ttl, remaining) = decode_lease(element.value)
                .filter(|(lease, ..)| element.key == lease.0.to_be_bytes())
                .ok_or_else(|| damaged(element.offset, "a lease cannot be read"))?;
            info.leases += 1;
            visit(Record::Lease {
                lease,
                ttl_seconds: u64::try_from(ttl).unwrap_or(0),
                remaining_seconds: u64::try_from(remaining).ok().filter(|left| *left > 0),
            })
        })?;
    }
    database.visit(keys, &mut |element| {
        let wrong = |why| damaged(element.offset, why);
        let (revision, _, deleted) = parse_revision_key(element.key)
            .ok_or_else(|| wrong("a version stands under what is no revision"))?;
        let kv = decode_key_value(element.value)
            .ok_or_else(|| wrong("a version of a key cannot be read"))?;
        let revision = Revision(revision);
        info.revision = info.revision.max(revision);
        if deleted {
            return visit(Record::Delete {
                key: kv.key,
                revision,
            });
        }
        let fits = kv.mod_revision == revision
            && !kv.create_revision.is_zero()
            && kv.create_revision <= revision
            && (1..=i64::MAX as u64).contains(&kv.version);
        if !fits {
            return Err(wrong("a version of a key has another's revision"));
        }
        info.keys += 1;
        visit(Record::Put(kv))
    })?;
    Ok(info)
}
