//! Classes of storage, and of the attributes of volumes.

use std::collections::BTreeSet;

use orlop_core::field::Path;
use serde_json::Value;

use crate::doc;
use crate::validation::errors::Errors;
use crate::validation::meta::{self, NameForm};
use crate::validation::pod::volumes;
use crate::validation::{labels, names};

/// A StorageClass.
pub(in crate::validation) fn class(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, false, NameForm::Subdomain);
    let root = Path::root();
    let provisioner = doc::text(document, "provisioner");
    provisioner_name(errors, provisioner, &root.child("provisioner"));
    parameters(errors, document);
    errors.if_set_one_of(document, "reclaimPolicy", &root, &["Delete", "Retain"]);
    errors.if_set_one_of(
        document,
        "volumeBindingMode",
        &root,
        &["Immediate", "WaitForFirstConsumer"],
    );
    for (i, term) in doc::list(document, "allowedTopologies").iter().enumerate() {
        let path = Path::new("allowedTopologies")
            .index(i)
            .child("matchLabelExpressions");
        let mut keys = BTreeSet::new();
        for (i, requirement) in doc::list(term, "matchLabelExpressions").iter().enumerate() {
            let path = path.index(i);
            let values: Vec<&str> = doc::texts(requirement, "values").collect();
            if values.is_empty() {
                errors.required(&path.child("values"), "");
            }
            let mut seen = BTreeSet::new();
            for (i, value) in values.iter().enumerate() {
                if !seen.insert(value) {
                    errors.duplicate(&path.child("values").index(i), *value);
                }
            }
            let key = doc::text(requirement, "key");
            labels::label_key(errors, key, &path.child("key"));
            if !keys.insert(key) {
                errors.duplicate(&path.child("key"), key);
            }
        }
    }
}

fn provisioner_name(errors: &mut Errors, name: &str, path: &Path) {
    if name.is_empty() {
        errors.required(path, name);
    } else {
        errors.all_invalid(path, name, names::qualified_name(&name.to_lowercase()));
    }
}

fn parameters(errors: &mut Errors, document: &Value) {
    let path = Path::new("parameters");
    let mut size = 0;
    let mut count = 0;
    for (key, value) in doc::text_entries(document, "parameters") {
        if key.is_empty() {
            errors.invalid(&path, key, "field can not be empty.");
        }
        size += key.len() + value.len();
        count += 1;
    }
    if count > 512 {
        errors.invalid(&path, "Provisioner Parameters exceeded max allowed", "");
        errors.explain("may not have more than 512 items");
    }
    if size > 256 * 1024 {
        errors.too_long(&path, 256 * 1024);
    }
}

/// A StorageClass that replaces an older one.
pub(in crate::validation) fn class_update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    for (key, detail) in [
        ("parameters", "updates to parameters are forbidden."),
        ("provisioner", "updates to provisioner are forbidden."),
        ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
    ] {
        if !doc::same(doc::get(new, key), doc::get(old, key)) {
            errors.forbidden(&Path::new(key), detail);
        }
    }
    errors.immutable(
        doc::get(new, "volumeBindingMode"),
        doc::get(old, "volumeBindingMode"),
        &Path::new("volumeBindingMode"),
    );
}

/// A VolumeAttributesClass; `old` where it replaces one.
pub(in crate::validation) fn attributes_class(
    errors: &mut Errors,
    document: &Value,
    old: Option<&Value>,
) {
    meta::object_meta(errors, document, false, NameForm::Subdomain);
    let driver = doc::text(document, "driverName");
    if driver.is_empty() {
        errors.required(&Path::new("driverName"), driver);
    } else {
        volumes::csi_driver_name(errors, driver, &Path::new("driverName"));
    }
    if doc::is_empty(doc::get(document, "parameters")) {
        errors.required(
            &Path::new("parameters"),
            "must contain at least one key/value pair",
        );
    }
    parameters(errors, document);
    if let Some(old) = old {
        for key in ["driverName", "parameters"] {
            if !doc::same(doc::get(document, key), doc::get(old, key)) {
                errors.forbidden(&Path::new(key), format!("updates to {key} are forbidden."));
            }
        }
    }
}
