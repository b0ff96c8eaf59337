//! Events.

use super::{ContainerStatus, PodSandboxStatus};

/// Asks for events from now on.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GetEventsRequest {}

/// Something happened.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerEventResponse {
    /// The container's id, or the sandbox's own.
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
    #[prost(enumeration = "ContainerEventType", tag = "2")]
    pub(crate) container_event_type: i32,
    /// When, in nanoseconds since 1970.
    #[prost(int64, tag = "3")]
    pub(crate) created_at: i64,
    #[prost(message, optional, tag = "4")]
    pub(crate) pod_sandbox_status: Option<PodSandboxStatus>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) containers_statuses: Vec<ContainerStatus>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum ContainerEventType {
    Created = 0,
    Started = 1,
    Stopped = 2,
    Deleted = 3,
}
