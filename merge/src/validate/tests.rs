use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::{json_value, schema};

fn problems(value: &Value) -> Vec<String> {
    let schema = schema("io.test.v1.App");
    let mut found = Vec::new();
    check(schema.ty(), value, &mut |at, problem| {
        found.push(problem.decoder_message(at));
    });
    found
}

#[test]
fn problems_in_the_words_of_the_decoder() {
    let table = [
        (json!({"spec": {"foo": 1}}), "unknown field \"spec.foo\""),
        (
            json!({"spec": {"containers": [{"name": "a"}, {"nam": "b"}]}}),
            "unknown field \"spec.containers[1].nam\"",
        ),
        (
            json!({"spec": {"replicas": "1"}}),
            "json: cannot unmarshal string into Go struct field Spec.spec.replicas of type int32",
        ),
        (
            json!({"spec": {"replicas": 3_000_000_000u64}}),
            "json: cannot unmarshal number 3000000000 into Go struct field Spec.spec.replicas of type int32",
        ),
        (
            json!({"spec": {"replicas": 1.5}}),
            "json: cannot unmarshal number 1.5 into Go struct field Spec.spec.replicas of type int32",
        ),
        (
            json!({"spec": {"paused": "true"}}),
            "json: cannot unmarshal string into Go struct field Spec.spec.paused of type bool",
        ),
        (
            json!({"spec": {"containers": {}}}),
            "json: cannot unmarshal object into Go struct field Spec.spec.containers of type []v1.Container",
        ),
        (
            json!({"spec": {"containers": [{"image": 1}]}}),
            "json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string",
        ),
        (
            json!({"metadata": {"labels": {"a": 1}}}),
            "json: cannot unmarshal number into Go struct field Meta.metadata.labels of type string",
        ),
        (
            json!({"metadata": {"labels": []}}),
            "json: cannot unmarshal array into Go struct field Meta.metadata.labels of type map[string]string",
        ),
        (
            json!({"spec": {"secret": "not base64"}}),
            "illegal base64 data at input byte 3",
        ),
        (
            json!({"metadata": {"creationTimestamp": "now"}}),
            "parsing time \"now\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"now\" as \"2006\"",
        ),
        (
            json!({"metadata": true}),
            "json: cannot unmarshal bool into Go struct field App.metadata of type v1.Meta",
        ),
        (
            json!([]),
            "json: cannot unmarshal array into Go value of type v1.App",
        ),
    ];
    for (value, expected) in table {
        assert_eq!(problems(&value), [expected], "{value}");
        let mismatch = first_mismatch(schema("io.test.v1.App").ty(), &value);
        assert_eq!(mismatch.is_some(), !expected.starts_with("unknown"));
    }
}

#[test]
fn what_is_fine() {
    let table = [
        json!({}),
        json!({"spec": null, "metadata": {"labels": null, "name": null}}),
        json!({"spec": {"any": {"x": [1, {"y": null}]}, "open": {"z": 1}}}),
        json!({"spec": {"containers": [{"name": "a", "limits": {"cpu": 1, "memory": "1Gi"}}]}}),
        json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}}}),
        json!({"metadata": {"managedFields": [{"anything": 1}]}}),
    ];
    for value in table {
        assert_eq!(problems(&value), [""; 0], "{value}");
        let mut pruned = value.clone();
        assert_eq!(
            prune(&schema("io.test.v1.App"), &mut pruned).unwrap(),
            [""; 0]
        );
        assert_eq!(pruned, value);
    }
}

#[test]
fn unknown_fields_are_removed_in_place() {
    let schema = schema("io.test.v1.App");
    let mut value = json!({"x": 1, "spec": {"y": 1, "replicas": 1, "any": {"z": 1}, "containers": [{"name": "a", "q": 1}]},
        "metadata": {"foo": 1, "name": "n", "labels": {"a": "b"}}});
    assert_eq!(unknown_fields(schema.ty(), &value).len(), 4);
    let removed = prune(&schema, &mut value).unwrap();
    assert_eq!(
        removed,
        ["x", "metadata.foo", "spec.y", "spec.containers[0].q"]
    );
    assert_eq!(
        value,
        json!({"spec": {"replicas": 1, "any": {"z": 1}, "containers": [{"name": "a"}]},
            "metadata": {"name": "n", "labels": {"a": "b"}}})
    );
}

#[test]
fn strict_decoding_reports_in_the_order_of_the_document() {
    let schema = schema("io.test.v1.ConfigMap");
    let read = |text: &str| {
        let (value, errors) = decode(schema.ty(), text.as_bytes()).unwrap();
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        (value, errors)
    };
    let (value, errors) = read(
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "u2", "foo": 1}, "bar": 2}"#,
    );
    assert_eq!(
        errors,
        ["unknown field \"metadata.foo\"", "unknown field \"bar\""]
    );
    assert_eq!(value["bar"], 2, "still there, for whoever only warns");
    let (value, errors) = read(
        r#"{"data": {"a": "1", "a": "2"}, "zz": {"b": 1, "b": [{"c": 1, "c": 2}]}, "data": {"d": "3"}}"#,
    );
    assert_eq!(
        errors,
        [
            "duplicate field \"data.a\"",
            "unknown field \"zz\"",
            "duplicate field \"zz.b\"",
            "duplicate field \"zz.b[0].c\"",
            "duplicate field \"data\"",
        ]
    );
    assert_eq!(value["data"], json!({"d": "3"}));
    assert!(decode(schema.ty(), b"{} x").is_err());
    assert!(decode(schema.ty(), b"{\"a\":").is_err());
    let many: String = (0..200).map(|i| format!("\"k{i}\": 1,")).collect();
    assert_eq!(read(&format!("{{{many}\"end\": 1}}")).1.len(), 100);
}

proptest! {
    #[test]
    fn a_pruned_value_has_no_unknown_fields(value in json_value(true)) {
        let schema = schema("io.test.v1.App");
        let mut value = json!({"spec": value.clone(), "metadata": value, "a": 1});
        let unknown = unknown_fields(&schema, &value);
        let before = value.clone();
        match prune(&schema, &mut value) {
            Ok(removed) => {
                prop_assert_eq!(removed.len(), unknown.len());
                prop_assert!(unknown_fields(&schema, &value).is_empty());
            }
            Err(_) => prop_assert_eq!(value, before),
        }
    }

    #[test]
    fn strict_decoding_reads_what_serde_reads(value in json_value(true)) {
        let schema = schema("io.test.v1.App");
        let text = value.to_string();
        let (read, _) = decode(schema.ty(), text.as_bytes()).unwrap();
        prop_assert_eq!(read, value);
    }
}

#[test]
fn null_in_a_map_or_a_list_becomes_the_zero_value() {
    let document = json!({"T": {"type": "object", "properties": {
        "data": {"type": "object", "additionalProperties": {"type": "string"}},
        "bytes": {"type": "object", "additionalProperties": {"type": "string", "format": "byte"}},
        "args": {"type": "array", "items": {"type": "string"}},
        "parts": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "name": {"type": "string"},
    }}});
    let schema = crate::schema::Schema::from_openapi(document.as_object().unwrap(), "T").unwrap();
    let mut object = json!({"data": {"a": null, "b": "x"}, "bytes": {"k": null}, "args": [null, "y"], "parts": [null], "name": null});
    assert_eq!(prune(&schema, &mut object).unwrap(), [""; 0]);
    assert_eq!(
        object,
        json!({"data": {"a": "", "b": "x"}, "bytes": {"k": ""}, "args": ["", "y"], "parts": [{}], "name": null})
    );
}

#[test]
fn a_null_field_is_dropped() {
    let document = json!({"T": {"type": "object", "properties": {
        "name": {"type": "string"},
        "any": {},
        "when": {"type": "string", "format": "date-time"},
        "data": {"type": "object", "additionalProperties": {"type": "string"}},
        "parts": {"type": "array", "items": {"type": "object", "properties": {
            "a": {"type": "string"}, "args": {"type": "array", "items": {"type": "string"}}}}},
    }}});
    let schema = crate::schema::Schema::from_openapi(document.as_object().unwrap(), "T").unwrap();
    let mut object = json!({"name": null, "any": null, "when": null, "data": null, "parts": [{"a": "x", "args": null}]});
    drop_null_fields(&schema, &mut object);
    assert_eq!(
        object,
        json!({"any": null, "when": null, "parts": [{"a": "x"}]})
    );
}
