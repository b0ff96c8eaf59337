//! A pod that is bound to a node learns in which zone and region it runs.

use std::sync::Arc;

use async_trait::async_trait;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest, ObjectReader};
use orlop_core::status::Status;
use serde_json::json;

use super::{Context, map_at};
use crate::names::{NODES, text_at};

const LABELS: [&str; 2] = [
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// Copies the topology labels of the node onto bindings, whose labels the pod takes over, and onto pods that name their node themselves.
pub struct PodTopologyLabels {
    reader: Arc<dyn ObjectReader>,
}

impl PodTopologyLabels {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            reader: context.reader.clone(),
        }
    }
}

#[async_trait]
impl AdmissionPlugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        operation == AdmissionOperation::Create
    }

    async fn admit(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        let is_pod = request.resource.group.is_empty() && request.resource.plural == "pods";
        let binding = is_pod && request.subresource == "binding"
            || request.is("", "bindings")
                && matches!(text_at(&request.object, "/target/kind"), "" | "Node");
        let node = if binding {
            text_at(&request.object, "/target/name")
        } else if request.is("", "pods") {
            text_at(&request.object, "/spec/nodeName")
        } else {
            ""
        };
        if node.is_empty() {
            return Ok(());
        }
        let Some(node) = self.reader.get(&NODES, "", node).await? else {
            return Ok(());
        };
        let known = &node.metadata().labels;
        for label in LABELS {
            if let Some(value) = known.get(label)
                && let Some(labels) = map_at(&mut request.object, &["metadata", "labels"])
            {
                labels.insert(label.to_owned(), json!(value));
            }
        }
        Ok(())
    }
}
