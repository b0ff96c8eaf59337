//! [`ImageManager`]: makes sure that a container's image is there.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, Pod};
use orlop_core::env::Env;
use orlop_core::events::{EventRecorder, EventType};
use orlop_core::runtime::{
    Image, ImageSpec, PullRequest, RegistryAuth, Runtime, RuntimeError, SandboxConfig,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::back_off::BackOff;
use super::credentials::{self, Credentials};
use super::duration;
use super::keyring::Keyring;
use super::reference::ImageName;
use crate::blocking::blocking;
use crate::config::KubeletConfig;
use crate::container::reference_of;
use crate::objects::ObjectCache;
use crate::parts::{Images, PartError};

/// The most bytes that the node's own file of credentials may have.
const FILE_LIMIT: u64 = 1 << 20;

/// Finds and pulls images. Clones share back-off and turn.
#[derive(Clone)]
pub struct ImageManager(Arc<Inner>);

struct Inner {
    runtime: Arc<dyn Runtime>,
    objects: ObjectCache,
    recorder: EventRecorder,
    env: Env,
    /// The node's own credentials: `config.json` in the agent's directory, as `docker login` writes it.
    own_credentials: PathBuf,
    /// One permit, where one image is pulled at a time.
    turn: Option<Semaphore>,
    back_off: Mutex<BackOff>,
}

impl fmt::Debug for ImageManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageManager")
            .field("serial", &self.0.turn.is_some())
            .finish_non_exhaustive()
    }
}

/// Why there is no image: the reason and message of the waiting container.
struct Refusal {
    reason: Cow<'static, str>,
    message: String,
}

impl ImageManager {
    /// A manager that asks a runtime, with the pull secrets that a cache knows.
    pub fn new(
        config: &KubeletConfig,
        runtime: Arc<dyn Runtime>,
        objects: ObjectCache,
        recorder: EventRecorder,
        env: Env,
    ) -> Self {
        Self(Arc::new(Inner {
            runtime,
            objects,
            recorder,
            env,
            own_credentials: config.root_dir.join("config.json"),
            turn: config.serialize_image_pulls.then(|| Semaphore::new(1)),
            back_off: Mutex::default(),
        }))
    }
}

impl Inner {
    async fn ensure(
        &self,
        pod: &Pod,
        container: &Container,
        sandbox: &SandboxConfig,
    ) -> Result<Image, Refusal> {
        let wanted = container.image.as_deref().unwrap_or_default();
        let tell = |kind, reason: &str, message: &str| {
            self.recorder
                .event(reference_of(pod, container), kind, reason, message);
        };
        let refuse = |event: &str, reason: &'static str, message: String| {
            tell(EventType::Warning, event, &message);
            Refusal {
                reason: reason.into(),
                message,
            }
        };
        let name = ImageName::with_default_tag(wanted).map_err(|error| {
            let message = format!(
                "Failed to apply default image tag {wanted:?}: couldn't parse image name {wanted:?}: {error}"
            );
            refuse("InspectFailed", "InvalidImageName", message)
        })?;
        let spec = ImageSpec {
            image: name,
            user_specified: wanted.to_owned(),
            handler: sandbox.handler.clone(),
            annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        };
        let inspect = |error: &RuntimeError| {
            let message = format!("Failed to inspect image {wanted:?}: {error}");
            refuse("InspectFailed", "ImageInspectError", message)
        };
        let present = self
            .runtime
            .image(&spec)
            .await
            .map_err(|error| inspect(&error))?;
        match (policy(container, wanted), present) {
            (Policy::Never | Policy::IfNotPresent, Some(image)) => {
                let message = format!(
                    "Container image {wanted:?} already present on machine and can be accessed by the pod"
                );
                tell(EventType::Normal, "Pulled", &message);
                return Ok(image);
            }
            (Policy::Never, None) => {
                let message =
                    format!("Container image {wanted:?} is not present with pull policy of Never");
                return Err(refuse("ErrImageNeverPull", "ErrImageNeverPull", message));
            }
            _ => {}
        }

        let key = format!(
            "{}_{wanted}",
            pod.metadata.uid.as_deref().unwrap_or_default()
        );
        let early = {
            let back_off = self.back_off.lock();
            back_off.too_early(&key, self.env.now()).map(str::to_owned)
        };
        if let Some(why) = early {
            let message = format!("Back-off pulling image {wanted:?}");
            tell(EventType::Normal, "BackOff", &message);
            let message = format!("{message}: {why}");
            return Err(Refusal {
                reason: "ImagePullBackOff".into(),
                message,
            });
        }
        tell(
            EventType::Normal,
            "Pulling",
            &format!("Pulling image {wanted:?}"),
        );
        let start = self.env.now();
        match self.pull(pod, container, &spec, sandbox).await {
            Ok((image, took)) => {
                let message = format!(
                    "Successfully pulled image {wanted:?} in {} ({} including waiting). Image size: {} bytes.",
                    duration::text(took),
                    duration::text(self.env.now().since(start)),
                    image.size
                );
                tell(EventType::Normal, "Pulled", &message);
                self.back_off.lock().forget_old(self.env.now());
                Ok(image)
            }
            Err(error) => {
                tell(
                    EventType::Warning,
                    "Failed",
                    &format!("Failed to pull image {wanted:?}: {error}"),
                );
                let refusal = classify(wanted, &error);
                let why = format!("{}: {}", refusal.reason, refusal.message);
                self.back_off.lock().failed(&key, self.env.now(), why);
                Err(refusal)
            }
        }
    }

    /// Pulls an image when it is its turn, with each of the credentials that fit until one does. Returns it with how long it took.
    async fn pull(
        &self,
        pod: &Pod,
        container: &Container,
        spec: &ImageSpec,
        sandbox: &SandboxConfig,
    ) -> Result<(Image, Duration), RuntimeError> {
        let credentials = self.credentials(pod, container, &spec.image).await;
        let _turn = match &self.turn {
            // The semaphore is never closed.
            Some(turn) => turn.acquire().await.ok(),
            None => None,
        };
        let start = self.env.now();
        let mut request = PullRequest {
            image: spec.clone(),
            auth: None,
            sandbox: Some(sandbox.clone()),
        };
        let mut errors: Vec<RuntimeError> = Vec::new();
        let mut pulled = None;
        let anybody = credentials.is_empty().then_some(None);
        for auth in credentials.into_iter().map(Some).chain(anybody) {
            request.auth = auth.map(|own| RegistryAuth {
                username: own.username,
                password: own.password,
                ..RegistryAuth::default()
            });
            match self.runtime.pull_image(&request).await {
                Ok(id) => {
                    pulled = Some(id);
                    break;
                }
                Err(error) if errors.contains(&error) => {}
                Err(error) => errors.push(error),
            }
        }
        let Some(id) = pulled else {
            return Err(match errors.len() {
                1 => errors.remove(0),
                _ => {
                    let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
                    RuntimeError::Failed(format!("[{}]", all.join(", ")))
                }
            });
        };
        let took = self.env.now().since(start);
        let found = self.runtime.image(&ImageSpec::from(&id)).await?;
        // Between pull and look it may have been removed again; the name says what it was.
        let found = found.ok_or_else(|| RuntimeError::not_found("image", &spec.image))?;
        Ok((found, took))
    }

    /// The credentials for an image: those of the pod's pull secrets (into which the API server puts its service account's), then the
    /// node's own.
    async fn credentials(&self, pod: &Pod, container: &Container, image: &str) -> Vec<Credentials> {
        let Ok(name) = ImageName::parse(image) else {
            return Vec::new();
        };
        let mut keyring = Keyring::default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut missing = Vec::new();
        let secrets = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.image_pull_secrets.as_ref());
        for reference in secrets.into_iter().flatten() {
            // A pod may name the empty secret, and means none.
            if reference.name.is_empty() {
                continue;
            }
            match self.objects.secret(namespace, &reference.name).await {
                Ok(Some(secret)) => match credentials::of_secret(&secret) {
                    Ok(found) => keyring.add(found),
                    Err(error) => {
                        tracing::warn!(namespace, secret = %reference.name, %error, "a pull secret cannot be read");
                    }
                },
                Ok(None) => missing.push(reference.name.as_str()),
                Err(error) => {
                    tracing::warn!(namespace, secret = %reference.name, %error, "a pull secret cannot be had");
                    missing.push(reference.name.as_str());
                }
            }
        }
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            let mut about = reference_of(pod, container);
            about.field_path.clear();
            self.recorder
                .warning(about, "FailedToRetrieveImagePullSecret", message);
        }
        let mut found = keyring.lookup(&name.repository());
        let path = self.own_credentials.clone();
        let own = blocking(move || {
            let small = std::fs::metadata(&path).is_ok_and(|file| file.len() <= FILE_LIMIT);
            small.then(|| std::fs::read(&path).ok()).flatten()
        });
        if let Some(file) = own.await {
            match credentials::config_json(&file) {
                Ok(own) => {
                    let mut keyring = Keyring::default();
                    keyring.add(own);
                    found.extend(keyring.lookup(&name.repository()));
                }
                Err(error) => {
                    tracing::warn!(path = ?self.own_credentials, %error, "the node's credentials cannot be read");
                }
            }
        }
        found
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    Always,
    IfNotPresent,
    Never,
}

/// The policy of a container. Where the API has not put it in, as in a manifest: always for the latest, else if it is not there.
fn policy(container: &Container, image: &str) -> Policy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => Policy::Always,
        Some("Never") => Policy::Never,
        Some("IfNotPresent") => Policy::IfNotPresent,
        _ => {
            let name = ImageName::parse(image);
            let latest = name.is_ok_and(|name| {
                name.digest.is_none() && name.tag.is_none_or(|tag| tag == "latest")
            });
            if latest {
                Policy::Always
            } else {
                Policy::IfNotPresent
            }
        }
    }
}

/// Which reason a pull's failure has. Runtimes tell some by a word at the beginning of their message (CRI's `errors` package).
fn classify(image: &str, error: &RuntimeError) -> Refusal {
    let text = error.to_string();
    let rest = |word: &str| {
        Some(
            text.split_once(word)?
                .1
                .trim_start_matches([':', ' '])
                .to_owned(),
        )
    };
    let because = |reason: &'static str, what: &str, why: &str| {
        let colon = if why.is_empty() { "" } else { ": " };
        let message = format!("image pull failed for {image} because {what}{colon}{why}");
        Refusal {
            reason: reason.into(),
            message,
        }
    };
    if let Some(why) = rest("RegistryUnavailable") {
        return because("RegistryUnavailable", "the registry is unavailable", &why);
    }
    if let Some(why) = rest("SignatureValidationFailed") {
        return because(
            "SignatureValidationFailed",
            "the signature validation failed",
            &why,
        );
    }
    match error {
        RuntimeError::Unavailable(why) => {
            because("RegistryUnavailable", "the registry is unavailable", why)
        }
        _ => Refusal {
            reason: "ErrImagePull".into(),
            message: text,
        },
    }
}

#[async_trait]
impl Images for ImageManager {
    async fn ensure(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        sandbox: &SandboxConfig,
    ) -> Result<Image, PartError> {
        let done = self.0.ensure(pod, container, sandbox).await;
        // Its events have been told, but for the one that names the reason, which the worker tells of whatever keeps a container from
        // starting.
        done.map_err(|Refusal { reason, message }| PartError {
            waiting: Some(reason),
            event: "".into(),
            message,
        })
    }
}
