//! Ownership through the `scale` subresource, whose objects have another shape than the ones they scale.

use std::collections::BTreeMap;

use super::managers::{Managers, Ownership};
use super::path::Path;
use super::set::FieldSet;

/// The version of `Scale`.
pub const SCALE_API_VERSION: &str = "autoscaling/v1";

/// Where each version of a kind keeps its replicas. `None` for a version that has none; a version that is missing is
/// not served.
pub type ReplicasPaths = BTreeMap<String, Option<Path>>;

fn replicas_of_scale() -> FieldSet {
    FieldSet::of_fields([["spec", "replicas"]])
}

/// The managers of an object as those of its `Scale`: who owns the replicas there owns `.spec.replicas` here.
#[must_use]
pub fn to_scale(parent: &Managers, paths: &ReplicasPaths) -> Managers {
    let mut scale = Managers::new();
    for (id, owned) in parent.iter() {
        let Some(Some(path)) = paths.get(&owned.api_version) else {
            continue;
        };
        if owned.set.contains(&path.0) {
            let ownership = Ownership {
                set: replicas_of_scale(),
                api_version: SCALE_API_VERSION.to_owned(),
                time: owned.time.clone(),
            };
            scale.insert(id.clone(), ownership);
        }
    }
    scale
}

/// The managers of an object after its `Scale` was written: who lost the replicas there loses them here, and who came to
/// own them there owns them here, in the object's version, without a time.
#[must_use]
pub fn to_parent(
    parent: &Managers,
    scale: &Managers,
    api_version: &str,
    paths: &ReplicasPaths,
) -> Managers {
    let mut left = scale.clone();
    let mut merged = Managers::new();
    for (id, owned) in parent.iter() {
        let Some(path) = paths.get(&owned.api_version) else {
            continue;
        };
        let mut owned = owned.clone();
        if let Some(path) = path
            && owned.set.contains(&path.0)
            && left.remove(id).is_none()
        {
            owned.set = owned
                .set
                .difference(&std::iter::once(path.clone()).collect());
        }
        merged.insert(id.clone(), owned);
    }
    let replicas = replicas_of_scale();
    let Some(Some(path)) = paths.get(api_version) else {
        return merged;
    };
    for (id, owned) in left.iter() {
        if owned.set.intersection(&replicas).is_empty() {
            continue;
        }
        let ownership = Ownership {
            set: std::iter::once(path.clone()).collect(),
            api_version: api_version.to_owned(),
            time: parent.get(id).and_then(|owned| owned.time.clone()),
        };
        merged.insert(id.clone(), ownership);
    }
    merged
}
