//! Numbers for endpoints.
//!
//! A Service's rule chooses a number at random in a range of its own and looks the endpoint up in a map that many Services share. (A map
//! within each rule, as Kubernetes has it, costs the kernel time that grows with the square of the number of Services: 5,000 Services
//! of 10 endpoints took nft 28 s, this way about two.)
//!
//! The kernel checks every new element of a map against every rule that uses the map, and every new rule against every element. So there
//! are many maps, each for at most [`SHARE`] rules.

use std::collections::BTreeMap;

/// How many rules use one map.
const SHARE: usize = 128;

/// A range of numbers in one of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slots {
    /// Which map.
    pub(super) part: u32,
    /// The first number.
    pub(super) offset: u32,
    /// How many numbers there are.
    pub(super) capacity: u32,
}

/// The maps of one kind.
#[derive(Debug, Default)]
pub(super) struct Pool {
    parts: Vec<Part>,
}

#[derive(Debug, Default)]
struct Part {
    users: usize,
    /// Numbers from here on were never given.
    next: u32,
    /// Ranges that were given back, by their size.
    free: BTreeMap<u32, Vec<u32>>,
}

impl Pool {
    /// How many maps there are.
    pub(super) fn parts(&self) -> u32 {
        self.parts.len() as u32
    }

    /// A range for so many endpoints, with some room to grow. [`parts`](Self::parts) may be more afterwards.
    pub(super) fn take(&mut self, count: usize) -> Slots {
        // An nft map has fewer than 2³² elements.
        let capacity = (count as u32).next_power_of_two();
        let fits = |part: &Part| part.users < SHARE && part.next <= u32::MAX - capacity;
        let index = match self.parts.iter().position(fits) {
            Some(index) => index,
            None => {
                self.parts.push(Part::default());
                self.parts.len() - 1
            }
        };
        let part = &mut self.parts[index];
        part.users += 1;
        let again = part.free.get_mut(&capacity).and_then(Vec::pop);
        let offset = again.unwrap_or_else(|| {
            let offset = part.next;
            part.next += capacity;
            offset
        });
        Slots {
            part: index as u32,
            offset,
            capacity,
        }
    }

    /// Takes a range back.
    pub(super) fn give_back(&mut self, slots: Slots) {
        let part = &mut self.parts[slots.part as usize];
        part.users -= 1;
        if part.users == 0 {
            *part = Part::default();
        } else {
            part.free
                .entry(slots.capacity)
                .or_default()
                .push(slots.offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_never_overlap(steps in proptest::collection::vec((1usize..40, any::<prop::sample::Index>(), any::<bool>()), 1..400)) {
            let mut pool = Pool::default();
            let mut given: Vec<Slots> = Vec::new();
            for (count, which, back) in steps {
                if back && !given.is_empty() {
                    pool.give_back(given.swap_remove(which.index(given.len())));
                    continue;
                }
                let new = pool.take(count);
                prop_assert!(new.capacity as usize >= count && new.part < pool.parts());
                for old in given.iter().filter(|old| old.part == new.part) {
                    prop_assert!(new.offset + new.capacity <= old.offset || old.offset + old.capacity <= new.offset);
                }
                given.push(new);
                let users = given.iter().filter(|known| known.part == new.part).count();
                prop_assert!(users <= SHARE);
            }
        }
    }
}
