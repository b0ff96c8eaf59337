//! Transactions as an API server has them, which a store does by [`Store::commit`](orlop_core::store::Store::commit).

use orlop_core::revision::Revision;
use orlop_core::store::{self, Commit, Op, RangeResult, Txn};

use crate::etcd::proto::kv::{
    Compare, CompareResult, CompareTarget, CompareTargetUnion, DeleteRangeResponse, PutResponse,
    RangeRequest, RangeResponse, RequestOp, RequestOpRequest, ResponseOp, ResponseOpResponse,
    TxnRequest, TxnResponse,
};
use crate::etcd::server::kv::{inner_header, lease};
use crate::etcd::server::{Inner, ranges};

/// A transaction that is one for [`Store::commit`](orlop_core::store::Store::commit), and how to answer it.
pub(super) struct Fast {
    pub(super) txn: Txn,
    pub(super) shape: Shape,
}

/// What is answered.
pub(super) struct Shape {
    success: Vec<Write>,
    /// What to look at when the conditions do not hold: the request, and which condition's key it is.
    failure: Vec<(RangeRequest, usize)>,
}

#[derive(Clone, Copy)]
enum Write {
    Put,
    Delete,
}

impl Fast {
    /// `None` for a transaction that is more than that.
    pub(super) fn of(request: &TxnRequest) -> Option<Self> {
        // What is only read is no commit.
        if request.success.is_empty() {
            return None;
        }
        let compare: Vec<_> = request
            .compare
            .iter()
            .map(condition)
            .collect::<Option<_>>()?;
        let mut shape = Shape {
            success: Vec::with_capacity(request.success.len()),
            failure: Vec::with_capacity(request.failure.len()),
        };
        let mut ops = Vec::with_capacity(request.success.len());
        for op in &request.success {
            let (op, write) = write(op)?;
            ops.push(op);
            shape.success.push(write);
        }
        // A commit tells how many keys were deleted, not by which of its operations.
        let deletes = |write: &&Write| matches!(write, Write::Delete);
        if shape.success.iter().filter(deletes).count() > 1 {
            return None;
        }
        for op in &request.failure {
            let Some(RequestOpRequest::Range(range)) = &op.request else {
                return None;
            };
            let plain = range.range_end.is_empty()
                && range.revision <= 0
                && !range.keys_only
                && !range.count_only
                && range.min_mod_revision == 0
                && range.max_mod_revision == 0
                && range.min_create_revision == 0
                && range.max_create_revision == 0;
            let at = compare
                .iter()
                .position(|compare: &store::Compare| *compare.key() == range.key)?;
            if !plain {
                return None;
            }
            shape.failure.push((range.clone(), at));
        }
        Some(Self {
            txn: Txn { compare, ops },
            shape,
        })
    }
}

fn condition(compare: &Compare) -> Option<store::Compare> {
    if compare.result != CompareResult::Equal as i32 || !compare.range_end.is_empty() {
        return None;
    }
    let key = compare.key.clone();
    let target = CompareTarget::try_from(compare.target).ok()?;
    match (target, compare.target_union.as_ref()?) {
        (CompareTarget::Mod, &CompareTargetUnion::ModRevision(revision)) => Some(
            store::Compare::ModRevision(key, Revision(u64::try_from(revision).ok()?)),
        ),
        (CompareTarget::Create, &CompareTargetUnion::CreateRevision(revision)) => Some(
            store::Compare::CreateRevision(key, Revision(u64::try_from(revision).ok()?)),
        ),
        (CompareTarget::Version, &CompareTargetUnion::Version(version)) => {
            Some(store::Compare::Version(key, u64::try_from(version).ok()?))
        }
        (CompareTarget::Value, CompareTargetUnion::Value(value)) => {
            Some(store::Compare::Value(key, value.clone()))
        }
        _ => None,
    }
}

fn write(op: &RequestOp) -> Option<(Op, Write)> {
    match op.request.as_ref()? {
        RequestOpRequest::Put(put) if !put.prev_kv && !put.ignore_value && !put.ignore_lease => {
            let op = Op::Put {
                key: put.key.clone(),
                value: put.value.clone(),
                lease: lease(put.lease),
            };
            Some((op, Write::Put))
        }
        RequestOpRequest::DeleteRange(delete) if !delete.prev_kv => {
            let keys = ranges::keys(&delete.key, &delete.range_end);
            Some((Op::Delete(keys), Write::Delete))
        }
        _ => None,
    }
}

impl Shape {
    pub(super) fn answer(self, server: &Inner, commit: Commit) -> TxnResponse {
        match commit {
            Commit::Applied { revision, deleted } => {
                let mut puts_before = false;
                let puts = self.success.iter().any(|write| matches!(write, Write::Put));
                let before = Revision(revision.0.saturating_sub(1));
                let responses = self
                    .success
                    .iter()
                    .map(|write| match write {
                        Write::Put => {
                            puts_before = true;
                            ResponseOpResponse::Put(PutResponse {
                                header: inner_header(revision),
                                prev_kv: None,
                            })
                        }
                        Write::Delete => {
                            // Where it met nothing, and nothing was written before it, it still stands at the revision before.
                            let unmoved = deleted == 0 && puts && !puts_before;
                            ResponseOpResponse::DeleteRange(DeleteRangeResponse {
                                header: inner_header(if unmoved { before } else { revision }),
                                deleted: deleted.cast_signed(),
                                prev_kvs: Vec::new(),
                            })
                        }
                    })
                    .map(|response| ResponseOp {
                        response: Some(response),
                    })
                    .collect();
                TxnResponse {
                    header: server.header(revision),
                    succeeded: true,
                    responses,
                }
            }
            Commit::Refused { revision, current } => {
                let responses = self
                    .failure
                    .into_iter()
                    .map(|(range, at)| {
                        let found = RangeResult {
                            revision,
                            items: current.get(at).cloned().flatten().into_iter().collect(),
                            remaining: 0,
                        };
                        ResponseOp {
                            response: Some(ResponseOpResponse::Range(RangeResponse {
                                header: inner_header(revision),
                                ..ranges::from_store(&range, found)
                            })),
                        }
                    })
                    .collect();
                TxnResponse {
                    header: server.header(revision),
                    succeeded: false,
                    responses,
                }
            }
        }
    }
}
