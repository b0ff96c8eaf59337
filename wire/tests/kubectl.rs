//! The real kubectl against our side of exec and port-forward, over WebSockets and over SPDY.

use std::convert::Infallible;
use std::process::{Command, Output, Stdio};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use orlop_core::env::{CancelToken, Env};
use orlop_core::runtime::{Process, RuntimeError};
use orlop_wire::body::Body;
use orlop_wire::listener::Listener;
use orlop_wire::stream::io::{byte_sink, byte_stream, into_connection};
use orlop_wire::stream::mux::Options;
use orlop_wire::stream::{port_forward, remote_command};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_service::Service;

/// As much of an API server as kubectl wants to see before it asks for streams.
#[derive(Clone)]
struct Api(Env);

fn json(text: &'static str) -> Response<Body> {
    Response::builder()
        .header("content-type", "application/json")
        .body(Body::from(text))
        .unwrap()
}

/// Sends back what it reads, says how much it was, and ends with a code.
fn cat(code: i32) -> Process {
    let (stdin, program) = tokio::io::duplex(1000);
    let (program_out, stdout) = tokio::io::duplex(1000);
    let (mut program_err, stderr) = tokio::io::duplex(1000);
    let (mut input, mut output) = (byte_stream(program), byte_sink(program_out));
    Process {
        stdin: Some(byte_sink(stdin)),
        stdout: Some(byte_stream(stdout)),
        stderr: Some(byte_stream(stderr)),
        resize: None,
        exit: Box::pin(async move {
            let mut read = 0;
            while let Some(bytes) = input.next().await {
                let bytes = bytes?;
                read += bytes.len();
                output.send(bytes).await?;
            }
            output.close().await?;
            let text = format!("{read} bytes\n");
            program_err
                .write_all(text.as_bytes())
                .await
                .map_err(|error| RuntimeError::Failed(error.to_string()))?;
            Ok(code)
        }),
    }
}

impl Service<Request<Body>> for Api {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let env = self.0.clone();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let response = match request.uri().path() {
            "/api" => json(r#"{"kind":"APIVersions","versions":["v1"]}"#),
            "/apis" => json(r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[]}"#),
            "/api/v1" => json(
                r#"{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["get"]}]}"#,
            ),
            "/api/v1/namespaces/default/pods/web" => json(
                r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web","namespace":"default"},"spec":{"containers":[{"name":"web","image":"x"}]},"status":{"phase":"Running"}}"#,
            ),
            "/api/v1/namespaces/default/pods/web/exec" => {
                let streams = remote_command::Streams {
                    stdin: query.contains("stdin=true"),
                    stdout: query.contains("stdout=true"),
                    stderr: query.contains("stderr=true"),
                    tty: false,
                };
                match remote_command::accept(&mut request, streams) {
                    Err(refusal) => *refusal,
                    Ok((response, session)) => {
                        let code = if query.contains("command=three") {
                            3
                        } else {
                            0
                        };
                        let own = env.clone();
                        env.spawn("exec", async move {
                            let start = || async move { Ok(cat(code)) };
                            let _ = session.serve(start, "", Options::default(), &own).await;
                        });
                        response
                    }
                }
            }
            "/api/v1/namespaces/default/pods/web/portforward" => {
                match port_forward::accept(&mut request) {
                    Err(refusal) => *refusal,
                    Ok((response, session)) => {
                        let own = env.clone();
                        env.spawn("port-forward", async move {
                            let inner = own.clone();
                            let connect = move |_| {
                                let (near, far) = tokio::io::duplex(1000);
                                let mut far = into_connection(far);
                                inner.spawn("port", async move {
                                    while let Some(Ok(bytes)) = far.receive.next().await {
                                        let _ = far.send.send(bytes).await;
                                    }
                                });
                                async move { Ok(into_connection(near)) }
                            };
                            let _ = session
                                .serve(connect, "pod", Options::default(), &own)
                                .await;
                        });
                        response
                    }
                }
            }
            _ => Response::builder().status(404).body(Body::empty()).unwrap(),
        };
        Box::pin(async move { Ok(response) })
    }
}

/// Serves on a port of its own, if there is a kubectl.
async fn served(test: &str) -> Option<(String, CancelToken)> {
    let version = Command::new("kubectl")
        .args(["version", "--client"])
        .output();
    if version.is_err() {
        println!("skipped: {test}: no kubectl");
        return None;
    }
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", socket.local_addr().unwrap());
    let (env, stop) = (Env::tokio(), CancelToken::new());
    let (own, until) = (env.clone(), stop.clone());
    env.spawn("server", async move {
        let api = Api(own.clone());
        Listener::plain()
            .serve(socket, api, &own, &until)
            .await
            .unwrap();
    });
    Some((server, stop))
}

fn kubectl(server: &str, home: &std::path::Path, websockets: bool) -> Command {
    let mut command = Command::new("kubectl");
    let websockets = websockets.to_string();
    command
        .env("HOME", home)
        .env("KUBECONFIG", "/dev/null")
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", &websockets)
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", &websockets)
        .args(["--server", server, "--request-timeout=20s"]);
    command
}

async fn exec(server: &str, websockets: bool, code: &str, input: Vec<u8>) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut command = kubectl(server, home.path(), websockets);
    command.args(["exec", "-i", "web", "--", code]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let run = move || {
        use std::io::Write;
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        // What kubectl says tells more than that it did not read on.
        let _ = writer.join().unwrap();
        output
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_runs_commands() {
    let Some((server, stop)) = served("kubectl_runs_commands").await else {
        return;
    };
    for websockets in [true, false] {
        let input: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let output = exec(&server, websockets, "zero", input.clone()).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{websockets}: {said}");
        assert_eq!(said, "3000000 bytes\n");
        assert!(output.stdout == input, "{websockets}: not what was sent");
        let output = exec(&server, websockets, "three", b"x".to_vec()).await;
        assert_eq!(output.status.code(), Some(3), "{websockets}");
        assert_eq!(output.stdout, b"x");
    }
    stop.cancel();
}

/// Ends a child whatever happens.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_forwards_ports() {
    let Some((server, stop)) = served("kubectl_forwards_ports").await else {
        return;
    };
    let env = Env::tokio();
    for websockets in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut command = kubectl(&server, home.path(), websockets);
        command.args(["port-forward", "pod/web", &format!("{port}:80")]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let _kubectl = Ended(command.spawn().unwrap());
        let connect = async {
            loop {
                match tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
                    Ok(stream) => break stream,
                    Err(_) => env.sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let stream = env.timeout(Duration::from_secs(20), connect);
        let (mut read, mut write) = stream.await.unwrap().into_split();
        let input: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        let sent = input.clone();
        env.spawn("writer", async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut back = vec![0; input.len()];
        let all = env.timeout(Duration::from_secs(30), read.read_exact(&mut back));
        all.await.unwrap().unwrap();
        assert!(back == input, "{websockets}: not what was sent");
    }
    stop.cancel();
}
