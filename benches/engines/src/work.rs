//! The work that is measured, each piece in a process of its own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use tokio::task::JoinSet;

use crate::engine::Engine;

/// How many keys have a common prefix.
const RANGE: u64 = 500;
/// How many keys are written over and over.
const KEYS: u64 = 10_000;
/// How many puts wait at once while a store is filled.
const FILLING: usize = 1_000;

fn key(number: u64) -> Bytes {
    let (namespace, name) = (number / RANGE, number % RANGE);
    format!("/registry/bench/ns-{namespace:04}/{name:03}").into()
}

/// A value that no engine can make shorter.
fn value(number: u64, length: usize) -> Bytes {
    let mut state = number + 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

/// A rate, and how long calls take.
fn print(calls: usize, elapsed: Duration, mut waits: Vec<Duration>) {
    waits.sort_unstable();
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100].as_secs_f64();
    let rate = calls as f64 / elapsed.as_secs_f64();
    println!("{rate} {} {}", at(50), at(99));
}

/// Calls of many clients, each of which waits for its answer, for a time. Prints the rate, p50 and p99.
async fn clients<F, Call>(clients: usize, time: Duration, call: F)
where
    F: Fn(u64) -> Call + Clone + Send + 'static,
    Call: Future<Output = ()> + Send,
{
    let numbers = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (numbers, call) = (numbers.clone(), call.clone());
        tasks.spawn(async move {
            let mut waits = Vec::new();
            while started.elapsed() < time {
                let began = Instant::now();
                call(numbers.fetch_add(1, Ordering::Relaxed)).await;
                waits.push(began.elapsed());
                tokio::task::consume_budget().await;
            }
            waits
        });
    }
    let waits: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    print(waits.len(), started.elapsed(), waits);
}

/// Durable puts.
pub(crate) async fn commit(engine: Engine, length: usize, number: usize, time: Duration) {
    // The bytes are made beforehand, as they are not what is measured.
    let values: Arc<[Bytes]> = (0..256).map(|number| value(number, length)).collect();
    let keys: Arc<[Bytes]> = (0..KEYS).map(key).collect();
    clients(number, time, move |number| {
        let engine = engine.clone();
        let key = keys[(number % KEYS) as usize].clone();
        let value = values[(number % 256) as usize].clone();
        async move { engine.put(key, value).await }
    })
    .await;
}

/// Reads of 500 keys that have a common prefix, of so many keys in all.
pub(crate) async fn range(engine: Engine, keys: u64, number: usize, time: Duration) {
    clients(number, time, move |number| {
        let engine = engine.clone();
        let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let prefix = key(number % (keys / RANGE) * RANGE);
        let prefix = prefix.slice(..prefix.len() - 3);
        async move { assert_eq!(engine.range(prefix).await as u64, RANGE) }
    })
    .await;
}

/// Puts many keys, and prints how long that takes, and the memory of the process then.
pub(crate) async fn fill(engine: &Engine, keys: u64, length: usize) {
    let before = resident();
    let started = Instant::now();
    futures::stream::iter(0..keys)
        .for_each_concurrent(FILLING, |number| {
            engine.put(key(number), value(number, length))
        })
        .await;
    let elapsed = started.elapsed().as_secs_f64();
    println!("{elapsed} {}", resident() - before);
}

/// Opens what is there, reads a key, and prints how long that takes. Then reads everything, and prints the memory of the process.
pub(crate) async fn open(name: &str, directory: &Path, keys: u64) -> Engine {
    let before = resident();
    let started = Instant::now();
    let engine = Engine::open(name, directory);
    assert_eq!(engine.range(key(keys / 2)).await, 1);
    let elapsed = started.elapsed().as_secs_f64();
    for first in (0..keys).step_by(RANGE as usize) {
        let prefix = key(first);
        let found = engine.range(prefix.slice(..prefix.len() - 3)).await as u64;
        assert_eq!(found, RANGE.min(keys - first), "{prefix:?}");
    }
    println!("{elapsed} {}", resident() - before);
    engine
}

/// The resident bytes of this process.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.expect("a size") * 1024.0
}
