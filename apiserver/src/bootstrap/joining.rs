//! What lets machines join by a bootstrap token, as kubeadm sets it up, and lets the API server use kubelets.

use futures::future::try_join_all;
use orlop_core::status::Status;
use serde_json::json;

use super::Server;
use crate::names::{CLUSTER_ROLE_BINDINGS, RBAC};

/// The user as which the API server comes to kubelets, where it shows a certificate.
pub const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";

/// Bindings: name, cluster role, kind and name of the subject.
const BINDINGS: [(&str, &str, &str, &str); 4] = [
    // Who has a token may ask for a certificate, …
    (
        "orlop:kubelet-bootstrap",
        "system:node-bootstrapper",
        "Group",
        "system:bootstrappers",
    ),
    // … which a node's client certificate is approved for, …
    (
        "orlop:node-autoapprove-bootstrap",
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        "Group",
        "system:bootstrappers",
    ),
    // … as is the next one that the node asks for itself.
    (
        "orlop:node-autoapprove-certificate-rotation",
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        "Group",
        "system:nodes",
    ),
    (
        "orlop:kubelet-api-admin",
        "system:kubelet-api-admin",
        "User",
        KUBELET_CLIENT,
    ),
];

/// Makes the bindings that are missing. They are an installation's own: whoever changes or annotates them keeps what they made.
pub(super) async fn ensure(server: &Server<'_>) -> Result<(), Status> {
    try_join_all(BINDINGS.map(async |(name, role, kind, subject)| {
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": RBAC, "kind": kind, "name": subject}],
        });
        server.ensure(&CLUSTER_ROLE_BINDINGS, &binding).await
    }))
    .await
    .map(|_| ())
}
