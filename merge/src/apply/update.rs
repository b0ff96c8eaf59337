//! How ownership moves: the heart of server-side apply, over managers and values.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use super::conflict::{Conflict, Conflicts};
use super::managers::{ManagerId, Managers, Ownership};
use super::path::Path;
use super::reconcile::reconcile;
use super::set::FieldSet;
use super::typed::{Absence, Comparison, compare, merge, remove_items, to_field_set};
use super::{ApplyError, Versions};
use crate::schema::Schema;

/// What a change is made in.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) schema: &'a Schema,
    pub(super) api_version: &'a str,
    pub(super) ignored: Option<&'a FieldSet>,
    pub(super) versions: Option<&'a dyn Versions>,
    pub(super) absence: Absence,
}

/// An object in some version.
#[derive(Clone)]
struct Versioned<'a> {
    schema: Cow<'a, Schema>,
    value: Cow<'a, Value>,
}

impl Versioned<'_> {
    fn fields(&self) -> Result<FieldSet, ApplyError> {
        Ok(to_field_set(self.schema.ty(), &self.value)?)
    }

    fn with_ancestors(&self, set: &FieldSet) -> FieldSet {
        set.with_declared_ancestors(Some(self.schema.ty()))
    }

    fn without(&self, set: &FieldSet) -> Value {
        remove_items(self.schema.ty(), &self.value, set)
    }
}

impl<'a> Scope<'a> {
    /// An object in another version. `None` when that version is gone. An object of which the caller knows only one
    /// version has the same shape in all.
    fn at<'v>(
        &self,
        value: &'v Value,
        from: &str,
        to: &str,
    ) -> Result<Option<Versioned<'v>>, ApplyError>
    where
        'a: 'v,
    {
        let Some(versions) = self.versions else {
            return Ok(Some(Versioned {
                schema: Cow::Borrowed(self.schema),
                value: Cow::Borrowed(value),
            }));
        };
        if from == to && to == self.api_version {
            return Ok(Some(Versioned {
                schema: Cow::Borrowed(self.schema),
                value: Cow::Borrowed(value),
            }));
        }
        let converted = versions
            .convert(value, to)
            .map_err(|reason| ApplyError::Convert {
                to: to.to_owned(),
                reason,
            })?;
        Ok(converted.map(|(schema, value)| Versioned {
            schema: Cow::Owned(schema),
            value: Cow::Owned(value),
        }))
    }

    fn compare(&self, old: &Versioned<'_>, new: &Versioned<'_>) -> Result<Comparison, ApplyError> {
        let comparison = compare(new.schema.ty(), &old.value, &new.value, self.absence)?;
        Ok(match self.ignored {
            Some(ignored) => comparison.without(ignored),
            None => comparison,
        })
    }

    /// Brings the managers of this version in line with its schema.
    fn reconcile(&self, managers: &mut Managers) {
        reconcile(self.schema.ty(), managers, |version| {
            self.versions.is_none() || version == self.api_version
        });
    }

    /// Takes from everybody but `writer` what changed. Without `force` that is refused.
    fn take(
        &self,
        old: &Value,
        new: &Value,
        managers: &mut Managers,
        writer: &ManagerId,
        force: bool,
    ) -> Result<Comparison, ApplyError> {
        let comparison = compare(self.schema.ty(), old, new, self.absence)?;
        let ours = match self.ignored {
            Some(ignored) => comparison.without(ignored),
            None => comparison,
        };
        let mut other_versions: BTreeMap<String, Option<Comparison>> = BTreeMap::new();
        let mut conflicts = Conflicts::default();
        let mut losses: Vec<(ManagerId, FieldSet)> = Vec::new();
        let mut gone = Vec::new();
        for (id, owned) in managers.iter().filter(|(id, _)| *id != writer) {
            let comparison = if owned.api_version == self.api_version || self.versions.is_none() {
                &ours
            } else {
                if !other_versions.contains_key(&owned.api_version) {
                    let old = self.at(old, self.api_version, &owned.api_version)?;
                    let new = self.at(new, self.api_version, &owned.api_version)?;
                    let comparison = match (&old, &new) {
                        (Some(old), Some(new)) => Some(self.compare(old, new)?),
                        _ => None,
                    };
                    other_versions.insert(owned.api_version.clone(), comparison);
                }
                match &other_versions[&owned.api_version] {
                    Some(comparison) => comparison,
                    None => {
                        // The version is no longer served, and nobody can say what the entry means.
                        gone.push(id.clone());
                        continue;
                    }
                }
            };
            if comparison.is_same() {
                continue;
            }
            let mut taken = owned.set.intersection(&comparison.modified);
            taken.extend_with(&owned.set.intersection(&comparison.added));
            if !force {
                taken.for_each(&mut |path| {
                    conflicts.0.push(Conflict {
                        manager: id.clone(),
                        path: Path(path.to_vec()),
                    });
                });
            }
            taken.extend_with(&owned.set.intersection(&comparison.removed));
            if !taken.is_empty() {
                losses.push((id.clone(), taken));
            }
        }
        if !conflicts.0.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
        for id in gone {
            managers.remove(&id);
        }
        for (id, lost) in losses {
            if let Some(owned) = managers.remove(&id) {
                let set = owned.set.difference(&lost);
                managers.insert(id, Ownership { set, ..owned });
            }
        }
        Ok(ours)
    }

    /// Ownership after a write that is no apply: what `writer` changed becomes its own.
    pub(super) fn update(
        &self,
        old: &Value,
        new: &Value,
        managers: &mut Managers,
        writer: &ManagerId,
    ) -> Result<(), ApplyError> {
        self.reconcile(managers);
        let changes = self.take(old, new, managers, writer, true)?;
        let before = managers.remove(writer);
        let (set, time) = before.map_or_else(Default::default, |owned| (owned.set, owned.time));
        let mut set = set.difference(&changes.removed);
        set.extend_with(&changes.modified);
        set.extend_with(&changes.added);
        if let Some(ignored) = self.ignored {
            set = set.recursive_difference(ignored);
        }
        managers.insert(
            writer.clone(),
            Ownership {
                set,
                api_version: self.api_version.to_owned(),
                time,
            },
        );
        Ok(())
    }

    /// Merges an applied configuration, drops what its applier no longer applies, and moves ownership.
    pub(super) fn apply(
        &self,
        live: &Value,
        applied: &Value,
        managers: &mut Managers,
        applier: &ManagerId,
        force: bool,
    ) -> Result<Value, ApplyError> {
        self.reconcile(managers);
        let ty = self.schema.ty();
        let merged = merge(ty, live, applied)?;
        let mut set = to_field_set(ty, applied)?;
        if let Some(ignored) = self.ignored {
            set = set.recursive_difference(ignored);
        }
        let last = managers.remove(applier);
        let time = last.as_ref().and_then(|last| last.time.clone());
        // Kept even when it is empty: an empty configuration is one.
        managers.entries.insert(
            applier.clone(),
            Ownership {
                set,
                api_version: self.api_version.to_owned(),
                time,
            },
        );
        let new = match last {
            Some(last) if !last.set.is_empty() => self.prune(merged, managers, &last)?,
            _ => merged,
        };
        self.take(live, &new, managers, applier, force)?;
        managers.entries.retain(|_, owned| !owned.set.is_empty());
        Ok(new)
    }

    /// Removes what was applied last time, is not applied now, and nobody else owns.
    fn prune(
        &self,
        merged: Value,
        managers: &Managers,
        last: &Ownership,
    ) -> Result<Value, ApplyError> {
        let version = last.api_version.as_str();
        let Some(before) = self.at(&merged, self.api_version, version)? else {
            return Ok(merged);
        };
        let last_set = before.with_ancestors(&last.set);
        let pruned = before.without(&last_set);
        let pruned = self.add_back_owned(&before, pruned, managers, version)?;

        // Only what the applier owned may go: not what hangs on it and belongs to nobody.
        let before_set = before.with_ancestors(&before.fields()?);
        let pruned_set = before.with_ancestors(&to_field_set(before.schema.ty(), &pruned)?);
        let unwanted = before_set.difference(&pruned_set).intersection(&last_set);
        let pruned = before.without(&unwanted);

        drop(before);
        match self.at(&pruned, version, self.api_version)? {
            Some(versioned) => Ok(versioned.value.into_owned()),
            None => Ok(merged),
        }
    }

    /// The pruned object with everything back that a manager owns, each seen in its own version; that of the last apply
    /// first, so that nothing is missing that a conversion needs.
    fn add_back_owned(
        &self,
        before: &Versioned<'_>,
        mut pruned: Value,
        managers: &Managers,
        version: &str,
    ) -> Result<Value, ApplyError> {
        let mut owned: BTreeMap<&str, FieldSet> = BTreeMap::new();
        for (_, ownership) in managers.iter() {
            let at = if self.versions.is_none() {
                version
            } else {
                ownership.api_version.as_str()
            };
            owned.entry(at).or_default().extend_with(&ownership.set);
        }
        let first = owned.remove(version).map(|set| (version, set));
        for (at, owned) in first.into_iter().chain(owned) {
            let Some(merged) = self.at(&before.value, version, at)? else {
                continue;
            };
            let Some(left) = self.at(&pruned, version, at)? else {
                continue;
            };
            let mut stays = left.with_ancestors(&left.fields()?);
            stays.extend_with(&merged.with_ancestors(&owned));
            let goes = merged.with_ancestors(&merged.fields()?).difference(&stays);
            let kept = merged.without(&goes);
            drop(left);
            pruned = match self.at(&kept, at, version)? {
                Some(versioned) => versioned.value.into_owned(),
                None => continue,
            };
        }
        Ok(pruned)
    }
}
