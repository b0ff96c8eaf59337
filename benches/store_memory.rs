//! How much memory does the durable store take for a million keys, and how fast is it there again?
//!
//! A process of its own commits 1,000,000 keys of 1 KiB in no order, and another one opens them again. Of each it is printed what is
//! resident at the end, the peak (`VmHWM`, checkpoints included) and the time.
//!
//! `cargo bench --bench store_memory [-- KEYS]`

#![allow(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use orlop::core::env::Env;
use orlop::core::store::{KeyRange, RangeRequest, Store, Txn};
use orlop::store::{DurableOptions, DurableStore};
use tokio::task::JoinSet;

/// How many bytes a value has.
const VALUE: usize = 1024;
/// How many keys there are unless the command line says otherwise.
const KEYS: u64 = 1_000_000;
/// How many clients write them.
const CLIENTS: usize = 256;
/// Visits every number below a power of ten once, in no order that an ordered map likes.
const STRIDE: u64 = 387_420_489;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let keys = arguments
        .iter()
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(KEYS);
    match arguments.as_slice() {
        [what, directory, ..] if what == "load" => load(Path::new(directory), keys),
        [what, directory, ..] if what == "reopen" => reopen(Path::new(directory), keys),
        _ => {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("store");
            println!("{keys} keys of {VALUE} bytes");
            for what in ["load", "reopen", "reopen"] {
                let status = Command::new(std::env::current_exe().expect("this program"))
                    .args([what.as_ref(), path.as_os_str(), keys.to_string().as_ref()])
                    .status()
                    .expect("this program runs");
                assert!(status.success(), "{what} failed");
            }
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn open(directory: &Path) -> DurableStore {
    DurableStore::open(directory, DurableOptions::default(), Env::tokio()).expect("a store")
}

fn load(directory: &Path, keys: u64) {
    runtime().block_on(async {
        let store = Arc::new(open(directory));
        let next = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (store, next) = (store.clone(), next.clone());
            clients.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= keys {
                        return;
                    }
                    let number = number * STRIDE % keys;
                    let key: Bytes = format!("/registry/pods/bench/pod-{number:012}").into();
                    let mut value = vec![b'v'; VALUE];
                    value[..8].copy_from_slice(&number.to_le_bytes());
                    store.commit(Txn::put(key, value)).await.expect("a commit");
                }
            });
        }
        clients.join_all().await;
        report("loaded", began.elapsed(), keys);
        store.close().await;
    });
}

fn reopen(directory: &Path, keys: u64) {
    runtime().block_on(async {
        let began = Instant::now();
        let store = open(directory);
        let elapsed = began.elapsed();
        let count = store
            .range(RangeRequest {
                count_only: true,
                ..RangeRequest::new(KeyRange::prefix("/registry/"))
            })
            .await
            .expect("a count");
        assert_eq!(count.remaining, keys, "every key is there again");
        report("reopened", elapsed, keys);
        store.close().await;
    });
}

/// Prints what the kernel says of this process's memory.
fn report(what: &str, elapsed: Duration, keys: u64) {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux's proc");
    let kibibytes = |field: &str| -> u64 {
        status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .unwrap_or_default()
    };
    let (resident, peak) = (kibibytes("VmRSS:"), kibibytes("VmHWM:"));
    println!(
        "{what} in {elapsed:.2?}: resident {:.3} GB, peak {:.3} GB, {} bytes a key beside its value",
        resident as f64 * 1024.0 / 1e9,
        peak as f64 * 1024.0 / 1e9,
        (resident * 1024 / keys).saturating_sub(VALUE as u64),
    );
}
