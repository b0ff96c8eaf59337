use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use orlop_core::object::ObjectKey;
use serde_json::{Value, json};

use super::*;
use crate::config::Family;

/// A ready endpoint on another node.
pub(crate) fn endpoint(address: &str, port: u16) -> Endpoint {
    Endpoint {
        address: address.parse().unwrap(),
        port,
        local: false,
        ready: true,
        serving: true,
        terminating: false,
        zone_hints: Arc::default(),
        node_hints: Arc::default(),
    }
}

pub(crate) fn service(name: &str, spec: Value) -> Arc<Service> {
    let object = json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec});
    Arc::new(serde_json::from_value(object).unwrap())
}

pub(crate) fn slice(
    name: &str,
    service: &str,
    ports: Value,
    endpoints: Value,
) -> Arc<EndpointSlice> {
    let object = json!({
        "metadata": {"namespace": "ns", "name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

fn node(labels: Value) -> Node {
    serde_json::from_value(json!({"metadata": {"name": "here", "labels": labels}, "status": {"addresses": [
        {"type": "Hostname", "address": "here"}, {"type": "InternalIP", "address": "192.0.2.1"},
        {"type": "InternalIP", "address": "192.0.2.2"}, {"type": "InternalIP", "address": "2001:db8::1"}]}}))
    .unwrap()
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

fn addresses(endpoints: &[Endpoint]) -> Vec<String> {
    endpoints
        .iter()
        .map(|endpoint| format!("{}:{}", endpoint.address, endpoint.port))
        .collect()
}

/// The one port of a Service with these endpoints behind it.
fn view_of(spec: Value, endpoints: Value) -> PortView {
    let mut tracker = Tracker::new("here");
    tracker.set_node(Some(&node(json!({"topology.kubernetes.io/zone": "a"}))));
    assert!(tracker.set_service(&service("s", spec)));
    assert!(tracker.set_slice(&slice("s-1", "s", json!([{"port": 8080}]), endpoints)));
    let mut views = tracker.view(&key("s"), Family::V4);
    assert_eq!(views.len(), 1);
    views.remove(0)
}

#[test]
fn only_services_with_an_address_of_the_family_have_ports() {
    for (spec, four, six) in [
        (
            json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}]}),
            1,
            0,
        ),
        (
            json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"], "ports": [{"port": 80}]}),
            1,
            1,
        ),
        (
            json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]}),
            0,
            0,
        ),
        (
            json!({"type": "ExternalName", "externalName": "example.com", "ports": [{"port": 80}]}),
            0,
            0,
        ),
        (json!({"clusterIP": "", "ports": [{"port": 80}]}), 0, 0),
        (json!({"clusterIP": "10.96.0.1"}), 0, 0),
        (
            json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b", "protocol": "UDP"}, {"port": 9, "protocol": "SCTP"}, {"port": 10, "protocol": "DCCP"}]}),
            3,
            0,
        ),
    ] {
        let mut tracker = Tracker::new("here");
        tracker.set_service(&service("s", spec.clone()));
        let count = |family| tracker.view(&key("s"), family).len();
        assert_eq!(
            (count(Family::V4), count(Family::V6)),
            (four, six),
            "{spec}"
        );
    }
}

#[test]
fn a_service_says_by_what_it_is_reached() {
    let mut object: Service = (*service(
        "s",
        json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80, "nodePort": 30080}],
            "externalIPs": ["198.51.100.1", "2001:db8::5"], "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
            "internalTrafficPolicy": "Local", "sessionAffinity": "ClientIP",
            "loadBalancerSourceRanges": [" 203.0.113.7/24 ", "2001:db8::/32", "nonsense"]}),
    ))
    .clone();
    object.status = serde_json::from_value(json!({"loadBalancer": {"ingress": [
        {"ip": "198.51.100.9"}, {"ip": "198.51.100.10", "ipMode": "Proxy"}, {"hostname": "example.com"}, {"ip": "2001:db8::9", "ipMode": "VIP"}]}}))
    .unwrap();
    let mut tracker = Tracker::new("here");
    tracker.set_service(&Arc::new(object));
    let port = tracker.view(&key("s"), Family::V4).remove(0).port;
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let wanted = ServicePort {
        cluster_ip: ip("10.96.0.1"),
        port: 80,
        node_port: Some(30080),
        external_ips: vec![ip("198.51.100.1")],
        load_balancer_ips: vec![ip("198.51.100.9")],
        source_ranges: vec!["203.0.113.0/24".parse().unwrap()],
        affinity: Some(10_800),
        internal_local: true,
        external_local: true,
        health_check_node_port: Some(31000),
    };
    assert_eq!(*port, wanted);
    // A policy for traffic that there is none of.
    let inside = service(
        "t",
        json!({"clusterIPs": ["10.96.0.2"], "externalTrafficPolicy": "Local", "ports": [{"port": 80}]}),
    );
    tracker.set_service(&inside);
    assert!(!tracker.view(&key("t"), Family::V4)[0].port.external_local);
}

#[test]
fn endpoints_are_those_of_the_port_each_once_and_sorted() {
    let mut tracker = Tracker::new("here");
    tracker.set_service(&service(
        "s",
        json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80, "name": "web"}, {"port": 53, "name": "dns", "protocol": "UDP"}]}),
    ));
    let ports = json!([{"name": "web", "port": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "web", "protocol": "SCTP", "port": 1}, {"name": "dns"}]);
    tracker.set_slice(&slice("1", "s", ports.clone(), json!([
        {"addresses": ["10.0.0.10", "10.0.0.99"]}, {"addresses": ["10.0.0.9"], "conditions": {"ready": false}}])));
    tracker.set_slice(&slice("2", "s", ports, json!([
        {"addresses": ["10.0.0.9"], "conditions": {"ready": true}, "nodeName": "here"}, {"addresses": ["not an address"]}, {"addresses": ["fd00::1"]}])));
    tracker.set_slice(&slice(
        "3",
        "other",
        json!([{"name": "web", "port": 1}]),
        json!([{"addresses": ["10.0.0.50"]}]),
    ));
    let views = tracker.view(&key("s"), Family::V4);
    assert_eq!(
        addresses(&views[0].cluster),
        ["10.0.0.9:8080", "10.0.0.10:8080"]
    );
    assert!(views[0].cluster[0].local);
    assert_eq!(
        addresses(&views[1].cluster),
        ["10.0.0.9:53", "10.0.0.10:53"]
    );
}

#[test]
fn policies_choose_endpoints() {
    let here = json!({"addresses": ["10.0.0.1"], "nodeName": "here"});
    let there = json!({"addresses": ["10.0.0.2"], "nodeName": "there"});
    let unready = json!({"addresses": ["10.0.0.3"], "nodeName": "here", "conditions": {"ready": false, "serving": false}});
    let ending = json!({"addresses": ["10.0.0.4"], "nodeName": "here", "conditions": {"ready": false, "serving": true, "terminating": true}});
    let ended = json!({"addresses": ["10.0.0.5"], "conditions": {"ready": false, "serving": false, "terminating": true}});
    let (all, inside, outside) = (
        json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}),
        json!({"clusterIP": "10.96.0.1", "internalTrafficPolicy": "Local", "ports": [{"port": 80}]}),
        json!({"type": "NodePort", "clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local", "ports": [{"port": 80, "nodePort": 30080}]}),
    );
    #[allow(clippy::type_complexity)]
    let table: [(&Value, Value, &[&str], &[&str], bool, bool, bool); 10] = [
        (
            &all,
            json!([here, there, unready, ending]),
            &["10.0.0.1:8080", "10.0.0.2:8080"],
            &[],
            true,
            true,
            true,
        ),
        (
            &all,
            json!([unready, ending, ended]),
            &["10.0.0.4:8080"],
            &[],
            true,
            true,
            true,
        ),
        (&all, json!([unready, ended]), &[], &[], false, false, false),
        (
            &inside,
            json!([here, there]),
            &[],
            &["10.0.0.1:8080"],
            true,
            true,
            true,
        ),
        (&inside, json!([there]), &[], &[], true, false, true),
        (&inside, json!([]), &[], &[], false, false, false),
        (
            &outside,
            json!([here, there, ending]),
            &["10.0.0.1:8080", "10.0.0.2:8080"],
            &["10.0.0.1:8080"],
            true,
            true,
            true,
        ),
        (
            &outside,
            json!([there, ending]),
            &["10.0.0.2:8080"],
            &["10.0.0.4:8080"],
            true,
            true,
            true,
        ),
        (
            &outside,
            json!([there]),
            &["10.0.0.2:8080"],
            &[],
            true,
            true,
            false,
        ),
        (&outside, json!([ended]), &[], &[], false, false, false),
    ];
    for (spec, endpoints, cluster, local, any, reach_in, reach_out) in table {
        let view = view_of(spec.clone(), endpoints.clone());
        assert_eq!(addresses(&view.cluster), cluster, "{spec} {endpoints}");
        assert_eq!(addresses(&view.local), local, "{spec} {endpoints}");
        assert_eq!(
            (
                view.has_endpoints,
                view.reachable_inside(),
                view.reachable_outside()
            ),
            (any, reach_in, reach_out),
            "{spec} {endpoints}"
        );
    }
}

#[test]
fn hints_hold_when_all_have_them_and_one_means_us() {
    let zoned = |address: &str, zone: &str| json!({"addresses": [address], "hints": {"forZones": [{"name": zone}]}});
    let noded = |address: &str, node: &str, zone: &str| json!({"addresses": [address], "hints": {"forNodes": [{"name": node}], "forZones": [{"name": zone}]}});
    let unready =
        json!({"addresses": ["10.0.0.9"], "conditions": {"ready": false, "serving": false}});
    for (endpoints, wanted) in [
        (
            json!([zoned("10.0.0.1", "a"), zoned("10.0.0.2", "b")]),
            vec!["10.0.0.1:8080"],
        ),
        (
            json!([zoned("10.0.0.1", "c"), zoned("10.0.0.2", "b")]),
            vec!["10.0.0.1:8080", "10.0.0.2:8080"],
        ),
        (
            json!([zoned("10.0.0.1", "a"), {"addresses": ["10.0.0.2"]}]),
            vec!["10.0.0.1:8080", "10.0.0.2:8080"],
        ),
        (
            json!([zoned("10.0.0.1", "a"), zoned("10.0.0.2", "b"), unready]),
            vec!["10.0.0.1:8080"],
        ),
        (
            json!([
                noded("10.0.0.1", "there", "a"),
                noded("10.0.0.2", "here", "b")
            ]),
            vec!["10.0.0.2:8080"],
        ),
        (
            json!([
                noded("10.0.0.1", "there", "a"),
                noded("10.0.0.2", "elsewhere", "b")
            ]),
            vec!["10.0.0.1:8080"],
        ),
        (
            json!([
                noded("10.0.0.1", "here", "a"),
                zoned("10.0.0.2", "a"),
                zoned("10.0.0.3", "b")
            ]),
            vec!["10.0.0.1:8080", "10.0.0.2:8080"],
        ),
    ] {
        let view = view_of(
            json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}),
            endpoints.clone(),
        );
        assert_eq!(addresses(&view.cluster), wanted, "{endpoints}");
    }
}

#[test]
fn only_what_matters_is_a_change() {
    let mut tracker = Tracker::new("here");
    assert_eq!(tracker.take_changes(), None);
    let web = service(
        "s",
        json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}),
    );
    assert!(tracker.set_service(&web));
    assert!(!tracker.set_service(&web));
    let mut labelled = (*web).clone();
    labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    assert!(!tracker.set_service(&Arc::new(labelled)));
    let mut pods = (*slice(
        "1",
        "s",
        json!([{"port": 1}]),
        json!([{"addresses": ["10.0.0.1"]}]),
    ))
    .clone();
    let trigger = (
        "endpoints.kubernetes.io/last-change-trigger-time".to_owned(),
        "2026-01-01T00:00:00.5Z".to_owned(),
    );
    pods.metadata.annotations = Some([trigger].into());
    let pods = Arc::new(pods);
    assert!(tracker.set_slice(&pods));
    assert!(!tracker.set_slice(&pods));
    assert_eq!(tracker.take_triggers().len(), 1);
    assert_eq!(tracker.take_changes().unwrap().len(), 1);
    assert!(tracker.remove_slice(&pods));
    assert!(!tracker.remove_slice(&pods));
    assert!(tracker.remove_service(&web));
    assert!(!tracker.remove_service(&web));
    assert_eq!(tracker.take_changes().unwrap().len(), 1);
    assert!(tracker.set_node(Some(&node(json!({})))));
    assert_eq!(tracker.node_addresses().len(), 2);
    assert!(!tracker.set_node(Some(&node(json!({"unimportant": "label"})))));
    assert!(tracker.set_node(Some(&node(json!({"topology.kubernetes.io/zone": "b"})))));
    assert_eq!(tracker.take_changes(), None);
    assert!(tracker.set_node(None));
    assert_eq!(
        tracker.node_addresses().len(),
        2,
        "a Node that is gone keeps its addresses"
    );
}

#[test]
fn health_checks_count_addresses_on_this_node() {
    let mut tracker = Tracker::new("here");
    let spec = json!({"type": "LoadBalancer", "clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
        "ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]});
    tracker.set_service(&service("s", spec));
    assert_eq!(
        tracker.health_check(&key("s"), &Family::ALL),
        Some((31000, 0))
    );
    let ports = json!([{"name": "a", "port": 1}, {"name": "b", "port": 2}]);
    tracker.set_slice(&slice("1", "s", ports, json!([
        {"addresses": ["10.0.0.1"], "nodeName": "here"}, {"addresses": ["10.0.0.2"], "nodeName": "there"},
        {"addresses": ["10.0.0.3"], "nodeName": "here", "conditions": {"ready": false}}, {"addresses": ["10.0.0.4"], "nodeName": "here"}])));
    assert_eq!(
        tracker.health_check(&key("s"), &Family::ALL),
        Some((31000, 2))
    );
    assert_eq!(tracker.health_check(&key("t"), &Family::ALL), None);
}
