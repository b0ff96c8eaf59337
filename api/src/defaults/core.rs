//! Defaults of the core group.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::pod;
use crate::doc;

/// Fills in the defaults of a core kind.
pub(super) fn apply(kind: &str, document: &mut Value) {
    match kind {
        "Pod" => pod::pod(document),
        "PodTemplate" => pod::template(document, "template"),
        "ReplicationController" => replication_controller(document),
        "Service" => service(document),
        "Secret" => {
            fold_string_data(document);
            doc::default_text(document, "type", "Opaque");
        }
        "PersistentVolume" => persistent_volume(document),
        "PersistentVolumeClaim" => claim(document),
        "Namespace" => namespace(document),
        "Node" => node(document),
        "Endpoints" => {
            for subset in doc::each_mut(document, "subsets") {
                doc::each_mut(subset, "ports")
                    .for_each(|port| doc::default_text(port, "protocol", "TCP"));
            }
        }
        "LimitRange" => {
            doc::each_mut(doc::ensure_object(document, "spec"), "limits")
                .for_each(limit_range_item);
        }
        "Event" => event(document),
        _ => {}
    }
}

fn replication_controller(document: &mut Value) {
    let labels = doc::at(document, &["spec", "template", "metadata", "labels"]).clone();
    let spec = doc::ensure_object(document, "spec");
    doc::default_to(spec, "replicas", 1);
    if doc::has(spec, "template") {
        pod::template(spec, "template");
    }
    if labels.is_object() {
        if doc::is_empty(doc::get(spec, "selector")) {
            doc::set(spec, "selector", labels.clone());
        }
        let meta = doc::ensure_object(document, "metadata");
        if doc::is_empty(doc::get(meta, "labels")) {
            doc::set(meta, "labels", labels);
        }
    }
}

fn service(document: &mut Value) {
    let spec = doc::ensure_object(document, "spec");
    doc::default_text(spec, "sessionAffinity", "None");
    match doc::text(spec, "sessionAffinity") {
        "None" => {
            doc::remove(spec, "sessionAffinityConfig");
        }
        "ClientIP"
            if doc::at(
                spec,
                &["sessionAffinityConfig", "clientIP", "timeoutSeconds"],
            )
            .is_null() =>
        {
            doc::set(
                spec,
                "sessionAffinityConfig",
                serde_json::json!({"clientIP": {"timeoutSeconds": 10_800}}),
            );
        }
        _ => {}
    }
    doc::default_text(spec, "type", "ClusterIP");
    for port in doc::each_mut(spec, "ports") {
        doc::default_text(port, "protocol", "TCP");
        if doc::opt_text(port, "name") == Some("") {
            doc::remove(port, "name");
        }
        let target = doc::get(port, "targetPort");
        if doc::is_empty(target) || target == 0 {
            let number = doc::get(port, "port").clone();
            doc::set(port, "targetPort", number);
        }
    }
    let kind = doc::text(spec, "type").to_owned();
    let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && !doc::list(spec, "externalIPs").is_empty());
    if external {
        doc::default_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        doc::default_to(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        doc::default_to(spec, "allocateLoadBalancerNodePorts", true);
        let status = doc::ensure_object(document, "status");
        for ingress in doc::each_mut(doc::ensure_object(status, "loadBalancer"), "ingress") {
            if !doc::text(ingress, "ip").is_empty() {
                doc::default_to(ingress, "ipMode", "VIP");
            }
        }
    }
}

fn persistent_volume(document: &mut Value) {
    let spec = doc::ensure_object(document, "spec");
    doc::default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    doc::default_to(spec, "volumeMode", "Filesystem");
    if doc::opt_text(spec, "storageClassName") == Some("") {
        doc::remove(spec, "storageClassName");
    }
    pod::storage_source(spec);
    doc::default_text(doc::ensure_object(document, "status"), "phase", "Pending");
}

/// A claim, also as a template in a StatefulSet.
pub(super) fn claim(document: &mut Value) {
    let spec = doc::ensure_object(document, "spec");
    doc::default_to(spec, "volumeMode", "Filesystem");
    doc::ensure_object(spec, "resources");
    doc::default_text(doc::ensure_object(document, "status"), "phase", "Pending");
}

fn namespace(document: &mut Value) {
    let name = doc::text(doc::get(document, "metadata"), "name").to_owned();
    if !name.is_empty() {
        let labels = doc::ensure_object(doc::ensure_object(document, "metadata"), "labels");
        doc::set(labels, "kubernetes.io/metadata.name", name);
    }
    doc::default_text(doc::ensure_object(document, "status"), "phase", "Active");
}

fn node(document: &mut Value) {
    let status = doc::ensure_object(document, "status");
    if doc::has(status, "capacity") {
        let capacity = doc::get(status, "capacity").clone();
        doc::default_to(status, "allocatable", capacity);
    }
    for condition in doc::each_mut(status, "conditions") {
        doc::default_to(condition, "lastHeartbeatTime", Value::Null);
        doc::default_to(condition, "lastTransitionTime", Value::Null);
    }
    let spec = doc::ensure_object(document, "spec");
    let (one, many) = (
        doc::text(spec, "podCIDR").to_owned(),
        doc::list(spec, "podCIDRs").to_vec(),
    );
    if !one.is_empty() && many.is_empty() {
        doc::set(spec, "podCIDRs", vec![one]);
    } else if let (true, Some(first)) = (one.is_empty(), many.into_iter().next()) {
        doc::set(spec, "podCIDR", first);
    }
    for taint in doc::each_mut(spec, "taints") {
        if doc::opt_text(taint, "value") == Some("") {
            doc::remove(taint, "value");
        }
    }
}

fn limit_range_item(item: &mut Value) {
    if doc::text(item, "type") != "Container" {
        return;
    }
    for (to, from) in [
        ("default", "max"),
        ("defaultRequest", "default"),
        ("defaultRequest", "min"),
    ] {
        let source: Vec<(String, Value)> = doc::entries(item, from)
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect();
        if !source.is_empty() {
            let target = doc::ensure_object(item, to);
            for (name, value) in source {
                doc::default_to(target, &name, value);
            }
        }
    }
}

fn event(document: &mut Value) {
    for key in ["involvedObject", "source"] {
        doc::ensure_object(document, key);
    }
    for key in ["firstTimestamp", "lastTimestamp", "eventTime"] {
        doc::default_to(document, key, Value::Null);
    }
    for key in ["reportingComponent", "reportingInstance"] {
        doc::default_to(document, key, "");
    }
}

/// `stringData` is only ever written: its texts become entries of `data`.
fn fold_string_data(document: &mut Value) {
    let Some(strings) = doc::remove(document, "stringData") else {
        return;
    };
    let Some(strings) = strings.as_object().filter(|strings| !strings.is_empty()) else {
        return;
    };
    let data = doc::ensure_object(document, "data");
    for (key, value) in strings {
        doc::set(
            data,
            key,
            STANDARD.encode(value.as_str().unwrap_or_default()),
        );
    }
}
