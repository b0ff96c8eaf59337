//! Transactions: ours in etcd's words, and its answers in ours.

use bytes::Bytes;
use orlop_core::revision::Revision;
use orlop_core::store::{
    Commit, Compare, Condition, KeyRange, LeaseId, Op, Operand, PutLease, RangeResult, Relation,
    Step, StepResult, StoreError, Transaction, TransactionResult, Txn,
};

use super::cluster::Kind;
use super::convert::{Wire, count, key_value, key_values, revision, wire_range, wire_revision};
use super::feed::Feed;
use super::refusal::Refusal;
use super::{PUT, TXN};
use crate::etcd::proto::kv::{
    Compare as WireCompare, CompareResult, CompareTarget, CompareTargetUnion, DeleteRangeRequest,
    PutRequest, PutResponse, RangeRequest, RequestOp, RequestOpRequest, ResponseHeader, ResponseOp,
    ResponseOpResponse, TxnRequest, TxnResponse,
};
use crate::mvcc::validate;

fn op(request: RequestOpRequest) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

fn header_revision(header: Option<&ResponseHeader>) -> Revision {
    revision(header.map_or(0, |header| header.revision))
}

/// A range in which no key is. etcd has no word for it, but finds nothing between a key and an earlier one.
fn nowhere(feed: &Feed) -> Wire {
    let at = |tail: &[u8]| -> Bytes { [feed.prefix().as_ref(), tail].concat().into() };
    Wire {
        key: at(b"b"),
        range_end: at(b"a"),
    }
}

/// A read of nothing. It makes etcd ask its leader where it would answer from what one member knows.
fn barrier(feed: &Feed) -> RequestOp {
    let Wire { key, range_end } = nowhere(feed);
    op(RequestOpRequest::Range(RangeRequest {
        key,
        range_end,
        count_only: true,
        ..RangeRequest::default()
    }))
}

fn put_request(key: Bytes, value: Bytes, lease: Option<LeaseId>) -> PutRequest {
    PutRequest {
        key,
        value,
        lease: lease.map_or(0, |lease| lease.0),
        ..PutRequest::default()
    }
}

fn compare(compare: Compare) -> WireCompare {
    let (key, target, union) = match compare {
        Compare::ModRevision(key, revision) => (
            key,
            CompareTarget::Mod,
            CompareTargetUnion::ModRevision(wire_revision(revision)),
        ),
        Compare::CreateRevision(key, revision) => (
            key,
            CompareTarget::Create,
            CompareTargetUnion::CreateRevision(wire_revision(revision)),
        ),
        Compare::Version(key, version) => (
            key,
            CompareTarget::Version,
            CompareTargetUnion::Version(i64::try_from(version).unwrap_or(i64::MAX)),
        ),
        Compare::Value(key, value) => (key, CompareTarget::Value, CompareTargetUnion::Value(value)),
    };
    WireCompare {
        result: CompareResult::Equal as i32,
        target: target as i32,
        key,
        target_union: Some(union),
        range_end: Bytes::new(),
    }
}

/// The error for a lease that is not there. etcd does not say which of those that a transaction names it is.
async fn lease_error(feed: &Feed, leases: &[LeaseId]) -> StoreError {
    if let [first, .., _] = leases {
        for &lease in leases {
            if let Err(error @ StoreError::LeaseNotFound(_)) =
                super::lease::lease(feed, lease, false).await
            {
                return error;
            }
        }
        return StoreError::LeaseNotFound(*first);
    }
    StoreError::LeaseNotFound(leases.first().copied().unwrap_or(LeaseId(0)))
}

/// The error for a key of which something is to be kept and that is not there.
async fn key_error(feed: &Feed, kept: &[Bytes]) -> StoreError {
    if let [first, .., _] = kept {
        for key in kept {
            let read = orlop_core::store::RangeRequest {
                count_only: true,
                ..orlop_core::store::RangeRequest::new(KeyRange::Key(key.clone()))
            };
            if super::range::range(feed, &read)
                .await
                .is_ok_and(|found| found.remaining == 0)
            {
                return StoreError::KeyNotFound(key.clone());
            }
        }
        return StoreError::KeyNotFound(first.clone());
    }
    StoreError::KeyNotFound(kept.first().cloned().unwrap_or_default())
}

async fn refused(feed: &Feed, refusal: Refusal, leases: &[LeaseId]) -> StoreError {
    match refusal {
        Refusal::LeaseNotFound => lease_error(feed, leases).await,
        other => other.into_error(),
    }
}

/// Checks conditions and writes.
pub(super) async fn commit(feed: &Feed, txn: Txn) -> Result<Commit, StoreError> {
    validate(&txn)?;
    let leases: Vec<_> = txn
        .ops
        .iter()
        .filter_map(|op| match op {
            Op::Put { lease, .. } => *lease,
            Op::Delete(_) => None,
        })
        .collect();
    let cluster = feed.cluster();
    if txn.compare.is_empty()
        && let [Op::Put { key, value, lease }] = txn.ops.as_slice()
    {
        let request = put_request(key.clone(), value.clone(), *lease);
        let answer: Result<PutResponse, Refusal> = cluster.call(PUT, Kind::Write, request).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(refusal) => return Err(refused(feed, refusal, &leases).await),
        };
        return Ok(Commit::Applied {
            revision: header_revision(answer.header.as_ref()),
            deleted: 0,
        });
    }
    let mut success: Vec<_> = txn
        .ops
        .into_iter()
        .filter_map(|change| match change {
            Op::Put { key, value, lease } => {
                Some(op(RequestOpRequest::Put(put_request(key, value, lease))))
            }
            Op::Delete(keys) => wire_range(&keys, None).map(|Wire { key, range_end }| {
                op(RequestOpRequest::DeleteRange(DeleteRangeRequest {
                    key,
                    range_end,
                    prev_kv: false,
                }))
            }),
        })
        .collect();
    let kind = if success.is_empty() {
        success.push(barrier(feed));
        Kind::Read
    } else {
        Kind::Write
    };
    let failure = txn
        .compare
        .iter()
        .map(|compare| {
            op(RequestOpRequest::Range(RangeRequest {
                key: compare.key().clone(),
                ..RangeRequest::default()
            }))
        })
        .collect();
    let request = TxnRequest {
        compare: txn.compare.into_iter().map(compare).collect(),
        success,
        failure,
    };
    let answer: Result<TxnResponse, Refusal> = cluster.call(TXN, kind, request).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(refusal) => return Err(refused(feed, refusal, &leases).await),
    };
    let revision = header_revision(answer.header.as_ref());
    if answer.succeeded {
        let deleted = answer
            .responses
            .iter()
            .map(|response| match &response.response {
                Some(ResponseOpResponse::DeleteRange(deleted)) => count(deleted.deleted),
                _ => 0,
            })
            .sum();
        return Ok(Commit::Applied { revision, deleted });
    }
    let current = answer
        .responses
        .iter()
        .map(|response| match &response.response {
            Some(ResponseOpResponse::Range(range)) => range.kvs.first().map(key_value),
            _ => None,
        })
        .collect();
    Ok(Commit::Refused { revision, current })
}

/// What of a transaction has to be known to read errors and answers.
#[derive(Default)]
struct Contents {
    writes: bool,
    leases: Vec<LeaseId>,
    /// The keys of which something is kept.
    kept: Vec<Bytes>,
}

impl Contents {
    fn look(&mut self, transaction: &Transaction) {
        for step in transaction.success.iter().chain(&transaction.failure) {
            match step {
                Step::Read(_) => {}
                Step::Put {
                    key, value, lease, ..
                } => {
                    self.writes = true;
                    if value.is_none() || *lease == PutLease::Keep {
                        self.kept.push(key.clone());
                    }
                    if let PutLease::Set(Some(lease)) = lease {
                        self.leases.push(*lease);
                    }
                }
                Step::Delete { .. } => self.writes = true,
                Step::Nested(nested) => self.look(nested),
            }
        }
    }
}

/// Does a transaction with branches and reads.
pub(super) async fn transact(
    feed: &Feed,
    transaction: Transaction,
) -> Result<TransactionResult, StoreError> {
    transaction.validate()?;
    let mut contents = Contents::default();
    contents.look(&transaction);
    let kind = if contents.writes {
        Kind::Write
    } else {
        Kind::Read
    };
    let mut request = wire_transaction(feed, &transaction);
    let bare = request.success.is_empty() && request.failure.is_empty();
    if bare {
        request.success.push(barrier(feed));
        request.failure.push(barrier(feed));
    }
    let answer: Result<TxnResponse, Refusal> = feed.cluster().call(TXN, kind, request).await;
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(Refusal::LeaseNotFound) => return Err(lease_error(feed, &contents.leases).await),
        Err(Refusal::KeyNotFound) => return Err(key_error(feed, &contents.kept).await),
        Err(Refusal::Compacted) => {
            let asked = oldest_read(&transaction).unwrap_or_default();
            return Err(super::range::compacted(feed, asked).await);
        }
        Err(Refusal::FutureRevision) => {
            return Err(StoreError::FutureRevision {
                requested: newest_read(&transaction).unwrap_or_default(),
                newest: feed.revision(feed.cluster().timeout()).await?,
            });
        }
        Err(refusal) => return Err(refusal.into_error()),
    };
    if bare {
        answer.responses.clear();
    }
    let newest = header_revision(answer.header.as_ref());
    result(&transaction, answer, newest)
}

fn reads(transaction: &Transaction, found: &mut Vec<Revision>) {
    for step in transaction.success.iter().chain(&transaction.failure) {
        match step {
            Step::Read(read) => found.extend(read.revision.filter(|at| !at.is_zero())),
            Step::Nested(nested) => reads(nested, found),
            Step::Put { .. } | Step::Delete { .. } => {}
        }
    }
}

fn oldest_read(transaction: &Transaction) -> Option<Revision> {
    let mut found = Vec::new();
    reads(transaction, &mut found);
    found.into_iter().min()
}

fn newest_read(transaction: &Transaction) -> Option<Revision> {
    let mut found = Vec::new();
    reads(transaction, &mut found);
    found.into_iter().max()
}

fn wire_transaction(feed: &Feed, transaction: &Transaction) -> TxnRequest {
    let steps = |steps: &[Step]| steps.iter().map(|step| wire_step(feed, step)).collect();
    TxnRequest {
        compare: transaction
            .conditions
            .iter()
            .map(|condition| wire_condition(feed, condition))
            .collect(),
        success: steps(&transaction.success),
        failure: steps(&transaction.failure),
    }
}

fn wire_condition(feed: &Feed, condition: &Condition) -> WireCompare {
    let Wire { key, range_end } =
        wire_range(&condition.keys, None).unwrap_or_else(|| match &condition.keys {
            // For etcd to refuse.
            KeyRange::Key(key) => Wire {
                key: key.clone(),
                range_end: Bytes::new(),
            },
            _ => nowhere(feed),
        });
    let result = match condition.relation {
        Relation::Equal => CompareResult::Equal,
        Relation::NotEqual => CompareResult::NotEqual,
        Relation::Greater => CompareResult::Greater,
        Relation::Less => CompareResult::Less,
    };
    let (target, union) = match &condition.operand {
        Operand::ModRevision(revision) => (
            CompareTarget::Mod,
            CompareTargetUnion::ModRevision(wire_revision(*revision)),
        ),
        Operand::CreateRevision(revision) => (
            CompareTarget::Create,
            CompareTargetUnion::CreateRevision(wire_revision(*revision)),
        ),
        Operand::Version(version) => (
            CompareTarget::Version,
            CompareTargetUnion::Version(i64::try_from(*version).unwrap_or(i64::MAX)),
        ),
        Operand::Value(value) => (
            CompareTarget::Value,
            CompareTargetUnion::Value(value.clone()),
        ),
        Operand::Lease(lease) => (CompareTarget::Lease, CompareTargetUnion::Lease(*lease)),
    };
    WireCompare {
        result: result as i32,
        target: target as i32,
        key,
        target_union: Some(union),
        range_end,
    }
}

fn wire_step(feed: &Feed, step: &Step) -> RequestOp {
    match step {
        Step::Read(read) => {
            let Wire { key, range_end } =
                wire_range(&read.keys, read.after.as_ref()).unwrap_or_else(|| nowhere(feed));
            op(RequestOpRequest::Range(RangeRequest {
                key,
                range_end,
                limit: i64::try_from(read.limit).unwrap_or(i64::MAX),
                revision: read.revision.map_or(0, wire_revision),
                count_only: read.count_only,
                ..RangeRequest::default()
            }))
        }
        Step::Put {
            key,
            value,
            lease,
            previous,
        } => {
            let keep = *lease == PutLease::Keep;
            let lease = match lease {
                PutLease::Set(lease) => *lease,
                PutLease::Keep => None,
            };
            let value_kept = value.is_none();
            let mut put = put_request(key.clone(), value.clone().unwrap_or_default(), lease);
            put.ignore_value = value_kept;
            put.ignore_lease = keep;
            put.prev_kv = *previous;
            op(RequestOpRequest::Put(put))
        }
        Step::Delete { keys, previous } => match wire_range(keys, None) {
            Some(Wire { key, range_end }) => {
                op(RequestOpRequest::DeleteRange(DeleteRangeRequest {
                    key,
                    range_end,
                    prev_kv: *previous,
                }))
            }
            // Nothing to delete; something has to stand in its place.
            None => barrier(feed),
        },
        Step::Nested(nested) => op(RequestOpRequest::Txn(wire_transaction(feed, nested))),
    }
}

fn result(
    transaction: &Transaction,
    answer: TxnResponse,
    newest: Revision,
) -> Result<TransactionResult, StoreError> {
    let steps = if answer.succeeded {
        &transaction.success
    } else {
        &transaction.failure
    };
    if steps.len() != answer.responses.len() {
        return Err(unexpected());
    }
    let steps = steps
        .iter()
        .zip(answer.responses)
        .map(|(step, response)| step_result(step, response, newest))
        .collect::<Result<_, _>>()?;
    Ok(TransactionResult {
        revision: newest,
        succeeded: answer.succeeded,
        steps,
    })
}

fn step_result(
    step: &Step,
    response: ResponseOp,
    newest: Revision,
) -> Result<StepResult, StoreError> {
    Ok(match (step, response.response) {
        (Step::Read(_), Some(ResponseOpResponse::Range(range))) => {
            let items = key_values(&range.kvs);
            let at = header_revision(range.header.as_ref());
            StepResult::Read(RangeResult {
                revision: if at.is_zero() { newest } else { at },
                remaining: count(range.count).saturating_sub(items.len() as u64),
                items,
            })
        }
        (Step::Put { .. }, Some(ResponseOpResponse::Put(put))) => StepResult::Put {
            previous: put.prev_kv.as_ref().map(key_value),
        },
        (Step::Delete { .. }, Some(ResponseOpResponse::DeleteRange(deleted))) => {
            StepResult::Delete {
                deleted: count(deleted.deleted),
                previous: key_values(&deleted.prev_kvs),
            }
        }
        (Step::Delete { .. }, Some(ResponseOpResponse::Range(_))) => StepResult::Delete {
            deleted: 0,
            previous: Vec::new(),
        },
        (Step::Nested(nested), Some(ResponseOpResponse::Txn(answer))) => {
            StepResult::Nested(result(nested, answer, newest)?)
        }
        _ => return Err(unexpected()),
    })
}

fn unexpected() -> StoreError {
    StoreError::OutcomeUnknown("etcd answered a transaction with other steps than asked".to_owned())
}
