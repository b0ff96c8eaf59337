//! A container's environment.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{ConfigMap, EnvVarSource, FileKeySelector, Secret};
use orlop_core::events::EventRecorder;
use orlop_core::runtime::EnvVar;

use super::env_file;
use super::expansion::expand;
use super::services::{self, Services};
use super::words::reference_of;
use crate::blocking::blocking;
use crate::config::KubeletConfig;
use crate::downward;
use crate::objects::ObjectCache;
use crate::parts::ContainerRequest;
use crate::volumes::AllocatableSource;

/// What environments are made of.
pub(super) struct Surroundings<'a> {
    pub(super) config: &'a KubeletConfig,
    pub(super) objects: &'a ObjectCache,
    pub(super) services: &'a dyn Services,
    pub(super) allocatable: &'a AllocatableSource,
    pub(super) recorder: &'a EventRecorder,
}

type Variables = BTreeMap<String, Bytes>;

impl Surroundings<'_> {
    /// The environment of a container, in order of the names: what `envFrom` says, what `env` says over it, and Services where neither
    /// says anything.
    ///
    /// # Errors
    /// What is missing, in Kubernetes' words.
    pub(super) async fn environment(
        &self,
        request: &ContainerRequest<'_>,
    ) -> Result<Vec<EnvVar>, String> {
        let pod = request.pod;
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links);
        let of_services = match services::variables(self.services, namespace, links.unwrap_or(true))
        {
            Some(all) => all,
            // A pod of the control plane cannot wait for the control plane.
            None if is_static(request) => BTreeMap::new(),
            None => {
                return Err(
                    "services have not yet been read at least once, cannot construct envvars"
                        .to_owned(),
                );
            }
        };
        let mut all = self.of_sources(request, namespace).await?;
        for variable in request.container.env.iter().flatten() {
            let plain = variable.value.as_deref().filter(|value| !value.is_empty());
            let value = if let Some(text) = plain {
                let known = |name: &str| {
                    let own = all.get(name).cloned();
                    own.or_else(|| {
                        of_services
                            .get(name)
                            .map(|value| Bytes::from(value.clone()))
                    })
                };
                Some(Bytes::from(expand(text, known)))
            } else if let Some(source) = &variable.value_from {
                self.of_source(request, namespace, source).await?
            } else {
                Some(Bytes::new())
            };
            // What is missing and optional is left out, and leaves what was there.
            if let Some(value) = value {
                all.insert(variable.name.clone(), value);
            }
        }
        for (name, value) in of_services {
            all.entry(name).or_insert_with(|| value.into());
        }
        Ok(all
            .into_iter()
            .map(|(name, value)| EnvVar { name, value })
            .collect())
    }

    /// `envFrom`.
    async fn of_sources(
        &self,
        request: &ContainerRequest<'_>,
        namespace: &str,
    ) -> Result<Variables, String> {
        let mut all = Variables::new();
        for source in request.container.env_from.iter().flatten() {
            let (kind, name, entries) = if let Some(reference) = &source.config_map_ref {
                let optional = reference.optional == Some(true);
                let map = self
                    .config_map(namespace, &reference.name, optional)
                    .await?;
                (
                    "configMap",
                    &reference.name,
                    map.map(|map| of_config_map(&map)),
                )
            } else if let Some(reference) = &source.secret_ref {
                let optional = reference.optional == Some(true);
                let secret = self.secret(namespace, &reference.name, optional).await?;
                (
                    "secret",
                    &reference.name,
                    secret.map(|secret| of_secret(&secret)),
                )
            } else {
                continue;
            };
            let prefix = source.prefix.as_deref().unwrap_or_default();
            let mut invalid = Vec::new();
            for (key, value) in entries.into_iter().flatten() {
                let key = format!("{prefix}{key}");
                if is_name(&key) {
                    all.insert(key, value);
                } else {
                    invalid.push(key);
                }
            }
            if !invalid.is_empty() {
                let mut about = reference_of(request.pod, request.container);
                about.field_path.clear();
                let message = format!(
                    "Keys [{}] from the EnvFrom {kind} {namespace}/{name} were skipped since they are considered invalid environment variable names.",
                    invalid.join(", ")
                );
                self.recorder
                    .warning(about, "InvalidEnvironmentVariableNames", message);
            }
        }
        Ok(all)
    }

    /// `valueFrom`; `None` for what is missing and optional.
    async fn of_source(
        &self,
        request: &ContainerRequest<'_>,
        namespace: &str,
        source: &EnvVarSource,
    ) -> Result<Option<Bytes>, String> {
        let pod = request.pod;
        if let Some(field) = &source.field_ref {
            let addresses = downward::Addresses {
                host: &self.config.node_ips,
                pod: request.pod_ips,
            };
            let value = downward::field(pod, &field.field_path, addresses);
            return Ok(Some(value.map_err(|error| error.to_string())?.into()));
        }
        if let Some(resource) = &source.resource_field_ref {
            let own = Some(request.container);
            let value = downward::resource(pod, own, resource, &(self.allocatable)());
            return Ok(Some(value.map_err(|error| error.to_string())?.into()));
        }
        if let Some(reference) = &source.config_map_key_ref {
            let (name, key) = (&reference.name, &reference.key);
            let optional = reference.optional == Some(true);
            let Some(map) = self.config_map(namespace, name, optional).await? else {
                return Ok(None);
            };
            return match map.data.as_ref().and_then(|data| data.get(key)) {
                Some(value) => Ok(Some(value.clone().into())),
                None if optional => Ok(None),
                None => Err(format!(
                    "couldn't find key {key} in ConfigMap {namespace}/{name}"
                )),
            };
        }
        if let Some(reference) = &source.secret_key_ref {
            let (name, key) = (&reference.name, &reference.key);
            let optional = reference.optional == Some(true);
            let Some(secret) = self.secret(namespace, name, optional).await? else {
                return Ok(None);
            };
            return match secret.data.as_ref().and_then(|data| data.get(key)) {
                Some(value) => Ok(Some(value.0.clone().into())),
                None if optional => Ok(None),
                None => Err(format!(
                    "couldn't find key {key} in Secret {namespace}/{name}"
                )),
            };
        }
        if let Some(reference) = &source.file_key_ref {
            return from_file(request, reference).await;
        }
        Ok(Some(Bytes::new()))
    }

    async fn config_map(
        &self,
        namespace: &str,
        name: &str,
        optional: bool,
    ) -> Result<Option<Arc<ConfigMap>>, String> {
        let found = self.objects.config_map(namespace, name).await;
        match found.map_err(|status| status.message)? {
            None if !optional => Err(format!("configmap {name:?} not found")),
            found => Ok(found),
        }
    }

    async fn secret(
        &self,
        namespace: &str,
        name: &str,
        optional: bool,
    ) -> Result<Option<Arc<Secret>>, String> {
        let found = self.objects.secret(namespace, name).await;
        match found.map_err(|status| status.message)? {
            None if !optional => Err(format!("secret {name:?} not found")),
            found => Ok(found),
        }
    }
}

/// Whether a pod came from somewhere else than the API.
fn is_static(request: &ContainerRequest<'_>) -> bool {
    let annotations = request.pod.metadata.annotations.as_ref();
    let source = annotations.and_then(|all| all.get("kubernetes.io/config.source"));
    source.is_some_and(|source| source != "api")
}

fn of_config_map(map: &ConfigMap) -> Variables {
    let data = map.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), value.clone().into()))
        .collect()
}

fn of_secret(secret: &Secret) -> Variables {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), value.0.clone().into()))
        .collect()
}

/// What the kernel and programs can live with: anything that can be printed in ASCII, but `=`.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}

/// `fileKeyRef`: a variable out of a file that an earlier container left in a volume.
async fn from_file(
    request: &ContainerRequest<'_>,
    reference: &FileKeySelector,
) -> Result<Option<Bytes>, String> {
    let FileKeySelector {
        key,
        path,
        volume_name,
        ..
    } = reference;
    let optional = reference.optional == Some(true);
    let volume = request.volumes.by_name.get(volume_name);
    let volume = volume
        .ok_or_else(|| format!("volume {volume_name:?} not found"))?
        .path
        .clone();
    let file = PathBuf::from(path);
    if !file
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Err(format!("path {path:?} must stay inside its volume"));
    }
    let text = blocking(move || read_below(&volume, &file)).await;
    let text = text.map_err(|error| {
        format!("couldn't parse env file {path:?} of volume {volume_name:?}: {error}")
    })?;
    let Some(text) = text else {
        return if optional {
            Ok(None)
        } else {
            Err(format!(
                "env file {path:?} not found in volume {volume_name:?}"
            ))
        };
    };
    let value = env_file::value(&text, key).map_err(|error| {
        format!("couldn't parse env file {path:?} of volume {volume_name:?}: {error}")
    })?;
    match value {
        Some(value) => Ok(Some(value.into())),
        None if optional => Ok(None),
        None => Err(format!(
            "environment variable key {key:?} not found in file {path:?}"
        )),
    }
}

/// A small file below a directory, whatever links are on the way; `None` if it is not there.
fn read_below(root: &Path, file: &Path) -> Result<Option<String>, String> {
    let text = |error: std::io::Error| error.to_string();
    let root = root.canonicalize().map_err(text)?;
    let path = match root.join(file).canonicalize() {
        Ok(path) => path,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(text(error)),
    };
    if !path.starts_with(&root) {
        return Err("it leads out of the volume".to_owned());
    }
    let about = std::fs::symlink_metadata(&path).map_err(text)?;
    if !about.is_file() || about.len() > env_file::LARGEST_FILE {
        return Err(format!(
            "it is no file of at most {} bytes",
            env_file::LARGEST_FILE
        ));
    }
    std::fs::read_to_string(&path).map(Some).map_err(text)
}
