//! Values of a patch that meet nothing in the document.
//!
//! They are taken as they are, with their directives carried out on nothing: nulls and directives must not reach the
//! document.

use serde_json::Value;

use super::{
    DELETE_FROM_PRIMITIVE_LIST, Object, PATCH, RETAIN_KEYS, SET_ELEMENT_ORDER, StrategicError,
    unknown_directive,
};

pub(super) fn value(value: Value) -> Result<Value, StrategicError> {
    match value {
        Value::Object(map) => object(map).map(Value::Object),
        Value::Array(list) => items(list).map(Value::Array),
        scalar => Ok(scalar),
    }
}

/// The object that a patch makes of none.
pub(super) fn object(mut patch: Object) -> Result<Object, StrategicError> {
    if let Some(directive) = patch.remove(PATCH) {
        match directive.as_str() {
            Some("replace") => {}
            Some("delete") => return Ok(Object::new()),
            _ => {
                patch.insert(PATCH.to_owned(), directive.clone());
                return Err(unknown_directive(&directive, &patch));
            }
        }
    }
    patch
        .into_iter()
        .filter(|(key, value)| {
            !value.is_null()
                && key != RETAIN_KEYS
                && !key.starts_with(SET_ELEMENT_ORDER)
                && !key.starts_with(DELETE_FROM_PRIMITIVE_LIST)
        })
        .map(|(key, change)| Ok((key, value(change)?)))
        .collect()
}

/// The list that a patch makes of none: items that only carry a directive are none.
pub(super) fn items(patch: Vec<Value>) -> Result<Vec<Value>, StrategicError> {
    let mut list = Vec::with_capacity(patch.len());
    for item in patch {
        match item {
            Value::Object(mut item) => match item.remove(PATCH) {
                None => list.push(Value::Object(object(item)?)),
                Some(Value::String(directive)) if directive == "delete" => {}
                Some(Value::String(directive)) if directive == "replace" => {}
                Some(directive) => {
                    item.insert(PATCH.to_owned(), directive.clone());
                    return Err(unknown_directive(&directive, &item));
                }
            },
            item => list.push(value(item)?),
        }
    }
    Ok(list)
}
