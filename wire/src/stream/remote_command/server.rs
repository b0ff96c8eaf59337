//! The side that has the program.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use futures::{SinkExt, StreamExt, join};
use http::{Request, Response};
use orlop_core::env::Env;
use orlop_core::runtime::{ByteSink, ByteStream, Process, ResizeSink, RuntimeError};
use orlop_core::status::Status;
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::{bytes, sink};
use super::protocol::{
    Protocol, SPDY_PROTOCOLS, Streams, WEBSOCKET_PROTOCOLS, channel, stream_type,
};
use super::resize::Sizes;
use super::status;
use crate::Error;
use crate::body::Body;
use crate::stream::mux::{Connection, Headers, Options, ReceiveHalf, Role, SendHalf, Stream};
use crate::stream::{spdy, websocket};
use crate::upgrade::{self, Upgrading};

/// How long a client may take to open its streams.
const STREAM_CREATION: Duration = Duration::from_secs(30);

/// A client that was agreed with, whose connection is about to become its own.
#[derive(Debug)]
pub struct Session {
    protocol: Protocol,
    streams: Streams,
    io: Upgrading,
}

/// Agrees on a protocol with a request for `exec` or `attach`.
///
/// # Errors
/// What to answer instead: the client asked for no upgrade, or knows no protocol of ours.
pub fn accept<B>(
    request: &mut Request<B>,
    streams: Streams,
) -> Result<(Response<Body>, Session), Box<Response<Body>>> {
    let (accepted, protocol) = if upgrade::is_websocket(request) {
        let accepted = upgrade::websocket(request, &WEBSOCKET_PROTOCOLS)?;
        let protocol = Protocol::websocket(&accepted.protocol);
        (accepted, protocol)
    } else {
        let accepted = upgrade::spdy(request, &SPDY_PROTOCOLS)?;
        let protocol = Protocol::spdy(&accepted.protocol);
        (accepted, protocol)
    };
    let session = Session {
        protocol,
        streams,
        io: accepted.io,
    };
    Ok((accepted.response, session))
}

impl Session {
    /// Waits for the connection, starts the program and joins it to the client until it ends or the client has gone. Then the program
    /// is dropped. `failure` says what could not be done, such as `error executing command in container`.
    ///
    /// # Errors
    /// [`Error::Upgrade`], [`Error::Network`]: the client did not begin. The program was not started.
    pub async fn serve<F>(
        self,
        start: impl FnOnce() -> F + Send,
        failure: &str,
        options: Options,
        env: &Env,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<Process, RuntimeError>> + Send,
    {
        let io = self.io.await?;
        serve(
            io,
            self.protocol,
            self.streams,
            start,
            failure,
            options,
            env,
        )
        .await
    }
}

/// What a client has opened.
struct Client {
    connection: Connection,
    error: SendHalf,
    stdin: Option<ReceiveHalf>,
    stdout: Option<SendHalf>,
    stderr: Option<SendHalf>,
    resize: Option<ReceiveHalf>,
    /// The other halves of the inputs. Closing one would say that no more input is read: clients stop to send then.
    kept: Vec<SendHalf>,
}

/// As [`Session::serve`], over a connection that was upgraded already.
///
/// # Errors
/// [`Error::Network`]: the client did not open its streams. The program was not started.
pub async fn serve<IO, F>(
    io: IO,
    protocol: Protocol,
    streams: Streams,
    start: impl FnOnce() -> F + Send,
    failure: &str,
    options: Options,
    env: &Env,
) -> Result<(), Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Result<Process, RuntimeError>> + Send,
{
    let opening = async {
        match protocol {
            Protocol::Spdy { .. } => spdy_client(io, protocol, streams, options, env).await,
            Protocol::WebSocket { framing, .. } => {
                websocket_client(io, framing, streams, options, env).await
            }
        }
    };
    let client = env
        .timeout(STREAM_CREATION, opening)
        .await
        .unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "timed out waiting for client to create streams",
            ))
        })
        .map_err(Error::network("streams of a remote command"))?;
    let Client {
        connection,
        error,
        stdin,
        stdout,
        stderr,
        resize,
        kept: _kept,
    } = client;
    let program = async {
        let status = match start().await {
            Err(error) => Status::internal(format_args!("{failure}: {error}")),
            Ok(process) => match joined(process, stdin, stdout, stderr, resize).await {
                Ok(code) => status::of_exit(code),
                Err(error) => Status::internal(format_args!("{failure}: {error}")),
            },
        };
        let mut error = sink(error);
        let text = status::encode(&status, protocol.has_status());
        // A client that has gone meanwhile need not be told.
        let _ = error.send(Bytes::from(text)).await;
        let _ = error.close().await;
    };
    // What was written is still sent after this.
    select(Box::pin(program), Box::pin(connection.closed())).await;
    Ok(())
}

async fn websocket_client<IO>(
    io: IO,
    framing: websocket::ChannelFraming,
    streams: Streams,
    options: Options,
    env: &Env,
) -> io::Result<Client>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let wanted = [
        (streams.stdin, channel::STDIN),
        (streams.stdout, channel::STDOUT),
        (streams.stderr && !streams.tty, channel::STDERR),
        (true, channel::ERROR),
        (streams.tty, channel::RESIZE),
    ];
    let numbers: Vec<u8> = wanted
        .iter()
        .filter(|(wanted, _)| *wanted)
        .map(|(_, number)| *number)
        .collect();
    let (connection, opened) =
        websocket::channels(io, Role::Server, framing, &numbers, options, env).await;
    let mut opened = opened.into_iter();
    let mut next = |at: usize| wanted[at].0.then(|| opened.next()).flatten();
    let (stdin, stdout, stderr) = (next(0), next(1), next(2));
    let (error, resize) = (next(3), next(4));
    let send = |stream: Option<Stream>| stream.map(|stream| stream.into_split().1);
    let receive = |stream: Option<Stream>| stream.map(|stream| stream.into_split().0);
    let (stdout, stderr) = (send(stdout), send(stderr));
    let error = send(error).ok_or(io::ErrorKind::NotConnected)?;
    // An empty message says that it begins.
    let first = stdout.as_ref().or(stderr.as_ref()).unwrap_or(&error);
    first.put_empty()?;
    Ok(Client {
        connection,
        error,
        stdin: receive(stdin),
        stdout,
        stderr,
        resize: receive(resize),
        // Nothing tells of these over a WebSocket.
        kept: Vec::new(),
    })
}

async fn spdy_client<IO>(
    io: IO,
    protocol: Protocol,
    streams: Streams,
    options: Options,
    env: &Env,
) -> io::Result<Client>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = spdy::server(io, options, env);
    let mut missing = vec![stream_type::ERROR];
    let resizable = streams.tty && protocol.can_resize();
    for (wanted, kind) in [
        (streams.stdin, stream_type::STDIN),
        (streams.stdout, stream_type::STDOUT),
        (streams.stderr && !streams.tty, stream_type::STDERR),
        (resizable, stream_type::RESIZE),
    ] {
        if wanted {
            missing.push(kind);
        }
    }
    let mut kept = Vec::new();
    let (mut error, mut stdin, mut stdout, mut stderr, mut resize) = (None, None, None, None, None);
    while !missing.is_empty() {
        let stream = connection
            .accept()
            .await
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let kind = stream.headers().get(stream_type::NAME).unwrap_or_default();
        // One that nobody waits for is refused by being dropped.
        let Some(at) = missing.iter().position(|missing| *missing == kind) else {
            continue;
        };
        let kind = missing.swap_remove(at);
        stream.reply(Headers::new(), false);
        let (receive, send) = stream.into_split();
        match kind {
            stream_type::STDIN | stream_type::RESIZE => {
                let input = if kind == stream_type::STDIN {
                    &mut stdin
                } else {
                    &mut resize
                };
                *input = Some(receive);
                kept.push(send);
            }
            stream_type::STDOUT => stdout = Some(send),
            stream_type::STDERR => stderr = Some(send),
            _ => error = Some(send),
        }
    }
    Ok(Client {
        connection,
        error: error.ok_or(io::ErrorKind::NotConnected)?,
        stdin,
        stdout,
        stderr,
        resize,
        kept,
    })
}

/// Moves bytes between a program and its client until the program has ended and its outputs are sent.
async fn joined(
    process: Process,
    stdin: Option<ReceiveHalf>,
    stdout: Option<SendHalf>,
    stderr: Option<SendHalf>,
    resize: Option<ReceiveHalf>,
) -> Result<i32, RuntimeError> {
    let Process {
        stdin: to_stdin,
        stdout: from_stdout,
        stderr: from_stderr,
        resize: to_resize,
        exit,
    } = process;
    let inputs = async {
        join!(input(stdin, to_stdin), sizes(resize, to_resize));
        // Only the program's end is one.
        std::future::pending::<()>().await;
    };
    let outputs = async {
        let (stdout, stderr, code) = join!(
            output(from_stdout, stdout),
            output(from_stderr, stderr),
            exit
        );
        code.and_then(|code| stdout.and(stderr).map(|()| code))
    };
    match select(Box::pin(outputs), Box::pin(inputs)).await {
        Either::Left((code, _)) => code,
        Either::Right(((), outputs)) => outputs.await,
    }
}

/// What the client types. A program that does not want it any more, or a client that breaks off, ends only this.
async fn input(from: Option<ReceiveHalf>, to: Option<ByteSink>) {
    if let (Some(from), Some(to)) = (from, to) {
        let _ = bytes(from).forward(to).await;
    }
}

async fn sizes(from: Option<ReceiveHalf>, to: Option<ResizeSink>) {
    let (Some(mut from), Some(mut to)) = (from, to) else {
        return;
    };
    let mut sizes = Sizes::default();
    while let Some(Ok(bytes)) = from.bytes().await {
        let Ok(sizes) = sizes.feed(&bytes) else {
            return;
        };
        for size in sizes {
            if to.send(size).await.is_err() {
                return;
            }
        }
    }
}

/// What the program says. A client that has closed only this output does not stop the program from writing more: it is read on.
async fn output(from: Option<ByteStream>, to: Option<SendHalf>) -> Result<(), RuntimeError> {
    let Some(mut from) = from else {
        return Ok(());
    };
    let mut to = to;
    while let Some(bytes) = from.next().await {
        let bytes = bytes?;
        if let Some(sink) = &mut to
            && sink.send(bytes).await.is_err()
        {
            to = None;
        }
    }
    if let Some(mut sink) = to {
        // The end is told behind all of the outputs.
        let _ = SinkExt::<Bytes>::close(&mut sink).await;
    }
    Ok(())
}
