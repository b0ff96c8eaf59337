//! The commits that this process was told of and has not forgotten yet.

use std::collections::VecDeque;
use std::sync::Arc;

use orlop_core::store::{Change, KeyValue};

use crate::watch::Published;

/// What one change weighs beside its keys and values.
const CHANGE_BYTES: usize = 256;

/// Commits in order, bounded by bytes. Every commit takes the next revision; one that changed nothing that this process may see has no
/// changes here, and takes no room.
pub(super) struct History {
    /// The commits that have changes, with their revisions.
    commits: VecDeque<(u64, Arc<[Change]>)>,
    /// Everything from this revision on is here.
    first: u64,
    newest: u64,
    bytes: usize,
    budget: usize,
    /// The revision that etcd was compacted to, as far as it is known.
    compacted: u64,
    nothing: Arc<[Change]>,
}

impl History {
    /// A history of what comes after a revision.
    pub(super) fn after(revision: u64, budget: usize) -> Self {
        Self {
            commits: VecDeque::new(),
            first: revision + 1,
            newest: revision,
            bytes: 0,
            budget,
            compacted: 0,
            nothing: Arc::new([]),
        }
    }

    /// The newest commit.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// Adds the next commit. The oldest go when there are too many bytes, but never this one.
    pub(super) fn push(&mut self, changes: Arc<[Change]>) {
        self.bytes += weight(&changes);
        self.newest += 1;
        self.commits.push_back((self.newest, changes));
        while self.bytes > self.budget && self.commits.len() > 1 {
            if let Some((revision, oldest)) = self.commits.pop_front() {
                self.bytes -= weight(&oldest);
                self.first = revision + 1;
            }
        }
    }

    /// Adds commits without changes up to a revision.
    pub(super) fn pad(&mut self, revision: u64) {
        self.newest = self.newest.max(revision);
    }

    /// Forgets everything, and goes on after a revision. Whoever has not read what was forgotten or left out finds that it is gone.
    pub(super) fn begin_after(&mut self, revision: u64) {
        self.commits.clear();
        self.bytes = 0;
        self.first = revision + 1;
        self.newest = revision;
    }

    pub(super) fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Remembers that etcd was compacted to a revision.
    pub(super) fn set_compacted(&mut self, revision: u64) {
        self.compacted = self.compacted.max(revision);
    }
}

impl Published for History {
    fn visible(&self) -> u64 {
        self.newest
    }

    fn watchable(&self) -> u64 {
        self.first.max(self.compacted)
    }

    fn commits(&self, from: u64, limit: usize) -> Option<impl Iterator<Item = &Arc<[Change]>>> {
        if from < self.first {
            return None;
        }
        let start = self
            .commits
            .partition_point(|(revision, _)| *revision < from);
        let mut rest = self.commits.range(start..).peekable();
        let revisions = (from..=self.newest).take(limit);
        Some(revisions.map(move |revision| {
            rest.next_if(|(next, _)| *next == revision)
                .map_or(&self.nothing, |(_, commit)| commit)
        }))
    }
}

fn weight(changes: &[Change]) -> usize {
    let kv = |kv: &KeyValue| kv.key.len() + kv.value.len();
    let each = changes.iter().map(|change| {
        CHANGE_BYTES
            + match change {
                Change::Put { kv: now, prev } => kv(now) + prev.as_ref().map_or(0, kv),
                Change::Delete { key, prev, .. } => key.len() + prev.as_ref().map_or(0, kv),
            }
    });
    each.sum()
}

#[cfg(test)]
mod tests {
    use orlop_core::revision::Revision;

    use super::*;

    fn commit(revision: u64) -> Arc<[Change]> {
        Arc::new([Change::Delete {
            key: "k".into(),
            revision: Revision(revision),
            prev: None,
        }])
    }

    #[test]
    fn the_oldest_go_when_there_is_too_much() {
        let mut history = History::after(10, 3 * (CHANGE_BYTES + 1));
        assert_eq!((history.newest(), history.watchable()), (10, 11));
        for revision in 11..=20 {
            history.push(commit(revision));
        }
        assert_eq!((history.newest(), history.watchable()), (20, 18));
        assert!(history.commits(17, 10).is_none());
        let found = history.commits(18, 2).unwrap();
        let found: Vec<_> = found.map(|commit| commit[0].revision().0).collect();
        assert_eq!(found, [18, 19]);
        assert_eq!(history.commits(21, 2).unwrap().count(), 0);
        assert_eq!(history.commits(99, 2).unwrap().count(), 0);
    }

    #[test]
    fn what_was_compacted_or_left_out_cannot_be_watched() {
        let mut history = History::after(1, 1 << 20);
        for revision in 2..=9 {
            history.push(commit(revision));
        }
        history.set_compacted(5);
        assert_eq!(history.watchable(), 5);
        history.begin_after(20);
        assert_eq!((history.newest(), history.watchable()), (20, 21));
        assert!(history.commits(10, 1).is_none());
        history.pad(25);
        assert_eq!((history.newest(), history.watchable()), (25, 21));
    }

    #[test]
    fn commits_without_changes_take_no_room() {
        let mut history = History::after(1, 3 * (CHANGE_BYTES + 1));
        history.push(commit(2));
        history.pad(1 << 40);
        history.push(commit((1 << 40) + 1));
        history.pad(3);
        assert_eq!((history.newest(), history.watchable()), ((1 << 40) + 1, 2));
        let lengths = |from, limit| -> Vec<usize> {
            let commits = history.commits(from, limit).unwrap();
            commits.map(|commit| commit.len()).collect()
        };
        assert_eq!(lengths(2, 4), [1, 0, 0, 0]);
        assert_eq!(lengths((1 << 40) - 1, 10), [0, 0, 1]);
    }
}
