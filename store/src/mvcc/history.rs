//! The commits that watchers can still be told of.

use std::collections::VecDeque;
use std::sync::Arc;

use orlop_core::store::Change;

/// What one change weighs beside its key and the value that it superseded.
const CHANGE_BYTES: usize = 320;

/// Commits in order. Every commit takes the next revision, so a revision is found by subtraction.
#[derive(Debug)]
pub(super) struct History {
    commits: VecDeque<Arc<[Change]>>,
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

    pub(super) fn push(&mut self, changes: Arc<[Change]>) {
        self.bytes += weight(&changes);
        self.commits.push_back(changes);
    }

    pub(super) fn pop_oldest(&mut self) -> Option<Arc<[Change]>> {
        let changes = self.commits.pop_front()?;
        self.first += 1;
        self.bytes -= weight(&changes);
        Some(changes)
    }

    pub(super) fn pop_newest(&mut self) -> Option<Arc<[Change]>> {
        let changes = self.commits.pop_back()?;
        self.bytes -= weight(&changes);
        Some(changes)
    }

    /// The commits from a revision on; `None` when it is no longer there.
    pub(super) fn from(&self, revision: u64) -> Option<impl Iterator<Item = &Arc<[Change]>>> {
        let skip = usize::try_from(revision.checked_sub(self.first)?).unwrap_or(usize::MAX);
        Some(self.commits.range(skip.min(self.commits.len())..))
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
