//! PodDisruptionBudgets, PriorityClasses, RuntimeClasses and Leases.

use orlop_core::field::Path;
use serde_json::Value;

use super::errors::Errors;
use super::meta::{self, NameForm};
use super::{labels, names, resources, workloads};
use crate::doc;

/// A PodDisruptionBudget; `old` where it replaces one.
pub(super) fn disruption_budget(errors: &mut Errors, document: &Value, old: Option<&Value>) {
    match old {
        None => meta::object_meta(errors, document, true, NameForm::Subdomain),
        Some(old) => meta::object_meta_update(errors, document, old),
    }
    let spec = doc::get(document, "spec");
    let path = Path::new("spec");
    if doc::has(spec, "minAvailable") && doc::has(spec, "maxUnavailable") {
        errors.invalid(
            &path,
            spec.clone(),
            "minAvailable and maxUnavailable cannot be both set",
        );
        let field = |key: &str| doc::get(spec, key);
        errors.show(format!(
            "{{\"MinAvailable\":{},\"Selector\":{},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{}}}",
            field("minAvailable"),
            field("selector"),
            field("maxUnavailable"),
            field("unhealthyPodEvictionPolicy")
        ));
    }
    for key in ["minAvailable", "maxUnavailable"] {
        workloads::int_or_percent(errors, spec, key, &path);
        workloads::at_most_all(errors, spec, key, &path);
    }
    labels::selector(errors, spec, "selector", &path);
    errors.if_set_one_of(
        spec,
        "unhealthyPodEvictionPolicy",
        &path,
        &["AlwaysAllow", "IfHealthyBudget"],
    );
}

/// The status of a PodDisruptionBudget.
pub(super) fn disruption_budget_status(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    let status = doc::get(new, "status");
    for key in [
        "disruptionsAllowed",
        "currentHealthy",
        "desiredHealthy",
        "expectedPods",
    ] {
        errors.nonnegative(status, key, &Path::new("status"));
    }
}

/// User classes of priority stay below this.
const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

/// The two classes that every cluster has.
const SYSTEM_CLASSES: &[(&str, i64)] = &[
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];

/// A PriorityClass.
pub(super) fn priority_class(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, false, NameForm::Subdomain);
    let name = doc::text(doc::get(document, "metadata"), "name");
    let value = doc::int(document, "value").unwrap_or_default();
    if name.starts_with("system-") {
        let known = SYSTEM_CLASSES.iter().find(|(known, _)| *known == name);
        let refusal = match known {
            None => Some(format!("{name} is not a known system priority class")),
            Some((_, wanted)) if *wanted != value => {
                Some(format!("value of {name} PriorityClass must be {wanted}"))
            }
            Some(_) if doc::flag(document, "globalDefault") => Some(format!(
                "globalDefault of {name} PriorityClass must be false"
            )),
            Some(_) => None,
        };
        if let Some(refusal) = refusal {
            errors.forbidden(
                &Path::new("metadata").child("name"),
                format!("priority class names with 'system-' prefix are reserved for system use only. error: {refusal}"),
            );
        }
    } else if value > HIGHEST_USER_PRIORITY {
        errors.forbidden(
            &Path::new("value"),
            format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"),
        );
    }
    if doc::has(document, "preemptionPolicy") {
        errors.one_of(
            document,
            "preemptionPolicy",
            &Path::root(),
            &["PreemptLowerPriority", "Never"],
        );
    }
}

/// A PriorityClass that replaces an older one.
pub(super) fn priority_class_update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    if doc::int(new, "value") != doc::int(old, "value") {
        errors.forbidden(&Path::new("value"), "may not be changed in an update.");
    }
    errors.immutable(
        doc::get(new, "preemptionPolicy"),
        doc::get(old, "preemptionPolicy"),
        &Path::new("preemptionPolicy"),
    );
}

/// A RuntimeClass; `old` where it replaces one.
pub(super) fn runtime_class(errors: &mut Errors, document: &Value, old: Option<&Value>) {
    match old {
        None => meta::object_meta(errors, document, false, NameForm::Subdomain),
        Some(old) => {
            meta::object_meta_update(errors, document, old);
            errors.immutable(
                doc::get(document, "handler"),
                doc::get(old, "handler"),
                &Path::new("handler"),
            );
            return;
        }
    }
    let handler = doc::text(document, "handler");
    errors.all_invalid(&Path::new("handler"), handler, names::dns_label(handler));
    let fixed = doc::at(document, &["overhead", "podFixed"]);
    for (name, value) in fixed.as_object().into_iter().flatten() {
        let path = Path::new("overhead")
            .child("podFixed")
            .child("limits")
            .key(name);
        resources::container_resource_name(errors, name, &path);
        resources::amount(errors, name, value, &path);
    }
    let scheduling = doc::get(document, "scheduling");
    if !scheduling.is_null() {
        labels::labels(errors, scheduling, "nodeSelector", &Path::new("scheduling"));
    }
}

/// A Lease; `old` where it replaces one.
pub(super) fn lease(errors: &mut Errors, document: &Value, old: Option<&Value>) {
    match old {
        None => meta::object_meta(errors, document, true, NameForm::Subdomain),
        Some(old) => meta::object_meta_update(errors, document, old),
    }
    let spec = doc::get(document, "spec");
    let path = Path::new("spec");
    if let Some(seconds) = doc::int(spec, "leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
        errors.invalid(
            &path.child("leaseDurationSeconds"),
            seconds,
            "must be greater than 0",
        );
    }
    errors.nonnegative(spec, "leaseTransitions", &path);
    if let Some(strategy) = doc::opt_text(spec, "strategy") {
        const STRATEGIES: &[&str] = &["OldestEmulationVersion"];
        let complaints = names::qualified_name(strategy);
        if strategy.contains('/') {
            errors.all_invalid(&path.child("strategy"), strategy, complaints);
        } else if !STRATEGIES.contains(&strategy) {
            errors.not_supported(&path.child("strategy"), strategy, STRATEGIES);
        }
    }
    if doc::opt_text(spec, "preferredHolder").is_some_and(|holder| !holder.is_empty())
        && doc::text(spec, "strategy").is_empty()
    {
        errors.forbidden(
            &path.child("preferredHolder"),
            "may only be specified when `strategy` is defined",
        );
    }
}
