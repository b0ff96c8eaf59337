//! Rolling updates: the new ReplicaSet grows, the old ones shrink, and enough pods are available all the time.

use orlop_core::controller::{Action, ReconcileError};

use super::{Rollout, Set, Versions, total_available, total_size};

impl Rollout<'_> {
    pub(super) async fn roll(&mut self) -> Result<Action, ReconcileError> {
        let versions = self.synced_versions(true).await?;
        if self.grow_new(&versions).await? || self.shrink_old(&versions).await? {
            // The rest when this has been seen.
            let versions = self.refreshed(versions);
            return self.write_status(&versions).await;
        }
        if self.is_complete() {
            self.clean_up(&versions.old).await?;
        }
        self.write_status(&versions).await
    }

    /// The same versions with what this reconcile has changed.
    pub(super) fn refreshed(&self, versions: Versions) -> Versions {
        let latest = |set: Set| {
            self.sets
                .iter()
                .find(|known| known.uid() == set.uid())
                .cloned()
                .unwrap_or(set)
        };
        Versions {
            new: versions.new.map(latest),
            old: versions.old.into_iter().map(latest).collect(),
        }
    }

    async fn grow_new(&mut self, versions: &Versions) -> Result<bool, ReconcileError> {
        let Some(new) = &versions.new else {
            return Ok(false);
        };
        let size = if new.size() > self.size() {
            self.size()
        } else {
            self.strategy()
                .new_size(new.size(), total_size(versions.all()))
        };
        if size == new.size() {
            return Ok(false);
        }
        self.scale(new, size).await
    }

    async fn shrink_old(&mut self, versions: &Versions) -> Result<bool, ReconcileError> {
        let old = versions.active_old();
        let (Some(new), true) = (&versions.new, total_size(&old) > 0) else {
            return Ok(false);
        };
        let posts = self.strategy();
        let removable =
            posts.old_to_remove(total_size(versions.all()), new.size(), new.available());
        if removable <= 0 {
            return Ok(false);
        }
        // First what is of no use: pods that are not available.
        let mut sets = Vec::with_capacity(old.len());
        let mut removed = 0;
        for set in old {
            let idle = (set.size() - set.available()).clamp(0, removable - removed);
            if idle == 0 {
                sets.push(set);
                continue;
            }
            let size = set.size() - idle;
            self.scale(&set, size).await?;
            removed += idle;
            sets.push(self.latest(&set));
        }
        // Then those that are, as many as are not needed.
        let needed = self.size() - posts.unavailable();
        let mut spare = total_available(versions.all()) - needed;
        for set in sets {
            if spare <= 0 {
                break;
            }
            let part = set.size().min(spare);
            if part == 0 {
                continue;
            }
            let size = set.size() - part;
            self.scale(&set, size).await?;
            spare -= part;
            removed += part;
        }
        Ok(removed > 0)
    }

    fn latest(&self, set: &Set) -> Set {
        self.sets
            .iter()
            .find(|known| known.uid() == set.uid())
            .unwrap_or(set)
            .clone()
    }
}
