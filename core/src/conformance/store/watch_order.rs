//! The order of watches beside many writers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::StreamExt;
use parking_lot::Mutex;

use super::concurrency::follow;
use super::writes::{self, Writes};
use super::{Checked, Context, Failure, PATIENCE, Subject, checks, ensure, same};
use crate::env::Env;
use crate::revision::Revision;
use crate::store::{
    Commit, KeyRange, KeyValue, RangeRequest, Store, StoreError, WatchItem, WatchRequest,
};

checks!(watches_follow_the_commits);

/// How much is written beside watches. Begin with the [`Default`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WatchLoad {
    /// How many clients write: 6.
    pub writers: usize,
    /// How many commits each does: 40.
    pub commits: usize,
    /// How long a client rests between two commits: not at all.
    pub pause: Duration,
    /// Whether the store may be out of reach at times, so that what became of a commit is not always known: no.
    pub outages: bool,
}

impl Default for WatchLoad {
    fn default() -> Self {
        Self {
            writers: 6,
            commits: 40,
            pause: Duration::ZERO,
            outages: false,
        }
    }
}

/// How long a client rests after the store could not be reached.
const REST: Duration = Duration::from_millis(20);

/// What a watch saw.
type Log = Vec<(Revision, Writes)>;

/// What writers were told.
#[derive(Default)]
struct Told {
    acknowledged: BTreeMap<Revision, Writes>,
    /// What was asked for and not answered.
    unknown: Vec<Writes>,
}

fn lost(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_)
    )
}

async fn watches_follow_the_commits(c: &Context) -> Checked {
    run(c, &WatchLoad::default()).await
}

/// Lets clients write and watch side by side, below a prefix that nobody else uses meanwhile. Each watch must see what was
/// acknowledged, in the order of the revisions, once; and what it makes of it must be what a read at that revision tells. Watches must
/// outlast outages.
///
/// # Panics
/// When a watch sees anything else.
pub async fn watch_order(store: Arc<dyn Store>, env: Env, prefix: &str, load: &WatchLoad) {
    let context = Context {
        prefix: prefix.to_owned(),
        subject: Subject::new(store, env).used_before(),
    };
    if let Err(Failure(why)) = run(&context, load).await {
        panic!("conformance check `store::watch_order` failed: {why}");
    }
}

/// Clients write, and watchers begin at any revision among them.
async fn run(c: &Context, load: &WatchLoad) -> Checked {
    let first = c.put("start", "x").await?;
    let keys: Vec<Bytes> = (0..5).map(|n| c.key(&format!("k{n}"))).collect();
    let told: Arc<Mutex<Told>> = Arc::default();
    let at_work = Arc::new(AtomicUsize::new(load.writers));
    let ranges = [
        c.all(),
        KeyRange::Key(keys[0].clone()),
        KeyRange::Span(keys[1].clone(), keys[4].clone()),
        KeyRange::Prefix(keys[2].clone()),
        c.all(),
        c.all(),
    ];
    // How many watches are open, or cannot be opened.
    let watching = Arc::new(AtomicUsize::new(0));
    let watchers = ranges.len();
    let mut tasks = Vec::new();
    for writer in 0..load.writers {
        let (store, env, keys) = (c.shared(), c.env().clone(), keys.clone());
        let (told, at_work) = (told.clone(), at_work.clone());
        let (watching, load) = (watching.clone(), load.clone());
        tasks.push(
            async move {
                for n in 0..load.commits {
                    let mark = format!("{writer}-{n}");
                    if !write(&*store, &env, &keys, &mark, &load, &told).await? {
                        env.sleep(REST).await;
                    } else if !load.pause.is_zero() {
                        env.sleep(load.pause).await;
                    }
                }
                if at_work.fetch_sub(1, Ordering::SeqCst) == 1 {
                    // All others have ended. Everybody who watches any key sees this.
                    while watching.load(Ordering::SeqCst) < watchers {
                        env.sleep(Duration::from_millis(1)).await;
                    }
                    let all: Writes = keys
                        .iter()
                        .map(|k| (k.clone(), Some("end".into())))
                        .collect();
                    while !commit(&*store, all.clone(), &load, &told).await? {
                        env.sleep(REST).await;
                    }
                }
                Ok(())
            }
            .boxed(),
        );
    }
    let logs: Arc<Mutex<Vec<(KeyRange, Revision, Log)>>> = Arc::default();
    for (n, keys) in ranges.into_iter().enumerate() {
        let (store, env, logs) = (c.shared(), c.env().clone(), logs.clone());
        let (watching, load) = (watching.clone(), load.clone());
        tasks.push(
            async move {
                let wait = env.random_below(4 * n as u64 + 1);
                env.sleep(Duration::from_millis(wait) + load.pause * n as u32)
                    .await;
                let log = watch(&*store, &env, &keys, first, &load, &watching).await;
                watching.fetch_add(1, Ordering::SeqCst);
                let (from, log) = log?;
                logs.lock().push((keys, from, log));
                Ok(())
            }
            .boxed(),
        );
    }
    c.together(tasks).await?;
    let told = std::mem::take(&mut *told.lock());
    let commits = if load.outages {
        history(c, first.next(), told).await?
    } else {
        told.acknowledged
    };
    for (keys, from, log) in logs.lock().iter() {
        // The end may have been written twice, when it was not known that it was.
        let last = log.last().map_or(*from, |(revision, _)| *revision);
        let wanted: Vec<_> = commits
            .range(from..)
            .take_while(|(revision, _)| !load.outages || **revision <= last)
            .filter_map(|(revision, writes)| {
                let writes = writes.iter().filter(|(key, _)| keys.contains(key));
                let writes: Writes = writes.cloned().collect();
                (!writes.is_empty()).then_some((*revision, writes))
            })
            .collect();
        for (seen, wanted) in log.iter().zip(&wanted) {
            same!(
                seen,
                wanted,
                format!("the next commit that a watch of {keys:?} from {from} sees")
            );
        }
        same!(
            log.len(),
            wanted.len(),
            format!("how many commits a watch of {keys:?} from {from} sees")
        );
    }
    Ok(())
}

/// All commits since a revision: what was acknowledged, and of the rest what came about.
async fn history(
    c: &Context,
    from: Revision,
    mut told: Told,
) -> Result<BTreeMap<Revision, Writes>, Failure> {
    let newest = c.read(RangeRequest::new(c.all())).await?;
    let newest = newest.items.iter().map(|kv| kv.mod_revision).max();
    let newest = newest.ok_or_else(|| Failure("everything is gone".to_owned()))?;
    let mut watch = c.watch(c.all(), from).await?;
    let mut commits = BTreeMap::new();
    let mut reached = Revision::ZERO;
    while reached < newest {
        let WatchItem::Changes(changes) = watch.next().await?? else {
            return Err(Failure("nobody asked for progress".to_owned()));
        };
        for changes in changes.chunk_by(|a, b| a.revision() == b.revision()) {
            reached = changes[0].revision();
            let writes = writes::of(changes);
            match told.acknowledged.remove(&reached) {
                Some(wanted) => {
                    same!(
                        writes,
                        wanted,
                        format!("what was acknowledged at {reached}")
                    );
                }
                None => {
                    let asked = told.unknown.iter().position(|asked| *asked == writes);
                    let Some(asked) = asked else {
                        return Err(Failure(format!(
                            "at {reached} stands what nobody asked for, or not in this form: {writes:?}"
                        )));
                    };
                    told.unknown.swap_remove(asked);
                }
            }
            commits.insert(reached, writes);
        }
    }
    if let Some((revision, writes)) = told.acknowledged.first_key_value() {
        return Err(Failure(format!(
            "what was acknowledged at {revision} is gone: {writes:?}"
        )));
    }
    Ok(commits)
}

/// Commits something; false when it is not known what became of it.
async fn write(
    store: &dyn Store,
    env: &Env,
    keys: &[Bytes],
    mark: &str,
    load: &WatchLoad,
    told: &Mutex<Told>,
) -> Result<bool, Failure> {
    let any = || keys[usize::try_from(env.random_below(keys.len() as u64)).unwrap_or(0)].clone();
    let (one, two) = (any(), any());
    let mut writes: Writes = vec![(one.clone(), Some(mark.to_owned().into()))];
    if two != one {
        writes.push((two, Some(format!("{mark}b").into())));
    } else if env.random_below(2) == 0 {
        writes[0].1 = None;
    }
    commit(store, writes, load, told).await
}

async fn commit(
    store: &dyn Store,
    writes: Writes,
    load: &WatchLoad,
    told: &Mutex<Told>,
) -> Result<bool, Failure> {
    let deletes = writes.iter().all(|(_, value)| value.is_none());
    match store.commit(writes::txn(&writes)).await {
        Err(error) if load.outages && lost(&error) => {
            told.lock().unknown.push(writes);
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
        // It met nothing, and is no commit.
        Ok(Commit::Applied { deleted: 0, .. }) if deletes => {}
        Ok(Commit::Applied { revision, .. }) => {
            let twice = told.lock().acknowledged.insert(revision, writes);
            same!(
                twice,
                None,
                format!("what else was committed at {revision}")
            );
        }
        Ok(Commit::Refused { .. }) => {
            return Err(Failure(
                "a transaction without conditions was refused".to_owned(),
            ));
        }
    }
    Ok(true)
}

/// Watches from some revision on until the end, and compares what it makes of it with reads.
async fn watch(
    store: &dyn Store,
    env: &Env,
    keys: &KeyRange,
    first: Revision,
    load: &WatchLoad,
    watching: &AtomicUsize,
) -> Result<(Revision, Log), Failure> {
    let newest = store.revision().await?;
    let mut start = Revision(first.0 + env.random_below(newest.0 - first.0 + 1));
    let state_at = |at| store.range(RangeRequest::new(keys.clone()).at(at));
    let found = loop {
        match state_at(start).await {
            Err(StoreError::Compacted { .. }) => start = store.revision().await?,
            Err(error) if load.outages && lost(&error) => env.sleep(REST).await,
            found => break found?,
        }
    };
    let mut state: BTreeMap<Bytes, KeyValue> = BTreeMap::new();
    state.extend(found.items.into_iter().map(|kv| (kv.key.clone(), kv)));
    let from = start.next();
    let request = WatchRequest {
        keys: keys.clone(),
        from,
        progress: false,
    };
    let mut stream = store.watch(request).await?;
    watching.fetch_add(1, Ordering::SeqCst);
    let mut log = Log::new();
    loop {
        let item = env.timeout(PATIENCE, stream.next()).await;
        let item = item.map_err(|_| Failure("the watch did not deliver".to_owned()))?;
        let item = item.ok_or_else(|| Failure("the watch ended without an error".to_owned()))?;
        let WatchItem::Changes(changes) = item? else {
            return Err(Failure("nobody asked for progress".to_owned()));
        };
        for changes in changes.chunk_by(|a, b| a.revision() == b.revision()) {
            let revision = changes[0].revision();
            if let Some((last, _)) = log.last() {
                ensure!(revision > *last, "a watch saw {revision} after {last}");
            }
            for change in changes {
                follow(&mut state, change)?;
            }
            log.push((revision, writes::of(changes)));
            if env.random_below(8) == 0 {
                match state_at(revision).await {
                    Ok(read) => {
                        let own: Vec<_> = state.values().cloned().collect();
                        same!(
                            read.items,
                            own,
                            format!("the state at {revision}, which a watch made")
                        );
                    }
                    Err(StoreError::Compacted { .. }) => {}
                    Err(error) if load.outages && lost(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let end = |(_, value): &(Bytes, Option<Bytes>)| value.as_deref() == Some(b"end");
            if log.last().is_some_and(|(_, writes)| writes.iter().any(end)) {
                return Ok((from, log));
            }
        }
    }
}
