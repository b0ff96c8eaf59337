//! The logs of containers, as the runtime writes them into files.
//!
//! [`read`] gives what `kubectl logs` shows: the last lines, what came since a moment, what comes from now on. It finds the last lines
//! from the end of the file, and follows a file over its rotation until its container has ended. [`LogRotator`] puts those aside that
//! have grown too large, and [`LogLinks`] keeps links to all of them in one directory.

mod filter;
mod line;
mod links;
mod reader;
mod rotation;
#[cfg(test)]
mod rotation_tests;
mod tail;
#[cfg(test)]
mod tests;
mod watch;

use std::path::PathBuf;

use jiff::Timestamp;

pub use self::line::Output;
pub use self::links::LogLinks;
pub use self::reader::{LogStream, read};
pub use self::rotation::{LogRotator, RotationError};

/// What of a log is wanted, as `PodLogOptions` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Whether to go on with what is written from now on, until the container ends.
    pub follow: bool,
    /// Only what was written at this moment or later.
    pub since: Option<Timestamp>,
    /// Whether lines begin with the time when they were written.
    pub timestamps: bool,
    /// How many of the last lines, as the file has them.
    pub tail: Option<u64>,
    /// How many bytes at the most.
    pub limit_bytes: Option<u64>,
    /// Only one of the outputs.
    pub output: Option<Output>,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} log file {path:?}: {source}")]
pub struct LogError {
    action: &'static str,
    path: PathBuf,
    source: std::io::Error,
}
