//! What CSI drivers say of themselves: drivers, nodes, capacities, attachments.

use std::collections::BTreeSet;

use orlop_core::field::Path;
use orlop_core::quantity::Quantity;
use serde_json::Value;

use crate::doc;
use crate::validation::errors::Errors;
use crate::validation::meta::{self, NameForm};
use crate::validation::pod::volumes;
use crate::validation::{labels, names, resources};

/// A CSIDriver; `old` where it replaces one.
pub(in crate::validation) fn csi_driver(
    errors: &mut Errors,
    document: &Value,
    old: Option<&Value>,
) {
    meta::object_meta(errors, document, false, NameForm::Subdomain);
    let name = doc::text(doc::get(document, "metadata"), "name");
    if name.len() > 63 {
        errors.too_long(&Path::new("metadata").child("name"), 63);
    }
    let spec = doc::get(document, "spec");
    let path = Path::new("spec");
    for key in ["attachRequired", "podInfoOnMount", "storageCapacity"] {
        if !doc::has(spec, key) {
            errors.required(&path.child(key), "");
        }
    }
    errors.if_set_one_of(
        spec,
        "fsGroupPolicy",
        &path,
        &["File", "None", "ReadWriteOnceWithFSType"],
    );
    let mut seen = BTreeSet::new();
    for (i, request) in doc::list(spec, "tokenRequests").iter().enumerate() {
        let path = path.child("tokenRequests").index(i);
        let audience = doc::text(request, "audience");
        if !seen.insert(audience) {
            errors.duplicate(&path.child("audience"), audience);
        }
        if let Some(seconds) = doc::int(request, "expirationSeconds") {
            let path = path.child("expirationSeconds");
            if seconds < 600 {
                errors.invalid(
                    &path,
                    seconds,
                    "may not specify a duration less than 10 minutes",
                );
            }
            if seconds > 1 << 32 {
                errors.invalid(
                    &path,
                    seconds,
                    "may not specify a duration larger than 2^32 seconds",
                );
            }
        }
    }
    for mode in doc::texts(spec, "volumeLifecycleModes") {
        const MODES: &[&str] = &["Ephemeral", "Persistent"];
        if !MODES.contains(&mode) {
            errors.not_supported(&path.child("volumeLifecycleModes"), mode, MODES);
        }
    }
    if let Some(old) = old {
        let before = doc::get(old, "spec");
        for key in ["attachRequired", "volumeLifecycleModes"] {
            errors.immutable(doc::get(spec, key), doc::get(before, key), &path.child(key));
        }
    }
}

/// A CSINode; `old` where it replaces one.
pub(in crate::validation) fn csi_node(errors: &mut Errors, document: &Value, old: Option<&Value>) {
    meta::object_meta(errors, document, false, NameForm::Subdomain);
    let path = Path::new("spec").child("drivers");
    let mut seen = BTreeSet::new();
    for (i, driver) in doc::list(doc::get(document, "spec"), "drivers")
        .iter()
        .enumerate()
    {
        let own = path.index(i);
        let name = doc::text(driver, "name");
        if name.is_empty() {
            errors.required(&own.child("name"), "");
        } else {
            volumes::csi_driver_name(errors, name, &own.child("name"));
        }
        let node = doc::text(driver, "nodeID");
        if node.is_empty() {
            errors.required(&own.child("nodeID"), "");
        } else if node.len() > 192 {
            errors.invalid(&own.child("nodeID"), node, "must be 192 characters or less");
        }
        let allocatable = doc::get(driver, "allocatable");
        errors.nonnegative(allocatable, "count", &own.child("allocatable"));
        let mut keys = BTreeSet::new();
        for key in doc::texts(driver, "topologyKeys") {
            if !keys.insert(key) {
                errors.duplicate(&own.child("topologyKeys"), key);
            }
            errors.all_invalid(&own.child("topologyKeys"), key, names::qualified_name(key));
        }
        if !seen.insert(name) {
            errors.duplicate(&own.child("name"), name);
        }
    }
    if let Some(old) = old {
        let new = doc::list(doc::get(document, "spec"), "drivers");
        for driver in doc::list(doc::get(old, "spec"), "drivers") {
            let kept = new
                .iter()
                .find(|other| doc::text(other, "name") == doc::text(driver, "name"));
            let changed = kept.is_some_and(|kept| {
                ["nodeID", "topologyKeys"]
                    .iter()
                    .any(|key| !doc::same(doc::get(kept, key), doc::get(driver, key)))
            });
            if changed {
                errors.invalid(
                    &path,
                    doc::get(doc::get(document, "spec"), "drivers").clone(),
                    "field is immutable",
                );
            }
        }
    }
}

/// A CSIStorageCapacity; `old` where it replaces one.
pub(in crate::validation) fn csi_capacity(
    errors: &mut Errors,
    document: &Value,
    old: Option<&Value>,
) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    labels::selector(errors, document, "nodeTopology", &Path::root());
    let class = doc::text(document, "storageClassName");
    errors.all_invalid(
        &Path::new("storageClassName"),
        class,
        names::dns_subdomain(class),
    );
    for key in ["capacity", "maximumVolumeSize"] {
        if let Some(quantity) =
            resources::quantity(doc::get(document, key)).filter(Quantity::is_negative)
        {
            errors.invalid(
                &Path::new(key),
                quantity.to_string(),
                "must be greater than or equal to 0",
            );
        }
    }
    if let Some(old) = old {
        for key in ["nodeTopology", "storageClassName"] {
            if !doc::same(doc::get(document, key), doc::get(old, key)) {
                errors.invalid(
                    &Path::new(key),
                    doc::get(document, key).clone(),
                    "field is immutable",
                );
            }
        }
    }
}

/// A VolumeAttachment; `old` where it replaces one.
pub(in crate::validation) fn attachment(
    errors: &mut Errors,
    document: &Value,
    old: Option<&Value>,
) {
    meta::object_meta(errors, document, false, NameForm::Subdomain);
    let spec = doc::get(document, "spec");
    let path = Path::new("spec");
    let attacher = doc::text(spec, "attacher");
    if attacher.is_empty() {
        errors.required(&path.child("attacher"), attacher);
    } else {
        errors.all_invalid(
            &path.child("attacher"),
            attacher,
            names::qualified_name(&attacher.to_lowercase()),
        );
    }
    let node = doc::text(spec, "nodeName");
    errors.all_invalid(&path.child("nodeName"), node, names::dns_subdomain(node));
    let source = doc::get(spec, "source");
    let inline = doc::has(source, "inlineVolumeSpec");
    let path = path.child("source");
    match doc::opt_text(source, "persistentVolumeName") {
        None if !inline => errors.required(
            &path,
            "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        ),
        Some(_) if inline => {
            errors.forbidden(
                &path,
                "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            );
        }
        Some("") => errors.required(
            &path.child("persistentVolumeName"),
            "must specify non empty persistentVolumeName",
        ),
        Some(name) => {
            errors.all_invalid(
                &path.child("persistentVolumeName"),
                name,
                names::dns_subdomain(name),
            );
        }
        None => {}
    }
    if let Some(old) = old
        && !doc::same(spec, doc::get(old, "spec"))
    {
        errors.invalid(&Path::new("spec"), spec.clone(), "field is immutable");
    }
}
