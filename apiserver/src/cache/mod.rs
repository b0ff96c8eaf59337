//! The watch cache: every object of every kind in memory, and every change of them to everyone who watches.
//!
//! One task follows the store and applies each commit to the cache of its kind. Lists are read from the cache; a consistent one asks the
//! store for its revision first and waits until the cache has reached it. Watchers get the changes pushed into queues of
//! their own, chosen by namespace, name or node, so that a change costs only those whom it may concern; a watcher that does not
//! keep up is dropped, and starts again from the kind's history, which is bounded by bytes.

mod kind;
mod node_ports;
mod progress;
mod selection;
mod unreadable;
mod watcher;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orlop_core::admission::ObjectReader;
use orlop_core::env::{Env, TaskGroup};
use orlop_core::object::Object;
use orlop_core::resource::Resource;
use orlop_core::revision::Revision;
use orlop_core::status::{Status, StatusCause, StatusDetails};
use orlop_core::store::{
    Change, KeyRange, RangeRequest, Store, StoreError, WatchItem, WatchRequest,
};

pub(crate) use self::kind::KindCache;
pub(crate) use self::node_ports::NODE_PORTS;
use self::node_ports::{NodePorts, port_of};
use self::progress::Progress;
pub(crate) use self::selection::Selection;
pub(crate) use self::watcher::Watcher;
use crate::names::PODS;
use crate::registry::keys;

/// How long a request waits for the cache to reach a revision that it asks for.
const WAIT_FOR_REVISION: Duration = Duration::from_secs(3);
/// How long changes are gathered before somebody derives something from them.
const SETTLE: Duration = Duration::from_millis(20);
/// How many objects are read from the store at once when the cache is filled.
const FILL_PAGE: usize = 5_000;

/// The caches of all kinds.
pub(crate) struct Caches {
    env: Env,
    store: Arc<dyn Store>,
    /// By the prefix of their keys in the store.
    kinds: BTreeMap<String, Arc<KindCache>>,
    /// Those that Services have.
    pub(crate) node_ports: NodePorts,
    /// Everything up to this revision has been applied.
    applied: Progress,
}

impl Caches {
    /// Caches for resources, by the resource that each is stored as.
    pub(crate) fn new<'a>(
        env: Env,
        store: Arc<dyn Store>,
        stored: impl IntoIterator<Item = &'a Resource>,
    ) -> Arc<Self> {
        let kinds = stored
            .into_iter()
            .map(|resource| {
                (
                    keys::prefix(resource),
                    Arc::new(KindCache::new(resource.clone())),
                )
            })
            .collect();
        Arc::new(Self {
            env,
            store,
            kinds,
            node_ports: NodePorts::default(),
            applied: Progress::default(),
        })
    }

    /// Fills the caches and follows the store from then on.
    pub(crate) async fn start(self: &Arc<Self>, tasks: &TaskGroup) -> Result<(), StoreError> {
        let revision = self.fill().await?;
        let caches = self.clone();
        tasks.spawn_until_cancelled("watch cache", async move { caches.follow(revision).await });
        Ok(())
    }

    /// The cache of a stored resource.
    pub(crate) fn kind(&self, stored: &Resource) -> Option<&Arc<KindCache>> {
        self.kinds.get(&keys::prefix(stored))
    }

    /// The revision up to which everything has been applied.
    pub(crate) fn applied(&self) -> Revision {
        self.applied.get()
    }

    /// Waits until the cache shows everything that was acknowledged before the call.
    pub(crate) async fn wait_until_current(&self) -> Result<Revision, Status> {
        let revision = self.store.revision().await.map_err(store_status)?;
        self.wait_for(revision).await?;
        Ok(revision)
    }

    /// Waits until the cache has reached a revision; refuses when that takes longer than a moment.
    pub(crate) async fn wait_for(&self, revision: Revision) -> Result<(), Status> {
        if self.applied() >= revision {
            return Ok(());
        }
        let reached = self.applied.wait_for(|now| now >= revision);
        match self.env.timeout(WAIT_FOR_REVISION, reached).await {
            Ok(()) => Ok(()),
            Err(_) => Err(too_large(revision, self.applied())),
        }
    }

    /// Waits until an object of a resource has changed since the last look, but not too eagerly: changes of a moment count as one.
    pub(crate) async fn changed(&self, stored: &Resource) {
        let Some(kind) = self.kind(stored) else {
            return std::future::pending().await;
        };
        let seen = kind.last_change();
        self.applied.wait_for(|_| kind.last_change() > seen).await;
        self.env.sleep(SETTLE).await;
    }

    /// Reads everything from the store.
    async fn fill(&self) -> Result<Revision, StoreError> {
        let mut revision = None;
        let mut fresh: BTreeMap<&str, Vec<Object>> = BTreeMap::new();
        let mut ports = BTreeMap::new();
        let mut after = None;
        loop {
            let mut request =
                RangeRequest::new(KeyRange::prefix(keys::ROOT)).page(FILL_PAGE, after.take());
            request.revision = revision;
            let page = match self.store.range(request).await {
                Ok(page) => page,
                Err(StoreError::Corrupt(_)) => return self.fill_by_kind().await,
                Err(error) => return Err(error),
            };
            let at = *revision.get_or_insert(page.revision);
            after = page.items.last().map(|kv| kv.key.clone());
            for kv in page.items {
                let Some((prefix, cache)) = self.of_key(&kv.key) else {
                    if let Some(port) = port_of(&kv.key) {
                        ports.insert(port, kv.value);
                    }
                    continue;
                };
                match Object::from_stored(kv.value, kv.mod_revision) {
                    Ok(object) => fresh.entry(prefix).or_default().push(object),
                    Err(error) => {
                        tracing::error!(resource = %cache.resource().plural, %error, "an unreadable object is left out");
                    }
                }
            }
            if page.remaining == 0 {
                for (prefix, cache) in &self.kinds {
                    cache.replace(fresh.remove(prefix.as_str()).unwrap_or_default(), at);
                }
                self.node_ports.replace(ports);
                self.applied.set(at);
                return Ok(at);
            }
        }
    }

    fn of_key(&self, key: &[u8]) -> Option<(&str, &Arc<KindCache>)> {
        let key = std::str::from_utf8(key).ok()?;
        let prefix = keys::prefix_of(key)?;
        self.kinds
            .get_key_value(prefix)
            .map(|(prefix, cache)| (prefix.as_str(), cache))
    }

    /// Applies the store's changes as they come. When the stream breaks, everything is read again and watchers start anew.
    async fn follow(self: Arc<Self>, mut revision: Revision) {
        let mut delay = Duration::from_millis(50);
        loop {
            let request = WatchRequest {
                keys: KeyRange::prefix(keys::ROOT),
                from: revision.next(),
                progress: true,
            };
            match self.store.watch(request).await {
                Ok(mut stream) => {
                    let mut again = self.later();
                    while let Some(item) = self.next(&mut stream, &mut again).await {
                        match item {
                            Ok(WatchItem::Changes(changes)) => {
                                delay = Duration::from_millis(50);
                                if let Some(last) = changes.last() {
                                    revision = last.revision();
                                    self.apply(&changes);
                                    self.applied.set(revision);
                                }
                            }
                            Ok(WatchItem::Progress(at)) => {
                                revision = revision.max(at);
                                self.applied.set(revision);
                            }
                            Err(error) => {
                                tracing::warn!(%error, "the store ended the cache's watch");
                                break;
                            }
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "the store refused the cache's watch"),
            }
            self.env.sleep(self.env.jitter(delay, 0.5)).await;
            delay = (delay * 2).min(Duration::from_secs(10));
            match self.fill().await {
                Ok(at) => revision = at,
                Err(error) => tracing::warn!(%error, "the store cannot be read"),
            }
        }
    }

    fn apply(&self, changes: &[Change]) {
        for change in changes {
            let Some((_, cache)) = self.of_key(change.key()) else {
                if let Some(port) = port_of(change.key()) {
                    self.node_ports.apply(port, change);
                }
                continue;
            };
            match change {
                Change::Put { kv, .. } => {
                    match Object::from_stored(kv.value.clone(), kv.mod_revision) {
                        Ok(object) => cache.put(object),
                        Err(error) => {
                            tracing::error!(resource = %cache.resource().plural, %error, "an unreadable object is left out");
                        }
                    }
                }
                Change::Delete { key, revision, .. } => {
                    if let Some(name) = std::str::from_utf8(key).ok().and_then(keys::name_of) {
                        cache.delete(name, *revision);
                    }
                }
            }
        }
    }
}

/// 504: the revision asked for has not happened.
pub(crate) fn too_large(wanted: Revision, current: Revision) -> Status {
    let mut status = Status::timeout(
        format!("Timeout: Too large resource version: {wanted}, current: {current}"),
        1,
    );
    status.details = Some(Box::new(StatusDetails {
        causes: vec![StatusCause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            ..StatusCause::default()
        }],
        retry_after_seconds: 1,
        ..StatusDetails::default()
    }));
    status
}

/// What a client sees of a store's refusal.
pub(crate) fn store_status(error: StoreError) -> Status {
    match error {
        StoreError::Compacted { requested, oldest } => {
            Status::expired(format!("too old resource version: {requested} ({oldest})"))
        }
        StoreError::FutureRevision { requested, newest } => too_large(requested, newest),
        StoreError::Lagged { .. } => Status::expired("the watch fell behind"),
        StoreError::OutcomeUnknown(what) => {
            Status::timeout(format!("the outcome of the write is unknown: {what}"), 0)
        }
        StoreError::NoSpace(what) => {
            Status::internal(format!("no space left in the store: {what}"))
        }
        StoreError::Unavailable(what) => {
            Status::unavailable(format!("the store is unavailable: {what}"))
        }
        StoreError::Corrupt(what) => Status::internal(what),
        other => Status::internal(other),
    }
}

#[async_trait]
impl ObjectReader for Caches {
    async fn get(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>, Status> {
        let Some(kind) = self.kind(resource) else {
            return Ok(None);
        };
        Ok(self.readable(kind)?.get(namespace, name))
    }

    async fn get_live(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>, Status> {
        self.wait_until_current().await?;
        self.get(resource, namespace, name).await
    }

    async fn list(&self, resource: &Resource, namespace: &str) -> Result<Vec<Object>, Status> {
        let Some(kind) = self.kind(resource) else {
            return Ok(Vec::new());
        };
        Ok(self.readable(kind)?.list(namespace))
    }

    async fn pods_on(&self, node: &str) -> Result<Vec<Object>, Status> {
        let pods = self.kind(&PODS).map(|kind| kind.on_node(node));
        Ok(pods.unwrap_or_default())
    }

    fn last_change(&self, resource: &Resource) -> Revision {
        self.kind(resource)
            .map(|kind| kind.last_change())
            .unwrap_or_default()
    }
}
