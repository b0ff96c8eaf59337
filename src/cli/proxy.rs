//! `orlop proxy`: kube-proxy as a process of its own.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures::future::{Either, select};
use orlop::core::env::{CancelToken, Env};
use orlop::core::network::Cidr;
use orlop::net_proxy::{Proxy, ProxyConfig};
use orlop::wire::kubeconfig::{ClientConfig, Kubeconfig};
use orlop::wire::remote::RemoteClient;

use super::stop::Stop;
use super::{Failure, directory};

/// What `orlop proxy` can be told. The names are kube-proxy's.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How to reach the API server and who to be; a pod's service account without
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The name of the Node [default: the host's name]
    #[arg(long, value_name = "NAME")]
    hostname_override: Option<String>,

    /// The addresses of the node, at most one of each family [default: those that the Node tells]
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    node_ip: Vec<IpAddr>,

    /// The networks of all pods: what comes to Services from elsewhere is masqueraded
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    cluster_cidr: Vec<Cidr>,

    /// Masquerade all that goes to cluster IPs
    #[arg(long)]
    masquerade_all: bool,

    /// Where to say whether the proxy is well; port 0 for nowhere
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:10256")]
    healthz_bind_address: SocketAddr,

    /// Where to show metrics; port 0 for nowhere
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10249")]
    metrics_bind_address: SocketAddr,

    /// The least time between two changes of the rules, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    min_sync_period_ms: u64,

    /// Remove everything that a proxy has written on this node, and end
    #[arg(long)]
    cleanup: bool,

    /// End when standard input does
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

/// Runs until told to stop. The rules stay.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let stop = Stop::on_signals_or_parent(options.exit_with_parent)?;
    let env = Env::tokio();
    let name = options
        .hostname_override
        .or_else(directory::hostname)
        .ok_or_else(|| Failure::new("this machine has no name: say --hostname-override"))?;
    let mut config = ProxyConfig::new(&name);
    config.node_ips = options.node_ip;
    config.cluster_cidrs = options.cluster_cidr;
    config.masquerade_all = options.masquerade_all;
    config.min_sync_period = Duration::from_millis(options.min_sync_period_ms);
    let somewhere = |address: SocketAddr| Some(address).filter(|address| address.port() != 0);
    config.healthz_address = somewhere(options.healthz_bind_address);
    config.metrics_address = somewhere(options.metrics_bind_address);

    let client = match (&options.kubeconfig, options.cleanup) {
        (Some(path), _) => Kubeconfig::load(path)?.resolve(None)?,
        // Nobody is asked what to remove.
        (None, true) => ClientConfig::new("https://localhost"),
        (None, false) => ClientConfig::in_cluster()?,
    };
    let client = Arc::new(RemoteClient::new(&client, &env)?);
    let mut proxy = Proxy::builder(client, env).config(config).build()?;
    if options.cleanup {
        proxy.cleanup().await?;
        return Ok(());
    }
    let token = CancelToken::new();
    let (work, stop) = (
        std::pin::pin!(proxy.run(&token)),
        std::pin::pin!(stop.wait()),
    );
    match select(work, stop).await {
        Either::Left((ended, _)) => Ok(ended?),
        Either::Right(((), work)) => {
            token.cancel();
            Ok(work.await?)
        }
    }
}
