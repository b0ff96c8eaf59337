//! What a work queue tells of itself.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// What happens in a [`WorkQueue`](super::WorkQueue). Every method does nothing by default; none may block.
pub trait QueueMetrics: Send + Sync + 'static {
    /// An item was added; so many wait now.
    fn added(&self, depth: usize) {
        let _ = depth;
    }

    /// An item was handed out after waiting; so many wait now.
    fn taken(&self, depth: usize, waited: Duration) {
        let _ = (depth, waited);
    }

    /// The work on an item took so long.
    fn finished(&self, took: Duration) {
        let _ = took;
    }

    /// An item was added again after a failure.
    fn retried(&self) {}

    /// All unfinished work together has taken so long, and the longest so long.
    fn unfinished(&self, total: Duration, longest: Duration) {
        let _ = (total, longest);
    }
}

impl QueueMetrics for () {}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Name {
    name: String,
}

type Seconds = Family<Name, Histogram, fn() -> Histogram>;
type SecondsGauge = Family<Name, Gauge<f64, AtomicU64>>;

/// The metrics of all queues of a process, under Kubernetes' names (`workqueue_depth{name="deployment"}` …).
#[derive(Clone)]
pub struct WorkQueueMetrics(Arc<Families>);

struct Families {
    depth: Family<Name, Gauge>,
    adds: Family<Name, Counter>,
    retries: Family<Name, Counter>,
    queued: Seconds,
    worked: Seconds,
    unfinished: SecondsGauge,
    longest: SecondsGauge,
}

impl fmt::Debug for WorkQueueMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkQueueMetrics")
    }
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(10e-9, 10.0, 12))
}

impl WorkQueueMetrics {
    /// Adds the metrics to a registry.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let families = Families {
            depth: Family::default(),
            adds: Family::default(),
            retries: Family::default(),
            queued: Family::new_with_constructor(seconds as fn() -> Histogram),
            worked: Family::new_with_constructor(seconds as fn() -> Histogram),
            unfinished: Family::default(),
            longest: Family::default(),
        };
        registry.register(
            "workqueue_depth",
            "Items that wait in a work queue",
            families.depth.clone(),
        );
        registry.register(
            "workqueue_adds",
            "Items added to a work queue",
            families.adds.clone(),
        );
        registry.register(
            "workqueue_retries",
            "Items added again after a failure",
            families.retries.clone(),
        );
        registry.register(
            "workqueue_queue_duration_seconds",
            "How long an item waited before it was taken",
            families.queued.clone(),
        );
        registry.register(
            "workqueue_work_duration_seconds",
            "How long the work on an item took",
            families.worked.clone(),
        );
        registry.register(
            "workqueue_unfinished_work_seconds",
            "How long the work that is not finished has taken so far, together",
            families.unfinished.clone(),
        );
        registry.register(
            "workqueue_longest_running_processor_seconds",
            "How long the longest work that is not finished has taken so far",
            families.longest.clone(),
        );
        Self(Arc::new(families))
    }

    /// The metrics of one queue.
    #[must_use]
    pub fn queue(&self, name: &str) -> Arc<dyn QueueMetrics> {
        Arc::new(Named {
            families: self.0.clone(),
            name: Name {
                name: name.to_owned(),
            },
        })
    }
}

struct Named {
    families: Arc<Families>,
    name: Name,
}

impl QueueMetrics for Named {
    fn added(&self, depth: usize) {
        self.families.adds.get_or_create(&self.name).inc();
        self.families
            .depth
            .get_or_create(&self.name)
            .set(depth as i64);
    }

    fn taken(&self, depth: usize, waited: Duration) {
        self.families
            .depth
            .get_or_create(&self.name)
            .set(depth as i64);
        self.families
            .queued
            .get_or_create(&self.name)
            .observe(waited.as_secs_f64());
    }

    fn finished(&self, took: Duration) {
        self.families
            .worked
            .get_or_create(&self.name)
            .observe(took.as_secs_f64());
    }

    fn retried(&self) {
        self.families.retries.get_or_create(&self.name).inc();
    }

    fn unfinished(&self, total: Duration, longest: Duration) {
        self.families
            .unfinished
            .get_or_create(&self.name)
            .set(total.as_secs_f64());
        self.families
            .longest
            .get_or_create(&self.name)
            .set(longest.as_secs_f64());
    }
}
