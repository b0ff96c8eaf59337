//! The Kubernetes scheduler: the scheduling framework with all its extension points, the queue, the cache and its columnar snapshot,
//! and the first in-tree plug-ins.
//!
//! | to … | take |
//! |---|---|
//! | schedule the pods of a control plane | [`Scheduler::builder`] |
//! | choose plug-ins, their order and weights | [`Profile`] |
//! | write a plug-in | [`orlop_core::scheduling`] alone |
//! | place pods without any API, as fast as it goes, or ask "why not there?" | [`DecisionLoop`] |
//!
//! ```
//! use orlop_sched::{DecisionLoop, Profile};
//! use orlop_core::scheduling::{NodeInfo, NodeState, PodInfo, Snapshot};
//! use serde_json::json;
//! use std::sync::Arc;
//!
//! let node = NodeInfo::from_value(json!({
//!     "metadata": {"name": "n1"},
//!     "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "110"}},
//! }))?;
//! let pod = |cpu: &str| Arc::new(PodInfo::from_value(json!({
//!     "metadata": {"name": "p", "namespace": "default", "uid": cpu},
//!     "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
//! })).unwrap());
//!
//! let snapshot = Snapshot::new(&[NodeState::new(Arc::new(node))]);
//! let mut decisions = DecisionLoop::new(Profile::default_scheduler(), snapshot, 42).unwrap();
//! assert!(decisions.place(pod("600m")).is_ok());
//! let refused = decisions.place(pod("500m")).unwrap_err();
//! assert_eq!(refused.to_string(), "0/1 nodes are available: 1 Insufficient cpu.");
//! # Ok::<(), orlop_core::object::ObjectError>(())
//! ```

// A refusal of the API is a `Status` by value, as everywhere on the client side.
#![allow(clippy::result_large_err)]

mod cache;
mod decision;
mod error;
mod framework;
mod metrics;
pub mod plugins;
mod profile;
mod queue;
mod scheduler;

pub use self::cache::{Cache, CacheError};
pub use self::decision::{DecisionLoop, Explanation, NodeExplanation, PluginScore};
pub use self::error::Error;
pub use self::framework::{Cursor, Failure, FitError, Framework, Placement, Scratch};
pub use self::metrics::SchedulerMetrics;
pub use self::profile::Profile;
pub use self::queue::{Attempt, Depths, QueueOptions, SchedulingQueue};
pub use self::scheduler::{Scheduler, SchedulerBuilder};
