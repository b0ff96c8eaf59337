//! The metrics, and the series of every resource.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use orlop_core::store::{RangeResult, StoreError};
use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::verb::Verb;
use crate::layers::resource::{self, ResourceOfKey};

/// How many resources are told apart. Keys come from clients, and nobody may make up series without end.
const RESOURCES: usize = 512;

/// kube-apiserver's buckets for requests to etcd, with finer ones before its first, in which all of an embedded store's would lie.
const SECONDS: [f64; 30] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.05, 0.1, 0.2,
    0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0,
    60.0,
];

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
pub(super) struct PerResource {
    labels: ResourceLabels,
    calls: [OnceLock<Calls>; Verb::COUNT],
    lists: Counter,
    listed: Counter,
    pub(super) events: Counter,
    pub(super) bookmarks: Gauge,
    pub(super) watches: Gauge,
    pub(super) written: Histogram,
    read: Counter,
    pub(super) refusals: Counter,
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
    pub(super) fn of_key(&self, key: &[u8]) -> Arc<PerResource> {
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

    pub(super) fn other(&self) -> Arc<PerResource> {
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

    pub(super) fn failed(&self, operation: &'static str, error: &StoreError) {
        let kind = kind(error);
        self.0
            .failures
            .get_or_create(&ErrorLabels { operation, kind })
            .inc();
    }

    pub(super) fn called<T>(
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

    pub(super) fn read(&self, of: &PerResource, found: &RangeResult, list: bool) {
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
