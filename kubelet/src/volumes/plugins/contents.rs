//! Volumes whose files come from the API: `configMap`, `secret` and `downwardAPI`.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, Volume};

use super::super::atomic_writer::{self, Payload, Projection};
use super::super::error::VolumeError;
use super::super::memory::tmpfs_size;
use super::super::plugin::{VolumePlugin, VolumeRequest};
use crate::blocking::blocking;
use crate::downward::{Addresses, Allocatable, field, resource};
use crate::objects::ObjectCache;
use crate::parts::ReadyVolume;
use crate::tokens::TokenManager;

/// Gives what the node has for pods now.
pub type AllocatableSource = Arc<dyn Fn() -> Allocatable + Send + Sync>;

/// The permissions of files where nobody says otherwise; what the API puts into `defaultMode`.
const DEFAULT_MODE: i32 = 0o644;

/// The permissions of the volume's own directory; as upstream, whatever the umask.
const DIR_MODE: u32 = 0o777;

/// Where the contents of volumes come from.
#[derive(Clone)]
pub struct Contents {
    /// ConfigMaps and Secrets.
    pub objects: ObjectCache,
    /// Tokens of service accounts.
    pub tokens: TokenManager,
    /// What the node has, for limits that nobody set.
    pub allocatable: AllocatableSource,
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contents")
            .field("objects", &self.objects)
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

/// Which keys of an object become which files.
pub(super) struct Keys<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) items: Option<&'a [KeyToPath]>,
    pub(super) optional: bool,
    pub(super) default_mode: u32,
}

/// The permissions that a number of the API means.
pub(super) fn mode(own: Option<i32>, default: u32) -> u32 {
    own.map_or(default, |mode| mode.unsigned_abs() & 0o7777)
}

/// `defaultMode`.
pub(super) fn default_mode(own: Option<i32>) -> u32 {
    mode(Some(own.unwrap_or(DEFAULT_MODE)), 0)
}

impl Contents {
    pub(super) async fn config_map(&self, keys: &Keys<'_>) -> Result<Payload, VolumeError> {
        let found = self.objects.config_map(keys.namespace, keys.name).await?;
        if found.is_none() && !keys.optional {
            let why = format!("configmap \"{}\" not found", keys.name);
            return Err(VolumeError::Refused(why));
        }
        let mut data = BTreeMap::new();
        if let Some(map) = &found {
            for (key, text) in map.data.iter().flatten() {
                data.insert(key.as_str(), text.as_bytes());
            }
            for (key, bytes) in map.binary_data.iter().flatten() {
                data.insert(key.as_str(), bytes.0.as_slice());
            }
        }
        choose(&data, keys, |key| {
            format!("configmap references non-existent config key: {key}")
        })
    }

    pub(super) async fn secret(&self, keys: &Keys<'_>) -> Result<Payload, VolumeError> {
        let found = self.objects.secret(keys.namespace, keys.name).await?;
        if found.is_none() && !keys.optional {
            let why = format!("secret \"{}\" not found", keys.name);
            return Err(VolumeError::Refused(why));
        }
        let mut data = BTreeMap::new();
        if let Some(secret) = &found {
            for (key, bytes) in secret.data.iter().flatten() {
                data.insert(key.as_str(), bytes.0.as_slice());
            }
        }
        choose(&data, keys, |key| {
            format!("references non-existent secret key: {key}")
        })
    }

    pub(super) fn downward(
        &self,
        pod: &Pod,
        items: &[DownwardAPIVolumeFile],
        default_mode: u32,
    ) -> Result<Payload, VolumeError> {
        let mut payload = Payload::new();
        let mut errors = Vec::new();
        for item in items {
            let text = if let Some(reference) = &item.field_ref {
                // No field of a file is an address: the API refuses such.
                field(pod, &reference.field_path, Addresses::default())
            } else if let Some(reference) = &item.resource_field_ref {
                resource(pod, None, reference, &(self.allocatable)())
            } else {
                continue;
            };
            match text {
                Ok(text) => {
                    let file = Projection {
                        data: Bytes::from(text),
                        mode: mode(item.mode, default_mode),
                        user: None,
                    };
                    payload.insert(item.path.clone(), file);
                }
                Err(error) => errors.push(error.into()),
            }
        }
        VolumeError::of_all(errors)?;
        Ok(payload)
    }

    /// Makes the files of a volume those that were found, in memory if they are secret and the agent may mount. If that fails, but the
    /// volume was made before, it stays as it is.
    pub(super) async fn show(
        &self,
        request: &VolumeRequest<'_>,
        found: Result<Payload, VolumeError>,
        secret: bool,
    ) -> Result<ReadyVolume, VolumeError> {
        let ready = ReadyVolume {
            path: request.dir.clone(),
            read_only: true,
            may_create_sub_path: true,
        };
        let shown = match found {
            Ok(payload) => self.write(request, payload, secret).await,
            Err(error) => Err(error),
        };
        let Err(error) = shown else { return Ok(ready) };
        let dir = request.dir.clone();
        if blocking(move || atomic_writer::has_data(&dir)).await {
            let source = Box::new(error);
            return Err(VolumeError::Outdated { ready, source });
        }
        Err(error)
    }

    async fn write(
        &self,
        request: &VolumeRequest<'_>,
        payload: Payload,
        secret: bool,
    ) -> Result<(), VolumeError> {
        request.make_dir(DIR_MODE).await?;
        if secret {
            let size = tmpfs_size(request.pod, None, &(self.allocatable)());
            match request.make_tmpfs(size, DIR_MODE).await {
                Err(VolumeError::Io { source, .. })
                    if source.kind() == io::ErrorKind::PermissionDenied =>
                {
                    tracing::debug!(volume = %request.volume.name, "no mount without privileges: the files are on disk");
                }
                other => {
                    other?;
                }
            }
        }
        request.write_files(payload).await
    }
}

/// The keys that are wanted, as files.
fn choose(
    data: &BTreeMap<&str, &[u8]>,
    keys: &Keys<'_>,
    missing: impl Fn(&str) -> String,
) -> Result<Payload, VolumeError> {
    let file = |data: &[u8], mode| Projection {
        data: Bytes::copy_from_slice(data),
        mode,
        user: None,
    };
    let Some(items) = keys.items.filter(|items| !items.is_empty()) else {
        let all = data.iter();
        return Ok(all
            .map(|(key, data)| ((*key).to_owned(), file(data, keys.default_mode)))
            .collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(data) => {
                let file = file(data, mode(item.mode, keys.default_mode));
                payload.insert(item.path.clone(), file);
            }
            None if keys.optional => {}
            None => return Err(VolumeError::Refused(missing(&item.key))),
        }
    }
    Ok(payload)
}

fn not_this(kind: &str) -> VolumeError {
    VolumeError::Refused(format!("the volume is no {kind}"))
}

/// `configMap`: the keys of a ConfigMap as files.
#[derive(Clone, Debug)]
pub struct ConfigMaps(pub Contents);

#[async_trait]
impl VolumePlugin for ConfigMaps {
    fn name(&self) -> &str {
        "kubernetes.io/configmap"
    }

    fn handles(&self, volume: &Volume) -> bool {
        volume.config_map.is_some()
    }

    async fn set_up(&self, request: &VolumeRequest<'_>) -> Result<ReadyVolume, VolumeError> {
        let source = request.volume.config_map.as_ref();
        let source = source.ok_or_else(|| not_this("configMap"))?;
        let keys = Keys {
            namespace: request.namespace(),
            name: &source.name,
            items: source.items.as_deref(),
            optional: source.optional == Some(true),
            default_mode: default_mode(source.default_mode),
        };
        let found = self.0.config_map(&keys).await;
        self.0.show(request, found, false).await
    }
}

/// `secret`: the keys of a Secret as files in memory.
#[derive(Clone, Debug)]
pub struct Secrets(pub Contents);

#[async_trait]
impl VolumePlugin for Secrets {
    fn name(&self) -> &str {
        "kubernetes.io/secret"
    }

    fn handles(&self, volume: &Volume) -> bool {
        volume.secret.is_some()
    }

    async fn set_up(&self, request: &VolumeRequest<'_>) -> Result<ReadyVolume, VolumeError> {
        let source = request.volume.secret.as_ref();
        let source = source.ok_or_else(|| not_this("secret"))?;
        let keys = Keys {
            namespace: request.namespace(),
            name: source.secret_name.as_deref().unwrap_or_default(),
            items: source.items.as_deref(),
            optional: source.optional == Some(true),
            default_mode: default_mode(source.default_mode),
        };
        let found = self.0.secret(&keys).await;
        self.0.show(request, found, true).await
    }
}

/// `downwardAPI`: what the pod can be told of itself, as files in memory.
#[derive(Clone, Debug)]
pub struct DownwardApi(pub Contents);

#[async_trait]
impl VolumePlugin for DownwardApi {
    fn name(&self) -> &str {
        "kubernetes.io/downward-api"
    }

    fn handles(&self, volume: &Volume) -> bool {
        volume.downward_api.is_some()
    }

    async fn set_up(&self, request: &VolumeRequest<'_>) -> Result<ReadyVolume, VolumeError> {
        let source = request.volume.downward_api.as_ref();
        let source = source.ok_or_else(|| not_this("downwardAPI"))?;
        let items = source.items.as_deref().unwrap_or_default();
        let mode = default_mode(source.default_mode);
        let found = self.0.downward(request.pod, items, mode);
        self.0.show(request, found, true).await
    }
}
