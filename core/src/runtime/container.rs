//! Containers.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;
use jiff::Timestamp;

use super::{ContainerSecurity, ImageId, ImageSpec, Labels, SandboxId, Signal, labels_match};

/// The id of a container, chosen by the runtime.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

impl ContainerId {
    /// An id.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which container of the pod it is. No two containers of a sandbox have the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerMetadata {
    /// The name that the pod gives it.
    pub name: String,
    /// How many of that name there were before.
    pub attempt: u32,
}

/// A variable of the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value, which need not be text.
    pub value: Bytes,
}

/// A range of ids inside that stands for one outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMapping {
    /// The first id on the host.
    pub host: u32,
    /// The first id inside.
    pub container: u32,
    /// How many.
    pub length: u32,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A path of the host.
    Host(PathBuf),
    /// The files of an image.
    Image {
        /// The image, which must have been pulled.
        image: ImageSpec,
        /// A path inside it; empty for all of it.
        sub_path: String,
    },
}

/// Which way mounts made later are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountPropagation {
    /// Neither way.
    #[default]
    Private,
    /// Those of the host are seen inside.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is seen inside.
    pub container_path: PathBuf,
    /// What is seen there.
    pub source: MountSource,
    /// Whether it can only be read.
    pub read_only: bool,
    /// Whether that holds for the mounts below it, too.
    pub recursive_read_only: bool,
    /// Whether files are given the container's SELinux label.
    pub selinux_relabel: bool,
    /// Which way mounts made later are seen.
    pub propagation: MountPropagation,
    /// How user ids are mapped.
    pub uids: Vec<IdMapping>,
    /// How group ids are mapped.
    pub gids: Vec<IdMapping>,
    /// Options of the mount beside these.
    pub options: Vec<String>,
}

impl Mount {
    /// A path of the host, seen inside, to be read and written.
    pub fn host(host: impl Into<PathBuf>, container: impl Into<PathBuf>) -> Self {
        Self {
            container_path: container.into(),
            source: MountSource::Host(host.into()),
            read_only: false,
            recursive_read_only: false,
            selinux_relabel: false,
            propagation: MountPropagation::Private,
            uids: Vec::new(),
            gids: Vec::new(),
            options: Vec::new(),
        }
    }

    /// The same, only to be read.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Where it is inside.
    pub container_path: PathBuf,
    /// Where it is on the host.
    pub host_path: PathBuf,
    /// What may be done with it: some of `r`, `w` and `m` (make nodes).
    pub permissions: String,
}

/// What may be taken: limits of Linux' cgroups. `None` and empty mean that nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// The period of CPU accounting, in microseconds.
    pub cpu_period: Option<u64>,
    /// How many microseconds of CPU may be used in a period; -1 for no limit.
    pub cpu_quota: Option<i64>,
    /// The weight against others, where 1024 is one CPU's.
    pub cpu_shares: Option<u64>,
    /// Memory, in bytes.
    pub memory_limit: Option<u64>,
    /// Memory and swap together, in bytes; -1 for no limit.
    pub memory_swap_limit: Option<i64>,
    /// How early it is killed when memory runs out, from -1000 (never) to 1000.
    pub oom_score_adj: Option<i16>,
    /// The CPUs that it may use, such as `0-2,7`.
    pub cpuset_cpus: String,
    /// The memory nodes that it may use.
    pub cpuset_mems: String,
    /// Bytes of huge pages, by page size (such as `2MB`).
    pub hugepages: BTreeMap<String, u64>,
    /// Files of cgroup v2 to be written as they are.
    pub unified: BTreeMap<String, String>,
}

impl Resources {
    /// These resources, with what others say about them put over them: how an update takes effect.
    #[must_use]
    pub fn updated(&self, by: &Self) -> Self {
        fn text(own: &str, by: &str) -> String {
            if by.is_empty() { own } else { by }.to_owned()
        }
        fn both<V: Clone>(
            own: &BTreeMap<String, V>,
            by: &BTreeMap<String, V>,
        ) -> BTreeMap<String, V> {
            let pairs = own.iter().chain(by);
            pairs.map(|(k, v)| (k.clone(), v.clone())).collect()
        }
        Self {
            cpu_period: by.cpu_period.or(self.cpu_period),
            cpu_quota: by.cpu_quota.or(self.cpu_quota),
            cpu_shares: by.cpu_shares.or(self.cpu_shares),
            memory_limit: by.memory_limit.or(self.memory_limit),
            memory_swap_limit: by.memory_swap_limit.or(self.memory_swap_limit),
            oom_score_adj: by.oom_score_adj.or(self.oom_score_adj),
            cpuset_cpus: text(&self.cpuset_cpus, &by.cpuset_cpus),
            cpuset_mems: text(&self.cpuset_mems, &by.cpuset_mems),
            hugepages: both(&self.hugepages, &by.hugepages),
            unified: both(&self.unified, &by.unified),
        }
    }
}

/// A container to be made.
#[derive(Clone, Debug, Default)]
pub struct ContainerConfig {
    /// Which container of the pod it is.
    pub metadata: ContainerMetadata,
    /// What it is made of.
    pub image: ImageSpec,
    /// The program and its first arguments, instead of the image's entry point; empty for that.
    pub command: Vec<String>,
    /// Further arguments, instead of the image's own.
    pub args: Vec<String>,
    /// Where it runs; the image's choice if empty.
    pub working_dir: String,
    /// Variables, beside the image's own.
    pub env: Vec<EnvVar>,
    /// Mounts, in the order in which they are made.
    pub mounts: Vec<Mount>,
    /// Devices.
    pub devices: Vec<Device>,
    /// Devices by their names of the Container Device Interface.
    pub cdi_devices: Vec<String>,
    /// Labels to find it by.
    pub labels: Labels,
    /// What else the runtime is to keep; given back unchanged.
    pub annotations: Labels,
    /// Its log, under the sandbox's [log directory](super::SandboxConfig::log_directory); none is kept without.
    pub log_path: Option<PathBuf>,
    /// Whether its standard input is kept open for who attaches.
    pub stdin: bool,
    /// Whether the standard input ends with the first one who attached.
    pub stdin_once: bool,
    /// Whether it has a terminal.
    pub tty: bool,
    /// What it may take.
    pub resources: Resources,
    /// How it is confined.
    pub security: ContainerSecurity,
    /// The signal that asks it to stop; the image's, or else SIGTERM, without.
    pub stop_signal: Option<Signal>,
}

impl ContainerConfig {
    /// A container of an image, with nothing special.
    pub fn new(name: impl Into<String>, image: ImageSpec) -> Self {
        Self {
            metadata: ContainerMetadata {
                name: name.into(),
                attempt: 0,
            },
            image,
            ..Self::default()
        }
    }
}

/// How far a container has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContainerState {
    /// It was made.
    Created,
    /// It runs.
    Running,
    /// It ran, or was to.
    Exited,
    /// The runtime cannot tell.
    Unknown,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; 128 and the signal's number for one that was killed.
    pub code: i32,
    /// Why, in a word: `Completed`, `Error`, `OOMKilled`, `StartError`, ….
    pub reason: String,
    /// More about it.
    pub message: String,
}

/// Whom a container runs as, numerically.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: i64,
    /// The main group.
    pub gid: i64,
    /// The other groups.
    pub supplemental_groups: Vec<i64>,
}

/// A container that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// The sandbox that it is in.
    pub sandbox: SandboxId,
    /// Which container of the pod it is.
    pub metadata: ContainerMetadata,
    /// How far it has come.
    pub state: ContainerState,
    /// When it was made.
    pub created: Timestamp,
    /// When it began to run.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// How it ended.
    pub exit: Option<Exit>,
    /// What was asked for.
    pub image: ImageSpec,
    /// The image by name and digest, where the runtime knows it.
    pub image_ref: String,
    /// The image's id.
    pub image_id: ImageId,
    /// As they were given.
    pub labels: Labels,
    /// As they were given.
    pub annotations: Labels,
    /// As they were given.
    pub mounts: Vec<Mount>,
    /// The whole path of its log.
    pub log_path: Option<PathBuf>,
    /// What it may take now, where the runtime tells.
    pub resources: Option<Resources>,
    /// Whom it runs as, where the runtime tells.
    pub user: Option<User>,
    /// The signal that asks it to stop.
    pub stop_signal: Signal,
}

/// Which containers are meant. Whatever is left out is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    /// The one with this id.
    pub id: Option<ContainerId>,
    /// Those of this sandbox.
    pub sandbox: Option<SandboxId>,
    /// Those in this state.
    pub state: Option<ContainerState>,
    /// Those with all these labels.
    pub labels: Labels,
}

impl ContainerFilter {
    /// The containers of a sandbox.
    #[must_use]
    pub fn of(sandbox: &SandboxId) -> Self {
        Self {
            sandbox: Some(sandbox.clone()),
            ..Self::default()
        }
    }

    /// Whether a container is meant.
    #[must_use]
    pub fn matches(&self, container: &Container) -> bool {
        self.id.as_ref().is_none_or(|id| *id == container.id)
            && self
                .sandbox
                .as_ref()
                .is_none_or(|id| *id == container.sandbox)
            && self.state.is_none_or(|state| state == container.state)
            && labels_match(&self.labels, &container.labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_leaves_what_it_does_not_name() {
        let own = Resources {
            cpu_shares: Some(512),
            memory_limit: Some(1 << 20),
            cpuset_cpus: "0-1".to_owned(),
            unified: [("memory.high".to_owned(), "1".to_owned())].into(),
            ..Resources::default()
        };
        let by = Resources {
            cpu_shares: Some(1024),
            unified: [("memory.min".to_owned(), "2".to_owned())].into(),
            ..Resources::default()
        };
        let updated = own.updated(&by);
        assert_eq!(updated.cpu_shares, Some(1024));
        assert_eq!(updated.memory_limit, Some(1 << 20));
        assert_eq!(updated.cpuset_cpus, "0-1");
        assert_eq!(updated.unified.len(), 2);
        assert_eq!(own.updated(&Resources::default()), own);
    }
}
