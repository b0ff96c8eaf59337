//! The [`Controller`] joint: what makes the world as an object says it should be.
//!
//! A controller says what it is about and how to bring *one* object's part of the world nearer to what the object asks for. All else is
//! the manager's (`orlop-controllers`): watching, the queue, retries with growing waits, metrics, leader election, shutdown.
//!
//! # Writing one
//!
//! * [`interests`](Controller::interests) declares what it is about. The objects that it is *for* are its keys. For what it *owns*, the key
//!   is the owner's. For whatever else it *watches*, a function gives the keys. What it only *reads* causes nothing, but is there to be read.
//! * [`reconcile`](Controller::reconcile) gets a key, never what happened: level-triggered. It reads the present state from
//!   [`Context::store`] (a local copy, which may be a moment old), compares, and writes through [`Context::client`]. It may be called at any
//!   time, again, for an object that has not changed or is gone. Two calls for one key never overlap.
//! * An error is tried again, with waits from 5 ms to 1000 s; a conflict is one, and right: the next try sees the newer state.
//!
//! ```
//! use async_trait::async_trait;
//! use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError};
//! use orlop_core::object::ObjectKey;
//! use orlop_core::resource::Resource;
//! use serde_json::json;
//!
//! const SITES: Resource = Resource::namespaced("example.com", "v1", "websites", "Website");
//! const MAPS: Resource = Resource::namespaced("", "v1", "configmaps", "ConfigMap");
//!
//! struct Websites;
//!
//! #[async_trait]
//! impl Controller for Websites {
//!     fn name(&self) -> &str {
//!         "website-controller"
//!     }
//!     fn interests(&self) -> Interests {
//!         Interests::new().for_each(SITES).owns(MAPS)
//!     }
//!     async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
//!         let Some(site) = ctx.store(&SITES).get(key) else { return Ok(Action::Done) };
//!         if site.is_terminating() || ctx.store(&MAPS).get(key).is_some() {
//!             return Ok(Action::Done);
//!         }
//!         let page = site.value()?["spec"]["text"].clone();
//!         let map = json!({"metadata": {"name": site.name(), "ownerReferences": [ctx.owned_by(&site)]}, "data": {"index": page}});
//!         ctx.client().resource(&MAPS).namespace(site.namespace()).create(&map).await?;
//!         ctx.events().normal(&site, "Published", "Published the site");
//!         Ok(Action::Done)
//!     }
//! }
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::client::Client;
use crate::env::{CancelToken, Env};
use crate::events::EventRecorder;
use crate::informer::{Indexer, InformerFactory, Notice, Scope, SharedInformer};
use crate::object::{Object, ObjectError, ObjectKey, OwnerReference};
use crate::queue::WorkQueue;
use crate::resource::Resource;
use crate::status::Status;

/// What is to happen with a key after a good reconcile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until something changes.
    Done,
    /// It is to be looked at again after a while, unless something changes before.
    RequeueAfter(Duration),
}

/// Why a reconcile failed. All of them are tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconcileError {
    /// The API refused.
    #[error(transparent)]
    Api(Box<Status>),
    /// An object could not be read as what it should be.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Something else.
    #[error("{0}")]
    Other(String),
    /// Several things failed.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Many(Vec<ReconcileError>),
}

impl From<Status> for ReconcileError {
    fn from(status: Status) -> Self {
        Self::Api(Box::new(status))
    }
}

impl ReconcileError {
    /// The API's refusal, if it is one.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Api(status) => Some(status),
            _ => None,
        }
    }

    /// An error in words.
    #[must_use]
    pub fn other(what: impl fmt::Display) -> Self {
        Self::Other(what.to_string())
    }

    /// One error for many; fine if there are none.
    ///
    /// # Errors
    /// The one error, or all of them together.
    pub fn from_many(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Many(errors)),
        }
    }
}

/// The keys that a change gives work to.
pub type Mapper = Arc<dyn Fn(&Context, &Notice) -> Vec<ObjectKey> + Send + Sync>;

/// What a controller is about; see [`Controller::interests`].
#[derive(Clone, Default)]
pub struct Interests {
    subject: Option<Resource>,
    owned: Vec<Resource>,
    watches: Vec<(Scope, Mapper)>,
    reads: Vec<Scope>,
}

impl fmt::Debug for Interests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interests")
            .field("subject", &self.subject)
            .field(
                "watches",
                &self
                    .watches
                    .iter()
                    .map(|(scope, _)| scope)
                    .collect::<Vec<_>>(),
            )
            .field("reads", &self.reads)
            .finish()
    }
}

impl Interests {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The objects whose keys are reconciled: every change of one is work for its key.
    #[must_use]
    pub fn for_each(mut self, resource: Resource) -> Self {
        self.subject = Some(resource.clone());
        self.watches(resource, |_, notice| vec![notice.object().key()])
    }

    /// Objects that the controller makes for its subjects: a change of one is work for the subject that manages it (by its controller
    /// reference), for both when the manager changed. Call it after [`for_each`](Self::for_each).
    #[must_use]
    pub fn owns(mut self, resource: impl Into<Owned>) -> Self {
        let owner = self.subject.clone();
        let Owned(resource) = resource.into();
        self.owned.push(resource.clone());
        self.watches(resource, move |_, notice| match &owner {
            Some(owner) => owner_keys(owner, notice),
            None => Vec::new(),
        })
    }

    /// Other objects: the function says which keys a change of one gives work to. It is called for what is there at the start, too, and
    /// must not block.
    #[must_use]
    pub fn watches(
        mut self,
        what: impl Into<Watched>,
        keys: impl Fn(&Context, &Notice) -> Vec<ObjectKey> + Send + Sync + 'static,
    ) -> Self {
        let Watched(scope) = what.into();
        self.watches.push((scope, Arc::new(keys)));
        self
    }

    /// Objects that are only read.
    #[must_use]
    pub fn reads(mut self, what: impl Into<Watched>) -> Self {
        let Watched(scope) = what.into();
        self.reads.push(scope);
        self
    }

    /// What the controller is for, if it is for one kind.
    #[must_use]
    pub fn subject(&self) -> Option<&Resource> {
        self.subject.as_ref()
    }

    /// What the controller makes for its subjects.
    #[must_use]
    pub fn owned(&self) -> &[Resource] {
        &self.owned
    }

    /// What is watched, with the functions.
    #[must_use]
    pub fn watched(&self) -> &[(Scope, Mapper)] {
        &self.watches
    }

    /// All that has to be there to be read.
    pub fn scopes(&self) -> impl Iterator<Item = &Scope> {
        self.watches
            .iter()
            .map(|(scope, _)| scope)
            .chain(&self.reads)
    }
}

/// The resource of [`Interests::owns`].
#[derive(Clone, Debug)]
pub struct Owned(Resource);

impl From<Resource> for Owned {
    fn from(resource: Resource) -> Self {
        Self(resource)
    }
}

/// The collection of [`Interests::watches`] and [`Interests::reads`]: a resource, or a part of one.
#[derive(Clone, Debug)]
pub struct Watched(Scope);

impl From<Resource> for Watched {
    fn from(resource: Resource) -> Self {
        Self(Scope::all(&resource))
    }
}

impl From<Scope> for Watched {
    fn from(scope: Scope) -> Self {
        Self(scope)
    }
}

/// The subjects that manage, or managed, a changed object.
#[must_use]
pub fn owner_keys(owner: &Resource, notice: &Notice) -> Vec<ObjectKey> {
    let mut keys: Vec<ObjectKey> = [notice.old(), Some(notice.object())]
        .into_iter()
        .flatten()
        .filter_map(|object| {
            let reference = object.metadata().controller()?;
            let (group, _) = crate::resource::split_api_version(&reference.api_version);
            let namespace = if owner.namespaced {
                object.namespace()
            } else {
                ""
            };
            (reference.kind == owner.kind && group == owner.group)
                .then(|| ObjectKey::new(namespace, &reference.name))
        })
        .collect();
    keys.dedup();
    keys
}

/// What a controller works with.
#[derive(Clone)]
pub struct Context {
    client: Arc<dyn Client>,
    env: Env,
    events: EventRecorder,
    informers: InformerFactory,
    queue: WorkQueue<ObjectKey>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("informers", &self.informers)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// A context of these parts. It is made by who runs the controller: the manager, or a test.
    #[must_use]
    pub fn new(
        client: Arc<dyn Client>,
        env: Env,
        events: EventRecorder,
        informers: InformerFactory,
        queue: WorkQueue<ObjectKey>,
    ) -> Self {
        Self {
            client,
            env,
            events,
            informers,
            queue,
        }
    }

    /// The API, in the controller's own name.
    #[must_use]
    pub fn client(&self) -> &dyn Client {
        &*self.client
    }

    /// The same, to be kept.
    #[must_use]
    pub fn shared_client(&self) -> Arc<dyn Client> {
        self.client.clone()
    }

    /// Time, randomness and tasks.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The event recorder, in the controller's own name.
    #[must_use]
    pub fn events(&self) -> &EventRecorder {
        &self.events
    }

    /// The local copy of all objects of a resource. Before the first reconcile it holds the first list of all that
    /// [`Controller::interests`] declares; of a resource that it does not, the copy is empty until somebody else's informer fills it.
    #[must_use]
    pub fn store(&self, resource: &Resource) -> Indexer {
        self.informers.store(resource)
    }

    /// The informer of a collection.
    #[must_use]
    pub fn informer(&self, scope: impl Into<Scope>) -> SharedInformer {
        self.informers.informer(scope)
    }

    /// All informers, which controllers share.
    #[must_use]
    pub fn informers(&self) -> &InformerFactory {
        &self.informers
    }

    /// The controller's queue, to add keys for which nothing changed in the API.
    #[must_use]
    pub fn queue(&self) -> &WorkQueue<ObjectKey> {
        &self.queue
    }

    /// The owner reference by which an object says that `owner` manages it, and that `owner` may not go (in the foreground) before it.
    #[must_use]
    pub fn owned_by(&self, owner: &Object) -> OwnerReference {
        controller_reference(owner)
    }
}

/// The owner reference by which an object says that `owner` manages it, and that `owner` may not go (in the foreground) before it.
#[must_use]
pub fn controller_reference(owner: &Object) -> OwnerReference {
    OwnerReference {
        api_version: owner.api_version().to_owned(),
        kind: owner.kind().to_owned(),
        name: owner.name().to_owned(),
        uid: owner.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Brings the world nearer to what objects ask for; see the [module](self).
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// The controller's name: of its queue and its metrics. Kubernetes' own end in `-controller`.
    fn name(&self) -> &str;

    /// The identity in which it asks the API: its service account in `kube-system`. Its name, where Kubernetes has no other.
    fn identity(&self) -> &str {
        self.name()
    }

    /// What it is about. Asked once.
    fn interests(&self) -> Interests;

    /// The component that its events name as their source; its name, where Kubernetes has no other.
    fn event_source(&self) -> &str {
        self.name()
    }

    /// How many keys may be worked on at once.
    fn workers(&self) -> usize {
        5
    }

    /// Called once, before anything is watched: the place to add indexes to the informers.
    fn prepare(&self, ctx: &Context) {
        let _ = ctx;
    }

    /// Brings one object's part of the world nearer to what it asks for.
    ///
    /// # Errors
    /// What was in the way; the key is tried again, later each time.
    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError>;

    /// What it does besides: a monitor with a clock of its own, say. Begins when the local copies have their first list, and ends
    /// when `cancel` says so. Nothing, by default.
    async fn run(&self, ctx: &Context, cancel: &CancelToken) {
        let _ = (ctx, cancel);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SETS: Resource = Resource::namespaced("apps", "v1", "replicasets", "ReplicaSet");

    fn pod(owner: Option<(&str, &str, &str)>) -> Object {
        let owners: Vec<_> = owner
            .iter()
            .map(|(version, kind, name)| json!({"apiVersion": version, "kind": kind, "name": name, "uid": "u", "controller": true}))
            .collect();
        Object::from_value(
            json!({"metadata": {"namespace": "n", "name": "p", "ownerReferences": owners}}),
        )
        .unwrap()
    }

    #[test]
    fn a_change_of_manager_is_work_for_both() {
        let change = Notice::Updated {
            old: pod(Some(("apps/v1", "ReplicaSet", "a"))),
            new: pod(Some(("apps/v1", "ReplicaSet", "b"))),
        };
        let keys: Vec<String> = owner_keys(&SETS, &change)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(keys, ["n/a", "n/b"]);
        let same = Notice::Updated {
            old: pod(Some(("apps/v1", "ReplicaSet", "a"))),
            new: pod(Some(("apps/v1", "ReplicaSet", "a"))),
        };
        assert_eq!(owner_keys(&SETS, &same).len(), 1);
        for stranger in [
            None,
            Some(("batch/v1", "Job", "a")),
            Some(("example.com/v1", "ReplicaSet", "a")),
        ] {
            assert!(
                owner_keys(
                    &SETS,
                    &Notice::Added {
                        object: pod(stranger),
                        initial: false
                    }
                )
                .is_empty()
            );
        }
    }
}
