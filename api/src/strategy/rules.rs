//! How a kind is written and deleted, where that is a plain fact.

use orlop_core::client::Propagation;
use orlop_core::resource::GroupVersionKind;
use serde_json::Value;

use crate::doc;

/// Whether a PUT to a name that is not there creates the object.
#[must_use]
pub fn allow_create_on_update(gvk: &GroupVersionKind) -> bool {
    matches!(
        (&*gvk.group, &*gvk.kind),
        ("", "Endpoints" | "Event" | "LimitRange")
            | ("events.k8s.io", "Event")
            | ("coordination.k8s.io", "Lease" | "LeaseCandidate")
            | ("rbac.authorization.k8s.io", _)
    )
}

/// Whether an update may come without a resourceVersion.
#[must_use]
pub fn allow_unconditional_update(gvk: &GroupVersionKind) -> bool {
    !matches!(
        (&*gvk.group, &*gvk.kind),
        ("policy", "PodDisruptionBudget")
            | (
                "coordination.k8s.io" | "flowcontrol.apiserver.k8s.io" | "node.k8s.io",
                _
            )
            | (
                "storage.k8s.io",
                "CSIDriver" | "CSINode" | "CSIStorageCapacity" | "VolumeAttachment"
            )
    )
}

/// How many seconds an object of a kind that stops gracefully has; `None` where objects of the kind go at once. For pods: what
/// was asked for, else their own grace period; none if they are on no node or have ended.
#[must_use]
pub fn graceful_period(
    gvk: &GroupVersionKind,
    object: &Value,
    requested: Option<i64>,
) -> Option<i64> {
    if (&*gvk.group, &*gvk.kind) != ("", "Pod") {
        return None;
    }
    let spec = doc::get(object, "spec");
    let period = requested
        .or_else(|| doc::int(spec, "terminationGracePeriodSeconds"))
        .unwrap_or_default();
    let ended = matches!(
        doc::text(doc::get(object, "status"), "phase"),
        "Failed" | "Succeeded"
    );
    Some(if doc::text(spec, "nodeName").is_empty() || ended {
        0
    } else if period < 0 {
        1
    } else {
        period
    })
}

/// What happens to dependents when a delete doesn't say. The versions that are older than garbage collection orphan them.
#[must_use]
pub fn default_propagation(gvk: &GroupVersionKind) -> Propagation {
    match (&*gvk.group, &*gvk.version, &*gvk.kind) {
        ("", "v1", "ReplicationController") | ("batch", "v1", "Job") => Propagation::Orphan,
        _ => Propagation::Background,
    }
}

/// Whether the answer to a DELETE that removed the object at once is the object; otherwise it is a `Status`.
#[must_use]
pub fn deletion_returns_object(gvk: &GroupVersionKind) -> bool {
    matches!(
        (&*gvk.group, &*gvk.kind),
        (
            "",
            "Pod"
                | "PodTemplate"
                | "Service"
                | "ServiceAccount"
                | "Namespace"
                | "ResourceQuota"
                | "PersistentVolume"
                | "PersistentVolumeClaim"
        ) | (
            "storage.k8s.io",
            "CSIDriver"
                | "CSINode"
                | "CSIStorageCapacity"
                | "StorageClass"
                | "VolumeAttachment"
                | "VolumeAttributesClass"
        ) | ("resource.k8s.io", _)
            | ("apiextensions.k8s.io", "CustomResourceDefinition")
    )
}

/// The fields that a write through this door can't change, so that a server-side apply doesn't come to own them.
#[must_use]
pub fn reset_fields(
    gvk: &GroupVersionKind,
    subresource: Option<&str>,
) -> &'static [&'static [&'static str]] {
    const STATUS: &[&[&str]] = &[&["status"]];
    const SPEC: &[&[&str]] = &[&["spec"]];
    match ((&*gvk.group, &*gvk.kind), subresource) {
        (("", "Pod"), Some("status")) => &[
            &["spec"],
            &["metadata", "deletionTimestamp"],
            &["metadata", "ownerReferences"],
        ],
        (("apps", "Deployment"), Some("status")) => &[&["spec"], &["metadata", "labels"]],
        (("certificates.k8s.io", "CertificateSigningRequest"), None) => &[&["spec"], &["status"]],
        (("certificates.k8s.io", "CertificateSigningRequest"), Some("status")) => &[&["spec"]],
        (("certificates.k8s.io", "CertificateSigningRequest"), Some("approval")) => {
            &[&["spec"], &["status", "certificate"]]
        }
        (_, Some("status")) => SPEC,
        (("", "Namespace"), Some("finalize"))
        | (("", "Pod"), Some("ephemeralcontainers" | "resize")) => STATUS,
        (_, Some(_)) => &[],
        (_, None) if crate::defaults::zero_status(gvk).is_some() => STATUS,
        _ => &[],
    }
}

/// What every use of a deprecated version is told.
#[must_use]
pub fn deprecation_warning(gvk: &GroupVersionKind) -> Option<&'static str> {
    match (&*gvk.group, &*gvk.version, &*gvk.kind) {
        ("", "v1", "ComponentStatus" | "ComponentStatusList") => {
            Some("v1 ComponentStatus is deprecated in v1.19+")
        }
        ("", "v1", "Endpoints" | "EndpointsList") => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        }
        _ => None,
    }
}
