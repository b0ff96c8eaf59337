//! Ownership under a schema that has changed since it was recorded.
//!
//! A field that was granular and is now atomic is owned as one: a manager who owned some of what is inside owns the
//! field. The other way needs nothing: who owned an atomic field owns the field, and nothing inside until he writes it.

use super::managers::Managers;
use super::path::PathElement;
use super::set::FieldSet;
use crate::schema::{Kind, ListKind, Type};

/// Brings the sets of all managers of a version in line with its schema.
pub(super) fn reconcile(ty: Type<'_>, managers: &mut Managers, concerns: impl Fn(&str) -> bool) {
    for owned in managers.entries.values_mut() {
        if concerns(&owned.api_version) && is_stale(ty, &owned.set) {
            collapse(ty, &mut owned.set);
        }
    }
}

/// The type of what an element of a set stands for; `None` where the schema does not say.
fn below<'a>(ty: Type<'a>, element: &PathElement) -> Option<Type<'a>> {
    match (ty.kind(), element) {
        (Kind::Struct(_) | Kind::Map(_), PathElement::Field(name)) => ty.child(name),
        (Kind::List(list), PathElement::Key(_)) => Some(list.item()),
        _ => None,
    }
}

fn is_atomic(ty: Type<'_>) -> bool {
    match ty.kind() {
        Kind::Struct(s) => s.is_atomic(),
        Kind::Map(m) => m.is_atomic(),
        Kind::List(l) => l.kind() == ListKind::Atomic,
        Kind::Scalar(_) | Kind::Any => false,
    }
}

/// Whether something is owned inside an atomic value. Nearly never, and then there is nothing to do.
fn is_stale(ty: Type<'_>, set: &FieldSet) -> bool {
    set.entries.iter().any(|(element, entry)| {
        !entry.children.is_empty()
            && below(ty, element).is_some_and(|ty| is_atomic(ty) || is_stale(ty, &entry.children))
    })
}

fn collapse(ty: Type<'_>, set: &mut FieldSet) {
    for (element, entry) in &mut set.entries {
        if entry.children.is_empty() {
            continue;
        }
        match below(ty, element) {
            Some(ty) if is_atomic(ty) => {
                entry.member = true;
                entry.children = FieldSet::new();
            }
            Some(ty) => collapse(ty, &mut entry.children),
            None => {}
        }
    }
}
