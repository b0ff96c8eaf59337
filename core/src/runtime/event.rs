//! Events.

use std::pin::Pin;

use futures::Stream;
use jiff::Timestamp;

use super::{ContainerId, RuntimeError, SandboxId};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// It was made.
    Created,
    /// It began to run.
    Started,
    /// It no longer runs.
    Stopped,
    /// It was removed.
    Deleted,
}

/// What it happened to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventSubject {
    /// A sandbox.
    Sandbox(SandboxId),
    /// A container.
    Container {
        /// The sandbox that it is in.
        sandbox: SandboxId,
        /// The container.
        container: ContainerId,
    },
}

impl EventSubject {
    /// The sandbox, or the one that the container is in.
    #[must_use]
    pub fn sandbox(&self) -> &SandboxId {
        match self {
            Self::Sandbox(id) => id,
            Self::Container { sandbox, .. } => sandbox,
        }
    }
}

/// A change of a sandbox or a container. It says that something happened, not how things stand: who wants to know reads it from the
/// runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeEvent {
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
    /// To what.
    pub subject: EventSubject,
}

/// A stream of events. For one subject they come in the order in which they happened. A reader that is too slow gets
/// [`RuntimeError::Lagged`] and the stream ends.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<RuntimeEvent, RuntimeError>> + Send>>;
