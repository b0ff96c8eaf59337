//! Keeping book of who owns which field, on the registry's writes.

use std::sync::LazyLock;

use orlop_api::resources::ResourceInfo;
use orlop_api::schema;
use orlop_api::strategy;
use orlop_core::resource::{GroupVersionKind, Resource};
use orlop_core::status::{Status, StatusCause, StatusDetails, reason};
use orlop_merge::apply::{ApplyError, FieldManager, FieldSet, PathElement};
use orlop_merge::schema::Schema;
use serde_json::Value;

use super::{meta, storage_kind};

/// The schema of kinds that have none: everything is untyped.
static UNTYPED: LazyLock<Schema> = LazyLock::new(Schema::untyped);

/// Runs a closure with the field manager of a resource and subresource.
fn with_manager<T>(
    info: &ResourceInfo,
    subresource: &str,
    then: impl FnOnce(&FieldManager<'_>) -> T,
) -> T {
    let kind = storage_kind(info);
    let schema = schema::of(&kind);
    let api_version = kind.api_version();
    let ignored = ignored(info, subresource);
    let mut manager = FieldManager::new(schema.as_ref().unwrap_or(&UNTYPED), &api_version)
        .subresource(subresource);
    if let Some(ignored) = &ignored {
        manager = manager.ignoring(ignored);
    }
    then(&manager)
}

/// The fields that a write through this subresource does not reach, and so does not own.
fn ignored(info: &ResourceInfo, subresource: &str) -> Option<FieldSet> {
    let sub = Some(subresource).filter(|sub| !sub.is_empty());
    let paths = strategy::reset_fields(&storage_kind(info), sub);
    if paths.is_empty() {
        return None;
    }
    let mut set = FieldSet::new();
    for path in paths {
        let path: Vec<PathElement> = path.iter().map(|name| PathElement::field(*name)).collect();
        set.insert(&path);
    }
    Some(set)
}

/// Notes what an update by a manager changed. What cannot be tracked leaves the book as it is.
pub(super) fn track(
    info: &ResourceInfo,
    subresource: &str,
    live: &Value,
    new: &mut Value,
    manager: &str,
    now: &str,
) {
    with_manager(info, subresource, |fields| {
        fields.update_no_errors(live, new, manager, now)
    });
    orlop_merge::apply::keep_times_of_unchanged(live, new);
}

/// Notes who sent a document that is answered and not kept.
pub(crate) fn track_unstored(
    kind: &GroupVersionKind,
    subresource: &str,
    document: &mut Value,
    manager: &str,
    now: &str,
) {
    let schema = schema::of(kind);
    let api_version = kind.api_version();
    let fields = FieldManager::new(schema.as_ref().unwrap_or(&UNTYPED), &api_version)
        .subresource(subresource);
    // What is required and was not sent stands there as null: nobody sent it, so nobody owns it.
    let mut sent = document.clone();
    if let Some(Value::Object(spec)) = sent.get_mut("spec") {
        spec.retain(|_, value| !value.is_null());
    }
    fields.update_no_errors(&Value::Null, &mut sent, manager, now);
    if let Some(managed) = sent.pointer_mut("/metadata/managedFields") {
        meta::set(document, "managedFields", Some(managed.take()));
    }
}

/// Merges what a manager applies into a live object (null where there is none).
pub(super) fn apply(
    info: &ResourceInfo,
    subresource: &str,
    live: &Value,
    applied: &Value,
    manager: &str,
    force: bool,
    now: &str,
) -> Result<Value, Status> {
    let name = meta::text(applied, "name").to_owned();
    with_manager(info, subresource, |fields| {
        fields.apply(live, applied, manager, force, now)
    })
    .map_err(|error| refusal(&info.resource, &name, &error))
}

pub(super) fn refusal(resource: &Resource, name: &str, error: &ApplyError) -> Status {
    match error {
        ApplyError::Conflicts(conflicts) => {
            let causes = conflicts
                .0
                .iter()
                .map(|conflict| StatusCause {
                    reason: "FieldManagerConflict".to_owned(),
                    message: conflict.message(),
                    field: conflict.path.to_string(),
                })
                .collect();
            Status::failure(409, reason::CONFLICT, error.to_string()).with_details(StatusDetails {
                causes,
                ..StatusDetails::default()
            })
        }
        ApplyError::Version { .. } | ApplyError::ManagedFieldsNotNil => {
            Status::bad_request(error.to_string())
        }
        _ => {
            tracing::debug!(resource = %resource.plural, name, %error, "apply refused");
            let mut status = Status::failure(500, "", error.to_string());
            status.reason.clear();
            status
        }
    }
}
