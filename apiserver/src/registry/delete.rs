//! DELETE: of one object and of a collection, with grace, finalizers and what becomes of dependents.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use orlop_api::strategy;
use orlop_core::admission::AdmissionOperation;
use orlop_core::client::{DeleteOptions, ListOptions, Propagation};
use orlop_core::object::Object;
use orlop_core::status::{Status, StatusDetails};
use orlop_core::store::{Commit, Txn};
use serde_json::Value;

use super::context::{At, Context};
use super::update::MODIFIED;
use super::{Registry, encode, keys, meta, storage_kind, unstored};
use crate::cache::store_status;

/// The finalizer of an object that waits until its dependents have lost it as owner.
const ORPHAN: &str = "orphan";
/// The finalizer of an object that waits until its dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";
/// How often a race is lost before the client is told.
const ATTEMPTS: usize = 1_000;

/// What became of an object.
pub(crate) enum Deleted {
    /// It is gone; this is how it last looked.
    Gone(Object),
    /// It waits for something: grace, finalizers, the contents of a namespace.
    Waits(Object),
}

impl Deleted {
    /// What a client is answered: the object while it waits and for some kinds always, else that it is gone.
    pub(crate) fn answer(self, at: &At) -> Result<Object, Box<Status>> {
        match self {
            Self::Waits(object) => Ok(object),
            Self::Gone(object) if strategy::deletion_returns_object(&storage_kind(at.info)) => {
                Ok(object)
            }
            Self::Gone(object) => Err(Box::new(
                Status {
                    status: "Success".to_owned(),
                    ..Status::default()
                }
                .with_details(StatusDetails {
                    name: object.name().to_owned(),
                    group: at.info.resource.group.to_string(),
                    kind: at.info.resource.plural.to_string(),
                    uid: object.uid().to_owned(),
                    ..StatusDetails::default()
                }),
            )),
        }
    }
}

impl Registry {
    /// Deletes an object, or begins to.
    pub(crate) async fn delete(
        &self,
        cx: &mut Context,
        at: &At,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        for _ in 0..ATTEMPTS {
            let Some(current) = self.current(at.info, &at.namespace, &at.name).await? else {
                return Err(Status::not_found(&at.info.resource, &at.name));
            };
            if let Some(deleted) = self.try_delete(cx, at, options, &current).await? {
                return Ok(deleted);
            }
        }
        Err(Status::conflict(&at.info.resource, &at.name, MODIFIED))
    }

    /// One round: `None` when somebody else wrote meanwhile.
    async fn try_delete(
        &self,
        cx: &mut Context,
        at: &At,
        options: &DeleteOptions,
        current: &Object,
    ) -> Result<Option<Deleted>, Status> {
        check_preconditions(at, options, current)?;
        let old = current.value().map_err(Status::internal)?;
        let mut request = self.admission_request(
            cx,
            at,
            AdmissionOperation::Delete,
            Value::Null,
            old.clone(),
            options.dry_run,
        );
        self.admit(cx, &mut request).await?;
        self.validate_admission(&request).await?;
        match self.mark(at, options, current, &old) {
            Mark::Same => Ok(Some(Deleted::Waits(current.clone()))),
            Mark::Waits(document) => {
                let mut document = document;
                meta::metadata(&mut document).remove("resourceVersion");
                let json = encode(at.info, &document)?;
                if options.dry_run {
                    return unstored(document, current.revision())
                        .map(Deleted::Waits)
                        .map(Some);
                }
                let key = keys::object(at.info.storage(), &at.namespace, &at.name);
                let txn = Txn::update(key, json.clone(), current.revision());
                match self.store.commit(txn).await.map_err(store_status)? {
                    Commit::Applied { revision, .. } => {
                        let object =
                            Object::from_stored(json.into(), revision).map_err(Status::internal)?;
                        Ok(Some(Deleted::Waits(object)))
                    }
                    Commit::Refused { .. } => Ok(None),
                }
            }
            Mark::Goes(document) => {
                if options.dry_run {
                    return unstored(document, current.revision())
                        .map(Deleted::Gone)
                        .map(Some);
                }
                let key = keys::object(at.info.storage(), &at.namespace, &at.name);
                let claim = self.claim_for_delete(at.info, &old).await?;
                let mut txn = Txn::delete(key, current.revision());
                self.add_claim(&mut txn, &claim)?;
                match self.store.commit(txn).await.map_err(store_status)? {
                    Commit::Applied { revision, .. } => {
                        unstored(document, revision).map(Deleted::Gone).map(Some)
                    }
                    Commit::Refused { .. } => Ok(None),
                }
            }
        }
    }

    /// What a deletion does to the document.
    fn mark(&self, at: &At, options: &DeleteOptions, current: &Object, old: &Arc<Value>) -> Mark {
        let kind = storage_kind(at.info);
        let now = self.now();
        let terminating = current.is_terminating();
        let before = meta::finalizers(old);
        let finalizers = finalizers_for(options, strategy::default_propagation(&kind), &before);
        let mut document = (**old).clone();
        let begin = |document: &mut Value, grace: i64| {
            let grace = grace.max(0);
            let span = Duration::from_secs(grace.unsigned_abs());
            let at = now.checked_add(span).unwrap_or(now);
            meta::set(document, "deletionTimestamp", Some(meta::time(at).into()));
            meta::set(document, "deletionGracePeriodSeconds", Some(grace.into()));
        };
        if kind.group.is_empty() && kind.kind == "Namespace" {
            return self.mark_namespace(&mut document, old, finalizers, &before, terminating);
        }
        let grace = strategy::graceful_period(&kind, old, options.grace_period_seconds);
        let graceful = grace.is_some();
        let grace = grace.unwrap_or(0);
        if graceful
            && terminating
            && let Some(left) = meta::number(old, "deletionGracePeriodSeconds")
        {
            // Who is told twice may be given less time, not more.
            let Some(shorter) = options
                .grace_period_seconds
                .map(|asked| asked.max(0))
                .filter(|asked| *asked < left)
            else {
                return Mark::Same;
            };
            // Counted from when it was first told.
            let end = meta::text(old, "deletionTimestamp").parse::<Timestamp>();
            let sooner = Duration::from_secs(left.abs_diff(shorter));
            let end = end.ok().and_then(|end| end.checked_sub(sooner).ok());
            let end = meta::time(end.unwrap_or(now));
            meta::set(&mut document, "deletionTimestamp", Some(end.into()));
            meta::set(
                &mut document,
                "deletionGracePeriodSeconds",
                Some(shorter.into()),
            );
            let goes = shorter == 0 && finalizers.is_empty();
            meta::set_finalizers(&mut document, finalizers);
            return if goes {
                Mark::Goes(document)
            } else {
                Mark::Waits(document)
            };
        }
        if grace > 0 {
            begin(&mut document, grace);
            bump_generation(&mut document);
            meta::set_finalizers(&mut document, finalizers);
            return Mark::Waits(document);
        }
        if finalizers.is_empty() {
            // What is asked to end at once shows it in the answer, even if it had been given time before.
            if graceful {
                if !terminating {
                    bump_generation(&mut document);
                }
                begin(&mut document, 0);
            }
            return Mark::Goes(document);
        }
        let graceful_before =
            meta::number(old, "deletionGracePeriodSeconds").is_some_and(|left| left > 0);
        if terminating && !graceful_before && finalizers == before {
            return Mark::Same;
        }
        if !terminating {
            bump_generation(&mut document);
        }
        if !terminating || graceful_before {
            begin(&mut document, 0);
        }
        meta::set_finalizers(&mut document, finalizers);
        Mark::Waits(document)
    }

    /// A namespace is told to end; it goes when its contents have, by way of `finalize`.
    fn mark_namespace(
        &self,
        document: &mut Value,
        old: &Value,
        finalizers: Vec<String>,
        before: &[String],
        terminating: bool,
    ) -> Mark {
        if !terminating {
            meta::set(
                document,
                "deletionTimestamp",
                Some(meta::time(self.now()).into()),
            );
            document["status"]["phase"] = "Terminating".into();
            meta::set_finalizers(document, finalizers);
            return Mark::Waits(std::mem::take(document));
        }
        let held = old
            .pointer("/spec/finalizers")
            .and_then(Value::as_array)
            .is_some_and(|left| !left.is_empty());
        if held || !finalizers.is_empty() {
            if finalizers == before {
                return Mark::Same;
            }
            meta::set_finalizers(document, finalizers);
            return Mark::Waits(std::mem::take(document));
        }
        Mark::Goes(std::mem::take(document))
    }

    /// Deletes all objects of a collection that the selectors choose, and returns them.
    pub(crate) async fn delete_collection(
        &self,
        cx: &mut Context,
        at: &At,
        options: &DeleteOptions,
        which: &ListOptions,
    ) -> Result<super::ListPage, Status> {
        let page = self.list(at, which).await?;
        for object in &page.items {
            let one = At {
                name: object.name().to_owned(),
                namespace: object.namespace().to_owned(),
                ..at.clone()
            };
            match self.delete(cx, &one, options).await {
                Ok(_) => {}
                // Somebody was faster.
                Err(status) if status.is_not_found() => {}
                Err(status) => return Err(status),
            }
        }
        Ok(page)
    }
}

enum Mark {
    /// It is marked already: nothing to write.
    Same,
    /// It waits, marked like this.
    Waits(Value),
    /// It can go now; so the client is shown it.
    Goes(Value),
}

fn bump_generation(document: &mut Value) {
    if let Some(generation) =
        meta::number(document, "generation").filter(|generation| *generation > 0)
    {
        meta::set(document, "generation", Some((generation + 1).into()));
    }
}

/// The finalizers that the fate of the dependents asks for.
fn finalizers_for(options: &DeleteOptions, default: Propagation, before: &[String]) -> Vec<String> {
    let has = |name: &str| before.iter().any(|finalizer| finalizer == name);
    let propagation = options.propagation.unwrap_or_else(|| {
        // Without a wish, an earlier one stands.
        if has(ORPHAN) {
            Propagation::Orphan
        } else if has(FOREGROUND) {
            Propagation::Foreground
        } else {
            default
        }
    });
    let mut finalizers: Vec<String> = before
        .iter()
        .filter(|name| *name != ORPHAN && *name != FOREGROUND)
        .cloned()
        .collect();
    match propagation {
        Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
        Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
        Propagation::Background => {}
    }
    finalizers
}

fn check_preconditions(at: &At, options: &DeleteOptions, current: &Object) -> Result<(), Status> {
    if let Some(uid) = &options.uid
        && uid != current.uid()
    {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and \
             then recreated",
            current.uid()
        );
        return Err(Status::conflict(&at.info.resource, current.name(), &why));
    }
    if let Some(revision) = options.revision
        && revision != current.revision()
    {
        let why = format!(
            "the ResourceVersion in the precondition ({revision}) does not match the ResourceVersion in record ({}). The object \
             might have been modified",
            current.revision()
        );
        return Err(Status::conflict(&at.info.resource, current.name(), &why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finalizers(propagation: Option<Propagation>, before: &[&str]) -> Vec<String> {
        let options = DeleteOptions {
            propagation,
            ..DeleteOptions::default()
        };
        let before: Vec<String> = before.iter().map(|name| (*name).to_owned()).collect();
        finalizers_for(&options, Propagation::Background, &before)
    }

    #[test]
    fn the_fate_of_dependents_is_a_finalizer() {
        assert_eq!(finalizers(None, &["x"]), ["x"]);
        assert_eq!(finalizers(None, &["orphan"]), ["orphan"]);
        assert_eq!(
            finalizers(Some(Propagation::Background), &["orphan", "x"]),
            ["x"]
        );
        assert_eq!(
            finalizers(Some(Propagation::Orphan), &["foregroundDeletion"]),
            ["orphan"]
        );
        assert_eq!(
            finalizers(Some(Propagation::Foreground), &[]),
            ["foregroundDeletion"]
        );
    }
}
