//! Sets of paths, and their algebra.

use std::collections::BTreeMap;
use std::fmt;

use super::path::{Path, PathElement};
use crate::schema::{Kind, Type};

/// A set of paths, kept as a tree. A path may be a member with or without its children and its ancestors: owning
/// `.spec` and owning `.spec.replicas` are two things.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    pub(crate) entries: BTreeMap<PathElement, Entry>,
}

/// What a set knows of one element: whether the path that ends here is a member, and what lies below. Never neither.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) member: bool,
    pub(crate) children: FieldSet,
}

impl FieldSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
        }
    }

    /// The set of these paths of fields.
    #[must_use]
    pub fn of_fields<'a, P>(paths: impl IntoIterator<Item = P>) -> Self
    where
        P: IntoIterator<Item = &'a str>,
    {
        paths.into_iter().map(Path::fields).collect()
    }

    /// Whether it has no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many members it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries
            .values()
            .map(|entry| usize::from(entry.member) + entry.children.len())
            .sum()
    }

    /// Adds a path. The root itself is never a member.
    pub fn insert(&mut self, path: &[PathElement]) {
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        let entry = match self.entries.get_mut(first) {
            Some(entry) => entry,
            None => self.entries.entry(first.clone()).or_default(),
        };
        if rest.is_empty() {
            entry.member = true;
        } else {
            entry.children.insert(rest);
        }
    }

    /// Whether the path is a member.
    #[must_use]
    pub fn contains(&self, path: &[PathElement]) -> bool {
        let Some((first, rest)) = path.split_first() else {
            return false;
        };
        self.entries.get(first).is_some_and(|entry| {
            if rest.is_empty() {
                entry.member
            } else {
                entry.children.contains(rest)
            }
        })
    }

    /// Whether the element is a member at the top.
    pub(crate) fn has(&self, element: &PathElement) -> bool {
        self.entries.get(element).is_some_and(|entry| entry.member)
    }

    /// What lies below an element.
    #[must_use]
    pub fn below(&self, element: &PathElement) -> Option<&FieldSet> {
        self.entries
            .get(element)
            .map(|entry| &entry.children)
            .filter(|children| !children.is_empty())
    }

    /// Puts back the rule that an entry is a member or has children.
    fn put(&mut self, element: &PathElement, entry: Entry) {
        if entry.member || !entry.children.is_empty() {
            self.entries.insert(element.clone(), entry);
        }
    }

    /// The paths in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let (mut all, fewer) = if self.entries.len() >= other.entries.len() {
            (self.clone(), other)
        } else {
            (other.clone(), self)
        };
        all.extend_with(fewer);
        all
    }

    /// Adds all paths of another set.
    pub fn extend_with(&mut self, other: &Self) {
        for (element, theirs) in &other.entries {
            match self.entries.get_mut(element) {
                Some(ours) => {
                    ours.member |= theirs.member;
                    ours.children.extend_with(&theirs.children);
                }
                None => {
                    self.entries.insert(element.clone(), theirs.clone());
                }
            }
        }
    }

    /// The paths in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::new();
        for (element, ours) in &self.entries {
            if let Some(theirs) = other.entries.get(element) {
                both.put(
                    element,
                    Entry {
                        member: ours.member && theirs.member,
                        children: ours.children.intersection(&theirs.children),
                    },
                );
            }
        }
        both
    }

    /// The paths that are not in the other, path by path: children of a path of the other stay.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = Self::new();
        for (element, ours) in &self.entries {
            match other.entries.get(element) {
                None => {
                    left.entries.insert(element.clone(), ours.clone());
                }
                Some(theirs) => left.put(
                    element,
                    Entry {
                        member: ours.member && !theirs.member,
                        children: ours.children.difference(&theirs.children),
                    },
                ),
            }
        }
        left
    }

    /// The paths that are not in the other and not below one of the other.
    #[must_use]
    pub fn recursive_difference(&self, other: &Self) -> Self {
        let mut left = Self::new();
        for (element, ours) in &self.entries {
            match other.entries.get(element) {
                None => {
                    left.entries.insert(element.clone(), ours.clone());
                }
                Some(theirs) if theirs.member => {}
                Some(theirs) => left.put(
                    element,
                    Entry {
                        member: ours.member,
                        children: ours.children.recursive_difference(&theirs.children),
                    },
                ),
            }
        }
        left
    }

    /// The members that have no member below them.
    #[must_use]
    pub fn leaves(&self) -> Self {
        let mut leaves = Self::new();
        for (element, entry) in &self.entries {
            leaves.put(
                element,
                Entry {
                    member: entry.member && entry.children.is_empty(),
                    children: entry.children.leaves(),
                },
            );
        }
        leaves
    }

    /// The set with every declared field on the way to a member made a member too. A manager that owns
    /// `.spec.strategy.type` thereby owns `.spec.strategy`, which goes when nobody owns any of it.
    #[must_use]
    pub fn with_declared_ancestors(&self, ty: Option<Type<'_>>) -> Self {
        let mut all = Self::new();
        for (element, entry) in &self.entries {
            let mut member = entry.member;
            let child = match (ty.map(Type::kind), element) {
                (Some(Kind::Struct(s)), PathElement::Field(name)) => match s.field(name) {
                    Some(field) => {
                        member = true;
                        Some(field.ty())
                    }
                    None => s.rest(),
                },
                (Some(Kind::Map(map)), PathElement::Field(_)) => Some(map.value()),
                (Some(Kind::List(list)), PathElement::Key(_)) => Some(list.item()),
                (Some(Kind::Any), PathElement::Field(_)) => ty,
                _ => None,
            };
            all.entries.insert(
                element.clone(),
                Entry {
                    member,
                    children: entry.children.with_declared_ancestors(child),
                },
            );
        }
        all
    }

    /// Calls `visit` for every member: at each level first the members, then what lies below.
    pub fn for_each(&self, visit: &mut impl FnMut(&[PathElement])) {
        fn walk(set: &FieldSet, at: &mut Vec<PathElement>, visit: &mut impl FnMut(&[PathElement])) {
            for (element, _) in set.entries.iter().filter(|(_, entry)| entry.member) {
                at.push(element.clone());
                visit(at);
                at.pop();
            }
            for (element, entry) in &set.entries {
                at.push(element.clone());
                walk(&entry.children, at, visit);
                at.pop();
            }
        }
        walk(self, &mut Vec::new(), visit);
    }

    /// All members, in the order of [`FieldSet::for_each`].
    #[must_use]
    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.for_each(&mut |path| paths.push(Path(path.to_vec())));
        paths
    }
}

impl FromIterator<Path> for FieldSet {
    fn from_iter<I: IntoIterator<Item = Path>>(paths: I) -> Self {
        let mut set = Self::new();
        for path in paths {
            set.insert(&path.0);
        }
        set
    }
}

impl fmt::Debug for FieldSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.paths().iter().map(ToString::to_string))
            .finish()
    }
}
