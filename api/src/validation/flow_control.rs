//! FlowSchemas and PriorityLevelConfigurations.

use orlop_core::field::Path;
use serde_json::Value;

use super::errors::Errors;
use super::meta::{self, NameForm};
use crate::doc;

/// A FlowSchema.
pub(super) fn flow_schema(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, false, NameForm::Subdomain);
    let spec = doc::get(document, "spec");
    let path = Path::new("spec");
    let precedence = doc::int(spec, "matchingPrecedence").unwrap_or_default();
    if precedence <= 0 {
        errors.invalid(
            &path.child("matchingPrecedence"),
            precedence,
            "must be a positive value",
        );
    }
    if precedence > 10_000 {
        errors.invalid(
            &path.child("matchingPrecedence"),
            precedence,
            "must not be greater than 10000",
        );
    }
    let level = doc::text(doc::get(spec, "priorityLevelConfiguration"), "name");
    if level.is_empty() {
        errors.required(
            &path.child("priorityLevelConfiguration").child("name"),
            "must reference a priority level",
        );
    }
    let method = doc::get(spec, "distinguisherMethod");
    if !method.is_null() {
        let kind = doc::text(method, "type");
        if !matches!(kind, "ByNamespace" | "ByUser") {
            errors.not_supported(
                &path.child("distinguisherMethod").child("type"),
                kind,
                &["ByNamespace", "ByUser"],
            );
        }
    }
    for (i, rule) in doc::list(spec, "rules").iter().enumerate() {
        let path = path.child("rules").index(i);
        if doc::list(rule, "subjects").is_empty() {
            errors.required(
                &path.child("subjects"),
                "subjects must contain at least one value",
            );
        }
        if doc::list(rule, "resourceRules").is_empty()
            && doc::list(rule, "nonResourceRules").is_empty()
        {
            errors.required(
                &path,
                "at least one of resourceRules and nonResourceRules has to be non-empty",
            );
        }
        for (i, rule) in doc::list(rule, "resourceRules").iter().enumerate() {
            let path = path.child("resourceRules").index(i);
            for key in ["verbs", "apiGroups", "resources"] {
                if doc::list(rule, key).is_empty() {
                    errors.required(&path.child(key), "");
                }
            }
            if doc::list(rule, "namespaces").is_empty() && !doc::flag(rule, "clusterScope") {
                errors.required(
                    &path.child("namespaces"),
                    "resource rules that are not cluster scoped must supply at least one namespace",
                );
            }
        }
    }
}

/// A PriorityLevelConfiguration.
pub(super) fn priority_level(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, false, NameForm::Subdomain);
    let spec = doc::get(document, "spec");
    let path = Path::new("spec");
    let limited = doc::get(spec, "limited");
    match doc::text(spec, "type") {
        "Exempt" => {
            if !limited.is_null() {
                errors.forbidden(&path.child("limited"), "must be nil if the type is Exempt");
            }
        }
        "Limited" => {
            if doc::has(spec, "exempt") {
                errors.forbidden(&path.child("exempt"), "must be nil if the type is Limited");
            }
            if limited.is_null() {
                errors.required(
                    &path.child("limited"),
                    "must not be empty when type is Limited",
                );
            } else {
                queuing(errors, limited, &path.child("limited"));
            }
        }
        other => errors.not_supported(&path.child("type"), other, &["Exempt", "Limited"]),
    }
}

fn queuing(errors: &mut Errors, limited: &Value, path: &Path) {
    let shares = doc::int(limited, "nominalConcurrencyShares").unwrap_or_default();
    if shares < 0 {
        errors.invalid(
            &path.child("nominalConcurrencyShares"),
            shares,
            "must be a non-negative integer",
        );
    }
    if let Some(share) =
        doc::int(limited, "lendablePercent").filter(|share| !(0..=100).contains(share))
    {
        errors.invalid(
            &path.child("lendablePercent"),
            share,
            "must be between 0 and 100, inclusive",
        );
    }
    let response = doc::get(limited, "limitResponse");
    let queuing = doc::get(response, "queuing");
    let path = path.child("limitResponse");
    match doc::text(response, "type") {
        "Reject" => {
            if !queuing.is_null() {
                errors.forbidden(
                    &path.child("queuing"),
                    "must be nil if limited.limitResponse.type is not Limited",
                );
            }
        }
        "Queue" => {
            if queuing.is_null() {
                errors.required(
                    &path.child("queuing"),
                    "must not be empty if limited.limitResponse.type is Limited",
                );
                return;
            }
            for (key, max) in [
                ("queueLengthLimit", i64::MAX),
                ("queues", 10_000_000),
                ("handSize", i64::MAX),
            ] {
                let value = doc::int(queuing, key).unwrap_or_default();
                let path = path.child("queuing").child(key);
                if value <= 0 {
                    errors.invalid(&path, value, "must be positive");
                } else if value > max {
                    errors.invalid(&path, value, format!("must not be greater than {max}"));
                }
            }
            let of = |key: &str| doc::int(queuing, key).unwrap_or_default();
            if of("handSize") > of("queues") {
                errors.invalid(
                    &path.child("queuing").child("handSize"),
                    of("handSize"),
                    format!("should not be greater than queues ({})", of("queues")),
                );
            }
        }
        other => errors.not_supported(&path.child("type"), other, &["Queue", "Reject"]),
    }
}
