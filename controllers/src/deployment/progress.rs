//! What a Deployment's status says, and whether its rollout gets on.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use orlop_core::controller::{Action, ReconcileError};

use super::{Rollout, Versions, total_available, total_size};
use crate::common;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

fn condition<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == kind)
}

/// The condition that says whether the rollout gets on.
pub(super) fn progressing(status: &DeploymentStatus) -> Option<&DeploymentCondition> {
    condition(status, PROGRESSING)
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != kind);
    }
}

/// Sets a condition. One that says the same already stays as it is, with its times; while its status stays the same, the time of the last
/// transition does.
fn set(status: &mut DeploymentStatus, mut next: DeploymentCondition) {
    if let Some(now) = condition(status, &next.type_) {
        if now.status == next.status && now.reason == next.reason {
            return;
        }
        if now.status == next.status {
            next.last_transition_time = now.last_transition_time.clone();
        }
    }
    remove(status, &next.type_);
    status.conditions.get_or_insert_default().push(next);
}

fn of(status: &DeploymentStatus) -> [i32; 5] {
    [
        &status.replicas,
        &status.updated_replicas,
        &status.ready_replicas,
        &status.available_replicas,
        &status.unavailable_replicas,
    ]
    .map(|number| number.unwrap_or(0))
}

impl Rollout<'_> {
    fn new_condition(
        &self,
        kind: &str,
        status: &str,
        reason: &str,
        message: impl Into<String>,
    ) -> DeploymentCondition {
        let now = common::now_time(self.ctx.env());
        DeploymentCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.into()),
            last_transition_time: now.clone(),
            last_update_time: now,
        }
    }

    /// Sets the Progressing condition of the Deployment in hand.
    pub(super) fn set_progressing(
        &mut self,
        status: &str,
        reason: &str,
        message: impl Into<String>,
    ) {
        let next = self.new_condition(PROGRESSING, status, reason, message);
        set(self.deployment.status.get_or_insert_default(), next);
    }

    /// Says in the conditions that the Deployment was paused or resumed: the clock of its deadline stands still in between.
    pub(super) async fn note_pause(&mut self) -> Result<(), ReconcileError> {
        if self.deadline().is_none() {
            return Ok(());
        }
        let status = self.status();
        let reason = progressing(&status).and_then(|condition| condition.reason.as_deref());
        if reason == Some(TIMED_OUT) {
            return Ok(()); // that stays until there is progress
        }
        let noted = reason == Some("DeploymentPaused");
        match (self.spec.paused == Some(true), noted) {
            (true, false) => {
                self.set_progressing("Unknown", "DeploymentPaused", "Deployment is paused")
            }
            (false, true) => {
                self.set_progressing("Unknown", "DeploymentResumed", "Deployment is resumed")
            }
            _ => return Ok(()),
        }
        self.update_status().await
    }

    /// Whether everything that the Deployment asks for is there, by its status.
    pub(super) fn is_complete(&self) -> bool {
        self.completes(&self.status())
    }

    fn completes(&self, status: &DeploymentStatus) -> bool {
        let size = self.size();
        let [replicas, updated, _, available, _] = of(status);
        updated == size
            && replicas == size
            && available == size
            && status.observed_generation >= self.deployment.metadata.generation
    }

    /// The counts and the Available condition, from the ReplicaSets.
    fn calculate(&self, versions: &Versions) -> DeploymentStatus {
        let available = total_available(versions.all());
        let unavailable = (total_size(versions.all()) - available).max(0);
        let old = self.status();
        let some = |number: i32| Some(number).filter(|number| *number != 0);
        let mut status = DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: some(versions.all().map(super::Set::replicas).sum()),
            updated_replicas: some(versions.new.as_ref().map_or(0, super::Set::replicas)),
            ready_replicas: some(versions.all().map(super::Set::ready).sum()),
            available_replicas: some(available),
            unavailable_replicas: some(unavailable),
            terminating_replicas: Some(versions.all().map(super::Set::terminating).sum()),
            collision_count: old.collision_count,
            conditions: old.conditions,
        };
        let condition = if available >= self.size() - self.strategy().unavailable() {
            let message = "Deployment has minimum availability.";
            self.new_condition(AVAILABLE, "True", "MinimumReplicasAvailable", message)
        } else {
            let message = "Deployment does not have minimum availability.";
            self.new_condition(AVAILABLE, "False", "MinimumReplicasUnavailable", message)
        };
        set(&mut status, condition);
        status
    }

    /// Writes counts and availability, and nothing of progress.
    pub(super) async fn write_plain_status(&mut self) -> Result<(), ReconcileError> {
        let versions = self.versions();
        self.write_plain_status_of(&versions).await
    }

    pub(super) async fn write_plain_status_of(
        &mut self,
        versions: &Versions,
    ) -> Result<(), ReconcileError> {
        let status = self.calculate(versions);
        self.write_if_new(status).await
    }

    async fn write_if_new(&mut self, status: DeploymentStatus) -> Result<(), ReconcileError> {
        let mut old = self.status();
        old.terminating_replicas = old.terminating_replicas.or(Some(0));
        for number in [
            &mut old.replicas,
            &mut old.updated_replicas,
            &mut old.ready_replicas,
            &mut old.available_replicas,
            &mut old.unavailable_replicas,
        ] {
            *number = number.filter(|number| *number != 0);
        }
        if old == status && self.deployment.status.is_some() {
            return Ok(());
        }
        self.deployment.status = Some(status);
        self.update_status().await
    }

    /// Writes the whole status, with progress; says when to look again for a rollout that is stuck.
    pub(super) async fn write_status(
        &mut self,
        versions: &Versions,
    ) -> Result<Action, ReconcileError> {
        let mut status = self.calculate(versions);
        let old = self.status();
        let subject = |what: &str| match &versions.new {
            Some(new) => format!("ReplicaSet \"{}\" {what}", new.name()),
            None => format!("Deployment \"{}\" {what}", self.name()),
        };
        let current = progressing(&old).cloned();
        let reason = current
            .as_ref()
            .and_then(|condition| condition.reason.as_deref());
        let was_complete = of(&status)[0] == of(&status)[1] && reason == Some(COMPLETE);
        if self.deadline().is_none() {
            remove(&mut status, PROGRESSING);
        } else if !was_complete {
            if self.completes(&status) {
                let message = subject("has successfully progressed.");
                set(
                    &mut status,
                    self.new_condition(PROGRESSING, "True", COMPLETE, message),
                );
            } else if progressed(&old, &status) {
                let message = subject("is progressing.");
                let mut next =
                    self.new_condition(PROGRESSING, "True", "ReplicaSetUpdated", message);
                if let Some(current) = current.filter(|current| current.status == next.status) {
                    next.last_transition_time = current.last_transition_time;
                }
                // Written even if it says the same: the time of the update is when the deadline's clock starts anew.
                remove(&mut status, PROGRESSING);
                set(&mut status, next);
            } else if self.timed_out(&old) {
                let message = subject("has timed out progressing.");
                set(
                    &mut status,
                    self.new_condition(PROGRESSING, "False", TIMED_OUT, message),
                );
            }
        }
        match self.replica_failure(versions) {
            Some(failure) => set(&mut status, failure),
            None => remove(&mut status, REPLICA_FAILURE),
        }
        self.write_if_new(status).await?;
        Ok(self.look_again())
    }

    /// The failure of a ReplicaSet to have its pods; that of the new one first.
    fn replica_failure(&self, versions: &Versions) -> Option<DeploymentCondition> {
        let sets = versions.new.iter().chain(&versions.old);
        let failure = sets
            .filter_map(|set| set.set.status.as_ref()?.conditions.as_ref())
            .flatten()
            .find(|condition| condition.type_ == REPLICA_FAILURE)?;
        let mut next = self.new_condition(
            REPLICA_FAILURE,
            &failure.status,
            failure.reason.as_deref().unwrap_or_default(),
            failure.message.clone().unwrap_or_default(),
        );
        next.last_transition_time = failure.last_transition_time.clone();
        next.last_update_time = failure.last_transition_time.clone();
        Some(next)
    }

    /// Whether the deadline has passed without progress.
    fn timed_out(&self, status: &DeploymentStatus) -> bool {
        let (Some(condition), Some(deadline)) = (progressing(status), self.deadline()) else {
            return false;
        };
        match condition.reason.as_deref() {
            Some(COMPLETE) => false,
            Some(TIMED_OUT) => true,
            _ => {
                let since = condition
                    .last_update_time
                    .as_ref()
                    .or(condition.last_transition_time.as_ref());
                let Some(Time(since)) = since else {
                    return false;
                };
                let limit = SignedDuration::from_secs(i64::from(deadline));
                common::now(self.ctx.env()).duration_since(*since) > limit
            }
        }
    }

    /// A rollout that stops moving causes no change; so the clock has to.
    fn look_again(&self) -> Action {
        let status = self.status();
        let (Some(condition), Some(deadline)) = (progressing(&status), self.deadline()) else {
            return Action::Done;
        };
        if self.completes(&status) || condition.reason.as_deref() == Some(TIMED_OUT) {
            return Action::Done;
        }
        let Some(Time(since)) = &condition.last_update_time else {
            return Action::Done;
        };
        let passed = common::now(self.ctx.env())
            .duration_since(*since)
            .as_secs()
            .max(0);
        let left = u64::try_from(i64::from(deadline) - passed).unwrap_or(0);
        Action::RequeueAfter(Duration::from_secs(left + 1))
    }
}

/// Whether a status is nearer to completion than another.
fn progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let (
        [old_replicas, old_updated, old_ready, old_available, _],
        [replicas, updated, ready, available, _],
    ) = (of(old), of(new));
    updated > old_updated
        || replicas - updated < old_replicas - old_updated
        || ready > old_ready
        || available > old_available
}
