//! The commits that watchers can still be told of.

use std::collections::VecDeque;
use std::sync::Arc;

use orlop_core::store::Change;

/// What one change weighs beside its key and the value that it superseded.
const CHANGE_BYTES: usize = 320;

/// A commit that is remembered.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) changes: Arc<[Change]>,
    weight: u32,
    /// Where its key was when it was made, if it changed one key alone: so that forgetting it need not find the key. The place may
    /// have become another key's since.
    pub(super) slot: Option<u32>,
}

/// Commits in order. Every commit takes the next revision, so a revision is found by subtraction.
#[derive(Debug)]
pub(super) struct History {
    commits: VecDeque<Kept>,
    /// The revision of the first commit, or of the next one when there is none.
    first: u64,
    bytes: usize,
    budget: usize,
}

impl History {
    pub(super) fn new(first: u64, budget: usize) -> Self {
        Self {
            commits: VecDeque::new(),
            first,
            bytes: 0,
            budget,
        }
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn over_budget(&self) -> bool {
        self.bytes > self.budget
    }

    /// Takes in a commit; with the slot of the last key that it changed.
    pub(super) fn push(&mut self, changes: Arc<[Change]>, slot: u32) {
        let weight = u32::try_from(weight(&changes)).unwrap_or(u32::MAX);
        self.bytes += weight as usize;
        let slot = (changes.len() == 1).then_some(slot);
        self.commits.push_back(Kept {
            changes,
            weight,
            slot,
        });
    }

    pub(super) fn pop_oldest(&mut self) -> Option<Kept> {
        let kept = self.commits.pop_front()?;
        self.first += 1;
        self.bytes -= kept.weight as usize;
        Some(kept)
    }

    pub(super) fn pop_newest(&mut self) -> Option<Arc<[Change]>> {
        let kept = self.commits.pop_back()?;
        self.bytes -= kept.weight as usize;
        Some(kept.changes)
    }

    /// The commits from a revision on; `None` when it is no longer there.
    pub(super) fn from(&self, revision: u64) -> Option<impl Iterator<Item = &Arc<[Change]>>> {
        let skip = usize::try_from(revision.checked_sub(self.first)?).unwrap_or(usize::MAX);
        let commits = self.commits.range(skip.min(self.commits.len())..);
        Some(commits.map(|kept| &kept.changes))
    }
}

/// The bytes that go when a commit is forgotten. A value is counted with the change that superseded it: until then it is the
/// live state's.
fn weight(changes: &[Change]) -> usize {
    changes
        .iter()
        .map(|change| {
            let prev = match change {
                Change::Put { prev, .. } | Change::Delete { prev, .. } => prev,
            };
            CHANGE_BYTES + change.key().len() + prev.as_ref().map_or(0, |prev| prev.value.len())
        })
        .sum()
}
