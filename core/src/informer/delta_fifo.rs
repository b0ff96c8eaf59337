//! [`DeltaFifo`]: what happened to each object since somebody last looked, in order of first mention.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::indexer::Indexer;
use crate::env::Flag;
use crate::object::{Object, ObjectKey};

/// What a [`Delta`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeltaKind {
    /// A watch said that the object appeared.
    Added,
    /// A watch said that the object changed.
    Updated,
    /// The object went. The item may be a [`Tombstone`].
    Deleted,
    /// A list had the object; it may be known already, and may be unchanged.
    Replaced,
    /// Nothing happened; the object is shown again because a resync was asked for.
    Sync,
}

/// The mark of an object whose deletion nobody saw: it was known, and a later list did not have it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tombstone {
    /// The object's key.
    pub key: ObjectKey,
    /// How it last looked to us, which may not be how it last looked.
    pub last_known: Object,
}

/// What a [`Delta`] is about.
#[derive(Clone, Debug, PartialEq)]
pub enum DeltaItem {
    /// The object as it is now (or was last, for a deletion that was seen).
    Object(Object),
    /// A deletion that was not seen.
    Tombstone(Tombstone),
}

impl DeltaItem {
    /// The object, or how it last looked to us.
    #[must_use]
    pub fn object(&self) -> &Object {
        match self {
            Self::Object(object) => object,
            Self::Tombstone(tombstone) => &tombstone.last_known,
        }
    }
}

/// One thing that happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// What happened.
    pub kind: DeltaKind,
    /// To what.
    pub item: DeltaItem,
}

/// A queue of objects, each with all that happened to it since it was last popped.
///
/// The rules are those of client-go's queue of the same name:
///
/// * an object stands in the queue once, at the place where it was first mentioned, with its deltas oldest first;
/// * of two deletions in a row one is kept: the one that was seen, if one was;
/// * a deletion of an object that is neither queued nor known is dropped;
/// * [`replace`](Self::replace) gives every object of the list a [`DeltaKind::Replaced`], and everything that was queued or known but
///   is not in the list a [`DeltaKind::Deleted`] with a [`Tombstone`];
/// * it [`has_synced`](Self::has_synced) when all objects of the first list have been popped.
#[derive(Debug)]
pub struct DeltaFifo {
    known: Indexer,
    state: Mutex<State>,
    wake: Notify,
    /// Whether the queue was ever fed.
    first: Flag,
}

#[derive(Debug, Default)]
struct State {
    items: BTreeMap<ObjectKey, Vec<Delta>>,
    order: VecDeque<ObjectKey>,
    populated: bool,
    /// Of the first list, those that have not been popped.
    initial: BTreeSet<ObjectKey>,
    closed: bool,
}

impl DeltaFifo {
    /// An empty queue. `known` is what the one who pops keeps; only its keys and last states are read here.
    #[must_use]
    pub fn new(known: Indexer) -> Self {
        Self {
            known,
            state: Mutex::default(),
            wake: Notify::new(),
            first: Flag::new(),
        }
    }

    /// An object appeared.
    pub fn add(&self, object: Object) {
        self.change(DeltaKind::Added, object);
    }

    /// An object changed.
    pub fn update(&self, object: Object) {
        self.change(DeltaKind::Updated, object);
    }

    /// An object went; this is how it last looked.
    pub fn delete(&self, object: Object) {
        let key = object.key();
        let mut state = self.state.lock();
        state.populated = true;
        if !state.items.contains_key(&key) && self.known.get(&key).is_none() {
            return; // somebody, perhaps a list in between, has told of it already
        }
        state.push(
            key,
            Delta {
                kind: DeltaKind::Deleted,
                item: DeltaItem::Object(object),
            },
        );
        drop(state);
        self.fed();
    }

    fn change(&self, kind: DeltaKind, object: Object) {
        let mut state = self.state.lock();
        state.populated = true;
        state.push(
            object.key(),
            Delta {
                kind,
                item: DeltaItem::Object(object),
            },
        );
        drop(state);
        self.fed();
    }

    fn fed(&self) {
        self.first.set();
        self.wake.notify_one();
    }

    /// A list shows everything that is there.
    pub fn replace(&self, objects: Vec<Object>) {
        let mut state = self.state.lock();
        let mut listed = BTreeSet::new();
        for object in objects {
            let key = object.key();
            listed.insert(key.clone());
            state.push(
                key,
                Delta {
                    kind: DeltaKind::Replaced,
                    item: DeltaItem::Object(object),
                },
            );
        }
        // What is queued shows an object later than what is known.
        let queued: Vec<(ObjectKey, Object)> = state
            .items
            .iter()
            .filter(|(key, _)| !listed.contains(key))
            .filter_map(|(key, deltas)| deltas.last().map(|delta| (key, delta)))
            .filter(|(_, delta)| delta.kind != DeltaKind::Deleted)
            .map(|(key, delta)| (key.clone(), delta.item.object().clone()))
            .collect();
        let known = self
            .known
            .list()
            .into_iter()
            .map(|object| (object.key(), object))
            .filter(|(key, _)| !listed.contains(key) && !state.items.contains_key(key));
        let gone: Vec<(ObjectKey, Object)> = known.chain(queued).collect();
        for (key, last_known) in gone {
            let item = DeltaItem::Tombstone(Tombstone {
                key: key.clone(),
                last_known,
            });
            state.push(
                key,
                Delta {
                    kind: DeltaKind::Deleted,
                    item,
                },
            );
        }
        if !state.populated {
            state.populated = true;
            state.initial = state.items.keys().cloned().collect();
        }
        drop(state);
        self.fed();
    }

    /// Shows every known object again that is not in the queue.
    pub fn resync(&self) {
        let mut state = self.state.lock();
        for object in self.known.list() {
            let key = object.key();
            if !state.items.contains_key(&key) {
                state.push(
                    key,
                    Delta {
                        kind: DeltaKind::Sync,
                        item: DeltaItem::Object(object),
                    },
                );
            }
        }
        drop(state);
        self.fed();
    }

    /// Whether the first list is there and all of it has been popped.
    #[must_use]
    pub fn has_synced(&self) -> bool {
        let state = self.state.lock();
        state.populated && state.initial.is_empty()
    }

    /// Waits until the first list, or the first change, is there.
    pub(super) async fn populated(&self) {
        self.first.wait().await;
    }

    /// How many objects are queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().items.len()
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// No more will come: [`pop`](Self::pop) returns `None` once the queue is empty.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
    }

    /// Waits for an object and hands its deltas, oldest first, to `process`, with whether it belongs to the first list. The queue is
    /// locked meanwhile, so that it never holds less than `process` has not yet seen.
    ///
    /// Returns what `process` returned; `None` when the queue is closed and empty. One caller at a time.
    pub async fn pop<R>(
        &self,
        process: impl FnOnce(&ObjectKey, Vec<Delta>, bool) -> R,
    ) -> Option<R> {
        loop {
            if let Some(result) = self.ready() {
                return match result {
                    true => self.try_pop(process),
                    false => None,
                };
            }
            self.wake.notified().await;
        }
    }

    /// `Some(true)` when there is something, `Some(false)` when there will never be.
    fn ready(&self) -> Option<bool> {
        let state = self.state.lock();
        if state.order.is_empty() {
            state.closed.then_some(false)
        } else {
            Some(true)
        }
    }

    /// As [`pop`](Self::pop), but `None` at once when nothing is queued.
    pub fn try_pop<R>(&self, process: impl FnOnce(&ObjectKey, Vec<Delta>, bool) -> R) -> Option<R> {
        let mut state = self.state.lock();
        let key = state.order.pop_front()?;
        let deltas = state.items.remove(&key)?;
        let initial = state.initial.contains(&key);
        let result = process(&key, deltas, initial);
        // Only now: whoever sees that this has synced must find the object where `process` put it.
        state.initial.remove(&key);
        Some(result)
    }
}

impl State {
    fn push(&mut self, key: ObjectKey, delta: Delta) {
        let Some(deltas) = self.items.get_mut(&key) else {
            self.order.push_back(key.clone());
            self.items.insert(key, vec![delta]);
            return;
        };
        match deltas.last_mut() {
            Some(last) if last.kind == DeltaKind::Deleted && delta.kind == DeltaKind::Deleted => {
                if matches!(last.item, DeltaItem::Tombstone(_)) {
                    *last = delta;
                }
            }
            _ => deltas.push(delta),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn object(name: &str, revision: u64) -> Object {
        Object::from_value(
            json!({"metadata": {"name": name, "resourceVersion": revision.to_string()}}),
        )
        .unwrap()
    }

    fn fifo(known: &[&str]) -> DeltaFifo {
        let indexer = Indexer::new();
        for name in known {
            indexer.upsert(object(name, 1));
        }
        DeltaFifo::new(indexer)
    }

    fn drain(fifo: &DeltaFifo) -> Vec<(String, Vec<(DeltaKind, bool)>)> {
        std::iter::from_fn(|| {
            fifo.try_pop(|key, deltas, _| {
                let kinds = deltas
                    .iter()
                    .map(|d| (d.kind, matches!(d.item, DeltaItem::Tombstone(_))))
                    .collect();
                (key.name.to_string(), kinds)
            })
        })
        .collect()
    }

    #[test]
    fn an_object_stands_where_it_was_first_mentioned() {
        let fifo = fifo(&[]);
        fifo.add(object("b", 2));
        fifo.add(object("a", 3));
        fifo.update(object("b", 4));
        assert_eq!(
            drain(&fifo),
            [
                (
                    "b".to_owned(),
                    vec![(DeltaKind::Added, false), (DeltaKind::Updated, false)]
                ),
                ("a".to_owned(), vec![(DeltaKind::Added, false)])
            ]
        );
    }

    #[test]
    fn two_deletions_are_one_and_the_seen_one_wins() {
        let fifo = fifo(&["a"]);
        fifo.replace(vec![]);
        fifo.delete(object("a", 5));
        fifo.delete(object("a", 6));
        assert_eq!(
            drain(&fifo),
            [("a".to_owned(), vec![(DeltaKind::Deleted, false)])]
        );
        fifo.delete(object("never-heard-of", 7));
        assert!(fifo.is_empty());
    }

    #[test]
    fn a_list_without_an_object_leaves_a_tombstone() {
        let fifo = fifo(&["known"]);
        fifo.add(object("queued", 3));
        fifo.replace(vec![object("listed", 9)]);
        let all = drain(&fifo);
        assert_eq!(
            all,
            [
                (
                    "queued".to_owned(),
                    vec![(DeltaKind::Added, false), (DeltaKind::Deleted, true)]
                ),
                ("listed".to_owned(), vec![(DeltaKind::Replaced, false)]),
                ("known".to_owned(), vec![(DeltaKind::Deleted, true)]),
            ]
        );
    }

    #[test]
    fn it_has_synced_when_the_first_list_is_popped() {
        let fifo = fifo(&[]);
        assert!(!fifo.has_synced());
        fifo.replace(vec![object("a", 1), object("b", 1)]);
        fifo.add(object("c", 2));
        assert!(!fifo.has_synced());
        fifo.try_pop(|_, _, initial| assert!(initial));
        fifo.try_pop(|_, _, initial| assert!(initial));
        assert!(fifo.has_synced());
        fifo.try_pop(|_, _, initial| assert!(!initial));
        let empty = DeltaFifo::new(Indexer::new());
        empty.replace(vec![]);
        assert!(empty.has_synced());
    }

    #[test]
    fn a_resync_shows_what_is_known_and_not_queued() {
        let fifo = fifo(&["a", "b"]);
        fifo.update(object("b", 2));
        fifo.resync();
        assert_eq!(
            drain(&fifo),
            [
                ("b".to_owned(), vec![(DeltaKind::Updated, false)]),
                ("a".to_owned(), vec![(DeltaKind::Sync, false)])
            ]
        );
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u8),
        Delete(u8),
        Replace(BTreeSet<u8>),
        Pop,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..6u8).prop_map(Step::Write),
            2 => (0..6u8).prop_map(Step::Delete),
            1 => proptest::collection::btree_set(0..6u8, 0..6).prop_map(Step::Replace),
            4 => Just(Step::Pop),
        ]
    }

    proptest! {
        /// Whoever pops and applies ends with what the server has; every object's deltas come in the order they happened, and the
        /// objects in the order of their first mention.
        #[test]
        fn who_pops_ends_with_the_truth(steps in proptest::collection::vec(step(), 0..60)) {
            let known = Indexer::new();
            let fifo = DeltaFifo::new(known.clone());
            let mut truth: BTreeMap<u8, u64> = BTreeMap::new();
            let mut mentioned: VecDeque<String> = VecDeque::new();
            let mut revision = 1;
            let pop = |mentioned: &mut VecDeque<String>| {
                fifo.try_pop(|key, deltas, _| {
                    assert_eq!(mentioned.pop_front().as_deref(), Some(&*key.name));
                    let mut last = 0;
                    for delta in deltas {
                        match delta.kind {
                            DeltaKind::Deleted => {
                                known.remove(key);
                            }
                            _ => {
                                assert!(delta.item.object().revision().0 >= last);
                                last = delta.item.object().revision().0;
                                known.upsert(delta.item.object().clone());
                            }
                        }
                    }
                })
            };
            for step in steps {
                revision += 1;
                match step {
                    Step::Write(id) => {
                        let new = truth.insert(id, revision).is_none();
                        let object = object(&id.to_string(), revision);
                        if new { fifo.add(object) } else { fifo.update(object) }
                    }
                    Step::Delete(id) => {
                        truth.remove(&id);
                        fifo.delete(object(&id.to_string(), revision));
                    }
                    Step::Replace(kept) => {
                        truth.retain(|id, _| kept.contains(id));
                        fifo.replace(truth.iter().map(|(id, revision)| object(&id.to_string(), *revision)).collect());
                    }
                    Step::Pop => {
                        pop(&mut mentioned);
                    }
                }
                for key in &fifo.state.lock().order {
                    if !mentioned.iter().any(|name| **name == *key.name) {
                        mentioned.push_back(key.name.to_string());
                    }
                }
            }
            while pop(&mut mentioned).is_some() {}
            let ended: BTreeMap<u8, u64> =
                known.list().iter().map(|o| (o.name().parse().unwrap(), o.revision().0)).collect();
            prop_assert_eq!(ended, truth);
        }
    }
}
