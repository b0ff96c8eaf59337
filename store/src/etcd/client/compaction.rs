//! Forgetting the past: when asked to, and every few minutes in turns with the other API servers of the cluster.

use std::time::Duration;

use bytes::Bytes;
use orlop_core::revision::Revision;
use orlop_core::store::StoreError;

use super::cluster::Kind;
use super::convert::{count, wire_revision};
use super::feed::Feed;
use super::refusal::Refusal;
use super::{COMPACT, TXN};
use crate::etcd::proto::kv::{
    CompactionRequest, CompactionResponse, Compare, CompareResult, CompareTarget,
    CompareTargetUnion, PutRequest, RangeRequest, RequestOp, RequestOpRequest, ResponseOpResponse,
    TxnRequest, TxnResponse,
};

/// The key by which those who compact take turns: kube-apiserver's. Its version counts the turns, its value is the revision compacted to.
const TURN_KEY: &[u8] = b"compact_rev_key";

pub(super) async fn compact(feed: &Feed, revision: Revision) -> Result<(), StoreError> {
    let request = CompactionRequest {
        revision: wire_revision(revision),
        physical: false,
    };
    let answer: Result<CompactionResponse, Refusal> =
        feed.cluster().call(COMPACT, Kind::Write, request).await;
    match answer {
        Ok(_) => {
            feed.set_compacted(revision.0);
            Ok(())
        }
        Err(Refusal::Compacted) => Err(super::range::compacted(feed, revision).await),
        Err(Refusal::FutureRevision) => Err(StoreError::FutureRevision {
            requested: revision,
            newest: feed.revision(feed.cluster().timeout()).await?,
        }),
        Err(refusal) => Err(refusal.into_error()),
    }
}

/// What one of those who take turns remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Turn {
    /// How many turns there were.
    number: u64,
    /// The store's revision at the last one.
    revision: Revision,
}

/// Compacts every interval to where the store was an interval ago.
pub(super) async fn run(feed: &Feed, interval: Duration) {
    let mut turn = Turn::default();
    loop {
        feed.cluster().env().sleep(interval).await;
        match take_turn(feed, turn).await {
            Ok(next) => turn = next,
            Err(error) => tracing::warn!(%error, "etcd could not be compacted"),
        }
    }
}

/// Compacts if nobody else did since the last turn that is known.
async fn take_turn(feed: &Feed, last: Turn) -> Result<Turn, StoreError> {
    let key = Bytes::from_static(TURN_KEY);
    let op = |request| RequestOp {
        request: Some(request),
    };
    let request = TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Version as i32,
            key: key.clone(),
            target_union: Some(CompareTargetUnion::Version(
                i64::try_from(last.number).unwrap_or(i64::MAX),
            )),
            range_end: Bytes::new(),
        }],
        success: vec![op(RequestOpRequest::Put(PutRequest {
            key: key.clone(),
            value: last.revision.to_string().into(),
            ..PutRequest::default()
        }))],
        failure: vec![op(RequestOpRequest::Range(RangeRequest {
            key,
            ..RangeRequest::default()
        }))],
    };
    let answer: TxnResponse = feed
        .cluster()
        .call(TXN, Kind::Write, request)
        .await
        .map_err(Refusal::into_error)?;
    let revision = Revision(answer.header.as_ref().map_or(0, |h| count(h.revision)));
    if !answer.succeeded {
        let number = answer
            .responses
            .first()
            .map_or(0, |response| match &response.response {
                Some(ResponseOpResponse::Range(range)) => {
                    range.kvs.first().map_or(0, |kv| count(kv.version))
                }
                _ => 0,
            });
        return Ok(Turn { number, revision });
    }
    let next = Turn {
        number: last.number + 1,
        revision,
    };
    if !last.revision.is_zero() {
        match compact(feed, last.revision).await {
            Ok(()) | Err(StoreError::Compacted { .. }) => {}
            Err(error) => {
                tracing::warn!(%error, revision = %last.revision, "etcd refused a compaction")
            }
        }
    }
    Ok(next)
}
