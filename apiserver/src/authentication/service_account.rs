//! Service account tokens: who signed them, for whom, until when, and whether what they are bound to is still there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orlop_core::admission::ObjectReader;
use orlop_core::auth::{AuthenticationError, UserInfo};
use orlop_core::env::{Env, Moment};
use orlop_core::field::quote;
use orlop_core::object::Object;
use orlop_core::resource::Resource;
use parking_lot::Mutex;

use super::jwt::{Claims, Reference, Unverified};
use super::keys::VerifyingKey;
use super::static_token::sha256;
use super::{TokenAuthenticator, TokenUser, intersection};
use crate::names::{NODES, PODS, SECRETS, SERVICE_ACCOUNTS};

/// How far the clocks of issuer and verifier may be apart.
const LEEWAY: i64 = 60;
/// How long a verified signature is remembered.
const CACHE_TTL: Duration = Duration::from_secs(600);
/// How many verified signatures are remembered at most.
const CACHE_SIZE: usize = 8192;

/// Accepts the tokens that a [`TokenIssuer`](super::TokenIssuer) with one of the issuers and keys has signed.
///
/// That a signature was verified is remembered for a while; whether the token is still good is looked up in the cache of objects every
/// time, so that it ends with its service account, pod, secret or node.
pub struct ServiceAccountTokens {
    issuers: Vec<String>,
    keys: Vec<VerifyingKey>,
    audiences: Vec<String>,
    reader: Arc<dyn ObjectReader>,
    env: Env,
    verified: Mutex<Verified>,
}

impl ServiceAccountTokens {
    /// Tokens of the issuers, signed by one of the keys. `audiences` are those of the API server: who asks for none means them.
    #[must_use]
    pub fn new(
        issuers: Vec<String>,
        keys: Vec<VerifyingKey>,
        audiences: &[String],
        reader: Arc<dyn ObjectReader>,
        env: Env,
    ) -> Self {
        Self {
            issuers,
            keys,
            audiences: audiences.to_vec(),
            reader,
            env,
            verified: Mutex::default(),
        }
    }

    fn claims(&self, token: &str) -> Result<Option<Arc<Claims>>, AuthenticationError> {
        let digest = sha256(token);
        let now = self.env.now();
        if let Some(claims) = self.verified.lock().get(&digest, now) {
            return Ok(Some(claims));
        }
        let Some(unverified) = Unverified::parse(token) else {
            return Ok(None);
        };
        if !self
            .issuers
            .iter()
            .any(|issuer| issuer == unverified.issuer())
        {
            return Ok(None);
        }
        let Some(claims) = unverified.verify(&self.keys) else {
            return Err(refused(
                "service account token could not be verified with any of the known keys",
            ));
        };
        let claims = Arc::new(claims);
        self.verified.lock().insert(digest, now, claims.clone());
        Ok(Some(claims))
    }

    fn check_dates(&self, claims: &Claims) -> Result<(), AuthenticationError> {
        let now = self.env.wall().as_second();
        if claims
            .exp
            .is_some_and(|exp| now.saturating_sub(LEEWAY) > exp)
        {
            return Err(refused("service account token has expired"));
        }
        if claims
            .nbf
            .is_some_and(|nbf| now.saturating_add(LEEWAY) < nbf)
        {
            return Err(refused("service account token is not valid yet"));
        }
        if claims
            .iat
            .is_some_and(|iat| now.saturating_add(LEEWAY) < iat)
        {
            return Err(refused("service account token is issued in the future"));
        }
        Ok(())
    }

    /// The object, unless its deletion began longer ago than the leeway.
    async fn living(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Object> {
        let object = self
            .reader
            .get(resource, namespace, name)
            .await
            .ok()
            .flatten()?;
        let since = self.env.wall().as_second() - LEEWAY;
        let gone = object
            .metadata()
            .deletion_timestamp
            .is_some_and(|at| at.as_second() < since);
        (!gone).then_some(object)
    }

    async fn check_bound(
        &self,
        resource: &Resource,
        namespace: &str,
        bound: &Reference,
    ) -> Result<(), AuthenticationError> {
        let Some(object) = self.living(resource, namespace, &bound.name).await else {
            return Err(refused("service account token has been invalidated"));
        };
        if object.uid() != bound.uid {
            let kind = resource.kind.to_lowercase();
            return Err(AuthenticationError(format!(
                "{kind} UID ({}) does not match service account {kind} ref claim ({})",
                object.uid(),
                bound.uid
            )));
        }
        Ok(())
    }
}

fn refused(why: &str) -> AuthenticationError {
    AuthenticationError(why.to_owned())
}

#[async_trait]
impl TokenAuthenticator for ServiceAccountTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, AuthenticationError> {
        let Some(claims) = self.claims(token)? else {
            return Ok(None);
        };
        let wanted = if audiences.is_empty() {
            &self.audiences
        } else {
            audiences
        };
        let audiences = intersection(&claims.aud, wanted);
        if audiences.is_empty() && !self.audiences.is_empty() {
            return Err(AuthenticationError(format!(
                "token audiences {} is invalid for the target audiences {}",
                quoted(&claims.aud),
                quoted(wanted)
            )));
        }
        self.check_dates(&claims)?;
        let private = &claims.private;
        let (namespace, account) = (private.namespace.as_str(), &private.serviceaccount);
        let Some(found) = self
            .living(&SERVICE_ACCOUNTS, namespace, &account.name)
            .await
        else {
            return Err(AuthenticationError(format!(
                "serviceaccounts {} not found",
                quote(&account.name)
            )));
        };
        if found.uid() != account.uid {
            return Err(AuthenticationError(format!(
                "service account UID ({}) does not match claim ({})",
                found.uid(),
                account.uid
            )));
        }
        if let Some(secret) = &private.secret {
            self.check_bound(&SECRETS, namespace, secret).await?;
        }
        match (&private.pod, &private.node) {
            (Some(pod), _) => self.check_bound(&PODS, namespace, pod).await?,
            // Beside a pod, the node is told for information only.
            (None, Some(node)) => self.check_bound(&NODES, "", node).await?,
            (None, None) => {}
        }
        Ok(Some(TokenUser {
            user: user(&claims),
            audiences,
        }))
    }
}

/// The user of a token.
fn user(claims: &Claims) -> UserInfo {
    let private = &claims.private;
    let mut user = UserInfo::service_account(&private.namespace, &private.serviceaccount.name);
    private.serviceaccount.uid.clone_into(&mut user.uid);
    let mut tell = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(
                format!("authentication.kubernetes.io/{key}"),
                vec![value.to_owned()],
            );
        }
    };
    if !claims.jti.is_empty() {
        tell("credential-id", &format!("JTI={}", claims.jti));
    }
    if let Some(pod) = &private.pod {
        tell("pod-name", &pod.name);
        tell("pod-uid", &pod.uid);
    }
    if let Some(node) = &private.node {
        tell("node-name", &node.name);
        tell("node-uid", &node.uid);
    }
    user
}

/// A list of texts as messages show it: `["a" "b"]`.
pub(crate) fn quoted(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quote(text)).collect();
    format!("[{}]", quoted.join(" "))
}

/// Claims whose signature was verified, by the digest of their token.
#[derive(Default)]
struct Verified(BTreeMap<[u8; 32], (Moment, Arc<Claims>)>);

impl Verified {
    fn get(&mut self, digest: &[u8; 32], now: Moment) -> Option<Arc<Claims>> {
        let (until, claims) = self.0.get(digest)?;
        if *until > now {
            return Some(claims.clone());
        }
        self.0.remove(digest);
        None
    }

    fn insert(&mut self, digest: [u8; 32], now: Moment, claims: Arc<Claims>) {
        if self.0.len() >= CACHE_SIZE {
            self.0.retain(|_, (until, _)| *until > now);
        }
        if self.0.len() >= CACHE_SIZE {
            // Digests are evenly spread, so that the first one is as good as any.
            self.0.pop_first();
        }
        self.0.insert(digest, (now + CACHE_TTL, claims));
    }
}
