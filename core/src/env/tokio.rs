//! Real time, on tokio.

use std::hash::{BuildHasher, RandomState};
use std::time::{Instant, SystemTime};

use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::{Environment, Moment, split_mix};

/// The operating system's clocks, tokio's timers and tasks.
#[derive(Debug)]
pub struct TokioEnv {
    handle: Handle,
    start: Instant,
    random: Mutex<u64>,
}

impl TokioEnv {
    /// The environment of a runtime.
    // The one place where real time and randomness come in.
    #[allow(clippy::disallowed_methods)]
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        // The standard library seeds its hashers from the operating system.
        let seed = RandomState::new().hash_one(SystemTime::now());
        Self {
            handle,
            start: Instant::now(),
            random: Mutex::new(seed),
        }
    }

    /// The environment of the runtime that the caller is in.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn current() -> Self {
        Self::new(Handle::current())
    }
}

#[allow(clippy::disallowed_methods)] // this is the seam itself
impl Environment for TokioEnv {
    fn now(&self) -> Moment {
        Moment::from_start(self.start.elapsed())
    }

    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep_until(&self, at: Moment) -> BoxFuture<'static, ()> {
        let _guard = self.handle.enter();
        let deadline = self.start + at.since_start();
        Box::pin(tokio::time::sleep_until(deadline.into()))
    }

    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        self.handle.spawn(task);
    }

    fn random_u64(&self) -> u64 {
        split_mix(&mut self.random.lock())
    }
}
