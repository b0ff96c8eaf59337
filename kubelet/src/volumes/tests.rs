//! The manager and its plug-ins together, on a plain directory. What needs mounts is in [`mounted`].

mod mounted;

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

#[test]
fn every_kind_of_volume_is_made_and_removed() {
    run(|room| async move {
        room.config_map("m", json!({"a": "1", "b": "2"})).await;
        room.secret("s", "key", "hush").await;
        let host = tempfile::tempdir().unwrap();
        std::fs::write(host.path().join("precious"), "data").unwrap();
        let pod = pod(
            json!([
                {"name": "map", "configMap": {"name": "m", "defaultMode": 0o600}},
                {"name": "some", "configMap": {"name": "m", "items": [{"key": "b", "path": "x/y", "mode": 0o400}]}},
                {"name": "sec", "secret": {"secretName": "s"}},
                {"name": "down", "downwardAPI": {"items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "1m"}},
                    {"path": "mem", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory"}}]}},
                {"name": "all", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token"}},
                    {"configMap": {"name": "m", "items": [{"key": "a", "path": "ca.crt"}]}},
                    {"secret": {"name": "s"}},
                    {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}},
                {"name": "scratch", "emptyDir": {}},
                {"name": "host", "hostPath": {"path": host.path(), "type": "Directory"}},
            ]),
            json!({}),
        );
        let ready = room.manager.set_up(&pod).await.unwrap();
        let names_ready: Vec<&String> = ready.by_name.keys().collect();
        assert_eq!(
            names_ready,
            ["all", "down", "host", "map", "scratch", "sec", "some"]
        );
        let map = room.dir("configmap", "map");
        assert_eq!(ready.by_name["map"].path, map);
        assert!(ready.by_name["map"].read_only);
        assert_eq!(
            (read(&map.join("a")), mode(&map.join("a"))),
            ("1".to_owned(), 0o600)
        );
        let some = room.dir("configmap", "some");
        assert_eq!(names(&some), ["x"]);
        assert_eq!(
            (read(&some.join("x/y")), mode(&some.join("x/y"))),
            ("2".to_owned(), 0o400)
        );
        assert_eq!(read(&room.dir("secret", "sec").join("key")), "hush");
        let down = room.dir("downward-api", "down");
        assert_eq!(read(&down.join("labels")), "a=\"1\"\nb=\"2\"");
        assert_eq!(read(&down.join("cpu")), "1500");
        assert_eq!(read(&down.join("mem")), (1 << 30).to_string());
        let all = room.dir("projected", "all");
        assert_eq!(names(&all), ["ca.crt", "key", "ns", "token"]);
        assert_eq!(read(&all.join("token")), "token of robot");
        assert_eq!(
            (read(&all.join("ns")), mode(&all.join("token"))),
            ("ns".to_owned(), 0o644)
        );
        let scratch = room.dir("empty-dir", "scratch");
        assert_eq!(mode(&scratch), 0o777);
        assert_eq!(ready.by_name["host"].path, host.path());
        // Once more changes nothing.
        let before = std::fs::read_link(map.join("..data")).unwrap();
        assert_eq!(room.manager.set_up(&pod).await.unwrap(), ready);
        assert_eq!(std::fs::read_link(map.join("..data")).unwrap(), before);
        assert_eq!(room.manager.on_disk().await, ["u"]);

        std::fs::write(scratch.join("big"), vec![1; 100_000]).unwrap();
        let usage = room.manager.usage("u").await;
        let scratch = usage.iter().find(|usage| usage.name == "scratch").unwrap();
        assert_eq!(scratch.plugin, "kubernetes.io/empty-dir");
        assert!(
            (100_000..200_000).contains(&scratch.used_bytes),
            "{scratch:?}"
        );
        assert!(scratch.inodes_used == 2 && scratch.capacity_bytes > 0 && !scratch.mounted);

        room.manager.tear_down("u").await.unwrap();
        room.manager.tear_down("u").await.unwrap();
        assert_eq!(room.manager.on_disk().await, Vec::<String>::new());
        assert_eq!(room.manager.usage("u").await, []);
        assert_eq!(read(&host.path().join("precious")), "data");
    });
}

#[test]
fn what_is_missing_is_said_in_an_event() {
    run(|room| async move {
        room.config_map("m", json!({"a": "1"})).await;
        room.secret("s", "key", "hush").await;
        let set_up = "MountVolume.SetUp failed for volume \"v\" : ";
        let attach = "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to process volumes=[v]: ";
        for (volume, start, expected) in [
            (
                json!({"configMap": {"name": "y"}}),
                set_up,
                "configmap \"y\" not found",
            ),
            (
                json!({"secret": {"secretName": "y"}}),
                set_up,
                "secret \"y\" not found",
            ),
            (
                json!({"configMap": {"name": "m", "items": [{"key": "k", "path": "k"}]}}),
                set_up,
                "configmap references non-existent config key: k",
            ),
            (
                json!({"secret": {"secretName": "s", "items": [{"key": "k", "path": "k"}]}}),
                set_up,
                "references non-existent secret key: k",
            ),
            (
                json!({"projected": {"sources": [{"configMap": {"name": "y"}}]}}),
                set_up,
                "configmap \"y\" not found",
            ),
            (
                json!({"projected": {"sources": [{"configMap": {"name": "y"}}, {"secret": {"name": "z"}}]}}),
                set_up,
                "[configmap \"y\" not found, secret \"z\" not found]",
            ),
            (
                json!({"projected": {"sources": [{"podCertificate": {"keyType": "ED25519", "signerName": "a/b"}}]}}),
                set_up,
                "PodCertificate projection is not supported by this node",
            ),
            (
                json!({"projected": {"sources": [{"clusterTrustBundle": {"name": "b", "path": "p"}}]}}),
                set_up,
                "ClusterTrustBundle projection is not supported by this node",
            ),
            (
                json!({"downwardAPI": {"items": [{"path": "p", "resourceFieldRef": {"containerName": "x", "resource": "limits.cpu"}}]}}),
                set_up,
                "container x not found",
            ),
            (
                json!({"configMap": {"name": "m", "items": [{"key": "a", "path": "../a"}]}}),
                set_up,
                "invalid path: \"../a\" must not start with '..'",
            ),
            (
                json!({"hostPath": {"path": "/proc/version", "type": "Directory"}}),
                set_up,
                "hostPath type check failed: /proc/version is not a directory",
            ),
            (
                json!({"emptyDir": {"medium": "HugePages"}}),
                set_up,
                "storage medium \"HugePages\" is not supported by this node",
            ),
            (
                json!({"emptyDir": {"medium": "Floppy"}}),
                set_up,
                "unknown storage medium \"Floppy\"",
            ),
            (
                json!({"image": {"reference": "r"}}),
                set_up,
                "image volumes are not supported by this node",
            ),
            (
                json!({"gitRepo": {"repository": "r"}}),
                "MountVolume.NewMounter initialization failed for volume \"v\" : ",
                "git-repo volume plugin has been disabled",
            ),
            (
                json!({"csi": {"driver": "d"}}),
                attach,
                "failed to get Plugin from volumeSpec for volume \"v\" err=no volume plugin matched",
            ),
            (
                json!({"nfs": {"server": "s", "path": "/"}}),
                attach,
                "failed to get Plugin from volumeSpec for volume \"v\" err=no volume plugin matched",
            ),
        ] {
            let mut volume = volume;
            volume["name"] = "v".into();
            let error = room.fails(volume).await;
            assert_eq!(error.event, "FailedMount");
            assert_eq!(error.waiting, None);
            assert_eq!(error.message, format!("{start}{expected}"));
        }
    });
}

#[test]
fn what_is_optional_may_be_missing() {
    run(|room| async move {
        room.config_map("m", json!({"a": "1"})).await;
        let pod = pod(
            json!([
                {"name": "map", "configMap": {"name": "y", "optional": true}},
                {"name": "sec", "secret": {"secretName": "y", "optional": true}},
                {"name": "key", "configMap": {"name": "m", "optional": true, "items": [{"key": "a", "path": "a"}, {"key": "k", "path": "k"}]}},
                {"name": "all", "projected": {"sources": [
                    {"secret": {"name": "y", "optional": true}}, {"configMap": {"name": "m"}},
                    {"clusterTrustBundle": {"name": "b", "path": "bundle", "optional": true}}]}},
            ]),
            json!({}),
        );
        room.manager.set_up(&pod).await.unwrap();
        assert_eq!(names(&room.dir("configmap", "map")), Vec::<String>::new());
        assert_eq!(names(&room.dir("secret", "sec")), Vec::<String>::new());
        assert_eq!(names(&room.dir("configmap", "key")), ["a"]);
        assert_eq!(names(&room.dir("projected", "all")), ["a", "bundle"]);
        // It comes later.
        room.secret("y", "late", "1").await;
        room.env.sleep(std::time::Duration::from_millis(10)).await;
        assert_eq!(*room.woken.lock(), ["u"]);
        room.manager.set_up(&pod).await.unwrap();
        assert_eq!(names(&room.dir("secret", "sec")), ["late"]);
        assert_eq!(
            names(&room.dir("projected", "all")),
            ["a", "bundle", "late"]
        );
    });
}

#[test]
fn a_change_reaches_the_files_as_one() {
    run(|room| async move {
        room.config_map("m", json!({"a": "1", "b": "1"})).await;
        let pod = pod(
            json!([{"name": "map", "configMap": {"name": "m"}}]),
            json!({}),
        );
        room.manager.set_up(&pod).await.unwrap();
        let dir = room.dir("configmap", "map");
        let before = std::fs::canonicalize(dir.join("..data")).unwrap();
        room.config_map("m", json!({"a": "2", "b": null, "c": "2"}))
            .await;
        room.env.sleep(std::time::Duration::from_millis(10)).await;
        assert_eq!(*room.woken.lock(), ["u"]);
        room.manager.set_up(&pod).await.unwrap();
        assert_eq!(names(&dir), ["a", "c"]);
        assert_eq!(
            (read(&dir.join("a")), read(&dir.join("c"))),
            ("2".to_owned(), "2".to_owned())
        );
        assert_ne!(std::fs::canonicalize(dir.join("..data")).unwrap(), before);
        assert!(!before.exists());
        // A pod that is gone is not woken any more.
        room.manager.tear_down("u").await.unwrap();
        room.config_map("m", json!({"a": "3"})).await;
        room.env.sleep(std::time::Duration::from_millis(10)).await;
        assert_eq!(room.woken.lock().len(), 1);
    });
}

#[test]
fn volumes_that_no_container_uses_are_not_made() {
    run(|room| async move {
        let volumes = json!([{"name": "used", "emptyDir": {}}, {"name": "unused", "configMap": {"name": "none"}}]);
        let mounts = json!([{"name": "used", "mountPath": "/x"}]);
        let pod = pod(
            volumes,
            json!({"containers": [{"name": "c", "volumeMounts": mounts}]}),
        );
        let ready = room.manager.set_up(&pod).await.unwrap();
        assert_eq!(ready.by_name.len(), 1);
        assert_eq!(ready.by_name["used"].path, room.dir("empty-dir", "used"));
    });
}

#[test]
fn claims_become_the_directories_that_they_are_bound_to() {
    run(|room| async move {
        let data = tempfile::tempdir().unwrap();
        let claim = async |name: &str, volume: &str, phase: &str, owner: Value| {
            let body = json!({
                "metadata": {"name": name, "ownerReferences": owner}, "spec": {"volumeName": volume}, "status": {"phase": phase}});
            room.put(&CLAIMS, body).await.uid().to_owned()
        };
        let persistent = async |name: &str, uid: &str, source: Value| {
            let mut spec = json!({"claimRef": {"name": "c", "uid": uid}});
            spec.as_object_mut()
                .unwrap()
                .extend(source.as_object().unwrap().clone());
            let body = json!({"metadata": {"name": name}, "spec": spec});
            room.put(&PERSISTENT, body).await;
        };
        let none = || json!([]);
        let uid = claim("host", "pv-host", "Bound", none()).await;
        persistent(
            "pv-host",
            &uid,
            json!({"hostPath": {"path": data.path(), "type": "Directory"}}),
        )
        .await;
        let uid = claim("local", "pv-local", "Bound", none()).await;
        persistent("pv-local", &uid, json!({"local": {"path": data.path()}})).await;
        let uid = claim("gone", "pv-gone", "Bound", none()).await;
        persistent("pv-gone", &uid, json!({"local": {"path": "/no/such/dir"}})).await;
        let uid = claim("csi", "pv-csi", "Bound", none()).await;
        persistent(
            "pv-csi",
            &uid,
            json!({"csi": {"driver": "d", "volumeHandle": "h"}}),
        )
        .await;
        let uid = claim("block", "pv-block", "Bound", none()).await;
        persistent(
            "pv-block",
            &uid,
            json!({"volumeMode": "Block", "local": {"path": "/dev/x"}}),
        )
        .await;
        claim("waits", "", "Pending", none()).await;
        claim("empty", "", "Bound", none()).await;
        claim("lost", "pv-none", "Bound", none()).await;
        claim("thief", "pv-host", "Bound", none()).await;
        claim("p-foreign", "pv-host", "Bound", none()).await;
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]);
        let uid = claim("p-own", "pv-own", "Bound", owner).await;
        persistent("pv-own", &uid, json!({"hostPath": {"path": data.path()}})).await;

        let pod = pod(
            json!([
                {"name": "a", "persistentVolumeClaim": {"claimName": "host"}},
                {"name": "b", "persistentVolumeClaim": {"claimName": "local", "readOnly": true}},
                {"name": "own", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            ]),
            json!({}),
        );
        let ready = room.manager.set_up(&pod).await.unwrap();
        for (name, read_only) in [("a", false), ("b", true), ("own", false)] {
            assert_eq!(ready.by_name[name].path, data.path());
            assert_eq!(ready.by_name[name].read_only, read_only);
        }
        room.manager.tear_down("u").await.unwrap();
        assert!(data.path().exists());

        let attach = "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to process volumes=[v]: ";
        for (name, expected) in [
            ("none", format!("{attach}error processing PVC ns/none: failed to fetch PVC from API server: persistentvolumeclaims \"none\" not found")),
            ("waits", format!("{attach}error processing PVC ns/waits: PVC is not bound")),
            ("empty", format!("{attach}error processing PVC ns/empty: PVC has empty pvc.Spec.VolumeName")),
            ("lost", format!("{attach}error processing PVC ns/lost: failed to fetch PV pv-none from API server: persistentvolumes \"pv-none\" not found")),
            ("csi", format!("{attach}failed to get Plugin from volumeSpec for volume \"pv-csi\" err=no volume plugin matched")),
            ("block", format!("{attach}volume v has volumeMode Block, which is not supported by this node")),
            ("gone", "MountVolume.NewMounter initialization failed for volume \"pv-gone\" : path \"/no/such/dir\" does not exist".to_owned()),
        ] {
            let error = room.fails(json!({"name": "v", "persistentVolumeClaim": {"claimName": name}})).await;
            assert_eq!((error.event.as_ref(), error.message), ("FailedMount", expected));
        }
        let error = room
            .fails(json!({"name": "v", "persistentVolumeClaim": {"claimName": "thief"}}))
            .await;
        assert!(
            error.message.contains("does not point to claim.UID"),
            "{error}"
        );
        let error = room
            .fails(json!({"name": "foreign", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}))
            .await;
        assert!(
            error
                .message
                .ends_with("PVC ns/p-foreign was not created for pod ns/p (pod is not owner)"),
            "{error}"
        );
    });
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

#[test]
fn mounts_are_as_the_container_asks() {
    run(|room| async move {
        let mounts = json!([
            {"name": "v", "mountPath": "/a"},
            {"name": "v", "mountPath": "rel", "readOnly": true},
            {"name": "ro", "mountPath": "/c"},
            {"name": "v", "mountPath": "/d", "mountPropagation": "HostToContainer"},
            {"name": "v", "mountPath": "/e", "mountPropagation": "Bidirectional"},
            {"name": "v", "mountPath": "/f", "readOnly": true, "recursiveReadOnly": "IfPossible"},
        ]);
        let made = room.mounts(mounts.clone()).await.unwrap();
        let seen: Vec<_> = made
            .iter()
            .map(|mount| {
                (
                    mount.container_path.to_str().unwrap(),
                    mount.read_only,
                    mount.propagation,
                    mount.recursive_read_only,
                )
            })
            .collect();
        let private = MountPropagation::Private;
        assert_eq!(
            seen,
            [
                ("/a", false, private, false),
                ("/rel", true, private, false),
                ("/c", true, private, false),
                ("/d", false, MountPropagation::HostToContainer, false),
                ("/e", false, MountPropagation::Bidirectional, false),
                ("/f", true, private, false),
            ]
        );
        assert_eq!(
            made[0].source,
            MountSource::Host(room.dir("empty-dir", "v"))
        );
        room.manager.set_recursive_read_only(true);
        assert!(room.mounts(mounts).await.unwrap()[5].recursive_read_only);
    });
}

#[test]
fn mounts_that_cannot_be_are_refused() {
    run(|room| async move {
        for (mount, expected) in [
            (
                json!({"name": "none"}),
                "cannot find volume \"none\" to mount into container \"c\"",
            ),
            (
                json!({"subPath": "/abs"}),
                "error SubPath `/abs` must not be an absolute path",
            ),
            (
                json!({"subPath": "a/../.."}),
                "unable to provision SubPath `a/../..`: must not contain '..'",
            ),
            (
                json!({"subPathExpr": "$(NOBODY)/x"}),
                "missing value for NOBODY",
            ),
            (
                json!({"subPathExpr": "../$(WHO)"}),
                "unable to provision SubPath `../me`: must not contain '..'",
            ),
            (
                json!({"recursiveReadOnly": "Enabled"}),
                "volume \"v\" requested recursive read-only mode, but it is not read-only",
            ),
            (
                json!({"readOnly": true, "recursiveReadOnly": "Enabled"}),
                "volume \"v\" requested recursive read-only mode, but it is not supported by the runtime",
            ),
            (
                json!({"readOnly": true, "recursiveReadOnly": "IfPossible", "mountPropagation": "Bidirectional"}),
                "volume \"v\" requested recursive read-only mode, but it is not compatible with propagation \"Bidirectional\"",
            ),
            (
                json!({"mountPropagation": "Up"}),
                "invalid MountPropagation mode: \"Up\"",
            ),
            // No mounts here: the container does not start with anything else in its place.
            (
                json!({"subPath": "x"}),
                "failed to prepare subPath for volumeMount \"v\" of container \"c\"",
            ),
        ] {
            let mut wanted = json!({"name": "v", "mountPath": "/m"});
            wanted
                .as_object_mut()
                .unwrap()
                .extend(mount.as_object().unwrap().clone());
            let error = room.mounts(json!([wanted])).await.unwrap_err();
            assert_eq!(error.message, expected);
            assert_eq!(error.waiting.as_deref(), Some("CreateContainerConfigError"));
        }
    });
}

/// Mounts that are only written down. Those that are stuck cannot be ended.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<BTreeMap<PathBuf, u32>>>);

impl Mounter for Paper {
    fn tmpfs(&self, _: &Path, _: Option<u64>) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn bind(&self, _: BorrowedFd<'_>, at: &Path) -> io::Result<()> {
        self.0.lock().insert(at.to_owned(), 0);
        Ok(())
    }

    fn unmount(&self, at: &Path) -> io::Result<()> {
        let mut mounts = self.0.lock();
        let Some(busy) = mounts.get_mut(at) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if *busy == 0 {
            mounts.remove(at);
            return Ok(());
        }
        *busy -= 1;
        Err(io::ErrorKind::ResourceBusy.into())
    }

    fn at_or_below(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mounts = self.0.lock();
        Ok(mounts
            .keys()
            .rev()
            .filter(|at| at.starts_with(dir))
            .cloned()
            .collect())
    }
}

#[test]
fn nothing_is_deleted_behind_a_mount_that_does_not_end() {
    let paper = Paper::default();
    run_with(paper.clone(), |room| async move {
        let pod = pod(json!([{"name": "v", "emptyDir": {}}]), json!({}));
        room.manager.set_up(&pod).await.unwrap();
        let root = std::fs::canonicalize(room.root.path()).unwrap();
        let dir = root.join("pods/u/volumes/kubernetes.io~empty-dir/v");
        std::fs::write(dir.join("data"), "precious").unwrap();
        // A neighbour whose name begins the same is none of ours.
        let other = root.join("pods/u2/x");
        paper.0.lock().insert(dir.clone(), 100);
        paper.0.lock().insert(other.clone(), 0);
        let begin = room.env.now();
        let error = room.manager.tear_down("u").await.unwrap_err();
        assert!(error.message.contains("resource busy"), "{error}");
        assert!(error.event.is_empty());
        let waited = room.env.now().since(begin);
        assert!(waited >= std::time::Duration::from_millis(700) && waited.as_secs() < 3);
        assert_eq!(read(&dir.join("data")), "precious");
        // It ends at the third try.
        paper.0.lock().insert(dir.clone(), 2);
        room.manager.tear_down("u").await.unwrap();
        assert!(!dir.exists());
        assert_eq!(paper.0.lock().keys().collect::<Vec<_>>(), [&other]);
    });
}

#[test]
fn names_that_are_no_names_reach_no_directory() {
    run(|room| async move {
        for uid in ["", ".", "..", "../x", "a/b"] {
            assert!(room.manager.tear_down(uid).await.is_err(), "{uid:?}");
            assert_eq!(room.manager.usage(uid).await, []);
        }
        let error = room.fails(json!({"name": "..", "emptyDir": {}})).await;
        assert!(
            error.message.ends_with("invalid volume name \"..\""),
            "{error}"
        );
    });
}

#[test]
fn a_plug_in_can_be_replaced_and_is_asked_to_tear_down() {
    struct Mine(Arc<Mutex<Vec<PathBuf>>>);

    #[async_trait]
    impl VolumePlugin for Mine {
        fn name(&self) -> &str {
            "kubernetes.io/empty-dir"
        }

        fn handles(&self, volume: &k8s_openapi::api::core::v1::Volume) -> bool {
            volume.empty_dir.is_some()
        }

        async fn set_up(
            &self,
            request: &VolumeRequest<'_>,
        ) -> Result<crate::parts::ReadyVolume, VolumeError> {
            request.make_dir(0o700).await?;
            let file = Projection {
                data: "mine".into(),
                mode: 0o644,
                user: None,
            };
            request.write_files([("a".to_owned(), file)].into()).await?;
            Ok(crate::parts::ReadyVolume {
                path: request.dir.clone(),
                ..Default::default()
            })
        }

        async fn tear_down(&self, dir: &Path) -> Result<(), VolumeError> {
            let mut asked = self.0.lock();
            asked.push(dir.to_owned());
            if asked.len() == 1 {
                return Err(VolumeError::Refused("not yet".to_owned()));
            }
            Ok(())
        }
    }

    run(|mut room| async move {
        let names = room.manager.plugin_names().len();
        let asked = Arc::new(Mutex::new(Vec::new()));
        room.manager = room.manager.plugin(Mine(asked.clone()));
        assert_eq!(room.manager.plugin_names().len(), names);
        let pod = pod(json!([{"name": "v", "emptyDir": {}}]), json!({}));
        room.manager.set_up(&pod).await.unwrap();
        let dir = room
            .root
            .path()
            .join("pods/u/volumes/kubernetes.io~empty-dir/v");
        assert_eq!(read(&dir.join("a")), "mine");
        let error = room.manager.tear_down("u").await.unwrap_err();
        assert!(error.message.ends_with("not yet") && dir.exists());
        room.manager.tear_down("u").await.unwrap();
        assert_eq!(*asked.lock(), [dir.clone(), dir]);
    });
}

#[test]
fn the_groups_files_are_the_groups() {
    run(|room| async move {
        room.config_map("m", json!({"a": "1"})).await;
        // The own group needs no privileges.
        let group = std::fs::metadata(room.root.path()).unwrap().gid();
        let pod = pod(
            json!([
                {"name": "v", "emptyDir": {}},
                {"name": "map", "configMap": {"name": "m", "defaultMode": 0o400}},
                {"name": "tok", "projected": {"sources": [{"serviceAccountToken": {"path": "d/token"}}]}},
            ]),
            json!({"securityContext": {"fsGroup": group}}),
        );
        room.manager.set_up(&pod).await.unwrap();
        let (scratch, map) = (room.dir("empty-dir", "v"), room.dir("configmap", "map"));
        let token = room.dir("projected", "tok");
        assert_eq!(mode(&scratch), 0o2777);
        assert_eq!((mode(&map), mode(&map.join("a"))), (0o2777, 0o440));
        // A token that only the pod's group may read.
        assert_eq!(
            (mode(&token.join("d")), mode(&token.join("d/token"))),
            (0o2755, 0o640)
        );
        // What a container does with its files is its own business.
        std::fs::write(scratch.join("own"), "").unwrap();
        std::fs::set_permissions(scratch.join("own"), PermissionsExt::from_mode(0o600)).unwrap();
        let data = std::fs::read_link(map.join("..data")).unwrap();
        room.manager.set_up(&pod).await.unwrap();
        assert_eq!(mode(&scratch.join("own")), 0o600);
        assert_eq!(std::fs::read_link(map.join("..data")).unwrap(), data);
    });
}

#[test]
fn a_tree_is_removed_without_leaving_it() {
    let temp = tempfile::tempdir().unwrap();
    let outside = temp.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), "data").unwrap();
    let top = temp.path().join("top");
    std::fs::create_dir_all(top.join("..deep-0/x")).unwrap();
    // Deeper than a path can be long, and than files can be open.
    let mut dir = rustix::fs::open(
        &top,
        rustix::fs::OFlags::DIRECTORY,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    for n in 0..3000 {
        let name = format!("directory-{n}");
        rustix::fs::mkdirat(&dir, &name, rustix::fs::Mode::RWXU).unwrap();
        rustix::fs::symlinkat(&outside, &dir, "link").unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY;
        dir = rustix::fs::openat(&dir, &name, flags, rustix::fs::Mode::empty()).unwrap();
    }
    drop(dir);
    tree::remove(&top).unwrap();
    tree::remove(&top).unwrap();
    assert!(!top.exists());
    assert_eq!(read(&outside.join("precious")), "data");
    std::os::unix::fs::symlink(&outside, &top).unwrap();
    tree::remove(&top).unwrap();
    assert_eq!(read(&outside.join("precious")), "data");
}

#[test]
fn giving_to_a_group_follows_no_link() {
    use super::tree::GroupAccess;
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    std::fs::create_dir_all(at("volume/d")).unwrap();
    for name in ["outside", "volume/f", "volume/d/f"] {
        std::fs::write(at(name), "").unwrap();
        std::fs::set_permissions(at(name), PermissionsExt::from_mode(0o600)).unwrap();
    }
    std::fs::set_permissions(at("volume"), PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink(at("outside"), at("volume/link")).unwrap();
    let access = GroupAccess {
        group: std::fs::metadata(temp.path()).unwrap().gid(),
        read_only: false,
    };
    tree::give_to_group(&at("volume"), access, true).unwrap();
    assert_eq!(
        (mode(&at("volume/f")), mode(&at("volume/d/f"))),
        (0o660, 0o660)
    );
    assert_eq!(
        (mode(&at("volume")), mode(&at("volume/d"))),
        (0o2775, 0o2775)
    );
    assert_eq!(mode(&at("outside")), 0o600);
    // The root is as it should be: what is below is not looked at, unless asked to.
    std::fs::set_permissions(at("volume/f"), PermissionsExt::from_mode(0o600)).unwrap();
    tree::give_to_group(&at("volume"), access, true).unwrap();
    assert_eq!(mode(&at("volume/f")), 0o600);
    tree::give_to_group(&at("volume"), access, false).unwrap();
    assert_eq!(mode(&at("volume/f")), 0o660);
}
