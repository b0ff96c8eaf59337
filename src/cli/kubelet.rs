//! `orlop kubelet`: the node agent as a process of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use clap::Args;
use futures::future::{Either, select};
use orlop::core::client::{Answer, Client, Request};
use orlop::core::env::{CancelToken, Env, TaskGroup};
use orlop::core::status::Status;
use orlop::kubelet::agent::NodeAgent;
use orlop::kubelet::certificates::{self, CertificateManager, CertificateStore, Purpose};
use orlop::kubelet::config::KubeletConfig;
use orlop::kubelet::config_file;
use orlop::runtime_cri::CriRuntime;
use orlop::wire::kubeconfig::{ClientConfig, Kubeconfig};
use orlop::wire::listener::ServerTls;
use orlop::wire::pki::{ClientVerifier, KeyAndCertificate, SubjectName};
use orlop::wire::remote::RemoteClient;
use parking_lot::RwLock;
use tokio::net::TcpListener;

use super::stop::Stop;
use super::{Failure, directory};

/// What `orlop kubelet` can be told. The names are the kubelet's.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How to reach the API server and who to be; with --bootstrap-kubeconfig it is written here
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,

    /// How to reach the API server the first time, with a bootstrap token: a certificate is asked for, and renewed in time
    #[arg(long, value_name = "FILE")]
    bootstrap_kubeconfig: Option<PathBuf>,

    /// Where certificates that were asked for are kept [default: pki in --root-dir]
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,

    /// Ask for the serving certificate, too, instead of signing one oneself; it has to be approved
    #[arg(long)]
    rotate_server_certificates: bool,

    /// A file of Kubernetes' KubeletConfiguration; what the command line says comes before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The engine's endpoint of CRI
    #[arg(
        long,
        value_name = "ENDPOINT",
        default_value = "unix:///run/containerd/containerd.sock"
    )]
    container_runtime_endpoint: String,

    /// The name of the Node [default: the host's name]
    #[arg(long, value_name = "NAME")]
    hostname_override: Option<String>,

    /// The addresses of the node, the main one first [default: that of the interface with the default route]
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    node_ip: Vec<IpAddr>,

    /// Labels to register the Node with
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    node_labels: Vec<String>,

    /// Where to listen [default: 0.0.0.0]
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,

    /// The port to listen at [default: 10250]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,

    /// Where volumes of pods are [default: /var/lib/kubelet]
    #[arg(long, value_name = "DIR")]
    root_dir: Option<PathBuf>,

    /// Where logs of pods are [default: /var/log/pods]
    #[arg(long, value_name = "DIR")]
    pod_logs_dir: Option<PathBuf>,

    /// A directory of manifests of pods that run without the API
    #[arg(long, value_name = "DIR")]
    pod_manifest_path: Option<PathBuf>,

    /// The cgroup that all others are in
    #[arg(long, value_name = "PATH")]
    cgroup_root: Option<String>,

    /// When pods are driven out: memory.available<100Mi,nodefs.available<10%,…; what is not named is not looked at
    #[arg(long, value_name = "SIGNAL<QUANTITY", value_delimiter = ',')]
    eviction_hard: Option<Vec<String>>,

    /// Percent of the disk of images at which unused ones are removed; 100 for never [default: 85]
    #[arg(long, value_name = "PERCENT")]
    image_gc_high_threshold: Option<u8>,

    /// Name servers for pods
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    cluster_dns: Vec<IpAddr>,

    /// The domain of the cluster [default: cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    cluster_domain: Option<String>,

    /// The most pods [default: 110]
    #[arg(long, value_name = "N")]
    max_pods: Option<u32>,

    /// The certificate to serve with
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,

    /// Its key
    #[arg(long, value_name = "FILE")]
    tls_private_key_file: Option<PathBuf>,

    /// Whose client certificates are believed
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,

    /// End when standard input does
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

fn labels(pairs: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |text: &String| {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("--node-labels: {text:?} is not KEY=VALUE")))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    pairs.iter().map(pair).collect()
}

fn thresholds(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |text: &String| {
        let (signal, quantity) = text.split_once('<').ok_or_else(|| {
            Failure::new(format!("--eviction-hard: {text:?} is not SIGNAL<QUANTITY"))
        })?;
        Ok((signal.to_owned(), quantity.to_owned()))
    };
    let named = texts.iter().filter(|text| !text.is_empty());
    named.map(pair).collect()
}

/// The configuration: the defaults, the file over them, the command line over both. Whether a serving certificate is to be asked for
/// stands beside it.
fn configuration(options: &Options) -> Result<(KubeletConfig, bool), Failure> {
    let name = options
        .hostname_override
        .clone()
        .or_else(directory::hostname);
    let name =
        name.ok_or_else(|| Failure::new("this machine has no name: say --hostname-override"))?;
    let mut config = KubeletConfig::new(name);
    let mut ask = options.rotate_server_certificates || options.bootstrap_kubeconfig.is_some();
    if let Some(path) = &options.config {
        let mut rest = config_file::load(path, &mut config)?;
        if let Some(asked) = rest.remove("serverTLSBootstrap") {
            ask |= asked == true;
        }
        rest.remove("containerRuntimeEndpoint");
        for field in rest.keys() {
            tracing::warn!(field, file = %path.display(), "is not acted on");
        }
    }
    fn put<T: Clone>(place: &mut T, said: &Option<T>) {
        if let Some(value) = said {
            place.clone_from(value);
        }
    }
    fn put_all<T: Clone>(place: &mut Vec<T>, said: &[T]) {
        if !said.is_empty() {
            *place = said.to_vec();
        }
    }
    put_all(&mut config.node_ips, &options.node_ip);
    put_all(&mut config.cluster_dns, &options.cluster_dns);
    config.node_labels.extend(labels(&options.node_labels)?);
    config
        .listen
        .set_ip(options.address.unwrap_or(config.listen.ip()));
    config
        .listen
        .set_port(options.port.unwrap_or(config.listen.port()));
    put(&mut config.root_dir, &options.root_dir);
    put(&mut config.pod_logs_dir, &options.pod_logs_dir);
    if options.pod_manifest_path.is_some() {
        config
            .static_pod_path
            .clone_from(&options.pod_manifest_path);
    }
    put(&mut config.cgroup_root, &options.cgroup_root);
    put(&mut config.cluster_domain, &options.cluster_domain);
    put(&mut config.max_pods, &options.max_pods);
    put(
        &mut config.image_gc_high_threshold_percent,
        &options.image_gc_high_threshold,
    );
    if let Some(texts) = &options.eviction_hard {
        config.eviction_hard = thresholds(texts)?;
    }
    adapt(&mut config);
    Ok((config, ask))
}

/// What follows from the machine.
pub(super) fn adapt(config: &mut KubeletConfig) {
    config.restrict_oom_score_adj = !super::nodes::may_lower_oom_scores();
    if config.pod_logs_dir != Path::new("/var/log/pods") {
        // A node beside others on one machine: the machine's own directory of links is not its own.
        config.container_logs_dir = None;
    }
}

/// A client that becomes another one when its certificate is renewed.
struct Renewed(RwLock<Arc<dyn Client>>);

#[async_trait]
impl Client for Renewed {
    async fn call(&self, request: Request) -> Result<Answer, Status> {
        let client = self.0.read().clone();
        client.call(request).await
    }
}

/// Who this node is to the API server: what the kubeconfig says, or by a certificate that is asked for with the bootstrap token and then
/// renewed.
async fn identity(
    options: &Options,
    config: &KubeletConfig,
    certificates: &Path,
    tasks: &TaskGroup,
) -> Result<Arc<Renewed>, Failure> {
    let env = tasks.env();
    let remote = |config: &ClientConfig| {
        RemoteClient::new(config, env).map(|client| Arc::new(client) as Arc<dyn Client>)
    };
    let Some(bootstrap) = &options.bootstrap_kubeconfig else {
        let known = Kubeconfig::load(&options.kubeconfig)?.resolve(None)?;
        return Ok(Arc::new(Renewed(RwLock::new(remote(&known)?))));
    };
    let store = CertificateStore::client(certificates);
    let own = match certificates::known(&options.kubeconfig, env.wall()) {
        // The token may have expired and its file be gone since: it is not needed any more.
        Some(known) => known,
        None => {
            let server = Kubeconfig::load(bootstrap)?.resolve(None)?;
            let asking = remote(&server)?;
            let (name, path) = (&config.node_name, &options.kubeconfig);
            certificates::bootstrap(env, &asking, &server, name, &store, path).await?
        }
    };
    let client = Arc::new(Renewed(RwLock::new(remote(&own)?)));
    let (source, renewed) = (client.clone(), client.clone());
    let (clock, base) = (env.clone(), own);
    let manager = CertificateManager::new(
        env.clone(),
        &config.node_name,
        Purpose::Client,
        store,
        Arc::new(move || source.0.read().clone()),
        Arc::new(move |pair| {
            let mut config = base.clone();
            config.credentials.certificate = Some(pair.clone());
            match RemoteClient::new(&config, &clock) {
                Ok(client) => *renewed.0.write() = Arc::new(client),
                Err(error) => tracing::error!(%error, "the new certificate cannot be used"),
            }
        }),
    );
    let stop = tasks.token();
    tasks.spawn("client certificate", async move { manager.run(stop).await });
    Ok(client)
}

/// What the node serves with: the certificate that was given, one that it asks for, or one of its own making until then.
async fn serving(
    options: &Options,
    config: &KubeletConfig,
    certificates: &Path,
    ask: bool,
    client: &Arc<Renewed>,
    tasks: &TaskGroup,
) -> Result<ServerTls, Failure> {
    let env = tasks.env();
    let authority = match &options.client_ca_file {
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
            Failure::new(format!("--client-ca-file {}: {error}", path.display()))
        })?),
        // It is there by now, even if it was not when this process began.
        None => {
            let known = Kubeconfig::load(&options.kubeconfig)?.resolve(None)?;
            known.certificate_authority
        }
    };
    let clients = authority
        .as_deref()
        .map(ClientVerifier::from_pem)
        .transpose()?;
    if let (Some(certificate), Some(key)) = (&options.tls_cert_file, &options.tls_private_key_file)
    {
        let pair = KeyAndCertificate::load(certificate, key)?;
        return Ok(ServerTls::new(&pair, clients.as_ref(), env)?);
    }
    let mut names = vec![SubjectName::from(config.node_name.as_str())];
    names.extend(config.node_ips.iter().map(|ip| SubjectName::Ip(*ip)));
    let own = certificates::self_signed(certificates, &config.node_name, &names, env.wall())?;
    let tls = ServerTls::new(&own, clients.as_ref(), env)?;
    if ask {
        let (source, shown) = (client.clone(), tls.clone());
        let manager = CertificateManager::new(
            env.clone(),
            &config.node_name,
            Purpose::Serving(names),
            CertificateStore::serving(certificates),
            Arc::new(move || source.0.read().clone()),
            Arc::new(move |pair| {
                if let Err(error) = shown.replace(pair) {
                    tracing::error!(%error, "the new serving certificate cannot be used");
                }
            }),
        );
        let stop = tasks.token();
        tasks.spawn(
            "serving certificate",
            async move { manager.run(stop).await },
        );
    }
    Ok(tls)
}

/// Runs until told to stop. What runs on the node goes on.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let stop = Stop::on_signals_or_parent(options.exit_with_parent)?;
    let env = Env::tokio();
    let (mut config, ask) = configuration(&options)?;
    if config.node_ips.is_empty() {
        config.node_ips = own_addresses();
    }
    let tasks = TaskGroup::new(env.clone());
    let certificates = match &options.cert_dir {
        Some(directory) => directory.clone(),
        None => config.root_dir.join("pki"),
    };
    std::fs::create_dir_all(&certificates)
        .map_err(|error| Failure::new(format!("cannot use {}: {error}", certificates.display())))?;
    let client = identity(&options, &config, &certificates, &tasks).await?;
    let tls = serving(&options, &config, &certificates, ask, &client, &tasks).await?;
    let runtime = CriRuntime::connect(&options.container_runtime_endpoint, env.clone()).await?;
    let socket = TcpListener::bind(config.listen)
        .await
        .map_err(|error| Failure::new(format!("cannot listen at {}: {error}", config.listen)))?;
    let agent = NodeAgent::new(client, Arc::new(runtime), env, config).await?;
    agent.serve(socket, tls);
    let token = CancelToken::new();
    let (work, stop) = (
        std::pin::pin!(agent.run(&token)),
        std::pin::pin!(stop.wait()),
    );
    let ended = match select(work, stop).await {
        Either::Left((ended, _)) => ended,
        Either::Right(((), work)) => {
            token.cancel();
            work.await
        }
    };
    tasks.shutdown().await;
    Ok(ended?)
}

/// The addresses of this machine by which others reach it, the main one first.
pub(crate) fn own_addresses() -> Vec<IpAddr> {
    orlop::kubelet::node::detect_address().into_iter().collect()
}
