//! What happens to a document of a kind between the request and the store, beside defaults and validation.
//!
//! ```text
//! Context { now: String /* RFC 3339, whole seconds */, user: Option<UserInfo> }
//! prepare_for_create(gvk, document: &mut Value, &Context)            // metadata.uid, name and creationTimestamp are set already
//! prepare_for_update(gvk, new: &mut Value, old: &Value, subresource: Option<&str>, &Context)
//! canonicalize(gvk, document: &mut Value)                            // after validation
//! allow_create_on_update(gvk) -> bool
//! allow_unconditional_update(gvk) -> bool
//! graceful_period(gvk, object: &Value, requested: Option<i64>) -> Option<i64>
//! default_propagation(gvk) -> Propagation
//! deletion_returns_object(gvk) -> bool
//! reset_fields(gvk, subresource: Option<&str>) -> &'static [&'static [&'static str]]
//! warnings_on_create(gvk, &Value);  warnings_on_update(gvk, new, old);  warnings_on_delete(gvk, policy_given)  // Vec<String>
//! qos_class(pod_spec) -> &'static str
//! bind(pod: &mut Value, binding: &Value, &Context) -> Result<(), String>
//! scale::read(gvk, &Value) -> Option<Value>;  scale::write(gvk, &mut Value, scale: &Value) -> bool
//! ```

mod certificates;
mod pod;
mod rules;
pub mod scale;
mod service;
mod warnings;
mod workloads;

pub(crate) use workloads::TEMPLATE_GENERATION;

#[cfg(test)]
mod tests;

use orlop_core::auth::UserInfo;
use orlop_core::resource::GroupVersionKind;
use serde_json::Value;

pub use pod::{bind, qos_class};
pub use rules::{
    allow_create_on_update, allow_unconditional_update, default_propagation,
    deletion_returns_object, deprecation_warning, graceful_period, reset_fields,
};
pub use warnings::{warnings_on_create, warnings_on_delete, warnings_on_update};

use crate::{defaults, doc};

/// Who writes, and when.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The time of the request, RFC 3339 in whole seconds.
    pub now: String,
    /// The user behind the request, where there is one.
    pub user: Option<UserInfo>,
}

/// Kinds whose objects count the changes of their specification in `metadata.generation`.
fn has_generation(gvk: &GroupVersionKind) -> bool {
    matches!(
        (&*gvk.group, &*gvk.kind),
        ("", "Pod" | "PodTemplate" | "ReplicationController")
            | (
                "apps",
                "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet"
            )
            | ("batch", "Job" | "CronJob")
            | (
                "networking.k8s.io",
                "Ingress" | "IngressClass" | "NetworkPolicy"
            )
            | ("policy", "PodDisruptionBudget")
            | ("scheduling.k8s.io", "PriorityClass")
            | ("discovery.k8s.io", "EndpointSlice")
            | (
                "flowcontrol.apiserver.k8s.io",
                "FlowSchema" | "PriorityLevelConfiguration"
            )
            | ("resource.k8s.io", "ResourceSlice" | "DeviceClass")
    )
}

/// Brings a new document to the form in which it is stored: a status of its own is dropped, the generation starts, and each kind
/// adds what it adds. Name, uid and creation time are set before.
pub fn prepare_for_create(gvk: &GroupVersionKind, document: &mut Value, context: &Context) {
    let meta = doc::ensure_object(document, "metadata");
    doc::remove(meta, "generation");
    doc::remove(meta, "deletionTimestamp");
    doc::remove(meta, "deletionGracePeriodSeconds");
    doc::remove(meta, "selfLink");
    if has_generation(gvk) {
        doc::set(meta, "generation", 1);
    }
    // A node reports its status when it registers.
    if (&*gvk.group, &*gvk.kind) != ("", "Node")
        && let Some(zero) = defaults::zero_status(gvk)
    {
        doc::set(document, "status", zero);
    }
    match (&*gvk.group, &*gvk.kind) {
        ("", "Pod") => pod::create(document),
        ("", "Service") => service::create(document),
        ("", "ServiceAccount") => {
            for secret in doc::each_mut(document, "secrets") {
                let name = doc::text(secret, "name").to_owned();
                *secret = serde_json::json!({"name": name});
            }
        }
        ("", "Namespace") => {
            doc::set(doc::ensure_object(document, "status"), "phase", "Active");
            let spec = doc::ensure_object(document, "spec");
            let mut finalizers = doc::list(spec, "finalizers").to_vec();
            if !finalizers.iter().any(|name| name == "kubernetes") {
                finalizers.push("kubernetes".into());
                doc::set(spec, "finalizers", finalizers);
            }
        }
        ("", "PersistentVolume") => {
            let status = doc::ensure_object(document, "status");
            doc::set(status, "phase", "Pending");
            doc::set(status, "lastPhaseTransitionTime", context.now.clone());
        }
        ("", "PersistentVolumeClaim") => {
            doc::set(doc::ensure_object(document, "status"), "phase", "Pending");
            data_sources(doc::ensure_object(document, "spec"));
        }
        ("apps", "DaemonSet") => workloads::create_daemon_set(document),
        ("batch", "Job") => workloads::create_job(document),
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            certificates::create(document, context)
        }
        _ => {}
    }
}

/// A claim's two ways to name its source say the same.
fn data_sources(spec: &mut Value) {
    let (old, new) = (
        doc::get(spec, "dataSource").clone(),
        doc::get(spec, "dataSourceRef").clone(),
    );
    if old.is_object() && new.is_null() {
        doc::set(spec, "dataSourceRef", old);
    } else if old.is_null() && new.is_object() && doc::text(&new, "namespace").is_empty() {
        let mut source = new;
        doc::remove(&mut source, "namespace");
        let group = doc::text(&source, "apiGroup").to_owned();
        let kind = doc::text(&source, "kind").to_owned();
        if (group.is_empty() && kind == "PersistentVolumeClaim")
            || (group == "snapshot.storage.k8s.io" && kind == "VolumeSnapshot")
        {
            doc::set(spec, "dataSource", source);
        }
    }
}

/// Brings a document that replaces an older one to the form in which it is stored: through a subresource only its part changes,
/// through the object itself everything but the status, and the generation rises with the specification.
pub fn prepare_for_update(
    gvk: &GroupVersionKind,
    new: &mut Value,
    old: &Value,
    subresource: Option<&str>,
    context: &Context,
) {
    keep_identity(new, old);
    match ((&*gvk.group, &*gvk.kind), subresource) {
        (("", "Pod"), _) => pod::update(new, old, subresource),
        (("certificates.k8s.io", "CertificateSigningRequest"), _) => {
            certificates::update(new, old, subresource, context)
        }
        (("", "Namespace"), Some("finalize")) => doc::copy_field(new, old, "status"),
        (_, Some("status")) => status(gvk, new, old, context),
        (("", "Service"), None) => {
            doc::copy_field(new, old, "status");
            service::update(new, old);
        }
        (("", "Namespace"), None) => {
            let finalizers = doc::get(old, "spec");
            let spec = doc::ensure_object(new, "spec");
            doc::copy_field(spec, finalizers, "finalizers");
            doc::copy_field(new, old, "status");
        }
        (("", "PersistentVolumeClaim"), None) => {
            doc::copy_field(new, old, "status");
            data_sources(doc::ensure_object(new, "spec"));
        }
        (("apps", "DaemonSet"), None) => {
            doc::copy_field(new, old, "status");
            workloads::update_daemon_set(new, old);
        }
        (("", "ServiceAccount"), None) => {}
        _ => {
            if defaults::zero_status(gvk).is_some() {
                doc::copy_field(new, old, "status");
            }
        }
    }
    if has_generation(gvk)
        && !matches!(subresource, Some("status" | "binding"))
        && generation_rises(gvk, new, old)
    {
        let meta = doc::ensure_object(new, "metadata");
        let before = doc::int(doc::get(old, "metadata"), "generation").unwrap_or_default();
        doc::set(meta, "generation", before + 1);
    }
}

/// What an update can leave out, because it can't change.
fn keep_identity(new: &mut Value, old: &Value) {
    let old = doc::get(old, "metadata");
    let meta = doc::ensure_object(new, "metadata");
    doc::copy_field(meta, old, "generation");
    doc::remove(meta, "selfLink");
    for key in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        if doc::is_empty(doc::get(meta, key)) {
            doc::copy_field(meta, old, key);
        }
    }
}

fn generation_rises(gvk: &GroupVersionKind, new: &Value, old: &Value) -> bool {
    let changed = |key: &str| !doc::same(doc::get(new, key), doc::get(old, key));
    let meta_changed = |key: &str| {
        !doc::same(
            doc::at(new, &["metadata", key]),
            doc::at(old, &["metadata", key]),
        )
    };
    match (&*gvk.group, &*gvk.kind) {
        ("", "PodTemplate") => changed("template"),
        ("apps", "Deployment") => changed("spec") || meta_changed("annotations"),
        ("scheduling.k8s.io", "PriorityClass") => false,
        ("discovery.k8s.io", "EndpointSlice") => {
            changed("addressType")
                || changed("endpoints")
                || changed("ports")
                || meta_changed("labels")
        }
        _ => changed("spec"),
    }
}

/// An update of the status alone.
fn status(gvk: &GroupVersionKind, new: &mut Value, old: &Value, context: &Context) {
    doc::copy_field(new, old, "spec");
    match (&*gvk.group, &*gvk.kind) {
        ("apps", "Deployment") => doc::copy_field(
            doc::ensure_object(new, "metadata"),
            doc::get(old, "metadata"),
            "labels",
        ),
        ("", "PersistentVolume") => {
            let (phase, moment) = ("phase", "lastPhaseTransitionTime");
            let before = doc::get(old, "status");
            let after = doc::ensure_object(new, "status");
            let unset = doc::text(after, moment).is_empty()
                || doc::text(after, moment) == doc::text(before, moment);
            if doc::text(after, phase) != doc::text(before, phase) && unset {
                doc::set(after, moment, context.now.clone());
            }
        }
        _ => {}
    }
}

/// The last touch after validation: what follows from the rest of the object.
pub fn canonicalize(gvk: &GroupVersionKind, document: &mut Value) {
    if (&*gvk.group, &*gvk.kind) == ("", "Namespace") {
        let meta = doc::ensure_object(document, "metadata");
        let name = doc::text(meta, "name").to_owned();
        doc::set(
            doc::ensure_object(meta, "labels"),
            "kubernetes.io/metadata.name",
            name,
        );
    }
}
