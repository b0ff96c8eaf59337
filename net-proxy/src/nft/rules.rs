//! From a port's view to its rules.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use orlop_core::network::Protocol;

use super::names;
use super::script::Container;
use super::table::{MARK_MASQ, REJECT, Settings, braces, disjoint};
use crate::view::{Endpoint, PortName, PortView, protocol_word};

/// The longest comment that nft takes, in bytes.
const LONGEST_COMMENT: usize = 127;

/// The rules of one port of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// Its chains.
    pub(super) chains: BTreeMap<String, Chain>,
    /// Its elements in shared sets and maps: what follows the key, by key.
    pub(super) elements: BTreeMap<(Container, String), String>,
    /// Its sets of clients, with how many seconds a client is kept.
    pub(super) affinity_sets: BTreeMap<String, u32>,
}

/// A chain of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// Its rules.
    pub(super) rules: Vec<String>,
    /// Among what it chooses in the end, if it does.
    pub(super) choice: Option<Choice>,
}

/// Among what a chain chooses at random.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Addresses of endpoints.
    Endpoints(Protocol, Vec<SocketAddr>),
    /// Chains of endpoints.
    Chains(Vec<String>),
}

impl Choice {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Endpoints(_, endpoints) => endpoints.len(),
            Self::Chains(chains) => chains.len(),
        }
    }

    /// What follows the number in the map.
    pub(super) fn element(&self, index: usize) -> Option<String> {
        match self {
            Self::Endpoints(_, endpoints) => {
                let endpoint = endpoints.get(index)?;
                Some(format!(" : {} . {}", endpoint.ip(), endpoint.port()))
            }
            Self::Chains(chains) => Some(format!(" : goto {}", chains.get(index)?)),
        }
    }
}

/// Translates.
pub(super) fn translate(view: &PortView, settings: &Settings) -> Block {
    let mut block = Block::default();
    if !is_plain(&view.name) {
        tracing::warn!(port = %view.name, "left out: no rule can be named so");
        return block;
    }
    let port = &view.port;
    let base = names::port_base(&view.name);
    let (cluster_chain, local_chain) = (format!("service-{base}"), format!("local-{base}"));
    let chosen = |local: bool| if local { &local_chain } else { &cluster_chain };
    let (inside, outside) = (chosen(port.internal_local), chosen(port.external_local));
    let external_chain = format!("external-{base}");

    elements(view, &mut block, inside, &external_chain, &base);

    if view.reachable_inside() {
        block
            .chains
            .entry(inside.clone())
            .or_default()
            .rules
            .extend(masquerade_inside(view, settings));
    }
    for (chain, endpoints) in [(&cluster_chain, &view.cluster), (&local_chain, &view.local)] {
        if !endpoints.is_empty() {
            choose(view, settings, &mut block, chain, endpoints);
        }
    }
    if view.has_endpoints && port.externally_accessible() {
        let mut rules = from_outside(view, settings, &cluster_chain);
        if view.reachable_outside() {
            rules.push(format!("goto {outside}"));
        }
        block.chains.entry(external_chain).or_default().rules = rules;
    }
    if !port.load_balancer_ips.is_empty() && !port.source_ranges.is_empty() {
        let rules = firewall(view, settings);
        block
            .chains
            .entry(format!("firewall-{base}"))
            .or_default()
            .rules = rules;
    }
    if port.affinity.is_some() {
        for endpoint in view.reachable() {
            endpoint_chain(view, settings, &mut block, endpoint);
        }
    }
    for endpoint in view.reachable() {
        let address = endpoint.address;
        let key = (
            Container::HairpinConnections,
            format!("{address} . {address}"),
        );
        block.elements.insert(key, String::new());
    }
    block
}

/// Whether a name can stand in a script. The API lets no other through; rules are too powerful to rely on that.
fn is_plain(name: &PortName) -> bool {
    let PortName { service, port, .. } = name;
    let mut letters = service
        .namespace
        .bytes()
        .chain(service.name.bytes())
        .chain(port.bytes());
    letters.all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'.' | b'_'))
}

/// What stands in the shared maps: which addresses and ports lead where, and which lead nowhere.
fn elements(view: &PortView, block: &mut Block, inside: &str, external: &str, base: &str) {
    let port = &view.port;
    let protocol = protocol_word(view.name.protocol);
    let at = |address: IpAddr| format!("{address} . {protocol} . {}", port.port);
    // Nobody anywhere refuses; nobody here, where only here counts, drops: another node may do better.
    let refusal = if view.has_endpoints {
        "drop".to_owned()
    } else {
        format!("goto {REJECT}")
    };
    let mut comment = view.name.to_string();
    comment.truncate(LONGEST_COMMENT);
    let refusal = format!(" comment \"{comment}\" : {refusal}");
    let mut put = |container, key, rest| {
        block.elements.insert((container, key), rest);
    };

    put(
        Container::ClusterIps,
        port.cluster_ip.to_string(),
        String::new(),
    );
    if view.reachable_inside() {
        put(
            Container::ServiceIps,
            at(port.cluster_ip),
            format!(" : goto {inside}"),
        );
    } else {
        put(
            Container::NoEndpointServices,
            at(port.cluster_ip),
            refusal.clone(),
        );
    }
    for &address in port.external_ips.iter().chain(&port.load_balancer_ips) {
        // An external address may be the cluster IP, which comes first.
        if address == port.cluster_ip {
            continue;
        }
        if view.has_endpoints {
            put(
                Container::ServiceIps,
                at(address),
                format!(" : goto {external}"),
            );
        }
        if !view.reachable_outside() {
            put(Container::NoEndpointServices, at(address), refusal.clone());
        }
    }
    if let Some(number) = port.node_port {
        let key = format!("{protocol} . {number}");
        if view.has_endpoints {
            put(
                Container::ServiceNodePorts,
                key.clone(),
                format!(" : goto {external}"),
            );
        }
        if !view.reachable_outside() {
            put(Container::NoEndpointNodePorts, key, refusal);
        }
    }
    if !port.source_ranges.is_empty() {
        for &address in &port.load_balancer_ips {
            put(
                Container::FirewallIps,
                at(address),
                format!(" : goto firewall-{base}"),
            );
        }
    }
}

/// Marks what comes to the cluster IP from elsewhere than a pod: the answer has to come back through this node.
fn masquerade_inside(view: &PortView, settings: &Settings) -> Option<String> {
    let ip = settings.ip();
    let port = &view.port;
    let from = if settings.masquerade_all {
        String::new()
    } else {
        format!(" {ip} saddr != {}", settings.pods()?)
    };
    Some(format!(
        "{ip} daddr {} {} dport {}{from} jump {MARK_MASQ}",
        port.cluster_ip,
        protocol_word(view.name.protocol),
        port.port
    ))
}

/// What happens to traffic to an external address before it goes to the endpoints.
fn from_outside(view: &PortView, settings: &Settings, cluster_chain: &str) -> Vec<String> {
    if !view.port.external_local {
        // The endpoint may be on another node, and the answer has to come back through this one.
        return vec![format!("jump {MARK_MASQ}")];
    }
    let mut rules = Vec::new();
    if !view.cluster.is_empty() {
        if let Some(pods) = settings.pods() {
            rules.push(format!(
                "{} saddr {pods} goto {cluster_chain} comment \"short-circuit pod traffic\"",
                settings.ip()
            ));
        }
        rules.push(format!(
            "fib saddr type local jump {MARK_MASQ} comment \"masquerade local traffic\""
        ));
        rules.push(format!(
            "fib saddr type local goto {cluster_chain} comment \"short-circuit local traffic\""
        ));
    }
    rules
}

/// Drops what comes from elsewhere than the ranges.
fn firewall(view: &PortView, settings: &Settings) -> Vec<String> {
    let port = &view.port;
    let mut ranges = port.source_ranges.clone();
    let node_may = settings
        .node_ip
        .is_some_and(|node| ranges.iter().any(|range| range.contains(node)));
    if node_may {
        // Where the load balancer's address is an address of the node, too, the node's own traffic has it as its source.
        ranges.extend(
            port.load_balancer_ips
                .iter()
                .map(|&ip| orlop_core::network::Cidr::host(ip)),
        );
    }
    let ranges = disjoint(&ranges);
    if ranges.iter().any(|range| range.prefix_len() == 0) {
        return Vec::new();
    }
    vec![format!(
        "{} saddr != {} drop",
        settings.ip(),
        braces(&ranges)
    )]
}

/// Chooses among endpoints: the one that the client had before, or any.
fn choose(
    view: &PortView,
    settings: &Settings,
    block: &mut Block,
    chain: &str,
    endpoints: &[Endpoint],
) {
    let chain = block.chains.entry(chain.to_owned()).or_default();
    if view.port.affinity.is_none() {
        let all = endpoints
            .iter()
            .map(|to| SocketAddr::new(to.address, to.port));
        chain.choice = Some(Choice::Endpoints(view.name.protocol, all.collect()));
        return;
    }
    let mut chains = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        let base = names::endpoint_base(&view.name, endpoint);
        let rule = format!(
            "{} saddr @affinity-{base} goto endpoint-{base}",
            settings.ip()
        );
        chain.rules.push(rule);
        chains.push(format!("endpoint-{base}"));
    }
    chain.choice = Some(Choice::Chains(chains));
}

/// The chain and the set of an endpoint whose clients stay with it.
fn endpoint_chain(view: &PortView, settings: &Settings, block: &mut Block, endpoint: &Endpoint) {
    let Some(seconds) = view.port.affinity else {
        return;
    };
    let base = names::endpoint_base(&view.name, endpoint);
    block
        .affinity_sets
        .insert(format!("affinity-{base}"), seconds);
    let to = SocketAddr::new(endpoint.address, endpoint.port);
    let chain = block.chains.entry(format!("endpoint-{base}")).or_default();
    chain.rules = vec![format!(
        "update @affinity-{base} {{ {} saddr }}",
        settings.ip()
    )];
    chain.choice = Some(Choice::Endpoints(view.name.protocol, vec![to]));
}
