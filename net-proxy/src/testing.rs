//! Services made up, for measuring.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use orlop_core::network::Protocol;
use orlop_core::object::ObjectKey;

use crate::backend::Changes;
use crate::config::Family;
use crate::view::{Endpoint, PortName, PortView, ServicePort};

/// The view of a Service of one TCP port with so many ready endpoints behind it, up to 64 of them. The first one's address depends on
/// `generation`, so that two generations of a Service are a change of one endpoint.
#[must_use]
pub fn service(index: u32, endpoints: u32, generation: u32) -> (ObjectKey, Vec<PortView>) {
    let key = ObjectKey::new(
        &format!("namespace-{}", index % 50),
        &format!("service-{index}"),
    );
    let endpoint = |number: u32| Endpoint {
        // Endpoints of generations are apart from those of other Services.
        address: IpAddr::V4(Ipv4Addr::from_bits(if number == 0 {
            0x0b00_0000 + index * 64 + generation % 64
        } else {
            0x0a00_0000 + index * 64 + number
        })),
        port: 8080,
        local: number == 0,
        ready: true,
        serving: true,
        terminating: false,
        zone_hints: Arc::default(),
        node_hints: Arc::default(),
    };
    let mut cluster: Vec<Endpoint> = (0..endpoints.min(64)).map(endpoint).collect();
    cluster.sort_by_key(|endpoint| endpoint.address);
    let view = PortView {
        name: Arc::new(PortName {
            service: key.clone(),
            port: "http".to_owned(),
            protocol: Protocol::Tcp,
        }),
        port: Arc::new(ServicePort {
            cluster_ip: IpAddr::V4(Ipv4Addr::from_bits(0xac10_0000 + index)),
            port: 80,
            node_port: None,
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            source_ranges: Vec::new(),
            affinity: None,
            internal_local: false,
            external_local: false,
            health_check_node_port: None,
        }),
        serving: cluster.iter().map(|endpoint| endpoint.address).collect(),
        has_endpoints: !cluster.is_empty(),
        cluster,
        local: Vec::new(),
    };
    (key, vec![view])
}

/// So many Services with so many endpoints each, as a backend is told of them at first.
#[must_use]
pub fn services(count: u32, endpoints: u32) -> Changes {
    Changes {
        family: Family::V4,
        services: (0..count)
            .map(|index| service(index, endpoints, 0))
            .collect(),
        all: true,
        node_ips: vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))],
    }
}

/// The change of one endpoint of one of these Services.
#[must_use]
pub fn change(index: u32, endpoints: u32, generation: u32) -> Changes {
    Changes {
        services: BTreeMap::from([service(index, endpoints, generation)]),
        all: false,
        ..services(0, 0)
    }
}
