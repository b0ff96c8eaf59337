//! What the benches have in common: clients that each send the next request when the last one is answered.

#![allow(dead_code, reason = "each bench takes what it needs")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// The runtime that everything runs on, clients included: as many threads as there are cores.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// A group whose benches are long and noisy: ten samples of equal size.
pub(crate) fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5));
    group
}

/// Measures how many calls a second `clients` clients get through, and prints what one of them waits.
///
/// The call gets the client's number and a number that no other call of this bench gets. It reports failure by panicking.
pub(crate) fn concurrently<F, Call>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    name: &str,
    clients: usize,
    call: F,
) where
    F: Fn(usize, u64) -> Call + Send + Sync + 'static,
    Call: Future<Output = ()> + Send,
{
    let call = Arc::new(call);
    let sequence = Arc::new(AtomicU64::new(0));
    let waits = Arc::new(Mutex::new(Vec::new()));
    group.throughput(Throughput::Elements(clients as u64));
    group.bench_function(format!("{name}/{clients}"), |bench| {
        bench.iter_custom(|rounds| {
            let (call, sequence, waits) = (call.clone(), sequence.clone(), waits.clone());
            runtime.block_on(async move {
                let started = Instant::now();
                let mut tasks = JoinSet::new();
                for client in 0..clients {
                    let (call, sequence) = (call.clone(), sequence.clone());
                    tasks.spawn(async move {
                        let mut own =
                            Vec::with_capacity(usize::try_from(rounds).unwrap_or_default());
                        for _ in 0..rounds {
                            let began = Instant::now();
                            call(client, sequence.fetch_add(1, Ordering::Relaxed)).await;
                            own.push(began.elapsed());
                        }
                        own
                    });
                }
                let own = tasks.join_all().await;
                let elapsed = started.elapsed();
                waits.lock().extend(own.into_iter().flatten());
                elapsed
            })
        });
    });
    let mut waits = std::mem::take(&mut *waits.lock());
    if !waits.is_empty() {
        waits.sort_unstable();
        let at = |percent: usize| waits[(waits.len() - 1) * percent / 100];
        println!(
            "{name}/{clients}: one call takes p50 {:.2?}, p99 {:.2?} ({} calls)",
            at(50),
            at(99),
            waits.len()
        );
    }
}
