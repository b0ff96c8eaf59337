//! Services: their two forms of cluster IP agree, values once allocated stay, and what only made sense for another type goes.

use serde_json::Value;

use crate::doc;

/// A service that is created.
pub(super) fn create(document: &mut Value) {
    let spec = doc::ensure_object(document, "spec");
    let address = doc::text(spec, "clusterIP").to_owned();
    if !address.is_empty() && doc::list(spec, "clusterIPs").is_empty() {
        doc::set(spec, "clusterIPs", vec![address]);
    }
}

/// A service that replaces an older one.
pub(super) fn update(new: &mut Value, old: &Value) {
    let before = doc::get(old, "spec");
    let spec = doc::ensure_object(new, "spec");
    keep_allocated(spec, before);
    sync_cluster_ips(spec, before);
    drop_other_types(spec, before);
}

fn kind(spec: &Value) -> &str {
    doc::text(spec, "type")
}

fn needs_cluster_ip(spec: &Value) -> bool {
    matches!(kind(spec), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn needs_node_port(spec: &Value) -> bool {
    kind(spec) == "NodePort"
        || (kind(spec) == "LoadBalancer"
            && doc::opt_flag(spec, "allocateLoadBalancerNodePorts") != Some(false))
}

fn needs_health_check(spec: &Value) -> bool {
    kind(spec) == "LoadBalancer" && doc::text(spec, "externalTrafficPolicy") == "Local"
}

fn is_external(spec: &Value) -> bool {
    matches!(kind(spec), "NodePort" | "LoadBalancer")
        || (kind(spec) == "ClusterIP" && !doc::list(spec, "externalIPs").is_empty())
}

fn same(new: &Value, old: &Value, key: &str) -> bool {
    doc::same(doc::get(new, key), doc::get(old, key))
}

/// An update that leaves out what the server had filled in means to keep it.
fn keep_allocated(new: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        if doc::text(new, "clusterIP").is_empty() && doc::list(new, "clusterIPs").is_empty() {
            doc::copy_field(new, old, "clusterIP");
        }
        if doc::list(new, "clusterIPs").is_empty()
            && doc::text(new, "clusterIP") == doc::text(old, "clusterIP")
        {
            doc::copy_field(new, old, "clusterIPs");
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if doc::is_empty(doc::get(new, key)) && same(new, old, "clusterIPs") {
                doc::copy_field(new, old, key);
            }
        }
    }
    if needs_node_port(old) && needs_node_port(new) {
        let taken: Vec<i64> = doc::list(new, "ports")
            .iter()
            .filter_map(|port| doc::int(port, "nodePort"))
            .collect();
        for port in doc::each_mut(new, "ports") {
            if doc::int(port, "nodePort").unwrap_or_default() != 0 {
                continue;
            }
            let same_port = doc::list(old, "ports").iter().find(|other| {
                doc::text(other, "protocol") == doc::text(port, "protocol")
                    && doc::int(other, "port") == doc::int(port, "port")
            });
            if let Some(number) = same_port
                .and_then(|port| doc::int(port, "nodePort"))
                .filter(|number| *number != 0 && !taken.contains(number))
            {
                doc::set(port, "nodePort", number);
            }
        }
    }
    if needs_health_check(old)
        && needs_health_check(new)
        && doc::int(new, "healthCheckNodePort").unwrap_or_default() == 0
    {
        doc::copy_field(new, old, "healthCheckNodePort");
    }
}

/// Clients of old write `clusterIP`, those of today `clusterIPs`; whichever changed wins.
fn sync_cluster_ips(new: &mut Value, old: &Value) {
    let address = doc::text(new, "clusterIP").to_owned();
    let before = doc::text(old, "clusterIP");
    let list_same = same(new, old, "clusterIPs");
    if address.is_empty() {
        if !before.is_empty() && list_same {
            doc::remove(new, "clusterIPs");
        }
    } else if doc::list(new, "clusterIPs").is_empty() {
        if address == before {
            // Only the list was cleared.
            if !doc::list(old, "clusterIPs").is_empty() {
                doc::remove(new, "clusterIP");
            }
        } else {
            doc::set(new, "clusterIPs", vec![address]);
        }
    } else if address != before
        && list_same
        && let Some(first) = new.get_mut("clusterIPs").and_then(|list| list.get_mut(0))
    {
        *first = address.into();
    }
}

/// Values of a type that the service no longer has go with it, unless the same update changed them.
fn drop_other_types(new: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if same(new, old, "clusterIPs") && same(new, old, "clusterIP") {
            doc::remove(new, "clusterIP");
            doc::remove(new, "clusterIPs");
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if same(new, old, key) {
                doc::remove(new, key);
            }
        }
    }
    if needs_node_port(old) && !needs_node_port(new) {
        let numbers = |spec: &Value| -> Vec<i64> {
            let mut numbers: Vec<i64> = doc::list(spec, "ports")
                .iter()
                .filter_map(|port| doc::int(port, "nodePort"))
                .filter(|number| *number != 0)
                .collect();
            numbers.sort_unstable();
            numbers
        };
        if numbers(new) == numbers(old) {
            doc::each_mut(new, "ports").for_each(|port| {
                doc::remove(port, "nodePort");
            });
        }
    }
    if needs_health_check(old) && !needs_health_check(new) && same(new, old, "healthCheckNodePort")
    {
        doc::remove(new, "healthCheckNodePort");
    }
    if kind(old) == "LoadBalancer" && kind(new) != "LoadBalancer" {
        for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if same(new, old, key) {
                doc::remove(new, key);
            }
        }
    }
    if is_external(old) && !is_external(new) && same(new, old, "externalTrafficPolicy") {
        doc::remove(new, "externalTrafficPolicy");
    }
    if kind(new) == "ExternalName"
        && kind(old) != "ExternalName"
        && same(new, old, "internalTrafficPolicy")
    {
        doc::remove(new, "internalTrafficPolicy");
    }
}
