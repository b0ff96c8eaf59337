//! Which events are told, as what.
//!
//! The numbers are client-go's: 10 similar ones in 10 minutes are combined; 25 at once and one in 300 seconds after that for each
//! component and object; 4096 of each are remembered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{EventType, ObjectReference, Told};
use crate::env::Moment;
use crate::queue::TokenBucket;

const SIMILAR: usize = 10;
const WINDOW: Duration = Duration::from_secs(600);
const BURST: u32 = 25;
const PER_SECOND: f64 = 1.0 / 300.0;
const REMEMBERED: usize = 4096;

pub(super) enum Verdict {
    Write(Entry),
    Drop,
}

/// The event as it is to stand in the API.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) message: String,
    pub(super) count: u64,
    pub(super) first: String,
}

/// A component and what it tells of.
type Source = (Arc<str>, Arc<str>, ObjectReference);
/// That, with what makes events similar.
type Similar = (Source, EventType, String);

pub(super) struct Correlator {
    start: Moment,
    similar: Recent<Similar, Messages>,
    known: Recent<(Similar, String), Entry>,
    buckets: Recent<Source, TokenBucket>,
}

struct Messages {
    seen: BTreeSet<String>,
    last: Moment,
}

impl Correlator {
    pub(super) fn new(start: Moment) -> Self {
        Self {
            start,
            similar: Recent::default(),
            known: Recent::default(),
            buckets: Recent::default(),
        }
    }

    /// Judges an event; `name` and `stamp` are what it will have if it is a new one.
    pub(super) fn judge(&mut self, told: &Told, now: Moment, name: &str, stamp: &str) -> Verdict {
        let mut about = told.about.clone();
        // Another version of the object is the same object.
        about.resource_version.clear();
        let source: Source = (told.component.clone(), told.host.clone(), about);
        let similar: Similar = (source.clone(), told.kind, told.reason.clone());

        let messages = self.similar.get_or(similar.clone(), || Messages {
            seen: BTreeSet::new(),
            last: now,
        });
        if now.since(messages.last) > WINDOW {
            messages.seen.clear();
        }
        messages.last = now;
        messages.seen.insert(told.message.clone());
        let combined = messages.seen.len() >= SIMILAR;
        if combined && let Some(oldest) = messages.seen.first().cloned() {
            messages.seen.remove(&oldest);
        }

        let message = if combined {
            format!("(combined from similar events): {}", told.message)
        } else {
            told.message.clone()
        };
        let which = if combined {
            String::new()
        } else {
            told.message.clone()
        };
        let entry = self.known.get_or((similar, which), || Entry {
            name: name.to_owned(),
            message: message.clone(),
            count: 0,
            first: stamp.to_owned(),
        });
        entry.message = message;
        let mut entry_now = entry.clone();
        entry_now.count += 1;

        let start = self.start.max(now);
        let bucket = self
            .buckets
            .get_or(source, || TokenBucket::new(PER_SECOND, BURST, start));
        if !bucket.try_take(now) {
            return Verdict::Drop;
        }
        entry.count = entry_now.count;
        Verdict::Write(entry_now)
    }
}

/// A map that forgets what was used longest ago.
struct Recent<K, V> {
    entries: BTreeMap<K, (V, u64)>,
    uses: VecDeque<(K, u64)>,
    clock: u64,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            uses: VecDeque::new(),
            clock: 0,
        }
    }
}

impl<K: Ord + Clone, V> Recent<K, V> {
    fn get_or(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        self.clock += 1;
        let clock = self.clock;
        self.uses.push_back((key.clone(), clock));
        // A use counts only if it was the last one of its key.
        while self.entries.len() >= REMEMBERED || self.uses.len() > 2 * REMEMBERED {
            let Some((old, at)) = self.uses.pop_front() else {
                break;
            };
            if self.entries.get(&old).is_some_and(|(_, used)| *used == at) && old != key {
                self.entries.remove(&old);
            }
        }
        let entry = self.entries.entry(key).or_insert_with(|| (make(), clock));
        entry.1 = clock;
        &mut entry.0
    }
}
