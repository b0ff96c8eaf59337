//! How long a container that keeps ending waits before it runs again.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

/// The first wait.
const FIRST: Duration = Duration::from_secs(10);

/// The back-offs of one pod's containers, by a key that changes with what they are.
///
/// The rule is upstream's: the first end costs nothing; after that the wait, counted from the end of the container, is 10 s and doubles
/// with every restart up to the most; it begins anew for a container that ended later than twice the most after its restart.
#[derive(Debug)]
pub(crate) struct BackOffs {
    most: Duration,
    by_key: BTreeMap<String, BackOff>,
}

#[derive(Debug)]
struct BackOff {
    wait: Duration,
    /// When the container was last restarted.
    restarted: Timestamp,
}

fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

impl BackOffs {
    pub(crate) fn new(most: Duration) -> Self {
        Self {
            most: most.max(Duration::from_secs(1)),
            by_key: BTreeMap::new(),
        }
    }

    /// The whole wait, and when it ends, if a container that ended at `ended` still has to wait.
    pub(crate) fn waits(
        &self,
        key: &str,
        ended: Timestamp,
        now: Timestamp,
    ) -> Option<(Duration, Duration)> {
        let own = self.by_key.get(key)?;
        if self.is_over(own, ended) {
            return None;
        }
        let left = own.wait.checked_sub(between(ended, now))?;
        (!left.is_zero()).then_some((own.wait, left))
    }

    /// Notes that a container is restarted after it ended at `ended`.
    pub(crate) fn restart(&mut self, key: &str, ended: Timestamp, now: Timestamp) {
        let wait = match self.by_key.get(key) {
            Some(own) if !self.is_over(own, ended) => (own.wait * 2).min(self.most),
            _ => FIRST.min(self.most),
        };
        let restarted = now;
        self.by_key
            .insert(key.to_owned(), BackOff { wait, restarted });
    }

    fn is_over(&self, own: &BackOff, ended: Timestamp) -> bool {
        between(own.restarted, ended) > self.most * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_and_begins_anew_after_a_good_run() {
        let at = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).unwrap();
        let seconds = Duration::from_secs;
        let mut all = BackOffs::new(seconds(300));
        assert_eq!(all.waits("web", at(0), at(0)), None, "the first end");
        let mut now = 0;
        for wait in [10, 20, 40, 80, 160, 300, 300] {
            all.restart("web", at(now), at(now));
            let ended = now + 1;
            assert_eq!(
                all.waits("web", at(ended), at(ended)),
                Some((seconds(wait), seconds(wait)))
            );
            assert_eq!(
                all.waits("web", at(ended), at(ended + 4)),
                Some((seconds(wait), seconds(wait - 4)))
            );
            now = ended + wait as i64;
            assert_eq!(all.waits("web", at(ended), at(now)), None, "it is over");
        }
        assert_eq!(all.waits("other", at(now), at(now)), None);
        all.restart("web", at(now), at(now));
        let ended = now + 601;
        assert_eq!(all.waits("web", at(ended), at(ended)), None, "it ran long");
        all.restart("web", at(ended), at(ended));
        assert_eq!(
            all.waits("web", at(ended + 1), at(ended + 1)),
            Some((seconds(10), seconds(10)))
        );
    }
}
