//! `NodeResourcesBalancedAllocation`: resources that are used up at one pace.

use orlop_core::scheduling::{
    CycleState, MAX_NODE_SCORE, NodeIndex, NodeView, PodInfo, PreScore, SchedulerPlugin, Score,
    Snapshot, Verdict,
};

use super::strategy::{Columns, ResourceWeight};

/// Likes nodes best where, with the pod, all resources would be taken to the same part. The score falls with the standard deviation of
/// those parts.
#[derive(Clone, Debug)]
pub struct NodeResourcesBalancedAllocation {
    resources: Vec<ResourceWeight>,
}

impl Default for NodeResourcesBalancedAllocation {
    fn default() -> Self {
        Self {
            resources: ResourceWeight::cpu_and_memory(),
        }
    }
}

impl NodeResourcesBalancedAllocation {
    /// For other resources than CPU and memory.
    #[must_use]
    pub fn new(resources: &[&str]) -> Self {
        Self {
            resources: resources
                .iter()
                .map(|name| ResourceWeight::new(name, 1))
                .collect(),
        }
    }

    fn scores(&self, pod: &PodInfo, snapshot: &Snapshot, nodes: &[NodeIndex], scores: &mut [i64]) {
        let columns = Columns::of(&self.resources, pod, snapshot, false);
        let mut parts = Vec::with_capacity(columns.len());
        for (node, score) in nodes.iter().zip(scores) {
            parts.clear();
            parts.extend(columns.iter().filter_map(|column| {
                let (requested, allocatable) = column.at(node.row())?;
                Some((requested as f64 / allocatable as f64).min(1.0))
            }));
            *score = ((1.0 - deviation(&parts)) * MAX_NODE_SCORE as f64) as i64;
        }
    }
}

/// The standard deviation.
fn deviation(parts: &[f64]) -> f64 {
    match parts {
        [] | [_] => 0.0,
        // The same as below, without the rounding of a square root.
        [a, b] => ((a - b) / 2.0).abs(),
        parts => {
            let count = parts.len() as f64;
            let mean = parts.iter().sum::<f64>() / count;
            (parts
                .iter()
                .map(|part| (part - mean) * (part - mean))
                .sum::<f64>()
                / count)
                .sqrt()
        }
    }
}

impl SchedulerPlugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &str {
        "NodeResourcesBalancedAllocation"
    }

    fn as_pre_score(&self) -> Option<&dyn PreScore> {
        Some(self)
    }

    fn as_score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

impl PreScore for NodeResourcesBalancedAllocation {
    fn pre_score(
        &self,
        _: &mut CycleState,
        pod: &PodInfo,
        _: &Snapshot,
        _: &[NodeIndex],
    ) -> Verdict {
        // A pod that asks for nothing changes no balance; to score it would send all such pods to one node.
        let asks = self
            .resources
            .iter()
            .any(|resource| pod.requests().get(&resource.name) != 0);
        if asks {
            Verdict::Success
        } else {
            Verdict::Skip
        }
    }
}

impl Score for NodeResourcesBalancedAllocation {
    fn score(&self, _: &CycleState, pod: &PodInfo, node: NodeView<'_>) -> i64 {
        let mut score = [0];
        self.scores(pod, node.snapshot(), &[node.index()], &mut score);
        score[0]
    }

    fn score_batch(
        &self,
        _: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        nodes: &[NodeIndex],
        scores: &mut [i64],
    ) {
        self.scores(pod, snapshot, nodes, scores);
    }
}
