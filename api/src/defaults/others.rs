//! Defaults of the smaller groups.

use orlop_core::resource::GroupVersionKind;
use serde_json::Value;

use crate::doc;

const RBAC: &str = "rbac.authorization.k8s.io";

/// Fills in the defaults of a kind of one of the smaller groups.
pub(super) fn apply(gvk: &GroupVersionKind, document: &mut Value) {
    match (&*gvk.group, &*gvk.kind) {
        ("networking.k8s.io", "NetworkPolicy") => network_policy(document),
        ("networking.k8s.io", "IngressClass") => {
            if let Some(parameters) =
                doc::object_mut(doc::ensure_object(document, "spec"), "parameters")
            {
                doc::default_to(parameters, "scope", "Cluster");
            }
        }
        (RBAC, "Role" | "ClusterRole") => {
            doc::default_to(document, "rules", Value::Null);
        }
        (RBAC, "RoleBinding" | "ClusterRoleBinding") => {
            doc::default_text(doc::ensure_object(document, "roleRef"), "apiGroup", RBAC);
            for subject in doc::each_mut(document, "subjects") {
                match doc::text(subject, "kind") {
                    "User" | "Group" => doc::default_text(subject, "apiGroup", RBAC),
                    _ => {
                        if doc::opt_text(subject, "apiGroup") == Some("") {
                            doc::remove(subject, "apiGroup");
                        }
                    }
                }
            }
        }
        ("storage.k8s.io", "StorageClass") => {
            doc::default_to(document, "reclaimPolicy", "Delete");
            doc::default_to(document, "volumeBindingMode", "Immediate");
        }
        ("storage.k8s.io", "CSIDriver") => csi_driver(document),
        ("scheduling.k8s.io", "PriorityClass") => {
            doc::default_to(document, "value", 0);
            doc::default_to(document, "preemptionPolicy", "PreemptLowerPriority");
        }
        ("discovery.k8s.io", "EndpointSlice") => {
            for port in doc::each_mut(document, "ports") {
                doc::default_to(port, "name", "");
                doc::default_to(port, "protocol", "TCP");
            }
            doc::default_to(document, "endpoints", Value::Null);
            doc::default_to(document, "ports", Value::Null);
            for endpoint in doc::each_mut(document, "endpoints") {
                doc::ensure_object(endpoint, "conditions");
            }
        }
        ("events.k8s.io", "Event") => {
            for key in ["regarding", "deprecatedSource"] {
                doc::ensure_object(document, key);
            }
            for key in [
                "eventTime",
                "deprecatedFirstTimestamp",
                "deprecatedLastTimestamp",
            ] {
                doc::default_to(document, key, Value::Null);
            }
        }
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => {
            doc::default_int(
                doc::ensure_object(document, "spec"),
                "matchingPrecedence",
                1000,
            );
        }
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => {
            priority_level(doc::ensure_object(document, "spec"));
        }
        ("resource.k8s.io", "ResourceClaim") => claim_spec(doc::ensure_object(document, "spec")),
        ("resource.k8s.io", "ResourceClaimTemplate") => {
            let template = doc::ensure_object(document, "spec");
            doc::ensure_object(template, "metadata");
            claim_spec(doc::ensure_object(template, "spec"));
        }
        ("resource.k8s.io", "ResourceSlice") => {
            for device in doc::each_mut(doc::ensure_object(document, "spec"), "devices") {
                doc::each_mut(device, "taints").for_each(|taint| {
                    doc::default_text(taint, "effect", "NoSchedule");
                });
            }
        }
        ("node.k8s.io", "RuntimeClass") => doc::default_to(document, "handler", ""),
        ("authentication.k8s.io", "TokenRequest") => {
            let spec = doc::ensure_object(document, "spec");
            doc::default_to(spec, "expirationSeconds", 3600);
            doc::default_to(spec, "audiences", Value::Null);
            doc::default_to(spec, "boundObjectRef", Value::Null);
        }
        _ => {}
    }
}

fn network_policy(document: &mut Value) {
    let spec = doc::ensure_object(document, "spec");
    doc::ensure_object(spec, "podSelector");
    for direction in ["ingress", "egress"] {
        for rule in doc::each_mut(spec, direction) {
            doc::each_mut(rule, "ports").for_each(|port| doc::default_to(port, "protocol", "TCP"));
        }
    }
    if doc::list(spec, "policyTypes").is_empty() {
        let mut types = vec!["Ingress"];
        if !doc::list(spec, "egress").is_empty() {
            types.push("Egress");
        }
        doc::set(spec, "policyTypes", types);
    }
}

fn csi_driver(document: &mut Value) {
    let spec = doc::ensure_object(document, "spec");
    doc::default_to(spec, "attachRequired", true);
    for key in [
        "podInfoOnMount",
        "storageCapacity",
        "requiresRepublish",
        "seLinuxMount",
    ] {
        doc::default_to(spec, key, false);
    }
    doc::default_to(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if doc::list(spec, "volumeLifecycleModes").is_empty() {
        doc::set(spec, "volumeLifecycleModes", vec!["Persistent"]);
    }
}

fn priority_level(spec: &mut Value) {
    if let Some(limited) = doc::object_mut(spec, "limited") {
        doc::default_to(limited, "nominalConcurrencyShares", 30);
        doc::default_to(limited, "lendablePercent", 0);
        if let Some(response) = doc::object_mut(limited, "limitResponse")
            && let Some(queuing) = doc::object_mut(response, "queuing")
        {
            doc::default_int(queuing, "queues", 64);
            doc::default_int(queuing, "handSize", 8);
            doc::default_int(queuing, "queueLengthLimit", 50);
        }
    }
    if let Some(exempt) = doc::object_mut(spec, "exempt") {
        doc::default_to(exempt, "nominalConcurrencyShares", 0);
        doc::default_to(exempt, "lendablePercent", 0);
    }
}

fn claim_spec(spec: &mut Value) {
    let devices = doc::ensure_object(spec, "devices");
    for request in doc::each_mut(devices, "requests") {
        if let Some(exactly) = doc::object_mut(request, "exactly") {
            device_request(exactly);
        }
        doc::each_mut(request, "firstAvailable").for_each(device_request);
    }
}

fn device_request(request: &mut Value) {
    doc::default_text(request, "allocationMode", "ExactCount");
    if doc::text(request, "allocationMode") == "ExactCount" {
        doc::default_int(request, "count", 1);
    }
    for toleration in doc::each_mut(request, "tolerations") {
        doc::default_text(toleration, "operator", "Equal");
    }
}
