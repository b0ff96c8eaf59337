//! A heap with an order that is given from outside, and from which anything can be removed.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::Hash;

/// A heap: the first entry is the least one. Entries that compare equal come out in the order in which they went in.
#[derive(Debug)]
pub(super) struct Heap<K, V> {
    entries: Vec<Entry<K, V>>,
    places: HashMap<K, usize>,
    next: u64,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    number: u64,
}

impl<K: Clone + Eq + Hash, V> Heap<K, V> {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            places: HashMap::new(),
            next: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn push(&mut self, key: K, value: V, compare: impl Fn(&V, &V) -> Ordering) {
        self.remove(&key, &compare);
        let place = self.entries.len();
        self.places.insert(key.clone(), place);
        self.entries.push(Entry {
            key,
            value,
            number: self.next,
        });
        self.next += 1;
        self.rise(place, &compare);
    }

    pub(super) fn pop(&mut self, compare: impl Fn(&V, &V) -> Ordering) -> Option<(K, V)> {
        let key = self.entries.first()?.key.clone();
        self.remove(&key, &compare).map(|value| (key, value))
    }

    pub(super) fn remove(&mut self, key: &K, compare: impl Fn(&V, &V) -> Ordering) -> Option<V> {
        let place = self.places.remove(key)?;
        let entry = self.entries.swap_remove(place);
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.key.clone(), place);
            let place = self.rise(place, &compare);
            self.sink(place, &compare);
        }
        Some(entry.value)
    }

    fn before(&self, a: usize, b: usize, compare: &impl Fn(&V, &V) -> Ordering) -> bool {
        let (a, b) = (&self.entries[a], &self.entries[b]);
        compare(&a.value, &b.value)
            .then(a.number.cmp(&b.number))
            .is_lt()
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.entries.swap(a, b);
        for place in [a, b] {
            let key = self.entries[place].key.clone();
            self.places.insert(key, place);
        }
    }

    fn rise(&mut self, mut place: usize, compare: &impl Fn(&V, &V) -> Ordering) -> usize {
        while place > 0 {
            let parent = (place - 1) / 2;
            if !self.before(place, parent, compare) {
                break;
            }
            self.swap(place, parent);
            place = parent;
        }
        place
    }

    fn sink(&mut self, mut place: usize, compare: &impl Fn(&V, &V) -> Ordering) {
        loop {
            let mut least = place;
            for child in [2 * place + 1, 2 * place + 2] {
                if child < self.entries.len() && self.before(child, least, compare) {
                    least = child;
                }
            }
            if least == place {
                return;
            }
            self.swap(place, least);
            place = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_stable_sort(steps in prop::collection::vec((0..12u8, 0..4i32, any::<bool>()), 0..80)) {
            let mut heap = Heap::new();
            let mut model: Vec<(u8, i32)> = Vec::new();
            for (key, value, add) in steps {
                model.retain(|(known, _)| *known != key);
                if add {
                    heap.push(key, value, i32::cmp);
                    model.push((key, value));
                } else {
                    heap.remove(&key, i32::cmp);
                }
            }
            model.sort_by_key(|(_, value)| *value);
            let drained: Vec<_> = std::iter::from_fn(|| heap.pop(i32::cmp)).collect();
            prop_assert_eq!(drained, model);
        }
    }
}
