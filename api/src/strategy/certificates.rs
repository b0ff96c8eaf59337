//! Certificate signing requests: who asked is written by the server, what was decided stays.

use serde_json::{Value, json};

use super::Context;
use crate::doc;

/// The requester is the user behind the request.
pub(super) fn create(document: &mut Value, context: &Context) {
    let spec = doc::ensure_object(document, "spec");
    for key in ["username", "uid", "groups", "extra"] {
        doc::remove(spec, key);
    }
    if let Some(user) = &context.user {
        doc::set(spec, "username", user.name.clone());
        if !user.uid.is_empty() {
            doc::set(spec, "uid", user.uid.clone());
        }
        if !user.groups.is_empty() {
            doc::set(spec, "groups", user.groups.clone());
        }
        if !user.extra.is_empty() {
            doc::set(spec, "extra", json!(user.extra));
        }
    }
    doc::set(document, "status", json!({}));
}

/// The specification never changes; each subresource writes its part of the status.
pub(super) fn update(new: &mut Value, old: &Value, subresource: Option<&str>, context: &Context) {
    doc::copy_field(new, old, "spec");
    let before = doc::get(old, "status");
    match subresource {
        Some("approval") => {
            let conditions = doc::at(new, &["status", "conditions"]).clone();
            let mut status = before.clone();
            if !status.is_object() {
                status = json!({});
            }
            if conditions.is_null() {
                doc::remove(&mut status, "conditions");
            } else {
                doc::set(&mut status, "conditions", conditions);
            }
            doc::set(new, "status", status);
            stamp(new, before, context);
        }
        Some("status") => {
            let decided = |kind: &str| matches!(kind, "Approved" | "Denied");
            let mut conditions: Vec<Value> = doc::list(before, "conditions")
                .iter()
                .filter(|condition| decided(doc::text(condition, "type")))
                .cloned()
                .collect();
            let status = doc::ensure_object(new, "status");
            conditions.extend(
                doc::list(status, "conditions")
                    .iter()
                    .filter(|condition| !decided(doc::text(condition, "type")))
                    .cloned(),
            );
            if conditions.is_empty() {
                doc::remove(status, "conditions");
            } else {
                doc::set(status, "conditions", conditions);
            }
            stamp(new, before, context);
        }
        _ => doc::copy_field(new, old, "status"),
    }
}

fn stamp(new: &mut Value, before: &Value, context: &Context) {
    let old = doc::list(before, "conditions").to_vec();
    for condition in doc::each_mut(doc::ensure_object(new, "status"), "conditions") {
        doc::default_text(condition, "status", "True");
        doc::default_to(condition, "lastUpdateTime", context.now.clone());
        let (kind, state) = (doc::text(condition, "type"), doc::text(condition, "status"));
        let since = old
            .iter()
            .find(|other| doc::text(other, "type") == kind && doc::text(other, "status") == state)
            .map(|other| doc::get(other, "lastTransitionTime").clone())
            .filter(|since| !since.is_null())
            .unwrap_or_else(|| context.now.clone().into());
        doc::default_to(condition, "lastTransitionTime", since);
    }
}
