//! What a ReplicaSet's status says.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use orlop_core::controller::{Context, ReconcileError};
use orlop_core::object::Object;
use orlop_core::status::Status;

use crate::common::pods;
use crate::common::resources::REPLICA_SETS;

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What kept a ReplicaSet from having as many pods as it should.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// A pod could not be made.
    Create(Status),
    /// A pod could not be deleted.
    Delete(Status),
}

impl Failure {
    fn reason(&self) -> &'static str {
        match self {
            Self::Create(_) => "FailedCreate",
            Self::Delete(_) => "FailedDelete",
        }
    }

    fn status(&self) -> &Status {
        match self {
            Self::Create(status) | Self::Delete(status) => status,
        }
    }

    pub(super) fn into_error(self) -> ReconcileError {
        match self {
            Self::Create(status) | Self::Delete(status) => status.into(),
        }
    }
}

/// The status that fits what was seen.
pub(super) fn calculate(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&Failure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let spec = set.spec.as_ref();
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let wanted = spec
        .and_then(|spec| spec.template.as_ref())
        .and_then(|template| template.metadata.as_ref());
    let labels = wanted
        .and_then(|metadata| metadata.labels.clone())
        .unwrap_or_default();
    let labelled = |pod: &Pod| {
        let own = pod.metadata.labels.as_ref();
        labels
            .iter()
            .all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value))
    };
    let number =
        |matching: &dyn Fn(&Pod) -> bool| count(active.iter().filter(|pod| matching(pod)).count());
    let old = set.status.clone().unwrap_or_default();
    ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: some(number(&labelled)),
        ready_replicas: some(number(&pods::is_ready)),
        available_replicas: some(number(&|pod| pods::is_available(pod, min_ready, now))),
        terminating_replicas: Some(count(terminating)),
        observed_generation: set.metadata.generation,
        conditions: conditions(old.conditions.unwrap_or_default(), failure, now),
    }
}

/// Kubernetes leaves a count of zero out.
fn some(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
}

fn conditions(
    mut conditions: Vec<ReplicaSetCondition>,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let known = conditions
        .iter()
        .any(|condition| condition.type_ == REPLICA_FAILURE);
    match failure {
        None => conditions.retain(|condition| condition.type_ != REPLICA_FAILURE),
        // The first failure stands until all is well.
        Some(_) if known => {}
        Some(failure) => conditions.push(ReplicaSetCondition {
            type_: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason().to_owned()),
            message: Some(failure.status().to_string()),
            last_transition_time: Some(Time(now)),
        }),
    }
    Some(conditions).filter(|conditions| !conditions.is_empty())
}

/// Writes the status if it says something new.
pub(super) async fn write(
    ctx: &Context,
    object: &Object,
    set: &ReplicaSet,
    status: ReplicaSetStatus,
) -> Result<(), ReconcileError> {
    let same = |old: &ReplicaSetStatus| {
        let old = ReplicaSetStatus {
            fully_labeled_replicas: some(old.fully_labeled_replicas.unwrap_or(0)),
            ready_replicas: some(old.ready_replicas.unwrap_or(0)),
            available_replicas: some(old.available_replicas.unwrap_or(0)),
            terminating_replicas: Some(old.terminating_replicas.unwrap_or(0)),
            ..old.clone()
        };
        old == status
    };
    if set.status.as_ref().is_some_and(same) {
        return Ok(());
    }
    let next = ReplicaSet {
        status: Some(status),
        ..set.clone()
    };
    match ctx
        .client()
        .resource(&REPLICA_SETS)
        .namespace(object.namespace())
        .update_status(&next)
        .await
    {
        Ok(_) => Ok(()),
        Err(status) if status.is_not_found() => Ok(()),
        Err(status) => Err(status.into()),
    }
}
