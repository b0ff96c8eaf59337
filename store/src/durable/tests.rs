use super::*;

use std::sync::atomic::AtomicU64 as Counter;

use bytes::Bytes;
use futures::StreamExt;
use orlop_core::conformance::store::{Subject, store};
use orlop_core::store::{KeyRange, WatchItem};
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::sim_disk::SimDisk;
use crate::model::{Model, same, same_results, transaction, txn};

/// Small segments and frequent checkpoints, so that there are several of each.
fn small() -> DurableOptions {
    DurableOptions {
        segment_bytes: 4 << 10,
        checkpoint_bytes: 12 << 10,
        ..DurableOptions::default()
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}

fn open(disk: &SimDisk, options: &DurableOptions) -> Result<DurableStore, StoreError> {
    DurableStore::open_disk(Arc::new(disk.clone()), options, Env::tokio())
}

fn put(key: &str, value: impl Into<Bytes>) -> Txn {
    Txn::put(key.to_owned(), value)
}

async fn value(store: &DurableStore, key: &str) -> Option<Bytes> {
    let read = store
        .range(RangeRequest::new(KeyRange::key(key.to_owned())))
        .await
        .expect("a read");
    read.items.into_iter().next().map(|kv| kv.value)
}

fn segments(disk: &SimDisk) -> Vec<String> {
    disk.list()
        .expect("names")
        .into_iter()
        .filter(|name| name.starts_with("log-"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let env = Env::tokio();
    store(|| async {
        let dir = tempfile::tempdir().expect("a directory");
        let options = DurableOptions {
            segment_bytes: 256 << 10,
            checkpoint_bytes: 512 << 10,
            ..DurableOptions::default()
        };
        let store = DurableStore::open(dir.path(), options, env.clone()).expect("a store");
        Subject::new(Arc::new(store), env.clone()).keeping(dir)
    })
    .await;
}

#[tokio::test]
async fn a_second_opener_is_told_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("deep/data");
    let first = DurableStore::open(&path, small(), Env::tokio()).expect("a store");
    let second = DurableStore::open(&path, small(), Env::tokio());
    let error = second.expect_err("two stores in one directory").to_string();
    assert!(
        error.contains("is open already") && error.contains("deep/data"),
        "{error}"
    );
    first.commit(put("/a", "1")).await.expect("a commit");
    first.close().await;
    assert!(matches!(
        first.commit(put("/a", "2")).await,
        Err(StoreError::Unavailable(_))
    ));
    let second = DurableStore::open(&path, small(), Env::tokio()).expect("the directory is free");
    assert_eq!(value(&second, "/a").await.as_deref(), Some(b"1".as_ref()));

    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| {
        std::fs::metadata(path)
            .expect("metadata")
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode(&path), 0o700);
    for entry in std::fs::read_dir(&path).expect("the directory") {
        assert_eq!(mode(&entry.expect("an entry").path()), 0o600);
    }
}

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
async fn clients_share_a_sync() {
    let disk = SimDisk::new(1);
    let store = open(&disk, &DurableOptions::default()).expect("a store");
    let before = disk.syncs();
    let commits = (0..500).map(|n| store.commit(put(&format!("/{n}"), "x")));
    for commit in futures::future::join_all(commits).await {
        commit.expect("a commit");
    }
    assert!(
        disk.syncs() - before < 100,
        "{} syncs for 500 commits",
        disk.syncs() - before
    );
}

#[tokio::test]
async fn a_full_queue_makes_clients_wait() {
    let disk = SimDisk::new(1);
    let store = open(
        &disk,
        &DurableOptions {
            queue_bytes: 1000,
            ..small()
        },
    )
    .expect("a store");
    let commits = (0..200).map(|n| store.commit(put(&format!("/{n}"), vec![1; 200])));
    for commit in futures::future::join_all(commits).await {
        commit.expect("a commit");
    }
    assert_eq!(store.revision().await.expect("the revision"), Revision(201));
}

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

/// A store whose log has several segments and no checkpoint, at rest.
async fn written(disk: &SimDisk) -> DurableOptions {
    let options = DurableOptions {
        segment_bytes: 4 << 10,
        checkpoint_bytes: 1 << 30,
        ..DurableOptions::default()
    };
    let store = open(disk, &options).expect("a store");
    for n in 0..50u32 {
        store
            .commit(put(&format!("/{n}"), vec![7; 300]))
            .await
            .expect("a commit");
    }
    drop(store);
    // What is not synced is not at rest.
    disk.crash();
    options
}

/// Writes until there is a checkpoint.
async fn until_checkpoint(store: &DurableStore, disk: &SimDisk) {
    for n in 0..100_000u32 {
        let names = disk.list().expect("names");
        if names.iter().any(|name| name.starts_with("checkpoint-")) {
            return;
        }
        let txn = put(&format!("/{}", n % 50), vec![n as u8; 300]);
        store.commit(txn).await.expect("a commit");
    }
    panic!("no checkpoint was made");
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
            names.iter().any(|name| name == super::ahead::NAME)
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

#[tokio::test]
async fn damage_is_reported_with_its_place() {
    for at in 0..40 {
        let disk = SimDisk::new(1);
        let options = written(&disk).await;
        let names = segments(&disk);
        let name = &names[at % (names.len() - 1)];
        let offset = at * 83;
        disk.damage(name, |bytes| bytes[offset] ^= 0x10);
        let error = open(&disk, &options).expect_err("damage in the middle");
        let StoreError::Corrupt(text) = &error else {
            panic!("{error}")
        };
        let (before, place) = text.split_once(" at offset ").expect("an offset");
        let place: usize = place
            .split(':')
            .next()
            .and_then(|digits| digits.parse().ok())
            .expect("a number");
        assert_eq!(before, name.as_str());
        assert!(
            place <= offset && offset < place + 400,
            "{text}, and the damage is at {offset}"
        );
    }
}

#[tokio::test]
async fn damage_in_the_newest_segment_is_not_taken_for_a_torn_write() {
    let disk = SimDisk::new(1);
    let options = written(&disk).await;
    let name = segments(&disk).pop().expect("a segment");
    disk.damage(&name, |bytes| bytes[60] ^= 1);
    let error = open(&disk, &options)
        .expect_err("damage before whole frames")
        .to_string();
    assert!(error.contains("whole ones follow"), "{error}");
}

#[tokio::test]
async fn a_missing_segment_is_reported() {
    for gone in 0..3 {
        let disk = SimDisk::new(1);
        let options = written(&disk).await;
        let names = segments(&disk);
        disk.remove(&names[gone]).expect("it is there");
        let error = open(&disk, &options).expect_err("a segment is missing");
        assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_off() {
    let disk = SimDisk::new(1);
    let options = written(&disk).await;
    let name = segments(&disk).pop().expect("a segment");
    let mut end = 0;
    disk.damage(&name, |bytes| {
        end = bytes.iter().rposition(|&byte| byte != 0).expect("frames") + 1;
        bytes[end - 3] ^= 1;
        bytes[end..end + 40].fill(0xee);
    });
    let store = open(&disk, &options).expect("the tail is cut off");
    assert_eq!(store.revision().await.expect("the revision"), Revision(50));
    store.commit(put("/new", "x")).await.expect("a commit");
    drop(store);
    let store = open(&disk, &options).expect("the store again");
    assert_eq!(value(&store, "/new").await.as_deref(), Some(b"x".as_ref()));
    assert_eq!(store.revision().await.expect("the revision"), Revision(51));
}

#[tokio::test]
async fn a_damaged_checkpoint_is_reported() {
    let disk = SimDisk::new(1);
    let store = open(&disk, &small()).expect("a store");
    until_checkpoint(&store, &disk).await;
    store.close().await;
    drop(store);
    disk.crash();
    let name = disk
        .list()
        .expect("names")
        .into_iter()
        .find(|name| name.starts_with("checkpoint-"));
    let name = name.expect("a checkpoint was made");
    for offset in [0, 10, 30, 500, 2000] {
        disk.damage(&name, |bytes| bytes[offset] ^= 4);
        let error = open(&disk, &small()).expect_err("a damaged checkpoint");
        assert!(
            matches!(&error, StoreError::Corrupt(text) if text.contains(&name)),
            "{error}"
        );
        disk.damage(&name, |bytes| bytes[offset] ^= 4);
    }
    let length = disk
        .open(&name)
        .expect("the file")
        .len()
        .expect("its length");
    disk.damage(&name, |bytes| bytes.truncate(length as usize - 1));
    assert!(matches!(open(&disk, &small()), Err(StoreError::Corrupt(_))));
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

/// Runs transactions over a disk that dies again and again. Everything that was acknowledged must be there, and nothing that was
/// refused.
async fn crashes(seed: u64, rounds: Vec<(u64, bool, Vec<Vec<Txn>>)>, options: &DurableOptions) {
    let disk = SimDisk::new(seed);
    let mut model = Model::new();
    // What may or may not be there, after what is.
    let mut unknown: Vec<Txn> = Vec::new();
    for (lives, killed, groups) in rounds {
        disk.die_after(lives);
        match open(&disk, options) {
            Ok(store) => {
                settle(&store, &mut model, &mut unknown).await;
                for group in groups {
                    let mut commits: Vec<_> = group
                        .iter()
                        .map(|txn| Box::pin(store.commit(txn.clone())))
                        .collect();
                    // They are queued in this order, to be written together.
                    let mut outcomes = Vec::new();
                    for commit in &mut commits {
                        outcomes.push(match futures::poll!(commit) {
                            std::task::Poll::Ready(outcome) => Some(outcome),
                            std::task::Poll::Pending => None,
                        });
                    }
                    for ((commit, outcome), txn) in commits.into_iter().zip(outcomes).zip(&group) {
                        let outcome = match outcome {
                            Some(outcome) => outcome,
                            None => commit.await,
                        };
                        match outcome {
                            Ok(commit) => {
                                assert!(
                                    unknown.is_empty(),
                                    "acknowledged on top of what is unknown"
                                );
                                let wanted = model.commit(txn);
                                assert!(same(&commit, &wanted), "{commit:?} instead of {wanted:?}");
                            }
                            Err(StoreError::OutcomeUnknown(_)) => unknown.push(txn.clone()),
                            Err(StoreError::Unavailable(_)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    if unknown.is_empty() {
                        model.check(&store).await;
                    }
                }
            }
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => panic!("a crash left what cannot be opened: {error}"),
        }
        if killed {
            disk.kill();
        } else {
            disk.crash();
        }
    }
    let store = open(&disk, options).expect("the disk is well");
    settle(&store, &mut model, &mut unknown).await;
    store.commit(put("/end", "x")).await.expect("a commit");
    model.commit(&put("/end", "x"));
    model.check(&store).await;
}

/// Finds out how much of the unknown is there, and brings the model to it.
async fn settle(store: &DurableStore, model: &mut Model, unknown: &mut Vec<Txn>) {
    let revision = store.revision().await.expect("the revision");
    assert!(
        revision >= model.revision(),
        "{revision} after {} was acknowledged",
        model.revision()
    );
    let mut unknown = unknown.drain(..);
    while model.revision() < revision {
        let txn = unknown
            .next()
            .expect("the store has more than was ever sent to it");
        model.commit(&txn);
    }
    model.check(store).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn survives_crashes(
        seed: u64,
        rounds in proptest::collection::vec(
            (1..120u64, any::<bool>(), proptest::collection::vec(proptest::collection::vec(txn(), 1..6), 1..12)),
            1..6,
        ),
    ) {
        // With and without a segment that is made ahead.
        let options = DurableOptions {
            segment_bytes: (4 << 10) << (seed & 1),
            ..small()
        };
        runtime().block_on(crashes(seed, rounds, &options));
    }

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
