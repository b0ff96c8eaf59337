//! What an engine is and can do.

use orlop_core::runtime::{
    RuntimeCondition, RuntimeFeatures, RuntimeHandler, RuntimeStatus, RuntimeVersion,
};

use crate::messages as cri;

/// How an engine is.
pub(crate) fn runtime_status(
    version: cri::VersionResponse,
    status: cri::StatusResponse,
) -> RuntimeStatus {
    let conditions = status.status.unwrap_or_default().conditions.into_iter();
    let conditions = conditions.map(|condition| RuntimeCondition {
        kind: condition.kind,
        holds: condition.status,
        reason: condition.reason,
        message: condition.message,
    });
    let handlers = status.runtime_handlers.into_iter().map(|handler| {
        let features = handler.features.unwrap_or_default();
        RuntimeHandler {
            name: handler.name,
            recursive_read_only_mounts: features.recursive_read_only_mounts,
            user_namespaces: features.user_namespaces,
        }
    });
    let mut handlers: Vec<_> = handlers.collect();
    if handlers.iter().all(|handler| !handler.name.is_empty()) {
        // Older engines do not tell of their handlers; the default one every engine has.
        handlers.insert(0, RuntimeHandler::default());
    }
    let features = status.features.unwrap_or_default();
    RuntimeStatus {
        version: RuntimeVersion {
            name: version.runtime_name,
            version: version.runtime_version,
        },
        conditions: conditions.collect(),
        handlers,
        features: RuntimeFeatures {
            supplemental_groups_policy: features.supplemental_groups_policy,
            user_namespaces_host_network: features.user_namespaces_host_network,
            mount_options: features.mount_options,
        },
    }
}
