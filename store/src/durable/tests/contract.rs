//! What every store promises, and what clients of this one share.

use orlop_core::conformance::store::{Subject, store};

use super::*;

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
