//! Names of chains and sets: those that Kubernetes' nftables mode gives, so that who knows one finds the way in the other.

use std::net::IpAddr;

use crate::view::{Endpoint, PortName, protocol_word};

/// The longest name that the kernel takes, without the longest prefix of ours.
const LONGEST: usize = 256 - 1 - 16;

/// What follows the prefix in the names of a port's chains: `HASH-ns/svc/tcp/http`.
pub(super) fn port_base(name: &PortName) -> String {
    hashed(plain(name))
}

/// What follows the prefix in the names of an endpoint's chain and set: `HASH-ns/svc/tcp/http__10.0.0.1/80`.
pub(super) fn endpoint_base(name: &PortName, endpoint: &Endpoint) -> String {
    // A colon cannot stand in a name.
    let address = match endpoint.address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => address.to_string().replace(':', "."),
    };
    hashed(format!("{}__{address}/{}", plain(name), endpoint.port))
}

fn plain(name: &PortName) -> String {
    let PortName {
        service,
        port,
        protocol,
    } = name;
    let protocol = protocol_word(*protocol);
    format!("{}/{}/{protocol}/{port}", service.namespace, service.name)
}

/// Puts eight letters of a hash before a name: names that differ in their end alone are then told apart at a glance, also where the end
/// has to be cut off.
fn hashed(name: String) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    let mut full = String::with_capacity(9 + name.len());
    push_base32(digest.as_ref(), &mut full);
    full.push('-');
    full.push_str(&name);
    if full.len() > LONGEST {
        // All of it is ASCII: the API lets nothing else through.
        full.truncate(LONGEST - 3);
        full.push_str("...");
    }
    full
}

/// The first five bytes as eight letters (RFC 4648).
fn push_base32(bytes: &[u8], out: &mut String) {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bits = bytes
        .iter()
        .take(5)
        .fold(0u64, |bits, &byte| bits << 8 | u64::from(byte));
    for letter in (0..8).rev() {
        out.push(char::from(ALPHABET[(bits >> (5 * letter)) as usize & 31]));
    }
}

#[cfg(test)]
mod tests {
    use orlop_core::network::Protocol;
    use orlop_core::object::ObjectKey;

    use super::*;

    #[test]
    fn names_are_those_of_kubernetes() {
        let name = PortName {
            service: ObjectKey::new("ns1", "svc1"),
            port: "p80".into(),
            protocol: Protocol::Tcp,
        };
        assert_eq!(port_base(&name), "ULMVA6XW-ns1/svc1/tcp/p80");
        let mut endpoint = crate::view::tests::endpoint("10.180.0.1", 80);
        assert_eq!(
            endpoint_base(&name, &endpoint),
            "5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80"
        );
        endpoint.address = "fd00:10:180::1".parse().unwrap();
        assert!(endpoint_base(&name, &endpoint).ends_with("-ns1/svc1/tcp/p80__fd00.10.180..1/80"));
    }

    #[test]
    fn a_name_is_never_too_long() {
        let name = PortName {
            service: ObjectKey::new(&"n".repeat(63), &"s".repeat(63)),
            port: "p".repeat(63),
            protocol: Protocol::Sctp,
        };
        let mut endpoint = crate::view::tests::endpoint("10.0.0.1", 65535);
        endpoint.address = "1111:2222:3333:4444:5555:6666:7777:8888".parse().unwrap();
        assert_eq!(endpoint_base(&name, &endpoint).len(), LONGEST);
    }
}
