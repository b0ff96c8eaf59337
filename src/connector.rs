//! The way from the API server to nodes and pods.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::env::Env;
use orlop_core::node::{ConnectError, KubeletEndpoint, NodeConnector};
use orlop_core::runtime::Connection;
use orlop_wire::kubeconfig::ClientConfig;
use orlop_wire::pki::KeyAndCertificate;
use orlop_wire::remote::Dialer;
use orlop_wire::stream::io::into_connection;
use parking_lot::RwLock;
use tokio::net::TcpStream;

/// How long a pod may take until it answers a connection.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Opens a connection in memory to a kubelet of this process.
pub(crate) type Local = Arc<dyn Fn() -> Connection + Send + Sync>;

/// Connects to kubelets of this process in memory, and to everything else as another one does.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Inner>);

struct Inner {
    local: RwLock<BTreeMap<String, Local>>,
    beyond: Arc<dyn NodeConnector>,
}

impl Connector {
    /// Kubelets that are not of this process are reached so.
    pub(crate) fn new(beyond: Arc<dyn NodeConnector>) -> Self {
        Self(Arc::new(Inner {
            local: RwLock::default(),
            beyond,
        }))
    }

    /// A kubelet of this process, by its node's name.
    pub(crate) fn add(&self, node: &str, connect: Local) {
        self.0.local.write().insert(node.to_owned(), connect);
    }
}

#[async_trait]
impl NodeConnector for Connector {
    async fn kubelet(&self, kubelet: &KubeletEndpoint) -> Result<Connection, ConnectError> {
        let local = self.0.local.read().get(&kubelet.node).cloned();
        if let Some(connect) = local {
            return Ok(connect());
        }
        self.0.beyond.kubelet(kubelet).await
    }

    async fn dial(&self, address: SocketAddr) -> Result<Connection, ConnectError> {
        self.0.beyond.dial(address).await
    }
}

/// The way to kubelets of other processes, by TLS with a certificate that they know the API server by
/// (`--kubelet-client-certificate`), and to pods, by TCP.
#[derive(Clone, Debug)]
pub struct KubeletDialer {
    dialer: Dialer,
    env: Env,
}

impl KubeletDialer {
    /// With a client certificate, if kubelets ask for one, and the authorities (PEM) that sign theirs: without
    /// (`--kubelet-certificate-authority`), any certificate is believed, as in Kubernetes.
    ///
    /// # Errors
    /// For certificates that cannot be used.
    pub fn new(
        certificate: Option<KeyAndCertificate>,
        authorities: Option<&str>,
        env: &Env,
    ) -> Result<Self, orlop_wire::Error> {
        let mut config = ClientConfig::new("https://kubelet");
        config.certificate_authority = authorities.map(str::to_owned);
        config.insecure_skip_tls_verify = authorities.is_none();
        config.credentials.certificate = certificate;
        Ok(Self {
            dialer: Dialer::new(&config, env)?,
            env: env.clone(),
        })
    }
}

#[async_trait]
impl NodeConnector for KubeletDialer {
    async fn kubelet(&self, kubelet: &KubeletEndpoint) -> Result<Connection, ConnectError> {
        if kubelet.host.is_empty() || kubelet.port == 0 {
            // What a simulated node is like.
            return Err(ConnectError::new(format!(
                "node {} has told no address of a kubelet",
                kubelet.node
            )));
        }
        let stream = self.dialer.dial(&kubelet.host, kubelet.port).await;
        stream.map(into_connection).map_err(|error| {
            ConnectError::new(match error {
                orlop_wire::Error::Network { what, source } => {
                    format!("{what}: {}", words(&source))
                }
                error => error.to_string(),
            })
        })
    }

    async fn dial(&self, address: SocketAddr) -> Result<Connection, ConnectError> {
        let failed =
            |why: &dyn std::fmt::Display| ConnectError::new(format!("dial tcp {address}: {why}"));
        let stream = self.env.timeout(TIMEOUT, TcpStream::connect(address)).await;
        let stream = stream
            .map_err(|_| failed(&"i/o timeout"))?
            .map_err(|error| failed(&words(&error)))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        Ok(into_connection(stream))
    }
}

/// Why there is no connection, in the words of Go, which users and their scripts know: `connect: connection refused`.
fn words(error: &io::Error) -> String {
    use io::ErrorKind;
    if error.raw_os_error().is_none() {
        return match error.kind() {
            ErrorKind::TimedOut => "i/o timeout".to_owned(),
            _ => error.to_string(),
        };
    }
    let text = error.to_string();
    // Small letters, and no number.
    let text = text.split(" (os error").next().unwrap_or_default();
    let text = text.to_lowercase();
    match error.kind() {
        ErrorKind::ConnectionRefused
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::TimedOut => format!("connect: {text}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_the_words_that_users_know() {
        let told = |code| words(&io::Error::from_raw_os_error(code));
        assert_eq!(told(111), "connect: connection refused");
        assert_eq!(told(113), "connect: no route to host");
        assert_eq!(told(110), "connect: connection timed out");
        assert_eq!(told(104), "connection reset by peer");
        assert_eq!(words(&io::ErrorKind::TimedOut.into()), "i/o timeout");
        assert_eq!(words(&io::Error::other("not this one")), "not this one");
    }
}
