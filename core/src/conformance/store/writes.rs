//! What a commit does, as clients ask for it and as history tells it.

use bytes::Bytes;

use crate::store::{Change, KeyRange, Op, PutLease, Step, Transaction, Txn};

/// The keys of a commit in order, with their values; none for a deletion.
pub(super) type Writes = Vec<(Bytes, Option<Bytes>)>;

/// The commit that does them, without conditions.
pub(super) fn txn(writes: &Writes) -> Txn {
    let op = |(key, value): &(Bytes, Option<Bytes>)| match value {
        Some(value) => Op::Put {
            key: key.clone(),
            value: value.clone(),
            lease: None,
        },
        None => Op::Delete(KeyRange::Key(key.clone())),
    };
    Txn {
        compare: Vec::new(),
        ops: writes.iter().map(op).collect(),
    }
}

/// The transaction with branches that does them: the first by a step of its own, the others by a transaction within it.
pub(super) fn transaction(writes: &Writes) -> Transaction {
    let step = |(key, value): &(Bytes, Option<Bytes>)| match value {
        Some(value) => Step::Put {
            key: key.clone(),
            value: Some(value.clone()),
            lease: PutLease::Set(None),
            previous: false,
        },
        None => Step::Delete {
            keys: KeyRange::Key(key.clone()),
            previous: false,
        },
    };
    let mut steps = writes.iter().map(step);
    let mut success: Vec<_> = steps.next().into_iter().collect();
    let success_within: Vec<_> = steps.collect();
    if !success_within.is_empty() {
        success.push(Step::Nested(Transaction {
            success: success_within,
            ..Transaction::default()
        }));
    }
    Transaction {
        success,
        ..Transaction::default()
    }
}

/// What the changes of a commit did.
pub(super) fn of(changes: &[Change]) -> Writes {
    let write = |change: &Change| match change {
        Change::Put { kv, .. } => (kv.key.clone(), Some(kv.value.clone())),
        Change::Delete { key, .. } => (key.clone(), None),
    };
    changes.iter().map(write).collect()
}
