//! Resource names and quantities: what may be asked for, and how much of it.

use std::collections::{BTreeMap, BTreeSet};

use orlop_core::field::Path;
use orlop_core::quantity::Quantity;
use serde_json::Value;

use super::errors::Errors;
use super::names;
use crate::doc;

/// A quantity, written as text or as a number.
pub(crate) fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// The quantities of the map under `key`.
pub(crate) fn quantities(of: &Value, key: &str) -> BTreeMap<String, Quantity> {
    doc::entries(of, key)
        .filter_map(|(name, value)| Some((name.to_owned(), quantity(value)?)))
        .collect()
}

const COUNTED: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

const COMPUTE: &[&str] = &["cpu", "memory", "ephemeral-storage"];

const QUOTA_COMPUTE: &[&str] = &[
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "requests.storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

/// Whether a name stands for huge pages of some size.
pub(crate) fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_standard(name: &str) -> bool {
    COUNTED.contains(&name)
        || COMPUTE.contains(&name)
        || QUOTA_COMPUTE.contains(&name)
        || name == "storage"
        || is_huge_page(name)
        || name.starts_with("requests.hugepages-")
}

/// Whether a quota may count a resource of this unqualified name.
pub(crate) fn is_standard_quota(name: &str) -> bool {
    is_standard(name) && name != "storage"
}

/// Whether Kubernetes itself gives the name its meaning.
pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether the name is of a resource that nodes advertise beyond the native ones.
pub(crate) fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn is_whole(name: &str) -> bool {
    COUNTED.contains(&name) || is_extended(name)
}

/// Whether limits may be above requests.
pub(crate) fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// The name of any resource.
pub(crate) fn resource_name(errors: &mut Errors, name: &str, path: &Path) -> bool {
    let complaints = names::qualified_name(name);
    if !complaints.is_empty() {
        errors.all_invalid(path, name, complaints);
        return false;
    }
    if !name.contains('/') && !is_standard(name) {
        errors.invalid(
            path,
            name,
            "must be a standard resource type or fully qualified",
        );
        return false;
    }
    true
}

/// The name of a resource that a container asks for.
pub(crate) fn container_resource_name(errors: &mut Errors, name: &str, path: &Path) {
    resource_name(errors, name, path);
    if !name.contains('/') {
        if !COMPUTE.contains(&name) && !is_huge_page(name) {
            errors.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

/// The name of a resource that a pod asks for as a whole.
fn pod_resource_name(errors: &mut Errors, name: &str, path: &Path) {
    if resource_name(errors, name, path) && !is_pod_level(name) {
        errors.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

/// Whether a pod as a whole may ask for the resource.
pub(crate) fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_page(name)
}

/// The name of a resource in a quota.
pub(crate) fn quota_resource_name(errors: &mut Errors, name: &str, path: &Path) {
    resource_name(errors, name, path);
    if !name.contains('/') && !is_standard_quota(name) {
        errors.invalid(path, name, "must be a standard resource for quota");
    }
}

/// An amount of a resource: not negative, and whole where the resource comes in pieces.
pub(crate) fn amount(errors: &mut Errors, name: &str, value: &Value, path: &Path) {
    let Some(quantity) = quantity(value) else {
        errors.invalid(path, value.clone(), "must be a valid resource quantity");
        return;
    };
    if quantity.is_negative() {
        errors.invalid(
            path,
            quantity.to_string(),
            "must be greater than or equal to 0",
        );
    }
    if is_whole(name) && quantity.as_i64().is_none() {
        errors.invalid(path, quantity.to_string(), "must be an integer");
    }
}

fn huge_page_amount(errors: &mut Errors, name: &str, quantity: &Quantity, path: &Path) {
    let size =
        Quantity::parse(name.trim_start_matches("hugepages-")).map_or(0, |size| size.value());
    if size > 0 && quantity.value() % size != 0 {
        let text = quantity.to_string();
        errors.invalid(
            path,
            text.clone(),
            format!("{text} is not positive integer multiple of {name}"),
        );
    }
}

/// What asks for resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A container.
    Container,
    /// A pod as a whole.
    Pod,
}

/// `resources`: requests, limits and claims.
pub(crate) fn requirements(
    errors: &mut Errors,
    of: &Value,
    claims: &BTreeSet<&str>,
    path: &Path,
    asker: Asker,
) {
    let limits = quantities(of, "limits");
    let limits_path = path.child("limits");
    let mut names_cpu_or_memory = false;
    let mut names_huge_pages = false;
    for section in ["limits", "requests"] {
        let section_path = path.child(section);
        for (name, value) in doc::entries(of, section) {
            let path = section_path.key(name);
            match asker {
                Asker::Container => container_resource_name(errors, name, &path),
                Asker::Pod => pod_resource_name(errors, name, &path),
            }
            amount(errors, name, value, &path);
            let Some(quantity) = quantity(value) else {
                continue;
            };
            if section == "requests" {
                match limits.get(name) {
                    Some(limit) if quantity != *limit && !may_overcommit(name) => errors.invalid(
                        &section_path,
                        quantity.to_string(),
                        format!("must be equal to {name} limit of {}", limit),
                    ),
                    Some(limit) if quantity > *limit => errors.invalid(
                        &section_path,
                        quantity.to_string(),
                        format!("must be less than or equal to {name} limit of {}", limit),
                    ),
                    None if !may_overcommit(name) => {
                        errors.required(
                            &limits_path,
                            "Limit must be set for non overcommitable resources",
                        );
                    }
                    _ => {}
                }
            }
            if is_huge_page(name) {
                names_huge_pages = true;
                huge_page_amount(errors, name, &quantity, &path);
            }
            names_cpu_or_memory |= matches!(name, "cpu" | "memory");
        }
    }
    if names_huge_pages && !names_cpu_or_memory {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
    claim_names(errors, of, claims, &path.child("claims"));
}

fn claim_names(errors: &mut Errors, of: &Value, known: &BTreeSet<&str>, path: &Path) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (i, claim) in doc::list(of, "claims").iter().enumerate() {
        let path = path.index(i);
        let name = doc::text(claim, "name");
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        let request = doc::text(claim, "request");
        if seen.contains(name) {
            errors.duplicate(&path, name);
        } else {
            let mut key = name.to_owned();
            if request.is_empty() {
                let prefix = format!("{name}/");
                for _ in seen.iter().filter(|other| other.starts_with(&prefix)) {
                    errors.duplicate(&path, name);
                }
            } else {
                errors.all_invalid(&path.child("request"), request, names::dns_label(request));
                key = format!("{name}/{request}");
                if seen.contains(&key) {
                    errors.duplicate(&path, key.clone());
                }
            }
            seen.insert(key);
        }
        if !known.contains(name) {
            errors.not_found(&path, name);
            let known: Vec<&str> = known.iter().copied().collect();
            let detail = if known.is_empty() {
                "must be one of the names in pod.spec.resourceClaims which is empty".to_owned()
            } else {
                format!(
                    "must be one of the names in pod.spec.resourceClaims: {}",
                    known.join(", ")
                )
            };
            errors.explain(&detail);
        }
    }
}

/// A sidecar: an init container that keeps running.
pub(crate) fn is_sidecar(container: &Value) -> bool {
    doc::text(container, "restartPolicy") == "Always"
}

/// What all containers of a pod need at once, for one section (`requests` or `limits`) of their resources: the greater of the
/// running containers with the sidecars, and of each init container with the sidecars started before it.
pub(crate) fn aggregate(spec: &Value, section: &str) -> BTreeMap<String, Quantity> {
    let of = |container: &Value| quantities(doc::get(container, "resources"), section);
    let mut running: BTreeMap<String, Quantity> = BTreeMap::new();
    for container in doc::list(spec, "containers") {
        add(&mut running, &of(container));
    }
    let mut sidecars = BTreeMap::new();
    let mut starting: BTreeMap<String, Quantity> = BTreeMap::new();
    for container in doc::list(spec, "initContainers") {
        let mut needed = of(container);
        if is_sidecar(container) {
            add(&mut running, &needed);
            add(&mut sidecars, &needed);
            needed = sidecars.clone();
        } else {
            add(&mut needed, &sidecars);
        }
        most(&mut starting, needed);
    }
    most(&mut running, starting);
    running
}

fn add(to: &mut BTreeMap<String, Quantity>, more: &BTreeMap<String, Quantity>) {
    for (name, quantity) in more {
        let sum = to
            .get(name)
            .map_or_else(|| quantity.clone(), |had| had + quantity);
        to.insert(name.clone(), sum);
    }
}

fn most(to: &mut BTreeMap<String, Quantity>, other: BTreeMap<String, Quantity>) {
    for (name, quantity) in other {
        if to.get(&name).is_none_or(|had| *had < quantity) {
            to.insert(name, quantity);
        }
    }
}

/// The `resources` of a pod as a whole.
pub(crate) fn pod_level(errors: &mut Errors, spec: &Value, claims: &BTreeSet<&str>, path: &Path) {
    let resources = doc::get(spec, "resources");
    if resources.is_null() {
        return;
    }
    let path = path.child("resources");
    if doc::has(resources, "claims") {
        errors.forbidden(
            &path.child("claims"),
            "claims cannot be set for Resources at pod-level",
        );
    }
    requirements(errors, resources, claims, &path, Asker::Pod);
    let own = quantities(resources, "requests");
    for (name, needed) in aggregate(spec, "requests")
        .iter()
        .filter(|(name, _)| is_pod_level(name))
    {
        let own = own.get(name).cloned().unwrap_or_default();
        if *needed > own {
            errors.invalid(
                &path.child("requests").key(name),
                own.to_string(),
                format!(
                    "must be greater than or equal to aggregate container requests of {}",
                    needed
                ),
            );
        }
    }
    let own = quantities(resources, "limits");
    for (i, container) in doc::list(spec, "containers").iter().enumerate() {
        for (name, limit) in quantities(doc::get(container, "resources"), "limits") {
            if let Some(most) = own.get(&name).filter(|most| limit > **most) {
                errors.invalid(
                    &path.child("containers").index(i).key(&name).child("limits"),
                    limit.to_string(),
                    format!("must be less than or equal to pod limits of {}", most),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(resources: &Value) -> Vec<String> {
        let mut errors = Errors::new();
        requirements(
            &mut errors,
            resources,
            &BTreeSet::new(),
            &Path::new("r"),
            Asker::Container,
        );
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn requests_stay_below_limits() {
        assert_eq!(
            check(&json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})),
            ["r.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"]
        );
        assert!(check(&json!({"requests": {"cpu": "1000m"}, "limits": {"cpu": "1"}})).is_empty());
        assert_eq!(
            check(&json!({"requests": {"example.com/gpu": "1"}})),
            ["r.limits: Required value: Limit must be set for non overcommitable resources"]
        );
        assert_eq!(
            check(&json!({"limits": {"example.com/gpu": "1500m"}})),
            ["r.limits[example.com/gpu]: Invalid value: \"1500m\": must be an integer"]
        );
        assert_eq!(
            check(&json!({"limits": {"hugepages-2Mi": "3Mi"}})),
            [
                "r.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
                "r: Forbidden: HugePages require cpu or memory"
            ]
        );
    }

    #[test]
    fn names_of_resources() {
        assert_eq!(
            check(&json!({"limits": {"gpu": "1"}})),
            [
                "r.limits[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
                "r.limits[gpu]: Invalid value: \"gpu\": must be a standard resource for containers"
            ]
        );
        assert_eq!(
            check(&json!({"limits": {"cpu": "-1"}})),
            ["r.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"]
        );
    }

    #[test]
    fn containers_and_init_containers_together() {
        let spec = json!({
        "containers": [{"resources": {"requests": {"cpu": "1"}}}, {"resources": {"requests": {"cpu": "500m"}}}],
        "initContainers": [
            {"resources": {"requests": {"cpu": "250m"}}, "restartPolicy": "Always"},
            {"resources": {"requests": {"cpu": "2"}}},
        ]});
        assert_eq!(aggregate(&spec, "requests")["cpu"].to_string(), "2250m");
    }
}
