//! Logging in: requests carry a token, and a new one is fetched when it is no longer taken.

use std::time::Duration;

use futures::future::BoxFuture;
use orlop_core::store::StoreError;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tonic::metadata::{Ascii, MetadataValue};

use super::{Cluster, Kind};
use crate::etcd::client::refusal::Refusal;
use crate::etcd::proto::auth::{AuthenticateRequest, AuthenticateResponse};

/// What a login gave, and how many came before it.
#[derive(Clone, Default)]
pub(super) struct Token {
    pub(super) login: u64,
    pub(super) value: Option<MetadataValue<Ascii>>,
}

/// Who logs in, and what came of it.
pub(super) struct Logins {
    user: Option<(String, String)>,
    token: Mutex<Token>,
    /// One login at a time: etcd makes a password check expensive on purpose.
    one: Semaphore,
}

impl Logins {
    pub(super) fn new(user: Option<(String, String)>) -> Self {
        Self {
            user,
            token: Mutex::default(),
            one: Semaphore::new(1),
        }
    }

    /// Whether there is nobody to log in.
    pub(super) fn nobody(&self) -> bool {
        self.user.is_none()
    }

    /// What requests carry now.
    pub(super) fn token(&self) -> Token {
        self.token.lock().clone()
    }
}

impl Cluster {
    /// Logs in, unless somebody did since the login that gave the token which failed.
    pub(in crate::etcd::client) fn log_in(
        &self,
        failed: u64,
        limit: Duration,
    ) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let Some((name, password)) = &self.logins.user else {
                return Ok(());
            };
            let _permit = self.logins.one.acquire().await;
            if self.logins.token.lock().login != failed {
                return Ok(());
            }
            let request = AuthenticateRequest {
                name: name.clone(),
                password: password.clone(),
            };
            let path = "/etcdserverpb.Auth/Authenticate";
            let answer: Result<AuthenticateResponse, Refusal> = self
                .attempts(limit, path, Kind::Read, request, false, false)
                .await;
            let value = match answer {
                Ok(answer) => {
                    let mut value =
                        MetadataValue::try_from(answer.token.as_str()).map_err(|_| {
                            Refusal::Other(StoreError::Unavailable(
                                "etcd gave a token that cannot be sent".to_owned(),
                            ))
                        })?;
                    value.set_sensitive(true);
                    Some(value)
                }
                // Whoever asks nobody's name gets by without one.
                Err(Refusal::Other(StoreError::InvalidRequest(why)))
                    if why.contains("authentication is not enabled") =>
                {
                    None
                }
                Err(refusal) => return Err(refusal),
            };
            let mut token = self.logins.token.lock();
            token.login += 1;
            token.value = value;
            Ok(())
        })
    }

    /// The login that a stream opened now is based on.
    pub(in crate::etcd::client) fn login(&self) -> u64 {
        self.logins.token.lock().login
    }
}
