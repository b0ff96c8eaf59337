//! Watches: many on one stream.
//!
//! A stream of watches is the body of its own answer: it does what there is to do when the connection asks for more to send. So a client that
//! reads slowly slows its own stream and nothing else, and nothing is queued for it: what it has not read is still in the store's history.
//! Where that is too short for it, the watch is opened again from where it was, and only ends when even that is compacted.

mod events;
mod progress;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::{AbortHandle, Abortable, FuturesUnordered, SelectAll};
use futures::{FutureExt, Stream, StreamExt};
use http_body::Body;
use orlop_core::env::Cancelled;
use orlop_core::revision::Revision;
use orlop_core::store::{self, StoreError, WatchItem};
use orlop_wire::body::BoxError;

use self::events::{Encoder, Wanted};
use self::progress::Progress;
use super::error::{COMPACTED, GrpcError, STOPPED, WATCH_DUPLICATE_ID, WATCH_EMPTY_RANGE};
use super::frame::{self, Reader};
use super::metrics::Counted;
use super::{Inner, ranges};
use crate::etcd::proto::watch::{
    WatchCreateRequest, WatchRequest, WatchRequestRequestUnion, WatchResponse,
};

/// About how many bytes are put together into one piece for the connection.
const BATCH: usize = 32 * 1024;

/// How many requests of a client are taken before what its watches yield has its turn.
const REQUESTS_PER_POLL: usize = 64;

/// The number of an answer that concerns no watch, or all of them.
const NO_WATCH: i64 = -1;

/// A stream of watches.
pub(super) struct Watches<B> {
    server: Arc<Inner>,
    requests: Option<Reader<B>>,
    /// A request that is being carried out; the next one waits for it.
    requesting: bool,
    busy: FuturesUnordered<BoxFuture<'static, Outcome>>,
    watches: BTreeMap<i64, Watch>,
    changes: SelectAll<Abortable<Tagged>>,
    next_id: i64,
    next_generation: u64,
    progress: Progress,
    encoder: Encoder,
    out: BytesMut,
    closing: Cancelled,
    /// Why the stream ends, once what is ready has been sent.
    failed: Option<GrpcError>,
    ended: bool,
    _counted: Counted,
}

/// One watch.
struct Watch {
    /// Which opening of the store's watch counts; what others yield is late.
    generation: u64,
    stop: AbortHandle,
    keys: store::KeyRange,
    wanted: Wanted,
    /// All changes up to this revision were sent, as far as they are of interest. It lies ahead where the client asked for the future alone.
    served: Revision,
    /// The newest revision that the store has told of.
    seen: Revision,
    /// Whether the store tells how far the watch is.
    marks: bool,
    /// Whether the client wants to be told now and then how far the watch is.
    notify: bool,
    /// Whether nothing was sent since the client was told last.
    quiet: bool,
    _counted: Counted,
}

/// What became of something that took its time.
enum Outcome {
    /// A watch was to be opened.
    Opened {
        request: WatchCreateRequest,
        id: i64,
        /// The store's revision before it was opened, and the watch.
        result: Result<(Revision, store::WatchStream), (Revision, StoreError)>,
    },
    /// The store could not even tell its revision.
    Failed(StoreError),
    /// An answer that needed the store's revision.
    Answer(WatchResponse, Revision),
    /// A watch was to be opened again.
    Reopened {
        id: i64,
        generation: u64,
        marks: bool,
        result: Result<store::WatchStream, StoreError>,
    },
    /// How far all watches have to be before the client is told so.
    Target(Revision),
}

/// A store's watch that says whose it is.
struct Tagged {
    id: i64,
    generation: u64,
    stream: store::WatchStream,
    ended: bool,
}

impl Stream for Tagged {
    type Item = (i64, u64, Result<WatchItem, StoreError>);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let (id, generation) = (self.id, self.generation);
        self.stream.poll_next_unpin(cx).map(|item| {
            let item = item
                .unwrap_or_else(|| Err(StoreError::Unavailable("the watch has ended".to_owned())));
            self.ended = item.is_err();
            Some((id, generation, item))
        })
    }
}

impl<B> Watches<B>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(server: Arc<Inner>, body: B) -> Self {
        let limit = server.message_limit();
        Self {
            requests: Some(Reader::new(body, limit)),
            requesting: false,
            busy: FuturesUnordered::new(),
            watches: BTreeMap::new(),
            changes: SelectAll::new(),
            next_id: 0,
            next_generation: 0,
            progress: Progress::new(&server),
            encoder: Encoder::default(),
            out: BytesMut::new(),
            closing: server.closing.cancelled(),
            failed: None,
            ended: false,
            _counted: Counted::new(&server.metrics, |metrics| &metrics.watch_streams),
            server,
        }
    }

    /// Takes what the client asks for, one thing after the other.
    fn take_requests(&mut self, cx: &mut Context<'_>) -> Result<(), GrpcError> {
        for _ in 0..REQUESTS_PER_POLL {
            if self.requesting || self.out.len() >= BATCH {
                return Ok(());
            }
            let Some(requests) = &mut self.requests else {
                return Ok(());
            };
            let message = match requests.poll_message(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(message)) => message?,
                // The client asks for nothing more, but still listens.
                Poll::Ready(None) => {
                    self.requests = None;
                    return Ok(());
                }
            };
            let request: WatchRequest = frame::decoded(message)?;
            match request.request_union {
                Some(WatchRequestRequestUnion::Create(create)) => self.create(create),
                Some(WatchRequestRequestUnion::Cancel(cancel)) => self.cancel(cancel.watch_id),
                Some(WatchRequestRequestUnion::Progress(_)) => self.ask_for_progress(),
                None => {}
            }
            self.settle(cx)?;
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn create(&mut self, mut request: WatchCreateRequest) {
        if request.key.is_empty() {
            // The smallest key there can be.
            request.key = Bytes::from_static(b"\0");
        }
        let end = &request.range_end;
        let refused = if !end.is_empty() && end.as_ref() != b"\0" && request.key >= *end {
            Some(WATCH_EMPTY_RANGE)
        } else if request.watch_id > 0 && self.watches.contains_key(&request.watch_id) {
            Some(WATCH_DUPLICATE_ID)
        } else {
            None
        };
        if let Some(reason) = refused {
            self.answer_at_revision(WatchResponse {
                watch_id: NO_WATCH,
                created: true,
                canceled: true,
                cancel_reason: reason.to_owned(),
                ..WatchResponse::default()
            });
            return;
        }
        let id = if request.watch_id > 0 {
            request.watch_id
        } else {
            while self.watches.contains_key(&self.next_id) {
                self.next_id += 1;
            }
            self.next_id += 1;
            self.next_id - 1
        };
        let store = self.server.store.clone();
        let keys = ranges::keys(&request.key, &request.range_end);
        let marks = request.progress_notify || self.progress.marks;
        self.requesting = true;
        self.busy.push(
            async move {
                let revision = match store.revision().await {
                    Ok(revision) => revision,
                    Err(error) => return Outcome::Failed(error),
                };
                // What the client is told as the beginning is the beginning.
                let from = match u64::try_from(request.start_revision) {
                    Ok(0) | Err(_) => Revision(revision.0 + 1),
                    Ok(from) => Revision(from),
                };
                let opened = store
                    .watch(store::WatchRequest {
                        keys,
                        from,
                        progress: marks,
                    })
                    .await;
                let result = match opened {
                    Ok(stream) => Ok((revision, stream)),
                    Err(error) => Err((revision, error)),
                };
                Outcome::Opened {
                    request,
                    id,
                    result,
                }
            }
            .boxed(),
        );
    }

    fn cancel(&mut self, id: i64) {
        let Some(watch) = self.watches.remove(&id) else {
            return;
        };
        watch.stop.abort();
        self.answer_at_revision(WatchResponse {
            watch_id: id,
            canceled: true,
            ..WatchResponse::default()
        });
    }

    fn answer_at_revision(&mut self, answer: WatchResponse) {
        let store = self.server.store.clone();
        self.requesting = true;
        self.busy.push(
            async move {
                match store.revision().await {
                    Ok(revision) => Outcome::Answer(answer, revision),
                    Err(error) => Outcome::Failed(error),
                }
            }
            .boxed(),
        );
    }

    /// Opens a watch again from where it is.
    fn reopen(&mut self, id: i64, marks: bool) {
        let Some(watch) = self.watches.get(&id) else {
            return;
        };
        let generation = watch.generation;
        let request = store::WatchRequest {
            keys: watch.keys.clone(),
            from: Revision(watch.served.0 + 1),
            progress: marks,
        };
        let store = self.server.store.clone();
        self.busy.push(
            async move {
                Outcome::Reopened {
                    id,
                    generation,
                    marks,
                    result: store.watch(request).await,
                }
            }
            .boxed(),
        );
    }

    /// Takes what has been done. True when there was something.
    fn settle(&mut self, cx: &mut Context<'_>) -> Result<bool, GrpcError> {
        let mut settled = false;
        while let Poll::Ready(Some(outcome)) = self.busy.poll_next_unpin(cx) {
            settled = true;
            match outcome {
                Outcome::Failed(error) => return Err(error.into()),
                Outcome::Opened {
                    request,
                    id,
                    result,
                } => {
                    self.requesting = false;
                    self.opened(&request, id, result)?;
                }
                Outcome::Answer(answer, revision) => {
                    self.requesting = false;
                    self.send(answer, revision)?;
                }
                Outcome::Reopened {
                    id,
                    generation,
                    marks,
                    result,
                } => self.reopened(id, generation, marks, result)?,
                Outcome::Target(revision) => {
                    self.requesting = false;
                    self.progress.asked(revision);
                }
            }
        }
        Ok(settled)
    }

    fn opened(
        &mut self,
        request: &WatchCreateRequest,
        id: i64,
        result: Result<(Revision, store::WatchStream), (Revision, StoreError)>,
    ) -> Result<(), GrpcError> {
        let (revision, result) = match result {
            Ok((revision, stream)) => (revision, Ok(stream)),
            Err((revision, error)) => (revision, Err(error)),
        };
        let created = WatchResponse {
            watch_id: id,
            created: true,
            ..WatchResponse::default()
        };
        self.send(created, revision)?;
        let stream = match result {
            Ok(stream) => stream,
            Err(error) => return self.lost(id, &error, revision),
        };
        let (generation, stop) = self.follow(id, stream);
        let from = u64::try_from(request.start_revision).unwrap_or(0);
        let served = match from {
            0 => revision,
            from => Revision(from - 1),
        };
        let marks = request.progress_notify || self.progress.marks;
        self.watches.insert(
            id,
            Watch {
                generation,
                stop,
                keys: ranges::keys(&request.key, &request.range_end),
                wanted: Wanted::of(request, self.server.fragment_limit()),
                served,
                seen: revision,
                marks,
                notify: request.progress_notify,
                quiet: true,
                _counted: Counted::new(&self.server.metrics, |metrics| &metrics.watchers),
            },
        );
        Ok(())
    }

    fn follow(&mut self, id: i64, stream: store::WatchStream) -> (u64, AbortHandle) {
        let generation = self.next_generation;
        self.next_generation += 1;
        let tagged = Tagged {
            id,
            generation,
            stream,
            ended: false,
        };
        let (stream, stop) = futures::stream::abortable(tagged);
        self.changes.push(stream);
        (generation, stop)
    }

    fn reopened(
        &mut self,
        id: i64,
        generation: u64,
        marks: bool,
        result: Result<store::WatchStream, StoreError>,
    ) -> Result<(), GrpcError> {
        if self
            .watches
            .get(&id)
            .is_none_or(|watch| watch.generation != generation)
        {
            // It was cancelled, or opened anew, meanwhile.
            return Ok(());
        }
        match result {
            Ok(stream) => {
                let (generation, stop) = self.follow(id, stream);
                if let Some(watch) = self.watches.get_mut(&id) {
                    std::mem::replace(&mut watch.stop, stop).abort();
                    watch.generation = generation;
                    watch.marks = marks;
                }
                Ok(())
            }
            // The one that is open goes on; only how far it is cannot be told.
            Err(StoreError::Compacted { .. }) if marks && !self.was_lost(id) => {
                self.progress.cannot_tell();
                Ok(())
            }
            Err(error) => {
                self.watches.remove(&id);
                self.lost(id, &error, Revision::ZERO)
            }
        }
    }

    /// Whether the store has let go of a watch.
    fn was_lost(&self, id: i64) -> bool {
        self.watches
            .get(&id)
            .is_none_or(|watch| watch.stop.is_aborted())
    }

    /// Tells the client that a watch has ended, or ends the stream where that is the store's fault.
    fn lost(&mut self, id: i64, error: &StoreError, revision: Revision) -> Result<(), GrpcError> {
        let StoreError::Compacted { oldest, .. } = error else {
            return Err(error.clone().into());
        };
        let canceled = WatchResponse {
            watch_id: id,
            canceled: true,
            compact_revision: oldest.0.cast_signed(),
            cancel_reason: COMPACTED.message.to_string(),
            ..WatchResponse::default()
        };
        self.send(canceled, revision.max(*oldest))
    }

    fn send(&mut self, mut answer: WatchResponse, revision: Revision) -> Result<(), GrpcError> {
        answer.header = self.server.header(revision);
        frame::put(&answer, &mut self.out)
    }

    /// Takes what the watches yield.
    fn take_changes(&mut self, cx: &mut Context<'_>) -> Result<(), GrpcError> {
        while self.out.len() < BATCH {
            let Poll::Ready(Some((id, generation, item))) = self.changes.poll_next_unpin(cx) else {
                return Ok(());
            };
            let Some(watch) = self.watches.get_mut(&id) else {
                continue;
            };
            if watch.generation != generation {
                continue;
            }
            match item {
                Ok(WatchItem::Changes(changes)) => {
                    let Some(revision) = changes.last().map(store::Change::revision) else {
                        continue;
                    };
                    // A watch that was opened again begins with what may have been sent before.
                    if revision <= watch.served {
                        continue;
                    }
                    watch.served = revision;
                    watch.seen = watch.seen.max(revision);
                    let header = self.server.header(revision);
                    let sent =
                        self.encoder
                            .put(header, id, &watch.wanted, &changes, &mut self.out)?;
                    if sent > 0 {
                        watch.quiet = false;
                        self.server
                            .metrics
                            .events
                            .fetch_add(sent as u64, Ordering::Relaxed);
                    }
                }
                Ok(WatchItem::Progress(revision)) => {
                    watch.served = watch.served.max(revision);
                    watch.seen = watch.seen.max(revision);
                }
                Err(StoreError::Lagged { at }) => {
                    watch.served = watch.served.max(at);
                    watch.stop.abort();
                    let marks = watch.marks;
                    self.reopen(id, marks);
                }
                Err(error) => {
                    let served = watch.served;
                    self.watches.remove(&id);
                    self.lost(id, &error, served)?;
                }
            }
        }
        Ok(())
    }

    fn work(&mut self, cx: &mut Context<'_>) -> Result<(), GrpcError> {
        if self.closing.poll_unpin(cx).is_ready() {
            return Err(STOPPED);
        }
        self.settle(cx)?;
        loop {
            self.take_requests(cx)?;
            self.take_changes(cx)?;
            // What was opened again meanwhile has to be looked at once, so that it can wake this.
            if !self.settle(cx)? {
                break;
            }
        }
        self.tell_progress(cx)
    }
}

impl<B> Stream for Watches<B>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Item = Result<Bytes, GrpcError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.failed.is_none() {
            self.failed = self.work(cx).err();
        }
        // What was ready goes before the error.
        if !self.out.is_empty() {
            return Poll::Ready(Some(Ok(self.out.split().freeze())));
        }
        match self.failed.take() {
            None => Poll::Pending,
            Some(error) => {
                self.ended = true;
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}
