//! A control plane to measure, and clients of it.

#![allow(dead_code, reason = "each bench takes what it needs")]

use std::sync::Arc;
use std::time::Duration;

use orlop::core::auth::UserInfo;
use orlop::core::client::Client;
use orlop::core::env::Env;
use orlop::core::resource::Resource;
use orlop::store::{DurableOptions, DurableStore};
use orlop::wire::kubeconfig::{ClientConfig, Credentials};
use orlop::wire::remote::RemoteClient;
use orlop::{ControlPlane, ServingAt};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const CONFIG_MAPS: Resource = Resource::namespaced("", "v1", "configmaps", "ConfigMap");
pub(crate) const NODES: Resource = Resource::cluster("", "v1", "nodes", "Node");
pub(crate) const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");
const NAMESPACES: Resource = Resource::cluster("", "v1", "namespaces", "Namespace");
const SERVICE_ACCOUNTS: Resource =
    Resource::namespaced("", "v1", "serviceaccounts", "ServiceAccount");
const ROLES: Resource = Resource::cluster(
    "rbac.authorization.k8s.io",
    "v1",
    "clusterroles",
    "ClusterRole",
);
const BINDINGS: Resource = Resource::cluster(
    "rbac.authorization.k8s.io",
    "v1",
    "clusterrolebindings",
    "ClusterRoleBinding",
);

/// The user that the benches act as: nobody special, whom RBAC lets write config maps and pods.
const USER: &str = "bench";

/// An API server with the default authorization and admission, and neither scheduler nor controllers, which listens on a port.
pub(crate) struct Plane {
    pub(crate) plane: ControlPlane,
    serving: ServingAt,
    _directory: TempDir,
}

impl Plane {
    /// Starts one on a durable store in a new directory, or in memory.
    pub(crate) async fn start(durable: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let builder = ControlPlane::builder()
            .with_defaults()
            .without_scheduler()
            .without_controllers();
        let builder = if durable {
            let store = DurableStore::open(
                directory.path().join("store"),
                DurableOptions::default(),
                Env::tokio(),
            );
            builder.store(store.expect("a store"))
        } else {
            builder.in_memory()
        };
        let plane = builder.start().await.expect("a control plane");
        let serving = plane
            .listen("127.0.0.1:0".parse().expect("an address"))
            .await
            .expect("a port");
        let own = Self {
            plane,
            serving,
            _directory: directory,
        };
        own.permit().await;
        own.service_account("default").await;
        own
    }

    /// A new namespace that pods can be made in.
    pub(crate) async fn namespace(&self, name: &str) {
        self.make(&NAMESPACES, "", json!({"metadata": {"name": name}}))
            .await;
        self.service_account(name).await;
    }

    async fn service_account(&self, namespace: &str) {
        self.make(
            &SERVICE_ACCOUNTS,
            namespace,
            json!({"metadata": {"name": "default"}}),
        )
        .await;
    }

    async fn permit(&self) {
        let rules = json!([{"apiGroups": [""], "resources": ["configmaps", "pods"], "verbs": ["create", "get", "list", "watch"]}]);
        self.make(
            &ROLES,
            "",
            json!({"metadata": {"name": USER}, "rules": rules}),
        )
        .await;
        let group = "rbac.authorization.k8s.io";
        let role = json!({"apiGroup": group, "kind": "ClusterRole", "name": USER});
        let subjects = json!([{"apiGroup": group, "kind": "User", "name": USER}]);
        self.make(
            &BINDINGS,
            "",
            json!({"metadata": {"name": USER}, "roleRef": role, "subjects": subjects}),
        )
        .await;
    }

    pub(crate) async fn make(&self, resource: &Resource, namespace: &str, body: Value) {
        let admin = self.plane.admin();
        match admin
            .resource(resource)
            .namespace(namespace)
            .create(&body)
            .await
        {
            Err(status) if !status.is_already_exists() => {
                panic!("{}: {}", resource.plural, status.message)
            }
            _ => {}
        }
    }

    /// The bench's user, in this process: no HTTP, no TLS, the same authorization and admission.
    pub(crate) fn local(&self) -> Arc<dyn Client> {
        self.plane
            .client(UserInfo::new(USER, ["system:authenticated"]), "bench")
    }

    /// The bench's user by HTTP/2 over TLS, with a connection and a certificate of its own.
    pub(crate) fn remote(&self) -> RemoteClient {
        self.remote_as(USER)
    }

    /// A user by HTTP/2 over TLS.
    pub(crate) fn remote_as(&self, user: &str) -> RemoteClient {
        let (authority, env) = (&self.plane.pki().authority, self.plane.env());
        let certificate = authority
            .issue_client(
                user,
                Vec::<String>::new(),
                env.wall(),
                Duration::from_secs(86_400),
            )
            .expect("a certificate");
        let mut config = ClientConfig::new(self.serving.url());
        config.certificate_authority = Some(authority.certificate_pem().to_owned());
        config.credentials = Credentials {
            certificate: Some(certificate),
            ..Credentials::default()
        };
        RemoteClient::new(&config, env).expect("a client")
    }
}

/// A config map of about 300 bytes.
pub(crate) fn config_map(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": "bench"}},
        "data": {"key": "v".repeat(200)},
    })
}

/// An ordinary pod of one container that asks for 100m of CPU and 500Mi of memory.
pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {"containers": [{
            "name": "app", "image": "pause:3.10",
            "ports": [{"containerPort": 80}],
            "env": [{"name": "MODE", "value": "bench"}],
            "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}},
        }]},
    })
}
