//! How large a file system in memory may become.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use orlop_core::quantity::Quantity;

use crate::downward::Allocatable;

const MEMORY: &str = "memory";

/// The size of a file system in memory, in bytes: the least of what the volume asks for, what the pod as a whole may take, and what
/// the node has. `None` where none of them is known.
pub(super) fn tmpfs_size(
    pod: &Pod,
    asked: Option<&Text>,
    allocatable: &Allocatable,
) -> Option<u64> {
    let node = bytes(Some(allocatable), MEMORY);
    let asked = asked.and_then(|text| positive(&text.0));
    [node, pod_limit(pod), asked].into_iter().flatten().min()
}

/// The memory that all containers of a pod together may take; `None` if one of them has no limit.
fn pod_limit(pod: &Pod) -> Option<u64> {
    let spec = pod.spec.as_ref()?;
    let overhead = bytes(spec.overhead.as_ref(), MEMORY).unwrap_or(0);
    if let Some(whole) = limit(spec.resources.as_ref()) {
        return Some(whole + overhead);
    }
    let mut running = 0u64;
    for container in &spec.containers {
        running = running.saturating_add(limit(container.resources.as_ref())?);
    }
    // Sidecars stay; other init containers have what they have beside the sidecars that were started before them.
    let (mut sidecars, mut starting) = (0u64, 0u64);
    for container in spec.init_containers.iter().flatten() {
        let own = limit(container.resources.as_ref())?;
        if is_sidecar(container) {
            sidecars = sidecars.saturating_add(own);
            starting = starting.max(sidecars);
        } else {
            starting = starting.max(sidecars.saturating_add(own));
        }
    }
    Some(running.saturating_add(sidecars).max(starting) + overhead)
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn limit(requirements: Option<&ResourceRequirements>) -> Option<u64> {
    bytes(requirements?.limits.as_ref(), MEMORY)
}

fn bytes(list: Option<&BTreeMap<String, Text>>, name: &str) -> Option<u64> {
    positive(&list?.get(name)?.0)
}

fn positive(text: &str) -> Option<u64> {
    let amount = Quantity::parse(text).ok()?.value();
    u64::try_from(amount).ok().filter(|amount| *amount > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_least_limit_counts() {
        let mi = |n: u64| Some(n << 20);
        let limit = |amount: &str| json!({"limits": {"memory": amount}});
        let container = |amount: &str| json!({"name": "c", "resources": limit(amount)});
        let sidecar = |amount: &str| json!({"name": "s", "restartPolicy": "Always", "resources": limit(amount)});
        let none = json!({"name": "c"});
        for (spec, asked, node, expected) in [
            (json!({"containers": [none]}), None, None, None),
            (json!({"containers": [none]}), None, Some("1Gi"), mi(1024)),
            (
                json!({"containers": [none]}),
                Some("5Mi"),
                Some("1Gi"),
                mi(5),
            ),
            (
                json!({"containers": [container("10Mi"), container("20Mi")]}),
                None,
                Some("1Gi"),
                mi(30),
            ),
            (
                json!({"containers": [container("10Mi"), none]}),
                None,
                Some("1Gi"),
                mi(1024),
            ),
            (
                json!({"containers": [container("10Mi")]}),
                Some("20Mi"),
                None,
                mi(10),
            ),
            (
                json!({"containers": [container("10Mi")]}),
                Some("0"),
                None,
                mi(10),
            ),
            (
                json!({"containers": [container("10Mi")], "initContainers": [sidecar("5Mi"), container("40Mi")]}),
                None,
                None,
                mi(45),
            ),
            (
                json!({"containers": [container("10Mi")], "initContainers": [sidecar("5Mi")], "overhead": {"memory": "1Mi"}}),
                None,
                None,
                mi(16),
            ),
            (
                json!({"containers": [none], "resources": limit("7Mi")}),
                None,
                None,
                mi(7),
            ),
        ] {
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            let asked = asked.map(|text: &str| Text(text.to_owned()));
            let node = node.map(|text: &str| (MEMORY.to_owned(), Text(text.to_owned())));
            let size = tmpfs_size(&pod, asked.as_ref(), &node.into_iter().collect());
            assert_eq!(size, expected, "{spec}");
        }
    }
}
