//! [`NodeInfo`]: the few things about a node that scheduling looks at; and what its pods take of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::pod::PodInfo;
use super::requests::Amounts;
use super::resources::Resources;
use super::taint::Taint;
use crate::object::{Object, ObjectError};

/// A node as the scheduler sees it, without its pods.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeInfo {
    name: Arc<str>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    taints: Arc<[Taint]>,
    unschedulable: bool,
    allocatable: Resources,
    images: Vec<(Arc<str>, i64)>,
    /// Type and status of each condition, to see a change.
    conditions: Vec<(String, String)>,
}

impl NodeInfo {
    /// A node from its object.
    ///
    /// # Errors
    /// When the JSON is not a node's.
    pub fn from_object(object: &Object) -> Result<Self, ObjectError> {
        let raw: RawNode = serde_json::from_slice(object.stored_json())?;
        let mut images: Vec<(Arc<str>, i64)> = raw
            .status
            .images
            .into_iter()
            .flatten()
            .flat_map(|image| {
                let size = image.size_bytes;
                image
                    .names
                    .into_iter()
                    .flatten()
                    .map(move |name| (name.into(), size))
            })
            .collect();
        images.sort();
        images.dedup_by(|a, b| a.0 == b.0);
        Ok(Self {
            name: object.name().into(),
            labels: object.metadata().labels.clone(),
            annotations: object.metadata().annotations.clone(),
            taints: raw.spec.taints.unwrap_or_default().into(),
            unschedulable: raw.spec.unschedulable.unwrap_or_default(),
            allocatable: Resources::from_quantities(raw.status.allocatable.iter().flatten()),
            images,
            conditions: raw
                .status
                .conditions
                .into_iter()
                .flatten()
                .map(|condition| (condition.r#type, condition.status))
                .collect(),
        })
    }

    /// A node of which nothing but the name is known.
    #[must_use]
    pub fn named(name: &Arc<str>) -> Self {
        Self {
            name: name.clone(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            taints: Arc::from([]),
            unschedulable: false,
            allocatable: Resources::default(),
            images: Vec::new(),
            conditions: Vec::new(),
        }
    }

    /// A node from a JSON document; for tests and simulations.
    ///
    /// # Errors
    /// When the JSON is not a node's.
    pub fn from_value(value: Value) -> Result<Self, ObjectError> {
        Self::from_object(&Object::from_value(value)?)
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The labels.
    #[must_use]
    pub const fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// The annotations.
    #[must_use]
    pub const fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// The taints.
    #[must_use]
    pub const fn taints(&self) -> &Arc<[Taint]> {
        &self.taints
    }

    /// Whether it is cordoned.
    #[must_use]
    pub const fn is_unschedulable(&self) -> bool {
        self.unschedulable
    }

    /// What its pods may take altogether.
    #[must_use]
    pub const fn allocatable(&self) -> &Resources {
        &self.allocatable
    }

    /// The size of an image that it has, in bytes.
    #[must_use]
    pub fn image_size(&self, name: &str) -> Option<i64> {
        let at = self
            .images
            .binary_search_by(|(known, _)| (**known).cmp(name))
            .ok()?;
        Some(self.images[at].1)
    }

    /// The images that it has, with their sizes in bytes, in the order of their names.
    #[must_use]
    pub fn images(&self) -> &[(Arc<str>, i64)] {
        &self.images
    }

    /// Its conditions: type and status.
    #[must_use]
    pub fn conditions(&self) -> &[(String, String)] {
        &self.conditions
    }

    /// Region and zone, as one word; empty without both.
    #[must_use]
    pub fn zone(&self) -> String {
        let label = |names: [&str; 2]| {
            names
                .into_iter()
                .find_map(|name| self.labels.get(name))
                .map_or("", |v| v)
        };
        let region = label([
            "topology.kubernetes.io/region",
            "failure-domain.beta.kubernetes.io/region",
        ]);
        let zone = label([
            "topology.kubernetes.io/zone",
            "failure-domain.beta.kubernetes.io/zone",
        ]);
        if region.is_empty() && zone.is_empty() {
            String::new()
        } else {
            format!("{region}\0{zone}")
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawNode {
    spec: RawSpec,
    status: RawStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawSpec {
    taints: Option<Vec<Taint>>,
    unschedulable: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    allocatable: Option<Amounts>,
    images: Option<Vec<RawImage>>,
    conditions: Option<Vec<RawCondition>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawImage {
    names: Option<Vec<String>>,
    size_bytes: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawCondition {
    r#type: String,
    status: String,
}

/// A port of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// The address; `0.0.0.0` is all of them.
    pub ip: Arc<str>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Arc<str>,
    /// The port.
    pub port: i32,
}

impl HostPort {
    /// A port; without more, TCP on all addresses.
    #[must_use]
    pub fn new(ip: Option<&str>, protocol: Option<&str>, port: i32) -> Self {
        let or = |given: Option<&str>, default: &str| {
            given
                .filter(|text| !text.is_empty())
                .unwrap_or(default)
                .into()
        };
        Self {
            ip: or(ip, "0.0.0.0"),
            protocol: or(protocol, "TCP"),
            port,
        }
    }

    /// Whether both cannot be had on one node.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        const ALL: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || &*self.ip == ALL || &*other.ip == ALL)
    }
}

/// The ports of a node that are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPorts(Vec<HostPort>);

impl HostPorts {
    /// Whether none of some ports is in the way of one that is taken.
    #[must_use]
    pub fn are_free(&self, wanted: &[HostPort]) -> bool {
        !wanted
            .iter()
            .any(|wanted| self.0.iter().any(|taken| taken.conflicts(wanted)))
    }

    /// Whether no port is taken.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, port: &HostPort) {
        let at = self.0.binary_search(port).unwrap_or_else(|at| at);
        self.0.insert(at, port.clone());
    }

    fn give_back(&mut self, port: &HostPort) {
        if let Ok(at) = self.0.binary_search(port) {
            self.0.remove(at);
        }
    }
}

/// A node with its pods and what they take of it. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeState {
    pub(super) info: Arc<NodeInfo>,
    pub(super) pods: Arc<Vec<Arc<PodInfo>>>,
    pub(super) requested: Resources,
    pub(super) scored_milli_cpu: i64,
    pub(super) scored_memory: i64,
    pub(super) ports: Arc<HostPorts>,
}

impl NodeState {
    /// A node without pods.
    #[must_use]
    pub fn new(info: Arc<NodeInfo>) -> Self {
        Self {
            info,
            pods: Arc::default(),
            requested: Resources::default(),
            scored_milli_cpu: 0,
            scored_memory: 0,
            ports: Arc::default(),
        }
    }

    /// The node.
    #[must_use]
    pub const fn info(&self) -> &Arc<NodeInfo> {
        &self.info
    }

    /// Its pods.
    #[must_use]
    pub fn pods(&self) -> &[Arc<PodInfo>] {
        &self.pods
    }

    /// What its pods take.
    #[must_use]
    pub const fn requested(&self) -> &Resources {
        &self.requested
    }

    /// Replaces what is known of the node itself.
    pub fn set_info(&mut self, info: Arc<NodeInfo>) {
        self.info = info;
    }

    /// Adds a pod.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.count(&pod, 1);
        Arc::make_mut(&mut self.pods).push(pod);
    }

    /// Removes the pod with a uid, and says which it was.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|pod| &**pod.uid() == uid)?;
        let pod = Arc::make_mut(&mut self.pods).swap_remove(at);
        self.count(&pod, -1);
        Some(pod)
    }

    fn count(&mut self, pod: &PodInfo, sign: i64) {
        self.requested.add(pod.requests(), sign);
        self.scored_milli_cpu += sign * pod.scored_milli_cpu();
        self.scored_memory += sign * pod.scored_memory();
        let ports = &pod.constraints().host_ports;
        if !ports.is_empty() {
            let taken = Arc::make_mut(&mut self.ports);
            for port in ports {
                if sign > 0 {
                    taken.take(port)
                } else {
                    taken.give_back(port)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_read() {
        let node = NodeInfo::from_value(json!({
            "metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z"}},
            "spec": {"unschedulable": true, "taints": [{"key": "k", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}]},
            "status": {
                "allocatable": {"cpu": "3920m", "memory": "16Gi", "pods": "110", "example.com/x": "4"},
                "images": [{"names": ["b", "a"], "sizeBytes": 7}],
            },
        }))
        .unwrap();
        assert!(node.is_unschedulable());
        assert_eq!(
            (node.allocatable().milli_cpu, node.allocatable().pods),
            (3920, 110)
        );
        assert_eq!(node.allocatable().scalar("example.com/x"), 4);
        assert_eq!(node.image_size("a"), Some(7));
        assert_eq!(node.zone(), "\0z");
        assert_eq!(node.taints().len(), 1);
    }

    #[test]
    fn ports_conflict_by_address_and_protocol() {
        let port = HostPort::new;
        let mut ports = HostPorts::default();
        ports.take(&port(Some("10.0.0.1"), None, 80));
        for (wanted, free) in [
            (port(None, None, 80), false),
            (port(Some("10.0.0.1"), Some("TCP"), 80), false),
            (port(Some("10.0.0.2"), None, 80), true),
            (port(Some("10.0.0.1"), Some("UDP"), 80), true),
            (port(None, None, 81), true),
        ] {
            assert_eq!(
                ports.are_free(std::slice::from_ref(&wanted)),
                free,
                "{wanted:?}"
            );
        }
        ports.give_back(&port(Some("10.0.0.1"), None, 80));
        assert!(ports.is_empty());
    }

    #[test]
    fn pods_come_and_go() {
        let pod = |uid: &str| {
            Arc::new(
                PodInfo::from_value(json!({
                    "metadata": {"name": uid, "uid": uid},
                    "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "x.y/z": "1"}}, "ports": [{"hostPort": 9}]}]},
                }))
                .unwrap(),
            )
        };
        let mut node = NodeState::new(Arc::new(
            NodeInfo::from_value(json!({"metadata": {"name": "n"}})).unwrap(),
        ));
        node.add_pod(pod("a"));
        node.add_pod(pod("b"));
        assert_eq!(
            (
                node.requested().milli_cpu,
                node.requested().pods,
                node.requested().scalar("x.y/z")
            ),
            (2000, 2, 2)
        );
        assert!(node.remove_pod("c").is_none());
        assert!(node.remove_pod("a").is_some() && node.remove_pod("b").is_some());
        assert_eq!(*node.requested(), Resources::default());
        assert!(node.ports.is_empty() && node.pods().is_empty());
    }
}
