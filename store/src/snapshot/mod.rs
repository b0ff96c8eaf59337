//! Backups: the state of any store as a file that etcd's tools and etcd itself read, and the way back.
//!
//! A snapshot is what `etcdctl snapshot save` writes: a bbolt database (see `bolt`) and after it the SHA-256 of it. Of its buckets,
//! `key` holds the versions of keys under their revisions, `lease` the leases, `meta` the revision that history begins with. So one
//! form serves everybody: `etcdctl snapshot status` and `etcdctl snapshot restore` take what [`save`] writes, and [`read`] takes what an
//! etcd of version 3 has written.
//!
//! # The revision
//!
//! etcd takes for its revision the greatest under which a version is recorded, a deletion counted, or the one to which it was
//! compacted, if that is greater. Of a store's state only the live keys can be read, and when its newest commit was a deletion, none of
//! them has the newest revision. So a snapshot also records the deletions of the newest commit, where history still has them, and
//! otherwise that of a key that never was; and it is compacted to its revision, since it holds no other. Neither etcd nor Orlop
//! gives out a revision twice after a restore.

mod bolt;
mod file;
mod message;
mod read;
mod save;
#[cfg(test)]
mod tests;

use orlop_core::revision::Revision;

pub use self::file::SnapshotFile;
pub(crate) use self::file::{beside, sync_parent};
pub use self::read::{Record, read};
pub use self::save::{save, save_as};

/// The length of the checksum behind the database.
const CHECKSUM: u64 = 32;

/// What lengths of etcd's databases are multiples of, whatever the size of a page: how one sees whether a checksum follows.
const SECTOR: u64 = 512;

const KEYS: &[u8] = b"key";
const LEASES: &[u8] = b"lease";
const META: &[u8] = b"meta";
const CONSISTENT_INDEX: &[u8] = b"consistent_index";
const COMPACTED: &[u8] = b"finishedCompactRev";
const COMPACTING: &[u8] = b"scheduledCompactRev";

/// What there is to say of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// The revision of the store when it was made. A store that is restored from it goes on from there.
    pub revision: Revision,
    /// How many versions of keys it holds, deletions not counted. One that Orlop wrote holds one version of a key; etcd's hold all that were
    /// not compacted.
    pub keys: u64,
    /// How many leases it holds.
    pub leases: u64,
    /// The length of the file, with the checksum.
    pub bytes: u64,
    /// Whether the file ends with its checksum. A database that was copied from the directory of an etcd has none.
    pub checksum: bool,
}

/// The key of a version in the bucket of keys: its revision, its place within the commit, and whether it is a deletion.
fn revision_key(revision: u64, place: u64, deleted: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(18);
    key.extend_from_slice(&revision.to_be_bytes());
    key.push(b'_');
    key.extend_from_slice(&place.to_be_bytes());
    if deleted {
        key.push(b't');
    }
    key
}

/// The revision, the place and whether it is a deletion; `None` for what is no such key.
fn parse_revision_key(key: &[u8]) -> Option<(u64, u64, bool)> {
    let (revision, rest) = key.split_first_chunk()?;
    let (place, rest) = rest.strip_prefix(b"_")?.split_first_chunk()?;
    let deleted = match rest {
        [] => false,
        b"t" => true,
        _ => return None,
    };
    let (revision, place) = (u64::from_be_bytes(*revision), u64::from_be_bytes(*place));
    let fits = i64::try_from(revision).is_ok() && i64::try_from(place).is_ok();
    fits.then_some((revision, place, deleted))
}
