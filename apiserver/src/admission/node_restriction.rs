//! A node writes what is its own, and nothing that would get it more.

use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest, ObjectReader};
use orlop_core::field::quote;
use orlop_core::object::Object;
use orlop_core::status::Status;
use serde_json::{Map, Value};

use super::certificates::subject;
use super::{Context, changed_keys};
use crate::authorization::node_name;
use crate::names::{NODES, PODS, STORAGE, list_at, text_at, text_field};
use crate::pod_references as references;

const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// The labels of Kubernetes' own domains that a node may set on itself.
const OWN_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// Keeps nodes to their own Node, Lease and CSINode and to the pods bound to them.
pub struct NodeRestriction {
    reader: Arc<dyn ObjectReader>,
}

impl NodeRestriction {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            reader: context.reader.clone(),
        }
    }

    async fn pod(&self, request: &AdmissionRequest, name: &str) -> Result<Object, Status> {
        let pod = self.reader.get(&PODS, &request.namespace, name).await;
        let pod = pod.map_err(|error| request.forbidden(&error.message))?;
        pod.ok_or_else(|| Status::not_found(&PODS, name))
    }

    async fn is_here(
        &self,
        request: &AdmissionRequest,
        name: &str,
        node: &str,
    ) -> Result<bool, Status> {
        let pod = self
            .pod(request, name)
            .await?
            .value()
            .map_err(Status::internal)?;
        Ok(text_at(&pod, "/spec/nodeName") == node)
    }

    async fn admit_pod(&self, request: &AdmissionRequest, node: &str) -> Result<(), Status> {
        let me = quote(node);
        match request.operation {
            AdmissionOperation::Create => self.admit_new_pod(request, node).await,
            AdmissionOperation::Delete => {
                if self.is_here(request, &request.name, node).await? {
                    return Ok(());
                }
                let why =
                    format!("node {me} can only delete pods with spec.nodeName set to itself");
                Err(request.forbidden(&why))
            }
            other => {
                let operation = quote(other.as_str());
                let why = format!(
                    "unexpected operation {operation}, node {me} can only create and delete mirror pods"
                );
                Err(request.forbidden(&why))
            }
        }
    }

    async fn admit_new_pod(&self, request: &AdmissionRequest, node: &str) -> Result<(), Status> {
        let (pod, me) = (&request.object, quote(node));
        let refuse = |why: &str| Err(request.forbidden(why));
        if !references::is_mirror(pod) {
            let mirror = quote(MIRROR);
            return refuse(&format!(
                "pod does not have {mirror} annotation, node {me} can only create mirror pods"
            ));
        }
        if text_at(pod, "/spec/nodeName") != node {
            return refuse(&format!(
                "node {me} can only create pods with spec.nodeName set to itself"
            ));
        }
        let owner = match list_at(pod, "/metadata/ownerReferences") {
            [] => {
                return refuse(&format!(
                    "node {me} can only create pods with an owner reference set to itself"
                ));
            }
            [owner] => owner,
            _ => {
                return refuse(&format!(
                    "node {me} can only create pods with a single owner reference set to itself"
                ));
            }
        };
        let is_self = text_field(owner, "apiVersion") == "v1"
            && text_field(owner, "kind") == "Node"
            && text_field(owner, "name") == node;
        if !is_self {
            return refuse(&format!(
                "node {me} can only create pods with an owner reference set to itself"
            ));
        }
        let flag = |field: &str| {
            owner
                .get(field)
                .and_then(Value::as_bool)
                .unwrap_or_default()
        };
        if !flag("controller") {
            return refuse(&format!(
                "node {me} can only create pods with a controller owner reference set to itself"
            ));
        }
        if flag("blockOwnerDeletion") {
            return refuse(&format!(
                "node {me} must not set blockOwnerDeletion on an owner reference"
            ));
        }
        let object = self.reader.get(&NODES, "", node).await;
        let object = object.map_err(|error| {
            request.forbidden(&format!(
                "error looking up node {node} to verify uid: {}",
                error.message
            ))
        })?;
        let object = object.ok_or_else(|| Status::not_found(&NODES, node))?;
        let uid = text_field(owner, "uid");
        if uid != object.uid() {
            return refuse(&format!(
                "node {node} UID mismatch: expected {uid} got {}",
                object.uid()
            ));
        }
        let may_not = |what: &str| {
            request.forbidden(&format!(
                "node {me} can not create pods that reference {what}"
            ))
        };
        if !text_at(pod, "/spec/serviceAccountName").is_empty() {
            return Err(may_not("a service account"));
        }
        if references::secrets(pod).next().is_some() {
            return Err(may_not("secrets"));
        }
        if references::config_maps(pod).next().is_some() {
            return Err(may_not("configmaps"));
        }
        if references::uses_trust_bundles(pod) {
            return Err(may_not("clustertrustbundles"));
        }
        if references::claims(pod).next().is_some() {
            return Err(may_not("persistentvolumeclaims"));
        }
        if !list_at(pod, "/spec/resourceClaims").is_empty() {
            return Err(may_not("resource claims"));
        }
        Ok(())
    }

    async fn admit_eviction(&self, request: &AdmissionRequest, node: &str) -> Result<(), Status> {
        if request.operation != AdmissionOperation::Create {
            return Err(request.forbidden(&format!(
                "unexpected operation {}",
                request.operation.as_str()
            )));
        }
        let named = text_at(&request.object, "/metadata/name");
        let name = if request.name.is_empty() {
            named
        } else {
            &request.name
        };
        if name.is_empty() {
            return Err(request.forbidden("could not determine pod from request data"));
        }
        if self.is_here(request, name, node).await? {
            return Ok(());
        }
        Err(request.forbidden(&format!(
            "node {node} can only evict pods with spec.nodeName set to itself"
        )))
    }

    async fn admit_token(&self, request: &AdmissionRequest, node: &str) -> Result<(), Status> {
        if request.operation != AdmissionOperation::Create || request.subresource != "token" {
            return Ok(());
        }
        let bound = request
            .object
            .pointer("/spec/boundObjectRef")
            .unwrap_or(&Value::Null);
        let (name, uid) = (text_field(bound, "name"), text_field(bound, "uid"));
        if text_field(bound, "apiVersion") != "v1"
            || text_field(bound, "kind") != "Pod"
            || name.is_empty()
        {
            return Err(request.forbidden("node requested token not bound to a pod"));
        }
        if uid.is_empty() {
            return Err(request.forbidden("node requested token with a pod binding without a uid"));
        }
        let pod = self.pod(request, name).await?;
        if uid != pod.uid() {
            return Err(request.forbidden(&format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            )));
        }
        let value = pod.value().map_err(Status::internal)?;
        if text_at(&value, "/spec/nodeName") != node {
            return Err(request
                .forbidden("node requested token bound to a pod scheduled on a different node"));
        }
        Ok(())
    }
}

/// Which of the changed labels a node must leave alone.
fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let labels = |object: &'_ Value| object.pointer("/metadata/labels").cloned();
    let (new, old) = (labels(new), labels(old));
    let within = |domain: &str, of: &str| {
        domain == of
            || domain
                .strip_suffix(of)
                .is_some_and(|rest| rest.ends_with('.'))
    };
    let changed = changed_keys(new.as_ref(), old.as_ref());
    let forbidden = changed.into_iter().filter(|label| {
        let domain = label.split_once('/').map_or("", |(domain, _)| domain);
        let restricted = within(domain, "node-restriction.kubernetes.io");
        let kubernetes = within(domain, "kubernetes.io") || within(domain, "k8s.io");
        let own = OWN_LABELS.contains(label)
            || within(domain, "kubelet.kubernetes.io")
            || within(domain, "node.kubernetes.io");
        restricted || (kubernetes && !own)
    });
    forbidden.map(str::to_owned).collect()
}

fn admit_node(request: &AdmissionRequest, node: &str) -> Result<(), Status> {
    let (new, old, me) = (&request.object, &*request.old_object, quote(node));
    let name = if request.name.is_empty() {
        text_at(new, "/metadata/name")
    } else {
        &request.name
    };
    if name != node {
        return Err(request.forbidden(&format!(
            "node {me} is not allowed to modify node {}",
            quote(name)
        )));
    }
    let source = |object: &'_ Value| {
        object
            .pointer("/spec/configSource")
            .filter(|source| !source.is_null())
            .cloned()
    };
    match request.operation {
        AdmissionOperation::Create => {
            if source(new).is_some() {
                let why =
                    format!("node {me} is not allowed to create pods with a non-nil configSource");
                return Err(request.forbidden(&why));
            }
            let labels = forbidden_labels(new, &Value::Null);
            if !labels.is_empty() {
                let labels = labels.join(", ");
                let why = format!("node {me} is not allowed to set the following labels: {labels}");
                return Err(request.forbidden(&why));
            }
        }
        AdmissionOperation::Update => {
            if source(new).is_some() && source(new) != source(old) {
                let why = format!(
                    "node {me} is not allowed to update configSource to a new non-nil configSource"
                );
                return Err(request.forbidden(&why));
            }
            if list_at(new, "/spec/taints") != list_at(old, "/spec/taints") {
                return Err(
                    request.forbidden(&format!("node {me} is not allowed to modify taints"))
                );
            }
            let labels = forbidden_labels(new, old);
            if !labels.is_empty() {
                return Err(request.forbidden(&format!(
                    "is not allowed to modify labels: {}",
                    labels.join(", ")
                )));
            }
        }
        _ => {}
    }
    Ok(())
}

fn admit_pod_status(request: &AdmissionRequest, node: &str) -> Result<(), Status> {
    let (new, old, me) = (&request.object, &*request.old_object, quote(node));
    if request.operation != AdmissionOperation::Update {
        return Err(request.forbidden(&format!(
            "unexpected operation {}",
            quote(request.operation.as_str())
        )));
    }
    if text_at(old, "/spec/nodeName") != node {
        let why = format!(
            "node {me} can only update pod status for pods with spec.nodeName set to itself"
        );
        return Err(request.forbidden(&why));
    }
    let labels = |object: &'_ Value| object.pointer("/metadata/labels").cloned();
    if !changed_keys(labels(new).as_ref(), labels(old).as_ref()).is_empty() {
        return Err(request.forbidden(&format!(
            "node {me} cannot update labels through pod status"
        )));
    }
    let claims = |object: &'_ Value| list_at(object, "/status/resourceClaimStatuses").to_vec();
    if claims(new) != claims(old) {
        return Err(request.forbidden(&format!("node {me} cannot update resource claim statues")));
    }
    let extended = |object: &'_ Value| {
        object
            .pointer("/status/extendedResourceClaimStatus")
            .filter(|v| !v.is_null())
            .cloned()
    };
    if extended(new) != extended(old) {
        return Err(request.forbidden(&format!(
            "node {me} cannot update extended resource claim status"
        )));
    }
    Ok(())
}

/// A node tells how far the growth of a claim is, and changes nothing else of it.
fn admit_claim_status(request: &AdmissionRequest, node: &str) -> Result<(), Status> {
    if request.subresource != "status" {
        return Err(request.forbidden("may only update PVC status"));
    }
    if request.operation != AdmissionOperation::Update {
        return Err(request.forbidden(&format!(
            "unexpected operation {}",
            quote(request.operation.as_str())
        )));
    }
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        let mut drop = |pointer: &str, fields: &[&str]| {
            if let Some(map) = claim.pointer_mut(pointer).and_then(Value::as_object_mut) {
                for field in fields {
                    map.remove(*field);
                }
            }
        };
        drop("/metadata", &["resourceVersion", "managedFields"]);
        drop(
            "/status",
            &[
                "capacity",
                "conditions",
                "allocatedResources",
                "allocatedResourceStatuses",
            ],
        );
        if claim
            .get("status")
            .and_then(Value::as_object)
            .is_some_and(Map::is_empty)
        {
            claim["status"] = Value::Null;
        }
        claim
    };
    let (new, old) = (rest(&request.object), rest(&request.old_object));
    if new == old {
        return Ok(());
    }
    let fields = changed_keys(Some(&new), Some(&old))
        .into_iter()
        .collect::<Vec<_>>()
        .join(", ");
    Err(request.forbidden(&format!(
        "node {} is not allowed to update fields other than status.capacity and status.conditions: {fields}",
        quote(node)
    )))
}

/// Whether a request is about the object that has the node's own name.
fn is_named(request: &AdmissionRequest, node: &str) -> bool {
    let named = text_at(&request.object, "/metadata/name");
    let name = if request.operation == AdmissionOperation::Create {
        named
    } else {
        &request.name
    };
    name == node
}

fn admit_lease(request: &AdmissionRequest, node: &str) -> Result<(), Status> {
    if request.namespace != LEASE_NAMESPACE {
        let why = format!(
            "can only access leases in the {} system namespace",
            quote(LEASE_NAMESPACE)
        );
        return Err(request.forbidden(&why));
    }
    if is_named(request, node) {
        return Ok(());
    }
    Err(request.forbidden("can only access node lease with the same name as the requesting node"))
}

/// A node asks for certificates of kubelets for itself alone.
fn admit_certificate_request(request: &AdmissionRequest, node: &str) -> Result<(), Status> {
    let signer = text_at(&request.object, "/spec/signerName");
    let of_kubelets = matches!(
        signer,
        "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet"
    );
    let creates = request.operation == AdmissionOperation::Create;
    if !creates || !request.subresource.is_empty() || !of_kubelets {
        return Ok(());
    }
    let subject = subject(text_at(&request.object, "/spec/request"))
        .map_err(|error| request.forbidden(&format!("unable to parse csr: {error}")))?;
    if subject.common_name == format!("system:node:{node}") {
        return Ok(());
    }
    let why = format!("can only create a node CSR with CN=system:node:{node}");
    Err(request.forbidden(&why))
}

fn admit_slice(request: &AdmissionRequest, node: &str) -> Result<(), Status> {
    let object = if request.object.is_null() {
        &*request.old_object
    } else {
        &request.object
    };
    if text_at(object, "/spec/nodeName") == node {
        return Ok(());
    }
    let verb = request.operation.as_str().to_lowercase();
    Err(request.forbidden(&format!(
        "can only {verb} ResourceSlice with the same NodeName as the requesting node"
    )))
}

#[async_trait]
impl AdmissionPlugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        operation != AdmissionOperation::Connect
    }

    async fn admit(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        let request = &*request;
        let Some(node) = node_name(&request.user) else {
            return Ok(());
        };
        if node.is_empty() {
            let user = quote(&request.user.name);
            return Err(request.forbidden(&format!("could not determine node from user {user}")));
        }
        match (&*request.resource.group, &*request.resource.plural) {
            ("", "pods") => match request.subresource.as_str() {
                "" => self.admit_pod(request, node).await,
                "status" => admit_pod_status(request, node),
                "eviction" => self.admit_eviction(request, node).await,
                other => Err(request.forbidden(&format!(
                    "unexpected pod subresource {}, only 'status' and 'eviction' are allowed",
                    quote(other)
                ))),
            },
            ("", "nodes") => admit_node(request, node),
            ("", "persistentvolumeclaims") => admit_claim_status(request, node),
            ("", "serviceaccounts") => self.admit_token(request, node).await,
            ("coordination.k8s.io", "leases") => admit_lease(request, node),
            (STORAGE, "csinodes") if is_named(request, node) => Ok(()),
            (STORAGE, "csinodes") => Err(request
                .forbidden("can only access CSINode with the same name as the requesting node")),
            ("resource.k8s.io", "resourceslices") => admit_slice(request, node),
            ("certificates.k8s.io", "certificatesigningrequests") => {
                admit_certificate_request(request, node)
            }
            _ => Ok(()),
        }
    }
}
