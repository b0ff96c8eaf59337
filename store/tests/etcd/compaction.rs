//! Forgetting the past together with others.

use std::time::Duration;

use orlop_core::env::Env;
use orlop_core::revision::Revision;
use orlop_core::store::{KeyRange, RangeRequest, Store, StoreError};

use crate::support::{Cluster, get, put};

#[tokio::test]
async fn somebody_else_compacts() {
    let Some(cluster) = Cluster::start("somebody_else_compacts", 1) else {
        return;
    };
    let (store, other) = (cluster.connect().await, cluster.connect().await);
    let mut revisions = Vec::new();
    for n in 0..10 {
        revisions.push(put(&store, "/a", &n.to_string()).await.unwrap());
    }
    other.compact(revisions[5]).await.unwrap();
    let at = |revision| RangeRequest::new(KeyRange::key("/a")).at(revision);
    let gone = store.range(at(revisions[2])).await.unwrap_err();
    assert!(
        matches!(gone, StoreError::Compacted { requested, oldest } if (requested, oldest) == (revisions[2], revisions[5])),
        "{gone}"
    );
    let there = store.range(at(revisions[5])).await.unwrap();
    assert_eq!(there.items[0].value.as_ref(), b"5");
    let ahead = store.compact(revisions[9].next()).await;
    assert!(
        matches!(ahead, Err(StoreError::FutureRevision { newest, .. }) if newest == revisions[9]),
        "{ahead:?}"
    );
    let again = store.compact(revisions[4]).await;
    assert!(
        matches!(again, Err(StoreError::Compacted { oldest, .. }) if oldest == revisions[5]),
        "{again:?}"
    );
    store.close().await;
    other.close().await;
}

/// Two stores compact in turns: what is older than the last turn goes, and a turn is taken once.
#[tokio::test]
async fn stores_take_turns() {
    let Some(cluster) = Cluster::start("stores_take_turns", 1) else {
        return;
    };
    let env = Env::tokio();
    let interval = Duration::from_millis(600);
    let options = cluster.options().compaction_interval(Some(interval));
    let store = cluster.connect_with(options.clone()).await;
    let first = put(&store, "/a", "0").await.unwrap();
    env.sleep(interval / 3).await;
    let other = cluster.connect_with(options).await;
    let began = env.now();
    let old = RangeRequest::new(KeyRange::key("/a")).at(first);
    let mut last = first;
    while !matches!(
        store.range(old.clone()).await,
        Err(StoreError::Compacted { .. })
    ) {
        assert!(env.now().since(began) < Duration::from_secs(10));
        last = put(&store, "/a", "1").await.unwrap();
        env.sleep(Duration::from_millis(50)).await;
    }
    assert!(last > first);
    // The newest stays readable.
    let now = store.revision().await.unwrap();
    let newest = RangeRequest::new(KeyRange::key("/a")).at(now);
    assert_eq!(store.range(newest).await.unwrap().items.len(), 1);
    let turns = store
        .range(RangeRequest::new(KeyRange::key("compact_rev_key")))
        .await
        .unwrap()
        .items[0]
        .version;
    let took = env.now().since(began).as_millis() as u64 + 200;
    let most = took / interval.as_millis() as u64 + 1;
    assert!((2..=most).contains(&turns), "{turns} turns in {took} ms");
    let value = get(&store, "compact_rev_key").await.unwrap().unwrap();
    assert!(value.parse::<u64>().is_ok_and(|at| Revision(at) <= now));
    store.close().await;
    other.close().await;
}
