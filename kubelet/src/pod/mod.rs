//! One worker a pod: from what the API says is to run, to what the runtime is told and what the API is told back.
//!
//! A pod's worker (`worker`) is woken when something about the pod may have changed. It reads what the runtime has of the pod
//! ([`Observed`]), decides what is to be done (`actions`), does it (`kill`, `start`), and says how the pod is (`status`), which the
//! `writer` tells the API.

mod actions;
mod admission;
mod backoff;
pub(crate) mod context;
pub(crate) mod kill;
pub(crate) mod metrics;
mod observed;
mod remove;
mod report;
pub(crate) mod runtime_view;
pub(crate) mod spec;
mod start;
pub(crate) mod status;
mod waker;
pub(crate) mod worker;
pub(crate) mod writer;

pub use self::admission::{KnownNode, NodeFacts};
pub(crate) use self::admission::{admit, view};
pub use self::observed::Observed;
pub use self::spec::{CONFIG_HASH, CONFIG_MIRROR, CONFIG_SEEN, CONFIG_SOURCE, container_hash};
pub use self::waker::Waker;
