//! The answers of etcd, as far as they are alike.

use crate::etcd::proto::auth::AuthenticateResponse;
use crate::etcd::proto::kv::{
    CompactionResponse, DeleteRangeResponse, PutResponse, RangeResponse, ResponseHeader,
    TxnResponse,
};
use crate::etcd::proto::lease::{
    LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse,
    LeaseTimeToLiveResponse,
};
use crate::etcd::proto::maintenance::StatusResponse;

/// An answer. Nearly all carry the revision of the store.
pub(in crate::etcd::client) trait Answer:
    prost::Message + Default + 'static
{
    fn header(&self) -> Option<&ResponseHeader>;
}

macro_rules! answers {
    ($($answer:ty),+ $(,)?) => {
        $(impl Answer for $answer {
            fn header(&self) -> Option<&ResponseHeader> {
                self.header.as_ref()
            }
        })+
    };
}

answers!(
    RangeResponse,
    PutResponse,
    DeleteRangeResponse,
    TxnResponse,
    CompactionResponse,
    LeaseGrantResponse,
    LeaseKeepAliveResponse,
    LeaseLeasesResponse,
    LeaseRevokeResponse,
    LeaseTimeToLiveResponse,
    AuthenticateResponse,
    StatusResponse,
);
