//! How does the store compare with a real etcd, for the same client?
//!
//! Puts, gets, ranges of 100 keys, and puts among four times as many gets while 1,000 watches are open; values of 256 bytes and 1 KiB; 1, 64
//! and 512 clients, each of which waits for its answer before it sends the next request, over at most eight connections. All
//! write and read the same 10,000 keys. Side by side in the same run, in turns:
//!
//! * `etcd`: the real one, where it is on `PATH`, with its defaults: every batch of commits is synced.
//! * `orlop`: the etcd API in front of the durable store, which syncs every batch too: what `orlop etcd` serves.
//! * `echo`: an empty server by tonic, which reads the request and answers with nothing. It is what gRPC alone costs, on these cores and with this
//!   client.
//! * `in-process`: the durable store without gRPC, as one who embeds it calls it.
//! * `disk`: the values of all clients in one write, and one sync for all of them: the physical bound of a put.
//!
//! The first three are processes of their own, and each gets a new one, with a new directory, for each operation and size of value. The
//! client is the same for all: HTTP/2 by h2, on as many threads as there are cores, connections and clients bound to their thread. It has
//! the cores in common with the servers, so its cost is part of every figure, and makes every ratio between servers smaller than
//! it is.
//!
//! At the end it prints tables, and the goals with what they came to. `ORLOP_BENCH_QUICK=1` measures a tenth of the time, to see that all of it
//! works. A filter picks some: `cargo bench --bench etcd_beside -- put-256`.
//!
//! `cargo bench --bench etcd_beside`

#![allow(clippy::disallowed_methods, reason = "a bench measures real time")]

#[path = "support/echo.rs"]
mod echo;
#[path = "support/grpc.rs"]
mod grpc;
#[path = "support/load.rs"]
mod load;
#[path = "support/orlop_etcd.rs"]
mod orlop_etcd;
#[path = "support/servers.rs"]
mod servers;
mod support;
#[path = "support/tables.rs"]
mod tables;
#[path = "support/watches.rs"]
mod watches;

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use futures::StreamExt;
use orlop::core::env::Env;
use orlop::core::store::{Commit, KeyRange, RangeRequest, Store, Txn};
use orlop::store::{DurableOptions, DurableStore};

use self::grpc::{Channel, Put, Range, end_of};
use self::load::over_connections;
use self::servers::Server;
use self::support::{KEYS, Measured, concurrently, key, scattered};
use self::tables::{CLIENTS, Operation, Peer, Results};
use self::watches::Watches;

/// How many bytes a value has.
const VALUES: [usize; 2] = [256, 1024];
/// How many keys a range has: those of one namespace.
const RANGE: u64 = 100;

fn main() {
    servers::serve_if_asked();
    let mut criterion = Criterion::default().configure_from_args();
    let etcd = Server::etcd_version();
    match &etcd {
        Ok(version) => println!("etcd: {version}"),
        Err(error) => println!("etcd: left out ({error}); install etcd to compare"),
    }
    let mut results = Results::default();
    for operation in Operation::ALL {
        for value in VALUES {
            let setting = Setting {
                operation,
                value: Bytes::from(vec![b'v'; value]),
                results: &mut results,
                group: support::group_over(
                    &mut criterion,
                    "etcd_beside",
                    Duration::from_millis(500),
                    Duration::from_secs(2),
                ),
            };
            setting.run(etcd.is_ok());
        }
    }
    criterion.final_summary();
    print!("{results}");
}

/// One operation with values of one size.
struct Setting<'a> {
    operation: Operation,
    value: Bytes,
    results: &'a mut Results,
    group: BenchmarkGroup<'a, WallTime>,
}

impl Setting<'_> {
    fn run(mut self, etcd: bool) {
        // An empty answer to a read is the same whatever the size of the value would be.
        let echo = match self.operation {
            Operation::Put => true,
            Operation::Get => self.value.len() == VALUES[0],
            Operation::Range | Operation::Mixed => false,
        };
        let mut servers = Vec::new();
        if etcd {
            servers.push(Lazy::new(Peer::Etcd, Server::etcd));
        }
        servers.push(Lazy::new(Peer::Orlop, Server::orlop));
        if echo {
            servers.push(Lazy::new(Peer::Echo, Server::echo));
        }
        for clients in CLIENTS {
            for server in &servers {
                self.over_grpc(server, clients);
            }
            if self.operation != Operation::Mixed {
                self.in_process(clients);
            }
            if self.operation == Operation::Put {
                let name = self.name(Peer::Disk);
                let measured = support::disk(&mut self.group, &name, clients, self.value.len());
                self.keep(Peer::Disk, clients, measured);
            }
        }
        self.group.finish();
    }

    fn name(&self, peer: Peer) -> String {
        format!("{}-{}/{peer}", self.operation, self.value.len())
    }

    fn keep(&mut self, peer: Peer, clients: usize, measured: Option<Measured>) {
        if let Some(measured) = measured {
            let of = (self.operation, self.value.len(), peer, clients);
            self.results.keep(of, measured);
        }
    }

    fn over_grpc(&mut self, server: &Lazy, clients: usize) {
        let (name, operation) = (self.name(server.peer), self.operation);
        let (value, puts) = (self.value.clone(), Arc::new(AtomicU64::new(0)));
        let counted = puts.clone();
        let empty = server.peer == Peer::Echo;
        let watched = operation == Operation::Mixed;
        let port = || server.port(&self.value, watched);
        let measured = over_connections(
            &mut self.group,
            &name,
            clients,
            port,
            move |channel: Channel, number| {
                let (value, puts) = (value.clone(), puts.clone());
                async move {
                    match operation {
                        Operation::Put => put(&channel, number, value).await,
                        Operation::Range => range(&channel, number, value.len()).await,
                        Operation::Get if empty => get(&channel, number, 0).await,
                        Operation::Get => get(&channel, number, value.len()).await,
                        Operation::Mixed if number % 5 == 0 => {
                            put(&channel, scattered(number), value).await;
                            puts.fetch_add(1, Ordering::Relaxed);
                        }
                        Operation::Mixed => get(&channel, scattered(number), value.len()).await,
                    }
                }
            },
        );
        if measured.is_some() && watched {
            server.told_of(counted.load(Ordering::Relaxed));
        }
        self.keep(server.peer, clients, measured);
    }

    fn in_process(&mut self, clients: usize) {
        let runtime = support::runtime();
        let directory = tempfile::tempdir().expect("a directory");
        let store: Arc<dyn Store> = runtime.block_on(async {
            let path = directory.path().join("store");
            let store = DurableStore::open(path, DurableOptions::default(), Env::tokio());
            let store = Arc::new(store.expect("a store")) as Arc<dyn Store>;
            let fill = futures::stream::iter(0..KEYS);
            fill.for_each_concurrent(64, |number| {
                let commit = store.commit(Txn::put(key(number), self.value.clone()));
                async { drop(commit.await.expect("a commit")) }
            })
            .await;
            store
        });
        let (operation, value) = (self.operation, self.value.clone());
        let name = self.name(Peer::InProcess);
        let measured = concurrently(
            &mut self.group,
            &runtime,
            &name,
            clients,
            move |_, number| {
                let (store, value) = (store.clone(), value.clone());
                async move {
                    let (keys, expected) = match operation {
                        Operation::Put => {
                            let commit = store.commit(Txn::put(key(number), value)).await;
                            assert!(matches!(commit, Ok(Commit::Applied { .. })));
                            return;
                        }
                        Operation::Range => (KeyRange::Prefix(namespace(number)), RANGE),
                        _ => (KeyRange::Key(key(number)), 1),
                    };
                    let read = store.range(RangeRequest::new(keys)).await;
                    assert_eq!(read.expect("an answer").items.len() as u64, expected);
                }
            },
        );
        self.keep(Peer::InProcess, clients, measured);
    }
}

/// A server that is started when it is first needed, with all keys written.
struct Lazy {
    peer: Peer,
    start: fn() -> std::io::Result<Server>,
    server: OnceCell<Server>,
    watches: RefCell<Option<Rc<Watches>>>,
}

impl Lazy {
    fn new(peer: Peer, start: fn() -> std::io::Result<Server>) -> Self {
        Self {
            peer,
            start,
            server: OnceCell::new(),
            watches: RefCell::new(None),
        }
    }

    fn port(&self, value: &Bytes, watched: bool) -> u16 {
        let server = self.server.get_or_init(|| {
            let server = (self.start)().expect("a server");
            fill(server.port, value);
            if watched {
                *self.watches.borrow_mut() = Some(Rc::new(Watches::open(server.port)));
            }
            server
        });
        server.port
    }

    /// Waits until the watches were told of so many more puts.
    fn told_of(&self, puts: u64) {
        if let Some(watches) = &*self.watches.borrow() {
            watches.told_of(puts);
        }
    }
}

/// Writes every key.
fn fill(port: u16, value: &Bytes) {
    let runtime = support::runtime();
    runtime.block_on(async {
        let channel = Channel::connect(port).await.expect("a connection");
        let puts = futures::stream::iter(0..KEYS);
        puts.for_each_concurrent(64, |number| put(&channel, number, value.clone()))
            .await;
    });
}

/// What the keys of a namespace begin with.
fn namespace(number: u64) -> Bytes {
    let key = key(number % (KEYS / RANGE) * RANGE);
    key.slice(..key.len() - 2)
}

async fn put(channel: &Channel, number: u64, value: Bytes) {
    let key = key(number);
    channel.put(&Put { key, value }).await.expect("a put");
}

async fn get(channel: &Channel, number: u64, value: usize) {
    let (key, end) = (key(number), Bytes::new());
    let bytes = channel.range(&Range { key, end }).await.expect("a get");
    assert!(bytes >= value, "an answer of {bytes} bytes");
}

async fn range(channel: &Channel, number: u64, value: usize) {
    let key = namespace(number);
    let end = end_of(&key);
    let bytes = channel.range(&Range { key, end }).await.expect("a range");
    assert!(bytes as u64 >= value as u64 * RANGE, "only {bytes} bytes");
}
