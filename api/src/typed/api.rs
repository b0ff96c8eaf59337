//! [`Api`]: requests about one kind.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use orlop_core::client::{
    Client, DeleteOptions, ListOptions, Patch, ResourceClient, WatchEvent, WatchOptions,
};
use orlop_core::object::Object;
use orlop_core::resource::Resource;
use orlop_core::revision::Revision;
use orlop_core::status::Status;
use serde::Serialize;

use super::Kind;

/// Requests about the objects of one kind, in a namespace or in all.
pub struct Api<K> {
    client: Arc<dyn Client>,
    resource: Resource,
    namespace: String,
    field_manager: String,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            resource: self.resource.clone(),
            namespace: self.namespace.clone(),
            field_manager: self.field_manager.clone(),
            kind: PhantomData,
        }
    }
}

impl<K> fmt::Debug for Api<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("resource", &self.resource)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// A page of a collection.
#[derive(Clone, Debug)]
pub struct List<K> {
    /// The objects, in order of namespace and name.
    pub items: Vec<Arc<K>>,
    /// The revision that the list shows.
    pub revision: Revision,
    /// The token for the next page; empty on the last.
    pub continue_token: String,
    /// How many objects come after this page, where the server knows.
    pub remaining: Option<u64>,
}

/// A change that a watch tells of.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<K> {
    /// The object appeared.
    Added(Arc<K>),
    /// The object changed.
    Modified(Arc<K>),
    /// The object went; this is how it last looked.
    Deleted(Arc<K>),
    /// Everything up to a revision has been told.
    Bookmark {
        /// That revision.
        revision: Revision,
        /// Whether this ends the initial events of a streaming list.
        initial_events_end: bool,
    },
}

impl<K: Kind> Api<K> {
    /// Requests about the cluster's objects, or over all namespaces.
    #[must_use]
    pub fn all(client: Arc<dyn Client>) -> Self {
        Self {
            client,
            resource: K::resource(),
            namespace: String::new(),
            field_manager: String::new(),
            kind: PhantomData,
        }
    }

    /// Requests about the objects in a namespace.
    #[must_use]
    pub fn namespaced(client: Arc<dyn Client>, namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            ..Self::all(client)
        }
    }

    /// Who owns the fields that are written here.
    #[must_use]
    pub fn field_manager(mut self, manager: &str) -> Self {
        manager.clone_into(&mut self.field_manager);
        self
    }

    /// The resource.
    #[must_use]
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// The same requests without types, for all that types can't say.
    #[must_use]
    pub fn untyped(&self) -> ResourceClient<'_> {
        self.client
            .resource(&self.resource)
            .namespace(&self.namespace)
            .field_manager(&self.field_manager)
    }

    /// Reads an object.
    ///
    /// # Errors
    /// The server's refusal, or that the object doesn't fit its type, as for every method here.
    pub async fn get(&self, name: &str) -> Result<Arc<K>, Status> {
        self.untyped()
            .get(name)
            .await
            .and_then(|object| decode(&object))
    }

    /// Reads an object, if it is there.
    ///
    /// # Errors
    /// Any refusal but `NotFound`.
    pub async fn find(&self, name: &str) -> Result<Option<Arc<K>>, Status> {
        let object = self.untyped().find(name).await?;
        object.as_ref().map(decode).transpose()
    }

    /// Reads a collection.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn list(&self, options: ListOptions) -> Result<List<K>, Status> {
        let list = self.untyped().list(options).await?;
        Ok(List {
            items: list.items.iter().map(decode).collect::<Result<_, _>>()?,
            revision: list.revision,
            continue_token: list.continue_token,
            remaining: list.remaining,
        })
    }

    /// Follows a collection. The stream ends after an error; [`Status::is_expired`] means "list again".
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn watch(
        &self,
        options: WatchOptions,
    ) -> Result<impl Stream<Item = Result<Event<K>, Status>> + Send + use<K>, Status> {
        let watch = self.untyped().watch(options).await?;
        Ok(watch.map(|event| {
            Ok(match event? {
                WatchEvent::Added(object) => Event::Added(decode(&object)?),
                WatchEvent::Modified(object) => Event::Modified(decode(&object)?),
                WatchEvent::Deleted(object) => Event::Deleted(decode(&object)?),
                WatchEvent::Bookmark {
                    revision,
                    initial_events_end,
                } => Event::Bookmark {
                    revision,
                    initial_events_end,
                },
            })
        }))
    }

    /// Makes an object.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn create(&self, object: &K) -> Result<Arc<K>, Status> {
        self.untyped()
            .create(object)
            .await
            .and_then(|object| decode(&object))
    }

    /// Replaces an object; its `metadata.name` says which.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn update(&self, object: &K) -> Result<Arc<K>, Status> {
        self.untyped()
            .update(object)
            .await
            .and_then(|object| decode(&object))
    }

    /// Replaces an object's status.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn update_status(&self, object: &K) -> Result<Arc<K>, Status> {
        self.untyped()
            .update_status(object)
            .await
            .and_then(|object| decode(&object))
    }

    /// Changes an object.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn patch(&self, name: &str, patch: Patch) -> Result<Arc<K>, Status> {
        self.untyped()
            .patch(name, patch)
            .await
            .and_then(|object| decode(&object))
    }

    /// Changes an object's status.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn patch_status(&self, name: &str, patch: Patch) -> Result<Arc<K>, Status> {
        self.untyped()
            .patch_status(name, patch)
            .await
            .and_then(|object| decode(&object))
    }

    /// Server-side apply: makes the object as `object` says where it says something, and owns those fields.
    ///
    /// # Errors
    /// The server's refusal; `Conflict` when others own some of the fields.
    pub async fn apply(&self, name: &str, object: &impl Serialize) -> Result<Arc<K>, Status> {
        let mut intent = serde_json::to_value(object)
            .map_err(|error| Status::bad_request(format!("cannot be written as JSON: {error}")))?;
        if let Some(fields) = intent.as_object_mut() {
            fields
                .entry("apiVersion")
                .or_insert_with(|| self.resource.api_version().into());
            fields
                .entry("kind")
                .or_insert_with(|| self.resource.kind.clone().into_owned().into());
        }
        self.patch(name, Patch::Apply(intent)).await
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn delete(&self, name: &str, options: DeleteOptions) -> Result<(), Status> {
        self.untyped().delete(name, options).await
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
        self.untyped().delete_collection(options, which).await
    }
}

fn decode<K: Kind>(object: &Object) -> Result<Arc<K>, Status> {
    object.decode().map_err(|error| {
        Status::internal(format!(
            "{} {:?} does not fit its type: {error}",
            object.kind(),
            object.name()
        ))
    })
}
