//! Commands, and the addresses of streams.

use bytes::Bytes;

/// Runs a command to its end.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ExecSyncRequest {
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) cmd: Vec<String>,
    /// Seconds until it is killed; zero for never.
    #[prost(int64, tag = "3")]
    pub(crate) timeout: i64,
}

/// What it wrote, and how it ended.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ExecSyncResponse {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) stdout: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) stderr: Bytes,
    #[prost(int32, tag = "3")]
    pub(crate) exit_code: i32,
}

/// Asks where a command can be run.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ExecRequest {
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) cmd: Vec<String>,
    #[prost(bool, tag = "3")]
    pub(crate) tty: bool,
    #[prost(bool, tag = "4")]
    pub(crate) stdin: bool,
    #[prost(bool, tag = "5")]
    pub(crate) stdout: bool,
    #[prost(bool, tag = "6")]
    pub(crate) stderr: bool,
}

/// Where.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ExecResponse {
    #[prost(string, tag = "1")]
    pub(crate) url: String,
}

/// Asks where a container's program can be joined.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AttachRequest {
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
    #[prost(bool, tag = "2")]
    pub(crate) stdin: bool,
    #[prost(bool, tag = "3")]
    pub(crate) tty: bool,
    #[prost(bool, tag = "4")]
    pub(crate) stdout: bool,
    #[prost(bool, tag = "5")]
    pub(crate) stderr: bool,
}

/// Where.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AttachResponse {
    #[prost(string, tag = "1")]
    pub(crate) url: String,
}

/// Asks where ports can be reached.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PortForwardRequest {
    #[prost(string, tag = "1")]
    pub(crate) pod_sandbox_id: String,
    /// Which; engines that take them with each stream ignore it.
    #[prost(int32, repeated, tag = "2")]
    pub(crate) port: Vec<i32>,
}

/// Where.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PortForwardResponse {
    #[prost(string, tag = "1")]
    pub(crate) url: String,
}
