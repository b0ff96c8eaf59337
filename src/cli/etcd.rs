//! `orlop etcd`: a store, served to clients of etcd.

mod flags;
mod url;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{ArgAction, Args, ValueEnum};
use futures::future::{BoxFuture, Either, FutureExt, select, select_all};
use orlop::core::env::{CancelToken, Env, TaskGroup};
use orlop::core::store::Store;
use orlop::store::{DurableOptions, DurableStore, EtcdServer, EtcdServerOptions, MemoryStore};
use orlop::wire::listener::ServerTls;
use orlop::wire::pki::{ClientVerifier, KeyAndCertificate};
use tokio::net::{TcpListener, UnixListener};

use self::flags::{CompactionMode, Level};
use self::url::Url;
use super::stop::Stop;
use super::{Failure, directory};

/// The quota of etcd when nothing is said.
const QUOTA: u64 = 2 << 30;

/// What `orlop etcd` can be told. The names are etcd's.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The name of this member
    #[arg(long, value_name = "NAME", default_value = "default")]
    name: String,

    /// Where the data is kept [default: <name>.etcd]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// What keeps the data
    #[arg(long, value_enum, default_value_t = StoreKind::Durable)]
    store: StoreKind,

    /// Where to listen: http://, https:// or unix://; port 0 takes a free one
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://localhost:2379"
    )]
    listen_client_urls: Vec<Url>,

    /// Where clients are told to come [default: where it listens]
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    advertise_client_urls: Vec<String>,

    /// Where to show metrics and health beside where clients come
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    listen_metrics_urls: Vec<Url>,

    /// The server's certificate
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,

    /// The key of the server's certificate
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,

    /// Refuse clients without a certificate of the trusted authority
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    client_cert_auth: bool,

    /// The authority that issued the clients' certificates
    #[arg(long, value_name = "FILE")]
    trusted_ca_file: Option<PathBuf>,

    /// How many bytes the data may take before writes are refused: 0 for 2 GiB, less for no limit
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    quota_backend_bytes: i64,

    /// How auto-compaction-retention is meant
    #[arg(long, value_enum, default_value_t = CompactionMode::Periodic)]
    auto_compaction_mode: CompactionMode,

    /// How much history is kept: a duration (or hours) or a number of revisions; 0 for all that the store keeps
    #[arg(long, value_name = "RETENTION", default_value = "0")]
    auto_compaction_retention: String,

    /// How many operations a transaction may have
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_txn_ops: usize,

    /// How many bytes a request may have
    #[arg(long, value_name = "BYTES", default_value_t = 1_572_864)]
    max_request_bytes: usize,

    /// How often a watch of which nothing is heard is told how far it is
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = flags::duration)]
    experimental_watch_progress_notify_interval: std::time::Duration,

    /// How much to tell
    #[arg(long, value_enum, default_value_t = Level::Info)]
    log_level: Level,

    #[command(flatten)]
    peers: flags::Peers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    /// On disk: acknowledged means written
    Durable,
    /// In memory: gone with the process
    Memory,
}

impl Options {
    /// How much to tell, in the words of the log's filter.
    pub(crate) fn level(&self) -> &'static str {
        self.log_level.filter()
    }

    fn data_dir(&self) -> PathBuf {
        self.data_dir
            .clone()
            .unwrap_or_else(|| PathBuf::from(format!("{}.etcd", self.name)))
    }

    fn tls(&self, env: &Env) -> Result<Option<ServerTls>, Failure> {
        let wanted = self
            .listen_client_urls
            .iter()
            .chain(&self.listen_metrics_urls)
            .any(Url::is_secure);
        let (Some(certificate), Some(key)) = (&self.cert_file, &self.key_file) else {
            if wanted {
                return Err(Failure::new(
                    "an https URL needs --cert-file and --key-file",
                ));
            }
            if self.client_cert_auth {
                tracing::warn!("--client-cert-auth has no effect: no URL is an https one");
            }
            return Ok(None);
        };
        let server = KeyAndCertificate::load(certificate, key)?;
        let clients = match (&self.trusted_ca_file, self.client_cert_auth) {
            // As with etcd: who names an authority wants its certificates.
            (Some(file), _) => {
                let authorities = std::fs::read_to_string(file)
                    .map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
                let verifier = ClientVerifier::required_from_pem(&authorities);
                Some(
                    verifier
                        .map_err(|error| Failure::new(format!("{}: {error}", file.display())))?,
                )
            }
            (None, true) => {
                return Err(Failure::new("--client-cert-auth needs --trusted-ca-file"));
            }
            (None, false) => None,
        };
        let tls = ServerTls::new(&server, clients.as_ref(), env);
        Ok(Some(tls.map_err(|error| {
            let (certificate, key) = (certificate.display(), key.display());
            Failure::new(format!("{certificate}, {key}: {error}"))
        })?))
    }
}

/// Runs until told to stop.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let stop = Stop::on_signals()?;
    let env = Env::tokio();
    if let Some(members) = options.peers.others() {
        return Err(Failure::new(format!(
            "--initial-cluster names {members} members, but this server is a cluster of its own"
        )));
    }
    options.peers.warn();
    let tls = options.tls(&env)?;
    let mut served = EtcdServerOptions::new(&options.name);
    served.auto_compaction = flags::compaction(
        options.auto_compaction_mode,
        &options.auto_compaction_retention,
    )?;
    served.max_txn_ops = options.max_txn_ops;
    served.max_request_bytes = options.max_request_bytes;
    served.progress_interval = options.experimental_watch_progress_notify_interval;
    served.peer_urls = options.peers.urls();
    served.quota_bytes = match u64::try_from(options.quota_backend_bytes) {
        Ok(0) => Some(QUOTA),
        Ok(bytes) => Some(bytes),
        Err(_) => None,
    };

    let mut clients = Vec::new();
    for url in &options.listen_client_urls {
        clients.push(Socket::bind(url, tls.as_ref()).await?);
    }
    let mut metrics = Vec::new();
    for url in &options.listen_metrics_urls {
        metrics.push(Socket::bind(url, tls.as_ref()).await?);
    }
    served.client_urls = if options.advertise_client_urls.is_empty() {
        clients.iter().map(|socket| socket.url.clone()).collect()
    } else {
        options.advertise_client_urls.clone()
    };

    let (store, durable): (Arc<dyn Store>, _) = match options.store {
        StoreKind::Durable => {
            let data = data_directory(&options.data_dir())?;
            served.scratch_dir = data.clone();
            let store = DurableStore::open(&data, DurableOptions::default(), env.clone())
                .map_err(|error| Failure::new(format!("{}: {error}", data.display())))?;
            let store = Arc::new(store);
            served.upkeep = Some(store.clone());
            (store.clone(), Some((store, data)))
        }
        StoreKind::Memory => (Arc::new(MemoryStore::new(env.clone())), None),
    };
    let server = EtcdServer::new(store, served, env.clone());

    let cancel = CancelToken::new();
    let tasks = TaskGroup::with_parent(env.clone(), &cancel);
    let own = (server.clone(), tasks.token());
    tasks.spawn("etcd-upkeep", async move { own.0.run(&own.1).await });
    match &durable {
        Some((_, data)) => println!("data       {}", data.display()),
        None => println!("data       in memory: gone with this process"),
    }
    let mut serving: Vec<BoxFuture<'_, Result<(), Failure>>> = Vec::new();
    for socket in metrics {
        println!("metrics at {}/metrics", socket.url);
        serving.push(socket.serve_pages(&server, &cancel).boxed());
    }
    let urls: Vec<_> = clients.iter().map(|socket| socket.url.clone()).collect();
    for socket in clients {
        serving.push(socket.serve(&server, &cancel).boxed());
    }
    println!("etcd is served at {}", urls.join(","));

    let (first, mut rest) = match select(select_all(serving), std::pin::pin!(stop.wait())).await {
        Either::Left(((result, _, rest), _)) => (Some(result), rest),
        Either::Right(((), serving)) => {
            eprintln!("orlop: stopping");
            (None, serving.into_inner())
        }
    };
    cancel.cancel();
    let mut result = first.unwrap_or(Ok(()));
    for serving in rest.drain(..) {
        result = result.and(serving.await);
    }
    tasks.shutdown().await;
    if let Some((store, _)) = durable {
        store.close().await;
    }
    result
}

/// The directory of the data, made if it is not there.
fn data_directory(path: &Path) -> Result<PathBuf, Failure> {
    if path.join("member").join("snap").exists() {
        return Err(Failure::new(format!(
            "{} holds the data of an etcd, which has another format: choose another --data-dir",
            path.display()
        )));
    }
    directory::make(path)
}

/// Where clients come.
struct Socket {
    url: String,
    kind: Kind,
}

enum Kind {
    Tcp(TcpListener, Option<ServerTls>),
    Unix(UnixListener),
}

impl Socket {
    async fn bind(url: &Url, tls: Option<&ServerTls>) -> Result<Self, Failure> {
        let failed =
            |error: std::io::Error| Failure::new(format!("cannot listen at {url}: {error}"));
        match url {
            Url::Unix(path) => Ok(Self {
                url: url.to_string(),
                kind: Kind::Unix(unix(path).map_err(failed)?),
            }),
            Url::Tcp { secure, host, port } => {
                let socket = TcpListener::bind((host.as_str(), *port))
                    .await
                    .map_err(failed)?;
                let address = socket.local_addr()?;
                if !secure && !address.ip().is_loopback() {
                    tracing::warn!(%url, "whoever reaches this address can read and write everything");
                }
                let actual = Url::Tcp {
                    secure: *secure,
                    host: host.clone(),
                    port: address.port(),
                };
                Ok(Self {
                    url: actual.to_string(),
                    kind: Kind::Tcp(socket, tls.filter(|_| *secure).cloned()),
                })
            }
        }
    }

    async fn serve(self, server: &EtcdServer, cancel: &CancelToken) -> Result<(), Failure> {
        match self.kind {
            Kind::Tcp(socket, tls) => server.serve(socket, tls, cancel).await?,
            Kind::Unix(socket) => server.serve_unix(socket, cancel).await?,
        }
        Ok(())
    }

    async fn serve_pages(self, server: &EtcdServer, cancel: &CancelToken) -> Result<(), Failure> {
        match self.kind {
            Kind::Tcp(socket, tls) => server.serve_pages(socket, tls, cancel).await?,
            Kind::Unix(socket) => server.serve_unix(socket, cancel).await?,
        }
        Ok(())
    }
}

/// A socket in the file system, which what an earlier process left must not keep away.
fn unix(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt;
    match UnixListener::bind(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let stale = std::fs::symlink_metadata(path)?.file_type().is_socket()
                && std::os::unix::net::UnixStream::connect(path).is_err();
            if !stale {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}
