//! What the forms of PATCH make of a document.

use orlop_api::schema;
use orlop_core::client::{FieldValidation, Patch};
use orlop_core::field::{FieldError, Path};
use orlop_core::status::{Status, StatusDetails, reason};
use orlop_merge::json_patch::{JsonPatch, JsonPatchError};
use orlop_merge::{merge_patch, strategic};
use serde_json::Value;

use super::context::{At, Context};
use super::{Registry, convert, meta, storage_kind};

/// Applies a JSON, merge or strategic merge patch to the stored document, and decodes the outcome.
pub(super) fn apply(
    cx: &mut Context,
    at: &At,
    patch: &Patch,
    validation: FieldValidation,
    old: &Value,
) -> Result<Value, Status> {
    // A patch speaks of the object as its URL shows it.
    let mut document = convert::from_storage(at.info, old.clone());
    match patch {
        Patch::Json(operations) => {
            if !operations.is_array() {
                return Err(Status::bad_request(format!(
                    "error decoding patch: json: cannot unmarshal {} into Go value of type []handlers.jsonPatchOp",
                    kind_of(operations)
                )));
            }
            let patch =
                JsonPatch::from_value(operations).map_err(|error| json_patch_refusal(&error))?;
            patch
                .apply(&mut document)
                .map_err(|error| json_patch_refusal(&error))?;
        }
        Patch::Merge(patch) => {
            if !patch.is_object() {
                return Err(Status::bad_request(format!(
                    "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                    kind_of(patch)
                )));
            }
            merge_patch::apply(&mut document, patch);
        }
        Patch::Strategic(patch) => {
            let schema = schema::of(&at.info.resource.gvk()).ok_or_else(|| {
                Status::failure(
                    415,
                    reason::UNSUPPORTED_MEDIA_TYPE,
                    "the body of the request was in an unknown format - accepted media types include: \
                     application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                )
            })?;
            document = strategic::apply(&schema, &document, patch)
                .map_err(|error| Status::bad_request(error.to_string()))?;
        }
        Patch::Apply(_) => return Err(Status::internal("an apply is not a patch of a document")),
    }
    let kind = at.info.resource.gvk();
    if document["apiVersion"] != kind.api_version() || document["kind"] != *kind.kind {
        return Err(Status::bad_request(format!(
            "the API version or kind in the data ({}, {}) does not match the expected one ({}, {})",
            document["apiVersion"].as_str().unwrap_or_default(),
            document["kind"].as_str().unwrap_or_default(),
            kind.api_version(),
            kind.kind
        )));
    }
    // What is shown of a patch that does not fit: a strategic one as it is, of the others what they made of the object.
    let shown = match patch {
        Patch::Strategic(patch) => Ok(go_words(patch)),
        _ => Err(document.clone()),
    };
    let document = Registry::decode_patched(cx, &kind, document, validation).map_err(|why| {
        let shown = shown.unwrap_or_else(|document| document.to_string());
        Status::invalid(
            "",
            "",
            "",
            &[FieldError::invalid(&Path::new("patch"), shown, why)],
        )
    })?;
    Ok(convert::to_storage(at.info, document))
}

/// The name that Go's JSON decoder has for a kind of value.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A value as Go prints its maps and slices, which is how Kubernetes shows a strategic merge patch.
fn go_words(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(" ");
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", joined(items.iter().map(go_words).collect())),
        Value::Object(fields) => {
            let entry = |(key, value)| format!("{key}:{}", go_words(value));
            format!("map[{}]", joined(fields.iter().map(entry).collect()))
        }
        other => other.to_string(),
    }
}

pub(super) fn json_patch_refusal(error: &JsonPatchError) -> Status {
    match error {
        JsonPatchError::Malformed(why) => {
            Status::bad_request(format!("error decoding patch: {why}"))
        }
        JsonPatchError::TooManyOperations(count) => Status::failure(
            413,
            reason::REQUEST_ENTITY_TOO_LARGE,
            format!("The allowed maximum operations in a JSON patch is 10000, got {count}"),
        ),
        _ => Status::failure(
            422,
            reason::INVALID,
            "the server rejected our request due to an error in our request",
        )
        .with_details(StatusDetails::default()),
    }
}

/// Checks what somebody applies: of the right kind and name, known fields only.
pub(super) fn decode_applied(
    cx: &mut Context,
    at: &At,
    applied: &Value,
    validation: FieldValidation,
) -> Result<Value, Status> {
    if !applied.is_object() {
        return Err(Status::bad_request(
            "error decoding YAML: what is applied is an object",
        ));
    }
    let kind = at.info.resource.gvk();
    let mut document = applied.clone();
    let (api_version, given) = (text(&document, "apiVersion"), text(&document, "kind"));
    if api_version.is_empty() || given.is_empty() {
        return Err(Status::bad_request("invalid object type: /, Kind="));
    }
    if api_version != kind.api_version() {
        return Err(Status::bad_request(format!(
            "Incorrect version specified in apply patch. Specified patch version: {api_version}, expected: {}",
            kind.api_version()
        )));
    }
    if given != kind.kind {
        return Err(Status::bad_request(format!(
            "invalid object kind: {given}, expected: {}",
            kind.kind
        )));
    }
    if document
        .pointer("/metadata/managedFields")
        .is_some_and(|fields| !fields.is_null())
    {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    Registry::check_applied(cx, &kind, &mut document, validation)?;
    if meta::text(&document, "name").is_empty() {
        meta::set(&mut document, "name", Some(at.name.clone().into()));
    } else if meta::text(&document, "name") != at.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            meta::text(&document, "name"),
            at.name
        )));
    }
    if at.info.resource.namespaced {
        let namespace = meta::text(&document, "namespace");
        if namespace.is_empty() {
            meta::set(
                &mut document,
                "namespace",
                Some(at.namespace.clone().into()),
            );
        } else if namespace != at.namespace {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    let document = convert::to_storage(at.info, document);
    debug_assert_eq!(document["apiVersion"], storage_kind(at.info).api_version());
    Ok(document)
}

fn text<'a>(document: &'a Value, field: &str) -> &'a str {
    document
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
}
