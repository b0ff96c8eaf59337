//! Transactions with branches.

pub(super) mod conditions;
pub(super) mod nesting;
pub(super) mod reads;
pub(super) mod refusals;
pub(super) mod writes;

use bytes::Bytes;

use super::{Context, Failure, Transactions};
use crate::store::{
    Condition, KeyRange, KeyValue, Operand, PutLease, RangeRequest, RangeResult, Relation, Step,
    StepResult, Transaction, TransactionResult,
};

fn condition(keys: KeyRange, relation: Relation, operand: Operand) -> Condition {
    Condition {
        keys,
        relation,
        operand,
    }
}

fn put(key: Bytes, value: &'static str) -> Step {
    Step::Put {
        key,
        value: Some(value.into()),
        lease: PutLease::Set(None),
        previous: false,
    }
}

fn put_back(key: Bytes, value: &'static str) -> Step {
    Step::Put {
        key,
        value: Some(value.into()),
        lease: PutLease::Set(None),
        previous: true,
    }
}

fn keep_value(key: Bytes, lease: PutLease) -> Step {
    Step::Put {
        key,
        value: None,
        lease,
        previous: false,
    }
}

fn delete(keys: KeyRange) -> Step {
    Step::Delete {
        keys,
        previous: false,
    }
}

fn read(key: Bytes) -> Step {
    Step::Read(RangeRequest::new(KeyRange::Key(key)))
}

fn always(success: Vec<Step>) -> Transaction {
    Transaction {
        success,
        ..Transaction::default()
    }
}

/// A condition that never holds.
fn never(c: &Context) -> Condition {
    condition(
        KeyRange::Key(c.key("never")),
        Relation::Greater,
        Operand::Version(0),
    )
}

async fn transact(c: &Context, transaction: Transaction) -> Result<TransactionResult, Failure> {
    Ok(c.store().transact(transaction).await?)
}

fn as_read(step: &StepResult) -> Result<&RangeResult, Failure> {
    match step {
        StepResult::Read(read) => Ok(read),
        other => Err(Failure(format!("wanted what was read, got {other:?}"))),
    }
}

fn as_put(step: &StepResult) -> Result<Option<&KeyValue>, Failure> {
    match step {
        StepResult::Put { previous } => Ok(previous.as_ref()),
        other => Err(Failure(format!("wanted what was put, got {other:?}"))),
    }
}

fn as_delete(step: &StepResult) -> Result<(u64, &[KeyValue]), Failure> {
    match step {
        StepResult::Delete { deleted, previous } => Ok((*deleted, previous)),
        other => Err(Failure(format!("wanted what was deleted, got {other:?}"))),
    }
}

fn as_nested(step: &StepResult) -> Result<&TransactionResult, Failure> {
    match step {
        StepResult::Nested(result) => Ok(result),
        other => Err(Failure(format!(
            "wanted a nested transaction's result, got {other:?}"
        ))),
    }
}

fn without(c: &Context) -> bool {
    c.subject.transactions == Transactions::None
}

fn without_ranges(c: &Context) -> bool {
    c.subject.transactions != Transactions::All
}
