//! Reads.

use std::ops::Bound;

use bytes::Bytes;
use orlop_core::revision::Revision;
use orlop_core::store::{KeyRange, KeyValue, StoreError};

use super::Index;

/// A part of a range, read under one hold of the lock.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// The keys, when they were wanted.
    pub(crate) items: Vec<KeyValue>,
    /// How many keys were counted and not returned.
    pub(crate) counted: u64,
    /// The key to go on after; `None` at the end of the range.
    pub(crate) resume: Option<Bytes>,
}

impl Index {
    /// Whether a revision can be read, and which it is: zero stands for the newest.
    pub(crate) fn readable(&self, revision: Option<Revision>) -> Result<u64, StoreError> {
        match revision {
            None | Some(Revision::ZERO) => Ok(self.visible),
            Some(Revision(revision)) if revision > self.visible => {
                Err(StoreError::FutureRevision {
                    requested: Revision(revision),
                    newest: Revision(self.visible),
                })
            }
            Some(Revision(revision)) if revision < self.oldest => Err(self.compacted(revision)),
            Some(Revision(revision)) => Ok(revision),
        }
    }

    pub(crate) fn compacted(&self, requested: u64) -> StoreError {
        StoreError::Compacted {
            requested: Revision(requested),
            oldest: Revision(self.oldest),
        }
    }

    /// One key at a readable revision.
    pub(crate) fn get(&self, key: &[u8], revision: u64) -> Option<KeyValue> {
        let entry = self.entries.get(self.by_key.get(&self.entries, key)?);
        entry.kv(entry.version_at(revision)?)
    }

    /// The keys of a range at a readable revision, after a key: up to `wanted` of them with their values, further ones counted,
    /// after a look at `steps` keys at most.
    pub(crate) fn page(
        &self,
        keys: &KeyRange,
        after: Option<&Bytes>,
        revision: u64,
        wanted: usize,
        steps: usize,
    ) -> Page {
        let mut page = Page::default();
        let Some(bounds) = bounds_after(keys, after) else {
            return page;
        };
        let mut looked = 0;
        for (key, &slot) in self.ordered.range(bounds) {
            if looked == steps {
                return page;
            }
            looked += 1;
            let entry = self.entries.get(slot);
            if page.items.len() < wanted {
                page.items.extend(
                    entry
                        .version_at(revision)
                        .and_then(|version| entry.kv(version)),
                );
            } else if entry.live_at(revision) {
                page.counted += 1;
            }
            if looked == steps {
                page.resume = Some(key.clone());
            }
        }
        page.resume = None;
        page
    }

    /// The keys of a range that are there in the newest state.
    pub(super) fn live_keys(&self, keys: &KeyRange) -> Vec<Bytes> {
        // The latest version, not the one at the newest revision: the transaction itself may have deleted the key already.
        let live = |slot: u32| self.entries.get(slot).latest.live.is_some();
        if let KeyRange::Key(key) = keys {
            let there = self.by_key.get(&self.entries, key).is_some_and(live);
            return there.then(|| key.clone()).into_iter().collect();
        }
        let Some(bounds) = bounds_after(keys, None) else {
            return Vec::new();
        };
        self.ordered
            .range(bounds)
            .filter(|&(_, &slot)| live(slot))
            .map(|(key, _)| key.clone())
            .collect()
    }
}

/// The bounds of what lies in a range after a key; `None` when nothing can.
pub(super) fn bounds_after(
    keys: &KeyRange,
    after: Option<&Bytes>,
) -> Option<(Bound<Bytes>, Bound<Bytes>)> {
    let (mut from, to) = keys.bounds();
    if let Some(after) = after {
        let later = match &from {
            Bound::Included(from) => after >= from,
            _ => true,
        };
        if later {
            from = Bound::Excluded(after.clone());
        }
    }
    let empty = match (&from, &to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Excluded(to) | Bound::Included(to),
        ) => from >= to,
        _ => false,
    };
    (!empty).then_some((from, to))
}
