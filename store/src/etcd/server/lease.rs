//! Leases.

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, Stream};
use http_body::Body;
use orlop_core::store::{LeaseId, StoreError};
use orlop_wire::body::BoxError;

use super::error::{GrpcError, LEASE_NOT_FOUND, LEASE_TTL_TOO_LARGE, STOPPED};
use super::frame::{self, Reader};
use super::{Inner, kv};
use crate::etcd::proto::lease::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};

/// The shortest time to live in seconds. etcd takes one and a half times its election timeout, a second by default, rounded up.
const MIN_TTL: i64 = 2;
/// The longest.
const MAX_TTL: i64 = 9_000_000_000;

/// How much room a lease is reckoned to take.
const LEASE_COST: u64 = 64;

impl Inner {
    pub(super) async fn lease_grant(
        &self,
        request: LeaseGrantRequest,
    ) -> Result<LeaseGrantResponse, GrpcError> {
        self.writable()?;
        self.room_for(LEASE_COST)?;
        if request.ttl > MAX_TTL {
            return Err(LEASE_TTL_TOO_LARGE);
        }
        let ttl = request.ttl.max(MIN_TTL);
        let granted = self
            .store
            .grant_lease(kv::lease(request.id), ttl.unsigned_abs())
            .await;
        let id = self.wrote(granted)?;
        Ok(LeaseGrantResponse {
            header: self.header(self.store.revision().await?),
            id: id.0,
            ttl,
            error: String::new(),
        })
    }

    pub(super) async fn lease_revoke(
        &self,
        request: LeaseRevokeRequest,
    ) -> Result<LeaseRevokeResponse, GrpcError> {
        self.sound()?;
        let id = kv::lease(request.id).ok_or(LEASE_NOT_FOUND)?;
        self.wrote(self.store.revoke_lease(id).await)?;
        Ok(LeaseRevokeResponse {
            header: self.header(self.store.revision().await?),
        })
    }

    /// One renewal. A lease that is not there has no time left.
    async fn keep_alive(
        &self,
        request: LeaseKeepAliveRequest,
    ) -> Result<LeaseKeepAliveResponse, GrpcError> {
        // Before the renewal: so nobody is told that a lease was alive at a revision at which it was not.
        let header = self.header(self.store.revision().await?);
        let ttl = match self.store.renew_lease(LeaseId(request.id)).await {
            Ok(ttl) => ttl,
            Err(StoreError::LeaseNotFound(_)) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(LeaseKeepAliveResponse {
            header,
            id: request.id,
            ttl: ttl.cast_signed(),
        })
    }

    pub(super) async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, GrpcError> {
        let lease = self.store.lease(LeaseId(request.id), request.keys).await;
        let header = self.header(self.store.revision().await?);
        match lease {
            Ok(lease) => Ok(LeaseTimeToLiveResponse {
                header,
                id: request.id,
                ttl: lease.remaining_seconds.cast_signed(),
                granted_ttl: lease.granted_seconds.cast_signed(),
                keys: lease.keys,
            }),
            Err(StoreError::LeaseNotFound(_)) => Ok(LeaseTimeToLiveResponse {
                header,
                id: request.id,
                ttl: -1,
                ..LeaseTimeToLiveResponse::default()
            }),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn lease_leases(
        &self,
        _request: LeaseLeasesRequest,
    ) -> Result<LeaseLeasesResponse, GrpcError> {
        let leases = self.store.leases().await?;
        Ok(LeaseLeasesResponse {
            header: self.header(self.store.revision().await?),
            leases: leases
                .into_iter()
                .map(|id| LeaseStatus { id: id.0 })
                .collect(),
        })
    }
}

/// Renews leases for as long as the client asks.
pub(super) fn keep_alive<B>(
    server: Arc<Inner>,
    body: B,
) -> impl Stream<Item = Result<Bytes, GrpcError>> + Send
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let requests = Reader::new(body, server.message_limit());
    let closing = server.closing.cancelled();
    futures::stream::unfold(Some((server, requests, closing)), |state| async move {
        let (server, mut requests, mut closing) = state?;
        let next = std::future::poll_fn(|cx| {
            if closing.poll_unpin(cx).is_ready() {
                return std::task::Poll::Ready(Some(Err(STOPPED)));
            }
            requests.poll_message(cx)
        });
        let answer = match next.await? {
            Ok(message) => match frame::decoded(message) {
                Ok(request) => server.keep_alive(request).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match answer.and_then(|answer| frame::encoded(&answer)) {
            Ok(answer) => Some((Ok(answer), Some((server, requests, closing)))),
            Err(error) => Some((Err(error), None)),
        }
    })
}
