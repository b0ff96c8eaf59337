//! The [`AdmissionPlugin`] joint: a say in what is written, before it is.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::auth::UserInfo;
use crate::object::Object;
use crate::resource::Resource;
use crate::revision::Revision;
use crate::status::Status;

/// What a request does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdmissionOperation {
    /// Makes it.
    Create,
    /// Changes it.
    Update,
    /// Deletes it.
    Delete,
    /// Opens a connection to it (`exec`, `proxy`, …).
    Connect,
}

impl AdmissionOperation {
    /// The name, as in an `AdmissionReview`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// A write on its way to the registry.
#[derive(Clone, Debug)]
pub struct AdmissionRequest {
    /// What is done.
    pub operation: AdmissionOperation,
    /// To what resource.
    pub resource: Resource,
    /// Through which subresource; empty for none.
    pub subresource: String,
    /// In which namespace; empty for the cluster.
    pub namespace: String,
    /// The object's name; empty where it is yet to be generated.
    pub name: String,
    /// Who does it.
    pub user: UserInfo,
    /// Whether the result is thrown away.
    pub dry_run: bool,
    /// The object as it is to be, defaults filled in; null for a deletion. A mutating plug-in changes it in place.
    pub object: Value,
    /// The object as it is; null for a creation.
    pub old_object: Arc<Value>,
    /// Warnings for the client; plug-ins add to them.
    pub warnings: Vec<String>,
}

impl AdmissionRequest {
    /// Whether this is an operation on a resource itself (no subresource) of the group and plural name.
    #[must_use]
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_empty()
            && self.resource.group == group
            && self.resource.plural == plural
    }

    /// A refusal of this request: 403 `Forbidden` with a reason.
    #[must_use]
    pub fn forbidden(&self, why: &str) -> Status {
        // The name may stand in the object alone, or be yet to be generated.
        let in_object = |pointer| {
            self.object
                .pointer(pointer)
                .and_then(Value::as_str)
                .filter(|name| !name.is_empty())
        };
        let name = Some(self.name.as_str())
            .filter(|name| !name.is_empty())
            .or_else(|| in_object("/metadata/name"))
            .or_else(|| in_object("/metadata/generateName"))
            .unwrap_or("Unknown");
        Status::forbidden(&self.resource, name, why)
    }
}

/// Objects as the API server's cache has them: what plug-ins and authorizers look up while a request waits.
#[async_trait]
pub trait ObjectReader: Send + Sync + 'static {
    /// An object out of the cache, which may be a moment behind.
    async fn get(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>, Status>;

    /// An object as it is now, not older than any acknowledged write.
    async fn get_live(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>, Status>;

    /// All objects of a resource out of the cache, in one namespace (or all, for an empty one), in order.
    async fn list(&self, resource: &Resource, namespace: &str) -> Result<Vec<Object>, Status>;

    /// The pods that are bound to a node (whose `spec.nodeName` it is), out of the cache. A reader that has an index does better than
    /// this, which looks at all pods.
    async fn pods_on(&self, node: &str) -> Result<Vec<Object>, Status> {
        const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");
        let all = self.list(&PODS, "").await?;
        let here = |pod: &Object| {
            let name = pod.value().ok();
            name.is_some_and(|pod| pod.pointer("/spec/nodeName") == Some(&Value::from(node)))
        };
        Ok(all.into_iter().filter(here).collect())
    }

    /// The revision of the last change to any object of the resource: what was derived from them is good until it moves.
    fn last_change(&self, resource: &Resource) -> Revision;
}

/// A say in what is written. Mutating comes first, for all plug-ins in their order; then validation, of what all of them made of it.
///
/// ```
/// use async_trait::async_trait;
/// use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest};
/// use orlop_core::status::Status;
///
/// /// Refuses pods whose image has no tag but `latest`.
/// struct DenyLatestTag;
///
/// #[async_trait]
/// impl AdmissionPlugin for DenyLatestTag {
///     fn name(&self) -> &'static str {
///         "DenyLatestTag"
///     }
///     fn handles(&self, _: AdmissionOperation) -> bool {
///         true
///     }
///     async fn validate(&self, request: &AdmissionRequest) -> Result<(), Status> {
///         if !request.is("", "pods") {
///             return Ok(());
///         }
///         let containers = request.object.pointer("/spec/containers").and_then(|c| c.as_array());
///         let latest = containers.into_iter().flatten().any(|c| c["image"].as_str().is_some_and(|i| i.ends_with(":latest")));
///         if latest { Err(request.forbidden("images need a version")) } else { Ok(()) }
///     }
/// }
/// ```
#[async_trait]
pub trait AdmissionPlugin: Send + Sync + 'static {
    /// Its name, as in `--enable-admission-plugins`.
    fn name(&self) -> &'static str;

    /// Whether it wants to see requests that do this.
    fn handles(&self, operation: AdmissionOperation) -> bool;

    /// Changes the object, or refuses the request.
    ///
    /// # Errors
    /// The refusal that the client sees.
    async fn admit(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        let _ = request;
        Ok(())
    }

    /// Refuses the request, or lets it pass.
    ///
    /// # Errors
    /// The refusal that the client sees.
    async fn validate(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let _ = request;
        Ok(())
    }
}
