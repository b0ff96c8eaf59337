//! Watches beyond what this process remembers.

use std::time::Duration;

use futures::StreamExt;
use orlop_core::env::Env;
use orlop_core::revision::Revision;
use orlop_core::store::{KeyRange, Store, StoreError, WatchItem, WatchRequest};
use orlop_store::EtcdOptions;

use crate::support::{Cluster, Watch, put, put_until_done};

fn values(seen: Vec<(String, Option<String>)>) -> Vec<String> {
    seen.into_iter().filter_map(|(_, value)| value).collect()
}

#[tokio::test]
async fn history_that_only_etcd_has() {
    let Some(cluster) = Cluster::start("history_that_only_etcd_has", 1) else {
        return;
    };
    let before = cluster.connect().await;
    let mut revisions = Vec::new();
    for n in 0..1200 {
        let key = if n % 100 == 0 { "/rare" } else { "/often" };
        revisions.push(put(&before, key, &n.to_string()).await.unwrap());
    }
    // It remembers nothing from before it connected, and next to nothing since.
    let store = cluster
        .connect_with(cluster.options().history_bytes(2000))
        .await;
    let mut last = Revision::ZERO;
    for n in 1200..1300 {
        last = put(&store, "/often", &n.to_string()).await.unwrap();
    }
    let mut all = Watch::open(&store, KeyRange::prefix("/"), revisions[0]).await;
    let wanted: Vec<_> = (0..1300).map(|n| n.to_string()).collect();
    assert_eq!(values(all.until(last).await), wanted);
    let mut rare = Watch::open(&store, KeyRange::key("/rare"), revisions[300]).await;
    let wanted: Vec<_> = (3..12).map(|n| (n * 100).to_string()).collect();
    // The progress at its end comes from the history of this process.
    assert_eq!(values(rare.until(last).await), wanted);
    // And both go on.
    let last = put(&before, "/rare", "last").await.unwrap();
    assert_eq!(values(all.until(last).await), ["last"]);
    assert_eq!(values(rare.until(last).await), ["last"]);
    store.close().await;
    before.close().await;
}

#[tokio::test]
async fn a_watch_that_catches_up_outlives_its_connection() {
    let Some(cluster) = Cluster::start("a_watch_that_catches_up", 1) else {
        return;
    };
    let direct = cluster.connect().await;
    let value = "x".repeat(20_000);
    let first = put(&direct, "/a", &value).await.unwrap();
    let mut last = first;
    for _ in 0..300 {
        last = put(&direct, "/a", &value).await.unwrap();
    }
    let relay = cluster.relay(0).await;
    let store = cluster
        .connect_with(EtcdOptions::new([relay.endpoint()]).history_bytes(1000))
        .await;
    let mut watch = Watch::open(&store, KeyRange::prefix("/"), first).await;
    watch.until(Revision(first.0 + 10)).await;
    relay.cut();
    relay.mend();
    let seen = watch.until(last).await;
    assert_eq!(watch.at, last);
    assert_eq!(seen.len() as u64, last.0 - first.0 - 10);
    store.close().await;
    direct.close().await;
}

#[tokio::test]
async fn a_slow_watcher_is_dropped() {
    let Some(cluster) = Cluster::start("a_slow_watcher_is_dropped", 1) else {
        return;
    };
    let store = cluster
        .connect_with(cluster.options().history_bytes(20_000))
        .await;
    let first = put(&store, "/a", "0").await.unwrap();
    let mut watch = Watch::open(&store, KeyRange::prefix("/"), first).await;
    watch.until(first).await;
    for _ in 0..100 {
        put(&store, "/a", &"x".repeat(1000)).await.unwrap();
    }
    loop {
        match watch.next().await {
            Ok(_) => {}
            Err(error) => {
                assert!(matches!(error, StoreError::Lagged { .. }), "{error}");
                break;
            }
        }
    }
    store.close().await;
}

/// What happened while etcd was out of reach has been compacted when it is back.
#[tokio::test]
async fn what_was_missed_is_gone() {
    let Some(cluster) = Cluster::start("what_was_missed_is_gone", 1) else {
        return;
    };
    let env = Env::tokio();
    let relay = cluster.relay(0).await;
    let direct = cluster.connect().await;
    let store = cluster
        .connect_with(EtcdOptions::new([relay.endpoint()]))
        .await;
    let first = put(&direct, "/a", "0").await.unwrap();
    let mut watch = Watch::open(&store, KeyRange::prefix("/"), first).await;
    watch.until(first).await;
    relay.cut();
    let mut last = first;
    for n in 0..20 {
        last = put(&direct, "/a", &n.to_string()).await.unwrap();
    }
    direct.compact(last).await.unwrap();
    relay.mend();
    loop {
        match watch.next().await {
            Ok(WatchItem::Progress(at)) => assert!(at <= first),
            Ok(WatchItem::Changes(changes)) => panic!("{changes:?}"),
            Err(error) => {
                assert!(
                    matches!(
                        error,
                        StoreError::Lagged { .. } | StoreError::Compacted { .. }
                    ),
                    "{error}"
                );
                break;
            }
        }
    }
    let request = WatchRequest {
        keys: KeyRange::prefix("/"),
        from: first,
        progress: false,
    };
    // It was learnt how far etcd was compacted.
    let old = store.watch(request).await.map(|_| ());
    assert!(
        matches!(old, Err(StoreError::Compacted { oldest, .. }) if oldest == last),
        "{old:?}"
    );
    // A store that knows nothing of it is told by etcd.
    let fresh = cluster.connect().await;
    let request = WatchRequest {
        keys: KeyRange::prefix("/"),
        from: first,
        progress: false,
    };
    let mut old = fresh.watch(request).await.unwrap();
    let next = env.timeout(Duration::from_secs(10), old.next()).await;
    let error = next.unwrap().unwrap().unwrap_err();
    assert!(
        matches!(error, StoreError::Compacted { oldest, .. } if oldest == last),
        "{error}"
    );
    assert!(old.next().await.is_none());
    fresh.close().await;
    // A new watch goes on.
    let mut watch = Watch::open(&store, KeyRange::prefix("/"), Revision::ZERO).await;
    let last = put_until_done(&store, "/a", "new").await;
    assert_eq!(values(watch.until(last).await), ["new"]);
    store.close().await;
    direct.close().await;
}
