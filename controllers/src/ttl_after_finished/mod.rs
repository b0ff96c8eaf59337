//! Jobs that say how long they are to be kept after their end.

use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use orlop_core::client::{DeleteOptions, Propagation};
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop_core::object::ObjectKey;

use crate::common;
use crate::common::resources::JOBS;
use crate::job::finished;

/// Deletes finished Jobs when their `ttlSecondsAfterFinished` has passed.
#[derive(Debug, Default)]
pub struct TtlAfterFinishedController(());

impl TtlAfterFinishedController {
    /// The controller.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// When a Job is to go, if it is finished and says so.
fn due(job: &Job) -> Option<Timestamp> {
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let ended = finished(job.status.as_ref())?
        .last_transition_time
        .as_ref()?
        .0;
    ended
        .checked_add(SignedDuration::from_secs(i64::from(seconds)))
        .ok()
}

#[async_trait]
impl Controller for TtlAfterFinishedController {
    fn name(&self) -> &str {
        "ttl-after-finished-controller"
    }

    fn interests(&self) -> Interests {
        Interests::new().for_each(JOBS)
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let Some(object) = ctx
            .store(&JOBS)
            .get(key)
            .filter(|job| !job.is_terminating())
        else {
            return Ok(Action::Done);
        };
        let left = |job: &Job| {
            let now = common::now(ctx.env());
            due(job).map(|due| {
                if due > now {
                    due.duration_since(now).unsigned_abs()
                } else {
                    Duration::ZERO
                }
            })
        };
        match left(&*object.decode::<Job>()?) {
            None => return Ok(Action::Done),
            Some(wait) if !wait.is_zero() => return Ok(Action::RequeueAfter(wait)),
            Some(_) => {}
        }
        // Live: the time may have been changed at the last moment.
        let jobs = ctx.client().resource(&JOBS).namespace(&key.namespace);
        let Some(live) = jobs.find(&key.name).await? else {
            return Ok(Action::Done);
        };
        match left(&*live.decode::<Job>()?) {
            None => return Ok(Action::Done),
            Some(wait) if !wait.is_zero() => return Ok(Action::RequeueAfter(wait)),
            Some(_) => {}
        }
        let options = DeleteOptions {
            propagation: Some(Propagation::Foreground),
            uid: Some(live.uid().to_owned()),
            revision: Some(live.revision()),
            ..DeleteOptions::default()
        };
        match jobs.delete(&key.name, options).await {
            Err(status) if !status.is_not_found() => Err(status.into()),
            _ => Ok(Action::Done),
        }
    }
}
