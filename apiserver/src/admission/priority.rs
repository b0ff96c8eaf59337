//! The priority of a pod is that of its class.

use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest, ObjectReader};
use orlop_core::object::Object;
use orlop_core::status::Status;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, map_at};
use crate::names::{PRIORITY_CLASSES, text_at};

/// Writes priority and preemption policy of a pod's class into the pod, and sees to it that one class at most is the default.
pub struct Priority {
    reader: Arc<dyn ObjectReader>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Class {
    #[serde(default)]
    value: i64,
    #[serde(default)]
    global_default: Option<bool>,
    #[serde(default)]
    preemption_policy: Option<String>,
}

fn class(object: &Object) -> Result<Arc<Class>, Status> {
    object.decode().map_err(Status::internal)
}

impl Priority {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            reader: context.reader.clone(),
        }
    }

    /// The default class: of several, which a race can make, the one with the lowest value.
    async fn default_class(&self) -> Result<Option<Object>, Status> {
        let classes = self.reader.list(&PRIORITY_CLASSES, "").await?;
        let mut best: Option<(i64, Object)> = None;
        for object in classes {
            let decoded = class(&object)?;
            let lower = best
                .as_ref()
                .is_none_or(|(value, _)| decoded.value < *value);
            if decoded.global_default == Some(true) && lower {
                best = Some((decoded.value, object));
            }
        }
        Ok(best.map(|(_, object)| object))
    }

    async fn resolve(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        let wanted = text_at(&request.object, "/spec/priorityClassName").to_owned();
        let object = if wanted.is_empty() {
            self.default_class().await?
        } else {
            let mut found = self.reader.get(&PRIORITY_CLASSES, "", &wanted).await?;
            if found.is_none() {
                found = self.reader.get_live(&PRIORITY_CLASSES, "", &wanted).await?;
            }
            let Some(found) = found else {
                return Err(
                    request.forbidden(&format!("no PriorityClass with name {wanted} was found"))
                );
            };
            Some(found)
        };
        let (name, value, policy) = match &object {
            Some(object) => {
                let class = class(object)?;
                (object.name(), class.value, class.preemption_policy.clone())
            }
            None => ("", 0, Some("PreemptLowerPriority".to_owned())),
        };
        let given = request
            .object
            .pointer("/spec/priority")
            .and_then(Value::as_i64);
        if let Some(given) = given.filter(|given| *given != value) {
            return Err(request.forbidden(&format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
            )));
        }
        let given = text_at(&request.object, "/spec/preemptionPolicy");
        if let Some(policy) = policy
            .as_deref()
            .filter(|policy| !given.is_empty() && *policy != given)
        {
            return Err(request.forbidden(&format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
            )));
        }
        if let Some(spec) = map_at(&mut request.object, &["spec"]) {
            if !name.is_empty() {
                spec.insert("priorityClassName".to_owned(), json!(name));
            }
            spec.insert("priority".to_owned(), json!(value));
            if let Some(policy) = policy {
                spec.insert("preemptionPolicy".to_owned(), json!(policy));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl AdmissionPlugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        matches!(
            operation,
            AdmissionOperation::Create | AdmissionOperation::Update
        )
    }

    async fn admit(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        if !request.is("", "pods") {
            return Ok(());
        }
        if request.operation == AdmissionOperation::Create {
            return self.resolve(request).await;
        }
        // What was resolved once stays, also when an update leaves it out.
        for field in ["priority", "preemptionPolicy"] {
            let pointer = format!("/spec/{field}");
            let old = request
                .old_object
                .pointer(&pointer)
                .filter(|value| !value.is_null())
                .cloned();
            let missing = request.object.pointer(&pointer).is_none_or(Value::is_null);
            if let (Some(old), true, Some(spec)) =
                (old, missing, map_at(&mut request.object, &["spec"]))
            {
                spec.insert(field.to_owned(), old);
            }
        }
        Ok(())
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let wants_default = request
            .object
            .get("globalDefault")
            .and_then(Value::as_bool)
            .unwrap_or_default();
        if !request.is("scheduling.k8s.io", "priorityclasses") || !wants_default {
            return Ok(());
        }
        let Some(known) = self.default_class().await? else {
            return Ok(());
        };
        let own = request.operation == AdmissionOperation::Update
            && known.name() == text_at(&request.object, "/metadata/name");
        if own {
            return Ok(());
        }
        let why = format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            known.name()
        );
        Err(request.forbidden(&why))
    }
}
