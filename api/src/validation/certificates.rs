//! Certificate signing requests.

use std::collections::BTreeSet;

use orlop_core::field::Path;
use serde_json::Value;

use super::errors::Errors;
use super::meta::{self, NameForm};
use super::names;
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
