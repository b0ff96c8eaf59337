//! The client side of the API, untyped: the [`Client`] trait and a builder around it.
//!
//! Every component is written against `dyn Client`. In one process it is a call into the API server, which shares its cached objects;
//! over the wire it is HTTP. Both go through the same authentication, authorization and admission.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures::Stream;
use serde::Serialize;
use serde_json::{Value, json};

use crate::object::Object;
use crate::resource::Resource;
use crate::revision::Revision;
use crate::status::Status;

/// What a request is about: a collection, an object, or a subresource of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The resource.
    pub resource: Resource,
    /// The namespace; `None` for what belongs to the cluster, and for a list over all namespaces.
    pub namespace: Option<String>,
    /// The object's name; `None` for the collection.
    pub name: Option<String>,
    /// The subresource, such as `status`.
    pub subresource: Option<String>,
}

/// How fresh a list must be; Kubernetes' `resourceVersion` and `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// Not older than anything acknowledged before the request. The default.
    #[default]
    Consistent,
    /// Whatever the server has at hand (`resourceVersion=0`).
    Any,
    /// Not older than a revision.
    NotOlderThan(Revision),
    /// At exactly a revision.
    Exact(Revision),
}

/// Options of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// A label selector in its text form; empty for all.
    pub label_selector: String,
    /// A field selector in its text form; empty for all.
    pub field_selector: String,
    /// At most this many objects; zero for all.
    pub limit: usize,
    /// The token of the previous page; empty for the first.
    pub continue_token: String,
    /// How fresh it must be.
    pub freshness: Freshness,
}

/// Options of a watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// A label selector in its text form; empty for all.
    pub label_selector: String,
    /// A field selector in its text form; empty for all.
    pub field_selector: String,
    /// Changes after this revision. `None` begins with the objects that are there, as [`WatchEvent::Added`].
    pub from: Option<Revision>,
    /// Whether to send [`WatchEvent::Bookmark`]s.
    pub bookmarks: bool,
    /// Streaming list: the objects that are there first, then a bookmark that says so, then the changes.
    pub initial_events: bool,
    /// When the server should end the watch, in seconds; zero for its own choice.
    pub timeout_seconds: u32,
}

/// Options of a create, update or patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Do all but keep the result.
    pub dry_run: bool,
    /// Who owns the written fields; empty for the client's name.
    pub field_manager: String,
    /// What to do with unknown and repeated fields.
    pub field_validation: FieldValidation,
    /// Take fields over from other owners (server-side apply only).
    pub force: bool,
}

/// What the server does with unknown and repeated fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them and say so in a warning. The default.
    #[default]
    Warn,
    /// Drop them.
    Ignore,
    /// Refuse the request.
    Strict,
}

/// What becomes of an object's dependents when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They stay, without an owner.
    Orphan,
    /// They are deleted after it.
    Background,
    /// They are deleted before it.
    Foreground,
}

impl Propagation {
    /// The word in `propagationPolicy`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Orphan => "Orphan",
            Self::Background => "Background",
            Self::Foreground => "Foreground",
        }
    }
}

/// Options of a delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Do all but keep the result.
    pub dry_run: bool,
    /// How long the object may take to end; `None` for its own choice.
    pub grace_period_seconds: Option<i64>,
    /// What becomes of its dependents; `None` for the kind's default.
    pub propagation: Option<Propagation>,
    /// Only if the object has this uid.
    pub uid: Option<String>,
    /// Only if the object stands at this revision.
    pub revision: Option<Revision>,
}

/// A patch, in one of Kubernetes' four forms.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' strategic merge patch.
    Strategic(Value),
    /// Server-side apply: the applier's whole intent.
    Apply(Value),
}

impl Patch {
    /// The media type of the form.
    #[must_use]
    pub const fn content_type(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json-patch+json",
            Self::Merge(_) => "application/merge-patch+json",
            Self::Strategic(_) => "application/strategic-merge-patch+json",
            Self::Apply(_) => "application/apply-patch+yaml",
        }
    }

    /// The patch document.
    #[must_use]
    pub const fn document(&self) -> &Value {
        match self {
            Self::Json(value)
            | Self::Merge(value)
            | Self::Strategic(value)
            | Self::Apply(value) => value,
        }
    }
}

/// What to do with a [`Target`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    /// Reads an object.
    Get(Freshness),
    /// Reads a collection.
    List(ListOptions),
    /// Follows a collection.
    Watch(WatchOptions),
    /// Adds an object to a collection, or posts to a subresource.
    Create(Value, WriteOptions),
    /// Replaces an object.
    Update(Value, WriteOptions),
    /// Changes an object.
    Patch(Patch, WriteOptions),
    /// Deletes an object.
    Delete(DeleteOptions),
    /// Deletes the objects of a collection that the selectors choose.
    DeleteCollection(DeleteOptions, ListOptions),
}

/// A request of a [`Client`].
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What it is about.
    pub target: Target,
    /// What to do.
    pub operation: Operation,
}

/// A page of a collection.
#[derive(Clone, Debug, Default)]
pub struct ObjectList {
    /// The objects, in order of namespace and name.
    pub items: Vec<Object>,
    /// The revision that the list shows.
    pub revision: Revision,
    /// The token for the next page; empty on the last.
    pub continue_token: String,
    /// How many objects come after this page, where the server knows.
    pub remaining: Option<u64>,
}

/// A change that a watch tells of.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    /// The object appeared (or, at the start of a watch without a revision, is there).
    Added(Object),
    /// The object changed.
    Modified(Object),
    /// The object went; this is how it last looked, at the revision of its deletion.
    Deleted(Object),
    /// Everything up to a revision has been told.
    Bookmark {
        /// That revision.
        revision: Revision,
        /// Whether this ends the initial events of a streaming list.
        initial_events_end: bool,
    },
}

/// A stream of changes. It ends after an error; [`Status::is_expired`] means "list again".
pub type ObjectWatch = Pin<Box<dyn Stream<Item = Result<WatchEvent, Status>> + Send>>;

/// What came back.
pub enum Answer {
    /// An object: the one read, or as it was written.
    Object(Object),
    /// A collection.
    List(ObjectList),
    /// A stream of changes.
    Watch(ObjectWatch),
    /// Success without an object: most deletions.
    Status(Box<Status>),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(object) => object.fmt(f),
            Self::List(list) => write!(f, "{} objects @{}", list.items.len(), list.revision),
            Self::Watch(_) => f.write_str("Watch"),
            Self::Status(status) => status.fmt(f),
        }
    }
}

/// A way to the API. One required method, so that a layer (metrics, faults, impersonation) is a few lines.
///
/// ```no_run
/// # use orlop_core::{client::*, resource::Resource};
/// # async fn example(client: std::sync::Arc<dyn Client>) -> Result<(), orlop_core::status::Status> {
/// const PODS: Resource = Resource::namespaced("", "v1", "pods", "Pod");
/// let pod = client.resource(&PODS).namespace("default").get("web-0").await?;
/// println!("{} at {}", pod.name(), pod.revision());
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Client: Send + Sync + 'static {
    /// Sends a request and waits for the answer. The [`Answer`] is of the form that the operation promises: an object for
    /// get, create, update and patch, a list for list, a stream for watch, an object or a status for the deletions.
    ///
    /// # Errors
    /// The server's [`Status`]; one with reason `ServiceUnavailable` or `Timeout` when there was no answer.
    async fn call(&self, request: Request) -> Result<Answer, Status>;
}

#[async_trait]
impl<C: Client + ?Sized> Client for Arc<C> {
    async fn call(&self, request: Request) -> Result<Answer, Status> {
        (**self).call(request).await
    }
}

impl dyn Client {
    /// Requests about one resource.
    #[must_use]
    pub fn resource<'a>(&'a self, resource: &Resource) -> ResourceClient<'a> {
        ResourceClient {
            client: self,
            resource: resource.clone(),
            namespace: None,
            field_manager: String::new(),
        }
    }
}

/// Requests about one resource: a builder around [`Client::call`].
#[derive(Clone)]
pub struct ResourceClient<'a> {
    client: &'a dyn Client,
    resource: Resource,
    namespace: Option<String>,
    field_manager: String,
}

impl ResourceClient<'_> {
    /// In a namespace. An empty one, and a resource without namespaces, leave it out.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace =
            Some(namespace.to_owned()).filter(|n| !n.is_empty() && self.resource.namespaced);
        self
    }

    /// Who owns the fields that this client writes.
    #[must_use]
    pub fn field_manager(mut self, manager: &str) -> Self {
        manager.clone_into(&mut self.field_manager);
        self
    }

    fn target(&self, name: Option<&str>, subresource: Option<&str>) -> Target {
        Target {
            resource: self.resource.clone(),
            namespace: self.namespace.clone(),
            name: name.map(str::to_owned),
            subresource: subresource.map(str::to_owned),
        }
    }

    fn write_options(&self) -> WriteOptions {
        WriteOptions {
            field_manager: self.field_manager.clone(),
            ..WriteOptions::default()
        }
    }

    async fn object(&self, target: Target, operation: Operation) -> Result<Object, Status> {
        match self.client.call(Request { target, operation }).await? {
            Answer::Object(object) => Ok(object),
            other => Err(unexpected(&other)),
        }
    }

    /// Reads an object.
    ///
    /// # Errors
    /// The server's refusal, as for every method here.
    pub async fn get(&self, name: &str) -> Result<Object, Status> {
        self.object(
            self.target(Some(name), None),
            Operation::Get(Freshness::Consistent),
        )
        .await
    }

    /// Reads an object, if it is there.
    ///
    /// # Errors
    /// Any refusal but `NotFound`.
    pub async fn find(&self, name: &str) -> Result<Option<Object>, Status> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Reads a collection.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn list(&self, options: ListOptions) -> Result<ObjectList, Status> {
        match self
            .client
            .call(Request {
                target: self.target(None, None),
                operation: Operation::List(options),
            })
            .await?
        {
            Answer::List(list) => Ok(list),
            other => Err(unexpected(&other)),
        }
    }

    /// Follows a collection.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn watch(&self, options: WatchOptions) -> Result<ObjectWatch, Status> {
        match self
            .client
            .call(Request {
                target: self.target(None, None),
                operation: Operation::Watch(options),
            })
            .await?
        {
            Answer::Watch(stream) => Ok(stream),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes an object. `apiVersion` and `kind` may be left out.
    ///
    /// # Errors
    /// The server's refusal, or that the value cannot be written as JSON.
    pub async fn create(&self, object: &impl Serialize) -> Result<Object, Status> {
        self.object(
            self.target(None, None),
            Operation::Create(self.body(object)?, self.write_options()),
        )
        .await
    }

    /// Replaces an object; its `metadata.name` says which.
    ///
    /// # Errors
    /// The server's refusal, or that the value cannot be written as JSON.
    pub async fn update(&self, object: &impl Serialize) -> Result<Object, Status> {
        self.update_at(None, object).await
    }

    /// Replaces an object's status.
    ///
    /// # Errors
    /// The server's refusal, or that the value cannot be written as JSON.
    pub async fn update_status(&self, object: &impl Serialize) -> Result<Object, Status> {
        self.update_at(Some("status"), object).await
    }

    /// Replaces an object through a subresource (`None` for the object itself).
    ///
    /// # Errors
    /// The server's refusal, or that the value cannot be written as JSON.
    pub async fn update_at(
        &self,
        subresource: Option<&str>,
        object: &impl Serialize,
    ) -> Result<Object, Status> {
        let body = self.body(object)?;
        let name = body["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        self.object(
            self.target(Some(&name), subresource),
            Operation::Update(body, self.write_options()),
        )
        .await
    }

    /// Changes an object.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn patch(&self, name: &str, patch: Patch) -> Result<Object, Status> {
        self.patch_at(name, None, patch).await
    }

    /// Changes an object's status.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn patch_status(&self, name: &str, patch: Patch) -> Result<Object, Status> {
        self.patch_at(name, Some("status"), patch).await
    }

    /// Changes an object through a subresource (`None` for the object itself).
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn patch_at(
        &self,
        name: &str,
        subresource: Option<&str>,
        patch: Patch,
    ) -> Result<Object, Status> {
        self.object(
            self.target(Some(name), subresource),
            Operation::Patch(patch, self.write_options()),
        )
        .await
    }

    /// Posts to a subresource of an object, such as `binding` or `eviction`. Most of them answer with a status.
    ///
    /// # Errors
    /// The server's refusal, or that the value cannot be written as JSON.
    pub async fn create_subresource(
        &self,
        name: &str,
        subresource: &str,
        body: &impl Serialize,
    ) -> Result<Answer, Status> {
        let body = to_value(body)?;
        let target = self.target(Some(name), Some(subresource));
        self.client
            .call(Request {
                target,
                operation: Operation::Create(body, self.write_options()),
            })
            .await
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn delete(&self, name: &str, options: DeleteOptions) -> Result<(), Status> {
        let target = self.target(Some(name), None);
        self.client
            .call(Request {
                target,
                operation: Operation::Delete(options),
            })
            .await
            .map(|_| ())
    }

    /// Deletes the objects that the selectors choose.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn delete_collection(
        &self,
        options: DeleteOptions,
        which: ListOptions,
    ) -> Result<(), Status> {
        let operation = Operation::DeleteCollection(options, which);
        self.client
            .call(Request {
                target: self.target(None, None),
                operation,
            })
            .await
            .map(|_| ())
    }

    fn body(&self, object: &impl Serialize) -> Result<Value, Status> {
        let mut body = to_value(object)?;
        if let Some(map) = body.as_object_mut() {
            map.entry("apiVersion")
                .or_insert_with(|| json!(self.resource.api_version()));
            map.entry("kind")
                .or_insert_with(|| json!(self.resource.kind));
        }
        Ok(body)
    }
}

fn to_value(object: &impl Serialize) -> Result<Value, Status> {
    serde_json::to_value(object)
        .map_err(|error| Status::bad_request(format!("cannot be written as JSON: {error}")))
}

fn unexpected(answer: &Answer) -> Status {
    Status::internal(format!("the server answered in another form: {answer:?}"))
}
