//! How many commits a second does the durable store acknowledge?
//!
//! Puts of 256 bytes and of 1 KiB by 1, 64 and 512 clients, each of which waits for its answer before it sends the next. Beside it in the
//! same run:
//!
//! * `disk`: the physical bound. The same bytes are appended to a file that was allocated before, as many values at once as there are
//!   clients, with one `fdatasync` for all of them, and nothing else is done.
//! * `memory`: the store in memory, the bound of the index.
//!
//! `etcd_beside` compares with etcd.
//!
//! `cargo bench --bench store_commits`

#![allow(clippy::disallowed_methods, reason = "a bench measures real time")]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use criterion::Criterion;
use orlop::core::env::Env;
use orlop::core::store::{Commit, Store, Txn};
use orlop::store::{DurableOptions, DurableStore, MemoryStore};

use self::support::key;

/// How many bytes a value has.
const VALUES: [usize; 2] = [256, 1024];
/// How many clients there are.
const CLIENTS: [usize; 3] = [1, 64, 512];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for value in VALUES {
        stores(&mut criterion, value);
    }
    criterion.final_summary();
}

fn stores(criterion: &mut Criterion, value: usize) {
    let runtime = support::runtime();
    let mut group = support::group(criterion, "store_commits");
    let bytes = Bytes::from(vec![b'v'; value]);
    for clients in CLIENTS {
        let disk = support::disk(&mut group, &format!("disk-{value}"), clients, value);
        for durable in [false, true] {
            let directory = tempfile::tempdir().expect("a directory");
            let store: Arc<dyn Store> = runtime.block_on(async {
                if durable {
                    let store = DurableStore::open(
                        directory.path().join("store"),
                        DurableOptions::default(),
                        Env::tokio(),
                    );
                    Arc::new(store.expect("a store")) as Arc<dyn Store>
                } else {
                    Arc::new(MemoryStore::new(Env::tokio()))
                }
            });
            let (name, bytes) = (if durable { "durable" } else { "memory" }, bytes.clone());
            let name = format!("{name}-{value}");
            let call = move |_, number| {
                let (store, txn) = (store.clone(), Txn::put(key(number), bytes.clone()));
                async move {
                    let commit = store.commit(txn).await.expect("a commit");
                    assert!(matches!(commit, Commit::Applied { .. }));
                }
            };
            let measured = support::concurrently(&mut group, &runtime, &name, clients, call);
            if let (true, Some(commit), Some(disk)) = (durable, measured, disk) {
                let ratio = commit.p99.as_secs_f64() / disk.p99.as_secs_f64();
                println!("{name}/{clients}: p99 is {ratio:.2} times that of the disk");
            }
        }
    }
}
