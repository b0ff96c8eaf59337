use super::*;

use bytes::Bytes;
use orlop_core::store::KeyRange;
use tokio::runtime::Runtime;

use super::sim_disk::SimDisk;

mod backup;
mod contract;
mod crashes;
mod damage;
mod failures;
mod reopening;
mod room;

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
