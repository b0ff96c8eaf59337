use serde_json::{Value, json};

use super::*;
use crate::testing::schema;

fn object(value: &Value) -> &serde_json::Map<String, Value> {
    value.as_object().unwrap()
}

fn fields<'a>(ty: Type<'a>) -> StructType<'a> {
    match ty.kind() {
        Kind::Struct(s) => s,
        _ => panic!("{ty:?} is no struct"),
    }
}

#[test]
fn every_kind_of_node_is_read() {
    let spec = schema("io.test.v1.Spec");
    let spec = fields(spec.ty());
    let kind = |name: &str| spec.field(name).unwrap().ty().kind();
    let scalar = |name: &str| match kind(name) {
        Kind::Scalar(scalar) => (scalar.kind, scalar.format),
        _ => panic!("{name} is no scalar"),
    };
    assert_eq!(scalar("replicas"), (ScalarKind::Integer, Format::Int32));
    assert_eq!(scalar("weight"), (ScalarKind::Number, Format::Double));
    assert_eq!(scalar("paused"), (ScalarKind::Boolean, Format::Unspecified));
    assert_eq!(scalar("secret"), (ScalarKind::String, Format::Byte));
    let Kind::List(containers) = kind("containers") else {
        panic!()
    };
    assert_eq!(containers.kind(), ListKind::Map(&["name".into()]));
    let container = fields(containers.item());
    assert_eq!(container.short_name(), "Container");
    assert!(container.field("name").unwrap().is_required());
    assert!(!container.field("image").unwrap().is_required());
    let Kind::List(ports) = container.field("ports").unwrap().ty().kind() else {
        panic!()
    };
    assert_eq!(ports.key_default("protocol"), Some(&json!("TCP")));
    assert_eq!(ports.key_default("containerPort"), None);
    let Kind::Map(limits) = container.field("limits").unwrap().ty().kind() else {
        panic!()
    };
    let Kind::Scalar(quantity) = limits.value().kind() else {
        panic!()
    };
    assert_eq!(quantity.kind, ScalarKind::Quantity);
    assert!(quantity.accepts(&json!("1Gi")) && quantity.accepts(&json!(1.5)));
    let Kind::Map(any) = kind("any") else {
        panic!()
    };
    assert!(matches!(any.value().kind(), Kind::Any));
    let Kind::Struct(open) = kind("open") else {
        panic!()
    };
    assert!(open.rest().is_some() && open.field("known").is_some());
}

#[test]
fn a_field_may_make_its_type_granular_or_atomic() {
    let spec = schema("io.test.v1.Spec");
    let atomic = |name: &str| match fields(spec.ty()).field(name).unwrap().ty().kind() {
        Kind::Struct(s) => s.is_atomic(),
        Kind::Map(m) => m.is_atomic(),
        _ => panic!("{name}"),
    };
    assert!(atomic("selector") && atomic("nodeSelector"));
    assert!(!atomic("loose") && !atomic("strategy"));
}

#[test]
fn patch_strategies_are_of_the_field() {
    let spec = schema("io.test.v1.Spec");
    let field = |name: &str| fields(spec.ty()).field(name).unwrap();
    let volumes = field("volumes").patch_strategy();
    assert!(volumes.merge && volumes.retain_keys && !volumes.replace);
    assert_eq!(field("volumes").patch_merge_key(), Some("name"));
    assert!(field("budget").patch_strategy().replace);
    assert_eq!(field("replicas").patch_strategy(), PatchStrategy::default());
}

#[test]
fn definitions_may_refer_to_themselves_and_to_each_other() {
    let props = schema("io.test.v1.JSONSchemaProps");
    let deep = ["properties", "a", "properties", "b", "type"]
        .iter()
        .try_fold(props.ty(), |ty, key| ty.child(key))
        .unwrap();
    assert_eq!(deep.go_name(), "string");
    assert_eq!(
        props.ty().child("properties").unwrap().go_name(),
        "map[string]v1.JSONSchemaProps"
    );
    assert!(props.named("io.test.v1.App").is_some());
    assert!(props.named("io.test.v1.Nope").is_none());
    let alias = json!({"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/C"}, "C": {"type": "object", "properties": {"x": {"type": "string"}}}});
    let alias = Schema::from_openapi(object(&alias), "A").unwrap();
    assert_eq!(alias.ty().name(), Some("C"));
}

#[test]
fn alternatives_and_nullable_types_of_json_schema() {
    let document = json!({"T": {"properties": {
        "q": {"oneOf": [{"type": "string"}, {"type": "number"}]},
        "p": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        "n": {"type": ["string", "null"]},
        "x": {},
        "d": {"type": "integer", "default": 3, "nullable": true},
        "r": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {}},
        "m": {"type": "object", "additionalProperties": true},
    }}});
    let schema = Schema::from_openapi(object(&document), "T").unwrap();
    let t = fields(schema.ty());
    let go = |name: &str| t.field(name).unwrap().ty().go_name();
    assert_eq!(go("q"), "resource.Quantity");
    assert_eq!(go("p"), "intstr.IntOrString");
    assert_eq!(go("n"), "string");
    assert_eq!(go("x"), "interface {}");
    assert_eq!(go("m"), "map[string]interface {}");
    assert_eq!(t.field("d").unwrap().default_value(), Some(&json!(3)));
    assert!(t.field("d").unwrap().is_nullable());
    assert!(fields(t.field("r").unwrap().ty()).is_embedded_resource());
    assert_eq!(
        t.fields().map(Field::name).collect::<Vec<_>>(),
        ["d", "m", "n", "p", "q", "r", "x"]
    );
}

#[test]
fn what_is_wrong_with_a_document_is_named() {
    let table = [
        (
            json!({"A": {"$ref": "#/x/B"}}),
            "A: $ref to the unknown definition \"B\"",
        ),
        (
            json!({"A": {"$ref": "#/x/B"}, "B": {"$ref": "#/x/A"}}),
            "the definition \"A\" refers to nothing but itself",
        ),
        (
            json!({"A": {"type": "blob"}}),
            "A: invalid type: unknown type \"blob\"",
        ),
        (
            json!({"A": {"type": "array", "x-kubernetes-list-type": "bag"}}),
            "A: invalid x-kubernetes-list-type: \"bag\" is none of atomic, set, map",
        ),
        (
            json!({"A": {"type": "array", "x-kubernetes-list-type": "map"}}),
            "A: invalid x-kubernetes-list-map-keys: a list of type map needs at least one key",
        ),
        (
            json!({"A": {"type": "object", "x-kubernetes-map-type": "x"}}),
            "A: invalid x-kubernetes-map-type: \"x\" is none of atomic, granular",
        ),
        (
            json!({"A": {"type": "object", "properties": {"f": {"x-kubernetes-patch-strategy": "x"}}}}),
            "A: invalid x-kubernetes-patch-strategy: \"x\" is none of merge, replace, retainKeys",
        ),
        (json!({}), "no definition named \"A\""),
    ];
    for (document, expected) in table {
        let error = Schema::from_openapi(object(&document), "A").unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn untyped_knows_nothing() {
    let schema = Schema::untyped();
    assert!(matches!(schema.ty().child("a").unwrap().kind(), Kind::Any));
}
