//! How `NodeResourcesFit` scores.

use orlop_core::scheduling::{MAX_NODE_SCORE, NodeIndex, PodInfo, Snapshot};

/// A resource that counts for a score, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceWeight {
    /// Its name in the API.
    pub name: String,
    /// 1 to 100.
    pub weight: i64,
}

impl ResourceWeight {
    /// A resource and its weight.
    #[must_use]
    pub fn new(name: &str, weight: i64) -> Self {
        Self {
            name: name.to_owned(),
            weight,
        }
    }

    /// CPU and memory alike, Kubernetes' default.
    #[must_use]
    pub fn cpu_and_memory() -> Vec<Self> {
        vec![Self::new("cpu", 1), Self::new("memory", 1)]
    }
}

/// A point of the function that [`ScoringStrategy::RequestedToCapacityRatio`] follows; between two it is a straight line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapePoint {
    /// How much of a resource is taken, in percent.
    pub utilization: i64,
    /// The score there, 0 to 10.
    pub score: i64,
}

/// How a node's resources become a score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScoringStrategy {
    /// The emptier the better; spreads. The default.
    LeastAllocated(Vec<ResourceWeight>),
    /// The fuller the better; packs.
    MostAllocated(Vec<ResourceWeight>),
    /// A function of how full it is, given by points in ascending order of their utilization.
    RequestedToCapacityRatio {
        /// The resources.
        resources: Vec<ResourceWeight>,
        /// The function.
        shape: Vec<ShapePoint>,
    },
}

impl Default for ScoringStrategy {
    fn default() -> Self {
        Self::LeastAllocated(ResourceWeight::cpu_and_memory())
    }
}

impl ScoringStrategy {
    fn resources(&self) -> &[ResourceWeight] {
        match self {
            Self::LeastAllocated(resources) | Self::MostAllocated(resources) => resources,
            Self::RequestedToCapacityRatio { resources, .. } => resources,
        }
    }

    /// The score of one resource, of which `requested` is taken, the pod's part among it.
    fn score_one(&self, requested: i64, allocatable: i64) -> i64 {
        match self {
            Self::LeastAllocated(_) => share((allocatable - requested).max(0), allocatable),
            Self::MostAllocated(_) => share(requested.min(allocatable), allocatable),
            Self::RequestedToCapacityRatio { shape, .. } => {
                // Above its capacity a resource counts as full.
                interpolate(shape, share(requested.min(allocatable), allocatable))
                    * (MAX_NODE_SCORE / 10)
            }
        }
    }

    /// The scores of some nodes for a pod.
    pub(super) fn score(
        &self,
        pod: &PodInfo,
        snapshot: &Snapshot,
        nodes: &[NodeIndex],
        scores: &mut [i64],
    ) {
        let columns = Columns::of(self.resources(), pod, snapshot, true);
        let ratio = matches!(self, Self::RequestedToCapacityRatio { .. });
        for (node, score) in nodes.iter().zip(scores) {
            let (mut sum, mut weights) = (0, 0);
            for column in &columns {
                let Some((requested, allocatable)) = column.at(node.row()) else {
                    continue;
                };
                let score = self.score_one(requested, allocatable);
                // As upstream: where a function says nothing of a resource, it does not pull the mean down.
                if !ratio || score > 0 {
                    sum += score * column.weight;
                    weights += column.weight;
                }
            }
            *score = match weights {
                0 => 0,
                weights if ratio => (sum as f64 / weights as f64).round() as i64,
                weights => sum / weights,
            };
        }
    }
}

/// `part` of `whole`, in hundredths.
fn share(part: i64, whole: i64) -> i64 {
    match part.checked_mul(MAX_NODE_SCORE) {
        Some(product) => product / whole,
        // Only beyond 80 PiB: a division of 128 bits is slow.
        None => (i128::from(part) * i128::from(MAX_NODE_SCORE) / i128::from(whole)) as i64,
    }
}

/// The function's value, rounded towards the earlier point as integer division does.
fn interpolate(shape: &[ShapePoint], utilization: i64) -> i64 {
    let Some(next) = shape
        .iter()
        .position(|point| utilization <= point.utilization)
    else {
        return shape.last().map_or(0, |point| point.score);
    };
    let b = shape[next];
    let Some(a) = next.checked_sub(1).map(|before| shape[before]) else {
        return b.score;
    };
    a.score + (b.score - a.score) * (utilization - a.utilization) / (b.utilization - a.utilization)
}

/// One resource of all nodes, and the pod's part of it.
pub(super) struct Columns<'a> {
    allocatable: &'a [i64],
    requested: Option<&'a [i64]>,
    pod: i64,
    pub(super) weight: i64,
}

impl<'a> Columns<'a> {
    /// The columns of some resources. With `scored`, CPU and memory are those that scores count (see [`PodInfo::scored_milli_cpu`]).
    pub(super) fn of(
        resources: &[ResourceWeight],
        pod: &PodInfo,
        snapshot: &'a Snapshot,
        scored: bool,
    ) -> Vec<Self> {
        resources
            .iter()
            .filter_map(|ResourceWeight { name, weight }| {
                let allocatable = snapshot.allocatable().column(name)?;
                let (requested, pod_part) = match name.as_str() {
                    "cpu" if scored => (Some(snapshot.scored_milli_cpu()), pod.scored_milli_cpu()),
                    "memory" if scored => (Some(snapshot.scored_memory()), pod.scored_memory()),
                    name => (snapshot.requested().column(name), pod.requests().get(name)),
                };
                let basic = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
                // An extended resource that the pod does not want says nothing.
                (basic || pod_part != 0).then_some(Self {
                    allocatable,
                    requested,
                    pod: pod_part,
                    weight: *weight,
                })
            })
            .collect()
    }

    /// What would be taken of the resource and what there is; `None` on a node without it.
    pub(super) fn at(&self, row: usize) -> Option<(i64, i64)> {
        let allocatable = self.allocatable[row];
        let requested = self.requested.map_or(0, |column| column[row]);
        (allocatable != 0).then_some((requested + self.pod, allocatable))
    }
}
