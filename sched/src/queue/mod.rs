//! [`SchedulingQueue`]: the pods that wait for a node.

mod heap;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use orlop_core::env::Moment;
use orlop_core::object::ObjectKey;
use orlop_core::scheduling::{Actions, ClusterEvent, EventResource, PodInfo, QueuedPod, Subject};

use self::heap::Heap;
use crate::framework::{Framework, PluginSet};

/// How a [`SchedulingQueue`] waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// How long a pod waits after its first failure (`podInitialBackoffSeconds`). Each further one doubles it.
    pub initial_backoff: Duration,
    /// The longest that it waits (`podMaxBackoffSeconds`).
    pub max_backoff: Duration,
    /// When a pod that nothing seems to help is tried again all the same.
    pub max_unschedulable: Duration,
    /// How many events are kept for the pods that are being scheduled while they happen. Past it, such a pod is tried again whatever
    /// happened.
    pub event_limit: usize,
}

impl Default for QueueOptions {
    /// Upstream's: 1 s, 10 s and 5 minutes.
    fn default() -> Self {
        Self {
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(10),
            max_unschedulable: Duration::from_secs(5 * 60),
            event_limit: 10_000,
        }
    }
}

/// How often the pods that nothing seems to help are looked through.
const UNSCHEDULABLE_INTERVAL: Duration = Duration::from_secs(30);

/// How many pods are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depths {
    /// Ready to be tried.
    pub active: usize,
    /// Waiting after a failure.
    pub backoff: usize,
    /// Waiting for an event.
    pub unschedulable: usize,
    /// Held back by a PreEnqueue.
    pub gated: usize,
}

/// A pod that was taken out of the queue to be scheduled.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The pod and its history.
    pub queued: QueuedPod,
    unschedulable_count: u32,
    error_count: u32,
}

impl Attempt {
    /// The pod.
    #[must_use]
    pub const fn pod(&self) -> &Arc<PodInfo> {
        &self.queued.pod
    }

    /// Which try this is; the first is 1.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.queued.attempts
    }
}

#[derive(Debug)]
struct Item {
    attempt: Attempt,
    place: Place,
    /// The plug-ins that refused it last.
    refused_by: PluginSet,
    /// Until when it waits after its last failure.
    backoff_until: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    /// Its place in the order of back-off.
    Backoff(Moment, u64),
    Unschedulable,
    /// Held back by a PreEnqueue.
    Gated,
}

/// The pods that wait for a node, in three parts: those that are ready, in the order of the profile's QueueSort; those that wait for a
/// while after a failure; and those that no try would help until something happens in the cluster.
///
/// What happens while a pod is being scheduled is kept, so that the pod does not miss it. Time is given from outside.
#[derive(Debug)]
pub struct SchedulingQueue {
    frameworks: Arc<BTreeMap<String, Arc<Framework>>>,
    options: QueueOptions,
    items: HashMap<ObjectKey, Item>,
    active: Heap<ObjectKey, QueuedPod>,
    backoff: BTreeMap<(Moment, u64), ObjectKey>,
    /// The unschedulable and the gated ones.
    waiting: BTreeSet<ObjectKey>,
    gated: usize,
    /// By profile and place of a plug-in: how many of the waiting pods it refused.
    refusals: BTreeMap<(String, usize), usize>,
    /// By uid the pods that are being scheduled, and the first event that each has not seen.
    in_flight: BTreeMap<Arc<str>, u64>,
    events: VecDeque<ClusterEvent>,
    /// The number of the first event that is kept.
    first_event: u64,
    next_number: u64,
    next_look: Moment,
}

impl SchedulingQueue {
    /// An empty queue for some profiles, of which there must be one. All are taken to order the queue alike.
    #[must_use]
    pub fn new(frameworks: Arc<BTreeMap<String, Arc<Framework>>>, options: QueueOptions) -> Self {
        Self {
            frameworks,
            options,
            items: HashMap::new(),
            active: Heap::new(),
            backoff: BTreeMap::new(),
            waiting: BTreeSet::new(),
            gated: 0,
            refusals: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            events: VecDeque::new(),
            first_event: 0,
            next_number: 0,
            next_look: Moment::START + UNSCHEDULABLE_INTERVAL,
        }
    }

    /// How many pods are where.
    #[must_use]
    pub fn depths(&self) -> Depths {
        Depths {
            active: self.active.len(),
            backoff: self.backoff.len(),
            unschedulable: self.waiting.len() - self.gated,
            gated: self.gated,
        }
    }

    /// How many of the pods that wait for an event each plug-in refused: profile, place of the plug-in, pods.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.refusals
            .iter()
            .map(|((profile, place), pods)| (profile.as_str(), *place, *pods))
    }

    /// A pod waits for an event, or does so no longer.
    fn tally(&mut self, item: &Item, waits: bool) {
        for place in Framework::places(item.refused_by) {
            let profile = item.attempt.pod().scheduler_name().to_owned();
            let pods = self.refusals.entry((profile, place)).or_default();
            *pods = if waits {
                *pods + 1
            } else {
                pods.saturating_sub(1)
            };
        }
    }

    /// Whether a pod waits here or is being scheduled.
    #[must_use]
    pub fn knows(&self, pod: &PodInfo) -> bool {
        self.items.contains_key(pod.key()) || self.in_flight.contains_key(pod.uid())
    }

    /// A pod that waits here.
    #[must_use]
    pub fn pod(&self, key: &ObjectKey) -> Option<&Arc<PodInfo>> {
        self.items.get(key).map(|item| item.attempt.pod())
    }

    fn framework(&self, pod: &PodInfo) -> Option<Arc<Framework>> {
        self.frameworks.get(pod.scheduler_name()).cloned()
    }

    /// A pod came. It must be one of the profiles'.
    pub fn add(&mut self, pod: Arc<PodInfo>, now: Moment) {
        let key = pod.key().clone();
        self.detach(&key);
        let queued = QueuedPod {
            pod,
            since: now,
            first_seen: now,
            attempts: 0,
        };
        let attempt = Attempt {
            queued,
            unschedulable_count: 0,
            error_count: 0,
        };
        let item = Item {
            attempt,
            place: Place::Active,
            refused_by: 0,
            backoff_until: Moment::START,
        };
        self.enqueue(key, item);
    }

    /// A waiting pod changed.
    pub fn update(&mut self, pod: Arc<PodInfo>, now: Moment) {
        let key = pod.key().clone();
        if self.in_flight.contains_key(pod.uid()) && !self.items.contains_key(&key) {
            // Its attempt shall see this when it fails.
            let event = ClusterEvent {
                resource: EventResource::TargetPod,
                actions: Actions::UPDATE,
                subject: Subject::Pod {
                    old: None,
                    new: Some(pod),
                },
            };
            self.remember(event);
            return;
        }
        let Some(mut item) = self.items.remove(&key) else {
            self.add(pod, now);
            return;
        };
        if item.attempt.pod().uid() != pod.uid() {
            // Made anew under the same name.
            self.items.insert(key, item);
            self.add(pod, now);
            return;
        }
        let old = std::mem::replace(&mut item.attempt.queued.pod, pod.clone());
        match item.place {
            Place::Active => {
                self.items.insert(key.clone(), item);
                self.detach(&key)
                    .into_iter()
                    .for_each(|item| self.enqueue(key.clone(), item));
            }
            Place::Backoff(..) => {
                self.items.insert(key, item);
            }
            Place::Unschedulable | Place::Gated => {
                let event = ClusterEvent {
                    resource: EventResource::TargetPod,
                    actions: changes(&old, &pod),
                    subject: Subject::Pod {
                        old: Some(old),
                        new: Some(pod),
                    },
                };
                let helps = !event.actions.is_empty() && self.helps(&item, &event);
                self.items.insert(key.clone(), item);
                if helps {
                    self.requeue(&key, now);
                }
            }
        }
    }

    /// A pod went, or got a node from somebody.
    pub fn delete(&mut self, key: &ObjectKey) {
        self.detach(key);
    }

    /// Takes the next pod. It counts as being scheduled until [`done`](Self::done) or
    /// [`add_unschedulable`](Self::add_unschedulable).
    pub fn pop(&mut self, now: Moment) -> Option<Attempt> {
        self.flush(now);
        if self.active.len() == 0 {
            // Rather than idle, try a pod whose wait is not over. Not one after an error: its wait spares whatever is broken.
            let early = self.backoff.values().find(|key| {
                self.items
                    .get(*key)
                    .is_some_and(|item| item.refused_by != 0)
            });
            if let Some(key) = early.cloned()
                && let Some(item) = self.detach(&key)
            {
                self.enqueue(key, item);
            }
        }
        let compare = comparison(&self.frameworks);
        let (key, _) = self.active.pop(compare)?;
        let mut item = self.items.remove(&key)?;
        item.attempt.queued.attempts += 1;
        let uid = item.attempt.pod().uid().clone();
        self.in_flight
            .insert(uid, self.first_event + self.events.len() as u64);
        Some(item.attempt)
    }

    /// A pod's scheduling is over; it will not come back here.
    pub fn done(&mut self, pod: &PodInfo) {
        self.in_flight.remove(pod.uid());
        self.trim();
    }

    /// A pod found no node: it waits for an event that means something to one of the plug-ins that refused it, or only for a while if
    /// none did.
    ///
    /// `pod` is the pod as it is now.
    pub fn add_unschedulable(
        &mut self,
        mut attempt: Attempt,
        pod: Arc<PodInfo>,
        refused_by: PluginSet,
        now: Moment,
    ) {
        let key = pod.key().clone();
        let Some(seen) = self.in_flight.remove(pod.uid()) else {
            return;
        };
        if self.items.contains_key(&key) {
            // It came anew in the meantime.
            self.trim();
            return;
        }
        attempt.queued.pod = pod;
        attempt.queued.since = now;
        let failures = if refused_by == 0 {
            attempt.error_count += 1;
            attempt.error_count
        } else {
            attempt.unschedulable_count += 1;
            attempt.error_count = 0;
            attempt.unschedulable_count
        };
        let backoff_until = now + self.backoff_after(failures);
        let item = Item {
            attempt,
            place: Place::Unschedulable,
            refused_by,
            backoff_until,
        };
        let missed = seen < self.first_event;
        let skip = seen.saturating_sub(self.first_event) as usize;
        let helped = refused_by == 0
            || missed
            || self
                .events
                .iter()
                .skip(skip)
                .any(|event| self.helps(&item, event));
        self.tally(&item, true);
        self.items.insert(key.clone(), item);
        self.waiting.insert(key.clone());
        if helped {
            self.requeue(&key, now);
        }
        self.trim();
    }

    /// Something happened: brings back the pods that it may help, and keeps it for those that are being scheduled.
    pub fn happened(&mut self, event: ClusterEvent, now: Moment) -> usize {
        let interested: BTreeMap<&str, (&Arc<Framework>, PluginSet)> = self
            .frameworks
            .iter()
            .map(|(name, framework)| (name.as_str(), (framework, framework.interested(&event))))
            .filter(|(_, (_, set))| *set != 0)
            .collect();
        let helped: Vec<ObjectKey> = if interested.is_empty() {
            Vec::new()
        } else {
            let helps = |key: &&ObjectKey| {
                self.items.get(*key).is_some_and(|item| {
                    let pod = item.attempt.pod();
                    interested
                        .get(pod.scheduler_name())
                        .is_some_and(|(framework, set)| {
                            framework.helps(pod, item.refused_by, *set, &event)
                                && concerns(pod, &event)
                        })
                })
            };
            self.waiting.iter().filter(helps).cloned().collect()
        };
        for key in &helped {
            self.requeue(key, now);
        }
        self.remember(event);
        helped.len()
    }

    /// Brings pods back at once, whatever they wait for.
    pub fn activate(&mut self, keys: &[ObjectKey]) {
        for key in keys {
            if let Some(item) = self.detach(key) {
                self.enqueue(key.clone(), item);
            }
        }
    }

    /// Brings back the pods whose wait is over.
    pub fn flush(&mut self, now: Moment) {
        while let Some(((until, _), key)) = self
            .backoff
            .first_key_value()
            .map(|(at, key)| (*at, key.clone()))
        {
            if until > now {
                break;
            }
            if let Some(item) = self.detach(&key) {
                self.enqueue(key, item);
            }
        }
        if self.next_look <= now {
            self.next_look = now + UNSCHEDULABLE_INTERVAL;
            let limit = self.options.max_unschedulable;
            let old: Vec<ObjectKey> = self
                .waiting
                .iter()
                .filter(|key| {
                    self.items.get(*key).is_some_and(|item| {
                        item.place == Place::Unschedulable
                            && now.since(item.attempt.queued.since) > limit
                    })
                })
                .cloned()
                .collect();
            for key in old {
                self.requeue(&key, now);
            }
        }
    }

    /// When [`flush`](Self::flush) will have something to do, if nothing happens before.
    #[must_use]
    pub fn next_flush(&self) -> Option<Moment> {
        let backoff = self.backoff.first_key_value().map(|((until, _), _)| *until);
        let look = (self.waiting.len() > self.gated).then_some(self.next_look);
        backoff.into_iter().chain(look).min()
    }

    /// How long to wait after so many failures.
    fn backoff_after(&self, failures: u32) -> Duration {
        let factor = 1u32
            .checked_shl(failures.saturating_sub(1))
            .unwrap_or(u32::MAX);
        self.options
            .initial_backoff
            .saturating_mul(factor)
            .min(self.options.max_backoff)
    }

    fn helps(&self, item: &Item, event: &ClusterEvent) -> bool {
        let pod = item.attempt.pod();
        let Some(framework) = self.framework(pod) else {
            return false;
        };
        concerns(pod, event)
            && framework.helps(pod, item.refused_by, framework.interested(event), event)
    }

    /// Brings a pod back, after what is left of its back-off.
    fn requeue(&mut self, key: &ObjectKey, now: Moment) {
        let Some(mut item) = self.detach(key) else {
            return;
        };
        if item.backoff_until > now {
            self.next_number += 1;
            let at = (item.backoff_until, self.next_number);
            item.place = Place::Backoff(at.0, at.1);
            self.backoff.insert(at, key.clone());
            self.items.insert(key.clone(), item);
        } else {
            self.enqueue(key.clone(), item);
        }
    }

    /// Puts a pod among those that are ready, unless a PreEnqueue holds it back.
    fn enqueue(&mut self, key: ObjectKey, mut item: Item) {
        let held = match self.framework(item.attempt.pod()) {
            Some(framework) => framework
                .pre_enqueue(item.attempt.pod())
                .err()
                .map(|(place, _)| place),
            None => None,
        };
        if let Some(place) = held {
            item.place = Place::Gated;
            item.refused_by = 1 << place;
            self.tally(&item, true);
            self.waiting.insert(key.clone());
            self.gated += 1;
        } else {
            item.place = Place::Active;
            self.active.push(
                key.clone(),
                item.attempt.queued.clone(),
                comparison(&self.frameworks),
            );
        }
        self.items.insert(key, item);
    }

    /// Takes a pod out of wherever it waits.
    fn detach(&mut self, key: &ObjectKey) -> Option<Item> {
        let item = self.items.remove(key)?;
        match item.place {
            Place::Active => {
                self.active.remove(key, comparison(&self.frameworks));
            }
            Place::Backoff(until, number) => {
                self.backoff.remove(&(until, number));
            }
            Place::Unschedulable => {
                self.waiting.remove(key);
                self.tally(&item, false);
            }
            Place::Gated => {
                self.waiting.remove(key);
                self.tally(&item, false);
                self.gated -= 1;
            }
        }
        Some(item)
    }

    /// Keeps an event for the pods that are being scheduled.
    fn remember(&mut self, event: ClusterEvent) {
        if self.in_flight.is_empty() {
            return;
        }
        self.events.push_back(event);
        if self.events.len() > self.options.event_limit {
            self.events.pop_front();
            self.first_event += 1;
        }
    }

    /// Forgets the events that every pod being scheduled came after.
    fn trim(&mut self) {
        let next = self.first_event + self.events.len() as u64;
        let needed = self.in_flight.values().copied().min().unwrap_or(next);
        while self.first_event < needed && self.events.pop_front().is_some() {
            self.first_event += 1;
        }
    }
}

/// Whether an event may be something to a pod at all: a change of another waiting pod is not, nor is what the pod itself gave back.
fn concerns(pod: &PodInfo, event: &ClusterEvent) -> bool {
    let Subject::Pod { old, new } = &event.subject else {
        return true;
    };
    let itself = new
        .as_ref()
        .or(old.as_ref())
        .is_some_and(|about| about.uid() == pod.uid());
    match event.resource {
        EventResource::TargetPod => itself,
        _ => !itself,
    }
}

/// The order of the queue: that of any profile, since all have the same.
fn comparison(
    frameworks: &BTreeMap<String, Arc<Framework>>,
) -> impl Fn(&QueuedPod, &QueuedPod) -> Ordering {
    move |a, b| {
        frameworks
            .values()
            .next()
            .map_or(Ordering::Equal, |framework| framework.compare(a, b))
    }
}

/// What changed about a pod, as far as it may make it schedulable.
pub(crate) fn changes(old: &PodInfo, new: &PodInfo) -> Actions {
    let mut actions = Actions::NONE;
    if old.labels() != new.labels() {
        actions |= Actions::UPDATE_POD_LABEL;
    }
    let (before, after) = (old.requests(), new.requests());
    if after.milli_cpu < before.milli_cpu
        || after.memory < before.memory
        || after.ephemeral_storage < before.ephemeral_storage
        || before
            .scalar
            .iter()
            .any(|(name, amount)| after.scalar(name) < *amount)
    {
        actions |= Actions::UPDATE_POD_SCALE_DOWN;
    }
    if old.constraints().tolerations != new.constraints().tolerations {
        actions |= Actions::UPDATE_POD_TOLERATION;
    }
    if !old.constraints().scheduling_gates.is_empty()
        && new.constraints().scheduling_gates.is_empty()
    {
        actions |= Actions::UPDATE_POD_GATES_ELIMINATED;
    }
    actions
}
