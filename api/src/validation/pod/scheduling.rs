//! Where a pod may go: affinity, tolerations, spreading, gates.

use std::collections::BTreeSet;

use orlop_core::field::Path;
use serde_json::Value;

use crate::doc;
use crate::validation::errors::Errors;
use crate::validation::{labels, names};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// `affinity`.
pub(super) fn affinity(errors: &mut Errors, spec: &Value, path: &Path) {
    let affinity = doc::get(spec, "affinity");
    let path = path.child("affinity");
    let node = doc::get(affinity, "nodeAffinity");
    let node_path = path.child("nodeAffinity");
    if doc::has(node, REQUIRED) {
        node_selector(
            errors,
            doc::get(node, REQUIRED),
            true,
            &node_path.child(REQUIRED),
        );
    }
    for (i, term) in doc::list(node, PREFERRED).iter().enumerate() {
        let path = node_path.child(PREFERRED).index(i);
        weight(errors, term, &path);
        node_selector_term(
            errors,
            doc::get(term, "preference"),
            false,
            &path.child("preference"),
        );
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        let pods = doc::get(affinity, key);
        let path = path.child(key);
        for (i, term) in doc::list(pods, REQUIRED).iter().enumerate() {
            pod_term(errors, term, &path.child(REQUIRED).index(i));
        }
        for (i, term) in doc::list(pods, PREFERRED).iter().enumerate() {
            let path = path.child(PREFERRED).index(i);
            weight(errors, term, &path);
            pod_term(
                errors,
                doc::get(term, "podAffinityTerm"),
                &path.child("podAffinityTerm"),
            );
        }
    }
}

fn weight(errors: &mut Errors, term: &Value, path: &Path) {
    let weight = doc::int(term, "weight").unwrap_or_default();
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

/// A node selector; `strict` looks at the values of labels too.
pub(crate) fn node_selector(errors: &mut Errors, selector: &Value, strict: bool, path: &Path) {
    let path = path.child("nodeSelectorTerms");
    let terms = doc::list(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(&path, "must have at least one node selector term");
    }
    for (i, term) in terms.iter().enumerate() {
        node_selector_term(errors, term, strict, &path.index(i));
    }
}

fn node_selector_term(errors: &mut Errors, term: &Value, strict: bool, path: &Path) {
    for (i, requirement) in doc::list(term, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(i);
        let values = doc::list(requirement, "values");
        let values_path = path.child("values");
        match doc::text(requirement, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(
                    &values_path,
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.forbidden(
                    &values_path,
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "Gt" | "Lt" if values.len() != 1 => {
                errors.required(
                    &values_path,
                    "must be specified single value when `operator` is 'Lt' or 'Gt'",
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.invalid(
                &path.child("operator"),
                other,
                "not a valid selector operator",
            ),
        }
        labels::label_key(errors, doc::text(requirement, "key"), &path.child("key"));
        if strict {
            for (i, value) in doc::texts(requirement, "values").enumerate() {
                errors.all_invalid(&values_path.index(i), value, names::label_value(value));
            }
        }
    }
    for (i, requirement) in doc::list(term, "matchFields").iter().enumerate() {
        let path = path.child("matchFields").index(i);
        match doc::text(requirement, "operator") {
            "In" | "NotIn" => {
                if doc::list(requirement, "values").len() != 1 {
                    errors.required(
                        &path.child("values"),
                        "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
                    );
                }
            }
            other => errors.invalid(
                &path.child("operator"),
                other,
                "not a valid selector operator",
            ),
        }
        let key = doc::text(requirement, "key");
        if key == "metadata.name" {
            for (i, value) in doc::texts(requirement, "values").enumerate() {
                errors.all_invalid(
                    &path.child("values").index(i),
                    value,
                    names::dns_subdomain(value),
                );
            }
        } else {
            errors.invalid(&path.child("key"), key, "not a valid field selector key");
        }
    }
}

fn pod_term(errors: &mut Errors, term: &Value, path: &Path) {
    labels::selector(errors, term, "labelSelector", path);
    labels::selector(errors, term, "namespaceSelector", path);
    for namespace in doc::texts(term, "namespaces") {
        errors.all_invalid(
            &path.child("namespace"),
            namespace,
            names::dns_label(namespace),
        );
    }
    let selector = doc::get(term, "labelSelector");
    for key in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = doc::list(term, key);
        if keys.is_empty() {
            continue;
        }
        if selector.is_null() {
            errors.forbidden(
                &path.child(key),
                "must not be specified when labelSelector is not set",
            );
            continue;
        }
        for (i, name) in doc::texts(term, key).enumerate() {
            labels::label_key(errors, name, &path.child(key).index(i));
        }
    }
    repeated_keys(errors, term, path);
    let mismatched: BTreeSet<&str> = doc::texts(term, "mismatchLabelKeys").collect();
    for (i, name) in doc::texts(term, "matchLabelKeys")
        .enumerate()
        .filter(|(_, name)| mismatched.contains(name))
    {
        errors.invalid(
            &path.child("matchLabelKeys").index(i),
            name,
            "exists in both matchLabelKeys and mismatchLabelKeys",
        );
    }
    let topology = doc::text(term, "topologyKey");
    if topology.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    }
    labels::label_key(errors, topology, &path.child("topologyKey"));
}

/// `tolerations`.
pub(super) fn tolerations(errors: &mut Errors, spec: &Value, path: &Path) {
    let path = path.child("tolerations");
    for (i, toleration) in doc::list(spec, "tolerations").iter().enumerate() {
        let path = path.index(i);
        let key = doc::text(toleration, "key");
        let operator = doc::text(toleration, "operator");
        let value = doc::text(toleration, "value");
        let effect = doc::text(toleration, "effect");
        if !key.is_empty() {
            labels::label_key(errors, key, &path.child("key"));
        }
        if key.is_empty() && operator != "Exists" {
            errors.invalid(
                &path.child("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if doc::has(toleration, "tolerationSeconds") && effect != "NoExecute" {
            errors.invalid(
                &path.child("effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        match operator {
            "" | "Equal" => {
                let complaints = names::label_value(value);
                if !complaints.is_empty() {
                    errors.invalid(&path.child("operator"), value, complaints.join(";"));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    errors.invalid(
                        &path.child("operator"),
                        value,
                        "value must be empty when `operator` is 'Exists'",
                    );
                }
            }
            other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            taint_effect(errors, effect, &path.child("effect"));
        }
    }
}

/// The effect of a taint.
pub(crate) fn taint_effect(errors: &mut Errors, effect: &str, path: &Path) {
    const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
    if !EFFECTS.contains(&effect) {
        errors.not_supported(path, effect, EFFECTS);
    }
}

/// `topologySpreadConstraints`.
pub(super) fn spread(errors: &mut Errors, spec: &Value, path: &Path) {
    let path = path.child("topologySpreadConstraints");
    let constraints = doc::list(spec, "topologySpreadConstraints");
    for (i, constraint) in constraints.iter().enumerate() {
        let path = path.index(i);
        let topology = doc::text(constraint, "topologyKey");
        let action = doc::text(constraint, "whenUnsatisfiable");
        let skew = doc::int(constraint, "maxSkew").unwrap_or_default();
        if skew <= 0 {
            errors.invalid(&path.child("maxSkew"), skew, "must be greater than zero");
        }
        if topology.is_empty() {
            errors.required(&path.child("topologyKey"), "can not be empty");
        }
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            errors.not_supported(
                &path.child("whenUnsatisfiable"),
                action,
                &["DoNotSchedule", "ScheduleAnyway"],
            );
        }
        let again = constraints[i + 1..].iter().any(|other| {
            doc::text(other, "topologyKey") == topology
                && doc::text(other, "whenUnsatisfiable") == action
        });
        if again {
            errors.duplicate(
                &path.child("{topologyKey, whenUnsatisfiable}"),
                format!("{{{topology}, {action}}}"),
            );
        }
        if let Some(domains) = doc::int(constraint, "minDomains") {
            if domains <= 0 {
                errors.invalid(
                    &path.child("minDomains"),
                    domains,
                    "must be greater than zero",
                );
            }
            if action != "DoNotSchedule" {
                errors.invalid(
                    &path.child("minDomains"),
                    domains,
                    format!(
                        "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                    ),
                );
            }
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            errors.if_set_one_of(constraint, key, &path, &["Honor", "Ignore"]);
        }
        match_label_keys(errors, constraint, &path.child("matchLabelKeys"));
        labels::selector(errors, constraint, "labelSelector", &path);
    }
}

fn match_label_keys(errors: &mut Errors, constraint: &Value, path: &Path) {
    if doc::list(constraint, "matchLabelKeys").is_empty() {
        return;
    }
    let selector = doc::get(constraint, "labelSelector");
    if selector.is_null() {
        errors.forbidden(path, "must not be specified when labelSelector is not set");
    }
    for (i, key) in doc::texts(constraint, "matchLabelKeys").enumerate() {
        labels::label_key(errors, key, &path.index(i));
    }
    repeated_keys(errors, constraint, path);
}

/// Keys of `matchLabelKeys` are written out as requirements when a pod is created, so a key that the selector requires twice was
/// required by its author too.
fn repeated_keys(errors: &mut Errors, of: &Value, path: &Path) {
    let selector = doc::get(of, "labelSelector");
    let keys: Vec<&str> = doc::texts(of, "matchLabelKeys").collect();
    let mut seen: BTreeSet<&str> = doc::entries(selector, "matchLabels")
        .map(|(key, _)| key)
        .collect();
    for requirement in doc::list(selector, "matchExpressions") {
        let key = doc::text(requirement, "key");
        if let Some(i) = keys.iter().position(|other| *other == key)
            && seen.contains(key)
        {
            errors.invalid(
                &path.index(i),
                key,
                "exists in both matchLabelKeys and labelSelector",
            );
        }
        seen.insert(key);
    }
}

/// `schedulingGates`.
pub(super) fn gates(errors: &mut Errors, spec: &Value, path: &Path) {
    let mut seen = BTreeSet::new();
    for (i, gate) in doc::list(spec, "schedulingGates").iter().enumerate() {
        let path = path.child("schedulingGates").index(i);
        let name = doc::text(gate, "name");
        errors.all_invalid(&path, name, names::qualified_name(name));
        if !seen.insert(name) {
            errors.duplicate(&path, name);
        }
    }
}
