//! The resources that the API server itself reads and writes.

use orlop_core::resource::Resource;
use serde_json::Value;

pub(crate) const NAMESPACES: Resource = Resource::cluster("", "v1", "namespaces", "Namespace");
pub(crate) const NODES: Resource = Resource::cluster("", "v1", "nodes", "Node");
pub(crate) const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");
pub(crate) const SECRETS: Resource = Resource::namespaced("", "v1", "secrets", "Secret");
pub(crate) const CONFIG_MAPS: Resource = Resource::namespaced("", "v1", "configmaps", "ConfigMap");
pub(crate) const SERVICES: Resource = Resource::namespaced("", "v1", "services", "Service");
pub(crate) const ENDPOINTS: Resource = Resource::namespaced("", "v1", "endpoints", "Endpoints");
pub(crate) const SERVICE_ACCOUNTS: Resource =
    Resource::namespaced("", "v1", "serviceaccounts", "ServiceAccount");
pub(crate) const LIMIT_RANGES: Resource =
    Resource::namespaced("", "v1", "limitranges", "LimitRange");
pub(crate) const PERSISTENT_VOLUMES: Resource =
    Resource::cluster("", "v1", "persistentvolumes", "PersistentVolume");
pub(crate) const PERSISTENT_VOLUME_CLAIMS: Resource =
    Resource::namespaced("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim");

pub(crate) const RBAC: &str = "rbac.authorization.k8s.io";
pub(crate) const ROLES: Resource = Resource::namespaced(RBAC, "v1", "roles", "Role");
pub(crate) const ROLE_BINDINGS: Resource =
    Resource::namespaced(RBAC, "v1", "rolebindings", "RoleBinding");
pub(crate) const CLUSTER_ROLES: Resource =
    Resource::cluster(RBAC, "v1", "clusterroles", "ClusterRole");
pub(crate) const CLUSTER_ROLE_BINDINGS: Resource =
    Resource::cluster(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding");

pub(crate) const STORAGE: &str = "storage.k8s.io";
pub(crate) const STORAGE_CLASSES: Resource =
    Resource::cluster(STORAGE, "v1", "storageclasses", "StorageClass");
pub(crate) const VOLUME_ATTACHMENTS: Resource =
    Resource::cluster(STORAGE, "v1", "volumeattachments", "VolumeAttachment");
pub(crate) const PRIORITY_CLASSES: Resource = Resource::cluster(
    "scheduling.k8s.io",
    "v1",
    "priorityclasses",
    "PriorityClass",
);
pub(crate) const RUNTIME_CLASSES: Resource =
    Resource::cluster("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass");
pub(crate) const NETWORKING: &str = "networking.k8s.io";
pub(crate) const INGRESS_CLASSES: Resource =
    Resource::cluster(NETWORKING, "v1", "ingressclasses", "IngressClass");
pub(crate) const SERVICE_CIDRS: Resource =
    Resource::cluster(NETWORKING, "v1", "servicecidrs", "ServiceCIDR");
pub(crate) const IP_ADDRESSES: Resource =
    Resource::cluster(NETWORKING, "v1", "ipaddresses", "IPAddress");
pub(crate) const ENDPOINT_SLICES: Resource =
    Resource::namespaced("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice");
pub(crate) const RESOURCE_SLICES: Resource =
    Resource::cluster("resource.k8s.io", "v1", "resourceslices", "ResourceSlice");
pub(crate) const FLOW_CONTROL: &str = "flowcontrol.apiserver.k8s.io";
pub(crate) const FLOW_SCHEMAS: Resource =
    Resource::cluster(FLOW_CONTROL, "v1", "flowschemas", "FlowSchema");
pub(crate) const PRIORITY_LEVELS: Resource = Resource::cluster(
    FLOW_CONTROL,
    "v1",
    "prioritylevelconfigurations",
    "PriorityLevelConfiguration",
);

/// The text at a JSON pointer; empty where there is none.
pub(crate) fn text_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The list at a JSON pointer; empty where there is none.
pub(crate) fn list_at<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// Whether the field is a text that is not empty.
pub(crate) fn text_field<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}
