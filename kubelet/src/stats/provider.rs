//! Gathers a summary.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use orlop_core::env::Env;
use orlop_core::runtime::{
    self, Container, ContainerFilter, ContainerState, CpuUsage, FilesystemUsage, MemoryUsage,
    Runtime, RuntimeError, SandboxFilter, SwapUsage,
};
use parking_lot::Mutex;

use super::machine;
use super::summary::{
    ContainerStats, CpuStats, FsStats, InterfaceStats, MemoryStats, NetworkStats, NodeStats,
    PodReference, PodStats, ProcessStats, RuntimeStats, Summary, SwapStats, VolumeStats,
};
use crate::blocking::blocking;
use crate::cgroups::{self, Hierarchies};
use crate::config::KubeletConfig;
use crate::labels;
use crate::volumes::VolumeUsage;

/// Measures the volumes of the pod with a uid.
pub type VolumeUsages = Arc<dyn Fn(String) -> BoxFuture<'static, Vec<VolumeUsage>> + Send + Sync>;

/// Gathers what the node and its pods use, from the runtime, the cgroups and `/proc`. What nobody tells is left out.
pub struct StatsProvider {
    config: Arc<KubeletConfig>,
    runtime: Arc<dyn Runtime>,
    hierarchies: Option<Hierarchies>,
    volumes: Option<VolumeUsages>,
    env: Env,
    /// CPU time as it was when it was asked for last, by what it is of: rates come from two measurements.
    before: Mutex<BTreeMap<String, (Timestamp, u64)>>,
}

impl fmt::Debug for StatsProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StatsProvider")
    }
}

impl StatsProvider {
    /// Over a runtime. Without `hierarchies`, nothing is told of the node's own CPU and memory.
    pub fn new(
        config: Arc<KubeletConfig>,
        runtime: Arc<dyn Runtime>,
        hierarchies: Option<Hierarchies>,
        env: Env,
    ) -> Self {
        Self {
            config,
            runtime,
            hierarchies,
            volumes: None,
            env,
            before: Mutex::default(),
        }
    }

    /// With the volumes of pods.
    #[must_use]
    pub fn volumes(mut self, volumes: VolumeUsages) -> Self {
        self.volumes = Some(volumes);
        self
    }

    /// The containers that are there, for who needs what a summary does not have.
    pub(super) async fn containers(&self) -> Result<Vec<Container>, RuntimeError> {
        self.runtime.containers(&ContainerFilter::default()).await
    }

    /// What is used now.
    ///
    /// # Errors
    /// The runtime does not answer.
    pub async fn summary(&self) -> Result<Summary, RuntimeError> {
        let seen = Seen::new(&self.before);
        let node = self.node(&seen).await;
        let pods = self.pods(&seen, &node).await?;
        seen.keep();
        Ok(Summary { node, pods })
    }

    async fn node(&self, seen: &Seen<'_>) -> NodeStats {
        let at = self.env.wall();
        let (root, hierarchies) = (self.config.root_dir.clone(), self.hierarchies.clone());
        let measured = blocking(move || {
            let used = hierarchies.map(|all| cgroups::usage(&all, "", at));
            (
                used,
                machine::filesystem(&root, at),
                machine::network(at),
                machine::processes(at),
                machine::boot_time(),
            )
        });
        let (used, fs, network, rlimit, booted) = measured.await;
        let used = used.unwrap_or_default();
        let runtime = match self.runtime.image_filesystems().await {
            Ok(all) => {
                let (images, containers) = (all.images.first(), all.containers.first());
                let of = |usage: Option<&FilesystemUsage>| usage.cloned();
                let (images, containers) = (of(images), of(containers));
                blocking(move || {
                    let of = |usage: Option<FilesystemUsage>| {
                        usage.map(|usage| FsStats {
                            used_bytes: Some(usage.used_bytes),
                            inodes_used: usage.inodes_used,
                            ..machine::filesystem(&usage.mountpoint, at).unwrap_or_default()
                        })
                    };
                    let image_fs = of(images);
                    Some(RuntimeStats {
                        container_fs: of(containers).or_else(|| image_fs.clone()),
                        image_fs,
                    })
                })
                .await
            }
            Err(_) => None,
        };
        NodeStats {
            node_name: self.config.node_name.clone(),
            start_time: booted.unwrap_or_default(),
            cpu: used.cpu.map(|cpu| seen.cpu("node", &cpu)),
            memory: used.memory.map(|used| memory(&used)),
            network,
            fs,
            runtime,
            rlimit,
            swap: used.swap.map(|used| swap(&used)),
        }
    }

    async fn pods(&self, seen: &Seen<'_>, node: &NodeStats) -> Result<Vec<PodStats>, RuntimeError> {
        let sandboxes = self.runtime.sandboxes(&SandboxFilter::default()).await?;
        let containers = self.containers().await?;
        let sandbox_stats = absent(self.runtime.sandbox_stats(&SandboxFilter::default()).await)?;
        let used = match &sandbox_stats {
            Some(all) => all
                .iter()
                .flat_map(|sandbox| sandbox.containers.clone())
                .collect(),
            None => {
                let running = ContainerFilter {
                    state: Some(ContainerState::Running),
                    ..ContainerFilter::default()
                };
                absent(self.runtime.container_stats(&running).await)?.unwrap_or_default()
            }
        };
        let used: BTreeMap<_, _> = used
            .into_iter()
            .map(|used: runtime::ContainerStats| (used.id.clone(), used))
            .collect();
        let mut pods = Vec::new();
        for sandbox in sandboxes {
            let running: Vec<&Container> = containers
                .iter()
                .filter(|one| one.sandbox == sandbox.id && one.state == ContainerState::Running)
                .collect();
            if sandbox.state != runtime::SandboxState::Ready {
                continue;
            }
            let mut pod = PodStats {
                pod_ref: PodReference {
                    name: sandbox.metadata.name.clone(),
                    namespace: sandbox.metadata.namespace.clone(),
                    uid: sandbox.metadata.uid.clone(),
                },
                start_time: sandbox.created,
                ..PodStats::default()
            };
            for container in running {
                let used = used.get(&container.id);
                pod.containers
                    .push(self.container(seen, container, used, node).await);
            }
            let whole = sandbox_stats
                .as_ref()
                .and_then(|all| all.iter().find(|stats| stats.id == sandbox.id));
            let uid = &sandbox.metadata.uid;
            pod.cpu = match whole.and_then(|stats| stats.cpu.as_ref()) {
                Some(cpu) => Some(seen.cpu(&format!("pod/{uid}"), cpu)),
                None => sum_cpu(&pod.containers),
            };
            pod.memory = match whole.and_then(|stats| stats.memory.as_ref()) {
                Some(used) => Some(memory(used)),
                None => sum_memory(&pod.containers),
            };
            pod.swap = sum_swap(&pod.containers);
            if let Some(stats) = whole {
                pod.network = network(stats, self.env.wall());
                pod.process_stats = stats.processes.map(|count| ProcessStats {
                    process_count: Some(count),
                });
            }
            let volumes = match &self.volumes {
                Some(volumes) => volumes(uid.clone()).await,
                None => Vec::new(),
            };
            self.storage(&mut pod, &volumes, node);
            pods.push(pod);
        }
        pods.sort_by(|a, b| {
            let key = |pod: &PodStats| (pod.pod_ref.namespace.clone(), pod.pod_ref.name.clone());
            key(a).cmp(&key(b))
        });
        Ok(pods)
    }

    async fn container(
        &self,
        seen: &Seen<'_>,
        container: &Container,
        used: Option<&runtime::ContainerStats>,
        node: &NodeStats,
    ) -> ContainerStats {
        let name = container
            .labels
            .get(labels::CONTAINER_NAME)
            .unwrap_or(&container.metadata.name);
        let log_directory: Option<PathBuf> = container
            .log_path
            .as_ref()
            .and_then(|path| path.parent().map(PathBuf::from));
        let logs = match log_directory {
            Some(directory) => {
                let (bytes, files) = blocking(move || machine::files(&directory)).await;
                Some(part_of(
                    node.fs.as_ref(),
                    bytes,
                    Some(files),
                    self.env.wall(),
                ))
            }
            None => None,
        };
        let container_fs = node
            .runtime
            .as_ref()
            .and_then(|runtime| runtime.container_fs.as_ref());
        ContainerStats {
            name: name.clone(),
            start_time: container.started.unwrap_or(container.created),
            cpu: used
                .and_then(|used| used.cpu.as_ref())
                .map(|cpu| seen.cpu(container.id.as_str(), cpu)),
            memory: used.and_then(|used| used.memory.as_ref()).map(memory),
            rootfs: used
                .and_then(|used| used.writable_layer.as_ref())
                .map(|layer| part_of(container_fs, layer.used_bytes, layer.inodes_used, layer.at)),
            logs,
            swap: used.and_then(|used| used.swap.as_ref()).map(swap),
        }
    }

    /// Volumes, and what the pod takes of the node's disk.
    fn storage(&self, pod: &mut PodStats, volumes: &[VolumeUsage], node: &NodeStats) {
        let at = self.env.wall();
        let (mut bytes, mut inodes) = (0, 0);
        for volume in volumes {
            pod.volumes.push(VolumeStats {
                name: volume.name.clone(),
                fs: FsStats {
                    time: Some(at),
                    available_bytes: Some(volume.available_bytes),
                    capacity_bytes: Some(volume.capacity_bytes),
                    used_bytes: Some(volume.used_bytes),
                    inodes_free: Some(volume.inodes_free),
                    inodes: Some(volume.inodes),
                    inodes_used: Some(volume.inodes_used),
                },
            });
            if !volume.mounted {
                bytes += volume.used_bytes;
                inodes += volume.inodes_used;
            }
        }
        let parts = pod
            .containers
            .iter()
            .flat_map(|container| [&container.rootfs, &container.logs]);
        for part in parts.flatten() {
            bytes += part.used_bytes.unwrap_or_default();
            inodes += part.inodes_used.unwrap_or_default();
        }
        pod.ephemeral_storage = Some(part_of(node.fs.as_ref(), bytes, Some(inodes), at));
    }
}

/// What a runtime does not offer is nothing.
fn absent<T>(result: Result<T, RuntimeError>) -> Result<Option<T>, RuntimeError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_unsupported() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Measurements of CPU time, this time and the last.
struct Seen<'a> {
    before: &'a Mutex<BTreeMap<String, (Timestamp, u64)>>,
    now: Mutex<BTreeSet<String>>,
}

impl<'a> Seen<'a> {
    fn new(before: &'a Mutex<BTreeMap<String, (Timestamp, u64)>>) -> Self {
        Self {
            before,
            now: Mutex::default(),
        }
    }

    /// CPU time, with the rate since it was asked for last where the runtime tells none.
    fn cpu(&self, of: &str, used: &CpuUsage) -> CpuStats {
        let total = used.usage_core_nanoseconds;
        let mut before = self.before.lock();
        let earlier = before.get(of).copied();
        self.now.lock().insert(of.to_owned());
        let rate = earlier.and_then(|(at, earlier)| {
            let elapsed = u128::try_from(used.at.duration_since(at).as_nanos()).ok()?;
            let spent = u128::from(total.checked_sub(earlier)?);
            u64::try_from((spent * 1_000_000_000).checked_div(elapsed)?).ok()
        });
        // Two measurements at the same moment tell nothing; the earlier one stays.
        if earlier.is_none_or(|(at, _)| used.at > at) {
            before.insert(of.to_owned(), (used.at, total));
        }
        CpuStats {
            time: Some(used.at),
            usage_nano_cores: used.usage_nano_cores.or(rate),
            usage_core_nano_seconds: Some(total),
        }
    }

    /// Forgets what was not there this time.
    fn keep(self) {
        let now = self.now.into_inner();
        self.before.lock().retain(|of, _| now.contains(of));
    }
}

fn memory(used: &MemoryUsage) -> MemoryStats {
    MemoryStats {
        time: Some(used.at),
        available_bytes: used.available,
        usage_bytes: used.usage,
        working_set_bytes: Some(used.working_set),
        rss_bytes: used.rss,
        page_faults: used.page_faults,
        major_page_faults: used.major_page_faults,
    }
}

fn swap(used: &SwapUsage) -> SwapStats {
    SwapStats {
        time: Some(used.at),
        swap_available_bytes: used.available,
        swap_usage_bytes: Some(used.usage),
    }
}

/// What something takes of a file system.
fn part_of(of: Option<&FsStats>, bytes: u64, inodes: Option<u64>, at: Timestamp) -> FsStats {
    FsStats {
        time: Some(at),
        used_bytes: Some(bytes),
        inodes_used: inodes,
        ..of.cloned().unwrap_or_default()
    }
}

fn network(stats: &runtime::SandboxStats, at: Timestamp) -> Option<NetworkStats> {
    let interfaces: Vec<InterfaceStats> = stats
        .interfaces
        .iter()
        .map(|interface| InterfaceStats {
            name: interface.name.clone(),
            rx_bytes: interface.received_bytes,
            rx_errors: interface.receive_errors,
            tx_bytes: interface.sent_bytes,
            tx_errors: interface.send_errors,
        })
        .collect();
    Some(NetworkStats {
        time: at,
        main: interfaces.first()?.clone(),
        interfaces,
    })
}

/// Adds what is known; nothing known is nothing.
fn add(sum: &mut Option<u64>, part: Option<u64>) {
    if let Some(part) = part {
        *sum = Some(sum.unwrap_or_default().saturating_add(part));
    }
}

fn sum_cpu(containers: &[ContainerStats]) -> Option<CpuStats> {
    let mut sum: Option<CpuStats> = None;
    for cpu in containers.iter().filter_map(|one| one.cpu.as_ref()) {
        let sum = sum.get_or_insert_default();
        sum.time = sum.time.max(cpu.time);
        add(&mut sum.usage_nano_cores, cpu.usage_nano_cores);
        add(
            &mut sum.usage_core_nano_seconds,
            cpu.usage_core_nano_seconds,
        );
    }
    sum
}

fn sum_memory(containers: &[ContainerStats]) -> Option<MemoryStats> {
    let mut sum: Option<MemoryStats> = None;
    for memory in containers.iter().filter_map(|one| one.memory.as_ref()) {
        let sum = sum.get_or_insert_default();
        sum.time = sum.time.max(memory.time);
        add(&mut sum.usage_bytes, memory.usage_bytes);
        add(&mut sum.working_set_bytes, memory.working_set_bytes);
        add(&mut sum.rss_bytes, memory.rss_bytes);
        add(&mut sum.page_faults, memory.page_faults);
        add(&mut sum.major_page_faults, memory.major_page_faults);
    }
    sum
}

fn sum_swap(containers: &[ContainerStats]) -> Option<SwapStats> {
    let mut sum: Option<SwapStats> = None;
    for swap in containers.iter().filter_map(|one| one.swap.as_ref()) {
        let sum = sum.get_or_insert_default();
        sum.time = sum.time.max(swap.time);
        add(&mut sum.swap_usage_bytes, swap.swap_usage_bytes);
    }
    sum
}
