//! The heartbeat of the node: its Lease, renewed four times in the time that it holds.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use orlop_core::client::Client;
use orlop_core::env::Env;
use orlop_core::resource::Resource;
use orlop_core::status::Status;
use serde_json::{Value, json};

use super::NodeInfo;

const LEASES: Resource = Resource::namespaced("coordination.k8s.io", "v1", "leases", "Lease");
/// Where the Leases of nodes are.
const NAMESPACE: &str = "kube-node-lease";
/// How often a renewal is tried at once.
const TRIES: usize = 5;
/// How long to wait after making the Lease failed: doubled each time, up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(7));

/// Renews the Lease of a node.
pub(super) struct Heartbeat {
    pub(super) env: Env,
    pub(super) client: Arc<dyn Client>,
    pub(super) node_name: String,
    pub(super) duration: Duration,
    pub(super) info: NodeInfo,
}

impl Heartbeat {
    /// Renews until it is dropped.
    pub(super) async fn run(self) {
        let interval = self.duration / 4;
        let mut known = None;
        loop {
            let began = self.env.now();
            known = match known {
                Some(lease) => self.renew(lease).await,
                None => None,
            };
            if known.is_none() {
                known = Some(self.ensure().await);
            }
            // With a little chance in it, so that not all nodes come at once.
            let pause = self.env.jitter(interval, 0.04);
            self.env.sleep_until(began + pause).await;
        }
    }

    /// Renews a Lease of which this is the last that was seen. `None` if it has to be read anew.
    async fn renew(&self, mut lease: Value) -> Option<Value> {
        for _ in 0..TRIES {
            self.fill(&mut lease);
            let leases = self.client.resource(&LEASES).namespace(NAMESPACE);
            match leases.update(&lease).await {
                Ok(renewed) => return renewed.value().ok().map(|value| (*value).clone()),
                // Somebody changed it, or made another.
                Err(status) if status.is_conflict() || status.is_not_found() => {
                    match self.ensure_once().await {
                        Ok(fresh) => return Some(fresh),
                        Err(status) => self.failed("renew", &status),
                    }
                }
                Err(status) => self.failed("renew", &status),
            }
        }
        None
    }

    async fn ensure(&self) -> Value {
        let mut pause = BACKOFF.0;
        loop {
            match self.ensure_once().await {
                Ok(lease) => return lease,
                Err(status) => self.failed("make", &status),
            }
            self.env.sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Renews the Lease as it is on the server, or makes it.
    async fn ensure_once(&self) -> Result<Value, Status> {
        let leases = self.client.resource(&LEASES).namespace(NAMESPACE);
        let malformed = |_| Status::internal("the server answered with something that is no Lease");
        let written = match leases.find(&self.node_name).await? {
            Some(found) => {
                let mut lease = (*found.value().map_err(malformed)?).clone();
                self.fill(&mut lease);
                leases.update(&lease).await?
            }
            None => {
                let mut lease =
                    json!({"metadata": {"name": self.node_name, "namespace": NAMESPACE}});
                self.fill(&mut lease);
                leases.create(&lease).await?
            }
        };
        Ok((*written.value().map_err(malformed)?).clone())
    }

    fn fill(&self, lease: &mut Value) {
        let spec = &mut lease["spec"];
        spec["holderIdentity"] = self.node_name.as_str().into();
        spec["leaseDurationSeconds"] = self.duration.as_secs().into();
        spec["renewTime"] = micro_time(self.env.wall()).into();
        // The Lease goes with the Node.
        if let Some(uid) = self.info.uid() {
            let owner =
                json!({"apiVersion": "v1", "kind": "Node", "name": self.node_name, "uid": uid});
            lease["metadata"]["ownerReferences"] = json!([owner]);
        }
    }

    fn failed(&self, what: &str, status: &Status) {
        tracing::warn!(node = %self.node_name, error = %status, "failed to {what} the node's lease");
    }
}

fn micro_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
