//! `NodeAffinity`: what a pod asks of a node's labels and name.

use orlop_core::scheduling::{
    Actions, ClusterEvent, CycleState, EnqueueExtensions, EventResource, Filter, Hint, NodeIndex,
    NodeInfo, NodeView, PodInfo, PreFilter, PreFilterResult, PreScore, Registration,
    SchedulerPlugin, Score, Snapshot, Subject, Verdict, normalize_scores,
};
use orlop_core::selector::node::has_labels;

const REASON: &str = "node(s) didn't match Pod's node affinity/selector";
const CONFLICT: &str = "pod affinity terms conflict";

/// Leaves out nodes that `nodeSelector` or the required node affinity doesn't match, and likes those best whose preferred terms weigh
/// the most.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeAffinity;

fn matches(pod: &PodInfo, node: &NodeInfo) -> bool {
    let constraints = pod.constraints();
    has_labels(&constraints.node_selector, node.labels())
        && constraints
            .required_affinity
            .as_ref()
            .is_none_or(|required| required.matches(node.name(), node.labels()))
}

impl SchedulerPlugin for NodeAffinity {
    fn name(&self) -> &str {
        "NodeAffinity"
    }

    fn as_pre_filter(&self) -> Option<&dyn PreFilter> {
        Some(self)
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_pre_score(&self) -> Option<&dyn PreScore> {
        Some(self)
    }

    fn as_score(&self) -> Option<&dyn Score> {
        Some(self)
    }

    fn as_enqueue_extensions(&self) -> Option<&dyn EnqueueExtensions> {
        Some(self)
    }
}

impl PreFilter for NodeAffinity {
    fn pre_filter(&self, _: &mut CycleState, pod: &PodInfo, _: &Snapshot) -> PreFilterResult {
        let constraints = pod.constraints();
        let Some(required) = &constraints.required_affinity else {
            let skip = constraints.node_selector.is_empty();
            return if skip {
                Verdict::Skip.into()
            } else {
                Verdict::Success.into()
            };
        };
        // Where every term asks for a node by name, no other one comes into question.
        match required.names() {
            Some(names) if names.is_empty() => Verdict::unresolvable(CONFLICT).into(),
            names => PreFilterResult {
                verdict: Verdict::Success,
                nodes: names.map(|names| names.into_iter().map(Into::into).collect()),
            },
        }
    }
}

impl Filter for NodeAffinity {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: NodeView<'_>) -> Verdict {
        if matches(pod, node.info()) {
            return Verdict::Success;
        }
        Verdict::unresolvable(REASON)
    }
}

impl PreScore for NodeAffinity {
    fn pre_score(
        &self,
        _: &mut CycleState,
        pod: &PodInfo,
        _: &Snapshot,
        _: &[NodeIndex],
    ) -> Verdict {
        if pod.constraints().preferred_affinity.is_empty() {
            Verdict::Skip
        } else {
            Verdict::Success
        }
    }
}

impl Score for NodeAffinity {
    fn score(&self, _: &CycleState, pod: &PodInfo, node: NodeView<'_>) -> i64 {
        let preferred = &pod.constraints().preferred_affinity;
        let matching = preferred
            .iter()
            .filter(|preferred| preferred.term.matches(node.name(), node.labels()));
        matching.map(|preferred| preferred.weight).sum()
    }

    fn normalize(&self, _: &CycleState, _: &PodInfo, scores: &mut [i64]) {
        normalize_scores(false, scores);
    }
}

impl EnqueueExtensions for NodeAffinity {
    fn events(&self) -> Vec<Registration> {
        vec![Registration {
            resource: EventResource::Node,
            actions: Actions::ADD | Actions::UPDATE_NODE_LABEL,
        }]
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        let Subject::Node {
            old,
            new: Some(new),
        } = &event.subject
        else {
            return Hint::Queue;
        };
        let helps = matches(pod, new) && old.as_ref().is_none_or(|old| !matches(pod, old));
        if helps { Hint::Queue } else { Hint::Skip }
    }
}
