//! Events, of both groups.

use orlop_core::field::Path;
use serde_json::Value;

use super::errors::Errors;
use super::meta::{self, NameForm};
use super::names;
use crate::doc;

/// The longest note of an event.
const MAX_NOTE: usize = 1024;

/// An event of the core group.
pub(super) fn event(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    event_namespace(errors, document, "involvedObject");
    let path = Path::root();
    if !doc::has(document, "eventTime") {
        // Clients of the first version of events set none of the newer fields.
        return;
    }
    event_body(
        errors,
        document,
        &path,
        "reportingComponent",
        "reportingInstance",
        "message",
    );
}

/// An event of `events.k8s.io`.
pub(super) fn new_event(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    event_namespace(errors, document, "regarding");
    if !doc::has(document, "eventTime") {
        errors.required(&Path::new("eventTime"), "");
    }
    let kind = doc::text(document, "type");
    if !matches!(kind, "Normal" | "Warning") {
        errors.invalid(&Path::new("type"), "", format!("has invalid value: {kind}"));
    }
    event_body(
        errors,
        document,
        &Path::root(),
        "reportingController",
        "reportingInstance",
        "note",
    );
}

fn event_namespace(errors: &mut Errors, document: &Value, object: &str) {
    let about = doc::text(doc::get(document, object), "namespace");
    let own = doc::text(doc::get(document, "metadata"), "namespace");
    if about.is_empty() {
        if own != "default" && own != "kube-system" {
            errors.invalid(
                &Path::new("involvedObject").child("namespace"),
                about,
                "does not match event.namespace",
            );
        }
    } else if about != own {
        errors.invalid(
            &Path::new("involvedObject").child("namespace"),
            about,
            "does not match event.namespace",
        );
    }
}

fn event_body(
    errors: &mut Errors,
    document: &Value,
    path: &Path,
    controller: &str,
    instance: &str,
    note: &str,
) {
    let name = doc::text(document, controller);
    if name.is_empty() {
        errors.required(&Path::new("reportingController"), "");
    }
    errors.all_invalid(
        &Path::new("reportingController"),
        name,
        names::qualified_name(name),
    );
    for (key, max) in [(instance, 128), ("action", 128), ("reason", 128)] {
        let value = doc::text(document, key);
        if value.is_empty() {
            errors.required(&path.child(key), "");
        }
        if value.len() > max {
            errors.invalid(
                &path.child(key),
                "",
                format!("can have at most {max} characters"),
            );
        }
    }
    if doc::text(document, note).len() > MAX_NOTE {
        errors.invalid(
            &Path::new("message"),
            "",
            format!("can have at most {MAX_NOTE} characters"),
        );
    }
}

/// What an event says doesn't change; only its series grows.
pub(super) fn new_event_update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    for key in [
        "regarding",
        "reason",
        "note",
        "type",
        "deprecatedSource",
        "deprecatedFirstTimestamp",
        "deprecatedLastTimestamp",
        "deprecatedCount",
        "related",
        "action",
        "reportingController",
        "reportingInstance",
        "eventTime",
    ] {
        errors.immutable(doc::get(new, key), doc::get(old, key), &Path::new(key));
    }
}
