//! Who of several works: the flags of leader election, and its end.

use std::time::Duration;

use clap::Args;
use orlop::core::env::Env;
use orlop::core::leader_election::LeaderElectionOptions;

use super::{Failure, directory, values};

/// The flags of leader election, by Kubernetes' names.
#[derive(Debug, Args)]
pub(super) struct ElectionFlags {
    /// Work only while holding a lease, so that several may run
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    leader_elect: bool,

    /// How long the others wait after the last renewal that they saw
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = values::duration)]
    leader_elect_lease_duration: Duration,

    /// How long the leader tries to renew before it gives up
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    leader_elect_renew_deadline: Duration,

    /// The time between two tries
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = values::duration)]
    leader_elect_retry_period: Duration,

    /// The Lease's namespace
    #[arg(long, value_name = "NAMESPACE", default_value = "kube-system")]
    leader_elect_resource_namespace: String,

    /// The Lease's name [default: the component's]
    #[arg(long, value_name = "NAME")]
    leader_elect_resource_name: Option<String>,
}

impl ElectionFlags {
    /// What they come to for a component; `None` where nobody is elected.
    pub(super) fn options(
        &self,
        component: &str,
        env: &Env,
    ) -> Result<Option<LeaderElectionOptions>, Failure> {
        if !self.leader_elect {
            return Ok(None);
        }
        let (lease, renew, retry) = (
            self.leader_elect_lease_duration,
            self.leader_elect_renew_deadline,
            self.leader_elect_retry_period,
        );
        if lease <= renew {
            return Err(Failure::new(
                "--leader-elect-lease-duration must be greater than --leader-elect-renew-deadline",
            ));
        }
        if renew.as_secs_f64() <= retry.as_secs_f64() * 1.2 || retry.is_zero() {
            return Err(Failure::new(
                "--leader-elect-renew-deadline must be greater than 1.2 × --leader-elect-retry-period, and that greater than zero",
            ));
        }
        let name = self.leader_elect_resource_name.as_deref();
        let mut options = LeaderElectionOptions::new(
            &self.leader_elect_resource_namespace,
            name.unwrap_or(component),
            &identity(env),
        );
        options.lease_duration = lease;
        options.renew_deadline = renew;
        options.retry_period = retry;
        Ok(Some(options))
    }
}

/// Who this process is in elections: nobody else, ever.
pub(super) fn identity(env: &Env) -> String {
    let host = directory::hostname().unwrap_or_else(|| "localhost".to_owned());
    format!("{host}_{}", env.uuid())
}

/// Why a process ends that led and does not any more: another may lead by now, and whoever looks after the process starts it again.
pub(super) fn lost() -> Failure {
    Failure::new("the lease was lost: another one may work now")
}
