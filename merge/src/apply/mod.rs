//! Server-side apply: merging what several managers say about one object, and keeping book of who owns which field.
//!
//! [`apply`] and [`update`] work on an object and its [`Managers`]; [`FieldManager`] does the same on whole objects,
//! with `metadata.managedFields` read from and written back into them.
//!
//! ```
//! use orlop_merge::apply::{ApplyError, FieldManager};
//! use orlop_merge::schema::Schema;
//! use serde_json::{Value, json};
//!
//! let document = json!({"ConfigMap": {"type": "object", "properties": {
//!     "apiVersion": {"type": "string"}, "kind": {"type": "string"},
//!     "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
//!     "data": {"type": "object", "additionalProperties": {"type": "string"}},
//! }}});
//! let schema = Schema::from_openapi(document.as_object().unwrap(), "ConfigMap")?;
//! let fields = FieldManager::new(&schema, "v1");
//! let config = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data});
//!
//! let live = fields.apply(&json!({}), &config(json!({"a": "1"})), "m1", false, "2026-01-01T00:00:00Z")?;
//! let refused = fields.apply(&live, &config(json!({"a": "2"})), "m2", false, "2026-01-01T00:00:01Z").unwrap_err();
//! assert_eq!(refused.to_string(), r#"Apply failed with 1 conflict: conflict with "m1": .data.a"#);
//!
//! let live = fields.apply(&live, &config(json!({"a": "2"})), "m2", true, "2026-01-01T00:00:02Z")?;
//! assert_eq!(live["metadata"]["managedFields"][0]["manager"], "m2");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cap;
mod codec;
mod conflict;
mod field_manager;
mod last_applied;
mod managers;
mod path;
mod reconcile;
pub mod scale;
mod set;
#[cfg(test)]
mod tests;
pub mod typed;
mod update;

pub use codec::CodecError;
pub use conflict::{Conflict, Conflicts};
pub use field_manager::{FieldManager, keep_times_of_unchanged};
pub use last_applied::LAST_APPLIED_ANNOTATION;
pub use managers::{ManagerId, Managers, ManagersError, Operation, Ownership};
pub use path::{Path, PathElement};
pub use set::FieldSet;

use std::sync::LazyLock;

use serde_json::{Map, Value};

use self::typed::{Absence, Duplicates, TypeErrors, validate};
use self::update::Scope;
use crate::schema::{Kind, Schema, Type};
use crate::value::values_equal;

/// The manager to whom everything is given that an object without managers has when it is first applied to.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Why an apply or an update was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Others own what it would change. Answered with 409 and a cause for each.
    #[error(transparent)]
    Conflicts(#[from] Conflicts),
    /// The configuration is of another version than the request. Answered with 400.
    #[error(
        "Incorrect version specified in apply patch. Specified patch version: {found}, expected: {expected}"
    )]
    Version {
        /// What it says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// The configuration has managed fields. Answered with 400.
    #[error("metadata.managedFields must be nil")]
    ManagedFieldsNotNil,
    /// The configuration is not of its type. Kubernetes answers with 500.
    #[error("failed to create typed patch object ({object}): {errors}")]
    Patch {
        /// Namespace, name and kind.
        object: String,
        /// What is wrong.
        errors: TypeErrors,
    },
    /// The managers of the live object cannot be read.
    #[error("failed to decode managed fields: {0}")]
    Managers(#[from] ManagersError),
    /// The live object or its successor is not of its type.
    #[error(transparent)]
    Typed(#[from] TypeErrors),
    /// An object could not be seen in the version of one of its managers.
    #[error("failed to convert object to {to}: {reason}")]
    Convert {
        /// The version.
        to: String,
        /// Why not.
        reason: String,
    },
}

/// The versions of a kind, for objects whose managers write in different ones.
pub trait Versions {
    /// The object in another version, with the schema of that version; `None` when it is not served.
    ///
    /// # Errors
    /// Why the object cannot be converted.
    fn convert(&self, object: &Value, to: &str) -> Result<Option<(Schema, Value)>, String>;
}

/// How to apply.
#[derive(Clone, Copy)]
pub struct ApplyOptions<'a> {
    /// Who applies.
    pub manager: &'a str,
    /// The version of the request, such as `apps/v1`.
    pub api_version: &'a str,
    /// The subresource of the request, or empty.
    pub subresource: &'a str,
    /// Whether to take what others own.
    pub force: bool,
    /// The time to write, RFC 3339 in UTC with whole seconds.
    pub now: &'a str,
    /// Fields that this request cannot change: the status, or through `/status` everything else. They are not owned.
    pub ignored: Option<&'a FieldSet>,
    /// The other versions of the kind; without it, entries of every version are read under the one schema.
    pub versions: Option<&'a dyn Versions>,
    /// What fields are taken for that an object does not have: [`Absence::Zero`] for built-in kinds,
    /// [`Absence::Absent`] for custom resources.
    pub absence: Absence,
}

/// How to record an update. The fields are those of [`ApplyOptions`].
#[derive(Clone, Copy)]
pub struct UpdateOptions<'a> {
    /// Who writes.
    pub manager: &'a str,
    /// The version of the request.
    pub api_version: &'a str,
    /// The subresource of the request, or empty.
    pub subresource: &'a str,
    /// The time to write, RFC 3339 in UTC with whole seconds.
    pub now: &'a str,
    /// Fields that this request cannot change.
    pub ignored: Option<&'a FieldSet>,
    /// The other versions of the kind.
    pub versions: Option<&'a dyn Versions>,
    /// What fields are taken for that an object does not have.
    pub absence: Absence,
}

/// The outcome of an apply.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The merged object, without `metadata.managedFields`. Defaults, and metadata that belong to the server, are the
    /// caller's to put in.
    pub object: Value,
    /// Who owns it now.
    pub managers: Managers,
    /// Whether the object is another one than before. Managers may have changed even when it is not.
    pub changed: bool,
}

/// Metadata that nobody owns.
static NOT_OWNED: LazyLock<FieldSet> = LazyLock::new(|| {
    let metadata = [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ]
    .map(|name| vec!["metadata", name]);
    let top = ["apiVersion", "kind", "metadata"].map(|name| vec![name]);
    FieldSet::of_fields(top.into_iter().chain(metadata))
});

static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));

/// An object that is not there yet is empty.
fn object_or_empty(object: &Value) -> &Value {
    if object.is_null() { &EMPTY } else { object }
}

/// Takes the fields that nobody owns from what a manager owns.
fn strip(managers: &mut Managers, id: &ManagerId) {
    if let Some(owned) = managers.remove(id) {
        let set = owned.set.difference(&NOT_OWNED);
        managers.insert(id.clone(), Ownership { set, ..owned });
    }
}

/// Applies a configuration to a live object (`{}` where there is none yet).
///
/// # Errors
/// Conflicts, unless forced; a configuration that is not of its type or version.
pub fn apply(
    schema: &Schema,
    live: &Value,
    applied: &Value,
    managers: &Managers,
    options: &ApplyOptions<'_>,
) -> Result<Applied, ApplyError> {
    let text = |key: &str| applied.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("apiVersion") != options.api_version {
        return Err(ApplyError::Version {
            found: text("apiVersion").to_owned(),
            expected: options.api_version.to_owned(),
        });
    }
    let metadata = applied.get("metadata");
    if metadata.is_some_and(|m| m.get("managedFields").is_some_and(|m| !m.is_null())) {
        return Err(ApplyError::ManagedFieldsNotNil);
    }
    validate(schema.ty(), applied, Duplicates::Forbidden).map_err(|errors| ApplyError::Patch {
        object: describe(applied),
        errors,
    })?;

    let mut live = object_or_empty(live).clone();
    managers::strip_managed_fields(&mut live);
    let mut managers = managers.clone();
    if managers.is_empty() {
        managers = update(
            schema,
            &EMPTY,
            &live,
            managers,
            &UpdateOptions {
                manager: BEFORE_FIRST_APPLY,
                api_version: options.api_version,
                subresource: options.subresource,
                now: options.now,
                ignored: options.ignored,
                versions: options.versions,
                absence: options.absence,
            },
        )?;
    }
    let id = ManagerId::new(
        options.manager,
        Operation::Apply,
        options.api_version,
        options.subresource,
    );
    let scope = Scope {
        schema,
        api_version: options.api_version,
        ignored: options.ignored,
        versions: options.versions,
        absence: options.absence,
    };
    let attempt = |force| {
        let mut managers = managers.clone();
        let object = scope.apply(&live, applied, &mut managers, &id, force)?;
        Ok((object, managers))
    };
    let (mut object, mut managers) = match attempt(options.force) {
        Err(ApplyError::Conflicts(conflicts)) if options.manager == last_applied::KUBECTL => {
            // What client-side apply wrote is kubectl's already.
            let own = last_applied::still_as_applied(schema, &live, options.api_version)
                .unwrap_or_default();
            let others: Vec<Conflict> = conflicts
                .0
                .into_iter()
                .filter(|conflict| !own.contains(&conflict.path.0))
                .collect();
            if !others.is_empty() {
                return Err(Conflicts(others).into());
            }
            attempt(true)?
        }
        outcome => outcome?,
    };
    drop_nulls(schema.ty(), &mut object);
    let changed = !values_equal(&live, &object);
    strip(&mut managers, &id);
    if changed && let Some(owned) = managers.entries.get_mut(&id) {
        owned.time = Some(options.now.to_owned());
    }
    if options.manager == last_applied::KUBECTL {
        last_applied::refresh(&mut object, applied);
    }
    Ok(Applied {
        object,
        managers,
        changed,
    })
}

/// Records a create, a replace or a patch: what changed from `old` (`{}` for a create) to `new` belongs to the writer,
/// and to nobody else. Returns the new managers. A write that changes nothing changes nothing here, not even the time.
///
/// # Errors
/// When one of the objects is not of its type. A server then keeps the managers it had.
pub fn update(
    schema: &Schema,
    old: &Value,
    new: &Value,
    mut managers: Managers,
    options: &UpdateOptions<'_>,
) -> Result<Managers, ApplyError> {
    // A name that cannot be one of an entry stands for this write alone, so that what it changed can be told from what
    // its manager owned before.
    let this_write = ManagerId {
        manager: "current-operation".to_owned(),
        operation: Operation::Update,
        api_version: None,
        subresource: String::new(),
    };
    let scope = Scope {
        schema,
        api_version: options.api_version,
        ignored: options.ignored,
        versions: options.versions,
        absence: options.absence,
    };
    scope.update(object_or_empty(old), new, &mut managers, &this_write)?;
    strip(&mut managers, &this_write);
    if let Some(mut owned) = managers.remove(&this_write) {
        let id = ManagerId::new(
            options.manager,
            Operation::Update,
            options.api_version,
            options.subresource,
        );
        if let Some(before) = managers.remove(&id) {
            owned.set.extend_with(&before.set);
        }
        owned.time = Some(options.now.to_owned());
        managers.insert(id, owned);
    }
    cap::cap_update_managers(&mut managers);
    Ok(managers)
}

/// Whether ownership is to be recorded at all: always for a new object, and for one that somebody owns. An object whose
/// managers were removed is not tracked until it is applied to again.
#[must_use]
pub fn is_tracked(live: &Value, managers: &Managers) -> bool {
    let is_new = || {
        live.get("metadata")
            .and_then(|metadata| metadata.get("uid"))
            .and_then(Value::as_str)
            .is_none_or(str::is_empty)
    };
    !managers.is_empty() || is_new()
}

/// Namespace, name and kind, as Kubernetes' errors have them.
fn describe(object: &Value) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let metadata = object.get("metadata");
    let api_version = text(object.get("apiVersion"));
    let group_version = if api_version.contains('/') {
        api_version
    } else {
        format!("/{api_version}")
    };
    format!(
        "{}/{}; {}, Kind={}",
        text(metadata.and_then(|m| m.get("namespace"))),
        text(metadata.and_then(|m| m.get("name"))),
        group_version,
        text(object.get("kind")),
    )
}

/// Nulls that were applied have done their work: where the schema knows a field, null is absence.
fn drop_nulls(ty: Type<'_>, value: &mut Value) {
    match (ty.kind(), value) {
        (Kind::Struct(s), Value::Object(map)) => {
            map.retain(|key, value| {
                !value.is_null() || s.field(key).is_none_or(|field| field.is_nullable())
            });
            for (key, value) in map {
                if let Some(child) = s.child(key) {
                    drop_nulls(child, value);
                }
            }
        }
        (Kind::Map(m), Value::Object(map)) => {
            let item = m.value();
            if matches!(item.kind(), Kind::Any) {
                return;
            }
            map.retain(|_, value| !value.is_null());
            for value in map.values_mut() {
                drop_nulls(item, value);
            }
        }
        (Kind::List(l), Value::Array(items)) => {
            for item in items {
                drop_nulls(l.item(), item);
            }
        }
        _ => {}
    }
}
