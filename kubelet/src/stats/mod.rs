//! What the node and its pods use: `/stats/summary`, and the metrics that are made of it.

mod machine;
mod metrics;
mod provider;
mod summary;
#[cfg(test)]
mod tests;

pub use self::metrics::{cadvisor_metrics, resource_metrics};
pub use self::provider::{StatsProvider, VolumeUsages};
pub use self::summary::{
    ContainerStats, CpuStats, FsStats, InterfaceStats, MemoryStats, NetworkStats, NodeStats,
    PodReference, PodStats, ProcessStats, RlimitStats, RuntimeStats, Summary, SwapStats,
    VolumeStats,
};
