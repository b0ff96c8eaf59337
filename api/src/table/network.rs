//! Rows of services and what leads to them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::cells::{Context, NONE, UNKNOWN, UNSET, first_three, int_or_string, join};
use crate::doc;

pub(super) fn service(cx: &Context<'_>) -> Vec<Value> {
    let spec = cx.at(&["spec"]);
    let cluster_ip = doc::texts(spec, "clusterIPs").next().unwrap_or(NONE);
    let ports = join(doc::list(spec, "ports").iter().map(|port| {
        let (number, protocol) = (
            doc::int(port, "port").unwrap_or_default(),
            doc::text(port, "protocol"),
        );
        match doc::int(port, "nodePort") {
            Some(node_port @ 1..) => format!("{number}:{node_port}/{protocol}"),
            _ => format!("{number}/{protocol}"),
        }
    }));
    vec![
        cx.name(),
        doc::text(spec, "type").into(),
        cluster_ip.into(),
        external_ip(cx).into(),
        if ports.is_empty() {
            NONE.into()
        } else {
            ports.into()
        },
        cx.age(),
        cx.labels(&["spec", "selector"]),
    ]
}

fn external_ip(cx: &Context<'_>) -> String {
    let spec = cx.at(&["spec"]);
    let external: Vec<_> = doc::texts(spec, "externalIPs").collect();
    match doc::text(spec, "type") {
        "ClusterIP" | "NodePort" if external.is_empty() => NONE.to_owned(),
        "ClusterIP" | "NodePort" => join(external),
        "LoadBalancer" => {
            let balancer = balancer(cx);
            if balancer.is_empty() && external.is_empty() {
                return "<pending>".to_owned();
            }
            join(
                [balancer.as_str()]
                    .into_iter()
                    .filter(|b| !b.is_empty())
                    .chain(external),
            )
        }
        "ExternalName" => doc::text(spec, "externalName").to_owned(),
        _ => UNKNOWN.to_owned(),
    }
}

/// The addresses of a load balancer, sorted.
fn balancer(cx: &Context<'_>) -> String {
    let ingress = doc::list(cx.at(&["status", "loadBalancer"]), "ingress");
    let addresses: BTreeSet<_> = ingress
        .iter()
        .map(|point| [doc::text(point, "ip"), doc::text(point, "hostname")])
        .filter_map(|names| names.into_iter().find(|name| !name.is_empty()))
        .collect();
    join(addresses)
}

pub(super) fn endpoints(cx: &Context<'_>) -> Vec<Value> {
    let subsets = doc::list(cx.object, "subsets");
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = || {
            doc::list(subset, "addresses")
                .iter()
                .map(|address| doc::text(address, "ip"))
        };
        let ports = doc::list(subset, "ports");
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            let port = doc::int(port, "port").unwrap_or_default();
            all.extend(addresses().map(|ip| {
                if ip.contains(':') {
                    format!("[{ip}]:{port}")
                } else {
                    format!("{ip}:{port}")
                }
            }));
        }
    }
    let text = if subsets.is_empty() {
        NONE.to_owned()
    } else {
        first_three(&all)
    };
    vec![cx.name(), text.into(), cx.age()]
}

pub(super) fn endpoint_slice(cx: &Context<'_>) -> Vec<Value> {
    let ports: Vec<_> = doc::list(cx.object, "ports")
        .iter()
        .map(|port| {
            let number = int_or_string(doc::get(port, "port"));
            number.unwrap_or_else(|| doc::opt_text(port, "name").unwrap_or("*").to_owned())
        })
        .collect();
    let addresses: Vec<_> = doc::list(cx.object, "endpoints")
        .iter()
        .flat_map(|endpoint| doc::texts(endpoint, "addresses"))
        .collect();
    let or_unset = |text: String| -> Value {
        if text.is_empty() {
            UNSET.into()
        } else {
            text.into()
        }
    };
    vec![
        cx.name(),
        cx.text(&["addressType"]).into(),
        or_unset(first_three(&ports)),
        or_unset(first_three(&addresses)),
        cx.age(),
    ]
}

pub(super) fn ingress(cx: &Context<'_>) -> Vec<Value> {
    let spec = cx.at(&["spec"]);
    vec![
        cx.name(),
        doc::opt_text(spec, "ingressClassName")
            .unwrap_or(NONE)
            .into(),
        hosts(doc::list(spec, "rules")).into(),
        balancer(cx).into(),
        if doc::list(spec, "tls").is_empty() {
            "80"
        } else {
            "80, 443"
        }
        .into(),
        cx.age(),
    ]
}

/// The hosts of the rules. What is said to be more counts all rules, also those without a host.
fn hosts(rules: &[Value]) -> String {
    const SHOWN: usize = 3;
    let mut shown = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= shown.len() == SHOWN;
        let host = doc::text(rule, "host");
        if !more && !host.is_empty() {
            shown.push(host);
        }
    }
    if shown.is_empty() {
        return "*".to_owned();
    }
    let text = join(shown);
    if more {
        format!("{text} + {} more...", rules.len() - SHOWN)
    } else {
        text
    }
}

pub(super) fn ingress_class(cx: &Context<'_>) -> Vec<Value> {
    let parameters = cx.at(&["spec", "parameters"]);
    let text = if parameters.is_null() {
        NONE.to_owned()
    } else {
        let (kind, name) = (doc::text(parameters, "kind"), doc::text(parameters, "name"));
        match doc::opt_text(parameters, "apiGroup") {
            Some(group) => format!("{kind}.{group}/{name}"),
            None => format!("{kind}/{name}"),
        }
    };
    vec![
        cx.name(),
        cx.text(&["spec", "controller"]).into(),
        text.into(),
        cx.age(),
    ]
}

pub(super) fn network_policy(cx: &Context<'_>) -> Vec<Value> {
    vec![
        cx.name(),
        cx.selector_or_none(&["spec", "podSelector"]),
        cx.age(),
    ]
}

pub(super) fn service_cidr(cx: &Context<'_>) -> Vec<Value> {
    vec![
        cx.name(),
        join(doc::texts(cx.at(&["spec"]), "cidrs")).into(),
        cx.age(),
    ]
}

pub(super) fn ip_address(cx: &Context<'_>) -> Vec<Value> {
    let parent = cx.at(&["spec", "parentRef"]);
    let text = if parent.is_null() {
        NONE.to_owned()
    } else {
        let (resource, group) = (doc::text(parent, "resource"), doc::text(parent, "group"));
        let resource = if group.is_empty() {
            resource.to_owned()
        } else {
            format!("{resource}.{group}")
        };
        let names = [doc::text(parent, "namespace"), doc::text(parent, "name")];
        let mut text = resource.to_lowercase();
        for (at, name) in names.into_iter().enumerate() {
            if at == 1 || !name.is_empty() {
                text.push('/');
                text.push_str(name);
            }
        }
        text
    };
    // The age has no column, but Kubernetes sends it.
    vec![cx.name(), text.into(), cx.age()]
}
