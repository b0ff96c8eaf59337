//! Who may talk to whom.

use std::net::IpAddr;

use async_trait::async_trait;

use super::{Cidr, NetworkError, Protocol};
use crate::runtime::SandboxId;

/// Whom a rule is about: the addresses of a network, without some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The network.
    pub network: Cidr,
    /// Parts of it that are not meant.
    pub except: Vec<Cidr>,
}

impl Peer {
    /// All addresses of a network.
    #[must_use]
    pub const fn network(network: Cidr) -> Self {
        Self {
            network,
            except: Vec::new(),
        }
    }

    /// One address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self::network(Cidr::host(address))
    }

    /// Whether an address is meant.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.network.contains(address) && !self.except.iter().any(|part| part.contains(address))
    }
}

/// Ports, from the first to the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The protocol.
    pub protocol: Protocol,
    /// The first port.
    pub first: u16,
    /// The last port, included.
    pub last: u16,
}

impl PortRange {
    /// One port.
    #[must_use]
    pub const fn port(protocol: Protocol, port: u16) -> Self {
        Self {
            protocol,
            first: port,
            last: port,
        }
    }

    /// Whether a port is meant.
    #[must_use]
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        self.protocol == protocol && (self.first..=self.last).contains(&port)
    }
}

/// What is let through: traffic with one of the peers, to one of the ports. `None` lets any through; an empty list lets none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// With whom.
    pub peers: Option<Vec<Peer>>,
    /// To which ports: those of the sandbox for traffic that comes in, those of the peer for traffic that goes out.
    pub ports: Option<Vec<PortRange>>,
}

impl Rule {
    /// Whether a connection is let through.
    #[must_use]
    pub fn allows(&self, peer: IpAddr, protocol: Protocol, port: u16) -> bool {
        let with = self.peers.as_ref();
        let to = self.ports.as_ref();
        with.is_none_or(|peers| peers.iter().any(|known| known.contains(peer)))
            && to.is_none_or(|ports| ports.iter().any(|range| range.contains(protocol, port)))
    }
}

/// The traffic of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Traffic {
    /// Everything is let through: no policy is about this direction.
    #[default]
    Open,
    /// What one of the rules lets through, and nothing else.
    Only(Vec<Rule>),
}

impl Traffic {
    /// Whether a connection is let through.
    #[must_use]
    pub fn allows(&self, peer: IpAddr, protocol: Protocol, port: u16) -> bool {
        match self {
            Self::Open => true,
            Self::Only(rules) => rules.iter().any(|rule| rule.allows(peer, protocol, port)),
        }
    }
}

/// What holds for one sandbox, all policies about its pod taken together and their selectors resolved to addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// What may come in.
    pub ingress: Traffic,
    /// What may go out.
    pub egress: Traffic,
}

impl EndpointPolicy {
    /// A sandbox with no policy.
    #[must_use]
    pub const fn open(sandbox: SandboxId, addresses: Vec<IpAddr>) -> Self {
        Self {
            sandbox,
            addresses,
            ingress: Traffic::Open,
            egress: Traffic::Open,
        }
    }
}

/// What enforces network policies on a node.
///
/// # Contract
///
/// * Connections are judged, not packets: what answers a connection that was let through is let through.
/// * A connection between two sandboxes of the node needs the leave of both, the one's egress and the other's ingress.
/// * A sandbox always reaches itself. The node always reaches its sandboxes, because it probes them.
/// * A change takes effect for new connections. Whether it ends old ones is open.
/// * What [`apply`](Self::apply) has answered stays in force when the process that implements the trait ends.
#[async_trait]
pub trait PolicyEnforcer: Send + Sync + 'static {
    /// Makes these policies, and no others, hold on this node. The whole is told every time, and takes effect as one step: there is no
    /// moment at which a connection is let through that neither the old nor the new policies let through. A sandbox that is not named
    /// has no policy.
    ///
    /// # Errors
    /// [`NetworkError::InvalidRequest`] for a sandbox that is named twice. [`NetworkError::NotReady`] or [`NetworkError::Failed`]: the old
    /// policies still hold; ask again.
    async fn apply(&self, policies: &[EndpointPolicy]) -> Result<(), NetworkError>;

    /// Whether policies can be enforced on this node.
    ///
    /// # Errors
    /// [`NetworkError::NotReady`] or [`NetworkError::Unsupported`], with the reason.
    async fn status(&self) -> Result<(), NetworkError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_rule_without_peers_or_ports_means_all_and_an_empty_list_none() {
        assert!(Rule::default().allows(ip("10.0.0.1"), Protocol::Udp, 53));
        let nobody = Rule {
            peers: Some(Vec::new()),
            ports: None,
        };
        assert!(!nobody.allows(ip("10.0.0.1"), Protocol::Udp, 53));
        assert!(!Traffic::Only(Vec::new()).allows(ip("10.0.0.1"), Protocol::Tcp, 80));
        assert!(Traffic::Open.allows(ip("10.0.0.1"), Protocol::Tcp, 80));
    }

    #[test]
    fn exceptions_ports_and_protocols_are_heeded() {
        let rule = Rule {
            peers: Some(vec![Peer {
                network: "10.0.0.0/8".parse().unwrap(),
                except: vec!["10.1.0.0/16".parse().unwrap()],
            }]),
            ports: Some(vec![PortRange {
                protocol: Protocol::Tcp,
                first: 8000,
                last: 8080,
            }]),
        };
        for (peer, protocol, port, wanted) in [
            ("10.2.0.1", Protocol::Tcp, 8000, true),
            ("10.2.0.1", Protocol::Tcp, 8080, true),
            ("10.2.0.1", Protocol::Tcp, 8081, false),
            ("10.2.0.1", Protocol::Udp, 8000, false),
            ("10.1.0.1", Protocol::Tcp, 8000, false),
            ("11.0.0.1", Protocol::Tcp, 8000, false),
        ] {
            assert_eq!(
                rule.allows(ip(peer), protocol, port),
                wanted,
                "{peer} {protocol:?} {port}"
            );
        }
    }
}
