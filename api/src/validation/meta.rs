//! `metadata`: the name of the object and what stands beside it.

use std::collections::BTreeSet;

use orlop_core::field::Path;
use orlop_core::resource::split_api_version;
use serde_json::Value;

use super::errors::Errors;
use super::{labels, names};
use crate::doc;

/// All annotations of an object together may have this many bytes, keys included.
pub(crate) const MAX_ANNOTATIONS: usize = 256 * 1024;

/// The form of an object's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameForm {
    /// A DNS subdomain.
    Subdomain,
    /// A DNS label of RFC 1123.
    Label,
    /// A DNS label of RFC 1035.
    Label1035,
    /// Any segment of a URL path.
    PathSegment,
    /// An IP address in canonical form.
    Ip,
    /// A subdomain, or a signer's name, then a colon and a subdomain.
    TrustBundle,
}

impl NameForm {
    fn complaints(self, name: &str) -> Vec<String> {
        match self {
            Self::Subdomain => names::dns_subdomain(name),
            Self::Label => names::dns_label(name),
            Self::Label1035 => names::dns1035_label(name),
            Self::PathSegment => names::path_segment(name),
            Self::Ip => names::ip(name),
            Self::TrustBundle => match name.rsplit_once(':') {
                Some((_, last)) => names::dns_subdomain(last),
                None => names::dns_subdomain(name),
            },
        }
    }

    /// The start of a generated name may end with a dash, because something follows.
    fn prefix_complaints(self, prefix: &str) -> Vec<String> {
        match self {
            Self::PathSegment | Self::Ip => self.complaints(prefix),
            _ if prefix.len() > 1 && prefix.ends_with('-') => {
                self.complaints(&format!("{}a", &prefix[..prefix.len() - 1]))
            }
            _ => self.complaints(prefix),
        }
    }
}

/// `metadata` of an object that is written, after name generation.
pub(crate) fn object_meta(errors: &mut Errors, object: &Value, namespaced: bool, form: NameForm) {
    let meta = doc::get(object, "metadata");
    let path = Path::new("metadata");
    let generate = doc::text(meta, "generateName");
    if !generate.is_empty() {
        errors.all_invalid(
            &path.child("generateName"),
            generate,
            form.prefix_complaints(generate),
        );
    }
    let name = doc::text(meta, "name");
    if name.is_empty() {
        errors.required(&path.child("name"), "name or generateName is required");
    } else {
        errors.all_invalid(&path.child("name"), name, form.complaints(name));
    }
    let namespace = doc::text(meta, "namespace");
    if namespaced {
        if namespace.is_empty() {
            errors.required(&path.child("namespace"), "");
        } else {
            errors.all_invalid(
                &path.child("namespace"),
                namespace,
                names::dns_label(namespace),
            );
        }
    } else if !namespace.is_empty() {
        errors.forbidden(&path.child("namespace"), "not allowed on this type");
    }
    errors.nonnegative(meta, "generation", &path);
    labels::labels(errors, meta, "labels", &path);
    annotations(errors, meta, &path);
    owner_references(errors, meta, &path);
    finalizers(errors, meta, &path);
    standard_finalizers(errors, meta, &path);
}

/// The annotations in a `metadata`.
pub(crate) fn annotations(errors: &mut Errors, meta: &Value, path: &Path) {
    let path = path.child("annotations");
    let mut size = 0;
    for (key, value) in doc::text_entries(meta, "annotations") {
        errors.all_invalid(&path, key, names::qualified_name(&key.to_lowercase()));
        size += key.len() + value.len();
    }
    if size > MAX_ANNOTATIONS {
        errors.too_long(&path, MAX_ANNOTATIONS);
    }
}

fn owner_references(errors: &mut Errors, meta: &Value, path: &Path) {
    let path = path.child("ownerReferences");
    let mut controller: Option<String> = None;
    for reference in doc::list(meta, "ownerReferences") {
        let api_version = doc::text(reference, "apiVersion");
        let kind = doc::text(reference, "kind");
        let name = doc::text(reference, "name");
        if split_api_version(api_version).1.is_empty() {
            errors.invalid(
                &path.child("apiVersion"),
                api_version,
                "version must not be empty",
            );
        }
        for key in ["kind", "name", "uid"] {
            if doc::text(reference, key).is_empty() {
                errors.invalid(&path.child(key), "", "must not be empty");
            }
        }
        if api_version == "v1" && kind == "Event" {
            errors.invalid(
                &path,
                reference.clone(),
                "/v1, Kind=Event is disallowed from being an owner",
            );
        }
        if doc::flag(reference, "controller") {
            let this = format!("{kind}/{name}");
            if let Some(first) = &controller {
                errors.invalid(
                    &path,
                    doc::get(meta, "ownerReferences").clone(),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and \
                         {this}"
                    ),
                );
            } else {
                controller = Some(this);
            }
        }
    }
}

fn finalizers(errors: &mut Errors, meta: &Value, path: &Path) {
    let path = path.child("finalizers");
    let names: Vec<&str> = doc::texts(meta, "finalizers").collect();
    for name in &names {
        errors.all_invalid(&path, name, names::qualified_name(name));
    }
    if names.contains(&"orphan") && names.contains(&"foregroundDeletion") {
        errors.invalid(
            &path,
            doc::get(meta, "finalizers").clone(),
            "finalizer orphan and foregroundDeletion cannot be both set",
        );
    }
}

/// A finalizer without a prefix is one of the three that Kubernetes itself knows.
pub(crate) fn standard_finalizer(errors: &mut Errors, name: &str, path: &Path) {
    if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
        errors.invalid(
            path,
            name,
            "name is neither a standard finalizer name nor is it fully qualified",
        );
    }
}

fn standard_finalizers(errors: &mut Errors, meta: &Value, path: &Path) {
    for (i, name) in doc::texts(meta, "finalizers").enumerate() {
        standard_finalizer(errors, name, &path.child("finalizers").index(i));
    }
}

/// `metadata` of an object that replaces an older one.
pub(crate) fn object_meta_update(errors: &mut Errors, new: &Value, old: &Value) {
    let (new, old) = (doc::get(new, "metadata"), doc::get(old, "metadata"));
    let path = Path::new("metadata");
    if doc::has(old, "deletionTimestamp") {
        let before: BTreeSet<&str> = doc::texts(old, "finalizers").collect();
        let after: BTreeSet<&str> = doc::texts(new, "finalizers").collect();
        let added: Vec<String> = after
            .difference(&before)
            .map(|name| orlop_core::field::quote(name))
            .collect();
        if !added.is_empty() {
            errors.forbidden(
                &path.child("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.join(", ")
                ),
            );
        }
    }
    if doc::text(new, "resourceVersion").is_empty() {
        errors.invalid(
            &path.child("resourceVersion"),
            "",
            "must be specified for an update",
        );
    }
    let generation = doc::int(new, "generation").unwrap_or_default();
    if generation < doc::int(old, "generation").unwrap_or_default() {
        errors.invalid(
            &path.child("generation"),
            generation,
            "must not be decremented",
        );
    }
    for key in ["name", "namespace", "uid"] {
        if doc::text(new, key) != doc::text(old, key) {
            errors.invalid(&path.child(key), doc::text(new, key), "field is immutable");
        }
    }
    for key in [
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        errors.immutable(doc::get(new, key), doc::get(old, key), &path.child(key));
    }
    labels::labels(errors, new, "labels", &path);
    annotations(errors, new, &path);
    owner_references(errors, new, &path);
    standard_finalizers(errors, new, &path);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn create(object: &Value, namespaced: bool, form: NameForm) -> Vec<String> {
        let mut errors = Errors::new();
        object_meta(&mut errors, object, namespaced, form);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_follow_their_kind() {
        assert_eq!(
            create(&json!({"metadata": {}}), false, NameForm::Label),
            ["metadata.name: Required value: name or generateName is required"]
        );
        assert!(
            create(
                &json!({"metadata": {"name": "x-abc12", "generateName": "x-"}}),
                false,
                NameForm::Label
            )
            .is_empty()
        );
        assert!(
            create(
                &json!({"metadata": {"name": "system:x"}}),
                false,
                NameForm::PathSegment
            )
            .is_empty()
        );
        assert_eq!(
            create(
                &json!({"metadata": {"name": "a/b", "namespace": "x"}}),
                false,
                NameForm::PathSegment
            ),
            [
                "metadata.name: Invalid value: \"a/b\": may not contain '/'",
                "metadata.namespace: Forbidden: not allowed on this type"
            ]
        );
    }

    #[test]
    fn owners_and_finalizers() {
        let errors = create(
            &json!({"metadata": {"name": "a", "namespace": "n", "finalizers": ["x"], "ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "controller": true},
            {"apiVersion": "v1", "kind": "Pod", "name": "q", "uid": "", "controller": true}]}}),
            true,
            NameForm::Subdomain,
        );
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert!(
            errors[0].starts_with(
                "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"
            )
        );
        assert!(errors[1].ends_with("Found \"true\" in references for Pod/p and Pod/q"));
        assert_eq!(
            errors[2],
            "metadata.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified"
        );
    }

    #[test]
    fn an_update_keeps_identity() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "resourceVersion": "5", "deletionTimestamp": "t",
            "finalizers": ["a.b/c"]}});
        let new = json!({"metadata": {"name": "a", "uid": "2", "deletionTimestamp": "t",
            "finalizers": ["a.b/c", "a.b/d"]}});
        let mut errors = Errors::new();
        object_meta_update(&mut errors, &new, &old);
        let errors: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
              finalizers []string{\"a.b/d\"}",
                "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
                "metadata.uid: Invalid value: \"2\": field is immutable"
            ]
        );
    }
}
