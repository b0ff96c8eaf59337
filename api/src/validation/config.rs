//! ConfigMaps and Secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use orlop_core::field::Path;
use serde_json::Value;

use super::errors::Errors;
use super::meta::{self, NameForm};
use super::names;
use crate::doc;

/// The data of a ConfigMap or a Secret may have this many bytes.
const MAX_DATA: usize = 1024 * 1024;

/// How many bytes a base64 text stands for.
fn decoded_len(text: &str) -> usize {
    STANDARD
        .decode(text)
        .map_or(text.len(), |bytes| bytes.len())
}

/// A ConfigMap.
pub(super) fn config_map(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    let mut size = 0;
    for (key, value) in doc::text_entries(document, "data") {
        let path = Path::new("data").key(key);
        errors.all_invalid(&path, key, names::config_map_key(key));
        if doc::get(document, "binaryData").get(key).is_some() {
            errors.invalid(&path, key, "duplicate of key present in binaryData");
        }
        size += value.len();
    }
    for (key, value) in doc::text_entries(document, "binaryData") {
        errors.all_invalid(
            &Path::new("binaryData").key(key),
            key,
            names::config_map_key(key),
        );
        size += decoded_len(value);
    }
    if size > MAX_DATA {
        // Kubernetes shows the whole object as an empty subscript.
        errors.too_long(&Path::root().key(""), MAX_DATA);
    }
}

/// What an immutable object keeps.
fn immutable(errors: &mut Errors, new: &Value, old: &Value, keys: &[&str]) {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    if !doc::flag(old, "immutable") {
        return;
    }
    if !doc::flag(new, "immutable") {
        errors.forbidden(&Path::new("immutable"), DETAIL);
    }
    for key in keys {
        let (new, old) = (doc::get(new, key), doc::get(old, key));
        if new != old && !(doc::is_empty(new) && doc::is_empty(old)) {
            errors.forbidden(&Path::new(key), DETAIL);
        }
    }
}

/// A ConfigMap that replaces an older one.
pub(super) fn config_map_update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    immutable(errors, new, old, &["data", "binaryData"]);
    config_map(errors, new);
}

/// A Secret.
pub(super) fn secret(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    let path = Path::new("data");
    let data = doc::get(document, "data");
    let mut size = 0;
    for (key, value) in doc::text_entries(document, "data") {
        errors.all_invalid(&path.key(key), key, names::config_map_key(key));
        size += decoded_len(value);
    }
    if size > MAX_DATA {
        errors.too_long(&path, MAX_DATA);
    }
    let has = |key: &str| data.get(key).is_some();
    match doc::text(document, "type") {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            if doc::annotation(document, key)
                .unwrap_or_default()
                .is_empty()
            {
                errors.required(&Path::new("metadata").child("annotations").key(key), "");
            }
        }
        "kubernetes.io/dockercfg" => registry(errors, data, ".dockercfg", &path),
        "kubernetes.io/dockerconfigjson" => registry(errors, data, ".dockerconfigjson", &path),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            errors.required(&path.key("username"), "");
            errors.required(&path.key("password"), "");
        }
        "kubernetes.io/ssh-auth" if doc::text(data, "ssh-privatekey").is_empty() => {
            errors.required(&path.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if !has(key) {
                    errors.required(&path.key(key), "");
                }
            }
        }
        _ => {}
    }
}

/// The credentials of an image registry are a JSON object.
fn registry(errors: &mut Errors, data: &Value, key: &str, path: &Path) {
    let path = path.key(key);
    let Some(text) = doc::opt_text(data, key) else {
        errors.required(&path, "");
        return;
    };
    let bytes = STANDARD.decode(text).unwrap_or_default();
    if let Err(complaint) = json_object(&bytes) {
        errors.invalid(&path, "<secret contents redacted>", complaint);
    }
}

/// Whether the bytes are a JSON object, and if not, how upstream's parser says so.
fn json_object(bytes: &[u8]) -> Result<(), String> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(_) | Value::Null) => Ok(()),
        Ok(other) => {
            let kind = match other {
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Bool(_) => "bool",
                _ => "number",
            };
            Err(format!(
                "json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
            ))
        }
        Err(error) if error.is_eof() => Err("unexpected end of JSON input".to_owned()),
        Err(_) => {
            let first = String::from_utf8_lossy(bytes)
                .trim_start()
                .chars()
                .next()
                .unwrap_or(' ');
            Err(format!(
                "invalid character '{first}' looking for beginning of value"
            ))
        }
    }
}

/// A Secret that replaces an older one.
pub(super) fn secret_update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    if doc::text(new, "type") != doc::text(old, "type") {
        errors.invalid(
            &Path::new("type"),
            doc::text(new, "type"),
            "field is immutable",
        );
    }
    immutable(errors, new, old, &["data"]);
    secret(errors, new);
}
