//! The registry: what the verbs of the API do to documents.
//!
//! One way for all kinds: a document is checked against its kind's schema, defaulted, shown to admission, prepared and validated by the
//! kind's rules, written as JSON, and committed under the condition that nobody else wrote meanwhile. HTTP and in-process
//! clients meet here; neither knows a shortcut.

mod context;
mod convert;
mod create;
mod decode;
mod delete;
mod event_lease;
pub(crate) mod keys;
mod managed_fields;
pub(crate) mod meta;
mod patch;
mod read;
mod services;
mod subresources;
mod update;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use orlop_api::resources::{self, ResourceInfo};
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest};
use orlop_core::env::Env;
use orlop_core::object::Object;
use orlop_core::resource::{GroupVersionKind, Resource};
use orlop_core::revision::Revision;
use orlop_core::status::Status;
use orlop_core::store::{Commit, KeyRange, Op, RangeRequest, Store, Txn};
use serde_json::Value;

pub(crate) use self::context::{At, Context};
pub(crate) use self::convert::from_storage;
pub(crate) use self::decode::{Parsed, decode_delete_options, parse_json};
pub(crate) use self::event_lease::EventLease;
pub(crate) use self::managed_fields::track_unstored;
pub(crate) use self::read::ListPage;
use self::services::Claim;
pub(crate) use self::services::ServiceAllocator;
pub use self::services::ServiceRange;
pub(crate) use self::watch::RegistryWatch;
use crate::authentication::TokenIssuer;
use crate::cache::{Caches, KindCache, store_status};

/// The largest object that is stored, in bytes.
const MAX_OBJECT: usize = 3 << 20;

/// What the verbs need.
pub(crate) struct Registry {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) caches: Arc<Caches>,
    pub(crate) admission: Vec<Arc<dyn AdmissionPlugin>>,
    pub(crate) services: ServiceAllocator,
    pub(crate) tokens: Option<Arc<TokenIssuer>>,
    pub(crate) event_lease: EventLease,
    /// What to tell who makes an object that nothing acts on, by the resource's qualified name.
    pub(crate) not_acted_on: BTreeMap<String, &'static str>,
}

impl Registry {
    /// The resources that are kept in the store, each once.
    pub(crate) fn stored_resources() -> impl Iterator<Item = &'static Resource> {
        resources::builtin()
            .iter()
            .filter(|info| info.is_stored() && info.stored_as.is_none())
            .map(|info| &info.resource)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.env.wall()
    }

    /// The cache of a resource.
    pub(crate) fn cache(&self, info: &ResourceInfo) -> Result<&Arc<KindCache>, Status> {
        let kind = self
            .caches
            .kind(info.storage())
            .ok_or_else(|| Status::internal(format!("{} has no cache", info.resource.plural)))?;
        self.caches.readable(kind)
    }

    /// An object as it is now: from the cache when that has the newest version, else from the store.
    pub(crate) async fn current(
        &self,
        info: &ResourceInfo,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>, Status> {
        let key = keys::object(info.storage(), namespace, name);
        let found = self
            .store
            .range(RangeRequest::new(KeyRange::key(key)))
            .await
            .map_err(store_status)?;
        let Some(kv) = found.items.into_iter().next() else {
            return Ok(None);
        };
        if let Some(cached) = self.cache(info)?.get(namespace, name)
            && cached.revision() == kv.mod_revision
        {
            return Ok(Some(cached));
        }
        Object::from_stored(kv.value, kv.mod_revision)
            .map(Some)
            .map_err(Status::internal)
    }

    /// What an admission plug-in sees of a request.
    fn admission_request(
        &self,
        cx: &Context,
        at: &At,
        operation: AdmissionOperation,
        object: Value,
        old_object: Arc<Value>,
        dry_run: bool,
    ) -> AdmissionRequest {
        AdmissionRequest {
            operation,
            resource: at.info.resource.clone(),
            subresource: at.subresource.clone(),
            namespace: at.namespace.clone(),
            name: at.name.clone(),
            user: cx.user.clone(),
            dry_run,
            object,
            old_object,
            warnings: Vec::new(),
        }
    }

    /// Lets the plug-ins change the object, or refuse.
    async fn admit(&self, cx: &mut Context, request: &mut AdmissionRequest) -> Result<(), Status> {
        let operation = request.operation;
        for plugin in self
            .admission
            .iter()
            .filter(|plugin| plugin.handles(operation))
        {
            plugin.admit(request).await?;
        }
        for warning in request.warnings.drain(..) {
            cx.warn(warning);
        }
        Ok(())
    }

    /// Lets the plug-ins see, and change, what is posted to a subresource.
    pub(crate) async fn admit_posted(
        &self,
        cx: &mut Context,
        at: &At,
        body: Value,
        dry_run: bool,
    ) -> Result<Value, Status> {
        let mut request = self.admission_request(
            cx,
            at,
            AdmissionOperation::Create,
            body,
            Arc::new(Value::Null),
            dry_run,
        );
        self.admit(cx, &mut request).await?;
        self.validate_admission(&request).await?;
        Ok(request.object)
    }

    /// Lets the plug-ins see, change and refuse the options of a connection.
    pub(crate) async fn admit_connect(
        &self,
        cx: &mut Context,
        at: &At,
        options: Value,
    ) -> Result<Value, Status> {
        let connect = AdmissionOperation::Connect;
        let mut request =
            self.admission_request(cx, at, connect, options, Arc::new(Value::Null), false);
        self.admit(cx, &mut request).await?;
        self.validate_admission(&request).await?;
        Ok(request.object)
    }

    /// Lets the plug-ins look at what is about to be written.
    async fn validate_admission(&self, request: &AdmissionRequest) -> Result<(), Status> {
        for plugin in self
            .admission
            .iter()
            .filter(|plugin| plugin.handles(request.operation))
        {
            plugin.validate(request).await?;
        }
        Ok(())
    }
}

impl Registry {
    /// A write of an object that must stand at a revision (zero: that is not there yet).
    async fn put(
        &self,
        info: &ResourceInfo,
        key: String,
        json: impl Into<Bytes>,
        expected: Revision,
        claim: &Claim,
    ) -> Result<Commit, Status> {
        let lease = self
            .event_lease
            .of(info.storage(), self.store.as_ref(), &self.env)
            .await
            .map_err(store_status)?;
        let mut txn = Txn::update(key, json, expected);
        if let (Some(id), Some(Op::Put { lease, .. })) = (lease, txn.ops.first_mut()) {
            *lease = Some(id);
        }
        self.add_claim(&mut txn, claim)?;
        self.store.commit(txn).await.map_err(store_status)
    }
}

/// The kind that objects of a resource are stored as.
pub(crate) fn storage_kind(info: &ResourceInfo) -> GroupVersionKind {
    info.storage().gvk()
}

/// A document as the bytes that the store keeps.
fn encode(info: &ResourceInfo, document: &Value) -> Result<Vec<u8>, Status> {
    let json = serde_json::to_vec(document).map_err(Status::internal)?;
    if json.len() > MAX_OBJECT {
        let message = format!(
            "{} is too large: {} bytes, limit is {MAX_OBJECT}",
            info.resource.kind,
            json.len()
        );
        let mut status = Status::too_large(MAX_OBJECT);
        status.message = message;
        return Err(status);
    }
    Ok(json)
}

/// A document as an object that was not stored: the answer to a dry run.
fn unstored(document: Value, revision: Revision) -> Result<Object, Status> {
    let object = Object::from_value(document).map_err(Status::internal)?;
    Ok(if revision.is_zero() {
        object
    } else {
        object.with_revision(revision)
    })
}
