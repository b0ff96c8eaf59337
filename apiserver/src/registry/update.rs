//! Changes of an object that is there: PUT, PATCH and what the server itself edits.
//!
//! All of them are one loop: read the current version, make the next one of it, and commit under the condition that the current one
//! still stands. Who lost a race tries again, unless the client named the version it had seen.

use std::collections::BTreeSet;

use orlop_api::{strategy, validation};
use orlop_core::admission::AdmissionOperation;
use orlop_core::client::{FieldValidation, Patch, WriteOptions};
use orlop_core::field::{FieldError, Path};
use orlop_core::object::Object;
use orlop_core::revision::Revision;
use orlop_core::status::Status;
use orlop_core::store::{Commit, Txn};
use serde_json::Value;

use super::context::{At, Context};
use super::create::{dedup_owner_references, place};
use super::{Claim, Registry, encode, keys, managed_fields, meta, storage_kind, unstored};
use crate::cache::store_status;

/// What a client reads when somebody else wrote first.
pub(super) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";
/// How often a race is lost before the client is told.
const ATTEMPTS: usize = 1_000;

/// An edit that the server makes itself.
pub(super) type Edit<'a> = &'a (dyn Fn(&mut Value) -> Result<(), Status> + Send + Sync);

/// An edit that a client asked for by way of `scale`.
pub(super) type EditScale<'a> =
    &'a (dyn Fn(&mut Context, &mut Value) -> Result<(), Status> + Send + Sync);

/// How the next version is made of the current one.
pub(super) enum Change<'a> {
    /// It is this document, decoded.
    Replace(Value),
    /// It is the current one, patched.
    Patch(&'a Patch),
    /// It is the current one with other replicas: everything about it is looked at as in an update, but for who owns it, which the edit
    /// knows.
    Scale(EditScale<'a>),
    /// It is the current one, edited by the server itself: only the edit looks at it.
    Edit(Edit<'a>),
}

/// What must hold of the current version.
#[derive(Clone, Debug, Default)]
pub(super) struct Preconditions {
    pub(super) uid: Option<String>,
    pub(super) revision: Option<Revision>,
}

impl Preconditions {
    pub(super) fn check(&self, at: &At, current: &Object) -> Result<(), Status> {
        if let Some(uid) = &self.uid
            && uid != current.uid()
        {
            let why = invalid_object(
                at,
                &format!(
                    "UID in precondition: {uid}, UID in object meta: {}",
                    current.uid()
                ),
            );
            return Err(Status::conflict(&at.info.resource, current.name(), &why));
        }
        if let Some(revision) = self.revision
            && revision != current.revision()
        {
            let why = invalid_object(
                at,
                &format!(
                    "ResourceVersion in precondition: {revision}, ResourceVersion in object meta: {}",
                    current.revision()
                ),
            );
            return Err(Status::conflict(&at.info.resource, current.name(), &why));
        }
        Ok(())
    }
}

/// How Kubernetes' storage says that an object is not the one that was meant.
fn invalid_object(at: &At, why: &str) -> String {
    let namespace = Some(at.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let key = [
        Some("/registry"),
        Some(&*at.info.resource.plural),
        namespace,
        Some(&at.name),
    ];
    let key: Vec<&str> = key.into_iter().flatten().collect();
    format!(
        "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: {why}",
        key.join("/")
    )
}

/// An object as it was written, and whether it was made by the write.
pub(crate) struct Written {
    pub(crate) object: Object,
    pub(crate) created: bool,
}

impl Registry {
    /// PUT.
    pub(crate) async fn update(
        &self,
        cx: &mut Context,
        at: &At,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let document = Self::decode(cx, &at.info.resource.gvk(), body, options.field_validation)?;
        let mut document = super::convert::to_storage(at.info, document);
        check_name(at, &document)?;
        if at.info.resource.namespaced && meta::text(&document, "namespace").is_empty() {
            meta::set(
                &mut document,
                "namespace",
                Some(at.namespace.clone().into()),
            );
        }
        let uid = Some(meta::text(&document, "uid").to_owned()).filter(|uid| !uid.is_empty());
        let preconditions = Preconditions {
            uid,
            revision: None,
        };
        let may_create =
            at.subresource.is_empty() && strategy::allow_create_on_update(&storage_kind(at.info));
        for _ in 0..ATTEMPTS {
            let outcome = self
                .change(
                    cx,
                    at,
                    &Change::Replace(document.clone()),
                    options,
                    &preconditions,
                )
                .await;
            match outcome {
                Err(status) if may_create && preconditions.uid.is_none() && is_of(at, &status) => {}
                outcome => {
                    return outcome.map(|object| Written {
                        object,
                        created: false,
                    });
                }
            }
            // The version that the client saw is gone; the object is made anew.
            let mut document = document.clone();
            meta::set(&mut document, "resourceVersion", None);
            place(at, &mut document)?;
            let manager = cx.manager(&options.field_manager).to_owned();
            let now = meta::time(self.now());
            managed_fields::track(at.info, "", &Value::Null, &mut document, &manager, &now);
            match self
                .create_document(cx, at, document, options.dry_run)
                .await
            {
                Err(status) if status.is_already_exists() => {}
                outcome => {
                    return outcome.map(|object| Written {
                        object,
                        created: true,
                    });
                }
            }
        }
        Err(Status::conflict(&at.info.resource, &at.name, MODIFIED))
    }

    /// PATCH.
    pub(crate) async fn patch(
        &self,
        cx: &mut Context,
        at: &At,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        for _ in 0..ATTEMPTS {
            let outcome = self
                .change(
                    cx,
                    at,
                    &Change::Patch(patch),
                    options,
                    &Preconditions::default(),
                )
                .await;
            let applied = match (outcome, patch) {
                (Err(status), Patch::Apply(applied))
                    if at.subresource.is_empty() && is_of(at, &status) =>
                {
                    applied
                }
                (outcome, _) => {
                    return outcome.map(|object| Written {
                        object,
                        created: false,
                    });
                }
            };
            match self.apply_new(cx, at, applied, options).await {
                // Somebody else made it meanwhile: it is there to be changed now.
                Err(status) if status.is_already_exists() => {}
                outcome => return outcome,
            }
        }
        Err(Status::conflict(&at.info.resource, &at.name, MODIFIED))
    }

    /// Server-side apply to what is not there yet.
    async fn apply_new(
        &self,
        cx: &mut Context,
        at: &At,
        applied: &Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let applied = self.decode_applied(cx, at, applied, options.field_validation)?;
        let now = meta::time(self.now());
        let manager = cx.manager(&options.field_manager).to_owned();
        let empty = Value::Object(serde_json::Map::new());
        let merged =
            managed_fields::apply(at.info, "", &empty, &applied, &manager, options.force, &now)?;
        let mut document = self.after_apply(cx, at, merged)?;
        let uid = meta::text(&document, "uid");
        if !uid.is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(Status::conflict(&at.info.resource, &at.name, &why));
        }
        meta::set(&mut document, "resourceVersion", None);
        place(at, &mut document)?;
        let object = self
            .create_document(cx, at, document, options.dry_run)
            .await?;
        Ok(Written {
            object,
            created: true,
        })
    }

    /// A change that the server makes itself.
    pub(super) async fn edit(
        &self,
        cx: &mut Context,
        at: &At,
        edit: Edit<'_>,
        dry_run: bool,
        preconditions: &Preconditions,
    ) -> Result<Object, Status> {
        let options = WriteOptions {
            dry_run,
            ..WriteOptions::default()
        };
        self.change(cx, at, &Change::Edit(edit), &options, preconditions)
            .await
    }

    /// The loop.
    pub(super) async fn change(
        &self,
        cx: &mut Context,
        at: &At,
        change: &Change<'_>,
        options: &WriteOptions,
        preconditions: &Preconditions,
    ) -> Result<Object, Status> {
        for _ in 0..ATTEMPTS {
            let Some(current) = self.current(at.info, &at.namespace, &at.name).await? else {
                return Err(Status::not_found(&at.info.resource, &at.name));
            };
            preconditions.check(at, &current)?;
            let mut attempt = cx.clone();
            let outcome = self
                .attempt(&mut attempt, at, change, options, &current)
                .await;
            cx.warnings = attempt.warnings;
            if let Some(object) = outcome? {
                return Ok(object);
            }
        }
        Err(Status::conflict(&at.info.resource, &at.name, MODIFIED))
    }

    /// One round: `None` when somebody else wrote meanwhile.
    async fn attempt(
        &self,
        cx: &mut Context,
        at: &At,
        change: &Change<'_>,
        options: &WriteOptions,
        current: &Object,
    ) -> Result<Option<Object>, Status> {
        let kind = storage_kind(at.info);
        let old = current.value().map_err(Status::internal)?;
        let now = meta::time(self.now());
        let mut new = match change {
            Change::Replace(document) => document.clone(),
            Change::Patch(patch) => self.patched(cx, at, patch, options, &old)?,
            Change::Scale(edit) => {
                let mut new = (*old).clone();
                edit(cx, &mut new)?;
                new
            }
            Change::Edit(edit) => {
                let mut new = (*old).clone();
                edit(&mut new)?;
                return self
                    .commit_change(at, new, &old, current, &Claim::default(), options.dry_run)
                    .await;
            }
        };
        let tracked = matches!(change, Change::Replace(_) | Change::Patch(_));
        if tracked {
            if !at.info.resource.namespaced && !meta::text(&new, "namespace").is_empty() {
                meta::set(&mut new, "namespace", None);
            }
            dedup_owner_references(cx, &mut new);
            check_name(at, &new)?;
        }
        if at.info.resource.plural == "pods"
            && matches!(at.sub(), Some("resize" | "ephemeralcontainers"))
        {
            // Only a part of what is sent is taken, by no simple rule of fields: nobody comes to own the rest.
            let prepare = strategy::Context {
                now: now.clone(),
                user: Some(cx.user.clone()),
            };
            strategy::prepare_for_update(&kind, &mut new, &old, at.sub(), &prepare);
            meta::keep(&mut new, &old, "generation");
        }
        if tracked && !matches!(change, Change::Patch(Patch::Apply(_))) {
            let manager = cx.manager(&options.field_manager).to_owned();
            managed_fields::track(at.info, &at.subresource, &old, &mut new, &manager, &now);
        }
        let mut request = self.admission_request(
            cx,
            at,
            AdmissionOperation::Update,
            new,
            old.clone(),
            options.dry_run,
        );
        self.admit(cx, &mut request).await?;
        let mut new = std::mem::take(&mut request.object);

        let given = meta::text(&new, "resourceVersion").to_owned();
        if given.is_empty() {
            if !strategy::allow_unconditional_update(&kind) && tracked {
                let path = Path::new("metadata").child("resourceVersion");
                let error = FieldError::invalid(&path, 0, "must be specified for an update");
                return Err(Status::invalid(&kind.group, &kind.kind, &at.name, &[error]));
            }
        } else if given != current.revision().to_string() {
            return Err(Status::conflict(&at.info.resource, &at.name, MODIFIED));
        }
        meta::set(
            &mut new,
            "resourceVersion",
            Some(current.revision().to_string().into()),
        );

        for field in ["generation", "selfLink"] {
            meta::keep(&mut new, &old, field);
        }
        if meta::text(&new, "uid").is_empty() {
            meta::keep(&mut new, &old, "uid");
        }
        for field in [
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ] {
            if new.pointer(&format!("/metadata/{field}")).is_none() {
                meta::keep(&mut new, &old, field);
            }
        }
        let prepare = strategy::Context {
            now,
            user: Some(cx.user.clone()),
        };
        strategy::prepare_for_update(&kind, &mut new, &old, at.sub(), &prepare);
        let errors = validation::validate_update(&kind, &new, &old, at.sub());
        if !errors.is_empty() {
            return Err(Status::invalid(&kind.group, &kind.kind, &at.name, &errors));
        }
        request.object = new;
        self.validate_admission(&request).await?;
        let mut new = request.object;
        let claim = self
            .claim(at.info, &mut new, &old, &BTreeSet::new())
            .await?;
        strategy::canonicalize(&kind, &mut new);
        for warning in strategy::warnings_on_update(&kind, &new, &old) {
            cx.warn(warning);
        }
        self.commit_change(at, new, &old, current, &claim, options.dry_run)
            .await
    }

    /// Writes the next version, unless it is the current one: `None` when somebody else wrote meanwhile.
    async fn commit_change(
        &self,
        at: &At,
        mut new: Value,
        old: &Value,
        current: &Object,
        claim: &Claim,
        dry_run: bool,
    ) -> Result<Option<Object>, Status> {
        meta::metadata(&mut new).remove("resourceVersion");
        let json = encode(at.info, &new)?;
        let goes = goes(at, &new, old);
        if !goes && json.as_slice() == current.stored_json().as_ref() {
            return Ok(Some(current.clone()));
        }
        if dry_run {
            self.check_claim(claim).await?;
            return unstored(new, current.revision()).map(Some);
        }
        let key = keys::object(at.info.storage(), &at.namespace, &at.name);
        if goes {
            // The last finalizer of an object that was to be deleted has gone: so does the object.
            let claim = self.claim_for_delete(at.info, old).await?;
            let mut txn = Txn::delete(key, current.revision());
            self.add_claim(&mut txn, &claim)?;
            return match self.store.commit(txn).await.map_err(store_status)? {
                Commit::Applied { revision, .. } => unstored(new, revision).map(Some),
                Commit::Refused { .. } => Ok(None),
            };
        }
        match self
            .put(at.info, key, json.clone(), current.revision(), claim)
            .await?
        {
            Commit::Applied { revision, .. } => Object::from_stored(json.into(), revision)
                .map(Some)
                .map_err(Status::internal),
            Commit::Refused {
                current: stands, ..
            } => {
                let stood = stands.first().and_then(Option::as_ref);
                if stood.is_some_and(|kv| kv.mod_revision == current.revision()) {
                    // It was not the object: others have what it asks for, or what it was to be given.
                    claim.lost(&stands, &mut BTreeSet::new())?;
                }
                Ok(None)
            }
        }
    }

    /// The current version with a patch applied, decoded again.
    fn patched(
        &self,
        cx: &mut Context,
        at: &At,
        patch: &Patch,
        options: &WriteOptions,
        old: &Value,
    ) -> Result<Value, Status> {
        if let Patch::Apply(applied) = patch {
            let applied = self.decode_applied(cx, at, applied, options.field_validation)?;
            let manager = cx.manager(&options.field_manager).to_owned();
            let now = meta::time(self.now());
            let merged = managed_fields::apply(
                at.info,
                &at.subresource,
                old,
                &applied,
                &manager,
                options.force,
                &now,
            )?;
            return self.after_apply(cx, at, merged);
        }
        super::patch::apply(cx, at, patch, options.field_validation, old)
    }

    /// What is applied, checked as a body is, but without defaults: the applier owns only what it says.
    fn decode_applied(
        &self,
        cx: &mut Context,
        at: &At,
        applied: &Value,
        validation: FieldValidation,
    ) -> Result<Value, Status> {
        super::patch::decode_applied(cx, at, applied, validation)
    }

    /// What applying made, with defaults.
    fn after_apply(&self, cx: &mut Context, at: &At, merged: Value) -> Result<Value, Status> {
        Self::decode_patched(cx, &storage_kind(at.info), merged, FieldValidation::Ignore)
            .map_err(Status::bad_request)
    }
}

/// Whether a refusal says that the addressed object itself is not there.
fn is_of(at: &At, status: &Status) -> bool {
    let named = status
        .details
        .as_ref()
        .is_some_and(|details| details.kind == at.info.resource.plural && details.name == at.name);
    status.is_not_found() && named
}

/// Whether an object whose deletion has begun has nothing left to wait for.
fn goes(at: &At, new: &Value, old: &Value) -> bool {
    if !meta::is_terminating(new) || !meta::finalizers(new).is_empty() {
        return false;
    }
    if at.info.resource.group.is_empty()
        && at.info.resource.plural == "namespaces"
        && new
            .pointer("/spec/finalizers")
            .and_then(Value::as_array)
            .is_some_and(|left| !left.is_empty())
    {
        return false;
    }
    meta::number(old, "deletionGracePeriodSeconds").unwrap_or(0) == 0
}

/// Refuses a body whose name or namespace is not that of the URL.
fn check_name(at: &At, document: &Value) -> Result<(), Status> {
    let name = meta::text(document, "name");
    if name.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            at.name
        )));
    }
    if name != at.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            at.name
        )));
    }
    let namespace = meta::text(document, "namespace");
    if !at.namespace.is_empty() && !namespace.is_empty() && namespace != at.namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            at.namespace
        )));
    }
    Ok(())
}
