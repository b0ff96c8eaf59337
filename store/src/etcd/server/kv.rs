//! Keys and values.

use orlop_core::revision::Revision;
use orlop_core::store::{
    Commit, LeaseId, Op, PutLease, Step, StepResult, Transaction, TransactionResult, Txn,
};

use super::error::{COMPACTED, EMPTY_KEY, GrpcError, LEASE_PROVIDED, VALUE_PROVIDED};
use super::header::signed;
use super::{Inner, ranges};
use crate::etcd::proto::kv::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse,
};

impl Inner {
    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, GrpcError> {
        let found = self.store.range(ranges::to_store(&request)?).await?;
        let header = self.header(found.revision);
        Ok(RangeResponse {
            header,
            ..ranges::from_store(&request, found)
        })
    }

    pub(super) async fn put(&self, request: PutRequest) -> Result<PutResponse, GrpcError> {
        check_put(&request)?;
        self.writable()?;
        self.room_for(put_cost(&request))?;
        if !request.prev_kv && !request.ignore_value && !request.ignore_lease {
            let txn = Txn {
                compare: Vec::new(),
                ops: vec![Op::Put {
                    key: request.key,
                    value: request.value,
                    lease: lease(request.lease),
                }],
            };
            let (Commit::Applied { revision, .. } | Commit::Refused { revision, .. }) =
                self.wrote(self.store.commit(txn).await)?;
            return Ok(PutResponse {
                header: self.header(revision),
                prev_kv: None,
            });
        }
        let (revision, done) = self.step(put_step(request)).await?;
        let prev_kv = match done {
            Some(StepResult::Put { previous }) => previous.map(ranges::key_value),
            _ => None,
        };
        Ok(PutResponse {
            header: self.header(revision),
            prev_kv,
        })
    }

    pub(super) async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, GrpcError> {
        check_delete(&request)?;
        self.sound()?;
        if !request.prev_kv {
            let txn = Txn {
                compare: Vec::new(),
                ops: vec![Op::Delete(ranges::keys(&request.key, &request.range_end))],
            };
            let (revision, deleted) = match self.wrote(self.store.commit(txn).await)? {
                Commit::Applied { revision, deleted } => (revision, deleted),
                Commit::Refused { revision, .. } => (revision, 0),
            };
            return Ok(DeleteRangeResponse {
                header: self.header(revision),
                deleted: deleted.cast_signed(),
                prev_kvs: Vec::new(),
            });
        }
        let (revision, done) = self.step(delete_step(&request)).await?;
        let (deleted, prev_kvs) = match done {
            Some(StepResult::Delete { deleted, previous }) => (deleted, previous),
            _ => (0, Vec::new()),
        };
        Ok(DeleteRangeResponse {
            header: self.header(revision),
            deleted: deleted.cast_signed(),
            prev_kvs: prev_kvs.into_iter().map(ranges::key_value).collect(),
        })
    }

    pub(super) async fn compact(
        &self,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, GrpcError> {
        self.sound()?;
        let revision = u64::try_from(request.revision).map_err(|_| COMPACTED)?;
        self.wrote(self.store.compact(Revision(revision)).await)?;
        Ok(CompactionResponse {
            header: self.header(self.store.revision().await?),
        })
    }

    /// Does one step as a transaction of its own.
    async fn step(&self, step: Step) -> Result<(Revision, Option<StepResult>), GrpcError> {
        let transaction = Transaction {
            success: vec![step],
            ..Transaction::default()
        };
        let TransactionResult {
            revision, steps, ..
        } = self.wrote(self.store.transact(transaction).await)?;
        Ok((revision, steps.into_iter().next()))
    }
}

/// A lease as a message has it; zero is none.
pub(super) fn lease(id: i64) -> Option<LeaseId> {
    (id != 0).then_some(LeaseId(id))
}

pub(super) fn check_put(request: &PutRequest) -> Result<(), GrpcError> {
    if request.key.is_empty() {
        return Err(EMPTY_KEY);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(VALUE_PROVIDED);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(LEASE_PROVIDED);
    }
    Ok(())
}

pub(super) fn check_delete(request: &DeleteRangeRequest) -> Result<(), GrpcError> {
    if request.key.is_empty() {
        return Err(EMPTY_KEY);
    }
    Ok(())
}

/// How much room a write is reckoned to take: what it brings, and what every version of a key costs.
pub(super) fn put_cost(request: &PutRequest) -> u64 {
    const VERSION: usize = 256;
    (VERSION + request.key.len() + request.value.len()) as u64
}

pub(super) fn put_step(request: PutRequest) -> Step {
    Step::Put {
        key: request.key,
        value: (!request.ignore_value).then_some(request.value),
        lease: if request.ignore_lease {
            PutLease::Keep
        } else {
            PutLease::Set(lease(request.lease))
        },
        previous: request.prev_kv,
    }
}

pub(super) fn delete_step(request: &DeleteRangeRequest) -> Step {
    Step::Delete {
        keys: ranges::keys(&request.key, &request.range_end),
        previous: request.prev_kv,
    }
}

/// The header of an answer within a transaction: its revision alone.
pub(super) fn inner_header(revision: Revision) -> Option<crate::etcd::proto::kv::ResponseHeader> {
    Some(crate::etcd::proto::kv::ResponseHeader {
        revision: signed(revision),
        ..Default::default()
    })
}
