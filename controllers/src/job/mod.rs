//! Jobs: pods that are to end well, so many times.
//!
//! Every pod of a Job carries a finalizer until it has been counted: first its uid is written into the Job's status, then the finalizer is taken
//! away, then the uid turns into a number. So each pod is counted once, whatever is deleted or restarted in between.

mod indexes;
mod policy;
mod sync;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use orlop_core::client::Patch;
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError, owner_keys};
use orlop_core::informer::Notice;
use orlop_core::object::{Object, ObjectKey};
use orlop_core::revision::Revision;
use parking_lot::Mutex;
use serde_json::json;

use crate::common;
use crate::common::expectations::Expectations;
use crate::common::ownership::{claim, index_owners, subject_keys};
use crate::common::resources::{JOBS, PODS};

pub use self::indexes::Indexes;

/// The finalizer of pods that have not been counted.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// The annotation and label of a pod with its completion index.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Runs Jobs to completion.
#[derive(Debug, Default)]
pub struct JobController {
    memory: Arc<Memory>,
}

/// What the controller knows that is not in the API.
#[derive(Debug, Default)]
struct Memory {
    expectations: Expectations,
    /// Pods whose finalizer was taken away, which the local copy may not show yet; by Job.
    released: Mutex<BTreeMap<ObjectKey, BTreeSet<String>>>,
    failures: Mutex<BTreeMap<ObjectKey, Failures>>,
    /// The revisions of the Jobs' last writes: an older copy has an older count.
    written: Mutex<BTreeMap<ObjectKey, Revision>>,
}

/// Failures since the last success.
#[derive(Clone, Debug, Default)]
struct Failures {
    count: u32,
    last: Option<Timestamp>,
    /// The pods that were counted here.
    seen: BTreeSet<String>,
}

impl Memory {
    fn forget(&self, key: &ObjectKey) {
        self.expectations.forget(key);
        self.released.lock().remove(key);
        self.failures.lock().remove(key);
        self.written.lock().remove(key);
    }

    fn is_released(&self, key: &ObjectKey, uid: &str) -> bool {
        self.released
            .lock()
            .get(key)
            .is_some_and(|uids| uids.contains(uid))
    }
}

fn is_tracked(pod: &Object) -> bool {
    pod.metadata()
        .finalizers
        .iter()
        .any(|name| name == TRACKING)
}

/// A condition that holds.
pub(crate) fn condition<'a>(status: Option<&'a JobStatus>, kind: &str) -> Option<&'a JobCondition> {
    let mut conditions = status?.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == kind && condition.status == "True")
}

/// The condition by which a Job is finished, well or badly.
pub(crate) fn finished(status: Option<&JobStatus>) -> Option<&JobCondition> {
    condition(status, "Complete").or_else(|| condition(status, "Failed"))
}

impl JobController {
    /// The controller.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets go of pods whose Job is gone: nobody will count them.
    async fn release_orphans(
        &self,
        ctx: &Context,
        key: &ObjectKey,
        uid: Option<&str>,
    ) -> Result<(), ReconcileError> {
        let orphans: Vec<Object> = ctx
            .store(&PODS)
            .in_namespace(&key.namespace)
            .into_iter()
            .filter(|pod| {
                let owner = pod.metadata().controller();
                is_tracked(pod)
                    && owner.is_some_and(|owner| {
                        owner.kind == JOBS.kind
                            && owner.name == *key.name
                            && Some(owner.uid.as_str()) != uid
                    })
            })
            .collect();
        if orphans.is_empty() {
            return Ok(());
        }
        // Live: our copy of the Jobs may be behind that of the pods.
        let live = ctx
            .client()
            .resource(&JOBS)
            .namespace(&key.namespace)
            .find(&key.name)
            .await?;
        for pod in orphans {
            let owner = pod.metadata().controller().map(|owner| owner.uid.clone());
            if live.as_ref().map(|job| job.uid().to_owned()) != owner {
                remove_finalizer(ctx, &pod).await?;
            }
        }
        Ok(())
    }
}

/// Takes the tracking finalizer off a pod.
async fn remove_finalizer(ctx: &Context, pod: &Object) -> Result<(), ReconcileError> {
    let mut finalizers = pod.metadata().finalizers.clone();
    finalizers.retain(|name| name != TRACKING);
    let patch = Patch::Merge(json!({"metadata": {
        "uid": pod.uid(), "resourceVersion": pod.revision().to_string(), "finalizers": finalizers}}));
    match ctx
        .client()
        .resource(&PODS)
        .namespace(pod.namespace())
        .patch(pod.name(), patch)
        .await
    {
        Err(status) if !status.is_not_found() => Err(status.into()),
        _ => Ok(()),
    }
}

#[async_trait]
impl Controller for JobController {
    fn name(&self) -> &str {
        "job-controller"
    }

    fn interests(&self) -> Interests {
        let (own, pods) = (self.memory.clone(), self.memory.clone());
        Interests::new()
            .watches(JOBS, move |_, notice| {
                subject_keys(notice, |gone| own.forget(gone))
            })
            .watches(PODS, move |ctx, notice| observe(ctx, &pods, notice))
    }

    fn prepare(&self, ctx: &Context) {
        index_owners(&ctx.informer(&PODS));
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let Some(object) = ctx.store(&JOBS).get(key) else {
            self.memory.forget(key);
            self.release_orphans(ctx, key, None).await?;
            return Ok(Action::Done);
        };
        let written = self.memory.written.lock().get(key).copied();
        if written.is_some_and(|written| object.revision() < written) {
            // The watch will bring what we wrote, and the key with it.
            return Ok(Action::Done);
        }
        self.release_orphans(ctx, key, Some(object.uid())).await?;
        let job = object.decode::<Job>()?;
        let Some(spec) = job.spec.clone() else {
            return Ok(Action::Done);
        };
        if spec
            .managed_by
            .as_deref()
            .is_some_and(|by| by != "kubernetes.io/job-controller")
        {
            return Ok(Action::Done);
        }
        if finished(job.status.as_ref()).is_some() {
            self.memory.forget(key);
            return Ok(Action::Done);
        }
        let Some(selector) = common::selector(spec.selector.as_ref()) else {
            return Ok(Action::Done);
        };
        let in_sync = self.memory.expectations.met(ctx.env(), key);
        let pods = claim(ctx, &object, &JOBS, &PODS, &selector).await?;
        let mut decoded = Vec::with_capacity(pods.len());
        for pod in pods {
            let tracked = is_tracked(&pod) && !self.memory.is_released(key, pod.uid());
            decoded.push(sync::Tracked {
                pod: pod.decode::<Pod>()?,
                object: pod,
                tracked,
            });
        }
        sync::Sync::new(
            ctx,
            &self.memory,
            key,
            object,
            (*job).clone(),
            spec,
            decoded,
        )
        .run(in_sync)
        .await
    }
}

/// What a change of a pod means: an expectation crossed off, and the Jobs that have to look.
fn observe(ctx: &Context, memory: &Memory, notice: &Notice) -> Vec<ObjectKey> {
    let pod = notice.object();
    let keys = owner_keys(&JOBS, notice);
    let gone = matches!(notice, Notice::Deleted { .. });
    for key in &keys {
        if gone || !is_tracked(pod) {
            let mut released = memory.released.lock();
            if let Some(uids) = released.get_mut(key) {
                uids.remove(pod.uid());
            }
        }
        if gone || pod.is_terminating() {
            memory.expectations.deleted(key, pod.uid());
        } else if matches!(notice, Notice::Added { .. }) {
            memory.expectations.created(key, 1);
        }
    }
    if !keys.is_empty() || gone || pod.metadata().controller().is_some() {
        return keys;
    }
    let jobs = ctx.store(&JOBS).in_namespace(pod.namespace());
    let chooses = |job: &&Object| {
        job.decode::<Job>().is_ok_and(|job| {
            let selector =
                common::selector(job.spec.as_ref().and_then(|spec| spec.selector.as_ref()));
            selector.is_some_and(|selector| {
                !selector.requirements().is_empty() && selector.matches(&pod.metadata().labels)
            })
        })
    };
    jobs.iter().filter(chooses).map(Object::key).collect()
}

#[cfg(test)]
mod tests;
