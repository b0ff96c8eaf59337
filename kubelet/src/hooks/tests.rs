use orlop_core::env::{SimEnv, TaskGroup};
use orlop_core::events::EventBroadcaster;
use orlop_core::resource::Resource;
use orlop_core::runtime::{ContainerConfig, ImageSpec, PullRequest, SandboxConfig};
use orlop_core::testing::{FakeApi, SimulatedRuntime};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const EVENTS: Resource = Resource::namespaced("", "v1", "events", "Event");

fn pod() -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "default", "uid": "u1"}}))
        .unwrap()
}

async fn run(runner: &HookRunner, id: &ContainerId, handler: Value) -> Result<(), String> {
    let container = Container {
        name: "c".into(),
        ..Container::default()
    };
    let handler = serde_json::from_value(handler).unwrap();
    let ip = "127.0.0.1".parse().ok();
    runner.run(&pod(), &container, id, ip, &handler).await
}

#[test]
fn commands_run_and_sleeps_last() {
    let sim = SimEnv::new(1);
    let env = sim.env();
    sim.block_on(async move {
        let runtime = SimulatedRuntime::new(env.clone());
        runtime
            .pull_image(&PullRequest::new("web:1"))
            .await
            .unwrap();
        let sandbox = SandboxConfig::new("default", "p", "u1");
        let sandbox = runtime.run_sandbox(&sandbox).await.unwrap();
        let config = ContainerConfig::new("c", ImageSpec::new("web:1"));
        let id = runtime.create_container(&sandbox, &config).await.unwrap();
        runtime.start_container(&id).await.unwrap();
        let runner = HookRunner::new(env.clone(), Arc::new(runtime), EventRecorder::silent());
        let exec = |command: &[&str]| json!({"exec": {"command": command}});
        assert_eq!(run(&runner, &id, exec(&["true"])).await, Ok(()));
        assert_eq!(
            run(&runner, &id, exec(&["false", "x"])).await.unwrap_err(),
            "Exec lifecycle hook ([false x]) for Container \"c\" in Pod \"p_default(u1)\" failed - \
             error: command 'false x' exited with 1: , message: \"\""
        );
        let before = env.now();
        assert_eq!(
            run(&runner, &id, json!({"sleep": {"seconds": 7}})).await,
            Ok(())
        );
        assert_eq!(env.now().since(before), Duration::from_secs(7));
        let old = run(&runner, &id, json!({"tcpSocket": {"port": 1}})).await;
        assert!(old.unwrap_err().starts_with("Cannot run handler: "));
    });
}

#[tokio::test]
async fn requests_are_sent_and_fall_back_to_plain_http() {
    let env = Env::tokio();
    let tasks = TaskGroup::new(env.clone());
    let api = FakeApi::new(env.clone());
    let events = EventBroadcaster::start(&tasks, api.client()).recorder("kubelet");
    let runner = HookRunner::new(
        env.clone(),
        Arc::new(SimulatedRuntime::new(env.clone())),
        events,
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heard, mut requests) = tokio::sync::mpsc::channel::<String>(8);
    tasks.spawn_until_cancelled("server", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 4096];
            let length = stream.read(&mut buffer).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.starts_with("GET") {
                heard.send(text).await.unwrap();
            }
            // Both to a request and to a handshake, as servers without TLS do.
            let _ = stream
                .write_all(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
                .await;
        }
    });
    let id = ContainerId::new("c1");
    let headers = json!([{"name": "Authorization", "value": "secret"}]);
    let action = |scheme: &str| json!({"httpGet": {"path": "/stop", "port": port, "scheme": scheme, "httpHeaders": headers}});
    assert_eq!(
        run(&runner, &id, action("HTTP")).await,
        Ok(()),
        "any answer will do"
    );
    let request = requests.recv().await.unwrap();
    assert!(
        request.starts_with("GET /stop HTTP/1.1\r\n")
            && request.contains("User-Agent: kube-lifecycle/1.36\r\n")
            && request.contains("Authorization: secret\r\n"),
        "{request}"
    );
    assert_eq!(run(&runner, &id, action("HTTPS")).await, Ok(()));
    assert!(!requests.recv().await.unwrap().contains("secret"));
    while api.objects(&EVENTS).is_empty() {
        env.sleep(Duration::from_millis(5)).await;
    }
    let event = api.objects(&EVENTS)[0].value().unwrap();
    assert_eq!(event["reason"], "LifecycleHTTPFallback");
    assert_eq!(
        event["message"],
        format!(
            "request to HTTPS lifecycle hook 127.0.0.1:{port} got HTTP response, retry with HTTP succeeded"
        )
    );
    tasks.shutdown().await;
    let refused = run(&runner, &id, action("HTTP")).await.unwrap_err();
    assert_eq!(
        refused,
        format!(
            "HTTP lifecycle hook (/stop) for Container \"c\" in Pod \"p_default(u1)\" failed - error: Get \
             \"http://127.0.0.1:{port}/stop\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        )
    );
}
