//! Where the kernel shows its hierarchies of cgroups.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{CgroupError, files};

/// The controllers that a node agent wants.
const WANTED: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "hugetlb"];

/// A hierarchy of cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub path: PathBuf,
    /// Its controllers by name. Empty for one that only groups processes.
    pub controllers: BTreeSet<String>,
    /// Whether it is of version 2.
    pub unified: bool,
}

/// All hierarchies of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchies {
    all: Vec<Hierarchy>,
    v2: bool,
}

impl Hierarchies {
    /// Those of this machine, by `/proc/self/mountinfo`.
    ///
    /// # Errors
    /// When it cannot be read, or no hierarchy is mounted.
    pub fn of_machine() -> Result<Self, CgroupError> {
        let path = "/proc/self/mountinfo";
        let text = fs::read_to_string(path).map_err(CgroupError::io("read", path))?;
        Self::parse(&text).ok_or(CgroupError::NoHierarchy)
    }

    /// Those that a `mountinfo` names (proc(5)); `None` if there is none.
    #[must_use]
    pub fn parse(mountinfo: &str) -> Option<Self> {
        let mut all: Vec<Hierarchy> = Vec::new();
        for line in mountinfo.lines() {
            let Some((mount, kind)) = line.split_once(" - ") else {
                continue;
            };
            let mut kind = kind.split(' ');
            let unified = match kind.next() {
                Some("cgroup") => false,
                Some("cgroup2") => true,
                _ => continue,
            };
            let Some(path) = mount.split(' ').nth(4).map(unescape) else {
                continue;
            };
            let options = kind.nth(1).unwrap_or_default();
            let plain = |word: &&str| {
                !word.contains('=')
                    && !matches!(*word, "rw" | "ro" | "xattr" | "noprefix" | "clone_children")
            };
            let mut controllers: BTreeSet<String> = BTreeSet::new();
            if unified {
                controllers.extend(listed(&path.join("cgroup.controllers")));
            } else {
                controllers.extend(options.split(',').filter(plain).map(str::to_owned));
            }
            // The same hierarchy can be mounted twice.
            let again = |have: &&Hierarchy| {
                have.unified == unified && (unified || have.controllers == controllers)
            };
            if all.iter().find(again).is_none() {
                all.push(Hierarchy {
                    path,
                    controllers,
                    unified,
                });
            }
        }
        // With any controller in version 1, version 2 is there for grouping alone.
        let v2 = !all
            .iter()
            .any(|one| !one.unified && !one.controllers.is_empty());
        if v2 {
            all.retain(|one| one.unified);
        }
        (!all.is_empty()).then_some(Self { all, v2 })
    }

    /// The unified hierarchy alone, mounted at a path.
    #[must_use]
    pub fn unified(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let controllers = listed(&path.join("cgroup.controllers"))
            .into_iter()
            .collect();
        let unified = true;
        Self {
            all: vec![Hierarchy {
                path,
                controllers,
                unified,
            }],
            v2: true,
        }
    }

    /// Whether limits are those of version 2.
    #[must_use]
    pub fn is_v2(&self) -> bool {
        self.v2
    }

    /// Every one of them.
    #[must_use]
    pub fn all(&self) -> &[Hierarchy] {
        &self.all
    }

    /// The directory of a cgroup in the hierarchy of a controller.
    #[must_use]
    pub fn directory(&self, controller: &str, cgroup: &str) -> Option<PathBuf> {
        let has = |one: &&Hierarchy| one.controllers.contains(controller) || self.v2;
        let found = self.all.iter().find(has)?;
        Some(below(&found.path, cgroup))
    }

    /// The directories of a cgroup in all hierarchies, there or not.
    pub(super) fn directories(&self, cgroup: &str) -> Vec<PathBuf> {
        self.all
            .iter()
            .map(|one| below(&one.path, cgroup))
            .collect()
    }

    /// Those of the wanted controllers that this machine does not offer.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let offered = |name: &&str| self.all.iter().any(|one| one.controllers.contains(*name));
        WANTED.into_iter().filter(|name| !offered(name)).collect()
    }

    /// Whether the kernel counts swap.
    #[must_use]
    pub fn counts_swap(&self) -> bool {
        if !self.v2 {
            let root = self.directory("memory", "");
            return root.is_some_and(|root| root.join("memory.memsw.limit_in_bytes").exists());
        }
        // The root has no such file, but every cgroup below it.
        let entries = fs::read_dir(&self.all[0].path);
        let mut entries = entries.into_iter().flatten().flatten();
        entries.any(|entry| entry.path().join("memory.swap.max").exists())
    }

    /// Makes a cgroup and those above it.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub(super) fn make(&self, cgroup: &str) -> Result<(), CgroupError> {
        for hierarchy in &self.all {
            let mut directory = hierarchy.path.clone();
            for part in cgroup.split('/').filter(|part| !part.is_empty()) {
                if hierarchy.unified {
                    delegate(&directory);
                }
                let child = directory.join(part);
                match fs::create_dir(&child) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(CgroupError::io("make", child)(error)),
                }
                if hierarchy.controllers.contains("cpuset") && !hierarchy.unified {
                    inherit_cpuset(&directory, &child)?;
                }
                directory = child;
            }
        }
        Ok(())
    }
}

/// The directory of a cgroup below a mount.
pub(super) fn below(mount: &Path, cgroup: &str) -> PathBuf {
    let mut path = mount.to_owned();
    path.extend(cgroup.split('/').filter(|part| !part.is_empty()));
    path
}

/// The words of a control file.
fn listed(path: &Path) -> Vec<String> {
    let text = files::read(path).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Lets the children of a cgroup of version 2 have the wanted controllers. One that cannot be given is left out: the kernel says why
/// in words that depend on the machine (another process in the cgroup, a controller that is in use in version 1), and limits that
/// need it are skipped.
fn delegate(directory: &Path) {
    let have = listed(&directory.join("cgroup.controllers"));
    let given = listed(&directory.join("cgroup.subtree_control"));
    for name in WANTED {
        let is = |list: &[String]| list.iter().any(|word| word == name);
        if is(&have) && !is(&given) {
            let file = directory.join("cgroup.subtree_control");
            if let Err(error) = files::write(&file, &format!("+{name}")) {
                tracing::debug!(controller = name, %error, "a controller cannot be delegated");
            }
        }
    }
}

/// In version 1 a new cgroup may use no CPU and no memory node until it is told which.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<(), CgroupError> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let own = child.join(name);
        if files::read(&own).is_some_and(|value| value.is_empty())
            && let Some(value) = files::read(&parent.join(name)).filter(|value| !value.is_empty())
        {
            files::write(&own, &value)?;
        }
    }
    Ok(())
}

/// A path of `mountinfo`, where spaces and the like stand as `\040`.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = (bytes[at] == b'\\')
            .then(|| text.get(at + 1..at + 4))
            .flatten();
        if let Some(byte) = octal.and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            out.push(byte);
            at += 4;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}
