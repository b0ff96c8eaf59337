//! Taking fields out of a value, or taking everything else out.

use serde_json::{Map, Value};

use super::{Keyed, Shape, associative, item_element};
use crate::apply::path::PathElement;
use crate::apply::set::FieldSet;
use crate::schema::{Kind, Type};

/// The value without the fields of `set`. Lists and maps that lose their last entry go too; objects that the schema
/// knows stay, empty.
#[must_use]
pub fn remove_items(ty: Type<'_>, value: &Value, set: &FieldSet) -> Value {
    remove(Some(ty), value, set).unwrap_or_else(|| Value::Object(Map::new()))
}

/// The part of the value that `set` names. `None` when there is none.
#[must_use]
pub fn extract_items(ty: Type<'_>, value: &Value, set: &FieldSet) -> Option<Value> {
    extract(Some(ty), value, set)
}

fn remove(ty: Option<Type<'_>>, value: &Value, set: &FieldSet) -> Option<Value> {
    let Some(shape) = ty.and_then(|ty| Shape::of(ty, value)) else {
        return Some(value.clone());
    };
    match (shape, value) {
        (Shape::List(list), Value::Array(items)) => {
            // Nothing below an atomic list has a name, so only all of it can be meant.
            let list = associative(list)?;
            let left: Vec<Value> = items
                .iter()
                .filter_map(|item| {
                    let Ok(element) = item_element(list, item) else {
                        return Some(item.clone());
                    };
                    if set.has(&element) {
                        return None;
                    }
                    match set.below(&element) {
                        Some(below) => remove(Some(list.item()), item, below),
                        None => Some(item.clone()),
                    }
                })
                .collect();
            (!left.is_empty()).then_some(Value::Array(left))
        }
        (Shape::Map(keyed), Value::Object(map)) => {
            if keyed.is_atomic() {
                return None;
            }
            let mut left = Map::new();
            for (key, value) in map {
                let element = PathElement::field(key.as_str());
                if set.has(&element) {
                    continue;
                }
                let value = match set.below(&element) {
                    Some(below) => remove(keyed.child(key), value, below),
                    None => Some(value.clone()),
                };
                if let Some(value) = value {
                    left.insert(key.clone(), value);
                }
            }
            // An empty struct can be a choice (`emptyDir: {}`), an empty map of known values is none.
            let is_choice = match keyed {
                Keyed::Map(map) => matches!(map.value().kind(), Kind::Any),
                Keyed::Struct(_) | Keyed::Any(_) => true,
            };
            (is_choice || !left.is_empty()).then_some(Value::Object(left))
        }
        _ => Some(value.clone()),
    }
}

fn extract(ty: Option<Type<'_>>, value: &Value, set: &FieldSet) -> Option<Value> {
    let Some(shape) = ty.and_then(|ty| Shape::of(ty, value)) else {
        return Some(value.clone());
    };
    match (shape, value) {
        (Shape::List(list), Value::Array(items)) => {
            let Some(list) = associative(list) else {
                return Some(value.clone());
            };
            let kept: Vec<Value> = items
                .iter()
                .filter_map(|item| {
                    let element = item_element(list, item).ok()?;
                    match set.below(&element) {
                        Some(below) => extract(Some(list.item()), item, below)
                            .map(|kept| with_keys(list.kind(), item, kept)),
                        None => set.has(&element).then(|| item.clone()),
                    }
                })
                .collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        (Shape::Map(keyed), Value::Object(map)) => {
            if keyed.is_atomic() {
                return Some(value.clone());
            }
            let mut kept = Map::new();
            for (key, value) in map {
                let element = PathElement::field(key.as_str());
                let value = match set.below(&element) {
                    Some(below) => extract(keyed.child(key), value, below),
                    None => set.has(&element).then(|| {
                        match keyed.child(key).map(Type::kind) {
                            // Owning a container says nothing of what is in it.
                            Some(Kind::Struct(s)) if !s.is_atomic() => Value::Object(Map::new()),
                            Some(Kind::Map(m)) if !m.is_atomic() => Value::Object(Map::new()),
                            _ => value.clone(),
                        }
                    }),
                };
                if let Some(value) = value {
                    kept.insert(key.clone(), value);
                }
            }
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        _ => Some(value.clone()),
    }
}

/// An item that keeps something keeps its keys, without which it is nobody.
fn with_keys(kind: crate::schema::ListKind<'_>, item: &Value, mut kept: Value) -> Value {
    if let (crate::schema::ListKind::Map(keys), Value::Object(kept)) = (kind, &mut kept) {
        for key in keys {
            if let Some(value) = item.get(&**key) {
                kept.entry(key.to_string()).or_insert_with(|| value.clone());
            }
        }
    }
    kept
}
