//! Watches that are counted.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use orlop_core::store::{StoreError, WatchItem, WatchStream};

use super::series::{PerResource, StoreMetrics};
use super::verb::Verb;
use crate::layers::resource;

/// A watch that is counted for as long as it is open.
pub(super) struct MeteredWatch {
    inner: WatchStream,
    metrics: StoreMetrics,
    /// The resource of the range that is watched.
    of: Arc<PerResource>,
    /// The resource of the last change, and what its keys begin with: changes of one resource often follow each other.
    last: (Box<[u8]>, Arc<PerResource>),
}

impl MeteredWatch {
    /// Counts a watch of keys of a resource from now on.
    pub(super) fn new(inner: WatchStream, metrics: StoreMetrics, of: Arc<PerResource>) -> Self {
        of.watches.inc();
        Self {
            inner,
            metrics,
            last: (Box::default(), of.clone()),
            of,
        }
    }
}

impl Drop for MeteredWatch {
    fn drop(&mut self) {
        self.of.watches.dec();
    }
}

impl Stream for MeteredWatch {
    type Item = Result<WatchItem, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let item = std::task::ready!(this.inner.poll_next_unpin(cx));
        match &item {
            Some(Ok(WatchItem::Changes(changes))) => {
                for change in changes.iter() {
                    let key = change.key();
                    if this.last.0.is_empty() || !key.starts_with(&this.last.0) {
                        let prefix = resource::of_key(key).map_or(&[][..], |found| found.prefix);
                        this.last = (prefix.into(), this.metrics.of_key(key));
                    }
                    this.last.1.events.inc();
                }
            }
            Some(Ok(WatchItem::Progress(_))) => {
                this.of.bookmarks.inc();
            }
            Some(Err(error)) => this.metrics.failed(Verb::Watch.text(), error),
            None => {}
        }
        Poll::Ready(item)
    }
}
