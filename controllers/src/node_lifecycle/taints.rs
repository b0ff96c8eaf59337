//! The taints that say what is wrong with a node.

use k8s_openapi::api::core::v1::{Node, Taint};
use orlop_core::client::Patch;
use orlop_core::controller::{Context, ReconcileError};
use orlop_core::object::Object;
use serde_json::json;

use super::{condition, same_taint};
use crate::common;
use crate::common::resources::NODES;

/// The taint of a node that says it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The taint of a node of which nothing is heard.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Conditions, and the taints that they give by their status.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    (
        "MemoryPressure",
        "True",
        "node.kubernetes.io/memory-pressure",
    ),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    (
        "NetworkUnavailable",
        "True",
        "node.kubernetes.io/network-unavailable",
    ),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

fn taint(key: &str, effect: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        effect: effect.to_owned(),
        ..Taint::default()
    }
}

/// The `NoSchedule` taints that a node's conditions, and whether it is cordoned, give it.
#[must_use]
pub fn condition_taints(node: &Node) -> Vec<Taint> {
    let holds = |kind: &str, status: &str| {
        condition(node, kind).is_some_and(|condition| condition.status == status)
    };
    let by_condition = BY_CONDITION
        .iter()
        .filter(|(kind, status, _)| holds(kind, status))
        .map(|(_, _, key)| *key);
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    by_condition
        .chain(cordoned.then_some(UNSCHEDULABLE))
        .map(|key| taint(key, "NoSchedule"))
        .collect()
}

fn current(node: &Node) -> Vec<Taint> {
    node.spec
        .as_ref()
        .and_then(|spec| spec.taints.clone())
        .unwrap_or_default()
}

/// The `NoExecute` taints of a node that come from its health.
pub(super) fn no_execute(node: &Node) -> Vec<Taint> {
    let mut taints = current(node);
    taints.retain(|taint| {
        taint.effect == "NoExecute" && (taint.key == NOT_READY || taint.key == UNREACHABLE)
    });
    taints
}

/// Brings the `NoSchedule` taints of a node in line with its conditions. Taints of others stay.
pub(super) async fn sync_no_schedule(
    ctx: &Context,
    object: &Object,
    node: &Node,
) -> Result<(), ReconcileError> {
    let wanted = condition_taints(node);
    let ours = |taint: &Taint| {
        taint.effect == "NoSchedule"
            && (taint.key == UNSCHEDULABLE
                || BY_CONDITION.iter().any(|(_, _, key)| *key == taint.key))
    };
    write(ctx, object, wanted, ours).await
}

/// Sets the one `NoExecute` taint that a node's health gives it, or none.
pub(super) async fn sync_no_execute(
    ctx: &Context,
    object: &Object,
    key: Option<&str>,
) -> Result<(), ReconcileError> {
    let wanted = key.map(|key| taint(key, "NoExecute")).into_iter().collect();
    let ours = |taint: &Taint| {
        taint.effect == "NoExecute" && (taint.key == NOT_READY || taint.key == UNREACHABLE)
    };
    write(ctx, object, wanted, ours).await
}

/// Replaces those taints that are ours by those that are wanted, on the node as it is now.
async fn write(
    ctx: &Context,
    object: &Object,
    wanted: Vec<Taint>,
    ours: impl Fn(&Taint) -> bool,
) -> Result<(), ReconcileError> {
    let in_line = |taints: &[Taint]| {
        taints
            .iter()
            .filter(|taint| ours(taint))
            .all(|taint| wanted.iter().any(|want| same_taint(want, taint)))
            && wanted
                .iter()
                .all(|want| taints.iter().any(|taint| same_taint(want, taint)))
    };
    if in_line(&current(&*object.decode::<Node>()?)) {
        return Ok(());
    }
    let nodes = ctx.client().resource(&NODES);
    let Some(live) = nodes.find(object.name()).await? else {
        return Ok(());
    };
    let before = current(&*live.decode::<Node>()?);
    if in_line(&before) {
        return Ok(());
    }
    let now = common::now_time(ctx.env());
    let mut taints: Vec<Taint> = before
        .into_iter()
        .filter(|taint| !ours(taint) || wanted.iter().any(|want| same_taint(want, taint)))
        .collect();
    for want in wanted {
        if !taints.iter().any(|taint| same_taint(taint, &want)) {
            taints.push(Taint {
                time_added: now.clone(),
                ..want
            });
        }
    }
    let patch = Patch::Merge(json!({
        "metadata": {"resourceVersion": live.revision().to_string()},
        "spec": {"taints": if taints.is_empty() { None } else { Some(taints) }},
    }));
    nodes.patch(object.name(), patch).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_give_taints() {
        let table = [
            (json!([{"type": "Ready", "status": "True"}]), false, vec![]),
            (
                json!([{"type": "Ready", "status": "False"}]),
                false,
                vec!["not-ready"],
            ),
            (
                json!([{"type": "Ready", "status": "Unknown"}]),
                true,
                vec!["unreachable", "unschedulable"],
            ),
            (
                json!([{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}, {"type": "PIDPressure", "status": "False"}]),
                false,
                vec!["disk-pressure"],
            ),
        ];
        for (conditions, unschedulable, expected) in table {
            let node = json!({"metadata": {"name": "n"}, "spec": {"unschedulable": unschedulable}, "status": {"conditions": conditions}});
            let taints = condition_taints(&serde_json::from_value(node).unwrap());
            let keys: Vec<&str> = taints
                .iter()
                .map(|taint| taint.key.strip_prefix("node.kubernetes.io/").unwrap())
                .collect();
            assert_eq!(keys, expected);
            assert!(taints.iter().all(|taint| taint.effect == "NoSchedule"));
        }
    }
}
