//! Who makes an object depend on others must be allowed to delete it, and to hold up their deletion.

use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest};
use orlop_core::auth::{Attributes, Authorizer, Decision, Scope};
use orlop_core::status::Status;
use serde_json::Value;

use super::{Context, Kinds};
use crate::names::{list_at, text_field};

/// Checks who sets owner references, and who has them block the owner's deletion.
pub struct OwnerReferencesPermissionEnforcement {
    authorizer: Arc<dyn Authorizer>,
    kinds: Kinds,
}

impl OwnerReferencesPermissionEnforcement {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            authorizer: context.authorizer.clone(),
            kinds: context.kinds.clone(),
        }
    }

    async fn refused(&self, attributes: &Attributes) -> Option<String> {
        match self.authorizer.authorize(attributes).await {
            Decision::Allow(_) => None,
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Some(reason),
        }
    }
}

fn owners(object: &Value) -> &[Value] {
    list_at(object, "/metadata/ownerReferences")
}

fn blocks(reference: &Value) -> bool {
    reference
        .get("blockOwnerDeletion")
        .and_then(Value::as_bool)
        .unwrap_or_default()
}

/// Whether the references differ in more than whether they block.
fn changes(new: &Value, old: &Value) -> bool {
    let strip = |object: &Value| -> Vec<Value> {
        let mut all = owners(object).to_vec();
        for reference in all.iter_mut().filter_map(Value::as_object_mut) {
            reference.remove("blockOwnerDeletion");
        }
        all
    };
    strip(new) != strip(old)
}

#[async_trait]
impl AdmissionPlugin for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        matches!(
            operation,
            AdmissionOperation::Create | AdmissionOperation::Update
        )
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let (new, old) = (&request.object, &*request.old_object);
        let update = request.operation == AdmissionOperation::Update;
        // Pods bound through the subresource get no owners by it.
        if request.resource.plural == "pods" && request.subresource == "binding" {
            return Ok(());
        }
        if (update || !owners(new).is_empty()) && changes(new, old) {
            let name = if update { request.name.as_str() } else { "" };
            let resource = &request.resource;
            let attributes = Attributes::resource(
                &request.user,
                "delete",
                &resource.group,
                &resource.plural,
                &request.namespace,
                name,
            );
            if let Some(reason) = self.refused(&attributes).await {
                let why = format!(
                    "cannot set an ownerRef on a resource you can't delete: {reason}, <nil>"
                );
                return Err(request.forbidden(&why));
            }
        }
        let was_blocking = |reference: &Value| {
            owners(old)
                .iter()
                .any(|known| known.get("uid") == reference.get("uid") && blocks(known))
        };
        for reference in owners(new)
            .iter()
            .filter(|reference| blocks(reference) && !was_blocking(reference))
        {
            let (api_version, kind) = (
                text_field(reference, "apiVersion"),
                text_field(reference, "kind"),
            );
            let Some(owner) = (self.kinds)(api_version, kind) else {
                let why = format!(
                    "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} Kind {kind}: no matches for kind \"{kind}\" in version \"{api_version}\""
                );
                return Err(request.forbidden(&why));
            };
            let namespace = if owner.namespaced {
                request.namespace.as_str()
            } else {
                ""
            };
            let name = text_field(reference, "name");
            let mut attributes = Attributes::resource(
                &request.user,
                "update",
                &owner.group,
                &owner.plural,
                namespace,
                name,
            );
            if let Scope::Resource { subresource, .. } = &mut attributes.scope {
                *subresource = "finalizers".to_owned();
            }
            if let Some(reason) = self.refused(&attributes).await {
                let why = format!(
                    "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {reason}, <nil>"
                );
                return Err(request.forbidden(&why));
            }
        }
        Ok(())
    }
}
