//! How fast do bytes go into a program and out of it again, as `kubectl exec -i` sends them?
//!
//! A client and a server of the streams of a remote command talk over a pipe in memory: no network, no TLS, no process. The program
//! gives back what it reads. What is measured is therefore framing, masking, flow control and copying, for bytes that pass the pipe twice.
//!
//! Beside it in the same run: the same bytes over the same pipe with nothing between, given back by `tokio::io::copy` (`plain`).
//!
//! `cargo bench --bench exec_stream`

#![allow(clippy::disallowed_methods, reason = "a bench measures real time")]

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use futures::{SinkExt, StreamExt, stream};
use orlop::core::env::Env;
use orlop::core::runtime::{Process, RuntimeError};
use orlop::wire::stream::io::{byte_sink, byte_stream};
use orlop::wire::stream::mux::Options;
use orlop::wire::stream::remote_command::{Protocol, Streams, client, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How many bytes go through at a time.
const CHUNK: usize = 32 * 1024;
/// How many chunks one round sends.
const CHUNKS: usize = 1024;
/// What all of them are.
const ALL: usize = CHUNK * CHUNKS;
/// What pipes hold.
const PIPE: usize = 64 * 1024;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = support::runtime();
    let mut group = support::group(&mut criterion, "exec_stream");
    group.throughput(Throughput::Bytes(ALL as u64));
    group.bench_function("plain", |bench| {
        bench.iter_custom(|rounds| (0..rounds).map(|_| runtime.block_on(plain())).sum());
    });
    let protocols = [
        ("websocket, v5", Protocol::websocket("v5.channel.k8s.io")),
        ("spdy, v4", Protocol::spdy("v4.channel.k8s.io")),
    ];
    for (name, protocol) in protocols {
        group.bench_function(name, |bench| {
            bench.iter_custom(|rounds| {
                (0..rounds)
                    .map(|_| runtime.block_on(through(protocol)))
                    .sum()
            });
        });
    }
    group.finish();
    criterion.final_summary();
}

/// The bound: a pipe, and somebody who copies.
async fn plain() -> Duration {
    let (near, far) = tokio::io::duplex(PIPE);
    let server = tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(far);
        tokio::io::copy(&mut read, &mut write)
            .await
            .expect("a copy");
        write.shutdown().await.expect("an end");
    });
    let began = Instant::now();
    let (mut read, mut write) = tokio::io::split(near);
    let sent = async {
        let chunk = vec![b'x'; CHUNK];
        for _ in 0..CHUNKS {
            write.write_all(&chunk).await.expect("a write");
        }
        write.shutdown().await.expect("an end");
    };
    let received = async {
        let (mut buffer, mut all) = (vec![0; CHUNK], 0);
        loop {
            match read.read(&mut buffer).await.expect("a read") {
                0 => break all,
                some => all += some,
            }
        }
    };
    let ((), received) = futures::join!(sent, received);
    let elapsed = began.elapsed();
    assert_eq!(received, ALL);
    server.await.expect("the server");
    elapsed
}

/// A program that gives back what it reads, and ends when its input does.
fn cat() -> Process {
    let (write, read) = tokio::io::duplex(PIPE);
    let (tell, told) = futures::channel::oneshot::channel();
    let end = stream::once(async move {
        let _ = tell.send(());
        Ok(Bytes::new())
    });
    Process {
        stdin: Some(byte_sink(write)),
        stdout: Some(Box::pin(byte_stream(read).chain(end))),
        stderr: None,
        resize: None,
        exit: Box::pin(async move {
            told.await
                .map_err(|_| RuntimeError::Failed("its output was dropped".to_owned()))?;
            Ok(0)
        }),
    }
}

async fn through(protocol: Protocol) -> Duration {
    let env = Env::tokio();
    let streams = Streams {
        stdin: true,
        stdout: true,
        stderr: false,
        tty: false,
    };
    let (near, far) = tokio::io::duplex(PIPE);
    let own = env.clone();
    let server = tokio::spawn(async move {
        let start = || async { Ok(cat()) };
        let options = Options::default();
        serve(far, protocol, streams, start, "cannot run", options, &own).await
    });
    let process = client(near, protocol, streams, Options::default(), &env)
        .await
        .expect("the streams");
    let (mut stdin, mut stdout) = (
        process.stdin.expect("an input"),
        process.stdout.expect("an output"),
    );
    let began = Instant::now();
    let sent = async {
        let chunk = Bytes::from(vec![b'x'; CHUNK]);
        for _ in 0..CHUNKS {
            stdin.send(chunk.clone()).await.expect("a write");
        }
        stdin.close().await.expect("an end");
    };
    let received = async {
        let mut all = 0;
        while let Some(bytes) = stdout.next().await {
            all += bytes.expect("bytes").len();
        }
        all
    };
    let ((), received) = futures::join!(sent, received);
    let elapsed = began.elapsed();
    assert_eq!(received, ALL);
    assert_eq!(process.exit.await.expect("an end"), 0);
    drop((stdin, stdout));
    server.await.expect("the server").expect("a session");
    elapsed
}
