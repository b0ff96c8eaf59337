//! The engine itself: version, status, configuration.

use std::collections::BTreeMap;

/// Asks which engine it is.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct VersionRequest {
    /// The version of the kubelet's own interface, which engines ignore.
    #[prost(string, tag = "1")]
    pub(crate) version: String,
}

/// Which engine it is.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct VersionResponse {
    #[prost(string, tag = "1")]
    pub(crate) version: String,
    /// Such as `containerd`.
    #[prost(string, tag = "2")]
    pub(crate) runtime_name: String,
    #[prost(string, tag = "3")]
    pub(crate) runtime_version: String,
    /// `v1` for the interface that is spoken here.
    #[prost(string, tag = "4")]
    pub(crate) runtime_api_version: String,
}

/// Asks how the engine is.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StatusRequest {
    /// Whether `info` is wanted.
    #[prost(bool, tag = "1")]
    pub(crate) verbose: bool,
}

/// How the engine is.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<RuntimeStatus>,
    /// The engine's own words about itself, when asked for.
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) info: BTreeMap<String, String>,
    /// Not told by older engines.
    #[prost(message, repeated, tag = "3")]
    pub(crate) runtime_handlers: Vec<RuntimeHandler>,
    /// Not told by older engines.
    #[prost(message, optional, tag = "4")]
    pub(crate) features: Option<RuntimeFeatures>,
}

/// What holds.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    pub(crate) conditions: Vec<RuntimeCondition>,
}

/// Something that holds, or does not.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RuntimeCondition {
    /// `RuntimeReady`, `NetworkReady`, or its own.
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(bool, tag = "2")]
    pub(crate) status: bool,
    #[prost(string, tag = "3")]
    pub(crate) reason: String,
    #[prost(string, tag = "4")]
    pub(crate) message: String,
}

/// A way to run sandboxes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RuntimeHandler {
    /// Empty for the default one.
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) features: Option<RuntimeHandlerFeatures>,
}

/// What a handler can do.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RuntimeHandlerFeatures {
    #[prost(bool, tag = "1")]
    pub(crate) recursive_read_only_mounts: bool,
    #[prost(bool, tag = "2")]
    pub(crate) user_namespaces: bool,
}

/// What the engine can do, whatever the handler.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RuntimeFeatures {
    #[prost(bool, tag = "1")]
    pub(crate) supplemental_groups_policy: bool,
    #[prost(bool, tag = "2")]
    pub(crate) user_namespaces_host_network: bool,
    #[prost(bool, tag = "3")]
    pub(crate) mount_options: bool,
}

/// Tells the engine about its node.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UpdateRuntimeConfigRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) runtime_config: Option<RuntimeConfig>,
}

/// It was told.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UpdateRuntimeConfigResponse {}

/// What an engine may want to know of its node.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RuntimeConfig {
    #[prost(message, optional, tag = "1")]
    pub(crate) network_config: Option<NetworkConfig>,
}

/// The node's network.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NetworkConfig {
    /// The ranges of the pods, with commas between them.
    #[prost(string, tag = "1")]
    pub(crate) pod_cidr: String,
}

/// Asks how the engine is set up.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RuntimeConfigRequest {}

/// How the engine is set up.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RuntimeConfigResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) linux: Option<LinuxRuntimeConfiguration>,
}

/// How it is set up on Linux.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LinuxRuntimeConfiguration {
    #[prost(enumeration = "CgroupDriver", tag = "1")]
    pub(crate) cgroup_driver: i32,
}

/// Who makes cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum CgroupDriver {
    /// systemd, as slices and scopes.
    Systemd = 0,
    /// The engine, as directories.
    Cgroupfs = 1,
}
