//! SPDY's frames over bytes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::headers::{Deflater, Inflater};
use crate::stream::mux::{Frame, Headers, ResetCode};

/// What is read at a time, and the largest piece of content given on at a time.
const CHUNK: usize = 32 * 1024;

/// The largest control frame.
const MAX_CONTROL: usize = 128 * 1024;

/// How much may be written and not be taken by the operating system yet.
const MAX_UNWRITTEN: usize = 64 * 1024;

/// Version 3, as a control frame begins.
const VERSION: u16 = 0x8003;

mod kind {
    pub(super) const SYN_STREAM: u16 = 1;
    pub(super) const SYN_REPLY: u16 = 2;
    pub(super) const RST_STREAM: u16 = 3;
    pub(super) const SETTINGS: u16 = 4;
    pub(super) const PING: u16 = 6;
    pub(super) const GOAWAY: u16 = 7;
    pub(super) const HEADERS: u16 = 8;
    pub(super) const WINDOW_UPDATE: u16 = 9;
}

/// The sender sends nothing more on the stream.
const FLAG_FIN: u8 = 1;
/// The receiver of a SYN_STREAM is to send nothing.
const FLAG_UNIDIRECTIONAL: u8 = 2;

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A data frame of which some content is still to come.
struct Partial {
    id: u32,
    left: usize,
    fin: bool,
}

/// Frames over `io`.
pub(super) struct SpdyTransport<IO> {
    io: IO,
    read: BytesMut,
    eof: bool,
    partial: Option<Partial>,
    inflater: Inflater,
    deflater: Deflater,
    write: BytesMut,
    scratch: Vec<u8>,
}

impl<IO> SpdyTransport<IO> {
    pub(super) fn new(io: IO) -> Self {
        Self {
            io,
            read: BytesMut::new(),
            eof: false,
            partial: None,
            inflater: Inflater::new(),
            deflater: Deflater::new(),
            write: BytesMut::new(),
            scratch: Vec::new(),
        }
    }

    /// The next frame in what was read, if it is there. A data frame comes in the pieces in which it arrives, so that its length bounds
    /// nothing.
    fn parse(&mut self) -> io::Result<Option<Frame>> {
        if let Some(partial) = &mut self.partial {
            if self.read.is_empty() {
                return Ok(None);
            }
            let count = self.read.len().min(partial.left).min(CHUNK);
            partial.left -= count;
            let (id, fin) = (partial.id, partial.fin && partial.left == 0);
            if partial.left == 0 {
                self.partial = None;
            }
            let data = self.read.split_to(count).freeze();
            return Ok(Some(Frame::Data { id, data, fin }));
        }
        let Some(header) = self.read.first_chunk::<8>() else {
            return Ok(None);
        };
        let [a, b, c, d, flags, x, y, z] = *header;
        let length = u32::from_be_bytes([0, x, y, z]) as usize;
        if a & 0x80 == 0 {
            let id = u32::from_be_bytes([a, b, c, d]);
            let fin = flags & FLAG_FIN != 0;
            self.read.advance(8);
            if length == 0 {
                let data = Bytes::new();
                return Ok(Some(Frame::Data { id, data, fin }));
            }
            self.partial = Some(Partial {
                id,
                left: length,
                fin,
            });
            return self.parse();
        }
        if u16::from_be_bytes([a, b]) != VERSION {
            return Err(invalid("SPDY: another version"));
        }
        if length > MAX_CONTROL {
            return Err(invalid("SPDY: a control frame is too large"));
        }
        if self.read.len() < 8 + length {
            return Ok(None);
        }
        self.read.advance(8);
        let body = self.read.split_to(length);
        self.control(u16::from_be_bytes([c, d]), flags, &body)
            .map(Some)
    }

    fn control(&mut self, kind: u16, flags: u8, mut body: &[u8]) -> io::Result<Frame> {
        let mut number = || {
            let (bytes, rest) = body
                .split_first_chunk::<4>()
                .ok_or_else(|| invalid("SPDY: a control frame is cut off"))?;
            body = rest;
            Ok::<_, io::Error>(u32::from_be_bytes(*bytes))
        };
        const ID: u32 = 0x7fff_ffff;
        let fin = flags & FLAG_FIN != 0;
        match kind {
            kind::SYN_STREAM => {
                let id = number()? & ID;
                let _associated_to = number()?;
                let rest = body
                    .get(2..)
                    .ok_or_else(|| invalid("SPDY: a control frame is cut off"))?;
                Ok(Frame::Open {
                    id,
                    headers: self.inflater.read(rest)?,
                    fin,
                    unidirectional: flags & FLAG_UNIDIRECTIONAL != 0,
                })
            }
            kind::SYN_REPLY => {
                let id = number()? & ID;
                let headers = self.inflater.read(body)?;
                Ok(Frame::Reply { id, headers, fin })
            }
            kind::RST_STREAM => {
                let id = number()? & ID;
                let code = ResetCode(number()?);
                Ok(Frame::Reset { id, code })
            }
            kind::PING => Ok(Frame::Ping(number()?)),
            kind::GOAWAY => Ok(Frame::GoAway {
                last: number()? & ID,
            }),
            kind::HEADERS => {
                let id = number()? & ID;
                // They mean nothing here, but the compression goes through all blocks.
                self.inflater.read(body)?;
                Ok(Frame::Data {
                    id,
                    data: Bytes::new(),
                    fin,
                })
            }
            kind::SETTINGS | kind::WINDOW_UPDATE => Ok(Frame::Alive),
            // What is not known is to be passed over (section 2.2.1).
            _ => Ok(Frame::Alive),
        }
    }

    fn put_control(&mut self, kind: u16, flags: u8, body: &[u8]) {
        self.write.reserve(8 + body.len());
        self.write.put_u16(VERSION);
        self.write.put_u16(kind);
        // No body has more than 24 bits of length: header blocks are bounded, the others are small.
        self.write
            .put_u32(u32::from(flags) << 24 | u32::try_from(body.len()).unwrap_or(0));
        self.write.put_slice(body);
    }

    fn put_with_headers(
        &mut self,
        kind: u16,
        flags: u8,
        prefix: &[u8],
        headers: &Headers,
    ) -> io::Result<()> {
        let mut body = std::mem::take(&mut self.scratch);
        body.clear();
        body.extend_from_slice(prefix);
        self.deflater.write(headers, &mut body)?;
        self.put_control(kind, flags, &body);
        self.scratch = body;
        Ok(())
    }

    fn put(&mut self, frame: Frame) -> io::Result<()> {
        let two = |a: u32, b: u32| {
            let mut body = [0; 8];
            body[..4].copy_from_slice(&a.to_be_bytes());
            body[4..].copy_from_slice(&b.to_be_bytes());
            body
        };
        let flag = |fin: bool| if fin { FLAG_FIN } else { 0 };
        match frame {
            Frame::Open {
                id,
                headers,
                fin,
                unidirectional,
            } => {
                let mut prefix = [0; 10];
                prefix[..4].copy_from_slice(&id.to_be_bytes());
                let more = if unidirectional {
                    FLAG_UNIDIRECTIONAL
                } else {
                    0
                };
                self.put_with_headers(kind::SYN_STREAM, flag(fin) | more, &prefix, &headers)?;
            }
            Frame::Reply { id, headers, fin } => {
                self.put_with_headers(kind::SYN_REPLY, flag(fin), &id.to_be_bytes(), &headers)?;
            }
            Frame::Data { id, data, fin } => {
                self.write.reserve(8 + data.len());
                self.write.put_u32(id);
                // The pieces of the mux are far below 24 bits of length.
                self.write
                    .put_u32(u32::from(flag(fin)) << 24 | u32::try_from(data.len()).unwrap_or(0));
                self.write.put_slice(&data);
            }
            Frame::Reset { id, code } => self.put_control(kind::RST_STREAM, 0, &two(id, code.0)),
            Frame::Ping(id) => self.put_control(kind::PING, 0, &id.to_be_bytes()),
            Frame::GoAway { last } => self.put_control(kind::GOAWAY, 0, &two(last, 0)),
            Frame::Alive => {}
        }
        Ok(())
    }
}

impl<IO: AsyncWrite + Unpin> SpdyTransport<IO> {
    fn poll_write_out(&mut self, cx: &mut Context<'_>, leave: usize) -> Poll<io::Result<()>> {
        while self.write.len() > leave {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &self.write))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.write.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + Unpin> Stream for SpdyTransport<IO> {
    type Item = io::Result<Frame>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(frame) = this.parse()? {
                return Poll::Ready(Some(Ok(frame)));
            }
            if this.eof {
                return Poll::Ready(None);
            }
            this.read.reserve(CHUNK);
            // Made anew at each poll: it holds nothing of its own.
            let read = std::pin::pin!(this.io.read_buf(&mut this.read));
            let count = ready!(read.poll(cx))?;
            if count == 0 {
                this.eof = true;
                if !this.read.is_empty() || this.partial.is_some() {
                    return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
                }
                continue;
            }
        }
    }
}

impl<IO: AsyncWrite + Unpin> Sink<Frame> for SpdyTransport<IO> {
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_out(cx, MAX_UNWRITTEN)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame) -> io::Result<()> {
        self.put(frame)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx, 0))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx, 0))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
