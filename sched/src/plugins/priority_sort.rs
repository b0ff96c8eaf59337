//! `PrioritySort`: the order of the queue.

use std::cmp::Ordering;

use orlop_core::scheduling::{QueueSort, QueuedPod, SchedulerPlugin};

/// The higher priority first; among equals, who waits longer.
#[derive(Clone, Copy, Debug, Default)]
pub struct PrioritySort;

impl SchedulerPlugin for PrioritySort {
    fn name(&self) -> &str {
        "PrioritySort"
    }

    fn as_queue_sort(&self) -> Option<&dyn QueueSort> {
        Some(self)
    }
}

impl QueueSort for PrioritySort {
    fn compare(&self, a: &QueuedPod, b: &QueuedPod) -> Ordering {
        b.pod
            .priority()
            .cmp(&a.pod.priority())
            .then(a.since.cmp(&b.since))
    }
}
