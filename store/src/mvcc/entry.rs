//! A key with its versions.

use std::collections::VecDeque;

use bytes::Bytes;
use orlop_core::revision::Revision;
use orlop_core::store::{KeyValue, LeaseId};

/// What is at a key from one commit on.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) modified: u64,
    /// `None` when the commit deleted the key.
    pub(super) live: Option<Live>,
}

#[derive(Debug)]
pub(super) struct Live {
    pub(super) value: Bytes,
    pub(super) created: u64,
    pub(super) version: u64,
    pub(super) lease: Option<LeaseId>,
}

/// A key with its versions, the newest apart.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Bytes,
    pub(super) latest: Version,
    /// In order of their revisions.
    pub(super) older: VecDeque<Version>,
}

impl Entry {
    pub(super) fn kv(&self, version: &Version) -> Option<KeyValue> {
        version.live.as_ref().map(|live| KeyValue {
            key: self.key.clone(),
            value: live.value.clone(),
            create_revision: Revision(live.created),
            mod_revision: Revision(version.modified),
            version: live.version,
            lease: live.lease,
        })
    }

    pub(super) fn version_at(&self, revision: u64) -> Option<&Version> {
        if self.latest.modified <= revision {
            return Some(&self.latest);
        }
        let after = self
            .older
            .partition_point(|version| version.modified <= revision);
        after.checked_sub(1).and_then(|at| self.older.get(at))
    }

    pub(super) fn live_at(&self, revision: u64) -> bool {
        self.version_at(revision)
            .is_some_and(|version| version.live.is_some())
    }

    /// Drops the versions that no read at `floor` or later can meet. True when nothing is left of the key.
    pub(super) fn forget(&mut self, floor: u64) -> bool {
        while let Some(front) = self.older.front() {
            let next = self.older.get(1).unwrap_or(&self.latest);
            let superseded = next.modified <= floor;
            let gone = front.live.is_none() && front.modified <= floor;
            if !superseded && !gone {
                break;
            }
            self.older.pop_front();
        }
        if self.older.is_empty() {
            self.older = VecDeque::new();
            return self.latest.live.is_none() && self.latest.modified <= floor;
        }
        false
    }
}
