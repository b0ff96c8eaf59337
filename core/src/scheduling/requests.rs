//! What a pod asks for: the sum over its containers, with all that Kubernetes adds and takes.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::resources::Resources;
use crate::quantity::Quantity;

/// What a container counts for in scores when it asks for no CPU: 100 thousandths of a core.
const DEFAULT_MILLI_CPU: i64 = 100;
/// What a container counts for in scores when it asks for no memory: 200 MiB.
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

pub(super) type Amounts = BTreeMap<String, Quantity>;

/// `resources` of a container or of a whole pod.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawResources {
    pub(super) requests: Option<Amounts>,
}

/// What matters of a container.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawContainer {
    pub(super) name: String,
    pub(super) image: Option<String>,
    pub(super) resources: Option<RawResources>,
    pub(super) ports: Option<Vec<RawPort>>,
    pub(super) restart_policy: Option<String>,
}

impl RawContainer {
    /// Whether an init container stays beside the containers.
    pub(super) fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawPort {
    pub(super) host_port: i32,
    #[serde(rename = "hostIP")]
    pub(super) host_ip: Option<String>,
    pub(super) protocol: Option<String>,
}

/// What a running container was given, which during a resize differs from what it asks for.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawContainerStatus {
    name: String,
    allocated_resources: Option<Amounts>,
    resources: Option<RawResources>,
}

/// All that a pod's requests depend on.
pub(super) struct Asked<'a> {
    pub(super) containers: &'a [RawContainer],
    pub(super) init_containers: &'a [RawContainer],
    pub(super) statuses: Vec<&'a RawContainerStatus>,
    /// Whether the node said that it can never grant the resize that is asked for.
    pub(super) resize_infeasible: bool,
    pub(super) overhead: Option<&'a Amounts>,
    pub(super) pod_level: Option<&'a Amounts>,
}

/// A pod's requests, and its CPU and memory as scores count them.
pub(super) struct Requests {
    pub(super) requests: Resources,
    pub(super) scored_milli_cpu: i64,
    pub(super) scored_memory: i64,
}

impl Asked<'_> {
    pub(super) fn sum(&self) -> Requests {
        let mut requests = Resources::from_quantities(&self.total(false));
        requests.pods = 1;
        requests.scalar.retain(|(_, amount)| *amount != 0);
        let scored = self.total(true);
        Requests {
            requests,
            scored_milli_cpu: scored.get("cpu").map_or(0, Quantity::milli_value),
            scored_memory: scored.get("memory").map_or(0, Quantity::value),
        }
    }

    fn total(&self, with_defaults: bool) -> Amounts {
        let of = |container: &RawContainer| {
            let mut amounts = self.container(container);
            if with_defaults {
                amounts
                    .entry("cpu".into())
                    .or_insert(Quantity::from_milli(DEFAULT_MILLI_CPU));
                amounts.entry("memory".into()).or_insert(Quantity::new(
                    DEFAULT_MEMORY,
                    crate::quantity::Format::BinarySi,
                ));
            }
            amounts
        };
        let mut total = Amounts::new();
        for container in self.containers {
            add(&mut total, &of(container));
        }
        // Init containers run one after the other, each beside the sidecars that were started before it.
        let mut sidecars = Amounts::new();
        let mut highest = Amounts::new();
        for container in self.init_containers {
            let mut amounts = of(container);
            if container.is_sidecar() {
                add(&mut total, &amounts);
                add(&mut sidecars, &amounts);
                raise(&mut highest, &sidecars);
            } else {
                add(&mut amounts, &sidecars);
                raise(&mut highest, &amounts);
            }
        }
        raise(&mut total, &highest);
        for (name, amount) in self.pod_level.into_iter().flatten() {
            if name == "cpu" || name == "memory" || name.starts_with("hugepages-") {
                total.insert(name.clone(), amount.clone());
            }
        }
        if let Some(overhead) = self.overhead {
            add(&mut total, overhead);
        }
        total
    }

    /// A container's requests: while it is being resized, the larger of what it asks for and what it has.
    fn container(&self, container: &RawContainer) -> Amounts {
        let asked = container
            .resources
            .as_ref()
            .and_then(|resources| resources.requests.as_ref());
        let status = self
            .statuses
            .iter()
            .find(|status| status.name == container.name);
        let actual = status.and_then(|status| status.resources.as_ref()?.requests.as_ref());
        let allocated = status.and_then(|status| status.allocated_resources.as_ref());
        if actual.is_none() && allocated.is_none() {
            return asked.cloned().unwrap_or_default();
        }
        let mut amounts = if self.resize_infeasible {
            Amounts::new()
        } else {
            asked.cloned().unwrap_or_default()
        };
        for known in [actual, allocated].into_iter().flatten() {
            raise(&mut amounts, known);
        }
        amounts
    }
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        match sum.get_mut(name) {
            Some(known) => *known += amount,
            None => {
                sum.insert(name.clone(), amount.clone());
            }
        }
    }
}

fn raise(sum: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        match sum.get_mut(name) {
            Some(known) if *known >= *amount => {}
            _ => {
                sum.insert(name.clone(), amount.clone());
            }
        }
    }
}
