//! Transactions.
//!
//! What an API server asks (conditions on the revisions of single keys, writes when they hold, a look at these keys when they do not) is a
//! [`Txn`]; everything else is a [`Transaction`].

mod check;
mod fast;

use orlop_core::revision::Revision;
use orlop_core::store::{
    Condition, Operand, Relation, Step, StepResult, Transaction, TransactionResult,
};

pub(super) use self::check::writes;
use super::error::GrpcError;
use super::kv::{delete_step, inner_header, put_step};
use super::{Inner, ranges};
use crate::etcd::proto::kv::{
    Compare, CompareResult, CompareTarget, CompareTargetUnion, DeleteRangeResponse, PutResponse,
    RangeResponse, RequestOp, RequestOpRequest, ResponseOp, ResponseOpResponse, TxnRequest,
    TxnResponse,
};

impl Inner {
    pub(super) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, GrpcError> {
        check::request(&request, self.options.max_txn_ops)?;
        let cost = check::cost(&request);
        if writes(&request) {
            self.sound()?;
        }
        if cost > 0 {
            self.writable()?;
            self.room_for(cost)?;
        }
        if let Some(fast) = fast::Fast::of(&request) {
            let commit = self.wrote(self.store.commit(fast.txn).await)?;
            return Ok(fast.shape.answer(self, commit));
        }
        let transaction = transaction(&request)?;
        let result = self.wrote(self.store.transact(transaction).await)?;
        let revision = result.revision;
        let changes = changed(&result);
        let mut at = Revisions {
            now: if changes {
                Revision(revision.0.saturating_sub(1))
            } else {
                revision
            },
            after: revision,
        };
        let mut answer = answer(request, result, &mut at);
        answer.header = self.header(revision);
        Ok(answer)
    }
}

/// The transaction for the store.
fn transaction(request: &TxnRequest) -> Result<Transaction, GrpcError> {
    Ok(Transaction {
        conditions: request.compare.iter().filter_map(condition).collect(),
        success: steps(&request.success)?,
        failure: steps(&request.failure)?,
    })
}

fn steps(ops: &[RequestOp]) -> Result<Vec<Step>, GrpcError> {
    ops.iter()
        .filter_map(|op| op.request.as_ref())
        .map(|op| {
            Ok(match op {
                RequestOpRequest::Range(range) => Step::Read(ranges::to_store(range)?),
                RequestOpRequest::Put(put) => put_step(put.clone()),
                RequestOpRequest::DeleteRange(delete) => delete_step(delete),
                RequestOpRequest::Txn(txn) => Step::Nested(transaction(txn)?),
            })
        })
        .collect()
}

/// A condition that never holds: no key has a version below zero.
fn never(compare: &Compare) -> Condition {
    Condition {
        keys: ranges::keys(&compare.key, &compare.range_end),
        relation: Relation::Less,
        operand: Operand::Version(0),
    }
}

/// The condition for the store; `None` for one that always holds. Numbers of messages have signs, those of a store have none.
fn condition(compare: &Compare) -> Option<Condition> {
    let relation = match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => Relation::Equal,
        Ok(CompareResult::Greater) => Relation::Greater,
        Ok(CompareResult::Less) => Relation::Less,
        Ok(CompareResult::NotEqual) => Relation::NotEqual,
        // As etcd has it.
        Err(_) => return None,
    };
    let union = compare.target_union.as_ref();
    let number = |number: i64, operand: fn(u64) -> Operand| match u64::try_from(number) {
        Ok(number) => Ok(operand(number)),
        Err(_) => Err(matches!(relation, Relation::NotEqual | Relation::Greater)),
    };
    // What is not given counts as zero, or as empty.
    let operand = match (CompareTarget::try_from(compare.target), union) {
        (Ok(CompareTarget::Version), Some(&CompareTargetUnion::Version(version))) => {
            number(version, Operand::Version)
        }
        (Ok(CompareTarget::Version), _) => Ok(Operand::Version(0)),
        (Ok(CompareTarget::Create), Some(&CompareTargetUnion::CreateRevision(revision))) => {
            number(revision, |revision| {
                Operand::CreateRevision(Revision(revision))
            })
        }
        (Ok(CompareTarget::Create), _) => Ok(Operand::CreateRevision(Revision::ZERO)),
        (Ok(CompareTarget::Mod), Some(&CompareTargetUnion::ModRevision(revision))) => {
            number(revision, |revision| {
                Operand::ModRevision(Revision(revision))
            })
        }
        (Ok(CompareTarget::Mod), _) => Ok(Operand::ModRevision(Revision::ZERO)),
        (Ok(CompareTarget::Value), Some(CompareTargetUnion::Value(value))) => {
            Ok(Operand::Value(value.clone()))
        }
        (Ok(CompareTarget::Value), _) => Ok(Operand::Value(bytes::Bytes::new())),
        (Ok(CompareTarget::Lease), Some(&CompareTargetUnion::Lease(lease))) => {
            Ok(Operand::Lease(lease))
        }
        (Ok(CompareTarget::Lease), _) => Ok(Operand::Lease(0)),
        // Nothing is compared, so nothing differs.
        (Err(_), _) => Err(relation == Relation::Equal),
    };
    match operand {
        Ok(operand) => Some(Condition {
            keys: ranges::keys(&compare.key, &compare.range_end),
            relation,
            operand,
        }),
        Err(true) => None,
        Err(false) => Some(never(compare)),
    }
}

/// Whether a transaction changed anything.
fn changed(result: &TransactionResult) -> bool {
    result.steps.iter().any(|step| match step {
        StepResult::Read(_) => false,
        StepResult::Put { .. } => true,
        StepResult::Delete { deleted, .. } => *deleted > 0,
        StepResult::Nested(result) => changed(result),
    })
}

/// The revisions that the answers within a transaction carry: until its first change, and from then on.
struct Revisions {
    now: Revision,
    after: Revision,
}

/// The answer for what a transaction came to.
fn answer(request: TxnRequest, result: TransactionResult, at: &mut Revisions) -> TxnResponse {
    let ops = if result.succeeded {
        request.success
    } else {
        request.failure
    };
    let responses = ops
        .into_iter()
        .filter_map(|op| op.request)
        .zip(result.steps)
        .map(|(op, step)| ResponseOp {
            response: step_answer(op, step, at),
        })
        .collect();
    TxnResponse {
        header: Some(Default::default()),
        succeeded: result.succeeded,
        responses,
    }
}

fn step_answer(
    op: RequestOpRequest,
    step: StepResult,
    at: &mut Revisions,
) -> Option<ResponseOpResponse> {
    Some(match (op, step) {
        (RequestOpRequest::Range(range), StepResult::Read(found)) => {
            ResponseOpResponse::Range(RangeResponse {
                header: inner_header(at.now),
                ..ranges::from_store(&range, found)
            })
        }
        (RequestOpRequest::Put(_), StepResult::Put { previous }) => {
            at.now = at.after;
            ResponseOpResponse::Put(PutResponse {
                header: inner_header(at.now),
                prev_kv: previous.map(ranges::key_value),
            })
        }
        (RequestOpRequest::DeleteRange(_), StepResult::Delete { deleted, previous }) => {
            if deleted > 0 {
                at.now = at.after;
            }
            ResponseOpResponse::DeleteRange(DeleteRangeResponse {
                header: inner_header(at.now),
                deleted: deleted.cast_signed(),
                prev_kvs: previous.into_iter().map(ranges::key_value).collect(),
            })
        }
        (RequestOpRequest::Txn(txn), StepResult::Nested(result)) => {
            ResponseOpResponse::Txn(answer(txn, result, at))
        }
        // A store that answers something else than it was asked breaks the contract.
        (_, _) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(result: CompareResult, revision: i64) -> Compare {
        Compare {
            result: result as i32,
            target: CompareTarget::Mod as i32,
            key: "a".into(),
            target_union: Some(CompareTargetUnion::ModRevision(revision)),
            ..Compare::default()
        }
    }

    #[test]
    fn numbers_below_zero_are_decided_at_once() {
        let holds = |result, revision| {
            condition(&compare(result, revision)).is_none_or(|condition| condition.holds(None))
        };
        assert!(!holds(CompareResult::Equal, -1));
        assert!(holds(CompareResult::NotEqual, -1));
        assert!(holds(CompareResult::Greater, -1));
        assert!(!holds(CompareResult::Less, -1));
        assert!(holds(CompareResult::Equal, 0));
        assert!(!holds(CompareResult::Greater, 0));
        assert!(holds(CompareResult::Less, 1));
    }

    #[test]
    fn what_a_comparison_leaves_out_is_zero() {
        let bare = Compare {
            target: CompareTarget::Create as i32,
            target_union: None,
            ..compare(CompareResult::Equal, 0)
        };
        assert_eq!(
            condition(&bare).unwrap().operand,
            Operand::CreateRevision(Revision::ZERO)
        );
        // The operand of another kind is none of this one.
        let mixed = Compare {
            target: CompareTarget::Version as i32,
            ..compare(CompareResult::Equal, 7)
        };
        assert_eq!(condition(&mixed).unwrap().operand, Operand::Version(0));
    }
}
