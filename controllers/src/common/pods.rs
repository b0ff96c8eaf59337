//! What a pod's fields say about it.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::number_annotation;

/// What it costs to delete a pod, compared with others of its owner.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The pod's phase; `Pending` where nobody has said anything yet.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .filter(|phase| !phase.is_empty())
        .unwrap_or("Pending")
}

/// Whether the pod has ended, well or badly.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether somebody has asked for it to go.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether it counts: it has not ended and is not going.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

/// One of its conditions.
pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == kind)
}

/// Whether it is ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Since when it is ready.
fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// When the pod is or will be available: ready for `min_ready`. `None` while it is not ready.
pub(crate) fn available_at(pod: &Pod, min_ready: i32) -> Option<Timestamp> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready <= 0 {
        return Some(Timestamp::UNIX_EPOCH);
    }
    ready_since(pod)?
        .checked_add(jiff::SignedDuration::from_secs(i64::from(min_ready)))
        .ok()
}

/// Whether it has been ready for `min_ready` seconds.
pub(crate) fn is_available(pod: &Pod, min_ready: i32, now: Timestamp) -> bool {
    available_at(pod, min_ready).is_some_and(|at| at <= now)
}

/// How long until the next of some pods becomes available.
pub(crate) fn next_available<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    min_ready: i32,
    now: Timestamp,
) -> Option<Duration> {
    pods.into_iter()
        .filter_map(|pod| available_at(pod, min_ready))
        .filter(|at| *at > now)
        .min()
        .map(|at| at.duration_since(now).unsigned_abs())
}

/// The node it was given to; empty before.
pub(crate) fn node(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    containers
        .into_iter()
        .flatten()
        .map(|container| container.restart_count)
        .max()
        .unwrap_or(0)
}

fn deletion_cost(pod: &Pod) -> i32 {
    number_annotation(&pod.metadata, DELETION_COST).unwrap_or(0)
}

/// The order in which an owner gives up pods, those that are missed least first. `neighbours` says how many pods of the same kind run on
/// each node.
///
/// Upstream's criteria, in turn: without a node; pending before unknown before running; not ready; cheaper to delete; more neighbours on
/// its node; ready for a shorter time; more restarts; younger. Times are compared by their magnitude only, so that rolling over does not
/// always hit the youngest; the uid breaks ties.
pub(crate) fn deletion_order(
    a: &Pod,
    b: &Pod,
    neighbours: &BTreeMap<String, usize>,
    now: Timestamp,
) -> Ordering {
    let rank = |pod: &Pod| match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let crowd = |pod: &Pod| neighbours.get(node(pod)).copied().unwrap_or(0);
    // Since when, as a power of two of seconds; what has no time yet is the newest.
    let age = |since: Option<Timestamp>| match since {
        None => -1,
        Some(since) => {
            let seconds = now.duration_since(since).as_secs().max(0);
            i64::from(u64::BITS - u64::try_from(seconds).unwrap_or(0).leading_zeros())
        }
    };
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (!node(a).is_empty())
        .cmp(&!node(b).is_empty())
        .then_with(|| rank(a).cmp(&rank(b)))
        .then_with(|| is_ready(a).cmp(&is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| Reverse(crowd(a)).cmp(&Reverse(crowd(b))))
        .then_with(|| {
            if is_ready(a) && is_ready(b) {
                age(ready_since(a)).cmp(&age(ready_since(b)))
            } else {
                Ordering::Equal
            }
        })
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| age(created(a)).cmp(&age(created(b))))
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

/// A pod of a template, to be named by the server.
pub(crate) fn from_template(
    template: &PodTemplateSpec,
    owner_name: &str,
    owner: OwnerReference,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            // The server shortens it where the name would grow too long.
            generate_name: Some(format!("{owner_name}-")),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-01-02T00:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn pod(name: &str, change: serde_json::Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {}},
            "spec": {"containers": [], "nodeName": "n1"},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0}]}
        });
        for (path, value) in change.as_object().unwrap() {
            *pod.pointer_mut(path).unwrap() = value.clone();
        }
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn the_pod_that_is_missed_least_goes_first() {
        // Each is given up before the next.
        let pods = [
            pod(
                "unassigned",
                json!({"/spec/nodeName": "", "/status/phase": "Pending", "/status/conditions": []}),
            ),
            pod(
                "pending",
                json!({"/status/phase": "Pending", "/status/conditions": []}),
            ),
            pod(
                "unknown",
                json!({"/status/phase": "Unknown", "/status/conditions": []}),
            ),
            pod("not-ready", json!({"/status/conditions": []})),
            pod(
                "cheap",
                json!({"/metadata/annotations": {DELETION_COST: "-5"}}),
            ),
            pod("crowded", json!({"/spec/nodeName": "crowd"})),
            pod(
                "just-ready",
                json!({"/status/conditions/0/lastTransitionTime": "2026-01-01T23:59:00Z"}),
            ),
            pod(
                "restarted",
                json!({"/status/containerStatuses/0/restartCount": 3}),
            ),
            pod(
                "young",
                json!({"/metadata/creationTimestamp": "2026-01-01T20:00:00Z"}),
            ),
            pod("a-tie", json!({})),
            pod(
                "b-tie",
                json!({"/metadata/creationTimestamp": "2026-01-01T00:10:00Z"}),
            ),
            pod(
                "dear",
                json!({"/metadata/annotations": {DELETION_COST: "5"}}),
            ),
        ];
        let neighbours = BTreeMap::from([("crowd".to_owned(), 3), ("n1".to_owned(), 1)]);
        for (n, first) in pods.iter().enumerate() {
            for second in &pods[n + 1..] {
                let order = deletion_order(first, second, &neighbours, now());
                assert_eq!(
                    order,
                    Ordering::Less,
                    "{:?} {:?}",
                    first.metadata.name,
                    second.metadata.name
                );
                assert_eq!(
                    deletion_order(second, first, &neighbours, now()),
                    Ordering::Greater
                );
            }
        }
    }

    #[test]
    fn a_pod_is_available_when_it_has_been_ready_long_enough() {
        let pod = pod(
            "p",
            json!({"/status/conditions/0/lastTransitionTime": "2026-01-01T23:59:50Z"}),
        );
        assert!(is_available(&pod, 0, now()));
        assert!(is_available(&pod, 10, now()));
        assert!(!is_available(&pod, 11, now()));
        assert_eq!(
            next_available([&pod], 15, now()),
            Some(Duration::from_secs(5))
        );
        assert_eq!(next_available([&pod], 5, now()), None);
    }
}
