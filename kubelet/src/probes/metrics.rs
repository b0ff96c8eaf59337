//! Metrics of probes, by upstream's names.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::ProbeTarget;

/// Upstream's results.
const RESULTS: [&str; 3] = ["successful", "failed", "unknown"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CountLabels {
    probe_type: &'static str,
    result: &'static str,
    container: String,
    pod: String,
    namespace: String,
    pod_uid: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    probe_type: &'static str,
    container: String,
    pod: String,
    namespace: String,
}

/// Metrics of probes. Clones are the same metrics.
#[derive(Clone, Debug)]
pub struct ProbeMetrics {
    total: Family<CountLabels, Counter>,
    duration: Family<DurationLabels, Histogram, fn() -> Histogram>,
}

impl Default for ProbeMetrics {
    fn default() -> Self {
        Self {
            total: Family::default(),
            // The buckets of most of upstream's histograms, in seconds.
            duration: Family::new_with_constructor(|| {
                Histogram::new([
                    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
                ])
            }),
        }
    }
}

impl ProbeMetrics {
    /// Shows the metrics in a registry.
    pub fn register(&self, registry: &mut Registry) {
        // The encoder adds `_total` to counters.
        registry.register(
            "prober_probe",
            "How often containers were probed for liveness, readiness and startup",
            self.total.clone(),
        );
        registry.register(
            "prober_probe_duration_seconds",
            "How long probes took, in seconds",
            self.duration.clone(),
        );
    }

    pub(super) fn of(&self, probe_type: &'static str, target: &ProbeTarget) -> ProbeRecord {
        let meta = &target.pod.metadata;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        ProbeRecord {
            metrics: self.clone(),
            counted: CountLabels {
                probe_type,
                result: RESULTS[0],
                container: target.container.name.clone(),
                pod: text(&meta.name),
                namespace: text(&meta.namespace),
                pod_uid: text(&meta.uid),
            },
        }
    }
}

/// The metrics of one probe, which go with it.
pub(super) struct ProbeRecord {
    metrics: ProbeMetrics,
    counted: CountLabels,
}

impl ProbeRecord {
    /// Counts a run. `well`: what it found, if it could be run.
    pub(super) fn ran(&self, well: Option<bool>, took: Duration) {
        let result = match well {
            Some(true) => RESULTS[0],
            Some(false) => RESULTS[1],
            None => RESULTS[2],
        };
        let labels = CountLabels {
            result,
            ..self.counted.clone()
        };
        self.metrics.total.get_or_create(&labels).inc();
        if well == Some(true) {
            let labels = self.durations();
            let histogram = self.metrics.duration.get_or_create(&labels);
            histogram.observe(took.as_secs_f64());
        }
    }

    fn durations(&self) -> DurationLabels {
        DurationLabels {
            probe_type: self.counted.probe_type,
            container: self.counted.container.clone(),
            pod: self.counted.pod.clone(),
            namespace: self.counted.namespace.clone(),
        }
    }
}

impl Drop for ProbeRecord {
    fn drop(&mut self) {
        for result in RESULTS {
            let labels = CountLabels {
                result,
                ..self.counted.clone()
            };
            self.metrics.total.remove(&labels);
        }
        self.metrics.duration.remove(&self.durations());
    }
}
