//! PersistentVolumes.

use orlop_core::field::Path;
use serde_json::Value;

use super::access_modes;
use crate::doc;
use crate::validation::errors::Errors;
use crate::validation::meta::{self, NameForm};
use crate::validation::pod::{self, diff, scheduling, volumes};
use crate::validation::{names, resources};

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

/// A PersistentVolume.
pub(in crate::validation) fn volume(errors: &mut Errors, document: &Value) {
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
                    pod::mounts::no_backsteps(errors, of, &own.child("path"));
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
pub(in crate::validation) fn volume_update(errors: &mut Errors, new: &Value, old: &Value) {
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
