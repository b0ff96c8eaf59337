//! The extension points, one trait for each, and the plug-in that gathers them.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::cycle::CycleState;
use super::event::{ClusterEvent, Hint, Registration};
use super::pod::PodInfo;
use super::snapshot::{NodeIndex, NodeView, Snapshot};
use super::verdict::{Candidates, Rejection, Verdict};
use crate::client::Client;
use crate::env::{Env, Moment};
use crate::object::ObjectKey;

/// The highest score that a plug-in may give a node, after normalising.
pub const MAX_NODE_SCORE: i64 = 100;
/// The lowest.
pub const MIN_NODE_SCORE: i64 = 0;

/// A plug-in of the scheduler: a name, and the extension points that it takes part in.
///
/// Register it in a profile; its name is unique there. For each extension point that it implements it answers with itself; all
/// accessors but [`name`](Self::name) have an empty body.
///
/// One value serves all attempts, possibly of several schedulers at once. What belongs to one attempt goes into [`CycleState`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a scheduler plug-in",
    label = "a scheduler plug-in is needed here",
    note = "implement `SchedulerPlugin` for it: `name`, and an accessor such as `as_score` for each extension point"
)]
#[allow(unused_variables)]
pub trait SchedulerPlugin: Send + Sync + 'static {
    /// Its name, as profiles, metrics and messages show it.
    fn name(&self) -> &str;

    /// Called once, before all else, with what the scheduler offers to plug-ins.
    fn attach(&self, handle: Arc<dyn Handle>) {}

    /// Holds pods back before they enter the queue.
    fn as_pre_enqueue(&self) -> Option<&dyn PreEnqueue> {
        None
    }

    /// Orders the queue. A profile has exactly one, and all profiles of a scheduler the same.
    fn as_queue_sort(&self) -> Option<&dyn QueueSort> {
        None
    }

    /// Says which events may make a pod schedulable that it refused.
    fn as_enqueue_extensions(&self) -> Option<&dyn EnqueueExtensions> {
        None
    }

    /// Looks at the pod before any node.
    fn as_pre_filter(&self) -> Option<&dyn PreFilter> {
        None
    }

    /// Says which nodes the pod can run on.
    fn as_filter(&self) -> Option<&dyn Filter> {
        None
    }

    /// Makes room when no node is left.
    fn as_post_filter(&self) -> Option<&dyn PostFilter> {
        None
    }

    /// Looks at the nodes that are left before they are scored.
    fn as_pre_score(&self) -> Option<&dyn PreScore> {
        None
    }

    /// Says how well a node suits.
    fn as_score(&self) -> Option<&dyn Score> {
        None
    }

    /// Sets something aside for the pod on its node.
    fn as_reserve(&self) -> Option<&dyn Reserve> {
        None
    }

    /// Allows, forbids or delays the binding.
    fn as_permit(&self) -> Option<&dyn Permit> {
        None
    }

    /// Does what must be done before the binding.
    fn as_pre_bind(&self) -> Option<&dyn PreBind> {
        None
    }

    /// Binds.
    fn as_bind(&self) -> Option<&dyn Bind> {
        None
    }

    /// Hears of the binding.
    fn as_post_bind(&self) -> Option<&dyn PostBind> {
        None
    }
}

/// What a scheduler offers to its plug-ins, see [`SchedulerPlugin::attach`].
pub trait Handle: Send + Sync {
    /// The way to the API.
    fn client(&self) -> &Arc<dyn Client>;

    /// Clocks, randomness and spawning.
    fn env(&self) -> &Env;

    /// The pods whose binding waits for somebody's permission, in the order of their names.
    fn waiting_pods(&self) -> Vec<WaitingPod>;

    /// Gives a plug-in's permission. The pod is bound when all that it waits for have given theirs. False if it does not wait.
    fn allow(&self, uid: &str, plugin: &str) -> bool;

    /// Refuses a waiting pod, in the name of a plug-in. False if it does not wait.
    fn reject(&self, uid: &str, plugin: &str, reason: String) -> bool;

    /// Puts pods that are known unschedulable back into the queue at once.
    fn activate(&self, pods: &[ObjectKey]);
}

/// A pod whose binding waits.
#[derive(Clone, Debug)]
pub struct WaitingPod {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// The node that it is to be bound to.
    pub node: Arc<str>,
    /// The plug-ins whose permission is missing.
    pub pending: Vec<String>,
}

/// A pod in the queue.
#[derive(Clone, Debug)]
pub struct QueuedPod {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// Since when it waits for this attempt.
    pub since: Moment,
    /// When it came first.
    pub first_seen: Moment,
    /// How often it was tried.
    pub attempts: u32,
}

/// Extension point PreEnqueue: holds pods back before they enter the queue.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement the extension point PreEnqueue"
)]
pub trait PreEnqueue: Send + Sync {
    /// Whether the pod may enter the queue. A refusal lasts until an event that the plug-in's [`EnqueueExtensions`] cover.
    fn pre_enqueue(&self, pod: &PodInfo) -> Verdict;
}

/// Extension point QueueSort: orders the queue.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement the extension point QueueSort"
)]
pub trait QueueSort: Send + Sync {
    /// [`Ordering::Less`] if `a` shall be tried before `b`. It must be a total order; equal ones keep the order in which they came.
    fn compare(&self, a: &QueuedPod, b: &QueuedPod) -> Ordering;
}

/// Which events may make a pod schedulable that the plug-in refused.
#[diagnostic::on_unimplemented(message = "`{Self}` does not implement EnqueueExtensions")]
pub trait EnqueueExtensions: Send + Sync {
    /// The events. A refused pod stays where it is for all others. Without them (and for plug-ins that don't implement this trait) it
    /// comes back for every event.
    fn events(&self) -> Vec<Registration>;

    /// Looks closer: whether an event among [`events`](Self::events) can really help a pod.
    #[allow(unused_variables)]
    fn hint(&self, pod: &PodInfo, event: &ClusterEvent) -> Hint {
        Hint::Queue
    }
}

/// What PreFilter found out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreFilterResult {
    /// The verdict. [`Verdict::Skip`] leaves the plug-in's Filter out for this pod.
    pub verdict: Verdict,
    /// The only nodes that come into question; `None` for all.
    pub nodes: Option<Vec<Arc<str>>>,
}

impl From<Verdict> for PreFilterResult {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            nodes: None,
        }
    }
}

/// Extension point PreFilter: looks at the pod once, before any node.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement the extension point PreFilter"
)]
#[allow(unused_variables)]
pub trait PreFilter: Send + Sync {
    /// Prepares what [`Filter`] will need, refuses the pod, or leaves only some nodes.
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> PreFilterResult;

    /// In a what-if, `added` was put on the node: brings the prepared state up to date.
    fn add_pod(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        added: &PodInfo,
        node: NodeView<'_>,
    ) -> Verdict {
        Verdict::Success
    }

    /// In a what-if, `removed` was taken from the node: brings the prepared state up to date.
    fn remove_pod(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        removed: &PodInfo,
        node: NodeView<'_>,
    ) -> Verdict {
        Verdict::Success
    }
}

/// Extension point Filter: says which nodes the pod can run on.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement the extension point Filter",
    note = "implement `Filter::filter`, which looks at one node; `filter_batch` is there for speed"
)]
pub trait Filter: Send + Sync {
    /// Whether the pod can run on a node.
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: NodeView<'_>) -> Verdict;

    /// The same for many nodes. Its result must be that of [`filter`](Self::filter) on each, which is what it does unless it is
    /// overridden.
    fn filter_batch(&self, state: &CycleState, pod: &PodInfo, candidates: &mut Candidates<'_>) {
        candidates.judge_nodes(|node| self.filter(state, pod, node));
    }
}

/// What PostFilter achieved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PostFilterResult {
    /// [`Verdict::Success`] if there will be room, otherwise why not. The reasons end up behind the pod's message.
    pub verdict: Verdict,
    /// The node where room is being made.
    pub nominated_node: Option<Arc<str>>,
}

/// Extension point PostFilter: makes room when no node is left, by preemption for one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement the extension point PostFilter"
)]
pub trait PostFilter: Send + Sync {
    /// Tries to make room. `rejections` says for each row of the snapshot why it was refused; `None` where a
    /// [`PreFilter`] left the node out.
    fn post_filter(
        &self,
        state: &mut CycleState,
        pod: &Arc<PodInfo>,
        snapshot: &Snapshot,
        rejections: &[Option<&Rejection>],
    ) -> PostFilterResult;
}

/// Extension point PreScore: looks at the nodes that are left, before they are scored.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement the extension point PreScore"
)]
pub trait PreScore: Send + Sync {
    /// Prepares what [`Score`] will need. [`Verdict::Skip`] leaves the plug-in's Score out for this pod.
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        nodes: &[NodeIndex],
    ) -> Verdict;
}

/// Extension point Score: says how well a node suits.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement the extension point Score",
    note = "implement `Score::score`, which looks at one node; `score_batch` is there for speed"
)]
#[allow(unused_variables)]
pub trait Score: Send + Sync {
    /// How well a node suits, the higher the better: [`MIN_NODE_SCORE`] to [`MAX_NODE_SCORE`], or anything that
    /// [`normalize`](Self::normalize) brings into that range. What can fail belongs into [`PreScore`].
    fn score(&self, state: &CycleState, pod: &PodInfo, node: NodeView<'_>) -> i64;

    /// The same for many nodes: one score for each. Its result must be that of [`score`](Self::score) on each, which is what it does
    /// unless it is overridden.
    fn score_batch(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
        nodes: &[NodeIndex],
        scores: &mut [i64],
    ) {
        for (node, score) in nodes.iter().zip(scores) {
            *score = self.score(state, pod, snapshot.node(*node));
        }
    }

    /// Brings the scores of all nodes into the range (upstream's NormalizeScore). Does nothing unless it is overridden; see
    /// [`normalize_scores`].
    fn normalize(&self, state: &CycleState, pod: &PodInfo, scores: &mut [i64]) {}
}

/// Stretches scores so that the highest is [`MAX_NODE_SCORE`]; reversed, so that the highest becomes [`MIN_NODE_SCORE`]. Where all are
/// zero they stay, or all are [`MAX_NODE_SCORE`] when reversed.
pub fn normalize_scores(reversed: bool, scores: &mut [i64]) {
    let highest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let stretched = if highest == 0 {
            0
        } else {
            MAX_NODE_SCORE * *score / highest
        };
        *score = if reversed {
            MAX_NODE_SCORE - stretched
        } else {
            stretched
        };
    }
}

/// Extension point Reserve: sets something aside for the pod on its node.
#[diagnostic::on_unimplemented(message = "`{Self}` does not implement the extension point Reserve")]
pub trait Reserve: Send + Sync {
    /// Sets it aside.
    fn reserve(&self, state: &mut CycleState, pod: &PodInfo, node: &Arc<str>) -> Verdict;

    /// Gives it back, because a later step failed. It is called for all plug-ins, in the reverse order, also for those whose
    /// [`reserve`](Self::reserve) was not reached; it must do no harm then, and it cannot fail.
    fn unreserve(&self, state: &mut CycleState, pod: &PodInfo, node: &Arc<str>);
}

/// Extension point Permit: allows, forbids or delays the binding.
#[diagnostic::on_unimplemented(message = "`{Self}` does not implement the extension point Permit")]
pub trait Permit: Send + Sync {
    /// [`Verdict::Wait`] delays the binding until [`Handle::allow`] or [`Handle::reject`]; when its time is over the pod is refused.
    fn permit(&self, state: &mut CycleState, pod: &PodInfo, node: &Arc<str>) -> Verdict;

    /// The longest that a pod may wait, whatever [`Verdict::Wait`] says: 15 minutes upstream.
    fn max_wait(&self) -> Duration {
        Duration::from_secs(15 * 60)
    }
}

/// What the binding steps are given.
#[derive(Clone)]
pub struct BindContext {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// The node that it is to be bound to.
    pub node: Arc<str>,
    /// The way to the API.
    pub client: Arc<dyn Client>,
    /// Clocks, randomness and spawning.
    pub env: Env,
}

/// Extension point PreBind: does what must be done before the binding.
#[diagnostic::on_unimplemented(message = "`{Self}` does not implement the extension point PreBind")]
pub trait PreBind: Send + Sync {
    /// Does it; it may wait for the API.
    fn pre_bind<'a>(
        &'a self,
        state: &'a mut CycleState,
        context: &'a BindContext,
    ) -> BoxFuture<'a, Verdict>;
}

/// Extension point Bind: binds.
#[diagnostic::on_unimplemented(message = "`{Self}` does not implement the extension point Bind")]
pub trait Bind: Send + Sync {
    /// Binds the pod to the node, or leaves it to the next plug-in with [`Verdict::Skip`].
    fn bind<'a>(
        &'a self,
        state: &'a mut CycleState,
        context: &'a BindContext,
    ) -> BoxFuture<'a, Verdict>;
}

/// Extension point PostBind: hears of the binding.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement the extension point PostBind"
)]
pub trait PostBind: Send + Sync {
    /// The pod is bound.
    fn post_bind(&self, state: &CycleState, context: &BindContext);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_stretched() {
        for (scores, plain, reversed) in [
            (vec![1, 2, 4], vec![25, 50, 100], vec![75, 50, 0]),
            (vec![0, 0], vec![0, 0], vec![100, 100]),
            (vec![], vec![], vec![]),
        ] {
            let (mut a, mut b) = (scores.clone(), scores);
            normalize_scores(false, &mut a);
            normalize_scores(true, &mut b);
            assert_eq!((a, b), (plain, reversed));
        }
    }
}
