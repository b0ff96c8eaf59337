//! The Recreate strategy: never two versions at once.

use k8s_openapi::api::core::v1::Pod;
use orlop_core::controller::{Action, ReconcileError};

use super::{Rollout, Versions};
use crate::common::pods;
use crate::common::resources::PODS;

impl Rollout<'_> {
    pub(super) async fn recreate(&mut self) -> Result<Action, ReconcileError> {
        let versions = self.synced_versions(false).await?;
        let mut scaled = false;
        for set in versions.active_old() {
            scaled |= self.scale(&set, 0).await?;
        }
        if scaled || self.old_pods_run(&versions) {
            let versions = self.refreshed(versions);
            return self.write_status(&versions).await;
        }
        let versions = if versions.new.is_none() {
            self.synced_versions(true).await?
        } else {
            versions
        };
        if let Some(new) = &versions.new {
            let size = self.size();
            if new.size() != size {
                self.scale(new, size).await?;
            }
        }
        let versions = self.refreshed(versions);
        if self.is_complete() {
            self.clean_up(&versions.old).await?;
        }
        self.write_status(&versions).await
    }

    /// Whether a pod of another version has not ended yet. One that is going still runs.
    fn old_pods_run(&self, versions: &Versions) -> bool {
        let store = self.ctx.store(&PODS);
        versions.old.iter().any(|set| {
            let owned = store.by_index(orlop_core::informer::index::CONTROLLER_UID, set.uid());
            owned.iter().any(|pod| {
                pod.decode::<Pod>()
                    .is_ok_and(|pod| !pods::is_finished(&pod))
            })
        })
    }
}
