//! Transactions with branches.
//!
//! All that can fail is looked at before the first write, so that a transaction is never half done: the branches are chosen, for
//! nested transactions too, then the steps of those branches are checked, and only then are they done.

use std::sync::Arc;

use orlop_core::revision::Revision;
use orlop_core::store::{
    Change, Condition, KeyRange, PutLease, RangeRequest, RangeResult, Step, StepResult, StoreError,
    Transaction, TransactionResult,
};

use super::Index;
use super::commit::tight;
use super::read::bounds_after;

/// What became of a transaction with branches.
#[derive(Debug)]
pub(crate) enum Transacted {
    /// It changed keys at a new revision, which has to be published.
    Changed(Arc<[Change]>, TransactionResult),
    /// It changed nothing. The answer tells of the newest state, published or not.
    Unchanged(TransactionResult),
}

impl Index {
    /// Chooses the branches by the newest state, published or not, and does their steps, the writes at the next revision. `limit` is
    /// the most bytes of keys and values that may be written.
    pub(crate) fn transact(
        &mut self,
        transaction: Transaction,
        limit: usize,
    ) -> Result<Transacted, StoreError> {
        let mut path = Vec::new();
        self.choose(&transaction, &mut path);
        let mut bytes = 0;
        self.check_puts(&transaction, &mut path.iter().copied(), &mut bytes)?;
        if bytes > limit {
            return Err(StoreError::InvalidRequest(format!(
                "a transaction of {bytes} bytes; the most is {limit}"
            )));
        }
        self.check_reads(&transaction, &mut path.iter().copied())?;
        let mut changes = Vec::new();
        let result = self.run(transaction, &mut path.into_iter(), &mut changes);
        if changes.is_empty() {
            return Ok(Transacted::Unchanged(result));
        }
        let changes: Arc<[Change]> = changes.into();
        self.newest += 1;
        self.history.push(changes.clone(), self.touched);
        Ok(Transacted::Changed(changes, result))
    }

    /// Which branch is taken, of the transaction and then of those nested in that branch, in the order of the steps.
    fn choose(&self, transaction: &Transaction, path: &mut Vec<bool>) {
        let success = transaction
            .conditions
            .iter()
            .all(|condition| self.condition_holds(condition));
        path.push(success);
        for step in branch(transaction, success) {
            if let Step::Nested(nested) = step {
                self.choose(nested, path);
            }
        }
    }

    fn condition_holds(&self, condition: &Condition) -> bool {
        if let KeyRange::Key(key) = &condition.keys {
            return condition.holds(self.get(key, self.newest).as_ref());
        }
        let mut none = true;
        if let Some(bounds) = bounds_after(&condition.keys, None) {
            for &slot in self.ordered.range(bounds).map(|(_, slot)| slot) {
                let entry = self.entries.get(slot);
                if let Some(kv) = entry.kv(&entry.latest) {
                    none = false;
                    if !condition.holds(Some(&kv)) {
                        return false;
                    }
                }
            }
        }
        !none || condition.holds(None)
    }

    fn check_puts(
        &self,
        transaction: &Transaction,
        path: &mut impl Iterator<Item = bool>,
        bytes: &mut usize,
    ) -> Result<(), StoreError> {
        for step in branch(transaction, path.next().unwrap_or_default()) {
            match step {
                Step::Put {
                    key, value, lease, ..
                } => {
                    let kept = if value.is_none() || *lease == PutLease::Keep {
                        let there = self.get(key, self.newest);
                        Some(there.ok_or_else(|| StoreError::KeyNotFound(key.clone()))?)
                    } else {
                        None
                    };
                    if let PutLease::Set(Some(lease)) = lease
                        && !self.leases.usable(*lease)
                    {
                        return Err(StoreError::LeaseNotFound(*lease));
                    }
                    let value = value.as_ref().or(kept.as_ref().map(|kv| &kv.value));
                    *bytes += key.len() + value.map_or(0, |value| value.len());
                }
                Step::Nested(nested) => self.check_puts(nested, path, bytes)?,
                Step::Read(_) | Step::Delete { .. } => {}
            }
        }
        Ok(())
    }

    fn check_reads(
        &self,
        transaction: &Transaction,
        path: &mut impl Iterator<Item = bool>,
    ) -> Result<(), StoreError> {
        for step in branch(transaction, path.next().unwrap_or_default()) {
            match step {
                Step::Read(request) => match request.revision {
                    None | Some(Revision::ZERO) => {}
                    Some(requested) if requested.0 > self.newest => {
                        return Err(StoreError::FutureRevision {
                            requested,
                            newest: Revision(self.newest),
                        });
                    }
                    Some(requested) if requested.0 < self.oldest => {
                        return Err(self.compacted(requested.0));
                    }
                    Some(_) => {}
                },
                Step::Nested(nested) => self.check_reads(nested, path)?,
                Step::Put { .. } | Step::Delete { .. } => {}
            }
        }
        Ok(())
    }

    /// Does the steps of the branch taken, which were checked.
    fn run(
        &mut self,
        transaction: Transaction,
        path: &mut impl Iterator<Item = bool>,
        changes: &mut Vec<Change>,
    ) -> TransactionResult {
        let succeeded = path.next().unwrap_or_default();
        let steps = if succeeded {
            transaction.success
        } else {
            transaction.failure
        };
        let steps = steps
            .into_iter()
            .map(|step| match step {
                Step::Read(request) => StepResult::Read(self.read_within(&request, changes)),
                Step::Put {
                    key,
                    value,
                    lease,
                    previous,
                } => {
                    let kept = if value.is_none() || lease == PutLease::Keep {
                        self.get(&key, self.newest)
                    } else {
                        None
                    };
                    let lease = match lease {
                        PutLease::Set(lease) => lease,
                        PutLease::Keep => kept.as_ref().and_then(|kv| kv.lease),
                    };
                    let value = value
                        .or(kept.map(|kv| kv.value))
                        // It was there when it was checked.
                        .unwrap_or_default();
                    let change = self.put(self.newest + 1, &key, value, lease);
                    let prev = match &change {
                        Change::Put { prev, .. } if previous => prev.clone(),
                        _ => None,
                    };
                    changes.push(change);
                    StepResult::Put { previous: prev }
                }
                Step::Delete { keys, previous } => {
                    let first = changes.len();
                    for key in self.live_keys(&keys) {
                        changes.extend(self.delete(self.newest + 1, &key));
                    }
                    let gone = &changes[first..];
                    StepResult::Delete {
                        deleted: gone.len() as u64,
                        previous: if previous {
                            gone.iter().filter_map(before).cloned().collect()
                        } else {
                            Vec::new()
                        },
                    }
                }
                Step::Nested(nested) => StepResult::Nested(self.run(nested, path, changes)),
            })
            .collect();
        TransactionResult {
            revision: self.revision_within(changes),
            succeeded,
            steps,
        }
    }

    fn read_within(&self, request: &RangeRequest, changes: &[Change]) -> RangeResult {
        let at = match request.revision {
            // What this transaction wrote is there already.
            None | Some(Revision::ZERO) => self.newest + 1,
            Some(Revision(at)) => at,
        };
        let page = self.page(
            &request.keys,
            request.after.as_ref(),
            at,
            request.wanted(),
            usize::MAX,
        );
        RangeResult {
            revision: self.revision_within(changes),
            items: page.items,
            remaining: page.counted,
        }
    }

    fn revision_within(&self, changes: &[Change]) -> Revision {
        Revision(self.newest + u64::from(!changes.is_empty()))
    }
}

fn branch(transaction: &Transaction, success: bool) -> &[Step] {
    if success {
        &transaction.success
    } else {
        &transaction.failure
    }
}

fn before(change: &Change) -> Option<&orlop_core::store::KeyValue> {
    match change {
        Change::Put { prev, .. } | Change::Delete { prev, .. } => prev.as_ref(),
    }
}

/// Gives values memory of their own, as [`tighten`](super::tighten) does.
pub(crate) fn tighten_steps(transaction: &mut Transaction) {
    for step in transaction
        .success
        .iter_mut()
        .chain(&mut transaction.failure)
    {
        match step {
            Step::Put {
                value: Some(value), ..
            } => *value = tight(value),
            Step::Nested(nested) => tighten_steps(nested),
            _ => {}
        }
    }
}
