//! How long to wait before something is tried again.

use std::time::Duration;

use crate::env::Moment;

/// How long an item waits after its n-th failure.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// The wait after the first failure. It doubles with every further one.
    pub base: Duration,
    /// The longest wait.
    pub max: Duration,
    /// A common limit for all items together: so many a second, and so many at once. The longer of both waits counts.
    pub bucket: Option<(f64, u32)>,
}

impl Default for RateLimit {
    /// What Kubernetes' controllers use: 5 ms to 1000 s an item, and together ten a second after the first hundred.
    fn default() -> Self {
        Self {
            base: Duration::from_millis(5),
            max: Duration::from_secs(1000),
            bucket: Some((10.0, 100)),
        }
    }
}

impl RateLimit {
    /// A wait that grows from `base` to `max`, without a common limit.
    #[must_use]
    pub const fn exponential(base: Duration, max: Duration) -> Self {
        Self {
            base,
            max,
            bucket: None,
        }
    }

    /// How long to wait after `failures` earlier failures.
    #[must_use]
    pub fn wait_after(&self, failures: u32) -> Duration {
        let factor = 1u32.checked_shl(failures).unwrap_or(u32::MAX).max(1);
        self.base
            .checked_mul(factor)
            .unwrap_or(self.max)
            .min(self.max)
    }
}

/// A bucket of tokens that fills steadily: bursts are free, then the rate counts.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Moment,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(per_second: f64, burst: u32, now: Moment) -> Self {
        Self {
            per_second,
            burst: f64::from(burst),
            tokens: f64::from(burst),
            at: now,
        }
    }

    fn fill(&mut self, now: Moment) {
        self.tokens =
            (self.tokens + now.since(self.at).as_secs_f64() * self.per_second).min(self.burst);
        self.at = now;
    }

    /// Takes a token if there is one.
    pub fn try_take(&mut self, now: Moment) -> bool {
        self.fill(now);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// Takes a token, of the future if need be, and says how long until it is there.
    pub fn reserve(&mut self, now: Moment) -> Duration {
        self.fill(now);
        self.tokens -= 1.0;
        if self.tokens >= 0.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(-self.tokens / self.per_second)
        }
    }
}
