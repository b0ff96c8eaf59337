//! Watches.

use std::time::Duration;

use async_trait::async_trait;
use orlop_core::revision::Revision;
use orlop_core::store::{Commit, KeyRange, RangeResult, StoreError, Txn, WatchStream};

use super::*;
use crate::etcd::proto::watch::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
    WatchRequestRequestUnion, WatchResponse,
};

const WATCH: &str = "/etcdserverpb.Watch/Watch";

fn asked(union: WatchRequestRequestUnion) -> WatchRequest {
    WatchRequest {
        request_union: Some(union),
    }
}

fn create(change: impl FnOnce(&mut WatchCreateRequest)) -> WatchRequest {
    let mut request = WatchCreateRequest {
        key: "a".into(),
        ..WatchCreateRequest::default()
    };
    change(&mut request);
    asked(WatchRequestRequestUnion::Create(request))
}

fn cancel(watch_id: i64) -> WatchRequest {
    asked(WatchRequestRequestUnion::Cancel(WatchCancelRequest {
        watch_id,
    }))
}

fn progress() -> WatchRequest {
    asked(WatchRequestRequestUnion::Progress(WatchProgressRequest {}))
}

async fn put(store: &Arc<dyn Store>, key: &'static str) -> u64 {
    match store.commit(Txn::put(key, "v")).await.unwrap() {
        Commit::Applied { revision, .. } | Commit::Refused { revision, .. } => revision.0,
    }
}

async fn next(stream: &mut Duplex) -> WatchResponse {
    stream.next().await.unwrap()
}

fn revision(answer: &WatchResponse) -> i64 {
    answer.header.as_ref().unwrap().revision
}

#[test]
fn watches_of_one_stream_are_told_apart() {
    let world = World::new();
    let (server, store) = (world.server.clone(), world.store.clone());
    world.sim.block_on(async move {
        let mut stream = Duplex::open(&server, WATCH).await;
        for (asked, given) in [(0, 0), (2, 2), (0, 1), (0, 3)] {
            stream.send(&create(|request| request.watch_id = asked));
            let answer = next(&mut stream).await;
            assert_eq!((answer.created, answer.watch_id), (true, given));
            assert_eq!(revision(&answer), 1);
        }
        stream.send(&create(|request| request.watch_id = 2));
        let answer = next(&mut stream).await;
        assert_eq!(
            (answer.watch_id, answer.created, answer.canceled),
            (-1, true, true)
        );
        assert!(answer.cancel_reason.contains("duplicate"));
        stream.send(&create(|request| {
            request.key = "b".into();
            request.range_end = "a".into();
        }));
        let answer = next(&mut stream).await;
        assert_eq!((answer.watch_id, answer.canceled), (-1, true));
        assert!(answer.cancel_reason.contains("range is empty"));

        put(&store, "a").await;
        let mut told = Vec::new();
        for _ in 0..4 {
            let answer = next(&mut stream).await;
            assert_eq!((answer.events.len(), revision(&answer)), (1, 2));
            told.push(answer.watch_id);
        }
        told.sort_unstable();
        assert_eq!(told, [0, 1, 2, 3]);

        for id in [0, 1, 3] {
            stream.send(&cancel(id));
            let answer = next(&mut stream).await;
            assert_eq!((answer.watch_id, answer.canceled), (id, true));
        }
        // One that is not there is not answered.
        stream.send(&cancel(99));
        put(&store, "a").await;
        let answer = next(&mut stream).await;
        assert_eq!((answer.watch_id, answer.events.len()), (2, 1));
        server.close();
        let ended = stream.next::<WatchResponse>().await;
        assert_eq!(
            ended.unwrap_err(),
            (14, "etcdserver: server stopped".to_owned())
        );
    });
}

#[test]
fn the_past_the_future_and_what_is_gone() {
    let world = World::new();
    let (server, store) = (world.server.clone(), world.store.clone());
    world.sim.block_on(async move {
        for _ in 0..4 {
            put(&store, "a").await;
        }
        store.compact(Revision(4)).await.unwrap();
        let mut stream = Duplex::open(&server, WATCH).await;
        stream.send(&create(|request| request.start_revision = 3));
        let created = next(&mut stream).await;
        assert!(created.created && !created.canceled);
        let gone = next(&mut stream).await;
        assert_eq!((gone.canceled, gone.compact_revision), (true, 4));
        assert!(gone.cancel_reason.contains("compacted"));

        stream.send(&create(|request| request.start_revision = 4));
        assert!(next(&mut stream).await.created);
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let answer = next(&mut stream).await;
            seen.extend(
                answer
                    .events
                    .iter()
                    .map(|event| event.kv.as_ref().unwrap().mod_revision),
            );
        }
        assert_eq!(seen, [4, 5]);
        stream.send(&cancel(1));
        assert!(next(&mut stream).await.canceled);

        stream.send(&create(|request| request.start_revision = 8));
        assert!(next(&mut stream).await.created);
        for _ in 6..=8 {
            put(&store, "a").await;
        }
        let answer = next(&mut stream).await;
        assert_eq!(answer.events[0].kv.as_ref().unwrap().mod_revision, 8);
    });
}

#[test]
fn progress_is_told_when_all_watches_have_got_there() {
    let world = World::new();
    let (server, store) = (world.server.clone(), world.store.clone());
    world.sim.block_on(async move {
        let mut stream = Duplex::open(&server, WATCH).await;
        stream.send(&progress());
        let answer = next(&mut stream).await;
        assert_eq!((answer.watch_id, revision(&answer)), (-1, 1));
        for key in ["a", "b"] {
            stream.send(&create(|request| request.key = key.into()));
            assert!(next(&mut stream).await.created);
        }
        for round in 0..5 {
            put(&store, "a").await;
            let newest = put(&store, "elsewhere").await.cast_signed();
            stream.send(&progress());
            let event = next(&mut stream).await;
            assert_eq!((event.watch_id, event.events.len()), (0, 1), "{round}");
            let answer = next(&mut stream).await;
            assert_eq!((answer.watch_id, revision(&answer)), (-1, newest));
            assert!(answer.events.is_empty());
        }
    });
}

#[test]
fn watches_that_hear_nothing_are_told_how_far_they_are() {
    let world = World::new();
    let (server, store, env) = (world.server.clone(), world.store.clone(), world.env.clone());
    world.sim.block_on(async move {
        let mut stream = Duplex::open(&server, WATCH).await;
        stream.send(&create(|request| request.progress_notify = true));
        assert!(next(&mut stream).await.created);
        stream.send(&create(|request| request.key = "quiet".into()));
        assert!(next(&mut stream).await.created);
        let newest = put(&store, "elsewhere").await.cast_signed();
        let start = env.now();
        for round in 1..=3 {
            let answer = next(&mut stream).await;
            assert_eq!((answer.watch_id, revision(&answer)), (0, newest));
            let waited = env.now().since(start).as_secs();
            assert!((600 * round..=661 * round).contains(&waited), "{waited}");
        }
    });
}

/// A store whose watches all lag after one item, and again and again.
struct Lagging(MemoryStore);

#[async_trait]
impl Store for Lagging {
    async fn range(
        &self,
        request: orlop_core::store::RangeRequest,
    ) -> Result<RangeResult, StoreError> {
        self.0.range(request).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        self.0.commit(txn).await
    }

    async fn watch(
        &self,
        request: orlop_core::store::WatchRequest,
    ) -> Result<WatchStream, StoreError> {
        let from = request.from;
        let mut at = Revision(from.0 - 1);
        let items = self.0.watch(request).await?;
        let mut left = 1;
        Ok(items
            .map(move |item| {
                if left == 0 {
                    return Err(StoreError::Lagged { at });
                }
                left -= 1;
                if let Ok(orlop_core::store::WatchItem::Changes(changes)) = &item {
                    at = changes.last().unwrap().revision();
                }
                item
            })
            .boxed())
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.0.compact(revision).await
    }
}

#[test]
fn a_watch_that_lags_goes_on_where_it_was() {
    let world = World::with(|env| Arc::new(Lagging(MemoryStore::new(env))), |_| ());
    let (server, store, env) = (world.server.clone(), world.store.clone(), world.env.clone());
    world.sim.block_on(async move {
        let mut stream = Duplex::open(&server, WATCH).await;
        stream.send(&create(|_| ()));
        assert!(next(&mut stream).await.created);
        for wanted in 2..50 {
            put(&store, "a").await;
            if wanted % 3 == 0 {
                env.sleep(Duration::from_secs(1)).await;
            }
        }
        for wanted in 2..50 {
            let answer = next(&mut stream).await;
            assert_eq!(answer.events.len(), 1);
            assert_eq!(answer.events[0].kv.as_ref().unwrap().mod_revision, wanted);
        }
        // Nothing is sent twice.
        let found = store
            .range(orlop_core::store::RangeRequest::new(KeyRange::key("a")))
            .await
            .unwrap();
        assert_eq!(found.revision, Revision(49));
        put(&store, "a").await;
        let answer = next(&mut stream).await;
        assert_eq!(answer.events[0].kv.as_ref().unwrap().mod_revision, 50);
    });
}

#[test]
fn ten_thousand_watches_share_a_stream() {
    let world = World::new();
    let (server, store) = (world.server.clone(), world.store.clone());
    world.sim.block_on(async move {
        let mut stream = Duplex::open(&server, WATCH).await;
        for n in 0..10_000 {
            stream.send(&create(|request| {
                request.key = format!("key-{}", n % 5000).into()
            }));
        }
        for n in 0..10_000 {
            let answer = next(&mut stream).await;
            assert_eq!((answer.created, answer.watch_id), (true, n));
        }
        put(&store, "key-7").await;
        let mut told = [
            next(&mut stream).await.watch_id,
            next(&mut stream).await.watch_id,
        ];
        told.sort_unstable();
        assert_eq!(told, [7, 5007]);
        for n in 0..5000 {
            store
                .commit(Txn::put(format!("key-{n}"), "v"))
                .await
                .unwrap();
        }
        for _ in 0..10_000 {
            assert_eq!(next(&mut stream).await.events.len(), 1);
        }
    });
}
