//! Pods stay for a while on a node that is not ready or not reached.

use async_trait::async_trait;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest};
use orlop_core::status::Status;
use serde_json::json;

use super::list_mut;
use crate::names::text_field;

/// Adds tolerations of `not-ready` and `unreachable` to pods that have none of their own.
#[derive(Clone, Copy, Debug)]
pub struct DefaultTolerationSeconds {
    /// Seconds on a node that is not ready (`--default-not-ready-toleration-seconds`).
    pub not_ready: i64,
    /// Seconds on a node that is not reached (`--default-unreachable-toleration-seconds`).
    pub unreachable: i64,
}

impl Default for DefaultTolerationSeconds {
    fn default() -> Self {
        Self {
            not_ready: 300,
            unreachable: 300,
        }
    }
}

#[async_trait]
impl AdmissionPlugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        matches!(
            operation,
            AdmissionOperation::Create | AdmissionOperation::Update
        )
    }

    async fn admit(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        if !request.is("", "pods") {
            return Ok(());
        }
        let Some(tolerations) = list_mut(&mut request.object, &["spec", "tolerations"]) else {
            return Ok(());
        };
        let own = tolerations.len();
        for (key, seconds) in [
            ("node.kubernetes.io/not-ready", self.not_ready),
            ("node.kubernetes.io/unreachable", self.unreachable),
        ] {
            let tolerated = tolerations[..own].iter().any(|toleration| {
                let (of, effect) = (
                    text_field(toleration, "key"),
                    text_field(toleration, "effect"),
                );
                (of == key || of.is_empty()) && (effect == "NoExecute" || effect.is_empty())
            });
            if !tolerated {
                tolerations.push(json!({
                    "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds
                }));
            }
        }
        Ok(())
    }
}
