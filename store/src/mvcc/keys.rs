//! Where a key is.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::entry::Entry;
use super::slab::Slab;

/// The slots of the keys, by hash. It holds no key: each is looked at in its entry, and that only when the hash fits. So it takes ten
/// bytes or so a key, and growing it looks at no key.
#[derive(Debug, Default)]
pub(super) struct Keys {
    table: HashTable<Place>,
    /// Seeded for each store. Nobody sees the order of the table.
    hasher: DefaultHashBuilder,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    hash: u32,
    slot: u32,
}

impl Place {
    /// The table wants hashes whose high and low bits both count.
    fn spread(self) -> u64 {
        u64::from(self.hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Keys {
    fn place(&self, key: &[u8], slot: u32) -> Place {
        let hash = self.hasher.hash_one(key) as u32;
        Place { hash, slot }
    }

    /// The slot of a key.
    pub(super) fn get(&self, entries: &Slab<Entry>, key: &[u8]) -> Option<u32> {
        let wanted = self.place(key, 0);
        let fits = |place: &Place| place.hash == wanted.hash && entries.get(place.slot).key == key;
        self.table
            .find(wanted.spread(), fits)
            .map(|place| place.slot)
    }

    /// Takes in a key that is not there.
    pub(super) fn insert(&mut self, key: &[u8], slot: u32) {
        let place = self.place(key, slot);
        self.table
            .insert_unique(place.spread(), place, |&place| place.spread());
    }

    /// Forgets a key.
    pub(super) fn remove(&mut self, key: &[u8], slot: u32) {
        let place = self.place(key, slot);
        if let Ok(found) = self
            .table
            .find_entry(place.spread(), |found| found.slot == slot)
        {
            found.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::super::entry::Version;
    use super::*;

    #[test]
    fn keys_are_found_until_they_are_removed() {
        let mut entries = Slab::default();
        let mut keys = Keys::default();
        let name = |number: u32| format!("/registry/{number}");
        for number in 0..10_000 {
            let slot = entries.insert(Entry {
                key: name(number).into(),
                latest: Version {
                    modified: 1,
                    live: None,
                },
                older: VecDeque::new(),
            });
            keys.insert(name(number).as_bytes(), slot);
        }
        for number in (0..10_000).step_by(2) {
            let slot = keys
                .get(&entries, name(number).as_bytes())
                .expect("it is there");
            keys.remove(name(number).as_bytes(), slot);
            entries.remove(slot);
        }
        for number in 0..10_001 {
            let found = keys.get(&entries, name(number).as_bytes());
            assert_eq!(found.is_some(), number % 2 == 1 && number < 10_000);
            if let Some(slot) = found {
                assert_eq!(entries.get(slot).key, name(number));
            }
        }
    }
}
