//! Labels and label selectors.

use orlop_core::field::Path;
use serde_json::Value;

use super::errors::Errors;
use super::names;
use crate::doc;

/// A key of a label.
pub(crate) fn label_key(errors: &mut Errors, key: &str, path: &Path) {
    errors.all_invalid(path, key, names::qualified_name(key));
}

/// The map of texts under `key`, each pair a label.
pub(crate) fn labels(errors: &mut Errors, of: &Value, key: &str, path: &Path) {
    let path = path.child(key);
    for (key, value) in doc::text_entries(of, key) {
        label_key(errors, key, &path);
        errors.all_invalid(&path, value, names::label_value(value));
    }
}

/// The label selector under `key`, where there is one.
pub(crate) fn selector(errors: &mut Errors, of: &Value, key: &str, path: &Path) {
    let selector = doc::get(of, key);
    if selector.is_null() {
        return;
    }
    let path = path.child(key);
    labels(errors, selector, "matchLabels", &path);
    for (i, requirement) in doc::list(selector, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(i);
        match doc::text(requirement, "operator") {
            "In" | "NotIn" => {
                if doc::list(requirement, "values").is_empty() {
                    errors.required(
                        &path.child("values"),
                        "must be specified when `operator` is 'In' or 'NotIn'",
                    );
                }
            }
            "Exists" | "DoesNotExist" => {
                if !doc::list(requirement, "values").is_empty() {
                    errors.forbidden(
                        &path.child("values"),
                        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                    );
                }
            }
            other => errors.invalid(
                &path.child("operator"),
                other,
                "not a valid selector operator",
            ),
        }
        label_key(errors, doc::text(requirement, "key"), &path.child("key"));
        for (i, value) in doc::texts(requirement, "values").enumerate() {
            errors.all_invalid(
                &path.child("values").index(i),
                value,
                names::label_value(value),
            );
        }
    }
}

/// Whether a label selector has no requirement at all.
pub(crate) fn selector_is_empty(selector: &Value) -> bool {
    doc::is_empty(doc::get(selector, "matchLabels"))
        && doc::list(selector, "matchExpressions").is_empty()
}

/// Whether a label selector selects an object with these labels. An absent selector selects nothing.
pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    if selector.is_null() {
        return false;
    }
    let has = |key: &str| labels.get(key).and_then(Value::as_str);
    doc::text_entries(selector, "matchLabels").all(|(key, value)| has(key) == Some(value))
        && doc::list(selector, "matchExpressions")
            .iter()
            .all(|requirement| {
                let value = has(doc::text(requirement, "key"));
                let listed = value.is_some_and(|value| {
                    doc::texts(requirement, "values").any(|other| other == value)
                });
                match doc::text(requirement, "operator") {
                    "In" => listed,
                    "NotIn" => !listed,
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
}

/// Whether a plain map of labels selects an object with these labels.
pub(crate) fn map_selects(selector: &Value, labels: &Value) -> bool {
    selector.as_object().is_none_or(|wanted| {
        wanted
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_select() {
        let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [
            {"key": "x", "operator": "NotIn", "values": ["1"]}, {"key": "a", "operator": "Exists"}]});
        assert!(selects(&selector, &json!({"a": "b"})));
        assert!(!selects(&selector, &json!({"a": "b", "x": "1"})));
        assert!(!selects(&Value::Null, &json!({})));
        assert!(selects(&json!({}), &Value::Null));
    }

    #[test]
    fn bad_selectors_are_refused_in_order() {
        let mut errors = Errors::new();
        let of = json!({"selector": {"matchExpressions": [{"key": "", "operator": "Foo"}, {"key": "a", "operator": "In"}]}});
        selector(&mut errors, &of, "selector", &Path::new("spec"));
        let found: Vec<String> = errors
            .0
            .iter()
            .map(|error| error.path.to_string())
            .collect();
        assert_eq!(
            found,
            [
                "spec.selector.matchExpressions[0].operator",
                "spec.selector.matchExpressions[0].key",
                "spec.selector.matchExpressions[0].key",
                "spec.selector.matchExpressions[1].values"
            ]
        );
    }
}
