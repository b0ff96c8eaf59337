//! Node IPAM: every node gets a range of pod addresses of its own, out of the cluster's.
//!
//! A node keeps the range it has for as long as it is there; a range is free again when its node is gone. What nodes have is the truth: a
//! restarted controller reads it from them.

mod ranges;

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use orlop_core::client::Patch;
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop_core::network::Cidr;
use orlop_core::object::{Object, ObjectKey};
use parking_lot::Mutex;
use serde_json::json;

pub use self::ranges::RangeError;
use self::ranges::Ranges;
use crate::common::resources::NODES;

/// The length of the prefix of a node's IPv4 range, unless another is chosen (`--node-cidr-mask-size-ipv4`).
pub const MASK_IPV4: u8 = 24;
/// The same for IPv6 (`--node-cidr-mask-size-ipv6`).
pub const MASK_IPV6: u8 = 64;

/// What a [`NodeIpamController`] gives out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIpamOptions {
    /// The cluster's ranges (`--cluster-cidr`): one, or one of each family, the first family first.
    pub cluster_cidrs: Vec<Cidr>,
    /// Ranges that no node gets, where they overlap with those: of Services (`--service-cluster-ip-range`).
    pub service_cidrs: Vec<Cidr>,
    /// The length of the prefix of a node's IPv4 range. 24.
    pub mask_ipv4: u8,
    /// The length of the prefix of a node's IPv6 range. 64.
    pub mask_ipv6: u8,
}

impl NodeIpamOptions {
    /// Ranges for nodes out of the cluster's, of the usual sizes.
    pub fn new(cluster_cidrs: impl IntoIterator<Item = Cidr>) -> Self {
        Self {
            cluster_cidrs: cluster_cidrs.into_iter().collect(),
            service_cidrs: Vec::new(),
            mask_ipv4: MASK_IPV4,
            mask_ipv6: MASK_IPV6,
        }
    }
}

/// Gives nodes their `spec.podCIDRs`.
#[derive(Debug)]
pub struct NodeIpamController {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Of each of the cluster's ranges.
    ranges: Vec<Ranges>,
    /// What each node has, also if it does not know yet.
    nodes: BTreeMap<String, Vec<Cidr>>,
    /// Whether what nodes have was read.
    restored: bool,
}

/// What is to be done about a node.
enum Step {
    Nothing,
    Give(Vec<Cidr>),
    NothingLeft,
    /// It has what another one has, or what is not the cluster's.
    Foreign(Cidr),
}

impl NodeIpamController {
    /// The controller.
    ///
    /// # Errors
    /// [`RangeError`] for ranges that cannot be divided so.
    pub fn new(options: &NodeIpamOptions) -> Result<Self, RangeError> {
        let (all, services) = (&options.cluster_cidrs, &options.service_cidrs);
        let families = all.iter().map(|cidr| cidr.address().is_ipv4());
        let families: std::collections::BTreeSet<bool> = families.collect();
        if all.is_empty() || families.len() != all.len() {
            return Err(RangeError::Families);
        }
        let ranges = all.iter().map(|cidr| {
            let mask = if cidr.address().is_ipv4() {
                options.mask_ipv4
            } else {
                options.mask_ipv6
            };
            let mut ranges = Ranges::new(*cidr, mask)?;
            for services in services {
                ranges.occupy(*services);
            }
            Ok(ranges)
        });
        Ok(Self {
            state: Mutex::new(State {
                ranges: ranges.collect::<Result<_, RangeError>>()?,
                nodes: BTreeMap::new(),
                restored: false,
            }),
        })
    }
}

/// The ranges that a node says it has.
fn own(node: &Node) -> Vec<Cidr> {
    let spec = node.spec.as_ref();
    let all = spec.and_then(|spec| spec.pod_cidrs.clone());
    let one = spec.and_then(|spec| spec.pod_cidr.clone());
    let texts = all
        .filter(|all| !all.is_empty())
        .unwrap_or_else(|| one.into_iter().collect());
    let parsed = texts.iter().filter_map(|text| text.parse().ok());
    parsed.collect()
}

impl State {
    fn restore(&mut self, nodes: &[Object]) {
        if std::mem::replace(&mut self.restored, true) {
            return;
        }
        for object in nodes {
            if let Ok(node) = object.decode::<Node>() {
                let has = own(&node);
                if !has.is_empty() {
                    self.hold(object.name(), has);
                }
            }
        }
    }

    /// Notes that a node has ranges; what it had before is free.
    fn hold(&mut self, name: &str, ranges: Vec<Cidr>) -> Option<Cidr> {
        if self.nodes.get(name) == Some(&ranges) {
            return None;
        }
        self.release(name);
        let mut foreign = None;
        for range in &ranges {
            let mut of = self.ranges.iter_mut();
            if !of.any(|ranges| ranges.occupy(*range)) {
                foreign = Some(*range);
            }
        }
        self.nodes.insert(name.to_owned(), ranges);
        foreign
    }

    fn release(&mut self, name: &str) {
        for range in self.nodes.remove(name).unwrap_or_default() {
            for ranges in &mut self.ranges {
                ranges.release(range);
            }
        }
    }

    fn step(&mut self, name: &str, node: Option<&Node>) -> Step {
        let Some(node) = node else {
            self.release(name);
            return Step::Nothing;
        };
        let has = own(node);
        if !has.is_empty() {
            return self.hold(name, has).map_or(Step::Nothing, Step::Foreign);
        }
        if let Some(given) = self.nodes.get(name) {
            // It was written, or is to be, and the node has not been seen with it.
            return Step::Give(given.clone());
        }
        let mut given = Vec::new();
        for ranges in &mut self.ranges {
            given.extend(ranges.allocate());
        }
        if given.len() < self.ranges.len() {
            // All or nothing.
            for range in given {
                for ranges in &mut self.ranges {
                    ranges.release(range);
                }
            }
            return Step::NothingLeft;
        }
        self.nodes.insert(name.to_owned(), given.clone());
        Step::Give(given)
    }
}

#[async_trait]
impl Controller for NodeIpamController {
    fn name(&self) -> &str {
        "node-ipam-controller"
    }

    fn identity(&self) -> &str {
        "node-controller"
    }

    fn interests(&self) -> Interests {
        Interests::new().for_each(NODES)
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let object = ctx.store(&NODES).get(key);
        let node = object.as_ref().map(|node| node.decode::<Node>());
        let node = node.transpose()?;
        let all = ctx.store(&NODES).list();
        let step = {
            let mut state = self.state.lock();
            state.restore(&all);
            state.step(&key.name, node.as_deref())
        };
        let Some(object) = object else {
            return Ok(Action::Done);
        };
        match step {
            Step::Nothing => Ok(Action::Done),
            Step::Foreign(range) => {
                tracing::warn!(node = %key.name, %range, "a node has a range of addresses that is not the cluster's");
                Ok(Action::Done)
            }
            Step::NothingLeft => {
                let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
                ctx.events().normal(&object, "CIDRNotAvailable", message);
                Err(ReconcileError::other(format!(
                    "failed to allocate cidr from cluster cidr for node {}: all ranges are in use",
                    key.name
                )))
            }
            Step::Give(ranges) => {
                let texts: Vec<String> = ranges.iter().map(Cidr::to_string).collect();
                let spec = json!({"podCIDR": texts[0], "podCIDRs": texts});
                let patch = json!({"metadata": {"uid": object.uid()}, "spec": spec});
                let nodes = ctx.client().resource(&NODES);
                match nodes.patch(&key.name, Patch::Strategic(patch)).await {
                    Ok(_) => Ok(Action::Done),
                    // Its place is given back when the store knows.
                    Err(status) if status.is_not_found() => Ok(Action::Done),
                    Err(status) => {
                        let message =
                            format!("Node {} status is now: CIDRAssignmentFailed", key.name);
                        ctx.events()
                            .normal(&object, "CIDRAssignmentFailed", message);
                        Err(status.into())
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use orlop_core::client::DeleteOptions;

    use super::*;
    use crate::testing::{World, run_after};

    fn options(ranges: &[&str], mask: u8) -> NodeIpamOptions {
        NodeIpamOptions {
            mask_ipv4: mask,
            ..NodeIpamOptions::new(ranges.iter().map(|range| range.parse().unwrap()))
        }
    }

    fn node(name: &str, range: Option<&str>) -> serde_json::Value {
        let mut node = json!({"metadata": {"name": name}, "spec": {}});
        if let Some(range) = range {
            node["spec"] = json!({"podCIDR": range, "podCIDRs": [range]});
        }
        node
    }

    fn range_of(world: &World, name: &str) -> String {
        let node = world.get(&NODES, name).unwrap_or_default();
        let of = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let all = node["spec"]["podCIDRs"].as_array().cloned();
        let all: Vec<String> = all.unwrap_or_default().iter().map(of).collect();
        assert_eq!(
            of(&node["spec"]["podCIDR"]),
            all.first().cloned().unwrap_or_default()
        );
        all.join(",")
    }

    #[test]
    fn nodes_get_ranges_and_give_them_back() {
        let there = vec![(NODES, node("old", Some("10.244.1.0/24")))];
        let controller = NodeIpamController::new(&options(&["10.244.0.0/22"], 24)).unwrap();
        run_after(there, vec![Arc::new(controller)], |world| async move {
            for name in ["a", "b", "c"] {
                world.create(&NODES, node(name, None)).await;
            }
            world
                .until("all have one", |world| {
                    ["a", "b", "c"]
                        .iter()
                        .all(|name| !range_of(world, name).is_empty())
                })
                .await;
            let mut given: Vec<String> = ["a", "b", "c"]
                .iter()
                .map(|name| range_of(&world, name))
                .collect();
            given.sort();
            assert_eq!(given, ["10.244.0.0/24", "10.244.2.0/24", "10.244.3.0/24"]);
            world.create(&NODES, node("late", None)).await;
            world
                .until("there is nothing left", |world| {
                    !world.events("late", "CIDRNotAvailable").is_empty()
                })
                .await;
            assert_eq!(
                world.events("late", "CIDRNotAvailable"),
                ["Node late status is now: CIDRNotAvailable"]
            );
            let nodes = world.client();
            nodes
                .resource(&NODES)
                .delete("old", DeleteOptions::default())
                .await
                .unwrap();
            world
                .until("the late one has it", |world| {
                    range_of(world, "late") == "10.244.1.0/24"
                })
                .await;
            world.stop().await;
        });
    }

    #[test]
    fn two_families_come_together() {
        let options = options(&["10.244.0.0/16", "fd00:10::/48"], 24);
        let controller = NodeIpamController::new(&options).unwrap();
        run_after(Vec::new(), vec![Arc::new(controller)], |world| async move {
            world.create(&NODES, node("a", None)).await;
            world
                .until("it has both", |world| {
                    range_of(world, "a") == "10.244.0.0/24,fd00:10::/64"
                })
                .await;
            world.stop().await;
        });
    }

    #[test]
    fn ranges_that_make_no_sense_are_refused() {
        for (ranges, mask) in [
            (&[][..], 24),
            (&["10.0.0.0/16", "10.1.0.0/16"][..], 24),
            (&["10.0.0.0/24"][..], 16),
            (&["10.0.0.0/8"][..], 28),
        ] {
            assert!(
                NodeIpamController::new(&options(ranges, mask)).is_err(),
                "{ranges:?}"
            );
        }
    }
}
