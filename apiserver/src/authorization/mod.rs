//! Authorization: whether somebody may do something.
//!
//! [`Union`] asks its authorizers in order; the first one with an opinion decides, nobody's opinion means no. By default these are
//! [`Masters`], [`NodeAuthorizer`] and [`RbacAuthorizer`].

mod node;
mod node_graph;
mod rbac;

use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::auth::{Attributes, Authorizer, Decision, Rules, SYSTEM_MASTERS, Scope, UserInfo};
use orlop_core::field::quote;
use orlop_core::resource::Resource;
use orlop_core::status::Status;

pub use self::node::{NodeAuthorizer, node_name};
pub use self::rbac::{
    AggregationController, EscalationCheck, PolicyRule, RbacAuthorizer, RoleRef, Subject,
    aggregate, aggregate_cluster_roles, covers,
};

/// Asks several authorizers in order.
pub struct Union(Vec<Arc<dyn Authorizer>>);

impl Union {
    /// The authorizers, in order.
    #[must_use]
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Self {
        Self(authorizers)
    }
}

#[async_trait]
impl Authorizer for Union {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        let mut reasons = Vec::new();
        for authorizer in &self.0 {
            match authorizer.authorize(attributes).await {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let mut all = Rules::default();
        let mut errors = Vec::new();
        for authorizer in &self.0 {
            let rules = authorizer.rules(user, namespace).await;
            all.resource_rules.extend(rules.resource_rules);
            all.non_resource_rules.extend(rules.non_resource_rules);
            all.incomplete |= rules.incomplete;
            if !rules.error.is_empty() {
                errors.push(rules.error);
            }
        }
        all.error = match errors.as_slice() {
            [] => String::new(),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        all
    }
}

/// Lets everybody do everything (`--authorization-mode=AlwaysAllow`).
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysAllow;

#[async_trait]
impl Authorizer for AlwaysAllow {
    async fn authorize(&self, _: &Attributes) -> Decision {
        Decision::Allow(String::new())
    }

    async fn rules(&self, _: &UserInfo, _: &str) -> Rules {
        use orlop_core::auth::{NonResourceRule, ResourceRule};
        let all = || vec!["*".to_owned()];
        Rules {
            resource_rules: vec![ResourceRule {
                verbs: all(),
                api_groups: all(),
                resources: all(),
                resource_names: Vec::new(),
            }],
            non_resource_rules: vec![NonResourceRule {
                verbs: all(),
                non_resource_urls: all(),
            }],
            ..Rules::default()
        }
    }
}

/// Lets the members of `system:masters` do everything, also before there are any roles.
#[derive(Clone, Copy, Debug, Default)]
pub struct Masters;

#[async_trait]
impl Authorizer for Masters {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.in_group(SYSTEM_MASTERS) {
            Decision::Allow(String::new())
        } else {
            Decision::NoOpinion(String::new())
        }
    }

    /// What they may do stands in the role `cluster-admin`.
    async fn rules(&self, _: &UserInfo, _: &str) -> Rules {
        Rules::default()
    }
}

/// What a user who may not is told: `User "bob" cannot get resource "pods" in API group "" in the namespace "pr"`.
#[must_use]
pub fn forbidden_message(attributes: &Attributes) -> String {
    let (user, verb) = (quote(&attributes.user.name), &attributes.verb);
    match &attributes.scope {
        Scope::Path(path) => format!("User {user} cannot {verb} path {}", quote(path)),
        Scope::Resource {
            group,
            resource,
            subresource,
            namespace,
            ..
        } => {
            let resource = if subresource.is_empty() {
                quote(resource)
            } else {
                quote(&format!("{resource}/{subresource}"))
            };
            let place = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {}", quote(namespace))
            };
            format!(
                "User {user} cannot {verb} resource {resource} in API group {} {place}",
                quote(group)
            )
        }
    }
}

/// The 403 for a user who may not, with the authorizer's reason (empty for none).
#[must_use]
pub fn forbidden(attributes: &Attributes, reason: &str) -> Status {
    let mut message = forbidden_message(attributes);
    if !reason.is_empty() {
        message.push_str(": ");
        message.push_str(reason);
    }
    match &attributes.scope {
        Scope::Path(_) => {
            use orlop_core::status::{StatusDetails, reason};
            Status::failure(403, reason::FORBIDDEN, format!("forbidden: {message}"))
                .with_details(StatusDetails::default())
        }
        Scope::Resource {
            group,
            version,
            resource,
            name,
            ..
        } => {
            let resource = Resource {
                group: group.clone().into(),
                version: version.clone().into(),
                plural: resource.clone().into(),
                kind: "".into(),
                namespaced: false,
            };
            Status::forbidden(&resource, name, &message)
        }
    }
}

#[cfg(test)]
mod tests;
