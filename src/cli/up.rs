//! `orlop up`: everything in one process.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use orlop::ControlPlane;
use orlop::api::resources;
use orlop::apiserver::authentication::StaticTokens;
use orlop::core::client::{DeleteOptions, ListOptions};
use orlop::core::env::{Env, TaskGroup};
use orlop::core::resource::Resource;
use orlop::sim::SimulatedNodes;
use orlop::wire::pki::{ClusterPki, ClusterPkiOptions};
use tokio::net::TcpListener;

use super::encryption::EncryptionFlags;
use super::kubeconfigs::Kubeconfigs;
use super::nodes::Machine;
use super::stop::Stop;
use super::store::{EtcdFlags, StoreKind};
use super::{Failure, directory, election, host, kubelet, nodes, store};

const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");

/// How many simulated nodes there are when nothing else is said.
const SIMULATED_NODES: usize = 3;
/// How many real ones.
const REAL_NODES: usize = 1;

/// What `orlop up` can be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where the cluster is kept: its store, certificates and kubeconfig [default: ~/.local/share/orlop]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6443")]
    listen: SocketAddr,

    /// What keeps the objects: durable (on disk, in the directory), memory (gone with the process), etcd=URL[,URL…] (a cluster of etcd)
    #[arg(long, value_name = "STORE", default_value_t = StoreKind::Durable)]
    store: StoreKind,

    #[command(flatten)]
    etcd: EtcdFlags,

    /// What runs the pods: auto (containerd where this machine has what it takes, else sim), sim (nodes that run nothing), containerd
    /// (nodes in network namespaces, each with a containerd of its own), cri=SOCKET (this machine as one node, with the engine there)
    #[arg(long, value_name = "RUNTIME", default_value = "auto")]
    runtime: RuntimeKind,

    /// How many nodes [default: 3; 1 with containerd]
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,

    /// How many simulated nodes stand beside real ones
    #[arg(long, value_name = "N", default_value_t = 0)]
    simulated_nodes: usize,

    /// Archives of images to be put into the engines of nodes
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    images: Vec<PathBuf>,

    /// Parts to leave out
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    without: Vec<Part>,

    /// A file of static tokens: token,user,uid,"group,…"
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,

    #[command(flatten)]
    encryption: EncryptionFlags,
}

/// What runs the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RuntimeKind {
    /// What this machine can do.
    Auto,
    /// Simulated nodes.
    Simulated,
    /// Nodes in network namespaces, each with a containerd of its own.
    Containerd,
    /// This machine as one node, with the engine that listens at an endpoint of CRI.
    Cri(String),
}

impl FromStr for RuntimeKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "sim" | "simulated" => Ok(Self::Simulated),
            "containerd" => Ok(Self::Containerd),
            other => match other.strip_prefix("cri=") {
                Some(endpoint) if !endpoint.is_empty() => Ok(Self::Cri(endpoint.to_owned())),
                _ => Err("one of auto, sim, containerd or cri=SOCKET is wanted".to_owned()),
            },
        }
    }
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

/// What the nodes are, and why.
#[derive(Debug)]
struct Plan {
    real: Real,
    simulated: usize,
    why: String,
}

/// The nodes that run something.
#[derive(Debug, PartialEq, Eq)]
enum Real {
    None,
    /// So many in network namespaces.
    Namespaces(usize),
    /// This machine, with the engine that listens there.
    Host(String),
}

impl Plan {
    fn make(options: &Options) -> Result<Self, Failure> {
        let nothing = |why: &str| Self {
            real: Real::None,
            simulated: 0,
            why: why.to_owned(),
        };
        if options.without.contains(&Part::Nodes) || options.nodes == Some(0) {
            return Ok(nothing("as asked"));
        }
        let simulated = |why: String| Self {
            real: Real::None,
            simulated: options.nodes.unwrap_or(SIMULATED_NODES),
            why,
        };
        let real = |real: Real, why: &str| Self {
            real,
            simulated: options.simulated_nodes,
            why: why.to_owned(),
        };
        let namespaces = Real::Namespaces(options.nodes.unwrap_or(REAL_NODES));
        match &options.runtime {
            RuntimeKind::Simulated => Ok(simulated("as asked".to_owned())),
            RuntimeKind::Cri(_) if options.nodes.is_some_and(|nodes| nodes > 1) => {
                Err(Failure::new(
                    "--runtime cri=SOCKET makes this machine one node; --runtime containerd makes several",
                ))
            }
            RuntimeKind::Cri(endpoint) => Ok(real(Real::Host(endpoint.clone()), "as asked")),
            RuntimeKind::Containerd => match nodes::possible() {
                Ok(()) => Ok(real(namespaces, "as asked")),
                Err(why) => Err(Failure::new(format!(
                    "no nodes with containerd here: {why}"
                ))),
            },
            RuntimeKind::Auto => Ok(match nodes::possible() {
                Ok(()) => real(namespaces, "chosen because this machine has containerd"),
                Err(why) => simulated(format!(
                    "chosen because there is no containerd to be used: {why}"
                )),
            }),
        }
    }
}

/// Runs until told to stop.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let env = Env::tokio();
    let started = env.now();
    let mut stop = Stop::on_signals()?;

    let plan = Plan::make(&options)?;
    let directory = match options.data_dir {
        Some(directory) => directory,
        None => directory::default()?,
    };
    let directory = directory::make(&directory)?;
    let lock = directory::lock(&directory)?;
    let tokens = options
        .token_auth_file
        .as_deref()
        .map(read_tokens)
        .transpose()?;
    let socket = bind(options.listen).await?;
    let address = socket.local_addr()?;

    let machine = match plan.real {
        Real::Namespaces(count) => Some(Machine::prepare(&directory, count, &env).await?),
        _ => None,
    };
    // Where nodes and pods reach the API server, if that is not where everybody else does.
    let inner = match (&machine, &plan.real) {
        (Some(machine), _) => Some(machine.gateway()),
        (None, Real::Host(_)) => kubelet::own_addresses().first().copied(),
        _ => None,
    };
    let inner = inner.filter(|ip| *ip != address.ip() && !address.ip().is_unspecified());
    let inner = match inner {
        Some(ip) => Some(bind(SocketAddr::new(ip, address.port())).await?),
        None => None,
    };
    let advertised = match &inner {
        Some(socket) => socket.local_addr()?,
        None => address,
    };

    let mut names = ClusterPkiOptions::new().server_name(address.ip().to_string().as_str());
    names = names.server_name(advertised.ip().to_string().as_str());
    if let Some(name) = directory::hostname() {
        names = names.server_name(name.as_str());
    }
    let pki = ClusterPki::load_or_create(&directory.join("pki"), &names, env.wall())?;
    let kubeconfigs = Kubeconfigs::new(&pki, &env)?;
    let opening = store::open(&options.store, &options.etcd, Some(&directory), &env);
    let Some(store) = stop.unless(opening).await.transpose()? else {
        eprintln!("orlop: stopping");
        return Ok(());
    };
    let encryption = options.encryption.over(store.clone())?;

    let without: BTreeSet<Part> = options.without.into_iter().collect();
    let mut builder = ControlPlane::builder()
        .env(env.clone())
        .shared_store(encryption.store())
        .with_defaults()
        .pki(pki)
        .advertise(advertised);
    if let StoreKind::Etcd(_) = options.store {
        // Others may use the same etcd: one of all schedulers works, and one of all controller managers.
        builder = builder.leader_election(&election::identity(&env));
    }
    if let Some(tokens) = tokens {
        builder = builder.static_tokens(tokens);
    }
    if without.contains(&Part::Scheduler) {
        builder = builder.without_scheduler();
    }
    if without.contains(&Part::ControllerManager) {
        builder = builder.without_controllers();
    }
    if plan.simulated > 0 {
        let mut nodes = SimulatedNodes::new(plan.simulated);
        if let Some(first) = machine.as_ref().map(Machine::beyond_pods) {
            nodes.first_pod_address = first;
        }
        builder = builder.simulated_nodes(nodes);
    }
    if let Some(machine) = &machine {
        builder = builder
            .cluster_cidrs([machine.pods()])
            .controller(machine.routes());
    }
    if let Real::Host(endpoint) = &plan.real {
        builder = builder.node(host::node(endpoint, &directory, &env).await?);
    }
    let plane = builder.start().await?;
    let tasks = TaskGroup::new(env.clone());
    encryption.keep(&env, &tasks);
    // By it `orlop store` and etcd's tools reach the store of a running cluster: as it is on disk, what is encrypted too.
    #[cfg(feature = "etcd")]
    let door = super::door::Door::open(store, &directory, &env)
        .inspect_err(|failure| {
            eprintln!("orlop: {failure}; `orlop store` works when this program has stopped");
        })
        .ok();
    let serving = plane.serve(socket)?;
    if let Some(socket) = inner {
        plane.serve(socket)?;
    }
    let kubeconfig = directory.join("kubeconfig");
    kubeconfigs.write(&serving.url(), &directory)?;
    if let Some(machine) = &machine {
        forget(&plane, machine.removed()).await?;
    }
    let (agents, adopted) = match &machine {
        Some(machine) => {
            let adopted = machine.start_engines(&env, &options.images).await?;
            (Some(machine.start_agents(&plane, advertised)?), adopted)
        }
        None => (None, 0),
    };

    say(&directory, &options.store, &plan, adopted, &without);
    if let Some(machine) = &machine {
        for name in machine.removed() {
            println!(
                "           {name}, which an earlier start made, is gone with all that ran on it"
            );
        }
    }
    if let Some(left) = left_of_earlier(&plan.real, &directory)? {
        println!("           {left}");
    }
    let took = env.now().since(started);
    println!(
        "ready in {} ms at {}; next: export KUBECONFIG={}",
        took.as_millis(),
        serving.url(),
        quoted(&kubeconfig)
    );

    stop.wait().await;
    eprintln!("orlop: stopping");
    if let Some(agents) = agents {
        agents.stop().await;
        eprintln!("orlop: what runs on the nodes goes on; `orlop down` ends it");
    }
    #[cfg(feature = "etcd")]
    if let Some(door) = door {
        door.close().await;
    }
    tasks.shutdown().await;
    plane.shutdown().await;
    drop(lock);
    Ok(())
}

/// A path as a word for a shell.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    if text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::new(format!("cannot listen at {address}: {error}")))
}

/// Deletes the Nodes of these names, and the pods that were on them: they have ended, and nobody else would say so for a while.
async fn forget(plane: &ControlPlane, names: &[String]) -> Result<(), Failure> {
    let admin = plane.admin();
    let nodes = admin.resource(&nodes::NODES);
    for name in names {
        match nodes.delete(name, DeleteOptions::default()).await {
            Err(status) if !status.is_not_found() => return Err(status.into()),
            _ => {}
        }
        let on_it = ListOptions {
            field_selector: format!("spec.nodeName={name}"),
            ..ListOptions::default()
        };
        for pod in admin.resource(&PODS).list(on_it).await?.items {
            let pods = admin.resource(&PODS).namespace(pod.namespace());
            let at_once = DeleteOptions {
                grace_period_seconds: Some(0),
                ..DeleteOptions::default()
            };
            match pods.delete(pod.name(), at_once).await {
                Err(status) if !status.is_not_found() => return Err(status.into()),
                _ => {}
            }
        }
    }
    Ok(())
}

/// What still runs from an earlier start and has nobody who looks after it now.
fn left_of_earlier(real: &Real, directory: &Path) -> Result<Option<String>, Failure> {
    let what = match real {
        Real::Namespaces(_) | Real::None if host::known(directory)?.is_some() => {
            "pods of an earlier start on this machine"
        }
        Real::Host(_) | Real::None if nodes::exist(directory)? => "nodes of an earlier start",
        _ => return Ok(None),
    };
    Ok(Some(format!(
        "{what} are left to themselves; `orlop down` ends them"
    )))
}

/// Says what was chosen and why.
fn say(directory: &Path, store: &StoreKind, plan: &Plan, adopted: usize, without: &BTreeSet<Part>) {
    let kinds = resources::builtin()
        .iter()
        .filter(|info| info.is_stored())
        .count();
    println!(
        "Orlop {}: Kubernetes v1.36, {kinds} resources",
        env!("CARGO_PKG_VERSION")
    );
    println!("  store    {}", store::describe(store, Some(directory)));
    let why = &plan.why;
    match &plan.real {
        Real::None if plan.simulated == 0 => println!("  nodes    none"),
        Real::None => {}
        Real::Namespaces(count) => {
            let adopted = match adopted {
                0 => String::new(),
                adopted => format!("; the engines of {adopted} ran already and are taken over"),
            };
            println!(
                "  nodes    {count} with containerd, in network namespaces ({why}){adopted}; `orlop down` removes them"
            );
        }
        Real::Host(endpoint) => {
            println!(
                "  nodes    this machine, by the engine at {endpoint} ({why}); `orlop down` ends what runs on it"
            );
        }
    }
    match (&plan.real, plan.simulated) {
        (_, 0) => {}
        (Real::None, count) => println!(
            "  nodes    {count}, simulated ({why}): they run nothing, pods only look as if they ran"
        ),
        (_, count) => println!(
            "           and {count} simulated: they run nothing, pods only look as if they ran"
        ),
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

pub(super) fn read_tokens(file: &Path) -> Result<StaticTokens, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::new(format!(
            "cannot read --token-auth-file {}: {error}",
            file.display()
        ))
    })?;
    StaticTokens::parse(&text, &[])
        .map_err(|error| Failure::new(format!("--token-auth-file {}: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_for_a_shell() {
        for (path, word) in [
            ("/tmp/a-b.c/kubeconfig", "/tmp/a-b.c/kubeconfig"),
            ("/tmp/a b/k", "'/tmp/a b/k'"),
            ("/tmp/it's", "'/tmp/it'\\''s'"),
            ("/tmp/$HOME", "'/tmp/$HOME'"),
        ] {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }
}
