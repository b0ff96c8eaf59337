//! One connection: HTTP/2 or HTTP/1.1 in, calls of a service out.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, Either, select};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use orlop_core::env::{CancelToken, Env};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tower_service::Service;

use super::prefixed::Prefixed;
use crate::Error;
use crate::body::{Body, BoxError};
use crate::executor::ConnectionTasks;

/// What an HTTP/2 client says first. Its first three bytes tell it from a request line.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The version of HTTP that client and server agreed on while they shook hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Alpn {
    /// HTTP/2.
    H2,
    /// HTTP/1.1.
    Http1,
}

/// Who is at the other end. Every request carries it as an extension.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PeerInfo {
    /// The address; `None` in memory.
    pub remote_addr: Option<SocketAddr>,
    /// The verified chain of certificates that the client showed, its own first.
    pub client_certificate: Option<Arc<[CertificateDer<'static>]>>,
    /// What was agreed on by TLS; `None` without TLS and for clients that did not say.
    pub alpn: Option<Alpn>,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

impl PeerInfo {
    /// A peer of whom the address is known.
    #[must_use]
    pub fn at(remote_addr: SocketAddr) -> Self {
        Self {
            remote_addr: Some(remote_addr),
            ..Self::default()
        }
    }
}

/// The limits of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// How many requests may be in flight on one HTTP/2 connection. Kubernetes' default is 250.
    pub max_concurrent_streams: u32,
    /// How many bytes the header of a request may have.
    pub max_header_bytes: u32,
    /// How many fields the header of an HTTP/1.1 request may have.
    pub max_headers: usize,
    /// How long a client may take to send the header of an HTTP/1.1 request. Zero for no limit and no timer: for connections in memory.
    pub header_read_timeout: Duration,
    /// After how long without a word an HTTP/2 client is asked whether it is there. Zero for never: for connections in memory.
    pub keep_alive_interval: Duration,
    /// How long it may take to answer that.
    pub keep_alive_timeout: Duration,
    /// How long requests in flight may go on after the connection is told to end.
    pub drain_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 250,
            max_header_bytes: 256 * 1024,
            max_headers: 256,
            header_read_timeout: Duration::from_secs(32),
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(20),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

impl ConnectionLimits {
    /// The limits of a connection in memory: without timers, so that it lives on virtual time, too.
    #[must_use]
    pub fn in_memory() -> Self {
        Self {
            header_read_timeout: Duration::ZERO,
            keep_alive_interval: Duration::ZERO,
            ..Self::default()
        }
    }
}

/// A service that can stand behind a listener: any `tower` service over requests with the body type [`Body`] that can be cloned, one
/// clone a connection.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot stand behind a listener",
    note = "it takes a `tower_service::Service<http::Request<orlop_wire::body::Body>>` that is `Clone + Send + 'static`, has a `Send` \
            future, and answers with an `http::Response` of any body of `bytes::Bytes`"
)]
pub trait HttpService: Clone + Send + 'static {
    /// Calls it.
    fn handle(self, request: Request<Body>)
    -> BoxFuture<'static, Result<Response<Body>, BoxError>>;
}

impl<S, B> HttpService for S
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn handle(
        mut self,
        request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, BoxError>> {
        Box::pin(async move {
            if let Err(error) = poll_fn(|cx| self.poll_ready(cx)).await {
                return Err(error.into());
            }
            match self.call(request).await {
                Ok(response) => Ok(response.map(Body::new)),
                Err(error) => Err(error.into()),
            }
        })
    }
}

/// Serves one connection of any kind (a socket, TLS over one, a duplex in memory) until the client ends it, or `cancel` is cancelled and
/// the requests in flight are done. Upgrades (`Connection: Upgrade`) reach the service by `hyper::upgrade::on`.
///
/// The tasks of an HTTP/2 connection end with it.
///
/// # Errors
/// [`Error::Http`] for a client that does not speak HTTP, or a connection that broke.
pub async fn serve_connection<IO, S>(
    io: IO,
    peer: PeerInfo,
    service: S,
    limits: &ConnectionLimits,
    env: &Env,
    cancel: &CancelToken,
) -> Result<(), Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService + Sync,
{
    let (streams, _end) = ConnectionTasks::new(env);
    // hyper's own look at the first bytes waits for them without a limit.
    let first = async {
        let mut io = io;
        let mut first = vec![0; 3];
        io.read_exact(&mut first).await?;
        if PREFACE.starts_with(&first) {
            first.resize(PREFACE.len(), 0);
            io.read_exact(&mut first[3..]).await?;
        }
        Ok((Bytes::from(first), io))
    };
    let first: BoxFuture<'static, std::io::Result<(Bytes, IO)>> = Box::pin(first);
    let first = async {
        if limits.header_read_timeout.is_zero() {
            return first.await;
        }
        env.timeout(limits.header_read_timeout, first)
            .await
            .unwrap_or(Err(std::io::ErrorKind::TimedOut.into()))
    };
    let (first, io) = match cancel.run(first).await {
        // A client that has said nothing is not waited for at shutdown.
        None => return Ok(()),
        Some(Ok(read)) => read,
        // It has gone without a word, as idle connections and probes do.
        Some(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
        Some(Err(error)) => return Err(Error::network("first bytes of a connection")(error)),
    };
    let builder = builder(streams, limits);
    let builder = if first == PREFACE {
        builder.http2_only()
    } else {
        builder.http1_only()
    };
    let io = TokioIo::new(Prefixed::new(first, io));
    let connection = builder
        .serve_connection_with_upgrades(io, Adapter { peer, service })
        .into_owned();
    // A type of its own, so that what is in it need not be looked through again by whoever spawns this.
    let connection: BoxFuture<'static, Result<(), Error>> = Box::pin(drain(
        connection,
        limits.drain_timeout,
        env.clone(),
        cancel.clone(),
    ));
    connection.await
}

/// Runs a connection until it ends, or is told to and its requests in flight have ended or had their time.
async fn drain<IO, S>(
    connection: auto::UpgradeableConnection<'static, TokioIo<IO>, Adapter<S>, ConnectionTasks>,
    limit: Duration,
    env: Env,
    cancel: CancelToken,
) -> Result<(), Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService + Sync,
{
    let mut connection = std::pin::pin!(connection);
    let early = match select(connection.as_mut(), cancel.cancelled()).await {
        Either::Left((result, _)) => Some(result),
        Either::Right(((), _)) => None,
    };
    let result = match early {
        Some(result) => result,
        None => {
            connection.as_mut().graceful_shutdown();
            match env.timeout(limit, connection).await {
                Ok(result) => result,
                Err(_) => {
                    tracing::debug!("requests in flight were cut off at shutdown");
                    return Ok(());
                }
            }
        }
    };
    result.map_err(|error| Error::Http(error.to_string()))
}

/// Our service as hyper's.
struct Adapter<S> {
    peer: PeerInfo,
    service: S,
}

impl<S: HttpService> hyper::service::Service<Request<Incoming>> for Adapter<S> {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.peer.clone());
        self.service.clone().handle(request)
    }
}

fn builder(streams: ConnectionTasks, limits: &ConnectionLimits) -> auto::Builder<ConnectionTasks> {
    let mut builder = auto::Builder::new(streams);
    let mut http1 = builder.http1();
    http1
        .max_headers(limits.max_headers)
        // hyper reads a header into one buffer, of eight kilobytes at the least.
        .max_buf_size(
            usize::try_from(limits.max_header_bytes)
                .unwrap_or(usize::MAX)
                .max(8192),
        )
        .half_close(false);
    if limits.header_read_timeout.is_zero() {
        http1.header_read_timeout(None);
    } else {
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_read_timeout);
    }
    let mut http2 = builder.http2();
    http2
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(limits.max_header_bytes)
        // A watch and a big list share a connection: enough for one not to hold up the other.
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(16 * 1024 * 1024)
        .max_send_buf_size(256 * 1024);
    if !limits.keep_alive_interval.is_zero() {
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(limits.keep_alive_interval)
            .keep_alive_timeout(limits.keep_alive_timeout);
    }
    builder
}
