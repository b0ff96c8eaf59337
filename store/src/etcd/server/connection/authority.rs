//! Takes an authority that is a whole URL.
//!
//! etcd's own client names the server it calls for its status by the URL it was given: its header `:authority` reads `http://127.0.0.1:2379`, which is no
//! authority. etcd does not look at it; the HTTP/2 library here refuses such a request before anybody can. So the scheme is made
//! into a part of the host's name on its way in: `httpz..127.0.0.1:2379`. In HPACK's Huffman code, `z` is as long as `:` and `.` as long as `/`, so
//! this changes bits in place and moves nothing, and both ends keep the same table of headers. It is done in the first header of a
//! connection: a client names the same server in all of them, and every later one refers to the first.

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
/// How many bytes are looked at before the first request, at most.
const MOST: usize = 128 * 1024;
/// The literal of `:authority`, to be added to the table.
const AUTHORITY: u8 = 0x41;

/// A connection whose first request may have a URL for an authority.
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
            let Some(&[a, b, c, kind]) = rest.first_chunk::<4>() else {
                return;
            };
            let length = HEADER + u32::from_be_bytes([0, a, b, c]) as usize;
            if length > LONGEST + HEADER || self.looked_at + length > MOST {
                self.looking = false;
            } else if rest.len() < length {
                return;
            } else {
                if kind == HEADERS {
                    mend(&mut rest[HEADER..length]);
                    self.looking = false;
                }
                self.free += length;
                self.looked_at += length;
            }
        }
        self.free = self.held.len();
    }
}

/// Makes the scheme of a URL that stands for an authority into a part of the host's name.
fn mend(block: &mut [u8]) {
    for scheme in ["http://", "https://"] {
        let (coded, raw) = (Bits::coded(scheme), scheme.as_bytes());
        let mut at = 0;
        while at + 2 < block.len() {
            let (mark, rest) = block[at..].split_at_mut(2);
            if mark[0] == AUTHORITY {
                if mark[1] & 0x80 != 0 && coded.begins(rest) {
                    coded.mend(rest);
                    return;
                }
                if mark[1] & 0x80 == 0 && rest.starts_with(raw) {
                    for byte in &mut rest[..raw.len()] {
                        match *byte {
                            b':' => *byte = b'z',
                            b'/' => *byte = b'.',
                            _ => {}
                        }
                    }
                    return;
                }
            }
            at += 1;
        }
    }
}

/// The beginning of a text in HPACK's Huffman code, and what is to become of it.
struct Bits {
    text: Vec<u8>,
    /// Which bits are of the text.
    mask: Vec<u8>,
    mended: Vec<u8>,
}

impl Bits {
    fn coded(text: &str) -> Self {
        let mut bits = Self {
            text: Vec::new(),
            mask: Vec::new(),
            mended: Vec::new(),
        };
        let mut at = 0;
        for byte in text.bytes() {
            // RFC 7541, appendix B: the code, its length, and the code to put in its place.
            let (code, length, instead) = match byte {
                b'h' => (0x27, 6, 0x27),
                b't' => (0x09, 5, 0x09),
                b'p' => (0x2b, 6, 0x2b),
                b's' => (0x08, 5, 0x08),
                b':' => (0x5c, 7, 0x7b),
                _ => (0x18, 6, 0x17),
            };
            for bit in (0..length).rev() {
                if at % 8 == 0 {
                    bits.text.push(0);
                    bits.mask.push(0);
                    bits.mended.push(0);
                }
                let place = 7 - at % 8;
                bits.text[at / 8] |= (code >> bit & 1) << place;
                bits.mended[at / 8] |= (instead >> bit & 1) << place;
                bits.mask[at / 8] |= 1 << place;
                at += 1;
            }
        }
        bits
    }

    fn begins(&self, bytes: &[u8]) -> bool {
        bytes.len() >= self.text.len()
            && self
                .text
                .iter()
                .zip(&self.mask)
                .zip(bytes)
                .all(|((text, mask), byte)| byte & mask == *text)
    }

    fn mend(&self, bytes: &mut [u8]) {
        for ((mended, mask), byte) in self.mended.iter().zip(&self.mask).zip(bytes) {
            *byte = *byte & !mask | mended;
        }
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

    #[test]
    fn a_scheme_becomes_a_part_of_the_name() {
        // What etcd's client sends: the Huffman code of http://127.0.0.1:23790.
        let sent = [
            0x41, 0x90, 0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x08, 0x9d, 0x5c, 0x0b, 0x81, 0x70, 0xdc,
            0x11, 0x4c, 0xf8, 0x1f,
        ];
        let mut block = sent;
        mend(&mut block);
        let coded = Bits::coded("http://");
        assert!(coded.begins(&sent[2..]));
        assert!(!coded.begins(&block[2..]));
        let changed = |at: usize| block[at] != sent[at];
        assert!((0..4).all(|at| !changed(at)) && (8..sent.len()).all(|at| !changed(at)));
        let mut raw = *b"\x41\x15https://localhost:1234";
        mend(&mut raw);
        assert_eq!(&raw, b"\x41\x15httpsz..localhost:1234");
        let mut other = *b"\x41\x0elocalhost:1234";
        mend(&mut other);
        assert_eq!(&other, b"\x41\x0elocalhost:1234");
    }

    #[tokio::test]
    async fn the_first_request_is_mended_in_however_small_pieces_it_comes() {
        let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        sent.extend(b"\0\0\0\x04\0\0\0\0\0");
        let request = b"\x82\x41\x15http://localhost:12345";
        for _ in 0..2 {
            sent.extend([0, 0, request.len() as u8, HEADERS, 4, 0, 0, 0, 1]);
            sent.extend(request);
        }
        let mut wanted = sent.clone();
        let at = wanted.windows(4).position(|four| four == b"://l").unwrap();
        wanted[at..at + 3].copy_from_slice(b"z..");
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
}
