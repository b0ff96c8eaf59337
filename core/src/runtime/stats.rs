//! What sandboxes and containers use.

use jiff::Timestamp;

use super::{ContainerId, ContainerMetadata, FilesystemUsage, Labels, SandboxId, SandboxMetadata};

/// How long tasks waited: one line of the kernel's pressure stall information.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// In all, in nanoseconds.
    pub total: u64,
    /// Percent of the last 10 seconds.
    pub avg10: f64,
    /// Percent of the last 60 seconds.
    pub avg60: f64,
    /// Percent of the last 300 seconds.
    pub avg300: f64,
}

/// Pressure stall information of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PressureStats {
    /// All tasks waited.
    pub full: Pressure,
    /// At least one waited.
    pub some: Pressure,
}

/// CPU time.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuUsage {
    /// When it was measured.
    pub at: Timestamp,
    /// Nanoseconds of one CPU since the start.
    pub usage_core_nanoseconds: u64,
    /// Billionths of a CPU, lately.
    pub usage_nano_cores: Option<u64>,
    /// How long tasks waited for a CPU.
    pub pressure: Option<PressureStats>,
}

/// Memory, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryUsage {
    /// When it was measured.
    pub at: Timestamp,
    /// What cannot be taken away without harm: what eviction looks at.
    pub working_set: u64,
    /// What is left of the limit, where there is one.
    pub available: Option<u64>,
    /// All, caches too.
    pub usage: Option<u64>,
    /// Anonymous memory.
    pub rss: Option<u64>,
    /// Page faults since the start.
    pub page_faults: Option<u64>,
    /// Those that waited for a disk.
    pub major_page_faults: Option<u64>,
    /// How long tasks waited for memory.
    pub pressure: Option<PressureStats>,
}

/// Swap, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct SwapUsage {
    /// When it was measured.
    pub at: Timestamp,
    /// What is left.
    pub available: Option<u64>,
    /// What is used.
    pub usage: u64,
}

/// The traffic of a network interface since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    /// Its name inside.
    pub name: String,
    /// Bytes received.
    pub received_bytes: u64,
    /// Errors while receiving.
    pub receive_errors: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Errors while sending.
    pub send_errors: u64,
}

/// What a container uses. What could not be measured is left out.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerStats {
    /// Which.
    pub id: ContainerId,
    /// Which container of the pod it is.
    pub metadata: ContainerMetadata,
    /// Its labels.
    pub labels: Labels,
    /// CPU time.
    pub cpu: Option<CpuUsage>,
    /// Memory.
    pub memory: Option<MemoryUsage>,
    /// Swap.
    pub swap: Option<SwapUsage>,
    /// What it wrote into its own file system.
    pub writable_layer: Option<FilesystemUsage>,
    /// How long tasks waited for disks.
    pub io_pressure: Option<PressureStats>,
}

/// What a sandbox uses, its containers included. What could not be measured is left out.
#[derive(Clone, Debug, PartialEq)]
pub struct SandboxStats {
    /// Which.
    pub id: SandboxId,
    /// Whose it is.
    pub metadata: SandboxMetadata,
    /// Its labels.
    pub labels: Labels,
    /// CPU time.
    pub cpu: Option<CpuUsage>,
    /// Memory.
    pub memory: Option<MemoryUsage>,
    /// Its interfaces, the default one first.
    pub interfaces: Vec<InterfaceUsage>,
    /// How many processes it has.
    pub processes: Option<u64>,
    /// How long tasks waited for disks.
    pub io_pressure: Option<PressureStats>,
    /// Its containers, each by itself.
    pub containers: Vec<ContainerStats>,
}
