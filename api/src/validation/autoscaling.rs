//! HorizontalPodAutoscalers, of both versions.

use orlop_core::field::Path;
use orlop_core::quantity::Quantity;
use serde_json::Value;

use super::errors::Errors;
use super::meta::{self, NameForm};
use super::{labels, names, resources};
use crate::doc;

/// An autoscaler; `old` where it replaces one.
pub(super) fn autoscaler(errors: &mut Errors, document: &Value, old: Option<&Value>) {
    match old {
        None => meta::object_meta(errors, document, true, NameForm::Subdomain),
        Some(old) => meta::object_meta_update(errors, document, old),
    }
    let spec = doc::get(document, "spec");
    let path = Path::new("spec");
    let (min, max) = (
        doc::int(spec, "minReplicas"),
        doc::int(spec, "maxReplicas").unwrap_or_default(),
    );
    if let Some(min) = min.filter(|min| *min < 1) {
        errors.invalid(
            &path.child("minReplicas"),
            min,
            "must be greater than or equal to 1",
        );
    }
    if max < 1 {
        errors.invalid(&path.child("maxReplicas"), max, "must be greater than 0");
    }
    if min.is_some_and(|min| max < min) {
        errors.invalid(
            &path.child("maxReplicas"),
            max,
            "must be greater than or equal to `minReplicas`",
        );
    }
    reference(
        errors,
        doc::get(spec, "scaleTargetRef"),
        &path.child("scaleTargetRef"),
    );
    for (i, metric) in doc::list(spec, "metrics").iter().enumerate() {
        self::metric(errors, metric, &path.child("metrics").index(i));
    }
    if let Some(share) = doc::int(spec, "targetCPUUtilizationPercentage").filter(|share| *share < 1)
    {
        errors.invalid(
            &path.child("targetCPUUtilizationPercentage"),
            share,
            "must be greater than 0",
        );
    }
    let behavior = doc::get(spec, "behavior");
    for key in ["scaleUp", "scaleDown"] {
        let rules = doc::get(behavior, key);
        if !rules.is_null() {
            scaling_rules(errors, rules, &path.child("behavior").child(key));
        }
    }
}

fn reference(errors: &mut Errors, reference: &Value, path: &Path) {
    for key in ["kind", "name"] {
        let value = doc::text(reference, key);
        if value.is_empty() {
            errors.required(&path.child(key), "");
        } else {
            errors.all_invalid(&path.child(key), value, names::path_segment(value));
        }
    }
}

fn metric(errors: &mut Errors, metric: &Value, path: &Path) {
    const TYPES: &[&str] = &[
        "ContainerResource",
        "External",
        "Object",
        "Pods",
        "Resource",
    ];
    const SOURCES: &[&str] = &[
        "object",
        "external",
        "pods",
        "resource",
        "containerResource",
    ];
    let kind = doc::text(metric, "type");
    if kind.is_empty() {
        errors.required(&path.child("type"), "must specify a metric source type");
    }
    if !TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, TYPES);
    }
    let expected = match kind {
        "ContainerResource" => "containerResource".to_owned(),
        other => other.to_lowercase(),
    };
    let present: Vec<&&str> = SOURCES.iter().filter(|key| doc::has(metric, key)).collect();
    if let Some(first) = present.first() {
        source(errors, first, doc::get(metric, first), &path.child(first));
    }
    if !present.iter().any(|key| ***key == expected) {
        errors.required(
            &path.child(&expected),
            "must populate information for the given metric source",
        );
    }
    if present.len() != 1 {
        for other in present.iter().filter(|key| ***key != expected) {
            errors.forbidden(
                &path.child(other),
                "must populate the given metric source only",
            );
        }
    }
}

fn source(errors: &mut Errors, kind: &str, source: &Value, path: &Path) {
    let target = doc::get(source, "target");
    let target_path = path.child("target");
    match kind {
        "object" => {
            reference(
                errors,
                doc::get(source, "describedObject"),
                &path.child("describedObject"),
            );
            metric_name(errors, source, path);
            metric_target(errors, target, &target_path);
            if !doc::has(target, "value") && !doc::has(target, "averageValue") {
                errors.required(
                    &target_path.child("averageValue"),
                    "must set either a target value or averageValue",
                );
            }
        }
        "external" => {
            metric_name(errors, source, path);
            metric_target(errors, target, &target_path);
            match (doc::has(target, "value"), doc::has(target, "averageValue")) {
                (false, false) => errors.required(
                    &target_path.child("averageValue"),
                    "must set either a target value for metric or a per-pod target",
                ),
                (true, true) => errors.forbidden(
                    &target_path.child("value"),
                    "may not set both a target value for metric and a per-pod target",
                ),
                _ => {}
            }
        }
        "pods" => {
            metric_name(errors, source, path);
            metric_target(errors, target, &target_path);
            let good = resources::quantity(doc::get(target, "averageValue"))
                .is_some_and(|value| value > Quantity::ZERO);
            if !good {
                errors.required(
                    &target_path.child("averageValue"),
                    "must specify a positive target averageValue",
                );
            }
        }
        _ => {
            if kind == "containerResource" && doc::text(source, "container").is_empty() {
                errors.required(&path.child("container"), "must specify a container");
            }
            if doc::text(source, "name").is_empty() {
                errors.required(&path.child("name"), "must specify a resource name");
            }
            metric_target(errors, target, &target_path);
            match (
                doc::has(target, "averageUtilization"),
                doc::has(target, "averageValue"),
            ) {
                (false, false) => errors.required(
                    &target_path.child("averageUtilization"),
                    "must set either a target raw value or a target utilization",
                ),
                (true, true) => errors.forbidden(
                    &target_path.child("averageValue"),
                    "may not set both a target raw value and a target utilization",
                ),
                _ => {}
            }
        }
    }
}

fn metric_name(errors: &mut Errors, source: &Value, path: &Path) {
    let metric = doc::get(source, "metric");
    let path = path.child("metric");
    let name = doc::text(metric, "name");
    if name.is_empty() {
        errors.required(&path.child("name"), "must specify a metric name");
    } else {
        errors.all_invalid(&path.child("name"), name, names::path_segment(name));
    }
    labels::selector(errors, metric, "selector", &path);
}

fn metric_target(errors: &mut Errors, target: &Value, path: &Path) {
    let kind = doc::text(target, "type");
    if kind.is_empty() {
        errors.required(&path.child("type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        errors.invalid(
            &path.child("type"),
            kind,
            "must be either Utilization, Value, or AverageValue",
        );
    }
    for key in ["value", "averageValue"] {
        if let Some(value) =
            resources::quantity(doc::get(target, key)).filter(|value| *value <= Quantity::ZERO)
        {
            errors.invalid(&path.child(key), value.to_string(), "must be positive");
        }
    }
    if let Some(share) = doc::int(target, "averageUtilization").filter(|share| *share < 1) {
        errors.invalid(
            &path.child("averageUtilization"),
            share,
            "must be greater than 0",
        );
    }
}

fn scaling_rules(errors: &mut Errors, rules: &Value, path: &Path) {
    errors.nonnegative(rules, "stabilizationWindowSeconds", path);
    if let Some(seconds) =
        doc::int(rules, "stabilizationWindowSeconds").filter(|seconds| *seconds > 3600)
    {
        errors.invalid(
            &path.child("stabilizationWindowSeconds"),
            seconds,
            "must be less than or equal to 3600",
        );
    }
    errors.if_set_one_of(rules, "selectPolicy", path, &["Disabled", "Max", "Min"]);
    let policies = doc::list(rules, "policies");
    let path = path.child("policies");
    if policies.is_empty() {
        errors.required(&path, "must specify at least one Policy");
    }
    for (i, policy) in policies.iter().enumerate() {
        let path = path.index(i);
        let kind = doc::text(policy, "type");
        if !matches!(kind, "Pods" | "Percent") {
            errors.not_supported(&path.child("type"), kind, &["Percent", "Pods"]);
        }
        for key in ["value", "periodSeconds"] {
            let value = doc::int(policy, key).unwrap_or_default();
            if value <= 0 {
                errors.invalid(&path.child(key), value, "must be greater than zero");
            }
        }
        if let Some(seconds) = doc::int(policy, "periodSeconds").filter(|seconds| *seconds > 1800) {
            errors.invalid(
                &path.child("periodSeconds"),
                seconds,
                "must be less than or equal to 1800",
            );
        }
    }
}

/// The status of an autoscaler.
pub(super) fn status(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    let status = doc::get(new, "status");
    for key in ["currentReplicas", "desiredReplicas"] {
        errors.nonnegative(status, key, &Path::new("status"));
    }
}
