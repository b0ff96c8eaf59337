//! Kinds with little to check: certificate signing requests, token requests, events, flow control and devices.

use std::collections::BTreeSet;

use orlop_core::field::Path;
use serde_json::Value;

use super::errors::Errors;
use super::meta::{self, NameForm};
use super::{labels, names};
use crate::doc;

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// A CertificateSigningRequest.
pub(super) fn signing_request(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, false, NameForm::PathSegment);
    signing_request_spec(errors, doc::get(document, "spec"));
    conditions(errors, document);
}

fn signing_request_spec(errors: &mut Errors, spec: &Value) {
    let path = Path::new("spec");
    errors.need_text(spec, "request", &path);
    if doc::list(spec, "usages").is_empty() {
        errors.required(&path.child("usages"), "");
    }
    let mut seen = BTreeSet::new();
    for (i, usage) in doc::texts(spec, "usages").enumerate() {
        let path = path.child("usages").index(i);
        if !USAGES.contains(&usage) {
            errors.not_supported(&path, usage, USAGES);
        }
        if !seen.insert(usage) {
            errors.duplicate(&path, usage);
        }
    }
    signer_name(
        errors,
        doc::text(spec, "signerName"),
        &path.child("signerName"),
    );
    if let Some(seconds) = doc::int(spec, "expirationSeconds").filter(|seconds| *seconds < 600) {
        errors.invalid(
            &path.child("expirationSeconds"),
            seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
}

/// The name of a signer: a domain and a path.
fn signer_name(errors: &mut Errors, name: &str, path: &Path) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        errors.invalid(
            path,
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
        return;
    };
    errors.all_invalid(path, domain, names::dns_subdomain(domain));
    if !domain.contains('.') {
        errors.invalid(
            path,
            domain,
            "should be a domain with at least two segments separated by dots",
        );
    }
    for part in rest.split('.') {
        errors.all_invalid(path, part, names::dns_label(part));
    }
    if name.len() > 571 {
        errors.too_long(path, 571);
    }
}

fn conditions(errors: &mut Errors, document: &Value) {
    let path = Path::new("status").child("conditions");
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (i, condition) in doc::list(doc::get(document, "status"), "conditions")
        .iter()
        .enumerate()
    {
        let path = path.index(i);
        let kind = doc::text(condition, "type");
        if kind.is_empty() {
            errors.required(&path.child("type"), "");
        }
        match doc::text(condition, "status") {
            "" => errors.required(&path.child("status"), ""),
            "True" => {}
            other if matches!(kind, "Approved" | "Denied" | "Failed") => {
                errors.not_supported(&path.child("status"), other, &["True"]);
            }
            _ => errors.if_set_one_of(condition, "status", &path, &["True", "False", "Unknown"]),
        }
        let against = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if seen.contains(against) {
            errors.invalid(
                &path.child("type"),
                kind,
                "Approved and Denied conditions are mutually exclusive",
            );
        }
        if !seen.insert(kind) {
            errors.duplicate(&path.child("type"), kind);
        }
    }
}

/// A CertificateSigningRequest that replaces an older one: decisions stay.
pub(super) fn signing_request_update(
    errors: &mut Errors,
    new: &Value,
    old: &Value,
    subresource: Option<&str>,
) {
    signing_request(errors, new);
    meta::object_meta_update(errors, new, old);
    let of = |document: &Value, kind: &str| -> Vec<Value> {
        doc::list(doc::get(document, "status"), "conditions")
            .iter()
            .filter(|condition| doc::text(condition, "type") == kind)
            .cloned()
            .collect()
    };
    for kind in ["Approved", "Denied", "Failed"] {
        let path = Path::new("status").child("conditions");
        let (now, was) = (of(new, kind), of(old, kind));
        match (now.is_empty(), was.is_empty()) {
            (true, false) => {
                errors.forbidden(
                    &path,
                    format!("updates may not remove a condition of type \"{kind}\""),
                );
            }
            (false, true) if kind != "Failed" && subresource != Some("approval") => {
                errors.forbidden(
                    &path,
                    format!("updates may not add a condition of type \"{kind}\""),
                );
            }
            (false, false) if now != was => {
                errors.forbidden(
                    &path,
                    format!("updates may not modify a condition of type \"{kind}\""),
                );
            }
            _ => {}
        }
    }
    let certificate =
        |document: &Value| doc::text(doc::get(document, "status"), "certificate").to_owned();
    let (now, was) = (certificate(new), certificate(old));
    if now != was && !was.is_empty() {
        errors.forbidden(
            &Path::new("status").child("certificate"),
            "updates may not change the certificate field once it has been set",
        );
    }
}

/// A TokenRequest.
pub(super) fn token_request(errors: &mut Errors, document: &Value) {
    let seconds = doc::int(doc::get(document, "spec"), "expirationSeconds").unwrap_or_default();
    let path = Path::new("spec").child("expirationSeconds");
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

/// The longest note of an event.
const MAX_NOTE: usize = 1024;

/// An event of the core group.
pub(super) fn event(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    event_namespace(errors, document, "involvedObject");
    let path = Path::root();
    if !doc::has(document, "eventTime") {
        // Clients of the first version of events set none of the newer fields.
        return;
    }
    event_body(
        errors,
        document,
        &path,
        "reportingComponent",
        "reportingInstance",
        "message",
    );
}

/// An event of `events.k8s.io`.
pub(super) fn new_event(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    event_namespace(errors, document, "regarding");
    if !doc::has(document, "eventTime") {
        errors.required(&Path::new("eventTime"), "");
    }
    let kind = doc::text(document, "type");
    if !matches!(kind, "Normal" | "Warning") {
        errors.invalid(&Path::new("type"), "", format!("has invalid value: {kind}"));
    }
    event_body(
        errors,
        document,
        &Path::root(),
        "reportingController",
        "reportingInstance",
        "note",
    );
}

fn event_namespace(errors: &mut Errors, document: &Value, object: &str) {
    let about = doc::text(doc::get(document, object), "namespace");
    let own = doc::text(doc::get(document, "metadata"), "namespace");
    if about.is_empty() {
        if own != "default" && own != "kube-system" {
            errors.invalid(
                &Path::new("involvedObject").child("namespace"),
                about,
                "does not match event.namespace",
            );
        }
    } else if about != own {
        errors.invalid(
            &Path::new("involvedObject").child("namespace"),
            about,
            "does not match event.namespace",
        );
    }
}

fn event_body(
    errors: &mut Errors,
    document: &Value,
    path: &Path,
    controller: &str,
    instance: &str,
    note: &str,
) {
    let name = doc::text(document, controller);
    if name.is_empty() {
        errors.required(&Path::new("reportingController"), "");
    }
    errors.all_invalid(
        &Path::new("reportingController"),
        name,
        names::qualified_name(name),
    );
    for (key, max) in [(instance, 128), ("action", 128), ("reason", 128)] {
        let value = doc::text(document, key);
        if value.is_empty() {
            errors.required(&path.child(key), "");
        }
        if value.len() > max {
            errors.invalid(
                &path.child(key),
                "",
                format!("can have at most {max} characters"),
            );
        }
    }
    if doc::text(document, note).len() > MAX_NOTE {
        errors.invalid(
            &Path::new("message"),
            "",
            format!("can have at most {MAX_NOTE} characters"),
        );
    }
}

/// What an event says doesn't change; only its series grows.
pub(super) fn new_event_update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    for key in [
        "regarding",
        "reason",
        "note",
        "type",
        "deprecatedSource",
        "deprecatedFirstTimestamp",
        "deprecatedLastTimestamp",
        "deprecatedCount",
        "related",
        "action",
        "reportingController",
        "reportingInstance",
        "eventTime",
    ] {
        errors.immutable(doc::get(new, key), doc::get(old, key), &Path::new(key));
    }
}

/// A FlowSchema.
pub(super) fn flow_schema(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, false, NameForm::Subdomain);
    let spec = doc::get(document, "spec");
    let path = Path::new("spec");
    let precedence = doc::int(spec, "matchingPrecedence").unwrap_or_default();
    if precedence <= 0 {
        errors.invalid(
            &path.child("matchingPrecedence"),
            precedence,
            "must be a positive value",
        );
    }
    if precedence > 10_000 {
        errors.invalid(
            &path.child("matchingPrecedence"),
            precedence,
            "must not be greater than 10000",
        );
    }
    let level = doc::text(doc::get(spec, "priorityLevelConfiguration"), "name");
    if level.is_empty() {
        errors.required(
            &path.child("priorityLevelConfiguration").child("name"),
            "must reference a priority level",
        );
    }
    let method = doc::get(spec, "distinguisherMethod");
    if !method.is_null() {
        let kind = doc::text(method, "type");
        if !matches!(kind, "ByNamespace" | "ByUser") {
            errors.not_supported(
                &path.child("distinguisherMethod").child("type"),
                kind,
                &["ByNamespace", "ByUser"],
            );
        }
    }
    for (i, rule) in doc::list(spec, "rules").iter().enumerate() {
        let path = path.child("rules").index(i);
        if doc::list(rule, "subjects").is_empty() {
            errors.required(
                &path.child("subjects"),
                "subjects must contain at least one value",
            );
        }
        if doc::list(rule, "resourceRules").is_empty()
            && doc::list(rule, "nonResourceRules").is_empty()
        {
            errors.required(
                &path,
                "at least one of resourceRules and nonResourceRules has to be non-empty",
            );
        }
        for (i, rule) in doc::list(rule, "resourceRules").iter().enumerate() {
            let path = path.child("resourceRules").index(i);
            for key in ["verbs", "apiGroups", "resources"] {
                if doc::list(rule, key).is_empty() {
                    errors.required(&path.child(key), "");
                }
            }
            if doc::list(rule, "namespaces").is_empty() && !doc::flag(rule, "clusterScope") {
                errors.required(
                    &path.child("namespaces"),
                    "resource rules that are not cluster scoped must supply at least one namespace",
                );
            }
        }
    }
}

/// A PriorityLevelConfiguration.
pub(super) fn priority_level(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, false, NameForm::Subdomain);
    let spec = doc::get(document, "spec");
    let path = Path::new("spec");
    let limited = doc::get(spec, "limited");
    match doc::text(spec, "type") {
        "Exempt" => {
            if !limited.is_null() {
                errors.forbidden(&path.child("limited"), "must be nil if the type is Exempt");
            }
        }
        "Limited" => {
            if doc::has(spec, "exempt") {
                errors.forbidden(&path.child("exempt"), "must be nil if the type is Limited");
            }
            if limited.is_null() {
                errors.required(
                    &path.child("limited"),
                    "must not be empty when type is Limited",
                );
            } else {
                queuing(errors, limited, &path.child("limited"));
            }
        }
        other => errors.not_supported(&path.child("type"), other, &["Exempt", "Limited"]),
    }
}

fn queuing(errors: &mut Errors, limited: &Value, path: &Path) {
    let shares = doc::int(limited, "nominalConcurrencyShares").unwrap_or_default();
    if shares < 0 {
        errors.invalid(
            &path.child("nominalConcurrencyShares"),
            shares,
            "must be a non-negative integer",
        );
    }
    if let Some(share) =
        doc::int(limited, "lendablePercent").filter(|share| !(0..=100).contains(share))
    {
        errors.invalid(
            &path.child("lendablePercent"),
            share,
            "must be between 0 and 100, inclusive",
        );
    }
    let response = doc::get(limited, "limitResponse");
    let queuing = doc::get(response, "queuing");
    let path = path.child("limitResponse");
    match doc::text(response, "type") {
        "Reject" => {
            if !queuing.is_null() {
                errors.forbidden(
                    &path.child("queuing"),
                    "must be nil if limited.limitResponse.type is not Limited",
                );
            }
        }
        "Queue" => {
            if queuing.is_null() {
                errors.required(
                    &path.child("queuing"),
                    "must not be empty if limited.limitResponse.type is Limited",
                );
                return;
            }
            for (key, max) in [
                ("queueLengthLimit", i64::MAX),
                ("queues", 10_000_000),
                ("handSize", i64::MAX),
            ] {
                let value = doc::int(queuing, key).unwrap_or_default();
                let path = path.child("queuing").child(key);
                if value <= 0 {
                    errors.invalid(&path, value, "must be positive");
                } else if value > max {
                    errors.invalid(&path, value, format!("must not be greater than {max}"));
                }
            }
            let of = |key: &str| doc::int(queuing, key).unwrap_or_default();
            if of("handSize") > of("queues") {
                errors.invalid(
                    &path.child("queuing").child("handSize"),
                    of("handSize"),
                    format!("should not be greater than queues ({})", of("queues")),
                );
            }
        }
        other => errors.not_supported(&path.child("type"), other, &["Queue", "Reject"]),
    }
}

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

/// An `Eviction`.
pub(super) fn eviction(errors: &mut Errors, document: &Value) {
    let options = doc::get(document, "deleteOptions");
    if let Some(policy) = doc::opt_text(options, "propagationPolicy")
        && !matches!(policy, "Background" | "Foreground" | "Orphan")
    {
        errors.not_supported(
            &Path::new("deleteOptions").child("propagationPolicy"),
            policy,
            &["Background", "Foreground", "Orphan"],
        );
    }
    labels::labels(
        errors,
        doc::get(document, "metadata"),
        "labels",
        &Path::new("metadata"),
    );
}
