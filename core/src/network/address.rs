//! Address ranges.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address with the length of its network's prefix, such as `10.244.1.0/24`. The bits after the prefix are kept: `10.244.1.7/24` is an
/// address in a network.
///
/// ```
/// use orlop_core::network::Cidr;
/// let own: Cidr = "10.244.1.7/24".parse().unwrap();
/// assert_eq!(own.network().to_string(), "10.244.1.0/24");
/// assert!(own.contains("10.244.1.200".parse().unwrap()));
/// assert!(!own.contains("10.244.2.1".parse().unwrap()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// What was given is no address range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address range such as 10.244.0.0/16")]
pub struct InvalidCidr(pub String);

impl Cidr {
    /// An address in a network; `None` if the prefix is longer than the address.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        (u32::from(prefix) <= width(address)).then_some(Self { address, prefix })
    }

    /// One address alone.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        // At most 128.
        let prefix = width(address) as u8;
        Self { address, prefix }
    }

    /// The address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// The length of the prefix, in bits.
    #[must_use]
    pub const fn prefix_len(self) -> u8 {
        self.prefix
    }

    /// The network: the same with all bits after the prefix zero.
    #[must_use]
    pub fn network(self) -> Self {
        let bits = bits(self.address) & self.mask();
        let address = match self.address {
            // The upper bits of an IPv4 address are zero.
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        };
        Self { address, ..self }
    }

    /// Whether an address is in the network. One of the other family never is.
    #[must_use]
    pub fn contains(self, other: IpAddr) -> bool {
        self.address.is_ipv4() == other.is_ipv4()
            && (bits(self.address) ^ bits(other)) & self.mask() == 0
    }

    /// The address at a distance from the beginning of the network; `None` outside of it.
    #[must_use]
    pub fn nth(self, index: u128) -> Option<IpAddr> {
        let own = self.network();
        let sum = bits(own.address).checked_add(index)?;
        let address = match own.address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(sum).ok()?)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(sum)),
        };
        self.contains(address).then_some(address)
    }

    /// Ones where the prefix is, among the bits of the family.
    fn mask(self) -> u128 {
        let free = width(self.address) - u32::from(self.prefix);
        u128::MAX.checked_shl(free).unwrap_or(0)
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let plain = prefix.bytes().all(|b| b.is_ascii_digit())
                && (prefix == "0" || !prefix.starts_with('0'));
            Self::new(
                address.parse().ok()?,
                prefix.parse().ok().filter(|_| plain)?,
            )
        };
        parse().ok_or_else(|| InvalidCidr(text.to_owned()))
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
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0/8",
            "::/129",
            "a/8",
        ] {
            assert_eq!(text.parse::<Cidr>(), Err(InvalidCidr(text.to_owned())));
        }
    }

    #[test]
    fn the_whole_and_the_single_address_are_ranges() {
        assert!(cidr("0.0.0.0/0").contains("255.1.2.3".parse().unwrap()));
        assert!(!cidr("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(cidr("::/0").contains("ffff::1".parse().unwrap()));
        let one = Cidr::host("10.0.0.1".parse().unwrap());
        assert_eq!(one, cidr("10.0.0.1/32"));
        assert!(!one.contains("10.0.0.2".parse().unwrap()));
        assert_eq!(cidr("fd00::5/64").nth(7), Some("fd00::7".parse().unwrap()));
        assert_eq!(cidr("10.0.0.0/30").nth(4), None);
        assert_eq!(cidr("255.255.255.252/30").nth(4), None);
    }

    proptest! {
        #[test]
        fn a_range_reads_back_and_holds_its_network(high: u64, low: u64, four: bool, prefix in 0u8..=128) {
            let bits = u128::from(high) << 64 | u128::from(low);
            let address = if four { IpAddr::V4(Ipv4Addr::from_bits(low as u32)) } else { IpAddr::V6(Ipv6Addr::from_bits(bits)) };
            let Some(range) = Cidr::new(address, prefix) else {
                prop_assert!(four && prefix > 32);
                return Ok(());
            };
            prop_assert_eq!(range.to_string().parse::<Cidr>(), Ok(range));
            prop_assert!(range.contains(address));
            prop_assert!(range.contains(range.network().address()));
            prop_assert_eq!(range.nth(0), Some(range.network().address()));
        }
    }
}
