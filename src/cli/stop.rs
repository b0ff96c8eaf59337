//! When a command is to stop.

use futures::future::{BoxFuture, Either, FutureExt, select, select_all};
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
        self.told().await;
    }

    /// Does something that may take long, unless one of them comes first: then nothing, and it is left undone.
    pub(super) async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        match select(std::pin::pin!(work), std::pin::pin!(self.told())).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(((), _)) => None,
        }
    }

    async fn told(&mut self) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_takes_long_is_left_undone_when_a_signal_comes() {
        let mut stop = Stop::on_signals().expect("signals");
        assert_eq!(stop.unless(async { 1 }).await, Some(1));
        let mut kill = std::process::Command::new("kill");
        let sent = kill
            .args(["-TERM", &std::process::id().to_string()])
            .status();
        assert!(sent.expect("kill").success());
        assert_eq!(stop.unless(std::future::pending::<()>()).await, None);
    }
}
