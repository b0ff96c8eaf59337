//! [`Cache`]: what the scheduler knows of nodes and their pods, and what it assumes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use orlop_core::env::Moment;
use orlop_core::object::ObjectKey;
use orlop_core::scheduling::{NodeInfo, NodeState, PodInfo, Snapshot};

/// The cache was told something that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// A pod is assumed that has a place already.
    #[error("pod {0} is in the cache, so it cannot be assumed")]
    Known(ObjectKey),
    /// A pod without a node.
    #[error("pod {0} has no node")]
    NoNode(ObjectKey),
}

/// Nodes and their pods, as the API tells and as the scheduler assumes. A pod is assumed on its node from the decision on, long before
/// the binding is through, so that the next decision counts it.
///
/// [`update`](Self::update) brings a [`Snapshot`] up to date and touches only the nodes that changed since.
#[derive(Debug, Default)]
pub struct Cache {
    nodes: HashMap<Arc<str>, CachedNode>,
    pods: HashMap<ObjectKey, CachedPod>,
    /// Assumed pods whose binding is through and that the API did not confirm yet, with the end of our patience.
    unconfirmed: BTreeMap<ObjectKey, Moment>,
    assumed: usize,
    /// How many nodes are there.
    there: usize,
    /// Nodes that changed since the last snapshot, in the order in which they did.
    changed: Vec<Arc<str>>,
    /// Whether nodes came, went or moved to another zone.
    reordered: bool,
    next_age: u64,
    generation: u64,
    patience: Option<Duration>,
}

#[derive(Debug)]
struct CachedNode {
    state: NodeState,
    /// Smaller is older.
    age: u64,
    /// Whether the node itself is there, or only pods that name it.
    there: bool,
    changed: bool,
    generation: u64,
}

#[derive(Debug)]
struct CachedPod {
    pod: Arc<PodInfo>,
    node: Arc<str>,
    assumed: bool,
}

impl Cache {
    /// An empty cache. With some patience, an assumed pod that the API does not confirm in that time after its binding is forgotten;
    /// upstream waits for ever, since its watch tells sooner or later.
    #[must_use]
    pub fn new(patience: Option<Duration>) -> Self {
        Self {
            patience,
            ..Self::default()
        }
    }

    /// How many nodes there are.
    #[must_use]
    pub const fn node_count(&self) -> usize {
        self.there
    }

    /// How many pods there are, assumed ones among them.
    #[must_use]
    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    /// How many pods are assumed.
    #[must_use]
    pub const fn assumed_count(&self) -> usize {
        self.assumed
    }

    /// Rises with every change.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// A node as it is known.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Arc<NodeInfo>> {
        self.nodes
            .get(name)
            .filter(|node| node.there)
            .map(|node| node.state.info())
    }

    /// A pod that has a place.
    #[must_use]
    pub fn pod(&self, key: &ObjectKey) -> Option<&Arc<PodInfo>> {
        self.pods.get(key).map(|cached| &cached.pod)
    }

    /// Whether a pod is assumed.
    #[must_use]
    pub fn is_assumed(&self, key: &ObjectKey) -> bool {
        self.pods.get(key).is_some_and(|cached| cached.assumed)
    }

    /// A node is there, or is different now. Answers how it was.
    pub fn set_node(&mut self, info: Arc<NodeInfo>) -> Option<Arc<NodeInfo>> {
        let name = info.name().clone();
        match self.nodes.get_mut(&name) {
            Some(node) => {
                let old = node.there.then(|| node.state.info().clone());
                let moved = old.as_ref().is_none_or(|old| old.zone() != info.zone());
                if old.is_none() {
                    node.age = self.next_age;
                    self.next_age += 1;
                    self.there += 1;
                }
                node.there = true;
                node.state.set_info(info);
                self.reordered |= moved;
                self.touch(&name);
                old
            }
            None => {
                let age = self.next_age;
                self.next_age += 1;
                let state = NodeState::new(info);
                self.nodes.insert(
                    name.clone(),
                    CachedNode {
                        state,
                        age,
                        there: true,
                        changed: false,
                        generation: 0,
                    },
                );
                self.there += 1;
                self.reordered = true;
                self.touch(&name);
                None
            }
        }
    }

    /// A node went. Its pods stay until they go themselves.
    pub fn remove_node(&mut self, name: &str) -> Option<Arc<NodeInfo>> {
        let node = self.nodes.get_mut(name).filter(|node| node.there)?;
        node.there = false;
        self.there -= 1;
        let info = node.state.info().clone();
        self.reordered = true;
        self.generation += 1;
        if node.state.pods().is_empty() {
            self.nodes.remove(name);
        }
        Some(info)
    }

    /// A pod got its node from the scheduler.
    ///
    /// # Errors
    /// [`CacheError`] when it has a place already, or names no node.
    pub fn assume(&mut self, pod: Arc<PodInfo>) -> Result<(), CacheError> {
        if self.pods.contains_key(pod.key()) {
            return Err(CacheError::Known(pod.key().clone()));
        }
        self.put(pod, true)
    }

    /// An assumed pod's binding is through; from now on the API should confirm it.
    pub fn finish_binding(&mut self, key: &ObjectKey, now: Moment) {
        if let Some(patience) = self.patience
            && self.is_assumed(key)
        {
            self.unconfirmed.insert(key.clone(), now + patience);
        }
    }

    /// An assumed pod was not bound after all. Confirmed ones stay.
    pub fn forget(&mut self, key: &ObjectKey) -> Option<Arc<PodInfo>> {
        if self.is_assumed(key) {
            self.take(key)
        } else {
            None
        }
    }

    /// Forgets the assumed pods that the API did not confirm in time.
    pub fn expire(&mut self, now: Moment) -> Vec<Arc<PodInfo>> {
        let late: Vec<ObjectKey> = self
            .unconfirmed
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(key, _)| key.clone())
            .collect();
        late.iter().filter_map(|key| self.forget(key)).collect()
    }

    /// The next moment when [`expire`](Self::expire) will have something to do.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Moment> {
        self.unconfirmed.values().copied().min()
    }

    /// The API says that a pod has a node, or that such a pod is different now. Answers how it was, if it was confirmed.
    ///
    /// # Errors
    /// [`CacheError::NoNode`] for a pod without a node.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>) -> Result<Option<Arc<PodInfo>>, CacheError> {
        if pod.node_name().is_none() {
            return Err(CacheError::NoNode(pod.key().clone()));
        }
        let assumed = self.is_assumed(pod.key());
        let old = self.take(pod.key());
        self.put(pod, false)?;
        Ok(old.filter(|_| !assumed))
    }

    /// A pod went, or has run to its end.
    pub fn remove_pod(&mut self, key: &ObjectKey) -> Option<Arc<PodInfo>> {
        self.take(key)
    }

    fn put(&mut self, pod: Arc<PodInfo>, assumed: bool) -> Result<(), CacheError> {
        let Some(name) = pod.node_name().cloned() else {
            return Err(CacheError::NoNode(pod.key().clone()));
        };
        if !self.nodes.contains_key(&name) {
            // The pod is told before its node is: keep it until then.
            let info = Arc::new(NodeInfo::named(&name));
            let age = self.next_age;
            self.next_age += 1;
            let state = NodeState::new(info);
            self.nodes.insert(
                name.clone(),
                CachedNode {
                    state,
                    age,
                    there: false,
                    changed: false,
                    generation: 0,
                },
            );
        }
        if let Some(node) = self.nodes.get_mut(&name) {
            node.state.add_pod(pod.clone());
        }
        self.assumed += usize::from(assumed);
        self.pods.insert(
            pod.key().clone(),
            CachedPod {
                pod,
                node: name.clone(),
                assumed,
            },
        );
        self.touch(&name);
        Ok(())
    }

    fn take(&mut self, key: &ObjectKey) -> Option<Arc<PodInfo>> {
        let CachedPod {
            pod,
            node: name,
            assumed,
        } = self.pods.remove(key)?;
        self.assumed -= usize::from(assumed);
        self.unconfirmed.remove(key);
        if let Some(node) = self.nodes.get_mut(&name) {
            node.state.remove_pod(pod.uid());
            if !node.there && node.state.pods().is_empty() {
                self.nodes.remove(&name);
            }
        }
        self.touch(&name);
        Some(pod)
    }

    fn touch(&mut self, name: &Arc<str>) {
        self.generation += 1;
        if let Some(node) = self.nodes.get_mut(name) {
            node.generation = self.generation;
            if !node.changed {
                node.changed = true;
                self.changed.push(name.clone());
            }
        }
    }

    /// Brings a snapshot up to date, which must be the one of the last call. Only nodes that changed are touched, unless nodes came,
    /// went or moved to another zone. Answers how many were touched.
    pub fn update(&mut self, snapshot: &mut Snapshot) -> usize {
        let changed = std::mem::take(&mut self.changed);
        for name in &changed {
            if let Some(node) = self.nodes.get_mut(name) {
                node.changed = false;
            }
        }
        // Sets of taints that no node has any more are left behind; they go with the next whole snapshot.
        let littered = snapshot.taint_sets().len() > 64 + 2 * snapshot.len();
        if std::mem::take(&mut self.reordered) || littered {
            *snapshot = self.snapshot();
            return snapshot.len();
        }
        let mut touched = 0;
        for name in &changed {
            let index = snapshot.find(name).map(|node| node.index());
            if let (Some(index), Some(node)) = (index, self.nodes.get(name)) {
                snapshot.set(index, &node.state);
                touched += 1;
            }
        }
        touched
    }

    /// A whole snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut nodes: Vec<&CachedNode> = self.nodes.values().filter(|node| node.there).collect();
        nodes.sort_unstable_by_key(|node| node.age);
        Snapshot::new(nodes.into_iter().map(|node| &node.state))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn node(name: u8, zone: u8, cpu: u8, taint: bool) -> Arc<NodeInfo> {
        let taints = if taint {
            json!([{"key": "k", "effect": "NoSchedule"}])
        } else {
            json!([])
        };
        let value = json!({
            "metadata": {"name": format!("n{name}"), "labels": {"topology.kubernetes.io/zone": format!("z{zone}")}},
            "spec": {"taints": taints, "unschedulable": taint},
            "status": {"allocatable": {"cpu": cpu, "pods": 10, "x.y/z": cpu}},
        });
        Arc::new(NodeInfo::from_value(value).unwrap())
    }

    fn pod(name: u8, on: u8, cpu: u8) -> Arc<PodInfo> {
        let value = json!({
            "metadata": {"name": format!("p{name}"), "namespace": "d", "uid": format!("u{name}")},
            "spec": {"nodeName": format!("n{on}"), "containers": [
                {"name": "c", "resources": {"requests": {"cpu": cpu, "x.y/z": cpu % 2}}, "ports": [{"hostPort": 1 + i32::from(cpu)}]},
            ]},
        });
        Arc::new(PodInfo::from_value(value).unwrap())
    }

    fn key(name: u8) -> ObjectKey {
        ObjectKey::new("d", &format!("p{name}"))
    }

    /// All that can be read off a snapshot.
    fn picture(snapshot: &Snapshot) -> Vec<String> {
        snapshot
            .iter()
            .map(|node| {
                let row = node.index().row();
                let mut pods: Vec<_> = node
                    .pods()
                    .iter()
                    .map(|pod| pod.uid().to_string())
                    .collect();
                pods.sort();
                format!(
                    "{} {:?} {:?} {} {} {:?} {:?} {:?} {pods:?} {}",
                    node.name(),
                    node.allocatable(),
                    node.requested(),
                    snapshot.scored_milli_cpu()[row],
                    snapshot.scored_memory()[row],
                    node.is_unschedulable(),
                    snapshot.taint_sets()[snapshot.taint_set()[row] as usize],
                    node.ports(),
                    snapshot.allocatable().scalar("x.y/z", row),
                )
            })
            .collect()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Node(u8, u8, u8, bool),
        NoNode(u8),
        Assume(u8, u8, u8),
        Bound(u8),
        Forget(u8),
        Pod(u8, u8, u8),
        NoPod(u8),
        Expire,
        Update,
    }

    fn step() -> impl Strategy<Value = Step> {
        let n = 0..5u8;
        let p = 0..8u8;
        prop_oneof![
            (n.clone(), 0..2u8, 1..4u8, any::<bool>())
                .prop_map(|(a, b, c, d)| Step::Node(a, b, c, d)),
            n.clone().prop_map(Step::NoNode),
            (p.clone(), n.clone(), 0..4u8).prop_map(|(a, b, c)| Step::Assume(a, b, c)),
            p.clone().prop_map(Step::Bound),
            p.clone().prop_map(Step::Forget),
            (p.clone(), n, 0..4u8).prop_map(|(a, b, c)| Step::Pod(a, b, c)),
            p.prop_map(Step::NoPod),
            Just(Step::Expire),
            Just(Step::Update),
        ]
    }

    proptest! {
        #[test]
        fn an_updated_snapshot_is_a_whole_one(steps in prop::collection::vec(step(), 0..60)) {
            let mut cache = Cache::new(Some(Duration::from_secs(1)));
            let mut snapshot = Snapshot::default();
            let mut now = Moment::START;
            for step in steps {
                now = now + Duration::from_millis(300);
                match step {
                    Step::Node(name, zone, cpu, taint) => {
                        cache.set_node(node(name, zone, cpu, taint));
                    }
                    Step::NoNode(name) => {
                        cache.remove_node(&format!("n{name}"));
                    }
                    Step::Assume(name, on, cpu) => {
                        let known = cache.pod(&key(name)).is_some();
                        prop_assert_eq!(cache.assume(pod(name, on, cpu)).is_err(), known);
                    }
                    Step::Bound(name) => cache.finish_binding(&key(name), now),
                    Step::Forget(name) => {
                        let assumed = cache.is_assumed(&key(name));
                        prop_assert_eq!(cache.forget(&key(name)).is_some(), assumed);
                    }
                    Step::Pod(name, on, cpu) => {
                        cache.set_pod(pod(name, on, cpu)).unwrap();
                    }
                    Step::NoPod(name) => {
                        cache.remove_pod(&key(name));
                    }
                    Step::Expire => {
                        cache.expire(now);
                    }
                    Step::Update => {
                        cache.update(&mut snapshot);
                        prop_assert_eq!(picture(&snapshot), picture(&cache.snapshot()));
                    }
                }
            }
            cache.update(&mut snapshot);
            prop_assert_eq!(picture(&snapshot), picture(&cache.snapshot()));
            prop_assert_eq!(cache.update(&mut snapshot), 0);
            let assumed = (0..8).filter(|name| cache.is_assumed(&key(*name))).count();
            prop_assert_eq!(cache.assumed_count(), assumed);
        }
    }

    #[test]
    fn only_changed_nodes_are_touched() {
        let mut cache = Cache::default();
        for name in 0..5 {
            cache.set_node(node(name, 0, 4, false));
        }
        let mut snapshot = Snapshot::default();
        assert_eq!(cache.update(&mut snapshot), 5);
        cache.assume(pod(1, 3, 2)).unwrap();
        assert_eq!(cache.update(&mut snapshot), 1);
        assert_eq!(snapshot.find("n3").unwrap().requested().milli_cpu, 2000);
        // The confirmation replaces the assumption.
        assert_eq!(
            cache
                .set_pod(pod(1, 2, 2))
                .unwrap()
                .map(|pod| pod.key().clone()),
            None
        );
        assert_eq!(cache.update(&mut snapshot), 2);
        assert_eq!((cache.assumed_count(), cache.pod_count()), (0, 1));
    }

    #[test]
    fn an_assumption_ends_when_nobody_confirms_it() {
        let mut cache = Cache::new(Some(Duration::from_secs(30)));
        cache.set_node(node(0, 0, 4, false));
        cache.assume(pod(1, 0, 1)).unwrap();
        let later = Moment::START + Duration::from_secs(30);
        assert!(cache.expire(later).is_empty(), "the binding is not through");
        cache.finish_binding(&key(1), Moment::START);
        assert_eq!(cache.next_expiry(), Some(later));
        assert_eq!(cache.expire(later).len(), 1);
        assert_eq!(cache.pod_count(), 0);
    }
}
