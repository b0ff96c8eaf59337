//! Watches.

use futures::StreamExt;

use super::{Checked, Context, Failure, checks, ensure, same, sketch, wanted};
use crate::revision::Revision;
use crate::store::{Change, KeyRange, Op, StoreError, Txn, WatchItem, WatchRequest};

checks!(
    from_now,
    from_the_past,
    from_the_future,
    only_the_keys_asked_for,
    carries_what_was_before,
    commits_stay_whole,
    many_watchers_see_the_same,
    progress,
    progress_without_changes,
    a_slow_watcher_holds_nobody_up,
    a_dropped_watch_leaves_the_others,
    long_history,
);

async fn from_now(c: &Context) -> Checked {
    c.put("a", "before").await?;
    let mut watch = c.watch(c.all(), Revision::ZERO).await?;
    c.put("a", "1").await?;
    c.put("b", "2").await?;
    c.delete("a").await?;
    same!(
        sketch(c, &watch.changes(3).await?),
        ["+a=1", "+b=2", "-a"],
        "the changes from now on"
    );
    watch.silent().await?;
    c.put("c", "3").await?;
    same!(
        sketch(c, &watch.changes(1).await?),
        ["+c=3"],
        "a change after a pause"
    );
    Ok(())
}

async fn from_the_past(c: &Context) -> Checked {
    let mut revisions = Vec::new();
    for n in 0..10 {
        revisions.push(c.put(&format!("k{n}"), "x").await?);
    }
    for (skip, from) in revisions.iter().enumerate() {
        let mut watch = c.watch(c.all(), *from).await?;
        let found = watch.changes(10 - skip).await?;
        let wanted = &revisions[skip..];
        let found: Vec<_> = found.iter().map(Change::revision).collect();
        same!(
            found,
            wanted,
            format!("the revisions of a watch from {from}")
        );
    }
    // History and what comes after it join without a seam.
    let mut watch = c.watch(c.all(), revisions[8]).await?;
    let last = c.put("k10", "x").await?;
    let found: Vec<_> = watch
        .changes(3)
        .await?
        .iter()
        .map(Change::revision)
        .collect();
    same!(
        found,
        [revisions[8], revisions[9], last],
        "history and the present in one watch"
    );
    Ok(())
}

async fn from_the_future(c: &Context) -> Checked {
    let newest = c.put("a", "0").await?;
    let mut watch = c.watch(c.all(), Revision(newest.0 + 3)).await?;
    for n in 1..=4 {
        c.put("a", &n.to_string()).await?;
    }
    same!(
        sketch(c, &watch.changes(2).await?),
        ["+a=3", "+a=4"],
        "the changes from a revision to come"
    );
    Ok(())
}

async fn only_the_keys_asked_for(c: &Context) -> Checked {
    let before = c.put("zero", "x").await?;
    let ranges = [
        KeyRange::Key(c.key("a")),
        KeyRange::Prefix(c.key("a/")),
        KeyRange::Prefix(c.key("a")),
        KeyRange::Span(c.key("a/2"), c.key("b")),
        KeyRange::Prefix(c.key("none")),
        KeyRange::From(c.key("a/2")),
        KeyRange::Span(c.key("b"), c.key("a")),
        c.all(),
    ];
    let mut watches = Vec::new();
    for keys in &ranges {
        watches.push(c.watch(keys.clone(), Revision::ZERO).await?);
    }
    let names = ["a", "a/1", "b", "a/2", "a0", "c", "a/1", "a"];
    for name in names {
        c.put(name, "x").await?;
    }
    for (keys, live) in ranges.iter().zip(&mut watches) {
        let wanted: Vec<_> = names
            .iter()
            .filter(|name| keys.contains(&c.key(name)))
            .map(|name| format!("+{name}=x"))
            .collect();
        same!(
            sketch(c, &live.changes(wanted.len()).await?),
            wanted,
            format!("the changes of {keys:?}")
        );
        live.silent().await?;
        let mut past = c.watch(keys.clone(), before.next()).await?;
        same!(
            sketch(c, &past.changes(wanted.len()).await?),
            wanted,
            format!("the past changes of {keys:?}")
        );
    }
    Ok(())
}

async fn carries_what_was_before(c: &Context) -> Checked {
    let first = c.put("a", "1").await?;
    let one = c.get("a").await?;
    c.put("a", "2").await?;
    let two = c.get("a").await?;
    let third = c.delete("a").await?;
    c.put("a", "3").await?;
    let three = c.get("a").await?;
    let found = c.watch(c.all(), first).await?.changes(4).await?;
    let put = |kv: &Option<_>, prev: &Option<_>| {
        kv.clone().map(|kv| Change::Put {
            kv,
            prev: prev.clone(),
        })
    };
    let wanted = [
        put(&one, &None),
        put(&two, &one),
        Some(Change::Delete {
            key: c.key("a"),
            revision: third,
            prev: two,
        }),
        put(&three, &None),
    ];
    same!(
        found.into_iter().map(Some).collect::<Vec<_>>(),
        wanted,
        "the changes with what was before"
    );
    Ok(())
}

async fn commits_stay_whole(c: &Context) -> Checked {
    let from = c.store().revision().await?.next();
    let mut live = c.watch(c.all(), Revision::ZERO).await?;
    for round in 0..10 {
        let mut txn = Txn::default();
        for n in 0..=round {
            txn.ops.push(Op::Put {
                key: c.key(&format!("k{n}")),
                value: round.to_string().into(),
                lease: None,
            });
        }
        if round == 9 {
            txn.ops = vec![Op::Delete(KeyRange::Prefix(c.key("k")))];
        }
        c.apply(txn).await?;
    }
    let total = 45 + 9;
    let mut past = c.watch(c.all(), from).await?;
    for watch in [&mut live, &mut past] {
        let batches = watch.batches(total).await?;
        let ends: Vec<_> = batches
            .iter()
            .filter_map(|batch| Some((batch.first()?.revision(), batch.last()?.revision())))
            .collect();
        for pair in ends.windows(2) {
            ensure!(
                pair[0].1 < pair[1].0,
                "a commit was split over two items, or they were out of order: {ends:?}"
            );
        }
        let all = batches.concat();
        for round in 0..10u64 {
            let revision = Revision(from.0 + round);
            let found = all
                .iter()
                .filter(|change| change.revision() == revision)
                .count() as u64;
            same!(
                found,
                if round == 9 { 9 } else { round + 1 },
                format!("the changes of the commit at {revision}")
            );
        }
        ensure!(
            all.is_sorted_by_key(Change::revision),
            "the changes are out of order"
        );
    }
    Ok(())
}

async fn many_watchers_see_the_same(c: &Context) -> Checked {
    let from = c.put("a", "0").await?;
    let mut watches = Vec::new();
    for n in 0..40 {
        let from = if n % 2 == 0 { from } else { from.next() };
        watches.push((n % 2, c.watch(c.all(), from).await?));
    }
    for n in 1..=50 {
        c.put("a", &n.to_string()).await?;
    }
    let wanted: Vec<_> = (0..=50).map(|n| format!("+a={n}")).collect();
    for (skip, watch) in &mut watches {
        same!(
            sketch(c, &watch.changes(51 - *skip).await?),
            wanted[*skip..],
            "what each of many watchers sees"
        );
    }
    Ok(())
}

async fn progress(c: &Context) -> Checked {
    let from = c.put("a", "1").await?;
    let newest = c.put("other", "1").await?;
    let request = WatchRequest {
        keys: KeyRange::Key(c.key("a")),
        from,
        progress: true,
    };
    let mut watch = c.open(request).await?;
    same!(
        sketch(c, &watch.changes(1).await?),
        ["+a=1"],
        "the change in history"
    );
    let at =
        wanted!(watch.next().await?, Ok(WatchItem::Progress(at)) => at, "what comes after history");
    same!(at, newest, "the progress after history");
    let last = c.put("other", "2").await?;
    let at = wanted!(watch.next().await?, Ok(WatchItem::Progress(at)) => at, "what comes after foreign commits");
    same!(at, last, "the progress after foreign commits");
    // Progress never runs ahead of a change.
    let mut last = at;
    for n in 0..20 {
        c.put("other", "x").await?;
        let revision = c.put("a", &n.to_string()).await?;
        loop {
            match watch.next().await?? {
                WatchItem::Progress(at) => {
                    ensure!(
                        at > last && at < revision,
                        "progress to {at} between {last} and {revision}"
                    );
                    last = at;
                }
                WatchItem::Changes(changes) => {
                    same!(
                        changes.first().map(Change::revision),
                        Some(revision),
                        "the change that is due"
                    );
                    last = revision;
                    break;
                }
            }
        }
    }
    Ok(())
}

async fn progress_without_changes(c: &Context) -> Checked {
    let from = c.put("other", "1").await?;
    let newest = c.put("other", "2").await?;
    let request = WatchRequest {
        keys: KeyRange::Prefix(c.key("none/")),
        from,
        progress: true,
    };
    let mut watch = c.open(request.clone()).await?;
    let at = wanted!(watch.next().await?, Ok(WatchItem::Progress(at)) => at, "a watch that has caught up");
    same!(at, newest, "the progress of a watch without changes");
    watch.silent().await?;
    let mut plain = c
        .open(WatchRequest {
            progress: false,
            ..request
        })
        .await?;
    c.put("other", "3").await?;
    plain.silent().await
}

async fn a_slow_watcher_holds_nobody_up(c: &Context) -> Checked {
    let mut slow = c.watch(c.all(), Revision::ZERO).await?;
    let mut fast = c.watch(c.all(), Revision::ZERO).await?;
    let value = "x".repeat(1000);
    for n in 0..1000 {
        c.put(&format!("k{}", n % 10), &value).await?;
    }
    fast.changes(1000).await?;
    // The slow one has everything, or is told that it has not.
    let mut count = 0;
    while count < 1000 {
        match slow.next().await? {
            Ok(WatchItem::Changes(changes)) => count += changes.len(),
            Ok(WatchItem::Progress(at)) => {
                return Err(Failure(format!("nobody asked for progress to {at}")));
            }
            Err(StoreError::Lagged { .. }) => {
                ensure!(
                    slow.stream.next().await.is_none(),
                    "a watch goes on after an error"
                );
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn a_dropped_watch_leaves_the_others(c: &Context) -> Checked {
    let mut stays = c.watch(c.all(), Revision::ZERO).await?;
    for n in 0..20 {
        let goes = c.watch(c.all(), Revision::ZERO).await?;
        c.put("a", &n.to_string()).await?;
        drop(goes);
    }
    let wanted: Vec<_> = (0..20).map(|n| format!("+a={n}")).collect();
    same!(
        sketch(c, &stays.changes(20).await?),
        wanted,
        "what the watch sees that stays"
    );
    Ok(())
}

async fn long_history(c: &Context) -> Checked {
    let from = c.store().revision().await?.next();
    for n in 0..1500 {
        c.put(if n % 700 == 0 { "rare" } else { "often" }, &n.to_string())
            .await?;
    }
    let mut rare = c.watch(KeyRange::Key(c.key("rare")), from).await?;
    same!(
        sketch(c, &rare.changes(3).await?),
        ["+rare=0", "+rare=700", "+rare=1400"],
        "three changes of many"
    );
    let all = c.watch(c.all(), from).await?.changes(1500).await?;
    let revisions: Vec<_> = all.iter().map(|change| change.revision().0).collect();
    same!(
        revisions,
        (from.0..from.0 + 1500).collect::<Vec<_>>(),
        "the revisions of a long history"
    );
    Ok(())
}
