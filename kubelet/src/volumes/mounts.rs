//! The mounts of a container.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, VolumeMount};
use orlop_core::runtime::{EnvVar, Mount, MountPropagation};

use super::mounter::Mounter;
use super::sub_path;
use crate::blocking::blocking;
use crate::parts::{PartError, PodVolumes, ReadyVolume};

/// What the mounts of a container are made with.
pub(super) struct ContainerMounts<'a> {
    pub(super) pod_dir: PathBuf,
    pub(super) container: &'a Container,
    pub(super) volumes: &'a PodVolumes,
    pub(super) env: &'a [EnvVar],
    pub(super) mounter: &'a Arc<dyn Mounter>,
    /// Whether the runtime can make mounts read-only with all that lies below.
    pub(super) recursive_read_only: bool,
}

fn refuse(why: String) -> PartError {
    PartError::new("CreateContainerConfigError", "Failed", why)
}

impl ContainerMounts<'_> {
    pub(super) async fn all(&self) -> Result<Vec<Mount>, PartError> {
        let mut mounts = Vec::new();
        let wanted = self.container.volume_mounts.iter().flatten();
        for (index, wanted) in wanted.enumerate() {
            mounts.push(self.one(index, wanted).await?);
        }
        Ok(mounts)
    }

    async fn one(&self, index: usize, wanted: &VolumeMount) -> Result<Mount, PartError> {
        let Some(volume) = self.volumes.by_name.get(&wanted.name) else {
            return Err(refuse(format!(
                "cannot find volume {:?} to mount into container {:?}",
                wanted.name, self.container.name
            )));
        };
        let sub_path = match wanted.sub_path_expr.as_deref().unwrap_or_default() {
            "" => wanted.sub_path.clone().unwrap_or_default(),
            expression => expand(expression, self.env).map_err(refuse)?,
        };
        let source = if sub_path.is_empty() {
            volume.path.clone()
        } else {
            self.part(index, wanted, volume, sub_path).await?
        };
        let mut container_path = PathBuf::from(&wanted.mount_path);
        if container_path.is_relative() {
            container_path = Path::new("/").join(container_path);
        }
        let mut mount = Mount::host(source, container_path);
        mount.read_only = wanted.read_only == Some(true) || volume.read_only;
        mount.propagation = match wanted.mount_propagation.as_deref() {
            None | Some("None") => MountPropagation::Private,
            Some("HostToContainer") => MountPropagation::HostToContainer,
            Some("Bidirectional") => MountPropagation::Bidirectional,
            Some(other) => {
                let why = format!("invalid MountPropagation mode: {other:?}");
                return Err(refuse(why));
            }
        };
        mount.recursive_read_only = self.recursive(wanted).map_err(refuse)?;
        Ok(mount)
    }

    /// A part of a volume, where no container can change what it is.
    async fn part(
        &self,
        index: usize,
        wanted: &VolumeMount,
        volume: &ReadyVolume,
        sub_path: String,
    ) -> Result<PathBuf, PartError> {
        sub_path::check(&sub_path).map_err(refuse)?;
        let target = sub_path::base(&self.pod_dir)
            .join(&wanted.name)
            .join(&self.container.name)
            .join(index.to_string());
        let (mounter, volume) = (self.mounter.clone(), volume.clone());
        let (place, path) = (target.clone(), PathBuf::from(sub_path));
        let tried = blocking(move || {
            let there = std::fs::metadata(volume.path.join(&path)).is_ok();
            if !there && volume.may_create_sub_path {
                sub_path::make_dir(&volume.path, &path)
                    .map_err(|error| ("create subPath directory", error))?;
            }
            sub_path::bind(&*mounter, &volume.path, &path, &place)
                .map_err(|error| ("prepare subPath", error))
        });
        // Users are told what failed, not why: that would tell of the host's files.
        tried.await.map_err(|(what, error)| {
            let (volume, container) = (&wanted.name, &self.container.name);
            tracing::warn!(%volume, %container, path = %target.display(), %error, "cannot {what}");
            refuse(format!(
                "failed to {what} for volumeMount {volume:?} of container {container:?}"
            ))
        })?;
        Ok(target)
    }

    /// Whether a mount is read-only with all that lies below. The errors are upstream's words.
    fn recursive(&self, wanted: &VolumeMount) -> Result<bool, String> {
        let name = &wanted.name;
        let asks = format!("volume {name:?} requested recursive read-only mode, but it is not");
        let mode = match wanted.recursive_read_only.as_deref() {
            None | Some("Disabled") => return Ok(false),
            Some(mode) => mode,
        };
        if wanted.read_only != Some(true) {
            return Err(format!("{asks} read-only"));
        }
        let propagation = wanted.mount_propagation.as_deref().unwrap_or("None");
        if propagation != "None" {
            return Err(format!(
                "{asks} compatible with propagation {propagation:?}"
            ));
        }
        match mode {
            "IfPossible" => Ok(self.recursive_read_only),
            "Enabled" if self.recursive_read_only => Ok(true),
            "Enabled" => Err(format!("{asks} supported by the runtime")),
            other => Err(format!("unknown recursive read-only mode {other:?}")),
        }
    }
}

/// Puts the environment into an expression: `$(NAME)` is the value of a variable, `$$` a dollar sign, and what is neither stays. Every
/// variable must be there and not be empty.
fn expand(expression: &str, env: &[EnvVar]) -> Result<String, String> {
    let mut missing = std::collections::BTreeSet::new();
    let mut out = String::new();
    let mut rest = expression;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) =
            rest.strip_prefix('(').and_then(|tail| tail.split_once(')'))
        {
            // The last one of a name counts.
            let value = env.iter().rev().find(|var| var.name == name);
            match value.and_then(|var| std::str::from_utf8(&var.value).ok()) {
                Some(value) if !value.is_empty() => out.push_str(value),
                _ => {
                    missing.insert(name);
                }
            }
            rest = tail;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    if missing.is_empty() {
        return Ok(out);
    }
    let names: Vec<&str> = missing.into_iter().collect();
    Err(format!("missing value for {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_expanded() {
        let var = |name: &str, value: &str| EnvVar {
            name: name.to_owned(),
            value: value.to_owned().into(),
        };
        let env = [
            var("A", "old"),
            var("A", "1"),
            var("B", "x/y"),
            var("E", ""),
        ];
        for (expression, expected) in [
            ("plain", Ok("plain")),
            ("$(A)", Ok("1")),
            ("p/$(A)/$(B)$(A)", Ok("p/1/x/y1")),
            ("$$(A)", Ok("$(A)")),
            ("$A$", Ok("$A$")),
            ("$(A", Ok("$(A")),
            ("$(E)", Err("missing value for E")),
            ("$(Z)/$(Y)/$(Z)", Err("missing value for Y, Z")),
        ] {
            let expanded = expand(expression, &env);
            let expanded = expanded.as_deref().map_err(String::as_str);
            assert_eq!(expanded, expected, "{expression}");
        }
    }
}
