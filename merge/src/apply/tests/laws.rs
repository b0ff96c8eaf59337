//! What holds for every object and every configuration.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::NOW;
use crate::apply::typed::{Absence, compare, merge, remove_items, to_field_set};
use crate::apply::{FieldManager, Managers};
use crate::testing::{json_value, schema};

/// Some `App`.
fn app() -> impl Strategy<Value = Value> {
    let words = || prop::collection::btree_map("[a-c]", "[x-y]", 0..3);
    let container = (
        "[a-c]",
        prop::option::of("[i-k]"),
        prop::collection::vec("[p-q]", 0..3),
    )
        .prop_map(|(name, image, command)| {
            let mut container = json!({"name": name});
            if let Some(image) = image {
                container["image"] = json!(image);
            }
            if !command.is_empty() {
                container["command"] = json!(command);
            }
            (name, container)
        });
    let containers = prop::collection::vec(container, 0..4).prop_map(|list| {
        let mut seen = std::collections::BTreeSet::new();
        list.into_iter()
            .filter(|(name, _)| seen.insert(name.clone()))
            .map(|(_, container)| container)
            .collect::<Vec<_>>()
    });
    (
        prop::option::of(0..3),
        words(),
        words(),
        containers,
        json_value(false),
        prop::collection::btree_set("[f-h]", 0..3),
    )
        .prop_map(
            |(replicas, labels, selector, containers, any, finalizers)| {
                let mut spec = Map::new();
                if let Some(replicas) = replicas {
                    spec.insert("replicas".to_owned(), json!(replicas));
                }
                if !containers.is_empty() {
                    spec.insert("containers".to_owned(), json!(containers));
                }
                if !selector.is_empty() {
                    spec.insert("nodeSelector".to_owned(), json!(selector));
                }
                if any.is_object() {
                    spec.insert("any".to_owned(), any);
                }
                let mut metadata = json!({"name": "x"});
                if !labels.is_empty() {
                    metadata["labels"] = json!(labels);
                }
                if !finalizers.is_empty() {
                    metadata["finalizers"] = json!(finalizers);
                }
                json!({"apiVersion": "v1", "kind": "App", "metadata": metadata, "spec": spec})
            },
        )
}

fn without_managers(object: &Value) -> Value {
    let mut object = object.clone();
    Managers::new().write_to(&mut object);
    object
}

proptest! {
    #[test]
    fn nothing_differs_from_itself(a in app()) {
        let schema = schema("io.test.v1.App");
        prop_assert!(compare(schema.ty(), &a, &a, Absence::Absent).unwrap().is_same());
    }

    #[test]
    fn a_comparison_seen_from_the_other_side(a in app(), b in app()) {
        let schema = schema("io.test.v1.App");
        let there = compare(schema.ty(), &a, &b, Absence::Absent).unwrap();
        let back = compare(schema.ty(), &b, &a, Absence::Absent).unwrap();
        prop_assert_eq!(&there.added, &back.removed);
        prop_assert_eq!(&there.modified, &back.modified);
        prop_assert_eq!(&there.removed, &back.added);
    }

    #[test]
    fn merging_is_idempotent_and_says_all_that_was_applied(live in app(), config in app()) {
        let schema = schema("io.test.v1.App");
        let once = merge(schema.ty(), &live, &config).unwrap();
        prop_assert_eq!(&merge(schema.ty(), &once, &config).unwrap(), &once);
        let said = to_field_set(schema.ty(), &config).unwrap();
        let changes = compare(schema.ty(), &config, &once, Absence::Absent).unwrap();
        prop_assert!(changes.removed.intersection(&said).is_empty());
        let merged = to_field_set(schema.ty(), &once).unwrap();
        // An empty object is a field until something is put into it.
        for path in said.difference(&merged).paths() {
            prop_assert!(merged.paths().iter().any(|p| p.0.starts_with(&path.0)), "{}", path);
        }
    }

    #[test]
    fn removing_everything_leaves_nothing_to_own(a in app()) {
        let schema = schema("io.test.v1.App");
        let all = to_field_set(schema.ty(), &a).unwrap();
        let left = remove_items(schema.ty(), &a, &all.with_declared_ancestors(Some(schema.ty())));
        prop_assert_eq!(left, json!({}));
    }

    #[test]
    fn applying_twice_changes_nothing(first in app(), second in app()) {
        let schema = schema("io.test.v1.App");
        let fields = FieldManager::new(&schema, "v1");
        let live = fields.apply(&json!({}), &first, "a", false, NOW).unwrap();
        let live = fields.apply(&live, &second, "b", true, NOW).unwrap();
        let again = fields.apply(&live, &second, "b", true, "2027-01-01T00:00:00Z").unwrap();
        prop_assert_eq!(again, live);
    }

    #[test]
    fn a_sole_applier_gets_exactly_what_it_applied_last(first in app(), second in app()) {
        let schema = schema("io.test.v1.App");
        let fields = FieldManager::new(&schema, "v1");
        let live = fields.apply(&json!({}), &first, "a", false, NOW).unwrap();
        prop_assert_eq!(without_managers(&live), first);
        let live = fields.apply(&live, &second, "a", false, NOW).unwrap();
        let changes = compare(schema.ty(), &without_managers(&live), &second, Absence::Absent).unwrap();
        prop_assert!(changes.is_same(), "{:?}", changes);
    }

    #[test]
    fn a_forced_apply_never_conflicts_and_an_update_owns_its_changes(first in app(), second in app(), third in app()) {
        let schema = schema("io.test.v1.App");
        let fields = FieldManager::new(&schema, "v1");
        let live = fields.apply(&json!({}), &first, "a", false, NOW).unwrap();
        let mut new = second.clone();
        fields.update(&live, &mut new, "u", NOW).unwrap();
        fields.apply(&new, &third, "b", true, NOW).unwrap();
        // What the update left of the first apply is what both agree on.
        let managers = Managers::of(&new).unwrap();
        let all = compare(schema.ty(), &json!({}), &second, Absence::Absent).unwrap().added;
        for (_, owned) in managers.iter() {
            prop_assert!(owned.set.difference(&all).is_empty(), "{:?} has more than {:?}", owned.set, all);
        }
    }
}
