//! What an EndpointSlice says of one address and port.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::{PortName, protocol_of, service};
use crate::config::Family;

/// Where traffic of a Service's port may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Whether it is on this node.
    pub local: bool,
    /// Whether it wants traffic.
    pub ready: bool,
    /// Whether it could serve traffic, even if it is about to end.
    pub serving: bool,
    /// Whether it is about to end.
    pub terminating: bool,
    /// The zones whose traffic it is meant for; any if empty.
    pub zone_hints: Arc<[String]>,
    /// The nodes whose traffic it is meant for; any if empty.
    pub node_hints: Arc<[String]>,
}

impl Endpoint {
    /// Whether it can take traffic if nobody better can.
    #[must_use]
    pub const fn serves_while_terminating(&self) -> bool {
        self.serving && self.terminating
    }

    /// What makes one of two statements about the same endpoint the better one: a pod that moves from slice to slice is for a moment in
    /// both.
    const fn rank(&self) -> (bool, bool, bool) {
        (self.local, self.ready, self.serving)
    }
}

/// The endpoints of one port in the slices of a Service, each once, in order of address and port.
pub(super) fn endpoints<'a>(
    slices: impl Iterator<Item = &'a Arc<EndpointSlice>>,
    name: &PortName,
    node: &str,
    family: Family,
) -> Vec<Endpoint> {
    let mut found: BTreeMap<(IpAddr, u16), Endpoint> = BTreeMap::new();
    let of_family = slices.filter(|slice| slice.address_type == family.as_str());
    for slice in of_family {
        let ports = slice.ports.iter().flatten().filter(|port| {
            port.name.as_deref().unwrap_or_default() == name.port
                && protocol_of(port.protocol.as_deref()) == Some(name.protocol)
        });
        // A port without a number stands for all ports, which a Service cannot mean.
        let ports: Vec<u16> = ports
            .filter_map(|port| port.port.and_then(service::port_number))
            .collect();
        if ports.is_empty() {
            continue;
        }
        for endpoint in slice.endpoints.iter().flatten() {
            // Further addresses have no meaning.
            let address = endpoint
                .addresses
                .first()
                .and_then(|text| text.parse().ok());
            let Some(address) = address.filter(|&ip| Family::of(ip) == family) else {
                continue;
            };
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            let hints = endpoint.hints.as_ref();
            let zones = hints.and_then(|hints| hints.for_zones.as_ref());
            let nodes = hints.and_then(|hints| hints.for_nodes.as_ref());
            let shown = Endpoint {
                address,
                port: 0,
                local: endpoint.node_name.as_deref() == Some(node),
                ready: conditions.ready.unwrap_or(true),
                serving: conditions.serving.unwrap_or(true),
                terminating: conditions.terminating.unwrap_or(false),
                zone_hints: zones
                    .into_iter()
                    .flatten()
                    .map(|zone| zone.name.clone())
                    .collect(),
                node_hints: nodes
                    .into_iter()
                    .flatten()
                    .map(|node| node.name.clone())
                    .collect(),
            };
            for &port in &ports {
                let candidate = Endpoint {
                    port,
                    ..shown.clone()
                };
                let known = found
                    .entry((address, port))
                    .or_insert_with(|| candidate.clone());
                if candidate.rank() > known.rank() {
                    *known = candidate;
                }
            }
        }
    }
    found.into_values().collect()
}
