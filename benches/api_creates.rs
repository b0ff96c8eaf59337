//! How many objects a second does the API create, end to end?
//!
//! Clients are users of their own, let in by a client certificate and by RBAC, each with an HTTP/2 connection over TLS; they and the API server
//! share the cores. The store is durable: an answer means "on disk". Default admission is on; nothing else runs.
//!
//! Beside it in the same run: the same creates in process (`local`), which is what HTTP and TLS cost, and on the store in memory
//! (`local, memory`), which is what the disk costs. Reads: GET of one object, LIST of 10,000 pods.
//!
//! `cargo bench --bench api_creates`

#![allow(clippy::disallowed_methods, reason = "a bench measures real time")]

#[path = "support/plane.rs"]
mod plane;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use http_body_util::BodyExt;
use orlop::core::client::{Client, ListOptions};
use orlop::core::resource::Resource;
use serde_json::Value;

use self::plane::{CONFIG_MAPS, PODS, Plane, config_map, pod};

/// How many clients there are.
const CLIENTS: usize = 64;
/// How many pods are listed.
const LISTED: u64 = 10_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    creates(&mut criterion);
    reads(&mut criterion);
    criterion.final_summary();
}

/// Names are unique over all runs.
static NAMES: AtomicU64 = AtomicU64::new(0);

/// Makes the body of an object by its name.
type MakeBody = fn(&str) -> Value;

fn creates(criterion: &mut Criterion) {
    let runtime = support::runtime();
    let mut group = support::group(criterion, "api_creates");
    let kinds: [(&str, Resource, MakeBody); 2] =
        [("configmaps", CONFIG_MAPS, config_map), ("pods", PODS, pod)];
    for (name, resource, body) in kinds {
        for (way, durable) in [("https", true), ("local", true), ("local, memory", false)] {
            let plane = runtime.block_on(Plane::start(durable));
            let clients: Vec<Arc<dyn Client>> = (0..CLIENTS)
                .map(|_| {
                    if way == "https" {
                        Arc::new(plane.remote())
                    } else {
                        plane.local()
                    }
                })
                .collect();
            let of = resource.clone();
            support::concurrently(
                &mut group,
                &runtime,
                &format!("{name}, {way}"),
                CLIENTS,
                move |client, _| {
                    let (client, resource) = (clients[client].clone(), of.clone());
                    async move {
                        let name = format!("bench-{}", NAMES.fetch_add(1, Ordering::Relaxed));
                        client
                            .resource(&resource)
                            .namespace("default")
                            .create(&body(&name))
                            .await
                            .expect("a create");
                    }
                },
            );
            runtime.block_on(plane.plane.shutdown());
        }
    }
}

fn reads(criterion: &mut Criterion) {
    let runtime = support::runtime();
    let mut group = support::group(criterion, "api_reads");
    let plane = runtime.block_on(async {
        let plane = Plane::start(true).await;
        plane.namespace("listed").await;
        let fill = (0..CLIENTS as u64).map(|part| {
            let client = plane.local();
            async move {
                for number in (part..LISTED).step_by(CLIENTS) {
                    let body = pod(&format!("pod-{number}"));
                    client
                        .resource(&PODS)
                        .namespace("listed")
                        .create(&body)
                        .await
                        .expect("a create");
                }
            }
        });
        futures::future::join_all(fill).await;
        plane
    });
    for way in ["https", "local"] {
        let clients: Vec<Arc<dyn Client>> = (0..CLIENTS)
            .map(|_| {
                if way == "https" {
                    Arc::new(plane.remote())
                } else {
                    plane.local()
                }
            })
            .collect();
        support::concurrently(
            &mut group,
            &runtime,
            &format!("get pod, {way}"),
            CLIENTS,
            move |client, number| {
                let client = clients[client].clone();
                async move {
                    let name = format!("pod-{}", number % LISTED);
                    client
                        .resource(&PODS)
                        .namespace("listed")
                        .get(&name)
                        .await
                        .expect("the pod");
                }
            },
        );
    }
    let remote = plane.remote();
    let bytes = runtime.block_on(list(&remote));
    println!("the list of {LISTED} pods has {:.1} MB", bytes as f64 / 1e6);
    group.throughput(Throughput::Elements(LISTED));
    group.bench_function("list of 10,000 pods, https, bytes", |bench| {
        bench.iter(|| runtime.block_on(list(&remote)));
    });
    for (way, client) in [
        (
            "https, read into objects",
            Arc::new(remote.clone()) as Arc<dyn Client>,
        ),
        ("local", plane.local()),
    ] {
        group.bench_function(format!("list of 10,000 pods, {way}"), |bench| {
            bench.iter(|| {
                let pods = client.resource(&PODS).namespace("listed");
                let list = runtime.block_on(pods.list(ListOptions::default()));
                assert_eq!(list.expect("a list").items.len() as u64, LISTED);
            });
        });
    }
    group.finish();
    runtime.block_on(plane.plane.shutdown());
}

/// Reads the list as it comes over the wire, as a client would that then does something else with it.
async fn list(client: &orlop::wire::remote::RemoteClient) -> usize {
    let request =
        http::Request::get("/api/v1/namespaces/listed/pods").header("accept", "application/json");
    let response = client
        .send(request.body(Bytes::new()).expect("a request"))
        .await
        .expect("an answer");
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.expect("the rest").data_ref().map_or(0, Bytes::len);
    }
    bytes
}
