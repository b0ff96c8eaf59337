//! Rolling updates: old pods go as fast as the nodes without one allow.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::history::is_of;
use crate::common::pods;
use crate::deployment::scaled;

/// What the update strategy says, worked out for a number of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// How many nodes may be without an available pod.
    pub(super) unavailable: usize,
    /// How many nodes may have a second one meanwhile.
    pub(super) surge: usize,
}

/// The strategy's limits, if it is one that rolls.
pub(super) fn limits(set: &DaemonSet, desired: usize) -> Option<Limits> {
    let strategy = set.spec.as_ref()?.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return None;
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let count = |value: Option<&IntOrString>, otherwise: i32| {
        let otherwise = IntOrString::Int(otherwise);
        let of = i32::try_from(desired).unwrap_or(i32::MAX);
        usize::try_from(scaled(value.unwrap_or(&otherwise), of, true)).unwrap_or(0)
    };
    let surge = count(rolling.and_then(|rolling| rolling.max_surge.as_ref()), 0);
    let unavailable = count(
        rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
        1,
    );
    Some(Limits {
        // Something must give.
        unavailable: if surge == 0 {
            unavailable.max(1)
        } else {
            unavailable
        },
        surge,
    })
}

/// What an update does next.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Nodes that get a new pod beside their old one.
    pub(super) create: Vec<String>,
    /// Old pods that go.
    pub(super) delete: Vec<Arc<Pod>>,
}

/// The next step of an update, by the pods of each node that one belongs on.
pub(super) fn step(
    nodes: &BTreeMap<&str, Vec<Arc<Pod>>>,
    hash: &str,
    limits: Limits,
    min_ready: i32,
    now: Timestamp,
) -> Step {
    let available = |pod: &Pod| pods::is_available(pod, min_ready, now);
    let mut step = Step::default();
    let mut candidates: Vec<(&str, Arc<Pod>)> = Vec::new();
    let (mut unavailable, mut surging) = (0, 0);
    for (node, all) in nodes {
        let active = || all.iter().filter(|pod| pods::is_active(pod));
        let new = active().find(|pod| is_of(pod, hash));
        let old = active().find(|pod| !is_of(pod, hash));
        match (new, old) {
            // Something else is on its way there.
            (None, None) => unavailable += 1,
            (Some(new), None) => unavailable += usize::from(!available(new)),
            (Some(new), Some(old)) => {
                if available(new) || !available(old) {
                    // The new one does the work, or nobody did before.
                    step.delete.push(old.clone());
                }
                unavailable += usize::from(!available(new) && !available(old));
                surging += usize::from(!available(new));
            }
            (None, Some(old)) if available(old) => candidates.push((node, old.clone())),
            (None, Some(old)) => {
                // It is of no use as it is.
                unavailable += 1;
                if limits.surge > 0 {
                    step.create.push((*node).to_owned());
                } else {
                    step.delete.push(old.clone());
                }
            }
        }
    }
    if limits.surge > 0 {
        let room = limits.surge.saturating_sub(surging);
        let next = candidates.into_iter().take(room);
        step.create.extend(next.map(|(node, _)| node.to_owned()));
    } else {
        let room = limits.unavailable.saturating_sub(unavailable);
        let next = candidates.into_iter().take(room);
        step.delete.extend(next.map(|(_, old)| old));
    }
    step
}
