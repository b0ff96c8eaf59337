//! What may change on a pod that is there, and through which subresource.

use std::collections::{BTreeMap, BTreeSet};

use orlop_core::field::{FieldError, Path};
use serde_json::Value;

use super::{diff, meta_and_spec, scheduling};
use crate::doc;
use crate::validation::errors::Errors;
use crate::validation::{meta, names, resources};

const MAY_CHANGE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                          `spec.tolerations` (only additions to existing tolerations),\
                          `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod that replaces an older one.
pub(in crate::validation) fn update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    meta_and_spec(errors, new);
    annotations_update(errors, new, old);
    let path = Path::new("spec");
    let (new_spec, old_spec) = (doc::get(new, "spec"), doc::get(old, "spec"));
    for key in ["containers", "initContainers"] {
        let containers = doc::list(new_spec, key);
        if containers.len() != doc::list(old_spec, key).len() {
            errors.forbidden(
                &path.child(key),
                "pod updates may not add or remove containers",
            );
            return;
        }
        for (i, container) in containers.iter().enumerate() {
            errors.need_text(container, "image", &path.child(key).index(i));
            super::containers::image_whitespace(errors, container, &path.child(key).index(i));
        }
    }
    if !active_deadline(
        errors,
        new_spec,
        old_spec,
        &path.child("activeDeadlineSeconds"),
    ) {
        return;
    }
    only_added_tolerations(errors, new_spec, old_spec, &path);
    only_deleted_gates(errors, new_spec, old_spec, &path.child("schedulingGates"));
    if doc::same(new_spec, old_spec) {
        return;
    }
    let mut munged = new_spec.clone();
    for key in ["containers", "initContainers"] {
        for (container, old) in doc::each_mut(&mut munged, key).zip(doc::list(old_spec, key)) {
            doc::copy_field(container, old, "image");
        }
    }
    for key in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        doc::copy_field(&mut munged, old_spec, key);
    }
    let grace = |spec: &Value| doc::int(spec, "terminationGracePeriodSeconds");
    if grace(old_spec).is_some_and(|grace| grace < 0) && grace(&munged) == Some(1) {
        doc::copy_field(&mut munged, old_spec, "terminationGracePeriodSeconds");
    }
    if !doc::list(old_spec, "schedulingGates").is_empty() {
        gated(errors, &mut munged, old_spec, &path);
    }
    if !doc::same(&munged, old_spec) {
        errors.forbidden(
            &path,
            format!(
                "pod updates may not change fields other than {MAY_CHANGE}\n{}",
                diff("core.PodSpec", old_spec, &munged)
            ),
        );
    }
}

fn annotations_update(errors: &mut Errors, new: &Value, old: &Value) {
    let path = Path::new("metadata").child("annotations");
    let (after, before) = (doc::annotation(new, MIRROR), doc::annotation(old, MIRROR));
    match (after, before) {
        (after, Some(before)) if after != Some(before) => {
            errors.forbidden(
                &path.key(MIRROR),
                "may not remove or update mirror pod annotation",
            );
        }
        (Some(_), None) => errors.forbidden(&path.key(MIRROR), "may not add mirror pod annotation"),
        _ => {}
    }
    let prefix = "container.apparmor.security.beta.kubernetes.io/";
    let of = |pod: &Value| -> BTreeMap<String, String> {
        doc::text_entries(doc::get(pod, "metadata"), "annotations")
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    };
    let (after, before) = (of(new), of(old));
    for (key, value) in &before {
        if after.get(key) != Some(value) {
            errors.forbidden(
                &path.key(key),
                "may not remove or update AppArmor annotations",
            );
        }
    }
    for key in after.keys().filter(|key| !before.contains_key(*key)) {
        errors.forbidden(&path.key(key), "may not add AppArmor annotations");
    }
}

/// A deadline may be set and shortened. False where the walk ends here.
fn active_deadline(errors: &mut Errors, new: &Value, old: &Value, path: &Path) -> bool {
    let of = |spec: &Value| doc::int(spec, "activeDeadlineSeconds");
    match (of(new), of(old)) {
        (Some(new), _) if !(0..=0x7fff_ffff).contains(&new) => {
            errors.invalid(path, new, names::out_of_range(0, 0x7fff_ffff));
            false
        }
        (Some(new), Some(old)) if old < new => {
            errors.invalid(path, new, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            errors.invalid(
                path,
                Value::Null,
                "must not update from a positive integer to nil value",
            );
            true
        }
        _ => true,
    }
}

fn only_added_tolerations(errors: &mut Errors, new: &Value, old: &Value, path: &Path) {
    for toleration in doc::list(old, "tolerations") {
        let kept = doc::list(new, "tolerations").iter().any(|other| {
            let mut wanted = toleration.clone();
            doc::copy_field(&mut wanted, other, "tolerationSeconds");
            doc::same(&wanted, other)
        });
        if !kept {
            errors.forbidden(
                &path.child("tolerations"),
                "existing toleration can not be modified except its tolerationSeconds",
            );
            return;
        }
    }
    scheduling::tolerations(errors, new, path);
}

fn only_deleted_gates(errors: &mut Errors, new: &Value, old: &Value, path: &Path) {
    let before: BTreeSet<&str> = doc::list(old, "schedulingGates")
        .iter()
        .map(|gate| doc::text(gate, "name"))
        .collect();
    for (i, gate) in doc::list(new, "schedulingGates").iter().enumerate() {
        let name = doc::text(gate, "name");
        if !before.contains(name) {
            errors.forbidden(
                &path.index(i).child("name"),
                format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            );
        }
    }
}

/// While a pod is gated, its choice of nodes may be narrowed.
fn gated(errors: &mut Errors, munged: &mut Value, old: &Value, path: &Path) {
    let before = doc::get(old, "nodeSelector");
    let after = doc::get(munged, "nodeSelector").clone();
    if !doc::same(&after, before) {
        let kept =
            doc::entries(old, "nodeSelector").all(|(key, value)| after.get(key) == Some(value));
        if !kept {
            errors.invalid(
                &path.child("nodeSelector"),
                after,
                "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
            );
        }
        doc::copy_field(munged, old, "nodeSelector");
    }
    let before = doc::at(old, &["affinity", "nodeAffinity"]).clone();
    let after = doc::at(munged, &["affinity", "nodeAffinity"]).clone();
    if doc::same(&before, &after) {
        return;
    }
    node_affinity(
        errors,
        &after,
        &before,
        &path.child("affinity").child("nodeAffinity"),
    );
    let mut affinity = doc::get(munged, "affinity").clone();
    if !affinity.is_object() {
        affinity = Value::Object(serde_json::Map::new());
    }
    if before.is_null() {
        doc::remove(&mut affinity, "nodeAffinity");
    } else {
        doc::set(&mut affinity, "nodeAffinity", before);
    }
    if doc::is_empty(&affinity) && !doc::has(old, "affinity") {
        doc::remove(munged, "affinity");
    } else {
        doc::set(munged, "affinity", affinity);
    }
}

fn node_affinity(errors: &mut Errors, new: &Value, old: &Value, path: &Path) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    if !doc::has(old, REQUIRED) {
        return;
    }
    let path = path.child(REQUIRED).child("nodeSelectorTerms");
    let before = doc::list(doc::get(old, REQUIRED), "nodeSelectorTerms");
    let after = doc::list(doc::get(new, REQUIRED), "nodeSelectorTerms");
    if !before.is_empty() && before.len() != after.len() {
        errors.invalid(
            &path,
            Value::Array(after.to_vec()),
            "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
        );
        return;
    }
    for (i, (before, after)) in before.iter().zip(after).enumerate() {
        let starts = |key| doc::list(after, key).starts_with(doc::list(before, key));
        let was_empty = ["matchExpressions", "matchFields"]
            .iter()
            .all(|key| doc::list(before, key).is_empty());
        let is_empty = ["matchExpressions", "matchFields"]
            .iter()
            .all(|key| doc::list(after, key).is_empty());
        if !starts("matchExpressions") || !starts("matchFields") || (was_empty && !is_empty) {
            errors.invalid(
                &path.index(i),
                after.clone(),
                "only additions are allowed (no mutations or deletions)",
            );
        }
    }
}

/// The status of a pod that replaces an older one.
pub(in crate::validation) fn status(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    annotations_update(errors, new, old);
    let (after, before) = (doc::get(new, "status"), doc::get(old, "status"));
    let conditions = Path::new("metadata").child("conditions");
    for (i, condition) in doc::list(after, "conditions").iter().enumerate() {
        let kind = doc::text(condition, "type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            errors.all_invalid(
                &conditions.index(i).child("Type"),
                kind,
                names::qualified_name(kind),
            );
        }
    }
    let path = Path::new("status");
    let spec = doc::get(new, "spec");
    let old_spec = doc::get(old, "spec");
    if doc::text(spec, "nodeName") != doc::text(old_spec, "nodeName") {
        errors.forbidden(&path.child("nodeName"), "may not be changed directly");
    }
    let nominated = doc::text(after, "nominatedNodeName");
    if !nominated.is_empty() && nominated != doc::text(before, "nominatedNodeName") {
        errors.all_invalid(
            &path.child("nominatedNodeName"),
            nominated,
            names::dns_subdomain(nominated),
        );
    }
    if doc::text(after, "qosClass") != doc::text(before, "qosClass") {
        errors.invalid(
            &path.child("qosClass"),
            doc::text(after, "qosClass"),
            "field is immutable",
        );
    }
    let restart = doc::text(old_spec, "restartPolicy");
    for (key, specs, restart) in [
        ("containerStatuses", "containers", restart),
        ("initContainerStatuses", "initContainers", restart),
        ("ephemeralContainerStatuses", "ephemeralContainers", "Never"),
    ] {
        let specs = doc::list(old_spec, specs);
        transitions(errors, after, before, key, restart, specs, &path);
    }
    addresses(errors, after, "podIPs", &path);
    if let Some(first) = doc::list(after, "hostIPs").first() {
        let first = doc::text(first, "ip");
        if doc::text(after, "hostIP") != first {
            errors.invalid(
                &path.child("hostIPs").index(0).child("ip"),
                first,
                "must be equal to `hostIP`",
            );
        }
        addresses(errors, after, "hostIPs", &path);
    }
}

/// A container that ended and is not to be restarted stays ended.
fn transitions(
    errors: &mut Errors,
    after: &Value,
    before: &Value,
    key: &str,
    restart: &str,
    specs: &[Value],
    path: &Path,
) {
    if restart == "Always" {
        return;
    }
    for (i, old) in doc::list(before, key).iter().enumerate() {
        let terminated = doc::at(old, &["state", "terminated"]);
        let name = doc::text(old, "name");
        let code = doc::int(terminated, "exitCode").unwrap_or_default();
        let own = specs.iter().find(|own| doc::text(own, "name") == name);
        let policy = own.map_or(restart, |own| policy_after(own, code, restart));
        let may_restart =
            terminated.is_null() || policy == "Always" || (policy == "OnFailure" && code != 0);
        if may_restart {
            continue;
        }
        let mut same_name = doc::list(after, key)
            .iter()
            .filter(|new| doc::text(new, "name") == name);
        if same_name.any(|new| doc::at(new, &["state", "terminated"]).is_null()) {
            errors.forbidden(
                &path.child(key).index(i).child("state"),
                "may not be transitioned to non-terminated state",
            );
        }
    }
}

/// The policy that decides over a container which ended with a code: that of a rule of its own for the code, its own, the pod's.
fn policy_after<'a>(container: &'a Value, code: i64, of_pod: &'a str) -> &'a str {
    let matches = |rule: &&Value| {
        let codes = doc::get(rule, "exitCodes");
        let named = doc::list(codes, "values")
            .iter()
            .any(|value| value.as_i64() == Some(code));
        match doc::text(codes, "operator") {
            "In" => named,
            "NotIn" => !named,
            _ => false,
        }
    };
    let rules = doc::list(container, "restartPolicyRules");
    if rules.iter().any(|rule| matches(&rule)) {
        // Every action that a rule can have starts the container again.
        return "Always";
    }
    match doc::text(container, "restartPolicy") {
        "" => of_pod,
        own => own,
    }
}

fn addresses(errors: &mut Errors, status: &Value, key: &str, path: &Path) {
    let path = path.child(key);
    let list: Vec<&str> = doc::list(status, key)
        .iter()
        .map(|address| doc::text(address, "ip"))
        .collect();
    for (i, address) in list.iter().enumerate() {
        errors.all_invalid(&path.index(i), address, names::ip(address));
    }
    if list.len() > 1 {
        let v6 = list
            .iter()
            .filter(|address| names::is_ipv6(address))
            .count();
        if list.len() > 2 || v6 != 1 {
            errors.invalid(
                &path,
                doc::get(status, key).clone(),
                "may specify no more than one IP for each IP family",
            );
        }
        let mut seen = BTreeSet::new();
        for (i, address) in list.iter().enumerate() {
            if !seen.insert(address) {
                errors.duplicate(&path.index(i), doc::list(status, key)[i].clone());
            }
        }
    }
}

/// The ephemeral containers of a pod.
pub(in crate::validation) fn ephemeral_containers(errors: &mut Errors, new: &Value, old: &Value) {
    if doc::annotation(old, MIRROR).is_some() {
        errors.0 = vec![FieldError::forbidden(
            &Path::root(),
            "static pods do not support ephemeral containers",
        )];
        return;
    }
    meta::object_meta_update(errors, new, old);
    meta_and_spec(errors, new);
    annotations_update(errors, new, old);
    let path = Path::new("spec").child("ephemeralContainers");
    let after = doc::list(doc::get(new, "spec"), "ephemeralContainers");
    for container in doc::list(doc::get(old, "spec"), "ephemeralContainers") {
        let name = doc::text(container, "name");
        match after.iter().find(|other| doc::text(other, "name") == name) {
            None => errors.forbidden(
                &path,
                format!("existing ephemeral containers \"{name}\" may not be removed\n"),
            ),
            Some(other) if !doc::same(container, other) => errors.forbidden(
                &path,
                format!(
                    "existing ephemeral containers \"{name}\" may not be changed\n{}",
                    diff("core.EphemeralContainer", container, other)
                ),
            ),
            Some(_) => {}
        }
    }
}

/// The resources of a pod, changed in place.
pub(in crate::validation) fn resize(errors: &mut Errors, new: &Value, old: &Value) {
    let whole = |errors: &mut Errors, detail: &str| {
        errors.0 = vec![FieldError::forbidden(&Path::root(), detail)]
    };
    if doc::annotation(old, MIRROR).is_some() {
        return whole(errors, "static pods cannot be resized");
    }
    let (new_spec, old_spec) = (doc::get(new, "spec"), doc::get(old, "spec"));
    if doc::at(old_spec, &["os", "name"]) == "windows" {
        return whole(errors, "windows pods cannot be resized");
    }
    meta::object_meta_update(errors, new, old);
    meta_and_spec(errors, new);
    let path = Path::new("spec");
    let had = doc::text(doc::get(old, "status"), "qosClass");
    let had = if had.is_empty() {
        crate::strategy::qos_class(old_spec)
    } else {
        had
    };
    if had != crate::strategy::qos_class(new_spec) {
        errors.invalid(
            &path,
            had,
            "Pod QOS Class may not change as a result of resizing",
        );
    }
    let supported = doc::list(doc::get(old, "status"), "containerStatuses")
        .iter()
        .find(|status| doc::has(doc::get(status, "state"), "running"))
        .is_none_or(|status| doc::has(status, "resources"));
    if !supported {
        errors.forbidden(&path, "Pod running on node without support for resize");
    }
    for key in ["initContainers", "containers"] {
        for (i, (new, old)) in doc::list(new_spec, key)
            .iter()
            .zip(doc::list(old_spec, key))
            .enumerate()
        {
            if key == "containers" || resources::is_sidecar(old) {
                removed(
                    errors,
                    new,
                    old,
                    &path.child(key).index(i).child("resources"),
                );
            }
        }
    }
    let mut munged = new_spec.clone();
    for key in ["containers", "initContainers"] {
        for (container, old) in doc::each_mut(&mut munged, key).zip(doc::list(old_spec, key)) {
            let resizable = key == "containers" || resources::is_sidecar(container);
            if resizable {
                keep_cpu_and_memory(container, old);
            }
            if !doc::same(container, old) {
                errors.forbidden(
                    &path,
                    match (key, resizable) {
                        ("containers", _) => "only cpu and memory resources are mutable",
                        (_, true) => {
                            "only cpu and memory resources for sidecar containers are mutable"
                        }
                        (_, false) => "resources for non-sidecar init containers are immutable",
                    },
                );
            }
        }
    }
    if errors.is_empty() && !doc::same(&munged, old_spec) {
        let mut without = munged;
        doc::copy_field(&mut without, old_spec, "resources");
        if !doc::same(&without, old_spec) {
            errors.forbidden(&path, "only cpu and memory resources are mutable");
        }
    }
}

fn removed(errors: &mut Errors, new: &Value, old: &Value, path: &Path) {
    let (new, old) = (doc::get(new, "resources"), doc::get(old, "resources"));
    for (key, detail) in [
        ("requests", "resource requests cannot be removed"),
        ("limits", "resource limits cannot be removed"),
    ] {
        if doc::entries(old, key).any(|(name, _)| !doc::has(doc::get(new, key), name)) {
            errors.forbidden(&path.child(key), detail);
        }
    }
}

fn keep_cpu_and_memory(container: &mut Value, old: &Value) {
    for section in ["limits", "requests"] {
        let before = doc::at(old, &["resources", section]);
        let Some(resources) = doc::object_mut(container, "resources") else {
            continue;
        };
        if before.is_null() {
            doc::remove(resources, section);
            continue;
        }
        let list = doc::ensure_object(resources, section);
        for name in ["cpu", "memory"] {
            doc::copy_field(list, before, name);
        }
    }
}

/// A binding of a pod to a node.
pub(in crate::validation) fn binding(errors: &mut Errors, binding: &Value) {
    let target = doc::get(binding, "target");
    let path = Path::new("target");
    let kind = doc::text(target, "kind");
    if !matches!(kind, "" | "Node") {
        errors.not_supported(&path.child("kind"), kind, &["Node", "<empty>"]);
    }
    errors.need_text(target, "name", &path);
}
