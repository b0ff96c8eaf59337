//! What a Service says of one of its ports.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use orlop_core::network::Cidr;
use orlop_core::object::ObjectKey;

use super::{PortName, protocol_of};
use crate::config::Family;

/// How long a client stays with an endpoint where the Service doesn't say, in seconds: three hours.
const DEFAULT_AFFINITY: u32 = 10_800;

/// What a Service says of one of its ports, for one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The cluster IP.
    pub cluster_ip: IpAddr,
    /// The port of all addresses but the node's.
    pub port: u16,
    /// The port of the node.
    pub node_port: Option<u16>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of load balancers that deliver packets unchanged (`ipMode: VIP`).
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may use those addresses; everybody if empty.
    pub source_ranges: Vec<Cidr>,
    /// For how many seconds a client stays with its endpoint; not at all without.
    pub affinity: Option<u32>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`, of a Service that has such traffic.
    pub external_local: bool,
    /// Where load balancers ask whether this node has endpoints.
    pub health_check_node_port: Option<u16>,
}

impl ServicePort {
    /// Whether it can be reached by more than its cluster IP.
    #[must_use]
    pub fn externally_accessible(&self) -> bool {
        self.node_port.is_some()
            || !self.load_balancer_ips.is_empty()
            || !self.external_ips.is_empty()
    }

    /// Whether some traffic is by the policy `Cluster`. What comes from this node's pods to an external address is, whatever the policy.
    #[must_use]
    pub fn uses_cluster_endpoints(&self) -> bool {
        !self.internal_local || self.externally_accessible()
    }

    /// Whether some traffic is by the policy `Local`.
    #[must_use]
    pub fn uses_local_endpoints(&self) -> bool {
        self.internal_local || (self.external_local && self.externally_accessible())
    }
}

/// The ports of a Service in a family; none for what is no proxy's business (headless, `ExternalName`).
pub(super) fn ports(
    key: &ObjectKey,
    service: &Service,
    family: Family,
) -> Vec<(PortName, ServicePort)> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    if kind == "ExternalName" {
        return Vec::new();
    }
    let cluster_ips = spec
        .cluster_ips
        .as_deref()
        .filter(|ips| !ips.is_empty())
        .unwrap_or(spec.cluster_ip.as_slice());
    // "None" is no address.
    let Some(&cluster_ip) = addresses(cluster_ips, family).first() else {
        return Vec::new();
    };
    let external_ips = addresses(spec.external_ips.as_deref().unwrap_or_default(), family);
    let ingress = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref()?.ingress.as_deref());
    let load_balancer_ips: Vec<IpAddr> = ingress
        .unwrap_or_default()
        .iter()
        .filter(|point| point.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"))
        .filter_map(|point| point.ip.as_deref()?.parse().ok())
        .filter(|&ip| Family::of(ip) == family)
        .collect();
    let ranges = spec.load_balancer_source_ranges.as_deref();
    let source_ranges: Vec<Cidr> = ranges
        .unwrap_or_default()
        .iter()
        // The API lets blanks through.
        .filter_map(|range| range.trim().parse::<Cidr>().ok())
        .filter(|range| Family::of(range.address()) == family)
        .map(Cidr::network)
        .collect();
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        spec.session_affinity_config
            .as_ref()
            .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
            .and_then(|seconds| u32::try_from(seconds).ok())
            .unwrap_or(DEFAULT_AFFINITY)
    });
    let has_external_traffic = matches!(kind, "NodePort" | "LoadBalancer")
        || spec
            .external_ips
            .as_ref()
            .is_some_and(|ips| !ips.is_empty());
    let external_local =
        has_external_traffic && spec.external_traffic_policy.as_deref() == Some("Local");
    let shared = ServicePort {
        cluster_ip,
        port: 0,
        node_port: None,
        external_ips,
        load_balancer_ips,
        source_ranges,
        affinity,
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local,
        health_check_node_port: spec
            .health_check_node_port
            .filter(|_| kind == "LoadBalancer" && external_local)
            .and_then(port_number),
    };
    let ports = spec.ports.iter().flatten();
    ports
        .filter_map(|port| {
            let name = PortName {
                service: key.clone(),
                port: port.name.clone().unwrap_or_default(),
                protocol: protocol_of(port.protocol.as_deref())?,
            };
            let port = ServicePort {
                port: port_number(port.port)?,
                node_port: port.node_port.and_then(port_number),
                ..shared.clone()
            };
            Some((name, port))
        })
        .collect()
}

/// A port number; zero is none.
pub(super) fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|&number| number != 0)
}

fn addresses(texts: &[String], family: Family) -> Vec<IpAddr> {
    let parsed = texts.iter().filter_map(|text| text.parse().ok());
    parsed.filter(|&ip| Family::of(ip) == family).collect()
}

/// The ports of a Service behind shared pointers, which views are made of.
pub(super) type SharedPorts = Vec<(Arc<PortName>, Arc<ServicePort>)>;
