//! What the machine has left.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::runtime::Runtime;

use super::threshold::{Observation, Observations, Signal};
use crate::blocking::blocking;
use crate::node::MemInfo;

/// What was seen of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What is left, by signal. What could not be seen is left out.
    pub signals: Observations,
    /// Whether images are on a file system of their own.
    pub dedicated_image_fs: bool,
}

/// Looks at the machine.
#[async_trait]
pub trait Machine: Send + Sync + 'static {
    /// What is left now.
    async fn look(&self) -> Seen;
}

/// Looks at the machine that this process runs on.
pub struct ThisMachine {
    runtime: Arc<dyn Runtime>,
    root_dir: PathBuf,
}

impl std::fmt::Debug for ThisMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThisMachine")
            .field("root_dir", &self.root_dir)
            .finish_non_exhaustive()
    }
}

impl ThisMachine {
    /// A look at the machine where volumes are in `root_dir`, and images where the runtime says.
    pub fn new(runtime: Arc<dyn Runtime>, root_dir: impl Into<PathBuf>) -> Self {
        Self {
            runtime,
            root_dir: root_dir.into(),
        }
    }
}

#[async_trait]
impl Machine for ThisMachine {
    async fn look(&self) -> Seen {
        let images = self.runtime.image_filesystems().await.unwrap_or_default();
        let place = |all: &[orlop_core::runtime::FilesystemUsage]| {
            all.first().map(|one| one.mountpoint.clone())
        };
        let (image_fs, container_fs) = (place(&images.images), place(&images.containers));
        let root_dir = self.root_dir.clone();
        blocking(move || {
            let mut seen = Seen::default();
            let mut see = |signal, found: Option<Observation>| {
                if let Some(found) = found {
                    seen.signals.insert(signal, found);
                }
            };
            see(Signal::Memory, memory());
            see(Signal::Pid, pids());
            let image_fs = image_fs.unwrap_or_else(|| root_dir.clone());
            let container_fs = container_fs.unwrap_or_else(|| image_fs.clone());
            for (path, bytes, inodes) in [
                (&root_dir, Signal::NodeFs, Signal::NodeFsInodes),
                (&image_fs, Signal::ImageFs, Signal::ImageFsInodes),
                (
                    &container_fs,
                    Signal::ContainerFs,
                    Signal::ContainerFsInodes,
                ),
            ] {
                let (space, nodes) = filesystem(path);
                see(bytes, space);
                see(inodes, nodes);
            }
            let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
            seen.dedicated_image_fs = device(&root_dir) != device(&image_fs);
            seen
        })
        .await
    }
}

fn filesystem(path: &Path) -> (Option<Observation>, Option<Observation>) {
    let Ok(found) = rustix::fs::statvfs(path) else {
        return (None, None);
    };
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let bytes = Observation {
        available: number(found.f_bavail.saturating_mul(found.f_frsize)),
        capacity: number(found.f_blocks.saturating_mul(found.f_frsize)),
    };
    let inodes = Observation {
        available: number(found.f_ffree),
        capacity: number(found.f_files),
    };
    // Some file systems have no inodes to count.
    (
        Some(bytes),
        Some(inodes).filter(|inodes| inodes.capacity > 0),
    )
}

fn memory() -> Option<Observation> {
    let text = |path: &str| std::fs::read_to_string(path).ok();
    let meminfo = MemInfo::parse(&text("/proc/meminfo")?);
    let (usage, stat) = match text("/sys/fs/cgroup/memory/memory.usage_in_bytes") {
        Some(usage) => (
            usage.trim().parse().ok(),
            text("/sys/fs/cgroup/memory/memory.stat"),
        ),
        // The root of version 2 does not count; the kernel does.
        None => (None, text("/sys/fs/cgroup/memory.stat")),
    };
    Some(available_memory(&meminfo, usage, stat.as_deref()))
}

/// What is left is what is neither used nor can be taken back at once, which is the files that nobody has read lately.
fn available_memory(meminfo: &MemInfo, usage: Option<u64>, stat: Option<&str>) -> Observation {
    let usage = usage.unwrap_or_else(|| meminfo.total.saturating_sub(meminfo.free));
    let stat = stat.unwrap_or_default();
    let field = |wanted: &str| {
        stat.lines().find_map(|line| {
            let (name, value) = line.split_once(' ')?;
            (name == wanted)
                .then(|| value.trim().parse().ok())
                .flatten()
        })
    };
    let inactive = field("total_inactive_file").or_else(|| field("inactive_file"));
    let working_set = usage.saturating_sub(inactive.unwrap_or(meminfo.inactive_file));
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Observation {
        available: number(meminfo.total.saturating_sub(working_set)),
        capacity: number(meminfo.total),
    }
}

fn pids() -> Option<Observation> {
    let text = |path: &str| std::fs::read_to_string(path).ok();
    let number = |path: &str| text(path).and_then(|text| text.trim().parse::<i64>().ok());
    let most = number("/proc/sys/kernel/pid_max")?;
    let threads = number("/proc/sys/kernel/threads-max").unwrap_or(most);
    let capacity = most.min(threads);
    let running = tasks(&text("/proc/loadavg")?)?;
    Some(Observation {
        available: capacity.saturating_sub(running),
        capacity,
    })
}

/// How many tasks there are by `/proc/loadavg`.
fn tasks(loadavg: &str) -> Option<i64> {
    let field = loadavg.split_whitespace().nth(3)?;
    field.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use orlop_core::env::Env;
    use orlop_core::testing::SimulatedRuntime;

    use super::*;

    #[test]
    fn memory_is_what_cannot_be_taken_back() {
        let meminfo = MemInfo {
            total: 1000,
            free: 400,
            swap: 0,
            inactive_file: 50,
        };
        let cases = [
            (None, None, 450),
            (None, Some("anon 1\ninactive_file 100\n"), 500),
            (
                Some(700),
                Some("inactive_file 1\ntotal_inactive_file 200\n"),
                500,
            ),
            (Some(10), Some("total_inactive_file 200\n"), 1000),
        ];
        for (usage, stat, available) in cases {
            let want = Observation {
                available,
                capacity: 1000,
            };
            assert_eq!(available_memory(&meminfo, usage, stat), want);
        }
    }

    #[test]
    fn tasks_are_counted() {
        assert_eq!(tasks("0.20 0.18 0.12 1/80 11206\n"), Some(80));
        assert_eq!(tasks("odd"), None);
    }

    #[tokio::test]
    async fn this_machine_has_something_left() {
        let runtime = SimulatedRuntime::new(Env::tokio());
        let seen = ThisMachine::new(Arc::new(runtime), "/").look().await;
        for signal in [Signal::Memory, Signal::NodeFs, Signal::ImageFs, Signal::Pid] {
            let one = seen.signals[&signal];
            assert!(
                0 < one.available && one.available <= one.capacity,
                "{signal:?} {one:?}"
            );
        }
        assert!(!seen.dedicated_image_fs);
    }
}
