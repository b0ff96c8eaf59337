//! A [`Connection`] as bytes that are read and written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use orlop_core::runtime::{ByteSink, ByteStream, Connection, RuntimeError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// At most so much of a write is taken at a time, in bytes.
const CHUNK: usize = 32 << 10;

/// A connection as [`AsyncRead`] and [`AsyncWrite`]. Dropping it closes the connection.
pub(super) struct Io {
    send: ByteSink,
    receive: ByteStream,
    /// What came and was not read yet.
    rest: Bytes,
}

impl Io {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            send: connection.send,
            receive: connection.receive,
            rest: Bytes::new(),
        }
    }
}

fn broken(error: RuntimeError) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let io = &mut *self;
        while io.rest.is_empty() {
            match ready!(io.receive.as_mut().poll_next(cx)) {
                Some(chunk) => io.rest = chunk.map_err(broken)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = io.rest.len().min(buf.remaining());
        buf.put_slice(&io.rest[..length]);
        io.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.send.as_mut().poll_ready(cx)).map_err(broken)?;
        let length = buf.len().min(CHUNK);
        let chunk = Bytes::copy_from_slice(&buf[..length]);
        self.send.as_mut().start_send(chunk).map_err(broken)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send.as_mut().poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send.as_mut().poll_close(cx).map_err(broken)
    }
}
