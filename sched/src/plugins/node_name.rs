//! `NodeName`: pods whose author chose the node.

use orlop_core::scheduling::{
    Actions, Candidates, CycleState, EnqueueExtensions, EventResource, Filter, NodeView, PodInfo,
    Registration, SchedulerPlugin, Verdict,
};

const REASON: &str = "node(s) didn't match the requested node name";

/// Leaves a pod with a `nodeName` to that node.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeName;

impl SchedulerPlugin for NodeName {
    fn name(&self) -> &str {
        "NodeName"
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_enqueue_extensions(&self) -> Option<&dyn EnqueueExtensions> {
        Some(self)
    }
}

impl Filter for NodeName {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: NodeView<'_>) -> Verdict {
        match pod.node_name() {
            Some(name) if name != node.name() => Verdict::unresolvable(REASON),
            _ => Verdict::Success,
        }
    }

    fn filter_batch(&self, state: &CycleState, pod: &PodInfo, candidates: &mut Candidates<'_>) {
        if pod.node_name().is_some() {
            candidates.judge_nodes(|node| self.filter(state, pod, node));
        }
    }
}

impl EnqueueExtensions for NodeName {
    fn events(&self) -> Vec<Registration> {
        vec![Registration {
            resource: EventResource::Node,
            actions: Actions::ADD,
        }]
    }
}
