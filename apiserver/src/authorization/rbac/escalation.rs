//! Nobody grants what they do not hold.

use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest, ObjectReader};
use orlop_core::auth::{Attributes, Authorizer, Decision, SYSTEM_MASTERS, UserInfo};
use orlop_core::field::quote;
use orlop_core::status::Status;
use serde_json::Value;

use super::index::{RoleRef, rules_of};
use super::rules::{PolicyRule, covers, describe_missing};
use crate::authentication::quoted;
use crate::names::{CLUSTER_ROLES, RBAC, ROLES};

/// Refuses roles that say more than their writer may do, and bindings of such roles.
///
/// Upstream does this in the storage of roles and bindings; it is no plug-in of its own there, and cannot be switched off here either.
pub struct EscalationCheck {
    authorizer: Arc<dyn Authorizer>,
    reader: Arc<dyn ObjectReader>,
}

impl EscalationCheck {
    /// A check of what an authorizer says that the writer may do, over the roles that a reader sees.
    #[must_use]
    pub fn new(authorizer: Arc<dyn Authorizer>, reader: Arc<dyn ObjectReader>) -> Self {
        Self { authorizer, reader }
    }

    async fn may(&self, attributes: &Attributes) -> bool {
        matches!(
            self.authorizer.authorize(attributes).await,
            Decision::Allow(_)
        )
    }

    /// Why a user must not grant rules; `None` when every one of them is the user's own.
    async fn escalation(
        &self,
        user: &UserInfo,
        namespace: &str,
        wanted: &[PolicyRule],
    ) -> Option<String> {
        let held = self.authorizer.rules(user, namespace).await;
        let resources = held.resource_rules.into_iter().map(|rule| PolicyRule {
            verbs: rule.verbs,
            api_groups: rule.api_groups,
            resources: rule.resources,
            resource_names: rule.resource_names,
            ..PolicyRule::default()
        });
        let paths = held.non_resource_rules.into_iter().map(|rule| PolicyRule {
            verbs: rule.verbs,
            non_resource_urls: rule.non_resource_urls,
            ..PolicyRule::default()
        });
        let missing = covers(&resources.chain(paths).collect::<Vec<_>>(), wanted);
        if missing.is_empty() {
            return None;
        }
        let mut message = format!(
            "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            quote(&user.name),
            quoted(&user.groups),
            describe_missing(&missing)
        );
        if !held.error.is_empty() {
            message.push_str(&format!("; resolution errors: [{}]", held.error));
        }
        Some(message)
    }

    /// A role is written by whoever may `escalate` it, or holds all that it grants.
    async fn check_role(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let (user, new) = (&request.user, &request.object);
        let (plural, namespace) = (&request.resource.plural, &request.namespace);
        // The name of a new object is not part of the question, as in every authorization of a creation.
        let name = if request.operation == AdmissionOperation::Create {
            ""
        } else {
            &request.name
        };
        let attributes = Attributes::resource(user, "escalate", RBAC, plural, namespace, name);
        if unchanged(request, &["rules", "aggregationRule"]) || self.may(&attributes).await {
            return Ok(());
        }
        if let Some(why) = self.escalation(user, namespace, &rules(new)).await {
            return Err(request.forbidden(&why));
        }
        // A selector may gather anything, so that only who may do everything sets one.
        let selectors = new
            .pointer("/aggregationRule/clusterRoleSelectors")
            .and_then(Value::as_array);
        if selectors.is_some_and(|selectors| !selectors.is_empty())
            && self
                .escalation(user, namespace, &PolicyRule::everything())
                .await
                .is_some()
        {
            return Err(
                request.forbidden("must have cluster-admin privileges to use the aggregationRule")
            );
        }
        Ok(())
    }

    /// A binding is written by whoever may `bind` its role, or holds all that it grants.
    async fn check_binding(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let (user, namespace) = (&request.user, &request.namespace);
        if unchanged(request, &["roleRef", "subjects"]) {
            return Ok(());
        }
        let role = request
            .object
            .get("roleRef")
            .and_then(|role| serde_json::from_value(role.clone()).ok());
        let role: RoleRef = role.unwrap_or_default();
        let (resource, of) = match role.kind.as_str() {
            "Role" => (ROLES, namespace.as_str()),
            "ClusterRole" => (CLUSTER_ROLES, ""),
            // Validation refuses every other kind.
            _ => return Ok(()),
        };
        let attributes = Attributes::resource(
            user,
            "bind",
            &role.api_group,
            &resource.plural,
            namespace,
            &role.name,
        );
        if self.may(&attributes).await {
            return Ok(());
        }
        let Some(object) = self.reader.get_live(&resource, of, &role.name).await? else {
            return Err(Status::not_found(&resource, &role.name));
        };
        match self.escalation(user, namespace, &rules_of(&object)).await {
            Some(why) => Err(request.forbidden(&why)),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl AdmissionPlugin for EscalationCheck {
    fn name(&self) -> &'static str {
        "EscalationCheck"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        matches!(
            operation,
            AdmissionOperation::Create | AdmissionOperation::Update
        )
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let concerned = request.resource.group == RBAC && request.subresource.is_empty();
        if !concerned || request.user.in_group(SYSTEM_MASTERS) {
            return Ok(());
        }
        match &*request.resource.plural {
            "roles" | "clusterroles" => self.check_role(request).await,
            "rolebindings" | "clusterrolebindings" => self.check_binding(request).await,
            _ => Ok(()),
        }
    }
}

fn rules(object: &Value) -> Vec<PolicyRule> {
    object
        .get("rules")
        .and_then(|rules| serde_json::from_value(rules.clone()).ok())
        .unwrap_or_default()
}

/// Whether an update leaves fields as they are. A field that is null or an empty list counts as absent.
fn unchanged(request: &AdmissionRequest, fields: &[&str]) -> bool {
    let part = |object: &Value, field: &str| {
        object
            .get(field)
            .filter(|value| {
                !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty())
            })
            .cloned()
    };
    request.operation == AdmissionOperation::Update
        && fields
            .iter()
            .all(|field| part(&request.object, field) == part(&request.old_object, field))
}
