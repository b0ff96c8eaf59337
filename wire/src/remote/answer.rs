//! What comes back: objects, lists, events, refusals.

use std::borrow::Cow;

use bytes::Bytes;
use http::StatusCode;
use orlop_core::client::{Answer, ObjectList, Target, WatchEvent};
use orlop_core::object::Object;
use orlop_core::revision::Revision;
use orlop_core::status::{Status, StatusCause, StatusDetails, reason};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::target::{Call, Expect};

/// The annotation of the bookmark that ends the initial events of a streaming list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Head<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawList<'a> {
    api_version: String,
    kind: String,
    metadata: ListMeta,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: String,
    remaining_item_count: Option<u64>,
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Bookmark {
    metadata: BookmarkMeta,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct BookmarkMeta {
    resource_version: String,
    annotations: std::collections::BTreeMap<String, String>,
}

fn not_decoded(error: impl std::fmt::Display) -> Status {
    Status::internal(format!("unable to decode the server's answer: {error}"))
}

/// Reads the whole body of a success.
pub(super) fn success(call: &Call, target: &Target, body: &Bytes) -> Result<Answer, Status> {
    match call.expect {
        Expect::List => Ok(Answer::List(list(target, body)?)),
        Expect::Object => Ok(Answer::Object(object(target, body)?)),
        Expect::Watch | Expect::Any => {
            if body.iter().all(u8::is_ascii_whitespace) {
                return Ok(Answer::Status(Box::new(Status {
                    status: "Success".to_owned(),
                    ..Status::default()
                })));
            }
            let head: Head<'_> = serde_json::from_slice(body).map_err(not_decoded)?;
            if head.kind == "Status" && head.api_version == "v1" {
                return Ok(Answer::Status(Box::new(
                    serde_json::from_slice(body).map_err(not_decoded)?,
                )));
            }
            if head.kind.ends_with("List") && head.kind != target.resource.kind {
                return Ok(Answer::List(list(target, body)?));
            }
            Ok(Answer::Object(object(target, body)?))
        }
    }
}

fn object(target: &Target, json: &[u8]) -> Result<Object, Status> {
    let head: Head<'_> = serde_json::from_slice(json).map_err(not_decoded)?;
    if head.kind == "Status" && head.api_version == "v1" && target.resource.kind != "Status" {
        // A refusal that came with a code of success, which a proxy may do.
        let status: Status = serde_json::from_slice(json).map_err(not_decoded)?;
        if status.status == "Failure" {
            return Err(status);
        }
    }
    complete(
        json,
        &head,
        (&target.resource.api_version(), &target.resource.kind),
    )
}

/// An object, to which its type is added where it does not say it.
fn complete(
    json: &[u8],
    head: &Head<'_>,
    (api_version, kind): (&str, &str),
) -> Result<Object, Status> {
    if !head.api_version.is_empty() && !head.kind.is_empty() {
        return Object::from_json(json).map_err(not_decoded);
    }
    if head.api_version.is_empty()
        && head.kind.is_empty()
        && let Some(rest @ [b'"', ..]) = json.strip_prefix(b"{")
    {
        let start = serde_json::json!({"apiVersion": api_version, "kind": kind}).to_string();
        let mut typed = Vec::with_capacity(start.len() + json.len());
        typed.extend_from_slice(start.trim_end_matches('}').as_bytes());
        typed.push(b',');
        typed.extend_from_slice(rest);
        // Where the fields are there, but empty, they win.
        if let Ok(object) = Object::from_json(&typed)
            && !object.api_version().is_empty()
            && !object.kind().is_empty()
        {
            return Ok(object);
        }
    }
    let mut value: serde_json::Value = serde_json::from_slice(json).map_err(not_decoded)?;
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".to_owned(), api_version.into());
        map.insert("kind".to_owned(), kind.into());
    }
    Object::from_value(value).map_err(not_decoded)
}

fn list(target: &Target, body: &[u8]) -> Result<ObjectList, Status> {
    let raw: RawList<'_> = serde_json::from_slice(body).map_err(not_decoded)?;
    // Items of a typed list do not repeat its type.
    let (api_version, kind) = match raw.kind.strip_suffix("List") {
        Some(kind) if !kind.is_empty() => (raw.api_version.clone(), kind.to_owned()),
        _ => (
            target.resource.api_version(),
            target.resource.kind.to_string(),
        ),
    };
    let items = raw.items.unwrap_or_default().into_iter().map(|item| {
        let json = item.get().as_bytes();
        let head: Head<'_> = serde_json::from_slice(json).map_err(not_decoded)?;
        complete(json, &head, (&api_version, &kind))
    });
    Ok(ObjectList {
        items: items.collect::<Result<_, _>>()?,
        revision: raw.metadata.resource_version.parse().unwrap_or_default(),
        continue_token: raw.metadata.continue_token,
        remaining: raw.metadata.remaining_item_count,
    })
}

/// Reads one event of a watch.
pub(super) fn event(target: &Target, json: &[u8]) -> Result<WatchEvent, Status> {
    let raw: RawEvent<'_> = serde_json::from_slice(json).map_err(not_decoded)?;
    let object = raw.object.get().as_bytes();
    match &*raw.kind {
        "BOOKMARK" => {
            let bookmark: Bookmark = serde_json::from_slice(object).map_err(not_decoded)?;
            let revision: Revision = bookmark
                .metadata
                .resource_version
                .parse()
                .map_err(not_decoded)?;
            let end = bookmark
                .metadata
                .annotations
                .get(INITIAL_EVENTS_END)
                .is_some_and(|value| value == "true");
            Ok(WatchEvent::Bookmark {
                revision,
                initial_events_end: end,
            })
        }
        "ERROR" => Err(serde_json::from_slice(object).map_err(not_decoded)?),
        kind @ ("ADDED" | "MODIFIED" | "DELETED") => {
            let head: Head<'_> = serde_json::from_slice(object).map_err(not_decoded)?;
            let object = complete(
                object,
                &head,
                (&target.resource.api_version(), &target.resource.kind),
            )?;
            Ok(match kind {
                "ADDED" => WatchEvent::Added(object),
                "MODIFIED" => WatchEvent::Modified(object),
                _ => WatchEvent::Deleted(object),
            })
        }
        other => Err(not_decoded(format!(
            "unknown type of watch event \"{other}\""
        ))),
    }
}

/// Reads a refusal: the server's own status if there is one, otherwise what its code says.
pub(super) fn refusal(
    call: &Call,
    target: &Target,
    code: StatusCode,
    retry_after: Option<u32>,
    body: &[u8],
) -> Status {
    if let Ok(mut status) = serde_json::from_slice::<Status>(body)
        && status.kind == "Status"
        && status.status == "Failure"
    {
        if status.code == 0 {
            status.code = code.as_u16();
        }
        return status;
    }
    let text = String::from_utf8_lossy(body);
    let text: String = text.trim().chars().take(2048).collect();
    generic(call, target, code, retry_after, &text)
}

/// The texts that client-go has for answers that are no status.
fn generic(
    call: &Call,
    target: &Target,
    code: StatusCode,
    retry_after: Option<u32>,
    text: &str,
) -> Status {
    let (why, message) = match code.as_u16() {
        409 if call.verb == "post" => (reason::ALREADY_EXISTS, "the server reported a conflict".to_owned()),
        409 => (reason::CONFLICT, "the server reported a conflict".to_owned()),
        404 => (reason::NOT_FOUND, "the server could not find the requested resource".to_owned()),
        400 => (reason::BAD_REQUEST, "the server rejected our request for an unknown reason".to_owned()),
        401 => (reason::UNAUTHORIZED, "the server has asked for the client to provide credentials".to_owned()),
        403 => (reason::FORBIDDEN, text.to_owned()),
        405 => {
            (reason::METHOD_NOT_ALLOWED, "the server does not allow this method on the requested resource".to_owned())
        }
        406 => (
            reason::NOT_ACCEPTABLE,
            "the server was unable to respond with a content type that the client supports".to_owned(),
        ),
        415 => (
            reason::UNSUPPORTED_MEDIA_TYPE,
            "the server was unable to understand the content type of our request".to_owned(),
        ),
        422 => (reason::INVALID, "the server rejected our request due to an error in our request".to_owned()),
        429 => (
            reason::TOO_MANY_REQUESTS,
            "the server has received too many requests and has asked us to try again later".to_owned(),
        ),
        503 => (reason::SERVICE_UNAVAILABLE, "the server is currently unable to handle the request".to_owned()),
        504 => (
            reason::TIMEOUT,
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .to_owned(),
        ),
        500.. => (
            reason::INTERNAL_ERROR,
            format!("an error on the server ({text:?}) has prevented the request from succeeding"),
        ),
        _ => ("", format!("the server responded with the status code {} but did not return more information", code.as_u16())),
    };
    let name = target.name.as_deref().unwrap_or_default();
    let what = format!("{} {} {name}", call.verb, target.resource.qualified());
    let cause = StatusCause {
        reason: "UnexpectedServerResponse".to_owned(),
        message: if text.is_empty() {
            "unknown".to_owned()
        } else {
            text.to_owned()
        },
        field: String::new(),
    };
    Status::failure(
        code.as_u16(),
        why,
        format!("{message} ({})", what.trim_end()),
    )
    .with_details(StatusDetails {
        name: name.to_owned(),
        group: target.resource.group.to_string(),
        kind: target.resource.plural.to_string(),
        causes: vec![cause],
        retry_after_seconds: retry_after.unwrap_or_default(),
        ..StatusDetails::default()
    })
}
