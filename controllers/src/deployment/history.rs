//! The history: old versions are kept, empty, up to a limit.

use orlop_core::client::DeleteOptions;
use orlop_core::controller::ReconcileError;

use super::{Rollout, Set};
use crate::common::resources::REPLICA_SETS;

impl Rollout<'_> {
    /// Deletes the oldest of the old versions that are more than the limit. One that still has pods stays.
    pub(super) async fn clean_up(&self, old: &[Set]) -> Result<(), ReconcileError> {
        let Some(limit) = self
            .spec
            .revision_history_limit
            .filter(|limit| *limit != i32::MAX)
        else {
            return Ok(());
        };
        let mut kept: Vec<&Set> = old
            .iter()
            .filter(|set| set.set.metadata.deletion_timestamp.is_none())
            .collect();
        let surplus = kept
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(0));
        kept.sort_by(|a, b| (a.revision(), a.age()).cmp(&(b.revision(), b.age())));
        let sets = self
            .ctx
            .client()
            .resource(&REPLICA_SETS)
            .namespace(self.object.namespace());
        for set in kept.into_iter().take(surplus) {
            let observed = set
                .set
                .status
                .as_ref()
                .and_then(|status| status.observed_generation);
            if set.replicas() != 0 || set.size() != 0 || set.set.metadata.generation > observed {
                continue;
            }
            let options = DeleteOptions {
                uid: Some(set.uid().to_owned()),
                ..DeleteOptions::default()
            };
            match sets.delete(set.name(), options).await {
                Err(status) if !status.is_not_found() => return Err(status.into()),
                _ => {}
            }
        }
        Ok(())
    }
}
