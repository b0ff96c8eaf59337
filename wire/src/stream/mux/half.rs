//! Streams, and their two halves.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::Sink;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::{Headers, ResetCode};
use super::state::{End, Fin, Shared};

/// A stream: both halves and what it was opened with.
///
/// Dropped before both sides are done, it is reset; what was written to it is sent before.
pub struct Stream {
    headers: Headers,
    receive: ReceiveHalf,
    send: SendHalf,
}

/// What comes. Dropping it throws away what still comes, so that the connection's other streams are not held up.
pub struct ReceiveHalf {
    shared: Arc<Shared>,
    id: u32,
    /// What was taken from the stream and not read to its end yet.
    rest: Bytes,
}

/// What is sent. Dropping it says that no more will come.
pub struct SendHalf {
    shared: Arc<Shared>,
    id: u32,
    limit: usize,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("id", &self.send.id)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ReceiveHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveHalf")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendHalf")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Stream {
    pub(super) fn new(shared: &Arc<Shared>, id: u32, headers: Headers, limit: usize) -> Self {
        shared.0.lock().halves += 2;
        Self {
            headers,
            receive: ReceiveHalf {
                shared: shared.clone(),
                id,
                rest: Bytes::new(),
            },
            send: SendHalf {
                shared: shared.clone(),
                id,
                limit,
            },
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.send.id
    }

    /// What it was opened with.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Takes a stream that the peer opened. What is written to it before waits until then. With `fin`, nothing will be sent at all.
    pub fn reply(&self, headers: Headers, fin: bool) {
        self.send.shared.0.lock().reply(self.send.id, headers, fin);
    }

    /// Ends it both ways at once; what was not sent is dropped.
    pub fn reset(&self, code: ResetCode) {
        self.send.shared.0.lock().reset(self.send.id, code);
    }

    /// Says that nothing more will be sent; what was written before is sent first.
    pub fn close_send(&self) {
        self.send.close();
    }

    /// Both halves, each to be used by itself.
    #[must_use]
    pub fn into_split(self) -> (ReceiveHalf, SendHalf) {
        (self.receive, self.send)
    }

    /// Waits until the peer has taken it.
    pub(super) async fn replied(&self) -> io::Result<Headers> {
        poll_fn(|cx| {
            let mut state = self.send.shared.0.lock();
            let Some(slot) = state.slots.get_mut(&self.send.id) else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            if slot.open {
                return Poll::Ready(Ok(std::mem::take(&mut slot.reply)));
            }
            match slot.end {
                Some(End::Broken(kind)) => Poll::Ready(Err(kind.into())),
                Some(_) => Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    "the peer refused the stream",
                ))),
                None => {
                    slot.opener = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl ReceiveHalf {
    /// The next piece; `None` at the end. A stream that the peer reset ends, too; one whose connection broke fails.
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.rest))));
        }
        let mut state = self.shared.0.lock();
        let Some(slot) = state.slots.get_mut(&self.id) else {
            return Poll::Ready(None);
        };
        if let Some(bytes) = slot.inbox.pop_front() {
            slot.inbox_len -= bytes.len();
            state.wake_driver();
            return Poll::Ready(Some(Ok(bytes)));
        }
        match slot.end {
            None => {
                slot.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(End::Finished | End::Reset(_)) => Poll::Ready(None),
            Some(End::Broken(kind)) => {
                // Said once, as a stream's errors are.
                slot.end = Some(End::Finished);
                Poll::Ready(Some(Err(kind.into())))
            }
        }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn bytes(&mut self) -> Option<io::Result<Bytes>> {
        poll_fn(|cx| self.poll_bytes(cx)).await
    }

    /// Why the peer ended the stream, if it reset it.
    #[must_use]
    pub fn reset_code(&self) -> Option<ResetCode> {
        match self.shared.0.lock().slots.get(&self.id)?.end {
            Some(End::Reset(code)) => Some(code),
            _ => None,
        }
    }
}

impl futures::Stream for ReceiveHalf {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_bytes(cx)
    }
}

impl AsyncRead for ReceiveHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        match ready!(self.poll_bytes(cx)) {
            None => Poll::Ready(Ok(())),
            Some(Err(error)) => Poll::Ready(Err(error)),
            Some(Ok(mut bytes)) => {
                let count = bytes.len().min(buf.remaining());
                buf.put_slice(&bytes[..count]);
                bytes.advance(count);
                self.rest = bytes;
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl Drop for ReceiveHalf {
    fn drop(&mut self) {
        let mut state = self.shared.0.lock();
        state.halves -= 1;
        if let Some(slot) = state.slots.get_mut(&self.id) {
            slot.deaf = true;
            slot.inbox.clear();
            slot.inbox_len = 0;
        }
        state.tidy(self.id);
        state.wake_driver();
    }
}

impl SendHalf {
    fn close(&self) {
        let mut state = self.shared.0.lock();
        if let Some(slot) = state.slots.get_mut(&self.id)
            && slot.fin == Fin::Open
        {
            slot.fin = Fin::Wanted;
            state.enqueue(self.id);
        }
    }

    fn poll_room(&self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<()>> {
        let mut state = self.shared.0.lock();
        let Some(slot) = state.slots.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if slot.fin != Fin::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if slot.outbox_len < room || slot.outbox.is_empty() {
            Poll::Ready(Ok(()))
        } else {
            slot.writer = Some(cx.waker().clone());
            Poll::Pending
        }
    }

    /// Takes a piece to be sent. Call it when there is room.
    fn put(&self, data: Bytes) -> io::Result<()> {
        let mut state = self.shared.0.lock();
        let slot = state
            .slots
            .get_mut(&self.id)
            .filter(|slot| slot.fin == Fin::Open)
            .ok_or(io::ErrorKind::BrokenPipe)?;
        slot.outbox_len += data.len();
        slot.outbox.push_back(data);
        state.enqueue(self.id);
        Ok(())
    }

    /// Waits until the cable has taken all.
    fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.0.lock();
        let broken = state.ended.is_some();
        let Some(slot) = state.slots.get_mut(&self.id) else {
            return Poll::Ready(Ok(()));
        };
        if slot.outbox.is_empty() && slot.fin != Fin::Wanted {
            return if broken && matches!(slot.end, Some(End::Broken(_))) {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            } else {
                Poll::Ready(Ok(()))
            };
        }
        slot.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Sends an empty piece, which some protocols give a meaning.
    pub(crate) fn put_empty(&self) -> io::Result<()> {
        self.put(Bytes::new())
    }
}

impl Sink<Bytes> for SendHalf {
    type Error = io::Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_room(cx, self.limit)
    }

    fn start_send(self: Pin<&mut Self>, data: Bytes) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        self.put(data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_empty(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        self.poll_empty(cx)
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_room(cx, self.limit))?;
        let count = buf.len().min(self.limit.max(1));
        self.put(Bytes::copy_from_slice(&buf[..count]))?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_empty(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        self.poll_empty(cx)
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        self.close();
        let mut state = self.shared.0.lock();
        state.halves -= 1;
        if let Some(slot) = state.slots.get_mut(&self.id) {
            slot.mute = true;
        }
        state.tidy(self.id);
        state.wake_driver();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.receive).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }
}
