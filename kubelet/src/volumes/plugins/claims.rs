//! `persistentVolumeClaim` and `ephemeral`: volumes that outlive a pod.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Volume,
};
use orlop_api::typed::Api;
use orlop_core::client::Client;

use super::super::error::VolumeError;
use super::super::plugin::{VolumePlugin, VolumeRequest};
use super::host_path;
use super::refused::no_plugin;
use crate::blocking::blocking;
use crate::parts::ReadyVolume;

/// How long the API may take to answer about a claim and its volume.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// `persistentVolumeClaim`, and `ephemeral` with the claim that was made for the pod: what a claim is bound to, if that is a directory
/// of this node (`hostPath` or `local`). It is used where it is; nothing is mounted, and nothing of it is ever removed.
pub struct PersistentVolumes {
    client: Arc<dyn Client>,
}

impl PersistentVolumes {
    /// The kind, with claims and volumes from this API.
    #[must_use]
    pub fn new(client: Arc<dyn Client>) -> Self {
        Self { client }
    }

    async fn bound(&self, request: &VolumeRequest<'_>) -> Result<Arc<PersistentVolume>, String> {
        let (claim, own) = claim_of(request);
        let claims =
            Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), request.namespace());
        let claim = claims
            .get(&claim)
            .await
            .map_err(|error| format!("failed to fetch PVC from API server: {error}"))?;
        let uid = claim.metadata.uid.as_deref();
        if own && !is_owner(request, &claim) {
            let pod = &request.pod.metadata;
            return Err(format!(
                "PVC {}/{} was not created for pod {}/{} (pod is not owner)",
                request.namespace(),
                claim.metadata.name.as_deref().unwrap_or_default(),
                request.namespace(),
                pod.name.as_deref().unwrap_or_default(),
            ));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err("PVC is being deleted".to_owned());
        }
        let phase = claim
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if phase != Some("Bound") {
            return Err("PVC is not bound".to_owned());
        }
        let name = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.volume_name.as_deref());
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Err("PVC has empty pvc.Spec.VolumeName".to_owned());
        };
        let volumes = Api::<PersistentVolume>::all(self.client.clone());
        let volume = volumes
            .get(name)
            .await
            .map_err(|error| format!("failed to fetch PV {name} from API server: {error}"))?;
        let bound = volume
            .spec
            .as_ref()
            .and_then(|spec| spec.claim_ref.as_ref());
        let Some(bound) = bound else {
            return Err(format!(
                "found PV object {name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
            ));
        };
        if bound.uid.as_deref() != uid {
            return Err(format!(
                "found PV object {name} but its pv.Spec.ClaimRef.UID {} does not point to claim.UID {}",
                bound.uid.as_deref().unwrap_or_default(),
                uid.unwrap_or_default(),
            ));
        }
        Ok(volume)
    }
}

/// The name of the claim of a volume, and whether it was made for the pod.
fn claim_of(request: &VolumeRequest<'_>) -> (String, bool) {
    match &request.volume.persistent_volume_claim {
        Some(source) => (source.claim_name.clone(), false),
        None => {
            let pod = request.pod.metadata.name.as_deref().unwrap_or_default();
            (format!("{pod}-{}", request.volume.name), true)
        }
    }
}

fn is_owner(request: &VolumeRequest<'_>, claim: &PersistentVolumeClaim) -> bool {
    let uid = request.pod.metadata.uid.as_deref();
    let mut owners = claim.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && Some(owner.uid.as_str()) == uid)
}

#[async_trait]
impl VolumePlugin for PersistentVolumes {
    fn name(&self) -> &str {
        "kubernetes.io/persistent-volume-claim"
    }

    fn handles(&self, volume: &Volume) -> bool {
        volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
    }

    async fn set_up(&self, request: &VolumeRequest<'_>) -> Result<ReadyVolume, VolumeError> {
        // Once a pod has its volume it keeps it: the claim may be in deletion, which waits for the pod, and the API may be away.
        if let Some(known) = request.remembered().await.and_then(|note| known(&note)) {
            return Ok(known);
        }
        let bound = request.env.timeout(ANSWER_LIMIT, self.bound(request));
        let bound = bound
            .await
            .unwrap_or_else(|_| Err("no answer from API server in time".to_owned()));
        let volume = bound.map_err(|why| {
            VolumeError::Unprocessable(format!(
                "error processing PVC {}/{}: {why}",
                request.namespace(),
                claim_of(request).0
            ))
        })?;
        let name = volume.metadata.name.clone().unwrap_or_default();
        let Some(spec) = &volume.spec else {
            return Err(no_plugin(&name));
        };
        if spec.volume_mode.as_deref() == Some("Block") {
            return Err(VolumeError::Unprocessable(format!(
                "volume {} has volumeMode Block, which is not supported by this node",
                request.volume.name
            )));
        }
        ready(request, &name, spec)
            .await
            .map_err(|error| match error {
                VolumeError::Unprocessable(_) => error,
                other => VolumeError::Bound {
                    name,
                    source: Box::new(other),
                },
            })
    }
}

/// A volume that was ready before, by what was kept in mind of it.
fn known(note: &str) -> Option<ReadyVolume> {
    let (access, path) = note.split_once(' ')?;
    let read_only = access == "ro";
    Some(ReadyVolume {
        path: path.into(),
        read_only,
        may_create_sub_path: !read_only,
    })
}

async fn ready(
    request: &VolumeRequest<'_>,
    name: &str,
    spec: &PersistentVolumeSpec,
) -> Result<ReadyVolume, VolumeError> {
    let claim = request.volume.persistent_volume_claim.as_ref();
    let read_only = claim.is_some_and(|claim| claim.read_only == Some(true));
    let path = match (&spec.host_path, &spec.local) {
        (Some(source), _) => {
            let (path, kind) = (source.path.clone(), source.type_.clone());
            host_path::ready(path, kind, read_only).await?;
            &source.path
        }
        (None, Some(source)) => {
            local(request, Path::new(&source.path), read_only).await?;
            &source.path
        }
        (None, None) => return Err(no_plugin(name)),
    };
    let access = if read_only { "ro" } else { "rw" };
    request.remember(&format!("{access} {path}")).await?;
    Ok(ReadyVolume {
        path: path.into(),
        read_only,
        may_create_sub_path: !read_only,
    })
}

/// Checks a `local` volume, and gives it to the pod's group.
async fn local(
    request: &VolumeRequest<'_>,
    path: &Path,
    read_only: bool,
) -> Result<(), VolumeError> {
    let found = blocking({
        let path = path.to_owned();
        move || std::fs::metadata(path)
    });
    let why = match found.await {
        Err(_) => "does not exist",
        Ok(meta) if !meta.is_dir() => "is not a directory",
        Ok(_) if read_only => return Ok(()),
        Ok(_) => {
            let context = request.pod.spec.as_ref();
            let context = context.and_then(|spec| spec.security_context.as_ref());
            let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
            let only_if_needed = policy == Some("OnRootMismatch");
            return request.give_to_group(path, false, only_if_needed).await;
        }
    };
    let why = format!("path \"{}\" {why}", path.display());
    Err(VolumeError::NoMounter(why))
}
