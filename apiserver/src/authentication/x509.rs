//! Client certificates: the subject's common name is the user, its organisations are the groups.

use async_trait::async_trait;
use orlop_core::auth::{AuthenticationError, Authenticator, Credentials, UserInfo};
use orlop_wire::pki::CertificateIdentity;

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
    let identity = CertificateIdentity::from_der(der)
        .map_err(|error| AuthenticationError(format!("x509: {error}")))?;
    if identity.common_name.is_empty() {
        return Ok(None);
    }
    let groups = identity.organizations.iter().map(String::as_str);
    let mut user = UserInfo::new(&identity.common_name, groups);
    user.uid = identity.uid.unwrap_or_default();
    user.extra.insert(
        "authentication.kubernetes.io/credential-id".to_owned(),
        vec![format!("X509SHA256={}", identity.fingerprint)],
    );
    Ok(Some(user))
}
