//! How a service proxy is set up.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use orlop_core::network::Cidr;

use crate::Error;

/// An IP family. Each has rules of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Kubernetes' word: `IPv4` or `IPv6`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// Which addresses of the node have NodePorts (`nodePortAddresses`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The node's own main addresses, one a family. The default where rules are nftables.
    #[default]
    Primary,
    /// All local addresses but those of the loopback.
    All,
    /// Local addresses in one of these networks.
    Networks(Vec<Cidr>),
}

/// What the kernel's connection tracking is set to (`conntrack` of `KubeProxyConfiguration`). What is set already and more generous stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConntrackConfig {
    /// Tracked connections for each CPU (`maxPerCore`); zero leaves the limit alone.
    pub max_per_core: u32,
    /// The least number of tracked connections (`min`).
    pub min: u32,
    /// How long an idle TCP connection is tracked (`tcpEstablishedTimeout`).
    pub tcp_established_timeout: Option<Duration>,
    /// How long a half-closed one is (`tcpCloseWaitTimeout`).
    pub tcp_close_wait_timeout: Option<Duration>,
}

impl Default for ConntrackConfig {
    fn default() -> Self {
        Self {
            max_per_core: 32 * 1024,
            min: 128 * 1024,
            tcp_established_timeout: Some(Duration::from_secs(24 * 3600)),
            tcp_close_wait_timeout: Some(Duration::from_secs(3600)),
        }
    }
}

/// The choices of a service proxy, with the names and defaults of Kubernetes' `KubeProxyConfiguration`.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyConfig {
    /// The name of the Node that this proxy works for (`hostnameOverride`).
    pub node_name: String,
    /// The node's main addresses, at most one a family. Empty: the Node's `InternalIP`s.
    pub node_ips: Vec<IpAddr>,
    /// The families that are served.
    pub families: Vec<Family>,
    /// The networks of all pods (`clusterCIDR`): what comes from elsewhere to a cluster IP is masqueraded. Empty: nothing is known to be
    /// from a pod, and nothing is masqueraded for that.
    pub cluster_cidrs: Vec<Cidr>,
    /// The networks that cluster IPs come from (`--service-cluster-ip-range` of the API server): what goes to an address there that no
    /// Service has is dropped, lest it leaves the cluster. Empty: it goes its way.
    pub service_cidrs: Vec<Cidr>,
    /// Whether all traffic to cluster IPs is masqueraded (`masqueradeAll`).
    pub masquerade_all: bool,
    /// The bit of the packet mark that says "to be masqueraded" (`masqueradeBit`), 0 to 31.
    pub masquerade_bit: u8,
    /// Which addresses have NodePorts.
    pub nodeport_addresses: NodePortAddresses,
    /// The least time between two syncs (`minSyncPeriod`).
    pub min_sync_period: Duration,
    /// How often it is checked that everything is as it should be, and the longest time between two tries after a failure
    /// (`syncPeriod`).
    pub sync_period: Duration,
    /// Where `/healthz` and `/livez` are served (`healthzBindAddress`); nowhere without.
    pub healthz_address: Option<SocketAddr>,
    /// Where `/metrics`, `/healthz` and `/proxyMode` are served (`metricsBindAddress`); nowhere without.
    pub metrics_address: Option<SocketAddr>,
    /// What connection tracking is set to; `None` leaves it alone.
    pub conntrack: Option<ConntrackConfig>,
    /// Whether kernel settings are looked at and changed at all: forwarding, and [`conntrack`](Self::conntrack).
    pub manage_sysctls: bool,
    /// Where kernel settings are: `/proc/sys`.
    pub sysctl_root: PathBuf,
    /// What stands before every command (`["ip", "netns", "exec", "node-1"]`): for a network namespace that is not the process's own.
    pub command_prefix: Vec<String>,
    /// The program that writes rules.
    pub nft: String,
    /// The program that shows and deletes tracked connections; it may be missing.
    pub conntrack_program: String,
}

impl ProxyConfig {
    /// Kubernetes' defaults, for a node of this name.
    pub fn new(node_name: impl Into<String>) -> Self {
        Self {
            node_name: node_name.into(),
            node_ips: Vec::new(),
            families: Family::ALL.to_vec(),
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            masquerade_all: false,
            masquerade_bit: 14,
            nodeport_addresses: NodePortAddresses::Primary,
            min_sync_period: Duration::from_secs(1),
            sync_period: Duration::from_secs(30),
            healthz_address: Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 10256))),
            metrics_address: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 10249))),
            conntrack: Some(ConntrackConfig::default()),
            manage_sysctls: true,
            sysctl_root: PathBuf::from("/proc/sys"),
            command_prefix: Vec::new(),
            nft: "nft".to_owned(),
            conntrack_program: "conntrack".to_owned(),
        }
    }

    /// Whether it makes sense.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let wrong = |what: &str| Err(Error::Config(what.to_owned()));
        if self.node_name.is_empty() {
            return wrong("nodeName: must not be empty");
        }
        if self.families.is_empty() {
            return wrong("at least one IP family is needed");
        }
        if self.masquerade_bit > 31 {
            return wrong("masqueradeBit: must be within the range [0, 31]");
        }
        if self.sync_period.is_zero() {
            return wrong("syncPeriod: must be greater than 0");
        }
        if self.min_sync_period > self.sync_period {
            return wrong("syncPeriod: must be greater than or equal to minSyncPeriod");
        }
        Ok(())
    }
}
