//! What others need to verify service account tokens: the OpenID discovery document and the keys.

use serde_json::{Value, json};

use super::keys::VerifyingKey;

/// The bodies of `/.well-known/openid-configuration` and `/openid/v1/jwks`.
#[derive(Clone, Debug)]
pub struct OpenIdDiscovery {
    issuer: String,
    jwks_uri: String,
    keys: Vec<VerifyingKey>,
}

impl OpenIdDiscovery {
    /// The path of the discovery document. Its media type is `application/json`.
    pub const CONFIGURATION_PATH: &'static str = "/.well-known/openid-configuration";
    /// The path of the keys.
    pub const KEYS_PATH: &'static str = "/openid/v1/jwks";
    /// The media type of the keys.
    pub const KEYS_TYPE: &'static str = "application/jwk-set+json";
    /// The `Cache-Control` of both.
    pub const CACHE_CONTROL: &'static str = "public, max-age=3600";

    /// The documents of an issuer whose keys others fetch from an API server at `external_address` (`host:port`), or, if given, from
    /// another place (`--service-account-jwks-uri`).
    #[must_use]
    pub fn new(
        issuer: &str,
        external_address: &str,
        jwks_uri: Option<&str>,
        keys: Vec<VerifyingKey>,
    ) -> Self {
        let own = || format!("https://{external_address}{}", Self::KEYS_PATH);
        Self {
            issuer: issuer.to_owned(),
            jwks_uri: jwks_uri.map_or_else(own, str::to_owned),
            keys,
        }
    }

    /// The discovery document.
    #[must_use]
    pub fn configuration(&self) -> Value {
        let mut algorithms: Vec<&str> = self.keys.iter().map(VerifyingKey::algorithm).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        json!({
            "issuer": self.issuer,
            "jwks_uri": self.jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        })
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> Value {
        json!({"keys": self.keys.iter().map(VerifyingKey::jwk).collect::<Vec<_>>()})
    }
}
