//! `orlop apiserver`: kube-apiserver as a process of its own.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use orlop::apiserver::authentication::{DEFAULT_ISSUER, SigningKey, VerifyingKey};
use orlop::apiserver::bootstrap::KUBELET_CLIENT;
use orlop::apiserver::{ApiServer, ServiceRange};
use orlop::core::env::{Env, TaskGroup};
use orlop::core::network::Cidr;
use orlop::store::layers::{Metered, StoreMetrics};
use orlop::wire::listener::{Listener, ServerTls};
use orlop::wire::pki::{ClientVerifier, ClusterPki, ClusterPkiOptions, KeyAndCertificate};
use orlop::{KubeletDialer, ServingAt};
use prometheus_client::registry::Registry;

use super::encryption::EncryptionFlags;
use super::kubeconfigs::Kubeconfigs;
use super::stop::Stop;
use super::store::{EtcdFlags, StoreKind};
use super::{Failure, directory, kubelet, store, up, values};

/// How long the certificate for kubelets is good for: it is made anew at every start.
const VALIDITY: Duration = Duration::from_secs(365 * 86_400);

/// What `orlop apiserver` can be told. The names are kube-apiserver's, but for --data-dir and --store.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where certificates and keys are that no other flag names, made at the first start; kubeconfigs are written there
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// What keeps the objects: durable (on disk, in --data-dir), memory (gone with the process), etcd=URL[,URL…] (a cluster of etcd)
    /// [default: --etcd-servers, or else durable]
    #[arg(long, value_name = "STORE", conflicts_with = "etcd_servers")]
    store: Option<StoreKind>,

    /// The client URLs of a cluster of etcd
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    etcd_servers: Vec<String>,

    #[command(flatten)]
    etcd: EtcdFlags,

    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    bind_address: IpAddr,

    /// The port to listen at; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    secure_port: u16,

    /// The address by which others reach this server: behind the Service kubernetes [default: --bind-address, or else that of the
    /// interface with the default route]
    #[arg(long, value_name = "ADDRESS")]
    advertise_address: Option<IpAddr>,

    /// The certificate to serve with
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,

    /// Its key
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,

    /// Whose client certificates are believed
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,

    /// Who signs service account tokens
    #[arg(long, value_name = "URL", default_value = DEFAULT_ISSUER)]
    service_account_issuer: String,

    /// The key that signs them
    #[arg(long, value_name = "FILE")]
    service_account_signing_key_file: Option<PathBuf>,

    /// More keys, public or private, by which they are believed
    #[arg(long, value_name = "FILE")]
    service_account_key_file: Vec<PathBuf>,

    /// The certificate to show to kubelets
    #[arg(long, value_name = "FILE", requires = "kubelet_client_key")]
    kubelet_client_certificate: Option<PathBuf>,

    /// Its key
    #[arg(long, value_name = "FILE", requires = "kubelet_client_certificate")]
    kubelet_client_key: Option<PathBuf>,

    /// The authorities that sign kubelets' certificates; without, and without --data-dir, any is believed
    #[arg(long, value_name = "FILE")]
    kubelet_certificate_authority: Option<PathBuf>,

    /// The network of the addresses of Services
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/16")]
    service_cluster_ip_range: Cidr,

    /// The ports of Services on nodes
    #[arg(long, value_name = "FIRST-LAST", default_value = "30000-32767", value_parser = values::ports)]
    service_node_port_range: RangeInclusive<u16>,

    /// A file of static tokens: token,user,uid,"group,…"
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,

    /// Let in who brings nothing, as system:anonymous, who may do little
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    anonymous_auth: bool,

    #[command(flatten)]
    encryption: EncryptionFlags,

    /// End when standard input does
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

impl Options {
    fn store(&self) -> StoreKind {
        match (&self.store, self.etcd_servers.is_empty()) {
            (Some(kind), _) => kind.clone(),
            (None, false) => StoreKind::Etcd(self.etcd_servers.clone()),
            (None, true) => StoreKind::Durable,
        }
    }

    fn services(&self) -> Result<ServiceRange, Failure> {
        let cidr = self.service_cluster_ip_range;
        let whole = self.service_cluster_ip_range.to_string();
        let (address, prefix) = whole.split_once('/').unwrap_or_default();
        match (address.parse(), prefix.parse()) {
            (Ok(network), Ok(prefix @ 12..=30)) => Ok(ServiceRange {
                network,
                prefix,
                node_ports: self.service_node_port_range.clone(),
            }),
            (Ok(_), Ok(0..12)) => Err(Failure::new(
                "specified --service-cluster-ip-range is too large; for 32-bit addresses, the mask must be >= 12",
            )),
            _ => Err(Failure::new(format!(
                "--service-cluster-ip-range {cidr}: an IPv4 network of at least four addresses is wanted"
            ))),
        }
    }

    /// The address that others are told.
    fn advertised(&self, bound: IpAddr) -> IpAddr {
        let own = || kubelet::own_addresses().first().copied();
        self.advertise_address
            .or(Some(bound).filter(|ip| !ip.is_unspecified()))
            .or_else(own)
            .unwrap_or(bound)
    }
}

/// Who the server is, and whom it believes.
struct Identity {
    serving: KeyAndCertificate,
    client_ca: Option<String>,
    signing: SigningKey,
    believed: Vec<VerifyingKey>,
    to_kubelets: Option<KeyAndCertificate>,
    kubelet_ca: Option<String>,
}

impl Identity {
    /// By the files that are named, and for the rest by the directory's.
    fn read(options: &Options, pki: Option<&ClusterPki>, env: &Env) -> Result<Self, Failure> {
        let missing = |flags: &str| Failure::new(format!("{flags} or --data-dir is wanted"));
        let pair = |certificate: &Option<PathBuf>, key: &Option<PathBuf>| match (certificate, key) {
            (Some(certificate), Some(key)) => KeyAndCertificate::load(certificate, key).map(Some),
            _ => Ok(None),
        };
        let pem = |flag: &str, path: &Option<PathBuf>| match path {
            Some(path) => values::file(flag, path).map(Some),
            None => Ok(pki.map(|pki| pki.authority.certificate_pem().to_owned())),
        };
        let serving = pair(&options.tls_cert_file, &options.tls_private_key_file)?
            .or_else(|| pki.map(|pki| pki.server.clone()))
            .ok_or_else(|| missing("--tls-cert-file and --tls-private-key-file"))?;
        let flag = "--service-account-signing-key-file";
        let signing = match (&options.service_account_signing_key_file, pki) {
            (Some(path), _) => values::file(flag, path)?,
            (None, Some(pki)) => pki.service_account.key.clone(),
            (None, None) => return Err(missing(flag)),
        };
        let signing = SigningKey::from_pem(&signing)
            .map_err(|error| Failure::new(format!("the service account key: {error}")))?;
        let mut believed = Vec::new();
        for path in &options.service_account_key_file {
            let flag = "--service-account-key-file";
            let keys = VerifyingKey::from_pem(&values::file(flag, path)?);
            believed.extend(
                keys.map_err(|error| Failure::new(format!("{flag} {}: {error}", path.display())))?,
            );
        }
        let named = pair(
            &options.kubelet_client_certificate,
            &options.kubelet_client_key,
        )?;
        let to_kubelets = match (named, pki) {
            (Some(pair), _) => Some(pair),
            (None, Some(pki)) => Some(pki.authority.issue_client(
                KUBELET_CLIENT,
                std::iter::empty::<String>(),
                env.wall(),
                VALIDITY,
            )?),
            (None, None) => None,
        };
        Ok(Self {
            serving,
            client_ca: pem("--client-ca-file", &options.client_ca_file)?,
            signing,
            believed,
            to_kubelets,
            kubelet_ca: pem(
                "--kubelet-certificate-authority",
                &options.kubelet_certificate_authority,
            )?,
        })
    }
}

/// The directory's certificates and keys, for all names that the server has.
fn pki(
    directory: &Path,
    names: &[IpAddr],
    services: &ServiceRange,
    env: &Env,
) -> Result<ClusterPki, Failure> {
    let mut options = ClusterPkiOptions::new().server_name(services.first().to_string().as_str());
    for ip in names.iter().filter(|ip| !ip.is_unspecified()) {
        options = options.server_name(ip.to_string().as_str());
    }
    if let Some(name) = directory::hostname() {
        options = options.server_name(name.as_str());
    }
    Ok(ClusterPki::load_or_create(
        &directory.join("pki"),
        &options,
        env.wall(),
    )?)
}

/// Runs until told to stop.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let mut stop = Stop::on_signals_or_parent(options.exit_with_parent)?;
    let env = Env::tokio();
    let started = env.now();
    let (kind, services) = (options.store(), options.services()?);
    let home = options.data_dir.as_deref().map(directory::make);
    let home = home.transpose()?;
    let lock = home.as_deref().map(directory::lock).transpose()?;
    let socket = up::bind(SocketAddr::new(options.bind_address, options.secure_port)).await?;
    let address = socket.local_addr()?;
    let advertised = SocketAddr::new(options.advertised(address.ip()), address.port());

    let pki = match &home {
        Some(home) => Some(pki(
            home,
            &[address.ip(), advertised.ip()],
            &services,
            &env,
        )?),
        None => None,
    };
    let identity = Identity::read(&options, pki.as_ref(), &env)?;
    let verifier = identity.client_ca.as_deref().map(ClientVerifier::from_pem);
    let tls = ServerTls::new(&identity.serving, verifier.transpose()?.as_ref(), &env)?;
    let dialer = KubeletDialer::new(identity.to_kubelets, identity.kubelet_ca.as_deref(), &env)?;
    let opening = store::open(&kind, &options.etcd, home.as_deref(), &env);
    let Some(store) = stop.unless(opening).await.transpose()? else {
        eprintln!("orlop: stopping");
        return Ok(());
    };

    let encryption = options.encryption.over(store)?;
    let mut metrics = Registry::default();
    let counted = StoreMetrics::register(&mut metrics);
    let store = Metered::new(encryption.store(), env.clone(), counted);
    let mut builder = ApiServer::builder(Arc::new(store), env.clone())
        .more_metrics(metrics)
        .with_defaults()
        .anonymous(options.anonymous_auth)
        .service_accounts(identity.signing, &options.service_account_issuer)
        .service_account_keys(identity.believed)
        .address(advertised.ip(), advertised.port())
        .client_ca(identity.client_ca.as_deref().unwrap_or_default())
        .service_range(services)
        .node_connector(Arc::new(dialer))
        .nodes_join_by_token()
        .not_acted_on(orlop::not_acted_on());
    if let Some(path) = &options.token_auth_file {
        builder = builder.static_tokens(up::read_tokens(path)?);
    }
    let api = builder.start().await?;
    let tasks = TaskGroup::new(env.clone());
    encryption.keep(&env, &tasks);
    let (service, clock, token) = (api.service(), env.clone(), tasks.token());
    tasks.spawn("listener", async move {
        let listener = Listener::tls(tls);
        if let Err(error) = listener.serve(socket, service, &clock, &token).await {
            tracing::error!(%error, "the listener ended");
        }
    });
    let serving = ServingAt { address };
    if let (Some(home), Some(pki)) = (&home, &pki) {
        Kubeconfigs::new(pki, &env)?.write(&serving.url(), home)?;
    }

    println!("Orlop {}: API server", env!("CARGO_PKG_VERSION"));
    println!("  store    {}", store::describe(&kind, home.as_deref()));
    let next = match &home {
        Some(home) => format!(
            "; next: export KUBECONFIG={}",
            up::quoted(&home.join("kubeconfig"))
        ),
        None => String::new(),
    };
    let took = env.now().since(started).as_millis();
    println!("ready in {took} ms at {}{next}", serving.url());

    stop.wait().await;
    eprintln!("orlop: stopping");
    api.begin_shutdown();
    tasks.shutdown().await;
    api.shutdown().await;
    drop(lock);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Options {
        let line = std::iter::once("x").chain(arguments.iter().copied());
        Line::try_parse_from(line).unwrap().options
    }

    #[test]
    fn where_objects_are_kept_is_said_in_two_ways() {
        assert_eq!(options(&[]).store(), StoreKind::Durable);
        let both = StoreKind::Etcd(vec!["http://a:1".to_owned(), "http://b:1".to_owned()]);
        assert_eq!(
            options(&["--etcd-servers", "http://a:1,http://b:1"]).store(),
            both
        );
        assert_eq!(
            options(&["--store", "etcd=http://a:1,http://b:1"]).store(),
            both
        );
        let twice = ["x", "--store", "memory", "--etcd-servers", "http://a:1"];
        assert!(Line::try_parse_from(twice).is_err());
    }

    #[test]
    fn the_network_of_services_must_be_one() {
        let of = |cidr: &str| {
            options(&["--service-cluster-ip-range", cidr])
                .services()
                .map(|range| range.cidr())
                .map_err(|failure| failure.to_string())
        };
        assert_eq!(of("10.0.0.0/24"), Ok("10.0.0.0/24".to_owned()));
        assert!(of("10.0.0.0/8").unwrap_err().contains("too large"));
        assert!(of("10.0.0.0/31").is_err() && of("fd00::/108").is_err());
    }

    #[tokio::test]
    async fn who_brings_no_directory_must_name_the_files() {
        let why = Identity::read(&options(&[]), None, &Env::tokio());
        let Err(why) = why else {
            panic!("it has nothing to serve with");
        };
        assert_eq!(
            why.to_string(),
            "--tls-cert-file and --tls-private-key-file or --data-dir is wanted"
        );
    }
}
