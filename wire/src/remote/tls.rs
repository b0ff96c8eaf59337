//! TLS of a client.

use std::sync::Arc;

use orlop_core::env::Env;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig as TlsConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::Error;
use crate::clock::Clock;
use crate::kubeconfig::ClientConfig;
use crate::pki::certificates_from_pem;

/// Where operating systems keep the authorities that they believe.
const SYSTEM_AUTHORITIES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The TLS configuration that a client's configuration asks for.
pub(super) fn config(config: &ClientConfig, env: &Env) -> Result<Arc<TlsConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = TlsConfig::builder_with_details(provider.clone(), Arc::new(Clock(env.clone())))
        .with_safe_default_protocol_versions()?;
    let builder = if config.insecure_skip_tls_verify {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        builder.with_root_certificates(roots(config)?)
    };
    let mut tls = match &config.credentials.certificate {
        Some(own) => builder.with_client_auth_cert(own.chain()?, own.private_key()?)?,
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

/// The TLS configuration of a client that believes every certificate, for probes of what has no name. `alpn` are the protocols that it
/// offers, the preferred one first.
///
/// # Errors
/// [`Error::Tls`].
pub fn unverified(alpn: &[&[u8]]) -> Result<Arc<TlsConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = TlsConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    tls.resumption = rustls::client::Resumption::disabled();
    tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(tls))
}

fn roots(config: &ClientConfig) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = &config.certificate_authority {
        for certificate in certificates_from_pem("certificate-authority", pem.as_bytes())? {
            roots.add(certificate)?;
        }
        return Ok(roots);
    }
    for path in SYSTEM_AUTHORITIES {
        if let Ok(pem) = std::fs::read(path) {
            // Some of the old ones are not to rustls' liking; the others will do.
            roots.add_parsable_certificates(certificates_from_pem(path, &pem)?);
            break;
        }
    }
    Ok(roots)
}

/// Believes every certificate, but not every signature: whoever is there holds the key of what they show.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Shakes hands over any stream with whoever is there: for proxies that are told to trust what they reach. HTTP/1.1 is offered.
///
/// # Errors
/// When the other side does not speak TLS.
pub async fn connect_unverified<IO>(
    io: IO,
    host: std::net::IpAddr,
) -> std::io::Result<tokio_rustls::client::TlsStream<IO>>
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let tls = unverified(&[b"http/1.1"]).map_err(std::io::Error::other)?;
    let name = ServerName::IpAddress(host.into());
    tokio_rustls::TlsConnector::from(tls)
        .connect(name, io)
        .await
}
