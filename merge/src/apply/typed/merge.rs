//! Merging an applied configuration into a live object.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::{Keyed, Shape, TypeErrors, as_list, as_map, associative, item_element};
use crate::apply::path::PathElement;
use crate::schema::{ListType, Type};

/// Merges `applied` into `live`: what is applied wins, what it does not mention stays. Items of keyed lists and sets
/// keep the order of `applied` where it says one, and the live order around it.
///
/// # Errors
/// When an item of a keyed list lacks a key, or two applied items share one.
pub fn merge(ty: Type<'_>, live: &Value, applied: &Value) -> Result<Value, TypeErrors> {
    let mut walker = Walker {
        at: Vec::new(),
        errors: TypeErrors::default(),
    };
    let merged = walker.merge(Some(ty), Some(live), Some(applied));
    walker
        .errors
        .into_result(merged.unwrap_or_else(|| Value::Object(Map::new())))
}

struct Walker {
    at: Vec<PathElement>,
    errors: TypeErrors,
}

/// The applied value, else the live one.
fn keep(live: Option<&Value>, applied: Option<&Value>) -> Option<Value> {
    applied.or(live).cloned()
}

impl Walker {
    /// One of the two is there. `None` where a list or map comes out with nothing in it.
    fn merge(
        &mut self,
        ty: Option<Type<'_>>,
        live: Option<&Value>,
        applied: Option<&Value>,
    ) -> Option<Value> {
        if applied.is_none() {
            // Nothing to merge: what is there stays as it is.
            return live.cloned();
        }
        let shape = |value: Option<&Value>| value.and_then(|v| Shape::of(ty?, v));
        match shape(applied).or_else(|| shape(live)) {
            None | Some(Shape::Scalar) => keep(live, applied),
            Some(Shape::List(list)) => {
                let (old, new) = (as_list(live), as_list(applied));
                let empty = old.is_none_or(<[_]>::is_empty) && new.is_none_or(<[_]>::is_empty);
                match associative(list) {
                    Some(list) if !empty => {
                        let items =
                            self.items(list, old.unwrap_or_default(), new.unwrap_or_default());
                        (!items.is_empty()).then_some(Value::Array(items))
                    }
                    _ => keep(live, applied),
                }
            }
            Some(Shape::Map(keyed)) => {
                let (old, new) = (as_map(live), as_map(applied));
                let empty = old.is_none_or(Map::is_empty) && new.is_none_or(Map::is_empty);
                if keyed.is_atomic() || empty {
                    return keep(live, applied);
                }
                let merged = self.keys(keyed, old, new);
                (!merged.is_empty()).then_some(Value::Object(merged))
            }
        }
    }

    fn keys(
        &mut self,
        keyed: Keyed<'_>,
        live: Option<&Map<String, Value>>,
        applied: Option<&Map<String, Value>>,
    ) -> Map<String, Value> {
        let mut merged = Map::new();
        let rest = applied
            .into_iter()
            .flatten()
            .filter(|(key, _)| live.is_none_or(|live| !live.contains_key(*key)))
            .map(|(key, new)| (key, None, Some(new)));
        let both = live
            .into_iter()
            .flatten()
            .map(|(key, old)| (key, Some(old), applied.and_then(|applied| applied.get(key))));
        for (key, old, new) in both.chain(rest) {
            self.at.push(PathElement::field(key.as_str()));
            if let Some(value) = self.merge(keyed.child(key), old, new) {
                merged.insert(key.clone(), value);
            }
            self.at.pop();
        }
        merged
    }

    /// The items that have an element, and the first item of each element.
    fn index<'v>(
        &mut self,
        list: ListType<'_>,
        items: &'v [Value],
        side: &str,
        may_repeat: bool,
    ) -> (
        Vec<(PathElement, &'v Value)>,
        BTreeMap<PathElement, &'v Value>,
    ) {
        let mut order = Vec::with_capacity(items.len());
        let mut first = BTreeMap::new();
        for (i, item) in items.iter().enumerate() {
            match item_element(list, item) {
                Err(why) => self
                    .errors
                    .push(&self.at, format!("{side}: element {i}: {why}")),
                Ok(element) if first.contains_key(&element) => {
                    if may_repeat {
                        order.push((element, item));
                    } else {
                        self.errors.push(
                            &self.at,
                            format!("{side}: duplicate entries for key {element}"),
                        );
                    }
                }
                Ok(element) => {
                    first.insert(element.clone(), item);
                    order.push((element, item));
                }
            }
        }
        (order, first)
    }

    /// Walks both lists at once. Items of only one side keep their place relative to their neighbours; where both have
    /// an item, the applied order decides.
    fn items(&mut self, list: ListType<'_>, live: &[Value], applied: &[Value]) -> Vec<Value> {
        let (applied, by_applied) = self.index(list, applied, "rhs", false);
        let (live, by_live) = self.index(list, live, "lhs", true);
        let mut shared: VecDeque<&PathElement> = applied
            .iter()
            .map(|(element, _)| element)
            .filter(|element| by_live.contains_key(*element))
            .collect();
        let mut next_shared = shared.pop_front();
        let mut done = BTreeSet::new();
        let mut out = Vec::with_capacity(live.len().max(applied.len()));
        let (mut l, mut a) = (0, 0);
        while l < live.len() || a < applied.len() {
            if let (Some((theirs, old)), Some((ours, new))) = (live.get(l), applied.get(a)) {
                if theirs == ours {
                    out.extend(self.item(list, ours, Some(old), Some(new)));
                    done.insert(ours);
                    (l, a) = (l + 1, a + 1);
                    next_shared = shared.pop_front();
                    continue;
                }
                if by_applied.contains_key(theirs) && next_shared.is_some_and(|next| next != theirs)
                {
                    // Applied too, but its turn comes later.
                    l += 1;
                    continue;
                }
            }
            if let Some((theirs, old)) = live.get(l) {
                if !by_applied.contains_key(theirs) {
                    out.extend(self.item(list, theirs, Some(old), None));
                    l += 1;
                    continue;
                }
                if done.contains(theirs) {
                    l += 1;
                }
            }
            if let Some((ours, new)) = applied.get(a) {
                done.insert(ours);
                let old = by_live.get(ours).copied();
                out.extend(self.item(list, ours, old, Some(new)));
                a += 1;
                if next_shared == Some(ours) {
                    next_shared = shared.pop_front();
                }
            }
        }
        out
    }

    fn item(
        &mut self,
        list: ListType<'_>,
        element: &PathElement,
        live: Option<&Value>,
        applied: Option<&Value>,
    ) -> Option<Value> {
        self.at.push(element.clone());
        let merged = self.merge(Some(list.item()), live, applied);
        self.at.pop();
        merged
    }
}
