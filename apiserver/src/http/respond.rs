//! From an outcome to an HTTP answer.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY, WARNING,
};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use jiff::Timestamp;
use orlop_api::resources::ResourceInfo;
use orlop_api::table::IncludeObject;
use orlop_api::{protobuf, table};
use orlop_core::client::WatchEvent;
use orlop_core::env::{Cancelled, Env};
use orlop_core::field::quote;
use orlop_core::object::Object;
use orlop_core::status::Status;
use orlop_wire::body::Body;
use serde_json::{Map, Value, json};

use super::negotiate::{Accepted, Encoding, Shape};
use crate::client::{view, view_event};
use crate::registry::{ListPage, RegistryWatch};

/// Answers of at least this many bytes are compressed for clients that accept it.
const COMPRESS_FROM: usize = 128 << 10;
/// How large a compressed answer is guessed to be at most, as a part of itself, when its buffer is made.
const COMPRESSED_PART: usize = 8;

/// What an answer must be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) accepted: Accepted,
    pub(crate) include: IncludeObject,
    pub(crate) pretty: bool,
    pub(crate) gzip: bool,
}

/// An answer with a body in memory.
pub(crate) fn full(code: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if let Ok(value) = HeaderValue::from_str(content_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    response
}

/// Plain text, such as of the health checks.
pub(crate) fn text(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = full(code, "text/plain; charset=utf-8", body);
    response.headers_mut().insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// What every server answers to a path that it does not have.
pub(crate) fn page_not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// What every server answers to a request that it cannot make sense of: where it failed, in plain text.
pub(crate) fn failed(uri: &http::Uri, why: &str) -> Response<Body> {
    let uri = uri.path_and_query().map_or("/", |path| path.as_str());
    let body = format!("Internal Server Error: {}: {why}\n", quote(uri));
    text(StatusCode::INTERNAL_SERVER_ERROR, body)
}

/// A refusal.
pub(crate) fn status(status: &Status, encoding: Encoding) -> Response<Body> {
    let code = match status.code {
        0 => StatusCode::OK,
        code => StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    };
    let document = serde_json::to_value(status).unwrap_or_default();
    let (content_type, body) = encode(&document, encoding, false);
    let mut response = full(code, content_type, body);
    let retry = status
        .details
        .as_ref()
        .map_or(0, |details| details.retry_after_seconds);
    if retry > 0 {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(retry));
    }
    response
}

/// Adds `Warning` headers.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let text = warning.replace(['\n', '\r'], " ");
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{escaped}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// A document in an encoding, and the media type that it then has. What has no protobuf form is JSON.
fn encode(document: &Value, encoding: Encoding, pretty: bool) -> (&'static str, Vec<u8>) {
    match encoding {
        Encoding::Protobuf => {
            if let Ok(body) = protobuf::encode(document) {
                return (Encoding::Protobuf.media_type(), body);
            }
        }
        Encoding::Yaml => {
            return (
                Encoding::Yaml.media_type(),
                orlop_wire::yaml::to_string(document).into_bytes(),
            );
        }
        Encoding::Json => {}
    }
    let body = if pretty {
        serde_json::to_vec_pretty(document)
    } else {
        serde_json::to_vec(document)
    };
    let mut body = body.unwrap_or_default();
    body.push(b'\n');
    (Encoding::Json.media_type(), body)
}

fn send(code: StatusCode, content_type: &str, body: Vec<u8>, wish: &Wish) -> Response<Body> {
    if !wish.gzip || body.len() < COMPRESS_FROM {
        return full(code, content_type, body);
    }
    let mut encoder = GzEncoder::new(
        Vec::with_capacity(body.len() / COMPRESSED_PART),
        Compression::fast(),
    );
    match encoder.write_all(&body).and_then(|()| encoder.finish()) {
        Ok(compressed) => {
            let mut response = full(code, content_type, compressed);
            response
                .headers_mut()
                .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
                .headers_mut()
                .append(VARY, HeaderValue::from_static("Accept-Encoding"));
            response
        }
        Err(_) => full(code, content_type, body),
    }
}

/// One object.
pub(crate) fn object(
    info: &ResourceInfo,
    object: &Object,
    created: bool,
    wish: &Wish,
    now: Timestamp,
) -> Result<Response<Body>, Status> {
    let code = if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let object = view(info, object)?;
    if wish.accepted.shape == Shape::Whole
        && wish.accepted.encoding == Encoding::Json
        && !wish.pretty
    {
        // The bytes that the store keeps, with the version spliced in.
        let mut body = Vec::with_capacity(object.stored_json().len() + 48);
        object.write_json(&mut body);
        body.push(b'\n');
        return Ok(send(code, Encoding::Json.media_type(), body, wish));
    }
    let value = object.value().map_err(Status::internal)?;
    let document = match wish.accepted.shape {
        Shape::Whole => return Ok(document(&value, created, wish)),
        Shape::Metadata => partial(&value),
        Shape::Table => {
            let meta = json!({"resourceVersion": object.revision().to_string()});
            table_of(
                info,
                std::slice::from_ref(&object),
                meta,
                wish.include,
                now,
                true,
            )?
        }
    };
    let (content_type, body) = encode(&document, wish.accepted.encoding, wish.pretty);
    Ok(send(code, content_type, body, wish))
}

/// A document that is not kept.
pub(crate) fn document(document: &Value, created: bool, wish: &Wish) -> Response<Body> {
    let code = if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let (content_type, body) = encode(document, wish.accepted.encoding, wish.pretty);
    send(code, content_type, body, wish)
}

/// The metadata of an object, as an object of its own.
fn partial(value: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": value.get("metadata").cloned().unwrap_or_default(),
    })
}

fn list_meta(page: &ListPage) -> Value {
    let mut meta = Map::new();
    if !page.revision.is_zero() {
        meta.insert(
            "resourceVersion".to_owned(),
            page.revision.to_string().into(),
        );
    }
    if !page.continue_token.is_empty() {
        meta.insert("continue".to_owned(), page.continue_token.clone().into());
    }
    if let Some(remaining) = page.remaining {
        meta.insert("remainingItemCount".to_owned(), remaining.into());
    }
    Value::Object(meta)
}

/// A page of a collection.
pub(crate) fn list(
    info: &ResourceInfo,
    page: &ListPage,
    wish: &Wish,
    now: Timestamp,
) -> Result<Response<Body>, Status> {
    let meta = list_meta(page);
    let viewed: Vec<Object>;
    let items = if info.stored_as.is_none() {
        &page.items
    } else {
        viewed = page
            .items
            .iter()
            .map(|object| view(info, object))
            .collect::<Result<_, _>>()?;
        &viewed
    };
    if wish.accepted.shape == Shape::Whole
        && wish.accepted.encoding == Encoding::Json
        && !wish.pretty
    {
        return Ok(send(
            StatusCode::OK,
            Encoding::Json.media_type(),
            list_json(info, items, &meta)?,
            wish,
        ));
    }
    let document = match wish.accepted.shape {
        Shape::Table => table_of(info, items, meta, wish.include, now, true)?,
        Shape::Metadata => {
            let items: Vec<Value> = items
                .iter()
                .map(|item| Ok(partial(&*item.value().map_err(Status::internal)?)))
                .collect::<Result<_, Status>>()?;
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items})
        }
        Shape::Whole => {
            let mut list = Vec::with_capacity(items.len());
            for item in items {
                let mut value = (*item.value().map_err(Status::internal)?).clone();
                if let Value::Object(fields) = &mut value {
                    fields.remove("apiVersion");
                    fields.remove("kind");
                }
                list.push(value);
            }
            json!({"kind": info.list_kind, "apiVersion": info.resource.api_version(), "metadata": meta, "items": list})
        }
    };
    let (content_type, body) = encode(&document, wish.accepted.encoding, wish.pretty);
    Ok(send(StatusCode::OK, content_type, body, wish))
}

/// A list out of the bytes of its items.
fn list_json(info: &ResourceInfo, items: &[Object], meta: &Value) -> Result<Vec<u8>, Status> {
    let size: usize = items.iter().map(|item| item.stored_json().len() + 48).sum();
    let mut body = Vec::with_capacity(size + 256);
    let head = json!({"kind": info.list_kind, "apiVersion": info.resource.api_version(), "metadata": meta});
    serde_json::to_writer(&mut body, &head).map_err(Status::internal)?;
    body.pop();
    body.extend_from_slice(b",\"items\":[");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        write_item(item, &mut body);
    }
    body.extend_from_slice(b"]}\n");
    Ok(body)
}

/// An item of a list: without `apiVersion` and `kind`, which the list says for all. They are plain text fields of the outermost object,
/// the first two but for what sorts before them, so they are cut out of the bytes.
fn write_item(item: &Object, body: &mut Vec<u8>) {
    let start = body.len();
    item.write_json(body);
    for (field, value) in [("apiVersion", item.api_version()), ("kind", item.kind())] {
        let text = format!("\"{field}\":\"{value}\",");
        let written = &body[start..];
        let found = if written[1..].starts_with(text.as_bytes()) {
            Some(1)
        } else {
            top_level_position(written, text.as_bytes())
        };
        if let Some(at) = found {
            body.drain(start + at..start + at + text.len());
        }
    }
}

/// Where a text stands as a direct member of the outermost object.
fn top_level_position(json: &[u8], text: &[u8]) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (at, &byte) in json.iter().enumerate() {
        if quoted {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => {
                if depth == 1 && json[at..].starts_with(text) && matches!(json[at - 1], b'{' | b',')
                {
                    return Some(at);
                }
                quoted = true;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// A table of objects. Later events of a watch leave out the columns, which the client knows.
fn table_of(
    info: &ResourceInfo,
    items: &[Object],
    meta: Value,
    include: IncludeObject,
    now: Timestamp,
    columns: bool,
) -> Result<Value, Status> {
    let kind = info.resource.gvk();
    let mut rows = Vec::with_capacity(items.len());
    for item in items {
        let value = item.value().map_err(Status::internal)?;
        rows.push(table::row_value(
            table::row(&kind, &value, now),
            &value,
            include,
            "v1",
        ));
    }
    Ok(table::document(
        columns.then(|| table::columns(&kind)),
        rows,
        meta,
        "v1",
    ))
}

/// A watch, as a stream of frames, until the server stops.
pub(crate) fn watch(
    info: &'static ResourceInfo,
    watch: RegistryWatch,
    wish: Wish,
    env: Env,
    stop: Cancelled,
) -> Response<Body> {
    let mut first = true;
    let mut ended = false;
    let frames = watch
        .take_until(stop)
        .take_while(move |item| {
            // An error is the last that a client reads.
            let go_on = !ended;
            ended = item.is_err();
            std::future::ready(go_on)
        })
        .map(move |item| {
            let columns = std::mem::take(&mut first);
            let frame = frame(info, item, &wish, env.wall(), columns);
            Ok::<_, std::convert::Infallible>(Frame::data(frame))
        });
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(wish.accepted.encoding.stream_type()),
    );
    response
}

fn frame(
    info: &ResourceInfo,
    item: Result<WatchEvent, Status>,
    wish: &Wish,
    now: Timestamp,
    columns: bool,
) -> Bytes {
    let made = item.and_then(|event| event_frame(info, event, wish, now, columns));
    made.unwrap_or_else(|status| {
        let document = serde_json::to_value(&status).unwrap_or_default();
        encode_frame("ERROR", &document, wish.accepted.encoding)
    })
}

fn event_frame(
    info: &ResourceInfo,
    event: WatchEvent,
    wish: &Wish,
    now: Timestamp,
    columns: bool,
) -> Result<Bytes, Status> {
    let (name, object) = match view_event(info, event)? {
        WatchEvent::Added(object) => ("ADDED", object),
        WatchEvent::Modified(object) => ("MODIFIED", object),
        WatchEvent::Deleted(object) => ("DELETED", object),
        WatchEvent::Bookmark {
            revision,
            initial_events_end,
        } => {
            let mut meta = json!({"resourceVersion": revision.to_string()});
            if initial_events_end {
                meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
            }
            let bare = json!({"kind": info.resource.kind, "apiVersion": info.resource.api_version(), "metadata": meta});
            let document = match wish.accepted.shape {
                Shape::Whole => bare,
                Shape::Metadata => partial(&bare),
                Shape::Table => json!({
                    "kind": "Table", "apiVersion": "meta.k8s.io/v1",
                    "metadata": {"resourceVersion": revision.to_string()},
                    "columnDefinitions": null,
                    "rows": [{"cells": [], "object": partial(&bare)}],
                }),
            };
            return Ok(encode_frame("BOOKMARK", &document, wish.accepted.encoding));
        }
    };
    if wish.accepted.shape == Shape::Whole && wish.accepted.encoding == Encoding::Json {
        let mut body = Vec::with_capacity(object.stored_json().len() + 96);
        body.extend_from_slice(b"{\"type\":\"");
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(b"\",\"object\":");
        object.write_json(&mut body);
        body.extend_from_slice(b"}\n");
        return Ok(body.into());
    }
    let value = object.value().map_err(Status::internal)?;
    let document = match wish.accepted.shape {
        Shape::Whole => return Ok(encode_frame(name, &value, wish.accepted.encoding)),
        Shape::Metadata => partial(&value),
        Shape::Table => {
            let meta = json!({"resourceVersion": object.revision().to_string()});
            table_of(
                info,
                std::slice::from_ref(&object),
                meta,
                wish.include,
                now,
                columns,
            )?
        }
    };
    Ok(encode_frame(name, &document, wish.accepted.encoding))
}

fn encode_frame(name: &str, document: &Value, encoding: Encoding) -> Bytes {
    match encoding {
        Encoding::Protobuf => match protobuf::encode_watch_frame(name, document) {
            Ok(frame) => frame.into(),
            Err(error) => {
                let status = serde_json::to_value(Status::internal(error)).unwrap_or_default();
                protobuf::encode_watch_frame("ERROR", &status)
                    .unwrap_or_default()
                    .into()
            }
        },
        Encoding::Yaml => {
            let text = orlop_wire::yaml::to_string(&json!({"type": name, "object": document}));
            format!("---\n{text}").into_bytes().into()
        }
        Encoding::Json => {
            let mut body =
                serde_json::to_vec(&json!({"type": name, "object": document})).unwrap_or_default();
            body.push(b'\n');
            body.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_a_list_do_not_repeat_their_kind() {
        let object = Object::from_value(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "aaa": {"kind": "ConfigMap", "x": "\"kind\":\"ConfigMap\","},
            "metadata": {"name": "a", "resourceVersion": "3"},
        }))
        .unwrap();
        let mut body = Vec::new();
        write_item(&object, &mut body);
        let value: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            value,
            json!({
                "aaa": {"kind": "ConfigMap", "x": "\"kind\":\"ConfigMap\","},
                "metadata": {"name": "a", "resourceVersion": "3"},
            })
        );
    }
}
