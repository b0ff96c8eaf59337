//! What every [`SchedulerPlugin`] must do.

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::env::Moment;
use crate::scheduling::{
    Actions, Candidates, ClusterEvent, CycleState, EventResource, MAX_NODE_SCORE, MIN_NODE_SCORE,
    NodeIndex, NodeInfo, NodeState, PodInfo, PreFilterResult, QueuedPod, Rejections,
    SchedulerPlugin, Snapshot, Subject, Verdict,
};

/// How many clusters a plug-in is tried on.
const CLUSTERS: u64 = 60;

/// Checks a scheduler plug-in on many small random clusters, the same in every run:
///
/// - it has a name, and it always says the same of the same (nothing of one pod's attempt is left for the next);
/// - the batch forms of Filter and Score say what the forms for one node say, whatever stretch of the nodes they are given, and leave
///   alone what others refused;
/// - verdicts are those that the extension point knows, and their reasons do not name the node;
/// - a node that it calls `UnschedulableAndUnresolvable` does not fit without its pods either;
/// - normalised scores are in range;
/// - QueueSort is an order; Reserve can be undone at any time; hints have an answer for every event.
///
/// ```
/// # use std::sync::Arc;
/// # use orlop_core::scheduling::*;
/// struct Even;
/// impl SchedulerPlugin for Even {
///     fn name(&self) -> &str { "Even" }
///     fn as_score(&self) -> Option<&dyn Score> { Some(self) }
/// }
/// impl Score for Even {
///     fn score(&self, _: &CycleState, _: &PodInfo, node: NodeView<'_>) -> i64 { 100 - node.requested().pods.min(100) }
/// }
/// orlop_core::conformance::scheduling(|| Arc::new(Even));
/// ```
///
/// # Panics
/// With the name of the check that failed.
pub fn scheduling(make: impl Fn() -> Arc<dyn SchedulerPlugin>) {
    let plugin = make();
    let plugin = &*plugin;
    assert!(!plugin.name().is_empty(), "a plug-in has a name");
    let mut random = Random(0x5eed);
    for _ in 0..CLUSTERS {
        let cluster = Cluster::new(&mut random);
        let judged: Vec<Judged> = cluster
            .wanted
            .iter()
            .map(|pod| judge(plugin, pod, &cluster.snapshot))
            .collect();
        for (pod, first) in cluster.wanted.iter().zip(&judged) {
            let again = judge(plugin, pod, &cluster.snapshot);
            assert!(
                *first == again,
                "{} says the same of the same: {first:?}, then {again:?}",
                plugin.name()
            );
            let fresh = judge(&*make(), pod, &cluster.snapshot);
            assert!(
                *first == fresh,
                "{} remembers nothing of earlier attempts: {first:?}, {fresh:?}",
                plugin.name()
            );
            filter_batches(plugin, pod, &cluster.snapshot, first, &mut random);
            unresolvable_stays(plugin, pod, &cluster.snapshot, first);
            scores(plugin, pod, &cluster.snapshot);
            reserve(plugin, pod, &cluster.snapshot);
            hints(plugin, pod, &cluster);
        }
        queue_sort(plugin, &cluster);
    }
}

/// PreFilter's word, and Filter's on every node where it is asked.
#[derive(Debug, PartialEq)]
struct Judged {
    pre: PreFilterResult,
    nodes: Vec<Verdict>,
}

fn prepared(
    plugin: &dyn SchedulerPlugin,
    pod: &PodInfo,
    snapshot: &Snapshot,
) -> (CycleState, PreFilterResult) {
    let mut state = CycleState::default();
    let pre = plugin
        .as_pre_filter()
        .map(|point| point.pre_filter(&mut state, pod, snapshot));
    (state, pre.unwrap_or_default())
}

fn judge(plugin: &dyn SchedulerPlugin, pod: &PodInfo, snapshot: &Snapshot) -> Judged {
    let name = plugin.name();
    let (state, pre) = prepared(plugin, pod, snapshot);
    assert!(
        !matches!(pre.verdict, Verdict::Wait(_)),
        "{name}: PreFilter does not know the verdict {:?}",
        pre.verdict
    );
    let mut nodes = Vec::new();
    if let Some(point) = plugin.as_filter().filter(|_| pre.verdict.is_success()) {
        for node in snapshot.iter() {
            let verdict = point.filter(&state, pod, node);
            assert!(
                !matches!(verdict, Verdict::Wait(_) | Verdict::Skip),
                "{name}: Filter does not know the verdict {verdict:?}"
            );
            for reason in verdict
                .reasons()
                .into_iter()
                .flat_map(|reasons| reasons.iter())
            {
                let general = !reason.contains(&**node.name());
                assert!(
                    general,
                    "{name}: reasons are counted over all nodes, so they don't name one: {reason}"
                );
            }
            nodes.push(verdict);
        }
    }
    Judged { pre, nodes }
}

fn filter_batches(
    plugin: &dyn SchedulerPlugin,
    pod: &PodInfo,
    snapshot: &Snapshot,
    judged: &Judged,
    random: &mut Random,
) {
    let Some(point) = plugin
        .as_filter()
        .filter(|_| judged.pre.verdict.is_success())
    else {
        return;
    };
    let name = plugin.name();
    let (state, _) = prepared(plugin, pod, snapshot);
    let other = Verdict::unschedulable("refused by another plug-in");
    let cut = random.below(snapshot.len() as u64 + 1) as usize;
    for (first, last) in [(0, cut), (cut, snapshot.len())] {
        let (mut marks, mut rejections) = (vec![0; last - first], Rejections::default());
        let mut candidates = Candidates::new(snapshot, first, &mut marks, &mut rejections);
        candidates.set_plugin(63);
        let taken = candidates.rejection(other.clone());
        candidates.judge(|row| (row % 3 == 1).then_some(taken));
        candidates.set_plugin(0);
        point.filter_batch(&state, pod, &mut candidates);
        for row in first..last {
            let expected = if row % 3 == 1 {
                &other
            } else {
                &judged.nodes[row]
            };
            let said = candidates
                .rejection_of(row)
                .map_or(&Verdict::Success, |rejection| &rejection.verdict);
            assert!(
                said == expected,
                "{name}: filter_batch says what filter says: {said:?} for {expected:?}"
            );
        }
    }
}

fn unresolvable_stays(
    plugin: &dyn SchedulerPlugin,
    pod: &PodInfo,
    snapshot: &Snapshot,
    judged: &Judged,
) {
    let Some(point) = plugin.as_filter() else {
        return;
    };
    for (row, verdict) in judged.nodes.iter().enumerate() {
        if !matches!(verdict, Verdict::UnschedulableAndUnresolvable(_)) {
            continue;
        }
        let mut fork = snapshot.clone();
        let index = NodeIndex::new(row);
        let pods: Vec<_> = snapshot
            .node(index)
            .pods()
            .iter()
            .map(|pod| pod.uid().clone())
            .collect();
        for uid in pods {
            fork.remove_pod(index, &uid);
        }
        let (state, pre) = prepared(plugin, pod, &fork);
        if pre.verdict.is_success() {
            let verdict = point.filter(&state, pod, fork.node(index));
            let name = plugin.name();
            assert!(
                !verdict.is_success(),
                "{name}: what removing pods resolves is Unschedulable, not more"
            );
        }
    }
}

fn scores(plugin: &dyn SchedulerPlugin, pod: &PodInfo, snapshot: &Snapshot) {
    let Some(point) = plugin.as_score() else {
        return;
    };
    let name = plugin.name();
    let (mut state, pre) = prepared(plugin, pod, snapshot);
    if pre.verdict.is_rejection() {
        return;
    }
    // Every second node, so that places and rows differ.
    let nodes: Vec<NodeIndex> = (0..snapshot.len()).step_by(2).map(NodeIndex::new).collect();
    if let Some(before) = plugin.as_pre_score() {
        match before.pre_score(&mut state, pod, snapshot, &nodes) {
            Verdict::Success => {}
            Verdict::Skip => return,
            verdict => panic!("{name}: PreScore does not know the verdict {verdict:?}"),
        }
    }
    let mut scores = vec![0; nodes.len()];
    point.score_batch(&state, pod, snapshot, &nodes, &mut scores);
    let single: Vec<i64> = nodes
        .iter()
        .map(|node| point.score(&state, pod, snapshot.node(*node)))
        .collect();
    assert!(
        scores == single,
        "{name}: score_batch says what score says: {scores:?} for {single:?}"
    );
    point.normalize(&state, pod, &mut scores);
    let range = MIN_NODE_SCORE..=MAX_NODE_SCORE;
    assert!(
        scores.iter().all(|score| range.contains(score)),
        "{name}: normalised scores are in {range:?}: {scores:?}"
    );
    point.normalize(&state, pod, &mut []);
}

fn reserve(plugin: &dyn SchedulerPlugin, pod: &PodInfo, snapshot: &Snapshot) {
    let Some(point) = plugin.as_reserve() else {
        return;
    };
    let Some(node) = snapshot.iter().next() else {
        return;
    };
    let (mut state, _) = prepared(plugin, pod, snapshot);
    // Also without, and more often than, a reservation.
    point.unreserve(&mut state, pod, node.name());
    let verdict = point.reserve(&mut state, pod, node.name());
    let known = !matches!(verdict, Verdict::Wait(_) | Verdict::Skip);
    assert!(
        known,
        "{}: Reserve does not know the verdict {verdict:?}",
        plugin.name()
    );
    point.unreserve(&mut state, pod, node.name());
    point.unreserve(&mut state, pod, node.name());
}

fn hints(plugin: &dyn SchedulerPlugin, pod: &Arc<PodInfo>, cluster: &Cluster) {
    let Some(point) = plugin.as_enqueue_extensions() else {
        return;
    };
    let events = point.events();
    assert!(
        events
            .iter()
            .all(|registration| !registration.actions.is_empty()),
        "{}: an event without an action never happens",
        plugin.name()
    );
    let (some, other) = (
        cluster.snapshot.nodes().first(),
        cluster.snapshot.nodes().last(),
    );
    let node = |old: Option<&Arc<NodeInfo>>, new: Option<&Arc<NodeInfo>>| Subject::Node {
        old: old.cloned(),
        new: new.cloned(),
    };
    let pods = |old: Option<&Arc<PodInfo>>, new: Option<&Arc<PodInfo>>| Subject::Pod {
        old: old.cloned(),
        new: new.cloned(),
    };
    for (resource, actions, subject) in [
        (EventResource::Node, Actions::ADD, node(None, some)),
        (EventResource::Node, Actions::UPDATE_NODE, node(some, other)),
        (EventResource::Node, Actions::DELETE, node(some, None)),
        (
            EventResource::AssignedPod,
            Actions::ADD,
            pods(None, cluster.wanted.last()),
        ),
        (
            EventResource::AssignedPod,
            Actions::DELETE,
            pods(cluster.wanted.first(), None),
        ),
        (
            EventResource::TargetPod,
            Actions::UPDATE,
            pods(Some(pod), Some(pod)),
        ),
        (EventResource::Any, Actions::ALL, Subject::Other),
    ] {
        let _ = point.hint(
            pod,
            &ClusterEvent {
                resource,
                actions,
                subject,
            },
        );
    }
}

fn queue_sort(plugin: &dyn SchedulerPlugin, cluster: &Cluster) {
    let Some(point) = plugin.as_queue_sort() else {
        return;
    };
    let name = plugin.name();
    let queued: Vec<QueuedPod> = cluster
        .wanted
        .iter()
        .enumerate()
        .map(|(index, pod)| {
            let since = Moment::from_start(std::time::Duration::from_secs(index as u64 % 2));
            QueuedPod {
                pod: pod.clone(),
                since,
                first_seen: since,
                attempts: index as u32,
            }
        })
        .collect();
    for a in &queued {
        for b in &queued {
            let order = point.compare(a, b);
            assert_eq!(
                order,
                point.compare(b, a).reverse(),
                "{name}: QueueSort is antisymmetric"
            );
            for c in &queued {
                if order != Ordering::Greater && point.compare(b, c) != Ordering::Greater {
                    assert_ne!(
                        point.compare(a, c),
                        Ordering::Greater,
                        "{name}: QueueSort is transitive"
                    );
                }
            }
        }
    }
}

/// A small cluster, and pods that want into it.
struct Cluster {
    snapshot: Snapshot,
    wanted: Vec<Arc<PodInfo>>,
}

impl Cluster {
    fn new(random: &mut Random) -> Self {
        let nodes: Vec<NodeState> = (0..random.below(7))
            .map(|index| {
                let mut node = NodeState::new(read(NodeInfo::from_value(node(index, random))));
                for place in 0..random.below(4) {
                    node.add_pod(read(PodInfo::from_value(pod(
                        &format!("there-{index}-{place}"),
                        random,
                    ))));
                }
                node
            })
            .collect();
        let wanted = (0..5)
            .map(|index| read(PodInfo::from_value(pod(&format!("wanted-{index}"), random))))
            .collect();
        Self {
            snapshot: Snapshot::new(&nodes),
            wanted,
        }
    }
}

fn read<T>(read: Result<T, crate::object::ObjectError>) -> Arc<T> {
    match read {
        Ok(value) => Arc::new(value),
        Err(error) => panic!("the suite's own object: {error}"),
    }
}

fn node(index: u64, random: &mut Random) -> Value {
    let taints: Vec<Value> = (0..random.below(3))
        .map(|taint| json!({"key": format!("taint-{taint}"), "effect": random.pick(&["NoSchedule", "PreferNoSchedule", "NoExecute"])}))
        .collect();
    json!({
        "metadata": {
            "name": format!("conformance-node-{index}"),
            "labels": {
                "topology.kubernetes.io/zone": random.pick(&["a", "b"]),
                "disk": random.pick(&["ssd", "hdd"]),
            },
        },
        "spec": {"unschedulable": random.below(5) == 0, "taints": taints},
        "status": {
            "allocatable": {
                "cpu": random.below(5), "memory": format!("{}Gi", random.below(5)), "pods": random.below(5),
                "example.com/gpu": random.below(3),
            },
            "images": [{"names": ["image-a"], "sizeBytes": random.below(1 << 30)}],
        },
    })
}

fn pod(name: &str, random: &mut Random) -> Value {
    let mut requests = json!({});
    for (resource, amount) in [
        ("cpu", format!("{}m", 100 * random.below(30))),
        ("memory", format!("{}Mi", 128 * random.below(20))),
        ("example.com/gpu", random.below(3).to_string()),
    ] {
        if random.below(3) > 0 {
            requests[resource] = amount.into();
        }
    }
    let mut spec = json!({
        "priority": random.below(3),
        "containers": [{"name": "c", "image": "image-a", "resources": {"requests": requests}}],
    });
    if random.below(3) == 0 {
        spec["containers"][0]["ports"] = json!([{"hostPort": 8000 + random.below(3)}]);
    }
    if random.below(3) == 0 {
        spec["nodeSelector"] = json!({"disk": random.pick(&["ssd", "hdd"])});
    }
    if random.below(3) == 0 {
        spec["tolerations"] =
            json!([{"key": format!("taint-{}", random.below(3)), "operator": "Exists"}]);
    }
    if random.below(3) == 0 {
        let term = json!({"matchExpressions": [
            {"key": "topology.kubernetes.io/zone", "operator": random.pick(&["In", "NotIn"]), "values": ["a"]},
        ]});
        let name = if random.below(2) == 0 {
            json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}})
        } else {
            json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 7, "preference": term}]})
        };
        spec["affinity"] = json!({"nodeAffinity": name});
    }
    json!({"metadata": {"name": name, "namespace": "conformance", "uid": name, "labels": {"app": random.pick(&["x", "y"])}}, "spec": spec})
}

/// A sequence of numbers, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        crate::env::split_mix(&mut self.0) % bound.max(1)
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::{Filter, NodeView};

    /// Refuses nodes by their row, with one flaw.
    struct Flawed(&'static str);

    impl SchedulerPlugin for Flawed {
        fn name(&self) -> &str {
            "Flawed"
        }

        fn as_filter(&self) -> Option<&dyn Filter> {
            Some(self)
        }
    }

    impl Filter for Flawed {
        fn filter(&self, _: &CycleState, _: &PodInfo, node: NodeView<'_>) -> Verdict {
            match self.0 {
                "names" => Verdict::unschedulable(format!("not {}", node.name())),
                "resolvable" if !node.pods().is_empty() => {
                    Verdict::unresolvable("node(s) had pods")
                }
                _ if node.index().row() == 0 => Verdict::unschedulable("node(s) came first"),
                _ => Verdict::Success,
            }
        }

        fn filter_batch(&self, state: &CycleState, pod: &PodInfo, candidates: &mut Candidates<'_>) {
            if self.0 == "batch" {
                return candidates.reject_all(Verdict::unschedulable("node(s) came first"));
            }
            candidates.judge_nodes(|node| self.filter(state, pod, node));
        }
    }

    #[test]
    fn a_good_one_passes() {
        scheduling(|| Arc::new(Flawed("not at all")));
    }

    #[test]
    #[should_panic(expected = "they don't name one")]
    fn reasons_that_name_the_node() {
        scheduling(|| Arc::new(Flawed("names")));
    }

    #[test]
    #[should_panic(expected = "filter_batch says what filter says")]
    fn a_batch_of_its_own() {
        scheduling(|| Arc::new(Flawed("batch")));
    }

    #[test]
    #[should_panic(expected = "what removing pods resolves")]
    fn unresolvable_that_is_not() {
        scheduling(|| Arc::new(Flawed("resolvable")));
    }
}
