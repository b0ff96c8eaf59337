//! Images are pulled for every container, so that nobody uses a private image that somebody else has pulled.

use async_trait::async_trait;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest};
use orlop_core::field::{FieldError, Path};
use orlop_core::status::Status;
use serde_json::{Value, json};

use crate::names::{list_at, text_at, text_field};
use crate::pod_references::containers;

const ALWAYS: &str = "Always";
const KINDS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Sets every container's pull policy to `Always`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysPullImages;

/// Updates that bring no new image may leave the pod as it is.
fn ignores(request: &AdmissionRequest) -> bool {
    let is_pod = request.resource.group.is_empty() && request.resource.plural == "pods";
    if !is_pod || !matches!(request.subresource.as_str(), "" | "ephemeralcontainers") {
        return true;
    }
    let images = |pod: &Value| {
        let mut images: Vec<String> = containers(pod)
            .map(|c| text_field(c, "image").to_owned())
            .collect();
        images.extend(
            list_at(pod, "/spec/volumes")
                .iter()
                .map(|volume| text_at(volume, "/image/reference").to_owned()),
        );
        images
    };
    let old = images(&request.old_object);
    request.operation == AdmissionOperation::Update
        && images(&request.object)
            .iter()
            .all(|image| old.contains(image))
}

#[async_trait]
impl AdmissionPlugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        matches!(
            operation,
            AdmissionOperation::Create | AdmissionOperation::Update
        )
    }

    async fn admit(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        if ignores(request) {
            return Ok(());
        }
        let pod = &mut request.object;
        for kind in KINDS {
            let containers = pod
                .pointer_mut(&format!("/spec/{kind}"))
                .and_then(Value::as_array_mut);
            for container in containers
                .into_iter()
                .flatten()
                .filter_map(Value::as_object_mut)
            {
                container.insert("imagePullPolicy".to_owned(), json!(ALWAYS));
            }
        }
        let volumes = pod
            .pointer_mut("/spec/volumes")
            .and_then(Value::as_array_mut);
        for image in volumes
            .into_iter()
            .flatten()
            .filter_map(|volume| volume.get_mut("image")?.as_object_mut())
        {
            image.insert("pullPolicy".to_owned(), json!(ALWAYS));
        }
        Ok(())
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), Status> {
        if ignores(request) {
            return Ok(());
        }
        for kind in KINDS {
            for (at, container) in list_at(&request.object, &format!("/spec/{kind}"))
                .iter()
                .enumerate()
            {
                let policy = text_field(container, "imagePullPolicy");
                if policy != ALWAYS {
                    let path = Path::new("spec")
                        .child(kind)
                        .index(at)
                        .child("imagePullPolicy");
                    let error = FieldError::not_supported(&path, policy, &[ALWAYS]);
                    return Err(request.forbidden(&error.to_string()));
                }
            }
        }
        Ok(())
    }
}
