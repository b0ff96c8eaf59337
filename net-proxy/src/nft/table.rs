//! What the table has before there is any Service: hooks, and the chains, sets and maps that all Services share.
//!
//! | where | what happens |
//! |---|---|
//! | `filter-prerouting`, `filter-output` | load balancers' addresses that are not for everybody (`firewall-check`) |
//! | `nat-prerouting`, `nat-output` | the destination becomes an endpoint (`services`) |
//! | `filter-input`, `filter-forward`, `filter-output` | Services with nobody behind refuse or drop (`*-endpoints-check`) |
//! | `filter-forward`, `filter-output-post-dnat` | unknown ports of cluster IPs refuse (`cluster-ips-check`) |
//! | `nat-postrouting` | the source becomes the node (`masquerading`) |

use std::net::IpAddr;

use orlop_core::network::Cidr;

use super::script::{Script, address_type, family_word};
use crate::config::Family;

/// An empty chain. Emptying it changes nothing and fails if the table is not there.
pub(super) const CANARY: &str = "canary";
pub(super) const MARK_MASQ: &str = "mark-for-masquerade";
pub(super) const REJECT: &str = "reject-chain";
const CLUSTER_CIDRS: &str = "cluster-cidrs";
const NODEPORT_IPS: &str = "nodeport-ips";

/// Chains on hooks. Filters come before the translation of addresses, or once after it, so that they see Services' addresses.
const HOOKS: [(&str, &str); 8] = [
    (
        "filter-prerouting",
        "type filter hook prerouting priority -110 ;",
    ),
    ("filter-input", "type filter hook input priority -110 ;"),
    ("filter-forward", "type filter hook forward priority -110 ;"),
    ("filter-output", "type filter hook output priority -110 ;"),
    (
        "filter-output-post-dnat",
        "type filter hook output priority -90 ;",
    ),
    ("nat-prerouting", "type nat hook prerouting priority -100 ;"),
    ("nat-output", "type nat hook output priority -100 ;"),
    (
        "nat-postrouting",
        "type nat hook postrouting priority 100 ;",
    ),
];

/// Where NodePorts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NodePorts {
    /// At these addresses.
    At(Vec<IpAddr>),
    /// At all local addresses.
    Everywhere,
    /// At local addresses in these networks.
    In(Vec<Cidr>),
}

/// What rules depend on beside Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) family: Family,
    pub(super) masquerade_mark: u32,
    pub(super) masquerade_all: bool,
    /// The pods' networks of this family.
    pub(super) cluster_cidrs: Vec<Cidr>,
    /// The cluster IPs' networks of this family.
    pub(super) service_cidrs: Vec<Cidr>,
    pub(super) node_ports: NodePorts,
    /// The node's main address of this family.
    pub(super) node_ip: Option<IpAddr>,
}

impl Settings {
    /// The word for this family's header: `ip` or `ip6`.
    pub(super) const fn ip(&self) -> &'static str {
        family_word(self.family)
    }

    /// What the source of a pod's traffic equals; `None` if pods' traffic cannot be told from other.
    pub(super) fn pods(&self) -> Option<String> {
        match self.cluster_cidrs.as_slice() {
            [] => None,
            [one] => Some(one.to_string()),
            _ => Some(format!("@{CLUSTER_CIDRS}")),
        }
    }

    fn loopback(&self) -> &'static str {
        match self.family {
            Family::V4 => "127.0.0.0/8",
            Family::V6 => "::1",
        }
    }
}

/// Ranges of which none lies in another, in order: what nft takes as one set.
pub(super) fn disjoint(ranges: &[Cidr]) -> Vec<Cidr> {
    let mut ranges: Vec<Cidr> = ranges.iter().map(|range| range.network()).collect();
    // The widest comes first.
    ranges.sort_by_key(|range| (range.prefix_len(), range.address()));
    let mut kept: Vec<Cidr> = Vec::with_capacity(ranges.len());
    for range in ranges {
        if !kept.iter().any(|wide| wide.contains(range.address())) {
            kept.push(range);
        }
    }
    kept
}

/// Ranges as an nft set.
pub(super) fn braces(ranges: &[Cidr]) -> String {
    let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    format!("{{ {} }}", texts.join(", "))
}

/// The transaction that makes the table anew, with no Service in it.
pub(super) fn skeleton(settings: &Settings) -> Script {
    let (ip, address) = (settings.ip(), address_type(settings.family));
    let mut script = Script {
        replace: true,
        ..Script::default()
    };
    let sets = &mut script.add_sets;
    let mut add = |word: &'static str, name: &str, body: String| {
        sets.push((word, name.to_owned(), body));
    };
    add(
        "set",
        "cluster-ips",
        format!("type {address} ; comment \"Active ClusterIPs\" ;"),
    );
    add(
        "set",
        "hairpin-connections",
        format!("type {address} . {address} ;"),
    );
    let by_address = format!("type {address} . inet_proto . inet_service : verdict ;");
    let by_port = "type inet_proto . inet_service : verdict ;";
    for name in ["service-ips", "no-endpoint-services", "firewall-ips"] {
        add("map", name, by_address.clone());
    }
    for name in ["service-nodeports", "no-endpoint-nodeports"] {
        add("map", name, by_port.to_owned());
    }
    if settings.cluster_cidrs.len() > 1 {
        add(
            "set",
            CLUSTER_CIDRS,
            format!("type {address} ; flags interval ;"),
        );
        let ranges = disjoint(&settings.cluster_cidrs);
        let ranges = ranges.iter().map(ToString::to_string).collect();
        script.fill_sets.push((CLUSTER_CIDRS.to_owned(), ranges));
    }

    let by_address = format!("{ip} daddr . meta l4proto . th dport vmap");
    let at_node_port = match &settings.node_ports {
        NodePorts::At(addresses) => {
            let body = format!("type {address} ; comment \"IPs that accept NodePort traffic\" ;");
            script.add_sets.push(("set", NODEPORT_IPS.to_owned(), body));
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            if !addresses.is_empty() {
                script.fill_sets.push((NODEPORT_IPS.to_owned(), addresses));
            }
            format!("{ip} daddr @{NODEPORT_IPS}")
        }
        NodePorts::Everywhere => {
            format!("fib daddr type local {ip} daddr != {}", settings.loopback())
        }
        NodePorts::In(networks) => format!(
            "fib daddr type local {ip} daddr != {} {ip} daddr {}",
            settings.loopback(),
            braces(&disjoint(networks))
        ),
    };

    let chains = HOOKS
        .iter()
        .map(|&(name, hook)| (name.to_owned(), Some(hook)));
    script.add_chains.extend(chains);
    let plain = [
        "services",
        "masquerading",
        MARK_MASQ,
        "nodeport-endpoints-check",
        "service-endpoints-check",
        "firewall-check",
        "cluster-ips-check",
        REJECT,
        CANARY,
    ];
    script
        .add_chains
        .extend(plain.map(|name| (name.to_owned(), None)));

    let mark = settings.masquerade_mark;
    let mut rule = |chain: &str, rule: String| script.add_rules.push((chain.to_owned(), rule));
    for (from, to) in [
        ("filter-input", "nodeport-endpoints-check"),
        ("filter-input", "service-endpoints-check"),
        ("filter-forward", "service-endpoints-check"),
        ("filter-output", "service-endpoints-check"),
        ("filter-prerouting", "firewall-check"),
        ("filter-output", "firewall-check"),
        ("filter-forward", "cluster-ips-check"),
        ("filter-output-post-dnat", "cluster-ips-check"),
    ] {
        rule(from, format!("ct state new jump {to}"));
    }
    rule("nat-output", "jump services".to_owned());
    rule("nat-prerouting", "jump services".to_owned());
    rule("nat-postrouting", "jump masquerading".to_owned());
    rule(MARK_MASQ, format!("mark set mark or {mark:#010x}"));
    rule(
        "masquerading",
        format!("ct status dnat {ip} saddr . {ip} daddr @hairpin-connections jump {MARK_MASQ}"),
    );
    rule("masquerading", format!("mark and {mark:#010x} == 0 return"));
    rule("masquerading", format!("mark set mark xor {mark:#010x}"));
    rule("masquerading", "masquerade fully-random".to_owned());
    rule(
        "cluster-ips-check",
        format!(
            "{ip} daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\""
        ),
    );
    if !settings.service_cidrs.is_empty() {
        let networks = braces(&disjoint(&settings.service_cidrs));
        rule(
            "cluster-ips-check",
            format!(
                "{ip} daddr {networks} drop comment \"Drop traffic to unallocated ClusterIPs\""
            ),
        );
    }
    rule(REJECT, "reject".to_owned());
    rule(
        "service-endpoints-check",
        format!("{by_address} @no-endpoint-services"),
    );
    rule("firewall-check", format!("{by_address} @firewall-ips"));
    rule("services", format!("{by_address} @service-ips"));
    for (chain, map) in [
        ("nodeport-endpoints-check", "no-endpoint-nodeports"),
        ("services", "service-nodeports"),
    ] {
        rule(
            chain,
            format!("{at_node_port} meta l4proto . th dport vmap @{map}"),
        );
    }
    script
}
