//! The scheduler's metrics, under upstream's names.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::queue::Depths;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    profile: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabel {
    queue: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event: String,
    queue: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptsLabel {
    attempts: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginLabels {
    plugin: String,
    profile: String,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The scheduler's metrics. Clones are the same metrics.
#[derive(Clone)]
pub struct SchedulerMetrics(Arc<Families>);

struct Families {
    attempts: Family<ResultLabels, Counter>,
    attempt_seconds: Histograms<ResultLabels>,
    algorithm_seconds: Histogram,
    pending: Family<QueueLabel, Gauge>,
    incoming: Family<EventLabels, Counter>,
    pod_attempts: Histogram,
    pod_seconds: Histograms<AttemptsLabel>,
    cache: Family<KindLabel, Gauge>,
    unschedulable: Family<PluginLabels, Gauge>,
    permit_wait: Histograms<ResultLabels>,
}

impl fmt::Debug for SchedulerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SchedulerMetrics")
    }
}

impl Default for SchedulerMetrics {
    /// Metrics that are counted and not shown.
    fn default() -> Self {
        let short: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 15));
        let long: fn() -> Histogram = || Histogram::new(exponential_buckets(0.01, 2.0, 20));
        Self(Arc::new(Families {
            attempts: Family::default(),
            attempt_seconds: Family::new_with_constructor(short),
            // Finer than upstream's first bucket of a millisecond, in which all of ours would lie.
            algorithm_seconds: Histogram::new(exponential_buckets(0.000_002, 2.0, 24)),
            pending: Family::default(),
            incoming: Family::default(),
            pod_attempts: Histogram::new(exponential_buckets(1.0, 2.0, 5)),
            pod_seconds: Family::new_with_constructor(long),
            cache: Family::default(),
            unschedulable: Family::default(),
            permit_wait: Family::new_with_constructor(short),
        }))
    }
}

impl SchedulerMetrics {
    /// Metrics that a registry shows.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let families = &metrics.0;
        let registry = registry.sub_registry_with_prefix("scheduler");
        registry.register(
            "schedule_attempts",
            "Attempts to schedule pods, by result",
            families.attempts.clone(),
        );
        registry.register(
            "scheduling_attempt_duration_seconds",
            "How long attempts took, the binding included",
            families.attempt_seconds.clone(),
        );
        registry.register(
            "scheduling_algorithm_duration_seconds",
            "How long decisions took",
            families.algorithm_seconds.clone(),
        );
        registry.register(
            "pending_pods",
            "Pods that wait, by part of the queue",
            families.pending.clone(),
        );
        registry.register(
            "queue_incoming_pods",
            "Pods that came into a part of the queue, by event",
            families.incoming.clone(),
        );
        registry.register(
            "pod_scheduling_attempts",
            "How many attempts it took to schedule a pod",
            families.pod_attempts.clone(),
        );
        registry.register(
            "pod_scheduling_sli_duration_seconds",
            "How long pods took from the queue to the binding, by number of attempts",
            families.pod_seconds.clone(),
        );
        registry.register(
            "cache_size",
            "Nodes, pods and assumed pods in the cache",
            families.cache.clone(),
        );
        registry.register(
            "unschedulable_pods",
            "Pods that wait for an event, by plug-in that refused them",
            families.unschedulable.clone(),
        );
        registry.register(
            "permit_wait_duration_seconds",
            "How long bindings waited for a permission",
            families.permit_wait.clone(),
        );
        metrics
    }

    pub(crate) fn attempt(&self, profile: &str, result: &'static str, took: Duration) {
        let labels = ResultLabels {
            profile: profile.to_owned(),
            result,
        };
        self.0
            .attempt_seconds
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
        self.0.attempts.get_or_create(&labels).inc();
    }

    pub(crate) fn decision(&self, took: Duration) {
        self.0.algorithm_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn scheduled(&self, attempts: u32, since_first_seen: Duration) {
        self.0.pod_attempts.observe(f64::from(attempts));
        let attempts = match attempts {
            0 | 1 => "1",
            2..=3 => "2",
            4..=7 => "4",
            8..=15 => "8",
            _ => "16+",
        };
        self.0
            .pod_seconds
            .get_or_create(&AttemptsLabel { attempts })
            .observe(since_first_seen.as_secs_f64());
    }

    pub(crate) fn incoming(&self, event: &impl fmt::Display, queue: &'static str, count: usize) {
        if count > 0 {
            let labels = EventLabels {
                event: event.to_string(),
                queue,
            };
            self.0.incoming.get_or_create(&labels).inc_by(count as u64);
        }
    }

    pub(crate) fn unschedulable(&self, profile: &str, plugin: &str, pods: usize) {
        let labels = PluginLabels {
            plugin: plugin.to_owned(),
            profile: profile.to_owned(),
        };
        self.0.unschedulable.get_or_create(&labels).set(pods as i64);
    }

    pub(crate) fn permit_wait(&self, profile: &str, result: &'static str, took: Duration) {
        let labels = ResultLabels {
            profile: profile.to_owned(),
            result,
        };
        self.0
            .permit_wait
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    pub(crate) fn depths(&self, depths: Depths) {
        for (queue, depth) in [
            ("active", depths.active),
            ("backoff", depths.backoff),
            ("unschedulable", depths.unschedulable),
            ("gated", depths.gated),
        ] {
            self.0
                .pending
                .get_or_create(&QueueLabel { queue })
                .set(depth as i64);
        }
    }

    pub(crate) fn cache(&self, nodes: usize, pods: usize, assumed: usize) {
        for (r#type, size) in [("nodes", nodes), ("pods", pods), ("assumed_pods", assumed)] {
            self.0
                .cache
                .get_or_create(&KindLabel { r#type })
                .set(size as i64);
        }
    }
}
