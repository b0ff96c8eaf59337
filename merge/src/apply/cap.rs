//! Keeping the number of updaters small.

use std::collections::BTreeMap;

use super::managers::{ManagerId, Managers, Operation, seconds};

/// How many updaters an object keeps. Appliers are not counted.
const MAX_UPDATE_MANAGERS: usize = 10;

/// Where the oldest updaters are merged.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// Merges the oldest updaters of a version into one, until there are few enough.
pub(super) fn cap_update_managers(managers: &mut Managers) {
    let is_applier = |id: &ManagerId| id.operation == Operation::Apply;
    let mut updaters: Vec<(i64, ManagerId)> = managers
        .iter()
        .filter(|(id, _)| !is_applier(id))
        .map(|(id, owned)| (seconds(owned), id.clone()))
        .collect();
    let mut left = updaters.len();
    if left <= MAX_UPDATE_MANAGERS {
        return;
    }
    updaters.sort();
    let mut first_of_version: BTreeMap<String, ManagerId> = BTreeMap::new();
    for (_, id) in updaters {
        if left <= MAX_UPDATE_MANAGERS {
            break;
        }
        let Some(version) = managers.get(&id).map(|owned| owned.api_version.clone()) else {
            continue;
        };
        let Some(first) = first_of_version.get(&version) else {
            first_of_version.insert(version, id);
            continue;
        };
        let bucket = ManagerId::new(ANCIENT_CHANGES, Operation::Update, &version, "");
        if id == bucket {
            // The bucket is not the oldest of its version: that one goes into it.
            if let (Some(mut into), Some(merged)) = (managers.remove(&id), managers.remove(first)) {
                into.set.extend_with(&merged.set);
                managers.insert(id, into);
            }
            left -= 1;
            continue;
        }
        let into = match managers.remove(&bucket) {
            Some(bucket) => Some(bucket),
            None => managers.remove(first),
        };
        if let (Some(mut into), Some(merged)) = (into, managers.remove(&id)) {
            into.set.extend_with(&merged.set);
            // The later of the two.
            into.time = merged.time;
            managers.insert(bucket, into);
        }
        left -= 1;
    }
}
