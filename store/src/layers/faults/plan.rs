//! What goes wrong, and how often.

use std::time::Duration;

use crate::layers::Operation;

/// How likely a call fails, and how: each from `0.0`, never, to `1.0`, always. At most one happens to a call; when they add up to more than
/// one, those that stand first come first.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CallFaults {
    /// The call does not reach the store: [`StoreError::Unavailable`](orlop_core::store::StoreError::Unavailable), and nothing happened.
    pub unavailable: f64,
    /// A write does not reach the store, and nobody knows that: [`StoreError::OutcomeUnknown`](orlop_core::store::StoreError::OutcomeUnknown), and nothing happened. Reads are
    /// [`StoreError::Unavailable`](orlop_core::store::StoreError::Unavailable).
    pub lost_request: f64,
    /// The store does what it was asked to do, and its answer gets lost: [`StoreError::OutcomeUnknown`](orlop_core::store::StoreError::OutcomeUnknown), and it did happen, unless the store
    /// itself refused. Reads are [`StoreError::Unavailable`](orlop_core::store::StoreError::Unavailable).
    pub lost_answer: f64,
}

/// How likely something happens to a watch with each of its items.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WatchFaults {
    /// It ends with [`StoreError::Unavailable`](orlop_core::store::StoreError::Unavailable) instead of the item.
    pub broken: f64,
    /// It ends with [`StoreError::Lagged`](orlop_core::store::StoreError::Lagged) instead of the item.
    pub lagged: f64,
    /// It ends without a word.
    pub ended: f64,
    /// The item comes late, and all that follow it with it …
    pub delayed: f64,
    /// … by up to so much.
    pub delay: Duration,
}

/// What goes wrong, and how often.
///
/// ```
/// use orlop_store::layers::{CallFaults, FaultPlan, Operation};
/// let plan = FaultPlan::none()
///     .on(Operation::Commit, CallFaults { lost_answer: 0.1, ..CallFaults::default() });
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultPlan {
    pub(super) calls: [CallFaults; Operation::COUNT],
    pub(super) watches: WatchFaults,
    pub(super) no_space: bool,
}

impl FaultPlan {
    /// Nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Everything may go wrong: each call with a likelihood of `rate`, in all its ways, and each item of a watch.
    #[must_use]
    pub fn everything(rate: f64) -> Self {
        let third = rate / 3.0;
        let mut plan = Self::none();
        for operation in Operation::ALL {
            let faults = if operation.is_write() {
                CallFaults {
                    unavailable: third,
                    lost_request: third,
                    lost_answer: third,
                }
            } else {
                CallFaults {
                    unavailable: rate,
                    ..CallFaults::default()
                }
            };
            plan = plan.on(operation, faults);
        }
        plan.watches(WatchFaults {
            broken: third,
            lagged: third,
            ended: third,
            ..WatchFaults::default()
        })
    }

    /// What happens to the calls of one operation.
    #[must_use]
    pub fn on(mut self, operation: Operation, faults: CallFaults) -> Self {
        self.calls[operation.index()] = faults;
        self
    }

    /// What happens to open watches.
    #[must_use]
    pub fn watches(mut self, faults: WatchFaults) -> Self {
        self.watches = faults;
        self
    }

    /// The disk is full: what would take room, which is puts and new leases, is [`StoreError::NoSpace`](orlop_core::store::StoreError::NoSpace); reads and deletes go on.
    #[must_use]
    pub fn no_space(mut self) -> Self {
        self.no_space = true;
        self
    }
}
