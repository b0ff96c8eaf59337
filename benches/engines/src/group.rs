//! Group commit for an engine that has none: one thread takes what queued while the last batch was synced, and writes it as the next batch.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::engine::{Batches, Put};

/// How many puts may wait. There are never more clients.
const QUEUE: usize = 4096;

struct Waiting {
    put: Put,
    done: oneshot::Sender<()>,
}

/// An engine and its thread.
pub(crate) struct Group {
    engine: Arc<dyn Batches>,
    queue: Option<SyncSender<Waiting>>,
    thread: Option<JoinHandle<()>>,
}

impl Group {
    pub(crate) fn start(engine: Box<dyn Batches>) -> Self {
        let engine: Arc<dyn Batches> = engine.into();
        let (queue, waiting) = sync_channel(QUEUE);
        let own = engine.clone();
        let thread = std::thread::spawn(move || write(&*own, &waiting));
        Self {
            engine,
            queue: Some(queue),
            thread: Some(thread),
        }
    }

    pub(crate) async fn put(&self, key: Bytes, value: Bytes) {
        let (done, durable) = oneshot::channel();
        // The writer gives the revisions, in the order in which it meets the puts.
        let put = Put {
            revision: 0,
            key,
            value,
        };
        let queue = self.queue.as_ref().expect("the store is open");
        queue.send(Waiting { put, done }).expect("a writer");
        durable.await.expect("an answer");
    }

    pub(crate) fn range(&self, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        self.engine.range(prefix)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(engine: &dyn Batches, waiting: &Receiver<Waiting>) {
    let mut revision = 1;
    let (mut puts, mut done) = (Vec::new(), Vec::new());
    while let Ok(first) = waiting.recv() {
        for mut next in std::iter::once(first).chain(waiting.try_iter().take(QUEUE)) {
            revision += 1;
            next.put.revision = revision;
            puts.push(next.put);
            done.push(next.done);
        }
        engine.write(&puts);
        puts.clear();
        for done in done.drain(..) {
            let _ = done.send(());
        }
    }
}
