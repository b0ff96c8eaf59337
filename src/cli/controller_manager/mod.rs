//! `orlop controller-manager`: kube-controller-manager as a process of its own.

mod accounts;
mod discovery;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use futures::future::{Either, select};
use orlop::controllers::certificates::Signers;
use orlop::controllers::manager::{Builder, ControllerManager, MANAGER_IDENTITY};
use orlop::controllers::node_ipam::{NodeIpamController, NodeIpamOptions};
use orlop::core::client::Client;
use orlop::core::env::{CancelToken, Env, TaskGroup};
use orlop::core::network::Cidr;
use orlop::wire::kubeconfig::ClientConfig;
use orlop::wire::pki::CertificateAuthority;
use orlop::wire::remote::RemoteClient;
use prometheus_client::registry::Registry;

use self::accounts::Account;
use self::discovery::Discovery;
use super::election::{ElectionFlags, lost};
use super::serving::ServingFlags;
use super::stop::Stop;
use super::{Failure, client_config, values};

/// The controllers that do not run unless they are named.
const OFF: [&str; 2] = ["bootstrap-signer-controller", "token-cleaner-controller"];

/// What `orlop controller-manager` can be told. The names are kube-controller-manager's.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How to reach the API server and who to be; a pod's service account without
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Which controllers run: * for those that do by default, NAME for one more, -NAME for one less
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "*",
        allow_hyphen_values = true
    )]
    controllers: Vec<String>,

    /// Let each controller be a service account of its own in kube-system; without, all are who the kubeconfig says, and that must be somebody who may do
    /// what all of them do
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    use_service_account_credentials: bool,

    /// The authority that signs certificates that were approved; without, nobody here does
    #[arg(long, value_name = "FILE", requires = "cluster_signing_key_file")]
    cluster_signing_cert_file: Option<PathBuf>,

    /// Its key
    #[arg(long, value_name = "FILE", requires = "cluster_signing_cert_file")]
    cluster_signing_key_file: Option<PathBuf>,

    /// The authority of the API server's certificate, published in every namespace [default: that of the kubeconfig]
    #[arg(long, value_name = "FILE")]
    root_ca_file: Option<PathBuf>,

    /// What signs tokens that are kept in secrets: nothing here makes such tokens, so it is only looked at whether the file can be read
    #[arg(long, value_name = "FILE")]
    service_account_private_key_file: Option<PathBuf>,

    /// Give every node a part of the networks of all pods
    #[arg(long, value_name = "BOOL", default_value_t = false, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    allocate_node_cidrs: bool,

    /// The networks of all pods: one, or one of each family
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    cluster_cidr: Vec<Cidr>,

    /// The network of Services, of which no node is given a part
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    service_cluster_ip_range: Vec<Cidr>,

    #[command(flatten)]
    election: ElectionFlags,

    #[command(flatten)]
    serving: ServingFlags,

    /// The port for that; 0 for none
    #[arg(long, value_name = "PORT", default_value_t = 10257)]
    secure_port: u16,

    /// End when standard input does
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

/// Which of the controllers that there are do not run, by what `--controllers` says.
fn left_out(said: &[String], known: &[String]) -> Result<Vec<String>, Failure> {
    for name in said {
        let plain = name.strip_prefix('-').unwrap_or(name);
        if plain != "*" && !known.iter().any(|known| known == plain) {
            return Err(Failure::new(format!(
                "--controllers: {plain:?} is not among {}",
                known.join(", ")
            )));
        }
    }
    let has = |name: &str| said.iter().any(|said| said == name);
    let runs =
        |name: &str| has(name) || !has(&format!("-{name}")) && has("*") && !OFF.contains(&name);
    Ok(known.iter().filter(|name| !runs(name)).cloned().collect())
}

/// What a manager is made of.
struct Parts {
    options: Options,
    config: ClientConfig,
    client: Arc<RemoteClient>,
    env: Env,
    signers: Option<Arc<CertificateAuthority>>,
    root_ca: Option<String>,
}

impl Parts {
    fn read(options: Options, config: ClientConfig, env: &Env) -> Result<Self, Failure> {
        let signers = match (
            &options.cluster_signing_cert_file,
            &options.cluster_signing_key_file,
        ) {
            (Some(certificate), Some(key)) => {
                Some(Arc::new(CertificateAuthority::load(certificate, key)?))
            }
            _ => None,
        };
        let root_ca = match &options.root_ca_file {
            Some(path) => Some(values::file("--root-ca-file", path)?),
            None => config.certificate_authority.clone(),
        };
        if let Some(path) = &options.service_account_private_key_file {
            values::file("--service-account-private-key-file", path)?;
        }
        if options.allocate_node_cidrs && options.cluster_cidr.is_empty() {
            return Err(Failure::new("--allocate-node-cidrs needs --cluster-cidr"));
        }
        Ok(Self {
            client: Arc::new(RemoteClient::new(&config, env)?),
            env: env.clone(),
            options,
            config,
            signers,
            root_ca,
        })
    }

    /// A manager of all controllers, those that do not run by default, too.
    fn builder(&self) -> Result<Builder, Failure> {
        let (manager, config, env) = (self.client.clone(), self.config.clone(), self.env.clone());
        let own = self.options.use_service_account_credentials;
        let client_for = move |name: &str| -> Arc<dyn Client> {
            if name == MANAGER_IDENTITY || !own {
                manager.clone()
            } else {
                Arc::new(Account::new(name, manager.clone(), &config, &env))
            }
        };
        let mut builder = ControllerManager::builder(client_for, self.env.clone())
            .catalog(Discovery(self.client.clone()))
            .with_defaults()
            .bootstrap_tokens();
        if let Some(authority) = &self.signers {
            builder = builder.signers(Signers::all(authority.clone()));
        }
        if let Some(pem) = &self.root_ca {
            builder = builder.root_ca(pem.as_str());
        }
        if self.options.allocate_node_cidrs {
            let mut ipam = NodeIpamOptions::new(self.options.cluster_cidr.iter().copied());
            ipam.service_cidrs
                .clone_from(&self.options.service_cluster_ip_range);
            builder = builder.node_ipam(NodeIpamController::new(&ipam)?);
        }
        Ok(builder)
    }
}

/// Runs until told to stop, or until another one works.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let stop = Stop::on_signals_or_parent(options.exit_with_parent)?;
    let env = Env::tokio();
    let config = client_config(options.kubeconfig.as_deref())?;
    let election = options.election.options(MANAGER_IDENTITY, &env)?;
    let elected = election.is_some();
    let parts = Parts::read(options, config, &env)?;

    let all = parts.builder()?.build()?;
    let known: Vec<String> = all.names().into_iter().map(str::to_owned).collect();
    let mut registry = Registry::default();
    let mut builder = parts.builder()?.metrics(&mut registry);
    for name in left_out(&parts.options.controllers, &known)? {
        builder = builder.without(&name);
    }
    if let Some(election) = election {
        builder = builder.leader_election(election);
    }
    let manager = builder.build()?;

    let tasks = TaskGroup::new(env.clone());
    let (serving, port) = (&parts.options.serving, parts.options.secure_port);
    let client: Arc<dyn Client> = parts.client.clone();
    serving
        .serve(port, MANAGER_IDENTITY, registry, client, &tasks)
        .await?;
    println!(
        "orlop controller-manager: {} controllers for {}",
        manager.names().len(),
        parts.config.server
    );

    let token = CancelToken::new();
    let (work, stop) = (
        std::pin::pin!(manager.run(&token)),
        std::pin::pin!(stop.wait()),
    );
    let outcome = match select(work, stop).await {
        Either::Left(((), _)) if elected => Err(lost()),
        Either::Left(((), _)) => Ok(()),
        Either::Right(((), work)) => {
            token.cancel();
            work.await;
            Ok(())
        }
    };
    tasks.shutdown().await;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_chosen_by_name() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let known: Vec<String> = texts(&["a", "b", OFF[0]]);
        let out = |said: &[&str]| left_out(&texts(said), &known).unwrap();
        assert_eq!(out(&["*"]), [OFF[0]]);
        assert_eq!(out(&["*", "-a"]), ["a", OFF[0]]);
        assert_eq!(out(&["*", OFF[0]]), Vec::<String>::new());
        assert_eq!(out(&["b"]), ["a", OFF[0]]);
        let failure = left_out(&texts(&["-c"]), &known).unwrap_err().to_string();
        assert!(failure.contains("\"c\" is not among a, b"), "{failure}");
    }
}
