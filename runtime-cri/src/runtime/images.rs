//! Images.

use orlop_core::runtime::{Image, ImageFilesystems, ImageId, ImageSpec, PullRequest, RuntimeError};

use super::{CriRuntime, unless_gone};
use crate::convert;
use crate::messages as cri;
use crate::refusal::{About, refusal};

/// How much may be answered to a pull: an id.
const PULL_ANSWER_LIMIT: usize = 64 << 10;

impl CriRuntime {
    /// Pulls without a limit of time: whether a pull gets on only the engine sees, which gives up by itself when it does not.
    pub(super) async fn fetch_image(&self, request: &PullRequest) -> Result<ImageId, RuntimeError> {
        let message = convert::pull_request(request)?;
        let pulled = self.engine.call_patiently(message, PULL_ANSWER_LIMIT).await;
        let pulled = pulled.map_err(|status| {
            refusal::<cri::PullImageRequest>(status, About::Pull(&request.image.image))
        })?;
        let answered = pulled.image_ref;
        if answered.starts_with("sha256:") {
            return Ok(ImageId::new(answered));
        }
        // Not an id as it is in a list, or a name with a digest.
        let spec = ImageSpec {
            image: answered.clone(),
            ..request.image.clone()
        };
        let image = self.look_up_image(&spec).await?;
        Ok(image.map_or_else(|| ImageId::new(answered), |image| image.id))
    }

    pub(super) async fn list_images(&self) -> Result<Vec<Image>, RuntimeError> {
        let request = cri::ListImagesRequest::default();
        let images = self.call(request, About::Engine).await?.images;
        let mut images: Vec<_> = images.into_iter().map(convert::image).collect();
        images.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(images)
    }

    pub(super) async fn look_up_image(
        &self,
        image: &ImageSpec,
    ) -> Result<Option<Image>, RuntimeError> {
        let request = cri::ImageStatusRequest {
            image: Some(convert::image_spec(image)),
            verbose: false,
        };
        match self.call(request, About::Image(&image.image)).await {
            Ok(answer) => Ok(answer.image.map(convert::image)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn delete_image(&self, image: &ImageSpec) -> Result<(), RuntimeError> {
        let request = cri::RemoveImageRequest {
            image: Some(convert::image_spec(image)),
        };
        let removed = self.call(request, About::Image(&image.image)).await;
        unless_gone(removed.map(|_| ()))
    }

    pub(super) async fn measure_filesystems(&self) -> Result<ImageFilesystems, RuntimeError> {
        let answer = self.call(cri::ImageFsInfoRequest {}, About::Engine).await?;
        let images: Vec<_> = answer
            .image_filesystems
            .into_iter()
            .map(convert::filesystem)
            .collect();
        let containers: Vec<_> = answer
            .container_filesystems
            .into_iter()
            .map(convert::filesystem)
            .collect();
        Ok(ImageFilesystems {
            // An engine that tells of one place keeps both there.
            containers: if containers.is_empty() {
                images.clone()
            } else {
                containers
            },
            images,
        })
    }
}
