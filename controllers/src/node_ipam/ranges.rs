//! A range that is divided into equal parts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use orlop_core::network::Cidr;

/// The longest part of a prefix that tells parts apart, in bits: 65,536 parts.
const MAX_BITS: u8 = 16;

/// Why ranges cannot be given out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RangeError {
    /// There is none, or more than one of a family.
    #[error("there must be one range of the cluster, or one of each family")]
    Families,
    /// The parts would be larger than the whole.
    #[error("nodes cannot have /{mask} out of {range}")]
    TooSmall {
        /// The whole.
        range: Cidr,
        /// The prefix of the parts.
        mask: u8,
    },
    /// There would be too many parts.
    #[error("there are too many /{mask} in {range}: their prefixes may differ by 16 bits at most")]
    TooLarge {
        /// The whole.
        range: Cidr,
        /// The prefix of the parts.
        mask: u8,
    },
}

/// The parts of a range, and which of them are taken.
#[derive(Debug)]
pub(super) struct Ranges {
    base: u128,
    ipv4: bool,
    range: Cidr,
    mask: u8,
    /// How many bits of an address are behind a part's prefix.
    shift: u32,
    taken: Vec<bool>,
    free: usize,
    /// Where the search for a free one goes on: what was given back rests for as long as can be.
    next: usize,
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

impl Ranges {
    pub(super) fn new(range: Cidr, mask: u8) -> Result<Self, RangeError> {
        let range = range.network();
        let ipv4 = range.address().is_ipv4();
        let width: u8 = if ipv4 { 32 } else { 128 };
        if mask < range.prefix_len() || mask > width {
            return Err(RangeError::TooSmall { range, mask });
        }
        let between = mask - range.prefix_len();
        if between > MAX_BITS {
            return Err(RangeError::TooLarge { range, mask });
        }
        let count = 1 << between;
        Ok(Self {
            base: bits(range.address()),
            ipv4,
            range,
            mask,
            shift: u32::from(width - mask),
            taken: vec![false; count],
            free: count,
            next: 0,
        })
    }

    fn part(&self, index: usize) -> Option<Cidr> {
        let offset = (index as u128).checked_shl(self.shift).unwrap_or(0);
        let address = self.base | offset;
        let address = if self.ipv4 {
            // The upper bits of an IPv4 address are zero.
            IpAddr::V4(Ipv4Addr::from(address as u32))
        } else {
            IpAddr::V6(Ipv6Addr::from(address))
        };
        Cidr::new(address, self.mask)
    }

    /// The parts that a range overlaps.
    fn overlapped(&self, other: Cidr) -> std::ops::Range<usize> {
        let other = other.network();
        let same = other.address().is_ipv4() == self.ipv4;
        if !same {
            return 0..0;
        }
        if other.prefix_len() <= self.range.prefix_len() {
            return if other.contains(self.range.address()) {
                0..self.taken.len()
            } else {
                0..0
            };
        }
        if !self.range.contains(other.address()) {
            return 0..0;
        }
        let offset = bits(other.address()) - self.base;
        // Less than the number of parts.
        let first = offset.checked_shr(self.shift).unwrap_or(0) as usize;
        let more = self.mask.saturating_sub(other.prefix_len());
        first..first + (1 << more)
    }

    /// A free part, which is taken now.
    pub(super) fn allocate(&mut self) -> Option<Cidr> {
        let count = self.taken.len();
        let index = (0..count)
            .map(|step| (self.next + step) % count)
            .find(|index| !self.taken[*index])?;
        self.taken[index] = true;
        self.free -= 1;
        self.next = (index + 1) % count;
        self.part(index)
    }

    /// Takes what a range overlaps. Whether there was anything.
    pub(super) fn occupy(&mut self, range: Cidr) -> bool {
        let overlapped = self.overlapped(range);
        let any = !overlapped.is_empty();
        for index in overlapped {
            self.free -= usize::from(!self.taken[index]);
            self.taken[index] = true;
        }
        any
    }

    /// Gives back what a range overlaps.
    pub(super) fn release(&mut self, range: Cidr) {
        for index in self.overlapped(range) {
            self.free += usize::from(self.taken[index]);
            self.taken[index] = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn parts_come_in_order_and_again_when_all_were_given() {
        let mut ranges = Ranges::new(cidr("10.0.7.9/23"), 25).unwrap();
        let mut give = || ranges.allocate().map(|part| part.to_string());
        assert_eq!(give().as_deref(), Some("10.0.6.0/25"));
        assert_eq!(give().as_deref(), Some("10.0.6.128/25"));
        ranges.release(cidr("10.0.6.0/25"));
        let mut give = || ranges.allocate().map(|part| part.to_string());
        assert_eq!(give().as_deref(), Some("10.0.7.0/25"));
        assert_eq!(give().as_deref(), Some("10.0.7.128/25"));
        assert_eq!(give().as_deref(), Some("10.0.6.0/25"));
        assert_eq!(give(), None);
    }

    #[test]
    fn other_sizes_take_what_they_overlap() {
        let mut ranges = Ranges::new(cidr("10.0.0.0/16"), 24).unwrap();
        assert!(ranges.occupy(cidr("10.0.4.0/22")));
        assert!(ranges.occupy(cidr("10.0.1.128/28")));
        assert!(!ranges.occupy(cidr("10.1.0.0/24")));
        assert!(!ranges.occupy(cidr("fd00::/64")));
        assert_eq!(ranges.free, 256 - 5);
        assert!(ranges.occupy(cidr("10.0.0.0/8")));
        assert_eq!(ranges.allocate(), None);
        let mut all = Ranges::new(cidr("::/0"), 16).unwrap();
        assert_eq!(all.allocate(), Some(cidr("::/16")));
        assert_eq!(all.allocate(), Some(cidr("1::/16")));
    }

    proptest! {
        #[test]
        fn no_part_is_given_twice(steps in proptest::collection::vec(any::<(bool, u8)>(), 1..80)) {
            let mut ranges = Ranges::new(cidr("fd00::/60"), 64).unwrap();
            let mut held: Vec<Cidr> = Vec::new();
            for (give, which) in steps {
                if give {
                    match ranges.allocate() {
                        Some(part) => {
                            prop_assert!(!held.contains(&part));
                            held.push(part);
                        }
                        None => prop_assert_eq!(held.len(), 16),
                    }
                } else if !held.is_empty() {
                    let part = held.swap_remove(usize::from(which) % held.len());
                    ranges.release(part);
                }
                prop_assert_eq!(ranges.free + held.len(), 16);
            }
        }
    }
}
