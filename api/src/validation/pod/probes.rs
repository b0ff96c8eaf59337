//! Probes and lifecycle hooks.

use orlop_core::field::Path;
use serde_json::Value;

use crate::doc;
use crate::validation::errors::Errors;
use crate::validation::names;

/// The probe under `key`, where there is one.
pub(super) fn probe(errors: &mut Errors, container: &Value, key: &str, path: &Path) {
    let probe = doc::get(container, key);
    if probe.is_null() {
        return;
    }
    let path = path.child(key);
    handler(
        errors,
        probe,
        None,
        &["exec", "httpGet", "tcpSocket", "grpc"],
        &path,
    );
    for key in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        errors.nonnegative(probe, key, &path);
    }
    let grace = doc::int(probe, "terminationGracePeriodSeconds");
    if let Some(grace) = grace.filter(|grace| *grace <= 0) {
        errors.invalid(
            &path.child("terminationGracePeriodSeconds"),
            grace,
            "must be greater than 0",
        );
    }
    if key == "readinessProbe" {
        if let Some(grace) = grace {
            errors.invalid(
                &path.child("terminationGracePeriodSeconds"),
                grace,
                "must not be set for readinessProbes",
            );
        }
    } else {
        let threshold = doc::int(probe, "successThreshold").unwrap_or_default();
        if threshold != 1 {
            errors.invalid(&path.child("successThreshold"), threshold, "must be 1");
        }
    }
}

/// `postStart` or `preStop`.
pub(super) fn hook(errors: &mut Errors, hook: &Value, grace: Option<i64>, path: &Path) {
    handler(
        errors,
        hook,
        grace,
        &["exec", "httpGet", "tcpSocket", "sleep"],
        path,
    );
}

fn handler(errors: &mut Errors, of: &Value, grace: Option<i64>, kinds: &[&str], path: &Path) {
    let mut found = false;
    for kind in kinds.iter().filter(|kind| doc::has(of, kind)) {
        let path = path.child(kind);
        let action = doc::get(of, kind);
        if found {
            errors.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match *kind {
            "exec" => {
                if doc::list(action, "command").is_empty() {
                    errors.required(&path.child("command"), "");
                }
            }
            "httpGet" => {
                errors.need_text(action, "path", &path);
                port(errors, doc::get(action, "port"), &path.child("port"));
                let scheme = doc::text(action, "scheme");
                if !matches!(scheme, "HTTP" | "HTTPS") {
                    errors.not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]);
                }
                for header in doc::list(action, "httpHeaders") {
                    let name = doc::text(header, "name");
                    errors.all_invalid(&path.child("httpHeaders"), name, names::http_header(name));
                }
            }
            "tcpSocket" | "grpc" => port(errors, doc::get(action, "port"), &path.child("port")),
            _ => {
                let seconds = doc::int(action, "seconds").unwrap_or_default();
                if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
                    errors.invalid(
                        &path,
                        seconds,
                        format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"),
                    );
                }
            }
        }
    }
    if !found {
        errors.required(path, "must specify a handler type");
    }
}

/// A port by number or by name.
pub(crate) fn port(errors: &mut Errors, port: &Value, path: &Path) {
    match port {
        Value::String(name) => errors.all_invalid(path, name, names::port_name(name)),
        other => {
            let number = other.as_i64().unwrap_or_default();
            for complaint in names::port_number(number) {
                errors.invalid(path, number, complaint);
            }
        }
    }
}
