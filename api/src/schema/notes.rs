//! The extensions of Kubernetes' OpenAPI that `k8s-openapi`'s schemas lack, read from the crate's data.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// What is written into a definition: on itself, and on each of its properties.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) own: Map<String, Value>,
    pub(super) fields: BTreeMap<&'static str, Map<String, Value>>,
}

/// All notes, by full definition name.
pub(super) fn read() -> BTreeMap<String, Notes> {
    let mut all = BTreeMap::<String, Notes>::new();
    merge_keys(include_str!("../../data/merge-keys.txt"), &mut all);
    defaults(include_str!("../../data/defaults.txt"), &mut all);
    all
}

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
}

fn full(name: &str) -> String {
    format!("io.k8s.{name}")
}

fn merge_keys(text: &'static str, all: &mut BTreeMap<String, Notes>) {
    let mut definition = String::new();
    for line in lines(text) {
        let mut words = line.split_whitespace();
        let Some(name) = words.next() else { continue };
        let notes = if line.starts_with(' ') {
            all.entry(definition.clone())
                .or_default()
                .fields
                .entry(name)
                .or_default()
        } else {
            definition = full(name);
            &mut all.entry(definition.clone()).or_default().own
        };
        let mut strategies = Vec::new();
        for word in words {
            let (word, argument) = match word.strip_suffix(')').and_then(|w| w.split_once('(')) {
                Some((word, argument)) => (word, Some(argument)),
                None => (word, None),
            };
            match (word, argument) {
                ("unit", _) => {
                    notes.insert("x-kubernetes-map-type".into(), json!("atomic"));
                }
                ("granular", _) => {
                    notes.insert("x-kubernetes-map-type".into(), json!("granular"));
                }
                ("map", Some(keys)) => {
                    let keys: Vec<_> = keys.split(',').collect();
                    notes.insert("x-kubernetes-list-type".into(), json!("map"));
                    notes.insert("x-kubernetes-list-map-keys".into(), json!(keys));
                }
                ("atomic" | "set", _) => {
                    notes.insert("x-kubernetes-list-type".into(), json!(word));
                }
                (strategy, key) => {
                    strategies.push(strategy);
                    if let Some(key) = key {
                        notes.insert("x-kubernetes-patch-merge-key".into(), json!(key));
                    }
                }
            }
        }
        if !strategies.is_empty() {
            notes.insert(
                "x-kubernetes-patch-strategy".into(),
                json!(strategies.join(",")),
            );
        }
    }
}

fn defaults(text: &'static str, all: &mut BTreeMap<String, Notes>) {
    for line in lines(text) {
        let mut words = line.splitn(3, ' ');
        if let (Some(name), Some(field), Some(value)) = (words.next(), words.next(), words.next())
            && let Ok(value) = serde_json::from_str::<Value>(value)
        {
            let notes = all.entry(full(name)).or_default();
            notes
                .fields
                .entry(field)
                .or_default()
                .insert("default".into(), value);
        }
    }
}
