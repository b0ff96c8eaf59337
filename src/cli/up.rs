//! `orlop up`: everything in one process.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use orlop::api::resources;
use orlop::apiserver::authentication::StaticTokens;
use orlop::core::env::Env;
use orlop::core::store::Store;
use orlop::sim::SimulatedNodes;
use orlop::store::{DurableOptions, DurableStore, MemoryStore};
use orlop::wire::kubeconfig::{ClientConfig, Credentials, Kubeconfig};
use orlop::wire::pki::{ClusterPki, ClusterPkiOptions};
use orlop::{ControlPlane, ServingAt};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// How many simulated nodes there are when nothing else is said.
const NODES: usize = 3;

/// What `orlop up` can be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where the cluster is kept: its store, certificates and kubeconfig [default: ~/.local/share/orlop]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6443")]
    listen: SocketAddr,

    /// What keeps the objects
    #[arg(long, value_enum, default_value_t = StoreKind::Durable)]
    store: StoreKind,

    /// What runs the pods
    #[arg(long, value_enum, default_value_t = RuntimeKind::Auto)]
    runtime: RuntimeKind,

    /// How many nodes [default: 3]
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,

    /// Parts to leave out
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    without: Vec<Part>,

    /// A file of static tokens: token,user,uid,"group,…"
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    /// On disk: acknowledged means written
    Durable,
    /// In memory: gone with the process
    Memory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RuntimeKind {
    /// What this machine and this version can do
    Auto,
    /// Simulated nodes: pods look as if they ran
    Sim,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Part {
    /// The scheduler
    Scheduler,
    /// All controllers
    ControllerManager,
    /// The nodes
    Nodes,
}

/// Why `orlop up` gives up: one line for a person.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let more = cause.to_string();
            if !text.contains(&more) {
                text.push_str(": ");
                text.push_str(&more);
            }
            source = cause.source();
        }
        Self(text)
    }
}

fn failure(text: impl Into<String>) -> Failure {
    Failure(text.into())
}

/// Runs until told to stop.
pub(crate) fn run(options: Options) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(up(options))
}

async fn up(options: Options) -> Result<(), Failure> {
    let env = Env::tokio();
    let started = env.now();
    // Signals are caught before anything is there that a signal could leave half done.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let directory = match options.data_dir {
        Some(directory) => directory,
        None => default_directory()?,
    };
    let directory = make_directory(&directory)?;
    let lock = lock(&directory)?;
    let tokens = options
        .token_auth_file
        .as_deref()
        .map(read_tokens)
        .transpose()?;
    let socket = TcpListener::bind(options.listen)
        .await
        .map_err(|error| failure(format!("cannot listen at {}: {error}", options.listen)))?;
    let address = socket.local_addr()?;

    let names = ClusterPkiOptions::new().server_name(address.ip().to_string().as_str());
    let names = match hostname() {
        Some(name) => names.server_name(name.as_str()),
        None => names,
    };
    let pki = ClusterPki::load_or_create(&directory.join("pki"), &names, env.wall())?;
    let store: Arc<dyn Store> = match options.store {
        StoreKind::Durable => Arc::new(DurableStore::open(
            directory.join("store"),
            DurableOptions::default(),
            env.clone(),
        )?),
        StoreKind::Memory => Arc::new(MemoryStore::new(env.clone())),
    };

    let without: BTreeSet<Part> = options.without.into_iter().collect();
    let mut builder = ControlPlane::builder()
        .env(env.clone())
        .shared_store(store)
        .with_defaults()
        .pki(pki)
        .advertise(address);
    if let Some(tokens) = tokens {
        builder = builder.static_tokens(tokens);
    }
    if without.contains(&Part::Scheduler) {
        builder = builder.without_scheduler();
    }
    if without.contains(&Part::ControllerManager) {
        builder = builder.without_controllers();
    }
    let nodes = if without.contains(&Part::Nodes) {
        0
    } else {
        options.nodes.unwrap_or(NODES)
    };
    if nodes > 0 {
        builder = builder.simulated_nodes(SimulatedNodes::new(nodes));
    }
    let plane = builder.start().await?;
    let serving = plane.serve(socket)?;
    let kubeconfig = directory.join("kubeconfig");
    write_kubeconfig(&plane, serving, &kubeconfig)?;

    say(&directory, options.store, options.runtime, nodes, &without);
    let took = env.now().since(started);
    println!(
        "ready in {} ms at {}; next: export KUBECONFIG={}",
        took.as_millis(),
        serving.url(),
        kubeconfig.display()
    );

    let why = futures::future::select(Box::pin(terminate.recv()), Box::pin(interrupt.recv())).await;
    drop(why);
    eprintln!("orlop: stopping");
    plane.shutdown().await;
    drop(lock);
    Ok(())
}

/// Says what was chosen and why.
fn say(
    directory: &Path,
    store: StoreKind,
    runtime: RuntimeKind,
    nodes: usize,
    without: &BTreeSet<Part>,
) {
    let kinds = resources::builtin()
        .iter()
        .filter(|info| info.is_stored())
        .count();
    println!(
        "Orlop {}: Kubernetes v1.36, {kinds} resources",
        env!("CARGO_PKG_VERSION")
    );
    match store {
        StoreKind::Durable => println!(
            "  store    durable, in {}: what is acknowledged is on disk",
            directory.join("store").display()
        ),
        StoreKind::Memory => println!("  store    in memory: everything is gone with this process"),
    }
    if nodes == 0 {
        println!("  nodes    none");
    } else {
        let why = match runtime {
            RuntimeKind::Auto => "chosen because this version has no other runtime yet",
            RuntimeKind::Sim => "as asked",
        };
        println!(
            "  nodes    {nodes}, simulated ({why}): they run nothing, pods only look as if they ran"
        );
    }
    for part in without {
        let part = match part {
            Part::Scheduler => "scheduler: pods stay pending",
            Part::ControllerManager => "controller-manager: nothing acts on what is written",
            Part::Nodes => continue,
        };
        println!("  without  {part}");
    }
}

/// Where the cluster is kept when nothing is said.
fn default_directory() -> Result<PathBuf, Failure> {
    let base = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let base = base
        .or_else(home)
        .ok_or_else(|| failure("neither HOME nor XDG_DATA_HOME is set: say --data-dir"))?;
    Ok(base.join("orlop"))
}

fn make_directory(directory: &Path) -> Result<PathBuf, Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let show = |error: std::io::Error| {
        failure(format!(
            "cannot use the directory {}: {error}",
            directory.display()
        ))
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(show)?;
    directory.canonicalize().map_err(show)
}

/// Keeps a second process out of the directory for as long as the file is open.
fn lock(directory: &Path) -> Result<std::fs::File, Failure> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = directory.join("lock");
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| {
            failure(format!(
                "cannot write to the directory {}: {error}",
                directory.display()
            ))
        })?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(failure(format!(
            "another orlop uses the directory {}",
            directory.display()
        ))),
        Err(error) => Err(failure(format!("cannot lock {}: {error}", path.display()))),
    }
}

fn read_tokens(file: &Path) -> Result<StaticTokens, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        failure(format!(
            "cannot read --token-auth-file {}: {error}",
            file.display()
        ))
    })?;
    StaticTokens::parse(&text, &[])
        .map_err(|error| failure(format!("--token-auth-file {}: {error}", file.display())))
}

/// The machine's name, if it has one that a certificate can carry.
fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim().to_lowercase();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}

fn write_kubeconfig(plane: &ControlPlane, serving: ServingAt, path: &Path) -> Result<(), Failure> {
    let credentials = Credentials {
        certificate: Some(plane.pki().admin.clone()),
        ..Credentials::default()
    };
    let config = Kubeconfig::for_cluster(
        "orlop",
        &serving.url(),
        Some(plane.pki().authority.certificate_pem()),
        "kubernetes-admin",
        &credentials,
    );
    config.store(path)?;
    // What was written must be what a client reads.
    let _: ClientConfig = Kubeconfig::load(path)?.resolve(None)?;
    Ok(())
}
