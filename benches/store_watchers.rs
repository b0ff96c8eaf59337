//! What do watchers cost a writer of the durable store?
//!
//! 64 clients put values of 256 bytes while nobody watches, while 1,000 and 10,000 watchers watch keys that nobody writes, and while as many
//! watch keys that are written, each its own. The cases take turns, several times, so that what else the machine does meets all
//! alike; of each the median round is printed, with the time on a processor that a commit took in all: clients, store, watchers.
//!
//! `cargo bench --bench store_watchers`

#![allow(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use orlop::core::env::Env;
use orlop::core::revision::Revision;
use orlop::core::store::{KeyRange, Store, Txn, WatchItem, WatchRequest};
use orlop::store::{DurableOptions, DurableStore};
use tokio::task::JoinSet;

/// How many bytes a value has.
const VALUE: usize = 256;
/// How many keys are written, over and over.
const KEYS: u64 = 10_000;
/// How many clients write.
const CLIENTS: usize = 64;
/// How often every case has its turn.
const ROUNDS: usize = 7;
/// How long a turn is.
const TURN: Duration = Duration::from_millis(1500);

/// What the watchers watch.
#[derive(Clone, Copy)]
enum Watched {
    /// Keys that nobody writes.
    Others,
    /// One of the keys that are written, each another one.
    Own,
}

/// What one turn came to.
struct Turn {
    commits: f64,
    p50: Duration,
    p99: Duration,
    events: f64,
    /// On a processor, a commit.
    busy: Duration,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let cases = [
        ("nobody watches", 0, Watched::Others),
        ("1,000 watch other keys", 1_000, Watched::Others),
        ("10,000 watch other keys", 10_000, Watched::Others),
        ("1,000 watch a written key each", 1_000, Watched::Own),
        ("10,000 watch a written key each", 10_000, Watched::Own),
    ];
    let mut turns: Vec<Vec<Turn>> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for ((_, watchers, watched), turns) in cases.iter().zip(&mut turns) {
            turns.push(runtime.block_on(turn(*watchers, *watched)));
        }
    }
    for ((name, ..), turns) in cases.iter().zip(&mut turns) {
        turns.sort_by(|a, b| a.commits.total_cmp(&b.commits));
        let mut busy: Vec<_> = turns.iter().map(|turn| turn.busy).collect();
        busy.sort_unstable();
        let (median, busy) = (&turns[turns.len() / 2], busy[busy.len() / 2]);
        println!(
            "{name}: {:.0} commits/s, p50 {:.2?}, p99 {:.2?}, {:.2?} on a processor each, {:.0} changes told a second",
            median.commits, median.p50, median.p99, busy, median.events
        );
    }
}

/// How long this process was on a processor.
fn on_processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux's proc");
    let fields = stat.rsplit(')').next().unwrap_or_default();
    // The 14th and the 15th field of the line, in hundredths of a second.
    let ticks = fields.split_whitespace().skip(11).take(2);
    Duration::from_millis(10) * ticks.filter_map(|ticks| ticks.parse::<u32>().ok()).sum()
}

fn key(number: u64) -> Bytes {
    format!("/registry/bench/{:08}", number % KEYS).into()
}

async fn turn(watchers: u64, watched: Watched) -> Turn {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Arc::new(
        DurableStore::open(
            directory.path().join("store"),
            DurableOptions::default(),
            Env::tokio(),
        )
        .expect("a store"),
    );
    let events = Arc::new(AtomicU64::new(0));
    let mut listeners = JoinSet::new();
    for number in 0..watchers {
        let keys = match watched {
            Watched::Others => KeyRange::prefix(format!("/registry/others/{number:08}/")),
            Watched::Own => KeyRange::key(key(number)),
        };
        let request = WatchRequest {
            keys,
            from: Revision::ZERO,
            progress: false,
        };
        let mut watch = store.watch(request).await.expect("a watch");
        let events = events.clone();
        listeners.spawn(async move {
            while let Some(Ok(item)) = watch.next().await {
                if let WatchItem::Changes(changes) = item {
                    events.fetch_add(changes.len() as u64, Ordering::Relaxed);
                }
            }
        });
    }
    let stop = Arc::new(AtomicBool::new(false));
    let sequence = Arc::new(AtomicU64::new(0));
    let value = Bytes::from(vec![b'v'; VALUE]);
    let mut clients = JoinSet::new();
    let (began, busy) = (Instant::now(), on_processor());
    for _ in 0..CLIENTS {
        let (store, stop, sequence, value) =
            (store.clone(), stop.clone(), sequence.clone(), value.clone());
        clients.spawn(async move {
            let mut waits = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let number = sequence.fetch_add(1, Ordering::Relaxed);
                let asked = Instant::now();
                store
                    .commit(Txn::put(key(number), value.clone()))
                    .await
                    .expect("a commit");
                waits.push(asked.elapsed());
            }
            waits
        });
    }
    tokio::time::sleep(TURN).await;
    stop.store(true, Ordering::Relaxed);
    let mut waits: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
    let elapsed = began.elapsed().as_secs_f64();
    let busy = on_processor() - busy;
    waits.sort_unstable();
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100];
    let told = events.load(Ordering::Relaxed) as f64 / elapsed;
    store.close().await;
    listeners.shutdown().await;
    Turn {
        commits: waits.len() as f64 / elapsed,
        p50: at(50),
        p99: at(99),
        events: told,
        busy: busy / u32::try_from(waits.len()).expect("not as many commits"),
    }
}
