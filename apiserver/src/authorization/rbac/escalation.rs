//! Nobody grants what they do not hold.

use orlop_core::auth::{Attributes, Authorizer, Decision, SYSTEM_MASTERS, UserInfo};
use orlop_core::field::quote;
use orlop_core::resource::Resource;
use orlop_core::status::Status;
use serde_json::Value;

use super::index::RoleRef;
use super::rules::{PolicyRule, covers, describe_missing};
use super::{RbacAuthorizer, aggregate_errors};
use crate::authentication::quoted;
use crate::names::{RBAC, text_at};

fn rules(object: &Value) -> Vec<PolicyRule> {
    object
        .get("rules")
        .and_then(|rules| serde_json::from_value(rules.clone()).ok())
        .unwrap_or_default()
}

fn same(new: &Value, old: Option<&Value>, fields: &[&str]) -> bool {
    // A field that is null or an empty list counts as absent.
    let part = |object: &Value, field: &str| {
        object
            .get(field)
            .filter(|value| {
                !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty())
            })
            .cloned()
    };
    old.is_some_and(|old| {
        fields
            .iter()
            .all(|field| part(new, field) == part(old, field))
    })
}

async fn may(authorizer: &dyn Authorizer, attributes: &Attributes) -> bool {
    matches!(authorizer.authorize(attributes).await, Decision::Allow(_))
}

/// Why a user must not grant rules; `None` when every one of them is the user's own.
async fn escalation(
    rbac: &RbacAuthorizer,
    user: &UserInfo,
    namespace: &str,
    wanted: &[PolicyRule],
) -> Option<String> {
    let (owned, errors) = rbac.rules_for(user, namespace).await;
    let missing = covers(&owned, wanted);
    if missing.is_empty() {
        return None;
    }
    let mut message = format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        quote(&user.name),
        quoted(&user.groups),
        describe_missing(&missing)
    );
    if !errors.is_empty() {
        message.push_str(&format!(
            "; resolution errors: [{}]",
            aggregate_errors(errors)
        ));
    }
    Some(message)
}

/// Whether a user may write a Role or ClusterRole as it is to be (`old` as it is, for an update): whoever may `escalate` it, or holds
/// all that it grants.
///
/// # Errors
/// The 403 that names what is not held.
pub async fn check_role_write(
    rbac: &RbacAuthorizer,
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    resource: &Resource,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let (namespace, name) = (
        text_at(new, "/metadata/namespace"),
        text_at(new, "/metadata/name"),
    );
    if user.in_group(SYSTEM_MASTERS) || same(new, old, &["rules", "aggregationRule"]) {
        return Ok(());
    }
    if may(
        authorizer,
        &Attributes::resource(user, "escalate", RBAC, &resource.plural, namespace, name),
    )
    .await
    {
        return Ok(());
    }
    if let Some(why) = escalation(rbac, user, namespace, &rules(new)).await {
        return Err(Status::forbidden(resource, name, &why));
    }
    // A selector may gather anything, so that only who may do everything sets one.
    let aggregates = new
        .pointer("/aggregationRule/clusterRoleSelectors")
        .and_then(Value::as_array);
    if aggregates.is_some_and(|selectors| !selectors.is_empty())
        && escalation(rbac, user, namespace, &PolicyRule::everything())
            .await
            .is_some()
    {
        return Err(Status::forbidden(
            resource,
            name,
            "must have cluster-admin privileges to use the aggregationRule",
        ));
    }
    Ok(())
}

/// Whether a user may write a RoleBinding or ClusterRoleBinding as it is to be (`old` as it is, for an update): whoever may `bind` its
/// role, or holds all that it grants.
///
/// # Errors
/// The 403 that names what is not held, 404 when the role is not there.
pub async fn check_binding_write(
    rbac: &RbacAuthorizer,
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    resource: &Resource,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let (namespace, name) = (
        text_at(new, "/metadata/namespace"),
        text_at(new, "/metadata/name"),
    );
    if user.in_group(SYSTEM_MASTERS) || same(new, old, &["roleRef", "subjects"]) {
        return Ok(());
    }
    let role: RoleRef = new
        .get("roleRef")
        .and_then(|role| serde_json::from_value(role.clone()).ok())
        .unwrap_or_default();
    let plural = match role.kind.as_str() {
        "Role" => "roles",
        "ClusterRole" => "clusterroles",
        _ => "",
    };
    if !plural.is_empty()
        && may(
            authorizer,
            &Attributes::resource(user, "bind", &role.api_group, plural, namespace, &role.name),
        )
        .await
    {
        return Ok(());
    }
    let granted = rbac.role_rules(&role, namespace).await?;
    match escalation(rbac, user, namespace, &granted).await {
        Some(why) => Err(Status::forbidden(resource, name, &why)),
        None => Ok(()),
    }
}
