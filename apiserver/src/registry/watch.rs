//! Watches: what is there, what changes, and bookmarks.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use orlop_core::client::{WatchEvent, WatchOptions};
use orlop_core::env::{Env, Moment};
use orlop_core::revision::Revision;
use orlop_core::status::Status;

use super::Registry;
use super::context::At;
use crate::cache::{Caches, Watcher};

/// How often a watcher that asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long before its end a watch sends a last bookmark.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// How long a watch lasts at least when the client does not say; up to twice as long, at random.
const MIN_TIMEOUT: Duration = Duration::from_secs(1_800);

/// What a watch yields: an event, as the storage version of its kind.
pub(crate) type WatchItem = Result<WatchEvent, Status>;

/// A watch of a collection.
pub(crate) struct RegistryWatch {
    env: Env,
    caches: Arc<Caches>,
    initial: VecDeque<WatchEvent>,
    watcher: Option<Watcher>,
    /// A refusal to tell of, then the end.
    refused: Option<Status>,
    bookmarks: bool,
    next_bookmark: Moment,
    end: Moment,
    timer: BoxFuture<'static, ()>,
    /// The revision that the client knows of.
    told: Revision,
}

impl Registry {
    /// Follows a collection.
    pub(crate) async fn watch(
        &self,
        at: &At,
        options: &WatchOptions,
    ) -> Result<RegistryWatch, Status> {
        let selection = Self::selection(at, &options.label_selector, &options.field_selector)?;
        let cache = self.cache(at.info)?.clone();
        let mut initial = VecDeque::new();
        let mut refused = None;
        let mut told = Revision::ZERO;
        let from_now = options.initial_events || options.from.is_none_or(Revision::is_zero);
        let watcher = if from_now {
            match options.from {
                None => {
                    self.caches.wait_until_current().await?;
                }
                Some(revision) => self.caches.wait_for(revision).await?,
            }
            let (objects, revision, watcher) =
                cache.watch_from_now(&selection, || self.caches.applied());
            told = revision;
            initial.extend(
                objects
                    .into_iter()
                    .filter(|object| selection.matches(object))
                    .map(WatchEvent::Added),
            );
            if options.initial_events && options.bookmarks {
                initial.push_back(WatchEvent::Bookmark {
                    revision,
                    initial_events_end: true,
                });
            }
            Some(watcher)
        } else {
            let from = options.from.unwrap_or_default();
            match cache.watch_from(&selection, from) {
                Ok(watcher) => {
                    told = from;
                    Some(watcher)
                }
                Err(status) => {
                    refused = Some(status);
                    None
                }
            }
        };
        let now = self.env.now();
        let length = if options.timeout_seconds > 0 {
            Duration::from_secs(options.timeout_seconds.into())
        } else {
            self.env.jitter(MIN_TIMEOUT, 1.0)
        };
        let end = now + length;
        let next_bookmark = next_bookmark(now, end);
        let timer = self.env.sleep_until(next_bookmark.min(end));
        Ok(RegistryWatch {
            env: self.env.clone(),
            caches: self.caches.clone(),
            initial,
            watcher,
            refused,
            bookmarks: options.bookmarks,
            next_bookmark,
            end,
            timer,
            told,
        })
    }
}

fn next_bookmark(now: Moment, end: Moment) -> Moment {
    let last = end - BOOKMARK_BEFORE_END;
    if last > now {
        (now + BOOKMARK_EVERY).min(last)
    } else {
        now + BOOKMARK_EVERY
    }
}

impl Stream for RegistryWatch {
    type Item = WatchItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        if let Some(status) = self.refused.take() {
            return Poll::Ready(Some(Err(status)));
        }
        if let Some(event) = self.initial.pop_front() {
            return Poll::Ready(Some(Ok(event)));
        }
        loop {
            let this = &mut *self;
            let Some(watcher) = &mut this.watcher else {
                return Poll::Ready(None);
            };
            // Read before the queue: what was applied by now is in the queue already.
            let applied = this.caches.applied();
            match Pin::new(&mut *watcher).poll_next(cx) {
                Poll::Ready(Some(Ok(delivery))) => {
                    this.told = delivery.revision;
                    return Poll::Ready(Some(Ok(delivery.event)));
                }
                Poll::Ready(Some(Err(status))) => {
                    this.watcher = None;
                    return Poll::Ready(Some(Err(status)));
                }
                Poll::Ready(None) => {
                    this.watcher = None;
                    return Poll::Ready(None);
                }
                Poll::Pending => {}
            }
            match this.timer.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => {
                    let now = this.env.now();
                    if now >= this.end {
                        this.watcher = None;
                        return Poll::Ready(None);
                    }
                    this.next_bookmark = next_bookmark(now, this.end);
                    this.timer = this.env.sleep_until(this.next_bookmark.min(this.end));
                    if this.bookmarks && applied >= this.told && !applied.is_zero() {
                        this.told = applied;
                        // The timer has to be polled once, or nobody wakes us for it.
                        if this.timer.as_mut().poll(cx).is_ready() {
                            cx.waker().wake_by_ref();
                        }
                        return Poll::Ready(Some(Ok(WatchEvent::Bookmark {
                            revision: applied,
                            initial_events_end: false,
                        })));
                    }
                }
            }
        }
    }
}
