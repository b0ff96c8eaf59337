//! WebSockets as Kubernetes' clients use them: numbered channels in one socket, or another protocol's bytes in its messages.

mod channels;
#[cfg(test)]
mod tests;
mod tunnel;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Sink;
use orlop_core::env::Env;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role as SocketRole, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message, Utf8Bytes};

use self::channels::Channels;
pub use self::tunnel::WebSocketIo;
use super::mux::{Connection, Options, Role, Stream};

/// The largest message that is taken, in bytes. Clients send 32 KiB at a time.
const MAX_MESSAGE: usize = 4 << 20;

/// How channels are written into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelFraming {
    /// As text: a digit and base 64. Else as bytes, of which the first is the channel.
    pub base64: bool,
    /// Whether the message 255, N closes channel N.
    pub close_signal: bool,
}

impl ChannelFraming {
    /// The framing of a subprotocol by its name: `channel.k8s.io` and `base64.channel.k8s.io`, with `v4.` or `v5.` before or nothing.
    /// The empty name is that of the first.
    #[must_use]
    pub fn of(protocol: &str) -> Self {
        Self {
            base64: protocol.contains("base64"),
            close_signal: protocol.starts_with("v5."),
        }
    }
}

pub(crate) async fn socket<IO>(io: IO, role: Role) -> WebSocketStream<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let role = match role {
        Role::Client => SocketRole::Client,
        Role::Server => SocketRole::Server,
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        // What is written goes out with the next flush, and is held to about this much.
        .read_buffer_size(32 * 1024)
        .write_buffer_size(64 * 1024);
    WebSocketStream::from_raw_socket(io, role, Some(config)).await
}

/// Says goodbye and closes a socket. `said` is whether that was said already. With a code, that is: clients of Kubernetes take an end
/// without one for a failure.
pub(crate) fn poll_goodbye<IO>(
    socket: &mut WebSocketStream<IO>,
    said: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut socket = Pin::new(socket);
    if !*said {
        ready!(socket.as_mut().poll_ready(cx)).map_err(channels::to_io)?;
        *said = true;
        let normal = CloseFrame {
            code: CloseCode::Normal,
            reason: Utf8Bytes::default(),
        };
        match socket.as_mut().start_send(Message::Close(Some(normal))) {
            // The other side was first.
            Ok(())
            | Err(
                SocketError::ConnectionClosed
                | SocketError::AlreadyClosed
                | SocketError::Protocol(ProtocolError::SendAfterClosing),
            ) => {}
            Err(error) => return Poll::Ready(Err(channels::to_io(error))),
        }
    }
    socket.poll_close(cx).map_err(channels::to_io)
}

/// The channels of a WebSocket, over a connection that has been upgraded already. What comes for others is thrown away. They are
/// open from the start; closing the sending half of one is told to the peer only where the framing has a signal for that and the peer
/// is a server.
pub async fn channels<IO>(
    io: IO,
    role: Role,
    framing: ChannelFraming,
    numbers: &[u8],
    options: Options,
    env: &Env,
) -> (Connection, Vec<Stream>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let transport = Channels::new(socket(io, role).await, role, framing);
    let numbers: Vec<u32> = numbers.iter().map(|number| u32::from(*number)).collect();
    Connection::start(transport, role, options, env, &numbers)
}
