//! OpenAPI v2 ("Swagger"), one document for everything.

use serde_json::{Map, Value, json};

use super::operations::{self, Body, Content, Operation, Parameter, Place};
use super::{by_path, definition};
use crate::resources::ResourceInfo;
use orlop_core::resource::GroupVersionKind;

const PRODUCES: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];
const STREAMS: &[&str] = &[
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];

pub(super) fn document<'a>(
    resources: impl IntoIterator<Item = &'a ResourceInfo>,
    definitions: &Map<String, Value>,
    version: &str,
) -> Value {
    let mut paths = Map::new();
    for resources in by_path(resources).values() {
        for info in resources {
            let tag = operations::tag(&info.resource.group, &info.resource.version);
            for path in operations::paths(info) {
                let mut item = Map::new();
                item.insert(
                    "parameters".into(),
                    path.parameters.iter().map(parameter).collect(),
                );
                for op in &path.operations {
                    item.insert(op.method.into(), operation(op, &tag, definitions));
                }
                paths.insert(path.path, Value::Object(item));
            }
        }
    }
    let definitions: Map<String, Value> = definitions
        .iter()
        .map(|(name, schema)| (name.clone(), self::schema(name, schema)))
        .collect();
    json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": version },
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": {
            "BearerToken": { "type": "apiKey", "name": "authorization", "in": "header", "description": "A bearer token." },
        },
        "security": [{ "BearerToken": [] }],
    })
}

fn parameter(p: &Parameter) -> Value {
    let mut out = json!({
        "name": p.name,
        "in": if p.place == Place::Path { "path" } else { "query" },
        "description": p.description,
        "type": p.ty,
        "uniqueItems": true,
    });
    if p.place == Place::Path {
        out["required"] = true.into();
    }
    out
}

fn reference(name: Option<&str>) -> Value {
    match name {
        Some(name) => json!({ "$ref": format!("#/definitions/{name}") }),
        None => json!({ "type": "string" }),
    }
}

fn operation(op: &Operation, tag: &str, definitions: &Map<String, Value>) -> Value {
    let named = |kind: &GroupVersionKind| reference(definition(definitions, kind).as_deref());
    let mut parameters: Vec<Value> = op.parameters.iter().map(parameter).collect();
    let body = match op.body {
        Body::None => None,
        Body::Object => Some((op.kind.clone(), true)),
        Body::Patch => Some((GroupVersionKind::new("", "v1", "Patch"), true)),
        Body::DeleteOptions => Some((GroupVersionKind::new("", "v1", "DeleteOptions"), false)),
    };
    if let Some((kind, required)) = body {
        let mut body = json!({ "name": "body", "in": "body", "schema": named(&kind) });
        if required {
            body["required"] = true.into();
        }
        parameters.insert(0, body);
    }
    let (schema, produces) = match &op.answer {
        Content::Text => (reference(None), json!(["*/*"])),
        Content::Kind(kind) => {
            let types = PRODUCES
                .iter()
                .chain(if op.streams { STREAMS } else { &[] });
            (named(kind), types.copied().collect())
        }
    };
    let mut responses = Map::new();
    for code in op.codes {
        let description = match code {
            201 => "Created",
            202 => "Accepted",
            _ => "OK",
        };
        responses.insert(
            code.to_string(),
            json!({ "description": description, "schema": schema }),
        );
    }
    responses.insert("401".into(), json!({ "description": "Unauthorized" }));
    let consumes = if op.body == Body::Patch {
        json!([
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
            "application/apply-patch+yaml",
        ])
    } else {
        json!(["*/*"])
    };
    let mut out = json!({
        "tags": [tag],
        "description": op.description,
        "operationId": op.id,
        "consumes": consumes,
        "produces": produces,
        "schemes": ["https"],
        "responses": responses,
        "x-kubernetes-action": op.action,
        "x-kubernetes-group-version-kind": { "group": op.kind.group, "version": op.kind.version, "kind": op.kind.kind },
    });
    if !parameters.is_empty() {
        out["parameters"] = parameters.into();
    }
    out
}

/// A definition in the dialect of v2: references may have neighbours, there are no alternatives, and Kubernetes writes
/// no defaults.
fn schema(name: &str, schema: &Value) -> Value {
    let mut out = convert(schema);
    if matches!(name.rsplit('.').next(), Some("Quantity" | "IntOrString")) {
        out["type"] = "string".into();
    }
    out
}

fn convert(schema: &Value) -> Value {
    let Some(schema) = schema.as_object() else {
        return schema.clone();
    };
    let mut out = Map::new();
    for (keyword, value) in schema {
        match keyword.as_str() {
            "allOf" => {
                if let Some(Value::Object(inner)) = value.get(0).map(convert) {
                    out.extend(inner);
                }
            }
            "oneOf" | "anyOf" | "not" | "nullable" | "default" => {}
            "$ref" => {
                let name = value
                    .as_str()
                    .and_then(|to| to.rsplit('/').next())
                    .unwrap_or_default();
                out.insert("$ref".into(), format!("#/definitions/{name}").into());
            }
            "items" | "additionalProperties" => {
                out.insert(keyword.clone(), convert(value));
            }
            "properties" => {
                let properties = value.as_object().into_iter().flatten();
                let properties: Map<_, _> = properties
                    .map(|(name, schema)| (name.clone(), convert(schema)))
                    .collect();
                out.insert(keyword.clone(), properties.into());
            }
            _ => {
                out.insert(keyword.clone(), value.clone());
            }
        }
    }
    Value::Object(out)
}
