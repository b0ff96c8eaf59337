//! Environment variables and where their values come from; the downward API's fields.

use orlop_core::field::Path;
use orlop_core::quantity::Quantity;
use serde_json::Value;

use super::Scope;
use super::mounts::local_path;
use crate::doc;
use crate::validation::errors::Errors;
use crate::validation::{names, resources};

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// The fields of a pod that a volume may show.
pub(super) const VOLUME_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// `env`.
pub(super) fn env(errors: &mut Errors, container: &Value, scope: &Scope<'_>, path: &Path) {
    for (i, variable) in doc::list(container, "env").iter().enumerate() {
        let path = path.index(i);
        let name = doc::text(variable, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.all_invalid(&path.child("name"), name, names::env_var_name(name));
        }
        value_from(errors, variable, scope, &path.child("valueFrom"));
    }
}

fn value_from(errors: &mut Errors, variable: &Value, scope: &Scope<'_>, path: &Path) {
    let from = doc::get(variable, "valueFrom");
    if from.is_null() {
        return;
    }
    let sources = [
        "fieldRef",
        "resourceFieldRef",
        "configMapKeyRef",
        "secretKeyRef",
        "fileKeyRef",
    ]
    .iter()
    .filter(|key| doc::has(from, key))
    .count();
    if let Some(source) = present(from, "fieldRef") {
        field_ref(errors, source, ENV_FIELDS, &path.child("fieldRef"));
    }
    if let Some(source) = present(from, "resourceFieldRef") {
        resource_ref(errors, source, false, &path.child("resourceFieldRef"));
    }
    for key in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(source) = present(from, key) {
            let path = path.child(key);
            let name = doc::text(source, "name");
            errors.all_invalid(&path.child("name"), name, names::dns_subdomain(name));
            let of = doc::text(source, "key");
            if of.is_empty() {
                errors.required(&path.child("key"), "");
            } else {
                errors.all_invalid(&path.child("key"), of, names::config_map_key(of));
            }
        }
    }
    if let Some(source) = present(from, "fileKeyRef") {
        file_ref(errors, source, scope, &path.child("fileKeyRef"));
    }
    if sources == 0 {
        errors.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        );
    } else if !doc::text(variable, "value").is_empty() {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        errors.invalid(
            path,
            "",
            "may not have more than one field specified at a time",
        );
    }
}

fn present<'a>(of: &'a Value, key: &str) -> Option<&'a Value> {
    Some(doc::get(of, key)).filter(|value| !value.is_null())
}

/// A variable read from a file that an init container wrote to an `emptyDir`.
fn file_ref(errors: &mut Errors, source: &Value, scope: &Scope<'_>, path: &Path) {
    let key = doc::text(source, "key");
    if key.is_empty() {
        errors.required(&path.child("key"), "");
    } else {
        errors.all_invalid(&path.child("key"), key, names::env_var_name(key));
    }
    let volume = doc::text(source, "volumeName");
    if volume.is_empty() {
        errors.required(&path.child("volumeName"), "");
    } else if !scope.volumes.contains_key(volume) {
        errors.not_found(&path.child("volumeName"), volume);
    }
    let file = doc::text(source, "path");
    if file.is_empty() {
        errors.required(&path.child("path"), "");
    } else {
        local_path(errors, file, &path.child("path"));
    }
}

/// A field of the pod itself.
pub(super) fn field_ref(errors: &mut Errors, source: &Value, fields: &[&str], path: &Path) {
    let version = doc::text(source, "apiVersion");
    let field = doc::text(source, "fieldPath");
    for key in ["apiVersion", "fieldPath"] {
        if doc::text(source, key).is_empty() {
            errors.required(&path.child(key), "");
            return;
        }
    }
    if version != "v1" {
        errors.invalid(
            &path.child("fieldPath"),
            field,
            format!("error converting fieldPath: unsupported pod version: {version}"),
        );
        return;
    }
    let subscripted = field
        .strip_suffix("']")
        .and_then(|field| field.split_once("['"));
    let whole = subscripted.map_or(field, |(whole, _)| whole);
    let known = fields.contains(&whole)
        || ENV_FIELDS.contains(&whole)
        || VOLUME_FIELDS.contains(&whole)
        || matches!(
            whole,
            "spec.restartPolicy" | "spec.schedulerName" | "status.phase" | "spec.host"
        );
    if !known
        || (subscripted.is_some() && !matches!(whole, "metadata.annotations" | "metadata.labels"))
    {
        errors.invalid(
            &path.child("fieldPath"),
            field,
            format!("error converting fieldPath: field label not supported: {field}"),
        );
        return;
    }
    match subscripted {
        Some(("metadata.annotations", key)) => {
            errors.all_invalid(
                path,
                &key.to_lowercase(),
                names::qualified_name(&key.to_lowercase()),
            );
        }
        Some((_, key)) => errors.all_invalid(path, key, names::qualified_name(key)),
        None => {
            let whole = if whole == "spec.host" {
                "spec.nodeName"
            } else {
                whole
            };
            if !fields.contains(&whole) {
                errors.not_supported(&path.child("fieldPath"), whole, fields);
            }
        }
    }
}

/// A resource of a container.
pub(super) fn resource_ref(errors: &mut Errors, source: &Value, volume: bool, path: &Path) {
    let resource = doc::text(source, "resource");
    let huge_pages =
        resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if volume && doc::text(source, "containerName").is_empty() {
        errors.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !RESOURCES.contains(&resource) && !huge_pages {
        errors.not_supported(&path.child("resource"), resource, RESOURCES);
    }
    let Some(divisor) = resources::quantity(doc::get(source, "divisor"))
        .filter(|divisor| *divisor != Quantity::ZERO)
    else {
        return;
    };
    const BYTES: &str = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";
    let (fits, words) = match resource {
        "limits.cpu" | "requests.cpu" => (
            matches!(divisor.to_string().as_str(), "1m" | "1"),
            "1m and 1 are supported with the cpu",
        ),
        _ => {
            let what = match resource {
                "limits.memory" | "requests.memory" => "memory",
                "limits.ephemeral-storage" | "requests.ephemeral-storage" => {
                    "local ephemeral storage"
                }
                _ if huge_pages => "hugepages",
                _ => return,
            };
            (
                BYTES.split(", ").any(|unit| unit == divisor.to_string()),
                what,
            )
        }
    };
    if !fits {
        let detail = if words.contains("cpu") {
            format!("only divisor's values {words} resource")
        } else {
            format!("only divisor's values {BYTES} are supported with the {words} resource")
        };
        errors.invalid(&path.child("divisor"), resource, detail);
    }
}

/// `envFrom`.
pub(super) fn env_from(errors: &mut Errors, container: &Value, path: &Path) {
    for (i, source) in doc::list(container, "envFrom").iter().enumerate() {
        let item = path.index(i);
        let prefix = doc::text(source, "prefix");
        if !prefix.is_empty() {
            errors.all_invalid(&item.child("prefix"), prefix, names::env_var_name(prefix));
        }
        let mut sources = 0;
        for key in ["configMapRef", "secretRef"] {
            if let Some(reference) = present(source, key) {
                sources += 1;
                let name = doc::text(reference, "name");
                let path = item.child(key).child("name");
                if name.is_empty() {
                    errors.required(&path, "");
                } else {
                    let plain = name
                        .strip_suffix('-')
                        .map_or_else(|| name.to_owned(), |name| format!("{name}a"));
                    errors.all_invalid(&path, name, names::dns_subdomain(&plain));
                }
            }
        }
        if sources == 0 {
            errors.invalid(
                path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            );
        } else if sources > 1 {
            errors.invalid(
                path,
                "",
                "may not have more than one field specified at a time",
            );
        }
    }
}
