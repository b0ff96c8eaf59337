//! The side that has the ports.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use futures::{SinkExt, StreamExt, join};
use http::{Request, Response, StatusCode};
use orlop_core::env::{Env, TaskGroup};
use orlop_core::runtime::{ByteSink, Connection, RuntimeError};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{PROTOCOL, TUNNEL_PROTOCOL, WEBSOCKET_PROTOCOLS, header};
use crate::Error;
use crate::body::Body;
use crate::stream::mux::{Headers, Options, ReceiveHalf, Role, SendHalf, Stream};
use crate::stream::remote_command::byte_sink_of;
use crate::stream::websocket::{ChannelFraming, WebSocketIo};
use crate::stream::{spdy, websocket};
use crate::upgrade::{self, Upgrading};

/// How long the second stream of a connection may take to come.
const STREAM_CREATION: Duration = Duration::from_secs(30);

/// The most ports of one request over the older protocols.
const MAX_PORTS: usize = 64;

#[derive(Debug)]
enum Protocol {
    Spdy,
    Tunnel,
    Channels {
        framing: ChannelFraming,
        ports: Vec<u16>,
    },
}

/// A client that was agreed with, whose connection is about to become its own.
#[derive(Debug)]
pub struct Session {
    protocol: Protocol,
    io: Upgrading,
}

/// The `port`s of a query, each a number or some with commas between.
fn ports(query: &str) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    let named = query.split('&').filter_map(|pair| pair.split_once('='));
    for (_, values) in named.filter(|(name, _)| *name == "port" || *name == "ports") {
        for value in values.replace("%2C", ",").replace("%2c", ",").split(',') {
            match value.parse() {
                Ok(port) if port != 0 => ports.push(port),
                _ => return Err(format!("invalid port {value:?}")),
            }
        }
    }
    if ports.is_empty() {
        return Err("query parameter \"port\" is required".to_owned());
    }
    if ports.len() > MAX_PORTS {
        return Err("too many ports".to_owned());
    }
    Ok(ports)
}

/// Agrees on a protocol with a request for port-forward.
///
/// # Errors
/// What to answer instead: the client asked for no upgrade, knows no protocol of ours, or names no ports where it must.
pub fn accept<B>(
    request: &mut Request<B>,
) -> Result<(Response<Body>, Session), Box<Response<Body>>> {
    if !upgrade::is_websocket(request) {
        let accepted = upgrade::spdy(request, &[PROTOCOL])?;
        let session = Session {
            protocol: Protocol::Spdy,
            io: accepted.io,
        };
        return Ok((accepted.response, session));
    }
    let mut known = vec![TUNNEL_PROTOCOL];
    known.extend(WEBSOCKET_PROTOCOLS);
    let query = request.uri().query().unwrap_or_default().to_owned();
    let accepted = upgrade::websocket(request, &known)?;
    let protocol = if accepted.protocol == TUNNEL_PROTOCOL {
        Protocol::Tunnel
    } else {
        let ports = ports(&query).map_err(|why| {
            let mut response = Response::new(Body::from(why + "\n"));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            Box::new(response)
        })?;
        let framing = ChannelFraming::of(&accepted.protocol);
        Protocol::Channels { framing, ports }
    };
    let session = Session {
        protocol,
        io: accepted.io,
    };
    Ok((accepted.response, session))
}

impl Session {
    /// Waits for the connection and serves it until the client has gone. `connect` opens a connection to a port; `pod` names the pod
    /// in what a client is told, such as `pod web-0, uid 1f0e`.
    ///
    /// # Errors
    /// [`Error::Upgrade`]: the client did not begin.
    pub async fn serve<F, C>(
        self,
        connect: C,
        pod: &str,
        options: Options,
        env: &Env,
    ) -> Result<(), Error>
    where
        C: Fn(u16) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Connection, RuntimeError>> + Send + 'static,
    {
        let io = self.io.await?;
        match self.protocol {
            Protocol::Spdy => serve_spdy(io, connect, pod, options, env).await,
            Protocol::Tunnel => {
                let io = WebSocketIo::new(io, Role::Server).await;
                serve_spdy(io, connect, pod, options, env).await;
            }
            Protocol::Channels { framing, ports } => {
                serve_websocket(io, framing, &ports, connect, pod, options, env).await;
            }
        }
        Ok(())
    }
}

/// One connection of a client.
struct Pair {
    port: u16,
    data: (ReceiveHalf, SendHalf),
    error: SendHalf,
}

impl Pair {
    /// Joins the client to a port until both are done.
    async fn serve(self, connected: Result<Connection, RuntimeError>, pod: &str) {
        let (mut receive, mut send) = self.data;
        let copied = match connected {
            Err(error) => Err(error),
            Ok(connection) => {
                let Connection {
                    send: mut to_port,
                    receive: mut from_port,
                } = connection;
                // Whether the client wants nothing more at all.
                let inwards = async {
                    while let Some(Ok(bytes)) = receive.bytes().await {
                        if to_port.send(bytes).await.is_err() {
                            // Nobody reads there any more; what still comes is of no use.
                            return false;
                        }
                    }
                    let _ = to_port.close().await;
                    receive.reset_code().is_some()
                };
                let outwards = async {
                    while let Some(bytes) = from_port.next().await {
                        if send.send(bytes?).await.is_err() {
                            break;
                        }
                    }
                    let _ = SinkExt::<Bytes>::close(&mut send).await;
                    Ok(())
                };
                // A port that has said all it has to say is done with, too.
                match select(Box::pin(outwards), Box::pin(inwards)).await {
                    Either::Left((result, _)) => result,
                    Either::Right((true, _)) => Ok(()),
                    Either::Right((false, outwards)) => outwards.await,
                }
            }
        };
        if let Err(error) = copied {
            let text = format!("error forwarding port {} to {pod}: {error}", self.port);
            let mut sink: ByteSink = byte_sink_of(self.error);
            let _ = sink.send(Bytes::from(text)).await;
            let _ = sink.close().await;
        }
    }
}

/// The first stream of a connection of which the second has not come.
enum Half {
    Data(Stream),
    Error(Stream),
}

/// Serves a client that speaks SPDY, over a connection that was upgraded already, until it has gone.
pub async fn serve_spdy<IO, F, C>(io: IO, connect: C, pod: &str, options: Options, env: &Env)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    C: Fn(u16) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Connection, RuntimeError>> + Send + 'static,
{
    let connection = spdy::server(io, options, env);
    let tasks = TaskGroup::new(env.clone());
    let waiting: Arc<Mutex<BTreeMap<String, Half>>> = Arc::default();
    while let Some(stream) = connection.accept().await {
        let Some((request, port, is_data)) = understood(&stream) else {
            // Refused by being dropped.
            continue;
        };
        stream.reply(Headers::new(), false);
        let first = waiting.lock().remove(&request);
        let pair = match (first, is_data) {
            (Some(Half::Error(error)), true) => Some((stream, error)),
            (Some(Half::Data(data)), false) => Some((data, stream)),
            // The first of the two. One that was there twice is replaced.
            (_, is_data) => {
                let half = if is_data { Half::Data } else { Half::Error };
                waiting.lock().insert(request.clone(), half(stream));
                None
            }
        };
        let Some((data, error)) = pair else {
            let (waiting, env) = (waiting.clone(), env.clone());
            tasks.spawn_until_cancelled("port-forward streams", async move {
                env.sleep(STREAM_CREATION).await;
                let late = waiting.lock().remove(&request);
                if let Some(Half::Error(error)) = late {
                    let mut sink = byte_sink_of(error.into_split().1);
                    let text = Bytes::from_static(b"timed out waiting for streams");
                    let _ = sink.send(text).await;
                    let _ = sink.close().await;
                }
            });
            continue;
        };
        let pair = Pair {
            port,
            data: data.into_split(),
            error: error.into_split().1,
        };
        let (connected, pod) = (connect(port), pod.to_owned());
        tasks.spawn_until_cancelled("port-forward", async move {
            pair.serve(connected.await, &pod).await;
        });
    }
    // A client that said goodbye may still have connections.
    let over = Box::pin(connection.closed());
    waiting.lock().clear();
    select(over, Box::pin(tasks.idle())).await;
    drop(connection);
    tasks.shutdown().await;
}

/// What a stream is: of which request, to which port, and whether it is the one for the bytes.
fn understood(stream: &Stream) -> Option<(String, u16, bool)> {
    let headers = stream.headers();
    let port: u16 = headers.get(header::PORT)?.parse().ok()?;
    let is_data = match headers.get(header::STREAM_TYPE)? {
        header::DATA => true,
        header::ERROR => false,
        _ => return None,
    };
    let request = match headers.get(header::REQUEST_ID) {
        Some(id) if !id.is_empty() => id.to_owned(),
        // Clients of old name no request: they open the data stream right after the error stream.
        _ if is_data => stream.id().saturating_sub(2).to_string(),
        _ => stream.id().to_string(),
    };
    (port != 0).then_some((request, port, is_data))
}

/// Serves a client over a WebSocket with two channels for each port, over a connection that was upgraded already, until it has gone
/// or all its connections are done.
pub async fn serve_websocket<IO, F, C>(
    io: IO,
    framing: ChannelFraming,
    ports: &[u16],
    connect: C,
    pod: &str,
    options: Options,
    env: &Env,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    C: Fn(u16) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Connection, RuntimeError>> + Send + 'static,
{
    let numbers: Vec<u8> = (0..).take(ports.len().min(MAX_PORTS) * 2).collect();
    let (connection, streams) =
        websocket::channels(io, Role::Server, framing, &numbers, options, env).await;
    let mut streams = streams.into_iter();
    let mut pairs = Vec::new();
    for port in ports {
        let (Some(data), Some(error)) = (streams.next(), streams.next()) else {
            break;
        };
        let pair = Pair {
            port: *port,
            data: data.into_split(),
            error: error.into_split().1,
        };
        pairs.push(open_channels(pair, connect(*port), pod));
    }
    let all = Box::pin(futures::future::join_all(pairs));
    select(all, Box::pin(connection.closed())).await;
}

/// Both channels of a port begin with its number.
async fn open_channels(
    mut pair: Pair,
    connected: impl Future<Output = Result<Connection, RuntimeError>>,
    pod: &str,
) {
    let number = Bytes::copy_from_slice(&pair.port.to_le_bytes());
    let sent: (io::Result<()>, io::Result<()>) = join!(
        pair.data.1.send(number.clone()),
        pair.error.send(number.clone())
    );
    if sent.0.is_ok() && sent.1.is_ok() {
        pair.serve(connected.await, pod).await;
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn ports_are_read_out_of_a_query() {
        assert_eq!(ports("port=80&x=1&port=81,82").unwrap(), [80, 81, 82]);
        assert_eq!(ports("ports=80%2C81").unwrap(), [80, 81]);
        for bad in ["", "x=1", "port=", "port=0", "port=70000", "port=a"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}
