//! Reading and changing JSON documents without ceremony: absent, `null` and zero read alike, as they do in Kubernetes.

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// A field, or `null` where there is none.
pub(crate) fn get<'a>(value: &'a Value, key: &str) -> &'a Value {
    value.get(key).unwrap_or(&NULL)
}

/// A field below a field, or `null` where any step is missing.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |value, key| get(value, key))
}

/// A text field; empty where there is none.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    get(value, key).as_str().unwrap_or_default()
}

/// A text field that may be absent.
pub(crate) fn opt_text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    get(value, key).as_str()
}

/// A whole number that may be absent.
pub(crate) fn int(value: &Value, key: &str) -> Option<i64> {
    get(value, key).as_i64()
}

/// A flag; false where there is none.
pub(crate) fn flag(value: &Value, key: &str) -> bool {
    get(value, key).as_bool().unwrap_or_default()
}

/// A flag that may be absent.
pub(crate) fn opt_flag(value: &Value, key: &str) -> Option<bool> {
    get(value, key).as_bool()
}

/// A list; empty where there is none.
pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    get(value, key).as_array().map_or(&[], Vec::as_slice)
}

/// The texts of a list.
pub(crate) fn texts<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    list(value, key).iter().filter_map(Value::as_str)
}

/// The entries of a map in key order.
pub(crate) fn entries<'a>(
    value: &'a Value,
    key: &str,
) -> impl Iterator<Item = (&'a str, &'a Value)> {
    get(value, key)
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value))
}

/// The entries of a map of texts in key order.
pub(crate) fn text_entries<'a>(
    value: &'a Value,
    key: &str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    entries(value, key).map(|(key, value)| (key, value.as_str().unwrap_or_default()))
}

/// Whether a field is there and not `null`.
pub(crate) fn has(value: &Value, key: &str) -> bool {
    !get(value, key).is_null()
}

/// Whether a value is absent, `null`, or an empty text, list or map.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// Whether two values mean the same: an absent list and an empty one do, and so do a missing field and `null`.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter()
                .all(|(key, value)| same(value, b.get(key).unwrap_or(&NULL)))
                && b.iter()
                    .all(|(key, value)| a.contains_key(key) || same(&NULL, value))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Null, Value::Array(items)) | (Value::Array(items), Value::Null) => items.is_empty(),
        (a, b) => a == b,
    }
}

/// The labels (or annotations, by key) of an object.
pub(crate) fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    at(object, &["metadata", "annotations", key]).as_str()
}

/// A field to change, where it is an object.
pub(crate) fn object_mut<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    value.get_mut(key).filter(|value| value.is_object())
}

/// A field to change; an empty object is put where there is none.
pub(crate) fn ensure_object<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    if !value.get(key).is_some_and(Value::is_object) {
        value[key] = Value::Object(Map::new());
    }
    &mut value[key]
}

/// The elements of a list to change.
pub(crate) fn each_mut<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    value
        .get_mut(key)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// Sets a field.
pub(crate) fn set(value: &mut Value, key: &str, to: impl Into<Value>) {
    if let Some(fields) = value.as_object_mut() {
        fields.insert(key.to_owned(), to.into());
    }
}

/// Sets a field that is absent.
pub(crate) fn default_to(value: &mut Value, key: &str, to: impl Into<Value>) {
    if !has(value, key) {
        set(value, key, to);
    }
}

/// Sets a text field that is absent or empty.
pub(crate) fn default_text(value: &mut Value, key: &str, to: &str) {
    if text(value, key).is_empty() {
        set(value, key, to);
    }
}

/// Sets a number that is absent or zero.
pub(crate) fn default_int(value: &mut Value, key: &str, to: i64) {
    if int(value, key).unwrap_or_default() == 0 {
        set(value, key, to);
    }
}

/// Removes a field.
pub(crate) fn remove(value: &mut Value, key: &str) -> Option<Value> {
    value.as_object_mut().and_then(|fields| fields.remove(key))
}

/// Makes a field as it is in another object: a copy, or absent where it is absent there.
pub(crate) fn copy_field(to: &mut Value, from: &Value, key: &str) {
    match from.get(key) {
        Some(value) if !value.is_null() => set(to, key, value.clone()),
        _ => {
            remove(to, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_and_empty_lists_are_the_same_and_values_are_not() {
        assert!(same(&json!({"a": []}), &json!({})));
        assert!(same(&json!({}), &json!({"a": null})));
        assert!(!same(&json!({"a": {}}), &json!({})));
        assert!(!same(&json!({"a": [1]}), &json!({"a": [2]})));
        assert!(!same(&json!({"a": 0}), &json!({})));
    }

    #[test]
    fn missing_steps_read_as_nothing() {
        let value = json!({"spec": {"a": [1, 2]}});
        assert_eq!(list(at(&value, &["spec"]), "a").len(), 2);
        assert_eq!(text(at(&value, &["no", "such"]), "x"), "");
    }
}
