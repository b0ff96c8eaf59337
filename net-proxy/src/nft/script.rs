//! [`Script`]: one transaction.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use orlop_core::network::Protocol;

use crate::config::Family;
use crate::view::protocol_word;

/// The name of the table.
pub(super) const TABLE: &str = "kube-proxy";

/// How many elements one command adds or deletes.
const BATCH: usize = 256;

/// A set or map of the table that has elements of Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Container {
    /// All cluster IPs.
    ClusterIps,
    /// Where traffic to the addresses of Services goes.
    ServiceIps,
    /// Where traffic to NodePorts goes.
    ServiceNodePorts,
    /// What happens to traffic to addresses with nobody behind.
    NoEndpointServices,
    /// What happens to traffic to NodePorts with nobody behind.
    NoEndpointNodePorts,
    /// Addresses of load balancers that are not for everybody.
    FirewallIps,
    /// Connections of endpoints with themselves.
    HairpinConnections,
    /// A part of the endpoints of a protocol, by number. (nft lets no map of one protocol's ports stand in a rule of another.)
    Endpoints(Protocol, u32),
    /// A part of the endpoints' chains, by number; for Services whose clients stay with their endpoint.
    AffinityEndpoints(u32),
}

impl Container {
    pub(super) fn name(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::ClusterIps => "cluster-ips",
            Self::ServiceIps => "service-ips",
            Self::ServiceNodePorts => "service-nodeports",
            Self::NoEndpointServices => "no-endpoint-services",
            Self::NoEndpointNodePorts => "no-endpoint-nodeports",
            Self::FirewallIps => "firewall-ips",
            Self::HairpinConnections => "hairpin-connections",
            Self::Endpoints(protocol, part) => {
                let protocol = protocol_word(protocol);
                return Cow::Owned(format!("service-endpoints-{protocol}-{part}"));
            }
            Self::AffinityEndpoints(part) => {
                return Cow::Owned(format!("affinity-endpoints-{part}"));
            }
        })
    }
}

/// What one transaction does, in the order in which the kernel can do it: nothing is used before it is there, nor removed while it is
/// used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    /// Whether whatever is there is removed first.
    pub(super) replace: bool,
    /// Chains that lose their rules.
    pub(super) flush: Vec<String>,
    /// Keys that go.
    pub(super) delete_elements: BTreeMap<Container, Vec<String>>,
    /// Sets that go.
    pub(super) delete_sets: Vec<String>,
    /// Sets and maps that come: the word (`set` or `map`), the name, and what is in the braces.
    pub(super) add_sets: Vec<(&'static str, String, String)>,
    /// Chains that come, with what is in the braces of one that hangs on a hook.
    pub(super) add_chains: Vec<(String, Option<&'static str>)>,
    /// Elements that come: the key, and what follows it.
    pub(super) add_elements: BTreeMap<Container, Vec<(String, String)>>,
    /// Elements of sets that are not a [`Container`].
    pub(super) fill_sets: Vec<(String, Vec<String>)>,
    /// Rules that come, with their chains.
    pub(super) add_rules: Vec<(String, String)>,
    /// Chains that go.
    pub(super) delete_chains: Vec<String>,
}

impl Script {
    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The text for `nft -f -`.
    pub(super) fn render(&self, family: Family) -> String {
        let mut out = String::with_capacity(4096 + 160 * self.add_rules.len());
        self.write(family_word(family), &mut out);
        out
    }

    fn write(&self, ip: &str, out: &mut String) {
        // Writing to a string cannot fail.
        let mut line = |text: std::fmt::Arguments<'_>| {
            let _ = out.write_fmt(text);
            out.push('\n');
        };
        if self.replace {
            // What is to be deleted must be there.
            line(format_args!("add table {ip} {TABLE}"));
            line(format_args!("delete table {ip} {TABLE}"));
            line(format_args!(
                "add table {ip} {TABLE} {{ comment \"rules for kube-proxy\" ; }}"
            ));
        }
        for chain in &self.flush {
            line(format_args!("flush chain {ip} {TABLE} {chain}"));
        }
        for (container, keys) in &self.delete_elements {
            let name = container.name();
            for keys in keys.chunks(BATCH) {
                let keys = keys.join(", ");
                line(format_args!(
                    "delete element {ip} {TABLE} {name} {{ {keys} }}"
                ));
            }
        }
        for set in &self.delete_sets {
            line(format_args!("delete set {ip} {TABLE} {set}"));
        }
        for (word, name, body) in &self.add_sets {
            line(format_args!("add {word} {ip} {TABLE} {name} {{ {body} }}"));
        }
        for (chain, hook) in &self.add_chains {
            match hook {
                Some(hook) => line(format_args!("add chain {ip} {TABLE} {chain} {{ {hook} }}")),
                None => line(format_args!("add chain {ip} {TABLE} {chain}")),
            }
        }
        for (container, elements) in &self.add_elements {
            let name = container.name();
            for elements in elements.chunks(BATCH) {
                let mut list = String::with_capacity(48 * elements.len());
                for (key, rest) in elements {
                    if !list.is_empty() {
                        list.push_str(", ");
                    }
                    list.push_str(key);
                    list.push_str(rest);
                }
                line(format_args!("add element {ip} {TABLE} {name} {{ {list} }}"));
            }
        }
        for (set, elements) in &self.fill_sets {
            for elements in elements.chunks(BATCH) {
                let list = elements.join(", ");
                line(format_args!("add element {ip} {TABLE} {set} {{ {list} }}"));
            }
        }
        for (chain, rule) in &self.add_rules {
            line(format_args!("add rule {ip} {TABLE} {chain} {rule}"));
        }
        for chain in &self.delete_chains {
            line(format_args!("delete chain {ip} {TABLE} {chain}"));
        }
    }
}

/// nft's word for tables, and for the header of packets.
pub(super) const fn family_word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// nft's type of addresses.
pub(super) const fn address_type(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    }
}
