//! Services get no new external addresses: whoever may set them could take other people's traffic.

use async_trait::async_trait;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest};
use orlop_core::status::Status;

use crate::names::list_at;

/// Refuses services with external addresses that they had not before.
#[derive(Clone, Copy, Debug, Default)]
pub struct DenyServiceExternalIps;

#[async_trait]
impl AdmissionPlugin for DenyServiceExternalIps {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        matches!(
            operation,
            AdmissionOperation::Create | AdmissionOperation::Update
        )
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let old = list_at(&request.old_object, "/spec/externalIPs");
        let mut new = list_at(&request.object, "/spec/externalIPs").iter();
        if request.is("", "services") && new.any(|address| !old.contains(address)) {
            return Err(request.forbidden("Use of external IPs is denied by admission control."));
        }
        Ok(())
    }
}
