//! Client certificates: the subject's common name is the user, its organisations are the groups.

use async_trait::async_trait;
use orlop_core::auth::{AuthenticationError, Authenticator, Credentials, UserInfo};
use ring::digest;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Takes the user from the client's certificate. The listener has verified the chain against the client CA.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientCertificates;

#[async_trait]
impl Authenticator for ClientCertificates {
    async fn authenticate(
        &self,
        credentials: &Credentials,
    ) -> Result<Option<UserInfo>, AuthenticationError> {
        match credentials.client_certificates.first() {
            Some(leaf) => certificate_user(leaf),
            None => Ok(None),
        }
    }
}

/// The user that a certificate (DER) names; `None` without a common name.
///
/// # Errors
/// When the bytes are no certificate.
pub fn certificate_user(der: &[u8]) -> Result<Option<UserInfo>, AuthenticationError> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|error| AuthenticationError(format!("x509: {error}")))?;
    let subject = certificate.subject();
    // Of several common names the last one counts, as in Go's `pkix.Name`.
    let name = subject
        .iter_common_name()
        .filter_map(|name| name.as_str().ok())
        .last()
        .unwrap_or_default();
    if name.is_empty() {
        return Ok(None);
    }
    let groups = subject
        .iter_organization()
        .filter_map(|name| name.as_str().ok());
    let mut user = UserInfo::new(name, groups);
    let fingerprint = digest::digest(&digest::SHA256, der);
    let hex: String = fingerprint
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    user.extra.insert(
        "authentication.kubernetes.io/credential-id".to_owned(),
        vec![format!("X509SHA256={hex}")],
    );
    Ok(Some(user))
}
