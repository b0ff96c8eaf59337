//! Who asks, and whether they may: the API is asked, and its answers are kept for a while.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::header::AUTHORIZATION;
use orlop_core::auth::{ALL_AUTHENTICATED, UserInfo};
use orlop_core::client::Client;
use orlop_core::env::{Env, Moment};
use orlop_core::resource::Resource;
use orlop_core::status::Status;
use orlop_wire::listener::PeerInfo;
use orlop_wire::pki::CertificateIdentity;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;

const TOKEN_REVIEWS: Resource =
    Resource::cluster("authentication.k8s.io", "v1", "tokenreviews", "TokenReview");
const ACCESS_REVIEWS: Resource = Resource::cluster(
    "authorization.k8s.io",
    "v1",
    "subjectaccessreviews",
    "SubjectAccessReview",
);

/// How long a token is believed (`authentication.webhook.cacheTTL`).
const TOKEN_TTL: Duration = Duration::from_secs(120);
/// How long one is not.
const BAD_TOKEN_TTL: Duration = Duration::from_secs(10);
/// How long somebody may (`authorization.webhook.cacheAuthorizedTTL`).
const ALLOWED_TTL: Duration = Duration::from_secs(300);
/// How long they may not (`authorization.webhook.cacheUnauthorizedTTL`).
const DENIED_TTL: Duration = Duration::from_secs(30);
/// The most answers that are kept of a kind.
const MAX_KEPT: usize = 4096;

/// Answers that are kept for a while.
struct Kept<K, V>(Mutex<BTreeMap<K, (Moment, V)>>);

impl<K: Ord + Clone, V: Clone> Kept<K, V> {
    fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    fn get(&self, key: &K, now: Moment) -> Option<V> {
        let kept = self.0.lock();
        let (until, value) = kept.get(key)?;
        (now < *until).then(|| value.clone())
    }

    fn put(&self, key: K, value: V, now: Moment, keep: Duration) {
        let mut kept = self.0.lock();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, (until, _)| now < *until);
        }
        while kept.len() >= MAX_KEPT {
            kept.pop_first();
        }
        kept.insert(key, (now + keep, value));
    }
}

/// What a request shows of who asks.
pub(super) enum Shown {
    /// A certificate that the listener has verified: it says who.
    Certificate(UserInfo),
    /// A bearer token.
    Token(String),
    Nothing,
}

impl Shown {
    pub(super) fn by<B>(request: &Request<B>) -> Self {
        let peer = request.extensions().get::<PeerInfo>();
        let chain = peer.and_then(|peer| peer.client_certificate.as_deref());
        if let Some(own) = chain.and_then(<[_]>::first)
            && let Ok(identity) = CertificateIdentity::from_der(own)
            && !identity.common_name.is_empty()
        {
            let mut groups = identity.organizations;
            groups.push(ALL_AUTHENTICATED.to_owned());
            return Self::Certificate(UserInfo {
                name: identity.common_name,
                uid: identity.uid.unwrap_or_default(),
                groups,
                ..UserInfo::default()
            });
        }
        let header = request.headers().get(AUTHORIZATION);
        header
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .filter(|token| !token.is_empty())
            .map_or(Self::Nothing, |token| Self::Token(token.to_owned()))
    }
}

/// Asks the API who has a token, and who may do what to a node. Clones share what they know.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    client: Arc<dyn Client>,
    env: Env,
    tokens: Kept<String, Option<UserInfo>>,
    verdicts: Kept<(String, String), bool>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Access")
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TokenStatus {
    authenticated: bool,
    user: UserInfo,
    error: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AccessStatus {
    allowed: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Review<S> {
    status: S,
}

impl Access {
    /// By an API.
    pub fn new(client: Arc<dyn Client>, env: Env) -> Self {
        Self(Arc::new(Inner {
            client,
            env,
            tokens: Kept::new(),
            verdicts: Kept::new(),
        }))
    }

    /// Who asks: by the certificate, else by a bearer token. `None` for anybody.
    ///
    /// # Errors
    /// The API does not answer.
    pub(super) async fn user(&self, shown: Shown) -> Result<Option<UserInfo>, Status> {
        match shown {
            Shown::Certificate(user) => Ok(Some(user)),
            Shown::Token(token) => self.user_of_token(&token).await,
            Shown::Nothing => Ok(None),
        }
    }

    async fn user_of_token(&self, token: &str) -> Result<Option<UserInfo>, Status> {
        let own = &self.0;
        let key = token.to_owned();
        if let Some(user) = own.tokens.get(&key, own.env.now()) {
            return Ok(user);
        }
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "metadata": {},
            "spec": {"token": token},
        });
        let TokenStatus {
            authenticated,
            user,
            error,
        } = self.review(&TOKEN_REVIEWS, &review).await?;
        if !error.is_empty() {
            tracing::debug!(%error, "a token is not believed");
        }
        let user = authenticated.then_some(user);
        let keep = if authenticated {
            TOKEN_TTL
        } else {
            BAD_TOKEN_TTL
        };
        own.tokens.put(key, user.clone(), own.env.now(), keep);
        Ok(user)
    }

    /// Whether a user may do something to a subresource of a node.
    ///
    /// # Errors
    /// The API does not answer.
    pub(super) async fn may(
        &self,
        user: &UserInfo,
        verb: &str,
        node: &str,
        subresource: &str,
    ) -> Result<bool, Status> {
        let own = &self.0;
        let who = serde_json::to_string(user).unwrap_or_default();
        let key = (who, format!("{verb} {node}/{subresource}"));
        if let Some(verdict) = own.verdicts.get(&key, own.env.now()) {
            return Ok(verdict);
        }
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": {
                "user": user.name,
                "uid": user.uid,
                "groups": user.groups,
                "extra": user.extra,
                "resourceAttributes": {
                    "verb": verb,
                    "group": "",
                    "version": "v1",
                    "resource": "nodes",
                    "subresource": subresource,
                    "name": node,
                },
            },
        });
        let AccessStatus { allowed } = self.review(&ACCESS_REVIEWS, &review).await?;
        let keep = if allowed { ALLOWED_TTL } else { DENIED_TTL };
        own.verdicts.put(key, allowed, own.env.now(), keep);
        Ok(allowed)
    }

    async fn review<S>(&self, resource: &Resource, review: &serde_json::Value) -> Result<S, Status>
    where
        S: for<'de> Deserialize<'de> + Default,
    {
        let answer = self.0.client.resource(resource).create(review).await?;
        let value = answer.value().map_err(Status::internal)?;
        let review: Review<S> = Review::deserialize(&*value).map_err(Status::internal)?;
        Ok(review.status)
    }
}
