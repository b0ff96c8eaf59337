//! The way from client-side apply to server-side apply: `kubectl`'s annotation.

use serde_json::{Map, Value};

use super::set::FieldSet;
use super::typed::{Absence, compare, to_field_set};
use crate::schema::Schema;

/// Where client-side apply keeps what it applied last.
pub const LAST_APPLIED_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The only manager for whom the annotation is read and kept.
pub(super) const KUBECTL: &str = "kubectl";

/// All annotations of an object together may have this many bytes, keys and values.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

fn last_applied(object: &Value) -> Option<&str> {
    object
        .get("metadata")?
        .get("annotations")?
        .get(LAST_APPLIED_ANNOTATION)?
        .as_str()
        .filter(|text| !text.is_empty())
}

/// The fields that client-side apply wrote and that are still as it wrote them. Taking them over is no conflict.
/// `None` when there is no annotation, or one that says nothing about this version.
pub(super) fn still_as_applied(
    schema: &Schema,
    live: &Value,
    api_version: &str,
) -> Option<FieldSet> {
    let applied: Value = serde_json::from_str(last_applied(live)?).ok()?;
    if applied.get("apiVersion").and_then(Value::as_str) != Some(api_version) {
        return None;
    }
    let set = to_field_set(schema.ty(), &applied).ok()?;
    let since = compare(schema.ty(), &applied, live, Absence::Absent).ok()?;
    Some(
        set.difference(&since.modified)
            .difference(&since.added)
            .difference(&since.removed),
    )
}

/// Brings the annotation of an object that has one up to date with what was applied, so that client-side apply goes on
/// working. It is dropped when the annotations would grow too big.
pub(super) fn refresh(object: &mut Value, applied: &Value) {
    if last_applied(object).is_none() {
        return;
    }
    let mut applied = applied.clone();
    if let Some(annotations) = annotations(&mut applied) {
        annotations.remove(LAST_APPLIED_ANNOTATION);
    }
    let Some(annotations) = annotations(object) else {
        return;
    };
    // Kubernetes' encoder ends a document with a line feed.
    annotations.insert(
        LAST_APPLIED_ANNOTATION.to_owned(),
        Value::String(format!("{applied}\n")),
    );
    let size: usize = annotations
        .iter()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if size > ANNOTATIONS_LIMIT {
        annotations.remove(LAST_APPLIED_ANNOTATION);
    }
}

fn annotations(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object
        .get_mut("metadata")?
        .get_mut("annotations")?
        .as_object_mut()
}
