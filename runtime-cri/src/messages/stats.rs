//! What sandboxes and containers use. Every `timestamp` is in nanoseconds since 1970.

use std::collections::BTreeMap;

use super::{ContainerMetadata, FilesystemUsage, PodSandboxMetadata};

/// Asks what containers use.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListContainerStatsRequest {
    /// Which are meant; all without.
    #[prost(message, optional, tag = "1")]
    pub(crate) filter: Option<ContainerStatsFilter>,
}

/// Which containers are meant.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerStatsFilter {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) pod_sandbox_id: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) label_selector: BTreeMap<String, String>,
}

/// What containers use.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListContainerStatsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) stats: Vec<ContainerStats>,
}

/// What a container uses.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerStats {
    #[prost(message, optional, tag = "1")]
    pub(crate) attributes: Option<ContainerAttributes>,
    #[prost(message, optional, tag = "2")]
    pub(crate) cpu: Option<CpuUsage>,
    #[prost(message, optional, tag = "3")]
    pub(crate) memory: Option<MemoryUsage>,
    #[prost(message, optional, tag = "4")]
    pub(crate) writable_layer: Option<FilesystemUsage>,
    #[prost(message, optional, tag = "5")]
    pub(crate) swap: Option<SwapUsage>,
    #[prost(message, optional, tag = "6")]
    pub(crate) io: Option<IoUsage>,
}

/// Which container.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerAttributes {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) metadata: Option<ContainerMetadata>,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// CPU time.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CpuUsage {
    #[prost(int64, tag = "1")]
    pub(crate) timestamp: i64,
    /// Since the start.
    #[prost(message, optional, tag = "2")]
    pub(crate) usage_core_nano_seconds: Option<UInt64Value>,
    /// Lately.
    #[prost(message, optional, tag = "3")]
    pub(crate) usage_nano_cores: Option<UInt64Value>,
    #[prost(message, optional, tag = "4")]
    pub(crate) psi: Option<PsiStats>,
}

/// Memory, in bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MemoryUsage {
    #[prost(int64, tag = "1")]
    pub(crate) timestamp: i64,
    #[prost(message, optional, tag = "2")]
    pub(crate) working_set_bytes: Option<UInt64Value>,
    #[prost(message, optional, tag = "3")]
    pub(crate) available_bytes: Option<UInt64Value>,
    #[prost(message, optional, tag = "4")]
    pub(crate) usage_bytes: Option<UInt64Value>,
    #[prost(message, optional, tag = "5")]
    pub(crate) rss_bytes: Option<UInt64Value>,
    #[prost(message, optional, tag = "6")]
    pub(crate) page_faults: Option<UInt64Value>,
    #[prost(message, optional, tag = "7")]
    pub(crate) major_page_faults: Option<UInt64Value>,
    #[prost(message, optional, tag = "8")]
    pub(crate) psi: Option<PsiStats>,
}

/// Swap, in bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SwapUsage {
    #[prost(int64, tag = "1")]
    pub(crate) timestamp: i64,
    #[prost(message, optional, tag = "2")]
    pub(crate) swap_available_bytes: Option<UInt64Value>,
    #[prost(message, optional, tag = "3")]
    pub(crate) swap_usage_bytes: Option<UInt64Value>,
}

/// Disks.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct IoUsage {
    #[prost(int64, tag = "1")]
    pub(crate) timestamp: i64,
    #[prost(message, optional, tag = "2")]
    pub(crate) psi: Option<PsiStats>,
}

/// The kernel's pressure stall information of one resource.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PsiStats {
    #[prost(message, optional, tag = "1")]
    pub(crate) full: Option<PsiData>,
    #[prost(message, optional, tag = "2")]
    pub(crate) some: Option<PsiData>,
}

/// One line of it: nanoseconds in all, and percents.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PsiData {
    #[prost(uint64, tag = "1")]
    pub(crate) total: u64,
    #[prost(double, tag = "2")]
    pub(crate) avg10: f64,
    #[prost(double, tag = "3")]
    pub(crate) avg60: f64,
    #[prost(double, tag = "4")]
    pub(crate) avg300: f64,
}

/// A number, wrapped so that it can be left out.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UInt64Value {
    #[prost(uint64, tag = "1")]
    pub(crate) value: u64,
}

/// Asks what sandboxes use.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListPodSandboxStatsRequest {
    /// Which are meant; all without.
    #[prost(message, optional, tag = "1")]
    pub(crate) filter: Option<PodSandboxStatsFilter>,
}

/// Which sandboxes are meant.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PodSandboxStatsFilter {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) label_selector: BTreeMap<String, String>,
}

/// What sandboxes use.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListPodSandboxStatsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) stats: Vec<PodSandboxStats>,
}

/// What a sandbox uses.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PodSandboxStats {
    #[prost(message, optional, tag = "1")]
    pub(crate) attributes: Option<PodSandboxAttributes>,
    #[prost(message, optional, tag = "2")]
    pub(crate) linux: Option<LinuxPodSandboxStats>,
}

/// Which sandbox.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PodSandboxAttributes {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) metadata: Option<PodSandboxMetadata>,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What it uses on Linux.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LinuxPodSandboxStats {
    #[prost(message, optional, tag = "1")]
    pub(crate) cpu: Option<CpuUsage>,
    #[prost(message, optional, tag = "2")]
    pub(crate) memory: Option<MemoryUsage>,
    #[prost(message, optional, tag = "3")]
    pub(crate) network: Option<NetworkUsage>,
    #[prost(message, optional, tag = "4")]
    pub(crate) process: Option<ProcessUsage>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) containers: Vec<ContainerStats>,
    #[prost(message, optional, tag = "6")]
    pub(crate) io: Option<IoUsage>,
}

/// Traffic.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NetworkUsage {
    #[prost(int64, tag = "1")]
    pub(crate) timestamp: i64,
    #[prost(message, optional, tag = "2")]
    pub(crate) default_interface: Option<NetworkInterfaceUsage>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) interfaces: Vec<NetworkInterfaceUsage>,
}

/// The traffic of an interface.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NetworkInterfaceUsage {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) rx_bytes: Option<UInt64Value>,
    #[prost(message, optional, tag = "3")]
    pub(crate) rx_errors: Option<UInt64Value>,
    #[prost(message, optional, tag = "4")]
    pub(crate) tx_bytes: Option<UInt64Value>,
    #[prost(message, optional, tag = "5")]
    pub(crate) tx_errors: Option<UInt64Value>,
}

/// Processes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ProcessUsage {
    #[prost(int64, tag = "1")]
    pub(crate) timestamp: i64,
    #[prost(message, optional, tag = "2")]
    pub(crate) process_count: Option<UInt64Value>,
}
