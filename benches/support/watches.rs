//! A thousand watches on a server, each of ten keys of its own, so that each put is told of once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::grpc::{Channel, Range, end_of};
use crate::support::{KEYS, key};

/// How many watches there are.
const WATCHES: u64 = 1_000;
/// How many streams, each on a connection of its own, they share.
const STREAMS: u64 = 8;
/// How long the last events may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Open watches, read by a thread of their own.
pub(crate) struct Watches {
    events: Arc<AtomicU64>,
    told: AtomicU64,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watches {
    /// Opens them at a port of this machine, and waits until all are.
    pub(crate) fn open(port: u16) -> Self {
        let (events, created) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (stop, stopped) = oneshot::channel();
        let counters = (events.clone(), created.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let streams = (0..STREAMS).map(|stream| follow(port, stream, &counters));
                tokio::select! {
                    _ = stopped => {}
                    _ = futures::future::join_all(streams) => {}
                }
            });
        });
        let watches = Self {
            events,
            told: AtomicU64::new(0),
            stop: Some(stop),
            thread: Some(thread),
        };
        watches.wait(&created, WATCHES, "watches were opened");
        watches
    }

    /// Waits until there were events for so many more puts, and panics where there are fewer, or more.
    pub(crate) fn told_of(&self, puts: u64) {
        let puts = self.told.fetch_add(puts, Ordering::Relaxed) + puts;
        self.wait(&self.events, puts, "puts were told of");
    }

    fn wait(&self, counter: &AtomicU64, expected: u64, what: &str) {
        let began = Instant::now();
        loop {
            let counted = counter.load(Ordering::Relaxed);
            if counted == expected {
                return;
            }
            assert!(
                counted < expected && began.elapsed() < PATIENCE,
                "{counted} of {expected} {what}"
            );
            assert!(
                self.thread.as_ref().is_some_and(|own| !own.is_finished()),
                "the watches failed"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Opens a stream's watches, and counts what it says.
async fn follow(port: u16, stream: u64, (events, created): &(Arc<AtomicU64>, Arc<AtomicU64>)) {
    let channel = Channel::connect(port).await.expect("a connection");
    let each = KEYS / WATCHES;
    let ranges = (0..WATCHES).filter(|number| number % STREAMS == stream);
    let ranges = ranges.map(|number| {
        let key = key(number * each);
        let key = key.slice(..key.len() - 1);
        let end = end_of(&key);
        Range { key, end }
    });
    let mut watching = channel.watch(ranges.collect()).await.expect("watches");
    loop {
        let message = watching.next().await.expect("a message");
        assert!(!message.canceled, "a watch was cancelled");
        created.fetch_add(u64::from(message.created), Ordering::Relaxed);
        events.fetch_add(message.events.len() as u64, Ordering::Relaxed);
    }
}
