//! What the scheduler and the controller manager show at their secure port: whether they are well, and their metrics.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures::future::{BoxFuture, FutureExt};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, Response, StatusCode};
use orlop::core::auth::{ALL_AUTHENTICATED, UserInfo};
use orlop::core::client::Client;
use orlop::core::env::{Env, TaskGroup};
use orlop::core::resource::Resource;
use orlop::core::status::Status;
use orlop::wire::body::Body;
use orlop::wire::listener::{Listener, PeerInfo, ServerTls};
use orlop::wire::pki::{
    CertificateAuthority, CertificateIdentity, ClientVerifier, KeyAndCertificate,
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_service::Service;

use super::{Failure, directory, values};

const TOKEN_REVIEWS: Resource =
    Resource::cluster("authentication.k8s.io", "v1", "tokenreviews", "TokenReview");
const ACCESS_REVIEWS: Resource = Resource::cluster(
    "authorization.k8s.io",
    "v1",
    "subjectaccessreviews",
    "SubjectAccessReview",
);

/// The paths that anybody may read (`--authorization-always-allow-paths`).
const OPEN: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// How long a certificate of one's own making is good for.
const VALIDITY: Duration = Duration::from_secs(365 * 86_400);

/// The flags of the secure port, by Kubernetes' names.
#[derive(Debug, Args)]
pub(super) struct ServingFlags {
    /// Where to say whether it is well, and to show metrics
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    bind_address: IpAddr,

    /// The certificate to serve with; one of its own making without
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,

    /// Its key
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,

    /// Whose client certificates are believed; tokens are asked about at the API server
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
}

impl ServingFlags {
    /// Serves until the tasks end: nothing at port zero.
    pub(super) async fn serve(
        &self,
        port: u16,
        name: &str,
        registry: Registry,
        client: Arc<dyn Client>,
        tasks: &TaskGroup,
    ) -> Result<(), Failure> {
        if port == 0 {
            return Ok(());
        }
        let env = tasks.env().clone();
        let pair = match (&self.tls_cert_file, &self.tls_private_key_file) {
            (Some(certificate), Some(key)) => KeyAndCertificate::load(certificate, key)?,
            _ => self_signed(name, &env)?,
        };
        let clients = match &self.client_ca_file {
            Some(path) => Some(ClientVerifier::from_pem(&values::file(
                "--client-ca-file",
                path,
            )?)?),
            None => None,
        };
        let tls = ServerTls::new(&pair, clients.as_ref(), &env)?;
        let address = SocketAddr::new(self.bind_address, port);
        let socket = TcpListener::bind(address)
            .await
            .map_err(|error| Failure::new(format!("cannot listen at {address}: {error}")))?;
        let handler = Handler(Arc::new(Shown { registry, client }));
        let token = tasks.token();
        tasks.spawn("secure port", async move {
            let listener = Listener::tls(tls);
            if let Err(error) = listener.serve(socket, handler, &env, &token).await {
                tracing::error!(%error, "the secure port is no longer served");
            }
        });
        Ok(())
    }
}

fn self_signed(name: &str, env: &Env) -> Result<KeyAndCertificate, Failure> {
    let authority = CertificateAuthority::create(&format!("{name}-ca"), env.wall(), VALIDITY)?;
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    names.extend(directory::hostname());
    let names = names.iter().map(|name| name.as_str().into());
    Ok(authority.issue_server(name, names, env.wall(), VALIDITY)?)
}

/// What is shown.
struct Shown {
    registry: Registry,
    client: Arc<dyn Client>,
}

#[derive(Clone)]
struct Handler(Arc<Shown>);

impl Service<Request<Body>> for Handler {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Self::Error>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shown = self.0.clone();
        let path = request.uri().path().to_owned();
        let (certificate, token) = (certificate(&request), token(&request));
        async move { Ok(shown.answer(&path, certificate, token).await) }.boxed()
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

fn answer(status: StatusCode, kind: &'static str, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::from(text.into()));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

impl Shown {
    async fn answer(
        &self,
        path: &str,
        certificate: Option<UserInfo>,
        token: Option<String>,
    ) -> Response<Body> {
        if OPEN.contains(&path) {
            return answer(StatusCode::OK, TEXT, "ok");
        }
        match self.may_read(certificate, token, path).await {
            Ok(StatusCode::OK) => {}
            Ok(refused) => {
                let text = refused.canonical_reason().unwrap_or_default();
                return answer(refused, TEXT, text);
            }
            Err(status) => {
                tracing::debug!(%status, "the API server does not say who may read");
                let text = "Internal Server Error";
                return answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, text);
            }
        }
        if path != "/metrics" {
            return answer(StatusCode::NOT_FOUND, TEXT, "404 page not found\n");
        }
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => answer(
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                text,
            ),
            Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
        }
    }

    /// Whether somebody may read a path: 200, 401 or 403.
    async fn may_read(
        &self,
        certificate: Option<UserInfo>,
        token: Option<String>,
        path: &str,
    ) -> Result<StatusCode, Status> {
        let user = match (certificate, token) {
            (Some(user), _) => user,
            (None, Some(token)) => {
                let review = json!({
                    "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
                    "metadata": {}, "spec": {"token": token},
                });
                let status = self.review(&TOKEN_REVIEWS, &review).await?;
                if status.get("authenticated") != Some(&Value::Bool(true)) {
                    return Ok(StatusCode::UNAUTHORIZED);
                }
                serde_json::from_value(status["user"].clone()).map_err(Status::internal)?
            }
            (None, None) => UserInfo::new("system:anonymous", ["system:unauthenticated"]),
        };
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
            "spec": {
                "user": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra,
                "nonResourceAttributes": {"path": path, "verb": "get"},
            },
        });
        let status = self.review(&ACCESS_REVIEWS, &review).await?;
        Ok(if status.get("allowed") == Some(&Value::Bool(true)) {
            StatusCode::OK
        } else {
            StatusCode::FORBIDDEN
        })
    }

    async fn review(&self, kind: &Resource, review: &Value) -> Result<Value, Status> {
        let answer = self.client.resource(kind).create(review).await?;
        let answer = answer.value().map_err(Status::internal)?;
        Ok(answer.get("status").cloned().unwrap_or_default())
    }
}

fn certificate(request: &Request<Body>) -> Option<UserInfo> {
    let peer = request.extensions().get::<PeerInfo>()?;
    let own = peer.client_certificate.as_deref()?.first()?;
    let identity = CertificateIdentity::from_der(own).ok()?;
    let mut groups = identity.organizations;
    groups.push(ALL_AUTHENTICATED.to_owned());
    Some(UserInfo {
        name: identity.common_name,
        groups,
        ..UserInfo::default()
    })
}

fn token(request: &Request<Body>) -> Option<String> {
    let header = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (kind, token) = header.split_once(' ')?;
    (kind.eq_ignore_ascii_case("bearer")).then(|| token.trim().to_owned())
}
