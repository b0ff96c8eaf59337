//! Controllers under their own names: each by a token of its service account, as with `--use-service-account-credentials`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orlop::core::client::{Answer, Client, Request};
use orlop::core::env::{Env, Moment};
use orlop::core::resource::Resource;
use orlop::core::status::Status;
use orlop::wire::kubeconfig::{ClientConfig, Token};
use orlop::wire::remote::RemoteClient;
use serde_json::json;
use tokio::sync::Mutex;

const SERVICE_ACCOUNTS: Resource =
    Resource::namespaced("", "v1", "serviceaccounts", "ServiceAccount");
/// The namespace of the controllers' service accounts.
const NAMESPACE: &str = "kube-system";
/// How long a token is asked for, in seconds.
const LIFETIME: u64 = 3_600;
/// How long one is used: so much is left that a request under way does not see it end.
const USED: Duration = Duration::from_secs(LIFETIME * 8 / 10);

/// A client that is a service account, with tokens that it asks for by the manager's own client.
pub(super) struct Account {
    name: String,
    manager: Arc<dyn Client>,
    /// The API server, without credentials.
    server: ClientConfig,
    env: Env,
    /// The client with the current token, and until when it is used. One request asks for a new one, and the others wait for it.
    current: Mutex<Option<(Arc<RemoteClient>, Moment)>>,
}

impl Account {
    pub(super) fn new(
        name: &str,
        manager: Arc<dyn Client>,
        server: &ClientConfig,
        env: &Env,
    ) -> Self {
        let mut server = server.clone();
        server.credentials = orlop::wire::kubeconfig::Credentials::default();
        Self {
            name: name.to_owned(),
            manager,
            server,
            env: env.clone(),
            current: Mutex::new(None),
        }
    }

    async fn client(&self) -> Result<Arc<RemoteClient>, Status> {
        let mut current = self.current.lock().await;
        let now = self.env.now();
        if let Some((client, until)) = &*current
            && now < *until
        {
            return Ok(client.clone());
        }
        let mut config = self.server.clone();
        config.credentials.token = Some(Token::Text(self.token().await?));
        let client = RemoteClient::new(&config, &self.env).map_err(Status::internal)?;
        let client = Arc::new(client);
        *current = Some((client.clone(), now + USED));
        Ok(client)
    }

    /// A token of the service account, which is made if it is not there.
    async fn token(&self) -> Result<String, Status> {
        let accounts = self
            .manager
            .resource(&SERVICE_ACCOUNTS)
            .namespace(NAMESPACE);
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "metadata": {}, "spec": {"expirationSeconds": LIFETIME},
        });
        let answer = match accounts
            .create_subresource(&self.name, "token", &request)
            .await
        {
            Err(status) if status.is_not_found() => {
                let account = json!({"metadata": {"name": self.name, "namespace": NAMESPACE}});
                match accounts.create(&account).await {
                    Err(status) if !status.is_already_exists() => return Err(status),
                    _ => {}
                }
                accounts
                    .create_subresource(&self.name, "token", &request)
                    .await?
            }
            other => other?,
        };
        let Answer::Object(object) = answer else {
            return Err(Status::internal("the answer to a TokenRequest is none"));
        };
        let value = object.value().map_err(Status::internal)?;
        let token = value
            .pointer("/status/token")
            .and_then(|token| token.as_str());
        token
            .map(str::to_owned)
            .ok_or_else(|| Status::internal("the answer to a TokenRequest has no token"))
    }

    /// Gives up a token that is believed no more.
    async fn forget(&self, refused: &Arc<RemoteClient>) {
        let mut current = self.current.lock().await;
        if current
            .as_ref()
            .is_some_and(|(client, _)| Arc::ptr_eq(client, refused))
        {
            *current = None;
        }
    }
}

#[async_trait]
impl Client for Account {
    async fn call(&self, request: Request) -> Result<Answer, Status> {
        let client = self.client().await?;
        let again = request.clone();
        match client.call(request).await {
            // The account was made anew, or the keys have changed: refused before anything was done.
            Err(status) if status.code == 401 => {
                self.forget(&client).await;
                self.client().await?.call(again).await
            }
            other => other,
        }
    }
}
