//! Which nodes a DaemonSet's pods belong on, and the pods for them.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod,
    PodSpec, Taint, Toleration,
};
use orlop_core::object::Object;
use orlop_core::selector::node as selector;

use super::{GENERATION, HASH};
use crate::common::ownership::managed_by;
use crate::common::pods;
use crate::node_lifecycle::tolerates;

/// What every daemon pod puts up with: it is there for the node's sake, however the node is.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// What those on the host's network put up with, too.
const WITHOUT_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// What a node means for a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A pod belongs there.
    Wanted,
    /// None belongs there, but one that is there may stay.
    Tolerated,
    /// None may be there.
    Unwanted,
}

/// The pods of a DaemonSet before they are given to nodes.
pub(super) struct Plan {
    spec: PodSpec,
    required: Option<selector::NodeMatcher>,
}

impl Plan {
    pub(super) fn new(set: &DaemonSet) -> Self {
        let template = set.spec.as_ref().map(|spec| &spec.template);
        let mut spec = template
            .and_then(|template| template.spec.clone())
            .unwrap_or_default();
        add_tolerations(&mut spec);
        let required = required(&spec).map(|required| {
            let value = serde_json::to_value(required).unwrap_or_default();
            let parsed: selector::NodeSelector = serde_json::from_value(value).unwrap_or_default();
            parsed.matcher()
        });
        Self { spec, required }
    }

    /// Whether a pod belongs on a node.
    pub(super) fn place(&self, node: &Node) -> Place {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let none = BTreeMap::new();
        let labels = node.metadata.labels.as_ref().unwrap_or(&none);
        let named = self
            .spec
            .node_name
            .as_deref()
            .filter(|name| !name.is_empty());
        let chosen = self.spec.node_selector.as_ref();
        if named.is_some_and(|named| named != name)
            || chosen.is_some_and(|wanted| !selector::has_labels(wanted, labels))
            || self
                .required
                .as_ref()
                .is_some_and(|required| !required.matches(name, labels))
        {
            return Place::Unwanted;
        }
        let tolerations = self.spec.tolerations.as_deref().unwrap_or_default();
        let untolerated = |effect: &str| {
            let spec = node.spec.as_ref();
            let mut taints = spec
                .into_iter()
                .flat_map(|spec| spec.taints.iter().flatten());
            taints.any(|taint: &Taint| {
                taint.effect == effect
                    && !tolerations
                        .iter()
                        .any(|toleration| tolerates(toleration, taint))
            })
        };
        if untolerated("NoExecute") {
            Place::Unwanted
        } else if untolerated("NoSchedule") {
            Place::Tolerated
        } else {
            Place::Wanted
        }
    }

    /// The pod for a node. The scheduler gives it to that node and to no other.
    pub(super) fn pod(&self, object: &Object, set: &DaemonSet, hash: &str, node: &str) -> Pod {
        let template = set.spec.as_ref().map(|spec| spec.template.clone());
        let template = template.unwrap_or_default();
        let mut pod = pods::from_template(&template, object.name(), managed_by(object));
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(HASH.to_owned(), hash.to_owned());
        if let Some(generation) = generation(set) {
            labels.insert(GENERATION.to_owned(), generation.to_owned());
        }
        let mut spec = self.spec.clone();
        pin(&mut spec, node);
        pod.spec = Some(spec);
        pod
    }
}

/// The generation of the template, which older clients set by an annotation.
fn generation(set: &DaemonSet) -> Option<&str> {
    let annotations = set.metadata.annotations.as_ref()?;
    annotations
        .get("deprecated.daemonset.template.generation")
        .map(String::as_str)
}

fn required(spec: &PodSpec) -> Option<&NodeSelector> {
    spec.affinity
        .as_ref()?
        .node_affinity
        .as_ref()?
        .required_during_scheduling_ignored_during_execution
        .as_ref()
}

fn add_tolerations(spec: &mut PodSpec) {
    let host = spec.host_network == Some(true);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(host.then_some(WITHOUT_NETWORK)) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        // One that says less about the same is replaced.
        tolerations.retain(|known| {
            known.key != toleration.key
                || known.effect != toleration.effect
                || known.operator != toleration.operator
        });
        tolerations.push(toleration);
    }
}

/// Puts the node's name in the place of whatever else the pod requires of nodes, which has been seen to already.
fn pin(spec: &mut PodSpec, node: &str) {
    let term = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        }]),
        ..NodeSelectorTerm::default()
    };
    let required = NodeSelector {
        node_selector_terms: vec![term],
    };
    spec.affinity
        .get_or_insert_with(Affinity::default)
        .node_affinity
        .get_or_insert_with(NodeAffinity::default)
        .required_during_scheduling_ignored_during_execution = Some(required);
}

/// The node that a daemon pod is on, or is for.
pub(super) fn target(pod: &Pod) -> Option<&str> {
    let on = pods::node(pod);
    if !on.is_empty() {
        return Some(on);
    }
    required(pod.spec.as_ref()?)?
        .node_selector_terms
        .iter()
        .find_map(|term| {
            let mut fields = term.match_fields.iter().flatten();
            let name =
                fields.find(|field| field.key == "metadata.name" && field.operator == "In")?;
            match name.values.as_deref() {
                Some([node]) => Some(node.as_str()),
                _ => None,
            }
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(spec: serde_json::Value) -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": {"name": "d"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}},
        }))
        .unwrap()
    }

    fn node(taints: serde_json::Value) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"disk": "ssd"}}, "spec": {"taints": taints},
        }))
        .unwrap()
    }

    #[test]
    fn where_pods_belong() {
        let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect}]);
        let affinity = |value: &str| {
            json!({"containers": [], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "In", "values": [value]}]}]}}}})
        };
        let plain = json!({"containers": []});
        for (spec, taints, place) in [
            (plain.clone(), json!([]), Place::Wanted),
            (plain.clone(), taint("x", "NoSchedule"), Place::Tolerated),
            (plain.clone(), taint("x", "NoExecute"), Place::Unwanted),
            (plain.clone(), taint("x", "PreferNoSchedule"), Place::Wanted),
            (
                plain.clone(),
                taint("node.kubernetes.io/not-ready", "NoExecute"),
                Place::Wanted,
            ),
            (
                plain.clone(),
                taint("node.kubernetes.io/unschedulable", "NoSchedule"),
                Place::Wanted,
            ),
            (
                plain,
                taint("node.kubernetes.io/network-unavailable", "NoSchedule"),
                Place::Tolerated,
            ),
            (
                json!({"containers": [], "hostNetwork": true}),
                taint("node.kubernetes.io/network-unavailable", "NoSchedule"),
                Place::Wanted,
            ),
            (
                json!({"containers": [], "nodeSelector": {"disk": "hdd"}}),
                json!([]),
                Place::Unwanted,
            ),
            (
                json!({"containers": [], "nodeSelector": {"disk": "ssd"}}),
                json!([]),
                Place::Wanted,
            ),
            (
                json!({"containers": [], "nodeName": "m"}),
                json!([]),
                Place::Unwanted,
            ),
            (affinity("ssd"), json!([]), Place::Wanted),
            (affinity("hdd"), json!([]), Place::Unwanted),
        ] {
            let plan = Plan::new(&set(spec.clone()));
            assert_eq!(plan.place(&node(taints.clone())), place, "{spec} {taints}");
        }
    }

    #[test]
    fn a_pod_is_for_one_node() {
        let set = set(json!({"containers": [], "tolerations": [
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3},
        ]}));
        let value = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "d", "uid": "u"}});
        let object = Object::from_value(value).unwrap();
        let pod = Plan::new(&set).pod(&object, &set, "h", "n");
        assert_eq!(target(&pod), Some("n"));
        assert_eq!(pod.metadata.labels.unwrap()[HASH], "h");
        let tolerations = pod.spec.unwrap().tolerations.unwrap();
        assert_eq!(tolerations.len(), TOLERATED.len());
        assert!(
            tolerations
                .iter()
                .all(|known| known.toleration_seconds.is_none())
        );
        assert_eq!(target(&Pod::default()), None);
    }
}
