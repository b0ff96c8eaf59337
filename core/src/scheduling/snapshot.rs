//! [`Snapshot`]: all nodes at one moment, as columns.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use super::node::{HostPorts, NodeInfo, NodeState};
use super::pod::PodInfo;
use super::resources::{ResourceColumns, Resources};
use super::taint::Taint;

/// A node's row in the columns of a [`Snapshot`]. It holds for as long as the set of nodes does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(u32);

impl NodeIndex {
    /// The node in a row.
    #[must_use]
    pub const fn new(row: usize) -> Self {
        Self(row as u32)
    }

    /// The row.
    #[must_use]
    pub const fn row(self) -> usize {
        self.0 as usize
    }
}

/// All nodes at one moment. What a plug-in compares lies in columns, one row for each node: a scan over thousands of nodes touches
/// only what it reads.
///
/// A clone is a fork: what is added to it or removed from it is not seen in the first, so "what if these pods were not there?" is
/// `let mut fork = snapshot.clone(); fork.remove_pod(…)` and the same plug-ins.
///
/// The order of the nodes goes round the zones, and within a zone by age: so a search that ends early has seen all zones.
#[derive(Clone, Default)]
pub struct Snapshot {
    nodes: Vec<Arc<NodeInfo>>,
    index: Arc<HashMap<Arc<str>, NodeIndex>>,
    allocatable: ResourceColumns,
    requested: ResourceColumns,
    scored_milli_cpu: Vec<i64>,
    scored_memory: Vec<i64>,
    unschedulable: Vec<bool>,
    taint_set: Vec<u32>,
    taint_sets: Vec<Arc<[Taint]>>,
    pods: Vec<Arc<Vec<Arc<PodInfo>>>>,
    ports: Vec<Arc<HostPorts>>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({} nodes)", self.len())
    }
}

impl Snapshot {
    /// A snapshot of some nodes, given in the order of their age.
    #[must_use]
    pub fn new<'a>(nodes: impl IntoIterator<Item = &'a NodeState>) -> Self {
        let mut zones: Vec<Vec<&NodeState>> = Vec::new();
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for node in nodes {
            let next = zones.len();
            let zone = *known.entry(node.info.zone()).or_insert(next);
            if zone == next {
                zones.push(Vec::new());
            }
            zones[zone].push(node);
        }
        let longest = zones.iter().map(Vec::len).max().unwrap_or(0);
        let ordered: Vec<&NodeState> = (0..longest)
            .flat_map(|turn| zones.iter().filter_map(move |zone| zone.get(turn).copied()))
            .collect();

        let rows = ordered.len();
        let mut snapshot = Self {
            nodes: ordered.iter().map(|node| node.info.clone()).collect(),
            index: Arc::new(
                ordered
                    .iter()
                    .enumerate()
                    .map(|(row, node)| (node.info.name().clone(), NodeIndex::new(row)))
                    .collect(),
            ),
            allocatable: ResourceColumns::zeroed(rows),
            requested: ResourceColumns::zeroed(rows),
            scored_milli_cpu: vec![0; rows],
            scored_memory: vec![0; rows],
            unschedulable: vec![false; rows],
            taint_set: vec![0; rows],
            // The first set is the empty one.
            taint_sets: vec![Arc::from([])],
            pods: vec![Arc::default(); rows],
            ports: vec![Arc::default(); rows],
        };
        for (row, node) in ordered.into_iter().enumerate() {
            snapshot.write_info(row, &node.info);
            snapshot.write_pods(row, node);
        }
        snapshot
    }

    /// Replaces what is known of a node and its pods. Its name and zone must be those of the row; for anything else the snapshot is
    /// made anew.
    ///
    /// # Panics
    /// When the row is another node's.
    pub fn set(&mut self, node: NodeIndex, state: &NodeState) {
        let row = node.row();
        assert_eq!(
            self.nodes[row].name(),
            state.info.name(),
            "a row belongs to one node"
        );
        if !Arc::ptr_eq(&self.nodes[row], &state.info) {
            self.write_info(row, &state.info);
        }
        self.write_pods(row, state);
    }

    fn write_info(&mut self, row: usize, info: &Arc<NodeInfo>) {
        self.allocatable.set(row, info.allocatable());
        self.unschedulable[row] = info.is_unschedulable();
        self.taint_set[row] = self.intern_taints(info.taints());
        self.nodes[row] = info.clone();
    }

    fn write_pods(&mut self, row: usize, state: &NodeState) {
        self.requested.set(row, &state.requested);
        self.scored_milli_cpu[row] = state.scored_milli_cpu;
        self.scored_memory[row] = state.scored_memory;
        self.pods[row] = state.pods.clone();
        self.ports[row] = state.ports.clone();
    }

    fn intern_taints(&mut self, taints: &Arc<[Taint]>) -> u32 {
        let known = self.taint_sets.iter().position(|set| set == taints);
        known.unwrap_or_else(|| {
            self.taint_sets.push(taints.clone());
            self.taint_sets.len() - 1
        }) as u32
    }

    /// Adds a pod to a node.
    pub fn add_pod(&mut self, node: NodeIndex, pod: Arc<PodInfo>) {
        let mut state = self.take_state(node);
        state.add_pod(pod);
        self.write_pods(node.row(), &state);
    }

    /// Removes the pod with a uid from a node, and says which it was.
    pub fn remove_pod(&mut self, node: NodeIndex, uid: &str) -> Option<Arc<PodInfo>> {
        let mut state = self.take_state(node);
        let pod = state.remove_pod(uid);
        self.write_pods(node.row(), &state);
        pod
    }

    /// A node's state, moved out so that it can be changed without a copy; the caller writes it back.
    fn take_state(&mut self, node: NodeIndex) -> NodeState {
        let row = node.row();
        NodeState {
            info: self.nodes[row].clone(),
            pods: std::mem::take(&mut self.pods[row]),
            requested: self.requested.row(row),
            scored_milli_cpu: self.scored_milli_cpu[row],
            scored_memory: self.scored_memory[row],
            ports: std::mem::take(&mut self.ports[row]),
        }
    }

    /// How many nodes there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A node.
    #[must_use]
    pub fn node(&self, index: NodeIndex) -> NodeView<'_> {
        assert!(index.row() < self.len(), "no such node");
        NodeView {
            snapshot: self,
            index,
        }
    }

    /// A node by its name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<NodeView<'_>> {
        self.index.get(name).map(|index| self.node(*index))
    }

    /// All nodes, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = NodeView<'_>> {
        (0..self.len()).map(|row| NodeView {
            snapshot: self,
            index: NodeIndex::new(row),
        })
    }

    /// Column: what the pods of a node may take altogether.
    #[must_use]
    pub const fn allocatable(&self) -> &ResourceColumns {
        &self.allocatable
    }

    /// Column: what the pods of a node take.
    #[must_use]
    pub const fn requested(&self) -> &ResourceColumns {
        &self.requested
    }

    /// Column: the CPU that the pods of a node take as scores count it (see [`PodInfo::scored_milli_cpu`]).
    #[must_use]
    pub fn scored_milli_cpu(&self) -> &[i64] {
        &self.scored_milli_cpu
    }

    /// Column: the memory that the pods of a node take as scores count it (see [`PodInfo::scored_memory`]).
    #[must_use]
    pub fn scored_memory(&self) -> &[i64] {
        &self.scored_memory
    }

    /// Column: which nodes are cordoned.
    #[must_use]
    pub fn unschedulable(&self) -> &[bool] {
        &self.unschedulable
    }

    /// Column: which of [`taint_sets`](Self::taint_sets) a node has. Many nodes share few sets, so that a plug-in looks at each set
    /// once.
    #[must_use]
    pub fn taint_set(&self) -> &[u32] {
        &self.taint_set
    }

    /// The different sets of taints. The first one is empty.
    #[must_use]
    pub fn taint_sets(&self) -> &[Arc<[Taint]>] {
        &self.taint_sets
    }

    /// Column: the ports that are taken.
    #[must_use]
    pub fn ports(&self) -> &[Arc<HostPorts>] {
        &self.ports
    }

    /// Column: the nodes themselves, for what has no column of its own.
    #[must_use]
    pub fn nodes(&self) -> &[Arc<NodeInfo>] {
        &self.nodes
    }
}

/// One node of a [`Snapshot`].
#[derive(Clone, Copy)]
pub struct NodeView<'a> {
    snapshot: &'a Snapshot,
    index: NodeIndex,
}

impl fmt::Debug for NodeView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeView({})", self.name())
    }
}

impl<'a> NodeView<'a> {
    /// The snapshot that it is in.
    #[must_use]
    pub const fn snapshot(self) -> &'a Snapshot {
        self.snapshot
    }

    /// Its row there.
    #[must_use]
    pub const fn index(self) -> NodeIndex {
        self.index
    }

    /// The node itself.
    #[must_use]
    pub fn info(self) -> &'a Arc<NodeInfo> {
        &self.snapshot.nodes[self.index.row()]
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'a Arc<str> {
        self.info().name()
    }

    /// Its labels.
    #[must_use]
    pub fn labels(self) -> &'a BTreeMap<String, String> {
        self.info().labels()
    }

    /// Its taints.
    #[must_use]
    pub fn taints(self) -> &'a [Taint] {
        self.info().taints()
    }

    /// Whether it is cordoned.
    #[must_use]
    pub fn is_unschedulable(self) -> bool {
        self.snapshot.unschedulable[self.index.row()]
    }

    /// What its pods may take altogether.
    #[must_use]
    pub fn allocatable(self) -> &'a Resources {
        self.info().allocatable()
    }

    /// What its pods take.
    #[must_use]
    pub fn requested(self) -> Resources {
        self.snapshot.requested.row(self.index.row())
    }

    /// What is left of it.
    #[must_use]
    pub fn free(self) -> Resources {
        let mut free = self.allocatable().clone();
        free.add(&self.requested(), -1);
        free
    }

    /// Its pods.
    #[must_use]
    pub fn pods(self) -> &'a [Arc<PodInfo>] {
        &self.snapshot.pods[self.index.row()]
    }

    /// The ports that are taken.
    #[must_use]
    pub fn ports(self) -> &'a HostPorts {
        &self.snapshot.ports[self.index.row()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, zone: &str) -> NodeState {
        NodeState::new(Arc::new(
            NodeInfo::from_value(json!({
                "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
                "status": {"allocatable": {"cpu": "4", "pods": "10"}},
            }))
            .unwrap(),
        ))
    }

    #[test]
    fn nodes_go_round_the_zones() {
        let nodes = [
            node("a1", "a"),
            node("a2", "a"),
            node("a3", "a"),
            node("b1", "b"),
            node("c1", "c"),
            node("c2", "c"),
        ];
        let snapshot = Snapshot::new(&nodes);
        let names: Vec<_> = snapshot
            .iter()
            .map(|node| node.name().to_string())
            .collect();
        assert_eq!(names, ["a1", "b1", "c1", "a2", "c2", "a3"]);
        assert_eq!(snapshot.find("c2").unwrap().index(), NodeIndex::new(4));
        assert!(snapshot.find("x").is_none());
    }

    #[test]
    fn a_fork_does_not_touch_the_first() {
        let pod = Arc::new(
            PodInfo::from_value(json!({
                "metadata": {"name": "p", "uid": "u"},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "e.x/y": 2}}}]},
            }))
            .unwrap(),
        );
        let mut first = Snapshot::new(&[node("a", "z"), node("b", "z")]);
        let a = NodeIndex::new(0);
        first.add_pod(a, pod.clone());
        let mut fork = first.clone();
        fork.remove_pod(a, "u").unwrap();
        fork.add_pod(NodeIndex::new(1), pod);
        assert_eq!(first.requested().milli_cpu, [1000, 0]);
        assert_eq!(fork.requested().milli_cpu, [0, 1000]);
        assert_eq!(
            (
                first.requested().scalar("e.x/y", 0),
                fork.requested().scalar("e.x/y", 0)
            ),
            (2, 0)
        );
        assert_eq!(
            (first.node(a).pods().len(), fork.node(a).pods().len()),
            (1, 0)
        );
        assert_eq!(first.node(a).free().milli_cpu, 3000);
    }
}
