//! What can go wrong.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Why a service proxy failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What the proxy needs of the machine is not there: no `nft`, or one that is too old.
    #[error("{0}")]
    Unavailable(String),
    /// The configuration makes no sense.
    #[error("invalid configuration: {0}")]
    Config(String),
    /// A program could not be run or spoken with.
    #[error("{program}: {source}")]
    Program {
        /// Which program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program said no.
    #[error("{program} failed ({code}): {message}", code = code.map_or_else(|| "killed".to_owned(), |code| format!("exit code {code}")))]
    Refused {
        /// Which program.
        program: String,
        /// How it ended; `None` if a signal ended it.
        code: Option<i32>,
        /// The beginning of what it wrote to its standard error.
        message: String,
    },
    /// A program took too long and was killed.
    #[error("{program} did not end within {limit:?}")]
    TimedOut {
        /// Which program.
        program: String,
        /// How long it was given.
        limit: Duration,
    },
    /// A program wrote more than is read.
    #[error("{program} wrote more than {limit} bytes")]
    TooMuch {
        /// Which program.
        program: String,
        /// The limit, in bytes.
        limit: usize,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A test, or another backend, failed on purpose or for reasons of its own.
    #[error("{0}")]
    Backend(String),
}
