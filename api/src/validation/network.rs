//! `networking.k8s.io`: NetworkPolicies, Ingresses and their classes, IP addresses and the ranges of Services.

use std::net::IpAddr;

use orlop_core::field::Path;
use serde_json::Value;

use super::errors::Errors;
use super::meta::{self, NameForm};
use super::pod::probes;
use super::{labels, names, service};
use crate::doc;

/// A NetworkPolicy; `old` where it replaces one.
pub(super) fn policy(errors: &mut Errors, document: &Value, old: Option<&Value>) {
    match old {
        None => meta::object_meta(errors, document, true, NameForm::Subdomain),
        Some(old) => meta::object_meta_update(errors, document, old),
    }
    let spec = doc::get(document, "spec");
    let path = Path::new("spec");
    labels::selector(errors, spec, "podSelector", &path);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in doc::list(spec, direction).iter().enumerate() {
            let path = path.child(direction).index(i);
            for (i, port) in doc::list(rule, "ports").iter().enumerate() {
                policy_port(errors, port, &path.child("ports").index(i));
            }
            for (i, peer) in doc::list(rule, peers).iter().enumerate() {
                policy_peer(errors, peer, &path.child(peers).index(i));
            }
        }
    }
    let types: Vec<&str> = doc::texts(spec, "policyTypes").collect();
    let path = path.child("policyTypes");
    if types.len() > 2 {
        errors.invalid(
            &path,
            doc::get(spec, "policyTypes").clone(),
            "may not specify more than two policyTypes",
        );
        return;
    }
    for (i, of) in types
        .iter()
        .enumerate()
        .filter(|(_, of)| !matches!(**of, "Ingress" | "Egress"))
    {
        errors.not_supported(&path.index(i), *of, &["Ingress", "Egress"]);
    }
}

fn policy_port(errors: &mut Errors, port: &Value, path: &Path) {
    errors.if_set_one_of(port, "protocol", path, &["SCTP", "TCP", "UDP"]);
    let number = doc::get(port, "port");
    let end = doc::int(port, "endPort");
    let end_path = path.child("endPort");
    if number.is_null() {
        if let Some(end) = end {
            errors.invalid(
                &end_path,
                end,
                "may not be specified when `port` is not specified",
            );
        }
        return;
    }
    match number {
        Value::String(name) => {
            if let Some(end) = end {
                errors.invalid(
                    &end_path,
                    end,
                    "may not be specified when `port` is non-numeric",
                );
            }
            errors.all_invalid(&path.child("port"), name, names::port_name(name));
        }
        other => {
            let number = other.as_i64().unwrap_or_default();
            for complaint in names::port_number(number) {
                errors.invalid(&path.child("port"), number, complaint);
            }
            if let Some(end) = end {
                if end < number {
                    errors.invalid(&end_path, end, "must be greater than or equal to `port`");
                }
                for complaint in names::port_number(end) {
                    errors.invalid(&end_path, end, complaint);
                }
            }
        }
    }
}

fn policy_peer(errors: &mut Errors, peer: &Value, path: &Path) {
    for key in ["podSelector", "namespaceSelector"] {
        labels::selector(errors, peer, key, path);
    }
    let block = doc::get(peer, "ipBlock");
    if !block.is_null() {
        ip_block(errors, block, &path.child("ipBlock"));
    }
    let peers = ["podSelector", "namespaceSelector", "ipBlock"]
        .iter()
        .filter(|key| doc::has(peer, key))
        .count();
    if peers == 0 {
        errors.required(path, "must specify a peer");
    } else if peers > 1 && !block.is_null() {
        errors.forbidden(path, "may not specify both ipBlock and another peer");
    }
}

fn ip_block(errors: &mut Errors, block: &Value, path: &Path) {
    let whole = doc::text(block, "cidr");
    if whole.is_empty() {
        errors.required(&path.child("cidr"), "");
        return;
    }
    errors.all_invalid(&path.child("cidr"), whole, names::cidr(whole));
    let Some((address, length)) = names::parse_cidr(whole) else {
        return;
    };
    for (i, except) in doc::texts(block, "except").enumerate() {
        let path = path.child("except").index(i);
        errors.all_invalid(&path, except, names::cidr(except));
        let Some((part, part_length)) = names::parse_cidr(except) else {
            continue;
        };
        let inside = part.is_ipv4() == address.is_ipv4()
            && names::masked(part, length) == names::masked(address, length);
        if !inside || length >= part_length {
            errors.invalid(&path, except, "must be a strict subset of `cidr`");
        }
    }
}

/// An Ingress.
pub(super) fn ingress(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    ingress_spec(errors, doc::get(document, "spec"));
    let key = "kubernetes.io/ingress.class";
    if let (Some(old), Some(class)) = (
        doc::annotation(document, key),
        doc::opt_text(doc::get(document, "spec"), "ingressClassName"),
    ) && old != class
    {
        errors.invalid(
            &Path::new("annotations").child(key),
            old,
            "must match `ingressClassName` when both are specified",
        );
    }
}

/// An Ingress that replaces an older one.
pub(super) fn ingress_update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    meta::object_meta(errors, new, true, NameForm::Subdomain);
    ingress_spec(errors, doc::get(new, "spec"));
}

fn ingress_spec(errors: &mut Errors, spec: &Value) {
    let path = Path::new("spec");
    let rules = doc::list(spec, "rules");
    let default = doc::get(spec, "defaultBackend");
    if rules.is_empty() && default.is_null() {
        errors.invalid(
            &path,
            doc::get(spec, "rules").clone(),
            "either `defaultBackend` or `rules` must be specified",
        );
    }
    if !default.is_null() {
        backend(errors, default, &path.child("defaultBackend"));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = path.child("rules").index(i);
        let host = doc::text(rule, "host");
        if !host.is_empty() {
            if host.parse::<IpAddr>().is_ok() {
                errors.invalid(
                    &path.child("host"),
                    host,
                    "must be a DNS name, not an IP address",
                );
            }
            host_name(errors, host, &path.child("host"));
        }
        let http = doc::get(rule, "http");
        if !http.is_null() {
            let path = path.child("http").child("paths");
            let paths = doc::list(http, "paths");
            if paths.is_empty() {
                errors.required(&path, "");
            }
            for (i, of) in paths.iter().enumerate() {
                http_path(errors, of, &path.index(i));
            }
        }
    }
    for (i, tls) in doc::list(spec, "tls").iter().enumerate() {
        let path = path.child("tls").index(i);
        for (i, host) in doc::texts(tls, "hosts").enumerate() {
            host_name(errors, host, &path.child("hosts").index(i));
        }
        let secret = doc::text(tls, "secretName");
        if !secret.is_empty() {
            errors.all_invalid(
                &path.child("secretName"),
                secret,
                names::dns_subdomain(secret),
            );
        }
    }
    if let Some(class) = doc::opt_text(spec, "ingressClassName") {
        errors.all_invalid(
            &path.child("ingressClassName"),
            class,
            names::dns_subdomain(class),
        );
    }
}

fn host_name(errors: &mut Errors, host: &str, path: &Path) {
    let complaints = if host.contains('*') {
        names::wildcard_subdomain(host)
    } else {
        names::dns_subdomain(host)
    };
    errors.all_invalid(path, host, complaints);
}

fn http_path(errors: &mut Errors, of: &Value, path: &Path) {
    const TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
    let text = doc::text(of, "path");
    let own = path.child("path");
    let Some(kind) = doc::opt_text(of, "pathType") else {
        errors.required(&path.child("pathType"), "pathType must be specified");
        return;
    };
    match kind {
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                errors.invalid(&own, text, "must be an absolute path");
            }
            if !text.is_empty() {
                for bad in ["//", "/./", "/../", "%2f", "%2F"] {
                    if text.contains(bad) {
                        errors.invalid(&own, text, format!("must not contain '{bad}'"));
                    }
                }
                for bad in ["/..", "/."] {
                    if text.ends_with(bad) {
                        errors.invalid(&own, text, format!("cannot end with '{bad}'"));
                    }
                }
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                errors.invalid(&own, text, "must be an absolute path");
            }
        }
        other => errors.not_supported(&path.child("pathType"), other, TYPES),
    }
    backend(errors, doc::get(of, "backend"), &path.child("backend"));
}

fn backend(errors: &mut Errors, backend: &Value, path: &Path) {
    let (resource, service) = (doc::get(backend, "resource"), doc::get(backend, "service"));
    match (resource.is_null(), service.is_null()) {
        (false, false) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (false, true) => {
            let path = path.child("resource");
            errors.need_text(resource, "kind", &path);
            errors.need_text(resource, "name", &path);
            let group = doc::text(resource, "apiGroup");
            if !group.is_empty() {
                errors.all_invalid(&path.child("apiGroup"), group, names::dns_subdomain(group));
            }
        }
        (true, false) => service_backend(errors, service, &path.child("service")),
        (true, true) => errors.required(
            &path.child("service"),
            "resource or service backend is required",
        ),
    }
}

fn service_backend(errors: &mut Errors, service: &Value, path: &Path) {
    let name = doc::text(service, "name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.all_invalid(&path.child("name"), name, names::dns1035_label(name));
    }
    let port = doc::get(service, "port");
    let own = path.child("port");
    let (number, named) = (
        doc::int(port, "number").unwrap_or_default(),
        doc::text(port, "name"),
    );
    if number != 0 && !named.is_empty() {
        errors.invalid(&own, "", "cannot set both port name & port number");
    } else if !named.is_empty() {
        errors.all_invalid(&own.child("name"), named, names::port_name(named));
    } else if number == 0 && port.get("number").is_none() {
        errors.required(&own, "port name or number is required");
    } else {
        probes::port(errors, doc::get(port, "number"), &own.child("number"));
    }
}

/// The status of an Ingress.
pub(super) fn ingress_status(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    let path = Path::new("status").child("loadBalancer").child("ingress");
    for (i, ingress) in doc::list(doc::at(new, &["status", "loadBalancer"]), "ingress")
        .iter()
        .enumerate()
    {
        let path = path.index(i);
        let address = doc::text(ingress, "ip");
        if !address.is_empty() {
            errors.all_invalid(&path.child("ip"), address, names::ip(address));
        }
        service::host_name(errors, ingress, &path);
    }
}

/// An IngressClass; `old` where it replaces one.
pub(super) fn ingress_class(errors: &mut Errors, document: &Value, old: Option<&Value>) {
    match old {
        None => meta::object_meta(errors, document, false, NameForm::Subdomain),
        Some(old) => meta::object_meta_update(errors, document, old),
    }
    let spec = doc::get(document, "spec");
    let path = Path::new("spec");
    let controller = doc::text(spec, "controller");
    if let Some(old) = old
        && controller != doc::text(doc::get(old, "spec"), "controller")
    {
        errors.invalid(&path.child("controller"), controller, "field is immutable");
    }
    if controller.len() > 250 {
        errors.too_long(&path.child("controller"), 250);
    }
    if controller.is_empty() {
        errors.required(&path.child("controller"), "");
    } else {
        for (value, complaint) in names::domain_prefixed_path(controller) {
            errors.invalid(&path.child("controller"), value, complaint);
        }
    }
    let parameters = doc::get(spec, "parameters");
    if parameters.is_null() {
        return;
    }
    let path = path.child("parameters");
    errors.need_text(parameters, "kind", &path);
    errors.need_text(parameters, "name", &path);
    let group = doc::text(parameters, "apiGroup");
    if !group.is_empty() {
        errors.all_invalid(&path.child("apiGroup"), group, names::dns_subdomain(group));
    }
    let namespace = doc::opt_text(parameters, "namespace");
    match doc::text(parameters, "scope") {
        "" => errors.required(&path.child("scope"), ""),
        "Namespace" => match namespace {
            None => errors.required(
                &path.child("namespace"),
                "`parameters.scope` is set to 'Namespace'",
            ),
            Some(namespace) => {
                errors.all_invalid(
                    &path.child("namespace"),
                    namespace,
                    names::dns_label(namespace),
                );
            }
        },
        "Cluster" => {
            if namespace.is_some() {
                errors.forbidden(
                    &path.child("namespace"),
                    "`parameters.scope` is set to 'Cluster'",
                );
            }
        }
        other => errors.not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]),
    }
}

/// An IPAddress; `old` where it replaces one.
pub(super) fn ip_address(errors: &mut Errors, document: &Value, old: Option<&Value>) {
    meta::object_meta(errors, document, false, NameForm::Ip);
    let spec = doc::get(document, "spec");
    let path = Path::new("spec").child("parentRef");
    let parent = doc::get(spec, "parentRef");
    if parent.is_null() {
        errors.required(&path, "");
        return;
    }
    let group = doc::text(parent, "group");
    if !group.is_empty() {
        errors.all_invalid(&path.child("group"), group, names::dns_subdomain(group));
    }
    for key in ["resource", "name"] {
        let value = doc::text(parent, key);
        if value.is_empty() {
            errors.required(&path.child(key), "");
        } else {
            errors.all_invalid(&path.child(key), value, names::path_segment(value));
        }
    }
    if let Some(old) = old
        && !doc::same(parent, doc::at(old, &["spec", "parentRef"]))
    {
        errors.invalid(&path, parent.clone(), "field is immutable");
    }
}

/// A ServiceCIDR; `old` where it replaces one.
pub(super) fn service_cidr(errors: &mut Errors, document: &Value, old: Option<&Value>) {
    meta::object_meta(errors, document, false, NameForm::Subdomain);
    let spec = doc::get(document, "spec");
    let path = Path::new("spec").child("cidrs");
    let ranges: Vec<&str> = doc::texts(spec, "cidrs").collect();
    if ranges.is_empty() {
        errors.required(&path, "at least one CIDR required");
        return;
    }
    if ranges.len() > 2 {
        errors.invalid(
            &path,
            doc::get(spec, "cidrs").clone(),
            "may only hold up to 2 values",
        );
    }
    if ranges.len() == 2 {
        let v6 = ranges.iter().filter(|range| range.contains(':')).count();
        if v6 != 1 {
            errors.invalid(
                &path,
                doc::get(spec, "cidrs").clone(),
                "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
            );
        }
    }
    for (i, range) in ranges.iter().enumerate() {
        let path = path.index(i);
        errors.all_invalid(&path, range, names::cidr(range));
        if let Some((address, length)) = names::parse_cidr(range)
            && names::masked(address, length) != names::address_bits(address)
        {
            errors.invalid(
                &path,
                *range,
                "must not have bits set beyond the prefix length",
            );
        }
    }
    if let Some(old) = old {
        errors.immutable(
            doc::get(spec, "cidrs"),
            doc::at(old, &["spec", "cidrs"]),
            &path,
        );
    }
}
