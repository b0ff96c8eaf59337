//! The condition `PodScheduled` of a pod that was not scheduled.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::Unit;
use orlop_core::client::Patch;
use orlop_core::resource::Resource;
use orlop_core::scheduling::PodInfo;
use serde::Deserialize;
use serde_json::{Value, json};

use super::shared::Shared;

const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");

/// A condition to be written.
pub(super) struct Write {
    shared: Arc<Shared>,
    pod: Arc<PodInfo>,
    reason: &'static str,
    message: String,
    nominated: Option<Arc<str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    status: WrittenStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WrittenStatus {
    conditions: Option<Vec<Condition>>,
    nominated_node_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    r#type: String,
    status: String,
    reason: Option<String>,
    message: Option<String>,
    last_transition_time: Option<Timestamp>,
}

impl Write {
    pub(super) fn new(
        shared: Arc<Shared>,
        pod: Arc<PodInfo>,
        reason: &'static str,
        message: String,
        nominated: Option<Arc<str>>,
    ) -> Self {
        Self {
            shared,
            pod,
            reason,
            message,
            nominated,
        }
    }

    /// Writes it, unless the pod says so already. A failure is told and left: the next attempt writes anew.
    pub(super) async fn run(self) {
        let Some(patch) = self.patch() else { return };
        let pods = self
            .shared
            .client
            .resource(&PODS)
            .namespace(self.pod.namespace());
        if let Err(status) = pods
            .patch_status(self.pod.name(), Patch::Strategic(patch))
            .await
            && !status.is_not_found()
        {
            tracing::warn!(pod = %self.pod, %status, "the pod's condition was not written");
        }
    }

    fn patch(&self) -> Option<Value> {
        let object = self.shared.pods.read().as_ref()?.get(self.pod.key())?;
        let written: Written = serde_json::from_slice(object.stored_json()).unwrap_or_default();
        let known = written
            .status
            .conditions
            .into_iter()
            .flatten()
            .find(|known| known.r#type == "PodScheduled");
        let unchanged = known.as_ref().is_some_and(|known| {
            known.status == "False"
                && known.reason.as_deref() == Some(self.reason)
                && known.message.as_deref() == Some(&self.message)
        });
        let nominated = self.nominated.as_deref();
        let nominated =
            nominated.filter(|node| written.status.nominated_node_name.as_deref() != Some(node));
        if unchanged && nominated.is_none() {
            return None;
        }
        // The time tells when the status changed, not the message.
        let since = known
            .filter(|known| known.status == "False")
            .and_then(|known| known.last_transition_time);
        let now = self.shared.env.wall();
        let since = since.unwrap_or_else(|| now.round(Unit::Second).unwrap_or(now));
        let mut status = json!({
            "conditions": [{
                "type": "PodScheduled",
                "status": "False",
                "reason": self.reason,
                "message": self.message,
                "lastProbeTime": null,
                "lastTransitionTime": since,
            }],
        });
        if let Some(node) = nominated {
            status["nominatedNodeName"] = json!(node);
        }
        let mut patch = json!({"status": status});
        if !self.pod.uid().is_empty() {
            // Not for a pod of the same name that was made anew.
            patch["metadata"] = json!({"uid": &**self.pod.uid()});
        }
        Some(patch)
    }
}
