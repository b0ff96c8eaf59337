//! POST: a new object.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use orlop_api::{strategy, validation};
use orlop_core::admission::AdmissionOperation;
use orlop_core::client::WriteOptions;
use orlop_core::object::Object;
use orlop_core::revision::Revision;
use orlop_core::status::Status;
use orlop_core::store::{Commit, KeyValue};
use serde_json::Value;

use super::context::{At, Context};
use super::services::is_service;
use super::{Registry, encode, keys, managed_fields, meta, storage_kind, unstored};
use crate::server::SERVER;

/// How often a generated name is tried again when it is taken.
const NAME_ATTEMPTS: usize = 8;
/// How often other addresses and ports are tried for a Service when another API server was faster.
const LOT_ATTEMPTS: usize = 1_000;
/// How many random characters a generated name ends in.
const SUFFIX: usize = 5;
/// How long a generated name may be.
const MAX_GENERATED_NAME: usize = 63;

impl Registry {
    /// Makes an object from a body.
    pub(crate) async fn create(
        &self,
        cx: &mut Context,
        at: &At,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Object, Status> {
        let document = Self::decode(cx, &at.info.resource.gvk(), body, options.field_validation)?;
        let mut document = super::convert::to_storage(at.info, document);
        dedup_owner_references(cx, &mut document);
        place(at, &mut document)?;
        let manager = cx.manager(&options.field_manager).to_owned();
        let now = meta::time(self.now());
        managed_fields::track(at.info, "", &Value::Null, &mut document, &manager, &now);
        self.create_document(cx, at, document, options.dry_run)
            .await
    }

    /// Makes an object from a document that is decoded, placed and tracked.
    pub(super) async fn create_document(
        &self,
        cx: &mut Context,
        at: &At,
        document: Value,
        dry_run: bool,
    ) -> Result<Object, Status> {
        let mut at = at.clone();
        meta::text(&document, "name").clone_into(&mut at.name);
        let mut request = self.admission_request(
            cx,
            &at,
            AdmissionOperation::Create,
            document,
            Arc::new(Value::Null),
            dry_run,
        );
        self.admit(cx, &mut request).await?;
        let kind = storage_kind(at.info);
        let generate_name = meta::text(&request.object, "generateName").to_owned();
        let generated = meta::text(&request.object, "name").is_empty() && !generate_name.is_empty();
        if !meta::text(&request.object, "resourceVersion").is_empty() {
            return Err(Status::failure(
                500,
                "",
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let mut admitted = std::mem::take(&mut request.object);
        for attempt in 1.. {
            // Kept only for another attempt, which only a generated name may need.
            let mut document = if generated {
                admitted.clone()
            } else {
                std::mem::take(&mut admitted)
            };
            self.identify(&mut document, generated.then_some(generate_name.as_str()));
            let prepare = strategy::Context {
                now: meta::time(self.now()),
                user: Some(cx.user.clone()),
            };
            strategy::prepare_for_create(&kind, &mut document, &prepare);
            let errors = validation::validate_create(&kind, &document);
            if !errors.is_empty() {
                let name = meta::text(&document, "name");
                return Err(Status::invalid(&kind.group, &kind.kind, name, &errors));
            }
            let name = meta::text(&document, "name").to_owned();
            request.object = document;
            request.name.clone_from(&name);
            self.validate_admission(&request).await?;
            let document = std::mem::take(&mut request.object);
            for warning in strategy::warnings_on_create(&kind, &document) {
                cx.warn(warning);
            }
            if attempt == 1
                && cx.user.name != SERVER
                && let Some(warning) = self.not_acted_on.get(&at.info.resource.qualified())
            {
                cx.warn(*warning);
            }
            let key = keys::object(at.info.storage(), &at.namespace, &name);
            match self.write_new(&at, key, document, dry_run).await? {
                New::Written(object) => return Ok(object),
                New::Exists(current) => {
                    if generated && attempt < NAME_ATTEMPTS {
                        continue;
                    }
                    let mut status = Status::already_exists(&at.info.resource, &name);
                    if generated {
                        status.message.push_str(
                            ", the server was not able to generate a unique name for the object",
                        );
                    }
                    let terminating = current.is_some_and(|kv| {
                        Object::from_stored(kv.value, kv.mod_revision)
                            .is_ok_and(|object| object.is_terminating())
                    });
                    if terminating {
                        status.message = format!("object is being deleted: {}", status.message);
                    }
                    return Err(status);
                }
            }
        }
        Err(Status::internal("no name was found"))
    }

    /// Writes a document that nobody will change any more but to give a Service its addresses and ports; those that another API server has
    /// given meanwhile are left to it.
    async fn write_new(
        &self,
        at: &At,
        key: String,
        mut document: Value,
        dry_run: bool,
    ) -> Result<New, Status> {
        let kind = storage_kind(at.info);
        let mut tried = BTreeSet::new();
        for _ in 0..LOT_ATTEMPTS {
            // Kept only for another attempt, which only a Service may need.
            let mut document = if is_service(at.info) {
                document.clone()
            } else {
                std::mem::take(&mut document)
            };
            let claim = self
                .claim(at.info, &mut document, &Value::Null, &tried)
                .await?;
            strategy::canonicalize(&kind, &mut document);
            meta::metadata(&mut document).remove("resourceVersion");
            let json = Bytes::from(encode(at.info, &document)?);
            if dry_run {
                self.check_claim(&claim).await?;
                let name = meta::text(&document, "name");
                if self.current(at.info, &at.namespace, name).await?.is_some() {
                    return Err(Status::already_exists(&at.info.resource, name));
                }
                return unstored(document, Revision::ZERO).map(New::Written);
            }
            let written = self
                .put(at.info, key.clone(), json.clone(), Revision::ZERO, &claim)
                .await?;
            let current = match written {
                Commit::Applied { revision, .. } => {
                    let object = Object::from_stored(json, revision);
                    return object.map(New::Written).map_err(Status::internal);
                }
                Commit::Refused { current, .. } => current,
            };
            claim.lost(&current, &mut tried)?;
            if let Some(Some(there)) = current.into_iter().next() {
                return Ok(New::Exists(Some(there)));
            }
            if tried.is_empty() {
                // It was there, and is not any more.
                return Ok(New::Exists(None));
            }
        }
        Err(Status::internal(
            "other API servers gave away every address and port that was tried",
        ))
    }

    /// Gives a new document what only the server gives: name, uid and time of creation.
    fn identify(&self, document: &mut Value, generate_name: Option<&str>) {
        if let Some(base) = generate_name {
            let base: String = base.chars().take(MAX_GENERATED_NAME - SUFFIX).collect();
            let name = format!("{base}{}", self.env.name_suffix(SUFFIX));
            meta::set(document, "name", Some(name.into()));
        }
        meta::set(document, "uid", Some(self.env.uuid().into()));
        meta::set(
            document,
            "creationTimestamp",
            Some(meta::time(self.now()).into()),
        );
        for field in [
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "generation",
        ] {
            meta::set(document, field, None);
        }
    }
}

/// What became of a new object.
enum New {
    Written(Object),
    /// There is one of the name: this, as far as is known.
    Exists(Option<KeyValue>),
}

/// Puts a document into the namespace of its URL, or refuses one that says another.
pub(super) fn place(at: &At, document: &mut Value) -> Result<(), Status> {
    let namespace = meta::text(document, "namespace");
    if at.info.resource.namespaced {
        if namespace.is_empty() {
            meta::set(document, "namespace", Some(at.namespace.clone().into()));
        } else if namespace != at.namespace {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    } else if !namespace.is_empty() {
        // What belongs to the cluster is in none, whatever is said.
        meta::set(document, "namespace", None);
    }
    if !at.name.is_empty() && meta::text(document, "name").is_empty() {
        meta::set(document, "name", Some(at.name.clone().into()));
    }
    Ok(())
}

/// Drops owner references that repeat a uid, and says so.
pub(super) fn dedup_owner_references(cx: &mut Context, document: &mut Value) {
    let Some(owners) = document
        .pointer_mut("/metadata/ownerReferences")
        .and_then(Value::as_array_mut)
    else {
        return;
    };
    let before = owners.len();
    let mut seen = Vec::new();
    owners.retain(|owner| {
        let new = !seen.contains(owner);
        if new {
            seen.push(owner.clone());
        }
        new
    });
    if owners.len() < before {
        cx.warn(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may \
             reject such requests as early as 1.24; please fix your requests",
        );
    }
}
