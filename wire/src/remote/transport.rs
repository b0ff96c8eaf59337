//! Connections to a server: opened when needed, shared, and replaced when they break.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::poll_fn;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use orlop_core::env::{Env, TaskGroup};
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Error;
use crate::body::{Body, BoxError};
use crate::executor::ConnectionTasks;
use crate::listener::keep_alive;

/// How many HTTP/1.1 connections wait for the next request.
const IDLE: usize = 16;
/// How many requests at once go over one HTTP/2 connection, if the server allows that many.
const STREAMS: usize = 1000;
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// After how long without a word an HTTP/2 server is asked whether it is there, and how long it may take to answer: as client-go.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

type Sender1 = http1::SendRequest<Full<Bytes>>;
type Sender2 = http2::SendRequest<Full<Bytes>>;

/// Why a request failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether the server has surely not seen it.
    pub(super) unseen: bool,
}

/// The way to one server.
#[derive(Debug)]
pub(super) struct Transport {
    env: Env,
    scheme: Scheme,
    authority: Authority,
    /// What comes in front of every path; empty or with a slash in front and none behind.
    prefix: String,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    pool: Arc<Pool>,
    /// One connection is opened at a time, so that a burst of first requests shares it.
    opening: tokio::sync::Mutex<()>,
    tasks: TaskGroup,
}

#[derive(Default)]
struct Pool {
    shared: Mutex<Vec<Shared>>,
    idle: Mutex<Vec<Sender1>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("http2", &self.shared.lock().len())
            .field("http1", &self.idle.lock().len())
            .finish()
    }
}

/// An HTTP/2 connection.
#[derive(Clone)]
struct Shared {
    sender: Sender2,
    /// How many requests are under way on it.
    load: Arc<AtomicUsize>,
    /// How many the server allows.
    limit: Arc<AtomicUsize>,
}

impl Shared {
    fn has_room(&self) -> bool {
        self.load.load(Ordering::Relaxed) < self.limit.load(Ordering::Relaxed).min(STREAMS)
    }
}

/// A connection, for one request.
enum Lease {
    Http1(Option<Sender1>, Arc<Pool>),
    Http2(
        Sender2,
        #[allow(dead_code, reason = "dropped with the lease")] Load,
    ),
}

/// Counts a request for as long as it lasts.
struct Load(Arc<AtomicUsize>);

impl Load {
    fn enter(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(load.clone())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Transport {
    pub(super) fn new(
        env: &Env,
        server: &Uri,
        tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    ) -> Result<Self, Error> {
        let (Some(scheme), Some(authority)) = (server.scheme(), server.authority()) else {
            return Err(Error::Kubeconfig(format!(
                "the server's URL has no host: {server}"
            )));
        };
        Ok(Self {
            env: env.clone(),
            scheme: scheme.clone(),
            authority: authority.clone(),
            prefix: server.path().trim_end_matches('/').to_owned(),
            tls,
            pool: Arc::default(),
            opening: tokio::sync::Mutex::new(()),
            tasks: TaskGroup::new(env.clone()),
        })
    }

    /// The whole URL of a path.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}://{}{}{path}", self.scheme, self.authority, self.prefix)
    }

    /// Sends a request whose URI is a path, and waits for the head of the answer.
    pub(super) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Body>, Failure> {
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned();
        let unseen = |error: Error| Failure {
            error,
            unseen: true,
        };
        let mut lease = self.lease().await.map_err(unseen)?;
        let malformed = |error: http::Error| unseen(Error::Http(error.to_string()));
        let result = match &mut lease {
            Lease::Http1(sender, _) => {
                let path = format!("{}{path}", self.prefix);
                *request.uri_mut() = path
                    .parse()
                    .map_err(|error: http::uri::InvalidUri| malformed(error.into()))?;
                let host = http::HeaderValue::from_str(self.authority.as_str())
                    .map_err(|error| malformed(error.into()))?;
                request.headers_mut().insert(http::header::HOST, host);
                match sender {
                    Some(sender) => sender.try_send_request(request).await,
                    // It is taken out when the answer is complete, which is later.
                    None => return Err(unseen(Error::Http("the connection is in use".to_owned()))),
                }
            }
            Lease::Http2(sender, _) => {
                let url = self
                    .url(&path)
                    .parse()
                    .map_err(|error: http::uri::InvalidUri| malformed(error.into()))?;
                *request.uri_mut() = url;
                *request.version_mut() = http::Version::HTTP_2;
                sender.try_send_request(request).await
            }
        };
        match result {
            Ok(response) => Ok(response.map(|body| {
                Body::new(LeasedBody {
                    body,
                    lease: Some(lease),
                })
            })),
            Err(mut error) => {
                let unseen = error.take_message().is_some();
                let error = error.into_error();
                Err(Failure {
                    error: Error::Http(with_causes(&error)),
                    unseen,
                })
            }
        }
    }

    async fn lease(&self) -> Result<Lease, Error> {
        if let Some(lease) = self.known().await {
            return Ok(lease);
        }
        let _opening = self.opening.lock().await;
        // Somebody else may have opened one while this one waited.
        if let Some(lease) = self.known().await {
            return Ok(lease);
        }
        let timed_out =
            |_| Error::network(format!("dial {}", self.authority))(io::ErrorKind::TimedOut.into());
        self.env
            .timeout(CONNECT_TIMEOUT, self.open())
            .await
            .map_err(timed_out)?
    }

    /// A connection that is there already.
    async fn known(&self) -> Option<Lease> {
        {
            let mut shared = self.pool.shared.lock();
            shared.retain(|connection| !connection.sender.is_closed());
            if let Some(connection) = shared.iter().find(|connection| connection.has_room()) {
                return Some(Lease::Http2(
                    connection.sender.clone(),
                    Load::enter(&connection.load),
                ));
            }
        }
        loop {
            let mut sender = self.pool.idle.lock().pop()?;
            // Its last answer was read to the end, so it is ready or closed in no time.
            if sender.ready().await.is_ok() {
                return Some(Lease::Http1(Some(sender), self.pool.clone()));
            }
        }
    }

    async fn open(&self) -> Result<Lease, Error> {
        let default = if self.tls.is_some() { 443 } else { 80 };
        let host = self
            .authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let port = self.authority.port_u16().unwrap_or(default);
        let dial = || Error::network(format!("dial tcp {host}:{port}"));
        let stream = TcpStream::connect((host, port)).await.map_err(dial())?;
        stream
            .set_nodelay(true)
            .and_then(|()| keep_alive(&stream, PING_INTERVAL))
            .map_err(dial())?;
        let Some((config, name)) = &self.tls else {
            return self.http1(stream).await;
        };
        let connector = TlsConnector::from(config.clone());
        let stream = connector
            .connect(name.clone(), stream)
            .await
            .map_err(Error::network("tls"))?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.http2(stream).await
        } else {
            self.http1(stream).await
        }
    }

    async fn http1<IO>(&self, stream: IO) -> Result<Lease, Error>
    where
        IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Error::Http(with_causes(&error)))?;
        self.tasks
            .spawn_until_cancelled("http1-connection", async move {
                if let Err(error) = connection.await {
                    tracing::debug!(error = with_causes(&error), "connection ended");
                }
            });
        Ok(Lease::Http1(Some(sender), self.pool.clone()))
    }

    async fn http2<IO>(&self, stream: IO) -> Result<Lease, Error>
    where
        IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (executor, end) = ConnectionTasks::new(&self.env);
        let (sender, connection) = http2::Builder::new(executor)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            // A watch and a big list share a connection: enough for one not to hold up the other.
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Error::Http(with_causes(&error)))?;
        let limit = Arc::new(AtomicUsize::new(STREAMS));
        let shared = Shared {
            sender: sender.clone(),
            load: Arc::default(),
            limit: limit.clone(),
        };
        let lease = Lease::Http2(sender, Load::enter(&shared.load));
        self.tasks
            .spawn_until_cancelled("http2-connection", async move {
                let _end = end;
                let mut connection = std::pin::pin!(connection);
                let ended = poll_fn(|cx| {
                    let poll = connection.as_mut().poll(cx);
                    limit.store(connection.current_max_send_streams(), Ordering::Relaxed);
                    poll
                });
                if let Err(error) = ended.await {
                    tracing::debug!(error = with_causes(&error), "connection ended");
                }
            });
        self.pool.shared.lock().push(shared);
        Ok(lease)
    }
}

/// An error with what caused it: hyper says the interesting part in its source.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// A body that holds its connection until it was read.
struct LeasedBody {
    body: Incoming,
    lease: Option<Lease>,
}

impl LeasedBody {
    fn give_back(&mut self) {
        if let Some(Lease::Http1(Some(sender), pool)) = self.lease.take()
            && !sender.is_closed()
        {
            let mut idle = pool.idle.lock();
            if idle.len() < IDLE {
                idle.push(sender);
            }
        }
    }
}

impl http_body::Body for LeasedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.give_back(),
            Some(Ok(_)) if self.body.is_end_stream() => self.give_back(),
            Some(Ok(_)) => {}
            Some(Err(_)) => self.lease = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| with_causes(&error).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for LeasedBody {
    fn drop(&mut self) {
        // An answer without a body is never polled.
        if self.body.is_end_stream() {
            self.give_back();
        }
    }
}
