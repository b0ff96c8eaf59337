//! Frames as messages of a WebSocket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::{ChannelFraming, poll_goodbye};
use crate::stream::mux::{Frame, Role};

/// The channel of the close signal.
const CLOSE: u8 = 255;

pub(super) struct Channels<IO> {
    socket: WebSocketStream<IO>,
    role: Role,
    framing: ChannelFraming,
    /// The other side has.
    said_goodbye: bool,
    /// We have.
    saying_goodbye: bool,
}

pub(super) fn to_io(error: SocketError) -> io::Error {
    match error {
        SocketError::Io(error) => error,
        SocketError::ConnectionClosed | SocketError::AlreadyClosed => {
            io::ErrorKind::NotConnected.into()
        }
        SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            io::ErrorKind::UnexpectedEof.into()
        }
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

impl<IO> Channels<IO> {
    pub(super) fn new(socket: WebSocketStream<IO>, role: Role, framing: ChannelFraming) -> Self {
        Self {
            socket,
            role,
            framing,
            said_goodbye: false,
            saying_goodbye: false,
        }
    }

    fn binary(&self, message: Bytes) -> Frame {
        let Some(&channel) = message.first() else {
            return Frame::Alive;
        };
        let data = message.slice(1..);
        if channel == CLOSE && self.framing.close_signal {
            return data.first().map_or(Frame::Alive, |closed| Frame::Data {
                id: u32::from(*closed),
                data: Bytes::new(),
                fin: true,
            });
        }
        Frame::Data {
            id: u32::from(channel),
            data,
            fin: false,
        }
    }

    fn text(&self, message: &[u8]) -> io::Result<Frame> {
        let Some((channel, encoded)) = message.split_first() else {
            return Ok(Frame::Alive);
        };
        let data = BASE64
            .decode(encoded)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Frame::Data {
            id: u32::from(channel.wrapping_sub(b'0')),
            data: data.into(),
            fin: false,
        })
    }

    fn message(&mut self, message: Message) -> io::Result<Frame> {
        Ok(match message {
            Message::Binary(bytes) => self.binary(bytes),
            Message::Text(text) if self.framing.base64 => self.text(text.as_bytes())?,
            Message::Text(text) => self.binary(text.into()),
            Message::Pong(number) => match number.first_chunk::<4>() {
                Some(number) => Frame::Ping(u32::from_be_bytes(*number)),
                None => Frame::Alive,
            },
            Message::Close(_) => {
                self.said_goodbye = true;
                Frame::GoAway { last: 0 }
            }
            // The socket answers pings itself.
            Message::Ping(_) | Message::Frame(_) => Frame::Alive,
        })
    }

    fn content(&self, channel: u8, data: &[u8]) -> Message {
        if self.framing.base64 {
            let mut text = String::with_capacity(1 + data.len().div_ceil(3) * 4);
            text.push(char::from(b'0'.wrapping_add(channel)));
            BASE64.encode_string(data, &mut text);
            Message::Text(text.into())
        } else {
            let mut bytes = BytesMut::with_capacity(1 + data.len());
            bytes.put_u8(channel);
            bytes.put_slice(data);
            Message::Binary(bytes.freeze())
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Stream for Channels<IO> {
    type Item = io::Result<Frame>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.said_goodbye {
            // Nothing comes after a goodbye; ours goes out, if the peer still takes it.
            let _ = ready!(Pin::new(&mut self.socket).poll_flush(cx));
            return Poll::Ready(None);
        }
        let message = ready!(Pin::new(&mut self.socket).poll_next(cx));
        Poll::Ready(match message {
            None => None,
            Some(Ok(message)) => Some(self.message(message)),
            Some(Err(error)) => Some(Err(to_io(error))),
        })
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Sink<Frame> for Channels<IO> {
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_ready(cx).map_err(to_io)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame) -> io::Result<()> {
        let this = &mut *self;
        match frame {
            Frame::Data { id, data, fin } => {
                let channel = u8::try_from(id).unwrap_or(CLOSE);
                if !(data.is_empty() && fin) {
                    let message = this.content(channel, &data);
                    Pin::new(&mut this.socket)
                        .start_send(message)
                        .map_err(to_io)?;
                }
                if fin && this.framing.close_signal && this.role == Role::Client {
                    let signal = Bytes::copy_from_slice(&[CLOSE, channel]);
                    Pin::new(&mut this.socket)
                        .start_send(Message::Binary(signal))
                        .map_err(to_io)?;
                }
                Ok(())
            }
            Frame::Ping(number) => {
                let number = Bytes::copy_from_slice(&number.to_be_bytes());
                Pin::new(&mut this.socket)
                    .start_send(Message::Ping(number))
                    .map_err(to_io)
            }
            // There is nothing like these here: channels are open from the start, and end with the socket.
            Frame::Open { .. }
            | Frame::Reply { .. }
            | Frame::Reset { .. }
            | Frame::GoAway { .. }
            | Frame::Alive => Ok(()),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(to_io)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        poll_goodbye(&mut this.socket, &mut this.saying_goodbye, cx)
    }
}
