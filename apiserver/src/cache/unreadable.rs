//! Kinds whose objects cannot be read from the store, because what is stored was damaged or its key is not known.
//!
//! One value that cannot be read fails the read of all that stands with it. So that it fails no more than that, the cache reads kind by kind then; what
//! cannot be read answers with the store's error, as in Kubernetes, and is tried again now and then.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use orlop_core::env::Moment;
use orlop_core::object::Object;
use orlop_core::revision::Revision;
use orlop_core::status::Status;
use orlop_core::store::{KeyRange, RangeRequest, StoreError, WatchItem, WatchStream};

use super::node_ports::{NODE_PORTS, port_of};
use super::{Caches, FILL_PAGE, KindCache, store_status};

/// How often a kind that cannot be read is tried again.
const AGAIN: Duration = Duration::from_secs(10);

impl Caches {
    /// The cache of a kind, if its objects can be read.
    pub(crate) fn readable<'a>(
        &self,
        kind: &'a Arc<KindCache>,
    ) -> Result<&'a Arc<KindCache>, Status> {
        match kind.unreadable() {
            Some(why) => Err(store_status(StoreError::Corrupt(why.to_string()))),
            None => Ok(kind),
        }
    }

    /// What cannot be read, and why.
    pub(crate) fn unreadable(&self) -> Vec<(String, Arc<str>)> {
        let kinds = self.kinds.values();
        kinds
            .filter_map(|kind| Some((kind.resource().qualified(), kind.unreadable()?)))
            .collect()
    }

    /// Reads everything kind by kind, at one revision.
    pub(super) async fn fill_by_kind(&self) -> Result<Revision, StoreError> {
        let at = self.store.revision().await?;
        let ports = self.items(NODE_PORTS, at).await?;
        let mut fresh = Vec::with_capacity(self.kinds.len());
        for (prefix, kind) in &self.kinds {
            fresh.push((kind, self.objects(prefix, kind, at).await?));
        }
        for (kind, objects) in fresh {
            match objects {
                Ok(objects) => kind.replace(objects, at),
                Err(why) => {
                    tracing::error!(resource = %kind.resource().qualified(), error = why, "objects cannot be read");
                    kind.replace(Vec::new(), at);
                    kind.set_unreadable(Some(why.into()));
                }
            }
        }
        let ports = ports
            .into_iter()
            .filter_map(|kv| Some((port_of(&kv.key)?, kv.value)));
        self.node_ports.replace(ports.collect());
        self.applied.set(at);
        Ok(at)
    }

    /// When what cannot be read is to be tried again, after it has just been read.
    pub(super) fn later(&self) -> Moment {
        self.env.now() + AGAIN
    }

    /// The next item of the cache's watch. While there are kinds that cannot be read, they are tried again in between.
    pub(super) async fn next(
        &self,
        stream: &mut WatchStream,
        again: &mut Moment,
    ) -> Option<Result<WatchItem, StoreError>> {
        loop {
            if self.kinds.values().all(|kind| kind.unreadable().is_none()) {
                return stream.next().await;
            }
            let now = self.env.now();
            if now >= *again {
                // Nothing else is applied meanwhile, so that the kind comes to the revision at which all others are.
                self.try_again(self.applied()).await;
                *again = self.later();
            } else if let Ok(item) = self.env.timeout(again.since(now), stream.next()).await {
                return item;
            }
        }
    }

    async fn try_again(&self, at: Revision) {
        for (prefix, kind) in &self.kinds {
            if kind.unreadable().is_none() {
                continue;
            }
            match self.objects(prefix, kind, at).await {
                Ok(Ok(objects)) => {
                    kind.replace(objects, at);
                    tracing::info!(resource = %kind.resource().qualified(), "objects can be read again");
                }
                Ok(Err(why)) => kind.set_unreadable(Some(why.into())),
                Err(error) => tracing::warn!(%error, "the store cannot be read"),
            }
        }
    }

    /// The objects of a kind; or why they cannot be read, though the store can.
    async fn objects(
        &self,
        prefix: &str,
        kind: &KindCache,
        at: Revision,
    ) -> Result<Result<Vec<Object>, String>, StoreError> {
        let items = match self.items(prefix, at).await {
            Ok(items) => items,
            Err(StoreError::Corrupt(why)) => return Ok(Err(why)),
            Err(error) => return Err(error),
        };
        let mut objects = Vec::with_capacity(items.len());
        for kv in items {
            match Object::from_stored(kv.value, kv.mod_revision) {
                Ok(object) => objects.push(object),
                Err(error) => {
                    tracing::error!(resource = %kind.resource().plural, %error, "an unreadable object is left out");
                }
            }
        }
        Ok(Ok(objects))
    }

    async fn items(
        &self,
        prefix: &str,
        at: Revision,
    ) -> Result<Vec<orlop_core::store::KeyValue>, StoreError> {
        let mut items = Vec::new();
        let mut after = None;
        loop {
            let keys = KeyRange::prefix(prefix.to_owned());
            let request = RangeRequest::new(keys).at(at).page(FILL_PAGE, after.take());
            let page = self.store.range(request).await?;
            after = page.items.last().map(|kv| kv.key.clone());
            items.extend(page.items);
            if page.remaining == 0 {
                return Ok(items);
            }
        }
    }
}
