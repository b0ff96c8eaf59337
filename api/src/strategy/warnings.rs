//! What a writer is told although the write succeeds.

use std::collections::BTreeSet;

use orlop_core::field::{Path, quote};
use orlop_core::resource::GroupVersionKind;
use serde_json::Value;

use crate::doc;
use crate::validation::{names, resources};

/// Warnings about an object that was created.
#[must_use]
pub fn warnings_on_create(gvk: &GroupVersionKind, document: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let complaints = names::dns_label(doc::text(doc::get(document, "metadata"), "name"));
    if !complaints.is_empty() {
        let what = match (&*gvk.group, &*gvk.kind) {
            ("", "Pod") => Some("this is used in the Pod's hostname"),
            ("apps", "Deployment" | "ReplicaSet" | "StatefulSet")
            | ("batch", "Job" | "CronJob")
            | ("", "ReplicationController") => Some("this is used in Pod names and hostnames"),
            _ => None,
        };
        if let Some(what) = what {
            out.push(format!(
                "metadata.name: {what}, which can result in surprising behavior; a DNS label is recommended: [{}]",
                complaints.join(" ")
            ));
        }
    }
    out.extend(of_document(gvk, document));
    out
}

/// Warnings about an object that was updated; what was so before is not told again unless the template changed.
#[must_use]
pub fn warnings_on_update(gvk: &GroupVersionKind, new: &Value, old: &Value) -> Vec<String> {
    let known: BTreeSet<String> = of_document(gvk, old).into_iter().collect();
    let unchanged = match template(gvk, new) {
        Some((spec, _)) => template(gvk, old).is_some_and(|(old, _)| doc::same(spec, old)),
        None => false,
    };
    if unchanged {
        return Vec::new();
    }
    of_document(gvk, new)
        .into_iter()
        .filter(|warning| !known.contains(warning))
        .collect()
}

/// Warnings about a delete. Jobs keep their pods unless told otherwise, which surprises.
#[must_use]
pub fn warnings_on_delete(gvk: &GroupVersionKind, policy_given: bool) -> Vec<String> {
    if (&*gvk.group, &*gvk.kind) == ("batch", "Job") && !policy_given {
        vec![
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or \
             set propagationPolicy=Orphan to suppress this warning"
                .to_owned(),
        ]
    } else {
        Vec::new()
    }
}

/// The pod, or the template of pods, of a kind, and where it stands.
fn template<'a>(gvk: &GroupVersionKind, document: &'a Value) -> Option<(&'a Value, Path)> {
    let path = Path::new("spec").child("template");
    match (&*gvk.group, &*gvk.kind) {
        ("", "Pod") => Some((document, Path::root())),
        ("", "PodTemplate") => Some((doc::get(document, "template"), Path::new("template"))),
        ("", "ReplicationController")
        | ("apps", "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet")
        | ("batch", "Job") => Some((doc::at(document, &["spec", "template"]), path)),
        ("batch", "CronJob") => Some((
            doc::at(document, &["spec", "jobTemplate", "spec", "template"]),
            Path::new("spec")
                .child("jobTemplate")
                .child("spec")
                .child("template"),
        )),
        _ => None,
    }
}

fn of_document(gvk: &GroupVersionKind, document: &Value) -> Vec<String> {
    if let Some((template, path)) = template(gvk, document) {
        return pods(template, &path);
    }
    match (&*gvk.group, &*gvk.kind) {
        ("", "Service") => service(document),
        ("", "Node") => node(document),
        _ => Vec::new(),
    }
}

fn service(document: &Value) -> Vec<String> {
    let spec = doc::get(document, "spec");
    let mut out = Vec::new();
    let external_name = doc::text(spec, "type") == "ExternalName";
    if doc::text(spec, "clusterIP") == "None" {
        if !doc::text(spec, "loadBalancerIP").is_empty() {
            out.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if !doc::list(spec, "externalIPs").is_empty() {
            out.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if doc::text(spec, "sessionAffinity") == "ClientIP" {
            out.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    if external_name && !doc::list(spec, "externalIPs").is_empty() {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !external_name && !doc::text(spec, "externalName").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    out
}

fn node(document: &Value) -> Vec<String> {
    let spec = doc::get(document, "spec");
    let mut out = Vec::new();
    if doc::has(spec, "configSource") {
        out.push(
            "spec.configSource: the feature is no longer supported. Support for it was officially removed in v1.24".to_owned(),
        );
    }
    if !doc::text(spec, "externalID").is_empty() {
        out.push(
            "spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned(),
        );
    }
    out
}

/// What to use in place of a label that nodes have no more.
fn deprecated_node_label(key: &str) -> Option<String> {
    let replacement = match key {
        "beta.kubernetes.io/arch" => "kubernetes.io/arch",
        "beta.kubernetes.io/os" => "kubernetes.io/os",
        "failure-domain.beta.kubernetes.io/region" => "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone" => "topology.kubernetes.io/zone",
        "beta.kubernetes.io/instance-type" => "node.kubernetes.io/instance-type",
        _ => return None,
    };
    let since = if key.contains("arch") || key.contains("/os") {
        "v1.14"
    } else {
        "v1.17"
    };
    Some(format!(
        "deprecated since {since}; use \"{replacement}\" instead"
    ))
}

/// Volumes that do nothing any more, or will soon.
const OLD_VOLUMES: &[(&str, &str, &str)] = &[
    (
        "photonPersistentDisk",
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    (
        "gitRepo",
        "gitRepo",
        "deprecated in v1.11, and disabled by default in v1.33+",
    ),
    (
        "scaleIO",
        "scaleIO",
        "deprecated in v1.16, non-functional in v1.22+",
    ),
    (
        "flocker",
        "flocker",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "storageos",
        "storageOS",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "quobyte",
        "quobyte",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "glusterfs",
        "glusterfs",
        "deprecated in v1.25, non-functional in v1.26+",
    ),
    (
        "cephfs",
        "cephfs",
        "deprecated in v1.28, non-functional in v1.31+",
    ),
    (
        "rbd",
        "rbd",
        "deprecated in v1.28, non-functional in v1.31+",
    ),
];

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

fn pods(template: &Value, path: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let spec = doc::get(template, "spec");
    let spec_path = path.child("spec");
    for (key, _) in doc::entries(spec, "nodeSelector") {
        if let Some(message) = deprecated_node_label(key) {
            out.push(format!(
                "{}: {message}",
                spec_path.child("nodeSelector").key(key)
            ));
        }
    }
    node_affinity(&mut out, spec, &spec_path);
    for (i, constraint) in doc::list(spec, "topologySpreadConstraints")
        .iter()
        .enumerate()
    {
        let path = spec_path.child("topologySpreadConstraints").index(i);
        let key = doc::text(constraint, "topologyKey");
        if let Some(message) = deprecated_node_label(key) {
            out.push(format!("{}: {key} is {message}", path.child("topologyKey")));
        }
        if !doc::has(constraint, "labelSelector") {
            out.push(format!(
                "{}: a null labelSelector results in matching no pod",
                path.child("labelSelector")
            ));
        }
    }
    annotations(&mut out, template, path);
    for (i, volume) in doc::list(spec, "volumes").iter().enumerate() {
        for (key, written, message) in OLD_VOLUMES {
            if doc::has(volume, key) {
                out.push(format!(
                    "{}: {message}",
                    spec_path.child("volumes").index(i).child(written)
                ));
            }
        }
    }
    repeats(&mut out, spec, &spec_path);
    whole_bytes(
        &mut out,
        doc::get(spec, "overhead"),
        &spec_path.child("overhead"),
    );
    each_container(spec, &spec_path, |container, path| {
        for section in ["limits", "requests"] {
            let resources = doc::get(doc::get(container, "resources"), section);
            whole_bytes(&mut out, resources, &path.child("resources").child(section));
        }
        variables(&mut out, container, path);
    });
    ports(&mut out, spec, &spec_path);
    if doc::int(spec, "terminationGracePeriodSeconds").is_some_and(|grace| grace < 0) {
        out.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            spec_path.child("terminationGracePeriodSeconds")
        ));
    }
    pod_affinity(&mut out, spec, &spec_path);
    out
}

fn each_container(spec: &Value, path: &Path, mut visit: impl FnMut(&Value, &Path)) {
    for key in CONTAINER_LISTS {
        for (i, container) in doc::list(spec, key).iter().enumerate() {
            visit(container, &path.child(key).index(i));
        }
    }
}

fn node_affinity(out: &mut Vec<String>, spec: &Value, path: &Path) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let affinity = doc::at(spec, &["affinity", "nodeAffinity"]);
    let path = path.child("affinity").child("nodeAffinity");
    let mut term = |term: &Value, path: &Path| {
        for (i, requirement) in doc::list(term, "matchExpressions").iter().enumerate() {
            let key = doc::text(requirement, "key");
            if let Some(message) = deprecated_node_label(key) {
                out.push(format!(
                    "{}: {key} is {message}",
                    path.child("matchExpressions").index(i).child("key")
                ));
            }
        }
    };
    for (i, required) in doc::list(doc::get(affinity, REQUIRED), "nodeSelectorTerms")
        .iter()
        .enumerate()
    {
        term(
            required,
            &path.child(REQUIRED).child("nodeSelectorTerms").index(i),
        );
    }
    for (i, preferred) in doc::list(affinity, PREFERRED).iter().enumerate() {
        term(
            doc::get(preferred, "preference"),
            &path.child(PREFERRED).index(i).child("preference"),
        );
    }
}

fn annotations(out: &mut Vec<String>, template: &Value, path: &Path) {
    let path = path.child("metadata").child("annotations");
    for (key, message) in [
        (
            "scheduler.alpha.kubernetes.io/critical-pod",
            "non-functional in v1.16+; use the \"priorityClassName\" field instead",
        ),
        (
            "security.alpha.kubernetes.io/sysctls",
            "non-functional in v1.11+; use the \"sysctls\" field instead",
        ),
        (
            "security.alpha.kubernetes.io/unsafe-sysctls",
            "non-functional in v1.11+; use the \"sysctls\" field instead",
        ),
    ] {
        if doc::annotation(template, key).is_some() {
            out.push(format!("{}: {message}", path.key(key)));
        }
    }
    let spec = doc::get(template, "spec");
    let pod_key = "seccomp.security.alpha.kubernetes.io/pod";
    let profile = |of: &Value| doc::at(of, &["securityContext", "seccompProfile"]).is_object();
    if !profile(spec) && doc::annotation(template, pod_key).is_some() {
        out.push(format!(
            "{}: non-functional in v1.27+; use the \"seccompProfile\" field instead",
            path.key(pod_key)
        ));
    }
    each_container(spec, &Path::root(), |container, _| {
        let key = format!(
            "container.seccomp.security.alpha.kubernetes.io/{}",
            doc::text(container, "name")
        );
        if !profile(container) && doc::annotation(template, &key).is_some() {
            out.push(format!(
                "{}: non-functional in v1.27+; use the \"seccompProfile\" field instead",
                path.key(&key)
            ));
        }
    });
}

fn repeats(out: &mut Vec<String>, spec: &Value, path: &Path) {
    let mut seen = BTreeSet::new();
    for (i, alias) in doc::list(spec, "hostAliases").iter().enumerate() {
        let address = doc::text(alias, "ip");
        if !seen.insert(address) {
            out.push(format!(
                "{}: duplicate ip {}",
                path.child("hostAliases").index(i).child("ip"),
                quote(address)
            ));
        }
    }
    let mut seen = BTreeSet::new();
    let secrets = doc::list(spec, "imagePullSecrets");
    for (i, secret) in secrets.iter().enumerate() {
        let name = doc::text(secret, "name");
        if !seen.insert(name) {
            out.push(format!(
                "{}: duplicate name {}",
                path.child("imagePullSecrets").index(i).child("name"),
                quote(name)
            ));
        }
    }
    for (i, _) in secrets
        .iter()
        .enumerate()
        .filter(|(_, secret)| doc::text(secret, "name").is_empty())
    {
        out.push(format!(
            "{}: invalid empty name \"\"",
            path.child("imagePullSecrets").index(i).child("name")
        ));
    }
}

fn whole_bytes(out: &mut Vec<String>, amounts: &Value, path: &Path) {
    for name in ["memory", "ephemeral-storage"] {
        if let Some(amount) =
            resources::quantity(doc::get(amounts, name)).filter(|amount| amount.as_i64().is_none())
        {
            out.push(format!(
                "{}: fractional byte value {} is invalid, must be an integer",
                path.key(name),
                quote(&amount.to_string())
            ));
        }
    }
}

fn variables(out: &mut Vec<String>, container: &Value, path: &Path) {
    let mut seen = BTreeSet::new();
    for (i, variable) in doc::list(container, "env").iter().enumerate() {
        let name = doc::text(variable, "name");
        if seen.insert(name) {
            continue;
        }
        let value = doc::text(variable, "value");
        let reference = format!("$({name})");
        if doc::has(variable, "valueFrom") || value == reference || !value.contains(&reference) {
            out.push(format!(
                "{}: hides previous definition of {}, which may be dropped when using apply",
                path.child("env").index(i),
                quote(name)
            ));
        }
    }
}

fn ports(out: &mut Vec<String>, spec: &Value, path: &Path) {
    let mut all: Vec<(Value, Path)> = Vec::new();
    each_container(spec, path, |container, path| {
        for (i, port) in doc::list(container, "ports").iter().enumerate() {
            let path = path.child("ports").index(i);
            let host = |port: &Value| doc::int(port, "hostPort").unwrap_or_default();
            let host_ip = doc::text(port, "hostIP");
            for (other, other_path) in &all {
                let same = doc::int(other, "containerPort") == doc::int(port, "containerPort")
                    && doc::text(other, "protocol") == doc::text(port, "protocol");
                if !same {
                    continue;
                }
                let other_ip = doc::text(other, "hostIP");
                let kind = if host_ip == other_ip && host(port) == host(other) {
                    "duplicate"
                } else if host(port) == 0 || host(other) == 0 {
                    "overlapping"
                } else if host(port) == host(other) && host_ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                out.push(format!("{path}: {kind} port definition with {other_path}"));
            }
            all.push((port.clone(), path));
        }
    });
}

fn pod_affinity(out: &mut Vec<String>, spec: &Value, path: &Path) {
    for key in ["podAffinity", "podAntiAffinity"] {
        let affinity = doc::at(spec, &["affinity", key]);
        let path = path.child("affinity").child(key);
        let mut term = |term: &Value, path: Path| {
            if !doc::has(term, "labelSelector") {
                out.push(format!(
                    "{}: a null labelSelector results in matching no pod",
                    path.child("labelSelector")
                ));
            }
        };
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        for (i, of) in doc::list(affinity, required).iter().enumerate() {
            term(of, path.child(required).index(i));
        }
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        for (i, of) in doc::list(affinity, preferred).iter().enumerate() {
            term(
                doc::get(of, "podAffinityTerm"),
                path.child(preferred).index(i).child("podAffinityTerm"),
            );
        }
    }
}
