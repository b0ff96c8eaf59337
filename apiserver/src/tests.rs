//! The whole server over a store in memory, on virtual time: requests go into the service as a listener would send them.

mod deletion;
mod http_rules;
mod lists;
mod nodes;
mod several_servers;
mod unreadable;
mod watches;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, BodyStream, Full};
use orlop_core::auth::{ALL_AUTHENTICATED, SYSTEM_MASTERS, UserInfo};
use orlop_core::env::{Env, SimEnv};
use orlop_core::resource::Resource;
use orlop_store::MemoryStore;
use orlop_wire::body::Body;
use serde_json::{Value, json};
use tower_service::Service as _;

use crate::ApiServer;
use crate::http::HttpService;

const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A server with the default parts, and clients of it.
#[derive(Clone)]
struct Cluster {
    env: Env,
    api: Arc<ApiServer>,
    service: HttpService,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    code: u16,
    headers: HeaderMap,
    bytes: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn message(&self) -> String {
        self.json()["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The document, when the answer is of this code.
    #[track_caller]
    fn expect(&self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text());
        self.json()
    }

    /// The message, when the answer is of this code.
    #[track_caller]
    fn refused(&self, code: u16) -> String {
        assert_eq!(self.code, code, "{}", self.text());
        self.message()
    }

    fn warnings(&self) -> Vec<&str> {
        let all = self.headers.get_all("warning").iter();
        all.filter_map(|value| value.to_str().ok()).collect()
    }
}

/// Runs a test against a fresh server, in virtual time.
fn with_cluster<F: Future<Output = ()> + Send + 'static>(
    seed: u64,
    test: impl FnOnce(Cluster) -> F + Send + 'static,
) {
    let sim = SimEnv::new(seed);
    let env = sim.env();
    sim.block_on(async move {
        let store = Arc::new(MemoryStore::new(env.clone()));
        let idle = Resource::namespaced("batch", "v1", "cronjobs", "CronJob");
        let api = ApiServer::builder(store, env.clone())
            .with_defaults()
            .not_acted_on([(idle, "cronjobs are stored, but nothing acts on them")])
            .start()
            .await
            .unwrap();
        let api = Arc::new(api);
        let admin = UserInfo::new("admin", [SYSTEM_MASTERS, ALL_AUTHENTICATED]);
        let service = api.service_as(admin);
        let cluster = Cluster { env, api, service };
        // Pods need the service account that a controller makes elsewhere.
        let account = json!({"metadata": {"name": "default"}});
        cluster
            .post("/api/v1/namespaces/default/serviceaccounts", &account)
            .await
            .expect(201);
        test(cluster.clone()).await;
        cluster.api.shutdown().await;
    });
}

impl Cluster {
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
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let response = self.send(request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            bytes,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], Bytes::new()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", JSON)];
        self.ask(Method::POST, path, &headers, body.to_string())
            .await
    }

    async fn put(&self, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", JSON)];
        self.ask(Method::PUT, path, &headers, body.to_string())
            .await
    }

    async fn patch(&self, path: &str, kind: &str, body: &Value) -> Answer {
        let headers = [("content-type", kind)];
        self.ask(Method::PATCH, path, &headers, body.to_string())
            .await
    }

    async fn delete(&self, path: &str, options: Option<Value>) -> Answer {
        let headers = [("content-type", JSON)];
        let body = options.map(|options| options.to_string());
        self.ask(Method::DELETE, path, &headers, body.unwrap_or_default())
            .await
    }

    /// Opens a watch.
    async fn watch(&self, path: &str) -> Watch {
        let request = Request::builder().uri(path).body(Full::default()).unwrap();
        let response = self.send(request).await;
        assert_eq!(response.status(), 200);
        Watch {
            env: self.env.clone(),
            frames: BodyStream::new(response.into_body()),
        }
    }
}

/// A watch under way.
struct Watch {
    env: Env,
    frames: BodyStream<Body>,
}

impl Watch {
    /// The next event, if one comes within a while of virtual time; `None` also at the end.
    async fn next_within(&mut self, limit: Duration) -> Option<Value> {
        let frame = self.env.timeout(limit, self.frames.next()).await.ok()??;
        let data = frame.unwrap().into_data().unwrap();
        Some(serde_json::from_slice(&data).unwrap())
    }

    async fn next(&mut self) -> Value {
        let event = self.next_within(Duration::from_secs(5)).await;
        event.expect("an event comes")
    }

    /// Type and name of the next event.
    async fn brief(&mut self) -> (String, String) {
        let event = self.next().await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (
            text(&event["type"]),
            text(&event["object"]["metadata"]["name"]),
        )
    }

    async fn is_silent(&mut self) -> bool {
        self.next_within(Duration::from_secs(1)).await.is_none()
    }
}

fn config_map(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"a": "1"}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}
