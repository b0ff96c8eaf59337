//! PersistentVolumes, claims on them, and `storage.k8s.io`.

use std::collections::BTreeSet;

use orlop_core::field::Path;
use orlop_core::quantity::Quantity;
use serde_json::Value;

use super::errors::Errors;
use super::meta::{self, NameForm};
use super::pod::{diff, scheduling, volumes};
use super::{labels, names, resources};
use crate::doc;

const ACCESS_MODES: &[&str] = &[
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// What can be behind a PersistentVolume, in the order in which it is looked at.
const SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

fn access_modes(errors: &mut Errors, spec: &Value, path: &Path) {
    let path = path.child("accessModes");
    let modes: Vec<&str> = doc::texts(spec, "accessModes").collect();
    let mut once = false;
    for mode in &modes {
        if !ACCESS_MODES.contains(mode) {
            errors.not_supported(&path, *mode, ACCESS_MODES);
        }
        once |= *mode == "ReadWriteOncePod";
    }
    if once && modes.len() > 1 {
        errors.forbidden(
            &path,
            "may not use ReadWriteOncePod with other access modes",
        );
    }
}

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
pub(super) fn claim(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    claim_spec(errors, doc::get(document, "spec"), &Path::new("spec"));
}

/// A PersistentVolumeClaim that replaces an older one: once bound it may ask for more, and nothing else.
pub(super) fn claim_update(errors: &mut Errors, new: &Value, old: &Value) {
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
pub(super) fn claim_status(errors: &mut Errors, new: &Value, old: &Value) {
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

/// A PersistentVolume.
pub(super) fn volume(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, false, NameForm::Subdomain);
    let spec = doc::get(document, "spec");
    let path = Path::new("spec");
    if doc::list(spec, "accessModes").is_empty() {
        errors.required(&path.child("accessModes"), "");
    }
    access_modes(errors, spec, &path);
    let capacity = doc::get(spec, "capacity");
    let capacity_path = path.child("capacity");
    if doc::is_empty(capacity) {
        errors.required(&capacity_path, "");
    }
    if !doc::has(capacity, "storage")
        || capacity
            .as_object()
            .is_some_and(|capacity| capacity.len() > 1)
    {
        let names: Vec<&str> = doc::entries(spec, "capacity")
            .map(|(name, _)| name)
            .collect();
        errors.not_supported(&capacity_path, "", &["storage"]);
        errors.show(serde_json::to_string(capacity).unwrap_or_else(|_| names.join(",")));
    }
    for (name, value) in doc::entries(spec, "capacity") {
        let path = capacity_path.key(name);
        if let Some(quantity) = resources::quantity(value) {
            if quantity.is_negative() {
                errors.invalid(
                    &path,
                    quantity.to_string(),
                    "must be a valid resource quantity",
                );
            } else if quantity.is_zero() {
                errors.invalid(&path, quantity.to_string(), "must be greater than zero");
            }
        }
    }
    if let Some(policy) =
        doc::opt_text(spec, "persistentVolumeReclaimPolicy").filter(|policy| !policy.is_empty())
    {
        const POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];
        if !POLICIES.contains(&policy) {
            errors.not_supported(
                &path.child("persistentVolumeReclaimPolicy"),
                policy,
                POLICIES,
            );
        }
    }
    node_affinity(errors, spec, &path);
    one_source(errors, document, spec, &path);
    let class = doc::text(spec, "storageClassName");
    if !class.is_empty() {
        errors.all_invalid(
            &path.child("storageClassName"),
            class,
            names::dns_subdomain(class),
        );
    }
    errors.if_set_one_of(spec, "volumeMode", &path, &["Block", "Filesystem"]);
    let attributes = doc::text(spec, "volumeAttributesClassName");
    if !attributes.is_empty() {
        errors.all_invalid(
            &path.child("volumeAttributesClassName"),
            attributes,
            names::dns_subdomain(attributes),
        );
    }
}

fn node_affinity(errors: &mut Errors, spec: &Value, path: &Path) {
    let affinity = doc::get(spec, "nodeAffinity");
    let path = path.child("nodeAffinity").child("required");
    if affinity.is_null() {
        return;
    }
    let required = doc::get(affinity, "required");
    if required.is_null() {
        errors.required(&path, "must specify required node constraints");
    } else {
        scheduling::node_selector(errors, required, true, &path);
    }
}

fn one_source(errors: &mut Errors, document: &Value, spec: &Value, path: &Path) {
    let mut found = false;
    for kind in SOURCES.iter().filter(|kind| doc::has(spec, kind)) {
        let source = doc::get(spec, kind);
        let own = path.child(kind);
        if found {
            errors.forbidden(&own, "may not specify more than 1 volume type");
            continue;
        }
        found = true;
        match *kind {
            "hostPath" => volumes::host_path(errors, source, &own),
            "local" => {
                let of = doc::text(source, "path");
                if of.is_empty() {
                    errors.required(&own.child("path"), "");
                } else {
                    super::pod::mounts::no_backsteps(errors, of, &own.child("path"));
                }
                if !doc::has(spec, "nodeAffinity") {
                    errors.required(
                        &Path::new("metadata").child("annotations"),
                        "Local volume requires node affinity",
                    );
                }
            }
            "csi" => {
                errors.need_text(source, "driver", &own);
                volumes::csi_driver_name(errors, doc::text(source, "driver"), &own.child("driver"));
                errors.need_text(source, "volumeHandle", &own);
                for key in [
                    "controllerPublishSecretRef",
                    "controllerExpandSecretRef",
                    "nodePublishSecretRef",
                    "nodeExpandSecretRef",
                    "nodeStageSecretRef",
                ] {
                    let reference = doc::get(source, key);
                    if !reference.is_null() {
                        errors.need_text(reference, "name", &own.child(key));
                        errors.need_text(reference, "namespace", &own.child(key));
                    }
                }
            }
            _ => {
                volumes::required_fields(errors, kind, source, &own);
                volumes::storage_source(errors, kind, source, &own);
                let name = doc::text(doc::get(document, "metadata"), "name");
                if *kind == "iscsi"
                    && doc::has(source, "initiatorName")
                    && name.len() + 1 + doc::text(source, "targetPortal").len() > 64
                {
                    errors.invalid(
                        &own.child("targetportal"),
                        doc::text(source, "targetPortal"),
                        volumes::ISCSI_TOO_LONG,
                    );
                }
            }
        }
    }
    if !found {
        errors.required(path, "must specify a volume type");
    }
    let host = doc::text(doc::get(spec, "hostPath"), "path");
    if !host.is_empty()
        && host.trim_end_matches('/').is_empty()
        && doc::text(spec, "persistentVolumeReclaimPolicy") == "Recycle"
    {
        errors.forbidden(
            &path.child("persistentVolumeReclaimPolicy"),
            "may not be 'recycle' for a hostPath mount of '/'",
        );
    }
}

/// A PersistentVolume that replaces an older one.
pub(super) fn volume_update(errors: &mut Errors, new: &Value, old: &Value) {
    volume(errors, new);
    meta::object_meta_update(errors, new, old);
    let (spec, before) = (doc::get(new, "spec"), doc::get(old, "spec"));
    let sources = |spec: &Value| -> Value {
        SOURCES
            .iter()
            .filter(|kind| doc::has(spec, kind))
            .map(|kind| {
                let mut source = doc::get(spec, kind).clone();
                // The secret for growing a volume may be added later.
                doc::remove(&mut source, "controllerExpandSecretRef");
                ((*kind).to_owned(), source)
            })
            .collect()
    };
    let (after, was) = (sources(spec), sources(before));
    let path = Path::new("spec");
    if !doc::same(&after, &was) {
        errors.forbidden(
            &path.child("persistentvolumesource"),
            format!(
                "spec.persistentvolumesource is immutable after creation\n{}",
                diff("core.PersistentVolumeSource", &was, &after)
            ),
        );
    }
    errors.immutable(
        doc::get(spec, "volumeMode"),
        doc::get(before, "volumeMode"),
        &Path::new("volumeMode"),
    );
    if doc::has(before, "nodeAffinity")
        && !doc::same(
            doc::get(spec, "nodeAffinity"),
            doc::get(before, "nodeAffinity"),
        )
    {
        errors.invalid(
            &Path::new("nodeAffinity"),
            doc::get(spec, "nodeAffinity").clone(),
            "field is immutable, except for updating from beta label to GA",
        );
    }
}

/// A StorageClass.
pub(super) fn class(errors: &mut Errors, document: &Value) {
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
pub(super) fn class_update(errors: &mut Errors, new: &Value, old: &Value) {
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
pub(super) fn attributes_class(errors: &mut Errors, document: &Value, old: Option<&Value>) {
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

/// A CSIDriver; `old` where it replaces one.
pub(super) fn csi_driver(errors: &mut Errors, document: &Value, old: Option<&Value>) {
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
pub(super) fn csi_node(errors: &mut Errors, document: &Value, old: Option<&Value>) {
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
pub(super) fn csi_capacity(errors: &mut Errors, document: &Value, old: Option<&Value>) {
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
pub(super) fn attachment(errors: &mut Errors, document: &Value, old: Option<&Value>) {
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
