//! The proxy's metrics, under Kubernetes' names.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::config::Family;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FamilyLabel {
    ip_family: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabel {
    ip_family: &'static str,
    traffic_policy: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: u16,
}

type Histograms = family::Family<FamilyLabel, Histogram, fn() -> Histogram>;
type Seconds = Gauge<f64, AtomicU64>;

/// What is counted. Clones are the same metrics.
#[derive(Clone)]
pub struct ProxyMetrics(Arc<Inner>);

struct Inner {
    registry: Mutex<Registry>,
    sync: Histograms,
    full_sync: Histograms,
    partial_sync: Histograms,
    programming: Histograms,
    last_sync: family::Family<FamilyLabel, Seconds>,
    last_queued: family::Family<FamilyLabel, Seconds>,
    service_changes: Counter,
    service_pending: Gauge,
    endpoint_changes: Counter,
    endpoint_pending: Gauge,
    sync_failures: family::Family<FamilyLabel, Counter>,
    cleanup_failures: family::Family<FamilyLabel, Counter>,
    no_local: family::Family<PolicyLabel, Gauge>,
    flows_deleted: family::Family<FamilyLabel, Counter>,
    flows_duration: Histograms,
    healthz: family::Family<CodeLabel, Counter>,
    livez: family::Family<CodeLabel, Counter>,
}

impl fmt::Debug for ProxyMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxyMetrics")
    }
}

fn milliseconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// A quarter of a second to five minutes, in the steps of the objective for network programming.
fn programming() -> Histogram {
    let steps = |first: f64, step: f64, count: u32| {
        (0..count).map(move |index| first + step * f64::from(index))
    };
    let all = steps(0.25, 0.25, 2).chain(steps(1.0, 1.0, 59));
    Histogram::new(all.chain(steps(60.0, 5.0, 12)).chain(steps(120.0, 30.0, 7)))
}

const fn label(family: Family) -> FamilyLabel {
    FamilyLabel {
        ip_family: family.as_str(),
    }
}

impl Default for ProxyMetrics {
    fn default() -> Self {
        let histograms = |make: fn() -> Histogram| Histograms::new_with_constructor(make);
        let inner = Inner {
            registry: Mutex::default(),
            sync: histograms(milliseconds),
            full_sync: histograms(milliseconds),
            partial_sync: histograms(milliseconds),
            programming: histograms(programming),
            last_sync: family::Family::default(),
            last_queued: family::Family::default(),
            service_changes: Counter::default(),
            service_pending: Gauge::default(),
            endpoint_changes: Counter::default(),
            endpoint_pending: Gauge::default(),
            sync_failures: family::Family::default(),
            cleanup_failures: family::Family::default(),
            no_local: family::Family::default(),
            flows_deleted: family::Family::default(),
            flows_duration: histograms(milliseconds),
            healthz: family::Family::default(),
            livez: family::Family::default(),
        };
        inner.register(&mut inner.registry.lock());
        Self(Arc::new(inner))
    }
}

impl Inner {
    fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("kubeproxy");
        registry.register(
            "sync_proxy_rules_duration_seconds",
            "How long a sync of rules took, in seconds",
            self.sync.clone(),
        );
        registry.register(
            "sync_full_proxy_rules_duration_seconds",
            "How long a sync of all rules took, in seconds",
            self.full_sync.clone(),
        );
        registry.register(
            "sync_partial_proxy_rules_duration_seconds",
            "How long a sync of changed rules took, in seconds",
            self.partial_sync.clone(),
        );
        registry.register(
            "network_programming_duration_seconds",
            "How long it took from a change of a Pod or Service until the rules were there, in seconds",
            self.programming.clone(),
        );
        registry.register(
            "sync_proxy_rules_last_timestamp_seconds",
            "When rules were last synced",
            self.last_sync.clone(),
        );
        registry.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "When a sync of rules was last asked for",
            self.last_queued.clone(),
        );
        registry.register(
            "sync_proxy_rules_service_changes",
            "Changes of Services that were seen",
            self.service_changes.clone(),
        );
        registry.register(
            "sync_proxy_rules_service_changes_pending",
            "Services whose changes wait for a sync",
            self.service_pending.clone(),
        );
        registry.register(
            "sync_proxy_rules_endpoint_changes",
            "Changes of EndpointSlices that were seen",
            self.endpoint_changes.clone(),
        );
        registry.register(
            "sync_proxy_rules_endpoint_changes_pending",
            "Changes of EndpointSlices that wait for a sync",
            self.endpoint_pending.clone(),
        );
        registry.register(
            "sync_proxy_rules_nftables_sync_failures",
            "Syncs that failed",
            self.sync_failures.clone(),
        );
        registry.register(
            "sync_proxy_rules_nftables_cleanup_failures",
            "Failures to delete what is not used any more",
            self.cleanup_failures.clone(),
        );
        registry.register(
            "sync_proxy_rules_no_local_endpoints_total",
            "Ports with a Local policy and no endpoint on this node",
            self.no_local.clone(),
        );
        registry.register(
            "conntrack_reconciler_deleted_entries",
            "Tracked connections that were deleted because their endpoint is gone",
            self.flows_deleted.clone(),
        );
        registry.register(
            "conntrack_reconciler_sync_duration_seconds",
            "How long it took to look for such connections, in seconds",
            self.flows_duration.clone(),
        );
        registry.register("proxy_healthz", "Answers of /healthz", self.healthz.clone());
        registry.register("proxy_livez", "Answers of /livez", self.livez.clone());
    }
}

impl ProxyMetrics {
    /// The text of all metrics, in OpenMetrics' form.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.0.registry.lock());
        text
    }

    pub(crate) fn synced(&self, family: Family, full: bool, took: Duration, at: Timestamp) {
        let label = label(family);
        let seconds = took.as_secs_f64();
        self.0.sync.get_or_create(&label).observe(seconds);
        let kind = if full {
            &self.0.full_sync
        } else {
            &self.0.partial_sync
        };
        kind.get_or_create(&label).observe(seconds);
        self.0.last_sync.get_or_create(&label).set(seconds_of(at));
    }

    pub(crate) fn sync_failed(&self, family: Family) {
        self.0.sync_failures.get_or_create(&label(family)).inc();
    }

    pub(crate) fn cleanup_failed(&self, family: Family) {
        self.0.cleanup_failures.get_or_create(&label(family)).inc();
    }

    pub(crate) fn queued(&self, family: Family, at: Timestamp) {
        self.0
            .last_queued
            .get_or_create(&label(family))
            .set(seconds_of(at));
    }

    pub(crate) fn programmed(&self, family: Family, since: Timestamp, now: Timestamp) {
        let took = now.duration_since(since).as_secs_f64().max(0.0);
        self.0
            .programming
            .get_or_create(&label(family))
            .observe(took);
    }

    pub(crate) fn service_changed(&self) {
        self.0.service_changes.inc();
        self.0.service_pending.inc();
    }

    pub(crate) fn endpoints_changed(&self) {
        self.0.endpoint_changes.inc();
        self.0.endpoint_pending.inc();
    }

    pub(crate) fn nothing_pending(&self) {
        self.0.service_pending.set(0);
        self.0.endpoint_pending.set(0);
    }

    pub(crate) fn no_local_endpoints(&self, family: Family, internal: usize, external: usize) {
        for (traffic_policy, count) in [("internal", internal), ("external", external)] {
            let label = PolicyLabel {
                ip_family: family.as_str(),
                traffic_policy,
            };
            self.0.no_local.get_or_create(&label).set(count as i64);
        }
    }

    pub(crate) fn flows_deleted(&self, family: Family, count: u64, took: Duration) {
        self.0
            .flows_deleted
            .get_or_create(&label(family))
            .inc_by(count);
        let durations = self.0.flows_duration.get_or_create(&label(family));
        durations.observe(took.as_secs_f64());
    }

    pub(crate) fn asked_for_health(&self, live: bool, code: StatusCode) {
        let family = if live { &self.0.livez } else { &self.0.healthz };
        let code = code.as_u16();
        family.get_or_create(&CodeLabel { code }).inc();
    }
}

fn seconds_of(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}
