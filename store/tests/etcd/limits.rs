//! What etcd refuses, and what cannot be known.

use std::time::Duration;

use orlop_core::env::Env;
use orlop_core::store::{Commit, KeyRange, Op, RangeRequest, Store, StoreError, Txn};
use orlop_store::EtcdOptions;

use crate::support::{Cluster, Settings, get, put};

#[tokio::test]
async fn no_space() {
    let settings = Settings::args(["--quota-backend-bytes=4194304"]);
    let Some(cluster) = Cluster::start_with("no_space", 1, settings) else {
        return;
    };
    let store = cluster.connect().await;
    put(&store, "/a", "1").await.unwrap();
    let value = "x".repeat(512 << 10);
    let mut refused = None;
    for n in 0..40 {
        if let Err(error) = put(&store, &format!("/big/{n}"), &value).await {
            refused = Some(error);
            break;
        }
    }
    assert!(
        matches!(refused, Some(StoreError::NoSpace(_))),
        "{refused:?}"
    );
    let refused = store.commit(Txn::create("/b", "1")).await;
    assert!(
        matches!(refused, Err(StoreError::NoSpace(_))),
        "{refused:?}"
    );
    assert_eq!(get(&store, "/a").await.unwrap().as_deref(), Some("1"));
    store.close().await;
}

#[tokio::test]
async fn requests_that_are_too_large() {
    let Some(cluster) = Cluster::start("requests_that_are_too_large", 1) else {
        return;
    };
    let store = cluster.connect().await;
    let refused = put(&store, "/a", &"x".repeat(4 << 20)).await;
    assert!(
        matches!(refused, Err(StoreError::InvalidRequest(_))),
        "{refused:?}"
    );
    let ops = (0..200).map(|n| Op::Put {
        key: format!("/a/{n}").into(),
        value: "x".into(),
        lease: None,
    });
    let refused = store
        .commit(Txn {
            compare: Vec::new(),
            ops: ops.collect(),
        })
        .await;
    assert!(
        matches!(&refused, Err(StoreError::InvalidRequest(why)) if why.contains("too many operations")),
        "{refused:?}"
    );
    store.close().await;
}

/// A range larger than any message: it is read in pages of one revision.
#[tokio::test]
async fn ranges_that_are_large() {
    let Some(cluster) = Cluster::start("ranges_that_are_large", 1) else {
        return;
    };
    let store = cluster.connect().await;
    for chunk in 0..50 {
        let ops = (0..100).map(|n| Op::Put {
            key: format!("/r/{:05}", chunk * 100 + n).into(),
            value: vec![b'x'; 4000].into(),
            lease: None,
        });
        let txn = Txn {
            compare: Vec::new(),
            ops: ops.collect(),
        };
        store.commit(txn).await.unwrap();
    }
    let keys = KeyRange::prefix("/r/");
    let all = store.range(RangeRequest::new(keys.clone())).await.unwrap();
    assert_eq!((all.items.len(), all.remaining), (5000, 0));
    assert!(all.items.is_sorted_by(|a, b| a.key < b.key));
    let some = RangeRequest::new(keys).page(3000, Some("/r/00999".into()));
    let some = store.range(some).await.unwrap();
    assert_eq!((some.items.len(), some.remaining), (3000, 1000));
    assert_eq!(some.items[0].key.as_ref(), b"/r/01000");
    store.close().await;
}

#[tokio::test]
async fn an_answer_is_lost() {
    let Some(cluster) = Cluster::start("an_answer_is_lost", 1) else {
        return;
    };
    let relay = cluster.relay(0).await;
    let direct = cluster.connect().await;
    let options = EtcdOptions::new([relay.endpoint()]).request_timeout(Duration::from_secs(2));
    let store = cluster.connect_with(options).await;
    put(&store, "/a", "1").await.unwrap();
    relay.mute(true);
    let lost = store.commit(Txn::create("/b", "1")).await;
    assert!(
        matches!(lost, Err(StoreError::OutcomeUnknown(_))),
        "{lost:?}"
    );
    // It did take effect, once.
    assert_eq!(get(&direct, "/b").await.unwrap().as_deref(), Some("1"));
    let read = get(&store, "/b").await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    relay.mute(false);
    relay.cut();
    relay.mend();
    assert_eq!(get(&store, "/b").await.unwrap().as_deref(), Some("1"));
    store.close().await;
}

#[tokio::test]
async fn a_server_stands_still() {
    let Some(cluster) = Cluster::start("a_server_stands_still", 1) else {
        return;
    };
    let env = Env::tokio();
    let options = cluster.options().request_timeout(Duration::from_secs(2));
    let store = cluster.connect_with(options).await;
    put(&store, "/a", "1").await.unwrap();
    cluster.freeze(0);
    let lost = put(&store, "/a", "2").await;
    assert!(
        matches!(lost, Err(StoreError::OutcomeUnknown(_))),
        "{lost:?}"
    );
    let unhealthy = store.healthy().await;
    assert!(
        matches!(unhealthy, Err(StoreError::Unavailable(_))),
        "{unhealthy:?}"
    );
    cluster.thaw(0);
    // The write was on its way, and was taken back on its way, too: only etcd can tell.
    let mut found = None;
    for _ in 0..50 {
        found = get(&store, "/a").await.ok().flatten();
        if found.is_some() {
            break;
        }
        env.sleep(Duration::from_millis(50)).await;
    }
    assert!(matches!(found.as_deref(), Some("1" | "2")), "{found:?}");
    let again = store.commit(Txn::create("/a", "3")).await.unwrap();
    assert!(matches!(again, Commit::Refused { .. }));
    store.close().await;
}
