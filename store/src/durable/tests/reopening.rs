//! What is there again when a store is opened again.

use std::sync::atomic::AtomicU64 as Counter;

use futures::StreamExt;
use orlop_core::store::WatchItem;
use proptest::prelude::*;

use super::*;
use crate::model::{Model, same, same_results, transaction, txn};

#[tokio::test]
async fn everything_is_there_again() {
    let disk = SimDisk::new(1);
    let store = open(&disk, &small()).expect("a store");
    let lease = store.grant_lease(None, 60).await.expect("a lease");
    let other = store.grant_lease(None, 60).await.expect("a lease");
    let hung = |key: &str, lease| Txn {
        compare: Vec::new(),
        ops: vec![Op::Put {
            key: key.to_owned().into(),
            value: "x".into(),
            lease: Some(lease),
        }],
    };
    store.commit(hung("/hung", lease)).await.expect("a commit");
    store.commit(hung("/gone", other)).await.expect("a commit");
    store.revoke_lease(other).await.expect("a revocation");
    until_checkpoint(&store, &disk).await;
    let revision = store.revision().await.expect("the revision");
    let before = store
        .range(RangeRequest::new(KeyRange::prefix("")))
        .await
        .expect("a read");
    store.close().await;
    drop(store);

    for _ in 0..2 {
        let store = open(&disk, &small()).expect("the store again");
        assert_eq!(store.revision().await.expect("the revision"), revision);
        let after = store
            .range(RangeRequest::new(KeyRange::prefix("")))
            .await
            .expect("a read");
        assert_eq!(after.items, before.items);
        assert_eq!(
            store.renew_lease(lease).await.expect("the lease is kept"),
            60
        );
        assert!(matches!(
            store.renew_lease(other).await,
            Err(StoreError::LeaseNotFound(_))
        ));
        let old = store
            .range(RangeRequest::new(KeyRange::prefix("")).at(Revision(3)))
            .await;
        assert!(matches!(old, Err(StoreError::Compacted { .. })), "{old:?}");
    }
    let store = open(&disk, &small()).expect("the store again");
    store
        .revoke_lease(lease)
        .await
        .expect("the keys still hang on the lease");
    assert_eq!(value(&store, "/hung").await, None);
    assert_eq!(
        store.revision().await.expect("the revision"),
        revision.next()
    );
}

#[tokio::test]
async fn history_since_the_last_checkpoint_comes_back() {
    let disk = SimDisk::new(1);
    let store = open(&disk, &DurableOptions::default()).expect("a store");
    for n in 0..20 {
        store
            .commit(put("/a", n.to_string()))
            .await
            .expect("a commit");
    }
    store.compact(Revision(10)).await.expect("a compaction");
    store.commit(put("/a", "last")).await.expect("a commit");
    drop(store);
    let store = open(&disk, &DurableOptions::default()).expect("the store again");
    let request = |from| WatchRequest {
        keys: KeyRange::prefix("/"),
        from: Revision(from),
        progress: false,
    };
    assert!(matches!(
        store.watch(request(9)).await,
        Err(StoreError::Compacted { .. })
    ));
    let mut watch = store.watch(request(10)).await.expect("a watch");
    for revision in 10..=22 {
        let item = watch.next().await.expect("an item").expect("no error");
        let WatchItem::Changes(changes) = item else {
            panic!("{item:?}")
        };
        assert_eq!(changes[0].revision(), Revision(revision));
    }
    let read = store
        .range(RangeRequest::new(KeyRange::key("/a")).at(Revision(12)))
        .await
        .expect("a read");
    assert_eq!(read.items[0].value.as_ref(), b"10");
}

#[tokio::test]
async fn expired_leases_go_also_after_a_restart() {
    let disk = SimDisk::new(1);
    let store = open(&disk, &small()).expect("a store");
    let lease = store.grant_lease(None, 1).await.expect("a lease");
    let op = Op::Put {
        key: "/a".into(),
        value: "x".into(),
        lease: Some(lease),
    };
    store
        .commit(Txn {
            compare: Vec::new(),
            ops: vec![op],
        })
        .await
        .expect("a commit");
    drop(store);
    let store = open(&disk, &small()).expect("the store again");
    assert!(value(&store, "/a").await.is_some(), "the lease begins anew");
    let request = WatchRequest {
        keys: KeyRange::key("/a"),
        from: Revision(3),
        progress: false,
    };
    let mut watch = store.watch(request).await.expect("a watch");
    let item = watch.next().await.expect("an item").expect("no error");
    assert!(matches!(item, WatchItem::Changes(changes) if changes.len() == 1));
    assert_eq!(value(&store, "/a").await, None);
}

#[tokio::test]
async fn segments_are_made_ahead_and_found_again() {
    let disk = SimDisk::new(1);
    let options = DurableOptions {
        segment_bytes: 64 << 10,
        checkpoint_bytes: 1 << 30,
        ..DurableOptions::default()
    };
    for round in 0..3u32 {
        let store = open(&disk, &options).expect("a store");
        let begun = segments(&disk).len();
        let made_ahead = || {
            let names = disk.list().expect("names");
            names.iter().any(|name| name == crate::durable::ahead::NAME)
        };
        while segments(&disk).len() < begun + 3 {
            let before = segments(&disk).len();
            for n in 0..10u32 {
                let txn = put(&format!("/{n}"), vec![round as u8; 1000]);
                store.commit(txn).await.expect("a commit");
            }
            assert!(segments(&disk).len() <= before + 1);
        }
        for n in 0..40u32 {
            let txn = put(&format!("/{n}"), vec![round as u8; 1000]);
            store.commit(txn).await.expect("a commit");
        }
        while !made_ahead() {
            tokio::task::yield_now().await;
        }
        store.close().await;
        assert!(!made_ahead(), "what was made ahead stays behind");
        drop(store);
        disk.crash();
    }
    let store = open(&disk, &options).expect("the store again");
    assert_eq!(
        value(&store, "/39").await.as_deref(),
        Some([2; 1000].as_ref())
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn is_the_model_again_after_reopening(groups in proptest::collection::vec(proptest::collection::vec((txn(), transaction()), 1..15), 1..6)) {
        static SEED: Counter = Counter::new(0);
        runtime().block_on(async {
            let disk = SimDisk::new(SEED.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
            let mut model = Model::new();
            for group in groups {
                let store = open(&disk, &small()).expect("a store");
                for (txn, transaction) in group {
                    let commit = store.commit(txn.clone()).await.expect("a commit");
                    assert!(same(&commit, &model.commit(&txn)));
                    let oldest = store.pipe.shared.index.read().oldest();
                    let result = store.transact(transaction.clone()).await;
                    let wanted = model.transact(&transaction, Revision(oldest));
                    assert!(same_results(&result, &wanted), "{result:?} instead of {wanted:?}");
                }
                model.check(&store).await;
            }
            let store = open(&disk, &small()).expect("a store");
            model.check(&store).await;
        });
    }
}
