//! Crashes: what was acknowledged, or seen by anybody, is there afterwards; nothing is half there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;

use super::concurrency::follow;
use super::writes::{self, Writes};
use super::{Checked, Failure, PATIENCE, ensure, same};
use crate::env::{Env, TaskGroup};
use crate::revision::Revision;
use crate::store::{
    Change, Commit, Compare, Condition, KeyRange, KeyValue, Operand, RangeRequest, Relation,
    StepResult, Store, StoreError, Transaction, Txn, WatchItem, WatchRequest,
};

/// A store that can be made to crash.
#[async_trait]
pub trait CrashSubject: Send + Sync {
    /// Opens the store: the first time, and again after every crash, when nobody holds the one from before any more.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and [`StoreError::OutcomeUnknown`] when it crashed again while it was opened, which is then tried again. Any other error fails the suite.
    async fn open(&self) -> Result<Arc<dyn Store>, StoreError>;

    /// Crashes while clients are at work. What they asked for may come to an end or not, but after this returns, nothing more of it may
    /// reach what the store is opened from.
    async fn crash(&self);
}

/// How often and beside how much work a store crashes. Begin with the [`Default`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Crashes {
    /// How often: 10.
    pub rounds: usize,
    /// How many clients write: 6.
    pub clients: usize,
    /// After how many answers it crashes at the latest: 200.
    pub operations: usize,
    /// How long it may take until then: a second.
    pub patience: Duration,
}

impl Default for Crashes {
    fn default() -> Self {
        Self {
            rounds: 10,
            clients: 6,
            operations: 200,
            patience: Duration::from_secs(1),
        }
    }
}

/// How often a store may fail to open because it crashed.
const OPENINGS: usize = 100;

const PREFIX: &str = "/conformance/store/crash/";

/// Lets a store crash beside mixed load and opens it again, and checks what is there. Nobody else may write to it.
///
/// # Panics
/// When something that was acknowledged is not there, something is there in part or that nobody wrote, a revision is used twice, or
/// history and watches do not go on where they ended.
pub async fn crashes(subject: &dyn CrashSubject, env: &Env, crashes: &Crashes) {
    if let Err(Failure(why)) = run(subject, env, crashes).await {
        panic!("conformance check `store::crash` failed: {why}");
    }
}

type State = BTreeMap<Bytes, KeyValue>;

/// What is known of the store before a round.
struct Known {
    revision: Revision,
    state: State,
}

/// What the clients of a round were told.
#[derive(Default)]
struct Told {
    acknowledged: BTreeMap<Revision, Writes>,
    /// What was asked for and not answered, by number.
    unknown: BTreeMap<usize, Writes>,
    next: usize,
    /// What was read, or seen by a watch: the key, its value, and the revision.
    seen: BTreeMap<(Revision, Bytes), Option<Bytes>>,
}

fn all() -> KeyRange {
    KeyRange::prefix(PREFIX)
}

fn key(name: &str) -> Bytes {
    format!("{PREFIX}{name}").into()
}

async fn open(subject: &dyn CrashSubject) -> Result<Arc<dyn Store>, Failure> {
    for _ in 0..OPENINGS {
        match subject.open().await {
            Err(StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_)) => {
                subject.crash().await;
            }
            opened => {
                return opened.map_err(|error| {
                    Failure(format!("the store cannot be opened again: {error}"))
                });
            }
        }
    }
    Err(Failure(format!(
        "the store could not be opened {OPENINGS} times"
    )))
}

async fn run(subject: &dyn CrashSubject, env: &Env, crashes: &Crashes) -> Checked {
    let mut store = open(subject).await?;
    let mut known = look(&*store).await?;
    let mut told = Told::default();
    for round in 0..crashes.rounds {
        told = load(subject, store, env, crashes, &known, told, round).await;
        store = open(subject).await?;
        let at = |Failure(why)| Failure(format!("after crash {}: {why}", round + 1));
        known = verify(&*store, env, &known, told).await.map_err(at)?;
        told = Told::default();
        // Life goes on, with the next revision.
        let writes: Writes = vec![(key("mark"), Some(round.to_string().into()))];
        match store.commit(writes::txn(&writes)).await {
            Ok(Commit::Applied { revision, .. }) => {
                same!(
                    revision,
                    known.revision.next(),
                    "the revision of the first commit after a crash"
                );
                known = look(&*store).await?;
            }
            Ok(refused) => {
                return Err(Failure(format!(
                    "a write without conditions came to {refused:?}"
                )));
            }
            Err(StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_)) => {
                told.begin(writes);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn look(store: &dyn Store) -> Result<Known, Failure> {
    let read = store.range(RangeRequest::new(all())).await?;
    let items = read.items.into_iter();
    Ok(Known {
        revision: read.revision,
        state: items.map(|kv| (kv.key.clone(), kv)).collect(),
    })
}

impl Told {
    fn begin(&mut self, writes: Writes) -> usize {
        self.next += 1;
        self.unknown.insert(self.next, writes);
        self.next
    }

    fn see(&mut self, change: &Change) {
        let value = match change {
            Change::Put { kv, .. } => Some(kv.value.clone()),
            Change::Delete { .. } => None,
        };
        self.seen
            .insert((change.revision(), change.key().clone()), value);
    }
}

/// Lets clients work until it is time to crash, crashes, and tells what they were told.
async fn load(
    subject: &dyn CrashSubject,
    store: Arc<dyn Store>,
    env: &Env,
    crashes: &Crashes,
    known: &Known,
    told: Told,
    round: usize,
) -> Told {
    let told = Arc::new(Mutex::new(told));
    let answers = Arc::new(AtomicUsize::new(0));
    let bound = crashes.operations as u64 + 1;
    let enough = usize::try_from(env.random_below(bound)).unwrap_or(0);
    let tasks = TaskGroup::new(env.clone());
    for client in 0..crashes.clients {
        let (store, env, told, answers) =
            (store.clone(), env.clone(), told.clone(), answers.clone());
        tasks.spawn_until_cancelled("crash-client", async move {
            for n in 0.. {
                let reached = work(&*store, &env, &told, &format!("{round}-{client}-{n}")).await;
                answers.fetch_add(1, Ordering::Relaxed);
                // Time must go on, also where nothing takes any.
                if !reached || env.random_below(8) == 0 {
                    env.sleep(Duration::from_micros(500)).await;
                } else {
                    breathe().await;
                }
            }
        });
    }
    {
        let (store, told, from) = (store.clone(), told.clone(), known.revision.next());
        tasks.spawn_until_cancelled("crash-watcher", async move {
            let request = WatchRequest {
                keys: all(),
                from,
                progress: false,
            };
            let Ok(mut stream) = store.watch(request).await else {
                return;
            };
            while let Some(Ok(item)) = stream.next().await {
                if let WatchItem::Changes(changes) = item {
                    let mut told = told.lock();
                    changes.iter().for_each(|change| told.see(change));
                }
            }
        });
    }
    drop(store);
    let until = env.now() + crashes.patience;
    while answers.load(Ordering::Relaxed) < enough && env.now() < until {
        env.sleep(Duration::from_micros(500)).await;
    }
    subject.crash().await;
    tasks.shutdown().await;
    drop(tasks);
    std::mem::take(&mut *told.lock())
}

/// Lets others run, also where nothing ever waits.
async fn breathe() {
    let mut yielded = false;
    futures::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// One operation of a client. False when the store cannot be reached.
async fn work(store: &dyn Store, env: &Env, told: &Mutex<Told>, mark: &str) -> bool {
    let name = |kind: &str| format!("{kind}{}", env.random_below(4));
    let value = || Some(Bytes::from(mark.to_owned()));
    let single = key(&name("k"));
    let mut compare = Vec::new();
    let writes: Writes = match env.random_below(8) {
        0 => {
            let read = store
                .range(RangeRequest::new(KeyRange::Key(single.clone())))
                .await;
            let Ok(read) = read else { return false };
            let mut told = told.lock();
            for kv in read.items {
                told.seen.insert((kv.mod_revision, kv.key), Some(kv.value));
            }
            return true;
        }
        1 => vec![(single, None)],
        2 => {
            compare.push(Compare::ModRevision(single.clone(), Revision::ZERO));
            vec![(single, value())]
        }
        3..=5 => vec![(single, value())],
        // Always together.
        _ => {
            let pair = name("pair");
            let half = |half: &str| key(&format!("{pair}/{half}"));
            vec![
                (half("a"), value()),
                (half("b"), value()),
                (half("c"), value()),
            ]
        }
    };
    let number = told.lock().begin(writes.clone());
    let done = if env.random_below(2) == 0 {
        let request = Txn {
            compare,
            ..writes::txn(&writes)
        };
        store.commit(request).await.map(|commit| match commit {
            Commit::Applied { revision, deleted } => Some((revision, deleted)),
            Commit::Refused { .. } => None,
        })
    } else {
        let conditions = compare.iter().map(|compare| Condition {
            keys: KeyRange::Key(Bytes::copy_from_slice(compare.key())),
            relation: Relation::Equal,
            // Only what is not there yet has conditions here.
            operand: Operand::Version(0),
        });
        let request = Transaction {
            conditions: conditions.collect(),
            ..writes::transaction(&writes)
        };
        let deleted = |step: &StepResult| match step {
            StepResult::Delete { deleted, .. } => *deleted,
            _ => 0,
        };
        store.transact(request).await.map(|result| {
            let all = result.steps.iter().map(deleted).sum();
            result.succeeded.then_some((result.revision, all))
        })
    };
    let mut told = told.lock();
    match done {
        Ok(Some((revision, deleted))) => {
            told.unknown.remove(&number);
            let puts = writes.iter().any(|(_, value)| value.is_some());
            if puts || deleted > 0 {
                told.acknowledged.insert(revision, writes);
            }
            true
        }
        Ok(None) | Err(StoreError::NoSpace(_)) => {
            told.unknown.remove(&number);
            true
        }
        Err(_) => false,
    }
}

/// Compares what is there with what was told.
async fn verify(
    store: &dyn Store,
    env: &Env,
    known: &Known,
    mut told: Told,
) -> Result<Known, Failure> {
    let now = look(store).await?;
    let told_of = told
        .acknowledged
        .last_key_value()
        .map(|(revision, _)| *revision);
    let seen = told
        .seen
        .last_key_value()
        .map(|((revision, _), _)| *revision);
    for before in [Some(known.revision), told_of, seen].into_iter().flatten() {
        ensure!(
            now.revision >= before,
            "the store is at {}, and was at {before} before it crashed",
            now.revision
        );
    }
    for n in 0..4 {
        let half = |half: &str| {
            let kv = now.state.get(&key(&format!("pair{n}/{half}")));
            kv.map(|kv| (kv.mod_revision, kv.value.clone()))
        };
        same!(
            half("a"),
            half("b"),
            "two keys that are always written together"
        );
        same!(
            half("a"),
            half("c"),
            "two keys that are always written together"
        );
    }
    for kv in now.state.values() {
        ensure!(
            kv.mod_revision <= now.revision,
            "{kv:?} stands at {}",
            now.revision
        );
    }
    match commits(store, env, known.revision, now.revision).await? {
        Some(commits) => follow_commits(store, known, &now, &mut told, commits).await?,
        // The history is gone, as is allowed, but not the state.
        None => compare_states(known, &now, &told)?,
    }
    Ok(now)
}

/// The commits after a revision up to another; `None` when history no longer has them.
async fn commits(
    store: &dyn Store,
    env: &Env,
    after: Revision,
    to: Revision,
) -> Result<Option<Vec<Change>>, Failure> {
    let request = WatchRequest {
        keys: all(),
        from: after.next(),
        progress: false,
    };
    let mut changes: Vec<Change> = Vec::new();
    let mut stream = match store.watch(request).await {
        Err(StoreError::Compacted { .. }) => return Ok(None),
        stream => stream?,
    };
    while changes.last().map_or(after, Change::revision) < to {
        let item = env.timeout(PATIENCE, stream.next()).await;
        let item = item.map_err(|_| {
            Failure(format!(
                "a watch from {} did not come to {to}",
                after.next()
            ))
        })?;
        match item {
            Some(Ok(WatchItem::Changes(more))) => changes.extend(more.iter().cloned()),
            Some(Ok(WatchItem::Progress(_))) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Err(Failure("the watch ended without an error".to_owned())),
        }
    }
    Ok(Some(changes))
}

/// Every commit was asked for once and is there as a whole, and what they make of the state before is the state now.
async fn follow_commits(
    store: &dyn Store,
    known: &Known,
    now: &Known,
    told: &mut Told,
    changes: Vec<Change>,
) -> Checked {
    let mut state = known.state.clone();
    let mut revision = known.revision;
    for changes in changes.chunk_by(|a, b| a.revision() == b.revision()) {
        same!(
            changes[0].revision(),
            revision.next(),
            "the next revision in history"
        );
        revision = revision.next();
        for change in changes {
            follow(&mut state, change)?;
        }
        let writes = writes::of(changes);
        if let Some(wanted) = told.acknowledged.remove(&revision) {
            same!(
                writes,
                wanted,
                format!("what was acknowledged at {revision}")
            );
        } else {
            let asked = told.unknown.iter().find(|(_, asked)| **asked == writes);
            let Some(number) = asked.map(|(number, _)| *number) else {
                return Err(Failure(format!(
                    "at {revision} stands what nobody asked for, or not in this form: {writes:?}"
                )));
            };
            told.unknown.remove(&number);
        }
        while let Some(entry) = told.seen.first_entry() {
            let (at, key) = entry.key().clone();
            if at > revision {
                break;
            }
            let value = entry.remove();
            if at == revision {
                ensure!(
                    writes.contains(&(key.clone(), value.clone())),
                    "somebody saw {value:?} at {key:?} written at {at}, where now stands {writes:?}"
                );
            }
        }
        if revision.0.is_multiple_of(7) {
            match store.range(RangeRequest::new(all()).at(revision)).await {
                Ok(read) => {
                    let own: Vec<_> = state.values().cloned().collect();
                    same!(
                        read.items,
                        own,
                        format!("the state at {revision}, which history made")
                    );
                }
                Err(StoreError::Compacted { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    same!(revision, now.revision, "the last revision in history");
    same!(state, now.state, "the state, which history made");
    if let Some((revision, writes)) = told.acknowledged.first_key_value() {
        return Err(Failure(format!(
            "what was acknowledged at {revision} is gone: {writes:?}"
        )));
    }
    Ok(())
}

/// Every key is as it was last acknowledged or seen, or as somebody asked for who got no answer.
fn compare_states(known: &Known, now: &Known, told: &Told) -> Checked {
    let mut last: BTreeMap<Bytes, (Revision, Option<Bytes>)> = BTreeMap::new();
    for (key, kv) in &known.state {
        last.insert(key.clone(), (kv.mod_revision, Some(kv.value.clone())));
    }
    let acknowledged = told.acknowledged.iter().flat_map(|(revision, writes)| {
        let write =
            move |(key, value): &(Bytes, Option<Bytes>)| (*revision, key.clone(), value.clone());
        writes.iter().map(write)
    });
    let seen = told.seen.iter();
    let seen = seen.map(|((revision, key), value)| (*revision, key.clone(), value.clone()));
    for (revision, key, value) in acknowledged.chain(seen) {
        let entry = last.entry(key).or_insert((Revision::ZERO, None));
        if revision >= entry.0 {
            *entry = (revision, value);
        }
    }
    let asked = |key: &Bytes, value: Option<&Bytes>| {
        let mut writes = told.unknown.values().flatten();
        writes.any(|(own, wanted)| own == key && wanted.as_ref() == value)
    };
    for key in now.state.keys() {
        last.entry(key.clone()).or_insert((Revision::ZERO, None));
    }
    for (key, (revision, value)) in &last {
        let stands = now.state.get(key);
        let fits = match stands {
            Some(kv) if kv.mod_revision == *revision => Some(&kv.value) == value.as_ref(),
            Some(kv) => kv.mod_revision > *revision && asked(key, Some(&kv.value)),
            None => value.is_none() || asked(key, None),
        };
        ensure!(
            fits,
            "at {key:?} stands {stands:?}, where {value:?} was acknowledged or seen at {revision}"
        );
    }
    Ok(())
}
