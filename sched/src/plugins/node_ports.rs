//! `NodePorts`: ports of the node itself.

use orlop_core::scheduling::{
    Actions, Candidates, ClusterEvent, CycleState, EnqueueExtensions, EventResource, Filter, Hint,
    NodeView, PodInfo, PreFilter, PreFilterResult, Registration, SchedulerPlugin, Snapshot,
    Subject, Verdict,
};

const REASON: &str = "node(s) didn't have free ports for the requested pod ports";

/// Leaves out nodes where a host port that the pod wants is taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodePorts;

impl SchedulerPlugin for NodePorts {
    fn name(&self) -> &str {
        "NodePorts"
    }

    fn as_pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_enqueue_extensions(&self) -> Option<&dyn EnqueueExtensions> {
        Some(self)
    }
}

impl PreFilter for NodePorts {
    fn pre_filter(&self, _: &mut CycleState, pod: &PodInfo, _: &Snapshot) -> PreFilterResult {
        let skip = pod.constraints().host_ports.is_empty();
        if skip {
            Verdict::Skip.into()
        } else {
            Verdict::Success.into()
        }
    }
}

impl Filter for NodePorts {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: NodeView<'_>) -> Verdict {
        if node.ports().are_free(&pod.constraints().host_ports) {
            return Verdict::Success;
        }
        Verdict::unschedulable(REASON)
    }

    fn filter_batch(&self, _: &CycleState, pod: &PodInfo, candidates: &mut Candidates<'_>) {
        let (column, wanted) = (candidates.snapshot().ports(), &pod.constraints().host_ports);
        let refused = candidates.rejection(Verdict::unschedulable(REASON));
        candidates.judge(|row| (!column[row].are_free(wanted)).then_some(refused));
    }
}

impl EnqueueExtensions for NodePorts {
    fn events(&self) -> Vec<Registration> {
        vec![
            Registration {
                resource: EventResource::AssignedPod,
                actions: Actions::DELETE,
            },
            Registration {
                resource: EventResource::Node,
                actions: Actions::ADD,
            },
        ]
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        let Subject::Pod {
            old: Some(gone), ..
        } = &event.subject
        else {
            return Hint::Queue;
        };
        let wanted = &pod.constraints().host_ports;
        let freed = gone
            .constraints()
            .host_ports
            .iter()
            .any(|port| wanted.iter().any(|wanted| wanted.conflicts(port)));
        if freed { Hint::Queue } else { Hint::Skip }
    }
}
