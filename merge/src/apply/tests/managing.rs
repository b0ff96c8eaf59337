//! The rules around the algorithm: tracking, capping, client-side apply, subresources, versions, errors.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{LATER, NOW, World};
use crate::apply::scale::{to_parent, to_scale};
use crate::apply::typed::Absence;
use crate::apply::{
    ApplyError, ApplyOptions, FieldManager, FieldSet, LAST_APPLIED_ANNOTATION, ManagerId, Managers,
    Operation, Path, Versions, apply,
};
use crate::schema::Schema;
use crate::testing::schema;

#[test]
fn the_eleventh_updater_makes_the_oldest_ancient() {
    let mut world = World::new("ConfigMap");
    for i in 0..12 {
        let key = format!("k{i:02}");
        world.patch(
            &format!("m{i:02}"),
            json!({"data": {key: "1"}}),
            &format!("2026-01-01T00:00:{i:02}Z"),
        );
    }
    let names = world.names();
    assert_eq!(names.len(), 10);
    assert_eq!(names[0], "ancient-changes");
    assert_eq!(
        world.owned("ancient-changes", "Update"),
        json!({"f:data": {".": {}, "f:k00": {}, "f:k01": {}, "f:k02": {}}})
    );
    assert_eq!(
        world.entry("ancient-changes", "Update")["time"],
        "2026-01-01T00:00:02Z"
    );
    // Appliers are not counted.
    world.apply("a", json!({"data": {"x": "1"}})).unwrap();
    assert_eq!(world.names().len(), 11);
}

#[test]
fn emptied_managers_stop_tracking_until_the_next_apply() {
    let mut world = World::new("ConfigMap");
    world.patch("m", json!({"data": {"a": "1"}}), NOW);
    world.live["metadata"]["uid"] = json!("u");
    world.patch("m", json!({"metadata": {"managedFields": [{}]}}), NOW);
    assert_eq!(world.live["metadata"].get("managedFields"), None);
    world.patch("m", json!({"data": {"b": "1"}}), NOW);
    assert_eq!(
        world.live["metadata"].get("managedFields"),
        None,
        "still not tracked"
    );
    world.apply("applier", json!({"data": {"c": "1"}})).unwrap();
    assert_eq!(world.names(), ["applier", "before-first-apply"]);
    assert_eq!(
        world.owned("before-first-apply", "Update"),
        json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}})
    );
}

#[test]
fn what_has_become_atomic_is_owned_as_one() {
    let schema = schema("io.test.v1.App");
    let live = json!({"apiVersion": "v1", "kind": "App", "metadata": {"name": "x", "uid": "u", "managedFields": [
        {"manager": "old", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
         "fieldsV1": {"f:spec": {"f:nodeSelector": {"f:a": {}}, "f:replicas": {}}}}]},
        "spec": {"nodeSelector": {"a": "1"}, "replicas": 1}});
    let mut new = live.clone();
    new["spec"]["paused"] = json!(true);
    let fields = FieldManager::new(&schema, "v1");
    fields.update(&live, &mut new, "new", NOW).unwrap();
    assert_eq!(
        new["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:spec": {"f:nodeSelector": {}, "f:replicas": {}}})
    );
}

#[test]
fn managed_fields_are_written_as_they_were_read() {
    let managed_fields = json!([
        {"manager": "a", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:x": {}}},
        {"manager": "c", "operation": "Apply", "apiVersion": "v1", "time": NOW, "fieldsType": "FieldsV1", "fieldsV1": {"f:x": {}}},
        {"manager": "b", "operation": "Apply", "apiVersion": "v1", "time": LATER, "fieldsType": "FieldsV1", "fieldsV1": {"f:x": {}}},
        {"manager": "a", "operation": "Update", "apiVersion": "v1", "time": NOW, "fieldsType": "FieldsV1", "fieldsV1": {"f:x": {}}},
        {"manager": "a", "operation": "Update", "apiVersion": "v1", "time": NOW, "fieldsType": "FieldsV1", "fieldsV1": {"f:y": {}}, "subresource": "status"},
        {"manager": "a", "operation": "Update", "apiVersion": "v2", "time": NOW, "fieldsType": "FieldsV1", "fieldsV1": {"f:x": {}}},
    ]);
    let managers = Managers::decode(&managed_fields).unwrap();
    assert_eq!(managers.len(), 6);
    assert_eq!(managers.encode(), Some(managed_fields));
}

#[test]
fn managers_come_from_the_request_unless_it_says_nothing() {
    let live = json!({"metadata": {"managedFields": [
        {"manager": "a", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:x": {}}}]}});
    let of = |managed: Value, sub| {
        let mut new = json!({"metadata": {}});
        if !managed.is_null() {
            new["metadata"]["managedFields"] = managed;
        }
        let managers = Managers::for_update(&live, &new, sub);
        managers
            .iter()
            .map(|(id, _)| id.manager.clone())
            .collect::<Vec<_>>()
    };
    let other = json!([{"manager": "b", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:y": {}}}]);
    assert_eq!(of(Value::Null, false), ["a"]);
    assert_eq!(of(other.clone(), false), ["b"]);
    assert_eq!(of(other, true), ["a"], "not through a subresource");
    assert!(of(json!([]), false).is_empty());
    assert!(of(json!([{}]), false).is_empty());
    assert_eq!(
        of(json!([{"manager": "b", "operation": "Nonsense"}]), false),
        ["a"]
    );
}

#[test]
fn unreadable_managers_are_named() {
    let table = [
        (
            json!([{"operation": "Patch"}]),
            "operation must be `Apply` or `Update`",
        ),
        (
            json!([{"operation": "Apply"}]),
            "apiVersion must not be empty",
        ),
        (
            json!([{"operation": "Apply", "apiVersion": "v1"}]),
            "missing fieldsType in managed fields entry 0",
        ),
        (
            json!([{"operation": "Apply", "apiVersion": "v1", "fieldsType": "F2"}]),
            "invalid fieldsType \"F2\" in managed fields entry 0",
        ),
    ];
    for (managed_fields, expected) in table {
        assert_eq!(
            Managers::decode(&managed_fields).unwrap_err().to_string(),
            expected
        );
    }
}

#[test]
fn kubectl_takes_over_what_client_side_apply_wrote() {
    let annotated = |data: Value| {
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data});
        json!({"metadata": {"annotations": {LAST_APPLIED_ANNOTATION: config.to_string()}}, "data": data})
    };
    let mut world = World::new("ConfigMap");
    world.patch(
        "kubectl-client-side-apply",
        annotated(json!({"a": "1", "b": "1"})),
        NOW,
    );
    let change = json!({"data": {"a": "2"}});
    let refused = world.apply("somebody", change.clone()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using v1: .data.a"
    );
    // Somebody changed b since, so b is not kubectl's to take.
    world.patch("edit", json!({"data": {"b": "2"}}), NOW);
    let refused = world
        .apply("kubectl", json!({"data": {"a": "2", "b": "3"}}))
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Apply failed with 1 conflict: conflict with \"edit\" using v1: .data.b"
    );
    world.apply_at("kubectl", change, false, LATER).unwrap();
    assert_eq!(world.live["data"], json!({"a": "2", "b": "2"}));
    let annotation = world.live["metadata"]["annotations"][LAST_APPLIED_ANNOTATION]
        .as_str()
        .unwrap();
    assert_eq!(
        annotation,
        "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"2\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"x\",\"namespace\":\"n\"}}\n"
    );
}

#[test]
fn reset_fields_are_neither_changed_nor_owned() {
    let schema = schema("io.test.v1.App");
    let spec = FieldSet::of_fields([["spec"]]);
    let status = FieldSet::of_fields([["status"]]);
    let main = FieldManager::new(&schema, "v1").ignoring(&status);
    let sub = FieldManager::new(&schema, "v1")
        .subresource("status")
        .ignoring(&spec);
    let mut live = json!({"apiVersion": "v1", "kind": "App", "metadata": {"name": "x"}, "spec": {"replicas": 1}});
    main.update(&json!({}), &mut live, "m", NOW).unwrap();
    live["metadata"]["uid"] = json!("u");
    let mut new = live.clone();
    new["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    new["spec"]["replicas"] = json!(7);
    sub.update(&live, &mut new, "m", LATER).unwrap();
    assert_eq!(
        new["metadata"]["managedFields"],
        json!([
            {"manager": "m", "operation": "Update", "apiVersion": "v1", "time": NOW, "fieldsType": "FieldsV1",
             "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            {"manager": "m", "operation": "Update", "apiVersion": "v1", "time": LATER, "fieldsType": "FieldsV1", "subresource": "status",
             "fieldsV1": {"f:status": {"f:conditions": {".": {}, "k:{\"type\":\"Ready\"}": {".": {}, "f:type": {}, "f:status": {}}}}}}
        ])
    );
    let config = json!({"apiVersion": "v1", "kind": "App", "metadata": {"name": "x"}, "status": {"replicas": 1}});
    let refused = FieldManager::new(&schema, "v1")
        .apply(&new, &config, "a", false, NOW)
        .unwrap();
    let status_of = |object: &Value| object["metadata"]["managedFields"][0]["fieldsV1"].clone();
    assert_eq!(status_of(&refused), json!({"f:status": {"f:replicas": {}}}));
    let ignored = main.apply(&new, &config, "a", false, NOW).unwrap();
    assert!(
        ignored["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .iter()
            .all(|e| e["manager"] != "a")
    );
}

#[test]
fn what_is_not_of_the_type_is_refused_in_kubernetes_words() {
    let mut world = World::new("App");
    let table = [
        (
            json!({"spec": {"nope": 1}}),
            "failed to create typed patch object (n/x; /v1, Kind=App): .spec.nope: field not declared in schema",
        ),
        (
            json!({"spec": {"containers": [{"image": "i"}]}}),
            "failed to create typed patch object (n/x; /v1, Kind=App): .spec.containers: element 0: associative list with keys has an element that omits key field \"name\" (and doesn't have default value)",
        ),
        (
            json!({"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}),
            "failed to create typed patch object (n/x; /v1, Kind=App): .spec.containers: duplicate entries for key [name=\"a\"]",
        ),
        (
            json!({"metadata": {"managedFields": []}}),
            "metadata.managedFields must be nil",
        ),
        (
            json!({"apiVersion": "v2"}),
            "Incorrect version specified in apply patch. Specified patch version: v2, expected: v1",
        ),
    ];
    for (part, expected) in table {
        assert_eq!(world.apply("m", part).unwrap_err().to_string(), expected);
    }
}

/// In `v2`, `.data` is called `.values`.
struct Renamed;

impl Versions for Renamed {
    fn convert(&self, object: &Value, to: &str) -> Result<Option<(Schema, Value)>, String> {
        let (from_key, to_key) = match to {
            "v1" => ("values", "data"),
            "v2" => ("data", "values"),
            _ => return Ok(None),
        };
        let mut object = object.clone();
        let map = object.as_object_mut().ok_or("no object")?;
        if let Some(data) = map.remove(from_key) {
            map.insert(to_key.to_owned(), data);
        }
        Ok(Some((Schema::untyped(), object)))
    }
}

#[test]
fn managers_of_other_versions_are_seen_in_theirs() {
    let entry = |manager: &str, version: &str, set: Value| json!({"manager": manager, "operation": "Apply", "apiVersion": version, "fieldsType": "FieldsV1", "fieldsV1": set});
    let managers = Managers::decode(&json!([
        entry("two", "v2", json!({"f:values": {"f:a": {}}})),
        entry("mine", "v2", json!({"f:values": {"f:b": {}}})),
        entry("gone", "v0", json!({"f:data": {"f:a": {}}})),
    ]))
    .unwrap();
    let untyped = Schema::untyped();
    let live = json!({"metadata": {"name": "x", "uid": "u"}, "data": {"a": "1", "b": "1"}});
    let options = ApplyOptions {
        manager: "mine",
        api_version: "v1",
        subresource: "",
        force: false,
        now: NOW,
        ignored: None,
        versions: Some(&Renamed),
        absence: Absence::Absent,
    };
    let config = |data: Value| json!({"apiVersion": "v1", "metadata": {"name": "x"}, "data": data});
    let Err(ApplyError::Conflicts(conflicts)) = apply(
        &untyped,
        &live,
        &config(json!({"a": "2"})),
        &managers,
        &options,
    ) else {
        panic!("no conflict")
    };
    assert_eq!(
        conflicts.to_string(),
        "Apply failed with 1 conflict: conflict with \"two\": .values.a"
    );
    let outcome = apply(
        &untyped,
        &live,
        &config(json!({"c": "1"})),
        &managers,
        &options,
    )
    .unwrap();
    assert_eq!(
        outcome.object["data"],
        json!({"a": "1", "c": "1"}),
        "b was applied in v2 and is dropped in v1"
    );
    assert_eq!(outcome.managers.len(), 2, "nobody can say what v0 means");
}

#[test]
fn the_scale_of_an_object_shares_its_owners() {
    let paths = BTreeMap::from([(
        "apps/v1".to_owned(),
        Some(Path::fields(["spec", "replicas"])),
    )]);
    let parent = Managers::decode(&json!([
        {"manager": "owner", "operation": "Apply", "apiVersion": "apps/v1", "time": NOW, "fieldsType": "FieldsV1",
         "fieldsV1": {"f:spec": {"f:replicas": {}, "f:paused": {}}}},
        {"manager": "other", "operation": "Update", "apiVersion": "apps/v1", "time": NOW, "fieldsType": "FieldsV1",
         "fieldsV1": {"f:spec": {"f:paused": {}}}},
    ]))
    .unwrap();
    let scale = to_scale(&parent, &paths);
    assert_eq!(
        scale.encode().unwrap(),
        json!([{"manager": "owner", "operation": "Apply", "apiVersion": "autoscaling/v1", "time": NOW, "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {"f:replicas": {}}}}])
    );
    assert_eq!(
        to_parent(&parent, &scale, "apps/v1", &paths),
        parent,
        "nothing was written"
    );

    let mut written = Managers::new();
    let id = ManagerId::new("scaler", Operation::Update, "autoscaling/v1", "scale");
    let mut ownership = scale.iter().next().unwrap().1.clone();
    ownership.time = Some(LATER.to_owned());
    written.insert(id, ownership);
    assert_eq!(
        to_parent(&parent, &written, "apps/v1", &paths)
            .encode()
            .unwrap(),
        json!([
            {"manager": "owner", "operation": "Apply", "apiVersion": "apps/v1", "time": NOW, "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:paused": {}}}},
            {"manager": "scaler", "operation": "Update", "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            {"manager": "other", "operation": "Update", "apiVersion": "apps/v1", "time": NOW, "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:paused": {}}}},
        ])
    );
}
