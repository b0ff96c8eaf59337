//! A [`Runtime`](orlop_core::runtime::Runtime) over CRI, the Container Runtime Interface v1: containerd, CRI-O.
//!
//! [`CriRuntime`] is all there is to it. It talks gRPC over a Unix socket, connects by itself, and again when the engine was restarted.
//!
//! ```no_run
//! use orlop_core::env::Env;
//! use orlop_core::runtime::{ContainerConfig, ImageSpec, PullRequest, Runtime, SandboxConfig};
//! use orlop_runtime_cri::CriRuntime;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = CriRuntime::connect("unix:///run/containerd/containerd.sock", Env::tokio()).await?;
//! runtime.pull_image(&PullRequest::new("nginx:1.27")).await?;
//! let sandbox = runtime.run_sandbox(&SandboxConfig::new("default", "web-0", "1f0e")).await?;
//! let config = ContainerConfig::new("web", ImageSpec::new("nginx:1.27"));
//! let container = runtime.create_container(&sandbox, &config).await?;
//! runtime.start_container(&container).await?;
//! println!("{:?}", runtime.sandbox(&sandbox).await?.addresses);
//! # Ok(())
//! # }
//! ```
//!
//! # How CRI becomes the trait
//!
//! * **Lists** are one call. What CRI tells only of a single container or sandbox is looked up once for every state that it
//!   comes into, and remembered, because states never go back.
//! * **Errors** of engines are texts; those of containerd and CRI-O are known, see [`RuntimeError`](orlop_core::runtime::RuntimeError) for
//!   what they become.
//! * **Times**: two minutes a call, four for making a sandbox, two beyond the grace for stopping a container; a pull and a command take
//!   as long as the caller waits. A future that is dropped cancels the call at the engine.
//! * **A command** of `exec_sync` is killed when it is not waited for any more. One of `exec` is not: engines go on running it when its streams
//!   are closed, and CRI has no call to kill it.
//! * **An engine that restarts** is found again: calls fail as unavailable meanwhile, those that only read are made again at once. Its containers
//!   go on.
//! * **What an engine does not offer** (containerd 1.6: events, checkpoints, the cgroup driver) is refused as unsupported. The
//!   statistics of sandboxes are then added up from those of their containers.
//! * **A sandbox remembers what it was made with**, in the annotation `orlop.dev/sandbox-config`, because CRI asks for it again with every
//!   container; it is taken out again where annotations are given back.

mod convert;
mod engine;
mod error;
mod known;
mod messages;
mod refusal;
mod runtime;
mod streaming;

pub use self::error::CriError;
pub use self::runtime::CriRuntime;
