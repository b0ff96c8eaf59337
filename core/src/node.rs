//! How the API server reaches nodes and pods: the [`NodeConnector`].
//!
//! `kubectl logs`, `exec`, `attach`, `port-forward` and `proxy` end at a node or at a pod. The API server knows what to ask and of
//! whom; a connector knows the way. Over a connection to a kubelet, HTTP/1.1 is spoken as on its port: the connector has settled
//! already who the API server is (by a client certificate, or because both are in one process).
//!
//! ```
//! use std::net::SocketAddr;
//! use orlop_core::node::{ConnectError, KubeletEndpoint, NodeConnector};
//! use orlop_core::runtime::Connection;
//!
//! /// A control plane that can see no node.
//! struct NoWay;
//!
//! #[async_trait::async_trait]
//! impl NodeConnector for NoWay {
//!     async fn kubelet(&self, kubelet: &KubeletEndpoint) -> Result<Connection, ConnectError> {
//!         Err(ConnectError::new(format!("no way to {}", kubelet.node)))
//!     }
//!     async fn dial(&self, address: SocketAddr) -> Result<Connection, ConnectError> {
//!         Err(ConnectError::new(format!("no way to {address}")))
//!     }
//! }
//! ```

use std::net::SocketAddr;

use async_trait::async_trait;

use crate::runtime::Connection;

/// Where a kubelet listens, by what its Node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletEndpoint {
    /// The node's name.
    pub node: String,
    /// The host to connect to: the first of the node's addresses in the order that the API server prefers
    /// (`--kubelet-preferred-address-types`). Empty if the node has told none: a connector that needs one refuses.
    pub host: String,
    /// The port of the kubelet (`status.daemonEndpoints.kubeletEndpoint.port`); zero if the node has told none.
    pub port: u16,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConnectError {
    message: String,
}

impl ConnectError {
    /// No connection, and why.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }
}

/// The way to nodes and pods.
///
/// # Contract
///
/// * A connection that is dropped is closed.
/// * Calls may run at the same time. A call that is dropped leaves no connection.
#[async_trait]
pub trait NodeConnector: Send + Sync + 'static {
    /// Opens a connection to a kubelet's API, on which the caller speaks HTTP/1.1 without TLS and is known as the API server.
    ///
    /// # Errors
    /// [`ConnectError`]: the node cannot be reached, or is not who it says.
    async fn kubelet(&self, kubelet: &KubeletEndpoint) -> Result<Connection, ConnectError>;

    /// Opens a TCP connection to an address of the cluster's network: a pod's.
    ///
    /// # Errors
    /// [`ConnectError`]: nothing answers there.
    async fn dial(&self, address: SocketAddr) -> Result<Connection, ConnectError>;
}
