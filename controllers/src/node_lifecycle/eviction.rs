//! Taint eviction: pods leave nodes whose `NoExecute` taints they do not tolerate, or not for longer.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use orlop_core::client::{DeleteOptions, Patch};
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop_core::object::{Object, ObjectKey};
use parking_lot::Mutex;
use serde_json::json;

use super::{NODE_NAME, index_by_node};
use crate::common;
use crate::common::pods;
use crate::common::resources::{NODES, PODS};

/// Deletes pods that a node's `NoExecute` taints drive away, after as long as they tolerate them.
#[derive(Debug, Default)]
pub struct TaintEvictionController {
    /// Pods whose eviction is due later.
    scheduled: Mutex<BTreeMap<ObjectKey, Timestamp>>,
}

impl TaintEvictionController {
    /// The controller.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten());
    taints
        .filter(|taint| taint.effect == "NoExecute")
        .cloned()
        .collect()
}

/// Whether a toleration is one of a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let same_effect = toleration
        .effect
        .as_deref()
        .is_none_or(|effect| effect.is_empty() || effect == taint.effect);
    let key = toleration.key.as_deref().unwrap_or_default();
    let same_key = key.is_empty() || key == taint.key;
    let same_value = match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "" | "Equal" => {
            !key.is_empty()
                && toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or("")
        }
        _ => false,
    };
    same_effect && same_key && same_value
}

/// How long a pod may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    For(i64),
    Forever,
}

/// How long a pod with these tolerations may stay on a node with these taints: not at all if one is not tolerated, else as long as the shortest
/// of the tolerations in use says.
fn stay(tolerations: &[Toleration], taints: &[Taint]) -> Stay {
    let mut shortest = None;
    for taint in taints {
        let Some(used) = tolerations
            .iter()
            .find(|toleration| tolerates(toleration, taint))
        else {
            return Stay::For(0);
        };
        if let Some(seconds) = used.toleration_seconds {
            shortest = Some(shortest.map_or(seconds, |known: i64| known.min(seconds)));
        }
    }
    shortest.map_or(Stay::Forever, |seconds| Stay::For(seconds.max(0)))
}

#[async_trait]
impl Controller for TaintEvictionController {
    fn name(&self) -> &str {
        "taint-eviction-controller"
    }

    fn identity(&self) -> &str {
        "node-controller"
    }

    fn interests(&self) -> Interests {
        Interests::new()
            .for_each(PODS)
            .watches(NODES, |ctx, notice| {
                let taints = |node: &Object| {
                    node.decode::<Node>()
                        .map(|node| no_execute(&node))
                        .unwrap_or_default()
                };
                let now = taints(notice.object());
                let before = notice.old().map(taints).unwrap_or_default();
                if now == before {
                    return Vec::new();
                }
                ctx.store(&PODS)
                    .by_index(NODE_NAME, notice.object().name())
                    .iter()
                    .map(Object::key)
                    .collect()
            })
    }

    fn workers(&self) -> usize {
        8
    }

    fn prepare(&self, ctx: &Context) {
        index_by_node(ctx);
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let Some(object) = ctx.store(&PODS).get(key) else {
            self.scheduled.lock().remove(key);
            return Ok(Action::Done);
        };
        let pod = object.decode::<Pod>()?;
        let node = pods::node(&pod);
        if node.is_empty() || pods::is_terminating(&pod) {
            return Ok(Action::Done);
        }
        let node = ctx.store(&NODES).get(&ObjectKey::new("", node));
        let taints = match node {
            Some(node) => no_execute(&*node.decode::<Node>()?),
            None => Vec::new(),
        };
        let tolerations = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.tolerations.clone())
            .unwrap_or_default();
        let now = common::now(ctx.env());
        let seconds = match stay(&tolerations, &taints) {
            Stay::For(seconds) if !taints.is_empty() => seconds,
            _ => {
                if self.scheduled.lock().remove(key).is_some() {
                    ctx.events().normal(
                        &object,
                        "TaintManagerEviction",
                        format!("Cancelling deletion of Pod {key}"),
                    );
                }
                return Ok(Action::Done);
            }
        };
        // From when the first of the taints was set, so that a restart gives nobody more time.
        let since = taints
            .iter()
            .filter_map(|taint| taint.time_added.as_ref().map(|time| time.0))
            .min();
        let due = {
            let mut scheduled = self.scheduled.lock();
            let since = since.unwrap_or(now);
            let due = since
                .checked_add(SignedDuration::from_secs(seconds))
                .unwrap_or(Timestamp::MAX);
            // Without a time on the taint, the first look counts.
            *scheduled
                .entry(key.clone())
                .and_modify(|known| *known = due.min(*known))
                .or_insert(due)
        };
        if due > now {
            let wait = due.duration_since(now).unsigned_abs();
            return Ok(Action::RequeueAfter(wait.max(Duration::from_millis(1))));
        }
        self.evict(ctx, &object).await?;
        self.scheduled.lock().remove(key);
        Ok(Action::Done)
    }
}

impl TaintEvictionController {
    async fn evict(&self, ctx: &Context, object: &Object) -> Result<(), ReconcileError> {
        ctx.events().normal(
            object,
            "TaintManagerEviction",
            format!("Marking for deletion Pod {}", object.key()),
        );
        let pods = ctx.client().resource(&PODS).namespace(object.namespace());
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": common::now(ctx.env()).to_string(),
        });
        let patch = Patch::Strategic(
            json!({"metadata": {"uid": object.uid()}, "status": {"conditions": [condition]}}),
        );
        match pods.patch_status(object.name(), patch).await {
            Err(status) if status.is_not_found() => return Ok(()),
            other => other?,
        };
        let options = DeleteOptions {
            uid: Some(object.uid().to_owned()),
            ..DeleteOptions::default()
        };
        match pods.delete(object.name(), options).await {
            Err(status) if !status.is_not_found() && !status.is_conflict() => Err(status.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_pod_may_stay() {
        let taint = |key: &str, value: &str| Taint {
            key: key.to_owned(),
            value: Some(value.to_owned()),
            effect: "NoExecute".to_owned(),
            time_added: None,
        };
        let toleration =
            |value: serde_json::Value| -> Toleration { serde_json::from_value(value).unwrap() };
        let taints = [taint("a", "1"), taint("b", "")];
        let table = [
            (vec![], Stay::For(0)),
            (vec![json!({"operator": "Exists"})], Stay::Forever),
            (
                vec![json!({"operator": "Exists", "effect": "NoSchedule"})],
                Stay::For(0),
            ),
            (vec![json!({"key": "a", "value": "1"})], Stay::For(0)),
            (
                vec![json!({"key": "a", "value": "2"}), json!({"key": "b"})],
                Stay::For(0),
            ),
            (
                vec![
                    json!({"key": "a", "value": "1", "tolerationSeconds": 30}),
                    json!({"key": "b"}),
                ],
                Stay::For(30),
            ),
            (
                vec![
                    json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}),
                    json!({"key": "b", "tolerationSeconds": -5}),
                ],
                Stay::For(0),
            ),
        ];
        for (tolerations, expected) in table {
            let tolerations: Vec<Toleration> = tolerations.into_iter().map(toleration).collect();
            assert_eq!(stay(&tolerations, &taints), expected, "{tolerations:?}");
        }
    }
}
