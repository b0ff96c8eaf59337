//! The walks over values: fields, comparison, merge, removal.

use serde_json::{Value, json};

use crate::apply::FieldSet;
use crate::apply::typed::{
    Absence, Duplicates, compare, extract_items, merge, remove_items, to_field_set, validate,
};
use crate::schema::Schema;
use crate::testing::schema;

fn printed(set: &FieldSet) -> Vec<String> {
    set.paths().iter().map(ToString::to_string).collect()
}

fn spec() -> Schema {
    schema("io.test.v1.Spec")
}

#[test]
fn fields_of_values() {
    let table = [
        (
            json!({"replicas": 1, "paused": null}),
            vec![".paused", ".replicas"],
        ),
        (json!({"strategy": {}}), vec![".strategy"]),
        (json!({"strategy": {"type": "x"}}), vec![".strategy.type"]),
        (
            json!({"any": {"a": {"b": [1, {"c": 2}]}}}),
            vec![".any.a", ".any.a.b"],
        ),
        (
            json!({"open": {"known": "x", "other": {"z": 1}}}),
            vec![".open.known", ".open.other", ".open.other.z"],
        ),
        (json!({"containers": []}), vec![]),
        // Items that share a key are owned as one.
        (
            json!({"containers": [{"name": "a", "image": "i"}, {"name": "a"}]}),
            vec![".containers[name=\"a\"]"],
        ),
    ];
    for (value, expected) in table {
        let set = to_field_set(spec().ty(), &value).unwrap();
        assert_eq!(printed(&set), expected, "{value}");
    }
}

#[test]
fn comparisons() {
    type Row = (
        Value,
        Value,
        &'static [&'static str],
        &'static [&'static str],
        &'static [&'static str],
    );
    let table: [Row; 9] = [
        (
            json!({"replicas": 1}),
            json!({"replicas": 2}),
            &[],
            &[".replicas"],
            &[],
        ),
        (json!({"weight": 1}), json!({"weight": 1.0}), &[], &[], &[]),
        (
            json!({}),
            json!({"strategy": {"type": "x"}}),
            &[".strategy", ".strategy.type"],
            &[],
            &[],
        ),
        (
            json!({"strategy": {"type": "x"}}),
            json!({}),
            &[],
            &[],
            &[".strategy", ".strategy.type"],
        ),
        (
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"b": "1"}}),
            &[],
            &[".nodeSelector"],
            &[],
        ),
        (
            json!({"containers": [{"name": "a"}, {"name": "b", "image": "i"}]}),
            json!({"containers": [{"name": "b", "image": "j"}, {"name": "c"}]}),
            &[".containers[name=\"c\"]", ".containers[name=\"c\"].name"],
            &[".containers[name=\"b\"].image"],
            &[".containers[name=\"a\"]", ".containers[name=\"a\"].name"],
        ),
        (
            json!({"any": {"a": [1]}}),
            json!({"any": {"a": [2]}}),
            &[],
            &[".any.a"],
            &[],
        ),
        // Untyped JSON that changes its kind.
        (
            json!({"any": {"a": {"b": 1}}}),
            json!({"any": {"a": "x"}}),
            &[],
            &[".any.a"],
            &[".any.a.b"],
        ),
        (
            json!({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "j"}]}),
            json!({"containers": [{"name": "a", "image": "i"}]}),
            &[
                ".containers[name=\"a\"].image",
                ".containers[name=\"a\"].name",
                ".containers[name=\"a\"]",
            ],
            &[],
            &[".containers[name=\"a\"]"],
        ),
    ];
    for (old, new, added, modified, removed) in table {
        let found = compare(spec().ty(), &old, &new, Absence::Absent).unwrap();
        let sorted = |paths: &[&str]| {
            let mut paths: Vec<_> = paths.iter().map(ToString::to_string).collect();
            paths.sort();
            paths
        };
        let sorted_set = |set: &FieldSet| {
            let mut paths = printed(set);
            paths.sort();
            paths
        };
        assert_eq!(
            sorted_set(&found.added),
            sorted(added),
            "added: {old} → {new}"
        );
        assert_eq!(
            sorted_set(&found.modified),
            sorted(modified),
            "modified: {old} → {new}"
        );
        assert_eq!(
            sorted_set(&found.removed),
            sorted(removed),
            "removed: {old} → {new}"
        );
    }
}

#[test]
fn built_in_kinds_always_hold_their_structs_and_required_fields() {
    let schema = schema("io.test.v1.App");
    let added = |old: &Value, new: &Value, absence| {
        let found = compare(schema.ty(), old, new, absence).unwrap();
        (printed(&found.added), printed(&found.modified))
    };
    let new = json!({"metadata": {"labels": {"a": "1"}}, "status": {},
        "spec": {"strategy": {"type": "x"}, "template": {"count": 0, "ready": true, "items": ["i"], "note": "n"}}});
    let (zero_added, zero_modified) = added(&json!({}), &new, Absence::Zero);
    assert_eq!(
        zero_added,
        [
            ".metadata.labels",
            ".metadata.labels.a",
            ".spec.strategy",
            ".spec.strategy.type",
            ".spec.template.note",
            ".spec.template.items[=\"i\"]",
        ]
    );
    // A zero is what was there; anything else is a change of it.
    assert_eq!(zero_modified, [".spec.template.ready"]);
    let (absent_added, absent_modified) = added(&json!({}), &new, Absence::Absent);
    for path in [
        ".metadata",
        ".spec",
        ".status",
        ".spec.template",
        ".spec.template.count",
        ".spec.template.items",
    ] {
        assert!(absent_added.iter().any(|added| added == path), "{path}");
    }
    assert!(absent_modified.is_empty());
    // Taking it away again is the same from the other side.
    let back = compare(schema.ty(), &new, &json!({}), Absence::Zero).unwrap();
    assert_eq!(printed(&back.removed), zero_added);
}

#[test]
fn merged_lists_keep_the_applied_order_within_the_live_one() {
    let names = |list: &str| -> Value {
        list.chars()
            .map(|c| json!({"name": c.to_string()}))
            .collect()
    };
    let table = [
        ("abc", "d", "abcd"),
        ("abc", "ca", "bca"),
        ("ab", "ba", "ba"),
        ("", "xy", "xy"),
        ("abc", "bxc", "abxc"),
        ("abcd", "dxa", "bcdxa"),
        ("aXbYc", "cab", "XYcab"),
    ];
    for (live, applied, expected) in table {
        let merged = merge(
            spec().ty(),
            &json!({"containers": names(live)}),
            &json!({"containers": names(applied)}),
        )
        .unwrap();
        assert_eq!(merged["containers"], names(expected), "{live} + {applied}");
    }
}

#[test]
fn merged_values() {
    let table = [
        (
            json!({"replicas": 1, "paused": true}),
            json!({"replicas": 2}),
            json!({"replicas": 2, "paused": true}),
        ),
        (
            json!({"any": {"a": 1, "l": [1]}}),
            json!({"any": {"b": 2, "l": [2]}}),
            json!({"any": {"a": 1, "b": 2, "l": [2]}}),
        ),
        (
            json!({"any": {"a": {"b": 1}}}),
            json!({"any": {"a": "x"}}),
            json!({"any": {"a": "x"}}),
        ),
        (
            json!({"strategy": {"type": "x"}}),
            json!({"strategy": {}}),
            json!({"strategy": {"type": "x"}}),
        ),
        (json!({}), json!({"strategy": {}}), json!({"strategy": {}})),
        (
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {}}),
            json!({"nodeSelector": {}}),
        ),
    ];
    for (live, applied, expected) in table {
        assert_eq!(
            merge(spec().ty(), &live, &applied).unwrap(),
            expected,
            "{live} + {applied}"
        );
    }
}

#[test]
fn removed_and_extracted_items() {
    let value = json!({"replicas": 1, "strategy": {"type": "x"}, "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}],
        "any": {"z": 1, "y": 2}});
    let set = FieldSet::from_fields_v1(&json!({"f:replicas": {}, "f:any": {"f:z": {}},
        "f:containers": {"k:{\"name\":\"a\"}": {".": {}}, "k:{\"name\":\"b\"}": {"f:image": {}}}}))
    .unwrap();
    assert_eq!(
        remove_items(spec().ty(), &value, &set),
        json!({"strategy": {"type": "x"}, "containers": [{"name": "b"}], "any": {"y": 2}})
    );
    assert_eq!(
        extract_items(spec().ty(), &value, &set).unwrap(),
        json!({"replicas": 1, "any": {"z": 1}, "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]})
    );
}

#[test]
fn type_errors() {
    let table = [
        (
            json!({"replicas": "x"}),
            ".replicas: expected numeric (int or float), got string",
        ),
        (
            json!({"strategy": 1}),
            ".strategy: expected map, got &value.valueUnstructured{Value:1}",
        ),
        (
            json!({"containers": {}}),
            ".containers: expected list, got &value.valueUnstructured{Value:map[string]interface {}{}}",
        ),
        (
            json!({"nodeSelector": {"a": true}}),
            ".nodeSelector.a: expected string, got &value.valueUnstructured{Value:true}",
        ),
        (
            json!({"a": 1, "b": 1}),
            "errors:\n  .a: field not declared in schema\n  .b: field not declared in schema",
        ),
    ];
    for (value, expected) in table {
        let errors = validate(spec().ty(), &value, Duplicates::Forbidden).unwrap_err();
        assert_eq!(errors.to_string(), expected);
    }
    let twice = json!({"containers": [{"name": "a"}, {"name": "a"}]});
    assert!(validate(spec().ty(), &twice, Duplicates::Allowed).is_ok());
    let fine =
        json!({"replicas": null, "any": {"a": [1, {"b": null}]}, "open": {"known": "x", "z": 1}});
    assert!(validate(spec().ty(), &fine, Duplicates::Forbidden).is_ok());
}
