//! Layers: stores over a store.
//!
//! A layer takes any [`Store`](orlop_core::store::Store) and is one itself, so layers can be put on top of each other, and on stores of
//! others. All pass on every method of the trait.
//!
//! * [`Metered`] counts what is asked of a store, and how long it takes.
//! * [`Faulty`] lets calls fail, answers get lost and watches break, as often as it is told to.
//! * [`Delayed`] makes a store as slow as one behind a network.
//!
//! Encryption at rest is a layer, too: [`EncryptedStore`](crate::encryption::EncryptedStore).

mod faults;
mod late;
mod latency;
mod metrics;
mod operation;
pub(crate) mod resource;
#[cfg(test)]
mod tests;

pub use self::faults::{
    CallFaults, Cut, FaultControl, FaultCounts, FaultPlan, Faulty, WatchFaults,
};
pub use self::latency::{Delayed, Latency};
pub use self::metrics::{Metered, StoreMetrics};
pub use self::operation::Operation;
