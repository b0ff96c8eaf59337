//! A real etcd, and the smallest client that can put.

use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

/// How long etcd may take until it answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process of etcd, which ends with this value.
pub(crate) struct Etcd {
    child: Child,
    pub(crate) port: u16,
    pub(crate) version: String,
    _directory: TempDir,
}

impl Etcd {
    /// Starts the etcd on `PATH`, with its data in a new directory.
    pub(crate) fn start() -> io::Result<Self> {
        let version = Command::new("etcd").arg("--version").output()?.stdout;
        let version = String::from_utf8_lossy(&version)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        let directory = tempfile::tempdir()?;
        let (port, peers) = (free_port()?, free_port()?);
        let (client, peer) = (
            format!("http://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{peers}"),
        );
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args([
                "--initial-cluster",
                &format!("default={peer}"),
                "--log-level",
                "error",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut etcd = Self {
            child,
            port,
            version,
            _directory: directory,
        };
        let began = Instant::now();
        while !etcd.answers() {
            if let Some(status) = etcd.child.try_wait()? {
                return Err(io::Error::other(format!("it ended with {status}")));
            }
            if began.elapsed() > PATIENCE {
                return Err(io::Error::other("it does not answer"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(etcd)
    }

    /// Whether a put succeeds.
    fn answers(&self) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.is_ok_and(|runtime| {
            runtime.block_on(async {
                let put = async {
                    Grpc::try_connect(self.port)
                        .await?
                        .put(put_request(b"/ready", b""))
                        .await
                };
                tokio::time::timeout(Duration::from_secs(2), put)
                    .await
                    .is_ok_and(|put| put.is_ok())
            })
        })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> io::Result<u16> {
    Ok(StdListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A connection over which messages are sent by gRPC.
#[derive(Clone)]
pub(crate) struct Grpc {
    sender: SendRequest<Full<Bytes>>,
    uri: http::Uri,
}

impl Grpc {
    /// Connects to a port of this machine.
    pub(crate) async fn connect(port: u16) -> Self {
        Self::try_connect(port).await.expect("a connection")
    }

    async fn try_connect(port: u16) -> Result<Self, Failure> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await?;
        tokio::spawn(connection);
        Ok(Self {
            sender,
            uri: format!("http://127.0.0.1:{port}/etcdserverpb.KV/Put").parse()?,
        })
    }

    /// Sends a `PutRequest` and waits until it is acknowledged.
    pub(crate) async fn put(mut self, message: Bytes) -> Result<(), Failure> {
        let request = Request::post(self.uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(message))?;
        let response = self.sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        let status = body
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status"))
            .or(head.headers.get("grpc-status"));
        match status.map(HeaderValue::as_bytes) {
            Some(b"0") => Ok(()),
            other => Err(format!("grpc-status {other:?} {:?}", body.trailers()).into()),
        }
    }
}

/// An `etcdserverpb.PutRequest` (1: key, 2: value) with the five bytes that gRPC puts in front of a message.
pub(crate) fn put_request(key: &[u8], value: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(key.len() + value.len() + 16);
    message.put_slice(&[0; 5]);
    for (field, bytes) in [(1_u8, key), (2, value)] {
        message.put_u8(field << 3 | 2);
        let mut length = bytes.len();
        while length >= 0x80 {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(bytes);
    }
    let length = (message.len() - 5) as u32;
    message[1..5].copy_from_slice(&length.to_be_bytes());
    message.freeze()
}

/// A gRPC server that answers every message with an empty one, at once.
pub(crate) struct Echo {
    pub(crate) port: u16,
}

impl Echo {
    pub(crate) async fn start() -> Self {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let port = socket.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let _ = stream.set_nodelay(true);
                let service = hyper::service::service_fn(answer);
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { port }
    }
}

type EmptyAnswer =
    StreamBody<futures::stream::Iter<std::array::IntoIter<Result<Frame<Bytes>, Failure>, 2>>>;

async fn answer(request: Request<Incoming>) -> Result<Response<EmptyAnswer>, Failure> {
    request.into_body().collect().await?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [
        Ok(Frame::data(Bytes::from_static(&[0; 5]))),
        Ok(Frame::trailers(trailers)),
    ];
    let mut response = Response::new(StreamBody::new(futures::stream::iter(frames)));
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}
