//! The smallest client of etcd's API: messages by field number, on plain HTTP/2.
//!
//! It is as cheap as it can be while it speaks real HTTP/2 and reads each answer to its end, because clients share the cores with what is measured.

#![allow(dead_code, reason = "each bench takes what it needs")]

use std::net::Ipv4Addr;

use bytes::{Buf, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use prost::Message;
use tokio::net::TcpStream;

/// Why a call failed.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Put {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
}

/// `etcdserverpb.RangeRequest`: one key, or those from `key` to before `end`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Range {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) end: Bytes,
}

/// `etcdserverpb.WatchRequest` that creates a watch.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Watch {
    #[prost(message, optional, tag = "1")]
    pub(crate) create: Option<Range>,
}

/// What matters of an `etcdserverpb.WatchResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Watched {
    #[prost(bool, tag = "3")]
    pub(crate) created: bool,
    #[prost(bool, tag = "4")]
    pub(crate) canceled: bool,
    #[prost(bytes = "bytes", repeated, tag = "11")]
    pub(crate) events: Vec<Bytes>,
}

/// The first key after all that start with `prefix`, which does not end in 0xff.
pub(crate) fn end_of(prefix: &Bytes) -> Bytes {
    let mut end = BytesMut::from(&prefix[..]);
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.freeze()
}

/// A connection. Clones share it.
#[derive(Clone)]
pub(crate) struct Channel {
    sender: SendRequest<Bytes>,
    put: Uri,
    range: Uri,
    watch: Uri,
}

impl Channel {
    /// Connects to a port of this machine. A task of the current runtime drives the connection.
    pub(crate) async fn connect(port: u16) -> Result<Self, Failure> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        // Windows that no answer fills, so that none waits for the client's leave to be sent.
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(4 << 20)
            .initial_connection_window_size(64 << 20)
            .max_frame_size(1 << 20)
            .enable_push(false)
            .handshake(stream)
            .await?;
        tokio::spawn(connection);
        let uri = |method: &str| {
            Uri::builder()
                .scheme("http")
                .authority(format!("127.0.0.1:{port}"))
                .path_and_query(format!("/etcdserverpb.{method}"))
                .build()
        };
        Ok(Self {
            sender,
            put: uri("KV/Put")?,
            range: uri("KV/Range")?,
            watch: uri("Watch/Watch")?,
        })
    }

    /// Writes a key, and waits until that is acknowledged.
    pub(crate) async fn put(&self, put: &Put) -> Result<(), Failure> {
        self.unary(self.put.clone(), put).await.map(|_| ())
    }

    /// Reads keys, and returns how many bytes the answer has.
    pub(crate) async fn range(&self, range: &Range) -> Result<usize, Failure> {
        self.unary(self.range.clone(), range).await
    }

    async fn open(
        &self,
        uri: Uri,
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), Failure> {
        let mut request = Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        let mut sender = self.sender.clone().ready().await?;
        Ok(sender.send_request(request, false)?)
    }

    async fn unary(&self, uri: Uri, message: &impl Message) -> Result<usize, Failure> {
        let (response, mut body) = self.open(uri).await?;
        body.send_data(framed(message), true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut length = 0;
        while let Some(data) = body.data().await {
            let data = data?;
            length += data.len();
            body.flow_control().release_capacity(data.len())?;
        }
        let trailers = body.trailers().await?;
        succeeded(&head.headers, trailers.as_ref())?;
        Ok(length)
    }

    /// Opens watches on one stream.
    pub(crate) async fn watch(&self, ranges: Vec<Range>) -> Result<Watching, Failure> {
        let (response, mut sending) = self.open(self.watch.clone()).await?;
        for range in ranges {
            let create = Some(range);
            sending.send_data(framed(&Watch { create }), false)?;
        }
        let (head, receiving) = response.await.map(Response::into_parts)?;
        if head.headers.contains_key("grpc-status") {
            succeeded(&head.headers, None)?;
        }
        Ok(Watching {
            receiving,
            received: BytesMut::new(),
            _sending: sending,
        })
    }
}

/// A stream of watches.
pub(crate) struct Watching {
    receiving: RecvStream,
    received: BytesMut,
    /// The server ends the watches when the client's side ends.
    _sending: SendStream<Bytes>,
}

impl Watching {
    /// The next message.
    pub(crate) async fn next(&mut self) -> Result<Watched, Failure> {
        loop {
            if let Some(head) = self.received.first_chunk::<5>() {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if self.received.len() >= 5 + length {
                    self.received.advance(5);
                    return Ok(Watched::decode(self.received.split_to(length).freeze())?);
                }
            }
            let Some(data) = self.receiving.data().await else {
                let trailers = self.receiving.trailers().await?;
                return Err(format!("the stream of watches ended: {trailers:?}").into());
            };
            let data = data?;
            self.receiving.flow_control().release_capacity(data.len())?;
            self.received.extend_from_slice(&data);
        }
    }
}

/// A message with the five bytes that gRPC puts in front of it.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(5 + length);
    framed.extend_from_slice(&[0]);
    framed.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    message.encode_raw(&mut framed);
    framed.freeze()
}

fn succeeded(headers: &HeaderMap, trailers: Option<&HeaderMap>) -> Result<(), Failure> {
    let status = trailers
        .and_then(|trailers| trailers.get("grpc-status"))
        .or(headers.get("grpc-status"));
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => Ok(()),
        other => Err(format!("grpc-status {other:?} {trailers:?}").into()),
    }
}
