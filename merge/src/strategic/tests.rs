use proptest::prelude::*;
use serde_json::{Value, json};

use super::{StrategicError, apply};
use crate::testing::{json_value, schema};

fn patched(original: Value, patch: Value) -> Result<Value, StrategicError> {
    apply(&schema("io.test.v1.Spec"), &original, &patch)
}

#[test]
fn every_directive() {
    let table = [
        (
            "scalars are set, nulls delete, the rest stays",
            json!({"replicas": 1, "paused": true}),
            json!({"replicas": 2, "paused": null, "weight": 1}),
            json!({"replicas": 2, "weight": 1}),
        ),
        (
            "a null for nothing leaves nothing",
            json!({}),
            json!({"paused": null, "strategy": {"type": null}}),
            json!({"strategy": {}}),
        ),
        (
            "objects are merged",
            json!({"strategy": {"type": "a", "rollingUpdate": {"maxSurge": 1}}}),
            json!({"strategy": {"rollingUpdate": {"maxUnavailable": 2}}}),
            json!({"strategy": {"type": "a", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 2}}}),
        ),
        (
            "maps are merged key by key",
            json!({"nodeSelector": {"a": "1", "b": "2"}}),
            json!({"nodeSelector": {"b": null, "c": "3"}}),
            json!({"nodeSelector": {"a": "1", "c": "3"}}),
        ),
        (
            "$patch: replace takes the patch",
            json!({"strategy": {"type": "a", "rollingUpdate": {}}}),
            json!({"strategy": {"$patch": "replace", "type": "b"}}),
            json!({"strategy": {"type": "b"}}),
        ),
        (
            "$patch: replace in a map",
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"$patch": "replace", "q": "1"}}),
            json!({"nodeSelector": {"q": "1"}}),
        ),
        (
            "$patch: delete empties",
            json!({"strategy": {"type": "a"}}),
            json!({"strategy": {"$patch": "delete"}}),
            json!({"strategy": {}}),
        ),
        (
            "the strategy replace takes the patch",
            json!({"budget": {"a": "1"}}),
            json!({"budget": {"b": "2"}}),
            json!({"budget": {"b": "2"}}),
        ),
        (
            "$retainKeys drops the others",
            json!({"strategy": {"type": "a", "rollingUpdate": {"maxSurge": 1}}}),
            json!({"strategy": {"$retainKeys": ["type"], "type": "b"}}),
            json!({"strategy": {"type": "b"}}),
        ),
        (
            "$retainKeys of something new leaves no trace",
            json!({}),
            json!({"strategy": {"$retainKeys": ["type"], "type": "b"}}),
            json!({"strategy": {"type": "b"}}),
        ),
        (
            "lists without a strategy are replaced",
            json!({"containers": [{"name": "a", "command": ["x", "y"]}]}),
            json!({"containers": [{"name": "a", "command": ["z"]}]}),
            json!({"containers": [{"name": "a", "command": ["z"]}]}),
        ),
        (
            "items are merged by their key, new ones come first",
            json!({"containers": [{"name": "a", "image": "i"}]}),
            json!({"containers": [{"name": "b", "image": "j"}]}),
            json!({"containers": [{"name": "b", "image": "j"}, {"name": "a", "image": "i"}]}),
        ),
        (
            "an item is merged in its place",
            json!({"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}),
            json!({"containers": [{"name": "b", "image": null, "ports": [{"containerPort": 80}]}]}),
            json!({"containers": [{"name": "a", "image": "i"}, {"name": "b", "ports": [{"containerPort": 80}]}]}),
        ),
        (
            "keys may be numbers",
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "x"}, {"containerPort": 81}]}]}),
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "y"}]}]}),
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "y"}, {"containerPort": 81}]}]}),
        ),
        (
            "$patch: delete removes an item",
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            json!({"containers": [{"name": "b"}]}),
        ),
        (
            "$patch: replace replaces a list",
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"$patch": "replace"}, {"name": "c"}]}),
            json!({"containers": [{"name": "c"}]}),
        ),
        (
            "deleting from a list that is not there",
            json!({}),
            json!({"containers": [{"name": "a", "$patch": "delete"}, {"name": "b", "image": null}]}),
            json!({"containers": [{"name": "b"}]}),
        ),
        (
            "$setElementOrder orders all",
            json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}),
            json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}]}),
        ),
        (
            "what only the server has keeps its place",
            json!({"containers": [{"name": "s1"}, {"name": "a"}, {"name": "s2"}, {"name": "b"}]}),
            json!({"$setElementOrder/containers": [{"name": "n"}, {"name": "a"}, {"name": "b"}], "containers": [{"name": "n"}]}),
            json!({"containers": [{"name": "n"}, {"name": "s1"}, {"name": "a"}, {"name": "s2"}, {"name": "b"}]}),
        ),
        (
            "$setElementOrder with a deletion, as kubectl apply sends it",
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "b", "image": "j"}, {"$patch": "delete", "name": "a"}]}),
            json!({"containers": [{"name": "b", "image": "j"}]}),
        ),
        (
            "an order for a list that goes",
            json!({"containers": [{"name": "a"}]}),
            json!({"$setElementOrder/containers": [], "containers": null}),
            json!({}),
        ),
        (
            "an order for nothing",
            json!({}),
            json!({"$setElementOrder/containers": [{"name": "a"}]}),
            json!({}),
        ),
        (
            "an order for a new list",
            json!({}),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "b"}, {"name": "a"}]}),
            json!({"containers": [{"name": "b"}, {"name": "a"}]}),
        ),
        (
            "$retainKeys in an item",
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
        ),
        (
            "$retainKeys beside an order",
            json!({"volumes": [{"name": "v"}]}),
            json!({"$retainKeys": ["volumes"], "$setElementOrder/volumes": [{"name": "w"}, {"name": "v"}], "volumes": [{"name": "w"}]}),
            json!({"volumes": [{"name": "w"}, {"name": "v"}]}),
        ),
        (
            "other kinds of JSON replace each other",
            json!({"any": {"a": [1]}}),
            json!({"any": {"a": {"b": 1}, "c": [2]}}),
            json!({"any": {"a": {"b": 1}, "c": [2]}}),
        ),
    ];
    for (what, original, patch, expected) in table {
        assert_eq!(patched(original, patch), Ok(expected), "{what}");
    }
}

#[test]
fn lists_of_scalars() {
    let patched =
        |original: Value, patch: Value| apply(&schema("io.test.v1.Meta"), &original, &patch);
    let table = [
        (
            "values are added once, in front",
            json!({"finalizers": ["a", "b"]}),
            json!({"finalizers": ["c", "a"]}),
            json!({"finalizers": ["c", "a", "b"]}),
        ),
        (
            "$deleteFromPrimitiveList removes",
            json!({"finalizers": ["a", "b", "c"]}),
            json!({"$deleteFromPrimitiveList/finalizers": ["b", "x"]}),
            json!({"finalizers": ["a", "c"]}),
        ),
        (
            "from nothing it removes nothing",
            json!({}),
            json!({"$deleteFromPrimitiveList/finalizers": ["b"]}),
            json!({}),
        ),
        (
            "all three, as kubectl apply sends them",
            json!({"finalizers": ["a", "b", "s"]}),
            json!({"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["n", "b"], "finalizers": ["n"]}),
            json!({"finalizers": ["n", "b", "s"]}),
        ),
    ];
    for (what, original, patch, expected) in table {
        assert_eq!(patched(original, patch), Ok(expected), "{what}");
    }
}

#[test]
fn what_does_not_fit() {
    let table = [
        (
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [{"image": "x"}]}),
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [{"$patch": "delete"}]}),
            "map: map[$patch:delete] does not contain declared merge key: name",
        ),
        (
            json!({"strategy": {"type": "a"}}),
            json!({"strategy": {"$patch": "merge", "type": "b"}}),
            "unknown patch type: merge in map: map[$patch:merge type:b]",
        ),
        (
            json!({}),
            json!({"strategy": {"$patch": 1}}),
            "unknown patch type: 1 in map: map[$patch:1]",
        ),
        (
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [{"$patch": "merge", "name": "a"}]}),
            "merging lists cannot yet be specified in the patch",
        ),
        (
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [{"$patch": "no", "name": "a"}]}),
            "unknown patch type: no in map: map[$patch:no name:a]",
        ),
        (
            json!({"unkeyed": [{"a": "1"}]}),
            json!({"unkeyed": [{"a": "2"}]}),
            "cannot merge lists without merge key for type struct",
        ),
        (
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [["a"]]}),
            "list element types are not identical: [[map[name:a]] [[a]]]",
        ),
        (
            json!({"containers": [["a"]]}),
            json!({"containers": [["a"]]}),
            "lists of lists are not supported",
        ),
        (
            json!({"strategy": {"type": "a"}}),
            json!({"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}),
            "invalid patch format of retainKeys",
        ),
        (
            json!({"strategy": {"type": "a"}}),
            json!({"strategy": {"$retainKeys": "type"}}),
            "invalid patch format of retainKeys",
        ),
        (
            json!({}),
            json!({"$setElementOrder": []}),
            "invalid patch format of setElementOrder list",
        ),
        (
            json!({}),
            json!({"$setElementOrder/containers": "x"}),
            "expected a []interface {}, but received a string",
        ),
        (
            json!({}),
            json!({"$deleteFromPrimitiveListX": []}),
            "invalid patch format of primitive list",
        ),
        (
            json!({}),
            json!({"$setElementOrder/nope": []}),
            "unable to find api field in struct Spec for the json field \"nope\"",
        ),
        (
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]}),
            "The order in patch list:\n[map[image:x name:a] map[image:x name:b]]\n doesn't match $setElementOrder list:\n[map[name:b] map[name:a]]\n",
        ),
    ];
    for (original, patch, expected) in table {
        let shown = patch.to_string();
        match patched(original, patch) {
            Ok(merged) => panic!("{shown} gave {merged}"),
            Err(error) => assert_eq!(error.to_string(), expected, "{shown}"),
        }
    }
    let error = apply(&schema("io.test.v1.Spec"), &json!(1), &json!({})).unwrap_err();
    assert_eq!(error.to_string(), "invalid JSON document");
}

#[test]
fn long_lists_take_no_longer_than_they_are() {
    let list = |from: usize, to: usize| -> Value {
        (from..to)
            .map(|i| json!({"name": format!("c{i}")}))
            .collect()
    };
    let original = json!({"containers": list(0, 20_000)});
    let order = list(10_000, 30_000);
    let patch = json!({"$setElementOrder/containers": order, "containers": order});
    let merged = patched(original, patch).unwrap();
    assert_eq!(merged["containers"].as_array().unwrap().len(), 30_000);
}

/// A spec, or a patch of one.
fn spec() -> impl Strategy<Value = Value> {
    let container = ("[a-d]", prop::option::of("[i-k]")).prop_map(|(name, image)| match image {
        Some(image) => json!({"name": name, "image": image}),
        None => json!({"name": name}),
    });
    let containers = prop::collection::vec(container, 1..4).prop_map(|mut list| {
        list.sort_by_key(|c| c["name"].to_string());
        list.dedup_by_key(|c| c["name"].to_string());
        list
    });
    (
        prop::option::of(0..3),
        containers.prop_shuffle_list(),
        json_value(false),
    )
        .prop_map(|(replicas, containers, any)| {
            let mut spec = json!({"containers": containers});
            if let Some(replicas) = replicas {
                spec["replicas"] = json!(replicas);
            }
            if any.is_object() {
                spec["any"] = any;
            }
            spec
        })
}

/// Lists in any order.
trait Shuffled: Strategy<Value = Vec<Value>> + Sized {
    fn prop_shuffle_list(self) -> impl Strategy<Value = Vec<Value>> {
        self.prop_flat_map(|list| Just(list).prop_shuffle())
    }
}

impl<S: Strategy<Value = Vec<Value>>> Shuffled for S {}

proptest! {
    #[test]
    fn patching_twice_changes_nothing_more(original in spec(), patch in spec()) {
        let once = patched(original, patch.clone()).unwrap();
        let twice = patched(once.clone(), patch).unwrap();
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn every_item_of_the_patch_arrives_in_its_order_and_none_is_lost(original in spec(), patch in spec()) {
        let names = |spec: &Value| -> Vec<String> {
            spec["containers"].as_array().unwrap().iter().map(|c| c["name"].to_string()).collect()
        };
        let merged = names(&patched(original.clone(), patch.clone()).unwrap());
        let from = |list: &[String]| -> Vec<String> {
            merged.iter().filter(|name| list.contains(name)).cloned().collect()
        };
        prop_assert_eq!(from(&names(&patch)), names(&patch));
        let (old, new) = (names(&original), names(&patch));
        let server_only: Vec<String> = old.into_iter().filter(|name| !new.contains(name)).collect();
        prop_assert_eq!(from(&server_only), server_only);
        let mut unique = merged.clone();
        unique.sort();
        unique.dedup();
        prop_assert_eq!(unique.len(), merged.len());
    }

    #[test]
    fn a_patch_of_nulls_removes_and_adds_nothing(original in spec(), keys in prop::collection::btree_set("replicas|any|containers|paused", 0..4)) {
        let patch: serde_json::Map<String, Value> = keys.iter().map(|key| (key.clone(), Value::Null)).collect();
        let merged = patched(original.clone(), Value::Object(patch)).unwrap();
        let mut expected = original;
        expected.as_object_mut().unwrap().retain(|key, _| !keys.contains(key));
        prop_assert_eq!(merged, expected);
    }

    #[test]
    fn no_patch_of_untyped_json_brings_the_algorithm_down(original in json_value(true), patch in json_value(true)) {
        let document = json!({"any": original});
        let merged = apply(&schema("io.test.v1.Spec"), &document, &json!({"any": patch, "$setElementOrder/containers": [patch]}));
        if let Err(error) = merged {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
