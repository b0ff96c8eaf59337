//! Sets of completion indexes, as `0-2,5`.

use std::collections::BTreeSet;

/// A set of indexes below a Job's completions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(BTreeSet<i32>);

impl Indexes {
    /// Reads a set. Indexes from `completions` on, and what is no index, are left out.
    #[must_use]
    pub fn parse(text: &str, completions: i32) -> Self {
        let mut set = BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                set.extend(first.max(0)..=last.min(completions - 1));
            }
        }
        Self(set)
    }

    /// Whether an index is in the set.
    #[must_use]
    pub fn contains(&self, index: i32) -> bool {
        self.0.contains(&index)
    }

    /// Adds an index; says whether it is new.
    pub fn insert(&mut self, index: i32) -> bool {
        self.0.insert(index)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are in both sets.
    #[must_use]
    pub fn common(&self, other: &Self) -> usize {
        self.0.intersection(&other.0).count()
    }
}

impl std::fmt::Display for Indexes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while rest.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            f.write_str(comma)?;
            comma = ",";
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn sets_are_written_as_ranges() {
        let set = Indexes::parse("0-2,5,7,8,20", 10);
        assert_eq!(set.to_string(), "0-2,5,7,8");
        assert_eq!(set.len(), 6);
        assert!(set.contains(1) && !set.contains(3));
        assert_eq!(set.common(&Indexes::parse("2-6", 10)), 2);
        assert!(Indexes::parse("", 10).is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(all in proptest::collection::btree_set(0..50i32, 0..50)) {
            let set = Indexes(all);
            prop_assert_eq!(Indexes::parse(&set.to_string(), 50), set);
        }
    }
}
