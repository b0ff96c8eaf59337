//! Sandboxes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;

use super::{ContainerId, IdMapping, Labels, Resources, SandboxSecurity, labels_match};
use crate::network::PortMapping;

/// The id of a sandbox, chosen by the runtime.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SandboxId(String);

impl SandboxId {
    /// An id.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose sandbox it is. No two sandboxes of a runtime have the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SandboxMetadata {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
}

impl fmt::Display for SandboxMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{} ({}, attempt {})",
            self.namespace, self.name, self.uid, self.attempt
        )
    }
}

/// How names are resolved inside: the contents of `resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Name servers.
    pub servers: Vec<String>,
    /// Domains to try.
    pub searches: Vec<String>,
    /// Options of the resolver.
    pub options: Vec<String>,
}

/// With whom a namespace of the kernel is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NamespaceMode {
    /// With the other containers of the sandbox.
    #[default]
    Pod,
    /// With nobody.
    Container,
    /// With the host.
    Node,
    /// With one other container ([`Namespaces::target`]).
    Target,
}

/// How user ids inside relate to those of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UserNamespace {
    /// They are the same.
    #[default]
    Host,
    /// A user namespace of the sandbox's own.
    Pod {
        /// User ids.
        uids: Vec<IdMapping>,
        /// Group ids.
        gids: Vec<IdMapping>,
    },
}

/// Which namespaces of the kernel are shared with whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// The network: [`Pod`](NamespaceMode::Pod) or [`Node`](NamespaceMode::Node).
    pub network: NamespaceMode,
    /// Process ids.
    pub pid: NamespaceMode,
    /// System V and POSIX message queues: [`Pod`](NamespaceMode::Pod) or [`Node`](NamespaceMode::Node).
    pub ipc: NamespaceMode,
    /// The container whose process ids are shared, for [`Target`](NamespaceMode::Target).
    pub target: Option<ContainerId>,
    /// User ids.
    pub user: UserNamespace,
}

/// A sandbox to be made.
#[derive(Clone, Debug, Default)]
pub struct SandboxConfig {
    /// Whose it is.
    pub metadata: SandboxMetadata,
    /// The name of the host inside; empty in the host's own network.
    pub hostname: String,
    /// Where the logs of its containers go; none are kept without.
    pub log_directory: Option<PathBuf>,
    /// How names are resolved; as on the host without.
    pub dns: Option<DnsConfig>,
    /// Ports of the host that lead inside.
    pub ports: Vec<PortMapping>,
    /// Labels to find it by.
    pub labels: Labels,
    /// What else the runtime is to keep; given back unchanged.
    pub annotations: Labels,
    /// The runtime handler (of a RuntimeClass) that is to run it; empty for the default.
    pub handler: String,
    /// The cgroup to put its own into; the runtime's choice if empty.
    pub cgroup_parent: String,
    /// Kernel parameters that are set inside.
    pub sysctls: BTreeMap<String, String>,
    /// How it is confined.
    pub security: SandboxSecurity,
    /// What the sandbox itself takes, beside its containers.
    pub overhead: Resources,
    /// What its containers may take together.
    pub resources: Resources,
}

impl SandboxConfig {
    /// A sandbox for a pod, with nothing special.
    pub fn new(
        namespace: impl Into<String>,
        name: impl Into<String>,
        uid: impl Into<String>,
    ) -> Self {
        let name = name.into();
        Self {
            hostname: name.clone(),
            metadata: SandboxMetadata {
                namespace: namespace.into(),
                name,
                uid: uid.into(),
                attempt: 0,
            },
            ..Self::default()
        }
    }
}

/// Whether a sandbox can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SandboxState {
    /// Containers can be made and started in it.
    Ready,
    /// It was stopped, or broke: it can only be removed.
    NotReady,
}

/// A sandbox that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Its id.
    pub id: SandboxId,
    /// Whose it is.
    pub metadata: SandboxMetadata,
    /// Whether it can be used.
    pub state: SandboxState,
    /// When it was made.
    pub created: Timestamp,
    /// Its addresses, the first one of them its main one. None in the host's network, and none once it is stopped.
    pub addresses: Vec<IpAddr>,
    /// Which namespaces are shared with whom.
    pub namespaces: Namespaces,
    /// As they were given.
    pub labels: Labels,
    /// As they were given.
    pub annotations: Labels,
    /// As it was given.
    pub handler: String,
}

/// Which sandboxes are meant. Whatever is left out is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxFilter {
    /// The one with this id.
    pub id: Option<SandboxId>,
    /// Those in this state.
    pub state: Option<SandboxState>,
    /// Those with all these labels.
    pub labels: Labels,
}

impl SandboxFilter {
    /// Whether a sandbox is meant.
    #[must_use]
    pub fn matches(&self, sandbox: &Sandbox) -> bool {
        self.id.as_ref().is_none_or(|id| *id == sandbox.id)
            && self.state.is_none_or(|state| state == sandbox.state)
            && labels_match(&self.labels, &sandbox.labels)
    }
}
