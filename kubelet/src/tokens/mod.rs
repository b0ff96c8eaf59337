//! Tokens of service accounts, for the pods of this node.
//!
//! A token is asked for through the `token` subresource of its service account, bound to the pod by name and uid, so that it ends with
//! the pod. It is kept and handed out again until it is due for renewal; while it is valid, a renewal that fails does no harm.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use orlop_core::client::{Answer, Client};
use orlop_core::env::Env;
use orlop_core::resource::Resource;
use orlop_core::status::Status;
use parking_lot::Mutex;
use serde_json::{Value, json};

const SERVICE_ACCOUNTS: Resource =
    Resource::namespaced("", "v1", "serviceaccounts", "ServiceAccount");

/// The longest that a token is used, whatever its lifetime: upstream's limit.
const LONGEST_USE: SignedDuration = SignedDuration::from_hours(24);

/// How long the API may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// By how much renewals are spread.
const JITTER: Duration = Duration::from_secs(10);

/// Which token is wanted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenRequest {
    /// The namespace of the service account and the pod.
    pub namespace: String,
    /// The service account's name.
    pub service_account: String,
    /// For whom it is; the API server if empty.
    pub audience: String,
    /// How long it should hold, in seconds.
    pub expiration_seconds: i64,
    /// The name of the pod that it is bound to.
    pub pod_name: String,
    /// The uid of that pod.
    pub pod_uid: String,
}

/// A token. It shows itself to nobody who does not ask.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

impl Token {
    /// The token itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It could not be had.
    #[error("failed to fetch token: {0}")]
    Fetch(Status),
    /// It could not be renewed, and the last one has expired.
    #[error("token {account} expired and refresh failed: {status}")]
    Expired {
        /// The service account, as `namespace/name`.
        account: String,
        /// Why it could not be renewed.
        status: Status,
    },
}

/// Has tokens, and renews them: at 80 % of their lifetime or after 24 hours, whatever comes first. Clones share them.
#[derive(Clone)]
pub struct TokenManager(Arc<Inner>);

struct Inner {
    client: Arc<dyn Client>,
    env: Env,
    tokens: Mutex<BTreeMap<TokenRequest, Known>>,
}

#[derive(Clone)]
struct Known {
    token: Token,
    issued: Timestamp,
    renew: Timestamp,
    expires: Timestamp,
}

impl fmt::Debug for TokenManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenManager({} tokens)", self.0.tokens.lock().len())
    }
}

impl TokenManager {
    /// A manager without tokens.
    #[must_use]
    pub fn new(client: Arc<dyn Client>, env: Env) -> Self {
        Self(Arc::new(Inner {
            client,
            env,
            tokens: Mutex::default(),
        }))
    }

    /// A token that is valid now: the one that is known, or a new one if there is none or it is due for renewal.
    ///
    /// # Errors
    /// When there is no valid token and none could be had.
    pub async fn token(&self, request: &TokenRequest) -> Result<Token, TokenError> {
        let now = self.0.env.wall();
        let known = self.0.tokens.lock().get(request).cloned();
        if let Some(known) = &known
            // A clock that went back makes a token look as if it came from the future: nothing is known about its end then.
            && (known.issued..known.renew).contains(&now)
        {
            return Ok(known.token.clone());
        }
        match (self.fetch(request).await, known) {
            (Ok(fresh), _) => {
                let token = fresh.token.clone();
                let mut tokens = self.0.tokens.lock();
                tokens.retain(|_, known| known.expires > now);
                tokens.insert(request.clone(), fresh);
                Ok(token)
            }
            (Err(status), None) => Err(TokenError::Fetch(status)),
            (Err(status), Some(known)) => {
                let account = format!("{}/{}", request.namespace, request.service_account);
                if known.expires <= now {
                    return Err(TokenError::Expired { account, status });
                }
                tracing::warn!(%account, pod = %request.pod_name, error = %status, "cannot renew a token");
                Ok(known.token)
            }
        }
    }

    /// Forgets the tokens of a pod that is gone.
    pub fn forget_pod(&self, uid: &str) {
        let mut tokens = self.0.tokens.lock();
        tokens.retain(|request, _| request.pod_uid != uid);
    }

    async fn fetch(&self, request: &TokenRequest) -> Result<Known, Status> {
        let audiences: Vec<&str> = Some(request.audience.as_str())
            .filter(|audience| !audience.is_empty())
            .into_iter()
            .collect();
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": request.expiration_seconds,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": request.pod_name,
                    "uid": request.pod_uid,
                },
            },
        });
        let accounts = self.0.client.resource(&SERVICE_ACCOUNTS);
        let accounts = accounts.namespace(&request.namespace);
        let asked = accounts.create_subresource(&request.service_account, "token", &body);
        let asked = self.0.env.timeout(ANSWER_LIMIT, asked).await;
        let answer =
            asked.map_err(|_| Status::timeout("no answer to a TokenRequest in time", 1))??;
        let unusable = || Status::internal("the answer to a TokenRequest has no token");
        let Answer::Object(answer) = answer else {
            return Err(unusable());
        };
        let answer = answer.value().map_err(|_| unusable())?;
        self.read(request, &answer).ok_or_else(unusable)
    }

    fn read(&self, request: &TokenRequest, answer: &Value) -> Option<Known> {
        let status = &answer["status"];
        let token = Token(status["token"].as_str()?.into());
        let expires: Timestamp = status["expirationTimestamp"].as_str()?.parse().ok()?;
        let lifetime = answer["spec"]["expirationSeconds"]
            .as_i64()
            .unwrap_or(request.expiration_seconds)
            .max(0);
        let jitter = self.0.env.random_below(JITTER.as_millis() as u64);
        let jitter = SignedDuration::from_millis(jitter as i64);
        let before = |moment: Timestamp, span: SignedDuration| {
            moment.checked_sub(span).unwrap_or(Timestamp::MIN)
        };
        let issued = before(expires, SignedDuration::from_secs(lifetime));
        let oldest = issued.checked_add(LONGEST_USE).unwrap_or(Timestamp::MAX);
        let due = before(expires, SignedDuration::from_secs(lifetime / 5));
        Some(Known {
            token,
            issued,
            renew: before(oldest.min(due), jitter),
            expires,
        })
    }
}
