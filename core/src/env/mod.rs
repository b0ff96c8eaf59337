//! The environment seam: clocks, randomness and spawning.
//!
//! Nothing in Orlop asks the operating system for the time, a random number or a new task; it asks its [`Env`]. So a whole
//! control plane runs on real time ([`TokioEnv`]) or, many times faster and the same to the byte for the same seed, on virtual time
//! ([`SimEnv`]).
//!
//! Keys and tokens do not come from here: what must not be guessed comes from the operating system.

mod flag;
mod sim;
mod task;
mod tokio;

use std::fmt;
use std::future::Future;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;

pub use self::flag::Flag;
pub use self::sim::{SimEnv, SimOptions};
pub use self::task::{CancelToken, Cancelled, TaskGroup};
pub use self::tokio::TokioEnv;

/// A moment on the monotonic clock of an [`Env`]: the time since that environment began. Moments of different environments cannot
/// be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// The moment when the environment began.
    pub const START: Self = Self(Duration::ZERO);

    /// A moment at a distance from the start.
    #[must_use]
    pub const fn from_start(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// The time since the environment began.
    #[must_use]
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// The time since an earlier moment; zero if that lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(rhs))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(rhs))
    }
}

/// What an environment must offer. Components use it through [`Env`].
pub trait Environment: Send + Sync + 'static {
    /// The monotonic clock.
    fn now(&self) -> Moment;

    /// The wall clock.
    fn wall(&self) -> Timestamp;

    /// Resolves at a moment, or at once if it has passed.
    fn sleep_until(&self, at: Moment) -> BoxFuture<'static, ()>;

    /// Runs a task. It runs until it ends by itself; who spawns sees to it that it does (see [`TaskGroup`]).
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>);

    /// The next number of the environment's random sequence. Not for secrets.
    fn random_u64(&self) -> u64;
}

/// A shared handle to an environment.
#[derive(Clone)]
pub struct Env(Arc<dyn Environment>);

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env")
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}

impl Env {
    /// A handle to an environment.
    pub fn new(environment: impl Environment) -> Self {
        Self(Arc::new(environment))
    }

    /// Real time on the tokio runtime that the caller is in.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn tokio() -> Self {
        Self::new(TokioEnv::current())
    }

    /// The monotonic clock.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.0.now()
    }

    /// The wall clock.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.0.wall()
    }

    /// Waits for a while.
    pub fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep_until(self.0.now() + duration)
    }

    /// Waits for a moment.
    pub fn sleep_until(&self, at: Moment) -> BoxFuture<'static, ()> {
        self.0.sleep_until(at)
    }

    /// Waits for a future, but no longer than `limit`.
    ///
    /// # Errors
    /// [`TimedOut`] when the limit passed first.
    pub async fn timeout<F: Future>(
        &self,
        limit: Duration,
        future: F,
    ) -> Result<F::Output, TimedOut> {
        let future = std::pin::pin!(future);
        match futures::future::select(future, self.sleep(limit)).await {
            futures::future::Either::Left((output, _)) => Ok(output),
            futures::future::Either::Right(((), _)) => Err(TimedOut),
        }
    }

    /// Runs a task that ends by itself. Prefer [`TaskGroup::spawn`], which gives it an owner.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(name, Box::pin(task));
    }

    /// The next number of the environment's random sequence. Not for secrets.
    #[must_use]
    pub fn random_u64(&self) -> u64 {
        self.0.random_u64()
    }

    /// A number below `bound`, every one as likely. Zero for a bound of zero.
    #[must_use]
    pub fn random_below(&self, bound: u64) -> u64 {
        // The high half of a 64 × 64 bit product: the bias is below 2⁻³² for every bound that occurs here.
        ((u128::from(self.random_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `0.0..1.0`.
    #[must_use]
    pub fn random_unit(&self) -> f64 {
        (self.random_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A duration lengthened by a random part of itself, up to `factor` times.
    #[must_use]
    pub fn jitter(&self, duration: Duration, factor: f64) -> Duration {
        duration.mul_f64(1.0 + self.random_unit() * factor.max(0.0))
    }

    /// A random uid (a version 4 UUID), for `metadata.uid`.
    #[must_use]
    pub fn uuid(&self) -> String {
        let high = (self.random_u64() & !0xf000) | 0x4000;
        let low = (self.random_u64() & !(0b11 << 62)) | (0b10 << 62);
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }

    /// Random letters and digits for names, from the alphabet of Kubernetes' `generateName` (no vowels, nothing that looks like
    /// another).
    #[must_use]
    pub fn name_suffix(&self, length: usize) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..length)
            .map(|_| char::from(ALPHABET[self.random_below(ALPHABET.len() as u64) as usize]))
            .collect()
    }
}

/// The time allowed for something has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct TimedOut;

/// SplitMix64: small, fast, and good enough for everything that is not a secret.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
