//! The index that both stores share: every key with its versions, the history of commits, and the leases.
//!
//! A commit is applied at once and gets its revision, but it is *seen* only when it is published. A memory store publishes in
//! the same breath; a durable store publishes when the commit is on disk, and takes back what could not be written. Readers
//! read at the published revision, so the versions of commits that are on their way are there and yet invisible, and the next
//! commit's conditions are checked against them.

mod commit;
mod entry;
mod history;
mod keys;
mod lease;
mod read;
mod slab;
mod transaction;
mod trim;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use orlop_core::store::{Change, KeyValue};

pub(crate) use self::commit::{Applied, tighten, validate};
use self::entry::{Entry, Live, Version};
use self::history::History;
use self::keys::Keys;
pub(crate) use self::lease::Leases;
use self::slab::Slab;
pub(crate) use self::transaction::{Transacted, tighten_steps};
pub(crate) use self::trim::TRIM_STEP;

/// The first revision: that of an empty store.
pub(crate) const FIRST: u64 = 1;

#[derive(Debug)]
pub(crate) struct Index {
    entries: Slab<Entry>,
    by_key: Keys,
    ordered: BTreeMap<Bytes, u32>,
    /// Whether [`ordered`](Self::ordered) is left empty until [`loaded`](Self::loaded).
    loading: bool,
    history: History,
    leases: Leases,
    /// The slot of the key that was written or deleted last.
    touched: u32,
    newest: u64,
    visible: u64,
    oldest: u64,
    /// No version that a read at one of these revisions needs is forgotten.
    pins: Vec<u64>,
}

impl Index {
    /// An empty index that keeps about `budget` bytes of history.
    pub(crate) fn new(budget: usize) -> Self {
        Self::at(FIRST, budget)
    }

    /// An empty index that begins at a revision; keys are then filled in by [`restore`](Self::restore).
    pub(crate) fn at(revision: u64, budget: usize) -> Self {
        Self {
            entries: Slab::default(),
            by_key: Keys::default(),
            ordered: BTreeMap::new(),
            loading: false,
            history: History::new(revision + 1, budget),
            leases: Leases::default(),
            touched: 0,
            newest: revision,
            visible: revision,
            oldest: revision,
            pins: Vec::new(),
        }
    }

    /// The newest published revision.
    pub(crate) fn visible(&self) -> u64 {
        self.visible
    }

    /// The newest revision, published or not.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// The oldest revision that can be read and watched from.
    pub(crate) fn oldest(&self) -> u64 {
        self.oldest
    }

    /// The oldest revision that can be watched from.
    pub(crate) fn watchable(&self) -> u64 {
        self.oldest.max(self.history.first().min(self.visible + 1))
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    pub(crate) fn leases_mut(&mut self) -> &mut Leases {
        &mut self.leases
    }

    /// Keeps the state at a published revision readable until it is [unpinned](Self::unpin), once for every time that it was pinned.
    pub(crate) fn pin(&mut self, revision: u64) {
        self.pins.push(revision);
    }

    pub(crate) fn unpin(&mut self, revision: u64) {
        if let Some(at) = self.pins.iter().position(|&pin| pin == revision) {
            self.pins.swap_remove(at);
        }
    }

    /// Begins to fill the index with much, key by key: nothing can be read in order until it is [`loaded`](Self::loaded).
    pub(crate) fn load(&mut self) {
        self.loading = true;
    }

    /// Puts the keys in order. To sort them once is several times faster than to insert each at its place, and it takes less room.
    pub(crate) fn loaded(&mut self) {
        self.loading = false;
        self.ordered = self
            .entries
            .iter()
            .map(|(slot, entry)| (entry.key.clone(), slot))
            .collect();
    }

    /// Puts a key back as a checkpoint has it. For filling an index before it is used.
    pub(crate) fn restore(&mut self, kv: KeyValue) {
        let slot = self.slot(&kv.key);
        if let Some(lease) = kv.lease {
            self.leases.attach(lease, &kv.key);
        }
        self.entries.get_mut(slot).latest = Version {
            modified: kv.mod_revision.0,
            live: Some(Live {
                value: kv.value,
                created: kv.create_revision.0,
                version: kv.version,
                lease: kv.lease,
            }),
        };
    }

    /// Makes all commits up to a revision visible.
    pub(crate) fn publish(&mut self, revision: u64) {
        debug_assert!(revision <= self.newest && revision >= self.visible);
        self.visible = revision;
    }

    /// The published commits from a revision on, at most `limit`; `None` when history does not reach back to it.
    pub(crate) fn commits(
        &self,
        from: u64,
        limit: usize,
    ) -> Option<impl Iterator<Item = &Arc<[Change]>>> {
        let left = usize::try_from((self.visible + 1).saturating_sub(from)).unwrap_or(usize::MAX);
        self.history
            .from(from)
            .map(|commits| commits.take(left.min(limit)))
    }
}
