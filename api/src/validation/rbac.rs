//! Roles and the bindings of roles.

use orlop_core::field::Path;
use serde_json::Value;

use super::errors::Errors;
use super::meta::{self, NameForm};
use super::{labels, names};
use crate::doc;

const GROUP: &str = "rbac.authorization.k8s.io";

/// A Role, or a ClusterRole.
pub(super) fn role(errors: &mut Errors, document: &Value, namespaced: bool) {
    meta::object_meta(errors, document, namespaced, NameForm::PathSegment);
    for (i, rule) in doc::list(document, "rules").iter().enumerate() {
        policy_rule(errors, rule, namespaced, &Path::new("rules").index(i));
    }
    let aggregation = doc::get(document, "aggregationRule");
    if !namespaced && !aggregation.is_null() {
        let path = Path::new("aggregationRule").child("clusterRoleSelectors");
        let selectors = doc::list(aggregation, "clusterRoleSelectors");
        if selectors.is_empty() {
            errors.required(
                &path,
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            );
        }
        for (i, selector) in selectors.iter().enumerate() {
            let mut own = Errors::new();
            let path = path.index(i);
            let holder = serde_json::json!({"x": selector});
            labels::selector(&mut own, &holder, "x", &Path::root());
            for mut error in own.0 {
                let inner = error
                    .path
                    .as_str()
                    .strip_prefix("x")
                    .unwrap_or_default()
                    .trim_start_matches('.')
                    .to_owned();
                error.path = path.child(&inner);
                errors.0.push(error);
            }
        }
    }
}

fn policy_rule(errors: &mut Errors, rule: &Value, namespaced: bool, path: &Path) {
    let has = |key: &str| !doc::list(rule, key).is_empty();
    if !has("verbs") {
        errors.required(
            &path.child("verbs"),
            "verbs must contain at least one value",
        );
    }
    if has("nonResourceURLs") {
        let own = path.child("nonResourceURLs");
        let value = doc::get(rule, "nonResourceURLs");
        if namespaced {
            errors.invalid(
                &own,
                value.clone(),
                "namespaced rules cannot apply to non-resource URLs",
            );
        }
        if has("apiGroups") || has("resources") || has("resourceNames") {
            errors.invalid(
                &own,
                value.clone(),
                "rules cannot apply to both regular resources and non-resource URLs",
            );
        }
        return;
    }
    if !has("apiGroups") {
        errors.required(
            &path.child("apiGroups"),
            "resource rules must supply at least one api group",
        );
    }
    if !has("resources") {
        errors.required(
            &path.child("resources"),
            "resource rules must supply at least one resource",
        );
    }
}

/// A role that replaces an older one.
pub(super) fn role_update(errors: &mut Errors, new: &Value, old: &Value, namespaced: bool) {
    role(errors, new, namespaced);
    meta::object_meta_update(errors, new, old);
}

/// A RoleBinding, or a ClusterRoleBinding.
pub(super) fn binding(errors: &mut Errors, document: &Value, namespaced: bool) {
    meta::object_meta(errors, document, namespaced, NameForm::PathSegment);
    let reference = doc::get(document, "roleRef");
    let path = Path::new("roleRef");
    let group = doc::text(reference, "apiGroup");
    if group != GROUP {
        errors.not_supported(&path.child("apiGroup"), group, &[GROUP]);
    }
    let kinds: &[&str] = if namespaced {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    let kind = doc::text(reference, "kind");
    if !kinds.contains(&kind) {
        errors.not_supported(&path.child("kind"), kind, kinds);
    }
    let name = doc::text(reference, "name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.all_invalid(&path.child("name"), name, names::path_segment(name));
    }
    for (i, subject) in doc::list(document, "subjects").iter().enumerate() {
        self::subject(errors, subject, namespaced, &Path::new("subjects").index(i));
    }
}

fn subject(errors: &mut Errors, subject: &Value, namespaced: bool, path: &Path) {
    let name = doc::text(subject, "name");
    let group = doc::text(subject, "apiGroup");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    match doc::text(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.all_invalid(&path.child("name"), name, names::dns_subdomain(name));
            }
            if !group.is_empty() {
                errors.not_supported(&path.child("apiGroup"), group, &[""]);
            }
            if !namespaced && doc::text(subject, "namespace").is_empty() {
                errors.required(&path.child("namespace"), "");
            }
        }
        kind @ ("User" | "Group") => {
            if name.is_empty() {
                errors.invalid(
                    &path.child("name"),
                    name,
                    format!("{} name cannot be empty", kind.to_lowercase()),
                );
            }
            if group != GROUP {
                errors.not_supported(&path.child("apiGroup"), group, &[GROUP]);
            }
        }
        other => errors.not_supported(
            &path.child("kind"),
            other,
            &["ServiceAccount", "User", "Group"],
        ),
    }
}

/// A binding that replaces an older one: the role it binds stays.
pub(super) fn binding_update(errors: &mut Errors, new: &Value, old: &Value, namespaced: bool) {
    binding(errors, new, namespaced);
    meta::object_meta_update(errors, new, old);
    let (now, before) = (doc::get(new, "roleRef"), doc::get(old, "roleRef"));
    if ["apiGroup", "kind", "name"]
        .iter()
        .any(|key| doc::text(now, key) != doc::text(before, key))
    {
        errors.invalid(
            &Path::new("roleRef"),
            serde_json::json!({
                "APIGroup": doc::text(now, "apiGroup"), "Kind": doc::text(now, "kind"), "Name": doc::text(now, "name")
            }),
            "cannot change roleRef",
        );
    }
}
