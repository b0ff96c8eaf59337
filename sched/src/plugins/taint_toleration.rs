//! `TaintToleration`: taints that repel pods.

use orlop_core::scheduling::{
    Actions, Candidates, ClusterEvent, CycleState, Effect, EnqueueExtensions, EventResource,
    Filter, Hint, NodeIndex, NodeView, PodInfo, Registration, SchedulerPlugin, Score, Snapshot,
    Subject, Taint, Verdict, normalize_scores,
};

const REASON: &str = "node(s) had untolerated taint(s)";

/// Leaves out nodes with a taint `NoSchedule` or `NoExecute` that the pod does not tolerate, and likes those best that have the fewest
/// such taints `PreferNoSchedule`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaintToleration;

fn tolerated(pod: &PodInfo, taint: &Taint) -> bool {
    pod.constraints()
        .tolerations
        .iter()
        .any(|toleration| toleration.tolerates(taint))
}

fn admits(pod: &PodInfo, taints: &[Taint]) -> bool {
    taints
        .iter()
        .filter(|taint| matches!(taint.effect, Effect::NoSchedule | Effect::NoExecute))
        .all(|taint| tolerated(pod, taint))
}

fn disliked(pod: &PodInfo, taints: &[Taint]) -> i64 {
    taints
        .iter()
        .filter(|taint| taint.effect == Effect::PreferNoSchedule && !tolerated(pod, taint))
        .count() as i64
}

impl SchedulerPlugin for TaintToleration {
    fn name(&self) -> &str {
        "TaintToleration"
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

impl Filter for TaintToleration {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: NodeView<'_>) -> Verdict {
        if admits(pod, node.taints()) {
            return Verdict::Success;
        }
        Verdict::unresolvable(REASON)
    }

    fn filter_batch(&self, _: &CycleState, pod: &PodInfo, candidates: &mut Candidates<'_>) {
        let snapshot = candidates.snapshot();
        if snapshot.taint_sets().len() == 1 {
            return;
        }
        // Each set of taints is looked at once.
        let admitted: Vec<bool> = snapshot
            .taint_sets()
            .iter()
            .map(|taints| admits(pod, taints))
            .collect();
        let column = snapshot.taint_set();
        let refused = candidates.rejection(Verdict::unresolvable(REASON));
        candidates.judge(|row| (!admitted[column[row] as usize]).then_some(refused));
    }
}

impl Score for TaintToleration {
    fn score(&self, _: &CycleState, pod: &PodInfo, node: NodeView<'_>) -> i64 {
        disliked(pod, node.taints())
    }

    fn score_batch(
        &self,
        _: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        nodes: &[NodeIndex],
        scores: &mut [i64],
    ) {
        let disliked: Vec<i64> = snapshot
            .taint_sets()
            .iter()
            .map(|taints| disliked(pod, taints))
            .collect();
        let column = snapshot.taint_set();
        for (node, score) in nodes.iter().zip(scores) {
            *score = disliked[column[node.row()] as usize];
        }
    }

    fn normalize(&self, _: &CycleState, _: &PodInfo, scores: &mut [i64]) {
        normalize_scores(true, scores);
    }
}

impl EnqueueExtensions for TaintToleration {
    fn events(&self) -> Vec<Registration> {
        vec![
            Registration {
                resource: EventResource::Node,
                actions: Actions::ADD | Actions::UPDATE_NODE_TAINT,
            },
            Registration {
                resource: EventResource::TargetPod,
                actions: Actions::UPDATE_POD_TOLERATION,
            },
        ]
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        let helps = match &event.subject {
            Subject::Node {
                old,
                new: Some(new),
            } => {
                admits(pod, new.taints())
                    && old.as_ref().is_none_or(|old| !admits(pod, old.taints()))
            }
            Subject::Pod { new: Some(new), .. } => new.uid() == pod.uid(),
            _ => true,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
