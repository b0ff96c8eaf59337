//! The side that wants connections.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;
use orlop_core::env::Env;
use orlop_core::runtime::{ByteStream, Connection, RuntimeError};
use tokio::io::{AsyncRead, AsyncWrite};

use super::header;
use crate::stream::io::from_io;
use crate::stream::mux::{self, Headers, Options, ReceiveHalf, SendHalf};
use crate::stream::remote_command::byte_sink_of;
use crate::stream::spdy;

/// How much of what went wrong is kept, in bytes.
const MAX_ERROR: usize = 64 * 1024;

/// Opens connections to the ports of one pod over one SPDY connection. The connection ends with it and its last connection.
pub struct PortForwarder {
    connection: mux::Connection,
    next: AtomicU64,
}

impl fmt::Debug for PortForwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PortForwarder")
    }
}

impl PortForwarder {
    /// Over a connection that speaks SPDY already, by an upgrade or in a [tunnel](crate::stream::websocket::WebSocketIo).
    pub fn new<IO>(io: IO, options: Options, env: &Env) -> Self
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self {
            connection: spdy::client(io, options, env),
            next: AtomicU64::new(0),
        }
    }

    /// A connection to a port. Whether something listens there shows later: what comes back fails with what the server says about it.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`]: the other side does not take it, or has gone.
    pub async fn connect(&self, port: u16) -> Result<Connection, RuntimeError> {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        let headers = |kind: &str| {
            Headers::new()
                .with(header::STREAM_TYPE, kind)
                .with(header::PORT, port.to_string())
                .with(header::REQUEST_ID, request.to_string())
        };
        let unavailable = |error: std::io::Error| RuntimeError::Unavailable(error.to_string());
        let error = self.connection.open(headers(header::ERROR)).await;
        let error = error.map_err(unavailable)?;
        // Nothing is said on it by this side.
        error.close_send();
        let data = self.connection.open(headers(header::DATA)).await;
        let (receive, send) = data.map_err(unavailable)?.into_split();
        let (error, kept) = error.into_split();
        let receive: ByteStream = Box::pin(Receive {
            port,
            data: Some(receive),
            error: Some((error, kept)),
            text: Vec::new(),
        });
        Ok(Connection {
            send: byte_sink_of(send),
            receive,
        })
    }

    /// Waits until the connection below is over.
    pub async fn closed(&self) {
        self.connection.closed().await;
    }
}

/// The bytes of a connection, and behind them what went wrong.
struct Receive {
    port: u16,
    data: Option<ReceiveHalf>,
    error: Option<(ReceiveHalf, SendHalf)>,
    text: Vec<u8>,
}

impl Receive {
    fn failure(&self) -> Option<RuntimeError> {
        if self.text.is_empty() {
            return None;
        }
        let text = String::from_utf8_lossy(&self.text).into_owned();
        Some(if text.to_lowercase().contains("connection refused") {
            RuntimeError::Refused(self.port)
        } else {
            RuntimeError::Failed(text)
        })
    }
}

impl Stream for Receive {
    type Item = Result<Bytes, RuntimeError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(data) = &mut this.data {
            match ready!(data.poll_bytes(cx)) {
                Some(Ok(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Some(Err(error)) => {
                    (this.data, this.error) = (None, None);
                    return Poll::Ready(Some(Err(from_io(error))));
                }
                None => this.data = None,
            }
        }
        while let Some((error, _)) = &mut this.error {
            match ready!(error.poll_bytes(cx)) {
                Some(Ok(bytes)) => {
                    let room = MAX_ERROR - this.text.len();
                    this.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
                }
                Some(Err(error)) => {
                    this.error = None;
                    return Poll::Ready(Some(Err(from_io(error))));
                }
                None => {
                    this.error = None;
                    if let Some(failure) = this.failure() {
                        return Poll::Ready(Some(Err(failure)));
                    }
                }
            }
        }
        Poll::Ready(None)
    }
}
