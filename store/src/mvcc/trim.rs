//! How history is given up.

use orlop_core::revision::Revision;
use orlop_core::store::StoreError;

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
    pub(crate) fn trim(&mut self, seen: u64) -> bool {
        let pin = self.pins.iter().copied().min().unwrap_or(u64::MAX);
        for _ in 0..TRIM_STEP {
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
            let Some(changes) = self.history.pop_oldest() else {
                return false;
            };
            let floor = self.oldest.min(pin);
            for change in changes.iter() {
                let Some(slot) = self.by_key.get(&self.entries, change.key()) else {
                    continue;
                };
                if self.entries.get_mut(slot).forget(floor) {
                    self.remove(slot);
                }
            }
        }
        true
    }
}
