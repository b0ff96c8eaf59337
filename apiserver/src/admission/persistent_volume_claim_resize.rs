//! A claim grows only where its storage class allows it.

use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest, ObjectReader};
use orlop_core::quantity::Quantity;
use orlop_core::status::Status;
use serde_json::Value;

use super::Context;
use crate::names::{STORAGE_CLASSES, text_at};

/// Refuses larger requests of claims that are not bound or whose class cannot expand volumes.
pub struct PersistentVolumeClaimResize {
    reader: Arc<dyn ObjectReader>,
}

impl PersistentVolumeClaimResize {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            reader: context.reader.clone(),
        }
    }

    async fn expands(&self, new: &Value, old: &Value) -> bool {
        let (name, before) = (class_name(new), class_name(old));
        if name.is_empty() || name != before {
            return false;
        }
        let Ok(Some(class)) = self.reader.get(&STORAGE_CLASSES, "", name).await else {
            return false;
        };
        class.value().is_ok_and(|class| {
            class.get("allowVolumeExpansion").and_then(Value::as_bool) == Some(true)
        })
    }
}

fn class_name(claim: &Value) -> &str {
    let annotated = text_at(
        claim,
        "/metadata/annotations/volume.beta.kubernetes.io~1storage-class",
    );
    if annotated.is_empty() {
        text_at(claim, "/spec/storageClassName")
    } else {
        annotated
    }
}

fn size(claim: &Value) -> Quantity {
    Quantity::parse(text_at(claim, "/spec/resources/requests/storage")).unwrap_or_default()
}

#[async_trait]
impl AdmissionPlugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        operation == AdmissionOperation::Update
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let (new, old) = (&request.object, &*request.old_object);
        if !request.is("", "persistentvolumeclaims") || size(new) <= size(old) {
            return Ok(());
        }
        if text_at(old, "/status/phase") != "Bound" {
            return Err(request.forbidden("Only bound persistent volume claims can be expanded"));
        }
        if !self.expands(new, old).await {
            return Err(request.forbidden(
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
            ));
        }
        Ok(())
    }
}
