//! Certificate signing requests.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use orlop_core::field::Path;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};

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

/// The signer of requests that named none.
const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

/// A PEM block: its label, whether it has headers, and what is in it.
struct Block {
    label: String,
    headers: bool,
    content: Vec<u8>,
}

/// The first PEM block of a text, and what follows it. `None` where there is none.
fn first_block(text: &str) -> Option<(Block, &str)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, rest) = rest.split_once(&format!("-----END {label}-----"))?;
    let headers = body.contains(':');
    let lines = body.lines().filter(|line| !line.contains(':'));
    let encoded: String = lines.flat_map(str::split_whitespace).collect();
    let block = Block {
        label: label.to_owned(),
        headers,
        content: STANDARD.decode(encoded).ok()?,
    };
    Some((block, rest))
}

fn text_of(encoded: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

/// Whether bytes in base64, as JSON has them, are a PKCS #10 request in PEM.
fn read_request(encoded: &str) -> Result<(), String> {
    let text = text_of(encoded).unwrap_or_default();
    let block = first_block(&text).map(|(block, _)| block);
    let block = block
        .filter(|block| block.label == "CERTIFICATE REQUEST")
        .ok_or("PEM block type must be CERTIFICATE REQUEST")?;
    match X509CertificationRequest::from_der(&block.content) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("asn1: structure error: {error}")),
    }
}

/// Whether bytes in base64, as JSON has them, are certificates in PEM and nothing else.
fn read_certificates(encoded: &str) -> Result<(), &'static str> {
    let text = text_of(encoded).unwrap_or_default();
    let mut rest = text.as_str();
    let mut found = 0;
    while let Some((block, more)) = first_block(rest) {
        if block.label != "CERTIFICATE" {
            return Err("only CERTIFICATE PEM blocks are allowed");
        }
        if block.headers {
            return Err("no PEM block headers are permitted");
        }
        if X509Certificate::from_der(&block.content).is_err() {
            return Err("must be certificates");
        }
        found += 1;
        rest = more;
    }
    if found == 0 {
        return Err("must contain at least one CERTIFICATE PEM block");
    }
    Ok(())
}

/// Bytes in base64 as a message of Kubernetes shows them.
fn as_go_shows_bytes(encoded: &str) -> String {
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("0x{byte:x}")).collect();
    format!("[]byte{{{}}}", bytes.join(", "))
}

/// A CertificateSigningRequest.
pub(super) fn signing_request(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, false, NameForm::PathSegment);
    signing_request_spec(errors, doc::get(document, "spec"));
    conditions(errors, document);
}

fn signing_request_spec(errors: &mut Errors, spec: &Value) {
    let path = Path::new("spec");
    let request = doc::text(spec, "request");
    if let Err(why) = read_request(request) {
        let path = path.child("request");
        errors.invalid(&path, request, why);
        errors.show(as_go_shows_bytes(request));
    }
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
    // Who asked in the first version of the API could leave it to the server; since then nobody can ask for this one.
    if doc::text(spec, "signerName") == LEGACY_UNKNOWN {
        errors.invalid(
            &path.child("signerName"),
            LEGACY_UNKNOWN,
            "the legacy signerName is not allowed via this API version",
        );
    }
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
    let path = Path::new("status").child("certificate");
    if now != was && !was.is_empty() {
        errors.forbidden(
            &path,
            "updates may not change the certificate field once it has been set",
        );
    } else if now != was
        && let Err(why) = read_certificates(&now)
    {
        errors.invalid(&path, "<certificate data>", why);
    }
}

#[cfg(test)]
mod tests {
    use orlop_core::field::FieldError;
    use serde_json::json;

    use super::*;

    /// `openssl req -new -newkey ec -subj /O=system:nodes/CN=system:node:n1`.
    const REQUEST: &str = "-----BEGIN CERTIFICATE REQUEST-----\n\
MIHrMIGSAgEAMDAxFTATBgNVBAoMDHN5c3RlbTpub2RlczEXMBUGA1UEAwwOc3lz\n\
dGVtOm5vZGU6bjEwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQ3R4XiB5S4Fa2z\n\
bPYzJIcRkzz46yoM+e26NUwD4aZfAKdMmZ2AYVljkIX5jChPohMFyrbiCToMsN/B\n\
AQJggBk6oAAwCgYIKoZIzj0EAwIDSAAwRQIgZ8zLAOsptJGFy2BrkzPLDWGZQ9za\n\
UDxc7tO/RBjFopQCIQDO/KsVgfm+B6/qesHIE9ELmeVNmFE1MVGLdv246gG3qg==\n\
-----END CERTIFICATE REQUEST-----\n\
";
    /// A certificate for it.
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n\
MIIBWjCCAQECFCvOXbAb3zf5cKgwrIIf+n+GieegMAoGCCqGSM49BAMCMDAxFTAT\n\
BgNVBAoMDHN5c3RlbTpub2RlczEXMBUGA1UEAwwOc3lzdGVtOm5vZGU6bjEwHhcN\n\
MjYxMTIzMTkzNzE1WhcNMzYxMTIwMTkzNzE1WjAwMRUwEwYDVQQKDAxzeXN0ZW06\n\
bm9kZXMxFzAVBgNVBAMMDnN5c3RlbTpub2RlOm4xMFkwEwYHKoZIzj0CAQYIKoZI\n\
zj0DAQcDQgAEN0eF4geUuBWts2z2MySHEZM8+OsqDPntujVMA+GmXwCnTJmdgGFZ\n\
Y5CF+YwoT6ITBcq24gk6DLDfwQECYIAZOjAKBggqhkjOPQQDAgNHADBEAiANO2Ys\n\
3n/XvWxKNpUTCfLKPy+k5mdwfcRIrdnNHL3UOAIgExfQVRMtwDYBmady/LuD8KYI\n\
+lQOZSju5txR/rDiAqs=\n\
-----END CERTIFICATE-----\n\
";

    fn encoded(text: &str) -> String {
        STANDARD.encode(text)
    }

    fn complaints(change: impl Fn(&mut Value)) -> Vec<String> {
        let mut request = json!({
            "metadata": {"name": "r"},
            "spec": {"request": encoded(REQUEST), "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]},
        });
        change(&mut request);
        let mut errors = Errors::new();
        signing_request(&mut errors, &request);
        errors.0.iter().map(FieldError::message).collect()
    }

    #[test]
    fn a_request_must_be_one() {
        assert_eq!(complaints(|_| ()), [""; 0]);
        for (request, why) in [
            (
                encoded("hi"),
                "Invalid value: []byte{0x68, 0x69}: PEM block type must be CERTIFICATE REQUEST",
            ),
            (
                String::new(),
                "Invalid value: []byte{}: PEM block type must be CERTIFICATE REQUEST",
            ),
        ] {
            assert_eq!(
                complaints(|r| r["spec"]["request"] = request.clone().into()),
                [why]
            );
        }
        let cut = "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n";
        let found = complaints(|r| r["spec"]["request"] = encoded(cut).into());
        assert!(found[0].contains("asn1: structure error"), "{found:?}");
        let found = complaints(|r| r["spec"]["signerName"] = LEGACY_UNKNOWN.into());
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("the legacy signerName is not allowed via this API version"));
    }

    #[test]
    fn a_certificate_must_be_one() {
        assert_eq!(read_certificates(&encoded(CERTIFICATE)), Ok(()));
        assert_eq!(read_certificates(&encoded(&CERTIFICATE.repeat(2))), Ok(()));
        for (text, why) in [
            ("", "must contain at least one CERTIFICATE PEM block"),
            (REQUEST, "only CERTIFICATE PEM blocks are allowed"),
            (
                "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
                "must be certificates",
            ),
            (
                &CERTIFICATE.replacen('\n', "\nA: b\n", 1),
                "no PEM block headers are permitted",
            ),
        ] {
            assert_eq!(read_certificates(&encoded(text)), Err(why), "{text}");
        }
    }
}
