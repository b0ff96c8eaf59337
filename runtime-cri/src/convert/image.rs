//! Images.

use jiff::Timestamp;
use orlop_core::runtime::{
    FilesystemUsage, Image, ImageId, ImageSpec, ImageUser, PullRequest, RuntimeError,
};

use super::{moment, sandbox_config};
use crate::messages as cri;

/// Which image is meant, in CRI's words.
pub(crate) fn image_spec(spec: &ImageSpec) -> cri::ImageSpec {
    cri::ImageSpec {
        image: spec.image.clone(),
        annotations: spec.annotations.clone(),
        user_specified_image: spec.user_specified.clone(),
        runtime_handler: spec.handler.clone(),
        image_ref: String::new(),
    }
}

pub(super) fn said_image_spec(said: cri::ImageSpec) -> ImageSpec {
    ImageSpec {
        image: said.image,
        user_specified: said.user_specified_image,
        handler: said.runtime_handler,
        annotations: said.annotations,
    }
}

/// An image to pull, in CRI's words.
pub(crate) fn pull_request(request: &PullRequest) -> Result<cri::PullImageRequest, RuntimeError> {
    let auth = request.auth.as_ref().map(|auth| cri::AuthConfig {
        username: auth.username.clone(),
        password: auth.password.clone(),
        auth: auth.basic.clone(),
        server_address: auth.server.clone(),
        identity_token: auth.identity_token.clone(),
        registry_token: auth.registry_token.clone(),
    });
    Ok(cri::PullImageRequest {
        image: Some(image_spec(&request.image)),
        auth,
        sandbox_config: request.sandbox.as_ref().map(sandbox_config).transpose()?,
    })
}

/// An image that an engine told of.
pub(crate) fn image(said: cri::Image) -> Image {
    let user = match (said.uid, said.username) {
        (Some(uid), _) => Some(ImageUser::Id(uid.value)),
        (None, name) if !name.is_empty() => Some(ImageUser::Name(name)),
        (None, _) => None,
    };
    Image {
        id: ImageId::new(said.id),
        tags: said.repo_tags,
        digests: said.repo_digests,
        size: said.size,
        user,
        pinned: said.pinned,
    }
}

/// What of a file system is taken.
pub(crate) fn filesystem(said: cri::FilesystemUsage) -> FilesystemUsage {
    FilesystemUsage {
        at: moment(said.timestamp).unwrap_or(Timestamp::UNIX_EPOCH),
        mountpoint: said.fs_id.unwrap_or_default().mountpoint.into(),
        used_bytes: said.used_bytes.unwrap_or_default().value,
        inodes_used: said.inodes_used.map(|inodes| inodes.value),
    }
}
