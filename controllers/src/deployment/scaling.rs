//! Changes of size, of one ReplicaSet or of all together.

use std::cmp::Reverse;

use orlop_core::controller::ReconcileError;

use super::arithmetic::{Share, Strategy, proportional};
use super::{DESIRED_REPLICAS, MAX_REPLICAS, Rollout, Set, Versions};
use crate::common;

impl Rollout<'_> {
    /// Whether the Deployment was given another size since its ReplicaSets were last scaled.
    pub(super) fn is_scaled(&self) -> bool {
        self.sets.iter().filter(|set| set.size() > 0).any(|set| {
            common::number_annotation::<i32>(&set.set.metadata, DESIRED_REPLICAS)
                .is_some_and(|desired| desired != self.size())
        })
    }

    /// What a Deployment gets that is paused or was given another size: its size, but no step of its rollout.
    pub(super) async fn scale_only(&mut self) -> Result<(), ReconcileError> {
        let versions = self.synced_versions(false).await?;
        self.distribute(&versions).await?;
        let versions = self.refreshed(versions);
        if self.spec.paused == Some(true) {
            self.clean_up(&versions.old).await?;
        }
        self.write_plain_status_of(&versions).await
    }

    async fn distribute(&mut self, versions: &Versions) -> Result<(), ReconcileError> {
        let size = self.size();
        let active: Vec<&Set> = versions.all().filter(|set| set.size() > 0).collect();
        // With one ReplicaSet at work, or none, there is nothing to share.
        let only = match active.as_slice() {
            [] => versions.new.as_ref().or(versions.old.last()),
            [one] => Some(*one),
            _ => None,
        };
        if let Some(only) = only {
            self.scale(only, size).await?;
            return Ok(());
        }
        if active.is_empty() {
            return Ok(());
        }
        if versions
            .new
            .as_ref()
            .is_some_and(|new| self.is_saturated(new))
        {
            for set in versions.active_old() {
                self.scale(&set, 0).await?;
            }
            return Ok(());
        }
        let posts = self.strategy();
        if !matches!(posts.kind, Strategy::RollingUpdate { .. }) {
            return Ok(());
        }
        let max_now = size + posts.surge();
        let allowed = if size > 0 { max_now } else { 0 };
        let total: i32 = active.iter().map(|set| set.size()).sum();
        let mut sets: Vec<Set> = active.into_iter().cloned().collect();
        if allowed >= total {
            sets.sort_by(|a, b| (b.size(), b.age()).cmp(&(a.size(), a.age())));
        } else {
            sets.sort_by(|a, b| (Reverse(a.size()), a.age()).cmp(&(Reverse(b.size()), b.age())));
        }
        let shares: Vec<Share> = sets
            .iter()
            .map(|set| Share {
                size: set.size(),
                max_then: common::number_annotation(&set.set.metadata, MAX_REPLICAS)
                    .filter(|max| *max > 0)
                    .unwrap_or_else(|| self.status().replicas.unwrap_or(0)),
            })
            .collect();
        for (set, size) in sets
            .iter()
            .zip(proportional(&shares, size, max_now, allowed))
        {
            self.scale(set, size).await?;
        }
        Ok(())
    }

    /// Whether a ReplicaSet is all that the Deployment asks for, and available.
    fn is_saturated(&self, set: &Set) -> bool {
        let size = self.size();
        let desired = common::number_annotation::<i32>(&set.set.metadata, DESIRED_REPLICAS);
        set.size() == size && desired == Some(size) && set.available() == size
    }

    /// Gives a ReplicaSet a size, notes the Deployment's with it, and tells so. Says whether the size is another one.
    pub(super) async fn scale(&mut self, set: &Set, size: i32) -> Result<bool, ReconcileError> {
        let before = set.size();
        let mut next = (*set.set).clone();
        let notes = [
            (DESIRED_REPLICAS, self.size().to_string()),
            (
                MAX_REPLICAS,
                (self.size() + self.strategy().surge()).to_string(),
            ),
        ];
        let annotations = next.metadata.annotations.get_or_insert_default();
        let mut changed = false;
        for (key, value) in notes {
            changed |= annotations
                .insert(key.to_owned(), value.clone())
                .is_none_or(|old| old != value);
        }
        if before == size && !changed {
            return Ok(false);
        }
        if let Some(spec) = &mut next.spec {
            spec.replicas = Some(size);
        }
        let written = self.update_set(&next).await?;
        if let Some(known) = self
            .sets
            .iter_mut()
            .find(|known| known.uid() == written.uid())
        {
            *known = written;
        } else {
            self.sets.push(written);
        }
        if before == size {
            return Ok(false);
        }
        let direction = if before < size { "up" } else { "down" };
        let message = format!(
            "Scaled {direction} replica set {} from {before} to {size}",
            set.name()
        );
        self.ctx
            .events()
            .normal(&self.object, "ScalingReplicaSet", message);
        Ok(true)
    }
}
