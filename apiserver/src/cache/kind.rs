//! The cache of one kind: its objects, its recent history and its watchers.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use orlop_core::object::Object;
use orlop_core::resource::Resource;
use orlop_core::revision::Revision;
use orlop_core::status::Status;
use parking_lot::RwLock;

use super::selection::{Outline, Selection};
use super::watcher::{Queue, Watcher};

/// How much history a kind keeps for watchers that come back: at most so many bytes of objects, …
const HISTORY_BYTES: usize = 16 << 20;
/// … and so many changes.
const HISTORY_EVENTS: usize = 20_000;
/// What a change costs beside the bytes of its objects.
const EVENT_OVERHEAD: usize = 512;

/// One change of one object.
#[derive(Debug)]
pub(crate) struct CacheEvent {
    /// The commit.
    pub(crate) revision: Revision,
    /// The object as it is now; of a deleted one, as it was, at the revision of its deletion.
    pub(crate) object: Object,
    /// The object as it was before.
    pub(crate) previous: Option<Object>,
    /// Whether it was deleted.
    pub(crate) deleted: bool,
}

impl CacheEvent {
    fn cost(&self) -> usize {
        EVENT_OVERHEAD + self.object.stored_json().len()
    }
}

/// The cache of one kind.
pub(crate) struct KindCache {
    resource: Resource,
    state: RwLock<State>,
    last_change: AtomicU64,
    /// Why the objects cannot be read from the store, while that is so.
    unreadable: RwLock<Option<Arc<str>>>,
}

#[derive(Default)]
struct State {
    /// By `namespace/name`, or `name`; in that order.
    objects: BTreeMap<Arc<str>, Object>,
    /// The keys of pods by the node that they are on.
    by_node: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    history: VecDeque<Arc<CacheEvent>>,
    history_bytes: usize,
    /// History begins after this revision.
    floor: Revision,
    watchers: Watchers,
}

/// Watchers by what they want to see, so that a change meets only those whom it may concern.
#[derive(Default)]
struct Watchers {
    next_id: u64,
    all: BTreeMap<u64, Arc<Queue>>,
    by_namespace: HashMap<String, BTreeMap<u64, Arc<Queue>>>,
    by_object: HashMap<String, BTreeMap<u64, Arc<Queue>>>,
    by_node: HashMap<String, BTreeMap<u64, Arc<Queue>>>,
}

/// Where a watcher hangs.
#[derive(Clone, Debug)]
pub(super) enum Bucket {
    All,
    Namespace(String),
    Object(String),
    Node(String),
}

fn object_key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

fn key_of(object: &Object) -> Arc<str> {
    object_key(object.namespace(), object.name()).into()
}

impl Watchers {
    fn bucket(&mut self, bucket: &Bucket) -> &mut BTreeMap<u64, Arc<Queue>> {
        match bucket {
            Bucket::All => &mut self.all,
            Bucket::Namespace(namespace) => self.by_namespace.entry(namespace.clone()).or_default(),
            Bucket::Object(key) => self.by_object.entry(key.clone()).or_default(),
            Bucket::Node(node) => self.by_node.entry(node.clone()).or_default(),
        }
    }

    fn add(&mut self, bucket: &Bucket, queue: Arc<Queue>) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        self.bucket(bucket).insert(id, queue);
        id
    }

    fn remove(&mut self, bucket: &Bucket, id: u64) {
        let left = self.bucket(bucket);
        left.remove(&id);
        if left.is_empty() {
            match bucket {
                Bucket::All => {}
                Bucket::Namespace(namespace) => drop(self.by_namespace.remove(namespace)),
                Bucket::Object(key) => drop(self.by_object.remove(key)),
                Bucket::Node(node) => drop(self.by_node.remove(node)),
            }
        }
    }

    fn tell(&self, event: &Arc<CacheEvent>, key: &str, nodes: [Option<&str>; 2]) {
        self.all.values().for_each(|queue| queue.push(event));
        if !self.by_namespace.is_empty()
            && let Some(watchers) = self.by_namespace.get(event.object.namespace())
        {
            watchers.values().for_each(|queue| queue.push(event));
        }
        if !self.by_object.is_empty()
            && let Some(watchers) = self.by_object.get(key)
        {
            watchers.values().for_each(|queue| queue.push(event));
        }
        if !self.by_node.is_empty() {
            let [now, before] = nodes;
            for node in now
                .into_iter()
                .chain(before.filter(|before| Some(*before) != now))
            {
                if let Some(watchers) = self.by_node.get(node) {
                    watchers.values().for_each(|queue| queue.push(event));
                }
            }
        }
    }

    fn close(&mut self, revision: Revision) {
        let all = std::mem::take(&mut self.all).into_values();
        let rest = [
            &mut self.by_namespace,
            &mut self.by_object,
            &mut self.by_node,
        ];
        let rest = rest
            .into_iter()
            .flat_map(std::mem::take)
            .flat_map(|(_, watchers)| watchers.into_values());
        for queue in all.chain(rest) {
            queue.close(Status::expired(format!(
                "too old resource version: the cache was read anew at {revision}"
            )));
        }
    }
}

impl KindCache {
    pub(super) fn new(resource: Resource) -> Self {
        Self {
            resource,
            state: RwLock::default(),
            last_change: AtomicU64::new(0),
            unreadable: RwLock::default(),
        }
    }

    /// Why the objects cannot be read from the store, if that is so.
    pub(super) fn unreadable(&self) -> Option<Arc<str>> {
        self.unreadable.read().clone()
    }

    /// Says that the objects cannot be read. [`replace`](Self::replace) says that they can.
    pub(super) fn set_unreadable(&self, why: Option<Arc<str>>) {
        *self.unreadable.write() = why;
    }

    /// The resource that the objects are stored as.
    pub(crate) fn resource(&self) -> &Resource {
        &self.resource
    }

    fn indexes_nodes(&self) -> bool {
        self.resource.group.is_empty() && self.resource.plural == "pods"
    }

    fn node_of(&self, object: &Object) -> Option<Arc<str>> {
        if !self.indexes_nodes() {
            return None;
        }
        let outline = object.decode::<Outline>().ok()?;
        let node = outline.0.pointer("/spec/nodeName")?;
        node.as_str().map(Into::into)
    }

    /// An object.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Object> {
        let state = self.state.read();
        if namespace.is_empty() {
            state.objects.get(name).cloned()
        } else {
            state
                .objects
                .get(object_key(namespace, name).as_str())
                .cloned()
        }
    }

    /// All objects in a namespace (or all, for an empty one), in order.
    pub(crate) fn list(&self, namespace: &str) -> Vec<Object> {
        self.select(&Selection::in_namespace(namespace))
    }

    /// The objects that are on a node; none where objects are on none.
    pub(crate) fn on_node(&self, node: &str) -> Vec<Object> {
        let state = self.state.read();
        let keys = state.by_node.get(node).into_iter().flatten();
        keys.filter_map(|key| state.objects.get(key).cloned())
            .collect()
    }

    /// The objects that a selection may choose, in order: those in its namespace, on its node, or of its name. Whether they match its
    /// selectors remains to be asked.
    pub(crate) fn select(&self, selection: &Selection) -> Vec<Object> {
        let state = self.state.read();
        self.candidates(&state, selection)
    }

    fn candidates(&self, state: &State, selection: &Selection) -> Vec<Object> {
        match selection.bucket(self.resource.namespaced, self.indexes_nodes()) {
            Bucket::All => state.objects.values().cloned().collect(),
            Bucket::Object(key) => state
                .objects
                .get(key.as_str())
                .cloned()
                .into_iter()
                .collect(),
            Bucket::Namespace(namespace) => {
                let from: Arc<str> = format!("{namespace}/").into();
                let to: Arc<str> = format!("{namespace}0").into(); // '0' follows '/'
                let range = state
                    .objects
                    .range((Bound::Included(from), Bound::Excluded(to)));
                range.map(|(_, object)| object.clone()).collect()
            }
            Bucket::Node(node) => {
                let keys = state.by_node.get(node.as_str()).into_iter().flatten();
                keys.filter_map(|key| state.objects.get(key).cloned())
                    .collect()
            }
        }
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// The revision of the last change.
    pub(crate) fn last_change(&self) -> Revision {
        Revision(self.last_change.load(Ordering::Acquire))
    }

    /// Begins a watch with what is there: the candidates, the revision that they show (not before `applied`), and what changes after.
    pub(crate) fn watch_from_now(
        self: &Arc<Self>,
        selection: &Arc<Selection>,
        applied: impl Fn() -> Revision,
    ) -> (Vec<Object>, Revision, Watcher) {
        let mut state = self.state.write();
        let initial = self.candidates(&state, selection);
        // Read under the lock: all changes of this kind up to it have been applied here.
        let revision = applied().max(self.last_change());
        let watcher = self.add_watcher(&mut state, selection, Vec::new(), Revision::ZERO);
        (initial, revision, watcher)
    }

    /// Begins a watch after a revision of the past.
    pub(crate) fn watch_from(
        self: &Arc<Self>,
        selection: &Arc<Selection>,
        after: Revision,
    ) -> Result<Watcher, Status> {
        let mut state = self.state.write();
        if after < state.floor {
            return Err(Status::expired(format!(
                "too old resource version: {after} ({})",
                state.floor
            )));
        }
        let start = state
            .history
            .partition_point(|event| event.revision <= after);
        let missed = state.history.range(start..).cloned().collect();
        Ok(self.add_watcher(&mut state, selection, missed, after))
    }

    fn add_watcher(
        self: &Arc<Self>,
        state: &mut State,
        selection: &Arc<Selection>,
        missed: Vec<Arc<CacheEvent>>,
        after: Revision,
    ) -> Watcher {
        let bucket = selection.bucket(self.resource.namespaced, self.indexes_nodes());
        let queue = Arc::new(Queue::new(missed));
        let id = state.watchers.add(&bucket, queue.clone());
        Watcher::new(self.clone(), bucket, id, queue, selection.clone(), after)
    }

    pub(super) fn remove_watcher(&self, bucket: &Bucket, id: u64) {
        self.state.write().watchers.remove(bucket, id);
    }

    /// Replaces everything: the cache was read anew. Watchers must start again.
    pub(super) fn replace(&self, objects: Vec<Object>, revision: Revision) {
        let by_key: BTreeMap<Arc<str>, Object> = objects
            .into_iter()
            .map(|object| (key_of(&object), object))
            .collect();
        let mut by_node: HashMap<Arc<str>, BTreeSet<Arc<str>>> = HashMap::new();
        for (key, object) in &by_key {
            if let Some(node) = self.node_of(object) {
                by_node.entry(node).or_default().insert(key.clone());
            }
        }
        let mut state = self.state.write();
        state.objects = by_key;
        state.by_node = by_node;
        state.history.clear();
        state.history_bytes = 0;
        state.floor = revision;
        self.last_change.store(revision.0, Ordering::Release);
        state.watchers.close(revision);
        self.set_unreadable(None);
    }

    pub(super) fn put(&self, object: Object) {
        let key = key_of(&object);
        let node = self.node_of(&object);
        let mut state = self.state.write();
        let previous = state.objects.insert(key.clone(), object.clone());
        let node_before = previous
            .as_ref()
            .and_then(|previous| self.node_of(previous));
        if node != node_before {
            state.move_node(&key, node_before.as_deref(), node.as_deref());
        }
        let event = Arc::new(CacheEvent {
            revision: object.revision(),
            object,
            previous,
            deleted: false,
        });
        self.record(
            &mut state,
            event,
            &key,
            [node.as_deref(), node_before.as_deref()],
        );
    }

    pub(super) fn delete(&self, key: &str, revision: Revision) {
        let mut state = self.state.write();
        let Some((key, previous)) = state.objects.remove_entry(key) else {
            return;
        };
        let node = self.node_of(&previous);
        state.move_node(&key, node.as_deref(), None);
        let object = previous.with_revision(revision);
        let event = Arc::new(CacheEvent {
            revision,
            object,
            previous: Some(previous),
            deleted: true,
        });
        self.record(&mut state, event, &key, [None, node.as_deref()]);
    }

    fn record(
        &self,
        state: &mut State,
        event: Arc<CacheEvent>,
        key: &str,
        nodes: [Option<&str>; 2],
    ) {
        self.last_change.store(event.revision.0, Ordering::Release);
        state.watchers.tell(&event, key, nodes);
        state.history_bytes += event.cost();
        state.history.push_back(event);
        while state.history_bytes > HISTORY_BYTES || state.history.len() > HISTORY_EVENTS {
            let Some(oldest) = state.history.pop_front() else {
                break;
            };
            state.history_bytes -= oldest.cost();
            state.floor = oldest.revision;
        }
    }
}

impl State {
    fn move_node(&mut self, key: &Arc<str>, from: Option<&str>, to: Option<&str>) {
        if let Some(from) = from
            && let Some(keys) = self.by_node.get_mut(from)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.by_node.remove(from);
            }
        }
        if let Some(to) = to {
            self.by_node
                .entry(to.into())
                .or_default()
                .insert(key.clone());
        }
    }
}
