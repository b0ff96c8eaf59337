//! What stands behind every port of every Service, as one node sees it.
//!
//! The [`Tracker`] is told of Services, EndpointSlices and the Node, and answers for one Service and one family with [`PortView`]s: all
//! that a backend needs, with traffic policies, hints and terminating endpoints decided already.

mod endpoint;
mod service;
#[cfg(test)]
pub(crate) mod tests;
mod topology;
mod tracker;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use orlop_core::network::Protocol;
use orlop_core::object::ObjectKey;

pub use self::endpoint::Endpoint;
pub use self::service::ServicePort;
pub use self::tracker::Tracker;

/// Which port of which Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortName {
    /// The Service.
    pub service: ObjectKey,
    /// The port's name; empty where it has none.
    pub port: String,
    /// The port's protocol.
    pub protocol: Protocol,
}

impl fmt::Display for PortName {
    /// As Kubernetes has it in comments: `ns/svc:port`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.service)?;
        if !self.port.is_empty() {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

/// One port of a Service with what stands behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortView {
    /// Which port.
    pub name: Arc<PortName>,
    /// What the Service says of it.
    pub port: Arc<ServicePort>,
    /// Where traffic goes by the policy `Cluster`, in order. Empty also if no traffic is by that policy.
    pub cluster: Vec<Endpoint>,
    /// Where traffic goes by the policy `Local`, in order. Empty also if no traffic is by that policy.
    pub local: Vec<Endpoint>,
    /// Whether there is a usable endpoint anywhere, this node or another.
    pub has_endpoints: bool,
    /// The addresses of all endpoints that serve, in order, for who looks after old connections.
    pub serving: Vec<IpAddr>,
}

impl PortView {
    /// Whether traffic to the cluster IP is let through.
    #[must_use]
    pub fn reachable_inside(&self) -> bool {
        self.has_endpoints && !(self.port.internal_local && self.local.is_empty())
    }

    /// Whether traffic from outside is let through.
    #[must_use]
    pub fn reachable_outside(&self) -> bool {
        self.has_endpoints && !(self.port.external_local && self.local.is_empty())
    }

    /// All endpoints that traffic through this node may reach, each once, in order.
    #[must_use]
    pub fn reachable(&self) -> Vec<&Endpoint> {
        let mut all: Vec<&Endpoint> = self.cluster.iter().chain(&self.local).collect();
        all.sort_by_key(|endpoint| (endpoint.address, endpoint.port));
        all.dedup_by_key(|endpoint| (endpoint.address, endpoint.port));
        all
    }
}

/// The protocol in lower case, as rules have it.
pub(crate) const fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// The protocol that Kubernetes calls so; TCP without one.
fn protocol_of(word: Option<&str>) -> Option<Protocol> {
    match word {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}
