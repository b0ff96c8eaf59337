//! What a pod asks for and may take: the sum over its containers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use orlop_core::quantity::Quantity;

/// Amounts by the names of their resources.
pub type Amounts = BTreeMap<String, Quantity>;

/// The amounts of a list. The API takes none that cannot be read; one that cannot is left out.
pub(super) fn amounts(list: Option<&BTreeMap<String, Text>>) -> Amounts {
    let read =
        |(name, text): (&String, &Text)| Some((name.clone(), Quantity::parse(&text.0).ok()?));
    list.into_iter().flatten().filter_map(read).collect()
}

/// What one container asks for.
#[must_use]
pub fn container_requests(container: &Container) -> Amounts {
    amounts(
        container
            .resources
            .as_ref()
            .and_then(|all| all.requests.as_ref()),
    )
}

/// What one container may take.
#[must_use]
pub fn container_limits(container: &Container) -> Amounts {
    amounts(
        container
            .resources
            .as_ref()
            .and_then(|all| all.limits.as_ref()),
    )
}

/// What a pod asks for, its overhead included.
#[must_use]
pub fn requests(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else {
        return Amounts::new();
    };
    let mut total = sum(spec, container_requests);
    let whole = spec
        .resources
        .as_ref()
        .and_then(|all| all.requests.as_ref());
    total.extend(amounts(whole));
    add(&mut total, &amounts(spec.overhead.as_ref()));
    total
}

/// What a pod may take, its overhead included. A resource that any container may take without limit stands here with what the others
/// may take.
#[must_use]
pub fn limits(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else {
        return Amounts::new();
    };
    let mut total = sum(spec, container_limits);
    let whole = spec.resources.as_ref().and_then(|all| all.limits.as_ref());
    total.extend(amounts(whole));
    for (name, extra) in amounts(spec.overhead.as_ref()) {
        if let Some(limit) = total.get_mut(&name).filter(|limit| !limit.is_zero()) {
            *limit += &extra;
        }
    }
    total
}

/// Whether a resource is limited for the pod as a whole, or for each of its containers.
pub(super) fn all_limit(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else {
        return false;
    };
    let set = |amounts: Amounts| amounts.get(name).is_some_and(|amount| !amount.is_zero());
    let whole = spec.resources.as_ref().and_then(|all| all.limits.as_ref());
    let mut containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    set(amounts(whole)) || containers.all(|container| set(container_limits(container)))
}

/// The containers beside the sidecars, or the most that is taken on the way there, whichever is more.
fn sum(spec: &PodSpec, of: fn(&Container) -> Amounts) -> Amounts {
    let mut total = Amounts::new();
    for container in &spec.containers {
        add(&mut total, &of(container));
    }
    // Init containers run one after the other, each beside the sidecars that were started before it.
    let mut sidecars = Amounts::new();
    let mut highest = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        let mut own = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut highest, &sidecars);
        } else {
            add(&mut own, &sidecars);
            raise(&mut highest, &own);
        }
    }
    raise(&mut total, &highest);
    total
}

pub(super) fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *total.entry(name.clone()).or_default() += amount;
    }
}

fn raise(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let own = total.entry(name.clone()).or_default();
        if *own < *amount {
            own.clone_from(amount);
        }
    }
}
