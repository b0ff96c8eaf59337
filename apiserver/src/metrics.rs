//! The server's metrics, under Kubernetes' names.

use std::fmt;
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::Server;
use crate::http::Described;
use crate::registry::Registry as Objects;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    group: String,
    resource: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    verb: &'static str,
    group: String,
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    resource: String,
}

const BUCKETS: [f64; 12] = [
    0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// What is counted.
pub(crate) struct Metrics {
    registry: Registry,
    /// What others count, such as the store.
    more: Vec<Registry>,
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram, fn() -> Histogram>,
    objects: Family<ResourceLabels, Gauge>,
    long_running: Family<DurationLabels, Gauge>,
}

/// A request that lasts: a watch, or a connection through the server. It is counted until this is dropped.
pub(crate) struct LongRunning(Gauge);

impl Drop for LongRunning {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Metrics {
    pub(crate) fn new(more: Vec<Registry>) -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        let durations: Family<DurationLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(histogram);
        let objects = Family::default();
        let long_running = Family::default();
        registry.register(
            "apiserver_request",
            "Requests, by verb, resource and code",
            requests.clone(),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "How long requests took that were no watches, in seconds",
            durations.clone(),
        );
        registry.register(
            "apiserver_storage_objects",
            "Objects in the store, by resource",
            objects.clone(),
        );
        registry.register(
            "apiserver_longrunning_requests",
            "Requests that last and are under way, by verb and resource",
            long_running.clone(),
        );
        Self {
            registry,
            more,
            requests,
            durations,
            objects,
            long_running,
        }
    }

    /// Counts a request that lasts, for as long as it does. The resource is one that is served.
    pub(crate) fn lasting(&self, verb: &'static str, group: &str, resource: &str) -> LongRunning {
        let labels = DurationLabels {
            verb,
            group: group.to_owned(),
            resource: resource.to_owned(),
        };
        let gauge = self.long_running.get_or_create(&labels).clone();
        gauge.inc();
        LongRunning(gauge)
    }

    /// Counts a request. What names no resource that is served is counted without one, so that nobody can make up series.
    pub(crate) fn observe(
        &self,
        method: &Method,
        described: &Described,
        code: StatusCode,
        elapsed: Duration,
    ) {
        let verb = if described.verb.is_empty() {
            other_verb(method)
        } else {
            described.verb
        };
        let served = orlop_api::resources::builtin().iter().any(|info| {
            info.resource.plural == described.resource && info.resource.group == described.group
        });
        let (group, resource) = if served {
            (described.group.clone(), described.resource.clone())
        } else {
            (String::new(), String::new())
        };
        let labels = RequestLabels {
            verb,
            group: group.clone(),
            resource: resource.clone(),
            code: code.as_u16(),
        };
        self.requests.get_or_create(&labels).inc();
        // What lasts says nothing about how fast the server is.
        if !matches!(verb, "watch" | "CONNECT") {
            self.durations
                .get_or_create(&DurationLabels {
                    verb,
                    group,
                    resource,
                })
                .observe(elapsed.as_secs_f64());
        }
    }

    /// Writes all of it.
    pub(crate) fn encode(&self, server: &Server, out: &mut String) -> fmt::Result {
        for resource in Objects::stored_resources() {
            if let Some(kind) = server.registry.caches.kind(resource) {
                let labels = ResourceLabels {
                    resource: resource.qualified(),
                };
                self.objects
                    .get_or_create(&labels)
                    .set(i64::try_from(kind.len()).unwrap_or(i64::MAX));
            }
        }
        for registry in std::iter::once(&self.registry).chain(&self.more) {
            encode_registry(out, registry)?;
        }
        encode_eof(out)
    }
}

fn other_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}
