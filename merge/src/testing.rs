//! Generators that the tests of several algorithms share.

use proptest::prelude::*;
use serde_json::{Map, Value};

/// Any small JSON, with nulls or without.
pub(crate) fn json_value(nulls: bool) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        1 => Just(if nulls { Value::Null } else { Value::from(0) }),
        1 => any::<bool>().prop_map(Value::from),
        2 => (-5i64..5).prop_map(Value::from),
        3 => "[a-c]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|map| Value::Object(Map::from_iter(map))),
        ]
    })
}

/// A small world of kinds, with every keyword that the algorithms look at.
pub(crate) fn schema(kind: &str) -> crate::schema::Schema {
    use crate::schema::Definitions;
    static DOCUMENT: std::sync::LazyLock<Definitions> = std::sync::LazyLock::new(|| {
        let document = include_str!("testing.json");
        let document: Map<String, Value> = serde_json::from_str(document).unwrap();
        Definitions::from_openapi(&document).unwrap()
    });
    DOCUMENT.schema(kind).unwrap()
}
