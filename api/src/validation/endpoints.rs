//! Endpoints and EndpointSlices.

use std::collections::BTreeSet;
use std::net::IpAddr;

use orlop_core::field::Path;
use serde_json::Value;

use super::errors::Errors;
use super::meta::{self, NameForm};
use super::{labels, names};
use crate::doc;

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// Endpoints.
pub(super) fn endpoints(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    for (i, subset) in doc::list(document, "subsets").iter().enumerate() {
        let path = Path::new("subsets").index(i);
        let lists = ["addresses", "notReadyAddresses"];
        if lists.iter().all(|key| doc::list(subset, key).is_empty()) {
            errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for key in lists {
            for (i, address) in doc::list(subset, key).iter().enumerate() {
                endpoint_address(errors, address, &path.child(key).index(i));
            }
        }
        let ports = doc::list(subset, "ports");
        for (i, port) in ports.iter().enumerate() {
            let path = path.child("ports").index(i);
            let name = doc::text(port, "name");
            if !name.is_empty() {
                errors.all_invalid(&path.child("name"), name, names::dns_label(name));
            } else if ports.len() > 1 {
                errors.required(&path.child("name"), "");
            }
            let number = doc::int(port, "port").unwrap_or_default();
            for complaint in names::port_number(number) {
                errors.invalid(&path.child("port"), number, complaint);
            }
            errors.one_of(port, "protocol", &path, PROTOCOLS);
            if let Some(protocol) = doc::opt_text(port, "appProtocol") {
                errors.all_invalid(
                    &path.child("appProtocol"),
                    protocol,
                    names::qualified_name(protocol),
                );
            }
        }
    }
}

fn endpoint_address(errors: &mut Errors, address: &Value, path: &Path) {
    let ip = doc::text(address, "ip");
    errors.all_invalid(&path.child("ip"), ip, names::ip(ip));
    let host = doc::text(address, "hostname");
    if !host.is_empty() {
        errors.all_invalid(&path.child("hostname"), host, names::dns_label(host));
    }
    if let Some(node) = doc::opt_text(address, "nodeName") {
        errors.all_invalid(&path.child("nodeName"), node, names::dns_subdomain(node));
    }
    non_special_ip(errors, ip, &path.child("ip"));
}

/// An address that can be somewhere else: not unspecified, loopback or link-local.
pub(super) fn non_special_ip(errors: &mut Errors, text: &str, path: &Path) {
    let Ok(address) = text.parse::<IpAddr>() else {
        errors.invalid(path, text, "must be a valid IP address");
        return;
    };
    if address.is_unspecified() {
        errors.invalid(path, text, format!("may not be unspecified ({text})"));
    }
    if address.is_loopback() {
        errors.invalid(
            path,
            text,
            "may not be in the loopback range (127.0.0.0/8, ::1/128)",
        );
    }
    let (unicast, multicast) = match address {
        IpAddr::V4(address) => (
            address.is_link_local(),
            address.octets()[..3] == [224, 0, 0],
        ),
        IpAddr::V6(address) => (
            address.is_unicast_link_local(),
            address.segments()[0] & 0xff0f == 0xff02,
        ),
    };
    if unicast {
        errors.invalid(
            path,
            text,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        );
    }
    if multicast {
        errors.invalid(
            path,
            text,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        );
    }
}

/// An EndpointSlice.
pub(super) fn slice(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    let root = Path::root();
    let kind = doc::text(document, "addressType");
    errors.one_of(document, "addressType", &root, &["FQDN", "IPv4", "IPv6"]);
    let endpoints = doc::list(document, "endpoints");
    let path = Path::new("endpoints");
    if endpoints.len() > 1000 {
        errors.too_many(&path, endpoints.len(), 1000);
        return;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        slice_endpoint(errors, endpoint, kind, &path.index(i));
    }
    slice_ports(errors, document);
}

fn slice_endpoint(errors: &mut Errors, endpoint: &Value, kind: &str, path: &Path) {
    let addresses: Vec<&str> = doc::texts(endpoint, "addresses").collect();
    let own = path.child("addresses");
    if addresses.is_empty() {
        errors.required(&own, "must contain at least 1 address");
    } else if addresses.len() > 100 {
        errors.too_many(&own, addresses.len(), 100);
    }
    let mut seen = BTreeSet::new();
    for (i, address) in addresses.iter().enumerate() {
        let path = own.index(i);
        if !seen.insert(address) {
            errors.duplicate(&path, *address);
        }
        let parsed = address.parse::<IpAddr>();
        match kind {
            "IPv4" => {
                if !parsed.is_ok_and(|address| address.is_ipv4()) {
                    errors.invalid(&path, *address, "must be a valid IPv4 address");
                }
                non_special_ip(errors, address, &path);
            }
            "IPv6" => {
                if !parsed.is_ok_and(|address| address.is_ipv6()) {
                    errors.invalid(&path, *address, "must be a valid IPv6 address");
                }
                non_special_ip(errors, address, &path);
            }
            "FQDN" => {
                let name = address.strip_suffix('.').unwrap_or(address);
                if !name.contains('.') {
                    errors.invalid(
                        &path,
                        *address,
                        "should be a domain with at least two segments separated by dots",
                    );
                } else {
                    errors.all_invalid(&path, address, names::dns_subdomain(name));
                }
            }
            _ => {}
        }
    }
    if let Some(node) = doc::opt_text(endpoint, "nodeName") {
        errors.all_invalid(&path.child("nodeName"), node, names::dns_subdomain(node));
    }
    let topology: Vec<&str> = doc::entries(endpoint, "deprecatedTopology")
        .map(|(key, _)| key)
        .collect();
    if topology.len() > 16 {
        errors.too_many(&path.child("deprecatedTopology"), topology.len(), 16);
    }
    labels::labels(errors, endpoint, "deprecatedTopology", path);
    if let Some(host) = doc::opt_text(endpoint, "hostname") {
        errors.all_invalid(&path.child("hostname"), host, names::dns_label(host));
    }
    let zones = doc::list(doc::get(endpoint, "hints"), "forZones");
    let zones_path = path.child("hints").child("forZones");
    if zones.len() > 8 {
        errors.too_many(&zones_path, zones.len(), 8);
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, zone) in zones.iter().enumerate() {
        let name = doc::text(zone, "name");
        let path = zones_path.index(i).child("name");
        if !seen.insert(name) {
            errors.duplicate(&path, name);
        }
        errors.all_invalid(&path, name, names::label_value(name));
    }
}

fn slice_ports(errors: &mut Errors, document: &Value) {
    let ports = doc::list(document, "ports");
    let path = Path::new("ports");
    if ports.len() > 20_000 {
        errors.too_many(&path, ports.len(), 20_000);
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = doc::text(port, "name");
        if !name.is_empty() {
            errors.all_invalid(&path.child("name"), name, names::dns_label(name));
        }
        if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        if let Some(number) = doc::int(port, "port") {
            for complaint in names::port_number(number) {
                errors.invalid(&path.child("port"), number, complaint);
            }
        }
        errors.one_of(port, "protocol", &path, PROTOCOLS);
        if let Some(protocol) = doc::opt_text(port, "appProtocol") {
            errors.all_invalid(
                &path.child("appProtocol"),
                protocol,
                names::qualified_name(protocol),
            );
        }
    }
}

/// An EndpointSlice that replaces an older one.
pub(super) fn slice_update(errors: &mut Errors, new: &Value, old: &Value) {
    slice(errors, new);
    let kind = doc::text(new, "addressType");
    if kind != doc::text(old, "addressType") {
        errors.invalid(&Path::new("addressType"), kind, "field is immutable");
    }
}
