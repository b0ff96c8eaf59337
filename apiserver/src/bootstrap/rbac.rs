//! Keeping the built-in roles and bindings.

use futures::future::try_join_all;
use orlop_core::client::DeleteOptions;
use orlop_core::object::Object;
use orlop_core::status::Status;
use serde_json::{Value, json};

use super::roles::{Content, Policy, is_protected, policies};
use super::{Server, add_missing, copy};
use crate::authorization::{PolicyRule, RoleRef, Subject, aggregate_cluster_roles, covers};
use crate::names::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES, list_at};

/// Makes the roles and bindings that are missing, adds the rules and subjects that are, and gathers the rules of aggregated roles.
/// What was added by others stays; what is annotated `autoupdate: "false"` is left alone.
pub(super) async fn reconcile(server: &Server<'_>) -> Result<(), Status> {
    let mut known = Vec::new();
    for resource in [CLUSTER_ROLES, ROLES, CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS] {
        let list = server.list(&resource).await?;
        known.push((resource, list));
    }
    let known = &known;
    // All at once: they do not depend on each other, and one commit of the store takes many of them.
    try_join_all(policies().into_iter().map(async |policy| {
        let list = known
            .iter()
            .find(|(resource, _)| *resource == policy.resource)
            .map(|(_, list)| list.as_slice());
        let same = |object: &&Object| {
            object.namespace() == policy.namespace && object.name() == policy.name
        };
        match list.unwrap_or_default().iter().find(same) {
            None => server.make(&policy.resource, &policy.object()).await,
            Some(object) if is_protected(&object.metadata().annotations) => Ok(()),
            Some(object) => match &policy.content {
                Content::Rules(rules) => update_role(server, &policy, rules, object).await,
                Content::Binding(role, subjects) => {
                    update_binding(server, &policy, role, subjects, object).await
                }
            },
        }
    }))
    .await?;
    aggregate_cluster_roles(server.client, server.list(&CLUSTER_ROLES).await?).await?;
    Ok(())
}

async fn write(server: &Server<'_>, policy: &Policy, object: &Value) -> Result<(), Status> {
    tracing::info!(kind = %policy.resource.kind, name = policy.name, "bringing a built-in role or binding up to date");
    server.update(&policy.resource, object).await.map(|_| ())
}

async fn update_role(
    server: &Server<'_>,
    policy: &Policy,
    rules: &[PolicyRule],
    known: &Object,
) -> Result<(), Status> {
    let (mut object, wanted) = (copy(known)?, policy.object());
    let mut changed = add_missing(&mut object, "labels", &wanted)
        | add_missing(&mut object, "annotations", &wanted);
    let selectors = list_at(&wanted, "/aggregationRule/clusterRoleSelectors");
    if selectors.is_empty() {
        let own: Vec<PolicyRule> = object
            .get("rules")
            .and_then(|own| serde_json::from_value(own.clone()).ok())
            .unwrap_or_default();
        let missing = covers(&own, rules);
        if !missing.is_empty() {
            object["rules"] = json!(own.into_iter().chain(missing).collect::<Vec<_>>());
            changed = true;
        }
    } else {
        let own = list_at(&object, "/aggregationRule/clusterRoleSelectors");
        let missing: Vec<&Value> = selectors
            .iter()
            .filter(|selector| !own.contains(selector))
            .collect();
        if !missing.is_empty() {
            let all: Vec<&Value> = own.iter().chain(missing).collect();
            object["aggregationRule"] = json!({"clusterRoleSelectors": all});
            changed = true;
        }
    }
    if changed {
        write(server, policy, &object).await
    } else {
        Ok(())
    }
}

async fn update_binding(
    server: &Server<'_>,
    policy: &Policy,
    role: &RoleRef,
    subjects: &[Subject],
    known: &Object,
) -> Result<(), Status> {
    let (mut object, wanted) = (copy(known)?, policy.object());
    let bound: Option<RoleRef> = object
        .get("roleRef")
        .and_then(|role| serde_json::from_value(role.clone()).ok());
    if bound.as_ref() != Some(role) {
        // The role of a binding cannot change: it is made anew.
        let options = DeleteOptions {
            uid: Some(known.uid().to_owned()),
            ..DeleteOptions::default()
        };
        server
            .resource(&policy.resource, &policy.namespace)
            .delete(&policy.name, options)
            .await?;
        return server.make(&policy.resource, &wanted).await;
    }
    let mut changed = add_missing(&mut object, "labels", &wanted)
        | add_missing(&mut object, "annotations", &wanted);
    let own: Vec<Subject> = object
        .get("subjects")
        .and_then(|own| serde_json::from_value(own.clone()).ok())
        .unwrap_or_default();
    let missing: Vec<&Subject> = subjects
        .iter()
        .filter(|subject| !own.contains(subject))
        .collect();
    if !missing.is_empty() {
        object["subjects"] = json!(own.iter().chain(missing).collect::<Vec<_>>());
        changed = true;
    }
    if changed {
        write(server, policy, &object).await
    } else {
        Ok(())
    }
}
