//! Who the parts of a control plane are to the API server.
//!
//! In one process or many, each has its own identity, and may do what RBAC lets that identity do.

use orlop_core::auth::{ALL_AUTHENTICATED, SYSTEM_MASTERS, UserInfo};
use orlop_core::client::Client;
use orlop_core::controller::Interests;
use orlop_core::resource::Resource;
use orlop_core::status::Status;
use serde_json::{Value, json};

const CLUSTER_ROLES: Resource = Resource::cluster(
    "rbac.authorization.k8s.io",
    "v1",
    "clusterroles",
    "ClusterRole",
);
const CLUSTER_ROLE_BINDINGS: Resource = Resource::cluster(
    "rbac.authorization.k8s.io",
    "v1",
    "clusterrolebindings",
    "ClusterRoleBinding",
);

/// The namespace of the controllers' service accounts.
const SYSTEM: &str = "kube-system";

/// The administrator.
pub(crate) fn admin() -> UserInfo {
    UserInfo::new("kubernetes-admin", [SYSTEM_MASTERS, ALL_AUTHENTICATED])
}

/// The scheduler.
pub(crate) fn scheduler() -> UserInfo {
    UserInfo::new("system:kube-scheduler", [ALL_AUTHENTICATED])
}

/// The kubelet of a node.
pub(crate) fn node(name: &str) -> UserInfo {
    UserInfo::new(
        &format!("system:node:{name}"),
        ["system:nodes", ALL_AUTHENTICATED],
    )
}

/// The service proxy of a node.
pub(crate) fn proxy() -> UserInfo {
    UserInfo::new("system:kube-proxy", [ALL_AUTHENTICATED])
}

/// A controller, by its name; the manager itself for [`MANAGER_IDENTITY`](orlop_controllers::manager::MANAGER_IDENTITY).
pub(crate) fn controller(name: &str) -> UserInfo {
    if name == orlop_controllers::manager::MANAGER_IDENTITY {
        UserInfo::new("system:kube-controller-manager", [ALL_AUTHENTICATED])
    } else {
        UserInfo::service_account(SYSTEM, name)
    }
}

/// Lets a controller that is not Kubernetes' own do what it says it is about: change its subjects, make and delete what it owns, read
/// what it watches, and write events.
pub(crate) async fn grant(
    client: &dyn Client,
    name: &str,
    interests: &Interests,
) -> Result<(), Status> {
    let mut rules: Vec<Value> = Vec::new();
    let mut rule = |resource: &Resource, verbs: &[&str]| {
        let resources = [
            resource.plural.to_string(),
            format!("{}/status", resource.plural),
        ];
        rules.push(json!({"apiGroups": [resource.group], "resources": resources, "verbs": verbs}));
    };
    for scope in interests.scopes() {
        rule(&scope.resource, &["get", "list", "watch"]);
    }
    if let Some(subject) = interests.subject() {
        rule(subject, &["get", "list", "watch", "update", "patch"]);
    }
    for owned in interests.owned() {
        rule(owned, &["*"]);
    }
    rules.push(json!({"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]}));
    bind(
        client,
        &format!("orlop:controller:{name}"),
        &controller(name),
        rules,
    )
    .await
}

/// Gives an identity a cluster role of its own.
pub(crate) async fn bind(
    client: &dyn Client,
    role: &str,
    user: &UserInfo,
    rules: Vec<Value>,
) -> Result<(), Status> {
    let labels = json!({"app.kubernetes.io/managed-by": "orlop"});
    let body = json!({"metadata": {"name": role, "labels": labels}, "rules": rules});
    put(client, &CLUSTER_ROLES, role, &body).await?;
    bind_to(client, role, role, &user.name).await
}

/// Gives a user a cluster role that is there.
async fn bind_to(client: &dyn Client, name: &str, role: &str, user: &str) -> Result<(), Status> {
    let labels = json!({"app.kubernetes.io/managed-by": "orlop"});
    let subject = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user});
    let role_ref =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role});
    let body = json!({"metadata": {"name": name, "labels": labels}, "roleRef": role_ref, "subjects": [subject]});
    put(client, &CLUSTER_ROLE_BINDINGS, name, &body).await
}

/// Makes an object, or makes it what it should be.
async fn put(
    client: &dyn Client,
    resource: &Resource,
    name: &str,
    body: &Value,
) -> Result<(), Status> {
    match client.resource(resource).create(body).await {
        Err(status) if status.is_already_exists() => {
            let patch = orlop_core::client::Patch::Merge(body.clone());
            client
                .resource(resource)
                .patch(name, patch)
                .await
                .map(|_| ())
        }
        other => other.map(|_| ()),
    }
}
