//! Backups, what is made of them, and giving room back.

use std::fs::File;
use std::os::unix::fs::{FileExt, PermissionsExt};

use super::*;
use crate::snapshot;
use crate::{StoreSize, Upkeep};

async fn everything(store: &DurableStore) -> RangeResult {
    let request = RangeRequest::new(KeyRange::prefix(""));
    store.range(request).await.expect("a read")
}

fn hung(key: &str, lease: LeaseId) -> Txn {
    let op = Op::Put {
        key: key.to_owned().into(),
        value: "x".into(),
        lease: Some(lease),
    };
    Txn {
        compare: Vec::new(),
        ops: vec![op],
    }
}

#[tokio::test]
async fn a_backup_becomes_the_same_store() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, to) = (dir.path().join("backup"), dir.path().join("new/store"));
    std::fs::create_dir(dir.path().join("new")).expect("a directory");
    let env = Env::tokio();
    let store =
        DurableStore::open(dir.path().join("store"), small(), env.clone()).expect("a store");
    let lease = store.grant_lease(None, 60).await.expect("a lease");
    for n in 0..300u32 {
        let txn = put(
            &format!("/{}", n % 70),
            vec![n as u8; (n * 31 % 5000) as usize],
        );
        store.commit(txn).await.expect("a commit");
    }
    store.commit(hung("/hung", lease)).await.expect("a commit");
    store.commit(put("/gone", "x")).await.expect("a commit");
    let newest = store.revision().await.expect("the revision");
    store
        .commit(Txn::delete("/gone", newest))
        .await
        .expect("a commit");

    let info = store.backup(&path, false).await.expect("a backup");
    let mode = std::fs::metadata(&path)
        .expect("metadata")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = store.backup(&path, false).await;
    assert!(
        matches!(&again, Err(StoreError::InvalidRequest(text)) if text.contains("is there already")),
        "{again:?}"
    );
    // What a killed process left is written over.
    std::fs::write(dir.path().join("backup.unfinished"), "half").expect("a file");
    assert_eq!(store.backup(&path, true).await.expect("a backup"), info);
    let names = || {
        std::fs::read_dir(dir.path())
            .expect("the directory")
            .count()
    };
    assert_eq!(names(), 3);

    std::fs::create_dir(dir.path().join("new/store.unfinished")).expect("a directory");
    std::fs::write(
        dir.path().join("new/store.unfinished/log-0000000000000001"),
        "half",
    )
    .expect("a file");
    std::fs::create_dir(&to).expect("an empty directory");
    assert_eq!(
        DurableStore::restore(&path, &to, &env).expect("a restore"),
        info
    );
    let again = DurableStore::restore(&path, &to, &env);
    assert!(
        matches!(&again, Err(StoreError::InvalidRequest(text)) if text.contains("is not empty")),
        "{again:?}"
    );
    for _ in 0..2 {
        let restored = DurableStore::open(&to, small(), env.clone()).expect("the restored store");
        let (own, wanted) = (everything(&restored).await, everything(&store).await);
        assert_eq!(own.revision, wanted.revision);
        assert!(own.items == wanted.items, "the keys are others");
        let told = restored.lease(lease, true).await.expect("the lease");
        assert_eq!(
            (told.granted_seconds, told.keys),
            (60, vec!["/hung".into()])
        );
        let old = restored
            .range(RangeRequest::new(KeyRange::key("/1")).at(newest))
            .await;
        assert!(matches!(old, Err(StoreError::Compacted { .. })));
        let watch = WatchRequest {
            keys: KeyRange::prefix(""),
            from: info.revision,
            progress: false,
        };
        assert!(
            restored.watch(watch).await.is_err(),
            "what the snapshot does not have is watched"
        );
    }
    let restored = DurableStore::open(&to, small(), env).expect("the restored store");
    let next = restored.commit(put("/next", "x")).await.expect("a commit");
    assert!(matches!(next, Commit::Applied { revision, .. } if revision == info.revision.next()));
    restored
        .revoke_lease(lease)
        .await
        .expect("the keys hang on it");
    assert_eq!(value(&restored, "/hung").await, None);
}

#[tokio::test]
async fn a_damaged_backup_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, to) = (dir.path().join("backup"), dir.path().join("new"));
    let env = Env::tokio();
    let store =
        DurableStore::open(dir.path().join("store"), small(), env.clone()).expect("a store");
    store
        .commit(put("/a", vec![1; 9000]))
        .await
        .expect("a commit");
    store.backup(&path, false).await.expect("a backup");
    let file = File::options().write(true).open(&path).expect("the backup");
    file.write_all_at(b"x", 10_000).expect("a write");
    let error = DurableStore::restore(&path, &to, &env).expect_err("it is damaged");
    assert!(
        matches!(&error, StoreError::Corrupt(text) if text.contains(" at offset ")),
        "{error}"
    );
    assert!(!to.exists());
    let missing = DurableStore::restore(dir.path().join("none"), &to, &env);
    assert!(
        matches!(missing, Err(StoreError::Unavailable(_))),
        "{missing:?}"
    );
}

/// History is short and values are large: without a pin, what is being saved would be gone before it is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_not_overtaken_by_writers() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = DurableOptions {
        history_bytes: 64 << 10,
        ..DurableOptions::default()
    };
    let env = Env::tokio();
    let store =
        DurableStore::open(dir.path().join("store"), options, env.clone()).expect("a store");
    let store = Arc::new(store);
    for n in 0..1500 {
        store
            .commit(put(&format!("/{n}"), vec![0; 8000]))
            .await
            .expect("a commit");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writers = TaskGroup::new(env.clone());
    for writer in 0..4 {
        let (store, stop) = (store.clone(), stop.clone());
        writers.spawn("writer", async move {
            for n in 0.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                let txn = put(
                    &format!("/{}", (n * 4 + writer) % 1500),
                    vec![n as u8; 8000],
                );
                store.commit(txn).await.expect("a commit");
            }
        });
    }
    for _ in 0..3 {
        let before = store.revision().await.expect("the revision");
        let info = store
            .backup(dir.path().join("backup"), true)
            .await
            .expect("a backup");
        assert!(info.revision >= before && info.keys == 1500);
        let file = File::open(dir.path().join("backup")).expect("the backup");
        assert_eq!(
            snapshot::read(&file, &mut |_| Ok(())).expect("a snapshot"),
            info
        );
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writers.shutdown().await;
    store.commit(put("/end", "x")).await.expect("a commit");
    store.pipe.shared.trim();
    assert!(
        store.pipe.shared.index.read().oldest() > 1000,
        "history is kept for good"
    );
}

#[tokio::test]
async fn defragmenting_gives_room_back() {
    let disk = SimDisk::new(1);
    let options = DurableOptions {
        segment_bytes: 4 << 10,
        checkpoint_bytes: 1 << 30,
        ..DurableOptions::default()
    };
    let store = open(&disk, &options).expect("a store");
    for n in 0..200u32 {
        store
            .commit(put(&format!("/{}", n % 5), vec![7; 300]))
            .await
            .expect("a commit");
    }
    let before = store.size();
    assert!(
        before.total >= before.in_use && before.in_use > 60_000,
        "{before:?}"
    );
    store.defragment().await.expect("room");
    let after = store.size();
    assert!(
        after.total < 12_000 && after.in_use < 3_000 && after.in_use > 1_500,
        "{after:?}"
    );
    assert_eq!(after.total, disk.used());
    // Several at once, with writes among them.
    let many = (0..5).map(|_| store.defragment());
    let writes = (0..50).map(|n| store.commit(put(&format!("/{n}"), vec![8; 300])));
    let (many, writes) = futures::join!(
        futures::future::join_all(many),
        futures::future::join_all(writes)
    );
    many.into_iter().for_each(|done| done.expect("room"));
    writes
        .into_iter()
        .for_each(|done| drop(done.expect("a commit")));
    let wanted = everything(&store).await;
    store.close().await;
    assert!(matches!(
        store.defragment().await,
        Err(StoreError::Unavailable(_))
    ));
    assert_eq!(store.size().total, store.size().in_use);
    drop(store);
    let store = open(&disk, &options).expect("the store again");
    assert!(everything(&store).await.items == wanted.items);
    assert_ne!(store.size(), StoreSize::default());
    disk.die_after(3);
    assert!(matches!(
        store.defragment().await,
        Err(StoreError::Unavailable(_))
    ));
}
