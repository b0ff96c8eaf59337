//! Transactions with branches for a store that has none: over its reads and its plain transactions.
//!
//! Everything is read at one revision, so a transaction whose branch writes nothing took place at that revision. One that writes is
//! committed on the condition that every key it looked at still stands as it was read, and is tried again where one does not. A
//! condition can only be on a key, so what looks at a range of keys and writes cannot be done in this way.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{
    Commit, Compare, Condition, KeyRange, KeyValue, LeaseId, Op, PutLease, RangeRequest,
    RangeResult, Step, StepResult, Store, StoreError, Transaction, TransactionResult, Txn,
};
use crate::revision::Revision;

/// How often a transaction is tried while others write the keys that it looked at.
const TRIES: usize = 32;

/// Stands for the revision of the transaction until it is known.
const OWN: Revision = Revision(u64::MAX);

/// Does a transaction, or says why it cannot be done.
pub(super) async fn transact<S: Store + ?Sized>(
    store: &S,
    transaction: Transaction,
) -> Result<TransactionResult, StoreError> {
    transaction.validate()?;
    for _ in 0..TRIES {
        let at = store.revision().await?;
        match attempt(store, &transaction, at).await {
            Ok(Some(result)) => return Ok(result),
            // Written by others meanwhile, or compacted: look again.
            Ok(None) => {}
            Err(StoreError::Compacted { requested, .. }) if requested == at => {}
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::Unavailable(
        "the keys of a transaction were written by others whenever it was tried; nothing was written".to_owned(),
    ))
}

/// `None` when something that it looked at has changed meanwhile.
async fn attempt<S: Store + ?Sized>(
    store: &S,
    transaction: &Transaction,
    at: Revision,
) -> Result<Option<TransactionResult>, StoreError> {
    let mut attempt = Attempt {
        store,
        at,
        writes: false,
        path: Vec::new(),
        looked: None,
        guards: BTreeMap::new(),
        written: BTreeMap::new(),
        cleared: None,
        ops: Vec::new(),
        deleted: 0,
    };
    attempt.choose(transaction).await?;
    if let (true, Some(keys)) = (attempt.writes, &attempt.looked) {
        return Err(impossible("a condition", keys));
    }
    let path = std::mem::take(&mut attempt.path);
    let mut result = attempt.run(transaction, &mut path.into_iter()).await?;
    if attempt.ops.is_empty() {
        settle(&mut result, at, at, 0, &mut false);
        return Ok(Some(result));
    }
    let compare = attempt
        .guards
        .into_iter()
        .map(|(key, there)| {
            Compare::ModRevision(key, there.map_or(Revision::ZERO, |kv| kv.mod_revision))
        })
        .collect();
    let wrote = attempt.ops.iter().any(|op| matches!(op, Op::Put { .. }));
    let txn = Txn {
        compare,
        ops: attempt.ops,
    };
    match store.commit(txn).await? {
        Commit::Refused { .. } => Ok(None),
        Commit::Applied { revision, deleted } => {
            let before = if wrote || deleted > 0 {
                Revision(revision.0 - 1)
            } else {
                revision
            };
            let cleared = deleted.saturating_sub(attempt.deleted);
            settle(&mut result, before, revision, cleared, &mut false);
            Ok(Some(result))
        }
    }
}

fn impossible(what: &str, keys: &KeyRange) -> StoreError {
    StoreError::InvalidRequest(format!(
        "this store cannot do {what} over the range {keys:?} in a transaction that writes"
    ))
}

/// What is left of a key by the steps before.
enum Written {
    Put(Bytes, Option<LeaseId>),
    Deleted,
}

struct Attempt<'a, S: ?Sized> {
    store: &'a S,
    /// The revision that everything is read at.
    at: Revision,
    /// Whether a branch that is taken writes anything.
    writes: bool,
    /// The branches that are taken, of the transaction and then of those nested in that branch, in the order of the steps.
    path: Vec<bool>,
    /// A range of several keys that a condition looked at.
    looked: Option<KeyRange>,
    /// The single keys that were looked at, as they were found.
    guards: BTreeMap<Bytes, Option<KeyValue>>,
    written: BTreeMap<Bytes, Written>,
    /// The range that was deleted.
    cleared: Option<KeyRange>,
    ops: Vec<Op>,
    /// How many single keys were deleted.
    deleted: u64,
}

impl<S: Store + ?Sized> Attempt<'_, S> {
    fn choose<'b>(
        &'b mut self,
        transaction: &'b Transaction,
    ) -> BoxFuture<'b, Result<(), StoreError>> {
        async move {
            let mut success = true;
            for condition in &transaction.conditions {
                success = self.holds(condition).await?;
                if !success {
                    break;
                }
            }
            self.path.push(success);
            for step in branch(transaction, success) {
                match step {
                    Step::Read(_) => {}
                    Step::Put { .. } | Step::Delete { .. } => self.writes = true,
                    Step::Nested(nested) => self.choose(nested).await?,
                }
            }
            Ok(())
        }
        .boxed()
    }

    async fn holds(&mut self, condition: &Condition) -> Result<bool, StoreError> {
        if let KeyRange::Key(key) = &condition.keys {
            return Ok(condition.holds(self.look(key).await?.as_ref()));
        }
        self.looked = Some(condition.keys.clone());
        let request = RangeRequest::new(condition.keys.clone()).at(self.at);
        let found = self.store.range(request).await?;
        Ok(condition.holds_for_all(&found.items))
    }

    /// What stood at a key before the transaction, which has to stay so until it is committed.
    async fn look(&mut self, key: &Bytes) -> Result<Option<KeyValue>, StoreError> {
        if let Some(there) = self.guards.get(key) {
            return Ok(there.clone());
        }
        let request = RangeRequest::new(KeyRange::Key(key.clone())).at(self.at);
        let there = self.store.range(request).await?.items.pop();
        self.guards.insert(key.clone(), there.clone());
        Ok(there)
    }

    /// What stands at a key after the steps so far.
    async fn current(&mut self, key: &Bytes) -> Result<Option<KeyValue>, StoreError> {
        let own = match self.written.get(key) {
            Some(Written::Deleted) => return Ok(None),
            Some(Written::Put(value, lease)) => Some((value.clone(), *lease)),
            None => {
                let cleared = self.cleared.as_ref();
                if cleared.is_some_and(|keys| keys.contains(key)) {
                    return Ok(None);
                }
                None
            }
        };
        let there = self.look(key).await?;
        let Some((value, lease)) = own else {
            return Ok(there);
        };
        Ok(Some(KeyValue {
            key: key.clone(),
            value,
            create_revision: there.as_ref().map_or(OWN, |kv| kv.create_revision),
            mod_revision: OWN,
            version: there.map_or(1, |kv| kv.version + 1),
            lease,
        }))
    }

    fn run<'b>(
        &'b mut self,
        transaction: &'b Transaction,
        path: &'b mut std::vec::IntoIter<bool>,
    ) -> BoxFuture<'b, Result<TransactionResult, StoreError>> {
        async move {
            let succeeded = path.next().unwrap_or_default();
            let mut steps = Vec::new();
            for step in branch(transaction, succeeded) {
                steps.push(match step {
                    Step::Read(request) => StepResult::Read(self.read(request).await?),
                    Step::Put {
                        key,
                        value,
                        lease,
                        previous,
                    } => self.put(key, value.as_ref(), *lease, *previous).await?,
                    Step::Delete { keys, previous } => self.delete(keys, *previous).await?,
                    Step::Nested(nested) => StepResult::Nested(self.run(nested, path).await?),
                });
            }
            Ok(TransactionResult {
                revision: OWN,
                succeeded,
                steps,
            })
        }
        .boxed()
    }

    async fn read(&mut self, request: &RangeRequest) -> Result<RangeResult, StoreError> {
        let past = request.revision.filter(|revision| !revision.is_zero());
        if let Some(requested) = past.filter(|&requested| requested > self.at) {
            return Err(StoreError::FutureRevision {
                requested,
                newest: self.at,
            });
        }
        if past.is_some() || !self.writes {
            let at = past.unwrap_or(self.at);
            return self.store.range(request.clone().at(at)).await;
        }
        let KeyRange::Key(key) = &request.keys else {
            return Err(impossible("a read", &request.keys));
        };
        let skipped = request.after.as_ref().is_some_and(|after| key <= after);
        let found = if skipped {
            None
        } else {
            self.current(key).await?
        };
        let wanted = request.wanted() > 0;
        Ok(RangeResult {
            revision: OWN,
            remaining: u64::from(!wanted && found.is_some()),
            items: found.filter(|_| wanted).into_iter().collect(),
        })
    }

    async fn put(
        &mut self,
        key: &Bytes,
        value: Option<&Bytes>,
        lease: PutLease,
        previous: bool,
    ) -> Result<StepResult, StoreError> {
        let keeps = value.is_none() || lease == PutLease::Keep;
        let there = if keeps || previous {
            self.look(key).await?
        } else {
            None
        };
        if keeps && there.is_none() {
            return Err(StoreError::KeyNotFound(key.clone()));
        }
        let kept = there.as_ref();
        let value = value.or(kept.map(|kv| &kv.value)).cloned();
        let value = value.unwrap_or_default();
        let lease = match lease {
            PutLease::Set(lease) => lease,
            PutLease::Keep => kept.and_then(|kv| kv.lease),
        };
        self.written
            .insert(key.clone(), Written::Put(value.clone(), lease));
        self.ops.push(Op::Put {
            key: key.clone(),
            value,
            lease,
        });
        Ok(StepResult::Put {
            previous: there.filter(|_| previous),
        })
    }

    async fn delete(&mut self, keys: &KeyRange, previous: bool) -> Result<StepResult, StoreError> {
        let KeyRange::Key(key) = keys else {
            if previous {
                return Err(impossible("a deletion that tells what was there", keys));
            }
            if self.cleared.is_some() {
                return Err(impossible("another deletion", keys));
            }
            self.cleared = Some(keys.clone());
            self.ops.push(Op::Delete(keys.clone()));
            return Ok(StepResult::Delete {
                // How many they were is known when it has happened.
                deleted: u64::MAX,
                previous: Vec::new(),
            });
        };
        let there = self.current(key).await?;
        let deleted = u64::from(there.is_some());
        if deleted > 0 {
            self.deleted += 1;
            self.written.insert(key.clone(), Written::Deleted);
            self.ops.push(Op::Delete(keys.clone()));
        }
        Ok(StepResult::Delete {
            deleted,
            previous: there.filter(|_| previous).into_iter().collect(),
        })
    }
}

fn branch(transaction: &Transaction, success: bool) -> &[Step] {
    if success {
        &transaction.success
    } else {
        &transaction.failure
    }
}

/// Fills in what is known when the transaction has happened: its revision, the one before it, and how many keys its deletion of a
/// range met.
fn settle(
    result: &mut TransactionResult,
    before: Revision,
    own: Revision,
    cleared: u64,
    changed: &mut bool,
) {
    let now = |changed: bool| if changed { own } else { before };
    for step in &mut result.steps {
        match step {
            StepResult::Read(read) => {
                read.revision = now(*changed);
                for kv in &mut read.items {
                    for revision in [&mut kv.create_revision, &mut kv.mod_revision] {
                        if *revision == OWN {
                            *revision = own;
                        }
                    }
                }
            }
            StepResult::Put { .. } => *changed = true,
            StepResult::Delete { deleted, .. } => {
                if *deleted == u64::MAX {
                    *deleted = cleared;
                }
                *changed |= *deleted > 0;
            }
            StepResult::Nested(nested) => settle(nested, before, own, cleared, changed),
        }
    }
    result.revision = now(*changed);
}
