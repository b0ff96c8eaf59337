//! Streams into and out of containers.

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{Sink, Stream};

use super::RuntimeError;

/// How much of each stream [`exec_sync`](super::Runtime::exec_sync) keeps, in bytes: 16 MiB.
pub const OUTPUT_LIMIT: usize = 16 << 20;

/// What comes out. It ends when the other side has closed its end.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, RuntimeError>> + Send>>;

/// What goes in. It takes no more than a bounded amount that was not read yet; closing or dropping it closes the other side's end.
pub type ByteSink = Pin<Box<dyn Sink<Bytes, Error = RuntimeError> + Send>>;

/// Takes the sizes of the terminal window.
pub type ResizeSink = Pin<Box<dyn Sink<TerminalSize, Error = RuntimeError> + Send>>;

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A command to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// The program and its arguments. No shell is between.
    pub command: Vec<String>,
    /// Whether it has a terminal. Then there is one output, and no separate standard error.
    pub tty: bool,
    /// Whether its standard input is wanted.
    pub stdin: bool,
    /// Whether its standard output is wanted.
    pub stdout: bool,
    /// Whether its standard error is wanted.
    pub stderr: bool,
}

impl ExecRequest {
    /// A command whose outputs are wanted.
    pub fn new<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            stdout: true,
            stderr: true,
            ..Self::default()
        }
    }

    /// The same, with its standard input.
    #[must_use]
    pub fn with_stdin(mut self) -> Self {
        self.stdin = true;
        self
    }
}

/// What is wanted of a container's own program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachRequest {
    /// Its standard input, where the container [keeps it open](super::ContainerConfig::stdin).
    pub stdin: bool,
    /// Its standard output, from now on.
    pub stdout: bool,
    /// Its standard error, from now on.
    pub stderr: bool,
    /// Whether it has a terminal; as in the container's configuration.
    pub tty: bool,
}

/// A program that runs. Streams that were not asked for are `None`.
pub struct Process {
    /// Its standard input.
    pub stdin: Option<ByteSink>,
    /// Its standard output; with a terminal, all its output.
    pub stdout: Option<ByteStream>,
    /// Its standard error.
    pub stderr: Option<ByteStream>,
    /// The size of its terminal, if it has one.
    pub resize: Option<ResizeSink>,
    /// Its exit code, when it has ended. Its outputs must be read meanwhile: a program that cannot write waits.
    pub exit: BoxFuture<'static, Result<i32, RuntimeError>>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .field("resize", &self.resize.is_some())
            .finish_non_exhaustive()
    }
}

/// What a command left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// What it wrote.
    pub stdout: Vec<u8>,
    /// What it wrote as errors.
    pub stderr: Vec<u8>,
    /// Its exit code.
    pub code: i32,
}

/// A connection to a port in a sandbox.
pub struct Connection {
    /// What is sent.
    pub send: ByteSink,
    /// What comes back.
    pub receive: ByteStream,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}
