//! Strategic merge patch: Kubernetes' merge patch that knows the types.
//!
//! Lists with the patch strategy `merge` are merged item by item, by their merge key. A patch may carry directives:
//!
//! | directive | where | what it does |
//! |---|---|---|
//! | `$patch: replace` | in an object | the object is replaced by the rest of the patch |
//! | `$patch: delete` | in an object | the object is emptied; in an item of a merged list, the item goes |
//! | `$patch: replace` | in an item of a merged list | the list is replaced by the other items |
//! | `$retainKeys: […]` | in an object | keys that are not listed go |
//! | `$setElementOrder/<list>: […]` | beside a list | the order of the merged list |
//! | `$deleteFromPrimitiveList/<list>: […]` | beside a list of scalars | these values go |
//!
//! ```
//! use orlop_merge::{schema::Schema, strategic};
//! use serde_json::json;
//!
//! let document = json!({"Pod": {"type": "object", "properties": {"containers": {
//!     "type": "array", "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name",
//!     "items": {"type": "object", "properties": {"name": {"type": "string"}, "image": {"type": "string"}}},
//! }}}});
//! let schema = Schema::from_openapi(document.as_object().unwrap(), "Pod")?;
//! let pod = json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]});
//! let patched = strategic::apply(&schema, &pod, &json!({"containers": [{"name": "b", "image": "y"}]}))?;
//! assert_eq!(patched, json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod fresh;
mod list;
mod order;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::gofmt::{Go, type_name};
use crate::schema::{Kind, PatchStrategy, Type};
use crate::value::ByValue;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList";

/// Why a patch does not apply. The texts are Kubernetes'.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StrategicError {
    /// The document or the patch is no object.
    #[error("invalid JSON document")]
    NotAnObject,
    /// An item of a merged list lacks the field by which items are told apart.
    #[error("map: {map} does not contain declared merge key: {key}")]
    NoMergeKey {
        /// The item.
        map: String,
        /// The field.
        key: String,
    },
    /// A `$patch` that is none.
    #[error("unknown patch type: {directive} in map: {map}")]
    UnknownDirective {
        /// What it says.
        directive: String,
        /// Where.
        map: String,
    },
    /// `$patch: merge` in an item of a list.
    #[error("merging lists cannot yet be specified in the patch")]
    MergeDirectiveInList,
    /// A list of objects is to be merged and the schema names no merge key.
    #[error("cannot merge lists without merge key for type {0}")]
    ListWithoutMergeKey(&'static str),
    /// A list is to be merged that holds lists.
    #[error("lists of lists are not supported")]
    ListOfLists,
    /// The items of the lists are not of one type.
    #[error("list element types are not identical: {0}")]
    MixedElements(String),
    /// A value is of the wrong type.
    #[error("expected a {expected}, but received a {found}")]
    WrongType {
        /// The Go type that was expected.
        expected: &'static str,
        /// The Go type that was there.
        found: &'static str,
    },
    /// An element that must be an object is none.
    #[error("value for key {0} is not a map.")]
    ElementNotAMap(usize),
    /// `$retainKeys` is no list, or does not list what the patch sets.
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    /// `$setElementOrder` has a bad name or value.
    #[error("invalid patch format of setElementOrder list")]
    SetElementOrder,
    /// `$deleteFromPrimitiveList` has a bad name or value.
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    /// The patch and `$setElementOrder` disagree on the order.
    #[error("The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n")]
    Order {
        /// The patch.
        patch: String,
        /// The directive.
        order: String,
    },
    /// A field that the type does not have.
    #[error("unable to find api field in struct {struct_name} for the json field {field:?}")]
    UnknownField {
        /// The type.
        struct_name: String,
        /// The field.
        field: String,
    },
    /// An object where the type has a scalar or a list.
    #[error("merging an object in json but data type is not struct, instead is: {0}")]
    NotAStruct(String),
}

/// Applies a strategic merge patch to a document and returns the patched one.
///
/// # Errors
/// When the patch does not fit the type or a directive is wrong.
pub fn apply<'a>(
    ty: impl Into<Type<'a>>,
    document: &Value,
    patch: &Value,
) -> Result<Value, StrategicError> {
    let (Value::Object(original), Value::Object(patch)) = (document, patch) else {
        return Err(StrategicError::NotAnObject);
    };
    merge_map(ty.into(), original.clone(), patch.clone()).map(Value::Object)
}

/// What the schema says of a key.
struct Metadata<'a> {
    ty: Type<'a>,
    strategy: PatchStrategy,
    merge_key: Option<&'a str>,
}

fn metadata<'a>(ty: Type<'a>, key: &str) -> Result<Metadata<'a>, StrategicError> {
    let plain = |ty| Metadata {
        ty,
        strategy: PatchStrategy::default(),
        merge_key: None,
    };
    match ty.kind() {
        Kind::Struct(s) => match (s.field(key), s.rest()) {
            (Some(field), _) => Ok(Metadata {
                ty: field.ty(),
                strategy: field.patch_strategy(),
                merge_key: field.patch_merge_key(),
            }),
            (None, Some(rest)) => Ok(plain(rest)),
            (None, None) => Err(StrategicError::UnknownField {
                struct_name: s.short_name().to_owned(),
                field: key.to_owned(),
            }),
        },
        Kind::Map(map) => Ok(plain(map.value())),
        Kind::Any => Ok(plain(ty)),
        Kind::Scalar(_) | Kind::List(_) => Err(StrategicError::NotAStruct(ty.go_name())),
    }
}

type Object = Map<String, Value>;

fn merge_map(
    ty: Type<'_>,
    mut original: Object,
    mut patch: Object,
) -> Result<Object, StrategicError> {
    if patch.contains_key(PATCH) {
        return fresh::object(patch);
    }
    retain_keys(&mut original, &mut patch)?;
    order::set_element_order(ty, &mut original, &mut patch)?;
    for (key, change) in patch {
        let deleted_from = key
            .starts_with(DELETE_FROM_PRIMITIVE_LIST)
            .then(|| list_of(&key, DELETE_FROM_PRIMITIVE_LIST).ok_or(StrategicError::PrimitiveList))
            .transpose()?
            .map(str::to_owned);
        let deletes = deleted_from.is_some();
        let key = deleted_from.unwrap_or(key);
        if change.is_null() {
            original.remove(&key);
            continue;
        }
        let Some(existing) = original.get_mut(&key) else {
            if !deletes {
                original.insert(key, fresh::value(change)?);
            }
            continue;
        };
        match (existing, change) {
            (Value::Object(existing), Value::Object(change)) => {
                let field = metadata(ty, &key)?;
                *existing = if field.strategy.replace {
                    fresh::object(change)?
                } else {
                    merge_map(field.ty, std::mem::take(existing), change)?
                };
            }
            (Value::Array(existing), Value::Array(change)) => {
                let field = metadata(ty, &key)?;
                if deletes {
                    let deleted: BTreeSet<_> = change.iter().map(ByValue).collect();
                    existing.retain(|item| !deleted.contains(&ByValue(item)));
                } else if field.strategy.merge {
                    *existing =
                        list::merge(field.ty, field.merge_key, std::mem::take(existing), change)?;
                } else {
                    *existing = fresh::items(change)?;
                }
            }
            (_, _) if deletes => return Err(StrategicError::PrimitiveList),
            (existing, change) => *existing = fresh::value(change)?,
        }
    }
    Ok(original)
}

/// The list that a directive is about: `ports` of `$setElementOrder/ports`.
fn list_of<'k>(key: &'k str, directive: &str) -> Option<&'k str> {
    key.strip_prefix(directive)?.strip_prefix('/')
}

/// Obeys `$retainKeys`, which must list all that the patch sets.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), StrategicError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(keys) = keys else {
        return Err(StrategicError::RetainKeys);
    };
    let keys: BTreeSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let listed = |key: &str| keys.contains(key);
    let all_listed = patch.iter().all(|(key, value)| {
        value.is_null()
            || key.starts_with(DELETE_FROM_PRIMITIVE_LIST)
            || key.starts_with(SET_ELEMENT_ORDER)
            || listed(key)
    });
    if !all_listed {
        return Err(StrategicError::RetainKeys);
    }
    original.retain(|key, _| listed(key));
    Ok(())
}

fn no_merge_key(item: &Object, key: &str) -> StrategicError {
    StrategicError::NoMergeKey {
        map: Go::plain(&Value::Object(item.clone())).to_string(),
        key: key.to_owned(),
    }
}

fn wrong_type(expected: &'static str, found: &Value) -> StrategicError {
    StrategicError::WrongType {
        expected,
        found: type_name(found),
    }
}

fn unknown_directive(directive: &Value, map: &Object) -> StrategicError {
    StrategicError::UnknownDirective {
        directive: Go::plain(directive).to_string(),
        map: Go::plain(&Value::Object(map.clone())).to_string(),
    }
}
