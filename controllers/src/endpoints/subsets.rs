//! Addresses that share their ports, together.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Pod, Service};

use crate::common::{pods, services};

/// The most addresses that an Endpoints object holds.
pub const MAX_ADDRESSES: usize = 1000;

/// A port, in an order to sort by: name, number, protocol, application protocol.
type PortKey = (String, i32, String, Option<String>);

/// The subsets of a Service's Endpoints, and whether some addresses had to be left out.
///
/// Pods whose ports have the same numbers are in one subset; a named port may have another number in every pod. Addresses, ports and
/// subsets are sorted, so that the same pods always give the same object.
#[must_use]
pub fn build_subsets(service: &Service, behind: &[&Pod]) -> (Vec<EndpointSubset>, bool) {
    let spec = service.spec.clone().unwrap_or_default();
    let even_unready = services::publishes_not_ready(service);
    let ipv6 = services::wants_ipv6(service)
        .first()
        .copied()
        .unwrap_or(false);
    let own_name = service.metadata.name.as_deref().unwrap_or_default();
    let mut groups: BTreeMap<Vec<PortKey>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> =
        BTreeMap::new();
    for pod in behind {
        if !services::is_reachable(pod, even_unready) {
            continue;
        }
        let Some(ip) = services::address(pod, ipv6) else {
            continue;
        };
        let all = spec.ports.clone().unwrap_or_default();
        let mut ports: Vec<PortKey> = all
            .iter()
            .filter_map(|port| {
                let number = services::target_port(pod, port)?;
                let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
                Some((
                    port.name.clone().unwrap_or_default(),
                    number,
                    protocol,
                    port.app_protocol.clone(),
                ))
            })
            .collect();
        if ports.is_empty() && !(all.is_empty() && services::is_headless(service)) {
            continue;
        }
        ports.sort();
        let address = EndpointAddress {
            ip,
            hostname: services::hostname(pod, own_name),
            node_name: Some(pods::node(pod).to_owned()).filter(|node| !node.is_empty()),
            target_ref: Some(services::reference(pod)),
        };
        let (ready, not_ready) = groups.entry(ports).or_default();
        if even_unready || pods::is_ready(pod) {
            ready.push(address)
        } else {
            not_ready.push(address)
        }
    }
    let truncated = truncate(&mut groups);
    let subsets = groups
        .into_iter()
        .filter(|(_, (ready, not_ready))| !ready.is_empty() || !not_ready.is_empty())
        .map(|(ports, (ready, not_ready))| EndpointSubset {
            addresses: sorted(ready),
            not_ready_addresses: sorted(not_ready),
            ports: Some(ports.into_iter().map(port).collect())
                .filter(|ports: &Vec<_>| !ports.is_empty()),
        })
        .collect();
    (subsets, truncated)
}

fn port((name, port, protocol, app_protocol): PortKey) -> EndpointPort {
    EndpointPort {
        name: Some(name).filter(|name| !name.is_empty()),
        port,
        protocol: Some(protocol),
        app_protocol,
    }
}

fn sorted(mut addresses: Vec<EndpointAddress>) -> Option<Vec<EndpointAddress>> {
    let uid = |address: &EndpointAddress| {
        address
            .target_ref
            .as_ref()
            .and_then(|target| target.uid.clone())
    };
    addresses.sort_by(|a, b| (&a.ip, uid(a)).cmp(&(&b.ip, uid(b))));
    Some(addresses).filter(|addresses| !addresses.is_empty())
}

/// Leaves out what is too much: the addresses that are not ready first.
fn truncate(
    groups: &mut BTreeMap<Vec<PortKey>, (Vec<EndpointAddress>, Vec<EndpointAddress>)>,
) -> bool {
    let ready: usize = groups.values().map(|(ready, _)| ready.len()).sum();
    let all: usize = ready
        + groups
            .values()
            .map(|(_, not_ready)| not_ready.len())
            .sum::<usize>();
    if all <= MAX_ADDRESSES {
        return false;
    }
    let (mut room, mut room_unready) = (
        MAX_ADDRESSES.min(ready),
        MAX_ADDRESSES.saturating_sub(ready),
    );
    for (ready, not_ready) in groups.values_mut() {
        for (list, room) in [(ready, &mut room), (not_ready, &mut room_unready)] {
            list.truncate(*room);
            *room -= list.len();
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, ip: &str, port: i32, ready: bool) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"nodeName": "node", "hostname": "h", "subdomain": "web",
                "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}, {"ip": "fd00::1"}],
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}
        }))
        .unwrap()
    }

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap()
    }

    fn shown(service: &Service, pods: &[Pod]) -> Value {
        let pods: Vec<&Pod> = pods.iter().collect();
        let (subsets, _) = build_subsets(service, &pods);
        let ips = |list: &Option<Vec<EndpointAddress>>| -> Vec<String> {
            list.iter()
                .flatten()
                .map(|address| address.ip.clone())
                .collect()
        };
        let numbers = |subset: &EndpointSubset| -> Vec<i32> {
            subset
                .ports
                .iter()
                .flatten()
                .map(|port| port.port)
                .collect()
        };
        json!(
            subsets
                .iter()
                .map(|s| json!([ips(&s.addresses), ips(&s.not_ready_addresses), numbers(s)]))
                .collect::<Vec<_>>()
        )
    }

    #[test]
    fn pods_are_grouped_by_their_ports() {
        let named = service(json!({"ports": [{"name": "http", "port": 80, "targetPort": "http"}]}));
        let pods = [
            pod("c", "10.0.0.3", 8080, true),
            pod("a", "10.0.0.1", 8080, true),
            pod("b", "10.0.0.2", 9090, true),
            pod("d", "10.0.0.4", 8080, false),
        ];
        assert_eq!(
            shown(&named, &pods),
            json!([
                [["10.0.0.1", "10.0.0.3"], ["10.0.0.4"], [8080]],
                [["10.0.0.2"], [], [9090]]
            ])
        );
        let two = service(
            json!({"ports": [{"name": "b", "port": 80, "targetPort": 8080}, {"name": "a", "port": 53, "protocol": "UDP", "targetPort": "dns"}]}),
        );
        assert_eq!(
            shown(&two, &pods[..1]),
            json!([[["10.0.0.3"], [], [53, 8080]]])
        );
        let unknown = service(json!({"ports": [{"port": 80, "targetPort": "nothing"}]}));
        assert_eq!(shown(&unknown, &pods), json!([]));
    }

    #[test]
    fn headless_unready_and_ipv6_services() {
        let pods = [pod("a", "10.0.0.1", 1, false)];
        let headless = service(json!({"clusterIP": "None"}));
        assert_eq!(shown(&headless, &pods), json!([[[], ["10.0.0.1"], []]]));
        assert_eq!(
            shown(&service(json!({"clusterIP": "10.1.0.1"})), &pods),
            json!([])
        );
        let eager = service(json!({"publishNotReadyAddresses": true, "ports": [{"port": 80}]}));
        assert_eq!(shown(&eager, &pods), json!([[["10.0.0.1"], [], [80]]]));
        let six = service(json!({"ipFamilies": ["IPv6"], "ports": [{"port": 80}]}));
        assert_eq!(shown(&six, &pods), json!([[[], ["fd00::1"], [80]]]));
        let (subsets, _) = build_subsets(&headless, &[&pods[0]]);
        let address = &subsets[0].not_ready_addresses.as_ref().unwrap()[0];
        assert_eq!(address.hostname.as_deref(), Some("h"));
        assert_eq!(address.node_name.as_deref(), Some("node"));
    }

    #[test]
    fn too_many_addresses_are_cut_the_unready_first() {
        let pods: Vec<Pod> = (0..1200)
            .map(|n| {
                pod(
                    &format!("p{n:04}"),
                    &format!("10.0.{}.{}", n / 200, n % 200),
                    80,
                    n % 2 == 0,
                )
            })
            .collect();
        let pods: Vec<&Pod> = pods.iter().collect();
        let (subsets, truncated) = build_subsets(&service(json!({"ports": [{"port": 80}]})), &pods);
        assert!(truncated);
        assert_eq!(subsets[0].addresses.as_ref().unwrap().len(), 600);
        assert_eq!(subsets[0].not_ready_addresses.as_ref().unwrap().len(), 400);
    }

    #[test]
    fn pods_that_ended_or_go_are_not_reached() {
        let service = service(json!({"ports": [{"port": 80}]}));
        let mut ended = pod("a", "10.0.0.1", 1, true);
        ended.status.as_mut().unwrap().phase = Some("Succeeded".to_owned());
        let mut going = pod("b", "10.0.0.2", 1, true);
        going.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                "2026-01-01T00:00:00Z".parse().unwrap(),
            ));
        assert_eq!(shown(&service, &[ended, going]), json!([]));
    }
}
