//! What changed between two values.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Keyed, Shape, TypeErrors, as_list, as_map, associative, item_element};
use crate::apply::path::PathElement;
use crate::apply::set::FieldSet;
use crate::schema::{Field, ListType, Type};
use crate::value::values_equal;

/// The fields in which two values differ. No path is in two of the sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Fields only the second value has.
    pub added: FieldSet,
    /// Fields of both, with different values.
    pub modified: FieldSet,
    /// Fields only the first value has.
    pub removed: FieldSet,
}

impl Comparison {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// The comparison without these fields and all below them.
    #[must_use]
    pub fn without(self, ignored: &FieldSet) -> Self {
        if ignored.is_empty() {
            return self;
        }
        Self {
            added: self.added.recursive_difference(ignored),
            modified: self.modified.recursive_difference(ignored),
            removed: self.removed.recursive_difference(ignored),
        }
    }
}

/// What a declared field is taken for that an object does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Absence {
    /// For what it is: absent. So it is with custom resources.
    Absent,
    /// For its zero value, if it is one of the fields that Kubernetes' own servers always hold
    /// ([`Field::zero`](crate::schema::Field::zero)). There, a new object comes with an empty `spec`, and who fills it in owns what he
    /// fills in, and not that there is a `spec`.
    #[default]
    Zero,
}

/// Compares two values under a schema.
///
/// # Errors
/// When an item of a keyed list lacks a key.
pub fn compare(
    ty: Type<'_>,
    old: &Value,
    new: &Value,
    absence: Absence,
) -> Result<Comparison, TypeErrors> {
    let mut walker = Walker {
        absence,
        found: Comparison::default(),
        at: Vec::new(),
        errors: TypeErrors::default(),
    };
    walker.compare(Some(ty), Some(old), Some(new));
    let Walker { found, errors, .. } = walker;
    errors.into_result(found)
}

struct Walker {
    absence: Absence,
    found: Comparison,
    at: Vec<PathElement>,
    errors: TypeErrors,
}

impl Walker {
    /// Exactly one of the two may be absent.
    fn compare(&mut self, ty: Option<Type<'_>>, old: Option<&Value>, new: Option<&Value>) {
        if let (Some(old), Some(new)) = (old, new)
            && old == new
        {
            return;
        }
        let shape = |value: Option<&Value>| value.and_then(|v| Shape::of(ty?, v));
        let (was, is) = (shape(old), shape(new));
        let leaf = match (was, is) {
            (None, None) => {
                self.leaf(old, new);
                true
            }
            (Some(was), Some(is)) if !was.same_kind(is) => {
                // Untyped JSON that changed its kind: what it was is gone, what it is now has come.
                let first = self.walk(was, old, new);
                let second = self.walk(is, old, new);
                first || second
            }
            (_, Some(shape)) | (Some(shape), None) => self.walk(shape, old, new),
        };
        if !leaf {
            if old.is_none() {
                self.found.added.insert(&self.at);
            } else if new.is_none() {
                self.found.removed.insert(&self.at);
            }
        }
    }

    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, _) => self.found.added.insert(&self.at),
            (_, None) => self.found.removed.insert(&self.at),
            (Some(old), Some(new)) => {
                if !values_equal(old, new) {
                    self.found.modified.insert(&self.at);
                }
            }
        }
    }

    /// Compares in one shape; whether it was a leaf.
    fn walk(&mut self, shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>) -> bool {
        match shape {
            Shape::Scalar => {
                self.leaf(old, new);
                true
            }
            Shape::List(list) => {
                let (was, is) = (as_list(old), as_list(new));
                // Two empty lists are a leaf: that keeps empty and null apart.
                let empty = was.is_none_or(<[_]>::is_empty) && is.is_none_or(<[_]>::is_empty);
                match associative(list) {
                    Some(list) if !empty => {
                        self.items(list, was.unwrap_or_default(), is.unwrap_or_default());
                        false
                    }
                    _ => {
                        self.leaf(old, new);
                        true
                    }
                }
            }
            Shape::Map(keyed) => {
                let (was, is) = (as_map(old), as_map(new));
                let empty = was.is_none_or(serde_json::Map::is_empty)
                    && is.is_none_or(serde_json::Map::is_empty);
                if keyed.is_atomic() || empty {
                    self.leaf(old, new);
                    return true;
                }
                self.keys(keyed, was, is);
                false
            }
        }
    }

    /// The keys of one or both objects.
    fn keys(
        &mut self,
        keyed: Keyed<'_>,
        was: Option<&serde_json::Map<String, Value>>,
        is: Option<&serde_json::Map<String, Value>>,
    ) {
        // Only an object that is there has zero values in it.
        let zeroed = self.absence == Absence::Zero;
        let zero_of = |key: &str, other: Option<&serde_json::Map<String, Value>>| match keyed {
            Keyed::Struct(s) if zeroed && other.is_some() => s.field(key).and_then(Field::zero),
            _ => None,
        };
        let both = was.into_iter().flatten().map(|(key, old)| {
            let new = is.and_then(|is| is.get(key)).or_else(|| zero_of(key, is));
            (key, Some(old), new)
        });
        let rest = is
            .into_iter()
            .flatten()
            .filter(|(key, _)| was.is_none_or(|was| !was.contains_key(*key)))
            .map(|(key, new)| (key, zero_of(key, was), Some(new)));
        for (key, old, new) in both.chain(rest) {
            if old == new {
                continue;
            }
            self.at.push(PathElement::field(key.as_str()));
            self.compare(keyed.child(key), old, new);
            self.at.pop();
        }
    }

    fn index<'v>(
        &mut self,
        list: ListType<'_>,
        items: &'v [Value],
    ) -> BTreeMap<PathElement, Vec<&'v Value>> {
        let mut by_element: BTreeMap<PathElement, Vec<&Value>> = BTreeMap::new();
        for (i, item) in items.iter().enumerate() {
            match item_element(list, item) {
                Ok(element) => by_element.entry(element).or_default().push(item),
                Err(why) => self.errors.push(&self.at, format!("element {i}: {why}")),
            }
        }
        by_element
    }

    fn items(&mut self, list: ListType<'_>, was: &[Value], is: &[Value]) {
        let was = self.index(list, was);
        let is = self.index(list, is);
        let item = Some(list.item());
        let elements: BTreeSet<&PathElement> = was.keys().chain(is.keys()).collect();
        for element in elements {
            let old = was.get(element).map(Vec::as_slice).unwrap_or_default();
            let new = is.get(element).map(Vec::as_slice).unwrap_or_default();
            self.at.push(element.clone());
            match (old, new) {
                ([_, _, ..], [_, _, ..]) => {
                    // Items that share a key are compared as one value.
                    let same = old.len() == new.len()
                        && old.iter().zip(new).all(|(old, new)| values_equal(old, new));
                    if !same {
                        self.found.modified.insert(&self.at);
                    }
                }
                ([_, _, ..], new) => {
                    if let Some(new) = new.first() {
                        self.compare(item, None, Some(new));
                    }
                    self.found.removed.insert(&self.at);
                }
                (old, [_, _, ..]) => {
                    if let Some(old) = old.first() {
                        self.compare(item, Some(old), None);
                    }
                    self.found.added.insert(&self.at);
                }
                (old, new) => self.compare(item, old.first().copied(), new.first().copied()),
            }
            self.at.pop();
        }
    }
}
