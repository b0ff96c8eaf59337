//! The addresses of the node.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use k8s_openapi::api::core::v1::NodeAddress;

/// The address that packets to elsewhere would have: that of the interface with the default route. Where there is none, any other of
/// the machine's. Nothing is sent.
pub(crate) fn detect() -> Option<IpAddr> {
    // Addresses that nobody has: routing is all that is asked for.
    let towards = [
        (
            SocketAddr::from(([0, 0, 0, 0], 0)),
            SocketAddr::from(([192, 0, 2, 1], 9)),
        ),
        (
            SocketAddr::from(([0u16; 8], 0)),
            SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9)),
        ),
    ];
    let routed = towards.into_iter().find_map(|(from, to)| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        let own = socket.local_addr().ok()?.ip();
        usable(own).then_some(own)
    });
    routed.or_else(|| {
        let trie = std::fs::read_to_string("/proc/net/fib_trie").ok()?;
        local_addresses(&trie)
            .into_iter()
            .map(IpAddr::V4)
            .find(|ip| usable(*ip))
    })
}

fn usable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_unspecified() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unspecified() && !ip.is_unicast_link_local(),
    }
}

/// The machine's own addresses by `/proc/net/fib_trie`, in its order, each once.
fn local_addresses(trie: &str) -> Vec<Ipv4Addr> {
    let mut found: Vec<Ipv4Addr> = Vec::new();
    let mut last = None;
    for line in trie.lines().map(str::trim) {
        if let Some(leaf) = line.strip_prefix("|-- ") {
            last = leaf.parse().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// What stands in the node's status.
pub(super) fn of_node(ips: &[IpAddr], host_name: &str) -> Vec<NodeAddress> {
    let address = |type_: &str, address: String| NodeAddress {
        type_: type_.to_owned(),
        address,
    };
    let mut all: Vec<_> = ips
        .iter()
        .map(|ip| address("InternalIP", ip.to_string()))
        .collect();
    all.push(address("Hostname", host_name.to_owned()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_found_in_the_table() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n           |-- 127.0.0.1\n              \
                    /32 host LOCAL\n           |-- 192.0.2.0\n              /24 link UNICAST\n           |-- 192.0.2.2\n              \
                    /32 host LOCAL\n        |-- 192.0.2.255\n           /32 link BROADCAST\nLocal:\n           |-- 192.0.2.2\n              /32 host LOCAL\n";
        let want: Vec<Ipv4Addr> = vec!["127.0.0.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        assert_eq!(local_addresses(trie), want);
        let usable: Vec<_> = want.iter().filter(|ip| usable(IpAddr::V4(**ip))).collect();
        assert_eq!(usable, [&want[1]]);
    }

    #[test]
    fn a_status_has_the_main_address_first() {
        let ips = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let all = of_node(&ips, "n1");
        let words: Vec<_> = all
            .iter()
            .map(|one| (one.type_.as_str(), one.address.as_str()))
            .collect();
        assert_eq!(
            words,
            [
                ("InternalIP", "10.0.0.1"),
                ("InternalIP", "fd00::1"),
                ("Hostname", "n1")
            ]
        );
    }
}
