//! When a command is to stop.

use futures::future::{BoxFuture, FutureExt, select_all};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;

/// What tells a command to stop. Made before anything is there that a signal could leave half done.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
    /// Whether the end of standard input means that the program's parent has ended.
    with_parent: bool,
}

impl Stop {
    /// SIGTERM and SIGINT.
    pub(super) fn on_signals() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            with_parent: false,
        })
    }

    /// These, and, if it is asked for, the end of standard input: a pipe from the parent, which closes however the parent ends.
    pub(super) fn on_signals_or_parent(with_parent: bool) -> Result<Self, Failure> {
        Ok(Self {
            with_parent,
            ..Self::on_signals()?
        })
    }

    /// Waits until one of them comes.
    pub(super) async fn wait(mut self) {
        let mut reasons: Vec<BoxFuture<'_, ()>> = vec![
            self.terminate.recv().map(drop).boxed(),
            self.interrupt.recv().map(drop).boxed(),
        ];
        if self.with_parent {
            reasons.push(
                async {
                    let mut sink = [0; 64];
                    let mut stdin = tokio::io::stdin();
                    while matches!(stdin.read(&mut sink).await, Ok(read) if read > 0) {}
                }
                .boxed(),
            );
        }
        select_all(reasons).await;
    }
}
