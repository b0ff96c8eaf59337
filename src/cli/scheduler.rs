//! `orlop scheduler`: kube-scheduler as a process of its own.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use futures::future::{Either, select};
use orlop::core::client::Client;
use orlop::core::env::{CancelToken, Env, TaskGroup};
use orlop::core::leader_election::LeaderElector;
use orlop::sched::{Profile, Scheduler, SchedulerMetrics};
use orlop::wire::remote::RemoteClient;
use prometheus_client::registry::Registry;

use super::election::{ElectionFlags, lost};
use super::serving::ServingFlags;
use super::stop::Stop;
use super::{Failure, client_config};

/// What `orlop scheduler` can be told. The names are kube-scheduler's.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How to reach the API server and who to be; a pod's service account without
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    #[command(flatten)]
    election: ElectionFlags,

    #[command(flatten)]
    serving: ServingFlags,

    /// The port for that; 0 for none
    #[arg(long, value_name = "PORT", default_value_t = 10259)]
    secure_port: u16,

    /// End when standard input does
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

/// Runs until told to stop, or until another one works.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let stop = Stop::on_signals_or_parent(options.exit_with_parent)?;
    let env = Env::tokio();
    let config = client_config(options.kubeconfig.as_deref())?;
    let election = options.election.options("kube-scheduler", &env)?;
    let client: Arc<dyn Client> = Arc::new(RemoteClient::new(&config, &env)?);
    let mut registry = Registry::default();
    let scheduler = Scheduler::builder(client.clone(), env.clone())
        .profile(Profile::default_scheduler())
        .metrics(SchedulerMetrics::register(&mut registry))
        .build()?;
    let tasks = TaskGroup::new(env.clone());
    options
        .serving
        .serve(
            options.secure_port,
            "kube-scheduler",
            registry,
            client.clone(),
            &tasks,
        )
        .await?;
    println!("orlop scheduler: for {}", config.server);

    let token = CancelToken::new();
    let work = async {
        match election {
            None => scheduler.run(token.clone()).await,
            Some(election) => {
                let elector = LeaderElector::new(client, env.clone(), election);
                let lead = |led| {
                    println!("orlop scheduler: leads");
                    scheduler.run(led)
                };
                elector.run(&token, lead).await;
            }
        }
    };
    let (work, stop) = (std::pin::pin!(work), std::pin::pin!(stop.wait()));
    let outcome = match select(work, stop).await {
        Either::Left(((), _)) => Err(lost()),
        Either::Right(((), work)) => {
            token.cancel();
            work.await;
            Ok(())
        }
    };
    tasks.shutdown().await;
    outcome
}
