//! LimitRanges and ResourceQuotas.

use std::collections::BTreeSet;

use orlop_core::field::Path;
use orlop_core::quantity::Quantity;
use serde_json::Value;

use super::errors::Errors;
use super::meta::{self, NameForm};
use super::{names, resources};
use crate::doc;

/// A LimitRange.
pub(super) fn limit_range(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    let mut seen = BTreeSet::new();
    for (i, limit) in doc::list(doc::get(document, "spec"), "limits")
        .iter()
        .enumerate()
    {
        let path = Path::new("spec").child("limits").index(i);
        let kind = doc::text(limit, "type");
        let complaints = names::qualified_name(kind);
        if !complaints.is_empty() {
            errors.all_invalid(&path.child("type"), kind, complaints);
        } else if !kind.contains('/')
            && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim")
        {
            errors.invalid(
                &path.child("type"),
                kind,
                "must be a standard limit type or fully qualified",
            );
        }
        if !seen.insert(kind) {
            errors.duplicate(&path.child("type"), kind);
        }
        one_limit(errors, limit, kind, &path);
    }
}

fn one_limit(errors: &mut Errors, limit: &Value, kind: &str, path: &Path) {
    let mut sections = vec!["max", "min"];
    if kind == "Pod" {
        for key in ["default", "defaultRequest"] {
            if !doc::is_empty(doc::get(limit, key)) {
                errors.forbidden(
                    &path.child(key),
                    "may not be specified when `type` is 'Pod'",
                );
            }
        }
    } else {
        sections.extend(["default", "defaultRequest"]);
    }
    sections.push("maxLimitRequestRatio");
    let mut all = BTreeSet::new();
    for section in &sections {
        if *section == "maxLimitRequestRatio" && kind == "PersistentVolumeClaim" {
            let bound = |key| doc::has(doc::get(limit, key), "storage");
            if !bound("min") && !bound("max") {
                errors.required(
                    &path.child("limits"),
                    "either minimum or maximum storage value is required, but neither was provided",
                );
            }
        }
        for (name, _) in doc::entries(limit, section) {
            let path = path.child(section).key(name);
            if matches!(kind, "Pod" | "Container") {
                resources::container_resource_name(errors, name, &path);
            } else {
                resources::resource_name(errors, name, &path);
            }
            all.insert(name);
        }
    }
    for name in all {
        compare(errors, limit, kind, name, path);
    }
}

fn compare(errors: &mut Errors, limit: &Value, kind: &str, name: &str, path: &Path) {
    let of = |section: &str| -> Option<Quantity> {
        if kind == "Pod" && section.starts_with("default") {
            return None;
        }
        resources::quantity(doc::get(doc::get(limit, section), name))
    };
    let (min, max, default, request) = (of("min"), of("max"), of("default"), of("defaultRequest"));
    // Which bound is compared with which, under which field it is reported, and in which words.
    let checks = [
        (&min, &max, "min", true, "min value", "max value"),
        (
            &min,
            &request,
            "defaultRequest",
            false,
            "min value",
            "default request value",
        ),
        (
            &request,
            &max,
            "defaultRequest",
            true,
            "default request value",
            "max value",
        ),
        (
            &request,
            &default,
            "defaultRequest",
            true,
            "default request value",
            "default limit value",
        ),
        (
            &min,
            &default,
            "default",
            true,
            "min value",
            "default value",
        ),
        (
            &default,
            &max,
            "default",
            false,
            "default value",
            "max value",
        ),
    ];
    for (low, high, field, show_low, low_words, high_words) in checks {
        if let (Some(low), Some(high)) = (low, high)
            && low > high
        {
            let shown = if show_low { low } else { high };
            errors.invalid(
                &path.child(field).key(name),
                shown.to_string(),
                format!("{low_words} {low} is greater than {high_words} {high}"),
            );
        }
    }
    let ratio_path = path.child("maxLimitRequestRatio").key(name);
    if let Some(ratio) = of("maxLimitRequestRatio") {
        if ratio < Quantity::from_milli(1000) {
            errors.invalid(
                &ratio_path,
                ratio.to_string(),
                format!("ratio {ratio} is less than 1"),
            );
        }
        if let (Some(min), Some(max)) = (&min, &max) {
            let bound = max.approximate() / min.approximate();
            if ratio.approximate() > bound {
                errors.invalid(
                    &ratio_path,
                    ratio.to_string(),
                    format!("ratio {ratio} is greater than max/min = {bound:.6}"),
                );
            }
        }
    }
    if let (Some(default), Some(request)) = (&default, &request)
        && !resources::may_overcommit(name)
        && default != request
    {
        errors.invalid(
            &path.child("defaultRequest").key(name),
            request.to_string(),
            format!(
                "default value {default} must equal to defaultRequest value {request} in {name}"
            ),
        );
    }
}

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// Whether a scope can narrow what is counted of a resource.
fn scope_fits(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        _ => {
            matches!(
                resource,
                "pods"
                    | "cpu"
                    | "memory"
                    | "ephemeral-storage"
                    | "requests.cpu"
                    | "requests.memory"
                    | "requests.ephemeral-storage"
                    | "limits.cpu"
                    | "limits.memory"
                    | "limits.ephemeral-storage"
            ) || resource.contains("hugepages-")
        }
    }
}

/// A ResourceQuota.
pub(super) fn quota(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    quota_spec(errors, doc::get(document, "spec"));
    quota_amounts(
        errors,
        doc::get(document, "status"),
        &Path::new("status"),
        &["hard", "used"],
    );
}

fn quota_amounts(errors: &mut Errors, of: &Value, path: &Path, sections: &[&str]) {
    for section in sections {
        for (name, value) in doc::entries(of, section) {
            let path = path.child(section).key(name);
            resources::quota_resource_name(errors, name, &path);
            resources::amount(errors, name, value, &path);
        }
    }
}

fn quota_spec(errors: &mut Errors, spec: &Value) {
    let path = Path::new("spec");
    quota_amounts(errors, spec, &path, &["hard"]);
    let hard: Vec<&str> = doc::entries(spec, "hard")
        .map(|(name, _)| name)
        .filter(|name| resources::is_standard_quota(name))
        .collect();
    let scopes_value = doc::get(spec, "scopes");
    let own = path.child("scopes");
    let scopes: Vec<&str> = doc::texts(spec, "scopes").collect();
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            errors.invalid(&own, scopes_value.clone(), "unsupported scope");
        }
        for _ in hard.iter().filter(|name| !scope_fits(scope, name)) {
            errors.invalid(
                &own,
                scopes_value.clone(),
                "unsupported scope applied to resource",
            );
        }
    }
    conflicting(errors, &scopes, scopes_value, &own);
    let selector = doc::get(spec, "scopeSelector");
    if selector.is_null() {
        return;
    }
    let path = path.child("scopeSelector").child("matchExpressions");
    let requirements = doc::list(selector, "matchExpressions");
    for requirement in requirements {
        let scope = doc::text(requirement, "scopeName");
        let operator = doc::text(requirement, "operator");
        if !SCOPES.contains(&scope) {
            errors.invalid(&path.child("scopeName"), scope, "unsupported scope");
        }
        for _ in hard.iter().filter(|name| !scope_fits(scope, name)) {
            errors.invalid(
                &path,
                selector.clone(),
                "unsupported scope applied to resource",
            );
        }
        if !matches!(scope, "PriorityClass" | "VolumeAttributesClass")
            && SCOPES.contains(&scope)
            && operator != "Exists"
        {
            errors.invalid(
                &path.child("operator"),
                operator,
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                 ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                 ResourceQuotaScopeCrossNamespacePodAffinity",
            );
        }
        let values = doc::list(requirement, "values");
        match operator {
            "In" | "NotIn" if values.is_empty() => errors.required(
                &path.child("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.invalid(
                &path.child("values"),
                doc::get(requirement, "values").clone(),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(
                &path.child("operator"),
                other,
                "not a valid selector operator",
            ),
        }
    }
    let scopes: Vec<&str> = requirements
        .iter()
        .map(|requirement| doc::text(requirement, "scopeName"))
        .collect();
    conflicting(errors, &scopes, scopes_value, &path);
}

fn conflicting(errors: &mut Errors, scopes: &[&str], value: &Value, path: &Path) {
    for (one, other) in [
        ("BestEffort", "NotBestEffort"),
        ("Terminating", "NotTerminating"),
    ] {
        if scopes.contains(&one) && scopes.contains(&other) {
            errors.invalid(path, value.clone(), "conflicting scopes");
        }
    }
}

/// A ResourceQuota that replaces an older one.
pub(super) fn quota_update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    let (spec, before) = (doc::get(new, "spec"), doc::get(old, "spec"));
    quota_spec(errors, spec);
    let (now, was): (BTreeSet<&str>, BTreeSet<&str>) = (
        doc::texts(spec, "scopes").collect(),
        doc::texts(before, "scopes").collect(),
    );
    if now != was {
        errors.invalid(
            &Path::new("spec").child("scopes"),
            doc::get(spec, "scopes").clone(),
            "field is immutable",
        );
    }
}

/// The status of a ResourceQuota.
pub(super) fn quota_status(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    quota_amounts(
        errors,
        doc::get(new, "status"),
        &Path::new("status"),
        &["hard", "used"],
    );
}
