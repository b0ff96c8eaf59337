//! The `scale` subresource: the number of replicas of anything that has one, and who they are.

use orlop_core::resource::GroupVersionKind;
use serde_json::{Map, Value, json};

use crate::doc;

fn scales(gvk: &GroupVersionKind) -> bool {
    matches!(
        (&*gvk.group, &*gvk.kind),
        ("", "ReplicationController") | ("apps", "Deployment" | "ReplicaSet" | "StatefulSet")
    )
}

/// The `Scale` of an object; `None` for kinds without.
#[must_use]
pub fn read(gvk: &GroupVersionKind, object: &Value) -> Option<Value> {
    if !scales(gvk) {
        return None;
    }
    let meta = doc::get(object, "metadata");
    let mut own = Value::Object(Map::new());
    for key in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        doc::copy_field(&mut own, meta, key);
    }
    let spec = doc::get(object, "spec");
    let mut wanted = json!({});
    if let Some(replicas) = doc::int(spec, "replicas").filter(|replicas| *replicas != 0) {
        doc::set(&mut wanted, "replicas", replicas);
    }
    let mut status =
        json!({"replicas": doc::int(doc::get(object, "status"), "replicas").unwrap_or_default()});
    let selector = match &*gvk.kind {
        "ReplicationController" => labels_text(doc::get(spec, "selector")),
        _ => selector_text(doc::get(spec, "selector")),
    };
    if !selector.is_empty() {
        doc::set(&mut status, "selector", selector);
    }
    Some(
        json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": own, "spec": wanted, "status": status}),
    )
}

/// Sets the replicas of an object to those of a `Scale`. False for kinds without.
pub fn write(gvk: &GroupVersionKind, object: &mut Value, scale: &Value) -> bool {
    if !scales(gvk) {
        return false;
    }
    let replicas = doc::int(doc::get(scale, "spec"), "replicas").unwrap_or_default();
    doc::set(doc::ensure_object(object, "spec"), "replicas", replicas);
    true
}

fn labels_text(labels: &Value) -> String {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.join(",")
}

/// A label selector in the form of the query parameter, requirements in the order of their keys.
#[must_use]
pub fn selector_text(selector: &Value) -> String {
    let mut requirements: Vec<(String, String)> = doc::text_entries(selector, "matchLabels")
        .map(|(key, value)| (key.to_owned(), format!("{key}={value}")))
        .collect();
    for requirement in doc::list(selector, "matchExpressions") {
        let key = doc::text(requirement, "key");
        let mut values: Vec<&str> = doc::texts(requirement, "values").collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match doc::text(requirement, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        requirements.push((key.to_owned(), text));
    }
    requirements.sort_by(|a, b| a.0.cmp(&b.0));
    requirements
        .into_iter()
        .map(|(_, text)| text)
        .collect::<Vec<_>>()
        .join(",")
}
