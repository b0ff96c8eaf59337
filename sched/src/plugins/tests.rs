//! Tables of what the plug-ins say; each row is judged node by node and in the batch form.

use std::sync::Arc;

use orlop_core::scheduling::{
    Actions, Candidates, ClusterEvent, CycleState, EventResource, Hint, NodeIndex, NodeInfo,
    NodeState, PodInfo, Rejections, SchedulerPlugin, Snapshot, Subject, Verdict,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn node_info(name: &str, body: Value) -> Arc<NodeInfo> {
    let mut value = body;
    value["metadata"]["name"] = name.into();
    Arc::new(NodeInfo::from_value(value).unwrap())
}

fn pod(spec: Value) -> Arc<PodInfo> {
    let value = json!({"metadata": {"name": "p", "namespace": "d", "uid": "p"}, "spec": spec});
    Arc::new(PodInfo::from_value(value).unwrap())
}

fn requesting(requests: Value) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": requests}}]})
}

fn allocatable(resources: Value) -> Value {
    json!({"status": {"allocatable": resources}})
}

/// A snapshot of nodes, each with pods.
fn snapshot(nodes: &[(&str, Value, &[Value])]) -> Snapshot {
    let states: Vec<NodeState> = nodes
        .iter()
        .map(|(name, body, pods)| {
            let mut state = NodeState::new(node_info(name, body.clone()));
            for spec in *pods {
                state.add_pod(pod(spec.clone()));
            }
            state
        })
        .collect();
    Snapshot::new(&states)
}

/// PreFilter and Filter of a plug-in on all nodes; the batch form must agree.
fn filter(plugin: &dyn SchedulerPlugin, pod: &PodInfo, snapshot: &Snapshot) -> Vec<String> {
    let mut state = CycleState::default();
    if let Some(point) = plugin.as_pre_filter() {
        let result = point.pre_filter(&mut state, pod, snapshot);
        match result.verdict {
            Verdict::Success => {}
            Verdict::Skip => return vec![String::new(); snapshot.len()],
            verdict => return vec![describe(&verdict)],
        }
    }
    let point = plugin.as_filter().unwrap();
    let single: Vec<Verdict> = snapshot
        .iter()
        .map(|node| point.filter(&state, pod, node))
        .collect();
    let (mut marks, mut rejections) = (vec![0; snapshot.len()], Rejections::default());
    let mut candidates = Candidates::new(snapshot, 0, &mut marks, &mut rejections);
    point.filter_batch(&state, pod, &mut candidates);
    for (row, verdict) in single.iter().enumerate() {
        let batch = candidates
            .rejection_of(row)
            .map_or(&Verdict::Success, |rejection| &rejection.verdict);
        assert_eq!(batch, verdict, "row {row} of {}", plugin.name());
    }
    single.iter().map(describe).collect()
}

fn describe(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Success => String::new(),
        Verdict::Unschedulable(reasons) => reasons.to_string(),
        Verdict::UnschedulableAndUnresolvable(reasons) => format!("!{reasons}"),
        other => format!("{other:?}"),
    }
}

/// PreScore, Score and normalisation of a plug-in on all nodes; the batch form must agree. `None` if it skips.
fn score(plugin: &dyn SchedulerPlugin, pod: &PodInfo, snapshot: &Snapshot) -> Option<Vec<i64>> {
    let mut state = CycleState::default();
    let nodes: Vec<NodeIndex> = (0..snapshot.len()).map(NodeIndex::new).collect();
    if let Some(point) = plugin.as_pre_score()
        && point.pre_score(&mut state, pod, snapshot, &nodes) == Verdict::Skip
    {
        return None;
    }
    let point = plugin.as_score().unwrap();
    let mut scores = vec![0; nodes.len()];
    point.score_batch(&state, pod, snapshot, &nodes, &mut scores);
    let single: Vec<i64> = snapshot
        .iter()
        .map(|node| point.score(&state, pod, node))
        .collect();
    assert_eq!(scores, single, "{}", plugin.name());
    point.normalize(&state, pod, &mut scores);
    Some(scores)
}

#[test]
fn all_are_conformant() {
    use orlop_core::conformance::scheduling;
    scheduling(|| Arc::new(DefaultBinder));
    scheduling(|| Arc::new(NodeAffinity));
    scheduling(|| Arc::new(NodeName));
    scheduling(|| Arc::new(NodePorts));
    scheduling(|| Arc::new(NodeResourcesFit::default()));
    scheduling(|| Arc::new(NodeResourcesBalancedAllocation::default()));
    scheduling(|| Arc::new(NodeUnschedulable));
    scheduling(|| Arc::new(PrioritySort));
    scheduling(|| Arc::new(SchedulingGates));
    scheduling(|| Arc::new(TaintToleration));
    let most = ScoringStrategy::MostAllocated(vec![ResourceWeight::new("example.com/gpu", 5)]);
    scheduling(move || Arc::new(NodeResourcesFit::new(most.clone())));
}

#[test]
fn names_and_cordons() {
    let nodes = snapshot(&[
        ("a", json!({}), &[]),
        ("b", json!({"spec": {"unschedulable": true}}), &[]),
    ]);
    let plain = pod(json!({"containers": []}));
    let cordoned = "!node(s) were unschedulable";
    assert_eq!(filter(&NodeUnschedulable, &plain, &nodes), ["", cordoned]);
    let tolerant = pod(
        json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}),
    );
    assert_eq!(filter(&NodeUnschedulable, &tolerant, &nodes), ["", ""]);
    assert_eq!(filter(&NodeName, &plain, &nodes), ["", ""]);
    let chosen = pod(json!({"nodeName": "b"}));
    assert_eq!(
        filter(&NodeName, &chosen, &nodes),
        ["!node(s) didn't match the requested node name", ""]
    );
}

#[test]
fn resources_that_are_missing() {
    let full = allocatable(
        json!({"cpu": "2", "memory": "4Gi", "pods": 3, "ephemeral-storage": "10Gi", "x.y/gpu": 2}),
    );
    let used: &[Value] = &[requesting(
        json!({"cpu": "1500m", "memory": "3Gi", "x.y/gpu": 1}),
    )];
    let nodes = snapshot(&[
        ("a", full.clone(), used),
        ("b", full, &[]),
        (
            "c",
            allocatable(json!({"cpu": "8", "memory": "8Gi", "pods": 0})),
            &[],
        ),
    ]);
    let fit = NodeResourcesFit::default();
    for (requests, expected) in [
        (json!({}), ["", "", "Too many pods"]),
        (json!({"cpu": "500m"}), ["", "", "Too many pods"]),
        (
            json!({"cpu": "501m"}),
            ["Insufficient cpu", "", "Too many pods"],
        ),
        (
            json!({"cpu": "1", "memory": "2Gi"}),
            ["Insufficient cpu, Insufficient memory", "", "Too many pods"],
        ),
        (
            json!({"cpu": "3"}),
            ["!Insufficient cpu", "!Insufficient cpu", "Too many pods"],
        ),
        (
            json!({"x.y/gpu": 2}),
            [
                "Insufficient x.y/gpu",
                "",
                "!Too many pods, Insufficient x.y/gpu",
            ],
        ),
        (
            json!({"ephemeral-storage": "11Gi"}),
            [
                "!Insufficient ephemeral-storage",
                "!Insufficient ephemeral-storage",
                "!Too many pods, Insufficient ephemeral-storage",
            ],
        ),
        (
            json!({"no.such/thing": 1}),
            [
                "!Insufficient no.such/thing",
                "!Insufficient no.such/thing",
                "!Too many pods, Insufficient no.such/thing",
            ],
        ),
    ] {
        assert_eq!(
            filter(&fit, &pod(requesting(requests.clone())), &nodes),
            expected,
            "{requests}"
        );
    }
    let blind = NodeResourcesFit::default()
        .ignoring_groups(&["x.y"])
        .ignoring(&["no.such/thing"]);
    let wants = pod(requesting(json!({"x.y/gpu": 9, "no.such/thing": 9})));
    assert_eq!(filter(&blind, &wants, &nodes), ["", "", "Too many pods"]);
}

#[test]
fn resources_that_are_left() {
    let node = || allocatable(json!({"cpu": "4", "memory": "10000Mi", "pods": 110}));
    let used: &[Value] = &[requesting(json!({"cpu": "3", "memory": "5000Mi"}))];
    let nodes = snapshot(&[
        ("a", node(), &[]),
        ("b", node(), used),
        ("c", allocatable(json!({"pods": 1})), &[]),
    ]);
    let wants = pod(requesting(json!({"cpu": "1", "memory": "0"})));
    let two = ResourceWeight::cpu_and_memory;
    let least = NodeResourcesFit::default();
    // (4−1)/4 = 75, all memory = 100; then 0 and 50.
    assert_eq!(score(&least, &wants, &nodes), Some(vec![87, 25, 0]));
    let most = NodeResourcesFit::new(ScoringStrategy::MostAllocated(two()));
    assert_eq!(score(&most, &wants, &nodes), Some(vec![12, 75, 0]));
    let weighted = vec![
        ResourceWeight::new("cpu", 3),
        ResourceWeight::new("memory", 1),
    ];
    let most = NodeResourcesFit::new(ScoringStrategy::MostAllocated(weighted));
    assert_eq!(score(&most, &wants, &nodes), Some(vec![18, 87, 0]));
    let point = |utilization, score| ShapePoint { utilization, score };
    let ratio = NodeResourcesFit::new(ScoringStrategy::RequestedToCapacityRatio {
        resources: two(),
        shape: vec![point(0, 0), point(100, 10)],
    });
    // 25 % → 2 → 20, and memory with a score of zero is left out; 100 % → 100 and 50 % → 50.
    assert_eq!(score(&ratio, &wants, &nodes), Some(vec![20, 75, 0]));
    // Pods that ask for nothing count as 100m and 200 MiB each.
    let nothing = pod(requesting(json!({})));
    assert_eq!(score(&least, &nothing, &nodes), Some(vec![97, 35, 0]));
}

#[test]
fn resources_in_balance() {
    let node = || allocatable(json!({"cpu": "10", "memory": "10Gi", "pods": 110}));
    let used: &[Value] = &[requesting(json!({"cpu": "4", "memory": "1Gi"}))];
    let nodes = snapshot(&[("a", node(), &[]), ("b", node(), used)]);
    let balanced = NodeResourcesBalancedAllocation::default();
    // 10 % and 40 %: half their distance is 15; 50 % and 50 %.
    let wants = pod(requesting(json!({"cpu": "1", "memory": "4Gi"})));
    assert_eq!(score(&balanced, &wants, &nodes), Some(vec![85, 100]));
    assert_eq!(score(&balanced, &pod(requesting(json!({}))), &nodes), None);
}

#[test]
fn taints() {
    let tainted =
        |effect: &str| json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": effect}]}});
    let nodes = snapshot(&[
        ("a", json!({}), &[]),
        ("b", tainted("NoSchedule"), &[]),
        ("c", tainted("NoExecute"), &[]),
        ("d", tainted("PreferNoSchedule"), &[]),
    ]);
    let plain = pod(json!({}));
    let refused = "!node(s) had untolerated taint(s)";
    assert_eq!(
        filter(&TaintToleration, &plain, &nodes),
        ["", refused, refused, ""]
    );
    assert_eq!(
        score(&TaintToleration, &plain, &nodes),
        Some(vec![100, 100, 100, 0])
    );
    let tolerant = pod(
        json!({"tolerations": [{"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}]}),
    );
    assert_eq!(
        filter(&TaintToleration, &tolerant, &nodes),
        ["", "", refused, ""]
    );
    let all = pod(json!({"tolerations": [{"operator": "Exists"}]}));
    assert_eq!(score(&TaintToleration, &all, &nodes), Some(vec![100; 4]));
}

#[test]
fn affinity_to_nodes() {
    let labelled = |disk: &str| json!({"metadata": {"labels": {"disk": disk}}});
    let nodes = snapshot(&[("a", labelled("ssd"), &[]), ("b", labelled("hdd"), &[])]);
    let refused = "!node(s) didn't match Pod's node affinity/selector";
    let term = |op: &str, value: &str| json!({"matchExpressions": [{"key": "disk", "operator": op, "values": [value]}]});
    let required = |terms: Value| {
        let required =
            json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        pod(json!({"affinity": {"nodeAffinity": required}}))
    };
    assert_eq!(
        filter(
            &NodeAffinity,
            &pod(json!({"nodeSelector": {"disk": "ssd"}})),
            &nodes
        ),
        ["", refused]
    );
    assert_eq!(
        filter(&NodeAffinity, &required(json!([term("In", "hdd")])), &nodes),
        [refused, ""]
    );
    let name = |name: &str| json!({"key": "metadata.name", "operator": "In", "values": [name]});
    let conflict = required(json!([{"matchFields": [name("a"), name("b")]}]));
    assert_eq!(
        filter(&NodeAffinity, &conflict, &nodes),
        ["!pod affinity terms conflict"]
    );
    let by_name = required(json!([{"matchFields": [name("b")]}]));
    let result = NodeAffinity.as_pre_filter().unwrap().pre_filter(
        &mut CycleState::default(),
        &by_name,
        &nodes,
    );
    assert_eq!(result.nodes, Some(vec!["b".into()]));

    let preferred = pod(
        json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 10, "preference": term("In", "ssd")},
            {"weight": 30, "preference": term("Exists", "x")},
            {"weight": 5, "preference": term("NotIn", "ssd")},
        ]}}}),
    );
    assert_eq!(
        score(&NodeAffinity, &preferred, &nodes),
        Some(vec![100, 50])
    );
    assert_eq!(score(&NodeAffinity, &pod(json!({})), &nodes), None);
}

#[test]
fn ports_of_nodes() {
    let with = |port: Value| json!({"containers": [{"name": "c", "ports": [port]}]});
    let used: &[Value] = &[with(
        json!({"containerPort": 1, "hostPort": 80, "hostIP": "10.0.0.1"}),
    )];
    let nodes = snapshot(&[("a", json!({}), used), ("b", json!({}), &[])]);
    let taken = "node(s) didn't have free ports for the requested pod ports";
    for (port, expected) in [
        (json!({"hostPort": 80}), [taken, ""]),
        (json!({"hostPort": 80, "protocol": "UDP"}), ["", ""]),
        (json!({"hostPort": 80, "hostIP": "10.0.0.2"}), ["", ""]),
        (json!({"containerPort": 80}), ["", ""]),
    ] {
        assert_eq!(
            filter(&NodePorts, &pod(with(port.clone())), &nodes),
            expected,
            "{port}"
        );
    }
}

#[test]
fn hints() {
    let event = |old: Option<Value>, new: Value| ClusterEvent {
        resource: EventResource::Node,
        actions: Actions::ADD,
        subject: Subject::Node {
            old: old.map(|body| node_info("n", body)),
            new: Some(node_info("n", new)),
        },
    };
    let tainted = || json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let cordoned = || json!({"spec": {"unschedulable": true}});
    let cpu = |cpu: &str| allocatable(json!({"cpu": cpu, "pods": 1}));
    let wants = pod(
        json!({"nodeSelector": {"a": "b"}, "containers": [{"resources": {"requests": {"cpu": "2"}}}]}),
    );
    let labelled = || json!({"metadata": {"labels": {"a": "b"}}});
    let fit: Box<dyn SchedulerPlugin> = Box::new(NodeResourcesFit::default());
    let table: Vec<(Box<dyn SchedulerPlugin>, ClusterEvent, Hint)> = vec![
        (
            Box::new(TaintToleration),
            event(Some(tainted()), json!({})),
            Hint::Queue,
        ),
        (
            Box::new(TaintToleration),
            event(Some(json!({})), json!({})),
            Hint::Skip,
        ),
        (
            Box::new(TaintToleration),
            event(None, tainted()),
            Hint::Skip,
        ),
        (
            Box::new(NodeUnschedulable),
            event(Some(cordoned()), json!({})),
            Hint::Queue,
        ),
        (
            Box::new(NodeUnschedulable),
            event(None, cordoned()),
            Hint::Skip,
        ),
        (Box::new(NodeAffinity), event(None, labelled()), Hint::Queue),
        (
            Box::new(NodeAffinity),
            event(Some(labelled()), labelled()),
            Hint::Skip,
        ),
        (Box::new(NodeAffinity), event(None, json!({})), Hint::Skip),
        (fit, event(None, cpu("2")), Hint::Queue),
        (
            Box::new(NodeResourcesFit::default()),
            event(None, cpu("1")),
            Hint::Skip,
        ),
        (
            Box::new(NodeResourcesFit::default()),
            event(Some(cpu("2")), cpu("3")),
            Hint::Queue,
        ),
        (
            Box::new(NodeResourcesFit::default()),
            event(Some(cpu("3")), cpu("2")),
            Hint::Skip,
        ),
    ];
    for (plugin, event, expected) in table {
        let hint = plugin.as_enqueue_extensions().unwrap().hint(&wants, &event);
        assert_eq!(hint, expected, "{} {event:?}", plugin.name());
    }
}

proptest! {
    /// Every filter and score agrees with its batch form on any cluster; the helpers above compare them.
    #[test]
    fn batches_agree_with_single_nodes(
        nodes in prop::collection::vec((0..5u8, 0..3u8, 0..3u8, any::<bool>(), prop::collection::vec(0..3u8, 0..3)), 1..8),
        (cpu, gpu, port, taint) in (0..4u8, 0..3u8, 0..3u8, any::<bool>()),
    ) {
        let states: Vec<NodeState> = nodes.iter().enumerate().map(|(index, (cpu, gpu, taints, cordoned, pods))| {
            let taints: Vec<Value> = (0..*taints)
                .map(|taint| {
                    let effect = if taint % 2 == 0 { "NoSchedule" } else { "PreferNoSchedule" };
                    json!({"key": format!("t{taint}"), "effect": effect})
                })
                .collect();
            let mut state = NodeState::new(node_info(&format!("n{index}"), json!({
                "spec": {"taints": taints, "unschedulable": cordoned},
                "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": 2, "x.y/gpu": gpu}},
            })));
            for used in pods {
                state.add_pod(pod(json!({"containers": [{
                    "resources": {"requests": {"cpu": format!("{used}00m"), "x.y/gpu": used % 2}},
                    "ports": [{"hostPort": 1 + i32::from(*used)}],
                }]})));
            }
            state
        }).collect();
        let snapshot = Snapshot::new(&states);
        let tolerations = if taint { json!([{"key": "t0", "operator": "Exists"}]) } else { json!([]) };
        let wants = pod(json!({
            "tolerations": tolerations,
            "containers": [{
                "resources": {"requests": {"cpu": cpu, "memory": "100Mi", "x.y/gpu": gpu}},
                "ports": [{"hostPort": port}],
            }],
        }));
        let filters: [&dyn SchedulerPlugin; 5] =
            [&NodeName, &NodeUnschedulable, &TaintToleration, &NodePorts, &NodeResourcesFit::default()];
        for plugin in filters {
            filter(plugin, &wants, &snapshot);
        }
        let scorers: [&dyn SchedulerPlugin; 3] =
            [&TaintToleration, &NodeResourcesFit::default(), &NodeResourcesBalancedAllocation::default()];
        for plugin in scorers {
            for score in score(plugin, &wants, &snapshot).into_iter().flatten() {
                prop_assert!((0..=100).contains(&score), "{} {score}", plugin.name());
            }
        }
    }
}
