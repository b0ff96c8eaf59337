//! Pods: their first status, their quality of service, and what each subresource may write.

use std::collections::BTreeMap;

use orlop_core::quantity::Quantity;
use serde_json::{Value, json};

use super::Context;
use crate::doc;
use crate::validation::resources::quantities;

/// A pod that is created waits, with the quality of service that its resources make.
pub(super) fn create(pod: &mut Value) {
    let labels = doc::at(pod, &["metadata", "labels"]).clone();
    let spec = doc::ensure_object(pod, "spec");
    let gated = !doc::list(spec, "schedulingGates").is_empty();
    merge_label_keys(spec, &labels);
    let mut status = json!({"phase": "Pending", "qosClass": qos_class(spec)});
    if gated {
        doc::set(
            &mut status,
            "conditions",
            json!([{
                "type": "PodScheduled", "status": "False", "lastProbeTime": null, "lastTransitionTime": null,
                "reason": "SchedulingGated", "message": "Scheduling is blocked due to non-empty scheduling gates"
            }]),
        );
    }
    doc::set(pod, "status", status);
}

/// `matchLabelKeys` stand for requirements with the pod's own values; they are written out when it is created.
fn merge_label_keys(spec: &mut Value, labels: &Value) {
    for constraint in doc::each_mut(spec, "topologySpreadConstraints") {
        merge(constraint, "matchLabelKeys", "In", labels);
    }
    let Some(affinity) = doc::object_mut(spec, "affinity") else {
        return;
    };
    for key in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = doc::object_mut(affinity, key) else {
            continue;
        };
        for term in doc::each_mut(pods, "requiredDuringSchedulingIgnoredDuringExecution") {
            merge(term, "matchLabelKeys", "In", labels);
            merge(term, "mismatchLabelKeys", "NotIn", labels);
        }
        for term in doc::each_mut(pods, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = doc::object_mut(term, "podAffinityTerm") {
                merge(term, "matchLabelKeys", "In", labels);
                merge(term, "mismatchLabelKeys", "NotIn", labels);
            }
        }
    }
}

fn merge(term: &mut Value, keys: &str, operator: &str, labels: &Value) {
    let added: Vec<Value> = doc::texts(term, keys)
        .filter_map(|key| {
            Some(json!({"key": key, "operator": operator, "values": [labels.get(key)?.as_str()?]}))
        })
        .collect();
    if let (false, Some(selector)) = (added.is_empty(), doc::object_mut(term, "labelSelector")) {
        let mut expressions = doc::list(selector, "matchExpressions").to_vec();
        expressions.extend(added);
        doc::set(selector, "matchExpressions", expressions);
    }
}

/// How well a pod of this specification is served when its node runs short: `Guaranteed`, `Burstable` or `BestEffort`.
#[must_use]
pub fn qos_class(spec: &Value) -> &'static str {
    let of = |of: &Value, section: &str| -> BTreeMap<String, Quantity> {
        quantities(doc::get(of, "resources"), section)
            .into_iter()
            .filter(|(name, amount)| {
                matches!(name.as_str(), "cpu" | "memory")
                    && !amount.is_zero()
                    && !amount.is_negative()
            })
            .collect()
    };
    let (mut requests, mut limits) = (of(spec, "requests"), of(spec, "limits"));
    let mut guaranteed = true;
    if requests.is_empty() && limits.is_empty() {
        for container in doc::list(spec, "containers")
            .iter()
            .chain(doc::list(spec, "initContainers"))
        {
            let own = of(container, "limits");
            guaranteed &= own.len() == 2;
            for (total, own) in [
                (&mut requests, of(container, "requests")),
                (&mut limits, own),
            ] {
                for (name, amount) in own {
                    let sum = total
                        .get(&name)
                        .map_or_else(|| amount.clone(), |had| had + &amount);
                    total.insert(name, sum);
                }
            }
        }
    } else {
        guaranteed = limits.len() == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if guaranteed && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// An update of a pod, by subresource.
pub(super) fn update(new: &mut Value, old: &Value, subresource: Option<&str>) {
    match subresource {
        Some("status") => {
            let claims = doc::at(old, &["status", "resourceClaimStatuses"]).clone();
            doc::copy_field(new, old, "spec");
            doc::copy_field(
                doc::ensure_object(new, "metadata"),
                doc::get(old, "metadata"),
                "ownerReferences",
            );
            let status = doc::ensure_object(new, "status");
            if !claims.is_null() {
                doc::default_to(status, "resourceClaimStatuses", claims);
            }
            if doc::text(status, "qosClass").is_empty() {
                doc::copy_field(status, doc::get(old, "status"), "qosClass");
            }
        }
        Some("ephemeralcontainers") => {
            let mut spec = doc::get(old, "spec").clone();
            doc::copy_field(&mut spec, doc::get(new, "spec"), "ephemeralContainers");
            doc::set(new, "spec", spec);
            doc::copy_field(new, old, "status");
        }
        Some("resize") => {
            let mut spec = doc::get(old, "spec").clone();
            let wanted = doc::get(new, "spec").clone();
            for list in ["containers", "initContainers"] {
                for (i, container) in doc::each_mut(&mut spec, list).enumerate() {
                    if let Some(wanted) = doc::list(&wanted, list).get(i) {
                        doc::copy_field(container, wanted, "resources");
                        doc::copy_field(container, wanted, "resizePolicy");
                    }
                }
            }
            doc::copy_field(&mut spec, &wanted, "resources");
            doc::set(new, "spec", spec);
            doc::copy_field(new, old, "status");
        }
        _ => doc::copy_field(new, old, "status"),
    }
}

/// Assigns a pod to the node that a `Binding` names.
///
/// # Errors
/// Why the pod can't be bound, as the message of a conflict: it is assigned already, is being deleted, or has scheduling gates.
pub fn bind(pod: &mut Value, binding: &Value, context: &Context) -> Result<(), String> {
    let meta = doc::get(pod, "metadata");
    let name = doc::text(meta, "name").to_owned();
    if doc::has(meta, "deletionTimestamp") {
        return Err(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    let node = doc::text(doc::get(pod, "spec"), "nodeName");
    if !node.is_empty() {
        return Err(format!(
            "pod {name} is already assigned to node {}",
            orlop_core::field::quote(node)
        ));
    }
    if !doc::list(doc::get(pod, "spec"), "schedulingGates").is_empty() {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let target = doc::text(doc::get(binding, "target"), "name").to_owned();
    doc::set(doc::ensure_object(pod, "spec"), "nodeName", target);
    for key in ["annotations", "labels"] {
        let from = doc::get(doc::get(binding, "metadata"), key);
        if let Some(from) = from
            .as_object()
            .filter(|from| !from.is_empty() && key == "annotations")
        {
            let to = doc::ensure_object(doc::ensure_object(pod, "metadata"), key);
            for (key, value) in from {
                doc::set(to, key, value.clone());
            }
        }
    }
    let status = doc::ensure_object(pod, "status");
    let mut conditions = doc::list(status, "conditions").to_vec();
    conditions.retain(|condition| doc::text(condition, "type") != "PodScheduled");
    conditions.push(json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": context.now
    }));
    doc::set(status, "conditions", conditions);
    let generation = doc::int(doc::get(pod, "metadata"), "generation").unwrap_or_default();
    doc::set(
        doc::ensure_object(pod, "metadata"),
        "generation",
        generation + 1,
    );
    Ok(())
}
