//! Fields that a type does not have and values that are not of their type.
//!
//! [`check`] walks a value and reports to a callback; while nothing is wrong it allocates nothing. [`prune`] refuses what is
//! not of its type and removes what is not declared. [`decode`] reads a document and reports the unknown and duplicate fields on the way, in the order
//! in which they stand: strict decoding.
//!
//! ```
//! use orlop_merge::{schema::Schema, validate};
//! use serde_json::json;
//!
//! let document = json!({"ConfigMap": {"type": "object", "properties": {
//!     "data": {"type": "object", "additionalProperties": {"type": "string"}},
//! }}});
//! let schema = Schema::from_openapi(document.as_object().unwrap(), "ConfigMap")?;
//! let object = json!({"data": {"a": 1}, "spec": {}});
//!
//! let mut found = Vec::new();
//! validate::check(&schema, &object, &mut |at, problem| found.push(format!("{problem} at {at}")));
//! assert_eq!(found, ["expected string, found number at data.a", "unknown field at spec"]);
//!
//! let mut object = json!({"data": {"a": "1"}, "spec": {}});
//! assert_eq!(validate::prune(&schema, &mut object)?, ["spec"]);
//! assert_eq!(object, json!({"data": {"a": "1"}}));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod format;
mod strict;
#[cfg(test)]
mod tests;

pub use strict::{Decode, StrictError, decode};

use std::fmt;

use serde_json::Value;

use crate::schema::{Format, Kind, ScalarKind, Type};

/// A place in a document, borrowed from the walk: `spec.containers[0].image`.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
    /// The declared name of the innermost struct around.
    owner: Option<&'a str>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Key(&'a str),
    Index(usize),
}

impl<'a> At<'a> {
    const ROOT: At<'static> = At {
        parent: None,
        step: Step::Root,
        owner: None,
    };

    fn down(&'a self, step: Step<'a>, owner: Option<&'a str>) -> At<'a> {
        At {
            parent: Some(self),
            step,
            owner,
        }
    }

    /// The last name of the path; empty at the root and in a list.
    #[must_use]
    pub fn name(&self) -> &'a str {
        match self.step {
            Step::Field(name) | Step::Key(name) => name,
            Step::Root | Step::Index(_) => "",
        }
    }

    /// The path of declared fields alone, as the decoder of Kubernetes names it.
    fn write_fields(&self, f: &mut impl fmt::Write) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.write_fields(f)?;
        }
        match self.step {
            Step::Field(name) => write!(f, ".{name}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) | Step::Key(name) => {
                // No dot before the first name.
                let first = self
                    .parent
                    .is_none_or(|parent| matches!(parent.step, Step::Root));
                f.write_str(if first { "" } else { "." })?;
                f.write_str(name)
            }
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// What is wrong in one place.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Problem<'a> {
    /// The type has no such field.
    UnknownField,
    /// The value is not of the type.
    Mismatch {
        /// The type.
        expected: Type<'a>,
        /// The value.
        found: &'a Value,
    },
    /// Null as the value of a map or the item of a list, where the decoder puts the zero value.
    NullItem,
    /// The string is not of the form: no base64, no time, no quantity.
    Malformed {
        /// What the decoder of Kubernetes says.
        why: &'a str,
    },
}

impl Problem<'_> {
    /// The message with which the decoder of Kubernetes refuses the value, such as
    /// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`; for an unknown
    /// field, `unknown field "spec.foo"`.
    #[must_use]
    pub fn decoder_message(&self, at: &At<'_>) -> String {
        match self {
            Self::UnknownField => format!("unknown field \"{at}\""),
            Self::NullItem => format!("null at \"{at}\""),
            Self::Malformed { why } => (*why).to_owned(),
            Self::Mismatch { expected, found } => {
                let found = match found {
                    // The decoder shows the number that does not fit.
                    Value::Number(n) if is_integer(*expected) => format!("number {n}"),
                    Value::Bool(_) => "bool".to_owned(),
                    other => kind_name(other).to_owned(),
                };
                let mut path = String::new();
                // Writing to a string does not fail.
                let _ = at.write_fields(&mut path);
                let into = if path.is_empty() {
                    "Go value".to_owned()
                } else {
                    let owner = at.owner.unwrap_or_default();
                    let owner = owner.rsplit('.').next().unwrap_or_default();
                    format!("Go struct field {owner}{path}")
                };
                format!(
                    "json: cannot unmarshal {found} into {into} of type {}",
                    expected.go_name()
                )
            }
        }
    }
}

fn is_integer(ty: Type<'_>) -> bool {
    matches!(ty.kind(), Kind::Scalar(scalar) if scalar.kind == ScalarKind::Integer)
}

impl fmt::Display for Problem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownField => f.write_str("unknown field"),
            Self::NullItem => f.write_str("null"),
            Self::Malformed { why } => f.write_str(why),
            Self::Mismatch { expected, found } => {
                let expected = match expected.kind() {
                    Kind::Struct(_) | Kind::Map(_) => "object",
                    Kind::List(_) => "array",
                    Kind::Scalar(scalar) => scalar.go_name(),
                    Kind::Any => "anything",
                };
                write!(f, "expected {expected}, found {}", kind_name(found))
            }
        }
    }
}

fn kind_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Reports every unknown field and every value that is not of its type. Null is absence; in maps and lists, where something stands for it,
/// that is reported, too.
pub fn check<'a>(
    ty: impl Into<Type<'a>>,
    value: &Value,
    report: &mut dyn FnMut(&At<'_>, Problem<'_>),
) {
    walk(ty.into(), value, &At::ROOT, report);
}

fn walk(ty: Type<'_>, value: &Value, at: &At<'_>, report: &mut dyn FnMut(&At<'_>, Problem<'_>)) {
    match (ty.kind(), value) {
        (Kind::Any, _) => {}
        (_, Value::Null) => {
            if matches!(at.step, Step::Key(_) | Step::Index(_)) {
                report(at, Problem::NullItem);
            }
        }
        (Kind::Struct(s), Value::Object(map)) => {
            for (key, value) in map {
                let at = at.down(Step::Field(key), s.name());
                match s.child(key) {
                    Some(child) => walk(child, value, &at, report),
                    None => report(&at, Problem::UnknownField),
                }
            }
        }
        (Kind::Map(m), Value::Object(map)) => {
            let item = m.value();
            if matches!(item.kind(), Kind::Any) {
                return;
            }
            for (key, value) in map {
                walk(item, value, &at.down(Step::Key(key), at.owner), report);
            }
        }
        (Kind::List(l), Value::Array(items)) => {
            let item = l.item();
            for (i, value) in items.iter().enumerate() {
                walk(item, value, &at.down(Step::Index(i), at.owner), report);
            }
        }
        (Kind::Scalar(scalar), value) if scalar.accepts(value) => {
            if let Value::String(text) = value {
                let form = match scalar.kind {
                    ScalarKind::Quantity => format::quantity(text),
                    _ => format::check(scalar.format, text),
                };
                if let Err(why) = form {
                    report(at, Problem::Malformed { why: &why });
                }
            }
        }
        (_, found) => report(
            at,
            Problem::Mismatch {
                expected: ty,
                found,
            },
        ),
    }
}

/// A value that the decoder of Kubernetes refuses, in its words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Mismatch {
    /// Where: `spec.containers[0].image`.
    pub path: String,
    /// What the decoder says.
    pub message: String,
}

/// The first value that is not of its type.
#[must_use]
pub fn first_mismatch<'a>(ty: impl Into<Type<'a>>, value: &Value) -> Option<Mismatch> {
    let mut first = None;
    check(ty, value, &mut |at, problem| {
        if first.is_none() && !matches!(problem, Problem::UnknownField | Problem::NullItem) {
            first = Some(Mismatch {
                path: at.to_string(),
                message: problem.decoder_message(at),
            });
        }
    });
    first
}

/// The unknown fields, as `metadata.foo`.
#[must_use]
pub fn unknown_fields<'a>(ty: impl Into<Type<'a>>, value: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    check(ty, value, &mut |at, problem| {
        if matches!(problem, Problem::UnknownField) {
            unknown.push(at.to_string());
        }
    });
    unknown
}

/// Makes a document what Kubernetes' decoder would make of it: removes the unknown fields and returns their paths. Where
/// there are none, nothing is allocated.
///
/// # Errors
/// The first value that is not of its type; the document is then untouched.
pub fn prune<'a>(ty: impl Into<Type<'a>>, value: &mut Value) -> Result<Vec<String>, Mismatch> {
    let ty = ty.into();
    let mut mismatch = None;
    let (mut has_unknown, mut has_null) = (false, false);
    check(ty, value, &mut |at, problem| match problem {
        Problem::UnknownField => has_unknown = true,
        Problem::NullItem => has_null = true,
        problem if mismatch.is_none() => {
            mismatch = Some(Mismatch {
                path: at.to_string(),
                message: problem.decoder_message(at),
            });
        }
        _ => {}
    });
    if let Some(mismatch) = mismatch {
        return Err(mismatch);
    }
    let mut removed = Vec::new();
    if has_unknown {
        prune_at(ty, value, &At::ROOT, &mut removed);
    }
    if has_null {
        fill_nulls(ty, value);
    }
    Ok(removed)
}

/// Puts zero values where maps and lists have null, as a decoder into typed maps and lists does. Lists and maps in them stay null: that is
/// their zero value.
fn fill_nulls(ty: Type<'_>, value: &mut Value) {
    fn item(ty: Type<'_>, value: &mut Value) {
        if value.is_null() {
            *value = match ty.kind() {
                Kind::Struct(_) => Value::Object(serde_json::Map::new()),
                Kind::Scalar(scalar) => match scalar.kind {
                    // A time that is null stays so.
                    ScalarKind::String if scalar.format == Format::DateTime => return,
                    ScalarKind::String => Value::String(String::new()),
                    ScalarKind::Boolean => Value::Bool(false),
                    ScalarKind::Quantity => Value::from("0"),
                    _ => Value::from(0),
                },
                _ => return,
            };
        }
        fill_nulls(ty, value);
    }
    match (ty.kind(), value) {
        (Kind::Struct(s), Value::Object(map)) => {
            for (key, value) in map {
                if let Some(child) = s.child(key) {
                    fill_nulls(child, value);
                }
            }
        }
        (Kind::Map(m), Value::Object(map)) => {
            map.values_mut().for_each(|value| item(m.value(), value));
        }
        (Kind::List(l), Value::Array(items)) => {
            items.iter_mut().for_each(|value| item(l.item(), value));
        }
        _ => {}
    }
}

/// Drops the fields of structs that are null, as a decoder into typed fields does: to it null is the same as nothing. Null times stay
/// (most are written as null when they are unset), and so do nulls in documents of no type, and in maps and lists.
pub fn drop_null_fields<'a>(ty: impl Into<Type<'a>>, value: &mut Value) {
    fn stays(ty: Type<'_>) -> bool {
        match ty.kind() {
            Kind::Struct(_) | Kind::Map(_) | Kind::List(_) => false,
            Kind::Scalar(scalar) => scalar.format == Format::DateTime,
            _ => true,
        }
    }
    let ty = ty.into();
    match (ty.kind(), value) {
        (Kind::Struct(s), Value::Object(map)) => {
            map.retain(|key, value| {
                !value.is_null() || s.field(key).is_none_or(|field| stays(field.ty()))
            });
            for (key, value) in map {
                if let Some(child) = s.child(key) {
                    drop_null_fields(child, value);
                }
            }
        }
        (Kind::Map(m), Value::Object(map)) => {
            map.values_mut()
                .for_each(|value| drop_null_fields(m.value(), value));
        }
        (Kind::List(l), Value::Array(items)) => {
            items
                .iter_mut()
                .for_each(|value| drop_null_fields(l.item(), value));
        }
        _ => {}
    }
}

fn prune_at(ty: Type<'_>, value: &mut Value, at: &At<'_>, removed: &mut Vec<String>) {
    match (ty.kind(), value) {
        (Kind::Struct(s), Value::Object(map)) => {
            if s.rest().is_none() {
                map.retain(|key, _| {
                    let known = s.field(key).is_some();
                    if !known {
                        removed.push(at.down(Step::Field(key), None).to_string());
                    }
                    known
                });
            }
            for (key, value) in map {
                if let Some(child) = s.child(key) {
                    prune_at(child, value, &at.down(Step::Field(key), None), removed);
                }
            }
        }
        (Kind::Map(m), Value::Object(map)) => {
            let item = m.value();
            if matches!(item.kind(), Kind::Struct(_) | Kind::Map(_) | Kind::List(_)) {
                for (key, value) in map {
                    prune_at(item, value, &at.down(Step::Key(key), None), removed);
                }
            }
        }
        (Kind::List(l), Value::Array(items)) => {
            let item = l.item();
            if matches!(item.kind(), Kind::Struct(_) | Kind::Map(_) | Kind::List(_)) {
                for (i, value) in items.iter_mut().enumerate() {
                    prune_at(item, value, &at.down(Step::Index(i), None), removed);
                }
            }
        }
        _ => {}
    }
}
