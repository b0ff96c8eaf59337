//! The manager and its plug-ins together, on a plain directory. What needs mounts is in [`mounted`].

mod claims;
mod contents;
mod groups;
mod mounted;
mod mounts;
mod plugins;
mod removal;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use orlop_core::client::{Answer, Client, Operation, Patch, Request};
use orlop_core::env::{CancelToken, Env, SimEnv};
use orlop_core::object::Object;
use orlop_core::resource::Resource;
use orlop_core::runtime::{EnvVar, Mount, MountPropagation, MountSource};
use orlop_core::status::Status;
use orlop_core::testing::FakeApi;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::objects::{ObjectCache, ObjectKind};
use crate::parts::{PartError, PodVolumes, Volumes};
use crate::tokens::TokenManager;

const CLAIMS: Resource =
    Resource::namespaced("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim");
const PERSISTENT: Resource = Resource::cluster("", "v1", "persistentvolumes", "PersistentVolume");

/// An API that gives tokens, too.
struct WithTokens(FakeApi, Env);

#[async_trait]
impl Client for WithTokens {
    async fn call(&self, request: Request) -> Result<Answer, Status> {
        if request.target.subresource.as_deref() != Some("token") {
            return self.0.call(request).await;
        }
        let Operation::Create(mut body, _) = request.operation else {
            return Err(Status::method_not_allowed());
        };
        let expires = self.1.wall() + jiff::SignedDuration::from_hours(1);
        let name = request.target.name.unwrap_or_default();
        body["status"] = json!({"token": format!("token of {name}"), "expirationTimestamp": expires.to_string()});
        body["metadata"] = json!({"name": name});
        Ok(Answer::Object(Object::from_value(body).unwrap()))
    }
}

/// A directory of a test. What is still mounted there at the end, of a test that failed, is ended before anything is removed.
struct Root(TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let mounter = HostMounter::default();
        let dir = std::fs::canonicalize(self.path()).unwrap();
        for mount in mounter.at_or_below(&dir).unwrap() {
            mounter.unmount(&mount).unwrap();
        }
    }
}

struct Room {
    env: Env,
    api: FakeApi,
    root: Root,
    manager: VolumeManager,
    woken: Arc<Mutex<Vec<String>>>,
}

fn run<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Room) -> F) {
    run_with(NoMounter, test);
}

fn run_with<F: Future<Output = ()> + Send + 'static>(
    mounter: impl Mounter,
    test: impl FnOnce(Room) -> F,
) {
    let sim = SimEnv::new(11);
    let env = sim.env();
    let api = FakeApi::new(env.clone());
    let client: Arc<dyn Client> = Arc::new(WithTokens(api.clone(), env.clone()));
    let objects = ObjectCache::new(client.clone(), env.clone(), &CancelToken::new());
    let woken = Arc::new(Mutex::new(Vec::new()));
    let log = woken.clone();
    objects.on_change(Arc::new(move |uid| log.lock().push(uid.to_owned())));
    let contents = Contents {
        objects,
        tokens: TokenManager::new(client.clone(), env.clone()),
        allocatable: Arc::new(|| {
            let of = [("cpu", "4"), ("memory", "1Gi")];
            of.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
                .into()
        }),
    };
    let root = Root::new();
    let manager = VolumeManager::new(root.path(), env.clone())
        .mounter(mounter)
        .with_defaults(client, contents);
    sim.block_on(test(Room {
        env,
        api,
        root,
        manager,
        woken,
    }));
}

/// A pod `p` that mounts all its volumes at `/<name>`.
fn pod(volumes: Value, more: Value) -> Arc<Pod> {
    let mounts: Vec<Value> = volumes
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| json!({"name": volume["name"], "mountPath": format!("/{}", volume["name"].as_str().unwrap())}))
        .collect();
    let mut spec = json!({
        "serviceAccountName": "robot",
        "containers": [{"name": "c", "volumeMounts": mounts, "resources": {"limits": {"cpu": "1500m"}}}],
        "volumes": volumes,
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let meta = json!({"name": "p", "namespace": "ns", "uid": "u", "labels": {"b": "2", "a": "1"}});
    Arc::new(serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap())
}

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names in a directory that are not the writer's own.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with(".."))
        .collect();
    names.sort();
    names
}

impl Room {
    async fn put(&self, resource: &Resource, body: Value) -> Object {
        let client = self.api.client();
        let objects = client.resource(resource).namespace("ns");
        let name = body["metadata"]["name"].as_str().unwrap().to_owned();
        if objects.find(&name).await.unwrap().is_some() {
            return objects.patch(&name, Patch::Merge(body)).await.unwrap();
        }
        objects.create(&body).await.unwrap()
    }

    async fn config_map(&self, name: &str, data: Value) {
        let body = json!({"metadata": {"name": name}, "data": data});
        self.put(&ObjectKind::ConfigMap.resource(), body).await;
    }

    async fn secret(&self, name: &str, key: &str, value: &str) {
        let body = json!({"metadata": {"name": name}, "data": {key: base64(value)}});
        self.put(&ObjectKind::Secret.resource(), body).await;
    }

    async fn fails(&self, volume: Value) -> PartError {
        let pod = pod(json!([volume]), json!({}));
        self.manager.set_up(&pod).await.unwrap_err()
    }

    fn dir(&self, kind: &str, name: &str) -> PathBuf {
        let pod = self.root.path().join("pods/u/volumes");
        pod.join(format!("kubernetes.io~{kind}")).join(name)
    }
}

impl Room {
    /// The mounts of a container that has these `volumeMounts`, on volumes `v` (an emptyDir) and `ro` (a ConfigMap).
    async fn mounts(&self, mounts: Value) -> Result<Vec<Mount>, PartError> {
        self.config_map("m", json!({"key": "1"})).await;
        let volumes =
            json!([{"name": "v", "emptyDir": {}}, {"name": "ro", "configMap": {"name": "m"}}]);
        let pod = pod(volumes, json!({}));
        let ready: PodVolumes = self.manager.set_up(&pod).await?;
        let container =
            serde_json::from_value(json!({"name": "c", "volumeMounts": mounts})).unwrap();
        let env = [EnvVar {
            name: "WHO".to_owned(),
            value: "me".into(),
        }];
        self.manager.mounts(&pod, &container, &ready, &env).await
    }
}
