//! What pods asked for, and how important they are.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use orlop_core::quantity::Quantity;

/// From this priority on a pod is critical to the node or the cluster.
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// Whether a list of amounts is of requests or of limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Requests,
    Limits,
}

pub(super) fn priority(pod: &Pod) -> i32 {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.priority)
        .unwrap_or(0)
}

/// Whether a pod is never evicted: one that the node runs of itself, or one of the highest priorities.
pub(super) fn is_critical(pod: &Pod) -> bool {
    let annotation = |name: &str| {
        pod.metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(name))
    };
    let source = annotation("kubernetes.io/config.source");
    source.is_some_and(|source| source != "api")
        || annotation("kubernetes.io/config.mirror").is_some()
        || priority(pod) >= SYSTEM_CRITICAL
}

/// Whether a pod asks for no CPU and no memory at all.
pub(super) fn is_best_effort(pod: &Pod) -> bool {
    if let Some(class) = pod
        .status
        .as_ref()
        .and_then(|status| status.qos_class.as_deref())
    {
        return class == "BestEffort";
    }
    let nothing = |container: &Container| {
        ["cpu", "memory"].into_iter().all(|resource| {
            let zero =
                |side| of_container(container, side, resource).is_none_or(|one| one.is_zero());
            zero(Side::Requests) && zero(Side::Limits)
        })
    };
    containers(pod).all(|(_, container)| nothing(container))
}

/// All containers of a pod, and whether each is an init container.
pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = (bool, &Container)> {
    let spec = pod.spec.as_ref();
    let init = spec
        .and_then(|spec| spec.init_containers.as_deref())
        .unwrap_or_default();
    let regular = spec
        .map(|spec| spec.containers.as_slice())
        .unwrap_or_default();
    let init = init.iter().map(|container| (true, container));
    init.chain(regular.iter().map(|container| (false, container)))
}

fn amount(list: Option<&BTreeMap<String, ApiQuantity>>, resource: &str) -> Option<Quantity> {
    Quantity::parse(&list?.get(resource)?.0).ok()
}

/// What a container asks for, or may have at most.
pub(super) fn of_container(container: &Container, side: Side, resource: &str) -> Option<Quantity> {
    let resources = container.resources.as_ref()?;
    amount(
        match side {
            Side::Requests => resources.requests.as_ref(),
            Side::Limits => resources.limits.as_ref(),
        },
        resource,
    )
}

/// What a pod asks for, or may have at most; `None` if none of its containers says so. What init containers need counts where it is
/// more than what comes after them; sidecars are there all the time.
pub(super) fn of_pod(pod: &Pod, side: Side, resource: &str) -> Option<Quantity> {
    let spec = pod.spec.as_ref()?;
    let whole = spec.resources.as_ref().and_then(|resources| {
        let list = match side {
            Side::Requests => resources.requests.as_ref(),
            Side::Limits => resources.limits.as_ref(),
        };
        amount(list, resource)
    });
    let mut said = false;
    let (mut sidecars, mut running, mut starting) =
        (Quantity::ZERO, Quantity::ZERO, Quantity::ZERO);
    for (init, container) in containers(pod) {
        let Some(own) = of_container(container, side, resource) else {
            continue;
        };
        said = true;
        if !init {
            running += &own;
        } else if container.restart_policy.as_deref() == Some("Always") {
            sidecars += &own;
            starting = starting.max(sidecars.clone());
        } else {
            starting = starting.max(&sidecars + &own);
        }
    }
    let sum = (&running + &sidecars).max(starting);
    let sum = whole.or(said.then_some(sum))?;
    Some(match amount(spec.overhead.as_ref(), resource) {
        Some(overhead) => &sum + &overhead,
        None => sum,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
    }

    #[test]
    fn requests_are_added_up_as_the_pod_runs() {
        let with = |amount: &str| json!({"requests": {"memory": amount}});
        let spec = json!({
            "initContainers": [{"name": "a", "resources": with("3Gi")}, {"name": "s", "restartPolicy": "Always", "resources": with("1Gi")},
                {"name": "b", "resources": with("1Gi")}],
            "containers": [{"name": "c", "resources": with("1Gi")}, {"name": "d"}]});
        let of = |spec: &Value| {
            of_pod(&pod(spec.clone()), Side::Requests, "memory").map(|one| one.to_string())
        };
        assert_eq!(of(&spec).as_deref(), Some("3Gi"));
        let mut more = spec.clone();
        more["containers"][1]["resources"] = with("2Gi");
        more["overhead"] = json!({"memory": "1Gi"});
        assert_eq!(of(&more).as_deref(), Some("5Gi"));
        more["resources"] = with("7Gi");
        assert_eq!(of(&more).as_deref(), Some("8Gi"));
        assert_eq!(of(&json!({"containers": [{"name": "c"}]})), None);
    }

    #[test]
    fn some_pods_are_critical() {
        let with = |annotations: Value, priority: i32| {
            let pod = json!({"metadata": {"annotations": annotations}, "spec": {"containers": [], "priority": priority}});
            is_critical(&serde_json::from_value(pod).unwrap())
        };
        assert!(with(json!({}), 2_000_000_000));
        assert!(!with(
            json!({"kubernetes.io/config.source": "api"}),
            1_999_999_999
        ));
        assert!(with(json!({"kubernetes.io/config.source": "file"}), 0));
        assert!(with(json!({"kubernetes.io/config.mirror": "x"}), 0));
    }
}
