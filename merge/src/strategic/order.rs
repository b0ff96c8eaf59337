//! The order of merged lists.

use serde_json::Value;

use super::list::{self, Elements, elements, places};
use super::{
    Object, PATCH, SET_ELEMENT_ORDER, StrategicError, fresh, list_of, metadata, no_merge_key,
    wrong_type,
};
use crate::gofmt::Go;
use crate::schema::Type;
use crate::value::ByValue;

const LIST: &str = "[]interface {}";
const MAP: &str = "map[string]interface {}";

/// Merges the lists that have a `$setElementOrder` beside them, and takes both out of the patch.
pub(super) fn set_element_order(
    ty: Type<'_>,
    original: &mut Object,
    patch: &mut Object,
) -> Result<(), StrategicError> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(SET_ELEMENT_ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let Some(order) = patch.remove(&directive) else {
            continue;
        };
        let Value::Array(order) = order else {
            return Err(wrong_type(LIST, &order));
        };
        let name = list_of(&directive, SET_ELEMENT_ORDER).ok_or(StrategicError::SetElementOrder)?;
        if patch.get(name).is_some_and(Value::is_null) {
            // The list goes; there is nothing to order.
            continue;
        }
        let field = metadata(ty, name)?;
        let change = match patch.remove(name) {
            None => None,
            Some(Value::Array(items)) => Some(items),
            Some(other) => return Err(wrong_type(LIST, &other)),
        };
        let existing = match original.get_mut(name) {
            None => None,
            Some(Value::Array(items)) => Some(std::mem::take(items)),
            Some(other) => return Err(wrong_type(LIST, other)),
        };
        check(
            change.as_deref().unwrap_or_default(),
            &order,
            field.merge_key,
        )?;
        let server_order = existing.clone().unwrap_or_default();
        let merged = match (existing, change) {
            (None, None) => continue,
            (Some(existing), None) => existing,
            (None, Some(change)) => fresh::items(change)?,
            (Some(existing), Some(change)) if field.strategy.merge => {
                list::merge(field.ty, field.merge_key, existing, change)?
            }
            (Some(_), Some(change)) => fresh::items(change)?,
        };
        // A scalar list has no merge key, whatever the schema says.
        let key = match elements([&merged, &[]])? {
            Some(Elements::Objects) => field.merge_key,
            _ => None,
        };
        let arranged = arrange(merged, &order, &server_order, key)?;
        original.insert(name.to_owned(), Value::Array(arranged));
    }
    Ok(())
}

/// The items of a patch must stand in the order that `$setElementOrder` gives, and all be in it.
fn check(patch: &[Value], order: &[Value], merge_key: Option<&str>) -> Result<(), StrategicError> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut left = order.iter();
    for item in patch {
        if merge_key.is_some() && !item.is_object() {
            return Err(wrong_type(MAP, item));
        }
        if item.get(PATCH).is_some() {
            continue;
        }
        let mut found = false;
        for candidate in left.by_ref() {
            if same(item, candidate, merge_key)? {
                found = true;
                break;
            }
        }
        if !found {
            let print = |list: &[Value]| Go::plain(&Value::Array(list.to_vec())).to_string();
            return Err(StrategicError::Order {
                patch: print(patch),
                order: print(order),
            });
        }
    }
    Ok(())
}

fn same(a: &Value, b: &Value, merge_key: Option<&str>) -> Result<bool, StrategicError> {
    let Some(key) = merge_key else {
        return Ok(a == b);
    };
    let value = |item: &Value| match item {
        Value::Object(map) => map.get(key).cloned().ok_or_else(|| no_merge_key(map, key)),
        other => Err(wrong_type(MAP, other)),
    };
    Ok(value(a)? == value(b)?)
}

/// Orders a merged list: what `order` names in that order, the rest in the order of `server_order`, and the two lists
/// zipped so that an item of the rest stays before an item of the first where it was before it on the server.
pub(super) fn arrange(
    merged: Vec<Value>,
    order: &[Value],
    server_order: &[Value],
    merge_key: Option<&str>,
) -> Result<Vec<Value>, StrategicError> {
    let in_order = places(order, merge_key)?;
    let in_server_order = places(server_order, merge_key)?;
    let mut named = Vec::new();
    let mut rest = Vec::new();
    for item in merged {
        let value = ByValue(match (merge_key, &item) {
            (None, item) => item,
            (Some(key), Value::Object(map)) => {
                map.get(key).ok_or_else(|| no_merge_key(map, key))?
            }
            (Some(_), other) => return Err(wrong_type(MAP, other)),
        });
        let on_server = in_server_order.get(&value).copied();
        match in_order.get(&value).copied() {
            Some(at) => named.push((at, on_server, item)),
            None => rest.push((on_server, item)),
        }
    }
    named.sort_by_key(|(at, _, _)| *at);
    rest.sort_by_key(|(on_server, _)| on_server.unwrap_or(usize::MAX));

    let mut arranged = Vec::with_capacity(named.len() + rest.len());
    let mut rest = rest.into_iter().peekable();
    for (_, on_server, item) in named {
        while let Some((was, _)) = rest.peek() {
            let before = matches!((was, on_server), (Some(was), Some(here)) if *was < here);
            if !before {
                break;
            }
            arranged.extend(rest.next().map(|(_, item)| item));
        }
        arranged.push(item);
    }
    arranged.extend(rest.map(|(_, item)| item));
    Ok(arranged)
}
