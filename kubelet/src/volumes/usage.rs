//! How much the volumes of a pod take.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::mounter::Mounter;

/// What a volume takes, and what there is where it lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeUsage {
    /// The volume's name in the pod.
    pub name: String,
    /// The qualified name of its kind, such as `kubernetes.io/empty-dir`.
    pub plugin: String,
    /// Whether it is a file system of its own (in memory): then it takes nothing of the node's disk.
    pub mounted: bool,
    /// Bytes taken.
    pub used_bytes: u64,
    /// Inodes taken.
    pub inodes_used: u64,
    /// Bytes of the file system that it lies on.
    pub capacity_bytes: u64,
    /// Bytes of it that are left.
    pub available_bytes: u64,
    /// Inodes of the file system that it lies on.
    pub inodes: u64,
    /// Inodes of it that are left.
    pub inodes_free: u64,
}

/// Measures all volumes that lie in a pod's directory. What goes away meanwhile is not counted.
pub(super) fn measure(pod_dir: &Path, mounter: &dyn Mounter) -> Vec<VolumeUsage> {
    let mounts = std::fs::canonicalize(pod_dir)
        .and_then(|real| mounter.at_or_below(&real))
        .unwrap_or_default();
    let mut out = Vec::new();
    for (plugin, name, dir) in volume_dirs(pod_dir) {
        let mounted = std::fs::canonicalize(&dir).is_ok_and(|real| mounts.contains(&real));
        let mut usage = VolumeUsage {
            name,
            plugin: plugin.replace('~', "/"),
            mounted,
            ..VolumeUsage::default()
        };
        count(&dir, &mut usage);
        if let Ok(of) = rustix::fs::statvfs(&dir) {
            usage.capacity_bytes = of.f_blocks.saturating_mul(of.f_frsize);
            usage.available_bytes = of.f_bavail.saturating_mul(of.f_frsize);
            usage.inodes = of.f_files;
            usage.inodes_free = of.f_favail;
        }
        out.push(usage);
    }
    out
}

/// The volumes that have a directory: kind (as on disk), name and path, in order.
pub(super) fn volume_dirs(pod_dir: &Path) -> Vec<(String, String, std::path::PathBuf)> {
    let list = |dir: &Path| -> Vec<(String, std::path::PathBuf)> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
            .collect();
        found.sort();
        found
    };
    list(&pod_dir.join("volumes"))
        .into_iter()
        .flat_map(|(plugin, dir)| {
            let volumes = list(&dir).into_iter();
            volumes.map(move |(name, dir)| (plugin.clone(), name, dir))
        })
        .collect()
}

fn count(top: &Path, usage: &mut VolumeUsage) {
    let Ok(meta) = std::fs::symlink_metadata(top) else {
        return;
    };
    let device = meta.dev();
    let mut linked = BTreeSet::new();
    let mut add = |meta: &std::fs::Metadata| {
        // A file with several names is there once.
        if meta.is_dir() || meta.nlink() < 2 || linked.insert(meta.ino()) {
            // The kernel counts in blocks of 512 bytes, whatever the file system does.
            usage.used_bytes += meta.blocks() * 512;
            usage.inodes_used += 1;
        }
    };
    add(&meta);
    let mut left = vec![top.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            // What is mounted inside belongs to somebody else.
            if meta.dev() != device {
                continue;
            }
            add(&meta);
            if meta.is_dir() {
                left.push(entry.path());
            }
        }
    }
}
