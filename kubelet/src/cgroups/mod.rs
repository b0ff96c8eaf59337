//! Cgroups of pods: where the kernel counts and limits what a pod takes.
//!
//! Below `kubepods` stand the pods that are guaranteed what they ask for, and one cgroup each for the burstable and the best-effort ones,
//! as upstream has them (`pkg/kubelet/cm`), so that every tool that reads a node's cgroups finds its way. Hierarchies of version 1, the
//! unified one of version 2 and both beside each other are known, and two drivers: directories made here, and slices that systemd
//! makes.

mod files;
mod hierarchy;
mod limits;
mod manager;
mod name;
mod pod_resources;
mod processes;
mod qos;
mod systemd;
#[cfg(test)]
mod tests;
mod usage;

use std::io;
use std::path::PathBuf;

pub use self::hierarchy::{Hierarchies, Hierarchy};
pub use self::limits::{Limits, NodeLimits, cpu_quota, cpu_shares, cpu_weight, page_size_name};
pub(crate) use self::limits::{memory_of_machine, page_sizes};
pub use self::manager::CgroupManager;
pub use self::pod_resources::{Amounts, container_limits, container_requests, limits, requests};
pub use self::qos::QosClass;
pub use self::usage::{CgroupUsage, usage};

/// Why a cgroup could not be made, limited, emptied or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// A file or directory of a hierarchy.
    #[error("{what} {path:?}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No hierarchy is mounted.
    #[error("no cgroup hierarchy is mounted")]
    NoHierarchy,
    /// The systemd driver was asked for on a machine that systemd does not run.
    #[error(
        "the systemd cgroup driver is configured, but systemd does not run this machine (no {0:?}): configure the cgroupfs driver for the node and its runtime"
    )]
    NoSystemd(PathBuf),
    /// `systemctl` refused.
    #[error("systemctl {command}: {message}")]
    Systemd {
        /// What it was told.
        command: String,
        /// What it said.
        message: String,
    },
    /// A uid that is no name of a directory.
    #[error("{0:?} is not the uid of a pod")]
    BadUid(String),
    /// Processes that do not die.
    #[error("{processes} processes of cgroup {cgroup} are still there")]
    StillThere {
        /// The cgroup.
        cgroup: String,
        /// How many.
        processes: usize,
    },
}

impl CgroupError {
    fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
