//! A small HTTP client for probes and hooks: one connection a request, no verification of certificates, a bounded answer.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::{Either, select};
use http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, response};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPHeader;
use orlop_core::env::Env;
use orlop_wire::executor::ConnectionTasks;
use orlop_wire::remote::unverified_config;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;

use super::dial::{dial, reason};
use super::url::Url;

/// How much of an answer is read, in bytes.
pub(crate) const BODY_LIMIT: usize = 10 << 10;
/// How many redirects are followed.
const REDIRECTS: usize = 10;

/// What an HTTP server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) status: u16,
    /// At most [`BODY_LIMIT`] bytes.
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GetError {
    /// A header that cannot be sent.
    Header(String),
    /// The server does not speak TLS.
    NotTls,
    /// Something else about the connection.
    Broken(String),
    /// Redirects without end.
    Redirects,
    /// The answer began and broke off.
    Body(String),
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(why) | Self::Broken(why) | Self::Body(why) => f.write_str(why),
            Self::NotTls => f.write_str("http: server gave HTTP response to HTTPS client"),
            Self::Redirects => write!(f, "stopped after {REDIRECTS} redirects"),
        }
    }
}

/// Sends a GET. Redirects are followed, with `anywhere` also to other hosts; the answer is the last one. To bound it in time, drop the
/// future.
pub(crate) async fn get(
    env: &Env,
    url: &Url,
    headers: &[HTTPHeader],
    agent: &str,
    anywhere: bool,
) -> Result<Got, GetError> {
    let headers = header_map(headers, agent)?;
    let mut at = url.clone();
    for _ in 0..=REDIRECTS {
        let (head, body) = exchange(env, &at, &headers).await?;
        let next = redirect(&head).and_then(|location| at.join(location));
        match next {
            Some(next) if anywhere || next.host == url.host => at = next,
            _ => {
                let status = head.status.as_u16();
                return Ok(Got {
                    status,
                    body: body?,
                });
            }
        }
    }
    Err(GetError::Redirects)
}

/// Where an answer sends a GET.
fn redirect(head: &response::Parts) -> Option<&str> {
    matches!(head.status.as_u16(), 301 | 302 | 303 | 307 | 308)
        .then(|| head.headers.get(LOCATION)?.to_str().ok())
        .flatten()
}

fn header_map(headers: &[HTTPHeader], agent: &str) -> Result<HeaderMap, GetError> {
    let mut map = HeaderMap::new();
    for header in headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| {
            GetError::Header(format!(
                "net/http: invalid header field name {:?}",
                header.name
            ))
        })?;
        let value = HeaderValue::from_str(header.value.trim()).map_err(|_| {
            GetError::Header(format!(
                "net/http: invalid header field value for {:?}",
                header.name
            ))
        })?;
        map.append(name, value);
    }
    if !map.contains_key(USER_AGENT) {
        map.insert(
            USER_AGENT,
            HeaderValue::from_str(agent).unwrap_or(HeaderValue::from_static("kube-probe")),
        );
    }
    // Written but empty: not sent.
    for name in [ACCEPT, USER_AGENT, HOST] {
        if map.get(&name).is_some_and(HeaderValue::is_empty) {
            map.remove(&name);
        } else if name == ACCEPT && !map.contains_key(ACCEPT) {
            map.insert(ACCEPT, HeaderValue::from_static("*/*"));
        }
    }
    Ok(map)
}

type Answer = (response::Parts, Result<Vec<u8>, GetError>);

async fn exchange(env: &Env, url: &Url, headers: &HeaderMap) -> Result<Answer, GetError> {
    let stream = dial(&url.host, url.port())
        .await
        .map_err(GetError::Broken)?;
    if !url.https {
        return talk(env, stream, url, headers, false).await;
    }
    let name = ServerName::try_from(url.host.clone())
        .map_err(|error| GetError::Broken(format!("tls: {error}")))?;
    let connecting = TlsConnector::from(tls()?).connect(name, Sniff::new(stream));
    match connecting.into_fallible().await {
        Ok(stream) => {
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            talk(env, stream, url, headers, h2).await
        }
        Err((_, stream)) if stream.first == *b"HTTP/" => Err(GetError::NotTls),
        Err((error, _)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(GetError::Broken("EOF".to_owned()))
        }
        Err((error, _)) if error.raw_os_error().is_some() => {
            Err(GetError::Broken(format!("read: {}", reason(&error))))
        }
        Err((error, _)) => Err(GetError::Broken(format!("tls: {error}"))),
    }
}

fn tls() -> Result<Arc<rustls::ClientConfig>, GetError> {
    static CONFIG: OnceLock<Option<Arc<rustls::ClientConfig>>> = OnceLock::new();
    CONFIG
        .get_or_init(|| unverified_config(&[b"h2", b"http/1.1"]).ok())
        .clone()
        .ok_or_else(|| GetError::Broken("tls: not available".to_owned()))
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    env: &Env,
    stream: S,
    url: &Url,
    headers: &HeaderMap,
    h2: bool,
) -> Result<Answer, GetError> {
    let request = request(url, headers, h2)?;
    if h2 {
        let (tasks, _end) = ConnectionTasks::new(env);
        let (mut sender, connection) = http2::handshake(tasks, TokioIo::new(stream))
            .await
            .map_err(broken)?;
        beside(connection, async {
            answer(sender.send_request(request).await).await
        })
        .await
    } else {
        let (mut sender, connection) = http1::Builder::new()
            .title_case_headers(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        beside(connection, async {
            answer(sender.send_request(request).await).await
        })
        .await
    }
}

/// Waits for a future while a connection works.
pub(super) async fn beside<C: Future, F: Future>(connection: C, future: F) -> F::Output {
    match select(pin!(future), pin!(connection)).await {
        Either::Left((output, _)) => output,
        // What the connection brought before it ended can still be read.
        Either::Right((_, future)) => future.await,
    }
}

fn request(url: &Url, headers: &HeaderMap, h2: bool) -> Result<Request<Empty<Bytes>>, GetError> {
    let bad = |error: http::Error| GetError::Broken(format!("parse \"{url}\": {error}"));
    let mut headers = headers.clone();
    let host = headers.remove(HOST);
    let own = || HeaderValue::from_str(&url.authority()).ok();
    let host = host.or_else(own).unwrap_or(HeaderValue::from_static(""));
    let uri = if h2 {
        let scheme = if url.https { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(host.as_bytes());
        uri.path_and_query(&url.target).build().map_err(bad)?
    } else {
        headers.insert(HOST, host);
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        Uri::builder()
            .path_and_query(&url.target)
            .build()
            .map_err(bad)?
    };
    let mut request = Request::builder()
        .uri(uri)
        .body(Empty::new())
        .map_err(bad)?;
    *request.headers_mut() = headers;
    Ok(request)
}

async fn answer(
    response: Result<hyper::Response<hyper::body::Incoming>, hyper::Error>,
) -> Result<Answer, GetError> {
    let (head, mut body) = response.map_err(broken)?.into_parts();
    let mut kept = Vec::new();
    while kept.len() < BODY_LIMIT {
        let chunk = match body.frame().await {
            None => break,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => {
                let why = broken(error).to_string();
                let why = if why == "EOF" {
                    "unexpected EOF".to_owned()
                } else {
                    why
                };
                return Ok((head, Err(GetError::Body(why))));
            }
        };
        kept.extend_from_slice(&chunk[..chunk.len().min(BODY_LIMIT - kept.len())]);
    }
    Ok((head, Ok(kept)))
}

fn broken(error: hyper::Error) -> GetError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(one) = cause {
        match one.downcast_ref::<io::Error>() {
            Some(io) if io.raw_os_error().is_some() => {
                return GetError::Broken(format!("read: {}", reason(io)));
            }
            Some(io) if io.kind() == io::ErrorKind::UnexpectedEof => {
                return GetError::Broken("EOF".to_owned());
            }
            _ => {}
        }
        cause = one.source();
    }
    GetError::Broken(
        if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            "EOF".to_owned()
        } else if error.is_parse() {
            "net/http: HTTP/1.x transport connection broken: malformed HTTP response".to_owned()
        } else {
            error.to_string()
        },
    )
}

/// A stream that remembers how what it received began.
struct Sniff<S> {
    inner: S,
    first: [u8; 5],
    seen: usize,
}

impl<S> Sniff<S> {
    fn new(inner: S) -> Self {
        Self {
            inner,
            first: [0; 5],
            seen: 0,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sniff<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let seen = self.seen;
        for (slot, byte) in self.first[seen..]
            .iter_mut()
            .zip(&buffer.filled()[before..])
        {
            *slot = *byte;
        }
        self.seen = (seen + buffer.filled().len() - before).min(5);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sniff<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
