//! Whether this node takes a pod.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::{Pod, Taint};
use orlop_core::quantity::Quantity;
use orlop_core::scheduling::{PodInfo, Resources, Taint as SchedulingTaint};
use orlop_core::selector::node::has_labels;
use parking_lot::RwLock;

use super::spec;
use super::status::Verdict;

/// What admission and pods' statuses need to know of the node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// What pods may take of it together, by resource. `None` as long as it is not known: then resources are not looked at.
    pub allocatable: Option<BTreeMap<String, Quantity>>,
    /// Its addresses, the main one first.
    pub addresses: Vec<IpAddr>,
    /// Whether the runtime heeds `supplementalGroupsPolicy: Strict`.
    pub supplemental_groups_policy: bool,
}

/// A handle to what is known of the node. Clones share it. Who keeps the Node's status sets it, before pods come.
#[derive(Clone, Default)]
pub struct KnownNode(Arc<Known>);

#[derive(Default)]
struct Known {
    facts: RwLock<Arc<NodeFacts>>,
    node: OnceLock<crate::node::NodeInfo>,
}

impl fmt::Debug for KnownNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl KnownNode {
    /// A handle to a node of which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known.
    #[must_use]
    pub fn get(&self) -> Arc<NodeFacts> {
        let facts = self.0.facts.read().clone();
        let Some(node) = self.0.node.get().and_then(crate::node::NodeInfo::node) else {
            return facts;
        };
        // Labels and taints are the Node's, which others change too.
        let mut facts = (*facts).clone();
        facts.labels = node.metadata.labels.clone().unwrap_or_default();
        let own = node.spec.as_ref().and_then(|spec| spec.taints.clone());
        facts.taints = own.unwrap_or_default();
        Arc::new(facts)
    }

    /// The node's addresses, the main one first.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let own = self.0.facts.read().addresses.clone();
        match self.0.node.get() {
            Some(node) if own.is_empty() => node.addresses(),
            _ => own,
        }
    }

    /// Replaces what is known.
    pub fn set(&self, facts: NodeFacts) {
        *self.0.facts.write() = Arc::new(facts);
    }

    /// Changes what is known.
    pub fn update(&self, change: impl FnOnce(&mut NodeFacts)) {
        let mut facts = self.0.facts.write();
        change(Arc::make_mut(&mut facts));
    }

    /// Takes labels, taints and addresses from the Node as its keeper knows it, and what it has for pods. To be called once; a later call
    /// changes nothing.
    pub fn follow(&self, node: crate::node::NodeInfo) {
        self.update(|facts| facts.allocatable = Some(node.allocatable().clone()));
        // Only the first keeper counts.
        let _ = self.0.node.set(node);
    }
}

/// The label of a node's operating system, and what it says here.
const OS_LABEL: &str = "kubernetes.io/os";
const OS: &str = "linux";

fn refuse(reason: impl Into<String>, message: impl Into<String>) -> Result<(), Verdict> {
    Err(Verdict {
        reason: reason.into(),
        message: message.into(),
    })
}

/// A refusal of one of the scheduler's filters, as upstream's agent words it.
fn filter(name: &str, why: &str) -> Result<(), Verdict> {
    refuse(name, format!("Predicate {name} failed: {why}"))
}

/// The few things about a pod that admission compares.
///
/// # Errors
/// The pod is malformed.
pub(crate) fn view(pod: &Pod) -> Result<PodInfo, Verdict> {
    let unexpected = |error: String| Verdict {
        reason: "UnexpectedAdmissionError".to_owned(),
        message: format!("Allocate failed due to {error}, which is unexpected"),
    };
    let value = serde_json::to_value(pod).map_err(|error| unexpected(error.to_string()))?;
    PodInfo::from_value(value).map_err(|error| unexpected(error.to_string()))
}

/// Whether a pod can run beside the others, which were taken before it.
///
/// # Errors
/// Why not: the reason and message of its status, by upstream's words.
pub(crate) fn admit(
    pod: &Pod,
    wanted: &PodInfo,
    others: &[Arc<PodInfo>],
    node: &NodeFacts,
    name: &str,
    max_pods: u32,
) -> Result<(), Verdict> {
    let own_spec = spec::spec(pod);
    let labels = pod.metadata.labels.as_ref();
    if labels
        .and_then(|labels| labels.get(OS_LABEL))
        .is_some_and(|os| os != OS)
    {
        return refuse(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        );
    }
    if own_spec.os.as_ref().is_some_and(|os| os.name != OS) {
        return refuse(
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        );
    }
    let security = own_spec.security_context.as_ref();
    let policy = security.and_then(|own| own.supplemental_groups_policy.as_deref());
    if policy == Some("Strict") && !node.supplemental_groups_policy {
        return refuse(
            "SupplementalGroupsPolicyNotSupported",
            "SupplementalGroupsPolicy=Strict is not supported in this node",
        );
    }
    let mut used = Resources::default();
    for other in others {
        used.add(other.requests(), 1);
    }
    resources(wanted.requests(), &used, node, max_pods)?;

    // A pod that runs here already is not driven out by what has changed since.
    let status = pod.status.as_ref();
    let ran = status.is_some_and(|status| status.start_time.is_some());
    let constraints = wanted.constraints();
    let affinity = constraints.required_affinity.as_ref();
    let labels_known = !node.labels.is_empty();
    if !ran
        && labels_known
        && (!has_labels(&constraints.node_selector, &node.labels)
            || affinity.is_some_and(|affinity| !affinity.matches(name, &node.labels)))
    {
        return filter(
            "NodeAffinity",
            "node(s) didn't match Pod's node affinity/selector",
        );
    }
    if own_spec.node_name.as_deref().is_some_and(|own| own != name) {
        return filter("NodeName", "node(s) didn't match the requested node name");
    }
    let mut taken = others
        .iter()
        .flat_map(|other| &other.constraints().host_ports);
    if taken.any(|taken| {
        constraints
            .host_ports
            .iter()
            .any(|own| own.conflicts(taken))
    }) {
        return filter(
            "NodePorts",
            "node(s) didn't have free ports for the requested pod ports",
        );
    }
    if !ran && !spec::is_static(pod) {
        let tolerated = |taint: &Taint| {
            let taint = serde_json::to_value(taint).ok();
            let taint = taint.and_then(|t| serde_json::from_value::<SchedulingTaint>(t).ok());
            taint.is_none_or(|taint| {
                let mut all = constraints.tolerations.iter();
                all.any(|toleration| toleration.tolerates(&taint))
            })
        };
        let no_execute = |taint: &&Taint| taint.effect == "NoExecute";
        if !node.taints.iter().filter(no_execute).all(tolerated) {
            return filter(
                "TaintToleration",
                "node(s) had taints that the pod didn't tolerate",
            );
        }
    }
    Ok(())
}

/// Whether there is enough of every resource.
fn resources(
    wanted: &Resources,
    used: &Resources,
    node: &NodeFacts,
    max_pods: u32,
) -> Result<(), Verdict> {
    let short = |name: &str, capacity: i64| {
        let (requested, taken) = (wanted.get(name), used.get(name));
        if requested == 0 || requested <= capacity - taken {
            return Ok(());
        }
        refuse(
            format!("OutOf{name}"),
            format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {taken}, capacity: {capacity}"
            ),
        )
    };
    let allocatable = node.allocatable.as_ref().map(Resources::from_quantities);
    let pods = allocatable.as_ref().map_or(0, |all| all.pods);
    short("pods", if pods > 0 { pods } else { i64::from(max_pods) })?;
    let Some(allocatable) = allocatable else {
        return Ok(());
    };
    for name in ["cpu", "memory", "ephemeral-storage"] {
        short(name, allocatable.get(name))?;
    }
    for (name, _) in &wanted.scalar {
        // An extended resource that the node does not know belongs to the cluster, not to the node.
        let native = !name.contains('/') || name.contains("kubernetes.io/");
        if native || allocatable.scalar(name) > 0 {
            short(name, allocatable.scalar(name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{"name": "c"}]);
        }
        serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": spec}),
        )
        .unwrap()
    }

    fn asks(resources: Value) -> Pod {
        pod(json!({"containers": [{"name": "c", "resources": {"requests": resources}}]}))
    }

    fn node() -> NodeFacts {
        let amounts = [
            ("cpu", "2"),
            ("memory", "1Gi"),
            ("pods", "3"),
            ("ephemeral-storage", "1Gi"),
        ];
        let amounts = amounts.map(|(name, text)| (name.to_owned(), Quantity::parse(text).unwrap()));
        NodeFacts {
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            allocatable: Some(amounts.into()),
            taints: serde_json::from_value(json!([{"key": "gone", "effect": "NoExecute"}]))
                .unwrap(),
            ..NodeFacts::default()
        }
    }

    #[test]
    fn what_a_node_refuses() {
        let tolerant = json!([{"operator": "Exists"}]);
        let port = json!([{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]);
        let other = Arc::new(view(&pod(json!({"containers": port}))).unwrap());
        let busy = Arc::new(view(&asks(json!({"cpu": "1500m"}))).unwrap());
        let run = |mut pod: Pod, others: &[Arc<PodInfo>]| {
            let spec = pod.spec.as_mut().unwrap();
            if spec.tolerations.is_none() {
                spec.tolerations = serde_json::from_value(tolerant.clone()).unwrap();
            }
            admit(&pod, &view(&pod).unwrap(), others, &node(), "n1", 110)
                .err()
                .map(|verdict| (verdict.reason, verdict.message))
        };
        let no = |reason: &str, message: &str| Some((reason.to_owned(), message.to_owned()));
        assert_eq!(run(pod(json!({})), &[]), None);
        assert_eq!(
            run(asks(json!({"cpu": "1"})), std::slice::from_ref(&busy)),
            no(
                "OutOfcpu",
                "Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000"
            )
        );
        assert_eq!(
            run(asks(json!({"memory": "2Gi"})), &[]).unwrap().0,
            "OutOfmemory"
        );
        let three = [other.clone(), busy.clone(), busy.clone()];
        assert_eq!(
            run(pod(json!({})), &three),
            no(
                "OutOfpods",
                "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"
            )
        );
        assert_eq!(
            run(pod(json!({"nodeSelector": {"zone": "b"}})), &[]),
            no(
                "NodeAffinity",
                "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
            )
        );
        assert_eq!(
            run(pod(json!({"containers": port})), &[other]),
            no(
                "NodePorts",
                "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
            )
        );
        assert_eq!(
            run(pod(json!({"tolerations": []})), &[]).unwrap().0,
            "TaintToleration"
        );
        assert_eq!(
            run(pod(json!({"os": {"name": "windows"}})), &[]).unwrap().0,
            "PodOSNotSupported"
        );
        assert_eq!(
            run(asks(json!({"example.com/tpu": "1"})), &[]),
            None,
            "not this node's to count"
        );
        let mut moved = pod(json!({"nodeSelector": {"zone": "b"}, "tolerations": []}));
        moved.status =
            serde_json::from_value(json!({"startTime": "2026-01-01T00:00:00Z"})).unwrap();
        assert_eq!(run(moved, &[]), None, "it runs already");
    }

    #[test]
    fn resources_are_not_looked_at_until_they_are_known() {
        let node = NodeFacts::default();
        let huge = asks(json!({"cpu": "1000"}));
        let own = view(&huge).unwrap();
        assert_eq!(admit(&huge, &own, &[], &node, "n1", 1), Ok(()));
        let one = [Arc::new(own.clone())];
        let refused = admit(&huge, &own, &one, &node, "n1", 1).unwrap_err();
        assert_eq!(refused.reason, "OutOfpods");
    }
}
