//! Volume mounts and block devices in a container, and the paths that may stand in them.

use std::collections::BTreeSet;

use orlop_core::field::Path;
use serde_json::Value;

use super::Scope;
use crate::doc;
use crate::validation::errors::Errors;

/// `volumeMounts`.
pub(super) fn mounts(errors: &mut Errors, container: &Value, scope: &Scope<'_>, path: &Path) {
    let devices = doc::list(container, "volumeDevices");
    let mut seen = BTreeSet::new();
    for (i, mount) in doc::list(container, "volumeMounts").iter().enumerate() {
        let item = path.index(i);
        let name = doc::text(mount, "name");
        let mount_path = doc::text(mount, "mountPath");
        let volume = scope.volumes.get(name);
        errors.need_text(mount, "name", &item);
        if volume.is_none() {
            errors.not_found(&item.child("name"), name);
        }
        errors.need_text(mount, "mountPath", &item);
        if !seen.insert(mount_path) {
            errors.invalid(&item.child("mountPath"), mount_path, "must be unique");
        }
        if devices
            .iter()
            .any(|device| doc::text(device, "name") == name)
        {
            errors.invalid(
                &item.child("name"),
                name,
                "must not already exist in volumeDevices",
            );
        }
        if devices
            .iter()
            .any(|device| doc::text(device, "devicePath") == mount_path)
        {
            errors.invalid(
                &item.child("mountPath"),
                mount_path,
                "must not already exist as a path in volumeDevices",
            );
        }
        let sub_path = doc::text(mount, "subPath");
        let sub_path_expr = doc::text(mount, "subPathExpr");
        if !sub_path.is_empty() {
            descending_path(errors, sub_path, &path.child("subPath"));
        }
        if !sub_path_expr.is_empty() {
            if !sub_path.is_empty() {
                errors.invalid(
                    &item.child("subPathExpr"),
                    sub_path_expr,
                    "subPathExpr and subPath are mutually exclusive",
                );
            }
            descending_path(errors, sub_path_expr, &path.child("subPathExpr"));
        }
        propagation(errors, mount, container, path);
        recursive_read_only(errors, mount, path);
    }
}

fn propagation(errors: &mut Errors, mount: &Value, container: &Value, path: &Path) {
    errors.if_set_one_of(
        mount,
        "mountPropagation",
        path,
        &["Bidirectional", "HostToContainer", "None"],
    );
    let privileged = doc::flag(doc::get(container, "securityContext"), "privileged");
    if doc::text(mount, "mountPropagation") == "Bidirectional" && !privileged {
        errors.forbidden(
            &path.child("mountPropagation"),
            "Bidirectional mount propagation is available only to privileged containers",
        );
    }
}

fn recursive_read_only(errors: &mut Errors, mount: &Value, path: &Path) {
    errors.if_set_one_of(
        mount,
        "recursiveReadOnly",
        path,
        &["Disabled", "Enabled", "IfPossible"],
    );
    if matches!(
        doc::text(mount, "recursiveReadOnly"),
        "Enabled" | "IfPossible"
    ) {
        let path = path.child("recursiveReadOnly");
        if !doc::flag(mount, "readOnly") {
            errors.forbidden(&path, "may only be specified when readOnly is true");
        }
        if doc::opt_text(mount, "mountPropagation").is_some_and(|mode| mode != "None") {
            errors.forbidden(
                &path,
                "may only be specified when mountPropagation is None or not specified",
            );
        }
    }
}

/// `volumeDevices`.
pub(super) fn devices(errors: &mut Errors, container: &Value, scope: &Scope<'_>, path: &Path) {
    let mounts = doc::list(container, "volumeMounts");
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (i, device) in doc::list(container, "volumeDevices").iter().enumerate() {
        let item = path.index(i);
        let name = doc::text(device, "name");
        let device_path = doc::text(device, "devicePath");
        errors.need_text(device, "name", &item);
        if names.contains(name) {
            errors.invalid(&item.child("name"), name, "must be unique");
        }
        match scope.volumes.get(name) {
            None => errors.not_found(&item.child("name"), name),
            Some(volume) if !doc::has(volume, "persistentVolumeClaim") && !doc::has(volume, "ephemeral") => errors.invalid(
                &item.child("name"),
                name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            ),
            Some(_) => {}
        }
        errors.need_text(device, "devicePath", &item);
        if paths.contains(device_path) {
            errors.invalid(&item.child("devicePath"), device_path, "must be unique");
        }
        if device_path.split('/').any(|part| part == "..") {
            errors.invalid(
                &item.child("devicePath"),
                device_path,
                "can not contain backsteps ('..')",
            );
        } else {
            paths.insert(device_path);
        }
        if mounts.iter().any(|mount| doc::text(mount, "name") == name) {
            errors.invalid(
                &item.child("name"),
                name,
                "must not already exist in volumeMounts",
            );
        }
        if mounts
            .iter()
            .any(|mount| doc::text(mount, "mountPath") == device_path)
        {
            errors.invalid(
                &item.child("devicePath"),
                device_path,
                "must not already exist as a path in volumeMounts",
            );
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
}

/// No step of the path goes back up.
pub(crate) fn no_backsteps(errors: &mut Errors, text: &str, path: &Path) {
    if text.split('/').any(|part| part == "..") {
        errors.invalid(path, text, "must not contain '..'");
    }
}

/// A relative path that only goes down.
pub(crate) fn descending_path(errors: &mut Errors, text: &str, path: &Path) {
    if text.starts_with('/') {
        errors.invalid(path, text, "must be a relative path");
    }
    no_backsteps(errors, text, path);
}

/// A relative path that only goes down and does not start with the two dots that volume writers keep for themselves.
pub(crate) fn local_path(errors: &mut Errors, text: &str, path: &Path) {
    descending_path(errors, text, path);
    if text.starts_with("..") && !text.starts_with("../") {
        errors.invalid(path, text, "must not start with '..'");
    }
}
