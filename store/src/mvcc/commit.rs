//! Writes.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use orlop_core::revision::Revision;
use orlop_core::store::{Change, Commit, KeyRange, KeyValue, LeaseId, Op, StoreError, Txn};

use super::Index;
use super::entry::{Entry, Live, Version};
use super::read::bounds_after;

/// What became of a transaction.
#[derive(Debug)]
pub(crate) enum Applied {
    /// It changed keys at a new revision, which has to be published.
    Changed(Arc<[Change]>, Commit),
    /// It changed nothing. The answer tells of the newest state, published or not.
    Unchanged(Commit),
}

impl Index {
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
        self.history.push(changes.clone(), self.touched);
        Ok(Applied::Changed(
            changes,
            Commit::Applied {
                revision: Revision(revision),
                deleted,
            },
        ))
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
        let Some(slot) = self.by_key.get(&self.entries, change.key()) else {
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

    pub(super) fn put(
        &mut self,
        revision: u64,
        key: &Bytes,
        value: Bytes,
        lease: Option<LeaseId>,
    ) -> Change {
        let slot = self.slot(key);
        self.touched = slot;
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

    pub(super) fn delete(&mut self, revision: u64, key: &Bytes) -> Option<Change> {
        let slot = self.by_key.get(&self.entries, key)?;
        self.touched = slot;
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

    /// The place of a key, made when there is none.
    pub(super) fn slot(&mut self, key: &Bytes) -> u32 {
        if let Some(slot) = self.by_key.get(&self.entries, key) {
            return slot;
        }
        // A key may be a slice of a request, which it must not keep alive.
        let key = Bytes::copy_from_slice(key);
        let slot = self.entries.insert(Entry {
            key: key.clone(),
            latest: Version {
                modified: 0,
                live: None,
            },
            older: VecDeque::new(),
        });
        self.by_key.insert(&key, slot);
        if !self.loading {
            self.ordered.insert(key, slot);
        }
        slot
    }

    pub(super) fn remove(&mut self, slot: u32) {
        let entry = self.entries.remove(slot);
        self.by_key.remove(&entry.key, slot);
        self.ordered.remove(&entry.key);
    }
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

/// Gives values memory of their own: one may be a slice of a request, which must not live as long as the value. Call it before the
/// index is locked.
pub(crate) fn tighten(txn: &mut Txn) {
    for op in &mut txn.ops {
        if let Op::Put { value, .. } = op {
            *value = tight(value);
        }
    }
}

/// A copy in memory of its own, as ready for the index as it can be made without the lock.
pub(super) fn tight(value: &Bytes) -> Bytes {
    let value = Bytes::copy_from_slice(value);
    // The first clone allocates; the ones under the lock then do not.
    drop(value.clone());
    value
}
