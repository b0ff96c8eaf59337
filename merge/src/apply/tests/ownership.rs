//! Who owns what after whom.

use serde_json::json;

use super::{LATER, NOW, World};
use crate::apply::{ApplyError, keep_times_of_unchanged};

#[test]
fn an_apply_owns_what_it_says_and_a_create_owns_the_containers_too() {
    let mut world = World::new("ConfigMap");
    world
        .apply("m1", json!({"data": {"a": "1", "b": "1"}}))
        .unwrap();
    assert_eq!(
        world.live["metadata"]["managedFields"],
        json!([{"manager": "m1", "operation": "Apply", "apiVersion": "v1", "time": NOW, "fieldsType": "FieldsV1",
                "fieldsV1": {"f:data": {"f:a": {}, "f:b": {}}}}])
    );
    let mut world = World::new("ConfigMap");
    world.patch("", json!({"data": {"b": "1"}}), NOW);
    assert_eq!(
        world.live["metadata"]["managedFields"],
        json!([{"manager": "unknown", "operation": "Update", "apiVersion": "v1", "time": NOW, "fieldsType": "FieldsV1",
                "fieldsV1": {"f:data": {".": {}, "f:b": {}}}}])
    );
}

#[test]
fn ownership_moves_by_force_is_shared_by_agreement_and_ends_with_the_last() {
    let mut world = World::new("ConfigMap");
    world
        .apply("m1", json!({"data": {"a": "1", "b": "1"}}))
        .unwrap();
    let refused = world.apply("m2", json!({"data": {"a": "2"}})).unwrap_err();
    assert_eq!(
        refused.to_string(),
        r#"Apply failed with 1 conflict: conflict with "m1": .data.a"#
    );
    world
        .apply_at("m2", json!({"data": {"a": "2"}}), true, NOW)
        .unwrap();
    assert_eq!(world.owned("m1", "Apply"), json!({"f:data": {"f:b": {}}}));

    // Agreeing changes nothing, so there is no time; entries without one come first.
    world
        .apply_at("m3", json!({"data": {"a": "2"}}), false, LATER)
        .unwrap();
    assert_eq!(world.names(), ["m3", "m1", "m2"]);
    assert_eq!(world.entry("m3", "Apply").get("time"), None);

    // Dropping what nobody else owns removes it; the manager that owns nothing is gone.
    world.apply("m1", json!({})).unwrap();
    assert_eq!(world.live["data"], json!({"a": "2"}));
    assert_eq!(world.names(), ["m3", "m2"]);
    world.apply("m3", json!({})).unwrap();
    assert_eq!(world.live["data"], json!({"a": "2"}), "m2 still owns it");
    world.apply("m2", json!({})).unwrap();
    assert_eq!(world.live.get("data"), None);
    assert_eq!(world.live["metadata"].get("managedFields"), None);
}

#[test]
fn conflicts_are_listed_by_manager() {
    let mut world = World::new("App");
    world
        .apply(
            "m1",
            json!({"spec": {"replicas": 1, "containers": [{"name": "c", "image": "i"}]}}),
        )
        .unwrap();
    world.patch("edit", json!({"spec": {"paused": true}}), NOW);
    let change = json!({"spec": {"replicas": 2, "paused": false, "containers": [{"name": "c", "image": "j"}]}});
    let ApplyError::Conflicts(conflicts) = world.apply("m2", change).unwrap_err() else {
        panic!("no conflict")
    };
    assert_eq!(
        conflicts.to_string(),
        "Apply failed with 3 conflicts: conflicts with \"edit\" using v1:\n- .spec.paused\n\
         conflicts with \"m1\":\n- .spec.replicas\n- .spec.containers[name=\"c\"].image"
    );
    assert_eq!(conflicts.0[0].message(), "conflict with \"edit\" using v1");
}

#[test]
fn items_of_keyed_lists_are_owned_one_by_one() {
    let mut world = World::new("App");
    world.apply("m1", json!({"spec": {"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80}]}]}})).unwrap();
    assert_eq!(
        world.owned("m1", "Apply"),
        json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:image": {},
            "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}})
    );
    world
        .apply(
            "m2",
            json!({"spec": {"containers": [{"name": "b", "image": "i"}]}}),
        )
        .unwrap();
    // Shares the item, not what is in it.
    world
        .apply("m3", json!({"spec": {"containers": [{"name": "a"}]}}))
        .unwrap();
    world.apply("m1", json!({"spec": {}})).unwrap();
    assert_eq!(
        world.live["spec"]["containers"],
        json!([{"name": "a"}, {"name": "b", "image": "i"}]),
        "m3 keeps the item alive, but not the image"
    );
    world.apply("m3", json!({"spec": {}})).unwrap();
    assert_eq!(
        world.live["spec"]["containers"],
        json!([{"name": "b", "image": "i"}])
    );
}

#[test]
fn what_an_updater_owns_is_not_removed() {
    let mut world = World::new("App");
    world
        .apply("m1", json!({"metadata": {"labels": {"a": "1"}}}))
        .unwrap();
    world.patch("label", json!({"metadata": {"labels": {"b": "1"}}}), NOW);
    assert_eq!(
        world.owned("label", "Update"),
        json!({"f:metadata": {"f:labels": {"f:b": {}}}})
    );
    world.apply("m1", json!({})).unwrap();
    assert_eq!(world.live["metadata"]["labels"], json!({"b": "1"}));
}

#[test]
fn a_struct_nobody_owns_anything_of_goes_with_its_defaults() {
    let mut world = World::new("App");
    world.apply("m1", json!({"spec": {"replicas": 1, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}})).unwrap();
    // A server's default, owned by nobody.
    world.live["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] = json!("25%");
    world
        .apply(
            "m1",
            json!({"spec": {"replicas": 1, "strategy": {"type": "Recreate"}}}),
        )
        .unwrap();
    assert_eq!(
        world.live["spec"],
        json!({"replicas": 1, "strategy": {"type": "Recreate"}})
    );
}

#[test]
fn an_empty_choice_stays_a_choice() {
    let mut world = World::new("App");
    world
        .apply(
            "m1",
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}]}}),
        )
        .unwrap();
    world
        .apply(
            "m1",
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
        )
        .unwrap();
    assert_eq!(
        world.live["spec"]["volumes"],
        json!([{"name": "v", "emptyDir": {}}])
    );
    world
        .apply(
            "m1",
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}),
        )
        .unwrap();
    assert_eq!(
        world.live["spec"]["volumes"],
        json!([{"name": "v", "hostPath": {"path": "/"}}])
    );
}

#[test]
fn atomic_values_are_owned_and_replaced_as_one() {
    let mut world = World::new("App");
    world.apply("m1", json!({"spec": {"nodeSelector": {"a": "1"}, "selector": {"matchLabels": {"a": "1"}},
        "loose": {"matchLabels": {"a": "1"}}, "containers": [{"name": "c", "command": ["x", "y"]}]}})).unwrap();
    assert_eq!(
        world.owned("m1", "Apply"),
        json!({"f:spec": {"f:nodeSelector": {}, "f:selector": {}, "f:loose": {"f:matchLabels": {"f:a": {}}},
            "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:command": {}}}}})
    );
    world.force(
        "m2",
        json!({"spec": {"nodeSelector": {"b": "1"}, "loose": {"matchLabels": {"b": "1"}}}}),
    );
    assert_eq!(world.live["spec"]["nodeSelector"], json!({"b": "1"}));
    assert_eq!(
        world.live["spec"]["loose"],
        json!({"matchLabels": {"a": "1", "b": "1"}})
    );
}

#[test]
fn sets_are_owned_value_by_value() {
    let mut world = World::new("ConfigMap");
    world.patch("", json!({"data": {"q": "1"}}), NOW);
    world.patch("", json!({"metadata": {"finalizers": ["x.io/f"]}}), LATER);
    assert_eq!(
        world.owned("unknown", "Update"),
        json!({"f:data": {".": {}, "f:q": {}}, "f:metadata": {"f:finalizers": {".": {}, "v:\"x.io/f\"": {}}}})
    );
    assert_eq!(world.entry("unknown", "Update")["time"], LATER);
    world
        .apply("m", json!({"metadata": {"finalizers": ["a/b"]}}))
        .unwrap();
    assert_eq!(
        world.live["metadata"]["finalizers"],
        json!(["x.io/f", "a/b"])
    );
    world.apply("m", json!({})).unwrap();
    assert_eq!(world.live["metadata"]["finalizers"], json!(["x.io/f"]));
}

#[test]
fn an_update_takes_what_it_changes_and_a_no_op_takes_nothing() {
    let mut world = World::new("ConfigMap");
    world.patch("creator", json!({"data": {"a": "1", "b": "1"}}), NOW);
    world.patch("editor", json!({"data": {"a": "2"}}), LATER);
    assert_eq!(
        world.owned("editor", "Update"),
        json!({"f:data": {"f:a": {}}})
    );
    assert_eq!(
        world.owned("creator", "Update"),
        json!({"f:data": {".": {}, "f:b": {}}})
    );
    let before = world.live.clone();
    world.patch("third", json!({"data": {"a": "2"}}), "2026-01-02T00:00:00Z");
    assert_eq!(world.live, before);
    // A removed field is nobody's.
    world.patch(
        "third",
        json!({"data": {"a": null}}),
        "2026-01-02T00:00:00Z",
    );
    assert_eq!(world.names(), ["creator"]);
}

#[test]
fn one_name_is_a_manager_per_operation_and_subresource() {
    let mut world = World::new("ConfigMap");
    world.patch("m", json!({"data": {"a": "1"}}), NOW);
    world.apply("m", json!({"data": {"b": "1"}})).unwrap();
    assert_eq!(
        world.owned("m", "Update"),
        json!({"f:data": {".": {}, "f:a": {}}})
    );
    assert_eq!(world.owned("m", "Apply"), json!({"f:data": {"f:b": {}}}));
    assert_eq!(world.entry("m", "Apply")["operation"], "Apply");
}

#[test]
fn an_apply_that_changes_nothing_writes_nothing() {
    let mut world = World::new("ConfigMap");
    let config = json!({"data": {"a": "1"}});
    world.apply("m", config.clone()).unwrap();
    let before = world.live.clone();
    world.apply_at("m", config, false, LATER).unwrap();
    assert_eq!(
        world.live, before,
        "the time is still that of the first apply"
    );
    let mut again = before.clone();
    again["metadata"]["managedFields"][0]["time"] = json!(LATER);
    keep_times_of_unchanged(&before, &mut again);
    assert_eq!(again, before);
    again["metadata"]["managedFields"][0]["time"] = json!(LATER);
    again["data"]["a"] = json!("2");
    keep_times_of_unchanged(&before, &mut again);
    assert_eq!(again["metadata"]["managedFields"][0]["time"], LATER);
}

#[test]
fn an_applied_null_is_an_opinion_and_leaves_no_null() {
    let mut world = World::new("App");
    world.patch("creator", json!({"spec": {"replicas": 3}}), NOW);
    let part = json!({"apiVersion": "v1", "kind": "App", "metadata": {"name": "x", "creationTimestamp": null}, "spec": {"replicas": null}});
    let fields = crate::apply::FieldManager::new(&world.schema, "v1");
    let refused = fields
        .apply(&world.live, &part, "m", false, NOW)
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Apply failed with 1 conflict: conflict with \"creator\" using v1: .spec.replicas"
    );
    let forced = fields.apply(&world.live, &part, "m", true, NOW).unwrap();
    assert_eq!(forced["spec"], json!({}));
}
