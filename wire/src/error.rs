//! The error of this crate.

use std::io;
use std::path::{Path, PathBuf};

use crate::yaml::YamlError;

/// What can go wrong at the cables. At the API's edge the remote client turns it into a `Status`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Text that should be PEM is not, or lacks what it should hold.
    #[error("{what}: not usable PEM: {why}")]
    Pem {
        /// What the text was to be.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate or a key could not be made.
    #[error("making a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// A certificate could not be read.
    #[error("reading a certificate: {0}")]
    Certificate(String),
    /// A certificate and a key do not belong together.
    #[error("{0}: the certificate and the key do not belong together")]
    Mismatch(String),
    /// The cluster's authority has expired, or has not begun. Nothing can replace it without telling every client.
    #[error("{0}: the certificate authority is not valid at this time")]
    AuthorityNotValid(String),
    /// A peer's certificate is not trusted.
    #[error("certificate not trusted: {0}")]
    NotTrusted(String),
    /// TLS could not be set up or failed on the way.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A socket failed.
    #[error("{what}: {source}")]
    Network {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// HTTP failed on a connection.
    #[error("HTTP: {0}")]
    Http(String),
    /// A connection did not become what was asked for.
    #[error("upgrade: {0}")]
    Upgrade(String),
    /// A kubeconfig cannot be used.
    #[error("invalid configuration: {0}")]
    Kubeconfig(String),
    /// A text is not YAML.
    #[error(transparent)]
    Yaml(#[from] YamlError),
}

impl Error {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::File {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn pem(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Pem {
            what: what.into(),
            why: why.to_string(),
        }
    }

    pub(crate) fn network(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Network { what, source }
    }
}
