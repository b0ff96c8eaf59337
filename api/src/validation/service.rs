//! Services.

use std::collections::BTreeSet;

use orlop_core::field::Path;
use serde_json::Value;

use super::endpoints::non_special_ip;
use super::errors::Errors;
use super::meta::{self, NameForm};
use super::pod::probes::port;
use super::{labels, names};
use crate::doc;

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

fn is_headless(spec: &Value) -> bool {
    let addresses = doc::list(spec, "clusterIPs");
    addresses.len() == 1 && addresses[0] == "None"
}

/// A service.
pub(super) fn create(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Label1035);
    body(errors, document);
}

/// A service that replaces an older one.
pub(super) fn update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    let (new_spec, old_spec) = (doc::get(new, "spec"), doc::get(old, "spec"));
    cluster_ips_update(errors, new_spec, old_spec);
    families_update(errors, new_spec, old_spec);
    let load_balancer = |spec: &Value| doc::text(spec, "type") == "LoadBalancer";
    let path = Path::new("spec");
    let class = doc::get(new_spec, "loadBalancerClass");
    if load_balancer(old_spec)
        && load_balancer(new_spec)
        && class != doc::get(old_spec, "loadBalancerClass")
    {
        errors.invalid(
            &path.child("loadBalancerClass"),
            class.clone(),
            "may not change once set",
        );
    }
    load_balancer_class(errors, new_spec, &path);
    let port = |spec: &Value| doc::int(spec, "healthCheckNodePort").unwrap_or_default();
    if needs_health_check(old_spec)
        && needs_health_check(new_spec)
        && port(new_spec) != port(old_spec)
    {
        errors.forbidden(&path.child("healthCheckNodePort"), "field is immutable");
    }
    meta::object_meta(errors, new, true, NameForm::Label1035);
    body(errors, new);
}

fn body(errors: &mut Errors, document: &Value) {
    let spec = doc::get(document, "spec");
    let path = Path::new("spec");
    let kind = doc::text(spec, "type");
    let ports = doc::list(spec, "ports");
    let headless = is_headless(spec);
    topology_annotations(errors, document);
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.required(&path.child("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => errors.invalid(
            &path.child("clusterIPs").index(0),
            "None",
            format!("may not be set to 'None' for {kind} services"),
        ),
        "ExternalName" => external_name(errors, spec, &path),
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for (i, of) in ports.iter().enumerate() {
        one_port(
            errors,
            of,
            ports.len() > 1,
            &mut seen,
            &path.child("ports").index(i),
        );
    }
    labels::labels(errors, spec, "selector", &path);
    errors.one_of(spec, "sessionAffinity", &path, &["ClientIP", "None"]);
    session_affinity(errors, spec, &path);
    cluster_ips(errors, spec, &path);
    for (i, address) in doc::texts(spec, "externalIPs").enumerate() {
        let path = path.child("externalIPs").index(i);
        let complaints = names::ip(address);
        if complaints.is_empty() {
            non_special_ip(errors, address, &path);
        } else {
            errors.all_invalid(&path, address, complaints);
        }
    }
    errors.one_of(
        spec,
        "type",
        &path,
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
    );
    port_numbers(errors, spec, &path.child("ports"));
    source_ranges(errors, document, &path);
    if doc::has(spec, "allocateLoadBalancerNodePorts") && kind != "LoadBalancer" {
        errors.forbidden(
            &path.child("allocateLoadBalancerNodePorts"),
            "may only be used when `type` is 'LoadBalancer'",
        );
    }
    if kind == "LoadBalancer" && !doc::has(spec, "allocateLoadBalancerNodePorts") {
        errors.required(&Path::new("allocateLoadBalancerNodePorts"), "");
    }
    load_balancer_class(errors, spec, &path);
    traffic(errors, spec, &path);
}

fn topology_annotations(errors: &mut Errors, document: &Value) {
    let (old, new) = (
        "service.kubernetes.io/topology-aware-hints",
        "service.kubernetes.io/topology-mode",
    );
    if let (Some(hints), Some(mode)) = (
        doc::annotation(document, old),
        doc::annotation(document, new),
    ) && hints != mode
    {
        errors.invalid(
            &Path::new("metadata").child("annotations").key(new),
            mode,
            format!("must match annotations[{old}] when both are specified"),
        );
    }
}

fn external_name(errors: &mut Errors, spec: &Value, path: &Path) {
    for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if !doc::is_empty(doc::get(spec, key)) {
            errors.forbidden(&path.child(key), "may not be set for ExternalName services");
        }
    }
    let name = doc::text(spec, "externalName");
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errors.required(&path.child("externalName"), "");
    } else {
        errors.all_invalid(
            &path.child("externalName"),
            name,
            names::dns_subdomain(name),
        );
    }
}

fn one_port<'a>(
    errors: &mut Errors,
    of: &'a Value,
    named: bool,
    seen: &mut BTreeSet<&'a str>,
    path: &Path,
) {
    let name = doc::text(of, "name");
    if !name.is_empty() {
        errors.all_invalid(&path.child("name"), name, names::dns_label(name));
        if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
    } else if named {
        errors.required(&path.child("name"), "");
    }
    let number = doc::int(of, "port").unwrap_or_default();
    for complaint in names::port_number(number) {
        errors.invalid(&path.child("port"), number, complaint);
    }
    errors.one_of(of, "protocol", path, PROTOCOLS);
    port(
        errors,
        doc::get(of, "targetPort"),
        &path.child("targetPort"),
    );
    if let Some(protocol) = doc::opt_text(of, "appProtocol") {
        errors.all_invalid(
            &path.child("appProtocol"),
            protocol,
            names::qualified_name(protocol),
        );
    }
}

fn session_affinity(errors: &mut Errors, spec: &Value, path: &Path) {
    let path = path.child("sessionAffinityConfig");
    let config = doc::get(spec, "sessionAffinityConfig");
    match doc::text(spec, "sessionAffinity") {
        "ClientIP" => {
            const DETAIL: &str = "when session affinity type is ClientIP";
            let client = doc::get(config, "clientIP");
            let timeout = path.child("clientIP").child("timeoutSeconds");
            if config.is_null() {
                errors.required(&path, DETAIL);
            } else if client.is_null() {
                errors.required(&path.child("clientIP"), DETAIL);
            } else {
                match doc::int(client, "timeoutSeconds") {
                    None => errors.required(&timeout, DETAIL),
                    Some(seconds) if !(1..=86_400).contains(&seconds) => {
                        errors.invalid(
                            &timeout,
                            seconds,
                            "must be greater than 0 and less than 86400",
                        );
                    }
                    Some(_) => {}
                }
            }
        }
        "None" if !config.is_null() => {
            errors.forbidden(&path, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

fn cluster_ips(errors: &mut Errors, spec: &Value, path: &Path) {
    if doc::text(spec, "type") == "ExternalName" {
        return;
    }
    let own = path.child("clusterIPs");
    let value = || doc::get(spec, "clusterIPs").clone();
    let addresses: Vec<&str> = doc::texts(spec, "clusterIPs").collect();
    let first = doc::text(spec, "clusterIP");
    match (first.is_empty(), addresses.first()) {
        (false, None) => errors.required(&own, ""),
        (false, Some(other)) if *other != first => {
            errors.invalid(&own, value(), "first value must match `clusterIP`")
        }
        (true, Some(_)) => errors.invalid(
            &own,
            value(),
            "must be empty when `clusterIP` is not specified",
        ),
        _ => {}
    }
    let families: Vec<&str> = doc::texts(spec, "ipFamilies").collect();
    let mut seen = BTreeSet::new();
    for (i, family) in families.iter().enumerate() {
        let path = path.child("ipFamilies").index(i);
        if !matches!(*family, "IPv4" | "IPv6") {
            errors.not_supported(&path, *family, &["IPv4", "IPv6"]);
        }
        if !seen.insert(family) {
            errors.duplicate(&path, *family);
        }
    }
    errors.if_set_one_of(
        spec,
        "ipFamilyPolicy",
        path,
        &["PreferDualStack", "RequireDualStack", "SingleStack"],
    );
    let mut bad = false;
    for (i, address) in addresses.iter().enumerate() {
        if i == 0 && *address == "None" {
            if addresses.len() > 1 {
                bad = true;
                errors.invalid(&own, value(), "'None' must be the first and only value");
            }
            continue;
        }
        let complaints = names::ip(address);
        bad |= !complaints.is_empty();
        errors.all_invalid(&own.index(i), address, complaints);
    }
    if addresses.len() > 2 {
        errors.invalid(&own, value(), "may only hold up to 2 values");
    }
    if bad {
        return;
    }
    if addresses.len() > 1 {
        let v6 = addresses
            .iter()
            .filter(|address| names::is_ipv6(address))
            .count();
        if v6 == 0 || v6 == addresses.len() {
            errors.invalid(
                &own,
                value(),
                "may specify no more than one IP for each IP family",
            );
        }
    }
    if !is_headless(spec) {
        for (i, (address, family)) in addresses.iter().zip(&families).enumerate() {
            if (*family == "IPv6") != names::is_ipv6(address) && matches!(*family, "IPv4" | "IPv6")
            {
                errors.invalid(
                    &own.index(i),
                    *address,
                    format!("expected an {family} value as indicated by `ipFamilies[{i}]`"),
                );
            }
        }
    }
}

fn port_numbers(errors: &mut Errors, spec: &Value, path: &Path) {
    let ports = doc::list(spec, "ports");
    let node_port = |port: &Value| doc::int(port, "nodePort").unwrap_or_default();
    if doc::text(spec, "type") == "ClusterIP" {
        for (i, _) in ports
            .iter()
            .enumerate()
            .filter(|(_, port)| node_port(port) != 0)
        {
            errors.forbidden(
                &path.index(i).child("nodePort"),
                "may not be used when `type` is 'ClusterIP'",
            );
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports
        .iter()
        .enumerate()
        .filter(|(_, port)| node_port(port) != 0)
    {
        if !seen.insert((doc::text(port, "protocol"), node_port(port))) {
            errors.duplicate(&path.index(i).child("nodePort"), node_port(port));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let (protocol, number) = (
            doc::text(port, "protocol"),
            doc::int(port, "port").unwrap_or_default(),
        );
        if !seen.insert((protocol, number)) {
            errors.duplicate(&path.index(i), number);
            errors.show(format!(
                "{{\"Name\":\"\",\"Protocol\":\"{protocol}\",\"AppProtocol\":null,\"Port\":{number},\"TargetPort\":0,\
                 \"NodePort\":0}}"
            ));
        }
    }
}

fn source_ranges(errors: &mut Errors, document: &Value, path: &Path) {
    const DETAIL: &str = "may only be used when `type` is 'LoadBalancer'";
    const KEY: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let spec = doc::get(document, "spec");
    let load_balancer = doc::text(spec, "type") == "LoadBalancer";
    if !doc::list(spec, "loadBalancerSourceRanges").is_empty() {
        let path = path.child("LoadBalancerSourceRanges");
        if !load_balancer {
            errors.forbidden(&path, DETAIL);
        }
        for (i, range) in doc::texts(spec, "loadBalancerSourceRanges").enumerate() {
            let range = range.trim();
            errors.all_invalid(&path.index(i), range, names::cidr(range));
        }
    } else if let Some(ranges) = doc::annotation(document, KEY) {
        let path = Path::new("metadata").child("annotations").key(KEY);
        if !load_balancer {
            errors.forbidden(&path, DETAIL);
        }
        for range in ranges
            .trim()
            .split(',')
            .map(str::trim)
            .filter(|_| !ranges.trim().is_empty())
        {
            errors.all_invalid(&path, range, names::cidr(range));
        }
    }
}

fn load_balancer_class(errors: &mut Errors, spec: &Value, path: &Path) {
    let Some(class) = doc::opt_text(spec, "loadBalancerClass") else {
        return;
    };
    let path = path.child("loadBalancerClass");
    if doc::text(spec, "type") == "LoadBalancer" {
        errors.all_invalid(&path, class, names::qualified_name(class));
    } else {
        errors.forbidden(&path, "may only be used when `type` is 'LoadBalancer'");
    }
}

fn needs_health_check(spec: &Value) -> bool {
    doc::text(spec, "type") == "LoadBalancer" && doc::text(spec, "externalTrafficPolicy") == "Local"
}

fn traffic(errors: &mut Errors, spec: &Value, path: &Path) {
    let kind = doc::text(spec, "type");
    let external = matches!(kind, "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && !doc::list(spec, "externalIPs").is_empty());
    if external {
        errors.one_of(spec, "externalTrafficPolicy", path, &["Cluster", "Local"]);
    } else if let Some(policy) =
        doc::opt_text(spec, "externalTrafficPolicy").filter(|policy| !policy.is_empty())
    {
        errors.invalid(
            &path.child("externalTrafficPolicy"),
            policy,
            "may only be set for externally-accessible services",
        );
    }
    let health = doc::int(spec, "healthCheckNodePort").unwrap_or_default();
    if !needs_health_check(spec) && health != 0 {
        errors.invalid(
            &path.child("healthCheckNodePort"),
            health,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        );
    } else if health != 0 {
        for complaint in names::port_number(health) {
            errors.invalid(&path.child("healthCheckNodePort"), health, complaint);
        }
    }
    if !doc::has(spec, "internalTrafficPolicy")
        && matches!(kind, "NodePort" | "LoadBalancer" | "ClusterIP")
    {
        errors.required(&path.child("internalTrafficPolicy"), "");
    }
    errors.if_set_one_of(spec, "internalTrafficPolicy", path, &["Cluster", "Local"]);
    errors.if_set_one_of(
        spec,
        "trafficDistribution",
        path,
        &["PreferClose", "PreferSameNode", "PreferSameZone"],
    );
}

/// A second address may come and go; the first stays.
fn cluster_ips_update(errors: &mut Errors, new: &Value, old: &Value) {
    let external = |spec: &Value| doc::text(spec, "type") == "ExternalName";
    if external(new) || external(old) || (is_headless(new) && is_headless(old)) {
        return;
    }
    let path = Path::new("spec").child("clusterIPs");
    let value = || Value::Array(doc::list(new, "clusterIPs").to_vec());
    let (after, before): (Vec<&str>, Vec<&str>) = (
        doc::texts(new, "clusterIPs").collect(),
        doc::texts(old, "clusterIPs").collect(),
    );
    if before.len() == after.len() {
        for (i, _) in before
            .iter()
            .zip(&after)
            .enumerate()
            .filter(|(_, (before, after))| before != after)
        {
            errors.invalid(&path.index(i), value(), "may not change once set");
        }
        return;
    }
    if before.len() > after.len() && after.is_empty() {
        errors.invalid(
            &path.index(0),
            Value::Null,
            "primary clusterIP can not be unset",
        );
    }
    if let (Some(before), Some(after)) = (before.first(), after.first())
        && before != after
    {
        errors.invalid(&path.index(0), value(), "may not change once set");
    }
    if before.len() > after.len() && after.len() == 1 {
        released(errors, new, "clusterIP");
    }
}

fn released(errors: &mut Errors, new: &Value, what: &str) {
    let policy = doc::get(new, "ipFamilyPolicy");
    if policy != "SingleStack" {
        errors.invalid(
            &Path::new("spec").child("ipFamilyPolicy"),
            policy.clone(),
            format!("must be set to 'SingleStack' when releasing the secondary {what}"),
        );
    }
}

fn families_update(errors: &mut Errors, new: &Value, old: &Value) {
    let external = |spec: &Value| doc::text(spec, "type") == "ExternalName";
    if external(new) || external(old) || is_headless(new) || is_headless(old) {
        return;
    }
    let path = Path::new("spec").child("ipFamilies").index(0);
    let (after, before): (Vec<&str>, Vec<&str>) = (
        doc::texts(new, "ipFamilies").collect(),
        doc::texts(old, "ipFamilies").collect(),
    );
    let value = |key: &str| Value::Array(doc::list(new, key).to_vec());
    if before.len() == after.len() {
        for _ in before
            .iter()
            .zip(&after)
            .filter(|(before, after)| before != after)
        {
            errors.invalid(&path, value("ipFamilies"), "may not change once set");
        }
        return;
    }
    if before.len() > after.len() && doc::list(new, "clusterIPs").is_empty() {
        errors.invalid(
            &path,
            value("ipFamilies"),
            "primary ipFamily can not be unset",
        );
    }
    if let (Some(before), Some(after)) = (before.first(), after.first())
        && before != after
    {
        errors.invalid(&path, value("clusterIPs"), "may not change once set");
    }
    if before.len() > after.len() && after.len() == 1 {
        released(errors, new, "ipFamily");
    }
}

/// The status of a service.
pub(super) fn status(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    let status = doc::at(new, &["status", "loadBalancer"]);
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let ingresses = doc::list(status, "ingress");
    if doc::text(doc::get(new, "spec"), "type") != "LoadBalancer" && !ingresses.is_empty() {
        errors.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
        return;
    }
    for (i, ingress) in ingresses.iter().enumerate() {
        let path = path.index(i);
        let address = doc::text(ingress, "ip");
        if !address.is_empty() {
            errors.all_invalid(&path.child("ip"), address, names::ip(address));
        }
        match doc::opt_text(ingress, "ipMode") {
            None if !address.is_empty() => {
                errors.required(&path.child("ipMode"), "must be specified when `ip` is set");
            }
            Some(_) if address.is_empty() => {
                errors.forbidden(
                    &path.child("ipMode"),
                    "may not be specified when `ip` is not set",
                );
            }
            _ => errors.if_set_one_of(ingress, "ipMode", &path, &["Proxy", "VIP"]),
        }
        host_name(errors, ingress, &path);
    }
}

/// A host name at which a load balancer answers.
pub(super) fn host_name(errors: &mut Errors, ingress: &Value, path: &Path) {
    let name = doc::text(ingress, "hostname");
    if name.is_empty() {
        return;
    }
    errors.all_invalid(&path.child("hostname"), name, names::dns_subdomain(name));
    if name.parse::<std::net::IpAddr>().is_ok() {
        errors.invalid(
            &path.child("hostname"),
            name,
            "must be a DNS name, not an IP address",
        );
    }
}
