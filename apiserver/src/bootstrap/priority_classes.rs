//! The two priority classes of the system's own pods.

use orlop_core::status::Status;
use serde_json::json;

use super::Server;
use crate::names::PRIORITY_CLASSES;

const CLASSES: [(&str, i64, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "For pods without which their node does not work.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "For pods without which the cluster does not work, on whatever node they run.",
    ),
];

/// Makes those that are missing.
pub(super) async fn ensure(server: &Server<'_>) -> Result<(), Status> {
    for (name, value, description) in CLASSES {
        let class = json!({
            "metadata": {"name": name},
            "value": value,
            "description": description,
            "preemptionPolicy": "PreemptLowerPriority",
        });
        server.ensure(&PRIORITY_CLASSES, &class).await?;
    }
    Ok(())
}
