//! Server-side apply over whole objects.

use serde_json::Value;

use super::managers::{Managers, strip_managed_fields};
use super::set::FieldSet;
use super::typed::Absence;
use super::{ApplyError, ApplyOptions, UpdateOptions, Versions, apply, is_tracked, update};
use crate::schema::Schema;

/// Keeps `metadata.managedFields` of the objects of one kind, in one version and subresource.
#[derive(Clone, Copy)]
pub struct FieldManager<'a> {
    schema: &'a Schema,
    api_version: &'a str,
    subresource: &'a str,
    ignored: Option<&'a FieldSet>,
    versions: Option<&'a dyn Versions>,
    absence: Absence,
}

impl<'a> FieldManager<'a> {
    /// For requests to the objects themselves.
    #[must_use]
    pub const fn new(schema: &'a Schema, api_version: &'a str) -> Self {
        Self {
            schema,
            api_version,
            subresource: "",
            ignored: None,
            versions: None,
            absence: Absence::Zero,
        }
    }

    /// For requests to a subresource. Managed fields that such a request carries are not looked at.
    #[must_use]
    pub const fn subresource(self, subresource: &'a str) -> Self {
        Self {
            subresource,
            ..self
        }
    }

    /// Fields that these requests cannot change, and so do not own.
    #[must_use]
    pub const fn ignoring(self, ignored: &'a FieldSet) -> Self {
        Self {
            ignored: Some(ignored),
            ..self
        }
    }

    /// The other versions of the kind.
    #[must_use]
    pub const fn versions(self, versions: &'a dyn Versions) -> Self {
        Self {
            versions: Some(versions),
            ..self
        }
    }

    /// For a custom resource: its objects hold what was written and nothing else, where those of built-in kinds always
    /// hold their structs and required fields.
    #[must_use]
    pub const fn custom_resource(self) -> Self {
        Self {
            absence: Absence::Absent,
            ..self
        }
    }

    /// Applies a configuration to a live object (`{}` where there is none) and returns the merged object, with its
    /// managers.
    ///
    /// # Errors
    /// As [`apply`](super::apply); and when the managers of the live object cannot be read.
    pub fn apply(
        &self,
        live: &Value,
        applied: &Value,
        manager: &str,
        force: bool,
        now: &str,
    ) -> Result<Value, ApplyError> {
        let managers = Managers::of(live)?;
        let options = ApplyOptions {
            manager,
            api_version: self.api_version,
            subresource: self.subresource,
            force,
            now,
            ignored: self.ignored,
            versions: self.versions,
            absence: self.absence,
        };
        let outcome = apply(self.schema, live, applied, &managers, &options)?;
        let mut object = outcome.object;
        outcome.managers.write_to(&mut object);
        Ok(object)
    }

    /// Records in `new` that `manager` wrote it in the place of `live` (`{}` for a create).
    ///
    /// Kubernetes does so when the request has been decoded and defaulted, and before the server adds what is its own
    /// (allocated addresses, generated selectors): what is added later is nobody's.
    ///
    /// # Errors
    /// When one of the objects is not of its type; `new` then has no managers.
    pub fn update(
        &self,
        live: &Value,
        new: &mut Value,
        manager: &str,
        now: &str,
    ) -> Result<(), ApplyError> {
        let managers = Managers::for_update(live, new, !self.subresource.is_empty());
        strip_managed_fields(new);
        if !is_tracked(live, &managers) {
            return Ok(());
        }
        let options = UpdateOptions {
            manager,
            api_version: self.api_version,
            subresource: self.subresource,
            now,
            ignored: self.ignored,
            versions: self.versions,
            absence: self.absence,
        };
        let managers = update(self.schema, live, new, managers, &options)?;
        managers.write_to(new);
        Ok(())
    }

    /// As [`FieldManager::update`], but where that fails the managers of `live` are kept: a write must not fail for its
    /// bookkeeping.
    pub fn update_no_errors(&self, live: &Value, new: &mut Value, manager: &str, now: &str) {
        if self.update(live, new, manager, now).is_err() {
            Managers::of(live).unwrap_or_default().write_to(new);
        }
    }
}

/// Puts the managers of `live` back into `new` when the two objects differ in nothing but the times of their managers,
/// so that a request that changes nothing writes nothing.
pub fn keep_times_of_unchanged(live: &Value, new: &mut Value) {
    if same_but_times(live, new)
        && let Some(managed_fields) = live
            .get("metadata")
            .and_then(|metadata| metadata.get("managedFields"))
        && let Some(Value::Object(metadata)) = new.get_mut("metadata")
    {
        metadata.insert("managedFields".to_owned(), managed_fields.clone());
    }
}

/// Whether two objects are the same but for `metadata.managedFields[].time`. Every write asks this, so nothing is copied.
fn same_but_times(a: &Value, b: &Value) -> bool {
    same_but_for(a, b, "metadata", |a, b| {
        same_but_for(a, b, "managedFields", |a, b| match (a, b) {
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_without_time(a, b))
            }
            _ => a == b,
        })
    })
}

/// Whether two values are the same, with a comparison of its own for one of the fields.
fn same_but_for(a: &Value, b: &Value, field: &str, same: impl Fn(&Value, &Value) -> bool) -> bool {
    let (Value::Object(a), Value::Object(b)) = (a, b) else {
        return a == b;
    };
    a.len() == b.len()
        && a.iter().all(|(key, a)| {
            b.get(key)
                .is_some_and(|b| if key == field { same(a, b) } else { a == b })
        })
}

fn same_without_time(a: &Value, b: &Value) -> bool {
    let (Value::Object(a), Value::Object(b)) = (a, b) else {
        return a == b;
    };
    let rest = |entry: &serde_json::Map<String, Value>| {
        entry.len() - usize::from(entry.contains_key("time"))
    };
    rest(a) == rest(b)
        && a.iter()
            .all(|(key, value)| key == "time" || b.get(key) == Some(value))
}
