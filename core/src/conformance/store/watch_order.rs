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
use super::{Checked, Context, Failure, PATIENCE, checks, ensure, same};
use crate::env::Env;
use crate::revision::Revision;
use crate::store::{
    Change, Commit, KeyRange, KeyValue, Op, RangeRequest, Store, StoreError, Txn, WatchItem,
    WatchRequest,
};

checks!(watches_follow_the_commits);

const WRITERS: usize = 6;
const COMMITS: usize = 40;

/// What a commit did: its keys in order, with their values.
type Writes = Vec<(Bytes, Option<Bytes>)>;

/// What a watch saw.
type Log = Vec<(Revision, Writes)>;

fn writes(changes: &[Change]) -> Writes {
    let write = |change: &Change| match change {
        Change::Put { kv, .. } => (kv.key.clone(), Some(kv.value.clone())),
        Change::Delete { key, .. } => (key.clone(), None),
    };
    changes.iter().map(write).collect()
}

/// Clients write, and watchers begin at any revision among them. Each must see what was acknowledged, in the order of the revisions,
/// once; and what it makes of it must be what a read at that revision tells.
async fn watches_follow_the_commits(c: &Context) -> Checked {
    let first = c.put("start", "x").await?;
    let keys: Vec<Bytes> = (0..5).map(|n| c.key(&format!("k{n}"))).collect();
    let acknowledged: Arc<Mutex<BTreeMap<Revision, Writes>>> = Arc::default();
    let at_work = Arc::new(AtomicUsize::new(WRITERS));
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
    for writer in 0..WRITERS {
        let (store, env, keys) = (c.shared(), c.env().clone(), keys.clone());
        let (acknowledged, at_work) = (acknowledged.clone(), at_work.clone());
        let watching = watching.clone();
        tasks.push(
            async move {
                for n in 0..COMMITS {
                    let mark = format!("{writer}-{n}");
                    write(&*store, &env, &keys, &mark, &acknowledged).await?;
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
                    commit(&*store, all, &acknowledged).await?;
                }
                Ok(())
            }
            .boxed(),
        );
    }
    let logs: Arc<Mutex<Vec<(KeyRange, Revision, Log)>>> = Arc::default();
    for (n, keys) in ranges.into_iter().enumerate() {
        let (store, env, logs) = (c.shared(), c.env().clone(), logs.clone());
        let watching = watching.clone();
        tasks.push(
            async move {
                let wait = env.random_below(4 * n as u64 + 1);
                env.sleep(Duration::from_millis(wait)).await;
                let log = watch(&*store, &env, &keys, first, &watching).await;
                watching.fetch_add(1, Ordering::SeqCst);
                let (from, log) = log?;
                logs.lock().push((keys, from, log));
                Ok(())
            }
            .boxed(),
        );
    }
    c.together(tasks).await?;
    let acknowledged = acknowledged.lock().clone();
    for (keys, from, log) in logs.lock().iter() {
        let wanted: Vec<_> = acknowledged
            .range(from..)
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

async fn write(
    store: &dyn Store,
    env: &Env,
    keys: &[Bytes],
    mark: &str,
    acknowledged: &Mutex<BTreeMap<Revision, Writes>>,
) -> Checked {
    let any = || keys[usize::try_from(env.random_below(keys.len() as u64)).unwrap_or(0)].clone();
    let (one, two) = (any(), any());
    let mut writes: Writes = vec![(one.clone(), Some(mark.to_owned().into()))];
    if two != one {
        writes.push((two, Some(format!("{mark}b").into())));
    } else if env.random_below(2) == 0 {
        writes[0].1 = None;
    }
    commit(store, writes, acknowledged).await
}

async fn commit(
    store: &dyn Store,
    writes: Writes,
    acknowledged: &Mutex<BTreeMap<Revision, Writes>>,
) -> Checked {
    let ops = writes.iter().map(|(key, value)| match value {
        Some(value) => Op::Put {
            key: key.clone(),
            value: value.clone(),
            lease: None,
        },
        None => Op::Delete(KeyRange::Key(key.clone())),
    });
    let txn = Txn {
        compare: Vec::new(),
        ops: ops.collect(),
    };
    let deletes = writes.iter().all(|(_, value)| value.is_none());
    match store.commit(txn).await? {
        // It met nothing, and is no commit.
        Commit::Applied { deleted: 0, .. } if deletes => Ok(()),
        Commit::Applied { revision, .. } => {
            let twice = acknowledged.lock().insert(revision, writes);
            same!(
                twice,
                None,
                format!("what else was committed at {revision}")
            );
            Ok(())
        }
        Commit::Refused { .. } => Err(Failure(
            "a transaction without conditions was refused".to_owned(),
        )),
    }
}

/// Watches from some revision on until the end, and compares what it makes of it with reads.
async fn watch(
    store: &dyn Store,
    env: &Env,
    keys: &KeyRange,
    first: Revision,
    watching: &AtomicUsize,
) -> Result<(Revision, Log), Failure> {
    let newest = store.revision().await?;
    let mut start = Revision(first.0 + env.random_below(newest.0 - first.0 + 1));
    let state_at = |at| store.range(RangeRequest::new(keys.clone()).at(at));
    let found = match state_at(start).await {
        Err(StoreError::Compacted { .. }) => {
            start = store.revision().await?;
            state_at(start).await?
        }
        found => found?,
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
            log.push((revision, writes(changes)));
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
