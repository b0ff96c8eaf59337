//! Compaction.

use futures::StreamExt;

use super::{Checked, Context, checks, ensure, same, sketch, wanted};
use crate::revision::Revision;
use crate::store::{KeyRange, RangeRequest, StoreError, WatchRequest};

checks!(
    forgets_the_past,
    keeps_what_it_should,
    refuses,
    forgets_deleted_keys,
    spares_watchers_that_wait
);

async fn forgets_the_past(c: &Context) -> Checked {
    let mut revisions = Vec::new();
    for n in 0..10 {
        revisions.push(c.put("a", &n.to_string()).await?);
    }
    c.store().compact(revisions[5]).await?;
    for revision in &revisions[..5] {
        for keys in [c.all(), KeyRange::Key(c.key("a"))] {
            let (requested, oldest) = wanted!(
                c.store().range(RangeRequest::new(keys).at(*revision)).await,
                Err(StoreError::Compacted { requested, oldest }) => (requested, oldest),
                "a read before the compaction"
            );
            same!(
                (requested, oldest),
                (*revision, revisions[5]),
                "what the error says"
            );
        }
        let request = WatchRequest {
            keys: c.all(),
            from: *revision,
            progress: false,
        };
        // A store at the other end of a wire may tell it in the stream only.
        let first = match c.store().watch(request).await {
            Ok(mut stream) => stream.next().await.transpose().map(|_| ()),
            Err(error) => Err(error),
        };
        wanted!(first, Err(StoreError::Compacted { .. }) => (), "a watch from before the compaction");
    }
    same!(
        c.store().revision().await?,
        revisions[9],
        "the revision after a compaction"
    );
    Ok(())
}

async fn keeps_what_it_should(c: &Context) -> Checked {
    c.put("still", "old").await?;
    let mut revisions = Vec::new();
    for n in 0..10 {
        revisions.push(c.put("a", &n.to_string()).await?);
    }
    c.store().compact(revisions[5]).await?;
    for (n, revision) in revisions.iter().enumerate().skip(5) {
        let read = c.read(RangeRequest::new(c.all()).at(*revision)).await?;
        let wanted = [
            ("a".to_owned(), n.to_string()),
            ("still".to_owned(), "old".to_owned()),
        ];
        same!(
            c.short(&read.items),
            wanted,
            format!("the state at {revision}, which is not older than the compaction")
        );
        same!(
            read.items.first().map(|kv| kv.version),
            Some(n as u64 + 1),
            "the version of a key after a compaction"
        );
    }
    let mut watch = c.watch(c.all(), revisions[6]).await?;
    let wanted: Vec<_> = (6..10).map(|n| format!("+a={n}")).collect();
    same!(
        sketch(c, &watch.changes(4).await?),
        wanted,
        "the changes after the compaction"
    );
    same!(
        c.put("a", "x").await?,
        revisions[9].next(),
        "the next revision after a compaction"
    );
    Ok(())
}

async fn refuses(c: &Context) -> Checked {
    let first = c.put("a", "1").await?;
    let second = c.put("a", "2").await?;
    let third = c.put("a", "3").await?;
    let ahead = c.store().compact(third.next()).await;
    wanted!(ahead, Err(StoreError::FutureRevision { .. }) => (), "a compaction of the future");
    c.store().compact(second).await?;
    for done in [first, second] {
        let again = c.store().compact(done).await;
        wanted!(again, Err(StoreError::Compacted { .. }) => (), "a compaction that was done already");
    }
    c.store().compact(third).await?;
    same!(
        c.get("a").await?.map(|kv| kv.value),
        Some("3".into()),
        "the newest state after compacting all before it"
    );
    Ok(())
}

async fn forgets_deleted_keys(c: &Context) -> Checked {
    c.put("a", "1").await?;
    c.put("b", "1").await?;
    c.delete("a").await?;
    let kept = c.read(RangeRequest::new(c.all())).await?.revision;
    c.put("b", "2").await?;
    c.store().compact(kept).await?;
    let read = c.read(RangeRequest::new(c.all()).at(kept)).await?;
    same!(
        c.short(&read.items),
        [("b".to_owned(), "1".to_owned())],
        "the state at the compaction"
    );
    let newest = c.put("c", "1").await?;
    c.store().compact(newest).await?;
    let again = c.put("a", "2").await?;
    let found = c.get("a").await?.map(|kv| (kv.create_revision, kv.version));
    same!(
        found,
        Some((again, 1)),
        "a key that is made again after it was compacted away"
    );
    Ok(())
}

async fn spares_watchers_that_wait(c: &Context) -> Checked {
    let mut watch = c
        .watch(KeyRange::Key(c.key("rare")), Revision::ZERO)
        .await?;
    c.put("rare", "1").await?;
    same!(
        sketch(c, &watch.changes(1).await?),
        ["+rare=1"],
        "a change before the compaction"
    );
    // Nothing of what is compacted concerns the watcher, so it misses nothing.
    for n in 0..50 {
        let newest = c.put("often", &n.to_string()).await?;
        if n % 10 == 9 {
            watch.silent().await?;
            c.store().compact(newest).await?;
        }
    }
    c.put("rare", "2").await?;
    same!(
        sketch(c, &watch.changes(1).await?),
        ["+rare=2"],
        "a change after the compaction"
    );
    let read = c.read(RangeRequest::new(c.all())).await?;
    ensure!(
        read.items.len() == 2,
        "keys were lost in compactions: {:?}",
        read.items
    );
    Ok(())
}
