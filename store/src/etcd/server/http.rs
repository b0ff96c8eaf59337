//! The pages beside gRPC, for people, probes and Prometheus.

use http::{HeaderValue, Method, Response, StatusCode, header};
use orlop_core::store::{KeyRange, RangeRequest};
use std::sync::atomic::Ordering;

use super::body::EtcdBody;
use super::metrics::Gauge;
use super::{CLUSTER_VERSION, Inner, VERSION};
use crate::etcd::proto::maintenance::AlarmType;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

impl Inner {
    /// Answers a request that is none of gRPC.
    pub(super) async fn page(
        &self,
        method: &Method,
        path: &str,
        query: Option<&str>,
    ) -> Response<EtcdBody> {
        if !matches!(path, "/health" | "/version" | "/metrics") {
            return page(StatusCode::NOT_FOUND, TEXT, "404 page not found\n");
        }
        if method != Method::GET {
            let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed\n");
            refused
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("GET"));
            return refused;
        }
        match path {
            "/health" => self.health(query.unwrap_or_default()).await,
            "/version" => page(
                StatusCode::OK,
                JSON,
                format!("{{\"etcdserver\":\"{VERSION}\",\"etcdcluster\":\"{CLUSTER_VERSION}\"}}"),
            ),
            _ => page(StatusCode::OK, PROMETHEUS, self.metrics_text().await),
        }
    }

    /// Well is a server without an alarm, but for those that are left out by `exclude`, and with a store that can serve.
    async fn health(&self, query: &str) -> Response<EtcdBody> {
        let excluded = |alarm: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.strip_prefix("exclude="))
                .any(|name| name == alarm)
        };
        let on = |kind: AlarmType| !self.alarms.list(kind as i32).is_empty();
        let alarmed = (on(AlarmType::Nospace) && !excluded("NOSPACE"))
            || (on(AlarmType::Corrupt) && !excluded("CORRUPT"));
        let trouble = if alarmed {
            Some("an alarm is on".to_owned())
        } else {
            self.store
                .healthy()
                .await
                .err()
                .map(|error| error.to_string())
        };
        match trouble {
            None => {
                self.metrics.health_success.fetch_add(1, Ordering::Relaxed);
                page(StatusCode::OK, TEXT, "{\"health\":\"true\"}")
            }
            Some(trouble) => {
                self.metrics.health_failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(trouble, "a health check failed");
                page(
                    StatusCode::SERVICE_UNAVAILABLE,
                    TEXT,
                    "{\"health\":\"false\"}\n",
                )
            }
        }
    }

    async fn metrics_text(&self) -> String {
        let gauge = |name, help, value| Gauge { name, help, value };
        let mut gauges = vec![
            gauge(
                "etcd_server_has_leader",
                "1 where there is a leader. There always is one.",
                1.0,
            ),
            gauge(
                "etcd_server_is_leader",
                "1 where it is this member. It always is.",
                1.0,
            ),
            gauge(
                "etcd_debugging_mvcc_watcher_total",
                "Watches that are open.",
                self.metrics.watchers.load(Ordering::Relaxed) as f64,
            ),
            gauge(
                "etcd_debugging_mvcc_watch_stream_total",
                "Streams of watches that are open.",
                self.metrics.watch_streams.load(Ordering::Relaxed) as f64,
            ),
        ];
        let everything = RangeRequest {
            count_only: true,
            ..RangeRequest::new(KeyRange::prefix(""))
        };
        if let Ok(found) = self.store.range(everything).await {
            gauges.push(gauge(
                "etcd_debugging_mvcc_keys_total",
                "Keys that are there.",
                found.remaining as f64,
            ));
            gauges.push(gauge(
                "etcd_debugging_mvcc_current_revision",
                "The newest revision.",
                found.revision.0 as f64,
            ));
        }
        if let Some(upkeep) = &self.options.upkeep {
            let size = upkeep.size();
            gauges.push(gauge(
                "etcd_mvcc_db_total_size_in_bytes",
                "Bytes that the store takes.",
                size.total as f64,
            ));
            gauges.push(gauge(
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Bytes of them that its state needs.",
                size.in_use as f64,
            ));
        }
        if let Some(quota) = self.options.quota_bytes {
            gauges.push(gauge(
                "etcd_server_quota_backend_bytes",
                "Bytes that the state may take.",
                quota as f64,
            ));
        }
        if let Some(bytes) = resident() {
            // `etcdctl check datascale` asks for it.
            gauges.push(gauge(
                "process_resident_memory_bytes",
                "Bytes of memory that the process has.",
                bytes as f64,
            ));
        }
        self.metrics.text(&gauges)
    }
}

/// How much memory this process has, where the system is Linux.
fn resident() -> Option<u64> {
    resident_in(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The bytes that a text as that of `/proc/self/status` tells.
fn resident_in(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn page(
    status: StatusCode,
    kind: HeaderValue,
    text: impl Into<bytes::Bytes>,
) -> Response<EtcdBody> {
    let mut response = Response::new(EtcdBody::page(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_what_the_kernel_tells() {
        let status = "VmHWM:\t   70000 kB\nVmRSS:\t   65040 kB\nThreads:\t3\n";
        assert_eq!(resident_in(status), Some(65_040 * 1024));
        assert_eq!(resident_in("Threads:\t3\n"), None);
    }
}
