//! Values under a schema: what server-side apply does with them.
//!
//! Nulls are values here, as upstream has them: applying a null is an opinion on the field.

mod compare;
mod fields;
mod merge;
mod remove;
mod validate;

pub use compare::{Absence, Comparison, compare};
pub use fields::to_field_set;
pub use merge::merge;
pub use remove::{extract_items, remove_items};
pub use validate::{Duplicates, validate};

use std::fmt;

use serde_json::Value;

use super::path::PathElement;
use crate::schema::{Kind, ListKind, ListType, MapType, Type};

/// One thing that is wrong with a value under its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeError {
    /// Where, printed as Kubernetes prints it: `.spec.ports[port=80]`.
    pub path: String,
    /// What.
    pub message: String,
}

/// All that is wrong with a value under its schema. Never empty where it is an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TypeErrors(pub Vec<TypeError>);

impl TypeErrors {
    fn push(&mut self, path: &[PathElement], message: impl Into<String>) {
        self.0.push(TypeError {
            path: path.iter().map(ToString::to_string).collect(),
            message: message.into(),
        });
    }

    fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }
}

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

impl fmt::Display for TypeErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return only.fmt(f);
        }
        f.write_str("errors:")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for TypeErrors {}

/// How a value is walked: what the schema says, or for untyped values what the value is.
#[derive(Clone, Copy)]
enum Shape<'a> {
    Scalar,
    List(Option<ListType<'a>>),
    Map(Keyed<'a>),
}

/// Something with keys.
#[derive(Clone, Copy)]
enum Keyed<'a> {
    Struct(crate::schema::StructType<'a>),
    Map(MapType<'a>),
    Any(Type<'a>),
}

impl<'a> Keyed<'a> {
    fn is_atomic(self) -> bool {
        match self {
            Self::Struct(s) => s.is_atomic(),
            Self::Map(m) => m.is_atomic(),
            Self::Any(_) => false,
        }
    }

    fn child(self, key: &str) -> Option<Type<'a>> {
        match self {
            Self::Struct(s) => s.child(key),
            Self::Map(m) => Some(m.value()),
            Self::Any(any) => Some(any),
        }
    }

    /// Whether the key is a declared field, as opposed to a key of a map.
    fn declares(self, key: &str) -> bool {
        matches!(self, Self::Struct(s) if s.field(key).is_some())
    }
}

impl<'a> Shape<'a> {
    /// The shape of a value; `None` when the schema does not say and the value is null.
    fn of(ty: Type<'a>, value: &Value) -> Option<Self> {
        Some(match ty.kind() {
            Kind::Scalar(_) => Self::Scalar,
            Kind::List(list) => Self::List(Some(list)),
            Kind::Struct(s) => Self::Map(Keyed::Struct(s)),
            Kind::Map(m) => Self::Map(Keyed::Map(m)),
            Kind::Any => match value {
                Value::Null => return None,
                Value::Array(_) => Self::List(None),
                Value::Object(_) => Self::Map(Keyed::Any(ty)),
                _ => Self::Scalar,
            },
        })
    }

    fn same_kind(self, other: Self) -> bool {
        matches!(
            (self, other),
            (Self::Scalar, Self::Scalar)
                | (Self::List(_), Self::List(_))
                | (Self::Map(_), Self::Map(_))
        )
    }
}

/// The list, when its items are told apart; atomic lists and lists of which nothing is known are not.
fn associative(list: Option<ListType<'_>>) -> Option<ListType<'_>> {
    list.filter(|list| list.kind() != ListKind::Atomic)
}

/// What tells an item of a set or a keyed list apart.
fn item_element(list: ListType<'_>, item: &Value) -> Result<PathElement, String> {
    match list.kind() {
        ListKind::Atomic => Err("invalid indexing of non-associative list".to_owned()),
        ListKind::Set => match item {
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            Value::Array(_) => {
                Err("not supported: associative list with lists as elements".to_owned())
            }
            Value::Null => Err(
                "associative list without keys has an element that's an explicit null".to_owned(),
            ),
            scalar => Ok(PathElement::Value(scalar.clone())),
        },
        ListKind::Map(keys) => {
            let item = match item {
                Value::Object(item) => item,
                Value::Null => {
                    return Err("associative list with keys may not have a null element".to_owned());
                }
                _ => {
                    return Err(
                        "associative list with keys may not have non-map elements".to_owned()
                    );
                }
            };
            let mut found = Vec::with_capacity(keys.len());
            for key in keys {
                match item.get(&**key).or_else(|| list.key_default(key)) {
                    Some(value) => found.push((key.clone(), value.clone())),
                    None => {
                        return Err(format!(
                            "associative list with keys has an element that omits key field {key:?} (and doesn't have default value)"
                        ));
                    }
                }
            }
            found.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(PathElement::Key(found.into()))
        }
    }
}

fn as_list(value: Option<&Value>) -> Option<&[Value]> {
    value.and_then(Value::as_array).map(Vec::as_slice)
}

fn as_map(value: Option<&Value>) -> Option<&serde_json::Map<String, Value>> {
    value.and_then(Value::as_object)
}
