//! `SchedulingGates`: pods that must not be scheduled yet.

use orlop_core::scheduling::{
    Actions, EnqueueExtensions, EventResource, PodInfo, PreEnqueue, Registration, SchedulerPlugin,
    Verdict,
};

/// Keeps a pod out of the queue while it has `schedulingGates`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SchedulingGates;

impl SchedulerPlugin for SchedulingGates {
    fn name(&self) -> &str {
        "SchedulingGates"
    }

    fn as_pre_enqueue(&self) -> Option<&dyn PreEnqueue> {
        Some(self)
    }

    fn as_enqueue_extensions(&self) -> Option<&dyn EnqueueExtensions> {
        Some(self)
    }
}

impl PreEnqueue for SchedulingGates {
    fn pre_enqueue(&self, pod: &PodInfo) -> Verdict {
        let gates = &pod.constraints().scheduling_gates;
        if gates.is_empty() {
            return Verdict::Success;
        }
        Verdict::unresolvable(format!(
            "waiting for scheduling gates: [{}]",
            gates.join(" ")
        ))
    }
}

impl EnqueueExtensions for SchedulingGates {
    fn events(&self) -> Vec<Registration> {
        vec![Registration {
            resource: EventResource::TargetPod,
            actions: Actions::UPDATE_POD_GATES_ELIMINATED,
        }]
    }
}
