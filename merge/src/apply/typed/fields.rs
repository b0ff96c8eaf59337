//! The set of fields that a value has an opinion on.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Shape, TypeErrors, associative, item_element};
use crate::apply::path::PathElement;
use crate::apply::set::FieldSet;
use crate::schema::Type;

/// The fields of a value: its scalars, its atomic values, the items of its lists and the keys of its maps. Structs
/// themselves are not members unless they are empty.
///
/// # Errors
/// When an item of a keyed list lacks a key.
pub fn to_field_set(ty: Type<'_>, value: &Value) -> Result<FieldSet, TypeErrors> {
    let mut walker = Walker {
        set: FieldSet::new(),
        at: Vec::new(),
        errors: TypeErrors::default(),
    };
    walker.walk(Some(ty), value);
    let Walker { set, errors, .. } = walker;
    errors.into_result(set)
}

struct Walker {
    set: FieldSet,
    at: Vec<PathElement>,
    errors: TypeErrors,
}

impl Walker {
    fn walk(&mut self, ty: Option<Type<'_>>, value: &Value) {
        let Some(shape) = ty.and_then(|ty| Shape::of(ty, value)) else {
            self.set.insert(&self.at);
            return;
        };
        match shape {
            Shape::Scalar => self.set.insert(&self.at),
            Shape::List(list) => {
                let Some(list) = associative(list) else {
                    self.set.insert(&self.at);
                    return;
                };
                let Value::Array(items) = value else { return };
                let mut elements = Vec::with_capacity(items.len());
                for (i, item) in items.iter().enumerate() {
                    match item_element(list, item) {
                        Ok(element) => elements.push((element, item)),
                        Err(why) => self.errors.push(&self.at, format!("element {i}: {why}")),
                    }
                }
                let mut seen = BTreeSet::new();
                let repeated: BTreeSet<PathElement> = elements
                    .iter()
                    .filter(|(element, _)| !seen.insert(element))
                    .map(|(element, _)| element.clone())
                    .collect();
                for (element, item) in elements {
                    // Items that share a key are owned as one: what is inside cannot be told apart.
                    let is_repeated = repeated.contains(&element);
                    self.at.push(element);
                    if !is_repeated {
                        self.walk(Some(list.item()), item);
                    }
                    self.set.insert(&self.at);
                    self.at.pop();
                }
            }
            Shape::Map(keyed) => {
                if keyed.is_atomic() {
                    self.set.insert(&self.at);
                    return;
                }
                let Value::Object(map) = value else { return };
                for (key, value) in map {
                    self.at.push(PathElement::field(key.as_str()));
                    self.walk(keyed.child(key), value);
                    let empty = match value {
                        Value::Null => true,
                        Value::Object(map) => map.is_empty(),
                        _ => false,
                    };
                    if empty || !keyed.declares(key) {
                        self.set.insert(&self.at);
                    }
                    self.at.pop();
                }
            }
        }
    }
}
