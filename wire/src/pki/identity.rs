//! What a certificate says about its holder, and whether to believe it.

use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME};
use x509_parser::x509::X509Name;

use super::keys::certificates_from_pem;
use crate::Error;

/// What a certificate says: who its holder is and what it is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// The subject's common name: Kubernetes' user name.
    pub common_name: String,
    /// The subject's organizations in their order: Kubernetes' groups.
    pub organizations: Vec<String>,
    /// The holder's uid, if the authority put one in (object identifier 1.3.6.1.4.1.57683.2).
    pub uid: Option<String>,
    /// The DNS names and IP addresses it is good for, as text.
    pub names: BTreeSet<String>,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// Whether its holder may issue certificates.
    pub is_authority: bool,
    /// SHA-256 of the whole certificate, in hexadecimal: what Kubernetes puts after `X509SHA256=` in a user's credential id.
    pub fingerprint: String,
}

impl CertificateIdentity {
    /// Reads a certificate.
    ///
    /// # Errors
    /// [`Error::Certificate`] for what is none.
    pub fn from_der(certificate: &[u8]) -> Result<Self, Error> {
        let malformed = |error: &dyn fmt::Display| Error::Certificate(error.to_string());
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate).map_err(|error| malformed(&error))?;
        let subject = parsed.subject();
        let text = |oid| {
            let parts = subject
                .iter_attributes()
                .filter(move |part| *part.attr_type() == oid);
            parts
                .filter_map(|part| part.as_str().ok())
                .map(str::to_owned)
        };
        let time = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_second(time.timestamp()).map_err(|error| malformed(&error))
        };
        let mut names = BTreeSet::new();
        if let Some(extension) = parsed
            .subject_alternative_name()
            .map_err(|error| malformed(&error))?
        {
            for name in &extension.value.general_names {
                match name {
                    GeneralName::DNSName(name) => drop(names.insert((*name).to_owned())),
                    GeneralName::IPAddress(bytes) => {
                        names.extend(ip_address(bytes).map(|ip| ip.to_string()))
                    }
                    _ => {}
                }
            }
        }
        Ok(Self {
            // Of several, the last one counts: so does Go.
            common_name: text(OID_X509_COMMON_NAME).last().unwrap_or_default(),
            organizations: text(OID_X509_ORGANIZATION_NAME).collect(),
            uid: uid(subject),
            names,
            not_before: time(parsed.validity().not_before)?,
            not_after: time(parsed.validity().not_after)?,
            is_authority: parsed.is_ca(),
            fingerprint: fingerprint(certificate),
        })
    }

    /// Reads the first certificate in a PEM text.
    ///
    /// # Errors
    /// [`Error::Pem`] or [`Error::Certificate`].
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let all = certificates_from_pem("certificate", pem.as_bytes())?;
        // There is at least one.
        Self::from_der(all.first().map(AsRef::as_ref).unwrap_or_default())
    }

    /// Whether it is valid at a time.
    #[must_use]
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether it is good for all of these names.
    pub fn covers<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> bool {
        names.into_iter().all(|name| match name.parse::<IpAddr>() {
            Ok(ip) => self.names.contains(&ip.to_string()),
            Err(_) => self.names.contains(name),
        })
    }
}

pub(super) fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    four.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

fn uid(subject: &X509Name<'_>) -> Option<String> {
    let part = subject
        .iter_attributes()
        .find(|part| part.attr_type().to_id_string() == "1.3.6.1.4.1.57683.2")?;
    part.as_str().ok().map(str::to_owned)
}

fn fingerprint(certificate: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    digest
        .as_ref()
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Decides whose client certificates to believe.
#[derive(Clone, Debug)]
pub struct ClientVerifier {
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientVerifier {
    /// Believes what these authorities (PEM, one or more) issued for clients.
    ///
    /// # Errors
    /// [`Error::Pem`] and [`Error::Certificate`] for authorities that cannot be used.
    pub fn from_pem(authorities: &str) -> Result<Self, Error> {
        // Tokens are another way in: a connection without a certificate is welcome.
        Self::build(authorities, true)
    }

    /// The same, for a listener that refuses connections without a certificate.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem).
    pub fn required_from_pem(authorities: &str) -> Result<Self, Error> {
        Self::build(authorities, false)
    }

    fn build(authorities: &str, without: bool) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates_from_pem("client CA", authorities.as_bytes())? {
            roots
                .add(certificate)
                .map_err(|error| Error::Certificate(error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        if without {
            builder = builder.allow_unauthenticated();
        }
        let inner = builder
            .build()
            .map_err(|error| Error::Certificate(error.to_string()))?;
        Ok(Self { inner })
    }

    /// The same for a TLS listener.
    pub(crate) fn rustls(&self) -> Arc<dyn ClientCertVerifier> {
        self.inner.clone()
    }

    /// Checks a chain (the client's own certificate first) at a time, and says who the client is.
    ///
    /// # Errors
    /// [`Error::NotTrusted`] with the reason.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<CertificateIdentity, Error> {
        let [own, intermediates @ ..] = chain else {
            return Err(Error::NotTrusted("no certificate".to_owned()));
        };
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        self.inner
            .verify_client_cert(own, intermediates, now)
            .map_err(|error| Error::NotTrusted(error.to_string()))?;
        CertificateIdentity::from_der(own)
    }
}
