//! The whole way, against a kubelet and pods in memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper_util::rt::TokioIo;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest};
use orlop_core::auth::{ALL_AUTHENTICATED, SYSTEM_MASTERS, UserInfo};
use orlop_core::env::{CancelToken, Env, SimEnv};
use orlop_core::node::{ConnectError, KubeletEndpoint, NodeConnector};
use orlop_core::runtime::Connection;
use orlop_core::status::Status;
use orlop_store::MemoryStore;
use orlop_wire::body::Body;
use orlop_wire::listener::{ConnectionLimits, PeerInfo, serve_connection};
use orlop_wire::stream::io::into_connection;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_service::Service;

use crate::ApiServer;
use crate::http::HttpService;

/// What a node's kubelet and its pods were asked, and how they answer.
#[derive(Clone)]
struct Node {
    env: Env,
    seen: Arc<Mutex<Vec<String>>>,
    headers: Arc<Mutex<BTreeMap<String, String>>>,
    /// Set when the client of an endless log has gone.
    gone: CancelToken,
}

impl Node {
    fn new(env: &Env) -> Self {
        Self {
            env: env.clone(),
            seen: Arc::default(),
            headers: Arc::default(),
            gone: CancelToken::new(),
        }
    }

    fn open(&self, who: String) -> Connection {
        let (near, far) = tokio::io::duplex(4096);
        let node = self.clone();
        self.seen.lock().push(who);
        self.env.spawn("node", async move {
            let env = node.env.clone();
            let limits = ConnectionLimits::in_memory();
            let stop = CancelToken::new();
            let peer = PeerInfo::default();
            let _ = serve_connection(far, peer, node, &limits, &env, &stop).await;
        });
        into_connection(near)
    }

    async fn answer(self, mut request: Request<Body>) -> Response<Body> {
        let path = request.uri().path_and_query().unwrap().to_string();
        self.seen
            .lock()
            .push(format!("{} {path}", request.method()));
        *self.headers.lock() = request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        let text = |code: u16, body: &str| {
            let mut response = Response::new(Body::from(body.to_owned()));
            *response.status_mut() = code.try_into().unwrap();
            response
        };
        if request.headers().contains_key("upgrade") {
            if path.contains("refuse") {
                return text(
                    500,
                    "unable to upgrade connection: container not found (\"c\")\n",
                );
            }
            if path.contains("lukewarm") {
                return text(200, "no");
            }
            let upgrade = hyper::upgrade::on(&mut request);
            self.env.spawn("echo", async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                let mut chunk = [0; 64];
                io.write_all(b"hello ").await.unwrap();
                loop {
                    let length = io.read(&mut chunk).await.unwrap_or(0);
                    if length == 0 || chunk[..length].contains(&b'!') {
                        let _ = io.write_all(b"bye").await;
                        let _ = io.shutdown().await;
                        break;
                    }
                    io.write_all(&chunk[..length].to_ascii_uppercase())
                        .await
                        .unwrap();
                }
            });
            let protocol = request.headers().get("sec-websocket-protocol").cloned();
            let mut response = Response::builder()
                .status(101)
                .header("connection", "Upgrade")
                .header("upgrade", request.headers()["upgrade"].clone());
            if let Some(protocol) = protocol {
                response = response.header("sec-websocket-protocol", protocol);
            }
            return response.body(Body::empty()).unwrap();
        }
        if path.contains("follow=true") {
            struct Gone(CancelToken);
            impl Drop for Gone {
                fn drop(&mut self) {
                    self.0.cancel();
                }
            }
            let gone = Gone(self.gone.clone());
            let (env, lines) = (self.env.clone(), 0_u32..);
            let lines = futures::stream::iter(lines).then(move |line| {
                let (env, _gone) = (env.clone(), &gone);
                async move {
                    env.sleep(std::time::Duration::from_secs(1)).await;
                    let line = Bytes::from(format!("line {line}\n"));
                    Ok::<_, std::convert::Infallible>(http_body::Frame::data(line))
                }
            });
            return Response::new(Body::new(StreamBody::new(lines)));
        }
        match path.split('?').next().unwrap_or_default() {
            "/containerLogs/default/web/c" => text(200, "one\ntwo\n"),
            "/containerLogs/default/web/gone" => text(404, "container \"gone\" not found"),
            "/containerLogs/default/web/broken" => text(500, "disk on fire"),
            "/containerLogs/default/web/waiting" => text(
                400,
                "container \"waiting\" in pod \"web\" is waiting to start",
            ),
            "/redirect" => {
                let mut response = text(302, "");
                let headers = response.headers_mut();
                headers.insert("location", "/there".parse().unwrap());
                response
            }
            "/page" => {
                let mut response = text(200, "<a href=\"/x\">x</a>");
                let headers = response.headers_mut();
                headers.insert("content-type", "text/html".parse().unwrap());
                headers.insert("access-control-allow-origin", "*".parse().unwrap());
                response
            }
            "/echo" => {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Response::new(Body::from(body))
            }
            other => text(200, other),
        }
    }
}

impl Service<Request<Body>> for Node {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = futures::future::BoxFuture<'static, Result<Response<Body>, Self::Error>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let node = self.clone();
        Box::pin(async move { Ok(node.answer(request).await) })
    }
}

#[async_trait]
impl NodeConnector for Node {
    async fn kubelet(&self, kubelet: &KubeletEndpoint) -> Result<Connection, ConnectError> {
        if kubelet.node == "far" {
            return Err(ConnectError::new(
                "dial tcp 10.0.0.9:10250: connect: connection refused",
            ));
        }
        Ok(self.open(format!(
            "kubelet {} {}:{}",
            kubelet.node, kubelet.host, kubelet.port
        )))
    }

    async fn dial(&self, address: SocketAddr) -> Result<Connection, ConnectError> {
        if address.port() == 9 {
            return Err(ConnectError::new("nobody listens"));
        }
        Ok(self.open(format!("pod {address}")))
    }
}

/// A plug-in that looks at connections.
struct NoShell;

#[async_trait]
impl AdmissionPlugin for NoShell {
    fn name(&self) -> &'static str {
        "NoShell"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        operation == AdmissionOperation::Connect
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), Status> {
        if request.object["command"][0] == "bash" {
            return Err(request.forbidden("no shells here"));
        }
        Ok(())
    }
}

#[derive(Clone)]
struct Cluster {
    api: Arc<ApiServer>,
    service: HttpService,
    node: Node,
}

fn with_cluster<F: Future<Output = ()> + Send + 'static>(
    test: impl FnOnce(Cluster) -> F + Send + 'static,
) {
    let sim = SimEnv::new(1);
    let env = sim.env();
    sim.block_on(async move {
        let node = Node::new(&env);
        let store = Arc::new(MemoryStore::new(env.clone()));
        let api = ApiServer::builder(store, env)
            .with_defaults()
            .node_connector(Arc::new(node.clone()))
            .admission(NoShell)
            .start()
            .await
            .unwrap();
        let admin = UserInfo::new("admin", [SYSTEM_MASTERS, ALL_AUTHENTICATED]);
        let service = api.service_as(admin);
        let api = Arc::new(api);
        let cluster = Cluster { api, service, node };
        cluster.populate().await;
        test(cluster.clone()).await;
        cluster.api.shutdown().await;
    });
}

impl Cluster {
    async fn populate(&self) {
        self.post(
            "/api/v1/namespaces/default/serviceaccounts",
            json!({"metadata": {"name": "default"}}),
        )
        .await;
        for (name, address) in [("near", "10.0.0.1"), ("far", "10.0.0.9")] {
            self.post(
                "/api/v1/nodes",
                json!({"metadata": {"name": name}, "status": {
                    "addresses": [{"type": "InternalIP", "address": address}],
                    "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
                }}),
            )
            .await;
        }
        for (name, node) in [
            ("web", Some("near")),
            ("lost", Some("far")),
            ("stray", Some("nowhere")),
            ("new", None),
        ] {
            let containers: Vec<Value> = ["c", "gone", "broken", "waiting", "refuse", "lukewarm"]
                .iter()
                .take(if name == "new" { 1 } else { 6 })
                .map(|name| json!({"name": name, "image": "i", "ports": [{"containerPort": 8080}]}))
                .collect();
            let mut spec = json!({"containers": containers});
            if let Some(node) = node {
                spec["nodeName"] = node.into();
            }
            let pod = json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
            self.post("/api/v1/namespaces/default/pods", pod).await;
        }
        let status = json!({"status": {"podIPs": [{"ip": "10.244.0.7"}], "podIP": "10.244.0.7"}});
        let path = "/api/v1/namespaces/default/pods/web/status";
        let headers = [("content-type", "application/merge-patch+json")];
        let (code, text) = self
            .ask(Method::PATCH, path, &headers, status.to_string())
            .await;
        assert_eq!(code, 200, "{text}");
        self.post("/api/v1/namespaces/default/services", json!({"metadata": {"name": "s"}, "spec": {
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "none", "port": 81}],
        }}))
        .await;
        self.post("/api/v1/namespaces/default/endpoints", json!({"metadata": {"name": "s"}, "subsets": [{
            "addresses": [
                {"ip": "10.244.0.7", "targetRef": {"kind": "Pod", "name": "web", "namespace": "default"}},
                {"ip": "10.244.0.99", "targetRef": {"kind": "Pod", "name": "web", "namespace": "default"}},
                {"ip": "8.8.8.8"},
            ],
            "ports": [{"name": "http", "port": 8080}],
        }]}))
        .await;
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        let Ok(response) = self.service.clone().call(request).await;
        response
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> (u16, String) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let response = self.send(request).await;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.ask(Method::GET, path, &[], Bytes::new()).await
    }

    async fn post(&self, path: &str, body: Value) {
        let headers = [("content-type", "application/json")];
        let (code, text) = self
            .ask(Method::POST, path, &headers, body.to_string())
            .await;
        assert_eq!(code, 201, "{path}: {text}");
    }

    /// Code, reason and message of a refusal.
    async fn refused(&self, path: &str) -> (u64, String, String) {
        let (_, text) = self.get(path).await;
        refusal(&text)
    }

    /// Asks for another protocol in process.
    async fn upgrade(&self, service: &HttpService, method: &str, path: &str) -> Response<Body> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://kubernetes{path}"))
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-protocol", "v5.channel.k8s.io")
            .body(Full::<Bytes>::default())
            .unwrap();
        let Ok(response) = service.clone().call(request).await;
        response
    }

    fn last_seen(&self) -> String {
        self.node.seen.lock().last().cloned().unwrap_or_default()
    }
}

fn refusal(text: &str) -> (u64, String, String) {
    let status: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"));
    let of = |name: &str| status[name].as_str().unwrap_or_default().to_owned();
    (
        status["code"].as_u64().unwrap(),
        of("reason"),
        of("message"),
    )
}

async fn text_of(response: Response<Body>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

const POD: &str = "/api/v1/namespaces/default/pods";

#[test]
fn logs_come_from_the_pods_kubelet() {
    with_cluster(|cluster| async move {
        let (code, text) = cluster
            .get(&format!(
                "{POD}/web/log?container=c&tailLines=2&insecureSkipTLSVerifyBackend=true"
            ))
            .await;
        assert_eq!((code, text.as_str()), (200, "one\ntwo\n"));
        assert_eq!(
            *cluster.node.seen.lock(),
            [
                "kubelet near 10.0.0.1:10250",
                "GET /containerLogs/default/web/c?tailLines=2"
            ]
        );
        assert_eq!(cluster.node.headers.lock()["host"], "10.0.0.1:10250");
        // Nothing was written yet where there is no node.
        let (code, text) = cluster.get(&format!("{POD}/new/log")).await;
        assert_eq!((code, text.as_str()), (204, ""));
    });
}

#[test]
fn logs_are_refused_in_known_words() {
    with_cluster(|cluster| async move {
        for (path, code, reason, message) in [
            ("none/log", 404, "NotFound", "pods \"none\" not found"),
            (
                "web/log",
                400,
                "BadRequest",
                "a container name must be specified for pod web, choose one of: [c gone broken waiting refuse lukewarm]",
            ),
            (
                "web/log?container=x",
                400,
                "BadRequest",
                "container x is not valid for pod web",
            ),
            (
                "stray/log?container=c",
                404,
                "NotFound",
                "pods \"nowhere\" not found",
            ),
            (
                "lost/log?container=c",
                500,
                "",
                "Get \"https://10.0.0.9:10250/containerLogs/default/lost/c\": dial tcp 10.0.0.9:10250: connect: connection refused",
            ),
            (
                "web/log?container=gone",
                404,
                "NotFound",
                "the server could not find the requested resource ( pods/log web)",
            ),
            (
                "web/log?container=broken",
                500,
                "InternalError",
                "Internal error occurred: disk on fire",
            ),
            (
                "web/log?container=waiting",
                400,
                "BadRequest",
                "container \"waiting\" in pod \"web\" is waiting to start",
            ),
        ] {
            let found = cluster.refused(&format!("{POD}/{path}")).await;
            assert_eq!(
                found,
                (code, reason.to_owned(), message.to_owned()),
                "{path}"
            );
        }
        let (code, _) = cluster
            .ask(Method::POST, &format!("{POD}/web/log"), &[], "")
            .await;
        assert_eq!(code, 405);
    });
}

#[test]
fn a_log_is_followed_past_the_deadline_of_requests_until_nobody_reads() {
    with_cluster(|cluster| async move {
        let request = Request::get(format!("{POD}/web/log?container=c&follow=true"));
        let response = cluster.send(request.body(Full::default()).unwrap()).await;
        let mut lines = BodyStream::new(response.into_body());
        for line in 0..100 {
            let frame = lines.next().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), format!("line {line}\n"));
        }
        let counted = |count: usize| {
            let verb = "apiserver_longrunning_requests{verb=\"CONNECT\"";
            format!("{verb},group=\"\",resource=\"pods\"}} {count}\n")
        };
        assert!(cluster.get("/metrics").await.1.contains(&counted(1)));
        drop(lines);
        cluster.node.gone.cancelled().await;
        assert!(cluster.get("/metrics").await.1.contains(&counted(0)));
    });
}

#[test]
fn streams_end_when_the_server_stops() {
    with_cluster(|cluster| async move {
        let request = Request::get(format!("{POD}/web/log?container=c&follow=true"));
        let response = cluster.send(request.body(Full::default()).unwrap()).await;
        let mut lines = BodyStream::new(response.into_body());
        lines.next().await.unwrap().unwrap();
        cluster.api.begin_shutdown();
        while let Some(Ok(_)) = lines.next().await {}
        cluster.node.gone.cancelled().await;
    });
}

/// Talks to the node over an upgraded answer.
async fn talk(mut response: Response<Body>) {
    assert_eq!(response.status(), 101);
    assert_eq!(
        response.headers()["sec-websocket-protocol"],
        "v5.channel.k8s.io"
    );
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    let mut text = [0; 6];
    io.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"hello ");
    io.write_all(b"orlop").await.unwrap();
    let mut text = [0; 5];
    io.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"ORLOP");
    io.write_all(b"!").await.unwrap();
    let mut rest = String::new();
    io.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "bye");
}

#[test]
fn clients_in_process_speak_other_protocols() {
    with_cluster(|cluster| async move {
        let path = format!("{POD}/web/exec?container=c&command=ls&command=-l&stdout=true&stdin=1");
        for method in ["GET", "POST"] {
            let response = cluster.upgrade(&cluster.service, method, &path).await;
            talk(response).await;
            assert_eq!(
                cluster.last_seen(),
                format!("{method} /exec/default/web/c?command=ls&command=-l&input=1&output=1")
            );
        }
        let path = format!("{POD}/web/portforward?ports=80");
        talk(cluster.upgrade(&cluster.service, "GET", &path).await).await;
        assert_eq!(cluster.last_seen(), "GET /portForward/default/web?port=80");
        let path = format!("{POD}/web:8081/proxy/ws?a=b");
        talk(cluster.upgrade(&cluster.service, "GET", &path).await).await;
        assert_eq!(cluster.last_seen(), "GET /ws?a=b");
    });
}

#[test]
fn clients_on_a_connection_speak_other_protocols() {
    with_cluster(|cluster| async move {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (env, service) = (cluster.node.env.clone(), cluster.service.clone());
        let stop = CancelToken::new();
        cluster.node.env.spawn("listener", async move {
            let limits = ConnectionLimits::in_memory();
            let peer = PeerInfo::at("1.2.3.4:5".parse().unwrap());
            let _ = serve_connection(far, peer, service, &limits, &env, &stop).await;
        });
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near))
            .await
            .unwrap();
        cluster.node.env.spawn("client", async move {
            let _ = connection.with_upgrades().await;
        });
        let request = Request::post(format!("{POD}/web/attach?container=c&stdin=true"))
            .header("host", "api:6443")
            .header("connection", "Upgrade")
            .header("upgrade", "SPDY/3.1")
            .header("sec-websocket-protocol", "v5.channel.k8s.io")
            .body(Full::<Bytes>::default())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.headers()["upgrade"], "SPDY/3.1");
        talk(response.map(Body::new)).await;
        assert_eq!(cluster.last_seen(), "POST /attach/default/web/c?input=1");
        let headers = cluster.node.headers.lock();
        assert_eq!(headers["host"], "api:6443");
        assert_eq!(headers["x-forwarded-for"], "1.2.3.4");
    });
}

#[test]
fn streams_are_refused_in_known_words() {
    with_cluster(|cluster| async move {
        for (path, code, reason, message) in [
            (
                "new/exec?command=ls",
                400,
                "BadRequest",
                "pod new does not have a host assigned",
            ),
            (
                "lost/attach?container=c",
                500,
                "",
                "error dialing backend: dial tcp 10.0.0.9:10250: connect: connection refused",
            ),
            (
                "web/exec?container=lukewarm&command=ls",
                500,
                "",
                "invalid upgrade response: status code 200",
            ),
            (
                "web/exec?container=c&command=bash",
                403,
                "Forbidden",
                "pods \"web\" is forbidden: no shells here",
            ),
        ] {
            let path = format!("{POD}/{path}");
            let response = cluster.upgrade(&cluster.service, "GET", &path).await;
            let found = refusal(&text_of(response).await);
            assert_eq!(
                found,
                (code, reason.to_owned(), message.to_owned()),
                "{path}"
            );
        }
        let plain = cluster
            .refused(&format!("{POD}/web/exec?container=c&command=ls"))
            .await;
        assert_eq!(plain.2, "Upgrade request required");
        // A kubelet's refusal is passed on as it is.
        let path = format!("{POD}/web/exec?container=refuse&command=ls");
        let response = cluster.upgrade(&cluster.service, "GET", &path).await;
        assert_eq!(response.status(), 500);
        assert_eq!(
            text_of(response).await,
            "unable to upgrade connection: container not found (\"c\")\n"
        );
        let (code, _) = cluster
            .ask(Method::DELETE, &format!("{POD}/web/exec"), &[], "")
            .await;
        assert_eq!(code, 405);
    });
}

#[test]
fn who_may_only_read_opens_no_stream() {
    with_cluster(|cluster| async move {
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        cluster
            .post(
                &format!("{rbac}/clusterroles"),
                json!({"metadata": {"name": "reader"}, "rules": [
                    {"apiGroups": [""], "resources": ["pods/exec", "pods/log"], "verbs": ["get"]},
                ]}),
            )
            .await;
        cluster
            .post(
                &format!("{rbac}/clusterrolebindings"),
                json!({
                    "metadata": {"name": "reader"},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
                    "subjects": [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}],
                }),
            )
            .await;
        cluster.api.caught_up().await.unwrap();
        let service = cluster
            .api
            .service_as(UserInfo::new("bob", [ALL_AUTHENTICATED]));
        let path = format!("{POD}/web/exec?container=c&command=ls");
        let response = cluster.upgrade(&service, "GET", &path).await;
        let (code, _, message) = refusal(&text_of(response).await);
        assert_eq!(code, 403);
        assert!(
            message.contains("User \"bob\" cannot create resource \"pods/exec\""),
            "{message}"
        );
        let request = Request::get(format!("{POD}/web/log?container=c"));
        let Ok(response) = service
            .clone()
            .call(request.body(Full::<Bytes>::default()).unwrap())
            .await;
        assert_eq!(response.status(), 200);
    });
}

#[test]
fn proxies_reach_pods_services_and_nodes() {
    with_cluster(|cluster| async move {
        let services = "/api/v1/namespaces/default/services";
        for (path, who, what) in [
            (
                format!("{POD}/web/proxy/a%2Fb/?q=1"),
                "pod 10.244.0.7:8080",
                "GET /a%2Fb/?q=1",
            ),
            (
                format!("{POD}/web:9090/proxy/a"),
                "pod 10.244.0.7:9090",
                "GET /a",
            ),
            (
                format!("{services}/s:http/proxy/"),
                "pod 10.244.0.7:8080",
                "GET /",
            ),
            (
                format!("{services}/s:80/proxy/x"),
                "pod 10.244.0.7:8080",
                "GET /x",
            ),
            (
                "/api/v1/nodes/near/proxy/metrics".to_owned(),
                "kubelet near 10.0.0.1:10250",
                "GET /metrics",
            ),
            (
                "/api/v1/nodes/near:10250/proxy/healthz".to_owned(),
                "kubelet near 10.0.0.1:10250",
                "GET /healthz",
            ),
            (
                "/api/v1/nodes/near:9100/proxy/metrics".to_owned(),
                "pod 10.0.0.1:9100",
                "GET /metrics",
            ),
        ] {
            cluster.node.seen.lock().clear();
            let (code, text) = cluster.get(&path).await;
            assert_eq!(code, 200, "{path}: {text}");
            assert_eq!(*cluster.node.seen.lock(), [who, what], "{path}");
        }
        for (path, code, message) in [
            (
                format!("{services}/s:82/proxy/"),
                503,
                "no service port 82 found for service \"s\"",
            ),
            (
                format!("{services}/s:none/proxy/"),
                503,
                "no endpoints available for service \"s:none\"",
            ),
            (
                format!("{services}/nope/proxy/"),
                404,
                "services \"nope\" not found",
            ),
            (format!("{POD}/lost/proxy/"), 400, "address not allowed"),
            (
                format!("{POD}/a:b:c:d/proxy/"),
                400,
                "invalid pod request \"a:b:c:d\"",
            ),
            (
                format!("{POD}/web:9/proxy/"),
                503,
                "error trying to reach service: nobody listens",
            ),
            (
                "/api/v1/nodes/nope/proxy/".to_owned(),
                404,
                "nodes \"nope\" not found",
            ),
        ] {
            let (found, _, words) = cluster.refused(&path).await;
            assert_eq!((found, words.as_str()), (code, message), "{path}");
        }
    });
}

#[test]
fn pages_behind_a_proxy_lead_through_it() {
    with_cluster(|cluster| async move {
        let (code, text) = cluster.get(&format!("{POD}/web/proxy/page")).await;
        assert_eq!(code, 200);
        assert_eq!(text, format!("<a href=\"{POD}/web/proxy/x\">x</a>"));
        assert_eq!(
            cluster.node.headers.lock()["x-forwarded-uri"],
            format!("{POD}/web/proxy/page")
        );
        for (path, code, location) in [
            ("proxy", 301, format!("{POD}/web/proxy/")),
            ("proxy?a=b", 301, format!("{POD}/web/proxy/?a=b")),
            ("proxy/redirect", 302, format!("{POD}/web/proxy/there")),
        ] {
            let request = Request::get(format!("{POD}/web/{path}"));
            let response = cluster.send(request.body(Full::default()).unwrap()).await;
            assert_eq!(response.status(), code);
            assert_eq!(response.headers()["location"], location.as_str());
        }
        let path = format!("{POD}/web/proxy/echo");
        let headers = [("content-type", "application/x"), ("content-length", "3")];
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let (code, text) = cluster.ask(method, &path, &headers, "abc").await;
            assert_eq!((code, text.as_str()), (200, "abc"));
        }
        assert_eq!(cluster.last_seen(), "DELETE /echo");
    });
}

#[test]
fn without_a_connector_nothing_is_reached() {
    let sim = SimEnv::new(1);
    let env = sim.env();
    sim.block_on(async move {
        let store = Arc::new(MemoryStore::new(env.clone()));
        let api = ApiServer::builder(store, env.clone())
            .with_defaults()
            .start()
            .await
            .unwrap();
        let admin = UserInfo::new("admin", [SYSTEM_MASTERS, ALL_AUTHENTICATED]);
        let service = api.service_as(admin);
        let cluster = Cluster {
            api: Arc::new(api),
            service,
            node: Node::new(&env),
        };
        cluster.populate().await;
        for path in [
            format!("{POD}/web/log?container=c"),
            format!("{POD}/web/proxy/"),
            "/api/v1/nodes/near/proxy/".to_owned(),
        ] {
            let (code, reason, message) = cluster.refused(&path).await;
            assert_eq!((code, reason.as_str()), (503, "ServiceUnavailable"));
            assert!(message.contains("no node connector"), "{message}");
        }
        cluster.api.shutdown().await;
    });
}

#[test]
fn a_browser_brings_its_token_among_the_protocols() {
    let sim = SimEnv::new(1);
    let env = sim.env();
    sim.block_on(async move {
        let node = Node::new(&env);
        let store = Arc::new(MemoryStore::new(env.clone()));
        let tokens =
            crate::authentication::StaticTokens::parse("secret,jane,1,system:masters\n", &[]);
        let api = ApiServer::builder(store, env)
            .with_defaults()
            .static_tokens(tokens.unwrap())
            .node_connector(Arc::new(node.clone()))
            .start()
            .await
            .unwrap();
        let own = api.service();
        let admin = api.service_as(UserInfo::new("admin", [SYSTEM_MASTERS]));
        let api = Arc::new(api);
        let cluster = Cluster {
            api,
            service: admin,
            node,
        };
        cluster.populate().await;
        // The token is `secret`, in base64 for URLs.
        for (token, code) in [("c2VjcmV0", 101), ("d3Jvbmc", 401)] {
            let request = Request::get(format!("{POD}/web/exec?container=c&command=ls&stdin=true"))
                .header("connection", "Upgrade")
                .header("upgrade", "websocket")
                .header(
                    "sec-websocket-protocol",
                    format!("base64url.bearer.authorization.k8s.io.{token}, v5.channel.k8s.io"),
                )
                .body(Full::<Bytes>::default())
                .unwrap();
            let Ok(response) = own.clone().call(request).await;
            assert_eq!(response.status(), code);
            if code == 101 {
                talk(response).await;
                let headers = cluster.node.headers.lock();
                assert_eq!(headers["sec-websocket-protocol"], "v5.channel.k8s.io");
            }
        }
        cluster.api.shutdown().await;
    });
}

/// Pods behind one real socket, whatever their addresses.
struct Socket(SocketAddr);

#[async_trait]
impl NodeConnector for Socket {
    async fn kubelet(&self, _: &KubeletEndpoint) -> Result<Connection, ConnectError> {
        Err(ConnectError::new("there is none"))
    }

    async fn dial(&self, _: SocketAddr) -> Result<Connection, ConnectError> {
        let stream = tokio::net::TcpStream::connect(self.0).await;
        let stream = stream.map_err(|error| ConnectError::new(error.to_string()))?;
        Ok(into_connection(stream))
    }
}

#[tokio::test]
async fn pods_may_speak_tls() {
    use orlop_wire::listener::{Listener, ServerTls};
    use orlop_wire::pki::CertificateAuthority;

    let env = Env::tokio();
    let day = std::time::Duration::from_secs(86_400);
    let authority = CertificateAuthority::create("pods", env.wall(), day).unwrap();
    let certificate = authority.issue_server("web", ["web".into()], env.wall(), day);
    let tls = ServerTls::new(&certificate.unwrap(), None, &env).unwrap();
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let node = Node::new(&env);
    let stop = CancelToken::new();
    let (pod, listener_env, stopped) = (node.clone(), env.clone(), stop.clone());
    env.spawn("pod", async move {
        let listener = Listener::tls(tls);
        let _ = listener.serve(socket, pod, &listener_env, &stopped).await;
    });
    let store = Arc::new(MemoryStore::new(env.clone()));
    let api = ApiServer::builder(store, env.clone())
        .with_defaults()
        .node_connector(Arc::new(Socket(address)))
        .start()
        .await
        .unwrap();
    let service = api.service_as(UserInfo::new("admin", [SYSTEM_MASTERS, ALL_AUTHENTICATED]));
    let api = Arc::new(api);
    let cluster = Cluster { api, service, node };
    cluster.populate().await;
    let (code, text) = cluster
        .get(&format!("{POD}/https:web:8443/proxy/hello"))
        .await;
    assert_eq!((code, text.as_str()), (200, "/hello"));
    // What the other end says to who speaks none is passed on.
    let (code, text) = cluster
        .get(&format!("{POD}/http:web:8443/proxy/hello"))
        .await;
    assert_eq!(code, 400);
    assert_eq!(text, "Client sent an HTTP request to an HTTPS server.\n");
    cluster.api.shutdown().await;
    stop.cancel();
}
