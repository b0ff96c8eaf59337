//! Watches.

use bytes::Bytes;

use super::kv::{Event, ResponseHeader};

/// `etcdserverpb.WatchCancelRequest`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct WatchCancelRequest {
    #[prost(int64, tag = "1")]
    pub(crate) watch_id: i64,
}

/// `etcdserverpb.WatchCreateRequest`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct WatchCreateRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) range_end: Bytes,
    #[prost(int64, tag = "3")]
    pub(crate) start_revision: i64,
    #[prost(bool, tag = "4")]
    pub(crate) progress_notify: bool,
    #[prost(enumeration = "FilterType", repeated, tag = "5")]
    pub(crate) filters: Vec<i32>,
    #[prost(bool, tag = "6")]
    pub(crate) prev_kv: bool,
    #[prost(int64, tag = "7")]
    pub(crate) watch_id: i64,
    #[prost(bool, tag = "8")]
    pub(crate) fragment: bool,
}

/// `etcdserverpb.WatchProgressRequest`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct WatchProgressRequest {}

/// `request_union` of `WatchRequest`.
#[derive(Clone, PartialEq, ::prost::Oneof)]
pub(crate) enum WatchRequestRequestUnion {
    #[prost(message, tag = "1")]
    Create(WatchCreateRequest),
    #[prost(message, tag = "2")]
    Cancel(WatchCancelRequest),
    #[prost(message, tag = "3")]
    Progress(WatchProgressRequest),
}

/// `etcdserverpb.WatchRequest`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct WatchRequest {
    #[prost(oneof = "WatchRequestRequestUnion", tags = "1, 2, 3")]
    pub(crate) request_union: Option<WatchRequestRequestUnion>,
}

/// `etcdserverpb.WatchResponse`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(int64, tag = "2")]
    pub(crate) watch_id: i64,
    #[prost(bool, tag = "3")]
    pub(crate) created: bool,
    #[prost(bool, tag = "4")]
    pub(crate) canceled: bool,
    #[prost(int64, tag = "5")]
    pub(crate) compact_revision: i64,
    #[prost(string, tag = "6")]
    pub(crate) cancel_reason: String,
    #[prost(bool, tag = "7")]
    pub(crate) fragment: bool,
    #[prost(message, repeated, tag = "11")]
    pub(crate) events: Vec<Event>,
}

/// `etcdserverpb.WatchCreateRequest.FilterType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ::prost::Enumeration)]
#[repr(i32)]
pub(crate) enum FilterType {
    Noput = 0,
    Nodelete = 1,
}
