//! JSON Merge Patch (RFC 7386).
//!
//! ```
//! use serde_json::json;
//!
//! let mut object = json!({"data": {"a": "1", "b": "2"}});
//! orlop_merge::merge_patch::apply(&mut object, &json!({"data": {"a": null, "c": "3"}}));
//! assert_eq!(object, json!({"data": {"b": "2", "c": "3"}}));
//! ```

use serde_json::{Map, Value};

/// Applies a merge patch: objects are merged, null removes, everything else replaces.
pub fn apply(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            match target.get_mut(key) {
                Some(existing) => apply(existing, value),
                None => {
                    let mut fresh = Value::Null;
                    apply(&mut fresh, value);
                    target.insert(key.clone(), fresh);
                }
            }
        }
    }
}

/// The merge patch that makes `to` of `from`; `None` when they are equal. A null inside `to` cannot be expressed: a
/// merge patch has no way to write it.
#[must_use]
pub fn diff(from: &Value, to: &Value) -> Option<Value> {
    if from == to {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (from, to) else {
        return Some(to.clone());
    };
    let mut patch = Map::new();
    for (key, old) in old {
        match new.get(key) {
            None => {
                patch.insert(key.clone(), Value::Null);
            }
            Some(new) => {
                if let Some(change) = diff(old, new) {
                    patch.insert(key.clone(), change);
                }
            }
        }
    }
    for (key, new) in new {
        if !old.contains_key(key) {
            patch.insert(key.clone(), new.clone());
        }
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::json_value;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_examples_of_the_rfc() {
        let table = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!([1, 2]),
                json!({"a": "b", "c": null}),
                json!({"a": "b"}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ];
        for (target, patch, expected) in table {
            let mut result = target.clone();
            apply(&mut result, &patch);
            assert_eq!(result, expected, "{target} patched with {patch}");
        }
    }

    proptest! {
        #[test]
        fn a_diff_leads_from_one_to_the_other(from in json_value(false), to in json_value(false)) {
            let mut result = from.clone();
            match diff(&from, &to) {
                Some(patch) => apply(&mut result, &patch),
                None => prop_assert_eq!(&from, &to),
            }
            prop_assert_eq!(result, to);
        }

        #[test]
        fn applying_twice_changes_nothing_more(target in json_value(true), patch in json_value(true)) {
            let mut once = target;
            apply(&mut once, &patch);
            let mut twice = once.clone();
            apply(&mut twice, &patch);
            prop_assert_eq!(once, twice);
        }
    }
}
