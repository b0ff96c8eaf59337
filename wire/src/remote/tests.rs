use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::future::BoxFuture;
use orlop_core::client::{
    DeleteOptions, Freshness, ListOptions, Operation, Patch, Target, WatchEvent, WatchOptions,
    WriteOptions,
};
use orlop_core::env::CancelToken;
use orlop_core::resource::Resource;
use orlop_core::revision::Revision;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::kubeconfig::Credentials;
use crate::listener::{Alpn, Listener, ListenerLimits, PeerInfo, ServerTls};
use crate::pki::{CertificateAuthority, CertificateIdentity, ClientVerifier};

const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");

/// What a scripted server does with a request.
enum Script {
    /// Code, headers, chunks of the body.
    Answer(u16, Vec<(&'static str, String)>, Vec<Bytes>),
    /// Some chunks, and then nothing for ever.
    Hang(Vec<Bytes>),
    /// No answer at all: the connection is closed.
    Crash,
}

#[derive(Clone, Default)]
struct Server {
    script: Arc<Mutex<VecDeque<Script>>>,
    /// Method, path, some headers and the body of each request, and the port that it came from.
    seen: Arc<Mutex<Vec<(String, u16, HeaderMap)>>>,
}

struct Chunks(VecDeque<Bytes>, bool);

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        match self.0.pop_front() {
            Some(chunk) => Poll::Ready(Some(Ok(http_body::Frame::data(chunk)))),
            None if self.1 => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

impl tower_service::Service<HttpRequest<Body>> for Server {
    type Response = Response<Body>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let peer = request.extensions().get::<PeerInfo>().unwrap().clone();
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let path = parts.uri.path_and_query().unwrap();
            let line = format!("{} {path} {}", parts.method, String::from_utf8_lossy(&body))
                .trim_end()
                .to_owned();
            this.seen
                .lock()
                .push((line, peer.remote_addr.unwrap().port(), parts.headers));
            if parts.uri.path() == "/whoami" {
                let name = peer.client_certificate.map(|chain| {
                    CertificateIdentity::from_der(&chain[0])
                        .unwrap()
                        .common_name
                });
                let version = if peer.alpn == Some(Alpn::H2) {
                    "h2"
                } else {
                    "http1"
                };
                return Ok(Response::new(Body::from(format!(
                    "{} {version}",
                    name.unwrap_or_default()
                ))));
            }
            let next = this
                .script
                .lock()
                .pop_front()
                .expect("a request that the script does not know");
            match next {
                Script::Answer(code, headers, chunks) => {
                    let mut response = Response::builder().status(code);
                    for (name, value) in headers {
                        response = response.header(name, value);
                    }
                    Ok(response
                        .body(Body::new(Chunks(chunks.into(), false)))
                        .unwrap())
                }
                Script::Hang(chunks) => Ok(Response::new(Body::new(Chunks(chunks.into(), true)))),
                Script::Crash => Err(std::io::Error::other("crash")),
            }
        })
    }
}

struct Running {
    server: Server,
    client: RemoteClient,
    address: SocketAddr,
    stop: CancelToken,
    task: JoinHandle<Result<(), Error>>,
}

fn options() -> RemoteOptions {
    RemoteOptions {
        user_agent: "tests/1".to_owned(),
        timeout: Duration::from_secs(20),
        ..RemoteOptions::default()
    }
}

/// A server on a free port and a client of it: by HTTP/2 over TLS, or by plain HTTP/1.1.
async fn start(tls: bool, options: RemoteOptions) -> Running {
    let env = Env::tokio();
    let (now, day) = (env.wall(), Duration::from_secs(86_400));
    let ca = CertificateAuthority::create("ca", now, day).unwrap();
    let own = ca
        .issue_server("server", ["127.0.0.1".into()], now, day)
        .unwrap();
    let clients = ClientVerifier::from_pem(ca.certificate_pem()).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let listener = if tls {
        Listener::tls(ServerTls::new(&own, Some(&clients), &env).unwrap())
    } else {
        Listener::plain()
    };
    let mut limits = ListenerLimits::default();
    limits.connection.drain_timeout = Duration::from_millis(50);
    let listener = listener.limits(limits);
    let (server, stop) = (Server::default(), CancelToken::new());
    let (service, token, inner) = (server.clone(), stop.clone(), env.clone());
    #[allow(clippy::disallowed_methods)] // the test owns it
    let task = tokio::spawn(async move { listener.serve(socket, service, &inner, &token).await });
    let config = ClientConfig {
        certificate_authority: Some(ca.certificate_pem().to_owned()),
        credentials: Credentials {
            certificate: Some(ca.issue_client("jane", ["a"], now, day).unwrap()),
            token: Some(Token::Text("secret".to_owned())),
        },
        ..ClientConfig::new(format!(
            "{}://{address}",
            if tls { "https" } else { "http" }
        ))
    };
    let client = RemoteClient::with_options(&config, options, &env).unwrap();
    Running {
        server,
        client,
        address,
        stop,
        task,
    }
}

impl Running {
    fn next(&self, code: u16, body: &Value) {
        self.script(Script::Answer(
            code,
            Vec::new(),
            vec![body.to_string().into()],
        ));
    }

    fn script(&self, script: Script) {
        self.server.script.lock().push_back(script);
    }

    fn seen(&self) -> Vec<String> {
        self.server
            .seen
            .lock()
            .iter()
            .map(|(line, ..)| line.clone())
            .collect()
    }

    async fn call(&self, name: Option<&str>, operation: Operation) -> Result<Answer, Status> {
        let target = Target {
            resource: PODS,
            namespace: Some("default".to_owned()),
            name: name.map(str::to_owned),
            subresource: None,
        };
        self.client.call(Request { target, operation }).await
    }

    async fn list(&self) -> Result<Answer, Status> {
        self.call(None, Operation::List(ListOptions::default()))
            .await
    }

    async fn watch(&self) -> Vec<Result<WatchEvent, Status>> {
        let options = WatchOptions {
            from: Some(Revision(1)),
            bookmarks: true,
            ..WatchOptions::default()
        };
        let Answer::Watch(stream) = self.call(None, Operation::Watch(options)).await.unwrap()
        else {
            panic!()
        };
        stream.collect().await
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

fn pod(name: &str, version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "resourceVersion": version}})
}

#[tokio::test]
async fn a_list_comes_page_by_page_and_its_items_know_what_they_are() {
    for tls in [true, false] {
        let running = start(tls, options()).await;
        let bare = |name: &str, version: &str| json!({"metadata": {"name": name, "namespace": "default", "resourceVersion": version}});
        running.next(
            200,
            &json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "9", "continue": "next", "remainingItemCount": 1},
                    "items": [bare("a", "3"), bare("b", "4")]}),
        );
        running.next(200, &json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "9"}, "items": [bare("c", "5")]}));
        running.next(200, &json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "9"}, "items": null}));
        let mut names = Vec::new();
        let mut options = ListOptions {
            limit: 2,
            freshness: Freshness::Any,
            ..ListOptions::default()
        };
        loop {
            let Answer::List(list) = running
                .call(None, Operation::List(options.clone()))
                .await
                .unwrap()
            else {
                panic!()
            };
            assert_eq!(list.revision, Revision(9));
            for item in &list.items {
                assert_eq!((item.api_version(), item.kind()), ("v1", "Pod"));
                names.push(format!("{}@{}", item.name(), item.revision()));
            }
            if list.continue_token.is_empty() {
                break;
            }
            assert_eq!(list.remaining, Some(1));
            options.continue_token = list.continue_token;
        }
        assert_eq!(names, ["a@3", "b@4", "c@5"]);
        let Answer::List(empty) = running.list().await.unwrap() else {
            panic!()
        };
        assert!(empty.items.is_empty());
        assert_eq!(
            running.seen(),
            [
                "GET /api/v1/namespaces/default/pods?limit=2&resourceVersion=0",
                "GET /api/v1/namespaces/default/pods?continue=next&limit=2",
                "GET /api/v1/namespaces/default/pods",
            ]
        );
        {
            let seen = running.server.seen.lock();
            assert!(
                seen.iter().all(|(_, port, _)| *port == seen[0].1),
                "one connection is enough"
            );
            let headers = &seen[0].2;
            assert_eq!(
                (
                    headers["authorization"].to_str().unwrap(),
                    headers["user-agent"].to_str().unwrap()
                ),
                ("Bearer secret", "tests/1")
            );
        }
        running.stop().await;
    }
}

#[tokio::test]
async fn objects_come_and_go() {
    let running = start(true, options()).await;
    for code in [200, 201, 200, 200, 200] {
        running.next(code, &pod("a", "7"));
    }
    running.next(200, &json!({"apiVersion": "v1", "kind": "Status", "status": "Success", "details": {"name": "a"}}));
    let write = WriteOptions::default;
    let operations = [
        Operation::Get(Freshness::Consistent),
        Operation::Create(pod("a", ""), write()),
        Operation::Update(pod("a", "6"), write()),
        Operation::Patch(Patch::Merge(json!({"a": 1})), write()),
        Operation::Delete(DeleteOptions::default()),
        Operation::Delete(DeleteOptions::default()),
    ];
    for (number, operation) in operations.into_iter().enumerate() {
        match running.call(Some("a"), operation).await.unwrap() {
            Answer::Object(object) => {
                assert_eq!((object.name(), object.revision()), ("a", Revision(7)))
            }
            Answer::Status(status) => assert_eq!((number, status.status.as_str()), (5, "Success")),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        running.server.seen.lock()[3].2["content-type"],
        "application/merge-patch+json"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_watch_is_read_wherever_its_chunks_are_cut() {
    let event =
        |kind: &str, object: Value| format!("{}\n", json!({"type": kind, "object": object}));
    let mut annotated = json!({"kind": "Pod", "metadata": {"resourceVersion": "12"}});
    annotated["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old"});
    let text = [
        event("ADDED", pod("ä", "10")),
        event("MODIFIED", pod("a", "11")),
        event("BOOKMARK", annotated),
        event("BOOKMARK", json!({"metadata": {"resourceVersion": "13"}})),
        event("DELETED", pod("a", "14")),
        event("ERROR", gone),
        event("ADDED", pod("never", "15")),
    ]
    .concat();
    let running = start(true, options()).await;
    for size in [1, 2, 3, 7, 64, 1000, text.len()] {
        let chunks = text
            .as_bytes()
            .chunks(size)
            .map(Bytes::copy_from_slice)
            .collect();
        running.script(Script::Answer(200, Vec::new(), chunks));
        let events = running.watch().await;
        assert_eq!(events.len(), 6, "cut every {size}");
        assert!(
            matches!(&events[0], Ok(WatchEvent::Added(object)) if object.name() == "ä" && object.revision() == Revision(10))
        );
        assert!(matches!(&events[1], Ok(WatchEvent::Modified(_))));
        assert_eq!(
            events[2],
            Ok(WatchEvent::Bookmark {
                revision: Revision(12),
                initial_events_end: true
            })
        );
        assert_eq!(
            events[3],
            Ok(WatchEvent::Bookmark {
                revision: Revision(13),
                initial_events_end: false
            })
        );
        assert!(
            matches!(&events[4], Ok(WatchEvent::Deleted(object)) if object.revision() == Revision(14))
        );
        assert!(
            events[5]
                .as_ref()
                .is_err_and(|status| status.is_expired() && status.message == "too old")
        );
    }
    // It ends quietly at its end, and with an error when an event is torn, no JSON, or of an unknown type.
    running.script(Script::Answer(
        200,
        Vec::new(),
        vec![event("ADDED", pod("a", "1")).trim_end().to_owned().into()],
    ));
    assert!(matches!(
        running.watch().await.as_slice(),
        [Ok(WatchEvent::Added(_))]
    ));
    for bad in [
        "{\"type\":\"ADDED\",\"obj",
        "hello\n",
        "{\"type\":\"NEW\",\"object\":{}}\n",
        "{\"type\":\"ADDED\",\"object\":{}}\n",
    ] {
        running.script(Script::Answer(200, Vec::new(), vec![bad.into()]));
        assert!(
            matches!(running.watch().await.as_slice(), [Err(status)] if status.code == 500),
            "{bad}"
        );
    }
    running.stop().await;
}

#[tokio::test]
async fn a_watch_that_breaks_off_says_so() {
    let running = start(true, options()).await;
    let event = format!("{}\n", json!({"type": "ADDED", "object": pod("a", "1")}));
    running.script(Script::Hang(vec![event.into()]));
    let watch = Operation::Watch(WatchOptions::default());
    let Answer::Watch(mut stream) = running.call(None, watch).await.unwrap() else {
        panic!()
    };
    assert!(matches!(
        stream.next().await,
        Some(Ok(WatchEvent::Added(_)))
    ));
    running.stop.cancel();
    let end = stream.next().await.unwrap().unwrap_err();
    assert_eq!(end.reason, "ServiceUnavailable");
    assert!(stream.next().await.is_none());
    running.stop().await;
}

#[tokio::test]
async fn refusals_are_statuses_of_the_server_or_of_their_code() {
    let running = start(true, options()).await;
    running.next(
        404,
        &serde_json::to_value(Status::not_found(&PODS, "a")).unwrap(),
    );
    let get = || Operation::Get(Freshness::Consistent);
    assert_eq!(
        running.call(Some("a"), get()).await.unwrap_err(),
        Status::not_found(&PODS, "a")
    );
    let plain = |code, text: &'static str| Script::Answer(code, Vec::new(), vec![text.into()]);
    running.script(plain(404, "404 page not found"));
    let status = running.call(Some("a"), get()).await.unwrap_err();
    assert_eq!(
        status.message,
        "the server could not find the requested resource (get pods a)"
    );
    assert_eq!(
        status.details.as_ref().unwrap().causes[0].message,
        "404 page not found"
    );
    assert!(status.is_not_found());
    running.script(plain(500, "boom"));
    let status = running.list().await.unwrap_err();
    assert_eq!(
        status.message,
        "an error on the server (\"boom\") has prevented the request from succeeding (list pods)"
    );
    running.script(plain(409, ""));
    let status = running
        .call(
            None,
            Operation::Create(pod("a", ""), WriteOptions::default()),
        )
        .await
        .unwrap_err();
    assert!(status.is_already_exists());
    running.script(plain(200, "<html>"));
    assert_eq!(running.list().await.unwrap_err().reason, "InternalError");
    running.script(plain(302, ""));
    assert_eq!(running.list().await.unwrap_err().code, 302);
    running.stop().await;
}

#[tokio::test]
async fn a_client_comes_back_when_the_server_says() {
    let running = start(
        true,
        RemoteOptions {
            max_retries: 2,
            ..options()
        },
    )
    .await;
    let busy = || {
        Script::Answer(
            429,
            vec![("retry-after", "0".to_owned())],
            vec![Bytes::from_static(b"busy")],
        )
    };
    running.script(busy());
    running.script(Script::Answer(
        503,
        vec![("retry-after", "0".to_owned())],
        Vec::new(),
    ));
    running.next(200, &pod("a", "1"));
    let create = || Operation::Create(pod("a", ""), WriteOptions::default());
    assert!(running.call(None, create()).await.is_ok());
    assert_eq!(running.seen().len(), 3);
    // Not for ever, and not without being told when.
    (0..3).for_each(|_| running.script(busy()));
    let status = running.call(None, create()).await.unwrap_err();
    assert_eq!(
        (status.code, status.reason.as_str()),
        (429, "TooManyRequests")
    );
    running.script(Script::Answer(429, Vec::new(), Vec::new()));
    assert_eq!(running.call(None, create()).await.unwrap_err().code, 429);
    assert!(running.server.script.lock().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_client_connects_anew_but_writes_once() {
    for tls in [true, false] {
        let running = start(tls, options()).await;
        running.script(Script::Crash);
        running.next(200, &pod("a", "1"));
        // A read is sent again when the server falls silent in the middle of it.
        assert!(
            running
                .call(Some("a"), Operation::Get(Freshness::Consistent))
                .await
                .is_ok()
        );
        // A write is not: it may have been done.
        running.script(Script::Crash);
        let create = Operation::Create(pod("a", ""), WriteOptions::default());
        assert_eq!(
            running.call(None, create).await.unwrap_err().reason,
            "ServiceUnavailable"
        );
        running.next(200, &pod("a", "1"));
        assert!(
            running
                .call(Some("a"), Operation::Get(Freshness::Consistent))
                .await
                .is_ok()
        );
        assert!(running.server.script.lock().is_empty());
        running.stop().await;
    }
}

#[tokio::test]
async fn a_restarted_server_is_found_again() {
    for tls in [true, false] {
        let running = start(tls, options()).await;
        running.next(200, &pod("a", "1"));
        let create = || Operation::Create(pod("a", ""), WriteOptions::default());
        assert!(running.call(None, create()).await.is_ok());
        let (address, client, server) = (
            running.address,
            running.client.clone(),
            running.server.clone(),
        );
        running.stop().await;
        let down = client.0.transport.url("/");
        let request = || Request {
            target: Target {
                resource: PODS,
                namespace: Some("default".to_owned()),
                name: None,
                subresource: None,
            },
            operation: create(),
        };
        let refused = client.call(request()).await.unwrap_err();
        assert!(
            refused.reason == "ServiceUnavailable" && refused.message.contains(&*down),
            "{refused}"
        );
        if tls {
            continue; // its certificate went with it
        }
        let socket = TcpListener::bind(address).await.unwrap();
        let (env, stop) = (Env::tokio(), CancelToken::new());
        let (token, service) = (stop.clone(), server.clone());
        #[allow(clippy::disallowed_methods)] // the test owns it
        let task =
            tokio::spawn(
                async move { Listener::plain().serve(socket, service, &env, &token).await },
            );
        server.script.lock().push_back(Script::Answer(
            201,
            Vec::new(),
            vec![pod("a", "2").to_string().into()],
        ));
        assert!(client.call(request()).await.is_ok());
        stop.cancel();
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn limits_hold() {
    let limits = RemoteOptions {
        timeout: Duration::from_millis(100),
        max_answer_bytes: 1000,
        max_event_bytes: 100,
        ..options()
    };
    let running = start(true, limits).await;
    running.script(Script::Hang(Vec::new()));
    assert_eq!(running.list().await.unwrap_err().reason, "Timeout");
    running.script(Script::Answer(
        200,
        Vec::new(),
        vec![vec![b' '; 600].into(), vec![b' '; 600].into()],
    ));
    assert_eq!(
        running.list().await.unwrap_err().message,
        "Internal error occurred: the server's answer has more than 1000 bytes"
    );
    running.script(Script::Answer(
        200,
        Vec::new(),
        vec![vec![b'x'; 300].into()],
    ));
    assert!(
        matches!(running.watch().await.as_slice(), [Err(status)] if status.message.contains("more than 100 bytes"))
    );
    running.stop().await;
}

#[tokio::test]
async fn many_watches_and_requests_share_a_connection_and_spill_over() {
    let running = start(true, options()).await;
    let mut streams = Vec::new();
    for _ in 0..260 {
        running.script(Script::Hang(Vec::new()));
        let Answer::Watch(stream) = running
            .call(None, Operation::Watch(WatchOptions::default()))
            .await
            .unwrap()
        else {
            panic!()
        };
        streams.push(stream);
    }
    running.next(200, &pod("a", "1"));
    assert!(
        running
            .call(Some("a"), Operation::Get(Freshness::Consistent))
            .await
            .is_ok()
    );
    let ports: std::collections::BTreeSet<u16> = running
        .server
        .seen
        .lock()
        .iter()
        .map(|(_, port, _)| *port)
        .collect();
    assert_eq!(
        ports.len(),
        2,
        "250 streams on the first connection, the rest on another"
    );
    running.stop().await;
}

#[tokio::test]
async fn the_client_shows_its_certificate_and_believes_only_its_authority() {
    let running = start(true, options()).await;
    let who = |client: RemoteClient| async move {
        let response = client
            .send(HttpRequest::get("/whoami").body(Bytes::new()).unwrap())
            .await?;
        Ok::<_, Error>(collect(response.into_body(), 1000).await.unwrap())
    };
    assert_eq!(who(running.client.clone()).await.unwrap(), "jane h2");
    let env = Env::tokio();
    let stranger = CertificateAuthority::create("ca", env.wall(), Duration::from_secs(60)).unwrap();
    let mut config = ClientConfig::new(format!("https://{}", running.address));
    config.certificate_authority = Some(stranger.certificate_pem().to_owned());
    assert!(matches!(
        who(RemoteClient::new(&config, &env).unwrap()).await,
        Err(Error::Network { .. })
    ));
    config.insecure_skip_tls_verify = true;
    assert_eq!(
        who(RemoteClient::new(&config, &env).unwrap())
            .await
            .unwrap(),
        " h2"
    );
    for server in ["ftp://x", "https://", "http://a b"] {
        assert!(
            RemoteClient::new(&ClientConfig::new(server), &env).is_err(),
            "{server}"
        );
    }
    running.stop().await;
}

#[tokio::test]
async fn a_token_file_is_read_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let sim = orlop_core::env::SimEnv::new(1);
    let env = sim.env();
    let source = TokenSource::new(Token::File(path.clone()));
    assert!(source.header(&env).is_err());
    std::fs::write(&path, "one\n").unwrap();
    assert_eq!(source.header(&env).unwrap(), "Bearer one");
    std::fs::write(&path, "two").unwrap();
    assert_eq!(source.header(&env).unwrap(), "Bearer one");
    sim.run_for(TOKEN_AGE);
    assert_eq!(source.header(&env).unwrap(), "Bearer two");
    std::fs::remove_file(&path).unwrap();
    sim.run_for(TOKEN_AGE);
    assert_eq!(
        source.header(&env).unwrap(),
        "Bearer two",
        "the old one may still do"
    );
}
