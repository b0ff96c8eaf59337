//! What stores data is not gone while it is in use.

use async_trait::async_trait;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest};
use orlop_core::status::Status;
use serde_json::json;

use super::list_mut;
use crate::names::STORAGE;

/// Adds the finalizers that keep claims, volumes and volume attributes classes until nobody uses them.
#[derive(Clone, Copy, Debug, Default)]
pub struct StorageObjectInUseProtection;

#[async_trait]
impl AdmissionPlugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        operation == AdmissionOperation::Create
    }

    async fn admit(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        let finalizer = if request.is("", "persistentvolumeclaims") {
            "kubernetes.io/pvc-protection"
        } else if request.is("", "persistentvolumes") {
            "kubernetes.io/pv-protection"
        } else if request.is(STORAGE, "volumeattributesclasses") {
            "kubernetes.io/vac-protection"
        } else {
            return Ok(());
        };
        if let Some(finalizers) = list_mut(&mut request.object, &["metadata", "finalizers"])
            && !finalizers.iter().any(|known| known == finalizer)
        {
            finalizers.push(json!(finalizer));
        }
        Ok(())
    }
}
