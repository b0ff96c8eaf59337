mod ciphers;
mod configuration;
mod layer;

use serde_json::{Value, json};

use super::EncryptionConfiguration;

/// Keys that count their bytes, so that vectors can be made elsewhere.
fn secret(length: u8, from: u8) -> String {
    use base64::Engine;
    let bytes: Vec<u8> = (0..length).map(|n| n.wrapping_add(from)).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A provider with keys of 32 bytes, by the names and first bytes of its keys.
fn provider(kind: &str, keys: &[(&str, u8)]) -> Value {
    let keys: Vec<Value> = keys
        .iter()
        .map(|(name, from)| json!({"name": name, "secret": secret(32, *from)}))
        .collect();
    json!({kind: {"keys": keys}})
}

fn document(rules: &[(&[&str], &[Value])]) -> Value {
    let rules: Vec<Value> = rules
        .iter()
        .map(|(resources, providers)| json!({"resources": resources, "providers": providers}))
        .collect();
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": rules,
    })
}

fn config(rules: &[(&[&str], &[Value])]) -> EncryptionConfiguration {
    EncryptionConfiguration::from_json(&document(rules)).unwrap()
}
