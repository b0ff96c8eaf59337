//! Claims on volumes.

use orlop_core::field::Path;
use orlop_core::quantity::Quantity;
use serde_json::Value;

use super::access_modes;
use crate::doc;
use crate::validation::errors::Errors;
use crate::validation::meta::{self, NameForm};
use crate::validation::pod::diff;
use crate::validation::{labels, names, resources};

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// What a claim asks for.
pub(crate) fn claim_spec(errors: &mut Errors, spec: &Value, path: &Path) {
    if doc::list(spec, "accessModes").is_empty() {
        errors.required(
            &path.child("accessModes"),
            "at least 1 access mode is required",
        );
    }
    labels::selector(errors, spec, "selector", path);
    access_modes(errors, spec, path);
    let storage = doc::at(spec, &["resources", "requests", "storage"]);
    let storage_path = path.child("resources").key("storage");
    match resources::quantity(storage) {
        None => errors.required(&storage_path, ""),
        Some(quantity) => {
            if quantity.is_negative() {
                errors.invalid(
                    &storage_path,
                    quantity.to_string(),
                    "must be greater than or equal to 0",
                );
            }
            if quantity <= Quantity::ZERO {
                errors.invalid(
                    &storage_path,
                    quantity.to_string(),
                    "must be greater than zero",
                );
            }
        }
    }
    for key in ["storageClassName", "volumeAttributesClassName"] {
        let class = doc::text(spec, key);
        if !class.is_empty() {
            errors.all_invalid(&path.child(key), class, names::dns_subdomain(class));
        }
    }
    errors.if_set_one_of(spec, "volumeMode", path, &["Block", "Filesystem"]);
    let (source, reference) = (
        doc::get(spec, "dataSource"),
        doc::get(spec, "dataSourceRef"),
    );
    for (key, of) in [("dataSource", source), ("dataSourceRef", reference)] {
        if !of.is_null() {
            data_source(errors, of, &path.child(key));
        }
    }
    if source.is_null() || reference.is_null() {
        return;
    }
    let own = path.child("dataSource");
    if !doc::text(reference, "namespace").is_empty() {
        errors.invalid(
            path,
            own.as_str(),
            "may not be specified when dataSourceRef.namespace is specified",
        );
    } else if ["apiGroup", "kind", "name"]
        .iter()
        .any(|key| doc::get(source, key) != doc::get(reference, key))
    {
        errors.invalid(path, own.as_str(), "must match dataSourceRef");
    }
}

fn data_source(errors: &mut Errors, of: &Value, path: &Path) {
    errors.need_text(of, "name", path);
    errors.need_text(of, "kind", path);
    let group = doc::text(of, "apiGroup");
    let kind = doc::text(of, "kind");
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        errors.invalid(
            path,
            kind,
            "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
        );
    }
    if !group.is_empty() {
        errors.all_invalid(&path.child("apiGroup"), group, names::dns_subdomain(group));
    }
    let namespace = doc::text(of, "namespace");
    if !namespace.is_empty() {
        errors.all_invalid(
            &path.child("namespace"),
            namespace,
            names::dns_label(namespace),
        );
    }
}

/// What is looked at in the claim templates of a StatefulSet: the claims themselves are checked when they are created.
pub(crate) fn claim_template_modes(errors: &mut Errors, claim: &Value, path: &Path) {
    let spec = doc::get(claim, "spec");
    let path = path.child("spec");
    access_modes(errors, spec, &path);
    errors.if_set_one_of(spec, "volumeMode", &path, &["Block", "Filesystem"]);
}

/// A PersistentVolumeClaim.
pub(in crate::validation) fn claim(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    claim_spec(errors, doc::get(document, "spec"), &Path::new("spec"));
}

/// A PersistentVolumeClaim that replaces an older one: once bound it may ask for more, and nothing else.
pub(in crate::validation) fn claim_update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    claim(errors, new);
    let (spec, before) = (doc::get(new, "spec"), doc::get(old, "spec").clone());
    let (mut munged, mut before_munged) = (spec.clone(), before.clone());
    if doc::text(&before, "volumeName").is_empty() {
        doc::copy_field(&mut before_munged, spec, "volumeName");
    }
    let (beta_new, beta_old) = (
        doc::annotation(new, BETA_CLASS),
        doc::annotation(old, BETA_CLASS),
    );
    let class = doc::opt_text(spec, "storageClassName");
    if !doc::has(&before, "storageClassName")
        && class.is_some_and(|class| beta_old.is_none_or(|beta| beta == class))
    {
        doc::remove(&mut munged, "storageClassName");
    } else if beta_new != beta_old {
        errors.invalid(
            &Path::new("metadata").child("annotations").key(BETA_CLASS),
            beta_new.unwrap_or_default(),
            "field is immutable",
        );
    }
    if doc::text(doc::get(new, "status"), "phase") == "Bound" {
        if doc::at(&munged, &["resources", "requests"]).is_object() {
            let requests =
                doc::ensure_object(doc::ensure_object(&mut munged, "resources"), "requests");
            doc::copy_field(
                requests,
                doc::at(&before, &["resources", "requests"]),
                "storage",
            );
        }
        if doc::has(&munged, "volumeAttributesClassName") {
            doc::copy_field(&mut munged, &before, "volumeAttributesClassName");
        }
    }
    let path = Path::new("spec");
    if !doc::same(&munged, &before_munged) {
        errors.forbidden(
            &path,
            format!(
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{}",
                diff("core.PersistentVolumeClaimSpec", &before_munged, &munged)
            ),
        );
    }
    let size =
        |of: &Value, keys: &[&str]| resources::quantity(doc::at(of, keys)).unwrap_or_default();
    let requested = ["resources", "requests", "storage"];
    let now = size(spec, &requested);
    if now < size(&before, &requested) && now <= size(old, &["status", "capacity", "storage"]) {
        errors.forbidden(
            &path.child("resources").child("requests").child("storage"),
            "field can not be less than status.capacity",
        );
    }
    errors.immutable(
        doc::get(spec, "volumeMode"),
        doc::get(&before, "volumeMode"),
        &Path::new("volumeMode"),
    );
    let attributes = "volumeAttributesClassName";
    if doc::has(&before, attributes) {
        match doc::opt_text(spec, attributes) {
            None => errors.forbidden(
                &path.child(attributes),
                "update from non-nil value to nil is forbidden",
            ),
            Some("") => {
                errors.forbidden(
                    &path.child(attributes),
                    "update from non-nil value to an empty string is forbidden",
                );
            }
            Some(_) => {}
        }
    }
}

/// The status of a claim.
pub(in crate::validation) fn claim_status(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    if doc::list(doc::get(new, "spec"), "accessModes").is_empty() {
        errors.required(&Path::new("Spec").child("accessModes"), "");
    }
    let status = doc::get(new, "status");
    let path = Path::new("status").child("capacity");
    for (name, value) in doc::entries(status, "capacity") {
        if resources::quantity(value).is_some_and(|quantity| quantity.is_negative()) {
            errors.invalid(
                &path.key(name),
                value.clone(),
                "must be a valid resource quantity",
            );
        }
    }
}
