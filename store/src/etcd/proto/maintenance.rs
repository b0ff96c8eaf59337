//! Maintenance of a member.

use bytes::Bytes;

use super::kv::ResponseHeader;

/// `etcdserverpb.AlarmMember`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct AlarmMember {
    #[prost(uint64, tag = "1")]
    pub(crate) member_id: u64,
    #[prost(enumeration = "AlarmType", tag = "2")]
    pub(crate) alarm: i32,
}

/// `etcdserverpb.AlarmRequest`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct AlarmRequest {
    #[prost(enumeration = "AlarmAction", tag = "1")]
    pub(crate) action: i32,
    #[prost(uint64, tag = "2")]
    pub(crate) member_id: u64,
    #[prost(enumeration = "AlarmType", tag = "3")]
    pub(crate) alarm: i32,
}

/// `etcdserverpb.AlarmResponse`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct AlarmResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) alarms: Vec<AlarmMember>,
}

/// `etcdserverpb.DefragmentRequest`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct DefragmentRequest {}

/// `etcdserverpb.DefragmentResponse`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct DefragmentResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
}

/// `etcdserverpb.DowngradeInfo`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct DowngradeInfo {
    #[prost(bool, tag = "1")]
    pub(crate) enabled: bool,
    #[prost(string, tag = "2")]
    pub(crate) target_version: String,
}

/// `etcdserverpb.DowngradeRequest`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct DowngradeRequest {
    #[prost(enumeration = "DowngradeAction", tag = "1")]
    pub(crate) action: i32,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
}

/// `etcdserverpb.DowngradeResponse`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct DowngradeResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
}

/// `etcdserverpb.HashRequest`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct HashRequest {}

/// `etcdserverpb.HashResponse`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct HashResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(uint32, tag = "2")]
    pub(crate) hash: u32,
}

/// `etcdserverpb.HashKVRequest`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct HashKVRequest {
    #[prost(int64, tag = "1")]
    pub(crate) revision: i64,
}

/// `etcdserverpb.HashKVResponse`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct HashKVResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(uint32, tag = "2")]
    pub(crate) hash: u32,
    #[prost(int64, tag = "3")]
    pub(crate) compact_revision: i64,
    #[prost(int64, tag = "4")]
    pub(crate) hash_revision: i64,
}

/// `etcdserverpb.MoveLeaderRequest`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct MoveLeaderRequest {
    #[prost(uint64, tag = "1")]
    pub(crate) target_id: u64,
}

/// `etcdserverpb.MoveLeaderResponse`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct MoveLeaderResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
}

/// `etcdserverpb.SnapshotRequest`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct SnapshotRequest {}

/// `etcdserverpb.SnapshotResponse`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct SnapshotResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(uint64, tag = "2")]
    pub(crate) remaining_bytes: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) blob: Bytes,
    #[prost(string, tag = "4")]
    pub(crate) version: String,
}

/// `etcdserverpb.StatusRequest`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct StatusRequest {}

/// `etcdserverpb.StatusResponse`.
#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
    #[prost(int64, tag = "3")]
    pub(crate) db_size: i64,
    #[prost(uint64, tag = "4")]
    pub(crate) leader: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) raft_index: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) raft_term: u64,
    #[prost(uint64, tag = "7")]
    pub(crate) raft_applied_index: u64,
    #[prost(string, repeated, tag = "8")]
    pub(crate) errors: Vec<String>,
    #[prost(int64, tag = "9")]
    pub(crate) db_size_in_use: i64,
    #[prost(bool, tag = "10")]
    pub(crate) is_learner: bool,
    #[prost(string, tag = "11")]
    pub(crate) storage_version: String,
    #[prost(int64, tag = "12")]
    pub(crate) db_size_quota: i64,
    #[prost(message, optional, tag = "13")]
    pub(crate) downgrade_info: Option<DowngradeInfo>,
}

/// `etcdserverpb.AlarmRequest.AlarmAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ::prost::Enumeration)]
#[repr(i32)]
pub(crate) enum AlarmAction {
    Get = 0,
    Activate = 1,
    Deactivate = 2,
}

/// `etcdserverpb.AlarmType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ::prost::Enumeration)]
#[repr(i32)]
pub(crate) enum AlarmType {
    None = 0,
    Nospace = 1,
    Corrupt = 2,
}

/// `etcdserverpb.DowngradeRequest.DowngradeAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ::prost::Enumeration)]
#[repr(i32)]
pub(crate) enum DowngradeAction {
    Validate = 0,
    Enable = 1,
    Cancel = 2,
}
