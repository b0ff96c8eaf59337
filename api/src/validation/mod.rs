//! What Kubernetes refuses, kind by kind, in its order and its words.
//!
//! ```text
//! validate_create(gvk, document: &Value) -> Vec<FieldError>
//! validate_update(gvk, new: &Value, old: &Value, subresource: Option<&str>) -> Vec<FieldError>
//! ```
//!
//! Documents are in the form that [`defaults::apply`](crate::defaults::apply) and [`strategy`](crate::strategy) leave them in.
//! `managedFields` is the caller's to check.

mod autoscaling;
mod batch;
mod certificates;
mod config;
mod devices;
mod endpoints;
mod errors;
mod events;
mod flow_control;
pub(crate) mod labels;
mod limits;
pub(crate) mod meta;
pub(crate) mod names;
mod namespace;
mod network;
mod node;
mod pod;
mod policy;
mod rbac;
mod requests;
pub(crate) mod resources;
mod service;
mod storage;
mod workloads;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;

use orlop_core::field::{FieldError, Path};
use orlop_core::resource::GroupVersionKind;
use serde_json::Value;

use crate::doc;
use errors::Errors;
use meta::NameForm;

/// Complains about a document that is to be created; an empty list means that it is fine. Subresources that are posted
/// (`Binding`, `Eviction`, `TokenRequest`, `Scale`) are checked as kinds of their own. Kinds without checks of their own have their
/// metadata checked: as objects of a namespace where they name one, and of the cluster otherwise.
#[must_use]
pub fn validate_create(gvk: &GroupVersionKind, document: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let e = &mut errors;
    match (&*gvk.group, &*gvk.kind) {
        ("", "Pod") => pod::create(e, document),
        ("", "PodTemplate") => workloads::pod_template(e, document),
        ("", "ReplicationController") => workloads::replication_controller(e, document),
        ("", "Service") => service::create(e, document),
        ("", "Endpoints") => endpoints::endpoints(e, document),
        ("", "ConfigMap") => config::config_map(e, document),
        ("", "Secret") => config::secret(e, document),
        ("", "ServiceAccount") => meta::object_meta(e, document, true, NameForm::Subdomain),
        ("", "Namespace") => namespace::create(e, document),
        ("", "Node") => node::create(e, document),
        ("", "PersistentVolume") => storage::volume(e, document),
        ("", "PersistentVolumeClaim") => storage::claim(e, document),
        ("", "LimitRange") => limits::limit_range(e, document),
        ("", "ResourceQuota") => limits::quota(e, document),
        ("", "Event") => events::event(e, document),
        ("", "Binding") => pod::binding(e, document),
        ("events.k8s.io", "Event") => events::new_event(e, document),
        ("apps", "Deployment") => workloads::deployment(e, document),
        ("apps", "ReplicaSet") => workloads::replica_set(e, document),
        ("apps", "DaemonSet") => workloads::daemon_set(e, document),
        ("apps", "StatefulSet") => workloads::stateful_set(e, document),
        ("apps", "ControllerRevision") => workloads::controller_revision(e, document),
        ("batch", "Job") => batch::job(e, document),
        ("batch", "CronJob") => batch::cron_job(e, document),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaling::autoscaler(e, document, None),
        ("autoscaling", "Scale") => workloads::scale(e, document),
        ("discovery.k8s.io", "EndpointSlice") => endpoints::slice(e, document),
        ("networking.k8s.io", "NetworkPolicy") => network::policy(e, document, None),
        ("networking.k8s.io", "Ingress") => network::ingress(e, document),
        ("networking.k8s.io", "IngressClass") => network::ingress_class(e, document, None),
        ("networking.k8s.io", "IPAddress") => network::ip_address(e, document, None),
        ("networking.k8s.io", "ServiceCIDR") => network::service_cidr(e, document, None),
        ("rbac.authorization.k8s.io", "Role") => rbac::role(e, document, true),
        ("rbac.authorization.k8s.io", "ClusterRole") => rbac::role(e, document, false),
        ("rbac.authorization.k8s.io", "RoleBinding") => rbac::binding(e, document, true),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => rbac::binding(e, document, false),
        ("policy", "PodDisruptionBudget") => policy::disruption_budget(e, document, None),
        ("policy", "Eviction") => requests::eviction(e, document),
        ("scheduling.k8s.io", "PriorityClass") => policy::priority_class(e, document),
        ("node.k8s.io", "RuntimeClass") => policy::runtime_class(e, document, None),
        ("coordination.k8s.io", "Lease") => policy::lease(e, document, None),
        ("storage.k8s.io", "StorageClass") => storage::class(e, document),
        ("storage.k8s.io", "VolumeAttributesClass") => storage::attributes_class(e, document, None),
        ("storage.k8s.io", "CSIDriver") => storage::csi_driver(e, document, None),
        ("storage.k8s.io", "CSINode") => storage::csi_node(e, document, None),
        ("storage.k8s.io", "CSIStorageCapacity") => storage::csi_capacity(e, document, None),
        ("storage.k8s.io", "VolumeAttachment") => storage::attachment(e, document, None),
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            certificates::signing_request(e, document)
        }
        ("certificates.k8s.io", "ClusterTrustBundle") => {
            meta::object_meta(e, document, false, NameForm::TrustBundle);
        }
        ("authentication.k8s.io", "TokenRequest") => requests::token_request(e, document),
        ("authentication.k8s.io" | "authorization.k8s.io", _) => {}
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => flow_control::flow_schema(e, document),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => {
            flow_control::priority_level(e, document)
        }
        ("resource.k8s.io", "ResourceClaim") => {
            meta::object_meta(e, document, true, NameForm::Subdomain);
            devices::device_claim(e, doc::get(document, "spec"), &Path::new("spec"));
        }
        ("resource.k8s.io", "ResourceClaimTemplate") => {
            meta::object_meta(e, document, true, NameForm::Subdomain);
            devices::device_claim(
                e,
                doc::at(document, &["spec", "spec"]),
                &Path::new("spec").child("spec"),
            );
        }
        _ => {
            let namespaced = !doc::text(doc::get(document, "metadata"), "namespace").is_empty();
            meta::object_meta(e, document, namespaced, NameForm::Subdomain);
        }
    }
    errors.0
}

/// Complains about a document that is to replace `old`, through the object itself or one of its subresources; an empty list
/// means that it is fine.
#[must_use]
pub fn validate_update(
    gvk: &GroupVersionKind,
    new: &Value,
    old: &Value,
    subresource: Option<&str>,
) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let e = &mut errors;
    if subresource == Some("status") {
        status(e, gvk, new, old);
        return errors.0;
    }
    match (&*gvk.group, &*gvk.kind) {
        ("", "Pod") => match subresource {
            Some("ephemeralcontainers") => pod::ephemeral_containers(e, new, old),
            Some("resize") => pod::resize(e, new, old),
            _ => pod::update(e, new, old),
        },
        ("", "PodTemplate") => workloads::pod_template_update(e, new, old),
        ("", "ReplicationController") => workloads::replication_controller_update(e, new, old),
        ("", "Service") => service::update(e, new, old),
        ("", "ConfigMap") => config::config_map_update(e, new, old),
        ("", "Secret") => config::secret_update(e, new, old),
        ("", "Namespace") if subresource == Some("finalize") => namespace::finalize(e, new, old),
        ("", "Namespace") => meta::object_meta_update(e, new, old),
        ("", "Node") => node::update(e, new, old),
        ("", "PersistentVolume") => storage::volume_update(e, new, old),
        ("", "PersistentVolumeClaim") => storage::claim_update(e, new, old),
        ("", "LimitRange") => limits::limit_range(e, new),
        ("", "ResourceQuota") => limits::quota_update(e, new, old),
        ("", "Event") => events::event(e, new),
        ("events.k8s.io", "Event") => events::new_event_update(e, new, old),
        ("apps", "Deployment") => workloads::deployment_update(e, new, old),
        ("apps", "ReplicaSet") => workloads::replica_set_update(e, new, old),
        ("apps", "DaemonSet") => workloads::daemon_set_update(e, new, old),
        ("apps", "StatefulSet") => workloads::stateful_set_update(e, new, old),
        ("apps", "ControllerRevision") => workloads::controller_revision_update(e, new, old),
        ("batch", "Job") => batch::job_update(e, new, old),
        ("batch", "CronJob") => batch::cron_job_update(e, new, old),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaling::autoscaler(e, new, Some(old)),
        ("autoscaling", "Scale") => workloads::scale(e, new),
        ("discovery.k8s.io", "EndpointSlice") => {
            endpoints::slice_update(e, new, old);
            meta::object_meta_update(e, new, old);
        }
        ("networking.k8s.io", "NetworkPolicy") => network::policy(e, new, Some(old)),
        ("networking.k8s.io", "Ingress") => network::ingress_update(e, new, old),
        ("networking.k8s.io", "IngressClass") => network::ingress_class(e, new, Some(old)),
        ("rbac.authorization.k8s.io", kind @ ("Role" | "ClusterRole")) => {
            rbac::role_update(e, new, old, kind == "Role");
        }
        ("rbac.authorization.k8s.io", kind @ ("RoleBinding" | "ClusterRoleBinding")) => {
            rbac::binding_update(e, new, old, kind == "RoleBinding");
        }
        ("policy", "PodDisruptionBudget") => policy::disruption_budget(e, new, Some(old)),
        ("scheduling.k8s.io", "PriorityClass") => policy::priority_class_update(e, new, old),
        ("node.k8s.io", "RuntimeClass") => policy::runtime_class(e, new, Some(old)),
        ("coordination.k8s.io", "Lease") => policy::lease(e, new, Some(old)),
        ("storage.k8s.io", "StorageClass") => storage::class_update(e, new, old),
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            certificates::signing_request_update(e, new, old, subresource)
        }
        _ => {
            meta::object_meta_update(e, new, old);
            body_update(e, gvk, new, old);
        }
    }
    errors.0
}

/// Kinds whose update is checked like a new object, with the fields that stay compared to the older one.
fn body_update(e: &mut Errors, gvk: &GroupVersionKind, new: &Value, old: &Value) {
    match (&*gvk.group, &*gvk.kind) {
        ("", "Endpoints") => endpoints::endpoints(e, new),
        ("", "ServiceAccount") => meta::object_meta(e, new, true, NameForm::Subdomain),
        ("networking.k8s.io", "IPAddress") => network::ip_address(e, new, Some(old)),
        ("networking.k8s.io", "ServiceCIDR") => network::service_cidr(e, new, Some(old)),
        ("storage.k8s.io", "VolumeAttributesClass") => storage::attributes_class(e, new, Some(old)),
        ("storage.k8s.io", "CSIDriver") => storage::csi_driver(e, new, Some(old)),
        ("storage.k8s.io", "CSINode") => storage::csi_node(e, new, Some(old)),
        ("storage.k8s.io", "CSIStorageCapacity") => storage::csi_capacity(e, new, Some(old)),
        ("storage.k8s.io", "VolumeAttachment") => storage::attachment(e, new, Some(old)),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => flow_control::flow_schema(e, new),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => {
            flow_control::priority_level(e, new)
        }
        ("resource.k8s.io", "ResourceClaim" | "ResourceClaimTemplate") => {
            e.immutable(
                doc::get(new, "spec"),
                doc::get(old, "spec"),
                &Path::new("spec"),
            );
        }
        ("resource.k8s.io", "ResourceSlice") => {
            for key in ["driver", "nodeName"] {
                e.immutable(
                    doc::at(new, &["spec", key]),
                    doc::at(old, &["spec", key]),
                    &Path::new("spec").child(key),
                );
            }
            e.immutable(
                doc::at(new, &["spec", "pool", "name"]),
                doc::at(old, &["spec", "pool", "name"]),
                &Path::new("spec").child("pool").child("name"),
            );
        }
        _ => {}
    }
}

/// An update of the status alone.
fn status(e: &mut Errors, gvk: &GroupVersionKind, new: &Value, old: &Value) {
    match (&*gvk.group, &*gvk.kind) {
        ("", "Pod") => pod::status(e, new, old),
        ("", "Service") => service::status(e, new, old),
        ("", "Namespace") => namespace::status(e, new, old),
        ("", "Node") => node::update(e, new, old),
        ("", "PersistentVolumeClaim") => storage::claim_status(e, new, old),
        ("", "ResourceQuota") => limits::quota_status(e, new, old),
        ("", "ReplicationController") | ("apps", "ReplicaSet") => {
            workloads::replica_status(e, new, old)
        }
        ("apps", "Deployment") => workloads::deployment_status(e, new, old),
        ("apps", "DaemonSet") => workloads::daemon_set_status(e, new, old),
        ("apps", "StatefulSet") => workloads::stateful_set_status(e, new, old),
        ("batch", "Job") => batch::job_status(e, new, old),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaling::status(e, new, old),
        ("networking.k8s.io", "Ingress") => network::ingress_status(e, new, old),
        ("policy", "PodDisruptionBudget") => policy::disruption_budget_status(e, new, old),
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            certificates::signing_request_update(e, new, old, Some("status"));
        }
        _ => meta::object_meta_update(e, new, old),
    }
}
