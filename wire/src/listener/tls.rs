//! TLS for a listener.

use std::fmt;
use std::sync::Arc;

use orlop_core::env::Env;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::Error;
use crate::clock::Clock;
use crate::pki::{ClientVerifier, KeyAndCertificate};

/// The protocols that a listener offers, the one that it prefers first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// TLS for a listener: the server's certificate, which may be [replaced](Self::replace) while it runs, and whose client certificates to
/// believe.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certificate: Arc<Certificate>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("alpn", &self.config.alpn_protocols)
            .finish_non_exhaustive()
    }
}

impl ServerTls {
    /// TLS with a certificate. With `clients`, a client may show a certificate of its own, which is then verified: a connection with one
    /// that is not believed does not come about.
    ///
    /// # Errors
    /// [`Error::Pem`] or [`Error::Tls`] for a certificate or key that cannot be used.
    pub fn new(
        server: &KeyAndCertificate,
        clients: Option<&ClientVerifier>,
        env: &Env,
    ) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificate = Arc::new(Certificate(parking_lot::RwLock::new(certified_key(
            server,
        )?)));
        let builder = ServerConfig::builder_with_details(provider, Arc::new(Clock(env.clone())))
            .with_safe_default_protocol_versions()?;
        let builder = match clients {
            Some(clients) => builder.with_client_cert_verifier(clients.rustls()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(certificate.clone());
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        Ok(Self {
            config: Arc::new(config),
            certificate,
        })
    }

    /// Shows another certificate to the clients that come from now on.
    ///
    /// # Errors
    /// [`Error::Pem`] or [`Error::Tls`] for a certificate or key that cannot be used; the old one stays.
    pub fn replace(&self, server: &KeyAndCertificate) -> Result<(), Error> {
        let new = certified_key(server)?;
        *self.certificate.0.write() = new;
        Ok(())
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}

fn certified_key(server: &KeyAndCertificate) -> Result<Arc<CertifiedKey>, Error> {
    let provider = rustls::crypto::ring::default_provider();
    let key = CertifiedKey::from_der(server.chain()?, server.private_key()?, &provider)?;
    Ok(Arc::new(key))
}

struct Certificate(parking_lot::RwLock<Arc<CertifiedKey>>);

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}
