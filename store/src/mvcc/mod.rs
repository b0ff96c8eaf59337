//! The index that both stores share: every key with its versions, the history of commits, and the leases.
//!
//! A commit is applied at once and gets its revision, but it is *seen* only when it is published. A memory store publishes in
//! the same breath; a durable store publishes when the commit is on disk, and takes back what could not be written. Readers
//! read at the published revision, so the versions of commits that are on their way are there and yet invisible, and the next
//! commit's conditions are checked against them.

mod history;
mod lease;
mod slab;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use orlop_core::revision::Revision;
use orlop_core::store::{Change, Commit, KeyRange, KeyValue, LeaseId, Op, StoreError, Txn};

use self::history::History;
pub(crate) use self::lease::Leases;
use self::slab::Slab;

/// The first revision: that of an empty store.
pub(crate) const FIRST: u64 = 1;

/// How many commits are forgotten under one hold of the lock, so that compaction never makes a writer wait for long.
pub(crate) const TRIM_STEP: usize = 256;

/// What is at a key from one commit on.
#[derive(Debug)]
struct Version {
    modified: u64,
    /// `None` when the commit deleted the key.
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    value: Bytes,
    created: u64,
    version: u64,
    lease: Option<LeaseId>,
}

/// A key with its versions, the newest apart.
#[derive(Debug)]
struct Entry {
    key: Bytes,
    latest: Version,
    /// In order of their revisions.
    older: VecDeque<Version>,
}

impl Entry {
    fn kv(&self, version: &Version) -> Option<KeyValue> {
        version.live.as_ref().map(|live| KeyValue {
            key: self.key.clone(),
            value: live.value.clone(),
            create_revision: Revision(live.created),
            mod_revision: Revision(version.modified),
            version: live.version,
            lease: live.lease,
        })
    }

    fn version_at(&self, revision: u64) -> Option<&Version> {
        if self.latest.modified <= revision {
            return Some(&self.latest);
        }
        let after = self
            .older
            .partition_point(|version| version.modified <= revision);
        after.checked_sub(1).and_then(|at| self.older.get(at))
    }

    fn live_at(&self, revision: u64) -> bool {
        self.version_at(revision)
            .is_some_and(|version| version.live.is_some())
    }

    /// Drops the versions that no read at `floor` or later can meet. True when nothing is left of the key.
    fn forget(&mut self, floor: u64) -> bool {
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

/// What became of a transaction.
#[derive(Debug)]
pub(crate) enum Applied {
    /// It changed keys at a new revision, which has to be published.
    Changed(Arc<[Change]>, Commit),
    /// It changed nothing. The answer tells of the newest state, published or not.
    Unchanged(Commit),
}

#[derive(Debug)]
pub(crate) struct Index {
    entries: Slab<Entry>,
    by_key: HashMap<Bytes, u32>,
    ordered: BTreeMap<Bytes, u32>,
    history: History,
    leases: Leases,
    newest: u64,
    visible: u64,
    oldest: u64,
    /// While set, no version that a read at this revision needs is forgotten.
    pin: Option<u64>,
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
            by_key: HashMap::new(),
            ordered: BTreeMap::new(),
            history: History::new(revision + 1, budget),
            leases: Leases::default(),
            newest: revision,
            visible: revision,
            oldest: revision,
            pin: None,
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

    /// Keeps the state at a published revision readable until it is unpinned.
    pub(crate) fn set_pin(&mut self, pin: Option<u64>) {
        self.pin = pin;
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
        let entry = self.entries.get(*self.by_key.get(key)?);
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

    /// Checks the conditions against the newest state, published or not, and applies the writes at the next revision.
    pub(crate) fn commit(&mut self, txn: Txn) -> Result<Applied, StoreError> {
        let newest = self.newest;
        let holds = txn
            .compare
            .iter()
            .all(|compare| compare.holds(self.get(compare.key(), newest).as_ref()));
        if !holds {
            let current = txn
                .compare
                .iter()
                .map(|compare| self.get(compare.key(), newest))
                .collect();
            return Ok(Applied::Unchanged(Commit::Refused {
                revision: Revision(newest),
                current,
            }));
        }
        for op in &txn.ops {
            if let Op::Put {
                lease: Some(lease), ..
            } = op
                && !self.leases.usable(*lease)
            {
                return Err(StoreError::LeaseNotFound(*lease));
            }
        }
        let revision = newest + 1;
        let mut deleted = 0;
        let changes: Arc<[Change]> = if let [_] = txn.ops.as_slice()
            && let Some(Op::Put { .. }) = txn.ops.first()
        {
            let mut ops = txn.ops;
            let Some(Op::Put { key, value, lease }) = ops.pop() else {
                unreachable!("the one op is a put")
            };
            Arc::new([self.put(revision, &key, value, lease)])
        } else {
            let mut changes = Vec::with_capacity(txn.ops.len());
            for op in txn.ops {
                match op {
                    Op::Put { key, value, lease } => {
                        changes.push(self.put(revision, &key, value, lease))
                    }
                    Op::Delete(keys) => {
                        for key in self.live_keys(&keys) {
                            changes.extend(self.delete(revision, &key));
                            deleted += 1;
                        }
                    }
                }
            }
            if changes.is_empty() {
                return Ok(Applied::Unchanged(Commit::Applied {
                    revision: Revision(newest),
                    deleted: 0,
                }));
            }
            changes.into()
        };
        self.newest = revision;
        self.history.push(changes.clone());
        Ok(Applied::Changed(
            changes,
            Commit::Applied {
                revision: Revision(revision),
                deleted,
            },
        ))
    }

    /// Makes all commits up to a revision visible.
    pub(crate) fn publish(&mut self, revision: u64) {
        debug_assert!(revision <= self.newest && revision >= self.visible);
        self.visible = revision;
    }

    /// Takes back every commit that was not published, and every grant and revocation of a lease that is under way.
    pub(crate) fn roll_back(&mut self) {
        while self.newest > self.visible {
            let Some(changes) = self.history.pop_newest() else {
                break;
            };
            for change in changes.iter().rev() {
                self.take_back(change);
            }
            self.newest -= 1;
        }
        self.leases.roll_back();
    }

    fn take_back(&mut self, change: &Change) {
        let Some(&slot) = self.by_key.get(change.key()) else {
            return;
        };
        let entry = self.entries.get_mut(slot);
        if let Some(lease) = entry.latest.live.as_ref().and_then(|live| live.lease) {
            self.leases.detach(lease, change.key());
        }
        match entry.older.pop_back() {
            Some(version) => {
                if let Some(lease) = version.live.as_ref().and_then(|live| live.lease) {
                    self.leases.attach(lease, &entry.key);
                }
                entry.latest = version;
            }
            None => self.remove(slot),
        }
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
        let pin = self.pin.unwrap_or(u64::MAX);
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
                let Some(&slot) = self.by_key.get(change.key()) else {
                    continue;
                };
                if self.entries.get_mut(slot).forget(floor) {
                    self.remove(slot);
                }
            }
        }
        true
    }

    /// Revokes a lease as far as keys are concerned: the transaction that deletes what hangs on it.
    pub(crate) fn revocation(&self, lease: LeaseId) -> Txn {
        let ops = self
            .leases
            .keys(lease)
            .map(|key| Op::Delete(KeyRange::Key(key.clone())))
            .collect();
        Txn {
            compare: Vec::new(),
            ops,
        }
    }

    fn put(&mut self, revision: u64, key: &Bytes, value: Bytes, lease: Option<LeaseId>) -> Change {
        let slot = self.slot(key);
        let entry = self.entries.get_mut(slot);
        let prev = entry.kv(&entry.latest);
        let (created, version) = prev.as_ref().map_or((revision, 1), |prev| {
            (prev.create_revision.0, prev.version + 1)
        });
        let latest = Version {
            modified: revision,
            live: Some(Live {
                value,
                created,
                version,
                lease,
            }),
        };
        let old = std::mem::replace(&mut entry.latest, latest);
        if old.modified != 0 {
            entry.older.push_back(old);
        }
        let prev_lease = prev.as_ref().and_then(|prev| prev.lease);
        if prev_lease != lease {
            if let Some(lease) = prev_lease {
                self.leases.detach(lease, &entry.key);
            }
            if let Some(lease) = lease {
                self.leases.attach(lease, &entry.key);
            }
        }
        let value = entry
            .latest
            .live
            .as_ref()
            .map(|live| live.value.clone())
            .unwrap_or_default();
        Change::Put {
            kv: KeyValue {
                key: entry.key.clone(),
                value,
                create_revision: Revision(created),
                mod_revision: Revision(revision),
                version,
                lease,
            },
            prev,
        }
    }

    fn delete(&mut self, revision: u64, key: &Bytes) -> Option<Change> {
        let slot = *self.by_key.get(key)?;
        let entry = self.entries.get_mut(slot);
        let prev = entry.kv(&entry.latest)?;
        let old = std::mem::replace(
            &mut entry.latest,
            Version {
                modified: revision,
                live: None,
            },
        );
        entry.older.push_back(old);
        if let Some(lease) = prev.lease {
            self.leases.detach(lease, &entry.key);
        }
        Some(Change::Delete {
            key: entry.key.clone(),
            revision: Revision(revision),
            prev: Some(prev),
        })
    }

    /// The keys of a range that are there in the newest state.
    fn live_keys(&self, keys: &KeyRange) -> Vec<Bytes> {
        // The latest version, not the one at the newest revision: the transaction itself may have deleted the key already.
        let live = |slot: u32| self.entries.get(slot).latest.live.is_some();
        if let KeyRange::Key(key) = keys {
            let there = self.by_key.get(key).is_some_and(|&slot| live(slot));
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

    /// The place of a key, made when there is none.
    fn slot(&mut self, key: &Bytes) -> u32 {
        if let Some(&slot) = self.by_key.get(key) {
            return slot;
        }
        let slot = self.entries.insert(Entry {
            key: key.clone(),
            latest: Version {
                modified: 0,
                live: None,
            },
            older: VecDeque::new(),
        });
        self.by_key.insert(key.clone(), slot);
        self.ordered.insert(key.clone(), slot);
        slot
    }

    fn remove(&mut self, slot: u32) {
        let entry = self.entries.remove(slot);
        self.by_key.remove(&entry.key);
        self.ordered.remove(&entry.key);
    }
}

/// The bounds of what lies in a range after a key; `None` when nothing can.
fn bounds_after(keys: &KeyRange, after: Option<&Bytes>) -> Option<(Bound<Bytes>, Bound<Bytes>)> {
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

/// Checks what of a transaction can be checked without looking at the store.
pub(crate) fn validate(txn: &Txn) -> Result<(), StoreError> {
    let invalid = |text: String| Err(StoreError::InvalidRequest(text));
    let mut puts = BTreeSet::new();
    let mut deletes = Vec::new();
    let single = txn.ops.len() == 1;
    for op in &txn.ops {
        match op {
            Op::Put { key, .. } => {
                if key.is_empty() {
                    return invalid("a key must not be empty".to_owned());
                }
                if !single && !puts.insert(key) {
                    return invalid(format!(
                        "key {:?} is written twice",
                        key.as_ref().escape_ascii().to_string()
                    ));
                }
            }
            Op::Delete(keys) => deletes.push(keys),
        }
    }
    for keys in deletes {
        let Some(bounds) = bounds_after(keys, None) else {
            continue;
        };
        if let Some(key) = puts
            .range::<Bytes, _>((bounds.0.as_ref(), bounds.1.as_ref()))
            .next()
        {
            return invalid(format!(
                "key {:?} is both written and deleted",
                key.as_ref().escape_ascii().to_string()
            ));
        }
    }
    Ok(())
}
