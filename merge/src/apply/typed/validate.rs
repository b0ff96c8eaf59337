//! Whether a value is of its type, in the words of server-side apply.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Keyed, Shape, TypeErrors, item_element};
use crate::apply::path::PathElement;
use crate::gofmt::Go;
use crate::schema::{Kind, ListKind, ScalarKind, Type};

/// Whether two items of a keyed list or a set may be the same. They may not be applied, but an object that has them
/// already must not become unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplicates {
    /// They are an error.
    Forbidden,
    /// They are let through.
    Allowed,
}

/// Checks a value against its schema.
///
/// # Errors
/// Everything that is wrong with it.
pub fn validate(ty: Type<'_>, value: &Value, duplicates: Duplicates) -> Result<(), TypeErrors> {
    let mut walker = Walker {
        at: Vec::new(),
        errors: TypeErrors::default(),
        duplicates,
    };
    walker.walk(ty, value);
    walker.errors.into_result(())
}

struct Walker {
    at: Vec<PathElement>,
    errors: TypeErrors,
    duplicates: Duplicates,
}

impl Walker {
    fn walk(&mut self, ty: Type<'_>, value: &Value) {
        if value.is_null() {
            return;
        }
        if let Kind::Scalar(scalar) = ty.kind() {
            self.scalar(scalar.kind, value);
            return;
        }
        match (Shape::of(ty, value), value) {
            (Some(Shape::List(list)), Value::Array(items)) => {
                let mut seen = BTreeSet::new();
                for (i, item) in items.iter().enumerate() {
                    let element = match list {
                        Some(list) if list.kind() != ListKind::Atomic => {
                            match item_element(list, item) {
                                Ok(element) => element,
                                Err(why) => {
                                    self.errors.push(&self.at, format!("element {i}: {why}"));
                                    return;
                                }
                            }
                        }
                        _ => PathElement::Index(i64::try_from(i).unwrap_or(i64::MAX)),
                    };
                    if self.duplicates == Duplicates::Forbidden && !seen.insert(element.clone()) {
                        self.errors
                            .push(&self.at, format!("duplicate entries for key {element}"));
                    }
                    let Some(list) = list else { continue };
                    self.at.push(element);
                    self.walk(list.item(), item);
                    self.at.pop();
                }
            }
            (Some(Shape::List(_)), other) => self.errors.push(
                &self.at,
                format!("expected list, got {}", Go::interface(other)),
            ),
            (Some(Shape::Map(keyed)), Value::Object(map)) => {
                if matches!(keyed, Keyed::Any(_)) {
                    return;
                }
                for (key, value) in map {
                    self.at.push(PathElement::field(key.as_str()));
                    match keyed.child(key) {
                        Some(child) => self.walk(child, value),
                        None => self.errors.push(&self.at, "field not declared in schema"),
                    }
                    self.at.pop();
                }
            }
            (Some(Shape::Map(_)), other) => self.errors.push(
                &self.at,
                format!("expected map, got {}", Go::interface(other)),
            ),
            (Some(Shape::Scalar) | None, _) => {}
        }
    }

    fn scalar(&mut self, kind: ScalarKind, value: &Value) {
        let ok = match kind {
            ScalarKind::String => value.is_string(),
            ScalarKind::Integer | ScalarKind::Number => value.is_number(),
            ScalarKind::Boolean => value.is_boolean(),
            ScalarKind::IntOrString | ScalarKind::Quantity => {
                !(value.is_object() || value.is_array())
            }
        };
        if ok {
            return;
        }
        let message = match kind {
            ScalarKind::String => format!("expected string, got {}", Go::interface(value)),
            ScalarKind::Integer | ScalarKind::Number => format!(
                "expected numeric (int or float), got {}",
                crate::gofmt::type_name(value)
            ),
            ScalarKind::Boolean => format!("expected boolean, got {}", Go::interface(value)),
            ScalarKind::IntOrString | ScalarKind::Quantity => {
                format!("expected scalar, got {}", Go::interface(value))
            }
        };
        self.errors.push(&self.at, message);
    }
}
