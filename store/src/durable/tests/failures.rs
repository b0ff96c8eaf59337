//! Disks that run full, and writes, syncs and reads that fail.

use futures::StreamExt;

use super::*;
use crate::model::{Model, same};

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_room() {
    let disk = SimDisk::new(3);
    let options = DurableOptions {
        segment_bytes: 4 << 10,
        checkpoint_bytes: 1 << 30,
        ..DurableOptions::default()
    };
    let store = open(&disk, &options).expect("a store");
    disk.set_capacity(20 << 10);
    let mut model = Model::new();
    let mut refused = 0;
    for n in 0..200u32 {
        let txn = put(
            &format!("/{}", n % 7),
            vec![n as u8; (n % 5 * 200) as usize],
        );
        match store.commit(txn.clone()).await {
            Ok(commit) => assert!(same(&commit, &model.commit(&txn))),
            Err(StoreError::NoSpace(_)) => {
                refused += 1;
                model.check(&store).await;
                assert!(matches!(store.healthy().await, Err(StoreError::NoSpace(_))));
            }
            Err(error) => panic!("{error}"),
        }
        if n == 120 {
            assert!(
                refused > 0,
                "the disk never ran full: {} bytes",
                disk.used()
            );
            disk.set_capacity(u64::MAX);
            refused = 0;
        }
    }
    assert_eq!(refused, 0, "writes were refused after room had come");
    store.healthy().await.expect("all is well again");
    model.check(&store).await;
    drop(store);
    disk.crash();
    let store = open(&disk, &options).expect("the store again");
    model.check(&store).await;
}

#[tokio::test]
async fn a_failed_write_leaves_nothing() {
    let disk = SimDisk::new(5);
    let store = open(&disk, &small()).expect("a store");
    store.commit(put("/a", "1")).await.expect("a commit");
    disk.fail_next_write();
    let failed = store.commit(put("/a", vec![2; 2000])).await;
    assert!(
        matches!(failed, Err(StoreError::Unavailable(_))),
        "{failed:?}"
    );
    assert_eq!(value(&store, "/a").await.as_deref(), Some(b"1".as_ref()));
    store.commit(put("/b", "3")).await.expect("the next one");
    drop(store);
    disk.crash();
    let store = open(&disk, &small()).expect("the store again");
    assert_eq!(value(&store, "/a").await.as_deref(), Some(b"1".as_ref()));
    assert_eq!(value(&store, "/b").await.as_deref(), Some(b"3".as_ref()));
}

#[tokio::test]
async fn a_failed_write_does_not_come_back() {
    for seed in 0..16 {
        let disk = SimDisk::new(seed);
        let store = open(&disk, &small()).expect("a store");
        store.commit(put("/a", "1")).await.expect("a commit");
        disk.fail_next_write();
        let failed = store.commit(put("/a", "2")).await;
        assert!(
            matches!(failed, Err(StoreError::Unavailable(_))),
            "{failed:?}"
        );
        drop(store);
        if seed % 2 == 0 {
            disk.crash();
        }
        let store = open(&disk, &small()).expect("the store again");
        assert_eq!(value(&store, "/a").await.as_deref(), Some(b"1".as_ref()));
    }
}

#[tokio::test]
async fn what_was_read_after_a_kill_outlives_a_crash() {
    let mut seen = 0;
    for seed in 0..64 {
        let disk = SimDisk::new(seed);
        let store = open(&disk, &small()).expect("a store");
        // The write is done, and the disk dies in the sync.
        disk.die_after(2);
        let lost = store.commit(put("/a", "1")).await;
        assert!(
            matches!(lost, Err(StoreError::OutcomeUnknown(_))),
            "{lost:?}"
        );
        drop(store);
        disk.kill();
        let store = open(&disk, &small()).expect("the store again");
        let found = value(&store, "/a").await;
        drop(store);
        disk.crash();
        let store = open(&disk, &small()).expect("the store once more");
        assert_eq!(value(&store, "/a").await, found);
        seen += u32::from(found.is_some());
    }
    assert!(seen > 0, "the write never stayed");
}

#[tokio::test]
async fn a_kill_while_the_store_is_made_costs_nothing_later() {
    for (seed, lives) in (0..60).zip((1..12).cycle()) {
        let disk = SimDisk::new(seed);
        disk.die_after(lives);
        drop(open(&disk, &small()));
        disk.kill();
        let store = open(&disk, &small()).expect("a store");
        store.commit(put("/a", "1")).await.expect("a commit");
        drop(store);
        disk.crash();
        let store = open(&disk, &small()).expect("the store again");
        assert_eq!(
            value(&store, "/a").await.as_deref(),
            Some(b"1".as_ref()),
            "{lives}"
        );
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_written() {
    let disk = SimDisk::new(7);
    let store = open(&disk, &small()).expect("a store");
    let lease = store.grant_lease(None, 60).await.expect("a lease");
    store.commit(put("/a", "1")).await.expect("a commit");
    disk.fail_next_sync();
    let mut watch = store
        .watch(WatchRequest {
            keys: KeyRange::prefix(""),
            from: Revision::ZERO,
            progress: false,
        })
        .await
        .expect("a watch");
    let failed = store.commit(put("/a", "2")).await;
    assert!(
        matches!(failed, Err(StoreError::OutcomeUnknown(_))),
        "{failed:?}"
    );
    for _ in 0..3 {
        let later = store.commit(put("/b", "3")).await;
        assert!(
            matches!(later, Err(StoreError::Unavailable(_))),
            "{later:?}"
        );
    }
    assert!(matches!(
        store.grant_lease(None, 5).await,
        Err(StoreError::Unavailable(_))
    ));
    assert!(matches!(
        store.revoke_lease(lease).await,
        Err(StoreError::Unavailable(_))
    ));
    assert!(matches!(
        store.healthy().await,
        Err(StoreError::Unavailable(_))
    ));
    assert_eq!(
        value(&store, "/a").await.as_deref(),
        Some(b"1".as_ref()),
        "reads go on"
    );
    assert!(
        futures::poll!(watch.next()).is_pending(),
        "a watcher saw what is not on disk"
    );
    drop(store);
    disk.crash();
    let store = open(&disk, &small()).expect("the store again");
    assert_eq!(
        value(&store, "/a").await.as_deref(),
        Some(b"1".as_ref()),
        "this disk lost what it could not sync"
    );
    store.commit(put("/a", "4")).await.expect("writes again");
}

/// Opens a store with a checkpoint and several segments while one operation after the other fails.
#[tokio::test]
async fn an_error_while_opening_costs_nothing() {
    let disk = SimDisk::new(9);
    let store = open(&disk, &small()).expect("a store");
    let mut model = Model::new();
    for n in 0..120u32 {
        let txn = put(&format!("/{}", n % 30), vec![n as u8; 300]);
        store.commit(txn.clone()).await.expect("a commit");
        model.commit(&txn);
    }
    store.close().await;
    drop(store);
    let (mut refused, mut at) = (0, 0);
    loop {
        disk.fail_after(at);
        let opened = open(&disk, &small());
        let failed = opened.is_err();
        match opened {
            // The error came too late to be met, or where it did not matter.
            Ok(store) => drop(model.check(&store).await),
            Err(StoreError::Unavailable(text)) => {
                assert!(text.contains("an error of input or output"), "{text}");
                refused += 1;
            }
            Err(error) => panic!("an error at operation {at} is taken for another: {error}"),
        }
        if at % 2 == 0 {
            disk.crash();
        } else {
            disk.kill();
        }
        let store = open(&disk, &small()).expect("the disk is well again");
        model.check(&store).await;
        drop(store);
        at += 1;
        if !failed && at > 60 {
            break;
        }
    }
    assert!(refused > 5, "{refused} of {at} errors were met");
}

/// A segment that was never begun is removed, and that a later one is there must not bring it back: not even on a file system that
/// keeps names in any order.
#[tokio::test]
async fn a_segment_that_was_never_begun_does_not_come_back() {
    let (mut never_begun, mut several) = (0, 0);
    for seed in 0..400 {
        let disk = SimDisk::new(seed);
        let options = DurableOptions {
            checkpoint_bytes: 1 << 30,
            ..small()
        };
        let store = open(&disk, &options).expect("a store");
        for n in 0..3u32 {
            store
                .commit(put("/a", vec![n as u8; 1100]))
                .await
                .expect("a commit");
        }
        // It dies while the second segment is made.
        disk.die_after(2 + seed % 3);
        store
            .commit(put("/a", vec![3; 1100]))
            .await
            .expect_err("the disk is dead");
        drop(store);
        disk.crash();
        never_begun += u32::from(segments(&disk).len() == 2);
        let store = open(&disk, &options).expect("the store again");
        // Now a smaller one fits into the first segment, and the next segment is another.
        store
            .commit(put("/b", vec![4; 100]))
            .await
            .expect("a commit");
        disk.die_after(5);
        let _ = store.commit(put("/a", vec![5; 2000])).await;
        drop(store);
        disk.crash();
        several += u32::from(segments(&disk).len() == 2);
        let store = open(&disk, &options).expect("the store once more");
        assert_eq!(
            value(&store, "/b").await.as_deref(),
            Some([4; 100].as_ref())
        );
    }
    assert!(
        never_begun > 20 && several > 20,
        "{never_begun} and {several} times"
    );
}
