use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{SinkExt, StreamExt, join};
use http::{Method, StatusCode, Uri};
use http_body_util::BodyExt;
use orlop_core::client::{Answer, Client, Operation, Request as ApiRequest};
use orlop_core::env::SimEnv;
use orlop_core::object::Object;
use orlop_core::runtime::{
    ContainerConfig, ContainerFilter, ImageSpec, PullRequest, SandboxConfig,
};
use orlop_core::status::Status;
use orlop_core::testing::SimulatedRuntime;
use orlop_wire::stream::io::from_connection;
use orlop_wire::stream::mux::Options;
use orlop_wire::stream::mux::Role;
use orlop_wire::stream::port_forward::{PROTOCOL, PortForwarder, TUNNEL_PROTOCOL};
use orlop_wire::stream::remote_command::{self, Protocol, Streams};
use orlop_wire::stream::websocket::WebSocketIo;
use orlop_wire::upgrade::{self, Outcome};
use serde_json::{Value, json};

use super::container_logs::container_with_log;
use super::*;
use crate::labels;

/// An API that reviews: the token `good` is Alice's, who may get metrics and pods; nobody else may anything.
struct Reviews {
    asked: AtomicUsize,
}

#[async_trait]
impl Client for Reviews {
    async fn call(&self, request: ApiRequest) -> Result<Answer, Status> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let Operation::Create(mut review, _) = request.operation else {
            return Err(Status::method_not_allowed());
        };
        let spec = review["spec"].clone();
        review["status"] = match &*request.target.resource.plural {
            "tokenreviews" if spec["token"] == "broken" => {
                return Err(Status::unavailable("no API"));
            }
            "tokenreviews" if spec["token"] == "good" => json!({
                "authenticated": true,
                "user": {"username": "alice", "groups": ["team", "system:authenticated"]},
            }),
            "tokenreviews" => json!({"error": "not known"}),
            _ => {
                let what = &spec["resourceAttributes"];
                assert_eq!(what["name"], "node-1");
                let sub = what["subresource"].as_str().unwrap();
                let may = spec["user"] == "alice"
                    && spec["groups"][0] == "team"
                    && what["verb"] == "get"
                    && ["metrics", "pods"].contains(&sub);
                json!({"allowed": may})
            }
        };
        Ok(Answer::Object(Object::from_value(review).unwrap()))
    }
}

/// The pods of a test.
struct Pods {
    pods: Vec<Arc<Pod>>,
    stuck: std::sync::atomic::AtomicBool,
}

impl PodDirectory for Pods {
    fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.clone()
    }

    fn sync_loop(&self) -> Result<(), String> {
        if self.stuck.load(Ordering::Relaxed) {
            Err("no progress for 3m0s".to_owned())
        } else {
            Ok(())
        }
    }
}

struct World {
    server: KubeletServer,
    env: Env,
    api: Arc<Reviews>,
    pods: Arc<Pods>,
    log: std::path::PathBuf,
}

/// A node with one pod, in which `web` runs and `done` does not.
async fn world(env: &Env, dir: &Path) -> World {
    let simulated = SimulatedRuntime::new(env.clone());
    simulated.echo_at(7);
    let runtime: Arc<dyn Runtime> = Arc::new(simulated);
    runtime
        .pull_image(&PullRequest::new("example/web:1"))
        .await
        .unwrap();
    let labelled = |container: Option<&str>| {
        let mut all = vec![
            (labels::POD_UID, "uid-0"),
            (labels::POD_NAME, "web"),
            (labels::POD_NAMESPACE, "default"),
        ];
        all.extend(container.map(|name| (labels::CONTAINER_NAME, name)));
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        all.into_iter().map(own).collect()
    };
    let mut sandbox = SandboxConfig::new("default", "web", "uid-0");
    sandbox.labels = labelled(None);
    sandbox.log_directory = Some(dir.to_owned());
    let sandbox = runtime.run_sandbox(&sandbox).await.unwrap();
    let mut config = ContainerConfig::new("web", ImageSpec::new("example/web:1"));
    config.labels = labelled(Some("web"));
    config.log_path = Some("0.log".into());
    config.command = vec!["cat".to_owned()];
    config.stdin = true;
    let id = runtime.create_container(&sandbox, &config).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    let log = runtime.container(&id).await.unwrap().log_path.unwrap();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "uid-0"},
        "spec": {"containers": [{"name": "web"}, {"name": "done"}]},
        "status": {"containerStatuses": [
            {"name": "web", "ready": true, "restartCount": 0, "image": "", "imageID": "",
             "containerID": format!("sim://{id}"), "state": {"running": {}}},
            {"name": "done", "ready": false, "restartCount": 0, "image": "", "imageID": "",
             "state": {"waiting": {"reason": "ContainerCreating"}}},
        ]},
    }))
    .unwrap();
    let pods = Arc::new(Pods {
        pods: vec![Arc::new(pod)],
        stuck: Default::default(),
    });
    let api = Arc::new(Reviews {
        asked: AtomicUsize::new(0),
    });
    let mut config = KubeletConfig::new("node-1");
    config.root_dir = dir.to_owned();
    let config = Arc::new(config);
    let server = KubeletServer::new(ServerParts {
        stats: Arc::new(StatsProvider::new(
            config.clone(),
            runtime.clone(),
            None,
            env.clone(),
        )),
        config,
        pods: pods.clone(),
        runtime,
        metrics: Arc::new(Registry::default()),
        probe_metrics: Arc::new(Registry::default()),
        access: Access::new(api.clone(), env.clone()),
        env: env.clone(),
    });
    World {
        server,
        env: env.clone(),
        api,
        pods,
        log,
    }
}

fn run<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(World) -> F + Send + 'static) {
    let sim = SimEnv::new(3);
    let env = sim.env();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    sim.block_on(async move {
        let world = world(&env, &path).await;
        test(world).await;
    });
}

impl World {
    async fn ask(&self, server: &KubeletServer, request: Request<Body>) -> (u16, String) {
        let response = server.clone().call(request).await.unwrap();
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8_lossy(&body).into_owned())
    }

    /// As the API server.
    async fn get(&self, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        self.ask(&self.server.for_api_server(), request).await
    }

    async fn post(&self, path: &str) -> (u16, String) {
        let request = Request::post(path).body(Body::empty()).unwrap();
        self.ask(&self.server.for_api_server(), request).await
    }

    async fn with_token(&self, path: &str, token: &str) -> (u16, String) {
        let request = Request::get(path).header("Authorization", format!("Bearer {token}"));
        let request = request.body(Body::empty()).unwrap();
        self.ask(&self.server, request).await
    }

    /// Upgrades a connection in memory.
    async fn upgrade(&self, request: Request<Body>) -> Outcome {
        let io = from_connection(self.server.connect());
        upgrade::connect(io, request).await.unwrap()
    }
}

#[test]
fn who_is_not_known_or_may_not_is_refused() {
    run(|world| async move {
        let (code, body) = world.ask(&world.server, Request::new(Body::empty())).await;
        assert_eq!((code, &*body), (401, "Unauthorized"));
        assert_eq!(world.with_token("/pods", "bad").await.0, 401);
        assert_eq!(world.with_token("/pods", "broken").await.0, 401);
        assert_eq!(world.with_token("/metrics", "good").await.0, 200);
        // The finer subresource is enough.
        assert_eq!(world.with_token("/pods", "good").await.0, 200);
        let (code, body) = world.with_token("/healthz", "good").await;
        assert_eq!(code, 403);
        assert_eq!(
            body,
            "Forbidden (user=alice, verb=get, resource=nodes, subresource(s)=[healthz proxy])\n"
        );
        let (code, body) = world
            .with_token("/exec/default/web/web?output=1", "good")
            .await;
        assert_eq!(code, 403);
        assert!(body.contains("subresource(s)=[proxy]"), "{body}");
    });
}

#[test]
fn answers_of_the_api_are_kept_for_a_while() {
    run(|world| async move {
        let asked = || world.api.asked.load(Ordering::Relaxed);
        let (metrics, healthz) = ("/metrics", "/healthz");
        world.with_token(metrics, "good").await;
        assert_eq!(asked(), 2, "who it is, and whether they may");
        world.with_token(metrics, "good").await;
        assert_eq!(asked(), 2);
        world.with_token(healthz, "good").await;
        assert_eq!(asked(), 4, "two subresources");
        world.env.sleep(Duration::from_secs(31)).await;
        world.with_token(metrics, "good").await;
        assert_eq!(asked(), 4);
        world.with_token(healthz, "good").await;
        assert_eq!(asked(), 6, "a no is forgotten sooner");
        world.env.sleep(Duration::from_secs(100)).await;
        world.with_token(metrics, "good").await;
        assert_eq!(asked(), 7, "then the token");
        world.env.sleep(Duration::from_secs(200)).await;
        world.with_token(metrics, "good").await;
        assert_eq!(asked(), 9, "then the yes");
        world.with_token(metrics, "broken").await;
        world.with_token(metrics, "broken").await;
        assert_eq!(asked(), 11, "no answer is not kept");
    });
}

#[test]
fn a_certificate_says_who_asks() {
    run(|world| async move {
        let env = &world.env;
        let pki = orlop_wire::pki::ClusterPki::create(
            &orlop_wire::pki::ClusterPkiOptions::new(),
            env.wall(),
        )
        .unwrap();
        let mut peer = PeerInfo::default();
        peer.client_certificate = Some(pki.admin.chain().unwrap().into());
        let mut request = Request::get("/healthz").body(Body::empty()).unwrap();
        request.extensions_mut().insert(peer);
        let (code, body) = world.ask(&world.server, request).await;
        assert_eq!(code, 403);
        assert!(
            body.starts_with("Forbidden (user=kubernetes-admin,"),
            "{body}"
        );
    });
}

#[test]
fn the_endpoints_answer() {
    run(|world| async move {
        assert_eq!(world.get("/healthz").await, (200, "ok".to_owned()));
        assert_eq!(world.get("/healthz/syncloop").await.0, 200);
        world.pods.stuck.store(true, Ordering::Relaxed);
        assert_eq!(world.get("/healthz/ping").await.0, 200);
        let (code, body) = world.get("/healthz").await;
        assert_eq!(code, 500);
        assert!(body.contains("[-]syncloop failed"), "{body}");
        let (code, body) = world.get("/healthz/syncloop").await;
        assert_eq!(
            (code, &*body),
            (500, "internal server error: no progress for 3m0s\n")
        );
        let parsed = |body: &str| serde_json::from_str::<Value>(body).unwrap();
        let pods = parsed(&world.get("/pods").await.1);
        assert_eq!(pods["kind"], "PodList");
        assert_eq!(pods["items"][0]["metadata"]["name"], "web");
        let running = parsed(&world.get("/runningpods/").await.1);
        assert_eq!(running["items"][0]["spec"]["containers"][0]["name"], "web");
        let configz = parsed(&world.get("/configz").await.1);
        assert_eq!(configz["kubeletconfig"]["maxPods"], 110);
        let summary = parsed(&world.get("/stats/summary").await.1);
        assert_eq!(summary["pods"][0]["podRef"]["name"], "web");
        for path in [
            "/metrics",
            "/metrics/probes",
            "/metrics/resource",
            "/metrics/cadvisor",
        ] {
            assert_eq!(world.get(path).await.0, 200, "{path}");
        }
        let (code, body) = world.get("/logs/").await;
        assert_eq!((code, &*body), (405, "logs endpoint is disabled.\n"));
        let (code, body) = world.post("/checkpoint/default/web/web").await;
        assert_eq!(code, 500);
        assert!(
            body.starts_with("checkpointing of default/web/web failed ("),
            "{body}"
        );
        let (code, body) = world.post("/run/default/web/web?cmd=echo+hello").await;
        assert_eq!((code, &*body), (200, "hello\n"));
    });
}

#[test]
fn logs_are_served() {
    run(|world| async move {
        let record = |n: u8| format!("2026-01-01T00:00:0{n}Z stdout F line {n}\n");
        std::fs::create_dir_all(world.log.parent().unwrap()).unwrap();
        std::fs::write(&world.log, (0..5).map(record).collect::<String>()).unwrap();
        let logs = "/containerLogs/default/web/web";
        let (code, body) = world.get(logs).await;
        assert_eq!((code, body.lines().count()), (200, 5));
        let (_, body) = world
            .get(&format!("{logs}?tailLines=1&timestamps=true"))
            .await;
        assert_eq!(body, "2026-01-01T00:00:04.000000000Z line 4\n");
        let (_, body) = world
            .get(&format!("{logs}?sinceTime=2026-01-01T00%3A00%3A03Z"))
            .await;
        assert_eq!(body, "line 3\nline 4\n");
        let (_, body) = world
            .get(&format!("{logs}?limitBytes=8&stream=Stdout"))
            .await;
        assert_eq!(body, "line 0\nl");
        for (path, code, text) in [
            (
                "/containerLogs/default/gone/web",
                404,
                "pod \"gone\" does not exist",
            ),
            (
                "/containerLogs/default/web/gone",
                404,
                "container \"gone\" not found in pod \"web\"",
            ),
            (
                "/containerLogs/default/web/done",
                400,
                "container \"done\" in pod \"web\" is waiting to start: ContainerCreating",
            ),
            (
                "/containerLogs/default/web/web?previous=true",
                400,
                "previous terminated container \"web\" in pod \"web\" not found",
            ),
            (
                "/containerLogs/default/web/web?tailLines=x",
                400,
                "{\"message\": \"Unable to decode query.\"}",
            ),
            (
                "/containerLogs/default/web/web?tailLines=-1",
                422,
                "{\"message\": \"Invalid request.\"}",
            ),
        ] {
            assert_eq!(world.get(path).await, (code, text.to_owned()), "{path}");
        }
        std::fs::remove_file(&world.log).unwrap();
        let (code, body) = world.get(logs).await;
        assert_eq!(code, 400);
        assert!(body.starts_with("failed to open log file"), "{body}");
    });
}

#[test]
fn the_right_container_has_the_log() {
    let ended = |id: &str| json!({"terminated": {"exitCode": 0, "containerID": id}});
    let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
    let none = json!({});
    for (state, last, previous, expected) in [
        (json!({"running": {}}), none.clone(), false, Ok("now")),
        (json!({"running": {}}), ended("x://old"), true, Ok("old")),
        (ended("x://over"), ended("x://old"), false, Ok("over")),
        (ended(""), ended("x://old"), false, Ok("old")),
        (
            ended(""),
            none.clone(),
            false,
            Err("container \"c\" in pod \"p\" is terminated"),
        ),
        (
            waiting("CrashLoopBackOff"),
            ended("x://old"),
            false,
            Ok("old"),
        ),
        (
            waiting("ErrImagePull"),
            none.clone(),
            false,
            Err("container \"c\" in pod \"p\" is waiting to start: image can't be pulled"),
        ),
        (
            waiting("ImagePullBackOff"),
            none.clone(),
            false,
            Err(
                "container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image",
            ),
        ),
        (
            none.clone(),
            none.clone(),
            false,
            Err("container \"c\" in pod \"p\" is waiting to start - no logs yet"),
        ),
        (
            json!({"running": {}}),
            ended(""),
            true,
            Err("previous terminated container \"c\" in pod \"p\" not found"),
        ),
    ] {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "status": {"initContainerStatuses": [
                {"name": "c", "ready": true, "restartCount": 0, "image": "", "imageID": "",
                 "containerID": "x://now", "state": state, "lastState": last},
            ]},
        }))
        .unwrap();
        let found = container_with_log(&pod, "c", previous);
        let found = found
            .as_ref()
            .map(|id| id.as_str())
            .map_err(|error| &**error);
        assert_eq!(found, expected);
        assert_eq!(
            container_with_log(&pod, "d", false).unwrap_err(),
            "container \"d\" in pod \"p\" is not available"
        );
    }
}

const ALL: Streams = Streams {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
};

#[test]
fn commands_run_in_containers_over_every_protocol() {
    run(|world| async move {
        let env = &world.env;
        let uri = Uri::from_static("/exec/default/web/web?command=cat&input=1&output=1&error=1");
        let v5 = "v5.channel.k8s.io";
        let v4 = "v4.channel.k8s.io";
        for (request, protocol) in [
            (
                upgrade::websocket_request(&uri, &[v5, v4], env).unwrap(),
                Protocol::websocket(v5),
            ),
            (
                upgrade::spdy_request(Method::POST, &uri, &[v4]).unwrap(),
                Protocol::spdy(v4),
            ),
        ] {
            let Outcome::Switched { io, .. } = world.upgrade(request).await else {
                panic!("{protocol:?}");
            };
            let process = remote_command::client(io, protocol, ALL, Options::default(), env)
                .await
                .unwrap();
            let (mut stdin, mut stdout) = (process.stdin.unwrap(), process.stdout.unwrap());
            let write = async {
                for _ in 0..100 {
                    stdin.send(Bytes::from(vec![5; 10_000])).await.unwrap();
                }
                stdin.close().await.unwrap();
            };
            let read = async {
                let mut count = 0;
                while let Some(bytes) = stdout.next().await {
                    count += bytes.unwrap().len();
                }
                count
            };
            let ((), count, code) = join!(write, read, process.exit);
            assert_eq!((count, code.unwrap()), (1_000_000, 0), "{protocol:?}");
        }
        // An exit code.
        let uri = Uri::from_static("/exec/default/web/uid-0/web?command=false&output=1");
        let request = upgrade::websocket_request(&uri, &[v5], env).unwrap();
        let Outcome::Switched { io, .. } = world.upgrade(request).await else {
            panic!("refused");
        };
        let output = Streams {
            stdin: false,
            stderr: false,
            ..ALL
        };
        let protocol = Protocol::websocket(v5);
        let process = remote_command::client(io, protocol, output, Options::default(), env)
            .await
            .unwrap();
        assert_eq!(process.exit.await.unwrap(), 1);
    });
}

#[test]
fn a_container_is_attached_to() {
    run(|world| async move {
        let env = &world.env;
        let uri = Uri::from_static("/attach/default/web/web?input=1&output=1&error=1");
        let v5 = "v5.channel.k8s.io";
        let request = upgrade::websocket_request(&uri, &[v5], env).unwrap();
        let Outcome::Switched { io, .. } = world.upgrade(request).await else {
            panic!("refused");
        };
        let protocol = Protocol::websocket(v5);
        let process = remote_command::client(io, protocol, ALL, Options::default(), env)
            .await
            .unwrap();
        let (mut stdin, mut stdout) = (process.stdin.unwrap(), process.stdout.unwrap());
        stdin.send(Bytes::from_static(b"hello")).await.unwrap();
        assert_eq!(stdout.next().await.unwrap().unwrap(), "hello");
        // How the container ended is not how the attachment did.
        let runtime = &world.server.parts.runtime;
        let all = runtime.containers(&ContainerFilter::default()).await;
        let id = all.unwrap().pop().unwrap().id;
        runtime.stop_container(&id, Duration::ZERO).await.unwrap();
        let ended = runtime.container(&id).await.unwrap().exit.unwrap();
        assert_ne!(ended.code, 0);
        assert_eq!(process.exit.await.unwrap(), 0);
    });
}

#[test]
fn what_cannot_be_run_is_said() {
    run(|world| async move {
        for (path, code, text) in [
            (
                "/exec/default/web/web?command=x",
                400,
                "you must specify at least 1 of stdin, stdout, stderr",
            ),
            ("/exec/default/gone/web?output=1", 404, "pod does not exist"),
            (
                "/exec/default/web/done?output=1",
                500,
                "container not found (\"done\")\n",
            ),
            (
                "/attach/default/web/other-uid/web?output=1",
                500,
                "container not found (\"web\")\n",
            ),
            (
                "/exec/default/web/web?output=1&command=x",
                400,
                "unable to upgrade: missing upgrade headers in request\n",
            ),
            ("/portForward/default/gone", 404, "pod does not exist"),
            ("/portForward/default/web/other-uid", 404, "pod not found"),
        ] {
            assert_eq!(world.post(path).await, (code, text.to_owned()), "{path}");
        }
    });
}

#[test]
fn ports_are_forwarded_with_and_without_a_tunnel() {
    run(|world| async move {
        let env = &world.env;
        let uri = Uri::from_static("/portForward/default/web");
        let plain = upgrade::spdy_request(Method::POST, &uri, &[PROTOCOL]).unwrap();
        let tunnel = upgrade::websocket_request(&uri, &[TUNNEL_PROTOCOL], env).unwrap();
        for (request, tunnelled) in [(plain, false), (tunnel, true)] {
            let Outcome::Switched { io, response } = world.upgrade(request).await else {
                panic!("refused");
            };
            assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
            let forwarder = if tunnelled {
                let io = WebSocketIo::new(io, Role::Client).await;
                PortForwarder::new(io, Options::default(), env)
            } else {
                PortForwarder::new(io, Options::default(), env)
            };
            let mut connection = forwarder.connect(7).await.unwrap();
            connection
                .send
                .send(Bytes::from_static(b"hi"))
                .await
                .unwrap();
            assert_eq!(connection.receive.next().await.unwrap().unwrap(), "hi");
            let mut refused = forwarder.connect(8).await.unwrap();
            let error = refused.receive.next().await.unwrap().unwrap_err();
            assert_eq!(
                error.to_string(),
                "error forwarding port 8 to pod web, uid uid-0: connection to port 8 refused"
            );
        }
        // Shutting down ends what still goes on.
        world.server.shutdown().await;
    });
}
