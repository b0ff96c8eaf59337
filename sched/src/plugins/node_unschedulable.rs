//! `NodeUnschedulable`: cordoned nodes.

use std::sync::LazyLock;

use orlop_core::scheduling::{
    Actions, Candidates, ClusterEvent, CycleState, Effect, EnqueueExtensions, EventResource,
    Filter, Hint, NodeView, PodInfo, Registration, SchedulerPlugin, Subject, Taint, Verdict,
};

const REASON: &str = "node(s) were unschedulable";

/// The taint that stands for `spec.unschedulable`.
static TAINT: LazyLock<Taint> = LazyLock::new(|| Taint {
    key: "node.kubernetes.io/unschedulable".into(),
    value: "".into(),
    effect: Effect::NoSchedule,
});

/// Leaves out cordoned nodes, but for pods that tolerate `node.kubernetes.io/unschedulable`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeUnschedulable;

fn tolerates(pod: &PodInfo) -> bool {
    pod.constraints()
        .tolerations
        .iter()
        .any(|toleration| toleration.tolerates(&TAINT))
}

impl SchedulerPlugin for NodeUnschedulable {
    fn name(&self) -> &str {
        "NodeUnschedulable"
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_enqueue_extensions(&self) -> Option<&dyn EnqueueExtensions> {
        Some(self)
    }
}

impl Filter for NodeUnschedulable {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: NodeView<'_>) -> Verdict {
        if node.is_unschedulable() && !tolerates(pod) {
            return Verdict::unresolvable(REASON);
        }
        Verdict::Success
    }

    fn filter_batch(&self, _: &CycleState, pod: &PodInfo, candidates: &mut Candidates<'_>) {
        let column = candidates.snapshot().unschedulable();
        if column[candidates.rows()].contains(&true) && !tolerates(pod) {
            let refused = candidates.rejection(Verdict::unresolvable(REASON));
            candidates.judge(|row| column[row].then_some(refused));
        }
    }
}

impl EnqueueExtensions for NodeUnschedulable {
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
            } => !new.is_unschedulable() && old.as_ref().is_none_or(|old| old.is_unschedulable()),
            Subject::Pod { new: Some(new), .. } => new.uid() == pod.uid() && tolerates(new),
            _ => true,
        };
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
