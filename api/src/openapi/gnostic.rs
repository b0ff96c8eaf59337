//! OpenAPI v2 as protobuf: the messages of gnostic's `openapi.v2`, by field number.

use std::convert::Infallible;

use serde_json::{Map, Value};

use crate::protobuf::wire;

/// What a field of a message holds, and which key of the JSON object it comes from.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Texts,
    Flag,
    Message(fn(&Value, &mut Vec<u8>)),
    Messages(fn(&Value, &mut Vec<u8>)),
}

type Fields = &'static [(&'static str, u32, Kind)];

/// Encodes a document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    const DOCUMENT: Fields = &[
        ("swagger", 1, Kind::Text),
        ("info", 2, Kind::Message(info)),
        ("paths", 8, Kind::Message(paths)),
        ("definitions", 9, Kind::Message(schemas)),
        ("security", 12, Kind::Messages(security_requirement)),
        (
            "securityDefinitions",
            13,
            Kind::Message(security_definitions),
        ),
    ];
    let mut out = Vec::with_capacity(1 << 20);
    message(DOCUMENT, document, &mut out);
    out
}

fn nested(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let done: Result<(), Infallible> = wire::put_nested(out, number, |out| {
        write(out);
        Ok(())
    });
    let Ok(()) = done;
}

fn message(fields: Fields, value: &Value, out: &mut Vec<u8>) {
    for (key, number, kind) in fields {
        let Some(value) = value.get(*key) else {
            continue;
        };
        match kind {
            Kind::Text => text(out, *number, value),
            Kind::Texts => value
                .as_array()
                .into_iter()
                .flatten()
                .for_each(|item| text(out, *number, item)),
            Kind::Flag => {
                if value.as_bool() == Some(true) {
                    wire::put_int(out, *number, 1);
                }
            }
            Kind::Message(write) => nested(out, *number, |out| write(value, out)),
            Kind::Messages(write) => {
                for item in value.as_array().into_iter().flatten() {
                    nested(out, *number, |out| write(item, out));
                }
            }
        }
    }
}

fn text(out: &mut Vec<u8>, number: u32, value: &Value) {
    if let Some(text) = value.as_str() {
        wire::put_bytes(out, number, text.as_bytes());
    }
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// A map is a list of messages with a name and a value.
fn named(out: &mut Vec<u8>, number: u32, value: &Value, write: fn(&Value, &mut Vec<u8>)) {
    for (name, value) in object(value) {
        nested(out, number, |out| {
            wire::put_bytes(out, 1, name.as_bytes());
            nested(out, 2, |out| write(value, out));
        });
    }
}

/// Keys that begin with `x-`, whose values are YAML, of which JSON is a part.
fn extensions(out: &mut Vec<u8>, number: u32, value: &Value) {
    for (name, value) in object(value).filter(|(name, _)| name.starts_with("x-")) {
        nested(out, number, |out| {
            wire::put_bytes(out, 1, name.as_bytes());
            nested(out, 2, |out| any(value, out));
        });
    }
}

fn any(value: &Value, out: &mut Vec<u8>) {
    wire::put_bytes(out, 2, value.to_string().as_bytes());
}

fn info(value: &Value, out: &mut Vec<u8>) {
    message(
        &[("title", 1, Kind::Text), ("version", 2, Kind::Text)],
        value,
        out,
    );
}

fn security_requirement(value: &Value, out: &mut Vec<u8>) {
    named(out, 1, value, |scopes, out| {
        scopes
            .as_array()
            .into_iter()
            .flatten()
            .for_each(|scope| text(out, 1, scope));
    });
}

fn security_definitions(value: &Value, out: &mut Vec<u8>) {
    const API_KEY: Fields = &[
        ("type", 1, Kind::Text),
        ("name", 2, Kind::Text),
        ("in", 3, Kind::Text),
        ("description", 4, Kind::Text),
    ];
    // Alternative 2 of the item is the API key, the only one that is used.
    named(out, 1, value, |item, out| {
        nested(out, 2, |out| message(API_KEY, item, out))
    });
}

fn paths(value: &Value, out: &mut Vec<u8>) {
    named(out, 2, value, |item, out| {
        const ITEM: Fields = &[
            ("get", 2, Kind::Message(operation)),
            ("put", 3, Kind::Message(operation)),
            ("post", 4, Kind::Message(operation)),
            ("delete", 5, Kind::Message(operation)),
            ("options", 6, Kind::Message(operation)),
            ("head", 7, Kind::Message(operation)),
            ("patch", 8, Kind::Message(operation)),
            ("parameters", 9, Kind::Messages(parameter)),
        ];
        message(ITEM, item, out);
        extensions(out, 10, item);
    });
}

fn operation(value: &Value, out: &mut Vec<u8>) {
    const OPERATION: Fields = &[
        ("tags", 1, Kind::Texts),
        ("description", 3, Kind::Text),
        ("operationId", 5, Kind::Text),
        ("produces", 6, Kind::Texts),
        ("consumes", 7, Kind::Texts),
        ("parameters", 8, Kind::Messages(parameter)),
        ("responses", 9, Kind::Message(responses)),
        ("schemes", 10, Kind::Texts),
    ];
    message(OPERATION, value, out);
    extensions(out, 13, value);
}

fn parameter(value: &Value, out: &mut Vec<u8>) {
    const BODY: Fields = &[
        ("description", 1, Kind::Text),
        ("name", 2, Kind::Text),
        ("in", 3, Kind::Text),
        ("required", 4, Kind::Flag),
        ("schema", 5, Kind::Message(schema)),
    ];
    const QUERY: Fields = &[
        ("required", 1, Kind::Flag),
        ("in", 2, Kind::Text),
        ("description", 3, Kind::Text),
        ("name", 4, Kind::Text),
        ("type", 6, Kind::Text),
        ("uniqueItems", 20, Kind::Flag),
    ];
    const PATH: Fields = &[
        ("required", 1, Kind::Flag),
        ("in", 2, Kind::Text),
        ("description", 3, Kind::Text),
        ("name", 4, Kind::Text),
        ("type", 5, Kind::Text),
        ("uniqueItems", 19, Kind::Flag),
    ];
    // ParametersItem.parameter, then Parameter: a body, or one of the others.
    nested(out, 1, |out| {
        match value.get("in").and_then(Value::as_str) {
            Some("body") => nested(out, 1, |out| message(BODY, value, out)),
            Some("path") => nested(out, 2, |out| {
                nested(out, 4, |out| message(PATH, value, out))
            }),
            _ => nested(out, 2, |out| {
                nested(out, 3, |out| message(QUERY, value, out))
            }),
        }
    });
}

fn responses(value: &Value, out: &mut Vec<u8>) {
    named(out, 1, value, |response, out| {
        nested(out, 1, |out| {
            message(&[("description", 1, Kind::Text)], response, out);
            if let Some(schema) = response.get("schema") {
                nested(out, 2, |out| {
                    nested(out, 1, |out| self::schema(schema, out))
                });
            }
        });
    });
}

fn schemas(value: &Value, out: &mut Vec<u8>) {
    named(out, 1, value, schema);
}

fn schema(value: &Value, out: &mut Vec<u8>) {
    const SCHEMA: Fields = &[
        ("$ref", 1, Kind::Text),
        ("format", 2, Kind::Text),
        ("title", 3, Kind::Text),
        ("description", 4, Kind::Text),
        ("default", 5, Kind::Message(any)),
        ("pattern", 13, Kind::Text),
        ("required", 19, Kind::Texts),
        ("enum", 20, Kind::Messages(any)),
        ("additionalProperties", 21, Kind::Message(additional)),
        ("type", 22, Kind::Message(type_item)),
        ("items", 23, Kind::Message(items)),
        ("properties", 25, Kind::Message(schemas)),
    ];
    message(SCHEMA, value, out);
    extensions(out, 31, value);
}

fn additional(value: &Value, out: &mut Vec<u8>) {
    match value.as_bool() {
        Some(allowed) => wire::put_int(out, 2, i64::from(allowed)),
        None => nested(out, 1, |out| schema(value, out)),
    }
}

fn type_item(value: &Value, out: &mut Vec<u8>) {
    text(out, 1, value);
}

fn items(value: &Value, out: &mut Vec<u8>) {
    nested(out, 1, |out| schema(value, out));
}
