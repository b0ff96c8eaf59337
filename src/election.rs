//! Of several control planes on one store, which one's parts work.

use std::future::Future;

use orlop_core::env::CancelToken;
use orlop_core::leader_election::{LeaderElectionOptions, LeaderElector};

/// The Leases, by the names that they have in Kubernetes.
pub(crate) const SCHEDULER: &str = "kube-scheduler";
pub(crate) const CONTROLLERS: &str = "kube-controller-manager";
pub(crate) const SIMULATED_NODES: &str = "orlop-simulated-nodes";

/// Who a control plane is in elections.
pub(crate) struct Election {
    identity: String,
}

impl Election {
    pub(crate) fn new(identity: &str) -> Self {
        Self {
            identity: identity.to_owned(),
        }
    }

    /// The election for one of its parts.
    pub(crate) fn of(&self, lease: &str) -> LeaderElectionOptions {
        LeaderElectionOptions::new("kube-system", lease, &self.identity)
    }
}

/// Works whenever the lease is held, until cancelled.
pub(crate) async fn again_and_again<F, Fut>(elector: &LeaderElector, cancel: &CancelToken, work: F)
where
    F: Fn(CancelToken) -> Fut,
    Fut: Future<Output = ()>,
{
    while !cancel.is_cancelled() {
        elector.run(cancel, &work).await;
    }
}
