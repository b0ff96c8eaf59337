//! `resourceFieldRef`: what a container may take.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, Pod, ResourceFieldSelector, ResourceRequirements as Requirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use orlop_core::quantity::Quantity;

use super::DownwardError;

/// What a node has for pods: its `status.allocatable`.
pub type Allocatable = BTreeMap<String, Text>;

/// The value of a `resourceFieldRef`: how many divisors the amount is, rounded up. `own` is the container that asks; another one is
/// meant if the reference names one.
///
/// A limit of CPU, memory or ephemeral storage that nobody set is what the pod as a whole may take, or else all that the node has. A
/// request that nobody made is 0.
///
/// # Errors
/// When there is no such container or resource, or an amount cannot be read.
pub fn resource(
    pod: &Pod,
    own: Option<&Container>,
    reference: &ResourceFieldSelector,
    allocatable: &Allocatable,
) -> Result<String, DownwardError> {
    let unknown = || DownwardError::UnknownResource(reference.resource.clone());
    let container = container(pod, own, reference)?;
    let (list, name) = reference.resource.split_once('.').ok_or_else(unknown)?;
    let defaulted = matches!(name, "cpu" | "memory" | "ephemeral-storage");
    if !defaulted && !name.starts_with("hugepages-") {
        return Err(unknown());
    }
    let own = container.resources.as_ref();
    let amount = match list {
        "limits" if defaulted => {
            let spec = pod.spec.as_ref();
            let whole = limit(spec.and_then(|spec| spec.resources.as_ref()), name)?;
            match (limit(own, name)?, whole) {
                (Some(set), _) => set,
                (None, Some(whole)) => whole,
                (None, None) => read(allocatable.get(name), name)?.unwrap_or_default(),
            }
        }
        "limits" => limit(own, name)?.unwrap_or_default(),
        "requests" => {
            let requests = own.and_then(|own| own.requests.as_ref());
            read(requests.and_then(|list| list.get(name)), name)?.unwrap_or_default()
        }
        _ => return Err(unknown()),
    };
    let divisor = read(reference.divisor.as_ref(), "divisor")?
        .filter(|divisor| !divisor.is_zero())
        .unwrap_or(Quantity::from_milli(1000));
    // CPUs are counted in thousandths, so that a divisor of 1m has its sense.
    let (amount, divisor) = if name == "cpu" {
        (amount.milli_value(), divisor.milli_value())
    } else {
        (amount.value(), divisor.value())
    };
    let (amount, divisor) = (i128::from(amount), i128::from(divisor));
    Ok((amount / divisor + (amount % divisor).signum()).to_string())
}

fn container<'a>(
    pod: &'a Pod,
    own: Option<&'a Container>,
    reference: &ResourceFieldSelector,
) -> Result<&'a Container, DownwardError> {
    let name = reference.container_name.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_ref());
    let mut containers = spec
        .into_iter()
        .flat_map(|spec| &spec.containers)
        .chain(init.into_iter().flatten());
    let found = match own {
        Some(own) if name.is_empty() || own.name == name => Some(own),
        _ => containers.find(|container| container.name == name),
    };
    found.ok_or_else(|| DownwardError::NoContainer(name.to_owned()))
}

/// A limit, if there is one; one of zero is none.
fn limit(
    requirements: Option<&Requirements>,
    name: &str,
) -> Result<Option<Quantity>, DownwardError> {
    let limits = requirements.and_then(|requirements| requirements.limits.as_ref());
    let set = read(limits.and_then(|limits| limits.get(name)), name)?;
    Ok(set.filter(|quantity| !quantity.is_zero()))
}

fn read(text: Option<&Text>, name: &str) -> Result<Option<Quantity>, DownwardError> {
    let read = text.map(|text| Quantity::parse(&text.0)).transpose();
    read.map_err(|error| DownwardError::Quantity {
        resource: name.to_owned(),
        why: error.to_string(),
    })
}
