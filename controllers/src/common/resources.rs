//! The resources that the controllers here work with.

use orlop_core::resource::Resource;

pub(crate) const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");
pub(crate) const SERVICES: Resource = Resource::namespaced("", "v1", "services", "Service");
pub(crate) const ENDPOINTS: Resource = Resource::namespaced("", "v1", "endpoints", "Endpoints");
pub(crate) const CONFIG_MAPS: Resource = Resource::namespaced("", "v1", "configmaps", "ConfigMap");
pub(crate) const SERVICE_ACCOUNTS: Resource =
    Resource::namespaced("", "v1", "serviceaccounts", "ServiceAccount");
pub(crate) const NODES: Resource = Resource::cluster("", "v1", "nodes", "Node");
pub(crate) const NAMESPACES: Resource = Resource::cluster("", "v1", "namespaces", "Namespace");
pub(crate) const DEPLOYMENTS: Resource =
    Resource::namespaced("apps", "v1", "deployments", "Deployment");
pub(crate) const REPLICA_SETS: Resource =
    Resource::namespaced("apps", "v1", "replicasets", "ReplicaSet");
pub(crate) const JOBS: Resource = Resource::namespaced("batch", "v1", "jobs", "Job");
pub(crate) const LEASES: Resource =
    Resource::namespaced("coordination.k8s.io", "v1", "leases", "Lease");
pub(crate) const ENDPOINT_SLICES: Resource =
    Resource::namespaced("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice");
