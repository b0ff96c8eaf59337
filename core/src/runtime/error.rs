//! Why a runtime refuses.

use std::fmt;

/// Why a [`Runtime`](super::Runtime) refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// What the call names is not there.
    #[error("{what} {id:?} not found")]
    NotFound {
        /// What kind of thing: `sandbox`, `container` or `image`.
        what: &'static str,
        /// Its id or name.
        id: String,
    },
    /// The name is taken.
    #[error("already exists: {0}")]
    AlreadyExists(String),
    /// What was asked for makes no sense, now or later.
    #[error("invalid request: {0}")]
    InvalidRequest(String),
    /// What was asked for makes no sense for a thing in its present state.
    #[error("wrong state: {0}")]
    WrongState(String),
    /// No registry has the image.
    #[error("image {0:?} not found in its registry")]
    ImageNotFound(String),
    /// The registry wants other credentials.
    #[error("the registry denied image {image:?}: {reason}")]
    Denied {
        /// The image.
        image: String,
        /// What the registry said.
        reason: String,
    },
    /// Nothing listens at a port.
    #[error("connection to port {0} refused")]
    Refused(u16),
    /// The reader of a stream of events was too slow and lost some: list, and follow anew.
    #[error("fell behind and lost events")]
    Lagged,
    /// This runtime does not offer it.
    #[error("this runtime does not support {0}")]
    Unsupported(&'static str),
    /// The disk is full.
    #[error("no space left: {0}")]
    NoSpace(String),
    /// The runtime, or a registry, cannot be reached. It may be later.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// It was tried and went wrong.
    #[error("{0}")]
    Failed(String),
}

impl RuntimeError {
    /// A [`NotFound`](Self::NotFound).
    pub fn not_found(what: &'static str, id: impl fmt::Display) -> Self {
        Self::NotFound {
            what,
            id: id.to_string(),
        }
    }

    /// Whether the thing that was named is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the runtime does not offer what was asked for.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported(_))
    }
}
