//! DaemonSets: a pod on each node that should have one.
//!
//! Each pod is made for its node: it requires that node by name, and the scheduler gives it there. Versions of the template are kept as
//! ControllerRevisions, and pods are labelled with the version that they are of.

mod history;
mod nodes;
#[cfg(test)]
mod tests;
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError, owner_keys};
use orlop_core::env::Moment;
use orlop_core::informer::Notice;
use orlop_core::object::{Object, ObjectKey};
use orlop_core::resource::Resource;
use orlop_core::status::Status;
use parking_lot::Mutex;

use self::history::is_of;
use self::nodes::{Place, Plan};
use crate::common::batch::slow_start;
use crate::common::expectations::Expectations;
use crate::common::ownership::{claim, index_owners, subject_keys};
use crate::common::resources::{NODES, PODS};
use crate::common::{self, pods};
use crate::replicaset::{create_pod, delete_pod};

pub(crate) const DAEMON_SETS: Resource =
    Resource::namespaced("apps", "v1", "daemonsets", "DaemonSet");
pub(crate) const REVISIONS: Resource =
    Resource::namespaced("apps", "v1", "controllerrevisions", "ControllerRevision");

/// The label that says which version a pod is of.
pub const HASH: &str = "controller-revision-hash";
/// The label with the generation of the template, for older clients.
const GENERATION: &str = "pod-template-generation";
/// The most pods that one reconcile makes, and deletes.
const BURST: usize = 250;
/// How long a node waits after its pod failed: at first, …
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// … and at most.
const MAX_BACKOFF: Duration = Duration::from_secs(15 * 60);

/// Keeps a pod of each DaemonSet on the nodes that should have one.
#[derive(Debug, Default)]
pub struct DaemonSetController {
    expectations: Arc<Expectations>,
    /// Until when nodes wait whose pods failed, and how long the last time.
    failed: Mutex<BTreeMap<(ObjectKey, String), (Moment, Duration)>>,
}

impl DaemonSetController {
    /// The controller.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// What has to be done.
#[derive(Default)]
struct Work {
    create: Vec<String>,
    delete: Vec<Arc<Pod>>,
    /// How long until a failed pod may be replaced.
    wait: Option<Duration>,
}

/// What there is.
struct World {
    /// Where pods belong, by the name of the node.
    places: BTreeMap<String, Place>,
    pods: Vec<Arc<Pod>>,
}

impl World {
    /// The pods on each node, or for it.
    fn by_node(&self) -> BTreeMap<&str, Vec<Arc<Pod>>> {
        let mut by_node: BTreeMap<&str, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in &self.pods {
            if let Some(node) = nodes::target(pod) {
                by_node.entry(node).or_default().push(pod.clone());
            }
        }
        by_node
    }
}

#[async_trait]
impl Controller for DaemonSetController {
    fn name(&self) -> &str {
        "daemonset-controller"
    }

    fn identity(&self) -> &str {
        "daemon-set-controller"
    }

    fn interests(&self) -> Interests {
        let (own, expectations) = (self.expectations.clone(), self.expectations.clone());
        Interests::new()
            .watches(DAEMON_SETS, move |_, notice| {
                subject_keys(notice, |gone| own.forget(gone))
            })
            .watches(PODS, move |_, notice| observe(&expectations, notice))
            .watches(NODES, |ctx, notice| {
                if !concerns(notice) {
                    return Vec::new();
                }
                let all = ctx.store(&DAEMON_SETS).list();
                all.iter().map(Object::key).collect()
            })
            .reads(REVISIONS)
    }

    fn workers(&self) -> usize {
        2
    }

    fn prepare(&self, ctx: &Context) {
        index_owners(&ctx.informer(&PODS));
        index_owners(&ctx.informer(&REVISIONS));
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let Some(object) = ctx.store(&DAEMON_SETS).get(key) else {
            self.expectations.forget(key);
            self.failed.lock().retain(|(of, _), _| of != key);
            return Ok(Action::Done);
        };
        let set = object.decode::<DaemonSet>()?;
        let Some(spec) = &set.spec else {
            return Ok(Action::Done);
        };
        if common::selects_everything(&spec.selector) {
            let why = "This daemon set is selecting all pods. A non-empty selector is required.";
            ctx.events().warning(&object, "SelectingAll", why);
            return Ok(Action::Done);
        }
        let Some(selector) = common::selector(Some(&spec.selector)) else {
            return Ok(Action::Done);
        };
        if object.is_terminating() {
            return Ok(Action::Done);
        }
        let in_sync = self.expectations.met(ctx.env(), key);
        let history = history::history(ctx, &object, &set, &selector).await?;
        let now = common::now(ctx.env());
        if history.collisions.is_some() {
            let next = DaemonSetStatus {
                collision_count: history.collisions,
                ..set.status.clone().unwrap_or_default()
            };
            write_status(ctx, &object, &set, next).await?;
            return Ok(Action::RequeueAfter(Duration::from_millis(100)));
        }
        let hash = history.hash.clone();
        let plan = Plan::new(&set);
        let mut world = World {
            places: BTreeMap::new(),
            pods: Vec::new(),
        };
        for node in ctx.store(&NODES).list() {
            let place = plan.place(&*node.decode::<Node>()?);
            world.places.insert(node.name().to_owned(), place);
        }
        for pod in claim(ctx, &object, &DAEMON_SETS, &PODS, &selector).await? {
            world.pods.push(pod.decode::<Pod>()?);
        }
        let min_ready = spec.min_ready_seconds.unwrap_or(0);
        let (mut outcome, mut wait) = (Ok(()), None);
        if in_sync {
            let work = self.work(ctx, key, &object, &set, &world, &hash);
            wait = work.wait;
            let all = &world.pods;
            outcome = self
                .do_it(ctx, key, &object, &set, &plan, &hash, work)
                .await;
            history.clean_up(ctx, &set, all).await?;
        }
        let next = status(&set, &world, &hash, min_ready, now);
        write_status(ctx, &object, &set, next).await?;
        outcome?;
        let ready = pods::next_available(world.pods.iter().map(|pod| &**pod), min_ready, now);
        // Pods that are ready become available, and failed ones may be replaced, by the passing of time alone.
        Ok(match wait.into_iter().chain(ready).min() {
            Some(wait) => Action::RequeueAfter(wait),
            None => Action::Done,
        })
    }
}

impl DaemonSetController {
    /// What has to be done: pods where none are, none where they should not be, and the next step of an update.
    fn work(
        &self,
        ctx: &Context,
        key: &ObjectKey,
        object: &Object,
        set: &DaemonSet,
        world: &World,
        hash: &str,
    ) -> Work {
        let by_node = world.by_node();
        let desired = world
            .places
            .values()
            .filter(|place| **place == Place::Wanted)
            .count();
        let limits = update::limits(set, desired);
        let surges = limits.is_some_and(|limits| limits.surge > 0);
        let mut work = Work::default();
        for (node, place) in &world.places {
            let on = by_node.get(node.as_str()).map_or(&[][..], Vec::as_slice);
            match place {
                Place::Wanted if on.is_empty() => work.create.push(node.clone()),
                Place::Unwanted => {
                    let there = on.iter().filter(|pod| !pods::is_terminating(pod));
                    work.delete.extend(there.cloned());
                }
                _ => self.tidy(ctx, key, object, node, on, hash, surges, &mut work),
            }
        }
        // For nodes that are gone: those that were never given to one would wait for ever.
        for (node, on) in &by_node {
            if !world.places.contains_key(*node) {
                let waiting = on
                    .iter()
                    .filter(|pod| pods::node(pod).is_empty() && !pods::is_terminating(pod));
                work.delete.extend(waiting.cloned());
            }
        }
        if let Some(limits) = limits
            && work.create.is_empty()
            && work.delete.is_empty()
        {
            let wanted = by_node
                .into_iter()
                .filter(|(node, _)| world.places.get(*node) == Some(&Place::Wanted))
                .collect();
            let spec = set.spec.as_ref();
            let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
            let now = common::now(ctx.env());
            let step = update::step(&wanted, hash, limits, min_ready, now);
            work.create.extend(step.create);
            work.delete.extend(step.delete);
        }
        work
    }

    /// Pods that have ended go, and so do those that are more than one.
    #[allow(clippy::too_many_arguments)] // what there is to know about one node
    fn tidy(
        &self,
        ctx: &Context,
        key: &ObjectKey,
        object: &Object,
        node: &str,
        on: &[Arc<Pod>],
        hash: &str,
        surges: bool,
        work: &mut Work,
    ) {
        let mut running = Vec::new();
        for pod in on.iter().filter(|pod| !pods::is_terminating(pod)) {
            let name = ObjectKey::new(object.namespace(), common::name(&pod.metadata));
            match pods::phase(pod) {
                "Failed" => match self.backoff(ctx, key, node) {
                    Some(wait) => work.wait = work.wait.into_iter().chain([wait]).min(),
                    None => {
                        let text = format!(
                            "Found failed daemon pod {name} on node {node}, will try to kill it"
                        );
                        ctx.events().warning(object, "FailedDaemonPod", text);
                        work.delete.push(pod.clone());
                    }
                },
                "Succeeded" => {
                    let text = format!(
                        "Found succeeded daemon pod {name} on node {node}, will try to delete it"
                    );
                    ctx.events().normal(object, "SucceededDaemonPod", text);
                    work.delete.push(pod.clone());
                }
                _ => running.push(pod),
            }
        }
        // The oldest stays; while an update surges, the oldest of each version.
        running.sort_by_key(|pod| {
            let made = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (pods::node(pod).is_empty(), made, pod.metadata.uid.clone())
        });
        let mut kept = BTreeSet::new();
        for pod in running {
            let version = surges && is_of(pod, hash);
            if !kept.insert(version) {
                work.delete.push(pod.clone());
            }
        }
    }

    /// How long a node still waits after its pod failed; `None` if the pod may be replaced, which counts as a failure.
    fn backoff(&self, ctx: &Context, key: &ObjectKey, node: &str) -> Option<Duration> {
        let now = ctx.env().now();
        let mut failed = self.failed.lock();
        let of = (key.clone(), node.to_owned());
        let (until, last) = failed.get(&of).copied().unwrap_or_default();
        if until > now {
            return Some(until.since(now));
        }
        // Who has been well for long enough begins anew.
        let well = now.since(until) > 2 * MAX_BACKOFF;
        let next = if last.is_zero() || well {
            FIRST_BACKOFF
        } else {
            (last * 2).min(MAX_BACKOFF)
        };
        failed.insert(of, (now + next, next));
        None
    }

    #[allow(clippy::too_many_arguments)] // what a pod is made of
    async fn do_it(
        &self,
        ctx: &Context,
        key: &ObjectKey,
        object: &Object,
        set: &DaemonSet,
        plan: &Plan,
        hash: &str,
        mut work: Work,
    ) -> Result<(), ReconcileError> {
        work.create.truncate(BURST);
        work.delete.truncate(BURST);
        // Both kinds are awaited together: what is made is counted, what goes is known by name.
        let uids = work
            .delete
            .iter()
            .filter_map(|pod| pod.metadata.uid.clone());
        self.expectations
            .expect(ctx.env(), key, work.create.len(), uids);
        let targets = &work.create;
        let make = slow_start(targets.len(), |index| async move {
            let pod = plan.pod(object, set, hash, &targets[index]);
            create_pod(ctx, object, &pod).await
        });
        let (made, failure) = make.await;
        self.expectations.created(key, targets.len() - made);
        let mut failure: Option<Status> =
            failure.filter(|status| !common::namespace_is_going(status));
        let deletions = work
            .delete
            .iter()
            .map(async |pod| (pod, delete_pod(ctx, object, pod).await));
        for (pod, result) in futures::future::join_all(deletions).await {
            if let Err(status) = result {
                let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                self.expectations.deleted(key, uid);
                if !status.is_not_found() {
                    failure = failure.or(Some(status));
                }
            }
        }
        failure.map_or(Ok(()), |status| Err(status.into()))
    }
}

/// What a change of a pod means: an expectation crossed off, and the DaemonSets that have to look.
fn observe(expectations: &Expectations, notice: &Notice) -> Vec<ObjectKey> {
    let pod = notice.object();
    let keys = owner_keys(&DAEMON_SETS, notice);
    let gone = matches!(notice, Notice::Deleted { .. }) || pod.is_terminating();
    for key in &keys {
        if gone {
            expectations.deleted(key, pod.uid());
        } else if matches!(notice, Notice::Added { .. }) {
            expectations.created(key, 1);
        }
    }
    keys
}

/// Whether a change of a node may move pods: its labels, its taints, or itself.
fn concerns(notice: &Notice) -> bool {
    let Some(old) = notice.old() else {
        return true;
    };
    let new = notice.object();
    let taints = |node: &Object| {
        let node = node.decode::<Node>().ok();
        node.and_then(|node| node.spec.as_ref().and_then(|spec| spec.taints.clone()))
    };
    matches!(notice, Notice::Deleted { .. })
        || old.uid() != new.uid()
        || old.metadata().labels != new.metadata().labels
        || taints(old) != taints(new)
}

/// The status that fits what was seen.
fn status(
    set: &DaemonSet,
    world: &World,
    hash: &str,
    min_ready: i32,
    now: Timestamp,
) -> DaemonSetStatus {
    let by_node = world.by_node();
    let mut next = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        collision_count: set
            .status
            .as_ref()
            .and_then(|status| status.collision_count),
        conditions: set
            .status
            .as_ref()
            .and_then(|status| status.conditions.clone()),
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for (node, place) in &world.places {
        let on = by_node.get(node.as_str()).map_or(&[][..], Vec::as_slice);
        if *place != Place::Wanted {
            next.number_misscheduled += i32::from(!on.is_empty());
            continue;
        }
        next.desired_number_scheduled += 1;
        if on.is_empty() {
            continue;
        }
        next.current_number_scheduled += 1;
        // Of several, the one that does most counts.
        let best = on.iter().max_by_key(|pod| {
            (
                pods::is_available(pod, min_ready, now),
                pods::is_ready(pod),
                is_of(pod, hash),
            )
        });
        if let Some(pod) = best {
            let live = !pods::is_terminating(pod);
            next.number_ready += i32::from(live && pods::is_ready(pod));
            available += i32::from(live && pods::is_available(pod, min_ready, now));
        }
        updated += i32::from(on.iter().any(|pod| is_of(pod, hash)));
    }
    let unavailable = next.desired_number_scheduled - available;
    let some = |number: i32| Some(number).filter(|number| *number != 0);
    next.updated_number_scheduled = some(updated);
    next.number_available = some(available);
    next.number_unavailable = some(unavailable);
    next
}

/// Writes the status if it says something new.
async fn write_status(
    ctx: &Context,
    object: &Object,
    set: &DaemonSet,
    next: DaemonSetStatus,
) -> Result<(), ReconcileError> {
    if set.status.as_ref() == Some(&next) {
        return Ok(());
    }
    let next = DaemonSet {
        status: Some(next),
        ..set.clone()
    };
    let sets = ctx
        .client()
        .resource(&DAEMON_SETS)
        .namespace(object.namespace());
    match sets.update_status(&next).await {
        Err(status) if !status.is_not_found() => Err(status.into()),
        _ => Ok(()),
    }
}
