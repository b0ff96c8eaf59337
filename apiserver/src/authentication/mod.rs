//! Authentication: who a request comes from.
//!
//! [`Authentication`] asks its authenticators in order and takes the first answer. Client certificates come first, then bearer tokens
//! (the token file, bootstrap tokens, service account tokens), then whatever else was added, and at last nobody in particular:
//! `system:anonymous`. A request that brings credentials which nobody accepts is refused, not anonymous.

mod bootstrap_token;
mod discovery;
mod impersonation;
mod issuer;
mod jwt;
mod keys;
mod service_account;
mod static_token;
mod x509;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::auth::{
    ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, AuthenticationError, Authenticator,
    Credentials, UserInfo,
};

pub use self::bootstrap_token::BootstrapTokens;
pub use self::discovery::OpenIdDiscovery;
pub use self::impersonation::{ImpersonationError, impersonate, is_impersonation_header};
pub(crate) use self::issuer::time_text;
pub use self::issuer::{IssuedToken, TokenIssuer};
pub use self::keys::{KeyError, SigningKey, VerifyingKey};
pub use self::service_account::ServiceAccountTokens;
pub(crate) use self::service_account::quoted;
pub use self::static_token::{StaticTokens, TokenFileError};
pub use self::x509::{ClientCertificates, certificate_user};

/// Before a bearer token (in unpadded base64 for URLs) among the protocols that a WebSocket client offers.
pub(crate) const WEBSOCKET_BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// The issuer of service account tokens where no other was chosen, as upstream's own local cluster sets it.
pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc";

/// A user that a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUser {
    /// Who.
    pub user: UserInfo,
    /// For which of the requested audiences the token is good.
    pub audiences: Vec<String>,
}

/// Finds out who a bearer token stands for.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync + 'static {
    /// The user, `None` when the token is not of the kind that this authenticator knows or not meant for any of the audiences.
    ///
    /// # Errors
    /// When it is of that kind, but not valid. The next authenticator is still asked.
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, AuthenticationError>;
}

/// All ways to authenticate, in order.
pub struct Authentication {
    requests: Vec<Arc<dyn Authenticator>>,
    tokens: Vec<Arc<dyn TokenAuthenticator>>,
    audiences: Vec<String>,
    anonymous: bool,
}

impl Authentication {
    /// No way at all, for an API server that tokens name by these audiences. Anonymous requests are let in as such.
    #[must_use]
    pub fn new(audiences: impl IntoIterator<Item = String>) -> Self {
        Self {
            requests: vec![Arc::new(ClientCertificates::default())],
            tokens: Vec::new(),
            audiences: audiences.into_iter().collect(),
            anonymous: true,
        }
    }

    /// Adds a way by bearer token, after those that are there.
    #[must_use]
    pub fn token(mut self, authenticator: impl TokenAuthenticator) -> Self {
        self.tokens.push(Arc::new(authenticator));
        self
    }

    /// Adds a way, after client certificates and those that are there, before the tokens.
    #[must_use]
    pub fn request(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.requests.push(authenticator);
        self
    }

    /// Whether requests without credentials come from `system:anonymous` (the default) or are refused (`--anonymous-auth=false`).
    #[must_use]
    pub fn anonymous(mut self, allowed: bool) -> Self {
        self.anonymous = allowed;
        self
    }

    /// The audiences by which tokens name this API server.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Who a token stands for, as a `TokenReview` wants to know. No audiences stand for those of the API server.
    ///
    /// # Errors
    /// What every authenticator that knows such tokens had against this one.
    pub async fn review(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, AuthenticationError> {
        let wanted = if audiences.is_empty() {
            &self.audiences
        } else {
            audiences
        };
        let mut errors = Vec::new();
        if let Some(found) = self.by_token(token, wanted, &mut errors).await {
            return Ok(Some(found));
        }
        // Other authenticators know nothing of audiences: what they accept is good for the API server.
        let own = intersection(&self.audiences, wanted);
        if !own.is_empty() {
            let credentials = Credentials {
                bearer_token: Some(token.to_owned()),
                client_certificates: Vec::new(),
            };
            for authenticator in &self.requests {
                match authenticator.authenticate(&credentials).await {
                    Ok(Some(user)) => {
                        return Ok(Some(TokenUser {
                            user: with_group(user),
                            audiences: own,
                        }));
                    }
                    Ok(None) => {}
                    Err(error) => errors.push(error.0),
                }
            }
        }
        match aggregate(errors) {
            Some(error) => Err(error),
            None => Err(AuthenticationError("invalid bearer token".to_owned())),
        }
    }

    async fn by_token(
        &self,
        token: &str,
        audiences: &[String],
        errors: &mut Vec<String>,
    ) -> Option<TokenUser> {
        for authenticator in &self.tokens {
            match authenticator.authenticate_token(token, audiences).await {
                Ok(Some(found)) => {
                    return Some(TokenUser {
                        user: with_group(found.user),
                        ..found
                    });
                }
                Ok(None) => {}
                Err(error) => errors.push(error.0),
            }
        }
        None
    }
}

#[async_trait]
impl Authenticator for Authentication {
    async fn authenticate(
        &self,
        credentials: &Credentials,
    ) -> Result<Option<UserInfo>, AuthenticationError> {
        let mut errors = Vec::new();
        for authenticator in &self.requests {
            match authenticator.authenticate(credentials).await {
                Ok(Some(user)) => return Ok(Some(with_group(user))),
                Ok(None) => {}
                Err(error) => errors.push(error.0),
            }
        }
        if let Some(token) = credentials
            .bearer_token
            .as_deref()
            .filter(|token| !token.is_empty())
        {
            if let Some(found) = self.by_token(token, &self.audiences, &mut errors).await {
                return Ok(Some(found.user));
            }
            if errors.is_empty() {
                errors.push("invalid bearer token".to_owned());
            }
        }
        if let Some(error) = aggregate(errors) {
            return Err(error);
        }
        Ok(self.anonymous.then(UserInfo::anonymous))
    }
}

/// Everybody who proved who they are is in `system:authenticated`, unless their authenticator says otherwise.
fn with_group(mut user: UserInfo) -> UserInfo {
    if user.name != ANONYMOUS
        && !user.in_group(ALL_AUTHENTICATED)
        && !user.in_group(ALL_UNAUTHENTICATED)
    {
        user.groups.push(ALL_AUTHENTICATED.to_owned());
    }
    user
}

/// One error out of many, each text once.
fn aggregate(errors: Vec<String>) -> Option<AuthenticationError> {
    let mut seen = BTreeSet::new();
    let mut texts: Vec<String> = errors
        .into_iter()
        .filter(|text| seen.insert(text.clone()))
        .collect();
    match texts.len() {
        0 => None,
        1 => texts.pop().map(AuthenticationError),
        _ => Some(AuthenticationError(format!("[{}]", texts.join(", ")))),
    }
}

/// The audiences that both name, in the order of the first.
pub(crate) fn intersection(own: &[String], wanted: &[String]) -> Vec<String> {
    own.iter()
        .filter(|audience| wanted.contains(audience))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests;
