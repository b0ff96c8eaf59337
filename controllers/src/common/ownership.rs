//! Whose an object is: adopting orphans that a selector chooses, and letting go of what it no longer does.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use orlop_core::client::Patch;
use orlop_core::controller::{Context, ReconcileError, controller_reference};
use orlop_core::informer::{Indexer, Notice, SharedInformer, index};
use orlop_core::object::{Object, ObjectKey, OwnerReference};
use orlop_core::resource::Resource;
use orlop_core::selector::label;
use serde_json::json;

/// The index of objects that nobody manages, by namespace.
pub(crate) const ORPHANS: &str = "orphans";

/// The key of a changed subject. What was remembered of one that went, or whose name another has now, is to be forgotten.
pub(crate) fn subject_keys(notice: &Notice, forget: impl FnOnce(&ObjectKey)) -> Vec<ObjectKey> {
    let key = notice.object().key();
    let replaced = notice
        .old()
        .is_some_and(|old| old.uid() != notice.object().uid());
    if replaced || matches!(notice, Notice::Deleted { .. }) {
        forget(&key);
    }
    vec![key]
}

/// Adds the two indexes by which [`claim`] finds what may belong to an owner.
pub(crate) fn index_owners(informer: &SharedInformer) {
    informer.add_index(index::CONTROLLER_UID, |object| {
        object
            .metadata()
            .controller()
            .map(|owner| owner.uid.clone())
            .into_iter()
            .collect()
    });
    informer.add_index(ORPHANS, |object| match object.metadata().controller() {
        None => vec![object.namespace().to_owned()],
        Some(_) => Vec::new(),
    });
}

/// The owner reference for an object that `owner` manages, as `k8s-openapi` has it.
pub(crate) fn managed_by(owner: &Object) -> meta::OwnerReference {
    let OwnerReference {
        api_version,
        kind,
        name,
        uid,
        controller,
        block_owner_deletion,
    } = controller_reference(owner);
    meta::OwnerReference {
        api_version,
        kind,
        name,
        uid,
        controller,
        block_owner_deletion,
    }
}

/// The objects that belong to `owner` now: those it manages that `selector` still chooses, and orphans that it chooses and that were adopted
/// just now. Those it no longer chooses are released.
///
/// An owner that is going adopts nothing; neither does one that, asked live, turns out to be gone or another of the same name.
pub(crate) async fn claim(
    ctx: &Context,
    owner: &Object,
    owner_resource: &Resource,
    resource: &Resource,
    selector: &label::Selector,
) -> Result<Vec<Object>, ReconcileError> {
    let store = ctx.store(resource);
    let mut claimed = Vec::new();
    let mut errors = Vec::new();
    for object in owned(&store, owner) {
        if selector.matches(&object.metadata().labels) {
            claimed.push(object);
        } else if !owner.is_terminating()
            && let Err(error) = release(ctx, owner, resource, &object).await
        {
            errors.push(error);
        }
    }
    if !owner.is_terminating() {
        let mut may_adopt = None;
        for object in store.by_index(ORPHANS, owner.namespace()) {
            if object.is_terminating() || !selector.matches(&object.metadata().labels) {
                continue;
            }
            if may_adopt.is_none() {
                may_adopt = Some(still_there(ctx, owner, owner_resource).await?);
            }
            if may_adopt == Some(false) {
                break;
            }
            match adopt(ctx, owner, resource, &object).await {
                Ok(adopted) => claimed.extend(adopted),
                Err(error) => errors.push(error),
            }
        }
    }
    ReconcileError::from_many(errors)?;
    claimed.sort_by_key(Object::key);
    Ok(claimed)
}

/// The objects that `owner` manages, in its namespace.
pub(crate) fn owned(store: &Indexer, owner: &Object) -> Vec<Object> {
    let mut objects = store.by_index(index::CONTROLLER_UID, owner.uid());
    objects.retain(|object| object.namespace() == owner.namespace());
    objects
}

async fn still_there(
    ctx: &Context,
    owner: &Object,
    resource: &Resource,
) -> Result<bool, ReconcileError> {
    let live = ctx
        .client()
        .resource(resource)
        .namespace(owner.namespace())
        .find(owner.name())
        .await?;
    Ok(live.is_some_and(|live| live.uid() == owner.uid() && !live.is_terminating()))
}

async fn adopt(
    ctx: &Context,
    owner: &Object,
    resource: &Resource,
    object: &Object,
) -> Result<Option<Object>, ReconcileError> {
    let mut owners = object.metadata().owner_references.clone();
    owners.retain(|reference| reference.uid != owner.uid());
    owners.push(controller_reference(owner));
    patch_owners(ctx, resource, object, &owners).await
}

async fn release(
    ctx: &Context,
    owner: &Object,
    resource: &Resource,
    object: &Object,
) -> Result<(), ReconcileError> {
    let mut owners = object.metadata().owner_references.clone();
    owners.retain(|reference| reference.uid != owner.uid());
    patch_owners(ctx, resource, object, &owners)
        .await
        .map(|_| ())
}

/// Writes the owners, if the object still is as we know it. `None` when it is gone.
async fn patch_owners(
    ctx: &Context,
    resource: &Resource,
    object: &Object,
    owners: &[OwnerReference],
) -> Result<Option<Object>, ReconcileError> {
    let patch = json!({"metadata": {
        "uid": object.uid(),
        "resourceVersion": object.revision().to_string(),
        "ownerReferences": owners,
    }});
    let client = ctx
        .client()
        .resource(resource)
        .namespace(object.namespace());
    match client.patch(object.name(), Patch::Merge(patch)).await {
        Ok(object) => Ok(Some(object)),
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => Err(status.into()),
    }
}
