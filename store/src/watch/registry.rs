//! Which watchers a key concerns, found without asking every one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use orlop_core::store::KeyRange;

use super::Slot;
use super::spans::Spans;

type Group = BTreeMap<u64, Arc<Slot>>;

/// The watchers by what they watch. A key is looked up once among the single keys and once for every length that a watched prefix
/// has, of which there are few however many watchers there are; spans are kept in a tree.
#[derive(Debug, Default)]
pub(super) struct Registry {
    next: u64,
    all: Group,
    progress: Group,
    keys: HashMap<Bytes, Group>,
    prefixes: BTreeMap<usize, HashMap<Bytes, Group>>,
    spans: Spans,
}

impl Registry {
    pub(super) fn insert(&mut self, keys: &KeyRange, progress: bool, slot: Arc<Slot>) -> u64 {
        let id = self.next;
        self.next += 1;
        self.all.insert(id, slot.clone());
        if progress {
            self.progress.insert(id, slot.clone());
        }
        match keys {
            KeyRange::Key(key) => {
                self.keys.entry(key.clone()).or_default().insert(id, slot);
            }
            KeyRange::Prefix(prefix) => {
                let same_length = self.prefixes.entry(prefix.len()).or_default();
                same_length
                    .entry(prefix.clone())
                    .or_default()
                    .insert(id, slot);
            }
            KeyRange::Span(from, to) => self.spans.insert(from, Some(to), id, slot),
            KeyRange::From(from) => self.spans.insert(from, None, id, slot),
        }
        id
    }

    pub(super) fn remove(&mut self, keys: &KeyRange, id: u64) {
        self.all.remove(&id);
        self.progress.remove(&id);
        match keys {
            KeyRange::Key(key) => leave(&mut self.keys, key, id),
            KeyRange::Prefix(prefix) => {
                if let Some(same_length) = self.prefixes.get_mut(&prefix.len()) {
                    leave(same_length, prefix, id);
                    if same_length.is_empty() {
                        self.prefixes.remove(&prefix.len());
                    }
                }
            }
            KeyRange::Span(from, to) => self.spans.remove(from, Some(to), id),
            KeyRange::From(from) => self.spans.remove(from, None, id),
        }
    }

    /// Calls a function with every watcher that a key concerns.
    pub(super) fn interested(&self, key: &[u8], mut found: impl FnMut(&Arc<Slot>)) {
        let by_key = self.keys.get(key);
        let by_prefix = self
            .prefixes
            .range(..=key.len())
            .filter_map(|(&length, same_length)| same_length.get(&key[..length]));
        for slot in by_key
            .into_iter()
            .chain(by_prefix)
            .flat_map(BTreeMap::values)
        {
            found(slot);
        }
        self.spans.containing(key, &mut found);
    }

    /// The watchers that want to know of every commit.
    pub(super) fn progress(&self) -> impl Iterator<Item = Arc<Slot>> {
        self.progress.values().cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Slot>> {
        self.all.values().cloned().collect()
    }
}

fn leave(groups: &mut HashMap<Bytes, Group>, key: &Bytes, id: u64) {
    if let Some(group) = groups.get_mut(key) {
        group.remove(&id);
        if group.is_empty() {
            groups.remove(key);
        }
    }
}
