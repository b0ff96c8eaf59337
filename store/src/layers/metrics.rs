//! Metrics of a store, under Kubernetes' names where it has them.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures::{Stream, StreamExt};
use orlop_core::env::Env;
use orlop_core::revision::Revision;
use orlop_core::store::{
    Commit, Compare, KeyRange, LeaseId, LeaseInfo, Op, RangeRequest, RangeResult, Step, StepResult,
    Store, StoreError, Transaction, TransactionResult, Txn, WatchItem, WatchRequest, WatchStream,
};
use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::resource::{self, ResourceOfKey};

/// How many resources are told apart. Keys come from clients, and nobody may make up series without end.
const RESOURCES: usize = 512;

/// kube-apiserver's buckets for requests to etcd, with finer ones before its first, in which all of an embedded store's would lie.
const SECONDS: [f64; 30] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.05, 0.1, 0.2,
    0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0,
    60.0,
];

/// What is done, by kube-apiserver's names where it has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Get,
    List,
    Count,
    Create,
    Update,
    Delete,
    Txn,
    Watch,
    Compact,
    Revision,
    GrantLease,
    RenewLease,
    RevokeLease,
    Lease,
    Leases,
}

impl Verb {
    const COUNT: usize = 15;

    const fn text(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Count => "count",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Txn => "txn",
            Self::Watch => "watch",
            Self::Compact => "compact",
            Self::Revision => "revision",
            Self::GrantLease => "leaseGrant",
            Self::RenewLease => "leaseRenew",
            Self::RevokeLease => "leaseRevoke",
            Self::Lease => "lease",
            Self::Leases => "leases",
        }
    }

    fn of_range(request: &RangeRequest) -> Self {
        match request.keys {
            _ if request.count_only => Self::Count,
            KeyRange::Key(_) => Self::Get,
            _ => Self::List,
        }
    }

    fn of_txn(txn: &Txn) -> Self {
        match txn.ops.as_slice() {
            [Op::Put { key, .. }] => {
                let absent = |compare: &Compare| match compare {
                    Compare::ModRevision(at, Revision::ZERO)
                    | Compare::CreateRevision(at, Revision::ZERO)
                    | Compare::Version(at, 0) => at == key,
                    _ => false,
                };
                if txn.compare.iter().any(absent) {
                    Self::Create
                } else {
                    Self::Update
                }
            }
            [Op::Delete(_)] => Self::Delete,
            _ => Self::Txn,
        }
    }
}

fn key_of_txn(txn: &Txn) -> &[u8] {
    match (txn.ops.first(), txn.compare.first()) {
        (Some(Op::Put { key, .. }), _) => key,
        (Some(Op::Delete(keys)), _) => resource::first_key(keys),
        (None, Some(compare)) => compare.key(),
        (None, None) => b"",
    }
}

fn key_of_steps(steps: &[Step]) -> Option<&[u8]> {
    steps.iter().find_map(|step| match step {
        Step::Read(request) => Some(resource::first_key(&request.keys)),
        Step::Put { key, .. } => Some(key.as_ref()),
        Step::Delete { keys, .. } => Some(resource::first_key(keys)),
        Step::Nested(inner) => key_of_transaction(inner),
    })
}

fn key_of_transaction(transaction: &Transaction) -> Option<&[u8]> {
    key_of_steps(&transaction.success)
        .or_else(|| key_of_steps(&transaction.failure))
        .or_else(|| {
            let condition = transaction.conditions.first()?;
            Some(resource::first_key(&condition.keys))
        })
}

fn kind(error: &StoreError) -> &'static str {
    match error {
        StoreError::Compacted { .. } => "compacted",
        StoreError::FutureRevision { .. } => "future_revision",
        StoreError::Lagged { .. } => "lagged",
        StoreError::LeaseNotFound(_) => "lease_not_found",
        StoreError::LeaseExists(_) => "lease_exists",
        StoreError::KeyNotFound(_) => "key_not_found",
        StoreError::InvalidRequest(_) => "invalid_request",
        StoreError::NoSpace(_) => "no_space",
        StoreError::Corrupt(_) => "corrupt",
        StoreError::Unavailable(_) => "unavailable",
        StoreError::OutcomeUnknown(_) => "outcome_unknown",
        _ => "other",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    group: String,
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    group: String,
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    operation: &'static str,
    kind: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The metrics of stores. Clones are the same metrics; several stores may share them.
///
/// | name | labels | what |
/// |---|---|---|
/// | `etcd_request_duration_seconds` | `operation`, `group`, `resource` | how long calls took |
/// | `etcd_requests_total` | the same | calls |
/// | `etcd_request_errors_total` | the same | calls that failed |
/// | `apiserver_storage_list_total` | `group`, `resource` | reads of ranges |
/// | `apiserver_storage_list_fetched_objects_total` | the same | keys that they read |
/// | `apiserver_storage_events_received_total` | the same | changes that watches delivered |
/// | `etcd_bookmark_counts` | the same | progress marks that watches delivered |
/// | `orlop_store_watches` | the same | watches that are open |
/// | `orlop_store_written_value_bytes` | the same | sizes of values written |
/// | `orlop_store_read_bytes_total` | the same | bytes of values read |
/// | `orlop_store_refusals_total` | the same | commits whose conditions did not hold |
/// | `orlop_store_failures_total` | `operation`, `kind` | calls and watches that failed, by what the error was |
///
/// The names are kube-apiserver's, whatever the store is; those that begin with `orlop` are ours.
#[derive(Clone)]
pub struct StoreMetrics(Arc<Families>);

struct Families {
    seconds: Histograms<RequestLabels>,
    requests: Family<RequestLabels, Counter>,
    errors: Family<RequestLabels, Counter>,
    lists: Family<ResourceLabels, Counter>,
    listed: Family<ResourceLabels, Counter>,
    events: Family<ResourceLabels, Counter>,
    bookmarks: Family<ResourceLabels, Gauge>,
    watches: Family<ResourceLabels, Gauge>,
    written: Histograms<ResourceLabels>,
    read: Family<ResourceLabels, Counter>,
    refusals: Family<ResourceLabels, Counter>,
    failures: Family<ErrorLabels, Counter>,
    resources: RwLock<BTreeMap<Box<[u8]>, Arc<PerResource>>>,
    /// What belongs to no resource, or to one too many.
    other: OnceLock<Arc<PerResource>>,
}

/// The series of one resource, so that a call looks up none by its labels.
struct PerResource {
    labels: ResourceLabels,
    calls: [OnceLock<Calls>; Verb::COUNT],
    lists: Counter,
    listed: Counter,
    events: Counter,
    bookmarks: Gauge,
    watches: Gauge,
    written: Histogram,
    read: Counter,
    refusals: Counter,
}

struct Calls {
    seconds: Histogram,
    requests: Counter,
    errors: Counter,
}

impl fmt::Debug for StoreMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreMetrics")
    }
}

impl Default for StoreMetrics {
    /// Metrics that are counted and not shown.
    fn default() -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(SECONDS);
        let bytes: fn() -> Histogram = || Histogram::new(exponential_buckets(64.0, 4.0, 9));
        Self(Arc::new(Families {
            seconds: Family::new_with_constructor(seconds),
            requests: Family::default(),
            errors: Family::default(),
            lists: Family::default(),
            listed: Family::default(),
            events: Family::default(),
            bookmarks: Family::default(),
            watches: Family::default(),
            written: Family::new_with_constructor(bytes),
            read: Family::default(),
            refusals: Family::default(),
            failures: Family::default(),
            resources: RwLock::default(),
            other: OnceLock::new(),
        }))
    }
}

impl StoreMetrics {
    /// Metrics that a registry shows.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let all = &metrics.0;
        registry.register_with_unit(
            "etcd_request_duration",
            "How long calls of the store took, by operation and resource",
            Unit::Seconds,
            all.seconds.clone(),
        );
        registry.register(
            "etcd_requests",
            "Calls of the store, by operation and resource",
            all.requests.clone(),
        );
        registry.register(
            "etcd_request_errors",
            "Calls of the store that failed, by operation and resource",
            all.errors.clone(),
        );
        registry.register(
            "apiserver_storage_list",
            "Reads of ranges of the store",
            all.lists.clone(),
        );
        registry.register(
            "apiserver_storage_list_fetched_objects",
            "Objects that reads of ranges of the store gave",
            all.listed.clone(),
        );
        registry.register(
            "apiserver_storage_events_received",
            "Changes that watches of the store delivered",
            all.events.clone(),
        );
        registry.register(
            "etcd_bookmark_counts",
            "Progress marks that watches of the store delivered",
            all.bookmarks.clone(),
        );
        registry.register(
            "orlop_store_watches",
            "Watches of the store that are open",
            all.watches.clone(),
        );
        registry.register(
            "orlop_store_written_value_bytes",
            "Sizes of the values written to the store, in bytes",
            all.written.clone(),
        );
        registry.register(
            "orlop_store_read_bytes",
            "Bytes of values read from the store",
            all.read.clone(),
        );
        registry.register(
            "orlop_store_refusals",
            "Commits to the store whose conditions did not hold",
            all.refusals.clone(),
        );
        registry.register(
            "orlop_store_failures",
            "Calls and watches of the store that failed, by operation and kind of error",
            all.failures.clone(),
        );
        metrics
    }

    /// The series of the resource that a key belongs to.
    fn of_key(&self, key: &[u8]) -> Arc<PerResource> {
        let Some(found) = resource::of_key(key) else {
            return self.other();
        };
        if let Some(known) = self.0.resources.read().get(found.prefix) {
            return known.clone();
        }
        self.add(found)
    }

    fn add(&self, found: ResourceOfKey<'_>) -> Arc<PerResource> {
        let mut resources = self.0.resources.write();
        if resources.len() >= RESOURCES && !resources.contains_key(found.prefix) {
            return self.other();
        }
        resources
            .entry(found.prefix.into())
            .or_insert_with(|| self.series(found.group, found.resource))
            .clone()
    }

    fn other(&self) -> Arc<PerResource> {
        self.0.other.get_or_init(|| self.series("", "")).clone()
    }

    fn series(&self, group: &str, resource: &str) -> Arc<PerResource> {
        let labels = ResourceLabels {
            group: group.to_owned(),
            resource: resource.to_owned(),
        };
        let all = &self.0;
        Arc::new(PerResource {
            calls: Default::default(),
            lists: all.lists.get_or_create_owned(&labels),
            listed: all.listed.get_or_create_owned(&labels),
            events: all.events.get_or_create_owned(&labels),
            bookmarks: all.bookmarks.get_or_create_owned(&labels),
            watches: all.watches.get_or_create_owned(&labels),
            written: all.written.get_or_create_owned(&labels),
            read: all.read.get_or_create_owned(&labels),
            refusals: all.refusals.get_or_create_owned(&labels),
            labels,
        })
    }

    fn calls<'a>(&self, of: &'a PerResource, verb: Verb) -> &'a Calls {
        of.calls[verb as usize].get_or_init(|| {
            let labels = RequestLabels {
                operation: verb.text(),
                group: of.labels.group.clone(),
                resource: of.labels.resource.clone(),
            };
            Calls {
                seconds: self.0.seconds.get_or_create_owned(&labels),
                requests: self.0.requests.get_or_create_owned(&labels),
                errors: self.0.errors.get_or_create_owned(&labels),
            }
        })
    }

    fn failed(&self, operation: &'static str, error: &StoreError) {
        let kind = kind(error);
        self.0
            .failures
            .get_or_create(&ErrorLabels { operation, kind })
            .inc();
    }

    fn called<T>(
        &self,
        of: &PerResource,
        verb: Verb,
        took: Duration,
        answer: &Result<T, StoreError>,
    ) {
        let calls = self.calls(of, verb);
        calls.requests.inc();
        calls.seconds.observe(took.as_secs_f64());
        if let Err(error) = answer {
            calls.errors.inc();
            self.failed(verb.text(), error);
        }
    }

    fn read(&self, of: &PerResource, found: &RangeResult, list: bool) {
        of.read.inc_by(total(&found.items));
        if list {
            of.lists.inc();
            of.listed.inc_by(found.items.len() as u64);
        }
    }
}

fn total(items: &[orlop_core::store::KeyValue]) -> u64 {
    items.iter().map(|kv| kv.value.len() as u64).sum()
}

/// A store that counts what is asked of it: see [`StoreMetrics`].
///
/// A call costs two readings of the clock and a lookup of the key's resource; nothing is allocated once a resource and an operation are known.
///
/// ```
/// use std::sync::Arc;
/// use orlop_core::env::SimEnv;
/// use orlop_core::store::{Store, Txn};
/// use orlop_store::MemoryStore;
/// use orlop_store::layers::{Metered, StoreMetrics};
/// use prometheus_client::registry::Registry;
///
/// let mut registry = Registry::default();
/// let metrics = StoreMetrics::register(&mut registry);
/// let sim = SimEnv::new(7);
/// let env = sim.env();
/// sim.block_on(async move {
///     let store = Metered::new(Arc::new(MemoryStore::new(env.clone())), env, metrics);
///     store.commit(Txn::create("/registry/apps/deployments/default/web", "{}")).await
/// }).unwrap();
/// let mut text = String::new();
/// prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
/// assert!(text.contains(r#"etcd_requests_total{operation="create",group="apps",resource="deployments"} 1"#));
/// ```
pub struct Metered {
    inner: Arc<dyn Store>,
    env: Env,
    metrics: StoreMetrics,
}

impl fmt::Debug for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metered").finish_non_exhaustive()
    }
}

impl Metered {
    /// A store that counts what is asked of another one.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, env: Env, metrics: StoreMetrics) -> Self {
        Self {
            inner,
            env,
            metrics,
        }
    }

    async fn call<T>(
        &self,
        of: &PerResource,
        verb: Verb,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let begun = self.env.now();
        let answer = call.await;
        let took = self.env.now().since(begun);
        self.metrics.called(of, verb, took, &answer);
        answer
    }

    /// A call that concerns no resource.
    async fn plain<T>(
        &self,
        verb: Verb,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.call(&self.metrics.other(), verb, call).await
    }

    /// The sizes of the values that a branch writes, without those of nested transactions.
    fn sizes(&self, steps: &[Step]) -> Vec<(Arc<PerResource>, usize)> {
        let puts = steps.iter().filter_map(|step| match step {
            Step::Put {
                key,
                value: Some(value),
                ..
            } => Some((self.metrics.of_key(key), value.len())),
            _ => None,
        });
        puts.collect()
    }

    fn read_by(&self, steps: &[StepResult]) {
        for step in steps {
            match step {
                StepResult::Read(found) => {
                    if let Some(first) = found.items.first() {
                        self.metrics.read(
                            &self.metrics.of_key(&first.key),
                            found,
                            found.items.len() > 1,
                        );
                    }
                }
                StepResult::Nested(inner) => self.read_by(&inner.steps),
                StepResult::Put { .. } | StepResult::Delete { .. } => {}
            }
        }
    }
}

/// A watch that is counted for as long as it is open.
struct MeteredWatch {
    inner: WatchStream,
    metrics: StoreMetrics,
    /// The resource of the range that is watched.
    of: Arc<PerResource>,
    /// The resource of the last change, and what its keys begin with: changes of one resource often follow each other.
    last: (Box<[u8]>, Arc<PerResource>),
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

#[async_trait]
impl Store for Metered {
    async fn range(&self, request: RangeRequest) -> Result<RangeResult, StoreError> {
        let of = self.metrics.of_key(resource::first_key(&request.keys));
        let verb = Verb::of_range(&request);
        let found = self.call(&of, verb, self.inner.range(request)).await?;
        self.metrics.read(&of, &found, verb == Verb::List);
        Ok(found)
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        let of = self.metrics.of_key(key_of_txn(&txn));
        let verb = Verb::of_txn(&txn);
        let mut sizes = txn.ops.iter().filter_map(|op| match op {
            Op::Put { value, .. } => Some(value.len()),
            Op::Delete(_) => None,
        });
        // Nearly all commits write one value, for which nothing is allocated.
        let (first, more) = (sizes.next(), sizes.collect::<Vec<_>>());
        let commit = self.call(&of, verb, self.inner.commit(txn)).await?;
        match commit {
            Commit::Applied { .. } => {
                for size in first.into_iter().chain(more) {
                    of.written.observe(size as f64);
                }
            }
            Commit::Refused { .. } => {
                of.refusals.inc();
            }
        }
        Ok(commit)
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        let of = self.metrics.of_key(resource::first_key(&request.keys));
        let inner = self
            .call(&of, Verb::Watch, self.inner.watch(request))
            .await?;
        of.watches.inc();
        Ok(Box::pin(MeteredWatch {
            inner,
            metrics: self.metrics.clone(),
            last: (Box::default(), of.clone()),
            of,
        }))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.plain(Verb::Compact, self.inner.compact(revision))
            .await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.plain(Verb::Revision, self.inner.revision()).await
    }

    async fn grant_lease(
        &self,
        id: Option<LeaseId>,
        ttl_seconds: u64,
    ) -> Result<LeaseId, StoreError> {
        self.plain(Verb::GrantLease, self.inner.grant_lease(id, ttl_seconds))
            .await
    }

    async fn renew_lease(&self, id: LeaseId) -> Result<u64, StoreError> {
        self.plain(Verb::RenewLease, self.inner.renew_lease(id))
            .await
    }

    async fn revoke_lease(&self, id: LeaseId) -> Result<(), StoreError> {
        self.plain(Verb::RevokeLease, self.inner.revoke_lease(id))
            .await
    }

    async fn lease(&self, id: LeaseId, keys: bool) -> Result<LeaseInfo, StoreError> {
        self.plain(Verb::Lease, self.inner.lease(id, keys)).await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StoreError> {
        self.plain(Verb::Leases, self.inner.leases()).await
    }

    async fn transact(&self, transaction: Transaction) -> Result<TransactionResult, StoreError> {
        let of = self
            .metrics
            .of_key(key_of_transaction(&transaction).unwrap_or_default());
        let (then, otherwise) = (
            self.sizes(&transaction.success),
            self.sizes(&transaction.failure),
        );
        let result = self
            .call(&of, Verb::Txn, self.inner.transact(transaction))
            .await?;
        self.read_by(&result.steps);
        let written = if result.succeeded {
            then
        } else {
            of.refusals.inc();
            otherwise
        };
        for (of, size) in written {
            of.written.observe(size as f64);
        }
        Ok(result)
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        // Asked by whoever looks after the server, again and again: it would drown what is worth counting.
        self.inner.healthy().await
    }
}
