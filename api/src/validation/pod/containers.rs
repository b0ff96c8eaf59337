//! Containers of all three sorts, and what stands in one.

use std::collections::BTreeSet;

use orlop_core::field::Path;
use serde_json::Value;

use super::Scope;
use super::mounts;
use super::{env, probes, security};
use crate::doc;
use crate::validation::errors::Errors;
use crate::validation::{names, resources};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// What may be set on an ephemeral container.
const EPHEMERAL_FIELDS: &[&str] = &[
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "envFrom",
    "env",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
    "targetContainerName",
];

/// The fields of a container in the order in which Kubernetes declares them.
const CONTAINER_FIELDS: &[&str] = &[
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

/// `containers`.
pub(super) fn containers(errors: &mut Errors, spec: &Value, scope: &Scope<'_>, path: &Path) {
    let path = path.child("containers");
    let containers = doc::list(spec, "containers");
    if containers.is_empty() {
        errors.required(&path, "");
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        let path = path.index(i);
        common(errors, container, scope, &path);
        let name = doc::text(container, "name");
        if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        lifecycle_and_probes(errors, container, scope, &path);
        restart_rules(errors, container, &path);
    }
    host_port_conflicts(errors, containers, &path);
}

/// `initContainers`.
pub(super) fn init_containers(errors: &mut Errors, spec: &Value, scope: &Scope<'_>, path: &Path) {
    let path = path.child("initContainers");
    let mut seen: BTreeSet<&str> = doc::list(spec, "containers")
        .iter()
        .map(|c| doc::text(c, "name"))
        .collect();
    for (i, container) in doc::list(spec, "initContainers").iter().enumerate() {
        let list_path = &path;
        let path = path.index(i);
        common(errors, container, scope, &path);
        restart_rules(errors, container, &path);
        let name = doc::text(container, "name");
        if seen.contains(name) {
            errors.duplicate(&path.child("name"), name);
        } else if !name.is_empty() {
            seen.insert(name);
        }
        host_port_conflicts(errors, std::slice::from_ref(container), list_path);
        if resources::is_sidecar(container) {
            lifecycle_and_probes(errors, container, scope, &path);
        } else {
            for key in [
                "lifecycle",
                "livenessProbe",
                "readinessProbe",
                "startupProbe",
            ] {
                if doc::has(container, key) {
                    errors.forbidden(
                        &path.child(key),
                        "may not be set for init containers without restartPolicy=Always",
                    );
                }
            }
        }
    }
}

/// `ephemeralContainers`.
pub(super) fn ephemeral_containers(
    errors: &mut Errors,
    spec: &Value,
    scope: &Scope<'_>,
    path: &Path,
) {
    let path = path.child("ephemeralContainers");
    let others: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|key| doc::list(spec, key))
        .map(|container| doc::text(container, "name"))
        .collect();
    let mut all = others.clone();
    for (i, container) in doc::list(spec, "ephemeralContainers").iter().enumerate() {
        let path = path.index(i);
        common(errors, container, scope, &path);
        image_whitespace(errors, container, &path);
        let name = doc::text(container, "name");
        if !all.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        let target = doc::text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            errors.not_found(&path.child("targetContainerName"), target);
        }
        for key in CONTAINER_FIELDS
            .iter()
            .filter(|key| !EPHEMERAL_FIELDS.contains(key))
        {
            if !doc::is_empty(doc::get(container, key)) {
                errors.forbidden(&path.child(key), "cannot be set for an Ephemeral Container");
            }
        }
        for (i, mount) in doc::list(container, "volumeMounts").iter().enumerate() {
            for key in ["subPath", "subPathExpr"] {
                if !doc::text(mount, key).is_empty() {
                    errors.forbidden(
                        &path.child("volumeMounts").index(i).child(key),
                        "cannot be set for an Ephemeral Container",
                    );
                }
            }
        }
    }
}

/// What holds for every container.
fn common(errors: &mut Errors, container: &Value, scope: &Scope<'_>, path: &Path) {
    let name = doc::text(container, "name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.all_invalid(&path.child("name"), name, names::dns_label(name));
    }
    errors.need_text(container, "image", path);
    errors.one_of(
        container,
        "terminationMessagePolicy",
        path,
        &["File", "FallbackToLogsOnError"],
    );
    ports(errors, container, &path.child("ports"));
    env::env(errors, container, scope, &path.child("env"));
    env::env_from(errors, container, &path.child("envFrom"));
    mounts::mounts(errors, container, scope, &path.child("volumeMounts"));
    mounts::devices(errors, container, scope, &path.child("volumeDevices"));
    pull_policy(errors, container, "imagePullPolicy", path);
    resources::requirements(
        errors,
        doc::get(container, "resources"),
        &scope.claims,
        &path.child("resources"),
        resources::Asker::Container,
    );
    resize_policy(errors, container, scope, &path.child("resizePolicy"));
    security::container(errors, container, scope, &path.child("securityContext"));
}

/// When an image is fetched.
pub(super) fn pull_policy(errors: &mut Errors, of: &Value, key: &str, path: &Path) {
    errors.one_of(of, key, path, &["Always", "IfNotPresent", "Never"]);
}

fn lifecycle_and_probes(errors: &mut Errors, container: &Value, scope: &Scope<'_>, path: &Path) {
    let lifecycle = doc::get(container, "lifecycle");
    for key in ["postStart", "preStop"] {
        let hook = doc::get(lifecycle, key);
        if !hook.is_null() {
            probes::hook(
                errors,
                hook,
                scope.grace,
                &path.child("lifecycle").child(key),
            );
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        probes::probe(errors, container, key, path);
    }
}

/// `restartPolicy` of one container, and the rules that refine it.
fn restart_rules(errors: &mut Errors, container: &Value, path: &Path) {
    errors.if_set_one_of(
        container,
        "restartPolicy",
        path,
        &["Always", "Never", "OnFailure"],
    );
    let rules = doc::list(container, "restartPolicyRules");
    if rules.is_empty() {
        return;
    }
    if !doc::has(container, "restartPolicy") {
        errors.required(
            &path.child("restartPolicy"),
            "must specify restartPolicy when restart rules are used",
        );
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > 20 {
        errors.too_many(&path, rules.len(), 20);
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        errors.one_of(rule, "action", &path, &["Restart", "RestartAllContainers"]);
        let exit_codes = doc::get(rule, "exitCodes");
        if exit_codes.is_null() {
            errors.required(&path.child("exitCodes"), "must be specified");
            continue;
        }
        let path = path.child("exitCodes");
        errors.one_of(exit_codes, "operator", &path, &["In", "NotIn"]);
        let values = doc::list(exit_codes, "values");
        if values.len() > 255 {
            errors.too_many(&path.child("values"), values.len(), 255);
        }
    }
}

fn ports(errors: &mut Errors, container: &Value, path: &Path) {
    let mut seen = BTreeSet::new();
    for (i, port) in doc::list(container, "ports").iter().enumerate() {
        let path = path.index(i);
        let name = doc::text(port, "name");
        if !name.is_empty() {
            let complaints = names::port_name(name);
            if !complaints.is_empty() {
                errors.all_invalid(&path.child("name"), name, complaints);
            } else if !seen.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
        let number = doc::int(port, "containerPort").unwrap_or_default();
        if number == 0 {
            errors.required(&path.child("containerPort"), "");
        } else {
            port_number(errors, number, &path.child("containerPort"));
        }
        let host = doc::int(port, "hostPort").unwrap_or_default();
        if host != 0 {
            port_number(errors, host, &path.child("hostPort"));
        }
        errors.one_of(port, "protocol", &path, PROTOCOLS);
    }
}

fn port_number(errors: &mut Errors, number: i64, path: &Path) {
    for complaint in names::port_number(number) {
        errors.invalid(path, number, complaint);
    }
}

fn host_port_conflicts(errors: &mut Errors, containers: &[Value], path: &Path) {
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in doc::list(container, "ports").iter().enumerate() {
            let Some(number) = doc::int(port, "hostPort").filter(|number| *number != 0) else {
                continue;
            };
            let key = format!(
                "{}/{}/{number}",
                doc::text(port, "protocol"),
                doc::text(port, "hostIP")
            );
            if !seen.insert(key.clone()) {
                errors.duplicate(
                    &path.index(i).child("ports").index(j).child("hostPort"),
                    key,
                );
            }
        }
    }
}

fn resize_policy(errors: &mut Errors, container: &Value, scope: &Scope<'_>, path: &Path) {
    let mut seen = BTreeSet::new();
    for (i, policy) in doc::list(container, "resizePolicy").iter().enumerate() {
        let resource = doc::text(policy, "resourceName");
        if !seen.insert(resource) {
            errors.duplicate(&path.index(i), resource);
        }
        let restart = doc::text(policy, "restartPolicy");
        for (value, supported) in [
            (resource, ["cpu", "memory"]),
            (restart, ["NotRequired", "RestartContainer"]),
        ] {
            if value.is_empty() {
                errors.required(path, "");
            } else if !supported.contains(&value) {
                errors.not_supported(path, value, &supported);
            }
        }
        if scope.restart_policy == "Never" && restart != "NotRequired" {
            errors.invalid(
                path,
                restart,
                "must be 'NotRequired' when `restartPolicy` is 'Never'",
            );
        }
    }
}

/// A pod's image has no space around it; a template's may, for old times' sake.
pub(super) fn image_whitespace(errors: &mut Errors, container: &Value, path: &Path) {
    let image = doc::text(container, "image");
    if image.trim() != image {
        errors.invalid(
            &path.child("image"),
            image,
            "must not have leading or trailing whitespace",
        );
    }
}
