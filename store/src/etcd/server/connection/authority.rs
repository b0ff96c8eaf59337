//! Takes an authority that is none.
//!
//! etcd's clients name the server they call by what they were told of it, so that their header `:authority` may read `http://127.0.0.1:2379`, or, for a socket
//! of this machine, `/run/etcd.sock`. Neither is an authority. etcd does not look at it; the HTTP/2 library here refuses such a request before
//! anybody can. So what cannot stand in the name of a host becomes a dot on its way in. The text keeps its length, and by its length it counts
//! in HPACK's table of headers (RFC 7541, 4.1): both ends keep the same table. It is done in the first header of a connection: a client names
//! the same server in all of them, and every later one refers to the first.

mod hpack;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How long what an HTTP/2 client says first is.
const PREFACE: usize = 24;
/// The length of a frame's header.
const HEADER: usize = 9;
/// The frame that begins a request.
const HEADERS: u8 = 1;
/// The longest frame that is looked at: a server takes no longer ones unless it says so.
const LONGEST: usize = 16_384;
/// Flags of a frame of headers that has more in it than the block: padding, or a priority. No client of etcd sends them.
const MORE: u8 = 0x28;
/// How many bytes are looked at before the first request, at most.
const MOST: usize = 128 * 1024;

/// A connection whose first request may have an authority that is none.
pub(super) struct Lenient<IO> {
    io: IO,
    /// What was read and is not handed on.
    held: BytesMut,
    /// How much of it may be handed on.
    free: usize,
    /// Whether the first request has yet to come.
    looking: bool,
    looked_at: usize,
}

impl<IO> Lenient<IO> {
    /// A connection of HTTP/2, of which the first bytes were read.
    pub(super) fn new(first: &[u8], io: IO) -> Self {
        Self {
            io,
            held: BytesMut::from(first),
            free: 0,
            looking: true,
            looked_at: 0,
        }
    }

    /// A connection of another kind.
    pub(super) fn as_it_is(first: &[u8], io: IO) -> Self {
        Self {
            free: first.len(),
            looking: false,
            ..Self::new(first, io)
        }
    }

    /// Looks at what has come, up to the first request.
    fn look(&mut self) {
        while self.looking {
            let rest = &mut self.held[self.free..];
            if self.looked_at == 0 {
                if rest.len() < PREFACE {
                    return;
                }
                self.free += PREFACE;
                self.looked_at = PREFACE;
                continue;
            }
            let Some(&[a, b, c, kind, flags]) = rest.first_chunk::<5>() else {
                return;
            };
            let mut length = HEADER + u32::from_be_bytes([0, a, b, c]) as usize;
            if length > LONGEST + HEADER || self.looked_at + length > MOST {
                self.looking = false;
            } else if rest.len() < length {
                return;
            } else {
                if kind == HEADERS {
                    if flags & MORE == 0 {
                        length = self.mend(length);
                    }
                    self.looking = false;
                }
                self.free += length;
                self.looked_at += length;
            }
        }
        self.free = self.held.len();
    }

    /// Puts another authority into the request that comes next, if it needs one. What is the length of its frame, and what it is then.
    fn mend(&mut self, length: usize) -> usize {
        let begin = self.free + HEADER;
        let block = &self.held[begin..self.free + length];
        let Some(mended) = hpack::mended(block).filter(|mended| mended.len() <= LONGEST) else {
            return length;
        };
        let after = self.held.split_off(self.free + length);
        self.held.truncate(begin);
        // At most 16,384, so that three bytes hold it.
        let bytes = (mended.len() as u32).to_be_bytes();
        self.held[self.free..self.free + 3].copy_from_slice(&bytes[1..]);
        self.held.extend_from_slice(&mended);
        self.held.unsplit(after);
        HEADER + mended.len()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Lenient<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.free > 0 {
                let count = this.free.min(buf.remaining());
                buf.put_slice(&this.held[..count]);
                this.held.advance(count);
                this.free -= count;
                return Poll::Ready(Ok(()));
            }
            if !this.looking && this.held.is_empty() {
                return Pin::new(&mut this.io).poll_read(cx, buf);
            }
            let mut more = [0; 4096];
            let mut read = ReadBuf::new(&mut more);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                // The end: what is held is all there will be.
                this.looking = false;
            }
            this.held.extend_from_slice(read.filled());
            this.look();
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Lenient<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_first_request_is_mended_in_however_small_pieces_it_comes() {
        let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        sent.extend(b"\0\0\0\x04\0\0\0\0\0");
        let request = b"\x82\x41\x16http://localhost:12345";
        for _ in 0..2 {
            sent.extend([0, 0, request.len() as u8, HEADERS, 4, 0, 0, 0, 1]);
            sent.extend(request);
        }
        let mut wanted = sent.clone();
        let at = wanted.windows(4).position(|four| four == b"://l").unwrap();
        wanted[at..at + 3].copy_from_slice(b"...");
        let colon = wanted.windows(6).position(|six| six == b":12345").unwrap();
        wanted[colon] = b'.';
        for piece in [1, 2, 7, 1000] {
            let (mut client, server) = tokio::io::duplex(64);
            let sending = sent.clone();
            let sender = async move {
                for piece in sending[3..].chunks(piece) {
                    client.write_all(piece).await.unwrap();
                }
            };
            let mut read = Vec::new();
            let mut server = Lenient::new(&sent[..3], server);
            let (_, got) = futures::join!(sender, server.read_to_end(&mut read));
            got.unwrap();
            assert_eq!(read, wanted, "pieces of {piece}");
        }
    }
    #[tokio::test]
    async fn a_frame_that_changes_its_length_says_so() {
        let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // The Huffman code of /a, which is longer when it is written out, and something after it.
        sent.extend(b"\0\0\x04\x01\x04\0\0\0\x01\x41\x82\x60\x7f");
        let after = b"\0\0\x01\0\x01\0\0\0\x01x";
        sent.extend(after);
        let mut read = Vec::new();
        let mut server = Lenient::new(&sent[..3], &sent[3..]);
        server.read_to_end(&mut read).await.unwrap();
        let frame = &read[PREFACE..];
        assert_eq!(
            frame,
            [&b"\0\0\x04\x01\x04\0\0\0\x01\x41\x02.a"[..], after].concat()
        );
    }
}
