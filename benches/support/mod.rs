//! What the benches have in common: clients that each send the next request when the last one is answered.

#![allow(dead_code, reason = "each bench takes what it needs")]

use std::collections::VecDeque;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// The runtime that everything runs on, clients included: as many threads as there are cores.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// How many samples are taken of each bench.
const SAMPLES: usize = 10;

/// Whether only a short look is wanted, to see that everything works: `ORLOP_BENCH_QUICK` is set.
pub(crate) fn quick() -> bool {
    std::env::var_os("ORLOP_BENCH_QUICK").is_some()
}

/// A group whose benches are long and noisy: ten samples of equal size, over five seconds in all.
pub(crate) fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    group_over(
        criterion,
        name,
        Duration::from_secs(1),
        Duration::from_secs(5),
    )
}

/// The same over a time of choice, with as much before it to warm up; a tenth of both for a [`quick`] look.
pub(crate) fn group_over<'a>(
    criterion: &'a mut Criterion,
    name: &str,
    warm: Duration,
    measure: Duration,
) -> BenchmarkGroup<'a, WallTime> {
    let shorter = if quick() { 10 } else { 1 };
    let mut group = criterion.benchmark_group(name);
    group
        .sample_size(SAMPLES)
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(warm / shorter)
        .measurement_time(measure / shorter);
    group
}

/// What a bench came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Calls a second, of all clients together.
    pub(crate) rate: f64,
    /// What half of the calls take at most.
    pub(crate) p50: Duration,
    /// What 99 of 100 calls take at most.
    pub(crate) p99: Duration,
}

/// Measures calls of `clients` clients and prints what one of them waits. `None` where the bench was not asked for.
///
/// `run` makes so many calls with each client and returns how long all of it took, and each call.
pub(crate) fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    clients: usize,
    mut run: impl FnMut(u64) -> (Duration, Vec<Duration>),
) -> Option<Measured> {
    let mut samples = VecDeque::with_capacity(SAMPLES);
    group.throughput(Throughput::Elements(clients as u64));
    group.bench_function(format!("{name}/{clients}"), |bench| {
        bench.iter_custom(|rounds| {
            let (elapsed, waits) = run(rounds);
            // Those before the last ones were for warming up.
            if samples.len() == SAMPLES {
                samples.pop_front();
            }
            samples.push_back((elapsed, waits));
            elapsed
        });
    });
    let elapsed: Duration = samples.iter().map(|(elapsed, _)| *elapsed).sum();
    let mut waits: Vec<Duration> = samples.into_iter().flat_map(|(_, waits)| waits).collect();
    if waits.is_empty() {
        return None;
    }
    waits.sort_unstable();
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100];
    let measured = Measured {
        rate: waits.len() as f64 / elapsed.as_secs_f64(),
        p50: at(50),
        p99: at(99),
    };
    println!(
        "{name}/{clients}: one call takes p50 {:.2?}, p99 {:.2?} ({} calls)",
        measured.p50,
        measured.p99,
        waits.len()
    );
    Some(measured)
}

/// Measures how many calls a second `clients` clients get through that are tasks of one runtime, and prints what one of them waits.
///
/// The call gets the client's number and a number that no other call of this bench gets. It reports failure by panicking.
pub(crate) fn concurrently<F, Call>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    name: &str,
    clients: usize,
    call: F,
) -> Option<Measured>
where
    F: Fn(usize, u64) -> Call + Send + Sync + 'static,
    Call: Future<Output = ()> + Send + 'static,
{
    let call = Arc::new(call);
    let sequence = Arc::new(AtomicU64::new(0));
    measure(group, name, clients, |rounds| {
        let (call, sequence) = (call.clone(), sequence.clone());
        runtime.block_on(async move {
            let started = Instant::now();
            let mut tasks = JoinSet::new();
            for client in 0..clients {
                let (call, sequence) = (call.clone(), sequence.clone());
                tasks.spawn(one_after_the_other(rounds, move || {
                    call(client, sequence.fetch_add(1, Ordering::Relaxed))
                }));
            }
            let waits = tasks.join_all().await;
            (started.elapsed(), waits.into_iter().flatten().collect())
        })
    })
}

/// Makes calls, each when the last one is answered, and returns how long each of them took.
pub(crate) async fn one_after_the_other<Call: Future<Output = ()>>(
    rounds: u64,
    mut call: impl FnMut() -> Call,
) -> Vec<Duration> {
    let mut waits = Vec::with_capacity(usize::try_from(rounds).unwrap_or_default());
    for _ in 0..rounds {
        let began = Instant::now();
        call().await;
        waits.push(began.elapsed());
    }
    waits
}

/// What the disk can do: the values of all clients in one write, and one sync for all of them, on a file that was written before.
///
/// A call is one client's share of that, so a rate is one of values, and a call takes as long as the write and the sync.
pub(crate) fn disk(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    clients: usize,
    value: usize,
) -> Option<Measured> {
    const SIZE: u64 = 64 << 20;
    let file = tempfile::tempfile().expect("a file");
    // Written, not only reserved, so that a sync has no block to take note of.
    for at in (0..SIZE).step_by(1 << 20) {
        file.write_all_at(&[0; 1 << 20], at).expect("room");
    }
    file.sync_all().expect("a sync");
    let bytes = vec![0x5a; value * clients];
    let mut at = 0;
    measure(group, name, clients, |rounds| {
        let mut waits = Vec::with_capacity(usize::try_from(rounds).unwrap_or_default() * clients);
        let started = Instant::now();
        for _ in 0..rounds {
            if at + bytes.len() as u64 > SIZE {
                at = 0;
            }
            let began = Instant::now();
            file.write_all_at(&bytes, at).expect("a write");
            file.sync_data().expect("a sync");
            waits.extend(std::iter::repeat_n(began.elapsed(), clients));
            at += bytes.len() as u64;
        }
        (started.elapsed(), waits)
    })
}

/// The key with a number: a hundred of them in each of a hundred namespaces, each ten of which share all but their last digit.
pub(crate) fn key(number: u64) -> Bytes {
    let number = number % KEYS;
    format!("/registry/bench/ns-{:02}/{:02}", number / 100, number % 100).into()
}

/// How many keys there are. They are written over and over.
pub(crate) const KEYS: u64 = 10_000;

/// The same number for the same argument, spread over all of them: so that neighbours in time are not neighbours in the store.
pub(crate) fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}
