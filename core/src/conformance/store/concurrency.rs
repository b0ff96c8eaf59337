//! Many clients at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::StreamExt;

use super::{Checked, Context, Failure, checks, ensure, same, text};
use crate::revision::Revision;
use crate::store::{
    Change, Commit, KeyRange, Op, RangeRequest, Store, StoreError, Txn, WatchItem, WatchRequest,
};

checks!(
    counters,
    creation_has_one_winner,
    readers_never_go_back,
    watchers_see_every_commit,
    transfers_keep_the_sum
);

/// How many clients work side by side.
const CLIENTS: usize = 8;

async fn increment(store: &dyn Store, key: &bytes::Bytes) -> Result<(u64, Revision), Failure> {
    loop {
        let read = store
            .range(RangeRequest::new(KeyRange::Key(key.clone())))
            .await?;
        let (value, at) = match read.items.first() {
            Some(kv) => (number(&kv.value)?, kv.mod_revision),
            None => (0, Revision::ZERO),
        };
        let txn = Txn::update(key.clone(), (value + 1).to_string(), at);
        if let Commit::Applied { revision, .. } = store.commit(txn).await? {
            return Ok((value + 1, revision));
        }
    }
}

fn number(value: &[u8]) -> Result<u64, Failure> {
    text(value)
        .parse()
        .map_err(|_| Failure(format!("{:?} is not a number", text(value))))
}

async fn counters(c: &Context) -> Checked {
    const TURNS: usize = 25;
    let before = c.store().revision().await?;
    let seen = Arc::new(parking_lot::Mutex::new(BTreeMap::new()));
    let tasks = (0..CLIENTS)
        .map(|client| {
            let (store, seen) = (c.shared(), seen.clone());
            let keys = ["x", "y", "z"].map(|name| c.key(name));
            async move {
                for turn in 0..TURNS {
                    let key = &keys[(client + turn) % 3];
                    let (value, revision) = increment(&*store, key).await?;
                    let twice = seen.lock().insert(revision, (key.clone(), value));
                    same!(
                        twice,
                        None,
                        format!("what else was committed at {revision}")
                    );
                }
                Ok(())
            }
            .boxed()
        })
        .collect();
    c.together(tasks).await?;
    let total = (CLIENTS * TURNS) as u64;
    same!(
        c.store().revision().await?.0,
        before.0 + total,
        "one revision for every increment"
    );
    let read = c.read(RangeRequest::new(c.all())).await?;
    let mut sum = 0;
    for kv in &read.items {
        let value = number(&kv.value)?;
        same!(
            kv.version,
            value,
            "the version of a counter, which is its value"
        );
        sum += value;
    }
    same!(sum, total, "the sum of the counters");
    // In the order of revisions every counter rises by one: no increment was lost, none was seen twice.
    let mut last = BTreeMap::new();
    for (revision, (key, value)) in seen.lock().iter() {
        let before = last.insert(key.clone(), *value).unwrap_or(0);
        same!(
            *value,
            before + 1,
            format!("the counter {} at {revision}", c.name(key))
        );
    }
    Ok(())
}

async fn creation_has_one_winner(c: &Context) -> Checked {
    let wins = Arc::new(parking_lot::Mutex::new(BTreeMap::<usize, Vec<usize>>::new()));
    let tasks = (0..CLIENTS)
        .map(|client| {
            let (store, wins) = (c.shared(), wins.clone());
            let keys: Vec<_> = (0..20).map(|n| c.key(&format!("k{n}"))).collect();
            async move {
                for (n, key) in keys.iter().enumerate() {
                    match store
                        .commit(Txn::create(key.clone(), client.to_string()))
                        .await?
                    {
                        Commit::Applied { .. } => wins.lock().entry(n).or_default().push(client),
                        Commit::Refused { current, .. } => {
                            ensure!(
                                matches!(current.as_slice(), [Some(_)]),
                                "refused, and yet nothing stands there"
                            );
                        }
                    }
                }
                Ok(())
            }
            .boxed()
        })
        .collect();
    c.together(tasks).await?;
    let wins = wins.lock().clone();
    for n in 0..20 {
        let winners = wins.get(&n).cloned().unwrap_or_default();
        ensure!(winners.len() == 1, "key {n} was created by {winners:?}");
        let found = c.get(&format!("k{n}")).await?.map(|kv| text(&kv.value));
        same!(found, Some(winners[0].to_string()), "who created the key");
    }
    Ok(())
}

async fn readers_never_go_back(c: &Context) -> Checked {
    let key = c.key("counter");
    let mut tasks = vec![];
    for _ in 0..2 {
        let (store, key) = (c.shared(), key.clone());
        tasks.push(
            async move {
                for _ in 0..100 {
                    let (_, revision) = increment(&*store, &key).await?;
                    let read = store
                        .range(RangeRequest::new(KeyRange::Key(key.clone())))
                        .await?;
                    ensure!(
                        read.revision >= revision,
                        "a read at {} after a commit at {revision}",
                        read.revision
                    );
                }
                Ok(())
            }
            .boxed(),
        );
    }
    for _ in 0..4 {
        let (store, key) = (c.shared(), key.clone());
        tasks.push(
            async move {
                let mut last = (Revision::ZERO, 0);
                while last.1 < 200 {
                    let read = store
                        .range(RangeRequest::new(KeyRange::Key(key.clone())))
                        .await?;
                    let value = read.items.first().map_or(Ok(0), |kv| number(&kv.value))?;
                    let now = (read.revision, value);
                    ensure!(
                        now >= last && now.1 >= last.1,
                        "read {now:?} after {last:?}"
                    );
                    last = now;
                    futures::future::poll_fn(yield_once()).await;
                }
                Ok(())
            }
            .boxed(),
        );
    }
    c.together(tasks).await
}

/// A poll function that lets other tasks run once.
fn yield_once() -> impl FnMut(&mut std::task::Context<'_>) -> std::task::Poll<()> {
    let mut yielded = false;
    move |cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    }
}

async fn watchers_see_every_commit(c: &Context) -> Checked {
    const COMMITS: u64 = 60;
    let from = c.store().revision().await?.next();
    let last = Revision(from.0 - 1 + CLIENTS as u64 * COMMITS);
    let mut tasks = Vec::new();
    for watcher in 0..6 {
        let store = c.shared();
        let keys = c.all();
        tasks.push(
            async move {
                // Some begin before the writers, some somewhere among them.
                for _ in 0..watcher * 7 {
                    futures::future::poll_fn(yield_once()).await;
                }
                let request = WatchRequest {
                    keys,
                    from,
                    progress: watcher % 2 == 0,
                };
                let mut stream = store.watch(request).await?;
                let mut state = BTreeMap::new();
                let mut next = from;
                while next <= last {
                    let Some(item) = stream.next().await else {
                        return Err(Failure("the watch ended".to_owned()));
                    };
                    let WatchItem::Changes(changes) = item? else {
                        continue;
                    };
                    for changes in changes.chunk_by(|a, b| a.revision() == b.revision()) {
                        same!(changes[0].revision(), next, "the next revision");
                        next = next.next();
                        for change in changes {
                            follow(&mut state, change)?;
                        }
                    }
                }
                let read = store
                    .range(RangeRequest::new(KeyRange::Key("\0".into())).at(last))
                    .await?;
                ensure!(
                    read.revision >= last,
                    "a watcher saw {last} before a reader could"
                );
                Ok(())
            }
            .boxed(),
        );
    }
    for client in 0..CLIENTS {
        let store = c.shared();
        let keys: Vec<_> = (0..5).map(|n| c.key(&format!("k{n}"))).collect();
        tasks.push(
            async move {
                for n in 0..COMMITS as usize {
                    let key = keys[(n + client) % 5].clone();
                    let mark = Op::Put {
                        key: format!("{}/{client}", text(&key)).into(),
                        value: n.to_string().into(),
                        lease: None,
                    };
                    let write = if n % 7 == 3 {
                        Op::Delete(KeyRange::Key(key))
                    } else {
                        Op::Put {
                            key,
                            value: format!("{client}-{n}").into(),
                            lease: None,
                        }
                    };
                    store
                        .commit(Txn {
                            compare: Vec::new(),
                            ops: vec![write, mark],
                        })
                        .await?;
                }
                Ok(())
            }
            .boxed(),
        );
    }
    c.together(tasks).await
}

/// Applies a change to a state, which must be the one that the change was made to.
pub(super) fn follow(
    state: &mut BTreeMap<bytes::Bytes, crate::store::KeyValue>,
    change: &Change,
) -> Checked {
    let key = change.key().clone();
    let prev = match change {
        Change::Put { kv, prev } => {
            same!(
                kv.version,
                prev.as_ref().map_or(1, |prev| prev.version + 1),
                "the version in a change"
            );
            same!(
                state.insert(key, kv.clone()),
                *prev,
                "what was there before"
            );
            return Ok(());
        }
        Change::Delete { prev, .. } => prev,
    };
    same!(
        state.remove(&key),
        *prev,
        "what was there before it was deleted"
    );
    Ok(())
}

async fn transfers_keep_the_sum(c: &Context) -> Checked {
    for n in 0..4 {
        c.put(&format!("account{n}"), "100").await?;
    }
    let mut tasks = Vec::new();
    for client in 0..4usize {
        let store = c.shared();
        let keys: Vec<_> = (0..4).map(|n| c.key(&format!("account{n}"))).collect();
        tasks.push(
            async move {
                let mut done = 0;
                while done < 25 {
                    let (from, to) = (&keys[(client + done) % 4], &keys[(client + done + 1) % 4]);
                    let mut txn = Txn::default();
                    for (key, sign) in [(from, -1i64), (to, 1)] {
                        let read = store
                            .range(RangeRequest::new(KeyRange::Key(key.clone())))
                            .await?;
                        let Some(kv) = read.items.into_iter().next() else {
                            return Err(Failure("an account is gone".to_owned()));
                        };
                        let value: i64 = text(&kv.value)
                            .parse()
                            .map_err(|_| Failure("not a number".to_owned()))?;
                        txn.compare.push(crate::store::Compare::ModRevision(
                            key.clone(),
                            kv.mod_revision,
                        ));
                        txn.ops.push(Op::Put {
                            key: key.clone(),
                            value: (value + sign).to_string().into(),
                            lease: None,
                        });
                    }
                    if let Commit::Applied { .. } = store.commit(txn).await? {
                        done += 1;
                    }
                }
                Ok(())
            }
            .boxed(),
        );
    }
    let (store, all) = (c.shared(), c.all());
    tasks.push(
        async move {
            for _ in 0..100 {
                let read = store.range(RangeRequest::new(all.clone())).await?;
                let mut sum = 0;
                for kv in &read.items {
                    sum += text(&kv.value)
                        .parse::<i64>()
                        .map_err(|_| Failure("not a number".to_owned()))?;
                }
                same!(
                    sum,
                    400,
                    format!("the sum of the accounts at {}", read.revision)
                );
                let past = store
                    .range(RangeRequest::new(all.clone()).at(read.revision))
                    .await;
                match past {
                    Ok(past) => same!(past.items, read.items, "the same revision read again"),
                    Err(StoreError::Compacted { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
                futures::future::poll_fn(yield_once()).await;
            }
            Ok(())
        }
        .boxed(),
    );
    c.together(tasks).await
}
