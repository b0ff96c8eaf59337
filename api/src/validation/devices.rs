//! Claims on devices.

use std::collections::BTreeSet;

use orlop_core::field::Path;
use serde_json::Value;

use super::errors::Errors;
use super::names;
use crate::doc;

/// A ResourceClaim, or the claim in a template, at its path.
pub(super) fn device_claim(errors: &mut Errors, spec: &Value, path: &Path) {
    let devices = doc::get(spec, "devices");
    let path = path.child("devices");
    let requests = doc::list(devices, "requests");
    if requests.len() > 32 {
        errors.too_many(&path.child("requests"), requests.len(), 32);
    }
    let mut seen = BTreeSet::new();
    for (i, request) in requests.iter().enumerate() {
        let path = path.child("requests").index(i);
        let name = doc::text(request, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.all_invalid(&path.child("name"), name, names::dns_label(name));
        }
        if !seen.insert(name) {
            errors.duplicate(&path, name);
        }
        let exactly = doc::get(request, "exactly");
        let alternatives = doc::list(request, "firstAvailable");
        match (exactly.is_null(), alternatives.is_empty()) {
            (true, true) => {
                errors.required(&path, "exactly one of `exactly` or `firstAvailable` is required");
            }
            (false, false) => errors.invalid(
                &path,
                Value::Null,
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
            ),
            _ => {}
        }
        if !exactly.is_null() {
            device_request(errors, exactly, &path.child("exactly"));
        }
        for (i, request) in alternatives.iter().enumerate() {
            device_request(errors, request, &path.child("firstAvailable").index(i));
        }
    }
}

fn device_request(errors: &mut Errors, request: &Value, path: &Path) {
    let class = doc::text(request, "deviceClassName");
    if class.is_empty() {
        errors.required(&path.child("deviceClassName"), "");
    } else {
        errors.all_invalid(
            &path.child("deviceClassName"),
            class,
            names::dns_subdomain(class),
        );
    }
    let count = doc::int(request, "count").unwrap_or_default();
    match doc::text(request, "allocationMode") {
        "All" => {
            if count != 0 {
                errors.invalid(
                    &path.child("count"),
                    count,
                    "must not be specified when allocationMode is 'All'",
                );
            }
        }
        "ExactCount" => {
            if count <= 0 {
                errors.invalid(&path.child("count"), count, "must be greater than zero");
            }
        }
        other => errors.not_supported(&path.child("allocationMode"), other, &["All", "ExactCount"]),
    }
}
