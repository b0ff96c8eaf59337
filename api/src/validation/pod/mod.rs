//! Pods and pod templates.

mod containers;
mod diff;
mod env;
pub(crate) mod mounts;
pub(crate) mod probes;
pub(crate) mod scheduling;
mod security;
mod update;
pub(crate) mod volumes;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use orlop_core::field::Path;
use serde_json::Value;

pub(crate) use diff::diff;
pub(super) use update::{binding, ephemeral_containers, resize, status, update};

use super::errors::Errors;
use super::meta::{self, NameForm};
use super::{labels, names, resources};
use crate::doc;

/// What the checks of a container need to know of its pod.
struct Scope<'a> {
    /// The good volumes, by name.
    volumes: BTreeMap<&'a str, &'a Value>,
    /// The names of the resource claims.
    claims: BTreeSet<&'a str>,
    /// The grace period of the pod.
    grace: Option<i64>,
    /// The restart policy of the pod.
    restart_policy: &'a str,
    /// Whether the pod shares the users of the host.
    host_users: bool,
}

/// A pod that is created.
pub(super) fn create(errors: &mut Errors, pod: &Value) {
    meta_and_spec(errors, pod);
    let path = Path::new("spec");
    let spec = doc::get(pod, "spec");
    if !doc::list(spec, "ephemeralContainers").is_empty() {
        errors.forbidden(
            &path.child("ephemeralContainers"),
            "cannot be set on create",
        );
    }
    if !doc::text(spec, "nodeName").is_empty() && !doc::list(spec, "schedulingGates").is_empty() {
        errors.forbidden(
            &path.child("nodeName"),
            "cannot be set until all schedulingGates have been cleared",
        );
    }
    security::annotations_match(errors, pod, spec, &path);
}

fn meta_and_spec(errors: &mut Errors, pod: &Value) {
    meta::object_meta(errors, pod, true, NameForm::Subdomain);
    let spec = doc::get(pod, "spec");
    annotations(errors, pod, spec, &Path::new("metadata"));
    let path = Path::new("spec");
    let name = Some(doc::text(doc::get(pod, "metadata"), "name")).filter(|name| !name.is_empty());
    pod_spec(errors, spec, name, true, &path);
    if doc::text(spec, "serviceAccountName").is_empty() {
        for (i, volume) in doc::list(spec, "volumes").iter().enumerate() {
            let sources = doc::list(doc::get(volume, "projected"), "sources")
                .iter()
                .enumerate();
            for (j, _) in sources.filter(|(_, source)| doc::has(source, "serviceAccountToken")) {
                errors.forbidden(
                    &path
                        .child("volumes")
                        .index(i)
                        .child("projected")
                        .child("sources")
                        .index(j)
                        .child("serviceAccountToken"),
                    "must not be specified when serviceAccountName is not set",
                );
            }
        }
    }
    for key in ["containers", "initContainers"] {
        for (i, container) in doc::list(spec, key).iter().enumerate() {
            containers::image_whitespace(errors, container, &path.child(key).index(i));
        }
    }
}

/// The annotations that mean something on a pod or a template.
fn annotations(errors: &mut Errors, owner: &Value, spec: &Value, path: &Path) {
    let path = path.child("annotations");
    let annotations = doc::get(doc::get(owner, "metadata"), "annotations");
    if let Some(value) = doc::opt_text(annotations, "kubernetes.io/config.mirror")
        && doc::text(spec, "nodeName").is_empty()
    {
        errors.invalid(
            &path.key("kubernetes.io/config.mirror"),
            value,
            "must set spec.nodeName if mirror pod annotation is set",
        );
    }
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    if let Some(value) = doc::opt_text(annotations, cost) {
        let digits = value.strip_prefix('-').unwrap_or(value);
        let padded =
            digits.len() > 1 && digits.starts_with('0') || value.starts_with('+') || value == "-0";
        if value.parse::<i32>().is_err() || padded {
            errors.invalid(&path.key(cost), value, "must be a 32bit integer");
        }
    }
    let known: BTreeSet<&str> = ["containers", "initContainers", "ephemeralContainers"]
        .iter()
        .flat_map(|key| doc::list(spec, key))
        .map(|container| doc::text(container, "name"))
        .collect();
    for (key, value) in doc::text_entries(doc::get(owner, "metadata"), "annotations") {
        if key == "seccomp.security.alpha.kubernetes.io/pod"
            || key.starts_with("container.seccomp.security.alpha.kubernetes.io/")
        {
            seccomp_annotation(errors, value, &path.child(key));
        }
    }
    for (key, value) in doc::text_entries(doc::get(owner, "metadata"), "annotations") {
        if let Some(name) = key.strip_prefix("container.apparmor.security.beta.kubernetes.io/") {
            if !known.contains(name) {
                errors.invalid(&path.key(key), name, "container not found");
            }
            if !matches!(value, "" | "runtime/default" | "unconfined")
                && !value.starts_with("localhost/")
            {
                let detail = format!(
                    "invalid AppArmor profile name: {}",
                    orlop_core::field::quote(value)
                );
                errors.invalid(&path.key(key), value, detail);
            }
        }
    }
}

fn seccomp_annotation(errors: &mut Errors, value: &str, path: &Path) {
    if let Some(file) = value.strip_prefix("localhost/") {
        mounts::descending_path(errors, file, path);
    } else if !matches!(value, "runtime/default" | "docker/default" | "unconfined") {
        errors.invalid(path, value, "must be a valid seccomp profile");
    }
}

/// A pod template, as workloads carry it.
pub(super) fn template(errors: &mut Errors, template: &Value, path: &Path) {
    let meta = doc::get(template, "metadata");
    labels::labels(errors, meta, "labels", path);
    meta::annotations(errors, meta, path);
    let spec = doc::get(template, "spec");
    annotations(errors, template, spec, path);
    pod_spec(errors, spec, None, false, &path.child("spec"));
    security::annotations_match(errors, template, spec, &path.child("spec"));
    if !doc::list(spec, "ephemeralContainers").is_empty() {
        errors.forbidden(
            &path.child("spec").child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

/// What a pod is to be.
fn pod_spec(errors: &mut Errors, spec: &Value, pod_name: Option<&str>, is_pod: bool, path: &Path) {
    let grace = doc::int(spec, "terminationGracePeriodSeconds");
    if grace.is_none() {
        errors.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let scope = Scope {
        volumes: volumes::volumes(errors, spec, pod_name, is_pod, path),
        claims: doc::list(spec, "resourceClaims")
            .iter()
            .map(|claim| doc::text(claim, "name"))
            .filter(|name| !name.is_empty())
            .collect(),
        grace,
        restart_policy: doc::text(spec, "restartPolicy"),
        host_users: doc::opt_flag(spec, "hostUsers") != Some(false),
    };
    resource_claims(errors, spec, &path.child("resourceClaims"));
    containers::containers(errors, spec, &scope, path);
    containers::init_containers(errors, spec, &scope, path);
    containers::ephemeral_containers(errors, spec, &scope, path);
    resources::pod_level(errors, spec, &scope.claims, path);
    host_network_ports(errors, spec, is_pod, path);
    errors.one_of(
        spec,
        "restartPolicy",
        path,
        &["Always", "OnFailure", "Never"],
    );
    errors.one_of(
        spec,
        "dnsPolicy",
        path,
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    labels::labels(errors, spec, "nodeSelector", path);
    security::pod(errors, spec, path);
    scheduling::affinity(errors, spec, path);
    dns_config(errors, spec, &path.child("dnsConfig"));
    for (i, gate) in doc::list(spec, "readinessGates").iter().enumerate() {
        let condition = doc::text(gate, "conditionType");
        errors.all_invalid(
            &path.child("readinessGates").index(i).child("conditionType"),
            condition,
            names::qualified_name(condition),
        );
    }
    scheduling::gates(errors, spec, path);
    scheduling::spread(errors, spec, path);
    security::host_process(errors, spec, path);
    security::host_users(errors, spec, path);
    named(errors, spec, path);
    if let Some(seconds) = doc::int(spec, "activeDeadlineSeconds")
        .filter(|seconds| !(1..=0x7fff_ffff).contains(seconds))
    {
        errors.invalid(
            &path.child("activeDeadlineSeconds"),
            seconds,
            names::out_of_range(1, 0x7fff_ffff),
        );
    }
    for key in ["hostname", "subdomain"] {
        let name = doc::text(spec, key);
        if !name.is_empty() {
            errors.all_invalid(&path.child(key), name, names::dns_label(name));
        }
    }
    host_name_override(errors, spec, path);
    scheduling::tolerations(errors, spec, path);
    host_aliases(errors, spec, &path.child("hostAliases"));
    let priority_class = doc::text(spec, "priorityClassName");
    if !priority_class.is_empty() {
        errors.all_invalid(
            &path.child("priorityClassName"),
            priority_class,
            names::dns_subdomain(priority_class),
        );
    }
    if let Some(class) = doc::opt_text(spec, "runtimeClassName") {
        errors.all_invalid(
            &path.child("runtimeClassName"),
            class,
            names::dns_subdomain(class),
        );
    }
    if doc::has(spec, "preemptionPolicy") {
        errors.one_of(
            spec,
            "preemptionPolicy",
            path,
            &["PreemptLowerPriority", "Never"],
        );
    }
    for (name, value) in doc::entries(spec, "overhead") {
        let path = path.child("overhead").child("limits").key(name);
        resources::container_resource_name(errors, name, &path);
        resources::amount(errors, name, value, &path);
    }
    security::operating_system(errors, spec, path);
}

fn named(errors: &mut Errors, spec: &Value, path: &Path) {
    for key in ["serviceAccountName", "nodeName"] {
        let name = doc::text(spec, key);
        if !name.is_empty() {
            errors.all_invalid(&path.child(key), name, names::dns_subdomain(name));
        }
    }
}

/// A host name that replaces all that is made up from name, subdomain and namespace.
fn host_name_override(errors: &mut Errors, spec: &Value, path: &Path) {
    let Some(name) = doc::opt_text(spec, "hostnameOverride") else {
        return;
    };
    let path = path.child("hostnameOverride");
    if name.len() > 64 {
        errors.too_long(&path, 64);
    }
    errors.all_invalid(&path, name, names::dns_subdomain(name));
    if doc::flag(spec, "setHostnameAsFQDN") {
        errors.forbidden(
            &path,
            "may not be specified when `setHostnameAsFQDN` is true",
        );
    }
    if doc::flag(spec, "hostNetwork") {
        errors.forbidden(&path, "may not be specified when `hostNetwork` is true");
    }
}

fn resource_claims(errors: &mut Errors, spec: &Value, path: &Path) {
    let mut seen = BTreeSet::new();
    for (i, claim) in doc::list(spec, "resourceClaims").iter().enumerate() {
        let path = path.index(i);
        let name = doc::text(claim, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        } else {
            errors.all_invalid(&path.child("name"), name, names::dns_label(name));
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        match sources.iter().filter(|key| doc::has(claim, key)).count() {
            0 => errors.invalid(
                &path,
                claim.clone(),
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            ),
            1 => {}
            _ => errors.invalid(
                &path,
                claim.clone(),
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
        }
        for key in sources {
            if let Some(name) = doc::opt_text(claim, key) {
                errors.all_invalid(&path.child(key), name, names::dns_subdomain(name));
            }
        }
    }
}

/// On the host's network, a container's port is the host's.
fn host_network_ports(errors: &mut Errors, spec: &Value, is_pod: bool, path: &Path) {
    if !doc::flag(spec, "hostNetwork") {
        return;
    }
    for (i, container) in doc::list(spec, "containers").iter().enumerate() {
        for (j, port) in doc::list(container, "ports").iter().enumerate() {
            let host = doc::int(port, "hostPort").unwrap_or_default();
            if (is_pod || host != 0) && host != doc::int(port, "containerPort").unwrap_or_default()
            {
                errors.invalid(
                    &path
                        .child("containers")
                        .index(i)
                        .child("ports")
                        .index(j)
                        .child("hostPort"),
                    host,
                    "must match `containerPort` when `hostNetwork` is true",
                );
            }
        }
    }
}

fn dns_config(errors: &mut Errors, spec: &Value, path: &Path) {
    let config = doc::get(spec, "dnsConfig");
    let servers = doc::list(config, "nameservers");
    if doc::text(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            return errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            return errors.required(
                &path.child("nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            );
        }
    }
    if servers.len() > 3 {
        errors.invalid(
            &path.child("nameservers"),
            doc::get(config, "nameservers").clone(),
            "must not have more than 3 nameservers",
        );
    }
    for (i, server) in doc::texts(config, "nameservers").enumerate() {
        errors.all_invalid(
            &path.child("nameservers").index(i),
            server,
            names::ip(server),
        );
    }
    let searches: Vec<&str> = doc::texts(config, "searches").collect();
    let searches_path = path.child("searches");
    if searches.len() > 32 {
        errors.invalid(
            &searches_path,
            doc::get(config, "searches").clone(),
            "must not have more than 32 search paths",
        );
    }
    if searches.join(" ").len() > 2048 {
        errors.invalid(
            &searches_path,
            doc::get(config, "searches").clone(),
            "must not have more than 2048 characters (including spaces) in the search list",
        );
    }
    for (i, search) in searches
        .iter()
        .enumerate()
        .filter(|(_, search)| **search != ".")
    {
        let search = search.strip_suffix('.').unwrap_or(search);
        errors.all_invalid(
            &searches_path.index(i),
            search,
            names::dns_subdomain_with_underscore(search),
        );
    }
    for (i, option) in doc::list(config, "options").iter().enumerate() {
        if doc::text(option, "name").is_empty() {
            errors.required(&path.child("options").index(i), "must not be empty");
        }
    }
}

fn host_aliases(errors: &mut Errors, spec: &Value, path: &Path) {
    for (i, alias) in doc::list(spec, "hostAliases").iter().enumerate() {
        let path = path.index(i);
        let address = doc::text(alias, "ip");
        errors.all_invalid(&path.child("ip"), address, names::ip(address));
        for (i, name) in doc::texts(alias, "hostnames").enumerate() {
            errors.all_invalid(
                &path.child("hostnames").index(i),
                name,
                names::dns_subdomain(name),
            );
        }
    }
}
