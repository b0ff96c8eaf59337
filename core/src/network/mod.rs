//! The [`NetworkPlugin`]: what connects pods, the fifth of the five joints; and beside it the [`PolicyEnforcer`], which says who may
//! talk to whom.
//!
//! A plug-in gets a sandbox's network namespace and puts an interface with addresses into it; later it takes both back. That is the
//! Container Network Interface's (CNI) view of a network, in Rust terms, and a CNI plug-in fits behind the trait. Services and their
//! virtual addresses are not its concern.
//!
//! Implementations prove themselves with the conformance suites, [`conformance::network`](crate::conformance::network()) and
//! [`conformance::policy`](crate::conformance::policy). [`SimulatedNetwork`](crate::testing::SimulatedNetwork) implements both
//! traits without moving a packet, for tests.
//!
//! ```
//! use orlop_core::network::{NetworkPlugin, SandboxNetwork};
//! use orlop_core::runtime::SandboxId;
//! use orlop_core::testing::SimulatedNetwork;
//!
//! # orlop_core::env::SimEnv::new(0).block_on(async {
//! let network = SimulatedNetwork::new("10.244.1.0/24".parse()?);
//! let sandbox = SandboxNetwork::new(SandboxId::new("a1"), "/run/netns/a1");
//! let attached = network.attach(&sandbox).await?;
//! assert_eq!(attached.ips().next(), Some("10.244.1.2".parse()?));
//! network.detach(&sandbox).await?;
//! # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
//! # }).unwrap();
//! ```

mod address;
mod policy;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use async_trait::async_trait;

pub use self::address::{Cidr, InvalidCidr};
pub use self::policy::{EndpointPolicy, Peer, PolicyEnforcer, PortRange, Rule, Traffic};
use crate::runtime::{DnsConfig, SandboxId};

/// The name of the interface in a sandbox when nothing else is said.
pub const DEFAULT_INTERFACE: &str = "eth0";

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port of the host that leads to a port of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// The protocol.
    pub protocol: Protocol,
    /// The port inside.
    pub container_port: u16,
    /// The port of the host; zero for none.
    pub host_port: u16,
    /// The address of the host; all without.
    pub host_ip: Option<IpAddr>,
}

/// How much traffic is let through, in bits a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// Into the sandbox.
    pub ingress: Option<u64>,
    /// Out of it.
    pub egress: Option<u64>,
}

/// A sandbox to be attached: all that a plug-in is told about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxNetwork {
    /// Which sandbox. With the interface's name it says which attachment is meant.
    pub sandbox: SandboxId,
    /// The path of its network namespace. For a detachment it may be gone, as after a restart of the machine.
    pub netns: PathBuf,
    /// The name of the interface to be made inside.
    pub interface: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// Ports of the host that lead inside.
    pub ports: Vec<PortMapping>,
    /// How much traffic is let through.
    pub bandwidth: Bandwidth,
    /// Addresses to be given, where the caller chooses; the plug-in chooses without.
    pub requested: Vec<IpAddr>,
}

impl SandboxNetwork {
    /// A sandbox, with nothing special.
    pub fn new(sandbox: SandboxId, netns: impl Into<PathBuf>) -> Self {
        Self {
            sandbox,
            netns: netns.into(),
            interface: DEFAULT_INTERFACE.to_owned(),
            namespace: String::new(),
            name: String::new(),
            uid: String::new(),
            ports: Vec::new(),
            bandwidth: Bandwidth::default(),
            requested: Vec::new(),
        }
    }

    /// Which attachment is meant.
    #[must_use]
    pub fn key(&self) -> AttachmentKey {
        AttachmentKey {
            sandbox: self.sandbox.clone(),
            interface: self.interface.clone(),
        }
    }
}

/// Which attachment is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentKey {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The interface in it.
    pub interface: String,
}

/// An interface that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address, as `02:42:0a:f4:01:02`; empty if it has none.
    pub mac: String,
    /// Whether it is inside the sandbox; otherwise it is the host's.
    pub inside: bool,
}

/// An address that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address, with the length of its network's prefix.
    pub address: Cidr,
    /// The way out.
    pub gateway: Option<IpAddr>,
}

/// A route that was set inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: Cidr,
    /// By which way; directly without.
    pub gateway: Option<IpAddr>,
}

/// What a sandbox was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// The interfaces that were made.
    pub interfaces: Vec<Interface>,
    /// The addresses, the main one first: at least one.
    pub addresses: Vec<Address>,
    /// The routes.
    pub routes: Vec<Route>,
    /// How names are resolved, where the network says so.
    pub dns: DnsConfig,
}

impl Attachment {
    /// The addresses alone, the main one first.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses
            .iter()
            .map(|address| address.address.address())
    }
}

/// Why a network plug-in refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The attachment is there already.
    #[error("interface {} of sandbox {} is attached already", .0.interface, .0.sandbox)]
    AlreadyAttached(AttachmentKey),
    /// The attachment is not there, or is not as it should be.
    #[error("interface {} of sandbox {}: {reason}", .key.interface, .key.sandbox)]
    Broken {
        /// Which.
        key: AttachmentKey,
        /// What is wrong.
        reason: String,
    },
    /// All addresses are taken.
    #[error("no address left in {0}")]
    Exhausted(String),
    /// A requested address is taken or not this network's to give.
    #[error("address {0} cannot be given")]
    AddressNotAvailable(IpAddr),
    /// What was asked for makes no sense, now or later.
    #[error("invalid request: {0}")]
    InvalidRequest(String),
    /// The plug-in does not offer it.
    #[error("this network does not support {0}")]
    Unsupported(&'static str),
    /// The network is not ready, but may be later.
    #[error("not ready: {0}")]
    NotReady(String),
    /// It was tried and went wrong.
    #[error("{0}")]
    Failed(String),
}

/// What connects pods.
///
/// # Contract
///
/// * [`attach`](Self::attach) gives addresses that no other attachment of this node has. After an error nothing is left of it.
/// * [`detach`](Self::detach) is idempotent, and succeeds although the namespace is gone: what was given is taken back.
/// * An address that was taken back can be given anew, though not before the others if that can be helped.
/// * What was attached stays so when the process that implements the trait starts again.
/// * Calls for different sandboxes may run at the same time; those for one sandbox do not.
///
/// Two methods are required.
#[async_trait]
pub trait NetworkPlugin: Send + Sync + 'static {
    /// Puts an interface with addresses into a sandbox.
    ///
    /// # Errors
    /// [`NetworkError::AlreadyAttached`], [`NetworkError::Exhausted`], [`NetworkError::AddressNotAvailable`],
    /// [`NetworkError::NotReady`], [`NetworkError::Failed`].
    async fn attach(&self, sandbox: &SandboxNetwork) -> Result<Attachment, NetworkError>;

    /// Takes the interface and the addresses back. Succeeds for what is not there.
    ///
    /// # Errors
    /// [`NetworkError::Failed`]: ask again.
    async fn detach(&self, sandbox: &SandboxNetwork) -> Result<(), NetworkError>;

    /// Looks whether an attachment is still as it was made. A plug-in that cannot look says yes, which is the default.
    ///
    /// # Errors
    /// [`NetworkError::Broken`].
    async fn check(
        &self,
        sandbox: &SandboxNetwork,
        attached: &Attachment,
    ) -> Result<(), NetworkError> {
        let _ = (sandbox, attached);
        Ok(())
    }

    /// Takes back whatever belongs to no attachment of the given set, which is all that there should be. Returns what was taken back,
    /// as far as the plug-in can tell. One that keeps nothing has nothing to take back, which is the default.
    ///
    /// # Errors
    /// [`NetworkError::Failed`]: ask again.
    async fn collect_garbage(
        &self,
        valid: &BTreeSet<AttachmentKey>,
    ) -> Result<Vec<AttachmentKey>, NetworkError> {
        let _ = valid;
        Ok(Vec::new())
    }

    /// Whether sandboxes can be attached now.
    ///
    /// # Errors
    /// [`NetworkError::NotReady`] with the reason; [`NetworkError::Exhausted`].
    async fn status(&self) -> Result<(), NetworkError> {
        Ok(())
    }

    /// Tells the plug-in which addresses the pods of this node are given. Attachments that are there keep theirs.
    ///
    /// # Errors
    /// [`NetworkError::InvalidRequest`]. A plug-in that has its addresses from elsewhere succeeds, which is the default.
    async fn set_pod_cidrs(&self, cidrs: &[Cidr]) -> Result<(), NetworkError> {
        let _ = cidrs;
        Ok(())
    }
}
