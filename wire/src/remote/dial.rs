//! Connections to servers by TLS, for those who speak HTTP themselves.

use std::sync::Arc;
use std::time::Duration;

use orlop_core::env::Env;
use rustls::ClientConfig as TlsConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls;
use crate::Error;
use crate::kubeconfig::ClientConfig;

/// How long it may take until a server and this client have shaken hands.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Dials servers as one client: with its certificate, believing its authorities.
#[derive(Clone)]
pub struct Dialer {
    tls: Arc<TlsConfig>,
    env: Env,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialer")
    }
}

impl Dialer {
    /// A client of the credentials and authorities of a configuration. Its server is not looked at. HTTP/1.1 is offered, and nothing
    /// else: the connections are for upgrades, too.
    ///
    /// # Errors
    /// For certificates or keys that cannot be used.
    pub fn new(config: &ClientConfig, env: &Env) -> Result<Self, Error> {
        let mut tls = (*tls::config(config, env)?).clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            tls: Arc::new(tls),
            env: env.clone(),
        })
    }

    /// Opens a connection, within ten seconds.
    ///
    /// # Errors
    /// [`Error::Network`]: nobody answers, or somebody else.
    pub async fn dial(&self, host: &str, port: u16) -> Result<TlsStream<TcpStream>, Error> {
        let what = || format!("dial tcp {host}:{port}");
        let open = async {
            let name = ServerName::try_from(host.to_owned())
                .map_err(|error| Error::network(what())(std::io::Error::other(error)))?;
            let stream = TcpStream::connect((host, port))
                .await
                .map_err(Error::network(what()))?;
            stream.set_nodelay(true).map_err(Error::network(what()))?;
            TlsConnector::from(self.tls.clone())
                .connect(name, stream)
                .await
                .map_err(Error::network(format!("tls with {host}:{port}")))
        };
        let timed_out = |_| Error::network(what())(std::io::ErrorKind::TimedOut.into());
        self.env.timeout(TIMEOUT, open).await.map_err(timed_out)?
    }
}
