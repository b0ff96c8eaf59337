//! [`VolumePlugin`].

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, Volume};
use orlop_core::env::Env;

use super::atomic_writer::{self, Payload};
use super::error::{Tried, VolumeError};
use super::mounter::Mounter;
use super::tree::{self, GroupAccess};
use crate::blocking::blocking;
use crate::parts::ReadyVolume;

/// A kind of volume.
#[async_trait]
pub trait VolumePlugin: Send + Sync + 'static {
    /// Its qualified name, such as `kubernetes.io/configmap`. The directories of its volumes have this name, with `~` for `/`.
    fn name(&self) -> &str;

    /// Whether a volume is of this kind. The first plug-in that says so makes it.
    fn handles(&self, volume: &Volume) -> bool;

    /// Makes a volume ready, or brings one that is ready up to date. Called at every sync of the pod, also while its containers run, and
    /// after a restart of the agent for a volume that an earlier one made; so it looks at what is there, and changes only what differs.
    /// What blocks must not hold up the caller's thread (see [`VolumeRequest::make_dir`]).
    ///
    /// # Errors
    /// Why it is not ready; asked again later. What was ready before should stay as it was.
    async fn set_up(&self, request: &VolumeRequest<'_>) -> Result<ReadyVolume, VolumeError>;

    /// Undoes what [`set_up`](Self::set_up) did outside of the volume's directory, when the pod's containers are gone. The directory
    /// itself is the manager's: it ends all mounts in it and removes it. Called again after a failure, and after a restart.
    ///
    /// # Errors
    /// Why it cannot; the directory stays, and the manager is asked again later.
    async fn tear_down(&self, dir: &Path) -> Result<(), VolumeError> {
        let _ = dir;
        Ok(())
    }
}

/// A volume that is wanted.
#[derive(Clone)]
pub struct VolumeRequest<'a> {
    /// The pod.
    pub pod: &'a Arc<Pod>,
    /// The volume, as the pod has it.
    pub volume: &'a Volume,
    /// Where it should be: a directory of its own, which [`make_dir`](Self::make_dir) makes.
    pub dir: PathBuf,
    /// The kernel's mounts.
    pub mounter: &'a Arc<dyn Mounter>,
    /// Time and chance.
    pub env: &'a Env,
    /// A file that is there once the volume has been set up.
    pub(super) marker: PathBuf,
}

impl VolumeRequest<'_> {
    /// The group that all files of the pod's volumes belong to: `securityContext.fsGroup`.
    #[must_use]
    pub fn fs_group(&self) -> Option<u32> {
        let context = self.pod.spec.as_ref()?.security_context.as_ref()?;
        context.fs_group.and_then(|group| group.try_into().ok())
    }

    /// The namespace of the pod.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// What [`remember`](Self::remember) was last given for this volume of this pod, be it by an earlier agent. For what is to be done
    /// once, and not again while containers use the volume.
    pub async fn remembered(&self) -> Option<String> {
        let marker = self.marker.clone();
        blocking(move || std::fs::read_to_string(marker).ok()).await
    }

    /// Keeps a note about the volume on disk, until the pod is gone.
    ///
    /// # Errors
    /// The file system's.
    pub async fn remember(&self, note: &str) -> Result<(), VolumeError> {
        let (marker, note) = (self.marker.clone(), note.to_owned());
        blocking(move || {
            if let Some(parent) = marker.parent() {
                let mut builder = DirBuilder::new();
                builder.recursive(true).mode(0o750);
                builder.create(parent).tried("mkdir", parent)?;
            }
            // All of it or nothing, whenever the agent ends.
            let new = marker.with_extension("new");
            std::fs::write(&new, note).tried("write", &new)?;
            std::fs::rename(&new, &marker).tried("rename", &new)
        })
        .await
    }

    /// Makes the directory of the volume with these permissions, and those above it, and says whether it was not there before.
    ///
    /// # Errors
    /// The file system's.
    pub async fn make_dir(&self, mode: u32) -> Result<bool, VolumeError> {
        let dir = self.dir.clone();
        blocking(move || make_dir(&dir, mode)).await
    }

    /// Mounts a file system in memory at the directory of the volume, which is there, unless it is mounted already. Says whether it was
    /// not.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn make_tmpfs(&self, size: Option<u64>, mode: u32) -> Result<bool, VolumeError> {
        let (dir, mounter) = (self.dir.clone(), self.mounter.clone());
        blocking(move || {
            if is_mounted(&dir)? {
                return Ok(false);
            }
            mounter.tmpfs(&dir, size).tried("mount tmpfs at", &dir)?;
            set_mode(&dir, mode)?;
            Ok(true)
        })
        .await
    }

    /// Makes the files in the volume's directory, which is there, those of `files`, all at the same moment (as in a ConfigMap's volume),
    /// for the pod's [`fs_group`](Self::fs_group) to read. Nothing is written if they are so already.
    ///
    /// # Errors
    /// When a path cannot be one, or the file system refuses; then the volume shows what it showed before.
    pub async fn write_files(&self, files: Payload) -> Result<(), VolumeError> {
        let now = self.env.wall().strftime("%Y_%m_%d_%H_%M_%S");
        let stamp = format!("{now}.{}", self.env.random_u64());
        let (dir, group) = (self.dir.clone(), self.fs_group());
        blocking(move || atomic_writer::write(&dir, &files, group, &stamp)).await?;
        self.give_to_group(&self.dir, true, true).await
    }

    /// Gives the directory `path` and all that is in it to the pod's [`fs_group`](Self::fs_group), if it has one.
    ///
    /// # Errors
    /// The file system's.
    pub async fn give_to_group(
        &self,
        path: &Path,
        read_only: bool,
        only_if_needed: bool,
    ) -> Result<(), VolumeError> {
        let Some(group) = self.fs_group() else {
            return Ok(());
        };
        let path = path.to_owned();
        let access = GroupAccess { group, read_only };
        blocking(move || tree::give_to_group(&path, access, only_if_needed).tried("chown", &path))
            .await
    }
}

/// Makes a directory with its permissions, whatever the umask, and says whether it was not there before.
pub(super) fn make_dir(dir: &Path, mode: u32) -> Result<bool, VolumeError> {
    if dir.is_dir() {
        return Ok(false);
    }
    if let Some(parent) = dir.parent() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o750);
        builder.create(parent).tried("mkdir", parent)?;
    }
    DirBuilder::new()
        .mode(mode)
        .create(dir)
        .tried("mkdir", dir)?;
    set_mode(dir, mode)?;
    Ok(true)
}

pub(super) fn set_mode(dir: &Path, mode: u32) -> Result<(), VolumeError> {
    std::fs::set_permissions(dir, Permissions::from_mode(mode)).tried("chmod", dir)
}

/// Whether a file system of its own is mounted at a directory of ours.
pub(super) fn is_mounted(dir: &Path) -> Result<bool, VolumeError> {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| std::fs::symlink_metadata(path).map(|meta| meta.dev());
    let parent = dir.parent().unwrap_or(dir);
    Ok(device(dir).tried("stat", dir)? != device(parent).tried("stat", parent)?)
}
