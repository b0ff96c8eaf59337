//! OpenAPI v3.0, one document for each group and version.

use std::collections::BTreeSet;

use orlop_core::resource::GroupVersionKind;
use serde_json::{Map, Value, json};

use super::operations::{self, Body, Content, Operation, Parameter, Place};
use super::{closure, definition};
use crate::resources::ResourceInfo;

const JSON: &str = "application/json";
const PLAIN: &[&str] = &[
    JSON,
    "application/vnd.kubernetes.protobuf",
    "application/yaml",
];
const STREAMS: &[&str] = &[
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const PATCHES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const PATCH: GroupVersionKind = GroupVersionKind::new("", "v1", "Patch");
const DELETE_OPTIONS: GroupVersionKind = GroupVersionKind::new("", "v1", "DeleteOptions");

fn frame(version: &str, paths: Map<String, Value>, schemas: Map<String, Value>) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": version },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "BearerToken": {
                    "type": "apiKey",
                    "name": "authorization",
                    "in": "header",
                    "description": "A bearer token.",
                },
            },
        },
        "security": [{ "BearerToken": [] }],
    })
}

pub(super) fn group_version(
    resources: &[&ResourceInfo],
    definitions: &Map<String, Value>,
    version: &str,
) -> Value {
    let mut used = BTreeSet::new();
    let mut paths = Map::new();
    if let Some(info) = resources.first() {
        let r = &info.resource;
        let path = if r.group.is_empty() {
            format!("/api/{}/", r.version)
        } else {
            format!("/apis/{}/{}/", r.group, r.version)
        };
        paths.insert(
            path,
            discovery_path(
                "APIResourceList",
                &operations::tag(&r.group, &r.version),
                definitions,
                &mut used,
            ),
        );
        // Events of a watch and the answers to failures are no operation's own.
        used.extend(definition(
            definitions,
            &GroupVersionKind::new("", "v1", "WatchEvent"),
        ));
    }
    for info in resources {
        let tag = operations::tag(&info.resource.group, &info.resource.version);
        for path in operations::paths(info) {
            let mut item = Map::new();
            item.insert(
                "parameters".into(),
                path.parameters.iter().map(parameter).collect(),
            );
            for operation in &path.operations {
                item.insert(
                    operation.method.into(),
                    self::operation(operation, &tag, definitions, &mut used),
                );
            }
            paths.insert(path.path, Value::Object(item));
        }
    }
    let schemas = closure(definitions, used);
    frame(
        version,
        paths,
        schemas
            .into_iter()
            .map(|(name, schema)| (name.to_owned(), schema.clone()))
            .collect(),
    )
}

/// The document of a path that answers one document of discovery.
pub(super) fn discovery(path: &str, kind: &str, version: &str) -> Value {
    let definitions = crate::schema::document();
    let mut used = BTreeSet::new();
    let tag = path.rsplit('/').next().unwrap_or(path);
    let url = if path == "version" {
        "/version/".to_owned()
    } else {
        format!("/{path}/")
    };
    let mut paths = Map::new();
    paths.insert(url, discovery_path(kind, tag, definitions, &mut used));
    let schemas = closure(definitions, used);
    frame(
        version,
        paths,
        schemas
            .into_iter()
            .map(|(name, schema)| (name.to_owned(), schema.clone()))
            .collect(),
    )
}

fn discovery_path(
    kind: &str,
    tag: &str,
    definitions: &Map<String, Value>,
    used: &mut BTreeSet<String>,
) -> Value {
    let name = if kind == "Info" {
        Some("io.k8s.apimachinery.pkg.version.Info".to_owned())
    } else {
        definition(definitions, &GroupVersionKind::from_api_version("v1", kind))
    };
    let content = contents(name.as_deref(), PLAIN);
    used.extend(name);
    json!({ "get": {
        "tags": [tag],
        "description": "Tells what is served here.",
        "operationId": format!("get{}{kind}", operations::group_name(tag)),
        "responses": { "200": { "description": "OK", "content": content }, "401": { "description": "Unauthorized" } },
    } })
}

fn parameter(p: &Parameter) -> Value {
    let mut out = json!({
        "name": p.name,
        "in": if p.place == Place::Path { "path" } else { "query" },
        "description": p.description,
        "schema": { "type": p.ty, "uniqueItems": true },
    });
    if p.place == Place::Path {
        out["required"] = true.into();
    }
    out
}

fn contents(name: Option<&str>, types: &[&str]) -> Value {
    let schema = match name {
        Some(name) => json!({ "$ref": format!("#/components/schemas/{name}") }),
        None => json!({ "type": "string" }),
    };
    types
        .iter()
        .map(|ty| ((*ty).to_owned(), json!({ "schema": schema })))
        .collect::<Map<_, _>>()
        .into()
}

fn operation(
    op: &Operation,
    tag: &str,
    definitions: &Map<String, Value>,
    used: &mut BTreeSet<String>,
) -> Value {
    let mut named = |kind: &GroupVersionKind| {
        let name = definition(definitions, kind);
        used.extend(name.clone());
        name
    };
    let mut out = Map::new();
    out.insert("tags".into(), json!([tag]));
    out.insert("description".into(), op.description.as_str().into());
    out.insert("operationId".into(), op.id.as_str().into());
    if !op.parameters.is_empty() {
        out.insert(
            "parameters".into(),
            op.parameters.iter().map(parameter).collect(),
        );
    }
    let body = match op.body {
        Body::None => None,
        Body::Object => Some((&op.kind, &["*/*"][..], true)),
        Body::Patch => Some((&PATCH, PATCHES, true)),
        Body::DeleteOptions => Some((&DELETE_OPTIONS, &["*/*"][..], false)),
    };
    if let Some((kind, types, required)) = body {
        let mut body = json!({ "content": contents(named(kind).as_deref(), types) });
        if required {
            body["required"] = true.into();
        }
        out.insert("requestBody".into(), body);
    }
    let content = match &op.answer {
        Content::Text => contents(None, &["*/*"]),
        Content::Kind(kind) => {
            let types: Vec<_> = PLAIN
                .iter()
                .chain(if op.streams { STREAMS } else { &[] })
                .copied()
                .collect();
            contents(named(kind).as_deref(), &types)
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
            json!({ "description": description, "content": content }),
        );
    }
    responses.insert("401".into(), json!({ "description": "Unauthorized" }));
    out.insert("responses".into(), responses.into());
    out.insert("x-kubernetes-action".into(), op.action.into());
    out.insert(
        "x-kubernetes-group-version-kind".into(),
        json!({ "group": op.kind.group, "version": op.kind.version, "kind": op.kind.kind }),
    );
    Value::Object(out)
}
