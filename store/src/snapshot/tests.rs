use super::bolt::{Bucket, Database, Pages, Tree};
use super::*;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use futures::FutureExt;
use orlop_core::env::Env;
use orlop_core::store::{KeyRange, KeyValue, LeaseId, Op, RangeRequest, Store, StoreError, Txn};
use proptest::prelude::*;

use crate::MemoryStore;

mod real_etcd;

fn put(key: &str, value: impl Into<Bytes>) -> Txn {
    Txn::put(key.to_owned(), value)
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

async fn everything(store: &dyn Store) -> Vec<KeyValue> {
    let request = RangeRequest::new(KeyRange::prefix(""));
    store.range(request).await.expect("a read").items
}

type Whole = (SnapshotInfo, Vec<KeyValue>, BTreeMap<LeaseId, u64>);

/// What a snapshot comes to: the keys as the last records leave them, and the leases with their times.
fn state(file: &File) -> Result<Whole, StoreError> {
    let (mut keys, mut leases) = (BTreeMap::new(), BTreeMap::new());
    let mut last = Revision::ZERO;
    let info = read(file, &mut |record| {
        match record {
            Record::Lease {
                lease, ttl_seconds, ..
            } => {
                leases.insert(lease, ttl_seconds);
            }
            Record::Put(kv) => {
                assert!(kv.mod_revision >= last, "out of order");
                last = kv.mod_revision;
                keys.insert(kv.key.clone(), kv);
            }
            Record::Delete { key, revision } => {
                assert!(revision >= last, "out of order");
                last = revision;
                keys.remove(&key);
            }
        }
        Ok(())
    })?;
    Ok((info, keys.into_values().collect(), leases))
}

/// A store with keys of all sizes, deletions, leases, and commits of several keys.
async fn filled(env: &Env) -> MemoryStore {
    let store = MemoryStore::new(env.clone());
    let lease = store
        .grant_lease(Some(LeaseId(0x1234)), 600)
        .await
        .expect("a lease");
    let gone = store.grant_lease(None, 600).await.expect("a lease");
    for n in 0..700usize {
        let txn = put(
            &format!("/registry/a/{}", n * 7 % 400),
            vec![n as u8; n * 13 % 3000],
        );
        store.commit(txn).await.expect("a commit");
    }
    for (n, length) in [4000, 4090, 5000, 70_000, 1_500_000, 0]
        .into_iter()
        .enumerate()
    {
        let txn = put(&format!("/large/{n}"), vec![n as u8; length]);
        store.commit(txn).await.expect("a commit");
    }
    store.commit(hung("/hung", lease)).await.expect("a commit");
    store
        .commit(hung("/hung/2", lease))
        .await
        .expect("a commit");
    store.commit(hung("/gone", gone)).await.expect("a commit");
    store.revoke_lease(gone).await.expect("a revocation");
    let several = Txn {
        compare: Vec::new(),
        ops: ["/m/1", "/m/2", "/m/3"]
            .map(|key| Op::Put {
                key: key.into(),
                value: "m".into(),
                lease: None,
            })
            .into(),
    };
    store.commit(several).await.expect("a commit");
    store
}

#[tokio::test]
async fn what_is_saved_is_read() {
    let env = Env::tokio();
    let store = filled(&env).await;
    for round in 0..3 {
        let file = tempfile::tempfile().expect("a file");
        let info = save(&store, &env, file.try_clone().expect("the file"))
            .await
            .expect("a snapshot");
        let (read, keys, leases) = state(&file).expect("a snapshot");
        assert_eq!(read, info);
        assert_eq!(info.revision, store.revision().await.expect("the revision"));
        assert_eq!(info.bytes, file.metadata().expect("metadata").len());
        assert!(info.checksum);
        assert!(keys == everything(&store).await);
        assert_eq!(info.keys, keys.len() as u64);
        assert_eq!(leases, BTreeMap::from([(LeaseId(0x1234), 600)]));
        // Then with deletions as the newest commit: of one key, and of some beside a key that is written.
        let txn = match round {
            0 => Txn::delete(
                "/hung/2",
                keys.iter()
                    .find(|kv| kv.key == "/hung/2")
                    .expect("it")
                    .mod_revision,
            ),
            _ => Txn {
                compare: Vec::new(),
                ops: vec![
                    Op::Delete(KeyRange::prefix("/m/")),
                    Op::Put {
                        key: "/n".into(),
                        value: "n".into(),
                        lease: None,
                    },
                ],
            },
        };
        store.commit(txn).await.expect("a commit");
    }
}

/// A store that tells nothing of its history.
struct Forgetful(MemoryStore);

#[async_trait::async_trait]
impl Store for Forgetful {
    async fn range(
        &self,
        request: RangeRequest,
    ) -> Result<orlop_core::store::RangeResult, StoreError> {
        self.0.range(request).await
    }
    async fn commit(&self, txn: Txn) -> Result<orlop_core::store::Commit, StoreError> {
        self.0.commit(txn).await
    }
    async fn watch(
        &self,
        request: orlop_core::store::WatchRequest,
    ) -> Result<orlop_core::store::WatchStream, StoreError> {
        Err(StoreError::Compacted {
            requested: request.from,
            oldest: request.from.next(),
        })
    }
    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.0.compact(revision).await
    }
}

#[tokio::test]
async fn the_revision_survives_a_deletion_that_history_forgot() {
    let env = Env::tokio();
    let store = Forgetful(MemoryStore::new(env.clone()));
    for (key, revision) in [("\0", 2), ("/a", 3), ("\0\0", 4)] {
        store.commit(put(key, "x")).await.expect("a commit");
        let file = tempfile::tempfile().expect("a file");
        store.commit(put("/b", "x")).await.expect("a commit");
        store
            .commit(Txn {
                compare: Vec::new(),
                ops: vec![Op::Delete(KeyRange::key("/b"))],
            })
            .await
            .expect("a commit");
        save(&store, &env, file.try_clone().expect("the file"))
            .await
            .expect("a snapshot");
        let (info, keys, _) = state(&file).expect("a snapshot");
        assert_eq!(info.revision, Revision((revision - 1) * 3 + 1));
        assert_eq!(keys, everything(&store.0).await);
    }
}

/// A store that compacts what is being saved, some times.
struct Overtaking(MemoryStore, std::sync::atomic::AtomicUsize);

#[async_trait::async_trait]
impl Store for Overtaking {
    async fn range(
        &self,
        request: RangeRequest,
    ) -> Result<orlop_core::store::RangeResult, StoreError> {
        use std::sync::atomic::Ordering::Relaxed;
        // Keys are read one by one when the first of them have been written.
        let late = request.keys == KeyRange::key("/2500");
        if late
            && self
                .1
                .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
                .is_ok()
        {
            for key in ["/0", "/2500"] {
                self.0.commit(put(key, vec![1; 100])).await?;
            }
            self.0.compact(self.0.revision().await?).await?;
        }
        self.0.range(request).await
    }
    async fn commit(&self, txn: Txn) -> Result<orlop_core::store::Commit, StoreError> {
        self.0.commit(txn).await
    }
    async fn watch(
        &self,
        request: orlop_core::store::WatchRequest,
    ) -> Result<orlop_core::store::WatchStream, StoreError> {
        self.0.watch(request).await
    }
    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.0.compact(revision).await
    }
}

#[tokio::test]
async fn a_snapshot_that_is_overtaken_begins_anew() {
    let env = Env::tokio();
    for (times, saved) in [(2, true), (100, false)] {
        let inner = MemoryStore::new(env.clone());
        for n in 0..3000 {
            let txn = put(&format!("/{n}"), vec![0; 6000]);
            inner.commit(txn).await.expect("a commit");
        }
        let store = Overtaking(inner, times.into());
        let file = tempfile::tempfile().expect("a file");
        let own = file.try_clone().expect("the file");
        match save(&store, &env, own).await {
            Ok(info) => {
                assert!(saved);
                let (read, keys, _) = state(&file).expect("a snapshot");
                assert_eq!(read, info);
                assert!(keys == everything(&store.0).await, "the keys are others");
            }
            Err(StoreError::Compacted { .. }) => assert!(!saved),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn an_empty_store_has_a_snapshot() {
    let env = Env::tokio();
    let store = MemoryStore::new(env.clone());
    let file = tempfile::tempfile().expect("a file");
    let info = save(&store, &env, file.try_clone().expect("the file"))
        .await
        .expect("a snapshot");
    assert_eq!((info.revision, info.keys), (Revision(1), 0));
    assert_eq!(
        state(&file).expect("a snapshot"),
        (info, Vec::new(), BTreeMap::new())
    );
}

/// Writers go on while snapshots are made, and history is short: what is saved is one state all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_one_state() {
    let env = Env::tokio();
    let store = std::sync::Arc::new(MemoryStore::new(env.clone()));
    for n in 0..3000 {
        store
            .commit(put(&format!("/{n}"), vec![0; 6000]))
            .await
            .expect("a commit");
    }
    // The first of the writer's commits, so that they are in step from the beginning.
    let both = |number: u32| Txn {
        compare: Vec::new(),
        // The same number in two keys that are far from each other.
        ops: ["/1", "/2999"]
            .map(|key| Op::Put {
                key: key.into(),
                value: number.to_le_bytes().to_vec().into(),
                lease: None,
            })
            .into(),
    };
    store.commit(both(0)).await.expect("a commit");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (store, stop) = (store.clone(), stop.clone());
        move || {
            let mut number = 1u32;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                store
                    .commit(both(number))
                    .now_or_never()
                    .expect("memory is there at once")
                    .expect("a commit");
                number += 1;
                if number.is_multiple_of(64) {
                    std::thread::yield_now();
                }
            }
        }
    });
    for _ in 0..3 {
        let file = tempfile::tempfile().expect("a file");
        let info = save(&*store, &env, file.try_clone().expect("the file"))
            .await
            .expect("a snapshot");
        let (_, keys, _) = state(&file).expect("a snapshot");
        assert_eq!(keys.len(), 3000);
        let find = |key: &str| keys.iter().find(|kv| kv.key == key).expect("a key");
        let (one, other) = (find("/1"), find("/2999"));
        assert!(one.value == other.value && one.mod_revision == other.mod_revision);
        assert!(one.mod_revision <= info.revision);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().expect("the writer");
}

#[test]
fn a_high_tree_is_read_in_order() {
    let file = tempfile::tempfile().expect("a file");
    let mut pages = Pages::new(file.try_clone().expect("the file")).expect("pages");
    let mut tree = Tree::default();
    let count = 16_000u64;
    for n in 0..count {
        let length = if n % 1000 == 0 { 9000 } else { 2100 };
        tree.add(
            &mut pages,
            &revision_key(n, 0, n % 2 == 0),
            &vec![n as u8; length],
        )
        .expect("a page");
    }
    let bucket = tree.finish(&mut pages).expect("a tree");
    let (file, length) = pages
        .finish(&[(b"empty", Bucket::Empty), (b"key", bucket)])
        .expect("a database");
    let mut database = Database::open(&file, length).expect("a database");
    let buckets = database.buckets().expect("buckets");
    let mut next = 0;
    database
        .visit(&buckets[1], &mut |element| {
            assert_eq!(
                parse_revision_key(element.key),
                Some((next, 0, next % 2 == 0))
            );
            let length = if next % 1000 == 0 { 9000 } else { 2100 };
            assert_eq!(element.value, vec![next as u8; length]);
            next += 1;
            Ok(())
        })
        .expect("a tree");
    assert_eq!(next, count);
    database
        .visit(&buckets[0], &mut |_| panic!("it is empty"))
        .expect("an empty bucket");
    // Twice is once too often: it could be a circle.
    assert!(matches!(
        database.visit(&buckets[1], &mut |_| Ok(())),
        Err(StoreError::Corrupt(_))
    ));
}

/// A small snapshot as bytes.
fn bytes() -> Vec<u8> {
    let file = tempfile::tempfile().expect("a file");
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
        .block_on(async {
            let env = Env::tokio();
            let store = MemoryStore::new(env.clone());
            for n in 0..150u32 {
                let txn = put(&format!("/{n}"), vec![n as u8; (n * 37 % 900) as usize]);
                store.commit(txn).await.expect("a commit");
            }
            store
                .commit(put("/large", vec![1; 9000]))
                .await
                .expect("a commit");
            store.grant_lease(None, 60).await.expect("a lease");
            let own = file.try_clone().expect("the file");
            save(&store, &env, own).await.expect("a snapshot");
        });
    let mut bytes = vec![0; file.metadata().expect("metadata").len() as usize];
    file.read_exact_at(&mut bytes, 0).expect("the file");
    bytes
}

fn read_bytes(bytes: &[u8]) -> Result<SnapshotInfo, StoreError> {
    let file = tempfile::tempfile().expect("a file");
    file.write_all_at(bytes, 0).expect("a write");
    read(&file, &mut |_| Ok(()))
}

#[test]
fn a_damaged_or_cut_snapshot_is_told_from_a_whole_one() {
    let whole = bytes();
    read_bytes(&whole).expect("it is whole");
    let database = whole.len() - CHECKSUM as usize;
    assert!(
        !read_bytes(&whole[..database])
            .expect("whole without its checksum")
            .checksum
    );
    for at in (0..whole.len()).step_by(101) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x20;
        let error = read_bytes(&damaged).expect_err("it is damaged");
        assert!(
            matches!(&error, StoreError::Corrupt(text) if text.contains(" at offset ")),
            "{error}"
        );
    }
    for length in [
        0,
        1,
        31,
        32,
        512,
        4096,
        8192,
        8192 + 32,
        database - 512,
        database - 1,
        whole.len() - 1,
    ] {
        let error = read_bytes(&whole[..length]).expect_err("it is cut off");
        assert!(matches!(error, StoreError::Corrupt(_)), "{length}: {error}");
    }
}

proptest! {
    /// Without the checksum everything wrong must be met as it is read. It need not be noticed, but nothing may come of it that is worse
    /// than a wrong value.
    #[test]
    fn wild_files_are_read_or_refused(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 1..9usize), 1..8),
        headers: bool,
    ) {
        thread_local! { static WHOLE: Vec<u8> = bytes(); }
        let mut wild = WHOLE.with(|whole| whole[..whole.len() - CHECKSUM as usize].to_vec());
        let pages = wild.len() / 4096;
        for (index, byte, length) in changes {
            // Where pages say what they are, most that can go wrong does.
            let at = if headers {
                (2 + index.index(pages - 2)) * 4096 + usize::from(byte) % 200
            } else {
                index.index(wild.len())
            };
            let end = wild.len().min(at + length);
            wild[at..end].fill(byte);
        }
        match read_bytes(&wild) {
            Ok(info) => prop_assert!(!info.checksum),
            Err(StoreError::Corrupt(text)) => prop_assert!(text.contains(" at offset "), "{}", text),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
