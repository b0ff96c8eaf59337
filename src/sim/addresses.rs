//! Addresses of simulated pods: unique, and connected to nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use orlop_core::object::ObjectKey;

/// How many addresses a node's range has.
const RANGE: u32 = 256;
/// Where the nodes' own begin: a network that is set aside for benchmarks and examples.
const NODES: u32 = 0xc612_0000; // 198.18.0.0

/// The range of a node's pods. It runs on through the `/8` that the first address is in, and around.
pub(super) fn pod_cidr(first: Ipv4Addr, node: usize) -> String {
    format!("{}/24", Ipv4Addr::from(base(first, node)))
}

fn base(first: Ipv4Addr, node: usize) -> u32 {
    let first = u32::from(first);
    let offset =
        (first & 0x00ff_ff00).wrapping_add((node as u32).wrapping_mul(RANGE)) & 0x00ff_ffff;
    (first & 0xff00_0000) | offset
}

/// The address of a node.
pub(super) fn node_ip(node: usize) -> Ipv4Addr {
    Ipv4Addr::from(NODES + 2 + (node as u32 & 0x1_ffff))
}

/// Who has which address.
#[derive(Debug)]
pub(super) struct Addresses {
    first: Ipv4Addr,
    by_pod: BTreeMap<ObjectKey, Ipv4Addr>,
    taken: BTreeSet<Ipv4Addr>,
}

impl Addresses {
    /// Addresses from this one on.
    pub(super) fn new(first: Ipv4Addr) -> Self {
        Self {
            first,
            by_pod: BTreeMap::new(),
            taken: BTreeSet::new(),
        }
    }

    /// The address of a pod on a node: a free one, unless it has one.
    pub(super) fn give(&mut self, node: usize, pod: &ObjectKey) -> Ipv4Addr {
        if let Some(ip) = self.by_pod.get(pod) {
            return *ip;
        }
        let base = base(self.first, node);
        let free = (2..RANGE - 1)
            .map(|host| Ipv4Addr::from(base + host))
            .find(|ip| !self.taken.contains(ip));
        // A node takes fewer pods than it has addresses; should it not, the last one is given twice, for nothing answers there.
        let ip = free.unwrap_or_else(|| Ipv4Addr::from(base + RANGE - 1));
        self.by_pod.insert(pod.clone(), ip);
        self.taken.insert(ip);
        ip
    }

    /// Takes note of an address that a pod has.
    pub(super) fn note(&mut self, pod: &ObjectKey, ip: &str) {
        if let Ok(ip) = ip.parse()
            && !self.by_pod.contains_key(pod)
        {
            self.by_pod.insert(pod.clone(), ip);
            self.taken.insert(ip);
        }
    }

    /// Takes an address back.
    pub(super) fn take_back_of(&mut self, pod: &ObjectKey) {
        if let Some(ip) = self.by_pod.remove(pod) {
            self.taken.remove(&ip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unique_and_come_back() {
        let usual = Ipv4Addr::new(10, 244, 0, 0);
        let mut addresses = Addresses::new(usual);
        let pod = |name: &str| ObjectKey::new("default", name);
        let first = addresses.give(0, &pod("a"));
        assert_eq!(first.to_string(), "10.244.0.2");
        assert_eq!(addresses.give(0, &pod("a")), first);
        assert_ne!(addresses.give(0, &pod("b")), first);
        assert_eq!(addresses.give(1, &pod("c")).to_string(), "10.244.1.2");
        addresses.take_back_of(&pod("a"));
        assert_eq!(addresses.give(0, &pod("d")), first);
        assert_eq!(pod_cidr(usual, 3), "10.244.3.0/24");
        assert_eq!(pod_cidr(usual, 0x0c00), "10.0.0.0/24");
    }
}
