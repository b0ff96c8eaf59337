//! What a real engine cannot be made to do on demand, with one that does as it is told.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use futures::channel::mpsc;
use http::{HeaderMap, Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use orlop_core::runtime::{ContainerState, EventKind, EventSubject};
use parking_lot::Mutex;
use prost::Message;
use tokio::net::UnixListener;

use super::*;

/// What is answered to a call.
enum Answer {
    /// A message.
    Message(Vec<u8>),
    /// Messages, as they come; the headers come with the first.
    Stream(mpsc::Receiver<Vec<u8>>),
    /// An error.
    Refusal(tonic::Code, &'static str),
    /// The connection breaks.
    Break,
}

/// An engine at a socket.
struct Fake {
    runtime: CriRuntime,
    calls: Arc<Mutex<Vec<String>>>,
    _dir: tempfile::TempDir,
}

type Body = StreamBody<futures::stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

fn framed(message: &[u8]) -> Frame<Bytes> {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    Frame::data(frame.freeze())
}

fn done() -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    Frame::trailers(trailers)
}

async fn response(answer: Answer) -> Result<Response<Body>, std::io::Error> {
    let with = |body: futures::stream::BoxStream<'static, _>| {
        let response = Response::builder().header("content-type", "application/grpc");
        response.body(StreamBody::new(body)).unwrap()
    };
    Ok(match answer {
        Answer::Message(message) => {
            with(futures::stream::iter([Ok(framed(&message)), Ok(done())]).boxed())
        }
        Answer::Stream(mut messages) => {
            let first = messages.next().await;
            let all = futures::stream::iter(first).chain(messages);
            let all = all.map(|message| Ok(framed(&message)));
            with(all.chain(futures::stream::iter([Ok(done())])).boxed())
        }
        Answer::Refusal(code, why) => {
            let mut response = with(futures::stream::empty().boxed());
            let headers = response.headers_mut();
            headers.insert("grpc-status", (code as i32).into());
            headers.insert("grpc-message", why.replace(' ', "%20").parse().unwrap());
            response
        }
        Answer::Break => return Err(std::io::ErrorKind::ConnectionReset.into()),
    })
}

impl Fake {
    /// Answers by the name of the call, and by how often it was made before.
    fn start(answer: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (env, calls) = (Env::tokio(), Arc::new(Mutex::new(Vec::<String>::new())));
        let (answer, told, spawner) = (Arc::new(answer), calls.clone(), env.clone());
        env.spawn("fake engine", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, told) = (answer.clone(), told.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let call = request.uri().path().rsplit('/').next().unwrap().to_owned();
                    let before = told.lock().iter().filter(|made| **made == call).count();
                    told.lock().push(call.clone());
                    response(answer(&call, before))
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let connection = server.serve_connection(TokioIo::new(stream), service);
                spawner.spawn("fake connection", async move {
                    let _ = connection.await;
                });
            }
        });
        Self {
            runtime: CriRuntime::new(socket.to_str().unwrap(), env).unwrap(),
            calls,
            _dir: dir,
        }
    }

    fn made(&self, call: &str) -> usize {
        self.calls
            .lock()
            .iter()
            .filter(|made| *made == call)
            .count()
    }
}

fn listed(state: cri::ContainerState) -> Answer {
    let containers = ["a", "b", "c"].map(|id| cri::Container {
        id: id.to_owned(),
        pod_sandbox_id: "s".to_owned(),
        state: state.into(),
        ..cri::Container::default()
    });
    let list = cri::ListContainersResponse {
        containers: containers.into(),
    };
    Answer::Message(list.encode_to_vec())
}

fn running() -> Answer {
    let status = cri::ContainerStatusResponse {
        status: Some(cri::ContainerStatus {
            state: cri::ContainerState::Running.into(),
            started_at: 1,
            ..cri::ContainerStatus::default()
        }),
        ..cri::ContainerStatusResponse::default()
    };
    Answer::Message(status.encode_to_vec())
}

#[tokio::test]
async fn things_are_looked_up_once_a_state() {
    let fake = Fake::start(|call, _| match call {
        "ListContainers" => listed(cri::ContainerState::Running),
        "ContainerStatus" => running(),
        _ => Answer::Message(Vec::new()),
    });
    for _ in 0..5 {
        let all = fake
            .runtime
            .containers(&ContainerFilter::default())
            .await
            .unwrap();
        assert_eq!(all.len(), 3);
        assert!(
            all.iter()
                .all(|one| one.state == ContainerState::Running && one.started.is_some())
        );
    }
    assert_eq!(
        (fake.made("ListContainers"), fake.made("ContainerStatus")),
        (5, 3)
    );
    // New limits are seen by the next list.
    let a = ContainerId::new("a");
    fake.runtime
        .update_container(&a, &Resources::default())
        .await
        .unwrap();
    let before = fake.made("ContainerStatus");
    fake.runtime
        .containers(&ContainerFilter::default())
        .await
        .unwrap();
    assert_eq!(fake.made("ContainerStatus"), before + 1);
}

#[tokio::test]
async fn what_only_reads_is_asked_again_over_a_new_connection() {
    let fake = Fake::start(|call, before| match (call, before) {
        ("ListContainers" | "StartContainer", 0) => Answer::Break,
        ("ListContainers", _) => listed(cri::ContainerState::Running),
        ("ContainerStatus", _) => running(),
        _ => Answer::Message(Vec::new()),
    });
    let all = fake
        .runtime
        .containers(&ContainerFilter::default())
        .await
        .unwrap();
    assert_eq!((all.len(), fake.made("ListContainers")), (3, 2));
    // What changes something is not: whether it was done is not known.
    let start = fake.runtime.start_container(&ContainerId::new("a")).await;
    assert!(
        matches!(start, Err(RuntimeError::Unavailable(_))),
        "{start:?}"
    );
    assert_eq!(fake.made("StartContainer"), 1);
    fake.runtime
        .start_container(&ContainerId::new("a"))
        .await
        .unwrap();
}

#[tokio::test]
async fn events_are_followed_before_there_is_one() {
    let (mut tell, told) = mpsc::channel::<Vec<u8>>(4);
    let told = Mutex::new(Some(told));
    let fake = Fake::start(move |call, _| match call {
        "GetContainerEvents" => match told.lock().take() {
            Some(told) => Answer::Stream(told),
            None => Answer::Refusal(tonic::Code::Unimplemented, "unknown method"),
        },
        _ => Answer::Message(Vec::new()),
    });
    let mut events = fake.runtime.events().await.unwrap();
    let event = cri::ContainerEventResponse {
        container_id: "c".to_owned(),
        container_event_type: cri::ContainerEventType::Started.into(),
        created_at: 5,
        pod_sandbox_status: Some(cri::PodSandboxStatus {
            id: "s".to_owned(),
            ..cri::PodSandboxStatus::default()
        }),
        containers_statuses: Vec::new(),
    };
    tell.try_send(event.encode_to_vec()).unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!(event.kind, EventKind::Started);
    assert_eq!(
        event.subject,
        EventSubject::Container {
            sandbox: SandboxId::new("s"),
            container: ContainerId::new("c"),
        }
    );
    drop(tell);
    assert!(events.next().await.is_none());
    // An engine without events says so.
    assert_eq!(
        fake.runtime.events().await.err(),
        Some(RuntimeError::Unsupported("events"))
    );
}

#[tokio::test]
async fn nothing_is_left_of_a_sandbox_that_failed() {
    let metadata = |name: &str| cri::PodSandboxMetadata {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        uid: "1".to_owned(),
        attempt: 0,
    };
    let fake = Fake::start(move |call, before| match call {
        "RunPodSandbox" => Answer::Refusal(tonic::Code::Unknown, "no address is left"),
        "ListPodSandbox" => {
            let item = cri::PodSandbox {
                id: ["other", "web"][before].to_owned(),
                state: cri::PodSandboxState::NotReady.into(),
                ..cri::PodSandbox::default()
            };
            let list = cri::ListPodSandboxResponse { items: vec![item] };
            Answer::Message(list.encode_to_vec())
        }
        "PodSandboxStatus" => {
            let name = ["other", "web"][before];
            let status = cri::PodSandboxStatusResponse {
                status: Some(cri::PodSandboxStatus {
                    id: name.to_owned(),
                    metadata: Some(metadata(name)),
                    state: cri::PodSandboxState::NotReady.into(),
                    ..cri::PodSandboxStatus::default()
                }),
                ..cri::PodSandboxStatusResponse::default()
            };
            Answer::Message(status.encode_to_vec())
        }
        _ => Answer::Message(Vec::new()),
    });
    // What is another's is left alone.
    for swept in [0, 1] {
        let config = SandboxConfig::new("default", "web", "1");
        let made = fake.runtime.run_sandbox(&config).await;
        let why = "no address is left".to_owned();
        assert_eq!(made, Err(RuntimeError::Failed(why)));
        assert_eq!(fake.made("RemovePodSandbox"), swept);
    }
}

#[tokio::test]
async fn statistics_of_sandboxes_are_asked_for_once_where_there_are_none() {
    let fake = Fake::start(|call, _| match call {
        "ListPodSandboxStats" => Answer::Refusal(tonic::Code::Unimplemented, "unknown method"),
        _ => Answer::Message(Vec::new()),
    });
    for _ in 0..3 {
        let stats = fake.runtime.sandbox_stats(&SandboxFilter::default()).await;
        assert_eq!(stats, Ok(Vec::new()));
    }
    assert_eq!(fake.made("ListPodSandboxStats"), 1);
    assert_eq!(fake.made("ListContainerStats"), 3);
}

#[tokio::test]
async fn an_engine_of_another_version_is_told_apart() {
    let fake = Fake::start(|_, _| Answer::Refusal(tonic::Code::Unimplemented, "unknown service"));
    let socket = fake._dir.path().join("engine.sock");
    let endpoint = format!("unix://{}", socket.display());
    let refused = CriRuntime::connect(&endpoint, Env::tokio()).await;
    assert!(
        matches!(refused, Err(CriError::NotV1 { .. })),
        "{refused:?}"
    );
    // An answer that never comes is not waited for longer than is allowed.
    let (_tell, told) = mpsc::channel::<Vec<u8>>(1);
    let told = Mutex::new(Some(told));
    let silent = Fake::start(move |_, _| told.lock().take().map_or(Answer::Break, Answer::Stream));
    let version = cri::VersionRequest::default();
    let limit = Duration::from_millis(200);
    let late = silent
        .runtime
        .call_within(version, About::Engine, limit)
        .await;
    assert!(
        matches!(late, Err(RuntimeError::Unavailable(_))),
        "{late:?}"
    );
}
