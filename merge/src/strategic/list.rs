//! Merging lists item by item.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{PATCH, StrategicError, fresh, merge_map, no_merge_key, order, unknown_directive};
use crate::gofmt::Go;
use crate::schema::{Kind, Type};
use crate::value::ByValue;

/// What all items of some lists are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Elements {
    Objects,
    Scalars,
}

/// The type of all elements; `None` when there are none.
pub(super) fn elements(lists: [&[Value]; 2]) -> Result<Option<Elements>, StrategicError> {
    let mut all = lists.into_iter().flatten();
    let Some(first) = all.next() else {
        return Ok(None);
    };
    if first.is_array() {
        return Err(StrategicError::ListOfLists);
    }
    let kind = std::mem::discriminant(first);
    if all.any(|item| std::mem::discriminant(item) != kind) {
        let lists = lists.map(|list| Value::Array(list.to_vec()));
        let lists = Value::Array(lists.into());
        return Err(StrategicError::MixedElements(Go::plain(&lists).to_string()));
    }
    Ok(Some(if first.is_object() {
        Elements::Objects
    } else {
        Elements::Scalars
    }))
}

/// Merges two lists, and orders the result: items of the patch in the order of the patch, the others in their own; where
/// the old list does not say how the two lie to each other, items of the patch come first.
pub(super) fn merge(
    ty: Type<'_>,
    merge_key: Option<&str>,
    original: Vec<Value>,
    patch: Vec<Value>,
) -> Result<Vec<Value>, StrategicError> {
    match elements([&original, &patch])? {
        None => Ok(original),
        Some(Elements::Scalars) => {
            let mut seen = BTreeSet::new();
            let merged = original
                .iter()
                .chain(&patch)
                .filter(|item| seen.insert(ByValue(*item)))
                .cloned()
                .collect();
            order::arrange(merged, &patch, &original, None)
        }
        Some(Elements::Objects) => {
            let item_type = match ty.kind() {
                Kind::List(list) => list.item(),
                _ => ty,
            };
            let Some(key) = merge_key else {
                return Err(StrategicError::ListWithoutMergeKey(
                    match item_type.kind() {
                        Kind::Struct(_) => "struct",
                        Kind::Map(_) => "map",
                        _ => "interface",
                    },
                ));
            };
            let (original, patch) = special_items(original, patch, key)?;
            let merged = merge_items(item_type, original.clone(), &patch, key)?;
            order::arrange(merged, &patch, &original, Some(key))
        }
    }
}

/// Carries out the items of the patch that are directives. What is left of both lists.
fn special_items(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), StrategicError> {
    let mut deleted = Vec::new();
    let mut rest = Vec::with_capacity(patch.len());
    let mut replaces = false;
    for item in patch {
        let Some((map, directive)) = item
            .as_object()
            .and_then(|map| Some((map, map.get(PATCH)?)))
        else {
            rest.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let value = map.get(key).ok_or_else(|| no_merge_key(map, key))?;
                deleted.push(value.clone());
            }
            Some("replace") => replaces = true,
            Some("merge") => return Err(StrategicError::MergeDirectiveInList),
            _ => return Err(unknown_directive(directive, map)),
        }
    }
    if replaces {
        return Ok((fresh::items(rest)?, Vec::new()));
    }
    if !deleted.is_empty() {
        let deleted: BTreeSet<_> = deleted.iter().map(ByValue).collect();
        original.retain(|item| {
            item.get(key)
                .is_none_or(|value| !deleted.contains(&ByValue(value)))
        });
    }
    Ok((original, rest))
}

fn merge_items(
    item_type: Type<'_>,
    mut original: Vec<Value>,
    patch: &[Value],
    key: &str,
) -> Result<Vec<Value>, StrategicError> {
    // Keys of items that the patch adds count too: its next item may be about the same.
    let mut places: BTreeMap<ByValue<Value>, usize> = BTreeMap::new();
    for (at, item) in original.iter().enumerate() {
        if let Some(value) = item.get(key) {
            places.entry(ByValue(value.clone())).or_insert(at);
        }
    }
    for item in patch {
        let Value::Object(change) = item else {
            continue;
        };
        let value = change.get(key).ok_or_else(|| no_merge_key(change, key))?;
        match places.entry(ByValue(value.clone())) {
            Entry::Occupied(at) => {
                if let Value::Object(existing) = &mut original[*at.get()] {
                    let merged = merge_map(item_type, std::mem::take(existing), change.clone())?;
                    *existing = merged;
                }
            }
            Entry::Vacant(place) => {
                place.insert(original.len());
                original.push(Value::Object(fresh::object(change.clone())?));
            }
        }
    }
    Ok(original)
}

/// The places of the items of a list, by their key or, for scalars, by themselves. The first of several counts.
pub(super) fn places<'v>(
    items: &'v [Value],
    merge_key: Option<&str>,
) -> Result<BTreeMap<ByValue<&'v Value>, usize>, StrategicError> {
    let mut places = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        let value = match merge_key {
            None => Some(item),
            Some(key) => item
                .as_object()
                .ok_or(StrategicError::ElementNotAMap(at))?
                .get(key),
        };
        if let Some(value) = value {
            places.entry(ByValue(value)).or_insert(at);
        }
    }
    Ok(places)
}
