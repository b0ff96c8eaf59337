//! What `/stats/summary` answers: the words of upstream's `stats/v1alpha1`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Declares words of the API: all fields may be missing, and are left out then.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
            #[serde(rename_all = "camelCase", default)]
            pub struct $name {
                $($(#[$field_doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
            }
        )*
    };
}

words! {
    /// CPU time.
    CpuStats {
        /// When it was measured.
        time: Timestamp,
        /// Billionths of a CPU, lately.
        usage_nano_cores: u64,
        /// Nanoseconds of a CPU since the start.
        usage_core_nano_seconds: u64,
    }
    /// Memory, in bytes.
    MemoryStats {
        /// When it was measured.
        time: Timestamp,
        /// What is left of the limit, or of the machine.
        available_bytes: u64,
        /// All, caches too.
        usage_bytes: u64,
        /// What cannot be taken away without harm.
        working_set_bytes: u64,
        /// Anonymous memory.
        rss_bytes: u64,
        /// Page faults since the start.
        page_faults: u64,
        /// Those that waited for a disk.
        major_page_faults: u64,
    }
    /// Swap, in bytes.
    SwapStats {
        /// When it was measured.
        time: Timestamp,
        /// What is left.
        swap_available_bytes: u64,
        /// What is used.
        swap_usage_bytes: u64,
    }
    /// A file system, or what something takes of one.
    FsStats {
        /// When it was measured.
        time: Timestamp,
        /// Bytes left.
        available_bytes: u64,
        /// Bytes in all.
        capacity_bytes: u64,
        /// Bytes taken.
        used_bytes: u64,
        /// Inodes left.
        inodes_free: u64,
        /// Inodes in all.
        inodes: u64,
        /// Inodes taken.
        inodes_used: u64,
    }
    /// How many processes there may be, and are.
    RlimitStats {
        /// When it was measured.
        time: Timestamp,
        /// The most there may be.
        #[serde(rename = "maxpid")]
        max_pid: i64,
        /// How many there are.
        #[serde(rename = "curproc")]
        processes: i64,
    }
    /// The file systems of the runtime.
    RuntimeStats {
        /// Where images are.
        image_fs: FsStats,
        /// Where containers write.
        container_fs: FsStats,
    }
    /// Processes.
    ProcessStats {
        /// How many there are.
        #[serde(rename = "process_count")]
        process_count: u64,
    }
}

/// The traffic of an interface since its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InterfaceStats {
    /// Its name.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Errors while receiving.
    pub rx_errors: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Errors while sending.
    pub tx_errors: u64,
}

/// The traffic of all interfaces: that of the default one, and each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkStats {
    /// When it was measured.
    pub time: Timestamp,
    /// The default interface.
    #[serde(flatten)]
    pub main: InterfaceStats,
    /// All of them.
    pub interfaces: Vec<InterfaceStats>,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStats {
    /// Its name in the pod.
    pub name: String,
    /// Since when it runs.
    pub start_time: Timestamp,
    /// CPU time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuStats>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStats>,
    /// What it wrote into its own file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<FsStats>,
    /// Its logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<FsStats>,
    /// Swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<SwapStats>,
}

/// Which pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodReference {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeStats {
    /// Its name in the pod.
    pub name: String,
    /// What it takes.
    #[serde(flatten)]
    pub fs: FsStats,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStats {
    /// Which.
    pub pod_ref: PodReference,
    /// Since when it is there.
    pub start_time: Timestamp,
    /// Its containers that run.
    pub containers: Vec<ContainerStats>,
    /// CPU time of all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuStats>,
    /// Memory of all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStats>,
    /// Its traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStats>,
    /// Its volumes.
    #[serde(rename = "volume", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeStats>,
    /// What it takes of the node's disk: file systems of containers, logs, and volumes that lie there.
    #[serde(rename = "ephemeral-storage", skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<FsStats>,
    /// Its processes.
    #[serde(rename = "process_stats", skip_serializing_if = "Option::is_none")]
    pub process_stats: Option<ProcessStats>,
    /// Swap of all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<SwapStats>,
}

/// The node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStats {
    /// Its name.
    pub node_name: String,
    /// Since when it is up.
    pub start_time: Timestamp,
    /// CPU time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuStats>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStats>,
    /// Its traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStats>,
    /// The file system of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fs: Option<FsStats>,
    /// The file systems of the runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeStats>,
    /// Processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rlimit: Option<RlimitStats>,
    /// Swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<SwapStats>,
}

/// The node and its pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// The node.
    pub node: NodeStats,
    /// Its pods, in order of namespace and name.
    pub pods: Vec<PodStats>,
}

impl Summary {
    /// With CPU and memory alone, which is all that some ask for.
    #[must_use]
    pub fn only_cpu_and_memory(mut self) -> Self {
        self.node = NodeStats {
            network: None,
            fs: None,
            runtime: None,
            rlimit: None,
            ..self.node
        };
        for pod in &mut self.pods {
            (pod.network, pod.ephemeral_storage, pod.process_stats) = (None, None, None);
            pod.volumes.clear();
            for container in &mut pod.containers {
                (container.rootfs, container.logs) = (None, None);
            }
        }
        self
    }
}
