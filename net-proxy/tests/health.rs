//! What load balancers and kubelets are told, over real sockets of the loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use orlop_core::env::{CancelToken, Env};
use orlop_core::resource::Resource;
use orlop_core::testing::FakeApi;
use orlop_net_proxy::{Proxy, ProxyConfig, RecordingBackend};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SERVICES: Resource = Resource::namespaced("", "v1", "services", "Service");
const SLICES: Resource =
    Resource::namespaced("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice");
const EVENTS: Resource = Resource::namespaced("", "v1", "events", "Event");

fn free_port() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap().port()
}

/// The head and the body of an answer; nothing if nobody answers.
async fn get(port: u16, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}

async fn until(env: &Env, port: u16, path: &str, wanted: &str) -> (String, String) {
    let mut last = None;
    for _ in 0..200 {
        last = get(port, path).await;
        if let Some((head, body)) = &last
            && head.starts_with(wanted)
        {
            return (head.clone(), body.clone());
        }
        env.sleep(Duration::from_millis(25)).await;
    }
    panic!("never {wanted}: {last:?}");
}

#[tokio::test]
async fn load_balancers_and_kubelets_are_answered() {
    let env = Env::tokio();
    let api = FakeApi::new(env.clone());
    let (healthz, metrics, check, taken) = (free_port(), free_port(), free_port(), free_port());
    let occupied = TcpListener::bind((Ipv4Addr::LOCALHOST, taken)).unwrap();
    let mut config = ProxyConfig::new("here");
    config.node_ips = vec![Ipv4Addr::LOCALHOST.into()];
    config.healthz_address = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, healthz)));
    config.metrics_address = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, metrics)));
    config.manage_sysctls = false;
    config.min_sync_period = Duration::from_millis(10);
    let mut proxy = Proxy::builder(api.client(), env.clone())
        .config(config)
        .backend(RecordingBackend::new())
        .build()
        .unwrap();
    let stop = CancelToken::new();
    let token = stop.clone();
    #[allow(clippy::disallowed_methods)] // A test's own runtime.
    let done = tokio::spawn(async move { proxy.run(&token).await.unwrap() });

    let client = api.client();
    let services = client.resource(&SERVICES).namespace("ns");
    let balanced = |name: &str, port: u16| {
        json!({"metadata": {"name": name}, "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local",
            "healthCheckNodePort": port, "ports": [{"port": 80}]}})
    };
    services.create(&balanced("web", check)).await.unwrap();
    services.create(&balanced("late", taken)).await.unwrap();
    until(&env, check, "/", "HTTP/1.1 503").await;
    let slice = |endpoints: Value| {
        json!({"metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints})
    };
    let endpoints = json!([{"addresses": ["10.0.0.1"], "nodeName": "here"}, {"addresses": ["10.0.0.2"], "nodeName": "there"}]);
    let slices = client.resource(&SLICES).namespace("ns");
    slices.create(&slice(endpoints)).await.unwrap();
    let (head, body) = until(&env, check, "/", "HTTP/1.1 200").await;
    assert!(
        head.contains("x-load-balancing-endpoint-weight: 1"),
        "{head}"
    );
    assert!(head.contains("content-type: application/json"), "{head}");
    assert_eq!(
        body,
        "{\n\t\"service\": {\n\t\t\"namespace\": \"ns\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 1,\n\t\"serviceProxyHealthy\": true\n}"
    );

    let (_, body) = until(&env, healthz, "/healthz", "HTTP/1.1 200").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["nodeEligible"], true);
    until(&env, healthz, "/livez", "HTTP/1.1 200").await;
    until(&env, healthz, "/other", "HTTP/1.1 404").await;
    assert_eq!(
        until(&env, metrics, "/proxyMode", "HTTP/1.1 200").await.1,
        "recording"
    );
    let (_, body) = until(&env, metrics, "/metrics", "HTTP/1.1 200").await;
    assert!(body.contains("kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"}"));

    // The port that somebody else has is told of, and taken when it is free and something changes.
    let told = api.objects(&EVENTS);
    assert!(
        told.iter()
            .any(|event| { event.value().unwrap()["reason"] == "FailedToStartServiceHealthcheck" })
    );
    drop(occupied);
    services.delete("web", Default::default()).await.unwrap();
    until(&env, taken, "/", "HTTP/1.1 503").await;
    for _ in 0..100 {
        if get(check, "/").await.is_none() {
            break;
        }
        env.sleep(Duration::from_millis(25)).await;
    }
    assert!(get(check, "/").await.is_none());
    stop.cancel();
    done.await.unwrap();
    assert!(get(healthz, "/healthz").await.is_none());
}
