//! Which pod goes first.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::requests::{Side, of_pod, priority};
use super::threshold::Signal;
use super::usage::{Parts, PodUse};

/// Sorts pods, those to be evicted first in front: those of which nothing is known; then those that use more than they asked for; then
/// by priority; then by how much more than asked for they use.
pub(super) fn rank(
    pods: &mut [Arc<Pod>],
    usage: &BTreeMap<String, PodUse>,
    signal: Signal,
    dedicated_image_fs: bool,
) {
    let weigh = |pod: &Arc<Pod>| weigh(pod, usage, signal, dedicated_image_fs);
    pods.sort_by_cached_key(weigh);
}

/// In the order of eviction.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Weight {
    known: bool,
    within_request: bool,
    priority: i32,
    /// How much more than asked for, the most first.
    excess: Descending,
}

#[derive(Debug, PartialEq, Eq)]
struct Descending(i128);

impl PartialOrd for Descending {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Descending {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.cmp(&self.0)
    }
}

fn weigh(
    pod: &Pod,
    usage: &BTreeMap<String, PodUse>,
    signal: Signal,
    dedicated_image_fs: bool,
) -> Weight {
    let used = usage.get(pod.metadata.uid.as_deref().unwrap_or_default());
    let priority = priority(pod);
    let Some(used) = used else {
        return Weight {
            known: false,
            within_request: false,
            priority,
            excess: Descending(0),
        };
    };
    let request = |resource: &str| {
        of_pod(pod, Side::Requests, resource).map_or(0, |request| i128::from(request.value()))
    };
    let parts = parts(signal, dedicated_image_fs);
    let excess = match signal {
        Signal::Memory => i128::from(used.memory()) - request("memory"),
        Signal::Pid => {
            // Nobody asks for processes.
            let excess = Descending(i128::from(used.processes));
            return Weight {
                known: true,
                within_request: false,
                priority,
                excess,
            };
        }
        Signal::NodeFs | Signal::ImageFs | Signal::ContainerFs => {
            i128::from(used.disk(parts).bytes) - request("ephemeral-storage")
        }
        Signal::NodeFsInodes | Signal::ImageFsInodes | Signal::ContainerFsInodes => {
            i128::from(used.disk(parts).inodes)
        }
    };
    Weight {
        known: true,
        within_request: excess <= 0,
        priority,
        excess: Descending(excess),
    }
}

/// What of a pod's disk usage eases a signal.
pub(super) fn parts(signal: Signal, dedicated_image_fs: bool) -> Parts {
    let on_image_fs = matches!(
        signal,
        Signal::ImageFs | Signal::ImageFsInodes | Signal::ContainerFs | Signal::ContainerFsInodes
    );
    Parts {
        written: !dedicated_image_fs || on_image_fs,
        logs_and_volumes: !dedicated_image_fs || !on_image_fs,
    }
}
