//! How well a pod is served when there is not enough for all.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod};
use orlop_core::quantity::Quantity;

use super::pod_resources::{self, Amounts};

/// The class of service of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QosClass {
    /// All its containers have limits for CPU and memory, and ask for as much.
    Guaranteed,
    /// Something is asked for, or limited.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl QosClass {
    /// The class of a pod: as its status says, or else by its specification, as for a pod that the API has not seen.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let told = pod
            .status
            .as_ref()
            .and_then(|status| status.qos_class.as_deref());
        match told {
            Some("Guaranteed") => Self::Guaranteed,
            Some("Burstable") => Self::Burstable,
            Some("BestEffort") => Self::BestEffort,
            _ => Self::by_spec(pod),
        }
    }

    fn by_spec(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else {
            return Self::BestEffort;
        };
        let served = |amounts: Amounts| -> Amounts {
            let keep = |(name, amount): &(String, Quantity)| {
                matches!(name.as_str(), "cpu" | "memory") && !amount.is_zero()
            };
            amounts.into_iter().filter(keep).collect()
        };
        let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
        let mut all_limited = true;
        if let Some(whole) = &spec.resources {
            requests = served(pod_resources::amounts(whole.requests.as_ref()));
            limits = served(pod_resources::amounts(whole.limits.as_ref()));
            all_limited = limits.len() == 2;
        }
        // What the pod says as a whole stands for its containers.
        if requests.is_empty() && limits.is_empty() {
            let containers = spec
                .containers
                .iter()
                .chain(spec.init_containers.iter().flatten());
            all_limited = true;
            for container in containers {
                let own = |of: fn(&Container) -> Amounts| served(of(container));
                pod_resources::add(&mut requests, &own(pod_resources::container_requests));
                let limited = own(pod_resources::container_limits);
                all_limited &= limited.len() == 2;
                pod_resources::add(&mut limits, &limited);
            }
        }
        if requests.is_empty() && limits.is_empty() {
            Self::BestEffort
        } else if all_limited && requests == limits {
            Self::Guaranteed
        } else {
            Self::Burstable
        }
    }

    /// The word in `status.qosClass`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

impl fmt::Display for QosClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
