//! A new node takes no pods until it is ready.

use async_trait::async_trait;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest};
use orlop_core::status::Status;
use serde_json::json;

use super::list_mut;
use crate::names::text_field;

/// Taints every new node `node.kubernetes.io/not-ready:NoSchedule`; the node lifecycle controller takes it off.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaintNodesByCondition;

#[async_trait]
impl AdmissionPlugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        operation == AdmissionOperation::Create
    }

    async fn admit(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        const KEY: &str = "node.kubernetes.io/not-ready";
        if request.is("", "nodes")
            && let Some(taints) = list_mut(&mut request.object, &["spec", "taints"])
            && !taints.iter().any(|taint| {
                text_field(taint, "key") == KEY && text_field(taint, "effect") == "NoSchedule"
            })
        {
            taints.push(json!({"key": KEY, "effect": "NoSchedule"}));
        }
        Ok(())
    }
}
