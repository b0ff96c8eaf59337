//! Client certificates: the subject's common name is the user, its organisations are the groups.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use orlop_core::auth::{AuthenticationError, Authenticator, Credentials, UserInfo};
use orlop_wire::pki::CertificateIdentity;
use parking_lot::Mutex;

/// How many certificates are remembered.
const REMEMBERED: usize = 1_000;

/// Takes the user from the client's certificate. The listener has verified the chain against the client CA.
///
/// What a certificate says never changes, and a client sends many requests: so it is read once, and remembered.
#[derive(Default)]
pub struct ClientCertificates {
    known: Mutex<BTreeMap<Vec<u8>, Option<UserInfo>>>,
}

impl fmt::Debug for ClientCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificates").finish_non_exhaustive()
    }
}

#[async_trait]
impl Authenticator for ClientCertificates {
    async fn authenticate(
        &self,
        credentials: &Credentials,
    ) -> Result<Option<UserInfo>, AuthenticationError> {
        let Some(leaf) = credentials.client_certificates.first() else {
            return Ok(None);
        };
        if let Some(user) = self.known.lock().get(leaf) {
            return Ok(user.clone());
        }
        let user = certificate_user(leaf)?;
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(leaf.clone(), user.clone());
        Ok(user)
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
