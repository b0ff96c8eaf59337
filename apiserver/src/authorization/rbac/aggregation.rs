//! Aggregated cluster roles: roles whose rules are those of other roles, chosen by label.

use std::sync::Arc;

use orlop_core::admission::ObjectReader;
use orlop_core::client::{Client, Patch};
use orlop_core::object::Object;
use orlop_core::revision::Revision;
use orlop_core::status::Status;
use serde_json::{Value, json};

use super::index::rules_of;
use super::rules::PolicyRule;
use crate::names::{CLUSTER_ROLES, list_at, text_field};

/// Whether labels fit a `LabelSelector`.
fn selects(selector: &Value, object: &Object) -> bool {
    let labels = &object.metadata().labels;
    let equal = selector
        .get("matchLabels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let expression = |wanted: &Value| {
        let value = labels.get(text_field(wanted, "key"));
        let among = || {
            let values = list_at(wanted, "/values");
            value.is_some_and(|value| values.iter().any(|one| one.as_str() == Some(value)))
        };
        match text_field(wanted, "operator") {
            "In" => among(),
            "NotIn" => !among(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    };
    equal
        .into_iter()
        .all(|(key, wanted)| labels.get(key).map(String::as_str) == wanted.as_str())
        && list_at(selector, "/matchExpressions")
            .iter()
            .all(expression)
}

/// The rules that a cluster role gathers from all others: those of each selector's roles in the order of their names, each rule once.
/// `None` for a role that gathers none.
#[must_use]
pub fn aggregate(role: &Object, all: &[Object]) -> Option<Vec<PolicyRule>> {
    let value = role.value().ok()?;
    let selectors = list_at(&value, "/aggregationRule/clusterRoleSelectors");
    if selectors.is_empty() {
        return None;
    }
    let mut by_name: Vec<&Object> = all
        .iter()
        .filter(|other| other.name() != role.name())
        .collect();
    by_name.sort_unstable_by(|a, b| a.name().cmp(b.name()));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors {
        for other in by_name.iter().filter(|other| selects(selector, other)) {
            for rule in rules_of(other).iter() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}

/// Brings the rules of all aggregated roles up to date, until nothing changes: `admin` gathers from `edit`, which gathers from `view`.
/// Says how many were written.
///
/// # Errors
/// The first write that was refused.
pub async fn aggregate_cluster_roles(
    client: &dyn Client,
    mut roles: Vec<Object>,
) -> Result<usize, Status> {
    let mut written = 0;
    // A chain of selectors is at most as long as there are roles; a circle ends when its rules no longer grow.
    for _ in 0..roles.len() {
        let mut changed = false;
        for at in 0..roles.len() {
            let role = &roles[at];
            let Some(rules) = aggregate(role, &roles).filter(|rules| **rules != *rules_of(role))
            else {
                continue;
            };
            let patch = json!({"metadata": {"resourceVersion": role.revision().to_string()}, "rules": rules});
            let clusterroles = client
                .resource(&CLUSTER_ROLES)
                .field_manager("clusterrole-aggregation-controller");
            roles[at] = clusterroles.patch(role.name(), Patch::Merge(patch)).await?;
            written += 1;
            changed = true;
        }
        if !changed {
            break;
        }
    }
    Ok(written)
}

/// Keeps aggregated roles up to date: to be called again and again, it does something when a cluster role has changed since.
pub struct AggregationController {
    client: Arc<dyn Client>,
    reader: Arc<dyn ObjectReader>,
    seen: Option<Revision>,
}

impl AggregationController {
    /// A controller that reads by one and writes by the other.
    #[must_use]
    pub fn new(client: Arc<dyn Client>, reader: Arc<dyn ObjectReader>) -> Self {
        Self {
            client,
            reader,
            seen: None,
        }
    }

    /// Brings the rules up to date, if a cluster role has changed since the last time. Says how many were written.
    ///
    /// # Errors
    /// The first read or write that failed; a conflict means that the cache was behind. The next call tries again.
    pub async fn sync(&mut self) -> Result<usize, Status> {
        let now = self.reader.last_change(&CLUSTER_ROLES);
        if self.seen == Some(now) {
            return Ok(0);
        }
        let roles = self.reader.list(&CLUSTER_ROLES, "").await?;
        let written = aggregate_cluster_roles(&*self.client, roles).await?;
        self.seen = Some(now);
        Ok(written)
    }
}
