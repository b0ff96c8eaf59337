//! The contracts of scheduling: plug-ins, and what they look at.
//!
//! A scheduler plug-in is one object that implements [`SchedulerPlugin`] and any of the extension points below. It is synchronous (but
//! for binding), it borrows what it looks at, and it depends on this crate alone.
//!
//! ```text
//!  queue     PreEnqueue → (QueueSort) → …                            EnqueueExtensions: what brings a pod back
//!  cycle     PreFilter → Filter ─┬─ some fit → PreScore → Score → Reserve → Permit
//!                                └─ none fits → PostFilter
//!  binding   (Permit's wait) → PreBind → Bind → PostBind             on failure: Reserve::unreserve
//! ```
//!
//! A plug-in that scores one node takes ten lines:
//!
//! ```
//! use orlop_core::scheduling::{CycleState, NodeView, PodInfo, SchedulerPlugin, Score};
//!
//! struct PackTightly;
//! impl SchedulerPlugin for PackTightly {
//!     fn name(&self) -> &str { "PackTightly" }
//!     fn as_score(&self) -> Option<&dyn Score> { Some(self) }
//! }
//! impl Score for PackTightly {
//!     fn score(&self, _: &CycleState, pod: &PodInfo, node: NodeView<'_>) -> i64 {
//!         100 * (node.requested().milli_cpu + pod.requests().milli_cpu) / node.allocatable().milli_cpu.max(1)
//!     }
//! }
//! ```
//!
//! One that wants speed overrides the batch form ([`Filter::filter_batch`], [`Score::score_batch`]) and reads the columns of the
//! [`Snapshot`], where every quantity of all nodes lies side by side.
//!
//! Pods and nodes come from objects ([`PodInfo::from_object`], [`NodeInfo::from_object`]) or, in tests, from JSON
//! ([`PodInfo::from_value`], [`NodeInfo::from_value`]).

mod cycle;
mod event;
mod node;
mod plugin;
mod pod;
mod requests;
mod resources;
mod snapshot;
mod taint;
mod verdict;

pub use self::cycle::CycleState;
pub use self::event::{Actions, ClusterEvent, EventResource, Hint, Registration, Subject};
pub use self::node::{HostPort, HostPorts, NodeInfo, NodeState};
pub use self::plugin::{
    Bind, BindContext, EnqueueExtensions, Filter, Handle, MAX_NODE_SCORE, MIN_NODE_SCORE, Permit,
    PostBind, PostFilter, PostFilterResult, PreBind, PreEnqueue, PreFilter, PreFilterResult,
    PreScore, QueueSort, QueuedPod, Reserve, SchedulerPlugin, Score, WaitingPod, normalize_scores,
};
pub use self::pod::{Needs, PodConstraints, PodInfo, PreferredTerm};
pub use self::resources::{ResourceColumns, Resources};
pub use self::snapshot::{NodeIndex, NodeView, Snapshot};
pub use self::taint::{Effect, Taint, Toleration, TolerationOperator};
pub use self::verdict::{
    Candidates, PluginError, Reasons, Rejection, RejectionId, Rejections, Verdict,
};
