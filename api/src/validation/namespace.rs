//! Namespaces.

use orlop_core::field::Path;
use serde_json::Value;

use super::errors::Errors;
use super::meta::{self, NameForm};
use super::names;
use crate::doc;

/// A namespace.
pub(super) fn create(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, false, NameForm::Label);
    let path = Path::new("spec").child("finalizers");
    for name in doc::texts(doc::get(document, "spec"), "finalizers") {
        finalizer(errors, name, &path);
    }
}

fn finalizer(errors: &mut Errors, name: &str, path: &Path) {
    errors.all_invalid(path, name, names::qualified_name(name));
    meta::standard_finalizer(errors, name, path);
}

/// The finalizers of a namespace, through their own door.
pub(super) fn finalize(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    for (i, name) in doc::texts(doc::get(new, "spec"), "finalizers").enumerate() {
        finalizer(
            errors,
            name,
            &Path::new("spec").child("finalizers").index(i),
        );
    }
}

/// The phase of a namespace follows from whether it is being deleted.
pub(super) fn status(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    let phase = doc::text(doc::get(new, "status"), "phase");
    let path = Path::new("status").child("Phase");
    if doc::has(doc::get(new, "metadata"), "deletionTimestamp") {
        if phase != "Terminating" {
            errors.invalid(
                &path,
                phase,
                "may only be 'Terminating' if `deletionTimestamp` is not empty",
            );
        }
    } else if phase != "Active" {
        errors.invalid(
            &path,
            phase,
            "may only be 'Active' if `deletionTimestamp` is empty",
        );
    }
}
