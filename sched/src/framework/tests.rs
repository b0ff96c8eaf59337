use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use orlop_core::scheduling::{
    CycleState, Filter, NodeInfo, NodeState, NodeView, PodInfo, SchedulerPlugin, Score, Snapshot,
    Verdict,
};
use serde_json::{Value, json};

use super::*;
use crate::decision::DecisionLoop;
use crate::plugins::{DefaultBinder, NodeAffinity, PrioritySort};

fn snapshot(nodes: usize) -> Snapshot {
    let states: Vec<NodeState> = (0..nodes)
        .map(|index| {
            let node = json!({
                "metadata": {"name": format!("n{index}")},
                "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": 10}},
            });
            NodeState::new(Arc::new(NodeInfo::from_value(node).unwrap()))
        })
        .collect();
    Snapshot::new(&states)
}

fn pod(uid: &str, spec: Value) -> Arc<PodInfo> {
    let value = json!({"metadata": {"name": uid, "namespace": "d", "uid": uid}, "spec": spec});
    Arc::new(PodInfo::from_value(value).unwrap())
}

fn plain(uid: &str) -> Arc<PodInfo> {
    pod(
        uid,
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}),
    )
}

/// Counts the nodes that it is asked about, refuses those with an odd row where it is told to, and scores by the row.
#[derive(Default)]
struct Rows {
    asked: Arc<AtomicUsize>,
    refuse_odd: bool,
    factor: i64,
}

impl SchedulerPlugin for Rows {
    fn name(&self) -> &str {
        "Rows"
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

impl Filter for Rows {
    fn filter(&self, _: &CycleState, _: &PodInfo, node: NodeView<'_>) -> Verdict {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.refuse_odd && node.index().row() % 2 == 1 {
            return Verdict::unschedulable("node(s) were odd");
        }
        Verdict::Success
    }
}

impl Score for Rows {
    fn score(&self, _: &CycleState, _: &PodInfo, node: NodeView<'_>) -> i64 {
        node.index().row() as i64 * self.factor
    }
}

fn rows(rows: Rows) -> Profile {
    let profile = Profile::new("rows")
        .plugin(PrioritySort)
        .unwrap()
        .plugin(DefaultBinder)
        .unwrap();
    profile.plugin(NodeAffinity).unwrap().plugin(rows).unwrap()
}

#[test]
fn incomplete_profiles_are_refused() {
    let error = |profile: Profile| Framework::new(profile).unwrap_err();
    assert_eq!(error(Profile::new("")), Error::NamelessProfile);
    assert!(matches!(
        error(Profile::new("a")),
        Error::QueueSort { count: 0, .. }
    ));
    assert_eq!(
        error(Profile::new("a").plugin(PrioritySort).unwrap()),
        Error::NoBind("a".to_owned())
    );
}

#[test]
fn a_search_ends_when_enough_nodes_fit() {
    for (nodes, percentage, feasible) in [
        (0, 0, 0),
        (100, 0, 100),
        (101, 0, 100),
        (1000, 0, 420),
        (5000, 0, 500),
        (10_000, 0, 500),
        (1000, 70, 700),
        (1000, 1, 100),
    ] {
        let profile = rows(Rows::default())
            .percentage_of_nodes_to_score(percentage)
            .unwrap();
        let mut decisions = DecisionLoop::new(profile, snapshot(nodes), 1).unwrap();
        match decisions.decide(&plain("p")) {
            Ok(placement) => assert_eq!(
                (placement.feasible, placement.evaluated),
                (feasible, feasible),
                "{nodes}"
            ),
            Err(failure) => assert_eq!((failure, nodes), (Failure::NoNodes, 0)),
        }
    }
    // Without scores the first one will do.
    let profile = Profile::default_scheduler()
        .without("NodeResourcesFit")
        .unwrap()
        .without("NodeResourcesBalancedAllocation")
        .unwrap()
        .without("NodeAffinity")
        .unwrap()
        .without("TaintToleration")
        .unwrap();
    let mut decisions = DecisionLoop::new(profile, snapshot(300), 1).unwrap();
    assert_eq!(decisions.decide(&plain("p")).unwrap().evaluated, 1);
}

#[test]
fn every_node_gets_its_turn() {
    let mut decisions = DecisionLoop::new(
        rows(Rows {
            refuse_odd: true,
            ..Rows::default()
        }),
        snapshot(1000),
        1,
    )
    .unwrap();
    // 420 of 500 even rows are enough: each search goes over 839 or 840 rows and the next one begins behind it.
    let first = decisions.decide(&plain("p")).unwrap();
    assert_eq!((first.feasible, first.evaluated), (420, 839));
    let second = decisions.decide(&plain("p")).unwrap();
    assert_eq!((second.feasible, second.evaluated), (420, 840));
}

#[test]
fn the_best_node_wins_and_equals_are_drawn() {
    let mut decisions = DecisionLoop::new(
        rows(Rows {
            factor: 1,
            ..Rows::default()
        }),
        snapshot(50),
        1,
    )
    .unwrap();
    assert_eq!(decisions.decide(&plain("p")).unwrap().node.row(), 49);
    let draw = |seed| {
        let mut decisions = DecisionLoop::new(rows(Rows::default()), snapshot(50), seed).unwrap();
        (0..20)
            .map(|_| decisions.decide(&plain("p")).unwrap().node.row())
            .collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn scores_out_of_range_are_an_error() {
    let mut decisions = DecisionLoop::new(
        rows(Rows {
            factor: 60,
            ..Rows::default()
        }),
        snapshot(3),
        1,
    )
    .unwrap();
    assert_eq!(
        decisions.decide(&plain("p")).unwrap_err().to_string(),
        "plugin \"Rows\" returns an invalid score 120, it should in the range of [0, 100] after normalizing"
    );
}

#[test]
fn only_named_nodes_are_asked() {
    let asked = Arc::new(AtomicUsize::new(0));
    let profile = rows(Rows {
        asked: asked.clone(),
        refuse_odd: true,
        ..Rows::default()
    });
    let mut decisions = DecisionLoop::new(profile, snapshot(20), 1).unwrap();
    let named = |name: &str| {
        let term =
            json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
        let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}});
        pod(
            "p",
            json!({"affinity": {"nodeAffinity": required}, "containers": []}),
        )
    };
    let placement = decisions.decide(&named("n6")).unwrap();
    assert_eq!((placement.node.row(), placement.evaluated), (6, 1));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(
        decisions.decide(&named("n7")).unwrap_err().to_string(),
        "0/20 nodes are available: 1 node(s) were odd, 19 node(s) didn't satisfy plugin(s) [NodeAffinity]."
    );
}

#[test]
fn a_nominated_node_comes_first() {
    let nominated = |node: &str| {
        let value = json!({
            "metadata": {"name": "p", "uid": "p"}, "spec": {"containers": []}, "status": {"nominatedNodeName": node},
        });
        Arc::new(PodInfo::from_value(value).unwrap())
    };
    let profile = rows(Rows {
        factor: 1,
        refuse_odd: true,
        ..Rows::default()
    });
    let mut decisions = DecisionLoop::new(profile, snapshot(20), 1).unwrap();
    let placement = decisions.decide(&nominated("n4")).unwrap();
    assert_eq!((placement.node.row(), placement.evaluated), (4, 1));
    // If it does not fit, all are looked at.
    assert_eq!(decisions.decide(&nominated("n5")).unwrap().node.row(), 18);
}

#[test]
fn a_fork_and_an_explanation() {
    let mut decisions = DecisionLoop::new(Profile::default_scheduler(), snapshot(2), 1).unwrap();
    let first = decisions.place(plain("a")).unwrap();
    let mut fork = decisions.fork();
    for uid in ["b", "c", "d", "e", "f", "g", "h"] {
        fork.place(plain(uid)).unwrap();
    }
    assert!(fork.place(plain("i")).is_err());
    assert!(decisions.decide(&plain("i")).is_ok());

    let told = fork.explain(&plain("i"));
    assert!(told.nodes.iter().all(|node| {
        node.refused
            .as_ref()
            .is_some_and(|(plugin, _)| plugin == "NodeResourcesFit")
    }));
    let told = decisions.explain(&plain("i"));
    let best = decisions.decide(&plain("i")).unwrap();
    assert_ne!(best.node, first.node);
    let totals: Vec<i64> = told.nodes.iter().map(|node| node.total).collect();
    assert_eq!(totals.iter().max(), Some(&totals[best.node.row()]));
    assert_eq!(decisions.remove(first.node, "a").unwrap().name(), "a");
}
