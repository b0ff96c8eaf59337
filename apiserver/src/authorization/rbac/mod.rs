//! Role-based access control: roles say what may be done, bindings who may.

mod aggregation;
mod escalation;
mod index;
mod rules;

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use orlop_core::admission::ObjectReader;
use orlop_core::auth::{
    Attributes, Authorizer, Decision, NonResourceRule, ResourceRule, Rules, Scope, UserInfo,
};

pub use self::aggregation::{AggregationController, aggregate, aggregate_cluster_roles};
pub use self::escalation::EscalationCheck;
use self::index::Index;
pub use self::index::{RoleRef, Subject};
pub use self::rules::{PolicyRule, covers};

/// Allows what the roles say that are bound to the user and the user's groups.
///
/// Roles and bindings are compiled into an index by subject, which is made anew when one of them has changed.
pub struct RbacAuthorizer {
    reader: Arc<dyn ObjectReader>,
    index: ArcSwap<Index>,
    /// Held while the index is made anew, so that it's done once.
    rebuild: tokio::sync::Mutex<()>,
}

impl RbacAuthorizer {
    /// An authorizer over the roles and bindings that a reader sees.
    #[must_use]
    pub fn new(reader: Arc<dyn ObjectReader>) -> Self {
        Self {
            reader,
            index: ArcSwap::from_pointee(Index::default()),
            rebuild: tokio::sync::Mutex::default(),
        }
    }

    async fn index(&self) -> arc_swap::Guard<Arc<Index>> {
        let index = self.index.load();
        if index.is_current(&*self.reader) {
            return index;
        }
        drop(index);
        let _once = self.rebuild.lock().await;
        let index = self.index.load();
        if index.is_current(&*self.reader) {
            return index;
        }
        let fresh = Index::build(&*self.reader).await;
        self.index.store(Arc::new(fresh));
        self.index.load()
    }

    /// All rules that apply to a user in a namespace (the cluster's alone for an empty one), and what went wrong while they were
    /// gathered.
    pub async fn rules_for(
        &self,
        user: &UserInfo,
        namespace: &str,
    ) -> (Vec<PolicyRule>, Vec<String>) {
        let index = self.index().await;
        let mut rules = Vec::new();
        let mut errors = Vec::new();
        index.visit(user, namespace, |grant| match &grant.rules {
            Ok(granted) => rules.extend(granted.iter().cloned()),
            Err(error) => errors.push(error.clone()),
        });
        (rules, errors)
    }
}

#[async_trait]
impl Authorizer for RbacAuthorizer {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        let index = self.index().await;
        let namespace = match &attributes.scope {
            Scope::Resource { namespace, .. } => namespace.as_str(),
            Scope::Path(_) => "",
        };
        match index.allows(attributes, namespace) {
            Ok(source) => Decision::Allow(format!("RBAC: allowed by {source}")),
            Err(errors) if errors.is_empty() => Decision::NoOpinion(String::new()),
            Err(errors) => Decision::NoOpinion(format!("RBAC: {}", aggregate_errors(errors))),
        }
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let (rules, errors) = self.rules_for(user, namespace).await;
        let mut found = Rules {
            error: aggregate_errors(errors),
            ..Rules::default()
        };
        found.incomplete = false;
        for rule in rules {
            if !rule.resources.is_empty() {
                found.resource_rules.push(ResourceRule {
                    verbs: rule.verbs.clone(),
                    api_groups: rule.api_groups.clone(),
                    resources: rule.resources.clone(),
                    resource_names: rule.resource_names.clone(),
                });
            }
            if !rule.non_resource_urls.is_empty() {
                found.non_resource_rules.push(NonResourceRule {
                    verbs: rule.verbs,
                    non_resource_urls: rule.non_resource_urls,
                });
            }
        }
        found
    }
}

/// Several errors as one text, each once.
fn aggregate_errors(errors: Vec<String>) -> String {
    let mut seen: Vec<String> = Vec::new();
    for error in errors {
        if !seen.contains(&error) {
            seen.push(error);
        }
    }
    match seen.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}
