//! The listener: puts a `tower` service on a socket, behind TLS or without.
//!
//! ```no_run
//! # async fn example<S: orlop_wire::listener::HttpService + Sync>(service: S) -> Result<(), orlop_wire::Error> {
//! use orlop_core::env::{CancelToken, Env};
//! use orlop_wire::listener::{Listener, ServerTls};
//! use orlop_wire::pki::{ClientVerifier, ClusterPki, ClusterPkiOptions};
//!
//! let env = Env::tokio();
//! let pki = ClusterPki::create(&ClusterPkiOptions::new(), env.wall())?;
//! let clients = ClientVerifier::from_pem(pki.authority.certificate_pem())?;
//! let tls = ServerTls::new(&pki.server, Some(&clients), &env)?;
//! let socket = tokio::net::TcpListener::bind("127.0.0.1:6443").await.unwrap();
//! let stop = CancelToken::new();
//! Listener::tls(tls).serve(socket, service, &env, &stop).await
//! # }
//! ```

mod accepted;
mod connection;
mod prefixed;
#[cfg(test)]
mod tests;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orlop_core::env::{CancelToken, Env, TaskGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

pub use self::accepted::Connection;
use self::accepted::Io;
pub use self::connection::{Alpn, ConnectionLimits, HttpService, PeerInfo, serve_connection};
use self::prefixed::Prefixed;
pub use self::tls::ServerTls;
use crate::Error;

/// What a client that speaks plain HTTP to a TLS port is told, word for word what Go's server says.
const PLAIN_HTTP: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// How many bytes tell TLS from HTTP: the header of a TLS record, or the beginning of a request line.
const SNIFF: usize = 5;

/// The limits of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerLimits {
    /// How many connections there may be at a time. More wait in the operating system's queue.
    pub max_connections: usize,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// After how long without a word the operating system asks whether a peer is still there. Zero for never.
    pub tcp_keep_alive: Duration,
    /// The limits of each connection.
    pub connection: ConnectionLimits,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            handshake_timeout: Duration::from_secs(10),
            tcp_keep_alive: Duration::from_secs(15),
            connection: ConnectionLimits::default(),
        }
    }
}

/// A listener: accepts connections and serves them.
#[derive(Clone, Debug)]
pub struct Listener {
    tls: Option<ServerTls>,
    limits: ListenerLimits,
}

impl Listener {
    /// A listener that speaks TLS.
    #[must_use]
    pub fn tls(tls: ServerTls) -> Self {
        Self {
            tls: Some(tls),
            limits: ListenerLimits::default(),
        }
    }

    /// A listener without TLS: for tests, and for what never leaves the machine.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            tls: None,
            limits: ListenerLimits::default(),
        }
    }

    /// With other limits.
    #[must_use]
    pub fn limits(mut self, limits: ListenerLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Accepts connections and serves them until `cancel` is cancelled. Then no more are accepted, HTTP/2 clients get a GOAWAY, requests
    /// in flight may end within [`ConnectionLimits::drain_timeout`], and what is left is cut off. Returns when all connections are
    /// closed.
    ///
    /// # Errors
    /// [`Error::Network`] when the socket cannot accept any more. A failure of one connection is that connection's.
    pub async fn serve<S>(
        &self,
        socket: TcpListener,
        service: S,
        env: &Env,
        cancel: &CancelToken,
    ) -> Result<(), Error>
    where
        S: HttpService + Sync,
    {
        let (limits, own) = (self.limits.connection.clone(), env.clone());
        let serve = move |io, peer, cancel: CancelToken| {
            let (service, limits, env) = (service.clone(), limits.clone(), own.clone());
            async move { serve_connection(io, peer, service, &limits, &env, &cancel).await }
        };
        self.serve_with(socket, env, cancel, serve).await
    }

    /// As [`serve`](Self::serve), for those who serve a connection in their own way: what is accepted, and behind TLS when that is wanted, is handed
    /// to a function, with who is at the other end and what tells it to end.
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    pub async fn serve_with<F, Served>(
        &self,
        socket: TcpListener,
        env: &Env,
        cancel: &CancelToken,
        serve: F,
    ) -> Result<(), Error>
    where
        F: Fn(Connection, PeerInfo, CancelToken) -> Served + Clone + Send + Sync + 'static,
        Served: Future<Output = Result<(), Error>> + Send,
    {
        let tasks = TaskGroup::with_parent(env.clone(), cancel);
        let slots = Arc::new(Semaphore::new(
            self.limits.max_connections.clamp(1, Semaphore::MAX_PERMITS),
        ));
        let result = loop {
            // The slot comes first: whoever finds none waits in the operating system's queue.
            let Some(slot) = cancel.run(slots.clone().acquire_owned()).await else {
                break Ok(());
            };
            let Some(accepted) = cancel.run(socket.accept()).await else {
                break Ok(());
            };
            match accepted {
                Ok((stream, address)) => {
                    let (listener, serve) = (self.clone(), serve.clone());
                    let (env, cancel) = (env.clone(), tasks.token());
                    tasks.spawn("connection", async move {
                        let _slot = slot;
                        let served = async {
                            match listener.open(stream, address, &env, &cancel).await? {
                                Some((io, peer)) => serve(io, peer, cancel).await,
                                None => Ok(()),
                            }
                        };
                        if let Err(error) = served.await {
                            tracing::debug!(peer = %address, %error, "connection failed");
                        }
                    });
                }
                // One client's misfortune.
                Err(error) if is_of_one_connection(&error) => {}
                // No file descriptors or no memory: some connections may end soon.
                Err(error) if is_passing(&error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    drop(slot);
                    env.sleep(Duration::from_millis(100)).await;
                }
                Err(error) => break Err(Error::network("accept")(error)),
            }
        };
        drop(socket);
        tasks.shutdown().await;
        result
    }

    /// Shakes hands; `None` for a client that is not to be served.
    async fn open(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        env: &Env,
        cancel: &CancelToken,
    ) -> Result<Option<(Connection, PeerInfo)>, Error> {
        self.prepare(&stream)
            .map_err(Error::network("socket options"))?;
        let mut peer = PeerInfo::at(address);
        let Some(tls) = &self.tls else {
            return Ok(Some((Connection(Io::Plain(stream)), peer)));
        };
        let handshake = env.timeout(self.limits.handshake_timeout, handshake(tls, stream));
        // A client that has not even said hello is not waited for at shutdown.
        let Some(handshake) = cancel.run(handshake).await else {
            return Ok(None);
        };
        let timed_out = |_| Error::network("TLS handshake")(io::ErrorKind::TimedOut.into());
        let Some(stream) = handshake.map_err(timed_out)?? else {
            return Ok(None);
        };
        let (_, session) = stream.get_ref();
        peer.tls = true;
        peer.alpn = match session.alpn_protocol() {
            Some(b"h2") => Some(Alpn::H2),
            Some(b"http/1.1") => Some(Alpn::Http1),
            _ => None,
        };
        peer.client_certificate = session.peer_certificates().map(|chain| {
            chain
                .iter()
                .map(|certificate| certificate.clone().into_owned())
                .collect()
        });
        Ok(Some((Connection(Io::Tls(Box::new(stream))), peer)))
    }

    fn prepare(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        if !self.limits.tcp_keep_alive.is_zero() {
            keep_alive(stream, self.limits.tcp_keep_alive)?;
        }
        Ok(())
    }
}

/// Lets the operating system find out that a peer has gone without a word.
pub(crate) fn keep_alive(stream: &TcpStream, after: Duration) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, after)?;
    sockopt::set_tcp_keepintvl(stream, after)?;
    Ok(())
}

type TlsStream = tokio_rustls::server::TlsStream<Prefixed<TcpStream>>;

/// Shakes hands; `None` for a client that was told that this is no plain HTTP.
async fn handshake(tls: &ServerTls, mut stream: TcpStream) -> Result<Option<TlsStream>, Error> {
    let mut first = [0; SNIFF];
    match stream.read_exact(&mut first).await {
        Ok(_) => {}
        // Probes of load balancers connect and say nothing.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(Error::network("TLS handshake")(error)),
    }
    if is_plain_http(&first) {
        let refusal = async {
            stream.write_all(PLAIN_HTTP).await?;
            stream.shutdown().await?;
            // What the client still sends is read, lest a reset overtakes the answer. The handshake's timeout ends that.
            let mut rest = [0; 1024];
            for _ in 0..64 {
                if stream.read(&mut rest).await? == 0 {
                    break;
                }
            }
            io::Result::Ok(())
        };
        refusal
            .await
            .map_err(Error::network("plain HTTP on a TLS port"))?;
        return Ok(None);
    }
    let accept = TlsAcceptor::from(tls.config())
        .accept(Prefixed::new(Bytes::copy_from_slice(&first), stream));
    accept
        .await
        .map(Some)
        .map_err(Error::network("TLS handshake"))
}

/// The beginnings that Go's server knows, and those of the remaining methods of Kubernetes' API.
fn is_plain_http(first: &[u8; SNIFF]) -> bool {
    matches!(
        first,
        b"GET /" | b"HEAD " | b"POST " | b"PUT /" | b"OPTIO" | b"PATCH" | b"DELET" | b"PRI *"
    )
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

fn is_passing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
