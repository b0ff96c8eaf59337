//! One look at one Job: count what ended, decide, make or delete pods, write the status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use orlop_core::controller::{Action, Context, ReconcileError};
use orlop_core::object::{Object, ObjectKey};

use super::indexes::Indexes;
use super::policy::{self, Verdict};
use super::{COMPLETION_INDEX, Memory, TRACKING, condition, remove_finalizer};
use crate::common::batch::{BURST, slow_start};
use crate::common::ownership::managed_by;
use crate::common::resources::JOBS;
use crate::common::{self, pods};
use crate::replicaset::{create_pod, delete_pod};

/// The annotation of a pod with how often its index had failed before.
const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// How many uids the status may hold at once.
const UNCOUNTED: usize = 500;
/// The wait before a pod is made after the first failure; doubled with each further one.
const BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(600);

/// A pod of the Job.
pub(super) struct Tracked {
    pub(super) object: Object,
    pub(super) pod: Arc<Pod>,
    /// Whether it has not been counted yet.
    pub(super) tracked: bool,
}

impl Tracked {
    fn uid(&self) -> &str {
        self.object.uid()
    }

    /// How often its index had failed before it was made.
    fn earlier_failures(&self) -> i32 {
        common::number_annotation(&self.pod.metadata, INDEX_FAILURES).unwrap_or(0)
    }

    fn index(&self) -> Option<i32> {
        common::number_annotation(&self.pod.metadata, COMPLETION_INDEX)
    }
}

pub(super) struct Sync<'a> {
    ctx: &'a Context,
    memory: &'a Memory,
    key: &'a ObjectKey,
    object: Object,
    job: Job,
    spec: JobSpec,
    pods: Vec<Tracked>,
    now: Timestamp,
    succeeded: BTreeSet<String>,
    failed: BTreeSet<String>,
    /// Failed pods that the policy says are as if they had never been.
    ignored: BTreeSet<String>,
    completed: Indexes,
    /// The indexes that have failed for good.
    failed_indexes: Indexes,
    requeue: Option<Duration>,
}

/// The end that a Job comes to.
struct End {
    /// `Complete` or `Failed`.
    kind: &'static str,
    reason: String,
    message: String,
}

fn holds(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        message: Some(message.to_owned()).filter(|message| !message.is_empty()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

impl<'a> Sync<'a> {
    pub(super) fn new(
        ctx: &'a Context,
        memory: &'a Memory,
        key: &'a ObjectKey,
        object: Object,
        job: Job,
        spec: JobSpec,
        pods: Vec<Tracked>,
    ) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let text = status.completed_indexes.unwrap_or_default();
        let completions = spec.completions.unwrap_or(i32::MAX);
        let completed = Indexes::parse(&text, completions);
        let failed_indexes =
            Indexes::parse(&status.failed_indexes.unwrap_or_default(), completions);
        Self {
            ctx,
            memory,
            key,
            object,
            job,
            pods,
            now: common::now(ctx.env()),
            succeeded: uncounted.succeeded.into_iter().flatten().collect(),
            failed: uncounted.failed.into_iter().flatten().collect(),
            ignored: BTreeSet::new(),
            completed,
            failed_indexes,
            requeue: None,
            spec,
        }
    }

    fn status(&mut self) -> &mut JobStatus {
        self.job.status.get_or_insert_default()
    }

    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    /// Whether a pod is replaced only when it has ended, not already when it is going.
    fn waits_for_the_end(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
            || self.spec.pod_failure_policy.is_some()
    }

    fn has_failed(&self, pod: &Pod) -> bool {
        match pods::phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => pods::is_terminating(pod) && !self.waits_for_the_end(),
        }
    }

    fn later(&mut self, wait: Duration) {
        let wait = wait.max(Duration::from_millis(1));
        self.requeue = Some(self.requeue.map_or(wait, |known| known.min(wait)));
    }

    pub(super) async fn run(mut self, in_sync: bool) -> Result<Action, ReconcileError> {
        let before = self.job.status.clone();
        self.settle();
        let fail_now = self.count_new();
        self.start();
        let (succeeded, failed) = self.totals();
        let mut end = self.ending(fail_now, succeeded, failed);
        let going = self.object.is_terminating();
        let mut failure = None;
        if end.is_some() || (self.is_suspended() && !going) {
            if in_sync {
                failure = self.delete_active(usize::MAX).await;
            }
        } else if in_sync && !going {
            failure = self.manage(succeeded).await;
        }
        if end.is_none() {
            end = self.completion(succeeded);
        }
        self.note_suspension();
        if let Some(end) = &end {
            self.note_interim(end);
        }
        self.write_counts();
        // First the uids, then the finalizers, then the numbers.
        let mut stored = before;
        if self.job.status != stored && self.has_uncounted() {
            self.write().await?;
            stored = self.job.status.clone();
        }
        self.release().await?;
        self.settle();
        self.write_counts();
        if let Some(end) = end {
            self.finish(&end);
        }
        if self.job.status != stored {
            self.write().await?;
            self.tell();
        }
        if let Some(status) = failure {
            return Err(status);
        }
        Ok(self.requeue.map_or(Action::Done, Action::RequeueAfter))
    }

    /// Turns uids of pods that have been let go into numbers.
    fn settle(&mut self) {
        let held: BTreeSet<&str> = self
            .pods
            .iter()
            .filter(|pod| pod.tracked)
            .map(Tracked::uid)
            .collect();
        let count_settled = |uids: &mut BTreeSet<String>| {
            let all = uids.len();
            uids.retain(|uid| held.contains(uid.as_str()));
            all - uids.len()
        };
        let succeeded = count_settled(&mut self.succeeded);
        let failed = count_settled(&mut self.failed);
        let indexed = self.is_indexed();
        let status = self.job.status.get_or_insert_default();
        if !indexed && succeeded > 0 {
            status.succeeded = Some(status.succeeded.unwrap_or(0) + count(succeeded));
        }
        if failed > 0 {
            status.failed = Some(status.failed.unwrap_or(0) + count(failed));
        }
    }

    /// Notes the pods that ended since the last time; says why the Job has to fail at once, if it has to.
    fn count_new(&mut self) -> Option<String> {
        let mut fail_now = None;
        let mut failures = self
            .memory
            .failures
            .lock()
            .get(self.key)
            .cloned()
            .unwrap_or_default();
        let indexed = self.is_indexed();
        for n in 0..self.pods.len() {
            let (pod, uid) = (self.pods[n].pod.clone(), self.pods[n].uid().to_owned());
            if !self.pods[n].tracked || self.succeeded.contains(&uid) || self.failed.contains(&uid)
            {
                continue;
            }
            if self.succeeded.len() + self.failed.len() >= UNCOUNTED {
                self.later(Duration::from_millis(1));
                break;
            }
            if pods::phase(&pod) == "Succeeded" {
                failures.count = 0;
                match self.pods[n].index().filter(|_| indexed) {
                    Some(index) => {
                        self.completed.insert(index);
                        self.ignored.insert(uid); // its index is its count
                    }
                    None if indexed => {
                        self.ignored.insert(uid);
                    }
                    None => {
                        self.succeeded.insert(uid);
                    }
                }
            } else if self.has_failed(&pod) {
                match policy::judge(&self.spec, &pod) {
                    Verdict::Ignore => {
                        self.ignored.insert(uid);
                        continue;
                    }
                    Verdict::FailJob(why) => fail_now = fail_now.or(Some(why)),
                    verdict => self.count_index(n, verdict == Verdict::FailIndex),
                }
                if failures.seen.insert(uid.clone()) {
                    failures.count += 1;
                    failures.last = failures.last.max(Some(ended_at(&pod).unwrap_or(self.now)));
                }
                self.failed.insert(uid);
            }
        }
        let there: BTreeSet<&str> = self.pods.iter().map(Tracked::uid).collect();
        failures.seen.retain(|uid| there.contains(uid.as_str()));
        self.memory
            .failures
            .lock()
            .insert(self.key.clone(), failures);
        fail_now
    }

    /// Counts a failure against the limit of its index, if there is one.
    fn count_index(&mut self, n: usize, at_once: bool) {
        let (Some(limit), Some(index)) = (self.spec.backoff_limit_per_index, self.pods[n].index())
        else {
            return;
        };
        if (at_once || self.pods[n].earlier_failures() >= limit) && !self.completed.contains(index)
        {
            self.failed_indexes.insert(index);
        }
    }

    fn start(&mut self) {
        let now = self.now;
        if !self.is_suspended() && self.status().start_time.is_none() {
            self.status().start_time = Some(Time(now));
        }
    }

    /// How many pods have succeeded and failed, with those that are not numbers yet.
    fn totals(&self) -> (i32, i32) {
        let status = self.job.status.clone().unwrap_or_default();
        let succeeded = if self.is_indexed() {
            count(self.completed.len())
        } else {
            status.succeeded.unwrap_or(0) + count(self.succeeded.len())
        };
        (
            succeeded,
            status.failed.unwrap_or(0) + count(self.failed.len()),
        )
    }

    /// Whether the Job has to end before its work is done.
    fn ending(&mut self, fail_now: Option<String>, succeeded: i32, failed: i32) -> Option<End> {
        let end = |kind, reason: &str, message: &str| End {
            kind,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        let status = self.job.status.clone();
        for (interim, kind) in [
            ("FailureTarget", "Failed"),
            ("SuccessCriteriaMet", "Complete"),
        ] {
            if let Some(known) = condition(status.as_ref(), interim) {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                return Some(End {
                    kind,
                    reason: text(&known.reason),
                    message: text(&known.message),
                });
            }
        }
        if let Some(message) = fail_now {
            return Some(End {
                kind: "Failed",
                reason: "PodFailurePolicy".to_owned(),
                message,
            });
        }
        if let Some(message) = policy::success(
            &self.spec,
            &self.completed,
            self.spec.completions.unwrap_or(0),
        ) {
            return Some(End {
                kind: "Complete",
                reason: "SuccessPolicy".to_owned(),
                message,
            });
        }
        if self.spec.backoff_limit_per_index.is_some() {
            let (lost, completions) = (
                self.failed_indexes.len(),
                self.spec.completions.unwrap_or(0),
            );
            let most = self
                .spec
                .max_failed_indexes
                .and_then(|most| usize::try_from(most).ok());
            if most.is_some_and(|most| lost > most) {
                let message = "Job has exceeded the specified maximal number of failed indexes";
                return Some(end("Failed", "MaxFailedIndexesExceeded", message));
            }
            if lost > 0 && count(lost) + succeeded >= completions {
                return Some(end("Failed", "FailedIndexes", "Job has failed indexes"));
            }
        }
        let limit =
            self.spec
                .backoff_limit
                .unwrap_or(if self.spec.backoff_limit_per_index.is_some() {
                    i32::MAX
                } else {
                    6
                });
        let done = self
            .spec
            .completions
            .is_some_and(|completions| succeeded >= completions);
        if !done && (failed > limit || self.restarts_exceed(limit)) {
            return Some(end(
                "Failed",
                "BackoffLimitExceeded",
                "Job has reached the specified backoff limit",
            ));
        }
        if let (Some(seconds), Some(Time(began)), false) = (
            self.spec.active_deadline_seconds,
            status.and_then(|status| status.start_time),
            self.is_suspended(),
        ) {
            let passed = self.now.duration_since(began);
            let limit = SignedDuration::from_secs(seconds);
            if passed >= limit {
                return Some(end(
                    "Failed",
                    "DeadlineExceeded",
                    "Job was active longer than specified deadline",
                ));
            }
            self.later((limit - passed).unsigned_abs());
        }
        None
    }

    /// Whether pods that restart their containers themselves have done so too often.
    fn restarts_exceed(&self, limit: i32) -> bool {
        let template = self.spec.template.spec.as_ref();
        if template.and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let restarts: i32 = self
            .pods
            .iter()
            .filter(|pod| matches!(pods::phase(&pod.pod), "Running" | "Pending"))
            .filter_map(|pod| pod.pod.status.as_ref())
            .flat_map(|status| {
                status
                    .init_container_statuses
                    .iter()
                    .chain(&status.container_statuses)
                    .flatten()
            })
            .map(|container| container.restart_count)
            .sum();
        if limit == 0 {
            restarts > 0
        } else {
            restarts >= limit
        }
    }

    fn active(&self) -> Vec<&Tracked> {
        self.pods
            .iter()
            .filter(|pod| pods::is_active(&pod.pod))
            .collect()
    }

    fn terminating(&self) -> usize {
        self.pods
            .iter()
            .filter(|pod| pods::is_terminating(&pod.pod) && !pods::is_finished(&pod.pod))
            .count()
    }

    /// Whether the work is done.
    fn completion(&self, succeeded: i32) -> Option<End> {
        let done = match self.spec.completions {
            Some(completions) => succeeded >= completions,
            // Without a number, one success means that all are done, when none works any more.
            None => succeeded > 0 && self.active().is_empty() && self.terminating() == 0,
        };
        done.then(|| End {
            kind: "Complete",
            reason: "CompletionsReached".to_owned(),
            message: "Reached expected number of succeeded pods".to_owned(),
        })
    }

    /// Makes or deletes pods until as many work as should.
    async fn manage(&mut self, succeeded: i32) -> Option<ReconcileError> {
        let active = self.active().len();
        let parallelism = usize::try_from(self.spec.parallelism.unwrap_or(1)).unwrap_or(0);
        let wanted = match self.spec.completions {
            Some(completions) => usize::try_from(completions - succeeded)
                .unwrap_or(0)
                .min(parallelism),
            None if succeeded > 0 => active.min(parallelism),
            None => parallelism,
        };
        if active > wanted {
            return self.delete_active(active - wanted).await;
        }
        let held = if self.waits_for_the_end() {
            self.terminating()
        } else {
            0
        };
        let missing = wanted.saturating_sub(active + held).min(BURST);
        if missing == 0 {
            return None;
        }
        if let Some(wait) = self.backoff() {
            self.later(wait);
            return None;
        }
        let bodies = self.new_pods(missing);
        self.memory
            .expectations
            .expect_creations(self.ctx.env(), self.key, bodies.len());
        let (made, failed) = slow_start(bodies.len(), |n| {
            create_pod(self.ctx, &self.object, &bodies[n])
        })
        .await;
        self.memory
            .expectations
            .created(self.key, bodies.len() - made);
        failed
            .filter(|status| !common::namespace_is_going(status))
            .map(ReconcileError::from)
    }

    /// How long to wait after the last failure.
    fn backoff(&self) -> Option<Duration> {
        let failures = self.memory.failures.lock();
        let failures = failures.get(self.key)?;
        let last = failures.last.filter(|_| failures.count > 0)?;
        let factor = 1u32.checked_shl(failures.count - 1).unwrap_or(u32::MAX);
        let wait = BACKOFF
            .checked_mul(factor)
            .unwrap_or(LONGEST_BACKOFF)
            .min(LONGEST_BACKOFF);
        let passed = self
            .now
            .duration_since(last)
            .max(SignedDuration::ZERO)
            .unsigned_abs();
        wait.checked_sub(passed).filter(|left| !left.is_zero())
    }

    fn new_pods(&self, missing: usize) -> Vec<Pod> {
        let mut pod = pods::from_template(
            &self.spec.template,
            self.object.name(),
            managed_by(&self.object),
        );
        pod.metadata
            .finalizers
            .get_or_insert_default()
            .push(TRACKING.to_owned());
        if !self.is_indexed() {
            return vec![pod; missing];
        }
        let taken: BTreeSet<i32> = self
            .pods
            .iter()
            .filter(|pod| {
                pods::is_active(&pod.pod)
                    || (self.waits_for_the_end() && !pods::is_finished(&pod.pod))
            })
            .filter_map(Tracked::index)
            .collect();
        (0..self.spec.completions.unwrap_or(0))
            .filter(|index| {
                !taken.contains(index)
                    && !self.completed.contains(*index)
                    && !self.failed_indexes.contains(*index)
            })
            .take(missing)
            .map(|index| self.indexed(pod.clone(), index))
            .collect()
    }

    /// A pod that knows its index: by annotation, label, host name and environment.
    fn indexed(&self, mut pod: Pod, index: i32) -> Pod {
        let name = self.object.name();
        pod.metadata.generate_name = Some(format!("{name}-{index}-"));
        for map in [&mut pod.metadata.annotations, &mut pod.metadata.labels] {
            map.get_or_insert_default()
                .insert(COMPLETION_INDEX.to_owned(), index.to_string());
        }
        if self.spec.backoff_limit_per_index.is_some() {
            let mine = self
                .pods
                .iter()
                .filter(|pod| pod.index() == Some(index) && self.has_failed(&pod.pod));
            let counted = mine.filter(|pod| policy::judge(&self.spec, &pod.pod) != Verdict::Ignore);
            let failures = counted
                .map(|pod| pod.earlier_failures() + 1)
                .max()
                .unwrap_or(0);
            let annotations = pod.metadata.annotations.get_or_insert_default();
            annotations.insert(INDEX_FAILURES.to_owned(), failures.to_string());
        }
        let variable = EnvVar {
            name: "JOB_COMPLETION_INDEX".to_owned(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    field_path: format!("metadata.labels['{COMPLETION_INDEX}']"),
                    api_version: None,
                }),
                ..EnvVarSource::default()
            }),
            value: None,
        };
        if let Some(spec) = &mut pod.spec {
            spec.hostname
                .get_or_insert_with(|| format!("{name}-{index}"));
            for container in spec
                .init_containers
                .iter_mut()
                .flatten()
                .chain(&mut spec.containers)
            {
                let variables = container.env.get_or_insert_default();
                if !variables.iter().any(|known| known.name == variable.name) {
                    variables.push(variable.clone());
                }
            }
        }
        pod
    }

    /// Deletes so many of the pods that work, those that are missed least first.
    async fn delete_active(&mut self, most: usize) -> Option<ReconcileError> {
        let mut victims: Vec<Arc<Pod>> = self
            .active()
            .into_iter()
            .map(|pod| pod.pod.clone())
            .collect();
        if victims.is_empty() {
            return None;
        }
        let none = BTreeMap::new();
        victims.sort_by(|a, b| pods::deletion_order(a, b, &none, self.now));
        victims.truncate(most.min(BURST));
        let uids: Vec<String> = victims
            .iter()
            .filter_map(|pod| pod.metadata.uid.clone())
            .collect();
        self.memory
            .expectations
            .expect_deletions(self.ctx.env(), self.key, uids);
        let deleted = futures::future::join_all(
            victims
                .iter()
                .map(async |pod| (pod, delete_pod(self.ctx, &self.object, pod).await)),
        )
        .await;
        let mut failure = None;
        for (pod, result) in deleted {
            if let Err(status) = result {
                self.memory
                    .expectations
                    .deleted(self.key, pod.metadata.uid.as_deref().unwrap_or_default());
                if !status.is_not_found() {
                    failure = failure.or(Some(status.into()));
                }
            }
        }
        failure
    }

    fn set(&mut self, next: JobCondition) -> bool {
        let conditions = self.status().conditions.get_or_insert_default();
        match conditions
            .iter_mut()
            .find(|known| known.type_ == next.type_)
        {
            Some(known) if known.status == next.status => false,
            Some(known) => {
                *known = next;
                true
            }
            None => {
                conditions.push(next);
                true
            }
        }
    }

    fn note_suspension(&mut self) {
        let now = self.now;
        let suspended = condition(self.job.status.as_ref(), "Suspended").is_some();
        if self.is_suspended() && !suspended {
            self.set(holds(
                "Suspended",
                "True",
                "JobSuspended",
                "Job suspended",
                now,
            ));
            self.status().start_time = None;
            self.ctx
                .events()
                .normal(&self.object, "Suspended", "Job suspended");
        } else if !self.is_suspended() && suspended {
            self.set(holds(
                "Suspended",
                "False",
                "JobResumed",
                "Job resumed",
                now,
            ));
            self.status().start_time = Some(Time(now));
            self.ctx
                .events()
                .normal(&self.object, "Resumed", "Job resumed");
        }
    }

    /// Says what the Job is going to end as, before its last pods have gone.
    fn note_interim(&mut self, end: &End) {
        let kind = if end.kind == "Failed" {
            "FailureTarget"
        } else {
            "SuccessCriteriaMet"
        };
        self.set(holds(kind, "True", &end.reason, &end.message, self.now));
    }

    fn has_uncounted(&self) -> bool {
        !self.succeeded.is_empty() || !self.failed.is_empty() || !self.ignored.is_empty()
    }

    fn write_counts(&mut self) {
        let active = self.active();
        let ready = count(active.iter().filter(|pod| pods::is_ready(&pod.pod)).count());
        let (active, terminating) = (count(active.len()), count(self.terminating()));
        let list = |uids: &BTreeSet<String>| {
            Some(uids.iter().cloned().collect::<Vec<_>>()).filter(|uids| !uids.is_empty())
        };
        let uncounted = UncountedTerminatedPods {
            succeeded: list(&self.succeeded),
            failed: list(&self.failed),
        };
        let completed = self
            .is_indexed()
            .then(|| (self.completed.to_string(), count(self.completed.len())));
        let lost = self
            .spec
            .backoff_limit_per_index
            .map(|_| self.failed_indexes.to_string());
        let status = self.status();
        status.failed_indexes = lost;
        status.active = Some(active).filter(|active| *active != 0);
        status.ready = Some(ready);
        status.terminating = Some(terminating);
        status.uncounted_terminated_pods = Some(uncounted);
        if let Some((text, number)) = completed {
            status.completed_indexes = Some(text).filter(|text| !text.is_empty());
            status.succeeded = Some(number).filter(|number| *number != 0);
        }
    }

    /// Takes the finalizers off the pods whose uids are written down.
    async fn release(&mut self) -> Result<(), ReconcileError> {
        let done = |uid: &str| {
            self.succeeded.contains(uid) || self.failed.contains(uid) || self.ignored.contains(uid)
        };
        let due: Vec<usize> = (0..self.pods.len())
            .filter(|n| self.pods[*n].tracked && done(self.pods[*n].uid()))
            .collect();
        let results = futures::future::join_all(due.iter().map(async |n| {
            let pod = &self.pods[*n].object;
            // Expected before it is done: the watch may be faster than the answer.
            self.memory
                .released
                .lock()
                .entry(self.key.clone())
                .or_default()
                .insert(pod.uid().to_owned());
            let removed = remove_finalizer(self.ctx, pod).await;
            if removed.is_err()
                && let Some(uids) = self.memory.released.lock().get_mut(self.key)
            {
                uids.remove(pod.uid());
            }
            removed
        }))
        .await;
        let mut errors = Vec::new();
        for (n, result) in due.into_iter().zip(results) {
            match result {
                Ok(()) => self.pods[n].tracked = false,
                Err(error) => errors.push(error),
            }
        }
        ReconcileError::from_many(errors)
    }

    /// Says that the Job has ended, when its last pod has and all are counted.
    fn finish(&mut self, end: &End) {
        let open = self.pods.iter().any(|pod| !pods::is_finished(&pod.pod))
            || self.pods.iter().any(|pod| pod.tracked);
        if open || !self.succeeded.is_empty() || !self.failed.is_empty() {
            return;
        }
        let now = self.now;
        self.set(holds(end.kind, "True", &end.reason, &end.message, now));
        if end.kind == "Complete" {
            self.status().completion_time = Some(Time(now));
        }
    }

    async fn write(&mut self) -> Result<(), ReconcileError> {
        let jobs = self
            .ctx
            .client()
            .resource(&JOBS)
            .namespace(self.object.namespace());
        let written = jobs.update_status(&self.job).await?;
        self.memory
            .written
            .lock()
            .insert(self.key.clone(), written.revision());
        self.job.metadata = written.decode::<Job>()?.metadata.clone();
        Ok(())
    }

    /// Tells of the end.
    fn tell(&self) {
        match super::finished(self.job.status.as_ref()) {
            Some(end) if end.type_ == "Complete" => {
                self.ctx
                    .events()
                    .normal(&self.object, "Completed", "Job completed");
            }
            Some(end) => {
                let reason = end.reason.clone().unwrap_or_default();
                self.ctx.events().warning(
                    &self.object,
                    &reason,
                    end.message.clone().unwrap_or_default(),
                );
            }
            None => {}
        }
    }
}

/// When a pod's containers ended.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let containers = pod.status.as_ref()?.container_statuses.iter().flatten();
    let ended = containers.filter_map(|container| {
        container
            .state
            .as_ref()?
            .terminated
            .as_ref()?
            .finished_at
            .as_ref()
            .map(|time| time.0)
    });
    ended
        .max()
        .or_else(|| pod.metadata.deletion_timestamp.as_ref().map(|time| time.0))
}
