//! How long an image that could not be pulled is left alone.

use std::collections::BTreeMap;
use std::time::Duration;

use orlop_core::env::Moment;

/// The first pause, and the longest.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);

/// Pauses by what failed. A pause doubles with every failure, and all is forgotten that had twice the longest pause to itself.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    pause: Duration,
    since: Moment,
    /// Why the last try failed.
    why: String,
}

impl BackOff {
    /// Why the last try failed, if it is too early for the next one.
    pub(super) fn too_early(&self, key: &str, now: Moment) -> Option<&str> {
        let entry = self.entries.get(key)?;
        (now.since(entry.since) < entry.pause).then_some(entry.why.as_str())
    }

    /// A try failed: the next one is put off.
    pub(super) fn failed(&mut self, key: &str, now: Moment, why: String) {
        self.forget_old(now);
        let before = self.entries.get(key).map(|entry| entry.pause);
        let pause = before.map_or(FIRST, |pause| (pause * 2).min(LONGEST));
        let entry = Entry {
            pause,
            since: now,
            why,
        };
        self.entries.insert(key.to_owned(), entry);
    }

    /// Forgets what failed long ago.
    pub(super) fn forget_old(&mut self, now: Moment) {
        self.entries
            .retain(|_, entry| now.since(entry.since) <= LONGEST * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn pauses_double_up_to_five_minutes_and_are_forgotten_in_ten() {
        let mut back_off = BackOff::default();
        assert_eq!(back_off.too_early("a", at(0)), None);
        let mut now = 0;
        for pause in [10, 20, 40, 80, 160, 300, 300] {
            back_off.failed("a", at(now), "why".to_owned());
            assert_eq!(back_off.too_early("a", at(now + pause - 1)), Some("why"));
            assert_eq!(back_off.too_early("a", at(now + pause)), None);
            assert_eq!(back_off.too_early("b", at(now)), None);
            now += pause;
        }
        back_off.failed("a", at(now + 301), "again".to_owned());
        assert_eq!(
            back_off.too_early("a", at(now + 301 + 11)),
            None,
            "it began anew"
        );
    }
}
