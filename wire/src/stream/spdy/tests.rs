use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::{Sink, SinkExt, StreamExt, join};
use orlop_core::env::{Env, SimEnv};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::transport::SpdyTransport;
use super::*;
use crate::stream::mux::{Frame, Headers, ResetCode, Stream};

fn pair(env: &Env, buffer: usize) -> (Connection, Connection) {
    pair_with(env, buffer, Options::default())
}

fn pair_with(env: &Env, buffer: usize, options: Options) -> (Connection, Connection) {
    let (near, far) = tokio::io::duplex(buffer);
    (
        client(near, options.clone(), env),
        server(far, options, env),
    )
}

fn run<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Env) -> F) {
    let sim = SimEnv::new(3);
    let test = test(sim.env());
    sim.block_on(test);
}

async fn take(server: &Connection) -> Stream {
    let stream = server.accept().await.unwrap();
    stream.reply(Headers::new(), false);
    stream
}

/// Takes every stream and sends back what comes.
async fn echo(server: Connection, env: Env) {
    while let Some(stream) = server.accept().await {
        stream.reply(Headers::new(), false);
        env.spawn("echo", async move {
            let (receive, send) = stream.into_split();
            let _ = receive.forward(send).await;
        });
    }
}

#[test]
fn ten_megabytes_come_back_whole_over_a_narrow_cable() {
    run(|env| async move {
        let (client, server) = pair(&env, 1000);
        env.spawn("server", echo(server, env.clone()));
        let (mut receive, mut send) = client.open(Headers::new()).await.unwrap().into_split();
        env.spawn("writer", async move {
            for n in 0..10_240u32 {
                let kilobyte = Bytes::from(vec![(n % 251) as u8; 1024]);
                send.send(kilobyte).await.unwrap();
            }
            // Dropping it says that this was all.
        });
        let mut read = 0usize;
        while let Some(bytes) = receive.bytes().await {
            for byte in bytes.unwrap() {
                assert_eq!(usize::from(byte), read / 1024 % 251);
                read += 1;
            }
        }
        assert_eq!(read, 10 << 20);
    });
}

#[test]
fn who_writes_waits_for_who_reads() {
    run(|env| async move {
        let (client, server) = pair(&env, 1000);
        let (stream, theirs) = join!(client.open(Headers::new()), take(&server));
        let mut stream = stream.unwrap();
        let mut written = 0usize;
        while let Ok(count) = env
            .timeout(Duration::from_secs(1), stream.write(&[7; 4096]))
            .await
        {
            written += count.unwrap();
        }
        let options = Options::default();
        let bound = options.send_buffer + options.receive_buffer + 128 * 1024;
        assert!(
            written > options.send_buffer && written <= bound,
            "{written}"
        );
        // It holds up the connection, until it is not wanted any more.
        let blocked = env.timeout(Duration::from_secs(1), client.ping()).await;
        assert!(blocked.is_err());
        drop(theirs);
        client.ping().await.unwrap();
        assert!(stream.write(b"x").await.is_err(), "it was reset");
    });
}

#[test]
fn a_half_closed_stream_still_answers() {
    run(|env| async move {
        let (client, server) = pair(&env, 100);
        env.spawn("server", async move {
            let mut stream = take(&server).await;
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            let answer = format!("{} bytes", all.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let mut stream = client.open(Headers::new()).await.unwrap();
        stream.write_all(&[1; 12_345]).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(stream.write(b"more").await.is_err());
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "12345 bytes");
    });
}

#[test]
fn headers_arrive_and_streams_can_be_refused_and_reset() {
    run(|env| async move {
        let (client, server) = pair(&env, 100);
        let headers = Headers::new().with("StreamType", "data").with("port", "80");
        let (mine, theirs) = join!(client.open(headers.clone()), take(&server));
        let mut mine = mine.unwrap();
        assert_eq!(*theirs.headers(), headers);
        assert_eq!((mine.id(), theirs.id()), (1, 1));

        // Not taken.
        let (refused, ()) = join!(client.open(headers), async {
            drop(server.accept().await.unwrap());
        });
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        // Reset behind what was written: that is still read, and then it ends.
        let (_, mut send) = theirs.into_split();
        send.send(Bytes::from_static(b"last words")).await.unwrap();
        drop(send);
        let (mut receive, _send) = {
            let mut text = [0; 4];
            mine.read_exact(&mut text).await.unwrap();
            mine.into_split()
        };
        let mut rest = String::new();
        receive.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, " words");

        // The other direction: the server opens streams with even numbers.
        let (mine, theirs) = join!(take(&client), server.open(Headers::new()));
        assert_eq!(mine.id(), 2);
        mine.reset(ResetCode::CANCEL);
        let (mut receive, _send) = theirs.unwrap().into_split();
        assert!(receive.bytes().await.is_none());
        assert_eq!(receive.reset_code(), Some(ResetCode::CANCEL));
    });
}

#[test]
fn too_many_streams_are_refused() {
    run(|env| async move {
        let options = Options {
            max_streams: 2,
            ..Options::default()
        };
        let (near, far) = tokio::io::duplex(100);
        let client = client(near, Options::default(), &env);
        let server = server(far, options, &env);
        let mut kept = Vec::new();
        for _ in 0..2 {
            let (mine, theirs) = join!(client.open(Headers::new()), take(&server));
            kept.push((mine.unwrap(), theirs));
        }
        assert!(client.open(Headers::new()).await.is_err());
        kept.pop();
        let (mine, _theirs) = join!(client.open(Headers::new()), take(&server));
        mine.unwrap();
    });
}

#[test]
fn a_dropped_connection_sends_what_was_written_and_says_goodbye() {
    run(|env| async move {
        let (client, server) = pair(&env, 10);
        let (mine, theirs) = join!(client.open(Headers::new()), take(&server));
        let (_, mut send) = theirs.into_split();
        send.start_send_unpin(Bytes::from(vec![9; 100_000]))
            .unwrap();
        drop((send, server));
        let mut all = Vec::new();
        mine.unwrap().read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 100_000);
        client.closed().await;
        assert!(client.open(Headers::new()).await.is_err());
        assert!(client.ping().await.is_err());
        assert!(client.accept().await.is_none());
    });
}

#[test]
fn a_broken_connection_is_not_mistaken_for_an_end() {
    run(|env| async move {
        let (near, mut far) = tokio::io::duplex(10_000);
        let connection = client(near, Options::default(), &env);
        let (stream, ()) = join!(connection.open(Headers::new()), async {
            let mut syn = [0; 64];
            let _ = far.read(&mut syn).await.unwrap();
            let mut reply = vec![0x80, 3, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1];
            let mut block = Vec::new();
            super::headers::Deflater::new()
                .write(&Headers::new(), &mut block)
                .unwrap();
            reply[7] = 4 + block.len() as u8;
            reply.extend(block);
            // Four bytes of ten.
            reply.extend([0, 0, 0, 1, 0, 0, 0, 10, 1, 2, 3, 4]);
            far.write_all(&reply).await.unwrap();
            drop(far);
        });
        let mut all = Vec::new();
        let error = stream.unwrap().read_to_end(&mut all).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(all, [1, 2, 3, 4]);
    });
}

#[test]
fn pings_are_answered_and_silence_ends_a_connection() {
    run(|env| async move {
        let (client, server) = pair(&env, 100);
        join!(client.ping(), server.ping()).0.unwrap();

        let idle = Options::default().idle_timeout(Duration::from_secs(60));
        let (silent, _other) = pair_with(&env, 100, idle.clone());
        let start = env.now();
        silent.closed().await;
        assert_eq!(env.now().since(start), Duration::from_secs(60));

        let (kept, other) = pair_with(&env, 100, idle.ping_period(Duration::from_secs(5)));
        env.sleep(Duration::from_secs(3600)).await;
        assert!(!kept.is_closed() && !other.is_closed());
    });
}

#[test]
fn a_peer_that_does_not_take_a_stream_is_not_waited_for_without_end() {
    run(|env| async move {
        let (client, _server) = pair(&env, 100);
        let error = client.open(Headers::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    });
}

#[test]
fn what_is_no_spdy_ends_the_connection() {
    run(|env| async move {
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0x80, 2, 0, 1, 0, 0, 0, 0],
            &[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff],
            &[0x80, 3, 0, 3, 0, 0, 0, 2, 0, 0],
            &[
                0x80, 3, 0, 1, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2,
            ],
        ] {
            let (near, mut far) = tokio::io::duplex(100);
            let connection = server(near, Options::default(), &env);
            far.write_all(bytes).await.unwrap();
            if bytes[0] != b'G' {
                connection.closed().await;
                continue;
            }
            // A data frame for a stream that is not there, of which the end never comes.
            far.shutdown().await.unwrap();
            connection.closed().await;
        }
    });
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let id = 1u32..0x7fff_ffff;
    let headers = prop::collection::vec(("[a-z]{1,12}", "[ -~]{0,40}"), 0..5).prop_map(|fields| {
        // Values of one name come out together: each name once keeps the order.
        let mut headers = Headers::new();
        for (name, value) in fields {
            if headers.get(&name).is_none() {
                headers.push(&name, value);
            }
        }
        headers
    });
    let data = prop::collection::vec(any::<u8>(), 0..2000).prop_map(Bytes::from);
    let frame = prop_oneof![
        (id.clone(), headers.clone(), any::<bool>(), any::<bool>()).prop_map(
            |(id, headers, fin, unidirectional)| Frame::Open {
                id,
                headers,
                fin,
                unidirectional
            }
        ),
        (id.clone(), headers, any::<bool>()).prop_map(|(id, headers, fin)| Frame::Reply {
            id,
            headers,
            fin
        }),
        (id.clone(), data, any::<bool>()).prop_map(|(id, data, fin)| Frame::Data { id, data, fin }),
        (id.clone(), 1u32..12).prop_map(|(id, code)| Frame::Reset {
            id,
            code: ResetCode(code)
        }),
        any::<u32>().prop_map(Frame::Ping),
        id.prop_map(|last| Frame::GoAway { last }),
    ];
    prop::collection::vec(frame, 0..20)
}

/// Puts the pieces in which content came together again.
fn joined(frames: Vec<Frame>) -> Vec<Frame> {
    let mut all: Vec<Frame> = Vec::new();
    let mut open = false;
    for frame in frames {
        if let (
            true,
            Some(Frame::Data {
                id: last,
                data: have,
                fin: had,
            }),
            Frame::Data { id, data, fin },
        ) = (open, all.last_mut(), &frame)
            && last == id
        {
            let mut both = have.to_vec();
            both.extend_from_slice(data);
            *have = both.into();
            *had = *fin;
        } else {
            all.push(frame);
        }
        open = matches!(all.last(), Some(Frame::Data { data, fin: false, .. }) if !data.is_empty());
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn frames_are_read_as_they_were_written_however_they_are_cut(
        frames in frames(),
        cuts in prop::collection::vec(1usize..700, 1..40),
    ) {
        let sent = joined(frames.clone());
        let received = SimEnv::new(1).block_on(async move {
            // All that is written…
            let (near, mut far) = tokio::io::duplex(1 << 20);
            let mut transport = SpdyTransport::new(near);
            for frame in frames {
                poll_fn(|cx| Pin::new(&mut transport).poll_ready(cx)).await.unwrap();
                Pin::new(&mut transport).start_send(frame).unwrap();
            }
            transport.close().await.unwrap();
            let mut bytes = Vec::new();
            far.read_to_end(&mut bytes).await.unwrap();
            // …read in pieces.
            let (near, mut far) = tokio::io::duplex(1 << 20);
            let mut transport = SpdyTransport::new(near);
            let mut received = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                let (piece, left) = rest.split_at((*cut).min(rest.len()));
                far.write_all(piece).await.unwrap();
                rest = left;
                if rest.is_empty() {
                    break;
                }
                while let Some(Some(frame)) = futures::FutureExt::now_or_never(transport.next()) {
                    received.push(frame.unwrap());
                }
            }
            drop(far);
            while let Some(frame) = transport.next().await {
                received.push(frame.unwrap());
            }
            received
        });
        prop_assert_eq!(joined(received), sent);
    }

    #[test]
    fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        SimEnv::new(1).block_on(async move {
            let (near, mut far) = tokio::io::duplex(1 << 16);
            far.write_all(&bytes).await.unwrap();
            drop(far);
            let mut transport = SpdyTransport::new(near);
            while let Some(Ok(_)) = transport.next().await {}
        });
    }
}
