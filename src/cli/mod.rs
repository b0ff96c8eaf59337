//! The command line.

mod apiserver;
mod controller_manager;
mod directory;
#[cfg(feature = "etcd")]
mod door;
mod down;
mod election;
mod encryption;
#[cfg(feature = "etcd")]
mod etcd;
mod failure;
mod host;
mod kubeconfigs;
mod kubelet;
mod nodes;
mod pods;
mod proxy;
mod scheduler;
mod serving;
mod snapshots;
mod stop;
mod store;
mod up;
mod values;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use orlop::wire::kubeconfig::{ClientConfig, Kubeconfig};
use tracing_subscriber::EnvFilter;

use self::failure::Failure;

/// Kubernetes as a deck to build on.
#[derive(Debug, Parser)]
#[command(name = "orlop", version, about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a whole cluster on this machine
    Up(Box<up::Options>),
    /// Remove the real nodes of a cluster from this machine, with all that runs on them
    Down(down::Options),
    /// Serve the API over a store
    Apiserver(Box<apiserver::Options>),
    /// Bind pods to nodes
    Scheduler(Box<scheduler::Options>),
    /// Make the cluster what the objects say
    ControllerManager(Box<controller_manager::Options>),
    /// Run the pods that are bound to this node
    Kubelet(Box<kubelet::Options>),
    /// Serve a store to clients of etcd
    #[cfg(feature = "etcd")]
    Etcd(Box<etcd::Options>),
    /// Lead the addresses of Services to their pods, on this node
    Proxy(proxy::Options),
    /// Save the objects of a cluster in a file, and restore them
    Store(snapshots::Options),
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = match &arguments.command {
        #[cfg(feature = "etcd")]
        Command::Etcd(options) => options.level(),
        _ => "warn",
    };
    let filter = EnvFilter::try_from_env("ORLOP_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // A file or a pipe has no use for them; nor has who sets the variable (no-color.org).
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = !unwanted && std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .init();
    let outcome = match arguments.command {
        Command::Up(options) => run(up::run(*options)),
        Command::Down(options) => run(down::run(options)),
        Command::Apiserver(options) => run(apiserver::run(*options)),
        Command::Scheduler(options) => run(scheduler::run(*options)),
        Command::ControllerManager(options) => run(controller_manager::run(*options)),
        Command::Kubelet(options) => run(kubelet::run(*options)),
        #[cfg(feature = "etcd")]
        Command::Etcd(options) => run(etcd::run(*options)),
        Command::Proxy(options) => run(proxy::run(options)),
        Command::Store(options) => run(snapshots::run(options)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("orlop: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// How to reach the API server and who to be: by a kubeconfig, or as a pod is.
fn client_config(kubeconfig: Option<&Path>) -> Result<ClientConfig, Failure> {
    Ok(match kubeconfig {
        Some(path) => Kubeconfig::load(path)?.resolve(None)?,
        None => ClientConfig::in_cluster()?,
    })
}

/// Runs a command that does many things at once.
fn run(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(command);
    // A read of standard input that never ends must not keep the program.
    runtime.shutdown_background();
    outcome
}
