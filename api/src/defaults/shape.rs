//! The shape of a document as Kubernetes' own encoder writes it: which empty fields are left out, and which are always there.
//!
//! The lists name fields that stand by value (not behind a pointer) and are left out when empty. A field that is not listed is
//! kept as it came, so that nothing with a meaning of its own (`automountServiceAccountToken: false`, a claim's
//! `storageClassName: ""`) can get lost.

use orlop_core::resource::GroupVersionKind;
use serde_json::{Map, Value, json};

use crate::doc;

/// The groups whose kinds are known here.
pub(super) fn is_built_in(group: &str) -> bool {
    !group.contains('.')
        && matches!(
            group,
            "" | "apps" | "batch" | "autoscaling" | "policy" | "extensions"
        )
        || group.ends_with(".k8s.io")
}

/// Lists and maps left out when empty.
const EMPTY_COLLECTIONS: &[&str] = &[
    "accessModes",
    "active",
    "add",
    "addresses",
    "aggregationRule",
    "allocatable",
    "annotations",
    "apiGroups",
    "args",
    "binaryData",
    "capacity",
    "claims",
    "clusterIPs",
    "command",
    "conditions",
    "containerStatuses",
    "data",
    "drop",
    "egress",
    "env",
    "envFrom",
    "ephemeralContainerStatuses",
    "ephemeralContainers",
    "except",
    "externalIPs",
    "finalizers",
    "from",
    "hard",
    "hostAliases",
    "hostIPs",
    "httpHeaders",
    "imagePullSecrets",
    "images",
    "ingress",
    "initContainerStatuses",
    "initContainers",
    "ipFamilies",
    "items",
    "labels",
    "limits",
    "loadBalancerSourceRanges",
    "managedFields",
    "matchExpressions",
    "matchFields",
    "matchLabels",
    "mountOptions",
    "nameservers",
    "nodeSelector",
    "nonResourceURLs",
    "notReadyAddresses",
    "overhead",
    "ownerReferences",
    "parameters",
    "podCIDRs",
    "podIPs",
    "policyTypes",
    "ports",
    "readinessGates",
    "requests",
    "resizePolicy",
    "resourceClaims",
    "resourceNames",
    "schedulingGates",
    "scopes",
    "searches",
    "secrets",
    "stringData",
    "subjects",
    "subsets",
    "supplementalGroups",
    "sysctls",
    "taints",
    "tls",
    "to",
    "tolerations",
    "topologySpreadConstraints",
    "used",
    "values",
    "volumeClaimTemplates",
    "volumeDevices",
    "volumeMounts",
    "volumes",
    "volumesAttached",
    "volumesInUse",
];

/// Texts left out when empty.
const EMPTY_TEXTS: &[&str] = &[
    "clusterIP",
    "claimRef",
    "dnsPolicy",
    "effect",
    "externalName",
    "externalTrafficPolicy",
    "generateName",
    "hostIP",
    "hostname",
    "image",
    "imagePullPolicy",
    "loadBalancerIP",
    "medium",
    "message",
    "namespace",
    "nodeName",
    "nominatedNodeName",
    "persistentVolumeReclaimPolicy",
    "phase",
    "podCIDR",
    "podIP",
    "priorityClassName",
    "providerID",
    "qosClass",
    "reason",
    "resourceVersion",
    "schedulerName",
    "selfLink",
    "serviceAccount",
    "serviceAccountName",
    "sessionAffinity",
    "subPath",
    "subPathExpr",
    "subdomain",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "uid",
    "volumeName",
    "workingDir",
];

/// Flags left out when false.
const FALSE_FLAGS: &[&str] = &[
    "globalDefault",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "paused",
    "publishNotReadyAddresses",
    "stdin",
    "stdinOnce",
    "tty",
    "unschedulable",
];

/// Numbers left out when zero.
const ZERO_NUMBERS: &[&str] = &[
    "active",
    "availableReplicas",
    "currentReplicas",
    "failed",
    "fullyLabeledReplicas",
    "generation",
    "healthCheckNodePort",
    "hostPort",
    "initialDelaySeconds",
    "minReadySeconds",
    "nodePort",
    "numberAvailable",
    "numberUnavailable",
    "observedGeneration",
    "readyReplicas",
    "succeeded",
    "unavailableReplicas",
    "updatedNumberScheduled",
    "updatedReplicas",
];

/// Maps whose entries are the user's own.
const OPAQUE: &[&str] = &[
    "annotations",
    "binaryData",
    "data",
    "labels",
    "matchLabels",
    "nodeSelector",
    "parameters",
    "stringData",
    "fieldsV1",
    "volumeAttributes",
    "options",
    "attributes",
    "extra",
];

/// Drops the empty fields that Kubernetes leaves out.
pub(super) fn drop_empty(gvk: &GroupVersionKind, document: &mut Value) {
    let keep: &[&str] = match (&*gvk.group, &*gvk.kind) {
        ("discovery.k8s.io", "EndpointSlice") => &["ports", "endpoints", "addresses"],
        ("apps", "StatefulSet") => &["availableReplicas"],
        ("autoscaling", "HorizontalPodAutoscaler") if gvk.version == "v1" => &["currentReplicas"],
        // Its data is a document of another kind.
        ("apps", "ControllerRevision") => &["data"],
        _ => &[],
    };
    let opaque_top = matches!((&*gvk.group, &*gvk.kind), ("apps", "ControllerRevision"));
    walk(document, keep, opaque_top);
    if matches!(
        (&*gvk.group, &*gvk.kind),
        ("", "Service" | "ReplicationController")
    ) && let Some(spec) = doc::object_mut(document, "spec")
    {
        let empty = doc::is_empty(doc::get(spec, "selector"));
        if empty {
            doc::remove(spec, "selector");
        }
    }
    if matches!((&*gvk.group, &*gvk.kind), ("apps", "Deployment"))
        && let Some(status) = doc::object_mut(document, "status")
        && doc::int(status, "replicas") == Some(0)
    {
        doc::remove(status, "replicas");
    }
}

fn walk(value: &mut Value, keep: &[&str], opaque_top: bool) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, keep, false)),
        Value::Object(fields) => walk_fields(fields, keep, opaque_top),
        _ => {}
    }
}

fn walk_fields(fields: &mut Map<String, Value>, keep: &[&str], opaque_top: bool) {
    fields.retain(|key, value| {
        let key = key.as_str();
        keep.contains(&key)
            || match value {
                Value::Array(items) if items.is_empty() => !EMPTY_COLLECTIONS.contains(&key),
                Value::Object(items) if items.is_empty() => !EMPTY_COLLECTIONS.contains(&key),
                Value::String(text) if text.is_empty() => !EMPTY_TEXTS.contains(&key),
                Value::Bool(false) => !FALSE_FLAGS.contains(&key),
                Value::Number(number) if number.as_i64() == Some(0) => !ZERO_NUMBERS.contains(&key),
                _ => true,
            }
    });
    for (key, value) in fields.iter_mut() {
        if OPAQUE.contains(&key.as_str()) || (opaque_top && key == "data") {
            continue;
        }
        if key == "volumeMounts" {
            for mount in value.as_array_mut().into_iter().flatten() {
                if doc::opt_flag(mount, "readOnly") == Some(false) {
                    doc::remove(mount, "readOnly");
                }
            }
        }
        walk(value, keep, false);
    }
}

/// Kinds with a `spec` that is always written.
const WITH_SPEC: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "Pod",
            "ReplicationController",
            "Service",
            "Node",
            "Namespace",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "LimitRange",
            "ResourceQuota",
        ],
    ),
    (
        "apps",
        &["Deployment", "ReplicaSet", "DaemonSet", "StatefulSet"],
    ),
    ("batch", &["Job", "CronJob"]),
    ("autoscaling", &["HorizontalPodAutoscaler"]),
    ("policy", &["PodDisruptionBudget"]),
    (
        "networking.k8s.io",
        &[
            "Ingress",
            "IngressClass",
            "NetworkPolicy",
            "ServiceCIDR",
            "IPAddress",
        ],
    ),
    ("coordination.k8s.io", &["Lease"]),
    ("certificates.k8s.io", &["CertificateSigningRequest"]),
    (
        "storage.k8s.io",
        &["CSIDriver", "CSINode", "VolumeAttachment"],
    ),
    (
        "flowcontrol.apiserver.k8s.io",
        &["FlowSchema", "PriorityLevelConfiguration"],
    ),
    (
        "resource.k8s.io",
        &[
            "ResourceClaim",
            "ResourceClaimTemplate",
            "ResourceSlice",
            "DeviceClass",
        ],
    ),
];

/// Puts the fields that are always written.
pub(super) fn always_written(gvk: &GroupVersionKind, document: &mut Value) {
    let with_spec = WITH_SPEC
        .iter()
        .any(|(group, kinds)| *group == gvk.group && kinds.contains(&&*gvk.kind));
    if with_spec {
        doc::ensure_object(document, "spec");
    }
    if let Some(zero) = zero_status(gvk) {
        fill(doc::ensure_object(document, "status"), &zero);
    }
}

fn fill(to: &mut Value, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        match value {
            Value::Object(_) => fill(doc::ensure_object(to, key), value),
            _ if to.get(key).is_none() => doc::set(to, key, value.clone()),
            _ => {}
        }
    }
}

/// The status of an object without one.
pub(super) fn zero_status(gvk: &GroupVersionKind) -> Option<Value> {
    Some(match (&*gvk.group, &*gvk.kind) {
        ("", "Service") | ("networking.k8s.io", "Ingress") => json!({"loadBalancer": {}}),
        ("", "ReplicationController") | ("apps", "ReplicaSet") => json!({"replicas": 0}),
        ("", "Node") => json!({
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "nodeInfo": {
                "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "",
                "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": "", "operatingSystem": "",
                "architecture": ""
            }
        }),
        (
            "",
            "Pod" | "Namespace" | "PersistentVolume" | "PersistentVolumeClaim" | "ResourceQuota",
        )
        | ("apps", "Deployment")
        | ("batch", "Job" | "CronJob")
        | ("networking.k8s.io", "ServiceCIDR")
        | ("certificates.k8s.io", "CertificateSigningRequest")
        | ("flowcontrol.apiserver.k8s.io", "FlowSchema" | "PriorityLevelConfiguration")
        | ("resource.k8s.io", "ResourceClaim") => json!({}),
        ("apps", "StatefulSet") => json!({"replicas": 0, "availableReplicas": 0}),
        ("apps", "DaemonSet") => json!({
            "currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0
        }),
        ("policy", "PodDisruptionBudget") => json!({
            "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0
        }),
        ("autoscaling", "HorizontalPodAutoscaler") if gvk.version == "v1" => {
            json!({"currentReplicas": 0, "desiredReplicas": 0})
        }
        ("autoscaling", "HorizontalPodAutoscaler") => {
            json!({"desiredReplicas": 0, "currentMetrics": null})
        }
        ("storage.k8s.io", "VolumeAttachment") => json!({"attached": false}),
        _ => return None,
    })
}
