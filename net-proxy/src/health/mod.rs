//! Who asks whether all is well: load balancers about a Service, the kubelet and load balancers about the proxy.

mod http;
mod service;

use std::collections::BTreeMap;
use std::time::Duration;

use ::http::StatusCode;
use jiff::Timestamp;
use orlop_core::env::{Env, Moment};
use parking_lot::Mutex;

pub(crate) use self::http::{Answer, serve};
pub(crate) use self::service::ServiceHealth;
use crate::config::Family;
use crate::metrics::ProxyMetrics;

/// Whether a proxy keeps up with changes.
#[derive(Debug)]
pub struct ProxyHealth {
    env: Env,
    /// How late a change may be.
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    updated: BTreeMap<Family, Timestamp>,
    /// Since when the oldest change waits.
    waiting: BTreeMap<Family, Moment>,
    eligible: bool,
}

impl ProxyHealth {
    pub(crate) fn new(env: Env, patience: Duration) -> Self {
        Self {
            env,
            patience,
            state: Mutex::new(State {
                updated: BTreeMap::new(),
                waiting: BTreeMap::new(),
                eligible: true,
            }),
        }
    }

    /// A change is there to be applied.
    pub(crate) fn queued(&self, family: Family) {
        let now = self.env.now();
        self.state.lock().waiting.entry(family).or_insert(now);
    }

    /// All changes have been applied, or the first are awaited.
    pub(crate) fn updated(&self, family: Family) {
        let mut state = self.state.lock();
        state.waiting.remove(&family);
        state.updated.insert(family, self.env.wall());
    }

    pub(crate) fn set_eligible(&self, eligible: bool) {
        self.state.lock().eligible = eligible;
    }

    /// Whether no change waits for longer than twice the sync period.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.late().is_none()
    }

    /// Whether the Node is to stay, so that load balancers may send it new connections.
    #[must_use]
    pub fn node_eligible(&self) -> bool {
        self.state.lock().eligible
    }

    /// When the family that is late was last updated.
    fn late(&self) -> Option<Timestamp> {
        let state = self.state.lock();
        let now = self.env.now();
        let mut waiting = state.waiting.iter();
        let late = waiting.find(|&(_, &since)| now.since(since) >= self.patience);
        late.map(|(family, _)| state.updated.get(family).copied().unwrap_or_default())
    }

    /// The answer of `/livez`, or with the Node's state of `/healthz`.
    pub(crate) fn answer(&self, live: bool, metrics: &ProxyMetrics) -> Answer {
        let now = self.env.wall();
        let late = self.late();
        let eligible = live || self.node_eligible();
        let healthy = late.is_none() && eligible;
        let status = if healthy {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        metrics.asked_for_health(live, status);
        // Who is healthy is up to date.
        let updated = late.unwrap_or_else(|| {
            let state = self.state.lock();
            let last = state.updated.values().max().copied();
            if healthy {
                now
            } else {
                last.unwrap_or_default()
            }
        });
        let (updated, now) = (go_time(updated), go_time(now));
        let body = if live {
            format!(r#"{{"lastUpdated": "{updated}","currentTime": "{now}"}}"#)
        } else {
            format!(
                r#"{{"lastUpdated": "{updated}","currentTime": "{now}", "nodeEligible": {eligible}}}"#
            )
        };
        Answer::json(status, body)
    }
}

/// The form in which the proxies of Kubernetes write times here.
fn go_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()
}

#[cfg(test)]
mod tests {
    use orlop_core::env::SimEnv;

    use super::*;

    #[test]
    fn a_change_that_waits_too_long_is_ill_and_a_node_that_goes_gets_no_new_connections() {
        let sim = SimEnv::new(1);
        let env = sim.env();
        sim.block_on(async move {
            let metrics = ProxyMetrics::default();
            let health = ProxyHealth::new(env.clone(), Duration::from_secs(60));
            let status = |live| health.answer(live, &metrics).status.as_u16();
            assert_eq!((status(true), status(false)), (200, 200));
            health.updated(Family::V4);
            health.queued(Family::V4);
            env.sleep(Duration::from_secs(59)).await;
            health.queued(Family::V4);
            assert!(health.is_healthy());
            env.sleep(Duration::from_secs(1)).await;
            assert_eq!((status(true), status(false)), (503, 503));
            let body = health.answer(false, &metrics).body;
            assert_eq!(
                body,
                r#"{"lastUpdated": "2026-01-01 00:00:00 +0000 UTC","currentTime": "2026-01-01 00:01:00 +0000 UTC", "nodeEligible": true}"#
            );
            health.updated(Family::V4);
            health.set_eligible(false);
            assert_eq!((status(true), status(false)), (200, 503));
            let text = metrics.encode();
            assert!(text.contains("kubeproxy_proxy_healthz_total{code=\"503\"} 3"), "{text}");
        });
    }
}
