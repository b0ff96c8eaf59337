//! Deployments: a ReplicaSet for every version of the pod template, and the way from one to the next.
//!
//! Each version of the template has a ReplicaSet of its own, named after the Deployment and a hash of the template. A rollout makes the new one
//! larger and the old ones smaller, step by step; the old ones stay, empty, as the history to which `kubectl rollout undo` goes back.

mod arithmetic;
mod hash;
mod history;
mod progress;
mod recreate;
mod revisions;
mod rolling;
mod scaling;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet};
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError, owner_keys};
use orlop_core::informer::Notice;
use orlop_core::object::{Object, ObjectKey};

use crate::common;
use crate::common::ownership::{claim, index_owners};
use crate::common::resources::{DEPLOYMENTS, PODS, REPLICA_SETS};

pub(crate) use self::arithmetic::scaled;
pub use self::arithmetic::{Fenceposts, Strategy, resolve_fenceposts};
pub(crate) use self::hash::same_template;
pub use self::hash::template_hash;

/// The label that tells the pods of one version from those of another.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// The annotation with the number of a version.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// The annotation with the numbers that a version had before it was rolled back to.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The annotation of a ReplicaSet with the Deployment's size when it was last scaled.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// The annotation of a ReplicaSet with the most pods that the Deployment could have then.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// Rolls out Deployments.
#[derive(Debug, Default)]
pub struct DeploymentController(());

impl DeploymentController {
    /// The controller.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Controller for DeploymentController {
    fn name(&self) -> &str {
        "deployment-controller"
    }

    fn interests(&self) -> Interests {
        Interests::new()
            .for_each(DEPLOYMENTS)
            .watches(REPLICA_SETS, |ctx, notice| {
                let keys = owner_keys(&DEPLOYMENTS, notice);
                let set = notice.object();
                if !keys.is_empty() || set.metadata().controller().is_some() || set.is_terminating()
                {
                    return keys;
                }
                would_choose(ctx, set)
            })
            .watches(PODS, |ctx, notice| match notice {
                // Who recreates waits for the last old pod to go.
                Notice::Deleted { object, .. } => deployment_of(ctx, object).into_iter().collect(),
                _ => Vec::new(),
            })
    }

    fn prepare(&self, ctx: &Context) {
        index_owners(&ctx.informer(&PODS));
        index_owners(&ctx.informer(&REPLICA_SETS));
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let Some(object) = ctx.store(&DEPLOYMENTS).get(key) else {
            return Ok(Action::Done);
        };
        let deployment = (*object.decode::<Deployment>()?).clone();
        let Some(spec) = deployment.spec.clone() else {
            return Ok(Action::Done);
        };
        if common::selects_everything(&spec.selector) {
            let what = "This deployment is selecting all pods. A non-empty selector is required.";
            ctx.events().warning(&object, "SelectingAll", what);
            if deployment
                .status
                .as_ref()
                .and_then(|status| status.observed_generation)
                < deployment.metadata.generation
            {
                let mut seen = deployment.clone();
                seen.status.get_or_insert_default().observed_generation =
                    deployment.metadata.generation;
                ctx.client()
                    .resource(&DEPLOYMENTS)
                    .namespace(&key.namespace)
                    .update_status(&seen)
                    .await?;
            }
            return Ok(Action::Done);
        }
        let Some(selector) = common::selector(Some(&spec.selector)) else {
            return Ok(Action::Done);
        };
        let claimed = claim(ctx, &object, &DEPLOYMENTS, &REPLICA_SETS, &selector).await?;
        let mut sets = Vec::with_capacity(claimed.len());
        for set in &claimed {
            sets.push(Set::new(set)?);
        }
        let mut rollout = Rollout {
            ctx,
            object,
            spec,
            deployment,
            sets,
        };
        if rollout.object.is_terminating() {
            rollout.write_plain_status().await?;
            return Ok(Action::Done);
        }
        rollout.note_pause().await?;
        if rollout.spec.paused == Some(true) || rollout.is_scaled() {
            rollout.scale_only().await?;
            return Ok(Action::Done);
        }
        match rollout.strategy().kind {
            Strategy::Recreate => rollout.recreate().await,
            Strategy::RollingUpdate { .. } => rollout.roll().await,
        }
    }
}

fn would_choose(ctx: &Context, set: &Object) -> Vec<ObjectKey> {
    ctx.store(&DEPLOYMENTS)
        .in_namespace(set.namespace())
        .iter()
        .filter(|deployment| {
            deployment.decode::<Deployment>().is_ok_and(|decoded| {
                let selector = decoded.spec.as_ref().map(|spec| &spec.selector);
                selector.is_some_and(|selector| !common::selects_everything(selector))
                    && common::selector(selector)
                        .is_some_and(|selector| selector.matches(&set.metadata().labels))
            })
        })
        .map(Object::key)
        .collect()
}

/// The Deployment that a pod belongs to by way of its ReplicaSet.
fn deployment_of(ctx: &Context, pod: &Object) -> Option<ObjectKey> {
    let reference = pod
        .metadata()
        .controller()
        .filter(|owner| owner.kind == REPLICA_SETS.kind)?;
    let set = ctx
        .store(&REPLICA_SETS)
        .get(&ObjectKey::new(pod.namespace(), &reference.name))?;
    if set.uid() != reference.uid {
        return None;
    }
    let owner = set
        .metadata()
        .controller()
        .filter(|owner| owner.kind == DEPLOYMENTS.kind)?;
    Some(ObjectKey::new(pod.namespace(), &owner.name))
}

/// A ReplicaSet of the Deployment.
#[derive(Clone, Debug)]
struct Set {
    set: Arc<ReplicaSet>,
}

impl Set {
    fn new(object: &Object) -> Result<Self, ReconcileError> {
        Ok(Self {
            set: object.decode::<ReplicaSet>()?,
        })
    }

    fn name(&self) -> &str {
        common::name(&self.set.metadata)
    }

    fn uid(&self) -> &str {
        self.set.metadata.uid.as_deref().unwrap_or_default()
    }

    /// How many pods it is asked to have.
    fn size(&self) -> i32 {
        self.set
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1)
    }

    fn available(&self) -> i32 {
        self.set
            .status
            .as_ref()
            .and_then(|status| status.available_replicas)
            .unwrap_or(0)
    }

    fn ready(&self) -> i32 {
        self.set
            .status
            .as_ref()
            .and_then(|status| status.ready_replicas)
            .unwrap_or(0)
    }

    fn terminating(&self) -> i32 {
        self.set
            .status
            .as_ref()
            .and_then(|status| status.terminating_replicas)
            .unwrap_or(0)
    }

    /// How many pods it has.
    fn replicas(&self) -> i32 {
        self.set.status.as_ref().map_or(0, |status| status.replicas)
    }

    fn revision(&self) -> i64 {
        common::number_annotation(&self.set.metadata, REVISION).unwrap_or(0)
    }

    /// Its age, to order by: the time it was made, then its name.
    fn age(&self) -> (Option<jiff::Timestamp>, &str) {
        (
            self.set
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0),
            self.name(),
        )
    }
}

/// One reconcile of one Deployment.
struct Rollout<'a> {
    ctx: &'a Context,
    object: Object,
    spec: DeploymentSpec,
    /// As it is in the API, with what this reconcile has written.
    deployment: Deployment,
    sets: Vec<Set>,
}

/// The ReplicaSets, told apart: that of the present template, and the others, oldest first.
struct Versions {
    new: Option<Set>,
    old: Vec<Set>,
}

impl Versions {
    fn all(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    fn active_old(&self) -> Vec<Set> {
        self.old
            .iter()
            .filter(|set| set.size() > 0)
            .cloned()
            .collect()
    }
}

fn total_size<'a>(sets: impl IntoIterator<Item = &'a Set>) -> i32 {
    sets.into_iter().map(Set::size).sum()
}

fn total_available<'a>(sets: impl IntoIterator<Item = &'a Set>) -> i32 {
    sets.into_iter().map(Set::available).sum()
}

impl Rollout<'_> {
    fn name(&self) -> &str {
        self.object.name()
    }

    /// How many pods it is to have.
    fn size(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn status(&self) -> DeploymentStatus {
        self.deployment.status.clone().unwrap_or_default()
    }

    fn strategy(&self) -> Fenceposts {
        resolve_fenceposts(self.spec.strategy.as_ref(), self.size())
    }

    /// The longest time without progress, in seconds; `None` for "as long as it takes".
    fn deadline(&self) -> Option<i32> {
        self.spec
            .progress_deadline_seconds
            .filter(|seconds| *seconds != i32::MAX)
    }

    async fn update_set(&self, set: &ReplicaSet) -> Result<Set, ReconcileError> {
        let sets = self
            .ctx
            .client()
            .resource(&REPLICA_SETS)
            .namespace(self.object.namespace());
        Set::new(&sets.update(set).await?)
    }

    /// Writes the Deployment's status, and annotations with it, and goes on from what the server made of it.
    async fn update_status(&mut self) -> Result<(), ReconcileError> {
        let deployments = self
            .ctx
            .client()
            .resource(&DEPLOYMENTS)
            .namespace(self.object.namespace());
        let written = deployments.update_status(&self.deployment).await?;
        self.deployment = (*written.decode::<Deployment>()?).clone();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
