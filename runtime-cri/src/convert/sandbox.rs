//! Sandboxes.

use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use orlop_core::network::{PortMapping, Protocol};
use orlop_core::runtime::{
    Labels, NamespaceMode, Namespaces, RuntimeError, Sandbox, SandboxConfig, SandboxFilter,
    SandboxId, SandboxMetadata, SandboxState,
};
use prost::Message;

use super::{moment, path_text, resources, security};
use crate::messages as cri;

/// The annotation that keeps the configuration that a sandbox was made with: a `PodSandboxConfig` without labels and annotations, in base64.
///
/// CRI wants that configuration again whenever a container is made in the sandbox, and engines take from there where its log goes and
/// which cgroup it is put into. They do not give it back; annotations they do. So it is at hand after a restart, too.
const MADE_WITH: &str = "orlop.dev/sandbox-config";

/// A sandbox to be made, in CRI's words.
pub(crate) fn sandbox_config(
    config: &SandboxConfig,
) -> Result<cri::PodSandboxConfig, RuntimeError> {
    let log_directory = config.log_directory.as_deref().map(path_text).transpose()?;
    let dns_config = config.dns.as_ref().map(|dns| cri::DnsConfig {
        servers: dns.servers.clone(),
        searches: dns.searches.clone(),
        options: dns.options.clone(),
    });
    let mut message = cri::PodSandboxConfig {
        metadata: Some(metadata(&config.metadata)),
        hostname: config.hostname.clone(),
        log_directory: log_directory.unwrap_or_default(),
        dns_config,
        port_mappings: config.ports.iter().map(port_mapping).collect(),
        labels: Labels::new(),
        annotations: Labels::new(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: config.cgroup_parent.clone(),
            security_context: Some(security::sandbox_security(&config.security)),
            sysctls: config.sysctls.clone(),
            overhead: Some(resources(&config.overhead)),
            resources: Some(resources(&config.resources)),
        }),
    };
    let made_with = BASE64_STANDARD.encode(message.encode_to_vec());
    message.labels.clone_from(&config.labels);
    message.annotations.clone_from(&config.annotations);
    message.annotations.insert(MADE_WITH.to_owned(), made_with);
    Ok(message)
}

/// The configuration that a sandbox was made with, as far as it can be told from what the engine says of it.
pub(crate) fn made_with(status: &cri::PodSandboxStatus) -> cri::PodSandboxConfig {
    let kept = status.annotations.get(MADE_WITH);
    let kept = kept.and_then(|kept| BASE64_STANDARD.decode(kept).ok());
    let kept = kept.and_then(|kept| cri::PodSandboxConfig::decode(&kept[..]).ok());
    // One that another made: its log directory and its cgroup are not known.
    let mut config = kept.unwrap_or_default();
    config.metadata.clone_from(&status.metadata);
    config.labels.clone_from(&status.labels);
    config.annotations.clone_from(&status.annotations);
    config
}

fn metadata(metadata: &SandboxMetadata) -> cri::PodSandboxMetadata {
    cri::PodSandboxMetadata {
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        namespace: metadata.namespace.clone(),
        attempt: metadata.attempt,
    }
}

pub(super) fn said_metadata(said: Option<cri::PodSandboxMetadata>) -> SandboxMetadata {
    let said = said.unwrap_or_default();
    SandboxMetadata {
        namespace: said.namespace,
        name: said.name,
        uid: said.uid,
        attempt: said.attempt,
    }
}

fn port_mapping(port: &PortMapping) -> cri::PortMapping {
    let protocol = match port.protocol {
        Protocol::Tcp => cri::Protocol::Tcp,
        Protocol::Udp => cri::Protocol::Udp,
        Protocol::Sctp => cri::Protocol::Sctp,
    };
    cri::PortMapping {
        protocol: protocol.into(),
        container_port: i32::from(port.container_port),
        host_port: i32::from(port.host_port),
        host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
    }
}

/// Which sandboxes are meant, in CRI's words.
pub(crate) fn sandbox_filter(filter: &SandboxFilter) -> cri::PodSandboxFilter {
    let state = filter.state.map(|state| match state {
        SandboxState::Ready => cri::PodSandboxState::Ready,
        SandboxState::NotReady => cri::PodSandboxState::NotReady,
    });
    cri::PodSandboxFilter {
        id: filter
            .id
            .as_ref()
            .map(|id| id.as_str().to_owned())
            .unwrap_or_default(),
        state: state.map(|state| cri::PodSandboxStateValue {
            state: state.into(),
        }),
        label_selector: filter.labels.clone(),
    }
}

/// Whether a sandbox can be used.
pub(crate) fn sandbox_state(state: cri::PodSandboxState) -> SandboxState {
    match state {
        cri::PodSandboxState::Ready => SandboxState::Ready,
        cri::PodSandboxState::NotReady => SandboxState::NotReady,
    }
}

/// A sandbox that was looked up.
pub(crate) fn sandbox_looked_up(status: cri::PodSandboxStatus) -> Sandbox {
    let state = sandbox_state(status.state());
    let options = status.linux.and_then(|linux| linux.namespaces);
    let options = options.and_then(|namespaces| namespaces.options);
    let namespaces = options
        .as_ref()
        .map_or_else(Namespaces::default, security::said_namespaces);
    // Engines differ in whether they tell the host's address for one in the host's network, and the old one for one that was stopped.
    let has_own = state == SandboxState::Ready && namespaces.network != NamespaceMode::Node;
    let network = status.network.filter(|_| has_own).unwrap_or_default();
    let addresses = std::iter::once(network.ip)
        .chain(network.additional_ips.into_iter().map(|ip| ip.ip))
        .filter_map(|ip| ip.parse::<IpAddr>().ok());
    let mut annotations = status.annotations;
    annotations.remove(MADE_WITH);
    Sandbox {
        id: SandboxId::new(status.id),
        metadata: said_metadata(status.metadata),
        state,
        created: moment(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        addresses: addresses.collect(),
        namespaces,
        labels: status.labels,
        annotations,
        handler: status.runtime_handler,
    }
}
