//! How many commits a second does the durable store acknowledge?
//!
//! Puts of 256 bytes by 1, 64 and 512 clients, each of which waits for its answer before it sends the next. Beside it in the same run:
//!
//! * `disk`: the physical bound. The same bytes are appended to a file that was allocated before, as many values at once as there are
//!   clients, with one `fdatasync` for all of them, and nothing else is done.
//! * `memory`: the store in memory, the bound of the index.
//! * `etcd`: a real etcd with its defaults (every commit is synced), where `etcd` is on `PATH`. It is a process of its own, so its
//!   client speaks gRPC: the smallest that does, a protobuf message by hand on hyper's HTTP/2, over at most eight connections. What that costs
//!   shows in `grpc`: the same client and a server in this process that answers at once and keeps nothing.
//!
//! `cargo bench --bench store_commits`

#![allow(clippy::disallowed_methods, reason = "a bench measures real time")]

#[path = "store_commits/etcd.rs"]
mod etcd;
mod support;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use orlop::core::env::Env;
use orlop::core::store::{Commit, Store, Txn};
use orlop::store::{DurableOptions, DurableStore, MemoryStore};

use self::etcd::{Echo, Etcd, Grpc};

/// How many bytes a value has.
const VALUE: usize = 256;
/// How many keys are written, over and over.
const KEYS: u64 = 10_000;
/// How many clients there are.
const CLIENTS: [usize; 3] = [1, 64, 512];

fn key(number: u64) -> Bytes {
    format!("/registry/bench/{:08}", number % KEYS).into()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    disk(&mut criterion);
    stores(&mut criterion);
    over_grpc(&mut criterion);
    criterion.final_summary();
}

/// What the disk can do.
fn disk(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut group = support::group(criterion, "store_commits");
    for clients in CLIENTS {
        let path = directory.path().join(clients.to_string());
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(path)
            .expect("a file");
        let size = 64 << 20;
        // Written, not only reserved, so that a sync has no block to take note of.
        for at in (0..size).step_by(1 << 20) {
            file.write_all_at(&[0; 1 << 20], at).expect("room");
        }
        file.sync_all().expect("a sync");
        let bytes = vec![0x5a; VALUE * clients];
        let mut at = 0;
        group.throughput(Throughput::Elements(clients as u64));
        group.bench_function(format!("disk/{clients}"), |bench| {
            bench.iter_custom(|rounds| {
                let started = Instant::now();
                for _ in 0..rounds {
                    if at + bytes.len() as u64 > size {
                        at = 0;
                    }
                    file.write_all_at(&bytes, at).expect("a write");
                    file.sync_data().expect("a sync");
                    at += bytes.len() as u64;
                }
                started.elapsed()
            });
        });
    }
}

fn stores(criterion: &mut Criterion) {
    let runtime = support::runtime();
    let mut group = support::group(criterion, "store_commits");
    let value = Bytes::from(vec![b'v'; VALUE]);
    for clients in CLIENTS {
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
            let value = value.clone();
            let name = if durable { "durable" } else { "memory" };
            support::concurrently(&mut group, &runtime, name, clients, move |_, number| {
                let (store, txn) = (store.clone(), Txn::put(key(number), value.clone()));
                async move {
                    let commit = store.commit(txn).await.expect("a commit");
                    assert!(matches!(commit, Commit::Applied { .. }));
                }
            });
        }
    }
}

fn over_grpc(criterion: &mut Criterion) {
    let runtime = support::runtime();
    let mut group = support::group(criterion, "store_commits");
    let value = Bytes::from(vec![b'v'; VALUE]);
    let mut against = |name: &str, port: u16| {
        for clients in CLIENTS {
            let connections: Vec<Grpc> = runtime.block_on(async {
                futures::future::join_all((0..clients.min(8)).map(|_| Grpc::connect(port))).await
            });
            let value = value.clone();
            support::concurrently(
                &mut group,
                &runtime,
                name,
                clients,
                move |client, number| {
                    let connection = connections[client % connections.len()].clone();
                    let message = etcd::put_request(&key(number), &value);
                    async move { connection.put(message).await.expect("a put") }
                },
            );
        }
    };
    let echo = runtime.block_on(Echo::start());
    against("grpc", echo.port);
    match Etcd::start() {
        Ok(etcd) => {
            println!("etcd: {}", etcd.version);
            against("etcd", etcd.port);
        }
        Err(error) => {
            println!("etcd: left out, because it does not start ({error}); install etcd to compare")
        }
    }
}
