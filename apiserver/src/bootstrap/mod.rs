//! Bootstrap: the objects that a fresh server makes, and keeps as they are to be.
//!
//! [`run`] may be called again and again: what is there stays, what is missing is made, what belongs to the server is brought up to
//! date. It is what upstream's API server does by its post-start hooks and small controllers.

mod flow_control;
mod joining;
mod members;
mod priority_classes;
mod rbac;
mod roles;
mod service;
#[cfg(test)]
mod tests;
mod trust;

use std::net::{IpAddr, SocketAddr};

use futures::future::try_join_all;
use orlop_core::client::{Client, ListOptions, ResourceClient};
use orlop_core::env::Env;
use orlop_core::object::Object;
use orlop_core::resource::Resource;
use orlop_core::status::Status;
use serde_json::{Value, json};

pub use self::joining::KUBELET_CLIENT;
pub(crate) use self::members::Members;
pub use self::roles::node_rules;
use crate::names::{CONFIG_MAPS, NAMESPACES, text_at};

/// Who owns the fields that are written here.
const MANAGER: &str = "kube-apiserver";

/// What the objects depend on.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where others reach this API server: the endpoint of the service `kubernetes`. `None`, and an address of the machine's own that
    /// no endpoint may have (loopback, unspecified), leave its endpoints as they are.
    pub advertise: Option<SocketAddr>,
    /// The addresses of all API servers that are alive, at the port of this one: all of them are endpoints. Empty for this one alone.
    pub servers: Vec<IpAddr>,
    /// The range of service addresses, such as `10.96.0.0/12`.
    pub service_range: String,
    /// Whether machines may join by bootstrap tokens, and get their certificates without a person's approval.
    pub nodes_join_by_token: bool,
    /// The certificates (PEM) of the authority that signs client certificates, for extension servers; empty for none.
    pub client_ca: String,
}

/// The first address of a range, which is the service `kubernetes`'s; `None` for what is no range.
#[must_use]
pub fn first_service_ip(range: &str) -> Option<IpAddr> {
    let (address, bits) = range.split_once('/')?;
    let bits: u32 = bits.parse().ok()?;
    match address.parse().ok()? {
        IpAddr::V4(address) if bits < 32 => {
            let network = u32::from(address) & (u32::MAX << (32 - bits));
            network.checked_add(1).map(|first| IpAddr::V4(first.into()))
        }
        IpAddr::V6(address) if bits < 128 && bits > 0 => {
            let network = u128::from(address) & (u128::MAX << (128 - bits));
            network.checked_add(1).map(|first| IpAddr::V6(first.into()))
        }
        _ => None,
    }
}

/// Makes what is missing and brings up to date what belongs to the server.
///
/// # Errors
/// The first read or write that failed. What was done stays done; the caller tries again.
pub async fn run(client: &dyn Client, env: &Env, config: &Config) -> Result<(), Status> {
    let server = Server { client };
    let namespaces = ["default", "kube-node-lease", "kube-public", "kube-system"];
    let known = server.names(&NAMESPACES, "").await?;
    try_join_all(
        namespaces
            .iter()
            .filter(|name| !known.iter().any(|known| known == *name))
            .map(async |name| {
                server
                    .make(&NAMESPACES, &json!({"metadata": {"name": name}}))
                    .await
            }),
    )
    .await?;
    // These do not depend on each other.
    futures::future::try_join3(
        rbac::reconcile(&server),
        async {
            priority_classes::ensure(&server).await?;
            flow_control::reconcile(&server).await
        },
        async {
            service::reconcile(&server, env, config).await?;
            trust::publish(&server, config).await?;
            if config.nodes_join_by_token {
                joining::ensure(&server).await?;
            }
            legacy_token_tracking(&server, env).await
        },
    )
    .await?;
    Ok(())
}

/// Brings back what of the Service `kubernetes` somebody took away.
///
/// # Errors
/// The first read or write that failed; the next call tries again.
pub async fn keep_service(client: &dyn Client, env: &Env, config: &Config) -> Result<(), Status> {
    service::reconcile(&Server { client }, env, config).await
}

/// Lets the Service `kubernetes` lead to these API servers alone: what a server does that ends.
///
/// # Errors
/// The first read or write that failed.
pub(crate) async fn leave_service(
    client: &dyn Client,
    left: &[IpAddr],
    port: u16,
) -> Result<(), Status> {
    service::endpoints(&Server { client }, left, port).await
}

/// Whether an address can be an endpoint: others reach it.
pub(crate) fn is_endpoint(address: SocketAddr) -> bool {
    !address.ip().is_loopback() && !address.ip().is_unspecified()
}

/// Since when the use of tokens that are kept in secrets is watched.
async fn legacy_token_tracking(server: &Server<'_>, env: &Env) -> Result<(), Status> {
    let name = "kube-apiserver-legacy-service-account-token-tracking";
    let today = env.wall().strftime("%Y-%m-%d").to_string();
    let object =
        json!({"metadata": {"name": name, "namespace": "kube-system"}, "data": {"since": today}});
    server.ensure(&CONFIG_MAPS, &object).await.map(|_| ())
}

/// The client, with what all parts need.
struct Server<'a> {
    client: &'a dyn Client,
}

impl Server<'_> {
    fn resource(&self, resource: &Resource, namespace: &str) -> ResourceClient<'_> {
        self.client
            .resource(resource)
            .namespace(namespace)
            .field_manager(MANAGER)
    }

    async fn list(&self, resource: &Resource) -> Result<Vec<Object>, Status> {
        Ok(self
            .client
            .resource(resource)
            .list(ListOptions::default())
            .await?
            .items)
    }

    async fn names(&self, resource: &Resource, namespace: &str) -> Result<Vec<String>, Status> {
        let list = self
            .resource(resource, namespace)
            .list(ListOptions::default())
            .await?;
        Ok(list
            .items
            .iter()
            .map(|object| object.name().to_owned())
            .collect())
    }

    async fn find(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>, Status> {
        self.resource(resource, namespace).find(name).await
    }

    /// Makes an object; another server may have been faster.
    async fn make(&self, resource: &Resource, object: &Value) -> Result<(), Status> {
        match self
            .resource(resource, text_at(object, "/metadata/namespace"))
            .create(object)
            .await
        {
            Err(status) if !status.is_already_exists() => Err(status),
            _ => Ok(()),
        }
    }

    /// Makes an object if it is not there; gives the one that was there.
    async fn ensure(&self, resource: &Resource, object: &Value) -> Result<Option<Object>, Status> {
        let (namespace, name) = (
            text_at(object, "/metadata/namespace"),
            text_at(object, "/metadata/name"),
        );
        let known = self.find(resource, namespace, name).await?;
        if known.is_none() {
            self.make(resource, object).await?;
        }
        Ok(known)
    }

    async fn update(&self, resource: &Resource, object: &Value) -> Result<Object, Status> {
        self.resource(resource, text_at(object, "/metadata/namespace"))
            .update(object)
            .await
    }
}

/// A copy of an object to change.
fn copy(object: &Object) -> Result<Value, Status> {
    Ok(object.value().map_err(Status::internal)?.as_ref().clone())
}

/// Adds the labels or annotations that are missing; says whether there were any.
fn add_missing(object: &mut Value, field: &str, wanted: &Value) -> bool {
    let Some(wanted) = wanted
        .get("metadata")
        .and_then(|metadata| metadata.get(field))
        .and_then(Value::as_object)
    else {
        return false;
    };
    let known = &mut object["metadata"][field];
    if !known.is_object() {
        *known = json!({});
    }
    let Some(known) = known.as_object_mut() else {
        return false;
    };
    let before = known.len();
    for (key, value) in wanted {
        known.entry(key.clone()).or_insert_with(|| value.clone());
    }
    known.len() != before
}
