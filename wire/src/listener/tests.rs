use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::*;
use crate::body::Body;
use crate::pki::{
    CertificateAuthority, CertificateIdentity, ClientVerifier, ClusterPkiOptions, KeyAndCertificate,
};

/// Says who is there; streams what it is sent through a channel; upgrades to an echo.
#[derive(Clone)]
struct Service {
    chunks: Arc<tokio::sync::Mutex<Option<mpsc::Receiver<&'static str>>>>,
    env: Env,
}

struct Chunks(mpsc::Receiver<&'static str>);

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|chunk| {
            chunk.map(|text| Ok(http_body::Frame::data(Bytes::from_static(text.as_bytes()))))
        })
    }
}

fn who(peer: &PeerInfo) -> String {
    let name = peer
        .client_certificate
        .as_ref()
        .map_or("nobody".to_owned(), |chain| {
            let identity = CertificateIdentity::from_der(&chain[0]).unwrap();
            format!(
                "{} of {}",
                identity.common_name,
                identity.organizations.join("+")
            )
        });
    format!(
        "{name} by {:?} tls={} from {}",
        peer.alpn,
        peer.tls,
        peer.remote_addr
            .map_or("memory".to_owned(), |a| a.ip().to_string())
    )
}

impl tower_service::Service<Request<Body>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<PeerInfo>().unwrap().clone();
        let this = self.clone();
        match request.uri().path() {
            "/stream" => Box::pin(async move {
                Ok(Response::new(Body::new(Chunks(
                    this.chunks.lock().await.take().unwrap(),
                ))))
            }),
            "/echo" => {
                let upgrade = hyper::upgrade::on(&mut request);
                this.env.spawn("echo", async move {
                    let mut io = TokioIo::new(upgrade.await.unwrap());
                    let mut buffer = [0; 5];
                    io.read_exact(&mut buffer).await.unwrap();
                    io.write_all(&buffer).await.unwrap();
                });
                let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
                let response = response
                    .header("connection", "upgrade")
                    .header("upgrade", "echo");
                Box::pin(ready(Ok(response.body(Body::empty()).unwrap())))
            }
            "/body" => Box::pin(async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Ok(Response::new(Body::from(body)))
            }),
            _ => Box::pin(ready(Ok(Response::new(Body::from(who(&peer)))))),
        }
    }
}

struct Server {
    address: SocketAddr,
    ca: CertificateAuthority,
    chunks: mpsc::Sender<&'static str>,
    stop: CancelToken,
    task: JoinHandle<Result<(), Error>>,
    tls: ServerTls,
    now: Timestamp,
}

impl Server {
    async fn start(tls: bool, limits: ListenerLimits) -> Self {
        let env = Env::tokio();
        let now = env.wall();
        let day = Duration::from_secs(86_400);
        let ca = CertificateAuthority::create("ca", now, day).unwrap();
        let server = ca
            .issue_server("server", ClusterPkiOptions::new().server_names, now, day)
            .unwrap();
        let clients = ClientVerifier::from_pem(ca.certificate_pem()).unwrap();
        let server_tls = ServerTls::new(&server, Some(&clients), &env).unwrap();
        let listener = if tls {
            Listener::tls(server_tls.clone())
        } else {
            Listener::plain()
        }
        .limits(limits);
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (chunks, receiver) = mpsc::channel(10);
        let service = Service {
            chunks: Arc::new(tokio::sync::Mutex::new(Some(receiver))),
            env: env.clone(),
        };
        let stop = CancelToken::new();
        let token = stop.clone();
        #[allow(clippy::disallowed_methods)] // the test owns it
        let task = tokio::spawn(async move { listener.serve(socket, service, &env, &token).await });
        Self {
            address,
            ca,
            chunks,
            stop,
            task,
            tls: server_tls,
            now,
        }
    }

    fn client(&self, user: &str, groups: &[&str]) -> KeyAndCertificate {
        self.ca
            .issue_client(
                user,
                groups.iter().copied(),
                self.now,
                Duration::from_secs(3600),
            )
            .unwrap()
    }

    async fn connect(
        &self,
        alpn: &[&str],
        own: Option<&KeyAndCertificate>,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.certificate().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = config.with_root_certificates(roots);
        let mut config = match own {
            Some(own) => config
                .with_client_auth_cert(own.chain().unwrap(), own.private_key().unwrap())
                .unwrap(),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from("localhost").unwrap(), stream)
            .await
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

type Sender1 = hyper::client::conn::http1::SendRequest<Full<Bytes>>;
type Sender2 = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn http1<IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static>(
    io: IO,
) -> Sender1 {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .unwrap();
    Env::tokio().spawn(
        "client",
        async move { drop(connection.with_upgrades().await) },
    );
    sender
}

async fn http2<IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static>(
    io: IO,
) -> (Sender2, JoinHandle<()>) {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .unwrap();
    #[allow(clippy::disallowed_methods)] // the test owns it
    let task = tokio::spawn(async move { drop(connection.await) });
    (sender, task)
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("https://localhost{path}"))
        .header("host", "localhost")
        .body(Full::default())
        .unwrap()
}

async fn text(response: Response<hyper::body::Incoming>) -> String {
    String::from_utf8(
        response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec(),
    )
    .unwrap()
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate_over_either_version() {
    let server = Server::start(true, ListenerLimits::default()).await;
    let jane = server.client("jane", &["developers", "oncall"]);
    let (mut sender, _) = http2(
        server
            .connect(&["h2", "http/1.1"], Some(&jane))
            .await
            .unwrap(),
    )
    .await;
    let answer = text(sender.send_request(get("/")).await.unwrap()).await;
    assert_eq!(
        answer,
        "jane of developers+oncall by Some(H2) tls=true from 127.0.0.1"
    );
    let mut sender = http1(server.connect(&["http/1.1"], Some(&jane)).await.unwrap()).await;
    let answer = text(sender.send_request(get("/")).await.unwrap()).await;
    assert_eq!(
        answer,
        "jane of developers+oncall by Some(Http1) tls=true from 127.0.0.1"
    );
    let mut sender = http1(server.connect(&[], None).await.unwrap()).await;
    assert_eq!(
        text(sender.send_request(get("/")).await.unwrap()).await,
        "nobody by None tls=true from 127.0.0.1"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_refused() {
    let server = Server::start(true, ListenerLimits::default()).await;
    let stranger =
        CertificateAuthority::create("ca", server.now, Duration::from_secs(3600)).unwrap();
    let stranger = stranger
        .issue_client("jane", ["a"], server.now, Duration::from_secs(3600))
        .unwrap();
    // In TLS 1.3 the client learns of it when it first reads.
    let refused = match server.connect(&["http/1.1"], Some(&stranger)).await {
        Ok(mut stream) => stream.read(&mut [0; 1]).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    server.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_clients() {
    let server = Server::start(true, ListenerLimits::default()).await;
    let before = server.connect(&[], None).await.unwrap();
    let other = server
        .ca
        .issue_server(
            "other",
            ["localhost".into()],
            server.now,
            Duration::from_secs(60),
        )
        .unwrap();
    server.tls.replace(&other).unwrap();
    let after = server.connect(&[], None).await.unwrap();
    let name = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
        CertificateIdentity::from_der(&stream.get_ref().1.peer_certificates().unwrap()[0])
            .unwrap()
            .common_name
    };
    assert_eq!(
        (name(&before).as_str(), name(&after).as_str()),
        ("server", "other")
    );
    drop((before, after));
    server.stop().await;
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_told_so() {
    let server = Server::start(true, ListenerLimits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(
        answer,
        "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
    );
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn an_upgrade_reaches_the_service() {
    let server = Server::start(true, ListenerLimits::default()).await;
    let mut sender = http1(server.connect(&["http/1.1"], None).await.unwrap()).await;
    let mut request = get("/echo");
    request
        .headers_mut()
        .insert("connection", "upgrade".parse().unwrap());
    request
        .headers_mut()
        .insert("upgrade", "echo".parse().unwrap());
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    io.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    io.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
    server.stop().await;
}

#[tokio::test]
async fn at_shutdown_a_stream_may_end_but_nothing_new_begins() {
    let server = Server::start(true, ListenerLimits::default()).await;
    let (mut sender, connection) = http2(server.connect(&["h2"], None).await.unwrap()).await;
    let response = sender.send_request(get("/stream")).await.unwrap();
    let mut body = response.into_body();
    server.chunks.send("one").await.unwrap();
    assert_eq!(
        body.frame().await.unwrap().unwrap().into_data().unwrap(),
        "one"
    );
    server.stop.cancel();
    // The socket is closed at once; the stream goes on.
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    server.chunks.send("two").await.unwrap();
    assert_eq!(
        body.frame().await.unwrap().unwrap().into_data().unwrap(),
        "two"
    );
    assert!(!server.task.is_finished());
    drop(server.chunks);
    assert!(
        body.collect().await.unwrap().to_bytes().is_empty(),
        "it ends, and well"
    );
    server.task.await.unwrap().unwrap();
    connection.await.unwrap();
    assert!(sender.send_request(get("/")).await.is_err());
}

#[tokio::test]
async fn a_stream_that_does_not_end_is_cut_off() {
    for alpn in ["h2", "http/1.1"] {
        let mut limits = ListenerLimits::default();
        limits.connection.drain_timeout = Duration::from_millis(50);
        let server = Server::start(true, limits).await;
        let io = server.connect(&[alpn], None).await.unwrap();
        let response = if alpn == "h2" {
            http2(io)
                .await
                .0
                .send_request(get("/stream"))
                .await
                .unwrap()
        } else {
            http1(io).await.send_request(get("/stream")).await.unwrap()
        };
        let mut body = response.into_body();
        server.chunks.send("one").await.unwrap();
        assert!(body.frame().await.unwrap().is_ok());
        server.stop.cancel();
        server.task.await.unwrap().unwrap();
        assert!(!matches!(body.frame().await, Some(Ok(_))));
        // The service's own end of the stream is dropped, too.
        server.chunks.closed().await;
    }
}

#[tokio::test]
async fn connections_are_bounded_and_the_silent_are_dropped() {
    let mut limits = ListenerLimits {
        max_connections: 1,
        handshake_timeout: Duration::from_millis(100),
        ..Default::default()
    };
    limits.connection.header_read_timeout = Duration::from_millis(100);
    let server = Server::start(true, limits).await;
    // Silent before the handshake, and silent after it: both are dropped, and the next one gets its turn.
    let silent = TcpStream::connect(server.address).await.unwrap();
    let mut mute = server.connect(&["http/1.1"], None).await.unwrap();
    assert_eq!(mute.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let mut slow = server.connect(&["h2"], None).await.unwrap();
    slow.write_all(b"PRI * ").await.unwrap();
    assert_eq!(slow.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let mut sender = http1(server.connect(&["http/1.1"], None).await.unwrap()).await;
    assert!(sender.send_request(get("/")).await.is_ok());
    drop((silent, sender));
    server.stop().await;
}

#[tokio::test]
async fn plain_tcp_and_memory_are_served_too() {
    let server = Server::start(false, ListenerLimits::default()).await;
    let mut sender = http1(TcpStream::connect(server.address).await.unwrap()).await;
    assert_eq!(
        text(sender.send_request(get("/")).await.unwrap()).await,
        "nobody by None tls=false from 127.0.0.1"
    );
    let (mut sender, _) = http2(TcpStream::connect(server.address).await.unwrap()).await;
    let mut post = get("/body");
    *post.method_mut() = http::Method::POST;
    *post.body_mut() = Full::from(vec![b'x'; 300_000]);
    assert_eq!(
        text(sender.send_request(post).await.unwrap()).await.len(),
        300_000
    );
    server.stop().await;
}

#[test]
fn a_connection_in_memory_lives_on_virtual_time() {
    let sim = orlop_core::env::SimEnv::new(1);
    let env = sim.env();
    let answer = sim.block_on(async move {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let (_, receiver) = mpsc::channel(1);
        let service = Service {
            chunks: Arc::new(tokio::sync::Mutex::new(Some(receiver))),
            env: env.clone(),
        };
        let stop = CancelToken::new();
        let inner = env.clone();
        env.spawn("server", async move {
            let limits = ConnectionLimits::in_memory();
            serve_connection(server, PeerInfo::default(), service, &limits, &inner, &stop)
                .await
                .unwrap();
        });
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client))
            .await
            .unwrap();
        env.spawn("client", async move { drop(connection.await) });
        text(sender.send_request(get("/")).await.unwrap()).await
    });
    assert_eq!(answer, "nobody by None tls=false from memory");
}
