//! One probe of one container, again and again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use orlop_core::env::{Flag, Moment};
use orlop_core::events::ObjectReference;

use super::prober::at_least_one;
use super::{Outcome, ProbeTarget, Shared, metrics::ProbeRecord};

/// How often a probe that could not be run is tried at once.
const TRIES: usize = 3;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    Startup,
    Liveness,
    Readiness,
}

impl Purpose {
    pub(super) const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    pub(super) fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) target: ProbeTarget,
    pub(super) purpose: Purpose,
    pub(super) probe: Probe,
    /// Set when the container has started up; the others wait for it.
    pub(super) started_up: Flag,
    /// When the container began to run.
    pub(super) running_since: Timestamp,
    /// Whether it ran before this process did, as many others may have.
    pub(super) adopted: bool,
    pub(super) record: ProbeRecord,
}

impl Worker {
    /// Probes until there is nothing left to find out.
    pub(super) async fn run(self) {
        let env = self.shared.env.clone();
        let period = Duration::from_secs(at_least_one(self.probe.period_seconds, 10));
        if self.adopted {
            // A node agent that starts anew on a full node would send all its probes in one moment.
            env.sleep(period.mul_f64(env.random_unit())).await;
        }
        let mut next = env.now() + self.initial_delay();
        if self.purpose == Purpose::Readiness {
            // Told at once when the container has started up.
            self.started_up.wait().await;
            next = latest(next, period, env.now());
        }
        let mut run = Run::default();
        let (successes, failures) = (
            at_least_one(self.probe.success_threshold, 1),
            at_least_one(self.probe.failure_threshold, 3),
        );
        loop {
            env.sleep_until(next).await;
            next = latest(next + period, period, env.now());
            if self.purpose == Purpose::Liveness && !self.started_up.is_set() {
                self.started_up.wait().await;
                next = latest(next + period, period, env.now());
                continue;
            }
            let Some(well) = self.once().await else {
                continue;
            };
            let times = run.add(well);
            if times < if well { successes } else { failures } {
                continue;
            }
            self.shared.set(&self.target.id, self.purpose, well);
            match (self.purpose, well) {
                // It has started up, or it is about to be killed: another container will have probes of its own.
                (Purpose::Startup, _) | (Purpose::Liveness, false) => return,
                _ => {}
            }
        }
    }

    fn initial_delay(&self) -> Duration {
        let delay = u64::try_from(self.probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0);
        let ran = self.shared.env.wall().duration_since(self.running_since);
        let ran = Duration::try_from(ran).unwrap_or_default();
        Duration::from_secs(delay).saturating_sub(ran)
    }

    /// Whether the container is well; `None` if that could not be found out.
    async fn once(&self) -> Option<bool> {
        let began = self.shared.env.now();
        let mut found = Err(String::new());
        for _ in 0..TRIES {
            found = self.shared.prober.probe(&self.target, &self.probe).await;
            if found.is_ok() {
                break;
            }
        }
        let took = self.shared.env.now().since(began);
        let what = self.purpose.as_str();
        let (well, told) = match found {
            Ok(Outcome::Success(_)) => (Some(true), None),
            Ok(Outcome::Warning(said)) => {
                let message = format!("{what} probe warning: {said}");
                (Some(true), Some(("ProbeWarning", message)))
            }
            Ok(Outcome::Failure(said)) => {
                let message = format!("{what} probe failed: {said}");
                (Some(false), Some(("Unhealthy", message)))
            }
            Err(error) => {
                let message =
                    format!("{what} probe errored and resulted in unknown state: {error}");
                (None, Some(("Unhealthy", message)))
            }
        };
        if let Some((reason, message)) = told {
            tracing::debug!(container = %self.target.container.name, id = %self.target.id, message);
            let about = reference(&self.target.pod, &self.target.container);
            self.shared.events.warning(about, reason, message);
        }
        self.record.ran(well, took);
        well
    }
}

/// How often the same was found in a row.
#[derive(Default)]
struct Run {
    last: Option<bool>,
    times: u64,
}

impl Run {
    fn add(&mut self, well: bool) -> u64 {
        if self.last == Some(well) {
            self.times += 1;
        } else {
            *self = Self {
                last: Some(well),
                times: 1,
            };
        }
        self.times
    }
}

/// Of the moments that are a period apart, beginning with one, the last that has come; or that one. So those that were missed are left
/// out, but for one.
fn latest(mut moment: Moment, period: Duration, now: Moment) -> Moment {
    while moment + period <= now {
        moment = moment + period;
    }
    moment
}

/// A container of a pod, as events name it.
pub(crate) fn reference(pod: &Pod, container: &Container) -> ObjectReference {
    let meta = &pod.metadata;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let init = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.init_containers.as_ref())
        .is_some_and(|all| all.iter().any(|one| one.name == container.name));
    let list = if init { "initContainers" } else { "containers" };
    ObjectReference {
        kind: "Pod".to_owned(),
        namespace: text(&meta.namespace),
        name: text(&meta.name),
        uid: text(&meta.uid),
        api_version: "v1".to_owned(),
        resource_version: text(&meta.resource_version),
        field_path: format!("spec.{list}{{{}}}", container.name),
    }
}
