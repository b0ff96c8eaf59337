use std::convert::Infallible;

use http::{Method, Request, Response, Uri};
use orlop_core::env::{CancelToken, Env, SimEnv};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tower_service::Service;

use super::*;
use crate::body::Body;
use crate::listener::{ConnectionLimits, PeerInfo, serve_connection};

/// Upgrades to an echo, whatever is asked for.
#[derive(Clone)]
struct Echo(Env);

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let accepted = if is_websocket(&request) {
            websocket(&mut request, &["v5.channel.k8s.io", "v4.channel.k8s.io"])
        } else {
            spdy(&mut request, &["v4.channel.k8s.io"])
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(refusal) => return std::future::ready(Ok(*refusal)),
        };
        self.0.spawn("echo", async move {
            let mut io = accepted.io.await.unwrap();
            let mut buffer = [0; 100];
            loop {
                let count = io.read(&mut buffer).await.unwrap();
                if count == 0 {
                    break;
                }
                io.write_all(&buffer[..count]).await.unwrap();
            }
        });
        std::future::ready(Ok(accepted.response))
    }
}

fn served(env: &Env) -> DuplexStream {
    let (near, far) = tokio::io::duplex(500);
    let own = env.clone();
    env.spawn("server", async move {
        let limits = ConnectionLimits::in_memory();
        let (service, cancel) = (Echo(own.clone()), CancelToken::new());
        serve_connection(far, PeerInfo::default(), service, &limits, &own, &cancel)
            .await
            .unwrap();
    });
    near
}

fn run<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Env) -> F) {
    let sim = SimEnv::new(3);
    let test = test(sim.env());
    sim.block_on(test);
}

#[test]
fn the_answer_to_a_key_is_that_of_the_standard() {
    // RFC 6455, section 1.3.
    let answer = server::accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(answer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn connections_become_what_was_asked_for() {
    run(|env| async move {
        let uri = Uri::from_static("http://node:10250/exec/a/b/c?command=sh");
        let requests = [
            (
                websocket_request(&uri, &["v9", "v4.channel.k8s.io"], &env).unwrap(),
                "sec-websocket-protocol",
            ),
            (
                spdy_request(Method::POST, &uri, &["v5.x", "v4.channel.k8s.io"]).unwrap(),
                STREAM_PROTOCOL,
            ),
        ];
        for (request, header) in requests {
            assert_eq!(request.uri(), "/exec/a/b/c?command=sh");
            let outcome = connect(served(&env), request).await.unwrap();
            let Outcome::Switched { response, mut io } = outcome else {
                panic!("{outcome:?}");
            };
            assert_eq!(response.headers()[header], "v4.channel.k8s.io");
            io.write_all(b"hello").await.unwrap();
            let mut answer = [0; 5];
            io.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"hello");
            io.shutdown().await.unwrap();
            assert_eq!(io.read(&mut answer).await.unwrap(), 0);
        }
    });
}

#[test]
fn what_cannot_be_agreed_on_is_refused_with_a_word() {
    run(|env| async move {
        let uri = Uri::from_static("/exec");
        let mut no_key = websocket_request(&uri, &["v5.channel.k8s.io"], &env).unwrap();
        no_key.headers_mut().remove("sec-websocket-key");
        let plain = Request::new(Body::empty());
        for (request, code, text) in [
            (
                websocket_request(&uri, &["v9"], &env).unwrap(),
                403,
                "bad WebSocket protocol\n",
            ),
            (
                websocket_request(&uri, &[], &env).unwrap(),
                403,
                "bad WebSocket protocol\n",
            ),
            (no_key, 400, "missing or bad WebSocket-Key\n"),
            (
                spdy_request(Method::POST, &uri, &["v9"]).unwrap(),
                403,
                "unable to upgrade: unable to negotiate protocol: client supports [\"v9\"], server accepts [\"v4.channel.k8s.io\"]\n",
            ),
            (
                plain,
                400,
                "unable to upgrade: missing upgrade headers in request\n",
            ),
        ] {
            let outcome = connect(served(&env), request).await.unwrap();
            let Outcome::Answered(response) = outcome else {
                panic!("{outcome:?}");
            };
            assert_eq!(response.status(), code);
            assert_eq!(response.body(), text);
        }
    });
}

#[test]
fn a_server_that_breaks_off_is_told_as_such() {
    run(|env| async move {
        let uri = Uri::from_static("/exec");
        let (near, far) = tokio::io::duplex(500);
        drop(far);
        let request = websocket_request(&uri, &["v5.channel.k8s.io"], &env).unwrap();
        assert!(connect(near, request).await.is_err());
        // One that switches without having understood.
        let (near, mut far) = tokio::io::duplex(500);
        env.spawn("server", async move {
            let _ = far.read(&mut [0; 500]).await.unwrap();
            far.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                .await
                .unwrap();
        });
        let request = websocket_request(&uri, &["v5.channel.k8s.io"], &env).unwrap();
        let error = connect(near, request).await.unwrap_err();
        assert!(error.to_string().contains("no WebSocket server"), "{error}");
    });
}
