//! The kinds of `apps` and the ReplicationController: replicas of one pod template.

use orlop_core::field::Path;
use serde_json::Value;

use super::errors::Errors;
use super::meta::{self, NameForm};
use super::{labels, names, pod, storage};
use crate::doc;

/// A number of things, or a share of them: a whole number or a percentage.
pub(super) fn int_or_percent(errors: &mut Errors, of: &Value, key: &str, path: &Path) {
    match doc::get(of, key) {
        Value::String(text) if !names::percent(text).is_empty() => {
            errors.invalid(
                &path.child(key),
                text.clone(),
                "must be an integer or percentage (e.g '5%%')",
            );
        }
        Value::Number(_) => errors.nonnegative(of, key, path),
        _ => {}
    }
}

fn percent_of(value: &Value) -> Option<i64> {
    value.as_str()?.strip_suffix('%')?.parse().ok()
}

/// Not more than all of them.
pub(super) fn at_most_all(errors: &mut Errors, of: &Value, key: &str, path: &Path) {
    let value = doc::get(of, key);
    if percent_of(value).is_some_and(|share| share > 100) {
        errors.invalid(
            &path.child(key),
            value.clone(),
            "must not be greater than 100%",
        );
    }
}

fn is_zero(value: &Value) -> bool {
    value.is_null() || value == 0 || percent_of(value) == Some(0)
}

/// A selector that must be there and select something; the words name the kind as upstream does.
fn required_selector(errors: &mut Errors, spec: &Value, path: &Path, detail: &str) {
    let selector = doc::get(spec, "selector");
    if selector.is_null() {
        errors.required(&path.child("selector"), "");
        return;
    }
    labels::selector(errors, spec, "selector", path);
    if labels::selector_is_empty(selector) {
        errors.invalid(&path.child("selector"), selector.clone(), detail);
    }
}

/// The template of pods that run for ever, found by a selector.
fn template(errors: &mut Errors, spec: &Value, path: &Path, kind: &str) {
    let template = doc::get(spec, "template");
    let path = path.child("template");
    let own = doc::at(template, &["metadata", "labels"]);
    let selector = doc::get(spec, "selector");
    if !labels::selector_is_empty(selector) && !labels::selects(selector, own) {
        mismatch(errors, own, &path);
    }
    pod::template(errors, template, &path);
    runs_for_ever(errors, template, &path, kind);
}

fn mismatch(errors: &mut Errors, own: &Value, template: &Path) {
    errors.invalid(
        &template.child("metadata").child("labels"),
        own.clone(),
        "`selector` does not match template `labels`",
    );
}

fn runs_for_ever(errors: &mut Errors, template: &Value, path: &Path, kind: &str) {
    let spec = doc::get(template, "spec");
    let path = path.child("spec");
    let restart = doc::text(spec, "restartPolicy");
    if restart != "Always" {
        errors.not_supported(&path.child("restartPolicy"), restart, &["Always"]);
    }
    if doc::has(spec, "activeDeadlineSeconds") {
        errors.forbidden(
            &path.child("activeDeadlineSeconds"),
            format!("activeDeadlineSeconds in {kind} is not Supported"),
        );
    }
}

/// The selector of a stored workload stays: the pods it owns were found by it.
fn selector_stays(errors: &mut Errors, new: &Value, old: &Value) {
    errors.immutable(
        doc::at(new, &["spec", "selector"]),
        doc::at(old, &["spec", "selector"]),
        &Path::new("spec").child("selector"),
    );
}

/// A Deployment.
pub(super) fn deployment(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    deployment_spec(errors, doc::get(document, "spec"));
}

/// A Deployment that replaces an older one.
pub(super) fn deployment_update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    deployment_spec(errors, doc::get(new, "spec"));
    selector_stays(errors, new, old);
}

fn deployment_spec(errors: &mut Errors, spec: &Value) {
    let path = Path::new("spec");
    errors.nonnegative(spec, "replicas", &path);
    required_selector(
        errors,
        spec,
        &path,
        "empty selector is invalid for deployment",
    );
    template(errors, spec, &path, "ReplicaSet");
    strategy(errors, spec, &path.child("strategy"));
    for key in [
        "minReadySeconds",
        "revisionHistoryLimit",
        "progressDeadlineSeconds",
    ] {
        errors.nonnegative(spec, key, &path);
    }
    if let Some(deadline) = doc::int(spec, "progressDeadlineSeconds")
        && deadline <= doc::int(spec, "minReadySeconds").unwrap_or_default()
    {
        errors.invalid(
            &path.child("progressDeadlineSeconds"),
            deadline,
            "must be greater than minReadySeconds",
        );
    }
}

fn strategy(errors: &mut Errors, spec: &Value, path: &Path) {
    let strategy = doc::get(spec, "strategy");
    let rolling = doc::get(strategy, "rollingUpdate");
    let rolling_path = path.child("rollingUpdate");
    match doc::text(strategy, "type") {
        "Recreate" => {
            if !rolling.is_null() {
                errors.forbidden(
                    &rolling_path,
                    "may not be specified when strategy `type` is 'Recreate'",
                );
            }
        }
        "RollingUpdate" => {
            if rolling.is_null() {
                errors.required(&rolling_path, "this should be defaulted and never be nil");
                return;
            }
            int_or_percent(errors, rolling, "maxUnavailable", &rolling_path);
            int_or_percent(errors, rolling, "maxSurge", &rolling_path);
            let (unavailable, surge) = (
                doc::get(rolling, "maxUnavailable"),
                doc::get(rolling, "maxSurge"),
            );
            if is_zero(unavailable) && is_zero(surge) {
                errors.invalid(
                    &rolling_path.child("maxUnavailable"),
                    unavailable.clone(),
                    "may not be 0 when `maxSurge` is 0",
                );
            }
            at_most_all(errors, rolling, "maxUnavailable", &rolling_path);
        }
        other => {
            errors.not_supported(path, other, &["Recreate", "RollingUpdate"]);
            errors.show(format!(
                "{{\"Type\":{},\"RollingUpdate\":{}}}",
                orlop_core::field::quote(other),
                two_fields(
                    rolling,
                    &[
                        ("MaxUnavailable", "maxUnavailable"),
                        ("MaxSurge", "maxSurge")
                    ]
                )
            ));
        }
    }
}

/// A struct of upstream's as messages show it: its own field names, in their order.
fn two_fields(value: &Value, fields: &[(&str, &str)]) -> String {
    if value.is_null() {
        return "null".to_owned();
    }
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, key)| format!("\"{name}\":{}", doc::get(value, key)))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// The counters of a status: none is negative, none of `parts` above `replicas`, no more available than ready.
fn counters(errors: &mut Errors, status: &Value, all: &[&str], parts: &[&str]) {
    let path = Path::new("status");
    for key in all {
        errors.nonnegative(status, key, &path);
    }
    let count = |key: &str| doc::int(status, key).unwrap_or_default();
    for key in parts {
        if count(key) > count("replicas") {
            errors.invalid(
                &path.child(key),
                count(key),
                "cannot be greater than status.replicas",
            );
        }
    }
    if parts.contains(&"availableReplicas") && count("availableReplicas") > count("readyReplicas") {
        errors.invalid(
            &path.child("availableReplicas"),
            count("availableReplicas"),
            "cannot be greater than readyReplicas",
        );
    }
}

fn collisions_only_grow(errors: &mut Errors, new: &Value, old: &Value) {
    let of = |document: &Value| doc::int(doc::get(document, "status"), "collisionCount");
    if let Some(before) = of(old) {
        let now = of(new);
        if now.is_none_or(|now| now < before) {
            errors.invalid(
                &Path::new("status").child("collisionCount"),
                now.unwrap_or_default(),
                "cannot be decremented",
            );
        }
    }
}

/// The status of a Deployment.
pub(super) fn deployment_status(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    counters(
        errors,
        doc::get(new, "status"),
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ],
        &["updatedReplicas", "readyReplicas", "availableReplicas"],
    );
    collisions_only_grow(errors, new, old);
}

/// A ReplicaSet.
pub(super) fn replica_set(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    replica_set_spec(errors, doc::get(document, "spec"));
}

/// A ReplicaSet that replaces an older one.
pub(super) fn replica_set_update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    replica_set_spec(errors, doc::get(new, "spec"));
    selector_stays(errors, new, old);
}

fn replica_set_spec(errors: &mut Errors, spec: &Value) {
    let path = Path::new("spec");
    errors.nonnegative(spec, "replicas", &path);
    errors.nonnegative(spec, "minReadySeconds", &path);
    required_selector(
        errors,
        spec,
        &path,
        "empty selector is invalid for deployment",
    );
    template(errors, spec, &path, "ReplicaSet");
}

/// The status of a ReplicaSet or a ReplicationController.
pub(super) fn replica_status(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    counters(
        errors,
        doc::get(new, "status"),
        &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "terminatingReplicas",
            "observedGeneration",
        ],
        &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
    );
}

/// A DaemonSet.
pub(super) fn daemon_set(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    daemon_set_spec(errors, doc::get(document, "spec"));
}

/// A DaemonSet that replaces an older one.
pub(super) fn daemon_set_update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    daemon_set_spec(errors, doc::get(new, "spec"));
    selector_stays(errors, new, old);
}

fn daemon_set_spec(errors: &mut Errors, spec: &Value) {
    let path = Path::new("spec");
    let template_path = path.child("template");
    let selector = doc::get(spec, "selector");
    let template = doc::get(spec, "template");
    labels::selector(errors, spec, "selector", &path);
    let own = doc::at(template, &["metadata", "labels"]);
    if !labels::selects(selector, own) {
        mismatch(errors, own, &template_path);
    }
    if !selector.is_null() && labels::selector_is_empty(selector) {
        errors.invalid(
            &path.child("selector"),
            selector.clone(),
            "empty selector is invalid for daemonset",
        );
    }
    pod::template(errors, template, &template_path);
    runs_for_ever(errors, template, &template_path, "DaemonSet");
    errors.nonnegative(spec, "minReadySeconds", &path);
    daemon_set_strategy(errors, spec, &path.child("updateStrategy"));
    errors.nonnegative(spec, "revisionHistoryLimit", &path);
}

fn daemon_set_strategy(errors: &mut Errors, spec: &Value, path: &Path) {
    let strategy = doc::get(spec, "updateStrategy");
    let rolling = doc::get(strategy, "rollingUpdate");
    match doc::text(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let path = path.child("rollingUpdate");
            if rolling.is_null() {
                errors.required(&path, "");
                return;
            }
            for key in ["maxUnavailable", "maxSurge"] {
                int_or_percent(errors, rolling, key, &path);
            }
            for key in ["maxUnavailable", "maxSurge"] {
                at_most_all(errors, rolling, key, &path);
            }
            let surge = doc::get(rolling, "maxSurge");
            match (is_zero(doc::get(rolling, "maxUnavailable")), is_zero(surge)) {
                (false, false) => errors.invalid(
                    &path.child("maxSurge"),
                    surge.clone(),
                    "may not be set when maxUnavailable is non-zero",
                ),
                (true, true) => errors.required(
                    &path.child("maxUnavailable"),
                    "cannot be 0 when maxSurge is 0",
                ),
                _ => {}
            }
        }
        other => {
            errors.not_supported(path, other, &["RollingUpdate", "OnDelete"]);
            errors.show(format!(
                "{{\"Type\":{},\"RollingUpdate\":{}}}",
                orlop_core::field::quote(other),
                two_fields(
                    rolling,
                    &[
                        ("MaxUnavailable", "maxUnavailable"),
                        ("MaxSurge", "maxSurge")
                    ]
                )
            ));
        }
    }
}

/// The status of a DaemonSet.
pub(super) fn daemon_set_status(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    counters(
        errors,
        doc::get(new, "status"),
        &[
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ],
        &[],
    );
    collisions_only_grow(errors, new, old);
}

/// A StatefulSet.
pub(super) fn stateful_set(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    stateful_set_spec(errors, doc::get(document, "spec"));
}

fn stateful_set_spec(errors: &mut Errors, spec: &Value) {
    let path = Path::new("spec");
    match doc::text(spec, "podManagementPolicy") {
        "OrderedReady" | "Parallel" => {}
        "" => errors.required(&path.child("podManagementPolicy"), ""),
        other => errors.invalid(
            &path.child("podManagementPolicy"),
            other,
            "must be 'OrderedReady' or 'Parallel'",
        ),
    }
    stateful_set_strategy(errors, spec, &path.child("updateStrategy"));
    let retention = doc::get(spec, "persistentVolumeClaimRetentionPolicy");
    for key in ["whenDeleted", "whenScaled"] {
        let value = doc::text(retention, key);
        if !retention.is_null() && !matches!(value, "Retain" | "Delete") {
            errors.not_supported(
                &path
                    .child("persistentVolumeClaimRetentionPolicy")
                    .child(key),
                value,
                &["Retain", "Delete"],
            );
        }
    }
    errors.nonnegative(spec, "replicas", &path);
    errors.nonnegative(spec, "minReadySeconds", &path);
    errors.nonnegative(doc::get(spec, "ordinals"), "start", &path.child("ordinals"));
    required_selector(
        errors,
        spec,
        &path,
        "empty selector is invalid for statefulset",
    );
    template(errors, spec, &path, "StatefulSet");
    for (i, claim) in doc::list(spec, "volumeClaimTemplates").iter().enumerate() {
        storage::claim_template_modes(errors, claim, &path.child("volumeClaimTemplates").index(i));
    }
}

fn stateful_set_strategy(errors: &mut Errors, spec: &Value, path: &Path) {
    let strategy = doc::get(spec, "updateStrategy");
    let rolling = doc::get(strategy, "rollingUpdate");
    match doc::text(strategy, "type") {
        "" => errors.required(path, ""),
        "OnDelete" => {
            if !rolling.is_null() {
                errors.invalid(
                    &path.child("rollingUpdate"),
                    rolling.clone(),
                    "only allowed for updateStrategy 'RollingUpdate'",
                );
            }
        }
        "RollingUpdate" => {
            let path = path.child("rollingUpdate");
            errors.nonnegative(rolling, "partition", &path);
            if doc::has(rolling, "maxUnavailable") {
                int_or_percent(errors, rolling, "maxUnavailable", &path);
                if is_zero(doc::get(rolling, "maxUnavailable")) {
                    errors.invalid(
                        &path.child("maxUnavailable"),
                        doc::get(rolling, "maxUnavailable").clone(),
                        "cannot be 0",
                    );
                }
                at_most_all(errors, rolling, "maxUnavailable", &path);
            }
        }
        other => {
            errors.invalid(path, other, "must be 'RollingUpdate' or 'OnDelete'");
            errors.show(format!(
                "{{\"Type\":{},\"RollingUpdate\":{}}}",
                orlop_core::field::quote(other),
                two_fields(
                    rolling,
                    &[
                        ("Partition", "partition"),
                        ("MaxUnavailable", "maxUnavailable")
                    ]
                )
            ));
        }
    }
}

/// A StatefulSet that replaces an older one.
pub(super) fn stateful_set_update(errors: &mut Errors, new: &Value, old: &Value) {
    stateful_set_spec(errors, doc::get(new, "spec"));
    meta::object_meta_update(errors, new, old);
    let mut munged = doc::get(new, "spec").clone();
    let before = doc::get(old, "spec");
    for key in [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ] {
        doc::copy_field(&mut munged, before, key);
    }
    if !doc::same(&munged, before) {
        errors.forbidden(
            &Path::new("spec"),
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        );
    }
}

/// The status of a StatefulSet.
pub(super) fn stateful_set_status(errors: &mut Errors, new: &Value, old: &Value) {
    counters(
        errors,
        doc::get(new, "status"),
        &[
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ],
        &[
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
        ],
    );
    meta::object_meta_update(errors, new, old);
    collisions_only_grow(errors, new, old);
}

/// A ReplicationController.
pub(super) fn replication_controller(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    replication_controller_spec(errors, doc::get(document, "spec"));
}

/// A ReplicationController that replaces an older one.
pub(super) fn replication_controller_update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    replication_controller_spec(errors, doc::get(new, "spec"));
}

fn replication_controller_spec(errors: &mut Errors, spec: &Value) {
    let path = Path::new("spec");
    errors.nonnegative(spec, "minReadySeconds", &path);
    let selector = doc::get(spec, "selector");
    if doc::is_empty(selector) {
        errors.required(&path.child("selector"), "");
    }
    errors.nonnegative(spec, "replicas", &path);
    let template = doc::get(spec, "template");
    let path = path.child("template");
    if template.is_null() {
        errors.required(&path, "");
        return;
    }
    let own = doc::at(template, &["metadata", "labels"]);
    if !labels::map_selects(selector, own) {
        mismatch(errors, own, &path);
    }
    pod::template(errors, template, &path);
    runs_for_ever(errors, template, &path, "ReplicationController");
}

/// A ControllerRevision.
pub(super) fn controller_revision(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    if !doc::has(document, "data") {
        errors.required(&Path::new("data"), "data is mandatory");
    }
    errors.nonnegative(document, "revision", &Path::root());
}

/// A ControllerRevision that replaces an older one.
pub(super) fn controller_revision_update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    controller_revision(errors, new);
    errors.immutable(
        doc::get(new, "data"),
        doc::get(old, "data"),
        &Path::new("data"),
    );
}

/// A PodTemplate.
pub(super) fn pod_template(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    pod::template(
        errors,
        doc::get(document, "template"),
        &Path::new("template"),
    );
}

/// A PodTemplate that replaces an older one.
pub(super) fn pod_template_update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    pod::template(errors, doc::get(new, "template"), &Path::new("template"));
}

/// A Scale.
pub(super) fn scale(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    errors.nonnegative(doc::get(document, "spec"), "replicas", &Path::new("spec"));
}
