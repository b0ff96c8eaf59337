//! What containers may take.

use std::collections::BTreeMap;

/// Limits. Zero and empty mean that nothing is said.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LinuxContainerResources {
    /// Microseconds.
    #[prost(int64, tag = "1")]
    pub(crate) cpu_period: i64,
    /// Microseconds in a period.
    #[prost(int64, tag = "2")]
    pub(crate) cpu_quota: i64,
    #[prost(int64, tag = "3")]
    pub(crate) cpu_shares: i64,
    #[prost(int64, tag = "4")]
    pub(crate) memory_limit_in_bytes: i64,
    #[prost(int64, tag = "5")]
    pub(crate) oom_score_adj: i64,
    #[prost(string, tag = "6")]
    pub(crate) cpuset_cpus: String,
    #[prost(string, tag = "7")]
    pub(crate) cpuset_mems: String,
    #[prost(message, repeated, tag = "8")]
    pub(crate) hugepage_limits: Vec<HugepageLimit>,
    /// Files of cgroup v2.
    #[prost(btree_map = "string, string", tag = "9")]
    pub(crate) unified: BTreeMap<String, String>,
    #[prost(int64, tag = "10")]
    pub(crate) memory_swap_limit_in_bytes: i64,
}

/// Bytes of huge pages of one size.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HugepageLimit {
    /// Such as `2MB`.
    #[prost(string, tag = "1")]
    pub(crate) page_size: String,
    #[prost(uint64, tag = "2")]
    pub(crate) limit: u64,
}

/// What a container may take now.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerResources {
    #[prost(message, optional, tag = "1")]
    pub(crate) linux: Option<LinuxContainerResources>,
}

/// Gives a container other limits.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UpdateContainerResourcesRequest {
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) linux: Option<LinuxContainerResources>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// It has them.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UpdateContainerResourcesResponse {}
