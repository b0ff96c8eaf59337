//! Volumes that no plug-in makes.

use k8s_openapi::api::core::v1::Volume;

use super::super::error::VolumeError;

/// Why a volume for which there is no plug-in cannot be had.
pub(in super::super) fn refusal(volume: &Volume) -> VolumeError {
    if volume.git_repo.is_some() {
        let why = "git-repo volume plugin has been disabled".to_owned();
        return VolumeError::NoMounter(why);
    }
    if volume.image.is_some() {
        let why = "image volumes are not supported by this node".to_owned();
        return VolumeError::Refused(why);
    }
    no_plugin(&volume.name)
}

/// That there is no plug-in for a volume, or a persistent volume, of this name.
pub(super) fn no_plugin(name: &str) -> VolumeError {
    VolumeError::Unprocessable(format!(
        "failed to get Plugin from volumeSpec for volume \"{name}\" err=no volume plugin matched"
    ))
}
