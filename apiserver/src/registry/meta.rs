//! Metadata of a document on its way through the registry.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// `metadata` of a document, made if need be.
pub(crate) fn metadata(document: &mut Value) -> &mut Map<String, Value> {
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    // Both are objects from here on.
    let Value::Object(root) = document else {
        unreachable!("made an object above")
    };
    let metadata = root
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()));
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    let Value::Object(metadata) = metadata else {
        unreachable!("made an object above")
    };
    metadata
}

/// A text field of the metadata; empty where it is missing.
pub(crate) fn text<'a>(document: &'a Value, field: &str) -> &'a str {
    document
        .get("metadata")
        .and_then(|metadata| metadata.get(field))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A number of the metadata.
pub(crate) fn number(document: &Value, field: &str) -> Option<i64> {
    document.get("metadata")?.get(field)?.as_i64()
}

/// The finalizers.
pub(crate) fn finalizers(document: &Value) -> Vec<String> {
    let list = document
        .get("metadata")
        .and_then(|metadata| metadata.get("finalizers"))
        .and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}

/// Sets the finalizers; an empty list takes the field away.
pub(crate) fn set_finalizers(document: &mut Value, finalizers: Vec<String>) {
    let metadata = metadata(document);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), finalizers.into());
    }
}

/// Whether its deletion has begun.
pub(crate) fn is_terminating(document: &Value) -> bool {
    !text(document, "deletionTimestamp").is_empty()
}

/// Sets a metadata field, or takes it away.
pub(crate) fn set(document: &mut Value, field: &str, value: Option<Value>) {
    let metadata = metadata(document);
    match value {
        Some(value) => drop(metadata.insert(field.to_owned(), value)),
        None => drop(metadata.remove(field)),
    }
}

/// A copy of an old document's metadata field, or its absence, in the new one.
pub(crate) fn keep(document: &mut Value, old: &Value, field: &str) {
    let value = old
        .get("metadata")
        .and_then(|metadata| metadata.get(field))
        .cloned();
    set(document, field, value);
}

/// A time as metadata has it: whole seconds.
pub(crate) fn time(at: Timestamp) -> String {
    let whole = Timestamp::from_second(at.as_second()).unwrap_or(at);
    whole.to_string()
}
