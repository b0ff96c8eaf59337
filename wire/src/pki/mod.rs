//! The cluster's public key infrastructure: an authority, what it issues, and what a certificate says about its holder.
//!
//! All keys are ECDSA on P-256 and come from the operating system's randomness. The time is always given by the caller.
//!
//! ```
//! use std::time::Duration;
//! use orlop_wire::pki::{CertificateAuthority, CertificateIdentity};
//! # fn main() -> Result<(), orlop_wire::Error> {
//! let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
//! let ca = CertificateAuthority::create("kubernetes", now, Duration::from_secs(10 * 365 * 86_400))?;
//! let jane = ca.issue_client("jane", ["developers", "oncall"], now, Duration::from_secs(86_400))?;
//! let identity = CertificateIdentity::from_pem(&jane.certificate)?;
//! assert_eq!(identity.common_name, "jane");
//! assert_eq!(identity.organizations, ["developers", "oncall"]);
//! # Ok(()) }
//! ```

mod authority;
mod cluster;
mod der;
mod identity;
mod keys;
mod request;
#[cfg(test)]
mod tests;

pub use authority::{CertificateAuthority, SubjectName};
pub use cluster::{ClusterPki, ClusterPkiOptions, files};
pub use identity::{CertificateIdentity, ClientVerifier};
pub use keys::{
    KeyAndCertificate, SigningKeyPair, certificates_from_pem, pem_blocks, private_key_from_pem,
};
pub use request::CertificateRequest;
