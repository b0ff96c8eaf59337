//! Keys and certificates as PEM.

use std::fmt;
use std::path::Path;

use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::der;
use crate::Error;
use crate::files::{PUBLIC, SECRET, write_atomically};

/// A certificate (with those that it needs to be believed, if any, after it) and its private key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyAndCertificate {
    /// The certificate, PEM.
    pub certificate: String,
    /// The private key, PEM (PKCS #8).
    pub key: String,
}

impl fmt::Debug for KeyAndCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyAndCertificate")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl KeyAndCertificate {
    /// Reads both from files.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let read = |path: &Path| std::fs::read_to_string(path).map_err(Error::file(path));
        Ok(Self {
            certificate: read(certificate)?,
            key: read(key)?,
        })
    }

    /// Writes both to files, each as a whole: the key first and readable by its owner only.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn store(&self, certificate: &Path, key: &Path) -> Result<(), Error> {
        write_atomically(key, self.key.as_bytes(), SECRET)?;
        write_atomically(certificate, self.certificate.as_bytes(), PUBLIC)
    }

    /// The certificates, the holder's own first.
    ///
    /// # Errors
    /// [`Error::Pem`].
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        certificates_from_pem("certificate", self.certificate.as_bytes())
    }

    /// The private key.
    ///
    /// # Errors
    /// [`Error::Pem`].
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        private_key_from_pem("key", self.key.as_bytes())
    }
}

/// A key pair that signs something other than certificates: service account tokens (ES256).
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKeyPair {
    /// The private key, PEM (PKCS #8).
    pub key: String,
    /// The public key, PEM (SubjectPublicKeyInfo).
    pub public: String,
}

impl fmt::Debug for SigningKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeyPair")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl SigningKeyPair {
    /// A new ECDSA P-256 key pair.
    ///
    /// # Errors
    /// [`Error::Issue`] when the operating system gives no randomness.
    pub fn create() -> Result<Self, Error> {
        Ok(Self::from_key(&KeyPair::generate()?))
    }

    /// A key pair from its private key, in any of the three usual forms.
    ///
    /// # Errors
    /// [`Error::Pem`] for what is no private key.
    pub fn from_pem(what: &str, key: &str) -> Result<Self, Error> {
        Ok(Self::from_key(&key_pair_from_pem(what, key)?))
    }

    fn from_key(key: &KeyPair) -> Self {
        Self {
            key: key.serialize_pem(),
            public: key.public_key_pem(),
        }
    }
}

/// All certificates in a PEM text, at least one.
///
/// # Errors
/// [`Error::Pem`], which names `what`.
pub fn certificates_from_pem(
    what: &str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| Error::pem(what, error))?;
    if all.is_empty() {
        return Err(Error::pem(what, "no certificate in it"));
    }
    Ok(all)
}

/// The first private key in a PEM text.
///
/// # Errors
/// [`Error::Pem`], which names `what`.
pub fn private_key_from_pem(what: &str, pem: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| Error::pem(what, error))
}

/// The blocks of a PEM text whose label ends with a word, such as `CERTIFICATE` or `PRIVATE KEY`: what is in one file can be taken apart.
#[must_use]
pub fn pem_blocks(text: &str, word: &str) -> String {
    let mut kept = String::new();
    let mut inside = false;
    for line in text.lines() {
        let label = line.trim().strip_suffix("-----");
        if let Some(label) = label.and_then(|label| label.strip_prefix("-----BEGIN ")) {
            inside = label.ends_with(word);
        }
        if inside {
            kept.push_str(line);
            kept.push('\n');
        }
        if line.starts_with("-----END ") {
            inside = false;
        }
    }
    kept
}

/// A private key that can sign here, whichever form it is written in.
pub(super) fn key_pair_from_pem(what: &str, pem: &str) -> Result<KeyPair, Error> {
    let pkcs8 = match private_key_from_pem(what, pem.as_bytes())? {
        PrivateKeyDer::Pkcs8(key) => key.secret_pkcs8_der().to_vec(),
        PrivateKeyDer::Pkcs1(key) => der::pkcs8_from_pkcs1(key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => der::pkcs8_from_sec1(key.secret_sec1_der()),
        _ => return Err(Error::pem(what, "a form of private key that is not known")),
    };
    KeyPair::try_from(pkcs8).map_err(|error| Error::pem(what, error))
}

/// Whether a certificate certifies this key.
pub(super) fn belongs(key: &KeyPair, certificate: &CertificateDer<'_>) -> bool {
    x509_parser::parse_x509_certificate(certificate)
        .is_ok_and(|(_, parsed)| parsed.public_key().raw == key.subject_public_key_info())
}
