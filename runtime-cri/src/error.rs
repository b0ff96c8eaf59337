//! Why an engine could not be connected to.

use orlop_core::runtime::RuntimeError;

/// Why a [`CriRuntime`](crate::CriRuntime) could not be made. What goes wrong later is a [`RuntimeError`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CriError {
    /// The endpoint is no path of a Unix socket.
    #[error("{0:?} is no endpoint of a container engine: a path, or unix:// and a path, is wanted")]
    Endpoint(String),
    /// Something answered that does not speak CRI v1.
    #[error("{endpoint}: the engine does not speak CRI v1: {why}")]
    NotV1 {
        /// Where.
        endpoint: String,
        /// What it said instead.
        why: String,
    },
    /// Nothing answered, or with an error.
    #[error("{endpoint}: {source}")]
    Engine {
        /// Where.
        endpoint: String,
        /// What went wrong.
        source: RuntimeError,
    },
}
