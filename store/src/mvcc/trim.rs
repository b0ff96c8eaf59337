//! How history is given up.

use std::sync::Arc;

use orlop_core::revision::Revision;
use orlop_core::store::{Change, StoreError};

use super::Index;

/// How many commits are forgotten under one hold of the lock, so that compaction never makes a writer wait for long.
pub(crate) const TRIM_STEP: usize = 256;

impl Index {
    /// Whether history before a revision can be given up.
    pub(crate) fn can_compact(&self, revision: u64) -> Result<(), StoreError> {
        if revision > self.visible {
            return Err(StoreError::FutureRevision {
                requested: Revision(revision),
                newest: Revision(self.visible),
            });
        }
        if revision <= self.oldest {
            return Err(self.compacted(revision));
        }
        Ok(())
    }

    /// Marks history before a revision as gone. [`trim`](Self::trim) then drops it.
    pub(crate) fn compact(&mut self, revision: u64) -> Result<(), StoreError> {
        self.can_compact(revision)?;
        self.oldest = revision;
        Ok(())
    }

    /// Drops what was compacted, and the oldest commits while history holds more bytes than its budget. Commits after `seen` are
    /// kept, unless the budget asks for their room: somebody has yet to look at them. True when there is more to do.
    ///
    /// What was forgotten is for the caller to drop, best without the lock: that takes longer than to forget it.
    pub(crate) fn trim(&mut self, seen: u64, forgotten: &mut Vec<Arc<[Change]>>) -> bool {
        self.trim_some(seen, TRIM_STEP, forgotten)
    }

    /// As [`trim`](Self::trim), and `most` commits at most.
    pub(crate) fn trim_some(
        &mut self,
        seen: u64,
        most: usize,
        forgotten: &mut Vec<Arc<[Change]>>,
    ) -> bool {
        let pin = self.pins.iter().copied().min().unwrap_or(u64::MAX);
        for _ in 0..most {
            let first = self.history.first();
            // The newest published commit stays, so that the newest state can be read and watched from.
            if first >= self.visible || first >= pin {
                return false;
            }
            let compacted = first < self.oldest && first <= seen;
            if !compacted && !self.history.over_budget() {
                return false;
            }
            self.oldest = self.oldest.max(first + 1);
            let Some(commit) = self.history.pop_oldest() else {
                return false;
            };
            let floor = self.oldest.min(pin);
            if let Some(slot) = commit.slot {
                self.forget(slot, floor);
            } else {
                for change in commit.changes.iter() {
                    if let Some(slot) = self.by_key.get(&self.entries, change.key()) {
                        self.forget(slot, floor);
                    }
                }
            }
            forgotten.push(commit.changes);
        }
        true
    }

    /// Forgets the versions of a key that no read at `floor` or later can meet. That does no harm to any key.
    fn forget(&mut self, slot: u32, floor: u64) {
        let entry = self.entries.find_mut(slot);
        if entry.is_some_and(|entry| entry.forget(floor)) {
            self.remove(slot);
        }
    }
}
