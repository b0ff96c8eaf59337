//! The messages of CRI v1, by field number.
//!
//! They are written down here, and not generated, so that no build needs `protoc`. What is particular to Windows, and calls that
//! nothing here makes, are left out; a field that is not known is skipped, as protocol buffers have it.

mod container;
mod engine;
mod event;
mod image;
mod resources;
mod sandbox;
mod security;
pub(crate) mod signal;
mod stats;
mod stream;

pub(crate) use self::container::*;
pub(crate) use self::engine::*;
pub(crate) use self::event::*;
pub(crate) use self::image::*;
pub(crate) use self::resources::*;
pub(crate) use self::sandbox::*;
pub(crate) use self::security::*;
pub(crate) use self::stats::*;
pub(crate) use self::stream::*;

/// A request, and the call that it belongs to.
pub(crate) trait Call: prost::Message + Clone + 'static {
    /// What is answered.
    type Answer: prost::Message + Default + 'static;
    /// The path of the call.
    const PATH: &'static str;
    /// The method of [`Runtime`](orlop_core::runtime::Runtime) that is not supported where an engine does not know the call.
    const OFFERS: &'static str;
    /// Whether the call only reads, so that it can be made again when a connection broke.
    const READS: bool;
}

macro_rules! calls {
    ($service:literal: $($name:ident $request:ident -> $answer:ident $kind:ident $offers:literal;)+) => {$(
        impl Call for $request {
            type Answer = $answer;
            const PATH: &'static str = concat!("/runtime.v1.", $service, "/", stringify!($name));
            const OFFERS: &'static str = $offers;
            const READS: bool = calls!(@$kind);
        }
    )+};
    (@reads) => { true };
    (@changes) => { false };
}

calls! { "RuntimeService":
    Version VersionRequest -> VersionResponse reads "status";
    Status StatusRequest -> StatusResponse reads "status";
    UpdateRuntimeConfig UpdateRuntimeConfigRequest -> UpdateRuntimeConfigResponse changes "set_pod_cidrs";
    RuntimeConfig RuntimeConfigRequest -> RuntimeConfigResponse reads "cgroup_driver";
    RunPodSandbox RunPodSandboxRequest -> RunPodSandboxResponse changes "run_sandbox";
    StopPodSandbox StopPodSandboxRequest -> StopPodSandboxResponse changes "stop_sandbox";
    RemovePodSandbox RemovePodSandboxRequest -> RemovePodSandboxResponse changes "remove_sandbox";
    ListPodSandbox ListPodSandboxRequest -> ListPodSandboxResponse reads "sandboxes";
    PodSandboxStatus PodSandboxStatusRequest -> PodSandboxStatusResponse reads "sandbox";
    UpdatePodSandboxResources UpdatePodSandboxResourcesRequest -> UpdatePodSandboxResourcesResponse changes "update_sandbox";
    CreateContainer CreateContainerRequest -> CreateContainerResponse changes "create_container";
    StartContainer StartContainerRequest -> StartContainerResponse changes "start_container";
    StopContainer StopContainerRequest -> StopContainerResponse changes "stop_container";
    RemoveContainer RemoveContainerRequest -> RemoveContainerResponse changes "remove_container";
    ListContainers ListContainersRequest -> ListContainersResponse reads "containers";
    ContainerStatus ContainerStatusRequest -> ContainerStatusResponse reads "container";
    UpdateContainerResources UpdateContainerResourcesRequest -> UpdateContainerResourcesResponse changes "update_container";
    ReopenContainerLog ReopenContainerLogRequest -> ReopenContainerLogResponse changes "reopen_log";
    CheckpointContainer CheckpointContainerRequest -> CheckpointContainerResponse changes "checkpoint_container";
    ExecSync ExecSyncRequest -> ExecSyncResponse changes "exec_sync";
    Exec ExecRequest -> ExecResponse changes "exec";
    Attach AttachRequest -> AttachResponse changes "attach";
    PortForward PortForwardRequest -> PortForwardResponse changes "port_forward";
    ListContainerStats ListContainerStatsRequest -> ListContainerStatsResponse reads "container_stats";
    ListPodSandboxStats ListPodSandboxStatsRequest -> ListPodSandboxStatsResponse reads "sandbox_stats";
    GetContainerEvents GetEventsRequest -> ContainerEventResponse changes "events";
}

calls! { "ImageService":
    ListImages ListImagesRequest -> ListImagesResponse reads "images";
    ImageStatus ImageStatusRequest -> ImageStatusResponse reads "image";
    PullImage PullImageRequest -> PullImageResponse changes "pull_image";
    RemoveImage RemoveImageRequest -> RemoveImageResponse changes "remove_image";
    ImageFsInfo ImageFsInfoRequest -> ImageFsInfoResponse reads "image_filesystems";
}

#[cfg(test)]
mod tests;
