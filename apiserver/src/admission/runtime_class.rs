//! The runtime class of a pod adds what its runtime costs, and where it is to be found.

use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest, ObjectReader};
use orlop_core::field::quote;
use orlop_core::quantity::Quantity;
use orlop_core::status::Status;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Context, map_at};
use crate::names::{RUNTIME_CLASSES, list_at, text_at, text_field};

/// Writes the overhead, node selector and tolerations of a pod's runtime class into the pod.
pub struct RuntimeClass {
    reader: Arc<dyn ObjectReader>,
}

impl RuntimeClass {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            reader: context.reader.clone(),
        }
    }

    async fn class(&self, request: &AdmissionRequest) -> Result<Option<Arc<Value>>, Status> {
        let name = text_at(&request.object, "/spec/runtimeClassName");
        if name.is_empty() {
            return Ok(None);
        }
        let mut class = self.reader.get(&RUNTIME_CLASSES, "", name).await?;
        if class.is_none() {
            class = self.reader.get_live(&RUNTIME_CLASSES, "", name).await?;
        }
        match class {
            Some(class) => class.value().map(Some).map_err(Status::internal),
            None => Err(request.forbidden(&format!(
                "pod rejected: RuntimeClass {} not found",
                quote(name)
            ))),
        }
    }
}

/// Overheads are equal when their amounts are, however they are written.
fn same_overhead(a: Option<&Value>, b: Option<&Value>) -> bool {
    type Amounts = std::collections::BTreeMap<String, Quantity>;
    let read = |value: Option<&Value>| {
        value
            .and_then(|value| Amounts::deserialize(value).ok())
            .unwrap_or_default()
    };
    read(a) == read(b)
}

fn overhead(class: Option<&Value>) -> Option<&Value> {
    class?
        .pointer("/overhead/podFixed")
        .filter(|overhead| overhead.is_object())
}

/// Whether whatever the second toleration tolerates, the first does too.
fn is_superset(one: &Value, other: &Value) -> bool {
    if one == other {
        return true;
    }
    let operator = |toleration: &Value| match text_field(toleration, "operator") {
        "" => "Equal".to_owned(),
        operator => operator.to_owned(),
    };
    let (key, effect) = (text_field(one, "key"), text_field(one, "effect"));
    let all_keys = key.is_empty() && operator(one) == "Exists";
    if key != text_field(other, "key") && !all_keys {
        return false;
    }
    if effect != text_field(other, "effect") && !effect.is_empty() {
        return false;
    }
    if effect == "NoExecute" || effect.is_empty() {
        let seconds =
            |toleration: &Value| toleration.get("tolerationSeconds").and_then(Value::as_i64);
        match (seconds(one), seconds(other)) {
            (None, _) => {}
            (Some(own), Some(other)) if own >= other => {}
            _ => return false,
        }
    }
    match operator(one).as_str() {
        "Exists" => true,
        "Equal" => {
            operator(other) == "Equal" && text_field(one, "value") == text_field(other, "value")
        }
        _ => false,
    }
}

/// All tolerations of both lists but those that another one contains.
fn merge_tolerations(own: &[Value], more: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = own.iter().chain(more).collect();
    let mut merged: Vec<Value> = Vec::new();
    for (at, toleration) in all.iter().enumerate() {
        let contained = merged.iter().any(|known| is_superset(known, toleration))
            || all[at + 1..]
                .iter()
                .any(|later| *later != *toleration && is_superset(later, toleration));
        if !contained {
            merged.push((*toleration).clone());
        }
    }
    merged
}

fn schedule(request: &mut AdmissionRequest, class: &Value) -> Result<(), Status> {
    let Some(scheduling) = class
        .get("scheduling")
        .filter(|scheduling| scheduling.is_object())
    else {
        return Ok(());
    };
    let wanted = scheduling.get("nodeSelector").and_then(Value::as_object);
    let known = request
        .object
        .pointer("/spec/nodeSelector")
        .and_then(Value::as_object);
    let mut selector: Map<String, Value> = known.cloned().unwrap_or_default();
    for (key, value) in wanted.into_iter().flatten() {
        if let Some(own) = selector.get(key).filter(|own| *own != value) {
            let (value, own) = (
                value.as_str().unwrap_or_default(),
                own.as_str().unwrap_or_default(),
            );
            return Err(request.forbidden(&format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
            )));
        }
        selector.insert(key.clone(), value.clone());
    }
    let tolerations = merge_tolerations(
        list_at(&request.object, "/spec/tolerations"),
        list_at(scheduling, "/tolerations"),
    );
    if let Some(spec) = map_at(&mut request.object, &["spec"]) {
        if !selector.is_empty() {
            spec.insert("nodeSelector".to_owned(), Value::Object(selector));
        }
        if !tolerations.is_empty() {
            spec.insert("tolerations".to_owned(), Value::Array(tolerations));
        }
    }
    Ok(())
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

#[async_trait]
impl AdmissionPlugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        operation == AdmissionOperation::Create
    }

    async fn admit(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        if !request.is("", "pods") {
            return Ok(());
        }
        let Some(class) = self.class(request).await? else {
            return Ok(());
        };
        if let Some(fixed) = overhead(Some(&class)) {
            let own = request
                .object
                .pointer("/spec/overhead")
                .filter(|overhead| !overhead.is_null());
            if own.is_some() && !same_overhead(own, Some(fixed)) {
                return Err(request.forbidden(MISMATCH));
            }
            if let Some(spec) = map_at(&mut request.object, &["spec"]) {
                spec.insert("overhead".to_owned(), fixed.clone());
            }
        }
        schedule(request, &class)
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), Status> {
        if !request.is("", "pods") {
            return Ok(());
        }
        let class = self.class(request).await?;
        let own = request
            .object
            .pointer("/spec/overhead")
            .filter(|overhead| !overhead.is_null());
        match overhead(class.as_deref()) {
            Some(fixed) if !same_overhead(own, Some(fixed)) => Err(request.forbidden(MISMATCH)),
            None if own.is_some() => Err(request
                .forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")),
            _ => Ok(()),
        }
    }
}
