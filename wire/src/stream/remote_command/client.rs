//! The side that asks for a program's streams.

use std::io;

use bytes::Bytes;
use futures::{Sink, SinkExt, StreamExt};
use orlop_core::env::Env;
use orlop_core::runtime::{ByteSink, ByteStream, Process, ResizeSink, RuntimeError, TerminalSize};
use tokio::io::{AsyncRead, AsyncWrite};

use super::protocol::{Protocol, Streams, channel, stream_type};
use super::{resize, status};
use crate::stream::io::from_io;
use crate::stream::mux::{Headers, Options, ReceiveHalf, Role, SendHalf, Stream};
use crate::stream::{spdy, websocket};

/// The longest end that is read, in bytes.
const MAX_STATUS: usize = 1 << 20;

/// Joins the streams of a program at the other end of an upgraded connection. Dropping all of the [`Process`] closes the connection.
///
/// Over a WebSocket older than v5, closing the standard input is not told.
///
/// # Errors
/// [`RuntimeError::Unavailable`]: the other side does not speak the protocol, or broke off.
pub async fn client<IO>(
    io: IO,
    protocol: Protocol,
    streams: Streams,
    options: Options,
    env: &Env,
) -> Result<Process, RuntimeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let resizable = streams.tty && protocol.can_resize();
    let wanted = [
        (true, stream_type::ERROR, channel::ERROR),
        (streams.stdin, stream_type::STDIN, channel::STDIN),
        (streams.stdout, stream_type::STDOUT, channel::STDOUT),
        (
            streams.stderr && !streams.tty,
            stream_type::STDERR,
            channel::STDERR,
        ),
        (resizable, stream_type::RESIZE, channel::RESIZE),
    ];
    let mut opened: [Option<Stream>; 5] = Default::default();
    match protocol {
        Protocol::Spdy { .. } => {
            let connection = spdy::client(io, options, env);
            for ((wanted, kind, _), slot) in wanted.into_iter().zip(&mut opened) {
                if wanted {
                    let headers = Headers::new().with(stream_type::NAME, kind);
                    *slot = Some(connection.open(headers).await.map_err(unavailable)?);
                }
            }
        }
        Protocol::WebSocket { framing, .. } => {
            let numbers: Vec<u8> = wanted
                .iter()
                .filter(|(wanted, ..)| *wanted)
                .map(|(.., number)| *number)
                .collect();
            let (_, channels) =
                websocket::channels(io, Role::Client, framing, &numbers, options, env).await;
            let mut channels = channels.into_iter();
            for ((wanted, ..), slot) in wanted.into_iter().zip(&mut opened) {
                if wanted {
                    *slot = channels.next();
                }
            }
        }
    }
    let [error, stdin, stdout, stderr, sizes] = opened;
    let is_json = protocol.has_status();
    let exit = async move {
        // Nothing is ever sent on it: both halves are kept so that the connection is, as long as the end is waited for.
        let Some((mut receive, _send)) = error.map(Stream::into_split) else {
            return Err(RuntimeError::Unavailable("no error stream".to_owned()));
        };
        let mut text = Vec::new();
        while let Some(bytes) = receive.bytes().await {
            text.extend_from_slice(&bytes.map_err(unavailable)?);
            if text.len() > MAX_STATUS {
                return Err(RuntimeError::Failed("the status is too long".to_owned()));
            }
        }
        status::decode(&text, is_json)
    };
    Ok(Process {
        stdin: stdin.map(|stream| sink(stream.into_split().1)),
        stdout: stdout.map(|stream| bytes(stream.into_split().0)),
        stderr: stderr.map(|stream| bytes(stream.into_split().0)),
        resize: sizes.map(|stream| size_sink(stream.into_split().1)),
        exit: Box::pin(exit),
    })
}

fn unavailable(error: io::Error) -> RuntimeError {
    RuntimeError::Unavailable(error.to_string())
}

pub(crate) fn sink(half: SendHalf) -> ByteSink {
    Box::pin(SinkExt::<Bytes>::sink_map_err(half, from_io))
}

pub(super) fn bytes(half: ReceiveHalf) -> ByteStream {
    Box::pin(half.map(|bytes| bytes.map_err(from_io)))
}

fn size_sink(half: SendHalf) -> ResizeSink {
    let sink = SinkExt::<Bytes>::sink_map_err(half, from_io);
    let sink: std::pin::Pin<Box<dyn Sink<TerminalSize, Error = RuntimeError> + Send>> =
        Box::pin(sink.with(|size| std::future::ready(Ok::<_, RuntimeError>(resize::encode(size)))));
    sink
}
