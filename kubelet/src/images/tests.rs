use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use orlop_core::env::{Env, SimEnv, TaskGroup};
use orlop_core::events::{EventBroadcaster, EventRecorder};
use orlop_core::resource::Resource;
use orlop_core::runtime::*;
use orlop_core::testing::{FakeApi, SimulatedRuntime};
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::keyring::{fits, glob};
use super::*;
use crate::config::KubeletConfig;
use crate::objects::ObjectCache;
use crate::parts::{Images, PartError};

const EVENTS: Resource = Resource::namespaced("", "v1", "events", "Event");
const SECRETS: Resource = Resource::namespaced("", "v1", "secrets", "Secret");

/// A runtime whose registry can be told what to do.
#[derive(Clone)]
struct Registry {
    own: SimulatedRuntime,
    env: Env,
    /// How long a pull takes.
    takes: Duration,
    /// What pulls are refused with, one after the other.
    refusals: Arc<Mutex<Vec<RuntimeError>>>,
    /// Who may pull; anybody if empty.
    users: Arc<BTreeSet<String>>,
    /// Who asked, and how many pulled at the same time at most.
    asked: Arc<Mutex<Vec<Option<String>>>>,
    now: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
    pinned: Arc<Mutex<BTreeSet<String>>>,
}

impl Registry {
    fn new(env: &Env) -> Self {
        Self {
            own: SimulatedRuntime::new(env.clone()),
            env: env.clone(),
            takes: Duration::from_millis(1500),
            refusals: Arc::default(),
            users: Arc::default(),
            asked: Arc::default(),
            now: Arc::default(),
            most: Arc::default(),
            pinned: Arc::default(),
        }
    }

    fn sized(&self, mut image: Image) -> Image {
        image.size = 100;
        image.pinned = image
            .tags
            .iter()
            .any(|tag| self.pinned.lock().contains(tag));
        image
    }
}

#[async_trait]
impl Runtime for Registry {
    async fn status(&self) -> Result<RuntimeStatus, RuntimeError> {
        self.own.status().await
    }
    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxId, RuntimeError> {
        self.own.run_sandbox(config).await
    }
    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.own.stop_sandbox(id).await
    }
    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.own.remove_sandbox(id).await
    }
    async fn sandboxes(&self, filter: &SandboxFilter) -> Result<Vec<Sandbox>, RuntimeError> {
        self.own.sandboxes(filter).await
    }
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        self.own.create_container(sandbox, config).await
    }
    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.own.start_container(id).await
    }
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        self.own.stop_container(id, grace).await
    }
    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.own.remove_container(id).await
    }
    async fn containers(
        &self,
        filter: &ContainerFilter,
    ) -> Result<Vec<orlop_core::runtime::Container>, RuntimeError> {
        self.own.containers(filter).await
    }
    async fn pull_image(&self, request: &PullRequest) -> Result<ImageId, RuntimeError> {
        let user = request.auth.as_ref().map(|auth| auth.username.clone());
        self.asked.lock().push(user.clone());
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.env.sleep(self.takes).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        let refusal = {
            let mut refusals = self.refusals.lock();
            (!refusals.is_empty()).then(|| refusals.remove(0))
        };
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        if !self.users.is_empty() && !user.is_some_and(|user| self.users.contains(&user)) {
            let image = request.image.image.clone();
            return Err(RuntimeError::Denied {
                image,
                reason: "unauthorized".to_owned(),
            });
        }
        self.own.pull_image(request).await
    }
    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        Ok(self
            .own
            .images()
            .await?
            .into_iter()
            .map(|image| self.sized(image))
            .collect())
    }
    async fn image(&self, image: &ImageSpec) -> Result<Option<Image>, RuntimeError> {
        Ok(self.own.image(image).await?.map(|image| self.sized(image)))
    }
    async fn remove_image(&self, image: &ImageSpec) -> Result<(), RuntimeError> {
        self.own.remove_image(image).await
    }
    async fn image_filesystems(&self) -> Result<ImageFilesystems, RuntimeError> {
        let at = Timestamp::UNIX_EPOCH;
        let images = vec![FilesystemUsage {
            at,
            mountpoint: PathBuf::from("/images"),
            used_bytes: 0,
            inodes_used: None,
        }];
        Ok(ImageFilesystems {
            images,
            containers: Vec::new(),
        })
    }
}

struct World {
    api: FakeApi,
    group: TaskGroup,
    recorder: EventRecorder,
    registry: Registry,
    objects: ObjectCache,
    config: KubeletConfig,
    _root: tempfile::TempDir,
}

impl World {
    fn new(env: &Env) -> Self {
        let api = FakeApi::new(env.clone());
        let group = TaskGroup::new(env.clone());
        let recorder = EventBroadcaster::start(&group, api.client()).recorder("kubelet");
        let objects = ObjectCache::new(api.client(), env.clone(), &group.token());
        let root = tempfile::tempdir().unwrap();
        let mut config = KubeletConfig::new("node");
        config.root_dir = root.path().to_owned();
        let registry = Registry::new(env);
        Self {
            api,
            group,
            recorder,
            registry,
            objects,
            config,
            _root: root,
        }
    }

    fn manager(&self) -> ImageManager {
        ImageManager::new(
            &self.config,
            Arc::new(self.registry.clone()),
            self.objects.clone(),
            self.recorder.clone(),
            self.group.env().clone(),
        )
    }

    /// The events so far: reason and message, in order.
    async fn events(&self) -> Vec<(String, String)> {
        self.group.env().sleep(Duration::from_secs(1)).await;
        let mut all: Vec<(String, String, String)> = self
            .api
            .objects(&EVENTS)
            .iter()
            .map(|event| {
                let value = event.value().unwrap();
                let text = |field: &str| value[field].as_str().unwrap().to_owned();
                let name = event.name().rsplit_once('.').unwrap().1.to_owned();
                (name, text("reason"), text("message"))
            })
            .collect();
        all.sort();
        all.into_iter()
            .map(|(_, reason, message)| (reason, message))
            .collect()
    }

    async fn secret(&self, name: &str, kind: &str, key: &str, content: &Value) {
        let data = BTreeMap::from([(key, STANDARD.encode(content.to_string()))]);
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": kind, "data": data,
            "metadata": {"name": name, "namespace": "default"}});
        let client = self.api.client();
        client
            .resource(&SECRETS)
            .namespace("default")
            .create(&secret)
            .await
            .unwrap();
    }

    async fn shut(self) {
        self.objects.shutdown().await;
        self.group.shutdown().await;
    }
}

fn pod(secrets: &[&str]) -> Arc<Pod> {
    let secrets: Vec<Value> = secrets.iter().map(|name| json!({"name": name})).collect();
    let pod = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "1f0e"},
        "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}], "imagePullSecrets": secrets},
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn container(image: &str, policy: &str) -> Container {
    Container {
        name: "c".to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: Some(policy.to_owned()),
        ..Container::default()
    }
}

async fn ensure(manager: &ImageManager, image: &str, policy: &str) -> Result<Image, PartError> {
    let sandbox = SandboxConfig::new("default", "web", "1f0e");
    manager
        .ensure(&pod(&[]), &container(image, policy), &sandbox)
        .await
}

fn refused<T>(result: Result<T, PartError>) -> (String, String) {
    let error = result.err().unwrap();
    assert_eq!(error.event, "", "its events were told");
    (error.waiting.unwrap().into_owned(), error.message)
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

#[test]
fn an_image_is_pulled_once_and_then_there() {
    let sim = SimEnv::new(1);
    let world = World::new(&sim.env());
    sim.block_on(async move {
        let manager = world.manager();
        let image = ensure(&manager, "example/web", "IfNotPresent").await.unwrap();
        assert_eq!(image.tags, ["example/web:latest"]);
        assert_eq!(ensure(&manager, "example/web", "IfNotPresent").await.unwrap().id, image.id);
        assert_eq!(ensure(&manager, "example/web", "Never").await.unwrap().id, image.id);
        assert_eq!(*world.registry.asked.lock(), [None]);
        ensure(&manager, "example/web", "Always").await.unwrap();
        assert_eq!(world.registry.asked.lock().len(), 2);
        let present =
            "Container image \"example/web\" already present on machine and can be accessed by the pod";
        let pulled = "Successfully pulled image \"example/web\" in 1.5s (1.5s including waiting). Image size: 100 bytes.";
        assert_eq!(
            world.events().await,
            owned(&[
                ("Pulling", "Pulling image \"example/web\""),
                ("Pulled", pulled),
                ("Pulled", present),
            ])
        );
        world.shut().await;
    });
}

#[test]
fn a_policy_that_nobody_put_in_follows_the_tag() {
    let sim = SimEnv::new(1);
    let world = World::new(&sim.env());
    sim.block_on(async move {
        let manager = world.manager();
        for (image, pulls) in [("a:1", 1), ("a:latest", 2), ("a", 2), ("h:5/a@sha256:", 0)] {
            world.registry.asked.lock().clear();
            let name = if image.ends_with(':') {
                format!("{image}{}", "0".repeat(64))
            } else {
                image.to_owned()
            };
            world
                .registry
                .own
                .pull_image(&PullRequest::new(&name))
                .await
                .unwrap();
            for _ in 0..2 {
                ensure(&manager, &name, "").await.unwrap();
            }
            assert_eq!(
                world.registry.asked.lock().len(),
                if pulls == 1 { 0 } else { pulls },
                "{image}"
            );
        }
        world.shut().await;
    });
}

#[test]
fn what_cannot_be_pulled_is_said_in_kubernetes_words() {
    let sim = SimEnv::new(1);
    let world = World::new(&sim.env());
    sim.block_on(async move {
        let manager = world.manager();
        let invalid = refused(ensure(&manager, "Web", "Always").await);
        let because = "Failed to apply default image tag \"Web\": couldn't parse image name \"Web\": \
                       invalid reference format: repository name (library/Web) must be lowercase";
        assert_eq!(invalid, ("InvalidImageName".to_owned(), because.to_owned()));
        let never = refused(ensure(&manager, "a:1", "Never").await);
        let because = "Container image \"a:1\" is not present with pull policy of Never";
        assert_eq!(never, ("ErrImageNeverPull".to_owned(), because.to_owned()));
        assert_eq!(
            world.events().await,
            owned(&[
                ("InspectFailed", &invalid.1),
                ("ErrImageNeverPull", because),
            ])
        );
        for (error, reason, message) in [
            (
                RuntimeError::Unavailable("connection refused".to_owned()),
                "RegistryUnavailable",
                "image pull failed for a:1 because the registry is unavailable: connection refused",
            ),
            (
                RuntimeError::Failed("SignatureValidationFailed: no key".to_owned()),
                "SignatureValidationFailed",
                "image pull failed for a:1 because the signature validation failed: no key",
            ),
            (RuntimeError::Failed("boom".to_owned()), "ErrImagePull", "boom"),
            (
                RuntimeError::ImageNotFound("a:1".to_owned()),
                "ErrImagePull",
                "image \"a:1\" not found in its registry",
            ),
        ] {
            world.registry.refusals.lock().push(error);
            let got = refused(ensure(&world.manager(), "a:1", "Always").await);
            assert_eq!(got, (reason.to_owned(), message.to_owned()));
        }
        world.shut().await;
    });
}

#[test]
fn a_pull_that_failed_is_put_off() {
    let sim = SimEnv::new(1);
    let world = World::new(&sim.env());
    sim.block_on(async move {
        let manager = world.manager();
        let env = world.group.env().clone();
        let boom = || {
            world
                .registry
                .refusals
                .lock()
                .push(RuntimeError::Failed("boom".to_owned()))
        };
        boom();
        assert_eq!(
            refused(ensure(&manager, "a:1", "Always").await).0,
            "ErrImagePull"
        );
        let off = refused(ensure(&manager, "a:1", "Always").await);
        let because = "Back-off pulling image \"a:1\": ErrImagePull: boom";
        assert_eq!(off, ("ImagePullBackOff".to_owned(), because.to_owned()));
        assert_eq!(world.registry.asked.lock().len(), 1);
        assert_eq!(
            world.events().await,
            owned(&[
                ("Pulling", "Pulling image \"a:1\""),
                ("Failed", "Failed to pull image \"a:1\": boom"),
                ("BackOff", "Back-off pulling image \"a:1\""),
            ])
        );
        env.sleep(Duration::from_secs(9)).await;
        boom();
        assert_eq!(
            refused(ensure(&manager, "a:1", "Always").await).0,
            "ErrImagePull"
        );
        env.sleep(Duration::from_secs(19)).await;
        assert_eq!(
            refused(ensure(&manager, "a:1", "Always").await).0,
            "ImagePullBackOff"
        );
        env.sleep(Duration::from_secs(1)).await;
        ensure(&manager, "a:1", "Always").await.unwrap();
        world.shut().await;
    });
}

#[test]
fn pulls_wait_for_each_other_if_so_configured() {
    for (serial, most, took) in [(true, 1, "3s"), (false, 2, "1.5s")] {
        let sim = SimEnv::new(1);
        let mut world = World::new(&sim.env());
        world.config.serialize_image_pulls = serial;
        sim.block_on(async move {
            let manager = world.manager();
            let (a, b) = futures::join!(
                ensure(&manager, "a:1", "Always"),
                ensure(&manager, "b:1", "Always")
            );
            assert!(a.is_ok() && b.is_ok());
            assert_eq!(world.registry.most.load(Ordering::SeqCst), most);
            let waiting = format!("in 1.5s ({took} including waiting)");
            let events = world.events().await;
            assert!(
                events.iter().any(|(_, message)| message.contains(&waiting)),
                "{events:?}"
            );
            world.shut().await;
        });
    }
}

#[test]
fn the_secrets_that_fit_are_tried_in_turn() {
    let sim = SimEnv::new(1);
    let mut world = World::new(&sim.env());
    world.registry.users = Arc::new(["node".to_owned()].into());
    let own = json!({"auths": {"r.example": {"auth": STANDARD.encode("node:p:w")}}});
    std::fs::write(world.config.root_dir.join("config.json"), own.to_string()).unwrap();
    sim.block_on(async move {
        let json = json!({"auths": {
            "https://r.example/v1/": {"username": "host", "password": "x"},
            "r.example/team": {"auth": STANDARD.encode("team:x")},
            "other.example": {"auth": STANDARD.encode("other:x")},
        }});
        world.secret("new", "kubernetes.io/dockerconfigjson", ".dockerconfigjson", &json).await;
        let old = json!({"*.example": {"username": "glob", "password": "x"}});
        world.secret("old", "kubernetes.io/dockercfg", ".dockercfg", &old).await;
        world.secret("opaque", "Opaque", ".dockerconfigjson", &json).await;
        let manager = world.manager();
        let sandbox = SandboxConfig::new("default", "web", "1f0e");
        let pod = pod(&["new", "missing", "old", "opaque", ""]);
        let image = container("r.example/team/web:1", "Always");
        manager.ensure(&pod, &image, &sandbox).await.unwrap();
        let asked = std::mem::take(&mut *world.registry.asked.lock());
        let asked: Vec<String> = asked.into_iter().flatten().collect();
        assert_eq!(asked, ["team", "host", "glob", "node"]);
        let event = (
            "FailedToRetrieveImagePullSecret".to_owned(),
            "Unable to retrieve some image pull secrets (missing); attempting to pull the image may not succeed."
                .to_owned(),
        );
        assert!(world.events().await.contains(&event));
        let other = container("docker.io/web:1", "Always");
        let denied = manager.ensure(&pod, &other, &sandbox).await;
        assert_eq!(refused(denied).0, "ErrImagePull");
        assert_eq!(*world.registry.asked.lock(), [None], "none fits: anybody asks");
        world.shut().await;
    });
}

#[test]
fn several_refusals_are_told_together() {
    let sim = SimEnv::new(1);
    let world = World::new(&sim.env());
    sim.block_on(async move {
        let auths = json!({"auths": {
            "r.example/a": {"username": "1", "password": "x"},
            "r.example": {"username": "2", "password": "x"},
        }});
        world
            .secret(
                "s",
                "kubernetes.io/dockerconfigjson",
                ".dockerconfigjson",
                &auths,
            )
            .await;
        for text in ["one", "two"] {
            world
                .registry
                .refusals
                .lock()
                .push(RuntimeError::Failed(text.to_owned()));
        }
        let sandbox = SandboxConfig::new("default", "web", "1f0e");
        let image = container("r.example/a:1", "Always");
        let refusal = world.manager().ensure(&pod(&["s"]), &image, &sandbox).await;
        assert_eq!(refused(refusal).1, "[one, two]");
        world.shut().await;
    });
}

#[test]
fn credentials_that_make_no_sense_are_refused_without_being_told() {
    use super::credentials::{config, config_json, of_secret};
    assert_eq!(config(b"[]").unwrap_err(), CredentialError::Json);
    let bad = json!({"auths": {"r": {"auth": STANDARD.encode("nocolon")}}}).to_string();
    assert_eq!(
        config_json(bad.as_bytes()).unwrap_err(),
        CredentialError::Auth
    );
    for auth in ["dTpw", "dTpwcA==", "dTpwcA"] {
        let file = json!({"r": {"auth": auth}}).to_string();
        let read = config(file.as_bytes()).unwrap();
        assert_eq!(read[0].1.username, "u");
        assert!(!format!("{read:?}").contains("pp"), "the password is shown");
    }
    assert!(of_secret(&Secret::default()).unwrap().is_empty());
}

#[test]
fn places_fit_hosts_and_the_beginnings_of_repositories() {
    for (place, repository, expected) in [
        ("r.example", "r.example/a/b", true),
        ("r.example/a", "r.example/a/b", true),
        ("r.example/a", "r.example/ab", true),
        ("r.example/b", "r.example/a/b", false),
        ("r.example", "r.example:5000/a", false),
        ("r.example:5000", "r.example:5000/a", true),
        ("*.example", "r.example/a", true),
        ("*.example", "x.r.example/a", false),
        ("*", "r.example/a", false),
        ("*.*", "r.example/a", true),
        ("r?.ex*e", "r1.example/a", true),
        ("[a-c]r.example", "br.example/a", true),
        ("[a-c]r.example", "dr.example/a", false),
        ("*.example:*", "r.example:5000/a", false),
        ("[::1]:5000", "[::1]:5000/a", false),
    ] {
        assert_eq!(fits(place, repository), expected, "{place} {repository}");
    }
    let mut keyring = Keyring::default();
    let one = |name: &str| Credentials {
        username: name.to_owned(),
        password: String::new(),
    };
    keyring.add(vec![("https://index.docker.io/v1/".to_owned(), one("hub"))]);
    keyring.add(vec![("http://r.example/v2/a".to_owned(), one("r"))]);
    let found = |image: &str| -> Vec<String> {
        keyring
            .lookup(image)
            .into_iter()
            .map(|own| own.username)
            .collect()
    };
    assert_eq!(found("docker.io/library/busybox"), ["hub"]);
    assert_eq!(found("r.example/a"), ["r"]);
    assert!(found("r.example/b").is_empty());
}

/// The law of the shell's patterns, without looking ahead.
fn slow_glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', more)), rest) => {
            slow_glob(more, text) || rest.is_some_and(|(_, rest)| slow_glob(pattern, rest))
        }
        (Some((b'?', more)), Some((_, rest))) => slow_glob(more, rest),
        (Some((own, more)), Some((byte, rest))) => own == byte && slow_glob(more, rest),
        _ => false,
    }
}

proptest! {
    #[test]
    fn patterns_mean_what_they_mean_slowly(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
        prop_assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), slow_glob(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn a_text_fits_itself(text in "[a-z0-9-]{0,12}") {
        prop_assert!(glob(text.as_bytes(), text.as_bytes()));
        prop_assert!(glob(b"*", text.as_bytes()));
    }

    #[test]
    fn any_pattern_ends(pattern in any::<Vec<u8>>(), text in any::<Vec<u8>>()) {
        glob(&pattern, &text);
    }

    #[test]
    fn a_place_fits_all_that_lies_below_it(host in "[a-z]{1,5}(\\.[a-z]{1,5}){1,2}(:[0-9]{1,4})?", path in "(/[a-z]{1,5}){1,3}", more in "(/[a-z]{1,5}){0,2}") {
        let repository = format!("{host}{path}{more}");
        prop_assert!(fits(&host, &repository));
        let place = format!("{host}{path}");
        prop_assert!(fits(&place, &repository));
        let other = format!("x{repository}");
        prop_assert!(!fits(&place, &other));
    }
}

/// A collector over three images, one of them in use and one pinned, on a disk that is so full.
fn collector(world: &World, available: u64) -> ImageCollector {
    let disk: DiskSpace = Arc::new(move |path| {
        assert_eq!(path, PathBuf::from("/images"));
        Ok((1000, available))
    });
    ImageCollector::with(
        &world.config,
        Arc::new(world.registry.clone()),
        world.recorder.clone(),
        world.group.env().clone(),
        disk,
        ["pause:1".to_owned()],
    )
}

async fn fill(world: &World) {
    for name in ["used:1", "pinned:1", "pause:1", "old:1", "older:1"] {
        world
            .registry
            .own
            .pull_image(&PullRequest::new(name))
            .await
            .unwrap();
    }
    world.registry.pinned.lock().insert("pinned:1".to_owned());
    run(world, "used:1").await;
}

async fn run(world: &World, image: &str) -> SandboxId {
    let runtime = &world.registry.own;
    let config = SandboxConfig::new("default", image, image);
    let sandbox = runtime.run_sandbox(&config).await.unwrap();
    let config = ContainerConfig::new("c", ImageSpec::new(image));
    runtime.create_container(&sandbox, &config).await.unwrap();
    sandbox
}

async fn names(world: &World) -> Vec<String> {
    let images = world.registry.images().await.unwrap();
    images.into_iter().flat_map(|image| image.tags).collect()
}

#[test]
fn the_image_that_was_used_longest_ago_goes_first() {
    let sim = SimEnv::new(1);
    let world = World::new(&sim.env());
    sim.block_on(async move {
        fill(&world).await;
        let env = world.group.env().clone();
        let last = run(&world, "older:1").await;
        // 130 of 1000 are free, 200 are to be: one image is enough.
        let collector = collector(&world, 130);
        world.registry.own.remove_sandbox(&run(&world, "old:1").await).await.unwrap();
        let small = super::collector::ImageCollector::clone(&collector);
        small.collect().await.unwrap();
        assert_eq!(names(&world).await, ["older:1", "pause:1", "pinned:1", "used:1"]);
        world.registry.own.remove_sandbox(&last).await.unwrap();
        env.sleep(Duration::from_secs(1)).await;
        collector.collect().await.unwrap();
        assert_eq!(names(&world).await, ["pause:1", "pinned:1", "used:1"]);
        let error = collector.collect().await.unwrap_err();
        assert_eq!(error, CollectError::NotEnough { wanted: 70, freed: 0 });
        let because = "Failed to garbage collect required amount of images. Attempted to free 70 bytes, but only found 0 bytes eligible to free.";
        assert_eq!(world.events().await, owned(&[("FreeDiskSpaceFailed", because)]));
        assert_eq!(names(&world).await, ["pause:1", "pinned:1", "used:1"]);
        world.shut().await;
    });
}

#[test]
fn a_new_image_is_spared_and_a_disk_with_room_is_left_alone() {
    let sim = SimEnv::new(1);
    let world = World::new(&sim.env());
    sim.block_on(async move {
        let env = world.group.env().clone();
        let roomy = collector(&world, 160);
        fill(&world).await;
        roomy.collect().await.unwrap();
        assert_eq!(names(&world).await.len(), 5);
        world
            .registry
            .own
            .pull_image(&PullRequest::new("new:1"))
            .await
            .unwrap();
        assert_eq!(roomy.delete_unused().await.unwrap(), 200);
        assert_eq!(
            names(&world).await,
            ["new:1", "pause:1", "pinned:1", "used:1"]
        );
        env.sleep(Duration::from_secs(121)).await;
        assert_eq!(roomy.delete_unused().await.unwrap(), 100);
        assert_eq!(names(&world).await, ["pause:1", "pinned:1", "used:1"]);
        world.shut().await;
    });
}

#[test]
fn a_disk_that_stays_full_is_told_from_the_second_time_on() {
    let sim = SimEnv::new(1);
    let world = World::new(&sim.env());
    sim.block_on(async move {
        let env = world.group.env().clone();
        collector(&world, 0).start(&world.group);
        let reasons = |events: Vec<(String, String)>| -> Vec<String> {
            events.into_iter().map(|(reason, _)| reason).collect()
        };
        assert_eq!(reasons(world.events().await), ["FreeDiskSpaceFailed"]);
        env.sleep(Duration::from_secs(300)).await;
        assert_eq!(
            reasons(world.events().await),
            ["FreeDiskSpaceFailed", "ImageGCFailed"]
        );
        world.shut().await;
    });
}
