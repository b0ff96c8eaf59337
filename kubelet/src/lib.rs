//! The node agent.

pub mod agent;
mod blocking;
pub mod certificates;
pub mod cgroups;
pub mod config;
pub mod config_file;
pub mod container;
pub mod downward;
pub mod eviction;
pub mod hooks;
pub mod images;
pub mod kubelet;
pub mod logs;
pub mod node;
pub mod objects;
pub mod parts;
pub mod pod;
pub mod probes;
pub mod server;
mod static_pods;
pub mod stats;
pub mod tokens;
pub mod volumes;

/// What every container of ours is labelled with, by upstream's names: a runtime's containers are found by them after a restart.
pub mod labels {
    /// The pod's name.
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    /// The pod's namespace.
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    /// The pod's uid.
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    /// The container's name.
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    /// Annotation: a hash of the container's specification.
    pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
    /// Annotation: how many there were before.
    pub const CONTAINER_RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    /// Annotation: where the termination message is, inside.
    pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    /// Annotation: `File` or `FallbackToLogsOnError`.
    pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    /// Annotation: the pod's `deletionGracePeriodSeconds`, then its `terminationGracePeriodSeconds`.
    pub const POD_TERMINATION_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
    /// Annotation: the container's `preStop` hook as JSON, so that it can be run when the pod is not known any more.
    pub const PRE_STOP_HANDLER: &str = "io.kubernetes.container.preStopHandler";
}
