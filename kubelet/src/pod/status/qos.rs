//! The quality of service of a pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::spec;

type Amounts = BTreeMap<String, Quantity>;

/// The class: `Guaranteed` where every container has limits for CPU and memory that are its requests, `BestEffort` where none has any,
/// else `Burstable`. Where the pod as a whole has resources, they decide.
pub(crate) fn class(pod: &Pod) -> &'static str {
    // It cannot change: what the API says is right.
    let known = pod.status.as_ref().and_then(|api| api.qos_class.as_deref());
    match known {
        Some("Guaranteed") => return "Guaranteed",
        Some("Burstable") => return "Burstable",
        Some("BestEffort") => return "BestEffort",
        _ => {}
    }
    let own = spec::spec(pod).resources.as_ref();
    let all: Vec<&ResourceRequirements> = match own.filter(|own| amounts(own).count() > 0) {
        Some(own) => vec![own],
        None => {
            let containers = spec::containers(pod).iter();
            let every = containers.chain(spec::init_containers(pod));
            let every: Vec<_> = every.map(|one| one.resources.as_ref()).collect();
            if every.iter().any(Option::is_none) {
                let some = every.iter().flatten().any(|one| amounts(one).count() > 0);
                return if some { "Burstable" } else { "BestEffort" };
            }
            every.into_iter().flatten().collect()
        }
    };
    if all.iter().all(|one| amounts(one).count() == 0) {
        return "BestEffort";
    }
    let guaranteed = |one: &&ResourceRequirements| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = get(one.limits.as_ref(), name);
            let request = get(one.requests.as_ref(), name);
            limit.is_some() && (request.is_none() || request == limit)
        })
    };
    if all.iter().all(guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// CPU and memory that are asked for or limited, without zeros.
fn amounts(one: &ResourceRequirements) -> impl Iterator<Item = orlop_core::quantity::Quantity> {
    [&one.requests, &one.limits]
        .into_iter()
        .flat_map(|list| ["cpu", "memory"].map(|name| get(list.as_ref(), name)))
        .flatten()
}

fn get(list: Option<&Amounts>, name: &str) -> Option<orlop_core::quantity::Quantity> {
    let amount = orlop_core::quantity::Quantity::parse(&list?.get(name)?.0).ok()?;
    (amount.milli_value() != 0).then_some(amount)
}
