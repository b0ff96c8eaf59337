use orlop_merge::schema::{Kind, ListKind};

use super::*;
use crate::resources;

#[test]
fn every_built_in_kind_has_a_schema() {
    for info in resources::builtin() {
        assert!(of(&info.resource.gvk()).is_some(), "{:?}", info.resource);
        for sub in &info.subresources {
            // The query parameters of streams and proxies are no bodies.
            assert!(
                sub.kind.kind.ends_with("Options") || of(&sub.kind).is_some(),
                "{:?}",
                sub.kind
            );
        }
    }
    assert!(of(&GroupVersionKind::new("", "v1", "PodList")).is_some());
    assert!(of(&GroupVersionKind::new("", "v1", "Status")).is_some());
    assert!(of(&GroupVersionKind::new("", "v1", "Nothing")).is_none());
}

#[test]
fn every_note_finds_its_field() {
    for (name, notes) in notes::read() {
        let Some(definition) = document().get(&name) else {
            panic!("{name} is in the data, but no kind contains it");
        };
        for field in notes.fields.keys() {
            assert!(
                definition["properties"].get(field).is_some(),
                "{name}.{field}"
            );
        }
    }
}

#[test]
fn merge_keys_are_in_the_compiled_schema() {
    let pod = of(&GroupVersionKind::new("", "v1", "PodSpec")).unwrap();
    let Kind::Struct(spec) = pod.ty().kind() else {
        panic!()
    };
    let Kind::List(containers) = spec.field("containers").unwrap().ty().kind() else {
        panic!()
    };
    let ListKind::Map(keys) = containers.kind() else {
        panic!()
    };
    assert_eq!(keys.iter().map(|k| &**k).collect::<Vec<_>>(), ["name"]);
    let volumes = &document()["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert_eq!(volumes["x-kubernetes-patch-merge-key"], "name");
}

#[test]
fn required_and_defaults_are_upstreams() {
    let document = document();
    assert_eq!(
        document["io.k8s.api.core.v1.PodSpec"]["required"],
        serde_json::json!(["containers"])
    );
    assert!(
        document["io.k8s.api.coordination.v1.Lease"]
            .get("required")
            .is_none()
    );
    assert_eq!(
        document["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"]["default"],
        "TCP"
    );
    assert_eq!(
        document["io.k8s.api.core.v1.ContainerPort"]["properties"]["containerPort"]["default"],
        0
    );
    assert_eq!(
        document["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"],
        serde_json::json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
    );
}

#[test]
fn references_stand_alone() {
    fn walk(value: &Value) {
        match value {
            Value::Object(map) => {
                assert!(!(map.contains_key("$ref") && map.len() > 1), "{map:?}");
                map.values().for_each(walk);
            }
            Value::Array(items) => items.iter().for_each(walk),
            _ => {}
        }
    }
    document().values().for_each(walk);
    assert!(
        description("api.core.v1.ServiceSpec", "type").is_some_and(|d| d.contains("ClusterIP"))
    );
}
