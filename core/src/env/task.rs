//! Tasks with an owner.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::future::{Either, select};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Env, Flag};

/// Tells tasks to stop. Clones share one state; a child is cancelled with its parent, but not the other way round.
#[derive(Clone, Debug)]
pub struct CancelToken {
    inner: Arc<TokenInner>,
}

#[derive(Debug)]
struct TokenInner {
    cancelled: Flag,
    children: Mutex<Vec<std::sync::Weak<TokenInner>>>,
}

impl Default for CancelToken {
    fn default() -> Self {
        Self::new()
    }
}

impl CancelToken {
    /// A token that is not cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self {
            inner: Arc::new(TokenInner {
                cancelled: Flag::new(),
                children: Mutex::new(Vec::new()),
            }),
        }
    }

    /// A token that is cancelled with this one, or alone.
    #[must_use]
    pub fn child(&self) -> Self {
        let child = Self::new();
        {
            let mut children = self.inner.children.lock();
            children.retain(|known| known.strong_count() > 0);
            children.push(Arc::downgrade(&child.inner));
        }
        if self.is_cancelled() {
            child.cancel();
        }
        child
    }

    /// Cancels this token and its children.
    pub fn cancel(&self) {
        self.inner.cancel();
    }

    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancelled.is_set()
    }

    /// Resolves when it is cancelled.
    pub fn cancelled(&self) -> Cancelled {
        let cancelled = self.inner.cancelled.clone();
        Cancelled(Box::pin(async move { cancelled.wait().await }))
    }

    /// Runs a future until it ends or the token is cancelled; `None` for the latter.
    pub async fn run<F: Future>(&self, future: F) -> Option<F::Output> {
        let future = std::pin::pin!(future);
        // The future is polled last, so that a cancelled task does no more work.
        match select(self.cancelled(), future).await {
            Either::Left(((), _)) => None,
            Either::Right((output, _)) => Some(output),
        }
    }
}

impl TokenInner {
    fn cancel(&self) {
        self.cancelled.set();
        let children = std::mem::take(&mut *self.children.lock());
        for child in children.into_iter().filter_map(|child| child.upgrade()) {
            child.cancel();
        }
    }
}

/// The future of [`CancelToken::cancelled`].
pub struct Cancelled(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Future for Cancelled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for Cancelled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cancelled")
    }
}

/// The owner of tasks: they are told to stop when it is dropped, and [`shutdown`](TaskGroup::shutdown) waits for them.
///
/// ```
/// use orlop_core::env::{SimEnv, TaskGroup};
/// let sim = SimEnv::new(7);
/// let env = sim.env();
/// sim.block_on(async move {
///     let group = TaskGroup::new(env.clone());
///     let token = group.token();
///     group.spawn("waiter", async move { token.cancelled().await });
///     group.shutdown().await; // returns when the waiter has ended
/// });
/// ```
#[derive(Debug)]
pub struct TaskGroup {
    env: Env,
    token: CancelToken,
    running: Arc<Count>,
}

impl TaskGroup {
    /// A group without tasks.
    #[must_use]
    pub fn new(env: Env) -> Self {
        Self {
            env,
            token: CancelToken::new(),
            running: Arc::default(),
        }
    }

    /// A group whose tasks are told to stop when `parent` is cancelled, too.
    #[must_use]
    pub fn with_parent(env: Env, parent: &CancelToken) -> Self {
        Self {
            env,
            token: parent.child(),
            running: Arc::default(),
        }
    }

    /// The environment in which the tasks run.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The token that tells the tasks to stop. A task that has something to finish waits for it; one that has nothing is spawned by
    /// [`spawn_until_cancelled`](Self::spawn_until_cancelled).
    #[must_use]
    pub fn token(&self) -> CancelToken {
        self.token.clone()
    }

    /// Runs a task that ends soon after the token is cancelled.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let running = Running::enter(&self.running);
        self.env.spawn(name, async move {
            let _running = running;
            task.await;
        });
    }

    /// Runs a task and drops it where it stands when the token is cancelled.
    pub fn spawn_until_cancelled(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let token = self.token.clone();
        self.spawn(name, async move {
            token.run(task).await;
        });
    }

    /// Tells all tasks to stop and waits until they have.
    pub async fn shutdown(&self) {
        self.token.cancel();
        self.idle().await;
    }

    /// Waits until no task runs.
    pub async fn idle(&self) {
        loop {
            let woken = self.running.idle.notified();
            let mut woken = std::pin::pin!(woken);
            woken.as_mut().enable();
            if self.running() == 0 {
                return;
            }
            woken.await;
        }
    }

    /// How many tasks run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.tasks.load(Ordering::Acquire)
    }
}

impl Drop for TaskGroup {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

/// How many tasks run.
#[derive(Debug, Default)]
struct Count {
    tasks: AtomicUsize,
    idle: Notify,
}

/// Counts a task for as long as it lives, also when it panics or is dropped unfinished.
struct Running(Arc<Count>);

impl Running {
    fn enter(count: &Arc<Count>) -> Self {
        count.tasks.fetch_add(1, Ordering::AcqRel);
        Self(count.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.tasks.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}
