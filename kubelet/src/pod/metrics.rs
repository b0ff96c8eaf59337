//! The metrics of pods and their workers, under upstream's names.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    container_state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    container_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    container_type: &'static str,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation_type: &'static str,
}

const BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0,
];

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// What is counted of pods.
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    running_pods: Gauge,
    running_containers: Family<State, Gauge>,
    desired_pods: Gauge,
    mirror_pods: Gauge,
    pod_start: Histogram,
    worker_start: Histogram,
    worker: Family<Operation, Histogram, fn() -> Histogram>,
    started_pods: Counter,
    started_pods_errors: Counter,
    started_containers: Family<Kind, Counter>,
    started_containers_errors: Family<Failure, Counter>,
    relist: Histogram,
    relist_errors: Counter<u64, AtomicU64>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let worker: Family<Operation, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(histogram);
        let mut own = Self {
            registry: Arc::default(),
            running_pods: Gauge::default(),
            running_containers: Family::default(),
            desired_pods: Gauge::default(),
            mirror_pods: Gauge::default(),
            pod_start: histogram(),
            worker_start: histogram(),
            worker,
            started_pods: Counter::default(),
            started_pods_errors: Counter::default(),
            started_containers: Family::default(),
            started_containers_errors: Family::default(),
            relist: histogram(),
            relist_errors: Counter::default(),
        };
        registry.register(
            "kubelet_running_pods",
            "Pods that have a running sandbox",
            own.running_pods.clone(),
        );
        registry.register(
            "kubelet_running_containers",
            "Containers by their state",
            own.running_containers.clone(),
        );
        registry.register(
            "kubelet_desired_pods",
            "Pods that this node is to run",
            own.desired_pods.clone(),
        );
        registry.register(
            "kubelet_mirror_pods",
            "Mirror pods of this node's static pods",
            own.mirror_pods.clone(),
        );
        registry.register(
            "kubelet_pod_start_duration_seconds",
            "Seconds from seeing a pod for the first time to seeing it run",
            own.pod_start.clone(),
        );
        registry.register(
            "kubelet_pod_worker_start_duration_seconds",
            "Seconds from seeing a pod to starting its worker",
            own.worker_start.clone(),
        );
        registry.register(
            "kubelet_pod_worker_duration_seconds",
            "Seconds that a worker took to sync a pod, by what it did",
            own.worker.clone(),
        );
        registry.register(
            "kubelet_started_pods",
            "Sandboxes that were to be made",
            own.started_pods.clone(),
        );
        registry.register(
            "kubelet_started_pods_errors",
            "Sandboxes that could not be made",
            own.started_pods_errors.clone(),
        );
        registry.register(
            "kubelet_started_containers",
            "Containers that were to be started",
            own.started_containers.clone(),
        );
        registry.register(
            "kubelet_started_containers_errors",
            "Containers that could not be started",
            own.started_containers_errors.clone(),
        );
        registry.register(
            "kubelet_pleg_relist_duration_seconds",
            "Seconds that listing what the runtime has took",
            own.relist.clone(),
        );
        registry.register(
            "kubelet_pleg_discard_events",
            "Lists of what the runtime has that failed",
            own.relist_errors.clone(),
        );
        own.registry = Arc::new(registry);
        own
    }

    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.registry.clone()
    }

    pub(crate) fn running(&self, pods: usize, running: usize, created: usize, exited: usize) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.running_pods.set(number(pods));
        for (container_state, count) in [
            ("running", running),
            ("created", created),
            ("exited", exited),
        ] {
            let gauge = self
                .running_containers
                .get_or_create(&State { container_state });
            gauge.set(number(count));
        }
    }

    pub(crate) fn desired(&self, pods: usize) {
        self.desired_pods
            .set(i64::try_from(pods).unwrap_or(i64::MAX));
    }

    pub(crate) fn mirrors(&self, pods: usize) {
        self.mirror_pods
            .set(i64::try_from(pods).unwrap_or(i64::MAX));
    }

    pub(crate) fn pod_started(&self, took: Duration) {
        self.pod_start.observe(took.as_secs_f64());
    }

    pub(crate) fn worker_started(&self, took: Duration) {
        self.worker_start.observe(took.as_secs_f64());
    }

    pub(crate) fn worked(&self, operation_type: &'static str, took: Duration) {
        let histogram = self.worker.get_or_create(&Operation { operation_type });
        histogram.observe(took.as_secs_f64());
    }

    pub(crate) fn sandbox_wanted(&self) {
        self.started_pods.inc();
    }

    pub(crate) fn sandbox_failed(&self) {
        self.started_pods_errors.inc();
    }

    pub(crate) fn container_wanted(&self, container_type: &'static str) {
        self.started_containers
            .get_or_create(&Kind { container_type })
            .inc();
    }

    pub(crate) fn container_failed(&self, container_type: &'static str, code: &str) {
        let code = code.to_owned();
        self.started_containers_errors
            .get_or_create(&Failure {
                container_type,
                code,
            })
            .inc();
    }

    pub(crate) fn relisted(&self, took: Duration, ok: bool) {
        self.relist.observe(took.as_secs_f64());
        if !ok {
            self.relist_errors.inc();
        }
    }
}
