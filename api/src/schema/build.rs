//! The document: `k8s-openapi`'s JSON Schemas in the dialect of Kubernetes' OpenAPI v3.

use orlop_core::resource::GroupVersionKind;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{definition_name, kinds, notes};
use crate::resources::{self, Verb};

const REFERENCE: &str = "#/components/schemas/";

pub(super) fn document() -> Map<String, Value> {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.definitions_path = "/components/schemas".into();
        s.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    kinds::register(&mut generator);
    let mut document = generator.take_definitions(true);
    let notes = notes::read();
    for (name, schema) in &mut document {
        special_form(name, schema);
        if let Some(schema) = schema.as_object_mut() {
            definition(schema);
            if let Some(notes) = notes.get(name) {
                schema.extend(notes.own.clone());
                if let Some(properties) =
                    schema.get_mut("properties").and_then(Value::as_object_mut)
                {
                    for (field, notes) in &notes.fields {
                        if let Some(property) =
                            properties.get_mut(*field).and_then(Value::as_object_mut)
                        {
                            property.extend(notes.clone());
                        }
                    }
                }
            }
        }
    }
    for info in resources::builtin() {
        let kind = info.resource.gvk();
        if info.allows(Verb::List) {
            let list = GroupVersionKind {
                kind: info.list_kind.clone(),
                ..kind.clone()
            };
            document.insert(definition_name(&list), list_definition(&kind));
            name_kind(&mut document, &list);
        }
        name_kind(&mut document, &kind);
        for sub in &info.subresources {
            name_kind(&mut document, &sub.kind);
        }
    }
    for kind in kinds::META {
        name_kind(&mut document, &GroupVersionKind::new("", "v1", kind));
    }
    name_options(&mut document);
    document
}

/// Two types are neither of their JSON types alone; OpenAPI v3 says so by alternatives.
fn special_form(name: &str, schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else {
        return;
    };
    let types: [&str; 2] = match name.rsplit('.').next() {
        Some("Quantity") => ["string", "number"],
        Some("IntOrString") => {
            schema.insert("format".into(), json!("int-or-string"));
            ["integer", "string"]
        }
        _ => return,
    };
    schema.remove("x-kubernetes-int-or-string");
    schema.insert(
        "oneOf".into(),
        types.iter().map(|ty| json!({ "type": ty })).collect(),
    );
}

/// One definition, and the schemas inside it.
fn definition(schema: &mut Map<String, Value>) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for property in properties.values_mut() {
        reference(property);
    }
    // k8s-openapi demands metadata where its Rust field is no Option; Kubernetes never does.
    let metadata_is_ours = properties.get("metadata").is_some_and(|p| {
        p["allOf"][0]["$ref"]
            .as_str()
            .or(p["$ref"].as_str())
            .is_some_and(|to| to.ends_with(".ObjectMeta") || to.ends_with(".ListMeta"))
    });
    let mut required: Vec<String> = match schema.get("required") {
        Some(Value::Array(names)) => names
            .iter()
            .filter_map(|n| n.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    };
    required.retain(|name| !(name == "metadata" && metadata_is_ours));
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for name in &required {
            if let Some(property) = properties.get_mut(name).and_then(Value::as_object_mut) {
                let zero = match property.get("type").and_then(Value::as_str) {
                    // Bytes have no default: an absent slice is null.
                    Some("string") if property.get("format").is_none() => json!(""),
                    Some("integer" | "number") => json!(0),
                    Some("boolean") => json!(false),
                    _ => continue,
                };
                property.insert("default".into(), zero);
            }
        }
    }
    if required.is_empty() {
        schema.remove("required");
    } else {
        schema.insert("required".into(), json!(required));
    }
}

/// OpenAPI 3.0 lets nothing stand beside a `$ref`, so a described reference is wrapped.
fn reference(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(inner) {
            reference(inner);
        }
    }
    if object.len() > 1
        && let Some(to) = object.remove("$ref")
    {
        object.insert("allOf".into(), json!([{ "$ref": to }]));
    }
}

fn list_definition(item: &GroupVersionKind) -> Value {
    let GroupVersionKind { kind, .. } = item;
    let item = definition_name(item);
    json!({
        "description": format!("A list of objects of kind {kind}, as a collection answers it."),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": { "type": "string", "description": "The group and version of the list's kind." },
            "kind": { "type": "string", "description": "The name of the list's kind." },
            "metadata": {
                "description": "The version of the list, and where it goes on when it was cut.",
                "allOf": [{ "$ref": format!("{REFERENCE}io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta") }],
            },
            "items": {
                "description": format!("The objects of kind {kind}."),
                "type": "array",
                "items": { "$ref": format!("{REFERENCE}{item}") },
            },
        },
    })
}

/// Writes a kind's name into its definition.
fn name_kind(document: &mut Map<String, Value>, kind: &GroupVersionKind) {
    let Some(schema) = document
        .get_mut(&definition_name(kind))
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    let name = json!({ "group": kind.group, "version": kind.version, "kind": kind.kind });
    let names = schema
        .entry("x-kubernetes-group-version-kind")
        .or_insert_with(|| json!([]));
    if let Some(names) = names.as_array_mut()
        && !names.contains(&name)
    {
        names.push(name);
    }
}

/// `DeleteOptions` and `WatchEvent` exist in every group and version.
fn name_options(document: &mut Map<String, Value>) {
    for kind in ["DeleteOptions", "WatchEvent"] {
        let Some(schema) =
            document.get_mut(&definition_name(&GroupVersionKind::new("", "v1", kind)))
        else {
            continue;
        };
        let Some(names) = schema["x-kubernetes-group-version-kind"].as_array_mut() else {
            continue;
        };
        for info in resources::builtin() {
            let name = json!({ "group": info.resource.group, "version": info.resource.version, "kind": kind });
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
}
