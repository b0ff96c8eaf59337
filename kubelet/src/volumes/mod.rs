//! Volumes of pods.
//!
//! [`VolumeManager`] makes the volumes of a pod ready by a list of [`VolumePlugin`]s, one for each kind of volume, prepares the mounts
//! of each container, and removes all that a pod had on disk. Directories are where Kubernetes has them, so that tools find them:
//!
//! ```text
//! <root>/pods/<uid>/volumes/kubernetes.io~configmap/<volume>/
//! <root>/pods/<uid>/volume-subpaths/<volume>/<container>/<index>
//! ```
//!
//! A kind of volume of one's own is one trait and one call:
//!
//! ```
//! use std::sync::Arc;
//! use async_trait::async_trait;
//! use k8s_openapi::api::core::v1::{Pod, Volume};
//! use orlop_core::env::SimEnv;
//! use orlop_kubelet::parts::{ReadyVolume, Volumes};
//! use orlop_kubelet::volumes::{NoMounter, VolumeError, VolumeManager, VolumePlugin, VolumeRequest};
//!
//! /// Volumes of the driver `greetings.example.com` hold one file.
//! struct Greetings;
//!
//! #[async_trait]
//! impl VolumePlugin for Greetings {
//!     fn name(&self) -> &str {
//!         "example.com/greetings"
//!     }
//!     fn handles(&self, volume: &Volume) -> bool {
//!         volume.csi.as_ref().is_some_and(|csi| csi.driver == "greetings.example.com")
//!     }
//!     async fn set_up(&self, request: &VolumeRequest<'_>) -> Result<ReadyVolume, VolumeError> {
//!         request.make_dir(0o755).await?;
//!         std::fs::write(request.dir.join("hello"), "hello").map_err(|error| VolumeError::Refused(error.to_string()))?;
//!         Ok(ReadyVolume { path: request.dir.clone(), read_only: true, may_create_sub_path: false })
//!     }
//! }
//!
//! let sim = SimEnv::new(1);
//! let root = tempfile::tempdir().unwrap();
//! let volumes = VolumeManager::new(root.path(), sim.env()).mounter(NoMounter).plugin(Greetings);
//! let pod: Pod = serde_json::from_value(serde_json::json!({
//!     "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
//!     "spec": {
//!         "volumes": [{"name": "v", "csi": {"driver": "greetings.example.com"}}],
//!         "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
//!     },
//! })).unwrap();
//! sim.block_on(async move {
//!     let ready = volumes.set_up(&Arc::new(pod)).await.unwrap();
//!     assert_eq!(std::fs::read(ready.by_name["v"].path.join("hello")).unwrap(), b"hello");
//!     volumes.tear_down("u").await.unwrap();
//!     assert!(volumes.on_disk().await.is_empty());
//! });
//! ```

mod atomic_writer;
mod error;
mod manager;
mod memory;
mod mounter;
mod mounts;
mod plugin;
mod plugins;
mod sub_path;
#[cfg(test)]
mod tests;
mod tree;
mod usage;

pub use self::atomic_writer::{Payload, Projection};
pub use self::error::VolumeError;
pub use self::manager::VolumeManager;
pub use self::mounter::{HostMounter, Mounter, NoMounter};
pub use self::plugin::{VolumePlugin, VolumeRequest};
pub use self::plugins::{
    AllocatableSource, ConfigMaps, Contents, DownwardApi, EmptyDir, HostPath, PersistentVolumes,
    Projected, Secrets,
};
pub use self::usage::VolumeUsage;
