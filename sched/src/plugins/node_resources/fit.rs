//! `NodeResourcesFit`: whether there is enough, and how much would be left.

use std::sync::Arc;

use orlop_core::scheduling::{
    Actions, Candidates, ClusterEvent, CycleState, EnqueueExtensions, EventResource, Filter, Hint,
    NodeIndex, NodeView, PodInfo, Reasons, Registration, Resources, SchedulerPlugin, Score,
    Snapshot, Subject, Verdict,
};

use super::strategy::ScoringStrategy;

/// Leaves out nodes that have too little left of what the pod asks for, and scores the others by what would be taken.
///
/// A pod's requests are those of its containers, init containers and sidecars, or of the pod as a whole, and its overhead.
#[derive(Clone, Debug, Default)]
pub struct NodeResourcesFit {
    strategy: ScoringStrategy,
    ignored: Vec<String>,
    ignored_groups: Vec<String>,
}

impl NodeResourcesFit {
    /// With another way to score.
    #[must_use]
    pub fn new(strategy: ScoringStrategy) -> Self {
        Self {
            strategy,
            ..Self::default()
        }
    }

    /// Extended resources that are somebody else's to watch over (`ignoredResources`).
    #[must_use]
    pub fn ignoring(mut self, resources: &[&str]) -> Self {
        self.ignored = resources.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// Groups (what stands before the `/`) of such resources (`ignoredResourceGroups`).
    #[must_use]
    pub fn ignoring_groups(mut self, groups: &[&str]) -> Self {
        self.ignored_groups = groups.iter().map(|&name| name.to_owned()).collect();
        self
    }

    fn watches(&self, name: &str) -> bool {
        let group = name.split_once('/').map_or("", |(group, _)| group);
        !self.ignored.iter().any(|ignored| ignored == name)
            && (group.is_empty() || !self.ignored_groups.iter().any(|ignored| ignored == group))
    }

    /// The extended resources that the pod asks for.
    fn wanted<'a>(&'a self, pod: &'a PodInfo) -> impl Iterator<Item = &'a (Arc<str>, i64)> {
        pod.requests()
            .scalar
            .iter()
            .filter(|(name, amount)| *amount > 0 && self.watches(name))
    }

    /// What is missing, given what there is, and what of it is taken already.
    fn shortage(&self, pod: &PodInfo, allocatable: &Resources, requested: &Resources) -> Shortage {
        let asked = pod.requests();
        let mut shortage = Shortage::default();
        shortage.check(0, asked.pods, i64::MAX, allocatable.pods - requested.pods);
        shortage.check(
            1,
            asked.milli_cpu,
            allocatable.milli_cpu,
            allocatable.milli_cpu - requested.milli_cpu,
        );
        shortage.check(
            2,
            asked.memory,
            allocatable.memory,
            allocatable.memory - requested.memory,
        );
        shortage.check(
            3,
            asked.ephemeral_storage,
            allocatable.ephemeral_storage,
            allocatable.ephemeral_storage - requested.ephemeral_storage,
        );
        for (place, (name, amount)) in self.wanted(pod).enumerate() {
            let there = allocatable.scalar(name);
            shortage.check(
                4 + place as u32,
                *amount,
                there,
                there - requested.scalar(name),
            );
        }
        shortage
    }

    /// The verdict that a shortage amounts to.
    fn verdict(&self, pod: &PodInfo, shortage: Shortage) -> Verdict {
        let extended = self.wanted(pod).map(|(name, _)| &**name);
        let names = ["pods", "cpu", "memory", "ephemeral-storage"]
            .into_iter()
            .chain(extended);
        let reasons: Reasons = names
            .enumerate()
            .filter(|(place, _)| shortage.missing >> place.min(&63) & 1 == 1)
            .map(|(place, name)| {
                if place == 0 {
                    "Too many pods".to_owned()
                } else {
                    format!("Insufficient {name}")
                }
            })
            .collect();
        if shortage.hopeless {
            Verdict::UnschedulableAndUnresolvable(reasons)
        } else {
            Verdict::Unschedulable(reasons)
        }
    }
}

/// Which resources a node has too little of.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Shortage {
    /// A bit for each resource: pods, CPU, memory, ephemeral storage, then the extended ones that the pod wants.
    missing: u64,
    /// Whether even the empty node has too little.
    hopeless: bool,
}

impl Shortage {
    #[inline]
    fn check(&mut self, place: u32, asked: i64, allocatable: i64, free: i64) {
        if asked > 0 && asked > free {
            self.missing |= 1 << place.min(63);
            self.hopeless |= asked > allocatable;
        }
    }
}

impl SchedulerPlugin for NodeResourcesFit {
    fn name(&self) -> &str {
        "NodeResourcesFit"
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_score(&self) -> Option<&dyn Score> {
        Some(self)
    }

    fn as_enqueue_extensions(&self) -> Option<&dyn EnqueueExtensions> {
        Some(self)
    }
}

impl Filter for NodeResourcesFit {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: NodeView<'_>) -> Verdict {
        let shortage = self.shortage(pod, node.allocatable(), &node.requested());
        if shortage.missing == 0 {
            Verdict::Success
        } else {
            self.verdict(pod, shortage)
        }
    }

    fn filter_batch(&self, _: &CycleState, pod: &PodInfo, candidates: &mut Candidates<'_>) {
        let snapshot = candidates.snapshot();
        let (there, taken, asked) = (snapshot.allocatable(), snapshot.requested(), pod.requests());
        let wanted: Vec<_> = self
            .wanted(pod)
            .map(|(name, amount)| (there.column(name), taken.column(name), *amount))
            .collect();
        let at = |column: Option<&[i64]>, row: usize| column.map_or(0, |column| column[row]);
        let shortage_of = |row: usize| {
            let mut shortage = Shortage::default();
            shortage.check(0, asked.pods, i64::MAX, there.pods[row] - taken.pods[row]);
            shortage.check(
                1,
                asked.milli_cpu,
                there.milli_cpu[row],
                there.milli_cpu[row] - taken.milli_cpu[row],
            );
            shortage.check(
                2,
                asked.memory,
                there.memory[row],
                there.memory[row] - taken.memory[row],
            );
            let (storage, storage_taken) =
                (there.ephemeral_storage[row], taken.ephemeral_storage[row]);
            shortage.check(3, asked.ephemeral_storage, storage, storage - storage_taken);
            for (place, (there, taken, amount)) in wanted.iter().enumerate() {
                let there = at(*there, row);
                shortage.check(4 + place as u32, *amount, there, there - at(*taken, row));
            }
            shortage
        };
        let missing = |row| Some(shortage_of(row)).filter(|shortage| shortage.missing != 0);
        candidates.judge_kinds(missing, |shortage| self.verdict(pod, shortage));
    }
}

impl Score for NodeResourcesFit {
    fn score(&self, _: &CycleState, pod: &PodInfo, node: NodeView<'_>) -> i64 {
        let mut score = [0];
        self.strategy
            .score(pod, node.snapshot(), &[node.index()], &mut score);
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
        self.strategy.score(pod, snapshot, nodes, scores);
    }
}

impl EnqueueExtensions for NodeResourcesFit {
    fn events(&self) -> Vec<Registration> {
        vec![
            Registration {
                resource: EventResource::AssignedPod,
                actions: Actions::DELETE | Actions::UPDATE_POD_SCALE_DOWN,
            },
            Registration {
                resource: EventResource::TargetPod,
                actions: Actions::UPDATE_POD_SCALE_DOWN,
            },
            Registration {
                resource: EventResource::Node,
                actions: Actions::ADD | Actions::UPDATE_NODE_ALLOCATABLE,
            },
        ]
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        let helps = match &event.subject {
            // A node that is too small even when it is empty does not help, nor does one that got nothing more.
            Subject::Node {
                old,
                new: Some(new),
            } => {
                let fits =
                    |node: &Resources| self.shortage(pod, node, &Resources::default()).missing == 0;
                let grew = |old: &Resources, new: &Resources| {
                    new.pods > old.pods
                        || new.milli_cpu > old.milli_cpu
                        || new.memory > old.memory
                        || new.ephemeral_storage > old.ephemeral_storage
                        || new
                            .scalar
                            .iter()
                            .any(|(name, amount)| *amount > old.scalar(name))
                };
                fits(new.allocatable())
                    && old
                        .as_ref()
                        .is_none_or(|old| grew(old.allocatable(), new.allocatable()))
            }
            _ => true,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
