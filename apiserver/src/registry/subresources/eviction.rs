//! `pods/eviction`: a deletion that disruption budgets have a say in.

use orlop_core::client::{DeleteOptions, Propagation, WriteOptions};
use orlop_core::object::Object;
use orlop_core::resource::{GroupVersionKind, Resource};
use orlop_core::revision::Revision;
use orlop_core::selector::label;
use orlop_core::status::{Status, StatusCause, StatusDetails};
use serde_json::{Value, json};

use super::super::update::Preconditions;
use super::super::{At, Context, Registry, meta};
use super::created;

const BUDGETS: Resource = Resource::namespaced(
    "policy",
    "v1",
    "poddisruptionbudgets",
    "PodDisruptionBudget",
);

impl Registry {
    /// Evicts a pod.
    pub(crate) async fn evict(
        &self,
        cx: &mut Context,
        at: &At,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Status, Status> {
        let kind = GroupVersionKind::new("policy", "v1", "Eviction");
        let mut eviction = Self::decode(cx, &kind, body, options.field_validation)?;
        super::super::create::place(at, &mut eviction)?;
        let name = meta::text(&eviction, "name");
        if name != at.name {
            return Err(Status::bad_request(format!(
                "name in URL does not match name in Eviction object: {} != {name}",
                at.name
            )));
        }
        let eviction = self.admit_posted(cx, at, eviction, options.dry_run).await?;
        let mut deletion = delete_options(&eviction["deleteOptions"]);
        deletion.dry_run |= options.dry_run;
        let Some(pod) = self.current(at.info, &at.namespace, &at.name).await? else {
            return Err(Status::not_found(&at.info.resource, &at.name));
        };
        let value = pod.value().map_err(Status::internal)?;
        let phase = value
            .pointer("/status/phase")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let runs = !matches!(phase, "Succeeded" | "Failed" | "Pending") && !pod.is_terminating();
        if runs {
            self.spend_budget(cx, at, &pod, &value, deletion.dry_run)
                .await?;
        }
        let target = At {
            subresource: String::new(),
            ..at.clone()
        };
        self.delete(cx, &target, &deletion).await?;
        Ok(created())
    }

    /// Takes one disruption out of the pod's budget, or refuses.
    async fn spend_budget(
        &self,
        cx: &mut Context,
        at: &At,
        pod: &Object,
        value: &Value,
        dry_run: bool,
    ) -> Result<(), Status> {
        let Some(cache) = self.caches.kind(&BUDGETS) else {
            return Ok(());
        };
        let budgets: Vec<Object> = cache
            .list(&at.namespace)
            .into_iter()
            .filter(|budget| covers(budget, pod))
            .collect();
        let budget = match budgets.as_slice() {
            [] => return Ok(()),
            [budget] => budget,
            _ => {
                return Err(Status::internal(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
        };
        let ready = value
            .pointer("/status/conditions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let ready = ready
            .into_iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        let Some(info) = orlop_api::resources::find("policy", "v1", "poddisruptionbudgets") else {
            return Ok(());
        };
        let target = At {
            info,
            namespace: at.namespace.clone(),
            name: budget.name().to_owned(),
            subresource: "status".to_owned(),
        };
        let (pod_name, now) = (pod.name().to_owned(), meta::time(self.now()));
        let edit = |budget: &mut Value| spend(budget, &pod_name, ready, &now);
        self.edit(cx, &target, &edit, dry_run, &Preconditions::default())
            .await
            .map(|_| ())
    }
}

fn delete_options(value: &Value) -> DeleteOptions {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    DeleteOptions {
        dry_run: value["dryRun"]
            .as_array()
            .is_some_and(|list| !list.is_empty()),
        grace_period_seconds: value["gracePeriodSeconds"].as_i64(),
        propagation: match value["propagationPolicy"].as_str() {
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            _ => None,
        },
        uid: text(&value["preconditions"]["uid"]),
        revision: text(&value["preconditions"]["resourceVersion"])
            .and_then(|text| text.parse().ok())
            .filter(|revision| *revision != Revision::ZERO),
    }
}

fn covers(budget: &Object, pod: &Object) -> bool {
    let Ok(value) = budget.value() else {
        return false;
    };
    let selector: Option<label::LabelSelector> = value
        .pointer("/spec/selector")
        .and_then(|selector| serde::Deserialize::deserialize(selector).ok());
    selector
        .and_then(|selector| selector.selector().ok())
        .is_some_and(|selector| selector.matches(&pod.metadata().labels))
}

fn too_many(message: &str, cause: Option<String>, retry_after_seconds: u32) -> Status {
    let mut status = Status::too_many_requests(message, retry_after_seconds);
    if let Some(message) = cause {
        let cause = StatusCause {
            reason: "DisruptionBudget".to_owned(),
            message,
            field: String::new(),
        };
        status.details = Some(Box::new(StatusDetails {
            causes: vec![cause],
            retry_after_seconds,
            ..StatusDetails::default()
        }));
    }
    status
}

/// Takes a disruption out of a budget's status.
fn spend(budget: &mut Value, pod: &str, ready: bool, now: &str) -> Result<(), Status> {
    let name = meta::text(budget, "name").to_owned();
    let number = |pointer: &str| budget.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let (allowed, healthy, desired) = (
        number("/status/disruptionsAllowed"),
        number("/status/currentHealthy"),
        number("/status/desiredHealthy"),
    );
    let always = budget
        .pointer("/spec/unhealthyPodEvictionPolicy")
        .and_then(Value::as_str)
        == Some("AlwaysAllow");
    if !ready && (always || healthy >= desired && desired > 0) {
        // Its end takes nothing away that the budget counts.
        return Ok(());
    }
    if number("/status/observedGeneration") < meta::number(budget, "generation").unwrap_or(0) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(too_many(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            Some(why),
            10,
        ));
    }
    if allowed < 0 {
        return Err(Status::forbidden(
            &BUDGETS,
            &name,
            "pdb disruptions allowed is negative",
        ));
    }
    if allowed == 0 {
        let why = format!(
            "The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
        );
        return Err(too_many(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            Some(why),
            0,
        ));
    }
    budget["status"]["disruptionsAllowed"] = json!(allowed - 1);
    if !budget["status"]["disruptedPods"].is_object() {
        budget["status"]["disruptedPods"] = json!({});
    }
    budget["status"]["disruptedPods"][pod] = json!(now);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_until_nothing_is_left() {
        let mut budget = json!({
            "metadata": {"name": "b", "generation": 1},
            "status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 3, "desiredHealthy": 2}
        });
        spend(&mut budget, "p", true, "now").unwrap();
        assert_eq!(budget["status"]["disruptedPods"]["p"], "now");
        let refused = spend(&mut budget, "q", true, "now").unwrap_err();
        assert_eq!(refused.code, 429);
        let cause = &refused.details.unwrap().causes[0];
        assert_eq!(
            cause.message,
            "The disruption budget b needs 2 healthy pods and has 3 currently"
        );
    }
}
