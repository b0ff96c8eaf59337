//! The API over HTTP: [`RemoteClient`].
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use orlop_core::client::{Client, ListOptions};
//! use orlop_core::env::Env;
//! use orlop_core::resource::Resource;
//! use orlop_wire::kubeconfig::Kubeconfig;
//! use orlop_wire::remote::RemoteClient;
//!
//! const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");
//! let config = Kubeconfig::load_default()?.resolve(None)?;
//! let client: Arc<dyn Client> = Arc::new(RemoteClient::new(&config, &Env::tokio())?);
//! for pod in client.resource(&PODS).list(ListOptions::default()).await?.items {
//!     println!("{}", pod.key());
//! }
//! # Ok(()) }
//! ```

// A `Status` is what `Client` answers with; boxing it here would only unbox it again at the edge.
#![allow(clippy::result_large_err)]

mod answer;
mod dial;
mod target;
#[cfg(test)]
mod tests;
mod tls;
mod transport;
mod watch;

pub use self::dial::Dialer;
pub use self::tls::unverified as unverified_config;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT, WARNING,
};
use http::{HeaderMap, Method, Request as HttpRequest, Response, Uri};
use http_body_util::{BodyExt, Full};
use orlop_core::client::{Answer, Client, Request};
use orlop_core::env::{Env, Moment};
use orlop_core::status::Status;
use parking_lot::Mutex;
use rustls_pki_types::ServerName;

use self::target::{Call, Expect};
pub use self::tls::connect_unverified;
use self::transport::{Failure, Transport};
use crate::Error;
use crate::body::Body;
use crate::kubeconfig::{ClientConfig, Token};

/// How long a token that was read from a file is used before it is read again, as client-go does.
const TOKEN_AGE: Duration = Duration::from_secs(60);
/// How many bytes a refusal may have; more are not read.
const REFUSAL_LIMIT: usize = 1024 * 1024;

/// What a [`RemoteClient`] does beside what the server needs to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteOptions {
    /// Who the client says it is. The part in front of the first slash owns the fields that it writes.
    pub user_agent: String,
    /// How long a request may take, retries included. Watches have no limit.
    pub timeout: Duration,
    /// How many bytes an answer may have.
    pub max_answer_bytes: usize,
    /// How many bytes one event of a watch may have.
    pub max_event_bytes: usize,
    /// How many times a request is sent again: after `429 Too Many Requests` and other refusals that say when to come back, and after
    /// a connection failed before the server saw the request (or, for reads, at any time).
    pub max_retries: u32,
    /// The longest that a server may ask the client to wait.
    pub max_retry_after: Duration,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            user_agent: concat!("orlop/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeout: Duration::from_secs(60),
            max_answer_bytes: 1024 * 1024 * 1024,
            max_event_bytes: 64 * 1024 * 1024,
            max_retries: 5,
            max_retry_after: Duration::from_secs(30),
        }
    }
}

/// A [`Client`] of an API server somewhere else. Clones share their connections, which end with the last of them.
#[derive(Clone, Debug)]
pub struct RemoteClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    env: Env,
    transport: Transport,
    token: Option<TokenSource>,
    user_agent: HeaderValue,
    options: RemoteOptions,
}

impl RemoteClient {
    /// A client with the usual options. It connects when it is first used.
    ///
    /// # Errors
    /// [`Error::Kubeconfig`] for a server that is no URL; [`Error::Pem`] and [`Error::Tls`] for certificates that cannot be used.
    pub fn new(config: &ClientConfig, env: &Env) -> Result<Self, Error> {
        Self::with_options(config, RemoteOptions::default(), env)
    }

    /// A client with options.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_options(
        config: &ClientConfig,
        options: RemoteOptions,
        env: &Env,
    ) -> Result<Self, Error> {
        let invalid = |why: &dyn std::fmt::Display| {
            Error::Kubeconfig(format!("server \"{}\": {why}", config.server))
        };
        // Without a scheme it is plain HTTP, as in client-go.
        let text = if config.server.contains("://") {
            config.server.clone()
        } else {
            format!("http://{}", config.server)
        };
        let server: Uri = text.parse().map_err(|error| invalid(&error))?;
        let tls = match server.scheme_str() {
            Some("https") => {
                let host = server
                    .host()
                    .unwrap_or_default()
                    .trim_start_matches('[')
                    .trim_end_matches(']');
                let name = config.tls_server_name.as_deref().unwrap_or(host).to_owned();
                let name = ServerName::try_from(name).map_err(|error| invalid(&error))?;
                Some((tls::config(config, env)?, name))
            }
            Some("http") => None,
            _ => return Err(invalid(&"neither http nor https")),
        };
        let user_agent =
            HeaderValue::from_str(&options.user_agent).map_err(|error| invalid(&error))?;
        let transport = Transport::new(env, &server, tls)?;
        let token = config.credentials.token.clone().map(TokenSource::new);
        Ok(Self(Arc::new(Inner {
            env: env.clone(),
            transport,
            token,
            user_agent,
            options,
        })))
    }

    /// Sends any request: for what is no resource, such as `/version`, and for streams. The URI is a path with a query; credentials and
    /// user agent are added. The answer is given as it comes, whatever its code; nothing is sent twice unless the server has surely
    /// not seen it.
    ///
    /// # Errors
    /// [`Error::Network`], [`Error::Http`] when there is no answer; [`Error::File`] when a token cannot be read.
    pub async fn send(&self, request: HttpRequest<Bytes>) -> Result<Response<Body>, Error> {
        let (parts, body) = request.into_parts();
        let mut attempt = 0;
        loop {
            let mut again = HttpRequest::new(Full::new(body.clone()));
            again.method_mut().clone_from(&parts.method);
            again.uri_mut().clone_from(&parts.uri);
            again.headers_mut().clone_from(&parts.headers);
            self.0.authenticate(again.headers_mut())?;
            match self.0.transport.send(again).await {
                Ok(response) => return Ok(response),
                Err(Failure { error, unseen }) => {
                    attempt += 1;
                    let passing = unseen && !matches!(error, Error::Network { .. });
                    if !passing || attempt > self.0.options.max_retries {
                        return Err(error);
                    }
                }
            }
        }
    }
}

impl Inner {
    fn authenticate(&self, headers: &mut HeaderMap) -> Result<(), Error> {
        if !headers.contains_key(USER_AGENT) {
            headers.insert(USER_AGENT, self.user_agent.clone());
        }
        if let Some(token) = &self.token
            && !headers.contains_key(AUTHORIZATION)
        {
            headers.insert(AUTHORIZATION, token.header(&self.env)?);
        }
        Ok(())
    }

    /// Who owns what this client applies.
    fn manager(&self) -> &str {
        self.options
            .user_agent
            .split('/')
            .next()
            .unwrap_or_default()
    }

    fn http(&self, call: &Call) -> Result<HttpRequest<Full<Bytes>>, Error> {
        let uri: Uri = call
            .path
            .parse()
            .map_err(|error: http::uri::InvalidUri| Error::Http(error.to_string()))?;
        let mut request = HttpRequest::new(Full::new(Bytes::from(call.body.clone())));
        request.method_mut().clone_from(&call.method);
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(content_type) = call.content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        self.authenticate(headers)?;
        Ok(request)
    }

    /// Sends a call until there is an answer that is not "come back later".
    async fn exchange(&self, call: &Call, request: &Request) -> Result<Response<Body>, Status> {
        let mut attempt = 0;
        loop {
            let sent = match self.http(call) {
                Ok(http) => self.transport.send(http).await,
                Err(error) => return Err(self.failed(call, &error)),
            };
            attempt += 1;
            let last = attempt > self.options.max_retries;
            match sent {
                Ok(response) if response.status().is_success() => {
                    warn(response.headers());
                    return Ok(response);
                }
                Ok(response) => {
                    let code = response.status();
                    let retry_after = retry_after(response.headers());
                    let body = collect(response.into_body(), REFUSAL_LIMIT)
                        .await
                        .unwrap_or_default();
                    let wait = retry_after.map(|seconds| Duration::from_secs(seconds.into()));
                    match wait.filter(|_| !last && (code.as_u16() == 429 || code.is_server_error()))
                    {
                        Some(wait) => self.env.sleep(wait.min(self.options.max_retry_after)).await,
                        None => {
                            return Err(answer::refusal(
                                call,
                                &request.target,
                                code,
                                retry_after,
                                &body,
                            ));
                        }
                    }
                }
                Err(Failure { error, unseen }) => {
                    // What cannot be reached is for the caller to try again, who knows how much it matters.
                    let broke = !matches!(error, Error::Network { .. } | Error::Tls(_));
                    if last || !broke || !(unseen || call.method == Method::GET) {
                        return Err(self.failed(call, &error));
                    }
                    tracing::debug!(%error, "sending a request again");
                }
            }
        }
    }

    fn failed(&self, call: &Call, error: &Error) -> Status {
        let verb = match call.method {
            Method::GET => "Get",
            Method::POST => "Post",
            Method::PUT => "Put",
            Method::PATCH => "Patch",
            _ => "Delete",
        };
        Status::unavailable(format!(
            "{verb} \"{}\": {error}",
            self.transport.url(&call.path)
        ))
    }

    async fn whole(&self, call: &Call, request: &Request) -> Result<Answer, Status> {
        let response = self.exchange(call, request).await?;
        let limit = self.options.max_answer_bytes;
        let body = collect(response.into_body(), limit)
            .await
            .map_err(|error| match error {
                Collect::TooLarge => {
                    Status::internal(format!("the server's answer has more than {limit} bytes"))
                }
                Collect::Broken(why) => {
                    Status::unavailable(format!("the server's answer broke off: {why}"))
                }
            })?;
        answer::success(call, &request.target, &body)
    }
}

#[async_trait]
impl Client for RemoteClient {
    async fn call(&self, request: Request) -> Result<Answer, Status> {
        let inner = &self.0;
        let call = target::call(&request, inner.manager())?;
        if call.expect == Expect::Watch {
            let response = inner.exchange(&call, &request).await?;
            let limit = inner.options.max_event_bytes;
            return Ok(Answer::Watch(watch::events(
                response.into_body(),
                request.target,
                limit,
                self.clone(),
            )));
        }
        match inner
            .env
            .timeout(inner.options.timeout, inner.whole(&call, &request))
            .await
        {
            Ok(answer) => answer,
            Err(_) => Err(Status::timeout(
                format!(
                    "no answer from {} within {:?}",
                    inner.transport.url(&call.path),
                    inner.options.timeout
                ),
                0,
            )),
        }
    }
}

/// Why a body could not be read.
#[derive(Debug)]
enum Collect {
    TooLarge,
    Broken(String),
}

async fn collect(mut body: Body, limit: usize) -> Result<Bytes, Collect> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Collect::Broken(error.to_string()))?;
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        if first.len() + all.len() + chunk.len() > limit {
            return Err(Collect::TooLarge);
        }
        // Most bodies are one chunk, which need not be copied.
        if first.is_empty() && all.is_empty() {
            first = chunk;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&chunk);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// When the server wants to be asked again, in seconds. A date is not understood; neither is it by client-go.
fn retry_after(headers: &HeaderMap) -> Option<u32> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

/// Passes on what the server warns of.
fn warn(headers: &HeaderMap) {
    for warning in headers.get_all(WARNING) {
        // `299 - "text"`
        if let Some(text) = warning
            .to_str()
            .ok()
            .and_then(|text| text.strip_prefix("299 - "))
        {
            tracing::warn!("{}", text.trim_matches('"').replace("\\\"", "\""));
        }
    }
}

/// A bearer token.
#[derive(Debug)]
struct TokenSource {
    token: Token,
    /// What was read from a file, and when.
    read: Mutex<Option<(Moment, HeaderValue)>>,
}

impl TokenSource {
    fn new(token: Token) -> Self {
        Self {
            token,
            read: Mutex::new(None),
        }
    }

    /// The `Authorization` header.
    fn header(&self, env: &Env) -> Result<HeaderValue, Error> {
        let bearer = |token: &str| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
                .map_err(|_| Error::Kubeconfig("the token cannot stand in a header".to_owned()))?;
            value.set_sensitive(true);
            Ok(value)
        };
        let path = match &self.token {
            Token::Text(token) => return bearer(token),
            Token::File(path) => path,
        };
        let mut read = self.read.lock();
        let now = env.now();
        if let Some((at, value)) = &*read
            && now.since(*at) < TOKEN_AGE
        {
            return Ok(value.clone());
        }
        match std::fs::read_to_string(path)
            .map_err(Error::file(path))
            .and_then(|token| bearer(&token))
        {
            Ok(value) => {
                *read = Some((now, value.clone()));
                Ok(value)
            }
            // The old one may still be good while the new one is being written.
            Err(error) => read.as_ref().map(|(_, old)| old.clone()).ok_or(error),
        }
    }
}
