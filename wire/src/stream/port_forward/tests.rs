use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt, join};
use orlop_core::env::{Env, SimEnv};
use orlop_core::runtime::{Connection, RuntimeError};
use tokio::io::DuplexStream;

use super::*;
use crate::stream::io::into_connection;
use crate::stream::mux::{Headers, Options, Role};
use crate::stream::spdy;
use crate::stream::websocket::{ChannelFraming, WebSocketIo, channels};

fn run<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Env) -> F) {
    let sim = SimEnv::new(3);
    let test = test(sim.env());
    sim.block_on(test);
}

/// A pod: behind port 7 is an echo that answers in its own time, behind 13 somebody who says the time, nothing elsewhere.
fn ports(
    env: Env,
) -> impl Fn(u16) -> futures::future::BoxFuture<'static, Result<Connection, RuntimeError>>
+ Send
+ Sync
+ 'static {
    move |port| {
        let env = env.clone();
        Box::pin(async move {
            if port != 7 && port != 13 {
                return Err(RuntimeError::Refused(port));
            }
            let (near, far) = tokio::io::duplex(1000);
            let mut far = into_connection(far);
            env.spawn("port", async move {
                if port == 13 {
                    let _ = far.send.send(Bytes::from_static(b"noon")).await;
                    return;
                }
                while let Some(Ok(bytes)) = far.receive.next().await {
                    if far.send.send(bytes).await.is_err() {
                        return;
                    }
                }
                let _ = far.send.close().await;
            });
            Ok(into_connection(near))
        })
    }
}

async fn text(connection: &mut Connection) -> Result<Vec<u8>, RuntimeError> {
    let mut all = Vec::new();
    while let Some(bytes) = connection.receive.next().await {
        all.extend_from_slice(&bytes?);
    }
    Ok(all)
}

fn served(env: &Env) -> DuplexStream {
    let (near, far) = tokio::io::duplex(1000);
    let own = env.clone();
    env.spawn("server", async move {
        let connect = ports(own.clone());
        serve_spdy(far, connect, "pod web-0", Options::default(), &own).await;
    });
    near
}

async fn try_all(forwarder: PortForwarder) {
    let mut connections = Vec::new();
    for _ in 0..5 {
        connections.push(forwarder.connect(7).await.unwrap());
    }
    let exchange = connections
        .iter_mut()
        .enumerate()
        .map(|(n, connection)| async move {
            let Connection { send, receive } = connection;
            let write = async {
                for _ in 0..100 {
                    send.send(Bytes::from(vec![n as u8; 3000])).await.unwrap();
                }
                send.close().await.unwrap();
            };
            let read = async {
                let mut count = 0;
                while let Some(bytes) = receive.next().await {
                    let bytes = bytes.unwrap();
                    assert!(bytes.iter().all(|byte| usize::from(*byte) == n));
                    count += bytes.len();
                }
                count
            };
            assert_eq!(join!(write, read).1, 300_000);
        });
    futures::future::join_all(exchange).await;
    let mut time = forwarder.connect(13).await.unwrap();
    assert_eq!(text(&mut time).await.unwrap(), b"noon");
    let mut nobody = forwarder.connect(80).await.unwrap();
    assert_eq!(
        text(&mut nobody).await.unwrap_err().to_string(),
        "error forwarding port 80 to pod web-0: connection to port 80 refused"
    );
    // The connection serves on after a failure.
    let mut time = forwarder.connect(13).await.unwrap();
    assert_eq!(text(&mut time).await.unwrap(), b"noon");
}

#[test]
fn many_connections_go_over_one() {
    run(|env| async move {
        let forwarder = PortForwarder::new(served(&env), Options::default(), &env);
        try_all(forwarder).await;
    });
}

#[test]
fn many_connections_go_through_a_tunnel() {
    run(|env| async move {
        let (near, far) = tokio::io::duplex(1000);
        let own = env.clone();
        env.spawn("server", async move {
            let far = WebSocketIo::new(far, Role::Server).await;
            let connect = ports(own.clone());
            serve_spdy(far, connect, "pod web-0", Options::default(), &own).await;
        });
        let near = WebSocketIo::new(near, Role::Client).await;
        try_all(PortForwarder::new(near, Options::default(), &env)).await;
    });
}

#[test]
fn streams_pair_up_in_any_order_and_are_not_waited_for_without_end() {
    run(|env| async move {
        let client = spdy::client(served(&env), Options::default(), &env);
        let headers = |kind: &str, port: &str, id: &str| {
            let headers = Headers::new().with("streamtype", kind).with("port", port);
            if id.is_empty() {
                headers
            } else {
                headers.with("requestid", id)
            }
        };
        let data = client.open(headers("data", "13", "a")).await.unwrap();
        let _error = client.open(headers("error", "13", "a")).await.unwrap();
        let (mut receive, _send) = data.into_split();
        assert_eq!(receive.bytes().await.unwrap().unwrap(), "noon");
        // Without ids.
        let _error = client.open(headers("error", "13", "")).await.unwrap();
        let data = client.open(headers("data", "13", "")).await.unwrap();
        let (mut receive, _send) = data.into_split();
        assert_eq!(receive.bytes().await.unwrap().unwrap(), "noon");
        // What makes no sense is refused.
        for (kind, port) in [("data", "0"), ("data", "x"), ("other", "13"), ("data", "")] {
            assert!(client.open(headers(kind, port, "b")).await.is_err());
        }
        // One alone.
        let start = env.now();
        let error = client.open(headers("error", "13", "c")).await.unwrap();
        let (mut receive, _send) = error.into_split();
        let text = receive.bytes().await.unwrap().unwrap();
        assert_eq!(text, "timed out waiting for streams");
        assert_eq!(env.now().since(start), Duration::from_secs(30));
    });
}

#[test]
fn older_clients_have_two_channels_a_port() {
    for protocol in WEBSOCKET_PROTOCOLS {
        run(move |env| async move {
            let framing = ChannelFraming::of(protocol);
            let (near, far) = tokio::io::duplex(1000);
            let own = env.clone();
            env.spawn("server", async move {
                let connect = ports(own.clone());
                let options = Options::default();
                serve_websocket(far, framing, &[7, 80], connect, "pod web-0", options, &own).await;
            });
            let (_connection, streams) = channels(
                near,
                Role::Client,
                framing,
                &[0, 1, 2, 3],
                Options::default(),
                &env,
            )
            .await;
            let mut halves: Vec<_> = streams
                .into_iter()
                .map(|stream| stream.into_split())
                .collect();
            for (at, port) in [(0, 7u16), (1, 7), (2, 80), (3, 80)] {
                let number = halves[at].0.bytes().await.unwrap().unwrap();
                assert_eq!(number, port.to_le_bytes()[..]);
            }
            halves[0]
                .1
                .send(Bytes::from_static(b"hello"))
                .await
                .unwrap();
            assert_eq!(halves[0].0.bytes().await.unwrap().unwrap(), "hello");
            let error = halves[3].0.bytes().await.unwrap().unwrap();
            assert!(error.starts_with(b"error forwarding port 80"));
        });
    }
}
