//! [`VolumeManager`].

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};
use orlop_core::client::Client;
use orlop_core::env::Env;
use orlop_core::runtime::{EnvVar, Mount};

use super::error::{Tried, VolumeError};
use super::mounter::{HostMounter, Mounter, real_path};
use super::mounts::ContainerMounts;
use super::plugin::{VolumePlugin, VolumeRequest, make_dir};
use super::plugins::{
    ConfigMaps, Contents, DownwardApi, EmptyDir, HostPath, PersistentVolumes, Projected, Secrets,
    refusal,
};
use super::tree;
use super::usage::{VolumeUsage, measure, volume_dirs};
use crate::blocking::blocking;
use crate::parts::{PartError, PodVolumes, ReadyVolume, Volumes};

/// The permissions of what is the agent's own: containers see their volumes, not what is around them.
const OWN_DIR: u32 = 0o750;

/// How often, and how long after the first time, a mount that is in use is tried again; twice as long each time. Then the worker of
/// the pod tries later.
const BUSY_TRIES: u32 = 4;
/// How many mounts over each other are ended at a time.
const UNMOUNT_ROUNDS: usize = 100;
const BUSY_WAIT: Duration = Duration::from_millis(100);

/// Called with a pod and why one of its volumes could not be brought up to date.
type Outdated = Arc<dyn Fn(&Arc<Pod>, &PartError) + Send + Sync>;

/// [`Volumes`] by a list of plug-ins.
pub struct VolumeManager {
    pods: PathBuf,
    env: Env,
    mounter: Arc<dyn Mounter>,
    plugins: Vec<Box<dyn VolumePlugin>>,
    contents: Option<Contents>,
    outdated: Option<Outdated>,
    recursive_read_only: AtomicBool,
}

impl fmt::Debug for VolumeManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolumeManager")
            .field("pods", &self.pods)
            .field("plugins", &self.plugin_names())
            .finish_non_exhaustive()
    }
}

impl VolumeManager {
    /// A manager without plug-ins, whose pods have their directories under `<root>/pods`. It uses the mounts of this machine.
    #[must_use]
    pub fn new(root: impl AsRef<Path>, env: Env) -> Self {
        let root = root.as_ref();
        // A runtime wants whole paths. The error is that of an empty path.
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        Self {
            pods: root.join("pods"),
            env,
            mounter: Arc::new(HostMounter::default()),
            plugins: Vec::new(),
            contents: None,
            outdated: None,
            recursive_read_only: AtomicBool::new(false),
        }
    }

    /// Uses other mounts than those of this machine.
    #[must_use]
    pub fn mounter(mut self, mounter: impl Mounter) -> Self {
        self.mounter = Arc::new(mounter);
        self
    }

    /// Adds a kind of volume after those that are there, or in the place of the one of the same name.
    #[must_use]
    pub fn plugin(mut self, plugin: impl VolumePlugin) -> Self {
        let known = self
            .plugins
            .iter()
            .position(|known| known.name() == plugin.name());
        match known {
            Some(at) => self.plugins[at] = Box::new(plugin),
            None => self.plugins.push(Box::new(plugin)),
        }
        self
    }

    /// Adds the kinds that every node has: `emptyDir`, `hostPath`, `configMap`, `secret`, `downwardAPI`, `projected`, and claims that are
    /// bound to directories of the node. The manager tells `contents` which pods there are.
    #[must_use]
    pub fn with_defaults(mut self, client: Arc<dyn Client>, contents: Contents) -> Self {
        self.contents = Some(contents.clone());
        self.plugin(EmptyDir::new(contents.allocatable.clone()))
            .plugin(HostPath)
            .plugin(ConfigMaps(contents.clone()))
            .plugin(Secrets(contents.clone()))
            .plugin(DownwardApi(contents.clone()))
            .plugin(Projected(contents))
            .plugin(PersistentVolumes::new(client))
    }

    /// Whom to tell that a volume of a pod could not be brought up to date, as when its ConfigMap was deleted. The pod goes on with what
    /// the volume showed before; the failure is one for an event (`FailedMount`).
    #[must_use]
    pub fn on_outdated(
        mut self,
        tell: impl Fn(&Arc<Pod>, &PartError) + Send + Sync + 'static,
    ) -> Self {
        self.outdated = Some(Arc::new(tell));
        self
    }

    /// The names of the plug-ins, in the order in which they are asked.
    #[must_use]
    pub fn plugin_names(&self) -> Vec<&str> {
        self.plugins.iter().map(|plugin| plugin.name()).collect()
    }

    /// Says whether the runtime can make mounts read-only with all that lies below (its handler's `recursive_read_only_mounts`).
    pub fn set_recursive_read_only(&self, possible: bool) {
        self.recursive_read_only.store(possible, Ordering::Relaxed);
    }

    /// What the volumes of a pod take: those that have a directory of their own in the pod's. Empty for a pod that is not there.
    pub async fn usage(&self, uid: &str) -> Vec<VolumeUsage> {
        let Ok(dir) = self.pod_dir(uid) else {
            return Vec::new();
        };
        let mounter = self.mounter.clone();
        blocking(move || measure(&dir, &*mounter)).await
    }

    /// The directory of a pod; none for a uid that is no name of a directory.
    fn pod_dir(&self, uid: &str) -> Result<PathBuf, PartError> {
        if is_name(uid) {
            return Ok(self.pods.join(uid));
        }
        Err(PartError::of_pod("", format!("invalid pod uid {uid:?}")))
    }

    async fn ready(
        &self,
        pod: &Arc<Pod>,
        pod_dir: &Path,
        volume: &Volume,
    ) -> Result<ReadyVolume, VolumeError> {
        if !is_name(&volume.name) {
            let why = format!("invalid volume name {:?}", volume.name);
            return Err(VolumeError::Refused(why));
        }
        let plugin = self.plugins.iter().find(|plugin| plugin.handles(volume));
        let plugin = plugin.ok_or_else(|| refusal(volume))?;
        let kind = plugin.name().replace('/', "~");
        let at = |place: &str| pod_dir.join(place).join(&kind).join(&volume.name);
        let request = VolumeRequest {
            pod,
            volume,
            dir: at("volumes"),
            marker: at("plugins").join("ready"),
            mounter: &self.mounter,
            env: &self.env,
        };
        plugin.set_up(&request).await
    }

    /// Lets every plug-in undo what it did outside.
    async fn release(&self, dir: &Path) -> Result<(), VolumeError> {
        let found = blocking({
            let dir = dir.to_owned();
            move || volume_dirs(&dir)
        });
        let mut errors = Vec::new();
        for (kind, _, dir) in found.await {
            let name = kind.replace('~', "/");
            let plugin = self.plugins.iter().find(|plugin| plugin.name() == name);
            // A plug-in that is not there any more cannot undo anything; what it left in the directory is removed.
            if let Some(plugin) = plugin
                && let Err(error) = plugin.tear_down(&dir).await
            {
                errors.push(error);
            }
        }
        VolumeError::of_all(errors)
    }

    /// Ends all mounts of a pod, with patience for those that are in use.
    async fn unmount(&self, dir: &Path) -> Result<(), VolumeError> {
        let mut wait = BUSY_WAIT;
        for attempt in 1.. {
            let (mounter, dir) = (self.mounter.clone(), dir.to_owned());
            let tried = blocking(move || unmount_all(&*mounter, &dir)).await;
            let Err(error) = tried else { break };
            let busy = matches!(&error, VolumeError::Io { source, .. }
                if source.kind() == io::ErrorKind::ResourceBusy);
            if !busy || attempt == BUSY_TRIES {
                return Err(error);
            }
            self.env.sleep(wait).await;
            wait *= 2;
        }
        Ok(())
    }

    async fn remove(&self, dir: &Path) -> Result<(), VolumeError> {
        let there = blocking({
            let dir = dir.to_owned();
            move || match std::fs::symlink_metadata(&dir) {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error).tried("stat", &dir),
            }
        });
        if !there.await? {
            return Ok(());
        }
        self.release(dir).await?;
        self.unmount(dir).await?;
        let dir = dir.to_owned();
        blocking(move || tree::remove(&dir).tried("remove", &dir)).await
    }
}

/// Whether a word can be the name of a directory, and of nothing else.
fn is_name(word: &str) -> bool {
    !matches!(word, "" | "." | "..") && !word.contains(['/', '\0'])
}

/// Ends all mounts below a directory. The error is that of the first mount that could not be ended.
fn unmount_all(mounter: &dyn Mounter, dir: &Path) -> Result<(), VolumeError> {
    let dir = real_path(dir).tried("realpath", dir)?;
    let mut failed = None;
    for _ in 0..UNMOUNT_ROUNDS {
        let mounts = mounter.at_or_below(&dir).tried("list mounts below", &dir)?;
        let mut first = None;
        let mut ended = false;
        for mount in mounts {
            match mounter.unmount(&mount).tried("unmount", &mount) {
                Ok(()) => ended = true,
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
        }
        match first {
            // What covered others may be gone now: look again.
            _ if ended => failed = first,
            None => return Ok(()),
            Some(error) => return Err(error),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// The volumes that some container of a pod uses. The others are not made, as upstream.
fn used(spec: &PodSpec) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let containers = spec.init_containers.iter().flatten();
    for container in containers.chain(&spec.containers) {
        names.extend(
            container
                .volume_mounts
                .iter()
                .flatten()
                .map(|m| m.name.as_str()),
        );
        names.extend(
            container
                .volume_devices
                .iter()
                .flatten()
                .map(|d| d.name.as_str()),
        );
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        names.extend(
            container
                .volume_mounts
                .iter()
                .flatten()
                .map(|m| m.name.as_str()),
        );
        names.extend(
            container
                .volume_devices
                .iter()
                .flatten()
                .map(|d| d.name.as_str()),
        );
    }
    names
}

#[async_trait]
impl Volumes for VolumeManager {
    async fn set_up(&self, pod: &Arc<Pod>) -> Result<PodVolumes, PartError> {
        let pod_dir = self.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default())?;
        if let Some(contents) = &self.contents {
            contents.objects.register(pod);
        }
        let volumes = pod_dir.join("volumes");
        let made = blocking(move || make_dir(&volumes, OWN_DIR)).await;
        if let Err(error) = made {
            return Err(PartError::of_pod("FailedMount", error.to_string()));
        }
        let Some(spec) = &pod.spec else {
            return Ok(PodVolumes::default());
        };
        let used = used(spec);
        let wanted: Vec<&Volume> = spec
            .volumes
            .iter()
            .flatten()
            .filter(|volume| used.contains(volume.name.as_str()))
            .collect();
        let all = wanted
            .iter()
            .map(|volume| self.ready(pod, &pod_dir, volume));
        let all = join_all(all).await;
        let mut ready = PodVolumes::default();
        let mut failed = None;
        for (volume, result) in wanted.into_iter().zip(all) {
            match result {
                Ok(volume_ready) => {
                    ready.by_name.insert(volume.name.clone(), volume_ready);
                }
                Err(error) => {
                    let message = error.message(&volume.name);
                    let told = PartError::of_pod("FailedMount", message);
                    if let VolumeError::Outdated {
                        ready: as_it_is, ..
                    } = error
                    {
                        tracing::warn!(pod = ?pod.metadata.name, error = %told, "a volume is not up to date");
                        if let Some(tell) = &self.outdated {
                            tell(pod, &told);
                        }
                        ready.by_name.insert(volume.name.clone(), as_it_is);
                    } else {
                        failed.get_or_insert(told);
                    }
                }
            }
        }
        failed.map_or(Ok(ready), Err)
    }

    async fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        volumes: &PodVolumes,
        env: &[EnvVar],
    ) -> Result<Vec<Mount>, PartError> {
        let mounts = ContainerMounts {
            pod_dir: self.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default())?,
            container,
            volumes,
            env,
            mounter: &self.mounter,
            recursive_read_only: self.recursive_read_only.load(Ordering::Relaxed),
        };
        mounts.all().await
    }

    async fn tear_down(&self, uid: &str) -> Result<(), PartError> {
        let dir = self.pod_dir(uid)?;
        self.remove(&dir)
            .await
            .map_err(|error| PartError::of_pod("", format!("cannot remove volumes: {error}")))?;
        if let Some(contents) = &self.contents {
            contents.objects.unregister(uid);
            contents.tokens.forget_pod(uid);
        }
        Ok(())
    }

    async fn on_disk(&self) -> Vec<String> {
        let pods = self.pods.clone();
        blocking(move || {
            let entries = std::fs::read_dir(pods).into_iter().flatten().flatten();
            let mut uids: Vec<String> = entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect();
            uids.sort();
            uids
        })
        .await
    }
}
