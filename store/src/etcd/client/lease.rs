//! Leases.

use bytes::Bytes;
use orlop_core::store::{LeaseId, LeaseInfo, StoreError};

use super::cluster::Kind;
use super::convert::count;
use super::feed::Feed;
use super::refusal::Refusal;
use crate::etcd::proto::lease::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};

/// The longest time to live of a lease in seconds: etcd's.
const MAX_TTL: u64 = 9_000_000_000;

/// Makes a lease. etcd raises a time to live that is shorter than its members need to choose a new leader.
pub(super) async fn grant(
    feed: &Feed,
    id: Option<LeaseId>,
    ttl: u64,
) -> Result<LeaseId, StoreError> {
    if ttl == 0 || ttl > MAX_TTL {
        return Err(StoreError::InvalidRequest(format!(
            "a lease lives for 1 to {MAX_TTL} seconds, not {ttl}"
        )));
    }
    let id = id.map_or(0, |id| id.0);
    if id < 0 {
        return Err(StoreError::InvalidRequest(
            "a lease's id must not be negative".to_owned(),
        ));
    }
    let request = LeaseGrantRequest {
        ttl: i64::try_from(ttl).unwrap_or(i64::MAX),
        id,
    };
    let granted: LeaseGrantResponse = feed
        .cluster()
        .call("/etcdserverpb.Lease/LeaseGrant", Kind::Write, request)
        .await
        .map_err(|refusal| match refusal {
            Refusal::LeaseExists => StoreError::LeaseExists(LeaseId(id)),
            other => other.into_error(),
        })?;
    Ok(LeaseId(granted.id))
}

fn not_found(id: LeaseId) -> impl FnOnce(Refusal) -> StoreError {
    move |refusal| match refusal {
        Refusal::LeaseNotFound => StoreError::LeaseNotFound(id),
        other => other.into_error(),
    }
}

pub(super) async fn renew(feed: &Feed, id: LeaseId) -> Result<u64, StoreError> {
    let request = LeaseKeepAliveRequest { id: id.0 };
    let renewed: LeaseKeepAliveResponse = feed
        .cluster()
        .call_streaming("/etcdserverpb.Lease/LeaseKeepAlive", Kind::Read, request)
        .await
        .map_err(not_found(id))?;
    match count(renewed.ttl) {
        0 => Err(StoreError::LeaseNotFound(id)),
        ttl => Ok(ttl),
    }
}

pub(super) async fn revoke(feed: &Feed, id: LeaseId) -> Result<(), StoreError> {
    let request = LeaseRevokeRequest { id: id.0 };
    let _: LeaseRevokeResponse = feed
        .cluster()
        .call("/etcdserverpb.Lease/LeaseRevoke", Kind::Write, request)
        .await
        .map_err(not_found(id))?;
    Ok(())
}

pub(super) async fn lease(feed: &Feed, id: LeaseId, keys: bool) -> Result<LeaseInfo, StoreError> {
    let request = LeaseTimeToLiveRequest { id: id.0, keys };
    let answer: LeaseTimeToLiveResponse = feed
        .cluster()
        .call("/etcdserverpb.Lease/LeaseTimeToLive", Kind::Read, request)
        .await
        .map_err(not_found(id))?;
    if answer.ttl < 0 {
        return Err(StoreError::LeaseNotFound(id));
    }
    let mut keys: Vec<_> = answer
        .keys
        .iter()
        .map(|key| Bytes::copy_from_slice(key))
        .collect();
    keys.sort();
    Ok(LeaseInfo {
        granted_seconds: count(answer.granted_ttl),
        remaining_seconds: count(answer.ttl),
        keys,
    })
}

pub(super) async fn leases(feed: &Feed) -> Result<Vec<LeaseId>, StoreError> {
    // A member answers from what it knows. A read through the leader before brings it up to date.
    feed.revision(feed.cluster().timeout()).await?;
    let answer: LeaseLeasesResponse = feed
        .cluster()
        .call(
            "/etcdserverpb.Lease/LeaseLeases",
            Kind::Read,
            LeaseLeasesRequest {},
        )
        .await
        .map_err(Refusal::into_error)?;
    let mut leases: Vec<_> = answer
        .leases
        .iter()
        .map(|lease| LeaseId(lease.id))
        .collect();
    leases.sort();
    Ok(leases)
}
