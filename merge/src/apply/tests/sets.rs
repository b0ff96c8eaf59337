//! The algebra of field sets, and their form on the wire.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::apply::{FieldSet, Path, PathElement};

fn element() -> impl Strategy<Value = PathElement> {
    prop_oneof![
        4 => "[a-c]".prop_map(PathElement::field),
        1 => (0i64..3).prop_map(|n| PathElement::key([("name", Value::from(n))])),
        1 => "[a-b]".prop_map(|s| PathElement::Value(Value::from(s))),
        1 => (0i64..2).prop_map(PathElement::Index),
    ]
}

pub(super) fn set() -> impl Strategy<Value = FieldSet> {
    prop::collection::vec(prop::collection::vec(element(), 1..4).prop_map(Path), 0..12)
        .prop_map(FieldSet::from_iter)
}

proptest! {
    #[test]
    fn the_wire_form_is_read_back(set in set()) {
        prop_assert_eq!(FieldSet::from_fields_v1(&set.to_fields_v1()), Ok(set));
    }

    #[test]
    fn union_intersection_and_difference_are_those_of_sets(a in set(), b in set()) {
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
        prop_assert!(a.difference(&b).intersection(&b).is_empty());
        prop_assert_eq!(a.union(&b).difference(&b), a.difference(&b));
        prop_assert_eq!(a.union(&b).len() + a.intersection(&b).len(), a.len() + b.len());
        for path in a.union(&b).paths() {
            prop_assert!(a.contains(&path.0) || b.contains(&path.0));
        }
        for path in a.intersection(&b).paths() {
            prop_assert!(a.contains(&path.0) && b.contains(&path.0));
        }
    }

    #[test]
    fn a_recursive_difference_leaves_nothing_below(a in set(), b in set()) {
        let left = a.recursive_difference(&b);
        prop_assert!(left.difference(&a.difference(&b)).is_empty());
        for path in left.paths() {
            prop_assert!((1..=path.0.len()).all(|n| !b.contains(&path.0[..n])));
        }
    }

    #[test]
    fn leaves_are_members_with_nothing_below(a in set()) {
        let leaves = a.leaves();
        prop_assert!(leaves.difference(&a).is_empty());
        prop_assert_eq!(leaves.leaves(), leaves.clone());
        prop_assert_eq!(leaves.is_empty(), a.is_empty());
    }
}

#[test]
fn sets_on_the_wire() {
    let table = [
        (json!({"f:a": {}}), vec![".a"]),
        (json!({"f:a": {".": {}, "f:b": {}}}), vec![".a", ".a.b"]),
        (json!({"f:a": {"f:b": {}}}), vec![".a.b"]),
        (
            json!({"f:p": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}),
            vec![
                ".p[port=80,protocol=\"TCP\"]",
                ".p[port=80,protocol=\"TCP\"].port",
            ],
        ),
        (
            json!({"f:f": {"v:\"x\"": {}, "v:1": {}}}),
            vec![".f[=1]", ".f[=\"x\"]"],
        ),
        (json!({"f:l": {"i:0": {}}}), vec![".l[0]"]),
        (json!({}), vec![]),
    ];
    for (wire, paths) in table {
        let set = FieldSet::from_fields_v1(&wire).unwrap();
        let printed: Vec<_> = set.paths().iter().map(ToString::to_string).collect();
        assert_eq!(printed, paths, "{wire}");
        assert_eq!(set.to_fields_v1(), wire);
    }
    // A kind of element that a later version may bring is passed over.
    let unknown = json!({"x:new": {}, "f:a": {}});
    assert_eq!(FieldSet::from_fields_v1(&unknown).unwrap().len(), 1);
    for bad in [
        json!([]),
        json!({"nocolon": {}}),
        json!({"k:{}": {}}),
        json!({"k:x": {}}),
        json!({"i:x": {}}),
        json!({"f:a": 1}),
    ] {
        assert!(FieldSet::from_fields_v1(&bad).is_err(), "{bad}");
    }
}

#[test]
fn elements_are_ordered_by_kind_and_value() {
    let mut elements = [
        PathElement::Index(0),
        PathElement::Value(json!("a")),
        PathElement::Value(json!(10)),
        PathElement::Value(json!(9)),
        PathElement::key([("port", json!(8080))]),
        PathElement::key([("port", json!(80))]),
        PathElement::field("b"),
        PathElement::field("a"),
    ];
    elements.sort();
    let printed: Vec<_> = elements.iter().map(ToString::to_string).collect();
    assert_eq!(
        printed,
        [
            ".a",
            ".b",
            "[port=80]",
            "[port=8080]",
            "[=9]",
            "[=10]",
            "[=\"a\"]",
            "[0]"
        ]
    );
    assert_eq!(PathElement::Value(json!(1)), PathElement::Value(json!(1.0)));
}
