//! `emptyDir`.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Volume;

use super::super::error::VolumeError;
use super::super::memory::tmpfs_size;
use super::super::plugin::{VolumePlugin, VolumeRequest};
use super::AllocatableSource;
use crate::parts::ReadyVolume;

/// Everybody in the pod may write; as upstream, whatever the umask.
const MODE: u32 = 0o777;

/// `emptyDir`: a directory that lives as long as the pod, on disk or in memory.
pub struct EmptyDir {
    allocatable: AllocatableSource,
}

impl EmptyDir {
    /// The kind, for a node that has this much.
    #[must_use]
    pub fn new(allocatable: AllocatableSource) -> Self {
        Self { allocatable }
    }
}

#[async_trait]
impl VolumePlugin for EmptyDir {
    fn name(&self) -> &str {
        "kubernetes.io/empty-dir"
    }

    fn handles(&self, volume: &Volume) -> bool {
        volume.empty_dir.is_some()
    }

    async fn set_up(&self, request: &VolumeRequest<'_>) -> Result<ReadyVolume, VolumeError> {
        let source = request.volume.empty_dir.as_ref();
        let medium = source.and_then(|source| source.medium.as_deref());
        let memory = match medium.unwrap_or_default() {
            "" => false,
            "Memory" => true,
            pages if pages == "HugePages" || pages.starts_with("HugePages-") => {
                let why = format!("storage medium {pages:?} is not supported by this node");
                return Err(VolumeError::Refused(why));
            }
            other => {
                let why = format!("unknown storage medium {other:?}");
                return Err(VolumeError::Refused(why));
            }
        };
        request.make_dir(MODE).await?;
        let mut new = request.remembered().await.is_none();
        if memory {
            let asked = source.and_then(|source| source.size_limit.as_ref());
            let size = tmpfs_size(request.pod, asked, &(self.allocatable)());
            new |= request.make_tmpfs(size, MODE).await?;
        }
        // Once: later, what is in it and who may use it is the containers' own business.
        if new {
            request.give_to_group(&request.dir, false, false).await?;
            request.remember("").await?;
        }
        Ok(ReadyVolume {
            path: request.dir.clone(),
            read_only: false,
            may_create_sub_path: true,
        })
    }
}
