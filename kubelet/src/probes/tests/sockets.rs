//! Probes over real sockets.

use std::convert::Infallible;

use ::http::{HeaderMap, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use orlop_core::runtime::{ContainerConfig, ImageSpec, PullRequest, Runtime, SandboxConfig};
use orlop_core::testing::SimulatedRuntime;
use orlop_wire::pki::{CertificateAuthority, SubjectName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A server of canned answers, and what it was asked.
struct Canned {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: TaskGroup,
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    asked.lock().push(head);
    let status = |status: &str, more: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{more}\r\n{body}")
    };
    let text = match path.as_str() {
        "/ok" | "/ok?x=1" => status("200 OK", "", "fine"),
        "/500" => status("500 Oops", "", "broken"),
        "/to-ok" => status("302 Found", "Location: /ok\r\n", ""),
        "/away" => status("301 Moved", "Location: http://192.0.2.1/\r\n", "gone"),
        "/nowhere" => status("304 Not Modified", "", ""),
        "/loop" => status(
            "307 Again",
            &format!("Location: http://127.0.0.1:{port}/loop\r\n"),
            "",
        ),
        "/big" => status("200 OK", "", &"x".repeat(1 << 20)),
        "/cut" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".to_owned(),
        "/hang" => {
            let _ = stream.read_u8().await;
            return;
        }
        "/garbage" => "hello\r\n\r\n".to_owned(),
        _ => return,
    };
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn canned(env: &Env, tls: Option<Arc<rustls::ServerConfig>>) -> Canned {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let tasks = TaskGroup::new(env.clone());
    let (log, inner) = (asked.clone(), env.clone());
    tasks.spawn_until_cancelled("server", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (log, tls) = (log.clone(), tls.clone());
            inner.spawn("connection", async move {
                match tls {
                    None => answer(stream, port, log).await,
                    Some(tls) => {
                        if let Ok(stream) =
                            tokio_rustls::TlsAcceptor::from(tls).accept(stream).await
                        {
                            answer(stream, port, log).await;
                        }
                    }
                }
            });
        }
    });
    Canned {
        port,
        asked,
        _tasks: tasks,
    }
}

fn server_tls(env: &Env) -> Arc<rustls::ServerConfig> {
    let day = Duration::from_secs(86_400);
    let ca = CertificateAuthority::create("nobody knows me", env.wall(), day).unwrap();
    let names = [SubjectName::Dns("elsewhere".into())];
    let pair = ca
        .issue_server("elsewhere", names, env.wall(), day)
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(pair.chain().unwrap(), pair.private_key().unwrap())
        .unwrap();
    Arc::new(config)
}

fn target(ip: Option<&str>) -> ProbeTarget {
    let container = json!({"name": "c", "ports": [{"name": "web", "containerPort": 1}]});
    ProbeTarget {
        pod: Arc::default(),
        container: Arc::new(serde_json::from_value(container).unwrap()),
        id: ContainerId::new("c1"),
        ip: ip.map(|ip| ip.parse().unwrap()),
    }
}

async fn ask(env: &Env, probe: Value) -> Result<Outcome, String> {
    let prober = NodeProber::new(env.clone(), Arc::new(SimulatedRuntime::new(env.clone())));
    let probe: Probe = serde_json::from_value(probe).unwrap();
    prober.probe(&target(Some("127.0.0.1")), &probe).await
}

fn failure(text: impl Into<String>) -> Result<Outcome, String> {
    Ok(Outcome::Failure(text.into()))
}

#[tokio::test]
async fn http_answers_are_judged_as_upstream_does() {
    let env = Env::tokio();
    let server = canned(&env, None).await;
    let port = server.port;
    let at = format!("http://127.0.0.1:{port}");
    let get = |path: &str| ask(&env, json!({"httpGet": {"path": path, "port": port}}));
    assert_eq!(get("/ok?x=1").await, Ok(Outcome::Success("fine".into())));
    assert_eq!(
        get("/500").await,
        failure("HTTP probe failed with statuscode: 500")
    );
    assert_eq!(get("/to-ok").await, Ok(Outcome::Success("fine".into())));
    let warning = "Probe terminated redirects, Response body: gone";
    assert_eq!(get("/away").await, Ok(Outcome::Warning(warning.into())));
    let warning = "Probe terminated redirects, Response body: ";
    assert_eq!(get("/nowhere").await, Ok(Outcome::Warning(warning.into())));
    assert_eq!(
        get("/loop").await,
        failure(format!("Get \"{at}/loop\": stopped after 10 redirects"))
    );
    assert_eq!(
        get("/big").await,
        Ok(Outcome::Success("x".repeat(10 << 10)))
    );
    assert_eq!(get("/cut").await, Err("unexpected EOF".into()));
    let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    assert_eq!(
        get("/hang").await,
        failure(format!("Get \"{at}/hang\": {late}"))
    );
    assert_eq!(
        get("/closes").await,
        failure(format!("Get \"{at}/closes\": EOF"))
    );
    let malformed = "net/http: HTTP/1.x transport connection broken: malformed HTTP response";
    assert_eq!(
        get("/garbage").await,
        failure(format!("Get \"{at}/garbage\": {malformed}"))
    );
}

#[tokio::test]
async fn requests_say_who_asks() {
    let env = Env::tokio();
    let server = canned(&env, None).await;
    let port = server.port;
    let headers = json!([{"name": "Host", "value": "shop.example"}, {"name": "X-A", "value": "1"},
        {"name": "X-A", "value": "2"}, {"name": "Accept", "value": ""}]);
    ask(&env, json!({"httpGet": {"path": "ok", "port": port}}))
        .await
        .unwrap();
    ask(
        &env,
        json!({"httpGet": {"path": "/ok", "port": port, "httpHeaders": headers}}),
    )
    .await
    .unwrap();
    let asked = server.asked.lock().clone();
    let lines = |n: usize| {
        let mut lines: Vec<_> = asked[n]
            .trim_end()
            .split("\r\n")
            .map(str::to_owned)
            .collect();
        lines[1..].sort();
        lines
    };
    let own = format!("Host: 127.0.0.1:{port}");
    assert_eq!(
        lines(0),
        [
            "GET /ok HTTP/1.1",
            "Accept: */*",
            "Connection: close",
            &own,
            "User-Agent: kube-probe/1.36"
        ]
    );
    assert_eq!(
        lines(1),
        [
            "GET /ok HTTP/1.1",
            "Connection: close",
            "Host: shop.example",
            "User-Agent: kube-probe/1.36",
            "X-A: 1",
            "X-A: 2"
        ]
    );
    let bad = json!({"httpGet": {"port": port, "httpHeaders": [{"name": "a b", "value": ""}]}});
    let want =
        format!("Get \"http://127.0.0.1:{port}/\": net/http: invalid header field name \"a b\"");
    assert_eq!(ask(&env, bad).await, failure(want));
}

#[tokio::test]
async fn certificates_are_not_asked_for_a_name() {
    let env = Env::tokio();
    let server = canned(&env, Some(server_tls(&env))).await;
    let probe = json!({"httpGet": {"path": "/ok", "port": server.port, "scheme": "HTTPS"}});
    assert_eq!(ask(&env, probe).await, Ok(Outcome::Success("fine".into())));
    let plain = canned(&env, None).await;
    let probe = json!({"httpGet": {"path": "/ok", "port": plain.port, "scheme": "HTTPS"}});
    let got = ask(&env, probe).await;
    // The server takes the handshake for a request that never ends, or for one that is none.
    let url = format!("Get \"https://127.0.0.1:{}/ok\": ", plain.port);
    assert!(
        matches!(&got, Ok(Outcome::Failure(text)) if text.starts_with(&url)),
        "{got:?}"
    );
}

#[tokio::test]
async fn tcp_probes_connect() {
    let env = Env::tokio();
    let server = canned(&env, None).await;
    assert_eq!(
        ask(&env, json!({"tcpSocket": {"port": server.port}})).await,
        yes_silent()
    );
    assert!(server.asked.lock().is_empty());
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let want = format!("dial tcp 127.0.0.1:{free}: connect: connection refused");
    assert_eq!(
        ask(&env, json!({"tcpSocket": {"port": free}})).await,
        failure(want.clone())
    );
    let got = ask(&env, json!({"httpGet": {"port": free}})).await;
    assert_eq!(
        got,
        failure(format!("Get \"http://127.0.0.1:{free}/\": {want}"))
    );
    let named = json!({"tcpSocket": {"port": "nope"}});
    assert_eq!(
        ask(&env, named).await,
        Err("strconv.Atoi: parsing \"nope\": invalid syntax".into())
    );
    assert!(
        ask(&env, json!({}))
            .await
            .unwrap_err()
            .starts_with("missing probe handler")
    );
    let prober = NodeProber::new(env.clone(), Arc::new(SimulatedRuntime::new(env.clone())));
    let probe = Probe {
        tcp_socket: Some(k8s_openapi::api::core::v1::TCPSocketAction {
            host: None,
            port: IntOrString::Int(80),
        }),
        ..Probe::default()
    };
    let got = prober.probe(&target(None), &probe).await;
    assert_eq!(
        got,
        Err("failed to find networking container: the pod has no address".into())
    );
}

fn yes_silent() -> Result<Outcome, String> {
    Ok(Outcome::Success(String::new()))
}

/// A gRPC server that answers by the name of the service.
async fn health(
    request: Request<Incoming>,
) -> Result<Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>, Infallible> {
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    assert_eq!(request.headers()["te"], "trailers");
    assert_eq!(request.headers()["user-agent"], "kube-probe/1.36");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let name = body
        .get(7..)
        .map(|name| String::from_utf8(name.to_vec()).unwrap())
        .unwrap_or_default();
    let with = |status: u8| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let data = Bytes::from(vec![0, 0, 0, 0, 2, 8, status]);
        let frames = [Ok(Frame::data(data)), Ok(Frame::trailers(trailers))];
        Response::new(StreamBody::new(futures::stream::iter(frames)).boxed())
    };
    let empty = || Response::builder().body(Full::new(Bytes::new()).boxed());
    Ok(match name.as_str() {
        "" => with(1),
        "down" => with(2),
        "hang" => std::future::pending().await,
        "plain" => {
            let mut response = empty().unwrap();
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
        other => {
            let code = if other == "none" { "12" } else { "5" };
            let mut response = empty().unwrap();
            response
                .headers_mut()
                .insert("grpc-status", code.parse().unwrap());
            response
                .headers_mut()
                .insert("grpc-message", "no%20such".parse().unwrap());
            response
        }
    })
}

#[tokio::test]
async fn grpc_health_is_asked_for() {
    let env = Env::tokio();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tasks = TaskGroup::new(env.clone());
    let inner = env.clone();
    tasks.spawn_until_cancelled("server", async move {
        while let Ok((stream, _)) = listener.accept().await {
            inner.spawn("connection", async move {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server
                    .serve_connection(TokioIo::new(stream), service_fn(health))
                    .await;
            });
        }
    });
    let check = |service: &str| {
        let service = (!service.is_empty()).then(|| service.to_owned());
        ask(&env, json!({"grpc": {"port": port, "service": service}}))
    };
    assert_eq!(
        check("").await,
        Ok(Outcome::Success("service healthy".into()))
    );
    assert_eq!(
        check("down").await,
        failure("service unhealthy (responded with \"NOT_SERVING\")")
    );
    assert_eq!(
        check("hang").await,
        failure("timeout: health rpc did not complete within 1s")
    );
    let want = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): no such";
    assert_eq!(check("none").await, failure(want));
    let want = "error: health rpc probe failed: rpc error: code = NotFound desc = no such";
    assert_eq!(check("other").await, failure(want));
    let want = "error: health rpc probe failed: rpc error: code = Unavailable desc = unexpected HTTP status code received from server: 502 Bad Gateway";
    assert_eq!(check("plain").await, failure(want));
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let want = format!(
        "timeout: failed to connect service \"127.0.0.1:{free}\" within 1s: context deadline exceeded"
    );
    assert_eq!(
        ask(&env, json!({"grpc": {"port": free}})).await,
        failure(want)
    );
}

#[test]
fn commands_are_run_in_the_container() {
    run(|env| async move {
        let runtime = SimulatedRuntime::new(env.clone());
        runtime
            .pull_image(&PullRequest::new("web:1"))
            .await
            .unwrap();
        let sandbox = runtime
            .run_sandbox(&SandboxConfig::new("default", "p", "u1"))
            .await
            .unwrap();
        let config = ContainerConfig::new("c", ImageSpec::new("web:1"));
        let id = runtime.create_container(&sandbox, &config).await.unwrap();
        runtime.start_container(&id).await.unwrap();
        let prober = NodeProber::new(env.clone(), Arc::new(runtime));
        let target = ProbeTarget { id, ..target(None) };
        let exec = async |command: &[&str]| {
            let probe = json!({"exec": {"command": command}, "timeoutSeconds": 2});
            prober
                .probe(&target, &serde_json::from_value(probe).unwrap())
                .await
        };
        assert_eq!(
            exec(&["echo", "hi"]).await,
            Ok(Outcome::Success("hi\n".into()))
        );
        assert_eq!(exec(&["false"]).await, failure(""));
        let before = env.now();
        assert_eq!(
            exec(&["sleep", "60"]).await,
            failure("command timed out: \"sleep 60\" timed out after 2s")
        );
        assert_eq!(env.now().since(before), Duration::from_secs(2));
        assert!(exec(&["no-such-program"]).await.is_err());
        let probe = json!({"tcpSocket": {"port": 80, "host": "192.0.2.1"}});
        let got = prober
            .probe(&target, &serde_json::from_value(probe).unwrap())
            .await;
        assert_eq!(
            got,
            failure("dial tcp 192.0.2.1:80: there is no network here")
        );
    });
}
