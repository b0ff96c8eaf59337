//! Rows of volumes, drivers and devices.

use serde_json::Value;

use super::cells::{Context, NONE, UNSET, join, quantity};
use crate::doc;

fn phase(cx: &Context<'_>) -> Value {
    if cx.is_deleted() {
        "Terminating"
    } else {
        cx.text(&["status", "phase"])
    }
    .into()
}

/// The access modes by their short names, in a fixed order and without doubles.
fn access_modes(modes: &Value) -> String {
    const NAMES: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |mode: &str| {
        modes
            .as_array()
            .is_some_and(|modes| modes.iter().any(|m| m == mode))
    };
    join(
        NAMES
            .iter()
            .filter(|(mode, _)| has(mode))
            .map(|(_, short)| short),
    )
}

/// The storage class of a volume or a claim, from the annotation that it was before it became a field, or the field.
fn storage_class<'a>(cx: &Context<'a>) -> &'a str {
    let annotation = doc::annotation(cx.object, "volume.beta.kubernetes.io/storage-class");
    annotation.unwrap_or_else(|| cx.text(&["spec", "storageClassName"]))
}

fn or_unset<'a>(cx: &Context<'a>, field: &str) -> &'a str {
    cx.at(&["spec", field]).as_str().unwrap_or(UNSET)
}

pub(super) fn volume(cx: &Context<'_>) -> Vec<Value> {
    let claim = cx.at(&["spec", "claimRef"]);
    let claim = if claim.is_null() {
        String::new()
    } else {
        format!(
            "{}/{}",
            doc::text(claim, "namespace"),
            doc::text(claim, "name")
        )
    };
    vec![
        cx.name(),
        quantity(cx.at(&["spec", "capacity", "storage"])).into(),
        access_modes(cx.at(&["spec", "accessModes"])).into(),
        cx.text(&["spec", "persistentVolumeReclaimPolicy"]).into(),
        phase(cx),
        claim.into(),
        storage_class(cx).into(),
        or_unset(cx, "volumeAttributesClassName").into(),
        cx.text(&["status", "reason"]).into(),
        cx.age(),
        or_unset(cx, "volumeMode").into(),
    ]
}

pub(super) fn claim(cx: &Context<'_>) -> Vec<Value> {
    let volume = cx.text(&["spec", "volumeName"]);
    // Until it is bound, what it has is not what it asks for.
    let (capacity, modes) = if volume.is_empty() {
        (String::new(), String::new())
    } else {
        (
            quantity(cx.at(&["status", "capacity", "storage"])),
            access_modes(cx.at(&["status", "accessModes"])),
        )
    };
    vec![
        cx.name(),
        phase(cx),
        volume.into(),
        capacity.into(),
        modes.into(),
        storage_class(cx).into(),
        or_unset(cx, "volumeAttributesClassName").into(),
        cx.age(),
        or_unset(cx, "volumeMode").into(),
    ]
}

/// The name, and whether the class is the default one.
fn class_name(cx: &Context<'_>, annotations: &[&str]) -> Value {
    let name = cx.text(&["metadata", "name"]);
    let is_default = annotations
        .iter()
        .any(|key| doc::annotation(cx.object, key) == Some("true"));
    if is_default {
        format!("{name} (default)").into()
    } else {
        name.into()
    }
}

pub(super) fn class(cx: &Context<'_>) -> Vec<Value> {
    const DEFAULT: &[&str] = &[
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ];
    vec![
        class_name(cx, DEFAULT),
        cx.text(&["provisioner"]).into(),
        cx.text_or(&["reclaimPolicy"], "Delete").into(),
        cx.text_or(&["volumeBindingMode"], "Immediate").into(),
        doc::flag(cx.object, "allowVolumeExpansion").into(),
        cx.age(),
    ]
}

pub(super) fn attributes_class(cx: &Context<'_>) -> Vec<Value> {
    const DEFAULT: &[&str] = &["volumeattributesclass.alpha.kubernetes.io/is-default-class"];
    vec![
        class_name(cx, DEFAULT),
        cx.text(&["driverName"]).into(),
        cx.age(),
    ]
}

pub(super) fn attachment(cx: &Context<'_>) -> Vec<Value> {
    vec![
        cx.name(),
        cx.text(&["spec", "attacher"]).into(),
        cx.text(&["spec", "source", "persistentVolumeName"]).into(),
        cx.text(&["spec", "nodeName"]).into(),
        doc::flag(cx.at(&["status"]), "attached").into(),
        cx.age(),
    ]
}

pub(super) fn csi_node(cx: &Context<'_>) -> Vec<Value> {
    vec![
        cx.name(),
        doc::list(cx.at(&["spec"]), "drivers").len().into(),
        cx.age(),
    ]
}

pub(super) fn csi_driver(cx: &Context<'_>) -> Vec<Value> {
    let spec = cx.at(&["spec"]);
    let flag =
        |field, otherwise: bool| Value::from(doc::opt_flag(spec, field).unwrap_or(otherwise));
    let tokens = if doc::has(spec, "tokenRequests") {
        join(
            doc::list(spec, "tokenRequests")
                .iter()
                .map(|request| doc::text(request, "audience")),
        )
    } else {
        UNSET.to_owned()
    };
    let modes = join(doc::texts(spec, "volumeLifecycleModes"));
    vec![
        cx.name(),
        flag("attachRequired", true),
        flag("podInfoOnMount", false),
        flag("storageCapacity", false),
        tokens.into(),
        flag("requiresRepublish", false),
        if modes.is_empty() {
            NONE.into()
        } else {
            modes.into()
        },
        cx.age(),
    ]
}

pub(super) fn csi_capacity(cx: &Context<'_>) -> Vec<Value> {
    let capacity = cx.at(&["capacity"]);
    let capacity = if capacity.is_null() {
        UNSET.to_owned()
    } else {
        quantity(capacity)
    };
    vec![
        cx.name(),
        cx.text(&["storageClassName"]).into(),
        capacity.into(),
    ]
}

pub(super) fn resource_claim(cx: &Context<'_>) -> Vec<Value> {
    let allocated = !cx.at(&["status", "allocation"]).is_null();
    let reserved = !doc::list(cx.at(&["status"]), "reservedFor").is_empty();
    let states = [
        ("deleted", cx.is_deleted()),
        ("pending", !allocated && !cx.is_deleted()),
        ("allocated", allocated),
        ("reserved", allocated && reserved),
    ];
    let state = join(
        states
            .iter()
            .filter(|(_, holds)| *holds)
            .map(|(state, _)| state),
    );
    vec![cx.name(), state.into(), cx.age()]
}

pub(super) fn resource_slice(cx: &Context<'_>) -> Vec<Value> {
    // A slice for several nodes names none, and Kubernetes shows it as null.
    let node = cx.at(&["spec", "nodeName"]).clone();
    vec![
        cx.name(),
        node,
        cx.text(&["spec", "driver"]).into(),
        cx.text(&["spec", "pool", "name"]).into(),
        cx.age(),
    ]
}
