//! Runs the tasks that hyper has, and ends them with the connection that they belong to.

use orlop_core::env::{CancelToken, Env};

/// The tasks of one connection: an executor for hyper.
#[derive(Clone, Debug)]
pub struct ConnectionTasks {
    env: Env,
    ended: CancelToken,
}

/// Ends the tasks of a connection when it is dropped.
#[derive(Debug)]
pub struct EndTasks(CancelToken);

impl ConnectionTasks {
    /// An executor for a connection, and what ends its tasks.
    #[must_use]
    pub fn new(env: &Env) -> (Self, EndTasks) {
        let ended = CancelToken::new();
        (
            Self {
                env: env.clone(),
                ended: ended.clone(),
            },
            EndTasks(ended),
        )
    }
}

impl<F> hyper::rt::Executor<F> for ConnectionTasks
where
    F: Future + Send + 'static,
{
    fn execute(&self, future: F) {
        let ended = self.ended.clone();
        self.env.spawn("http2", async move {
            ended.run(future).await;
        });
    }
}

impl Drop for EndTasks {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
