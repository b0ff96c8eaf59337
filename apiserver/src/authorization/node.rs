//! The node authorizer: a node reads what its pods need, and writes what is its own.

use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::admission::ObjectReader;
use orlop_core::auth::{Attributes, Authorizer, Decision, Rules, Scope, UserInfo};
use orlop_core::field::quote;
use orlop_core::resource::Resource;
use orlop_core::status::Status;
use serde::Deserialize;
use serde_json::Value;

use super::node_graph::Graph;
use super::rbac::PolicyRule;
use crate::names::{
    PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, RESOURCE_SLICES, STORAGE,
    VOLUME_ATTACHMENTS, text_at,
};

const NODE_USER: &str = "system:node:";
const NODE_GROUP: &str = "system:nodes";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node that a user is; `None` for everybody else. It is empty for a member of the nodes' group whose name tells no node.
#[must_use]
pub fn node_name(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix(NODE_USER)?;
    user.in_group(NODE_GROUP).then_some(name)
}

/// Allows a node (`system:node:<name>` in `system:nodes`) what concerns itself and the pods bound to it.
pub struct NodeAuthorizer {
    reader: Arc<dyn ObjectReader>,
    graph: Graph,
    rules: Vec<PolicyRule>,
}

/// A refusal's reason; empty for none.
type Verdict = Result<(), String>;

impl NodeAuthorizer {
    /// An authorizer that grants every node the rules for what is not a matter of single objects: those of the cluster role
    /// `system:node` (see [`bootstrap::node_rules`](crate::bootstrap::node_rules)).
    #[must_use]
    pub fn new(reader: Arc<dyn ObjectReader>, rules: Vec<PolicyRule>) -> Self {
        Self {
            reader,
            graph: Graph::default(),
            rules,
        }
    }

    async fn decide(&self, node: &str, attributes: &Attributes) -> Verdict {
        let verb = attributes.verb.as_str();
        if let Scope::Resource {
            group,
            resource,
            subresource,
            namespace,
            name,
            ..
        } = &attributes.scope
        {
            let object = Wanted {
                namespace,
                name,
                node,
            };
            match (group.as_str(), resource.as_str()) {
                ("", "secrets" | "configmaps") => {
                    if !matches!(verb, "get" | "list" | "watch") {
                        return refuse("can only read resources of this type");
                    }
                    if !subresource.is_empty() {
                        return refuse("cannot read subresource");
                    }
                    if namespace.is_empty() {
                        return refuse("can only read namespaced object of this type");
                    }
                    let kind = if resource == "secrets" {
                        Kind::Secret
                    } else {
                        Kind::ConfigMap
                    };
                    return self.related(kind, &object).await;
                }
                ("", "persistentvolumeclaims") if subresource == "status" => {
                    if !matches!(verb, "update" | "patch") {
                        return refuse("can only get/update/patch this type");
                    }
                    return self.related(Kind::Claim, &object).await;
                }
                ("", "persistentvolumeclaims") => {
                    return self.get(verb, subresource, Kind::Claim, &object).await;
                }
                ("", "persistentvolumes") => {
                    return self.get(verb, subresource, Kind::Volume, &object).await;
                }
                ("resource.k8s.io", "resourceclaims") => {
                    return self
                        .get(verb, subresource, Kind::ResourceClaim, &object)
                        .await;
                }
                (STORAGE, "volumeattachments") => {
                    return self.get(verb, subresource, Kind::Attachment, &object).await;
                }
                ("", "serviceaccounts") => {
                    if verb != "create" || name.is_empty() {
                        return refuse("can only create tokens for individual service accounts");
                    }
                    if subresource != "token" {
                        return refuse("can only create token subresource of serviceaccount");
                    }
                    return self.related(Kind::ServiceAccount, &object).await;
                }
                ("coordination.k8s.io", "leases") => return lease(verb, &object),
                (STORAGE, "csinodes") => return csi_node(verb, subresource, &object),
                ("resource.k8s.io", "resourceslices") => {
                    return self
                        .resource_slice(verb, subresource, &object, &attributes.field_selector)
                        .await;
                }
                ("", "nodes") => return own_node(verb, subresource, &object),
                ("", "pods") => {
                    return self
                        .pod(verb, subresource, &object, &attributes.field_selector)
                        .await;
                }
                _ => {}
            }
        }
        if self.rules.iter().any(|rule| rule.allows(attributes)) {
            Ok(())
        } else {
            refuse("")
        }
    }

    async fn get(&self, verb: &str, subresource: &str, kind: Kind, object: &Wanted<'_>) -> Verdict {
        if verb != "get" {
            return refuse("can only get individual resources of this type");
        }
        if !subresource.is_empty() {
            return refuse("cannot get subresource");
        }
        self.related(kind, object).await
    }

    async fn pod(
        &self,
        verb: &str,
        subresource: &str,
        object: &Wanted<'_>,
        selector: &str,
    ) -> Verdict {
        match (subresource, verb) {
            ("", "get") => self.get(verb, subresource, Kind::Pod, object).await,
            ("", "list" | "watch") if selects_node(selector, "spec.nodeName", object.node) => {
                Ok(())
            }
            ("", "list" | "watch") if !object.name.is_empty() => {
                self.related(Kind::Pod, object).await
            }
            ("", "list" | "watch") => {
                refuse("can only list/watch pods with spec.nodeName field selector")
            }
            // The NodeRestriction plug-in looks at the pod itself.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Ok(())
            }
            _ => refuse(""),
        }
    }

    async fn resource_slice(
        &self,
        verb: &str,
        subresource: &str,
        object: &Wanted<'_>,
        selector: &str,
    ) -> Verdict {
        if !subresource.is_empty() {
            return refuse("cannot authorize ResourceSlice subresources");
        }
        match verb {
            // The NodeRestriction plug-in looks at the slice itself.
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(Kind::Slice, object).await,
            "watch" | "list" | "deletecollection"
                if selects_node(selector, "spec.nodeName", object.node) =>
            {
                Ok(())
            }
            "watch" | "list" | "deletecollection" => refuse(
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            _ => refuse(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    /// Whether an object has to do with the node.
    async fn related(&self, kind: Kind, object: &Wanted<'_>) -> Verdict {
        if object.name.is_empty() {
            return refuse("No Object name found");
        }
        match self.is_related(kind, object).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!(
                "no relationship found between node '{}' and this object",
                object.node
            )),
            Err(error) => {
                tracing::debug!(node = object.node, %error, "relationship could not be looked up");
                Err(format!(
                    "no relationship found between node '{}' and this object",
                    object.node
                ))
            }
        }
    }

    async fn is_related(&self, kind: Kind, object: &Wanted<'_>) -> Result<bool, Status> {
        let Wanted {
            namespace,
            name,
            node,
        } = *object;
        match kind {
            Kind::Pod => self.is_on(&PODS, namespace, name, node).await,
            Kind::Attachment => self.is_on(&VOLUME_ATTACHMENTS, "", name, node).await,
            Kind::Slice => self.is_on(&RESOURCE_SLICES, "", name, node).await,
            Kind::Volume => match self.reader.get(&PERSISTENT_VOLUMES, "", name).await? {
                Some(volume) => {
                    let volume = volume.value().map_err(Status::internal)?;
                    let claimed = (
                        text_at(&volume, "/spec/claimRef/namespace"),
                        text_at(&volume, "/spec/claimRef/name"),
                    );
                    let pods = self.graph.of(&*self.reader, node).await?;
                    let used = pods.claims().any(|claim| claim == claimed);
                    Ok(used && self.volume_of(claimed).await?.as_deref() == Some(name))
                }
                None => Ok(false),
            },
            _ => {
                let pods = self.graph.of(&*self.reader, node).await?;
                let named = pods.any(namespace, |pod| match kind {
                    Kind::ConfigMap => pod.config_maps.contains(name),
                    Kind::Claim => pod.claims.contains(name),
                    Kind::ResourceClaim => pod.resource_claims.contains(name),
                    Kind::ServiceAccount => pod.service_account == name,
                    _ => pod.secrets.contains(name),
                });
                if named || !matches!(kind, Kind::Secret) {
                    return Ok(named);
                }
                // A persistent volume may need a secret to be mounted.
                for claim in pods.claims() {
                    let Some(volume) = self.volume_of(claim).await? else {
                        continue;
                    };
                    let Some(volume) = self.reader.get(&PERSISTENT_VOLUMES, "", &volume).await?
                    else {
                        continue;
                    };
                    let volume = volume.value().map_err(Status::internal)?;
                    let claimed = (
                        text_at(&volume, "/spec/claimRef/namespace"),
                        text_at(&volume, "/spec/claimRef/name"),
                    );
                    let mut secrets = volume_secrets(&volume);
                    if claimed == claim && secrets.any(|secret| secret == (namespace, name)) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    /// Whether an object's `spec.nodeName` is the node.
    async fn is_on(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        node: &str,
    ) -> Result<bool, Status> {
        let object = self.reader.get(resource, namespace, name).await?;
        Ok(object.is_some_and(|object| on_node(object.stored_json(), node)))
    }

    /// The persistent volume that a claim is bound to.
    async fn volume_of(&self, (namespace, claim): (&str, &str)) -> Result<Option<String>, Status> {
        let claim = self
            .reader
            .get(&PERSISTENT_VOLUME_CLAIMS, namespace, claim)
            .await?;
        let Some(claim) = claim else {
            return Ok(None);
        };
        let claim = claim.value().map_err(Status::internal)?;
        let volume = text_at(&claim, "/spec/volumeName");
        Ok((!volume.is_empty()).then(|| volume.to_owned()))
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Pod,
    Secret,
    ConfigMap,
    Claim,
    Volume,
    ResourceClaim,
    Attachment,
    ServiceAccount,
    Slice,
}

/// An object that a node wants something of.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    namespace: &'a str,
    name: &'a str,
    node: &'a str,
}

fn refuse(why: &str) -> Verdict {
    Err(why.to_owned())
}

fn on_node(json: &[u8], node: &str) -> bool {
    #[derive(Deserialize)]
    struct View {
        #[serde(default)]
        spec: Spec,
    }
    #[derive(Default, Deserialize)]
    struct Spec {
        #[serde(rename = "nodeName", default)]
        node_name: Option<String>,
    }
    serde_json::from_slice::<View>(json)
        .is_ok_and(|view| view.spec.node_name.as_deref() == Some(node))
}

/// The secrets that a persistent volume names, with their namespaces: its own, or that of its claim.
fn volume_secrets(volume: &Value) -> impl Iterator<Item = (&str, &str)> {
    let claim_namespace = text_at(volume, "/spec/claimRef/namespace");
    let sources = volume
        .get("spec")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|spec| spec.values());
    sources
        .filter_map(Value::as_object)
        .flat_map(|source| {
            let own = source
                .iter()
                .filter(|(field, _)| field.ends_with("SecretRef") || *field == "secretRef");
            let plain = source
                .get("secretName")
                .and_then(Value::as_str)
                .map(|name| {
                    (
                        source
                            .get("secretNamespace")
                            .and_then(Value::as_str)
                            .unwrap_or_default(),
                        name,
                    )
                });
            own.map(|(_, reference)| {
                (
                    text_at(reference, "/namespace"),
                    text_at(reference, "/name"),
                )
            })
            .chain(plain)
        })
        .map(move |(namespace, name)| {
            (
                if namespace.is_empty() {
                    claim_namespace
                } else {
                    namespace
                },
                name,
            )
        })
}

/// Whether a field selector asks for one node.
fn selects_node(selector: &str, field: &str, node: &str) -> bool {
    selector.split(',').any(|term| {
        let value = term
            .trim()
            .strip_prefix(field)
            .and_then(|rest| rest.strip_prefix("==").or(rest.strip_prefix('=')));
        value == Some(node)
    })
}

fn lease(verb: &str, object: &Wanted<'_>) -> Verdict {
    if !matches!(verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a node lease");
    }
    if object.namespace != LEASE_NAMESPACE {
        return Err(format!(
            "can only access leases in the {} system namespace",
            quote(LEASE_NAMESPACE)
        ));
    }
    // The name of a new one is looked at by the NodeRestriction plug-in.
    if verb != "create" && object.name != object.node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn csi_node(verb: &str, subresource: &str, object: &Wanted<'_>) -> Verdict {
    if !matches!(verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a CSINode");
    }
    if !subresource.is_empty() {
        return refuse("cannot authorize CSINode subresources");
    }
    if verb != "create" && object.name != object.node {
        return refuse("can only access CSINode with the same name as the requesting node");
    }
    Ok(())
}

fn own_node(verb: &str, subresource: &str, object: &Wanted<'_>) -> Verdict {
    match (subresource, verb) {
        // The NodeRestriction plug-in sees to it that it is the node's own.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") if object.name == object.node => Ok(()),
        ("", "get" | "list" | "watch") if object.name.is_empty() => Err(format!(
            "node '{}' cannot read all nodes, only its own Node object",
            object.node
        )),
        ("", "get" | "list" | "watch") => Err(format!(
            "node '{}' cannot read '{}', only its own Node object",
            object.node, object.name
        )),
        _ => refuse(""),
    }
}

#[async_trait]
impl Authorizer for NodeAuthorizer {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        match node_name(&attributes.user) {
            None => Decision::NoOpinion(String::new()),
            Some("") => Decision::NoOpinion(format!(
                "unknown node for user {}",
                quote(&attributes.user.name)
            )),
            Some(node) => match self.decide(node, attributes).await {
                Ok(()) => Decision::Allow(String::new()),
                Err(reason) => Decision::NoOpinion(reason),
            },
        }
    }

    async fn rules(&self, user: &UserInfo, _: &str) -> Rules {
        // What a node may do depends on its pods, which no list of rules can say.
        match node_name(user) {
            None => Rules::default(),
            Some(_) => Rules {
                incomplete: true,
                error: "node authorizer does not support user rule resolution".to_owned(),
                ..Rules::default()
            },
        }
    }
}
