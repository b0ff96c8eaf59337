use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt, join};
use orlop_core::env::{Env, SimEnv};
use orlop_core::runtime::{ByteStream, Process, RuntimeError, TerminalSize};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::stream::io::{byte_sink, byte_stream};
use crate::stream::mux::{Headers, Options};
use crate::stream::spdy;

const ALL: Streams = Streams {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
};

fn run<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Env) -> F) {
    let sim = SimEnv::new(3);
    let test = test(sim.env());
    sim.block_on(test);
}

fn protocols() -> Vec<Protocol> {
    let spdy = SPDY_PROTOCOLS.map(Protocol::spdy);
    let websocket = WEBSOCKET_PROTOCOLS.map(Protocol::websocket);
    spdy.into_iter().chain(websocket).collect()
}

/// A program that writes what it reads, complains about it, and ends with a code once its input has ended or it has read enough.
fn cat(enough: usize, code: i32) -> Process {
    let (stdin, program) = tokio::io::duplex(1000);
    let (program_out, stdout) = tokio::io::duplex(1000);
    let (mut program_err, stderr) = tokio::io::duplex(1000);
    let (tell, told) = futures::channel::oneshot::channel();
    let mut input = byte_stream(program);
    let mut output = byte_sink(program_out);
    let task = async move {
        let mut read = 0;
        while read < enough
            && let Some(bytes) = input.next().await
        {
            let bytes = bytes.unwrap();
            read += bytes.len();
            output.send(bytes).await.unwrap();
        }
        output.close().await.unwrap();
        let text = format!("{read} bytes");
        program_err.write_all(text.as_bytes()).await.unwrap();
        drop(program_err);
        let _ = tell.send(code);
    };
    Process {
        stdin: Some(byte_sink(stdin)),
        stdout: Some(byte_stream(stdout)),
        stderr: Some(byte_stream(stderr)),
        resize: None,
        exit: Box::pin(async move {
            // The program runs as long as it is waited for.
            task.await;
            told.await
                .map_err(|_| RuntimeError::Failed("gone".to_owned()))
        }),
    }
}

async fn text(stream: Option<ByteStream>) -> Vec<u8> {
    let mut all = Vec::new();
    let mut stream = stream.unwrap();
    while let Some(bytes) = stream.next().await {
        all.extend_from_slice(&bytes.unwrap());
    }
    all
}

/// Joins a client to a program.
async fn joined(
    env: &Env,
    protocol: Protocol,
    streams: Streams,
    process: Result<Process, RuntimeError>,
) -> Process {
    let (near, far) = tokio::io::duplex(4000);
    let own = env.clone();
    env.spawn("server", async move {
        let start = || async { process };
        let options = Options::default();
        serve(far, protocol, streams, start, "cannot run", options, &own)
            .await
            .unwrap();
    });
    client(near, protocol, streams, Options::default(), env)
        .await
        .unwrap()
}

#[test]
fn ten_megabytes_go_through_a_program_in_every_protocol() {
    for protocol in protocols() {
        run(move |env| async move {
            let size = 10 << 20;
            let process = joined(&env, protocol, ALL, Ok(cat(size, 0))).await;
            let mut stdin = process.stdin.unwrap();
            let write = async {
                for n in 0..(size / 4096) {
                    let page = Bytes::from(vec![(n % 251) as u8; 4096]);
                    stdin.send(page).await.unwrap();
                }
                stdin
            };
            let (_stdin, stdout, stderr, code) = join!(
                write,
                text(process.stdout),
                text(process.stderr),
                process.exit
            );
            assert_eq!(stdout.len(), size, "{protocol:?}");
            let whole =
                |(n, page): (usize, &[u8])| page.iter().all(|byte| *byte == (n % 251) as u8);
            assert!(stdout.chunks(4096).enumerate().all(whole));
            assert_eq!(stderr, format!("{size} bytes").as_bytes());
            assert_eq!(code.unwrap(), 0);
        });
    }
}

#[test]
fn a_closed_input_ends_a_program_and_its_code_comes_back() {
    for protocol in [
        Protocol::spdy("v4.channel.k8s.io"),
        Protocol::websocket("v5.channel.k8s.io"),
    ] {
        run(move |env| async move {
            let process = joined(&env, protocol, ALL, Ok(cat(usize::MAX, 42))).await;
            let mut stdin = process.stdin.unwrap();
            stdin.send(Bytes::from_static(b"hello")).await.unwrap();
            stdin.close().await.unwrap();
            let (stdout, code) = join!(text(process.stdout), process.exit);
            assert_eq!(stdout, b"hello");
            assert_eq!(code.unwrap(), 42);
        });
    }
}

#[test]
fn a_program_that_cannot_start_says_why() {
    for protocol in protocols() {
        run(move |env| async move {
            let refused = Err(RuntimeError::Failed("no such program".to_owned()));
            let process = joined(&env, protocol, ALL, refused).await;
            let (stdout, code) = join!(text(process.stdout), process.exit);
            assert_eq!(stdout, b"");
            assert_eq!(
                code.unwrap_err().to_string(),
                "Internal error occurred: cannot run: no such program",
                "{protocol:?}"
            );
        });
    }
}

#[test]
fn a_terminal_is_resized() {
    for protocol in protocols() {
        run(move |env| async move {
            let seen = Arc::new(Mutex::new(Vec::new()));
            let (sizes, own) = (seen.clone(), env.clone());
            let resize = futures::sink::unfold(sizes, |sizes, size: TerminalSize| async move {
                sizes.lock().push(size);
                Ok(sizes)
            });
            let process = Process {
                stdin: None,
                stdout: Some(Box::pin(futures::stream::empty())),
                stderr: None,
                resize: Some(Box::pin(resize)),
                exit: Box::pin(async move {
                    own.sleep(Duration::from_secs(60)).await;
                    Ok(0)
                }),
            };
            let streams = Streams { tty: true, ..ALL };
            let mut process = joined(&env, protocol, streams, Ok(process)).await;
            assert!(process.stderr.is_none());
            let size = |width, height| TerminalSize { width, height };
            let Some(resize) = &mut process.resize else {
                assert!(matches!(protocol, Protocol::Spdy { version: 1 | 2 }));
                return;
            };
            resize.send(size(80, 25)).await.unwrap();
            resize.send(size(132, 50)).await.unwrap();
            assert_eq!(process.exit.await.unwrap(), 0);
            assert_eq!(*seen.lock(), [size(80, 25), size(132, 50)]);
        });
    }
}

/// Tells when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_client_that_goes_takes_its_program_with_it() {
    for protocol in protocols() {
        run(move |env| async move {
            let ended = Arc::new(AtomicBool::new(false));
            let mark = Dropped(ended.clone());
            let process = Process {
                stdin: None,
                stdout: Some(Box::pin(futures::stream::pending())),
                stderr: None,
                resize: None,
                exit: Box::pin(async move {
                    let _mark = mark;
                    std::future::pending().await
                }),
            };
            let process = joined(&env, protocol, ALL, Ok(process)).await;
            env.sleep(Duration::from_secs(1)).await;
            assert!(!ended.load(Ordering::Relaxed));
            drop(process);
            env.sleep(Duration::from_secs(5)).await;
            assert!(ended.load(Ordering::Relaxed), "{protocol:?}");
        });
    }
}

#[test]
fn a_server_that_goes_is_no_success() {
    for protocol in [
        Protocol::spdy("v4.channel.k8s.io"),
        Protocol::websocket("v5.channel.k8s.io"),
    ] {
        run(move |env| async move {
            let (near, far) = tokio::io::duplex(4000);
            let own = env.clone();
            env.spawn("server", async move {
                let start = || async { Ok(cat(usize::MAX, 0)) };
                let serving = serve(far, protocol, ALL, start, "", Options::default(), &own);
                // The whole of it is dropped in the middle.
                let _ = own.timeout(Duration::from_secs(5), serving).await;
            });
            let process = client(near, protocol, ALL, Options::default(), &env)
                .await
                .unwrap();
            assert!(process.exit.await.is_err());
        });
    }
}

#[test]
fn a_client_that_does_not_open_its_streams_is_given_up() {
    run(|env| async move {
        let (near, far) = tokio::io::duplex(4000);
        let connection = spdy::client(near, Options::default(), &env);
        let protocol = Protocol::spdy("v4.channel.k8s.io");
        let start = || async { panic!("it was started") };
        let serving = serve(far, protocol, ALL, start, "", Options::default(), &env);
        let (served, ()) = join!(serving, async {
            let kind = |kind: &str| Headers::new().with("streamtype", kind);
            let _error = connection.open(kind("error")).await.unwrap();
            assert!(connection.open(kind("error")).await.is_err(), "twice");
            assert!(connection.open(kind("other")).await.is_err());
            env.sleep(Duration::from_secs(40)).await;
        });
        assert!(served.unwrap_err().to_string().contains("timed out"));
    });
}

#[test]
fn an_input_stays_open_both_ways_until_the_program_ends() {
    run(|env| async move {
        let (near, far) = tokio::io::duplex(4000);
        let connection = spdy::client(near, Options::default(), &env);
        let protocol = Protocol::spdy("v4.channel.k8s.io");
        let streams = Streams {
            stdout: false,
            stderr: false,
            ..ALL
        };
        let own = env.clone();
        env.spawn("server", async move {
            let start = || async { Ok(cat(usize::MAX, 0)) };
            let _ = serve(far, protocol, streams, start, "", Options::default(), &own).await;
        });
        let kind = |kind: &str| Headers::new().with("streamtype", kind);
        let _error = connection.open(kind("error")).await.unwrap();
        let stdin = connection.open(kind("stdin")).await.unwrap();
        let (mut receive, send) = stdin.into_split();
        // Clients take the end of this for the end of the program's interest.
        let early = env.timeout(Duration::from_secs(9), receive.bytes()).await;
        assert!(early.is_err());
        drop(send);
        assert!(receive.bytes().await.is_none());
    });
}
