//! A [`Connection`] as something to read and write, and the other way round.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures::{Sink, Stream};
use orlop_core::runtime::{ByteSink, ByteStream, Connection, RuntimeError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What is read at a time.
const CHUNK: usize = 32 * 1024;

/// A runtime's failure, as those who read and write know failures.
pub(crate) fn to_io(error: RuntimeError) -> io::Error {
    let kind = match &error {
        RuntimeError::Refused(_) => io::ErrorKind::ConnectionRefused,
        RuntimeError::NotFound { .. } => io::ErrorKind::NotFound,
        RuntimeError::Unavailable(_) => io::ErrorKind::NotConnected,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// The failure of reading or writing, as a runtime's. One that was a runtime's before is that again.
pub(crate) fn from_io(error: io::Error) -> RuntimeError {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<RuntimeError>())
    {
        Some(own) => own.clone(),
        None => RuntimeError::Failed(error.to_string()),
    }
}

/// A connection to be read and written: what HTTP is spoken over.
#[must_use]
pub fn from_connection(connection: Connection) -> ConnectionIo {
    ConnectionIo {
        send: connection.send,
        receive: connection.receive,
        rest: Bytes::new(),
    }
}

/// What [`from_connection`] makes.
pub struct ConnectionIo {
    send: ByteSink,
    receive: ByteStream,
    rest: Bytes,
}

impl std::fmt::Debug for ConnectionIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConnectionIo")
    }
}

impl AsyncRead for ConnectionIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.receive.as_mut().poll_next(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(bytes) => self.rest = bytes.map_err(to_io)?,
            }
        }
        let count = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ConnectionIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.send.as_mut().poll_ready(cx)).map_err(to_io)?;
        let count = buf.len().min(CHUNK);
        let bytes = Bytes::copy_from_slice(&buf[..count]);
        self.send.as_mut().start_send(bytes).map_err(to_io)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send.as_mut().poll_flush(cx).map_err(to_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send.as_mut().poll_close(cx).map_err(to_io)
    }
}

/// Something to read and write as a connection.
#[must_use]
pub fn into_connection<IO>(io: IO) -> Connection
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(io);
    Connection {
        send: byte_sink(write),
        receive: byte_stream(read),
    }
}

/// Something to read as a stream of bytes.
#[must_use]
pub fn byte_stream(read: impl AsyncRead + Unpin + Send + 'static) -> ByteStream {
    Box::pin(Reader {
        read: Some(read),
        buffer: BytesMut::new(),
    })
}

/// Something to write as a sink of bytes, which holds one piece at a time. Dropping it closes it as far as that goes without waiting.
#[must_use]
pub fn byte_sink(write: impl AsyncWrite + Unpin + Send + 'static) -> ByteSink {
    Box::pin(Writer {
        write,
        rest: Bytes::new(),
        closed: false,
    })
}

struct Reader<R> {
    read: Option<R>,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Stream for Reader<R> {
    type Item = Result<Bytes, RuntimeError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(read) = &mut this.read else {
            return Poll::Ready(None);
        };
        this.buffer.reserve(CHUNK);
        // Made anew at each poll: it holds nothing of its own.
        let result = {
            let reading = std::pin::pin!(read.read_buf(&mut this.buffer));
            ready!(reading.poll(cx))
        };
        match result {
            Ok(0) => {
                this.read = None;
                Poll::Ready(None)
            }
            Ok(_) => Poll::Ready(Some(Ok(this.buffer.split().freeze()))),
            Err(error) => {
                this.read = None;
                Poll::Ready(Some(Err(from_io(error))))
            }
        }
    }
}

struct Writer<W: AsyncWrite + Unpin> {
    write: W,
    rest: Bytes,
    closed: bool,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RuntimeError>> {
        while !self.rest.is_empty() {
            match ready!(Pin::new(&mut self.write).poll_write(cx, &self.rest)) {
                Ok(0) => return Poll::Ready(Err(from_io(io::ErrorKind::WriteZero.into()))),
                Ok(count) => self.rest.advance(count),
                Err(error) => {
                    self.rest.clear();
                    return Poll::Ready(Err(from_io(error)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> Sink<Bytes> for Writer<W> {
    type Error = RuntimeError;

    fn poll_ready(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), RuntimeError>> {
        self.poll_rest(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, bytes: Bytes) -> Result<(), RuntimeError> {
        if self.closed {
            return Err(from_io(io::ErrorKind::BrokenPipe.into()));
        }
        self.rest = bytes;
        Ok(())
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), RuntimeError>> {
        ready!(self.poll_rest(cx))?;
        Pin::new(&mut self.write).poll_flush(cx).map_err(from_io)
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), RuntimeError>> {
        ready!(self.poll_rest(cx))?;
        if !self.closed {
            ready!(Pin::new(&mut self.write).poll_shutdown(cx)).map_err(from_io)?;
            self.closed = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> Drop for Writer<W> {
    fn drop(&mut self) {
        if !self.closed {
            let mut cx = Context::from_waker(Waker::noop());
            if self.poll_rest(&mut cx).is_ready() {
                let _ = Pin::new(&mut self.write).poll_shutdown(&mut cx);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{SinkExt, StreamExt};
    use orlop_core::env::SimEnv;
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn there_and_back_again_nothing_is_lost_and_ends_are_told() {
        let sim = SimEnv::new(1);
        let env = sim.env();
        sim.block_on(async move {
            let (near, far) = tokio::io::duplex(100);
            let mut near = from_connection(into_connection(near));
            let Connection { mut send, receive } = into_connection(far);
            env.spawn("echo", async move {
                let mut receive = receive;
                while let Some(bytes) = receive.next().await {
                    send.send(bytes.unwrap()).await.unwrap();
                }
                // Dropped, which closes it.
            });
            let content: Vec<u8> = (0..100_000u32).map(|n| (n % 253) as u8).collect();
            let (mut read, mut write) = tokio::io::split(&mut near);
            let mut all = Vec::new();
            let (read, ()) = futures::join!(read.read_to_end(&mut all), async {
                write.write_all(&content).await.unwrap();
                write.shutdown().await.unwrap();
            });
            read.unwrap();
            assert_eq!(all, content);
        });
    }

    #[test]
    fn failures_keep_their_meaning() {
        let sim = SimEnv::new(1);
        sim.block_on(async move {
            let refused: ByteStream = Box::pin(futures::stream::once(async {
                Err(RuntimeError::Refused(80))
            }));
            let (_, idle) = tokio::io::duplex(1);
            let connection = Connection {
                send: byte_sink(idle),
                receive: refused,
            };
            let mut io = from_connection(connection);
            let error = io.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert_eq!(from_io(error), RuntimeError::Refused(80));
        });
    }
}
