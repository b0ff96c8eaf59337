//! What is looked at before a transaction is done.

use std::collections::BTreeSet;

use bytes::Bytes;
use orlop_core::store::KeyRange;

use crate::etcd::proto::kv::{RequestOp, RequestOpRequest, TxnRequest};
use crate::etcd::server::error::{
    DUPLICATE_KEY, EMPTY_KEY, GrpcError, KEY_NOT_FOUND, TOO_MANY_OPS,
};
use crate::etcd::server::kv::{check_delete, check_put, put_cost};
use crate::etcd::server::ranges;

/// Checks a transaction with all that is in it.
pub(super) fn request(request: &TxnRequest, most: usize) -> Result<(), GrpcError> {
    shape(request, most)?;
    written(&request.success)?;
    written(&request.failure)?;
    Ok(())
}

fn shape(request: &TxnRequest, most: usize) -> Result<(), GrpcError> {
    let longest = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    // What a transaction uses up, those within it do not have.
    let left = most.checked_sub(longest).ok_or(TOO_MANY_OPS)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(EMPTY_KEY);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(RequestOpRequest::Range(range)) if range.key.is_empty() => return Err(EMPTY_KEY),
            Some(RequestOpRequest::Range(_)) => {}
            Some(RequestOpRequest::Put(put)) => check_put(put)?,
            Some(RequestOpRequest::DeleteRange(delete)) => check_delete(delete)?,
            Some(RequestOpRequest::Txn(txn)) => shape(txn, left)?,
            None => return Err(KEY_NOT_FOUND),
        }
    }
    Ok(())
}

/// What a branch may write.
#[derive(Default)]
struct Written {
    puts: BTreeSet<Bytes>,
    deletes: Vec<KeyRange>,
}

impl Written {
    fn deletes(&self, key: &[u8]) -> bool {
        self.deletes.iter().any(|keys| keys.contains(key))
    }
}

/// Sees to it that no branch writes a key twice, nor one that it deletes. The two branches of a transaction within may write the same key:
/// only one of them is taken.
fn written(ops: &[RequestOp]) -> Result<Written, GrpcError> {
    let mut all = Written::default();
    for op in ops {
        if let Some(RequestOpRequest::DeleteRange(delete)) = &op.request {
            all.deletes
                .push(ranges::keys(&delete.key, &delete.range_end));
        }
    }
    for op in ops {
        let Some(RequestOpRequest::Txn(txn)) = &op.request else {
            continue;
        };
        let (success, failure) = (written(&txn.success)?, written(&txn.failure)?);
        let either: BTreeSet<_> = success.puts.union(&failure.puts).cloned().collect();
        for key in either {
            if all.deletes(&key) || !all.puts.insert(key) {
                return Err(DUPLICATE_KEY);
            }
        }
        for keys in success.deletes.into_iter().chain(failure.deletes) {
            if all
                .puts
                .iter()
                .any(|key| keys.contains(key) && !puts_within(txn, key))
            {
                return Err(DUPLICATE_KEY);
            }
            all.deletes.push(keys);
        }
    }
    for op in ops {
        if let Some(RequestOpRequest::Put(put)) = &op.request
            && (all.deletes(&put.key) || !all.puts.insert(put.key.clone()))
        {
            return Err(DUPLICATE_KEY);
        }
    }
    Ok(all)
}

/// Whether a transaction itself puts a key, in whichever branch. Whether that clashes with what it deletes was looked at within it.
fn puts_within(txn: &TxnRequest, key: &[u8]) -> bool {
    txn.success
        .iter()
        .chain(&txn.failure)
        .any(|op| match &op.request {
            Some(RequestOpRequest::Put(put)) => put.key.as_ref() == key,
            Some(RequestOpRequest::Txn(txn)) => puts_within(txn, key),
            _ => false,
        })
}

/// How much room the writes of the more costly branch are reckoned to take; zero for a transaction that puts nothing.
pub(super) fn cost(request: &TxnRequest) -> u64 {
    let of = |ops: &[RequestOp]| -> u64 {
        ops.iter()
            .map(|op| match &op.request {
                Some(RequestOpRequest::Put(put)) => put_cost(put),
                Some(RequestOpRequest::Txn(txn)) => cost(txn),
                _ => 0,
            })
            .sum()
    };
    of(&request.success).max(of(&request.failure))
}

/// Whether a transaction may write.
pub(in crate::etcd::server) fn writes(request: &TxnRequest) -> bool {
    request
        .success
        .iter()
        .chain(&request.failure)
        .any(|op| match &op.request {
            Some(RequestOpRequest::Range(_)) | None => false,
            Some(RequestOpRequest::Put(_) | RequestOpRequest::DeleteRange(_)) => true,
            Some(RequestOpRequest::Txn(txn)) => writes(txn),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::proto::kv::{Compare, DeleteRangeRequest, PutRequest, RangeRequest};

    fn op(request: RequestOpRequest) -> RequestOp {
        RequestOp {
            request: Some(request),
        }
    }

    fn put(key: &'static str) -> RequestOp {
        op(RequestOpRequest::Put(PutRequest {
            key: key.into(),
            ..PutRequest::default()
        }))
    }

    fn delete(key: &'static str, end: &'static str) -> RequestOp {
        op(RequestOpRequest::DeleteRange(DeleteRangeRequest {
            key: key.into(),
            range_end: end.into(),
            prev_kv: false,
        }))
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(RequestOpRequest::Txn(txn(success, failure)))
    }

    fn txn(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
        TxnRequest {
            success,
            failure,
            ..TxnRequest::default()
        }
    }

    fn checked(success: Vec<RequestOp>) -> Result<(), GrpcError> {
        request(&txn(success, vec![]), 128)
    }

    #[test]
    fn no_key_is_written_twice() {
        let twice = Err(DUPLICATE_KEY);
        assert_eq!(checked(vec![put("a"), put("b")]), Ok(()));
        assert_eq!(checked(vec![put("a"), put("a")]), twice);
        assert_eq!(checked(vec![put("b"), delete("a", "c")]), twice);
        assert_eq!(checked(vec![put("c"), delete("a", "c")]), Ok(()));
        assert_eq!(checked(vec![put("c"), delete("b", "\0")]), twice);
        assert_eq!(checked(vec![delete("a", ""), delete("a", "c")]), Ok(()));
        // Within: the two branches exclude each other, what stands beside them does not.
        let both = || nested(vec![put("a")], vec![put("a")]);
        assert_eq!(checked(vec![both()]), Ok(()));
        assert_eq!(checked(vec![both(), put("a")]), twice);
        assert_eq!(checked(vec![both(), both()]), twice);
        assert_eq!(checked(vec![both(), delete("a", "")]), twice);
        let either = nested(vec![put("a")], vec![delete("a", "")]);
        assert_eq!(checked(vec![either.clone()]), Ok(()));
        assert_eq!(checked(vec![either, put("b")]), Ok(()));
        assert_eq!(
            checked(vec![put("a"), nested(vec![delete("a", "")], vec![])]),
            twice
        );
        // Both branches are looked at, taken or not.
        assert_eq!(
            request(&txn(vec![], vec![put("a"), put("a")]), 128),
            Err(DUPLICATE_KEY)
        );
    }

    #[test]
    fn there_are_only_so_many_operations() {
        let puts = |count: usize| -> Vec<_> {
            (0..count)
                .map(|n| {
                    op(RequestOpRequest::Put(PutRequest {
                        key: n.to_string().into(),
                        ..PutRequest::default()
                    }))
                })
                .collect()
        };
        assert_eq!(checked(puts(128)), Ok(()));
        assert_eq!(checked(puts(129)), Err(TOO_MANY_OPS));
        assert_eq!(checked(vec![nested(puts(127), vec![])]), Ok(()));
        assert_eq!(checked(vec![nested(puts(128), vec![])]), Err(TOO_MANY_OPS));
        let compares = TxnRequest {
            compare: vec![
                Compare {
                    key: "a".into(),
                    ..Compare::default()
                };
                129
            ],
            ..TxnRequest::default()
        };
        assert_eq!(request(&compares, 128), Err(TOO_MANY_OPS));
    }

    #[test]
    fn every_operation_names_a_key() {
        assert_eq!(checked(vec![put("")]), Err(EMPTY_KEY));
        assert_eq!(checked(vec![delete("", "")]), Err(EMPTY_KEY));
        let range = op(RequestOpRequest::Range(RangeRequest::default()));
        assert_eq!(checked(vec![range]), Err(EMPTY_KEY));
        assert_eq!(
            checked(vec![RequestOp { request: None }]),
            Err(KEY_NOT_FOUND)
        );
        let nameless = TxnRequest {
            compare: vec![Compare::default()],
            ..TxnRequest::default()
        };
        assert_eq!(request(&nameless, 128), Err(EMPTY_KEY));
    }

    #[test]
    fn the_costlier_branch_counts() {
        assert_eq!(cost(&txn(vec![delete("a", "")], vec![])), 0);
        let one = cost(&txn(vec![put("a")], vec![]));
        assert!(one > 0);
        assert_eq!(
            cost(&txn(
                vec![put("a")],
                vec![nested(vec![put("b"), put("c")], vec![])]
            )),
            2 * one
        );
    }
}
