//! Clients on threads of their own: as many threads as there are cores, each with its own connections, so that no call is handed from
//! one thread to another on the client's side.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, measurement::WallTime};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::grpc::Channel;
use crate::support::{self, Measured};

/// The most connections to a server.
const CONNECTIONS: usize = 8;

struct Worker {
    runtime: Runtime,
    connections: Vec<Channel>,
    clients: usize,
}

/// Measures how many calls a second `clients` clients get through to a server on a port of this machine, over at most eight connections.
///
/// `port` is asked for once, before the first call. The call gets a connection, and a number that no other call of this bench gets. It reports failure by panicking.
pub(crate) fn over_connections<F, Call>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    clients: usize,
    port: impl Fn() -> u16,
    call: F,
) -> Option<Measured>
where
    F: Fn(Channel, u64) -> Call + Clone + Send + 'static,
    Call: Future<Output = ()> + Send + 'static,
{
    let mut workers: Option<Vec<Worker>> = None;
    let sequence = Arc::new(AtomicU64::new(0));
    support::measure(group, name, clients, |rounds| {
        let workers = workers.get_or_insert_with(|| Worker::all(clients, port()));
        let started = Instant::now();
        let waits = std::thread::scope(|scope| {
            let threads: Vec<_> = workers
                .iter()
                .map(|worker| {
                    let call = call.clone();
                    scope.spawn(|| worker.run(rounds, &sequence, call))
                })
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().expect("every call succeeds"))
                .collect()
        });
        (started.elapsed(), waits)
    })
}

impl Worker {
    fn all(clients: usize, port: u16) -> Vec<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(clients);
        let share = |all: usize, of: usize| all / threads + usize::from(of < all % threads);
        (0..threads)
            .map(|thread| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                let connections = runtime.block_on(async {
                    let mut connections = Vec::new();
                    for _ in 0..share(clients.min(CONNECTIONS).max(threads), thread) {
                        connections.push(Channel::connect(port).await.expect("a connection"));
                    }
                    connections
                });
                let clients = share(clients, thread);
                Worker {
                    runtime,
                    connections,
                    clients,
                }
            })
            .collect()
    }

    fn run<F, Call>(&self, rounds: u64, sequence: &Arc<AtomicU64>, call: F) -> Vec<Duration>
    where
        F: Fn(Channel, u64) -> Call + Clone + Send + 'static,
        Call: Future<Output = ()> + Send + 'static,
    {
        self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for client in 0..self.clients {
                let connection = self.connections[client % self.connections.len()].clone();
                let (sequence, call) = (sequence.clone(), call.clone());
                tasks.spawn(support::one_after_the_other(rounds, move || {
                    call(connection.clone(), sequence.fetch_add(1, Ordering::Relaxed))
                }));
            }
            tasks.join_all().await.into_iter().flatten().collect()
        })
    }
}
