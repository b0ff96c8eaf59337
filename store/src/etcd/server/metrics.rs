//! What is counted, under the names that etcd gives it.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tonic::Code;

use super::method::{Method, Shape};

/// How many codes gRPC has.
const CODES: usize = 17;

/// The names of gRPC's codes, as its metrics have them.
const CODE_NAMES: [&str; CODES] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The counters of a server.
#[derive(Debug)]
pub(super) struct Metrics {
    calls: Vec<Calls>,
    pub(super) watchers: AtomicI64,
    pub(super) watch_streams: AtomicI64,
    pub(super) events: AtomicU64,
    pub(super) health_success: AtomicU64,
    pub(super) health_failures: AtomicU64,
}

/// The calls of one method.
#[derive(Debug, Default)]
struct Calls {
    started: AtomicU64,
    handled: [AtomicU64; CODES],
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            calls: Method::ALL.iter().map(|_| Calls::default()).collect(),
            watchers: AtomicI64::new(0),
            watch_streams: AtomicI64::new(0),
            events: AtomicU64::new(0),
            health_success: AtomicU64::new(0),
            health_failures: AtomicU64::new(0),
        }
    }
}

/// A number of the moment.
pub(super) struct Gauge {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) value: f64,
}

impl Metrics {
    pub(super) fn started(&self, method: Method) {
        self.calls[method as usize]
            .started
            .fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn handled(&self, method: Method, code: Code) {
        self.calls[method as usize].handled[code as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// All of it in Prometheus' text format.
    pub(super) fn text(&self, gauges: &[Gauge]) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(gauges, &mut out);
        out
    }

    fn write(&self, gauges: &[Gauge], out: &mut String) -> std::fmt::Result {
        for gauge in gauges {
            writeln!(out, "# HELP {} {}", gauge.name, gauge.help)?;
            writeln!(out, "# TYPE {} gauge", gauge.name)?;
            writeln!(out, "{} {}", gauge.name, gauge.value)?;
        }
        let counters = [
            (
                "etcd_debugging_mvcc_events_total",
                "Events sent to watches.",
                &self.events,
            ),
            (
                "etcd_server_health_success",
                "Health checks that found the server well.",
                &self.health_success,
            ),
            (
                "etcd_server_health_failures",
                "Health checks that did not.",
                &self.health_failures,
            ),
        ];
        for (name, help, value) in counters {
            writeln!(out, "# HELP {name} {help}")?;
            writeln!(out, "# TYPE {name} counter")?;
            writeln!(out, "{name} {}", value.load(Ordering::Relaxed))?;
        }
        out.push_str(
            "# HELP grpc_server_handled_total Calls that have ended, well or not.\n\
             # TYPE grpc_server_handled_total counter\n",
        );
        for (method, calls) in Method::ALL.iter().zip(&self.calls) {
            for (code, count) in CODE_NAMES.iter().zip(&calls.handled) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let labels = labels(*method);
                    writeln!(
                        out,
                        "grpc_server_handled_total{{grpc_code=\"{code}\",{labels}}} {count}"
                    )?;
                }
            }
        }
        out.push_str(
            "# HELP grpc_server_started_total Calls that have begun.\n\
             # TYPE grpc_server_started_total counter\n",
        );
        for (method, calls) in Method::ALL.iter().zip(&self.calls) {
            let count = calls.started.load(Ordering::Relaxed);
            writeln!(
                out,
                "grpc_server_started_total{{{}}} {count}",
                labels(*method)
            )?;
        }
        Ok(())
    }
}

fn labels(method: Method) -> String {
    let (service, name, shape) = method.about();
    let shape = match shape {
        Shape::Unary => "unary",
        Shape::ServerStream => "server_stream",
        Shape::BidiStream => "bidi_stream",
    };
    format!("grpc_method=\"{name}\",grpc_service=\"{service}\",grpc_type=\"{shape}\"")
}

/// Counts the end of a stream, however it ends.
pub(super) struct Handled {
    metrics: Arc<Metrics>,
    method: Method,
    counted: bool,
}

impl Handled {
    pub(super) fn new(metrics: &Arc<Metrics>, method: Method) -> Self {
        Self {
            metrics: metrics.clone(),
            method,
            counted: false,
        }
    }

    pub(super) fn ended(mut self, code: Code) {
        self.counted = true;
        self.metrics.handled(self.method, code);
    }
}

impl Drop for Handled {
    fn drop(&mut self) {
        if !self.counted {
            self.metrics.handled(self.method, Code::Cancelled);
        }
    }
}

/// One more, for as long as it is there.
#[derive(Debug)]
pub(super) struct Counted {
    metrics: Arc<Metrics>,
    of: fn(&Metrics) -> &AtomicI64,
}

impl Counted {
    pub(super) fn new(metrics: &Arc<Metrics>, of: fn(&Metrics) -> &AtomicI64) -> Self {
        of(metrics).fetch_add(1, Ordering::Relaxed);
        Self {
            metrics: metrics.clone(),
            of,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.of)(&self.metrics).fetch_sub(1, Ordering::Relaxed);
    }
}
