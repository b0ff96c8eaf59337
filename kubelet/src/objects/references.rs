//! Which objects a pod names.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Pod, Volume};
use orlop_core::resource::Resource;

/// The kinds of objects that a pod can take contents from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl ObjectKind {
    /// The resource of the kind.
    #[must_use]
    pub const fn resource(self) -> Resource {
        match self {
            Self::ConfigMap => Resource::namespaced("", "v1", "configmaps", "ConfigMap"),
            Self::Secret => Resource::namespaced("", "v1", "secrets", "Secret"),
        }
    }
}

/// An object that a pod names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its namespace, which is the pod's.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// All ConfigMaps and Secrets that a pod names: in environments, volumes and as pull secrets. Optional ones too.
#[must_use]
pub fn references(pod: &Pod) -> BTreeSet<ObjectRef> {
    let mut found = Found {
        namespace: pod.metadata.namespace.as_deref().unwrap_or_default(),
        refs: BTreeSet::new(),
    };
    let Some(spec) = &pod.spec else {
        return found.refs;
    };
    for secret in spec.image_pull_secrets.iter().flatten() {
        found.secret(&secret.name);
    }
    let containers = spec.init_containers.iter().flatten();
    for container in containers.chain(&spec.containers) {
        found.environment(container.env.as_deref(), container.env_from.as_deref());
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        found.environment(container.env.as_deref(), container.env_from.as_deref());
    }
    for volume in spec.volumes.iter().flatten() {
        found.volume(volume);
    }
    found.refs
}

struct Found<'a> {
    namespace: &'a str,
    refs: BTreeSet<ObjectRef>,
}

impl Found<'_> {
    fn add(&mut self, kind: ObjectKind, name: &str) {
        if !name.is_empty() {
            self.refs.insert(ObjectRef {
                kind,
                namespace: self.namespace.to_owned(),
                name: name.to_owned(),
            });
        }
    }

    fn config_map(&mut self, name: &str) {
        self.add(ObjectKind::ConfigMap, name);
    }

    fn secret(&mut self, name: &str) {
        self.add(ObjectKind::Secret, name);
    }

    fn environment(&mut self, env: Option<&[EnvVar]>, from: Option<&[EnvFromSource]>) {
        for source in env
            .unwrap_or_default()
            .iter()
            .filter_map(|var| var.value_from.as_ref())
        {
            if let Some(key) = &source.config_map_key_ref {
                self.config_map(&key.name);
            }
            if let Some(key) = &source.secret_key_ref {
                self.secret(&key.name);
            }
        }
        for source in from.unwrap_or_default() {
            if let Some(map) = &source.config_map_ref {
                self.config_map(&map.name);
            }
            if let Some(secret) = &source.secret_ref {
                self.secret(&secret.name);
            }
        }
    }

    fn volume(&mut self, volume: &Volume) {
        if let Some(map) = &volume.config_map {
            self.config_map(&map.name);
        }
        if let Some(secret) = &volume.secret {
            self.secret(secret.secret_name.as_deref().unwrap_or_default());
        }
        let projected = volume.projected.as_ref();
        for source in projected
            .and_then(|projected| projected.sources.as_ref())
            .into_iter()
            .flatten()
        {
            if let Some(map) = &source.config_map {
                self.config_map(&map.name);
            }
            if let Some(secret) = &source.secret {
                self.secret(&secret.name);
            }
        }
    }
}
