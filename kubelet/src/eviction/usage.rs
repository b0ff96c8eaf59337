//! What pods use.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, Volume};
use orlop_core::runtime::ContainerStats;

use crate::blocking::blocking;
use crate::config::KubeletConfig;
use crate::labels;

/// How much of a file system something takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

impl std::ops::AddAssign for Disk {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.inodes = self.inodes.saturating_add(other.inodes);
    }
}

/// What a pod has on the node's disk, beside what its containers write into their own file systems.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodDisk {
    /// Its emptyDirs, by the volume's name.
    pub empty_dirs: BTreeMap<String, Disk>,
    /// Its containers' logs, by the container's name.
    pub logs: BTreeMap<String, Disk>,
}

/// Measures what pods have on the node's disk.
#[async_trait]
pub trait DiskUsage: Send + Sync + 'static {
    /// What one pod has.
    async fn of(&self, pod: &Arc<Pod>) -> PodDisk;
}

/// Measures the directories of pods where the node agent has them.
#[derive(Clone, Debug)]
pub struct PodDirectories(pub Arc<KubeletConfig>);

#[async_trait]
impl DiskUsage for PodDirectories {
    async fn of(&self, pod: &Arc<Pod>) -> PodDisk {
        let meta = &pod.metadata;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let (namespace, name, uid) = (text(&meta.namespace), text(&meta.name), text(&meta.uid));
        let volumes = self.0.pod_dir(&uid).join("volumes/kubernetes.io~empty-dir");
        let logs = self.0.pod_log_dir(&namespace, &name, &uid);
        let empty_dirs: Vec<String> = empty_dirs(pod).map(|volume| volume.name.clone()).collect();
        blocking(move || {
            let mut found = PodDisk::default();
            for name in empty_dirs {
                let used = measure(&volumes.join(&name));
                found.empty_dirs.insert(name, used);
            }
            for entry in std::fs::read_dir(&logs).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                found.logs.insert(name, measure(&entry.path()));
            }
            found
        })
        .await
    }
}

pub(super) fn empty_dirs(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
    volumes
        .unwrap_or_default()
        .iter()
        .filter(|volume| volume.empty_dir.is_some())
}

/// What is in a directory, as `du` counts: blocks, hard links once, and nothing of other file systems.
fn measure(root: &Path) -> Disk {
    let mut used = Disk::default();
    let Ok(meta) = std::fs::symlink_metadata(root) else {
        return used;
    };
    let device = meta.dev();
    let mut linked = BTreeSet::new();
    let mut todo: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        // What is gone meanwhile takes nothing.
        let Ok(meta) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        if meta.dev() != device
            || (meta.nlink() > 1 && !meta.is_dir() && !linked.insert(meta.ino()))
        {
            continue;
        }
        used += Disk {
            bytes: meta.blocks().saturating_mul(512),
            inodes: 1,
        };
        if meta.is_dir() {
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            todo.extend(entries.map(|entry| entry.path()));
        }
    }
    used
}

/// What a container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ContainerUse {
    pub(super) memory: Option<u64>,
    pub(super) written: Option<Disk>,
    pub(super) logs: Disk,
}

/// What a pod uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PodUse {
    pub(super) containers: BTreeMap<String, ContainerUse>,
    pub(super) empty_dirs: BTreeMap<String, Disk>,
    /// The emptyDirs that are in memory, and take no disk.
    pub(super) in_memory: BTreeSet<String>,
    pub(super) processes: u64,
}

/// Which parts of a pod's disk usage count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) written: bool,
    pub(super) logs_and_volumes: bool,
}

impl PodUse {
    pub(super) fn new(pod: &Pod, disk: PodDisk) -> Self {
        let container = |(name, logs)| {
            (
                name,
                ContainerUse {
                    logs,
                    ..ContainerUse::default()
                },
            )
        };
        let in_memory = empty_dirs(pod).filter(|volume| {
            let medium = volume
                .empty_dir
                .as_ref()
                .and_then(|dir| dir.medium.as_deref());
            medium.is_some_and(|medium| !medium.is_empty())
        });
        Self {
            in_memory: in_memory.map(|volume| volume.name.clone()).collect(),
            containers: disk.logs.into_iter().map(container).collect(),
            empty_dirs: disk.empty_dirs,
            processes: 0,
        }
    }

    pub(super) fn add(&mut self, stats: &ContainerStats) {
        let one = self
            .containers
            .entry(stats.metadata.name.clone())
            .or_default();
        one.memory = stats.memory.as_ref().map(|memory| memory.working_set);
        one.written = stats.writable_layer.as_ref().map(|layer| Disk {
            bytes: layer.used_bytes,
            inodes: layer.inodes_used.unwrap_or(0),
        });
    }

    pub(super) fn memory(&self) -> u64 {
        self.containers.values().filter_map(|one| one.memory).sum()
    }

    pub(super) fn disk(&self, parts: Parts) -> Disk {
        let mut sum = Disk::default();
        for one in self.containers.values() {
            if parts.written {
                sum += one.written.unwrap_or_default();
            }
            if parts.logs_and_volumes {
                sum += one.logs;
            }
        }
        if parts.logs_and_volumes {
            let on_disk = self
                .empty_dirs
                .iter()
                .filter(|(name, _)| !self.in_memory.contains(*name));
            on_disk.for_each(|(_, used)| sum += *used);
        }
        sum
    }
}

/// The uid of the pod that a container is of.
pub(super) fn pod_of(stats: &ContainerStats) -> Option<&str> {
    stats.labels.get(labels::POD_UID).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn directories_are_measured() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = KubeletConfig::new("n1");
        config.root_dir = dir.path().join("kubelet");
        config.pod_logs_dir = dir.path().join("logs");
        let scratch = config
            .root_dir
            .join("pods/u1/volumes/kubernetes.io~empty-dir/scratch");
        std::fs::create_dir_all(scratch.join("deep")).unwrap();
        std::fs::write(scratch.join("deep/file"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(scratch.join("deep/file"), scratch.join("again")).unwrap();
        std::os::unix::fs::symlink("/", scratch.join("out")).unwrap();
        let logs = config.pod_logs_dir.join("default_p_u1/c");
        std::fs::create_dir_all(&logs).unwrap();
        std::fs::write(logs.join("0.log"), vec![b'x'; 5000]).unwrap();
        let pod = json!({"metadata": {"name": "p", "namespace": "default", "uid": "u1"},
            "spec": {"containers": [], "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "gone", "emptyDir": {}},
                {"name": "other", "hostPath": {"path": "/"}}]}});
        let pod = Arc::new(serde_json::from_value(pod).unwrap());
        let disk = PodDirectories(Arc::new(config)).of(&pod).await;
        let scratch = disk.empty_dirs["scratch"];
        assert_eq!(scratch.inodes, 4);
        assert!((100_000..200_000).contains(&scratch.bytes), "{scratch:?}");
        assert_eq!(disk.empty_dirs["gone"], Disk::default());
        assert_eq!(disk.empty_dirs.len(), 2);
        assert_eq!(disk.logs["c"].inodes, 2);
    }
}
