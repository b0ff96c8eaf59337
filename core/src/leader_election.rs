//! Leader election: of several processes, one works.
//!
//! The lock is a `coordination.k8s.io/v1` Lease. Who holds it renews it; who does not watches it, and takes it when it has not seen it
//! renewed for its duration *by its own clock*: the clocks of two machines are never compared.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::Client;
use crate::env::{CancelToken, Env, Moment};
use crate::resource::Resource;
use crate::status::Status;

const LEASES: Resource = Resource::namespaced("coordination.k8s.io", "v1", "leases", "Lease");

/// What to elect a leader for, and how fast.
#[derive(Clone, Debug)]
pub struct LeaderElectionOptions {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// Who we are: different for every process.
    pub identity: String,
    /// How long the others wait after the last renewal that they saw before they take over. 15 s.
    pub lease_duration: Duration,
    /// How long the leader tries to renew before it gives up. Shorter than `lease_duration`. 10 s.
    pub renew_deadline: Duration,
    /// The time between two tries. 2 s.
    pub retry_period: Duration,
    /// Whether to give the Lease back when the work ends, so that the next need not wait. Only if all work has really ended by then.
    pub release_on_cancel: bool,
}

impl LeaderElectionOptions {
    /// The usual times, for a Lease and an identity.
    #[must_use]
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            release_on_cancel: true,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LeaseSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    holder_identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_duration_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acquire_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    renew_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_transitions: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Lease {
    spec: LeaseSpec,
}

/// One candidate.
pub struct LeaderElector {
    client: Arc<dyn Client>,
    env: Env,
    options: LeaderElectionOptions,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    spec: LeaseSpec,
    /// When we saw `spec` for the first time.
    at: Option<Moment>,
}

impl fmt::Debug for LeaderElector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaderElector")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl LeaderElector {
    /// A candidate that does not run yet.
    #[must_use]
    pub fn new(client: Arc<dyn Client>, env: Env, options: LeaderElectionOptions) -> Self {
        Self {
            client,
            env,
            options,
            seen: Mutex::default(),
        }
    }

    /// Who leads, as far as we have seen.
    #[must_use]
    pub fn leader(&self) -> Option<String> {
        self.seen
            .lock()
            .spec
            .holder_identity
            .clone()
            .filter(|holder| !holder.is_empty())
    }

    /// Whether we lead, as far as we have seen.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.leader().as_deref() == Some(&self.options.identity)
    }

    /// Waits to become the leader, then runs `lead` until it ends, the lease is lost, or `cancel`. `lead` gets a token that is cancelled
    /// in the latter two cases, and is waited for; it has to end soon, since another may lead by then.
    ///
    /// Returns what `lead` returned; `None` if we never led.
    pub async fn run<F, Fut>(&self, cancel: &CancelToken, lead: F) -> Option<Fut::Output>
    where
        F: FnOnce(CancelToken) -> Fut,
        Fut: Future,
    {
        cancel.run(self.acquire()).await?;
        let token = cancel.child();
        let work = lead(token.clone());
        let renew = async {
            token.run(self.renew()).await;
            token.cancel();
        };
        let work = async {
            let output = work.await;
            token.cancel();
            output
        };
        let (output, ()) = futures::future::join(work, renew).await;
        if self.options.release_on_cancel && self.is_leader() {
            self.release().await;
        }
        Some(output)
    }

    async fn acquire(&self) {
        loop {
            match self.try_acquire_or_renew().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(lease = %self.options.name, %error, "cannot take the lease")
                }
            }
            self.env
                .sleep(self.env.jitter(self.options.retry_period, 1.2))
                .await;
        }
    }

    /// Renews until that has failed for too long.
    async fn renew(&self) {
        let mut renewed = self.env.now();
        loop {
            self.env.sleep(self.options.retry_period).await;
            let left = self
                .options
                .renew_deadline
                .saturating_sub(self.env.now().since(renewed));
            match self.env.timeout(left, self.try_acquire_or_renew()).await {
                Ok(Ok(true)) => renewed = self.env.now(),
                Ok(Ok(false)) => return, // somebody else has it
                Ok(Err(error)) => {
                    tracing::debug!(lease = %self.options.name, %error, "cannot renew the lease")
                }
                Err(_) => {}
            }
            if self.env.now().since(renewed) >= self.options.renew_deadline {
                tracing::warn!(lease = %self.options.name, "lost the lease: it could not be renewed in time");
                return;
            }
        }
    }

    fn observe(&self, spec: &LeaseSpec) {
        let mut seen = self.seen.lock();
        if seen.at.is_none() || seen.spec != *spec {
            if seen.spec.holder_identity != spec.holder_identity {
                let holder = spec.holder_identity.as_deref().unwrap_or("");
                tracing::info!(lease = %self.options.name, holder, "a leader was seen");
            }
            *seen = Seen {
                spec: spec.clone(),
                at: Some(self.env.now()),
            };
        }
    }

    fn now(&self) -> String {
        self.env
            .wall()
            .strftime("%Y-%m-%dT%H:%M:%S.%6fZ")
            .to_string()
    }

    async fn try_acquire_or_renew(&self) -> Result<bool, Status> {
        let leases = self
            .client
            .resource(&LEASES)
            .namespace(&self.options.namespace);
        let now = self.now();
        let mut wanted = LeaseSpec {
            holder_identity: Some(self.options.identity.clone()),
            lease_duration_seconds: Some(self.options.lease_duration.as_secs() as i64),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(0),
        };
        let Some(object) = leases.find(&self.options.name).await? else {
            let body = json!({"metadata": {"name": self.options.name, "namespace": self.options.namespace}, "spec": wanted});
            leases.create(&body).await?;
            self.observe(&wanted);
            return Ok(true);
        };
        let there = object
            .decode::<Lease>()
            .map_err(Status::internal)?
            .spec
            .clone();
        self.observe(&there);
        let holder = there.holder_identity.clone().unwrap_or_default();
        if holder == self.options.identity {
            wanted.acquire_time = there.acquire_time;
            wanted.lease_transitions = there.lease_transitions;
        } else {
            let held = Duration::from_secs(
                u64::try_from(there.lease_duration_seconds.unwrap_or(0)).unwrap_or(0),
            );
            let at = self.seen.lock().at.unwrap_or(Moment::START);
            if !holder.is_empty() && self.env.now() < at + held {
                return Ok(false);
            }
            wanted.lease_transitions = Some(there.lease_transitions.unwrap_or(0) + 1);
        }
        let mut body: Value = (*object.value().map_err(Status::internal)?).clone();
        body["spec"] = json!(wanted);
        leases.update(&body).await?;
        self.observe(&wanted);
        Ok(true)
    }

    /// Gives the lease back: nobody holds it, and who comes next need not wait.
    async fn release(&self) {
        let leases = self
            .client
            .resource(&LEASES)
            .namespace(&self.options.namespace);
        let released = async {
            let object = leases.get(&self.options.name).await?;
            let there = object
                .decode::<Lease>()
                .map_err(Status::internal)?
                .spec
                .clone();
            if there.holder_identity.as_deref() != Some(&self.options.identity) {
                return Ok(());
            }
            let now = self.now();
            let spec = LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: there.lease_transitions,
            };
            let mut body: Value = (*object.value().map_err(Status::internal)?).clone();
            body["spec"] = json!(spec);
            leases.update(&body).await?;
            self.observe(&spec);
            Ok::<(), Status>(())
        };
        match self
            .env
            .timeout(self.options.renew_deadline, released)
            .await
        {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(lease = %self.options.name, %error, "cannot give the lease back")
            }
            Err(_) => {
                tracing::warn!(lease = %self.options.name, "cannot give the lease back in time")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{SimEnv, TaskGroup};
    use crate::testing::FakeApi;

    fn elector(api: &FakeApi, env: &Env, identity: &str) -> LeaderElector {
        LeaderElector::new(
            api.client(),
            env.clone(),
            LeaderElectionOptions::new("kube-system", "lock", identity),
        )
    }

    fn spec(api: &FakeApi) -> LeaseSpec {
        api.object(&LEASES, "kube-system", "lock")
            .unwrap()
            .decode::<Lease>()
            .unwrap()
            .spec
            .clone()
    }

    /// Runs two candidates and returns who led, when, until the first has ended in the given way.
    fn second_leads_after(first_ends: fn(&FakeApi, &CancelToken)) -> (Duration, LeaseSpec) {
        let sim = SimEnv::new(5);
        let env = sim.env();
        let api = FakeApi::new(env.clone());
        sim.block_on(async move {
            let group = TaskGroup::new(env.clone());
            let first_cancel = CancelToken::new();
            let led = Arc::new(Mutex::new(Vec::new()));
            for (identity, cancel) in [("a", first_cancel.clone()), ("b", group.token())] {
                let (elector, led, env) = (elector(&api, &env, identity), led.clone(), env.clone());
                group.spawn("candidate", async move {
                    elector
                        .run(&cancel, |token| async move {
                            led.lock().push((identity, env.now()));
                            token.cancelled().await;
                        })
                        .await;
                });
                group.env().sleep(Duration::from_millis(10)).await;
            }
            env.sleep(Duration::from_secs(60)).await;
            assert_eq!(
                led.lock().len(),
                1,
                "the first keeps the lease while it renews"
            );
            let ended = env.now();
            first_ends(&api, &first_cancel);
            while led.lock().len() < 2 {
                env.sleep(Duration::from_millis(100)).await;
            }
            let waited = led.lock()[1].1.since(ended);
            let spec = spec(&api);
            group.shutdown().await;
            (waited, spec)
        })
    }

    #[test]
    fn a_lease_given_back_is_taken_at_once() {
        let (waited, spec) = second_leads_after(|_, cancel| cancel.cancel());
        assert!(waited < Duration::from_secs(5), "{waited:?}");
        assert_eq!(spec.holder_identity.as_deref(), Some("b"));
        assert_eq!(spec.lease_transitions, Some(1));
        assert_eq!(spec.lease_duration_seconds, Some(15));
    }

    #[test]
    fn a_leader_that_cannot_renew_gives_up_before_another_takes_over() {
        let (waited, spec) = second_leads_after(|api, _| {
            api.refuse(usize::MAX, |request| match &request.operation {
                crate::client::Operation::Update(body, _)
                    if body["spec"]["holderIdentity"] == "a" =>
                {
                    Some(Status::unavailable("partitioned"))
                }
                _ => None,
            });
        });
        assert!(
            waited > Duration::from_secs(10) && waited < Duration::from_secs(22),
            "{waited:?}"
        );
        assert_eq!(spec.holder_identity.as_deref(), Some("b"));
    }
}
