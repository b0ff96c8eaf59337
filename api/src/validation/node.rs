//! Nodes.

use std::collections::BTreeSet;

use orlop_core::field::Path;
use serde_json::Value;

use super::errors::Errors;
use super::meta::{self, NameForm};
use super::pod::scheduling::taint_effect;
use super::{labels, names, resources};
use crate::doc;

/// A node.
pub(super) fn create(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, false, NameForm::Subdomain);
    taints(errors, document);
    capacity(errors, document);
    let spec = doc::get(document, "spec");
    let path = Path::new("spec").child("podCIDRs");
    let ranges: Vec<&str> = doc::texts(spec, "podCIDRs").collect();
    for (i, range) in ranges.iter().enumerate() {
        errors.all_invalid(&path.index(i), range, names::cidr(range));
    }
    if ranges.len() > 1 {
        let v6 = ranges.iter().filter(|range| range.contains(':')).count();
        if ranges.len() > 2 || v6 != 1 {
            errors.invalid(
                &path,
                doc::get(spec, "podCIDRs").clone(),
                "may specify no more than one CIDR for each IP family",
            );
        }
        let mut seen = BTreeSet::new();
        for (i, range) in ranges.iter().enumerate() {
            if !seen.insert(range) {
                errors.duplicate(&path.index(i), *range);
            }
        }
    }
}

fn taints(errors: &mut Errors, document: &Value) {
    let mut seen = BTreeSet::new();
    for (i, taint) in doc::list(doc::get(document, "spec"), "taints")
        .iter()
        .enumerate()
    {
        let path = Path::new("metadata").child("taints").index(i);
        let (key, effect, value) = (
            doc::text(taint, "key"),
            doc::text(taint, "effect"),
            doc::text(taint, "value"),
        );
        labels::label_key(errors, key, &path.child("key"));
        let complaints = names::label_value(value);
        if !complaints.is_empty() {
            errors.invalid(&path.child("value"), value, complaints.join(";"));
        }
        if effect.is_empty() {
            errors.required(&path.child("effect"), "");
        } else {
            taint_effect(errors, effect, &path.child("effect"));
        }
        if !seen.insert((effect, key)) {
            errors.duplicate(&path, taint.clone());
            errors.show(format!(
                "{{\"Key\":{},\"Value\":{},\"Effect\":{},\"TimeAdded\":{}}}",
                orlop_core::field::quote(key),
                orlop_core::field::quote(value),
                orlop_core::field::quote(effect),
                doc::get(taint, "timeAdded")
            ));
            errors.explain("taints must be unique by key and effect pair");
        }
    }
}

fn capacity(errors: &mut Errors, document: &Value) {
    let status = doc::get(document, "status");
    for key in ["capacity", "allocatable"] {
        for (name, value) in doc::entries(status, key) {
            resources::amount(
                errors,
                name,
                value,
                &Path::new("status").child(key).child(name),
            );
        }
    }
}

/// A node, or the status of a node, that replaces an older one.
pub(super) fn update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    capacity(errors, new);
    let addresses = doc::list(doc::get(new, "status"), "addresses");
    for (i, address) in addresses.iter().enumerate() {
        if addresses[..i].contains(address) {
            errors.duplicate(
                &Path::new("status").child("addresses").index(i),
                address.clone(),
            );
            errors.show(format!(
                "{{\"Type\":{},\"Address\":{}}}",
                orlop_core::field::quote(doc::text(address, "type")),
                orlop_core::field::quote(doc::text(address, "address"))
            ));
        }
    }
    let (spec, before) = (doc::get(new, "spec"), doc::get(old, "spec"));
    let path = Path::new("spec");
    const DETAIL: &str = "node updates may not change podCIDR except from \"\" to valid";
    let (now, was): (Vec<&str>, Vec<&str>) = (
        doc::texts(spec, "podCIDRs").collect(),
        doc::texts(before, "podCIDRs").collect(),
    );
    if !was.is_empty() {
        if was.len() != now.len() {
            errors.forbidden(&path.child("podCIDRs"), DETAIL);
        } else {
            for _ in was.iter().zip(&now).filter(|(was, now)| was != now) {
                errors.forbidden(&path.child("podCIDRs"), DETAIL);
            }
        }
    }
    let provider = doc::text(before, "providerID");
    if !provider.is_empty() && provider != doc::text(spec, "providerID") {
        errors.forbidden(
            &path.child("providerID"),
            "node updates may not change providerID except from \"\" to valid",
        );
    }
    config_source(
        errors,
        doc::get(spec, "configSource"),
        &path.child("configSource"),
    );
    taints(errors, new);
    if doc::text(spec, "externalID") != doc::text(before, "externalID") {
        errors.forbidden(&path.child("externalID"), "may not be updated");
    }
}

/// A source of kubelet configuration that is no longer used, but still has to be well formed.
fn config_source(errors: &mut Errors, source: &Value, path: &Path) {
    if source.is_null() {
        return;
    }
    let map = doc::get(source, "configMap");
    if map.is_null() {
        errors.invalid(
            path,
            source.clone(),
            "exactly one reference subfield must be non-nil",
        );
        return;
    }
    let path = path.child("configMap");
    for key in ["uid", "resourceVersion"] {
        if !doc::text(map, key).is_empty() {
            errors.forbidden(&path.child(key), format!("{key} must not be set in spec"));
        }
    }
    for key in ["namespace", "name", "kubeletConfigKey"] {
        let value = doc::text(map, key);
        if value.is_empty() {
            errors.required(&path.child(key), format!("{key} must be set"));
        } else {
            let complaints = match key {
                "namespace" => names::dns_label(value),
                "name" => names::dns_subdomain(value),
                _ => names::config_map_key(value),
            };
            errors.all_invalid(&path.child(key), value, complaints);
        }
    }
}
