//! ReplicaSets: so many pods of a template.

mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use orlop_core::client::DeleteOptions;
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError, owner_keys};
use orlop_core::informer::Notice;
use orlop_core::object::{Object, ObjectKey};
use orlop_core::status::Status;

use crate::common::batch::{BURST, slow_start};
use crate::common::expectations::Expectations;
use crate::common::ownership::{claim, index_owners, managed_by, owned, subject_keys};
use crate::common::resources::{PODS, REPLICA_SETS};
use crate::common::{self, pods};

pub use self::status::Failure;

/// Keeps as many pods as each ReplicaSet asks for.
///
/// What it has asked for and not yet seen is noted, so that a local copy that is a moment old does not lead to a second pod; pods that match
/// and have no owner are adopted, pods that no longer match are let go; when there are too many, those go first that are missed least.
#[derive(Debug, Default)]
pub struct ReplicaSetController {
    expectations: Arc<Expectations>,
}

impl ReplicaSetController {
    /// The controller.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Controller for ReplicaSetController {
    fn name(&self) -> &str {
        "replicaset-controller"
    }

    fn interests(&self) -> Interests {
        let (own, expectations) = (self.expectations.clone(), self.expectations.clone());
        Interests::new()
            .watches(REPLICA_SETS, move |_, notice| {
                subject_keys(notice, |gone| own.forget(gone))
            })
            .watches(PODS, move |ctx, notice| observe(ctx, &expectations, notice))
    }

    fn prepare(&self, ctx: &Context) {
        index_owners(&ctx.informer(&PODS));
        index_owners(&ctx.informer(&REPLICA_SETS));
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let Some(object) = ctx.store(&REPLICA_SETS).get(key) else {
            self.expectations.forget(key);
            return Ok(Action::Done);
        };
        let set = object.decode::<ReplicaSet>()?;
        let Some(spec) = &set.spec else {
            return Ok(Action::Done);
        };
        let Some(selector) = common::selector(Some(&spec.selector)) else {
            tracing::warn!(%key, "the selector cannot be read");
            return Ok(Action::Done);
        };
        let in_sync = self.expectations.met(ctx.env(), key);
        let claimed = claim(ctx, &object, &REPLICA_SETS, &PODS, &selector).await?;
        let mut all = Vec::with_capacity(claimed.len());
        for pod in &claimed {
            all.push(pod.decode::<Pod>()?);
        }
        let active: Vec<Arc<Pod>> = all
            .iter()
            .filter(|pod| pods::is_active(pod))
            .cloned()
            .collect();
        let terminating = all
            .iter()
            .filter(|pod| pods::is_terminating(pod) && !pods::is_finished(pod))
            .count();

        let mut failure = None;
        if in_sync && !object.is_terminating() {
            failure = self.manage(ctx, key, &object, &set, &active).await;
        }
        let now = common::now(ctx.env());
        let min_ready = spec.min_ready_seconds.unwrap_or(0);
        let next = status::calculate(&set, &active, terminating, failure.as_ref(), now);
        status::write(ctx, &object, &set, next).await?;
        if let Some(failure) = failure {
            return Err(failure.into_error());
        }
        // A pod that is ready becomes available by the passing of time alone.
        Ok(
            match pods::next_available(active.iter().map(|pod| &**pod), min_ready, now) {
                Some(wait) => Action::RequeueAfter(wait),
                None => Action::Done,
            },
        )
    }
}

impl ReplicaSetController {
    /// Makes or deletes pods until there are as many as asked for, or as many as one reconcile may.
    async fn manage(
        &self,
        ctx: &Context,
        key: &ObjectKey,
        object: &Object,
        set: &ReplicaSet,
        active: &[Arc<Pod>],
    ) -> Option<Failure> {
        let spec = set.spec.as_ref()?;
        let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
        if active.len() < wanted {
            let missing = (wanted - active.len()).min(BURST);
            let template = spec.template.clone().unwrap_or_default();
            let pod = pods::from_template(&template, object.name(), managed_by(object));
            self.expectations.expect_creations(ctx.env(), key, missing);
            let (made, failed) = slow_start(missing, |_| create_pod(ctx, object, &pod)).await;
            // Those that were not made will not be seen.
            self.expectations.created(key, missing - made);
            return failed
                .filter(|status| !common::namespace_is_going(status))
                .map(Failure::Create);
        }
        if active.len() > wanted {
            let surplus = (active.len() - wanted).min(BURST);
            let victims = choose(ctx, object, active, surplus);
            let uids: BTreeSet<String> = victims
                .iter()
                .filter_map(|pod| pod.metadata.uid.clone())
                .collect();
            self.expectations.expect_deletions(ctx.env(), key, uids);
            let mut failure = None;
            for (pod, result) in futures::future::join_all(
                victims
                    .iter()
                    .map(async |pod| (pod, delete_pod(ctx, object, pod).await)),
            )
            .await
            {
                if let Err(status) = result {
                    self.expectations
                        .deleted(key, pod.metadata.uid.as_deref().unwrap_or_default());
                    if !status.is_not_found() {
                        failure = failure.or(Some(Failure::Delete(status)));
                    }
                }
            }
            return failure;
        }
        None
    }
}

/// Makes a pod for `owner` and tells so.
pub(crate) async fn create_pod(ctx: &Context, owner: &Object, pod: &Pod) -> Result<(), Status> {
    match ctx
        .client()
        .resource(&PODS)
        .namespace(owner.namespace())
        .create(pod)
        .await
    {
        Ok(made) => {
            ctx.events().normal(
                owner,
                "SuccessfulCreate",
                format!("Created pod: {}", made.name()),
            );
            Ok(())
        }
        Err(status) => {
            if !common::namespace_is_going(&status) {
                ctx.events()
                    .warning(owner, "FailedCreate", format!("Error creating: {status}"));
            }
            Err(status)
        }
    }
}

/// Deletes a pod of `owner` and tells so.
pub(crate) async fn delete_pod(ctx: &Context, owner: &Object, pod: &Pod) -> Result<(), Status> {
    let name = common::name(&pod.metadata);
    let options = DeleteOptions {
        uid: pod.metadata.uid.clone(),
        ..DeleteOptions::default()
    };
    match ctx
        .client()
        .resource(&PODS)
        .namespace(owner.namespace())
        .delete(name, options)
        .await
    {
        Ok(()) => {
            ctx.events()
                .normal(owner, "SuccessfulDelete", format!("Deleted pod: {name}"));
            Ok(())
        }
        Err(status) => {
            if !status.is_not_found() {
                ctx.events()
                    .warning(owner, "FailedDelete", format!("Error deleting: {status}"));
            }
            Err(status)
        }
    }
}

/// The pods to give up.
fn choose(ctx: &Context, object: &Object, active: &[Arc<Pod>], count: usize) -> Vec<Arc<Pod>> {
    let mut candidates = active.to_vec();
    if count < candidates.len() {
        // Pods of the same Deployment on one node make each other less needed.
        let mut neighbours: BTreeMap<String, usize> = BTreeMap::new();
        for pod in related_pods(ctx, object) {
            if pods::is_active(&pod) {
                *neighbours.entry(pods::node(&pod).to_owned()).or_default() += 1;
            }
        }
        let now = common::now(ctx.env());
        candidates.sort_by(|a, b| pods::deletion_order(a, b, &neighbours, now));
    }
    candidates.truncate(count);
    candidates
}

/// The pods of all ReplicaSets that have the same manager as this one; of this one, if it has none.
fn related_pods(ctx: &Context, object: &Object) -> Vec<Arc<Pod>> {
    let sets = match object.metadata().controller() {
        None => vec![object.clone()],
        Some(manager) => {
            let mut sets = ctx
                .store(&REPLICA_SETS)
                .by_index(orlop_core::informer::index::CONTROLLER_UID, &manager.uid);
            sets.retain(|set| set.namespace() == object.namespace());
            sets
        }
    };
    let store = ctx.store(&PODS);
    sets.iter()
        .flat_map(|set| owned(&store, set))
        .filter_map(|pod| pod.decode::<Pod>().ok())
        .collect()
}

/// What a change of a pod means: an expectation crossed off, and the ReplicaSets that have to look.
fn observe(ctx: &Context, expectations: &Expectations, notice: &Notice) -> Vec<ObjectKey> {
    let pod = notice.object();
    let keys = owner_keys(&REPLICA_SETS, notice);
    let gone = matches!(notice, Notice::Deleted { .. }) || pod.is_terminating();
    for key in &keys {
        if gone {
            expectations.deleted(key, pod.uid());
        } else if matches!(notice, Notice::Added { .. }) {
            expectations.created(key, 1);
        }
    }
    if let Some(old) = notice.old().filter(|old| old.uid() != pod.uid()) {
        // One went and another of the same name came while nobody looked.
        for key in &keys {
            expectations.deleted(key, old.uid());
            expectations.created(key, 1);
        }
    }
    if !keys.is_empty() || gone || pod.metadata().controller().is_some() {
        return keys;
    }
    // An orphan: whoever would choose it may adopt it.
    let relabelled = notice.old().is_none_or(|old| {
        old.metadata().labels != pod.metadata().labels || old.metadata().controller().is_some()
    });
    if relabelled {
        would_choose(ctx, pod)
    } else {
        Vec::new()
    }
}

fn would_choose(ctx: &Context, pod: &Object) -> Vec<ObjectKey> {
    ctx.store(&REPLICA_SETS)
        .in_namespace(pod.namespace())
        .iter()
        .filter(|set| {
            set.decode::<ReplicaSet>().is_ok_and(|decoded| {
                let selector = common::selector(decoded.spec.as_ref().map(|spec| &spec.selector));
                selector.is_some_and(|selector| {
                    !selector.requirements().is_empty() && selector.matches(&pod.metadata().labels)
                })
            })
        })
        .map(Object::key)
        .collect()
}

#[cfg(test)]
mod tests;
