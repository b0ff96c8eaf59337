use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt, join};
use orlop_core::env::SimEnv;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use super::*;

fn run<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Env) -> F) {
    let sim = SimEnv::new(3);
    let test = test(sim.env());
    sim.block_on(test);
}

#[test]
fn channels_carry_bytes_both_ways_in_every_framing() {
    for protocol in [
        "",
        "channel.k8s.io",
        "base64.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.base64.channel.k8s.io",
        "v5.channel.k8s.io",
    ] {
        run(move |env| async move {
            let framing = ChannelFraming::of(protocol);
            let (near, far) = tokio::io::duplex(700);
            let options = Options::default();
            let (_, mut mine) =
                channels(near, Role::Client, framing, &[0, 1], options.clone(), &env).await;
            let (server, mut theirs) =
                channels(far, Role::Server, framing, &[0, 1], options, &env).await;
            let (_stdout_of_client, stdin) = (mine.pop().unwrap(), mine.pop().unwrap());
            let (mut stdout_receive, _) = _stdout_of_client.into_split();
            let (_, mut stdin_send) = stdin.into_split();
            let (_, mut stdout_send) = theirs.pop().unwrap().into_split();
            let (stdin_receive, _) = theirs.pop().unwrap().into_split();
            env.spawn("client", async move {
                for n in 0..200u8 {
                    stdin_send.send(Bytes::from(vec![n; 5000])).await.unwrap();
                }
                stdin_send.close().await.unwrap();
            });
            let mut stdin_receive = stdin_receive;
            let copy = async move {
                let mut left = 1_000_000;
                while left > 0 {
                    let bytes = stdin_receive.bytes().await.unwrap().unwrap();
                    left -= bytes.len();
                    stdout_send.send(bytes).await.unwrap();
                }
                if framing.close_signal {
                    assert!(stdin_receive.bytes().await.is_none());
                }
                // With everything dropped, the socket is closed behind what was written.
                drop(server);
            };
            let mut all = Vec::new();
            let (read, ()) = join!(stdout_receive.read_to_end(&mut all), copy);
            read.unwrap();
            assert_eq!(all.len(), 1_000_000);
            assert!(
                all.chunks(5000)
                    .enumerate()
                    .all(|(n, chunk)| chunk == [n as u8; 5000])
            );
        });
    }
}

#[test]
fn messages_are_as_kubernetes_writes_them() {
    run(|env| async move {
        let (near, far) = tokio::io::duplex(700);
        let framing = ChannelFraming::of("v5.channel.k8s.io");
        let options = Options::default().ping_period(Duration::from_secs(5));
        let (connection, mut streams) =
            channels(near, Role::Server, framing, &[0, 1], options, &env).await;
        let mut other = socket(far, Role::Client).await;
        let (_, mut stdout) = streams.pop().unwrap().into_split();
        let (mut stdin, _) = streams.pop().unwrap().into_split();
        stdout.put_empty().unwrap();
        stdout.send(Bytes::from_static(b"out")).await.unwrap();
        let messages: Vec<Message> = (&mut other).take(2).map(Result::unwrap).collect().await;
        let binary = |bytes: &'static [u8]| Message::Binary(Bytes::from_static(bytes));
        assert_eq!(messages, [binary(&[1]), binary(b"\x01out")]);
        // What is for no channel of ours, and what is for none at all, is passed over.
        for message in [&b"\x09nobody"[..], b"", b"\x00in", b"\xff\x00", b"\x00late"] {
            other.send(binary(message)).await.unwrap();
        }
        assert_eq!(stdin.bytes().await.unwrap().unwrap(), "in");
        assert!(stdin.bytes().await.is_none());
        assert!(matches!(other.next().await, Some(Ok(Message::Ping(_)))));
        // The end has a code.
        connection.close();
        let end = loop {
            match other.next().await {
                Some(Ok(Message::Close(end))) => break end,
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(end.unwrap().code, CloseCode::Normal);
    });
    run(|env| async move {
        let (near, far) = tokio::io::duplex(700);
        let framing = ChannelFraming::of("v4.base64.channel.k8s.io");
        let (connection, mut streams) =
            channels(near, Role::Server, framing, &[3], Options::default(), &env).await;
        let mut other = socket(far, Role::Client).await;
        let (mut receive, mut send) = streams.pop().unwrap().into_split();
        send.send(Bytes::from_static(b"err")).await.unwrap();
        let message = other.next().await.unwrap().unwrap();
        assert_eq!(message, Message::Text("3ZXJy".into()));
        other.send(Message::Text("3aGk=".into())).await.unwrap();
        assert_eq!(receive.bytes().await.unwrap().unwrap(), "hi");
        other
            .send(Message::Text("3no base 64".into()))
            .await
            .unwrap();
        assert!(receive.bytes().await.unwrap().is_err());
        connection.closed().await;
    });
}

#[test]
fn an_end_without_a_goodbye_is_an_error() {
    run(|env| async move {
        let framing = ChannelFraming::of("v5.channel.k8s.io");
        let (near, far) = tokio::io::duplex(700);
        let (_connection, mut streams) =
            channels(near, Role::Client, framing, &[1], Options::default(), &env).await;
        drop(far);
        assert!(streams.pop().unwrap().read_u8().await.is_err());

        let (near, far) = tokio::io::duplex(700);
        let (_connection, mut streams) =
            channels(near, Role::Client, framing, &[1], Options::default(), &env).await;
        let mut other = socket(far, Role::Server).await;
        other.close(None).await.unwrap();
        let mut rest = Vec::new();
        streams.pop().unwrap().read_to_end(&mut rest).await.unwrap();
    });
}

#[test]
fn bytes_go_through_a_tunnel() {
    run(|env| async move {
        let (near, far) = tokio::io::duplex(700);
        let mut near = WebSocketIo::new(near, Role::Client).await;
        let mut far = WebSocketIo::new(far, Role::Server).await;
        env.spawn("echo", async move {
            let mut buffer = vec![0; 9000];
            loop {
                let count = far.read(&mut buffer).await.unwrap();
                if count == 0 {
                    break;
                }
                far.write_all(&buffer[..count]).await.unwrap();
                far.flush().await.unwrap();
            }
            far.shutdown().await.unwrap();
        });
        for round in 1..20usize {
            let content = vec![round as u8; round * 777];
            let mut back = vec![0; content.len()];
            near.write_all(&content).await.unwrap();
            near.flush().await.unwrap();
            near.read_exact(&mut back).await.unwrap();
            assert_eq!(back, content);
        }
        near.shutdown().await.unwrap();
        assert_eq!(near.read(&mut [0; 9]).await.unwrap(), 0);
    });
}
