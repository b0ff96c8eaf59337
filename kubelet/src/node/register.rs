//! The registration of the node.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeStatus};
use orlop_core::client::Patch;
use serde_json::{Map, Value, json};

use crate::config::KubeletConfig;

/// Says that volumes are attached by a controller, not by the node.
const ATTACH_DETACH: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

/// The labels that the node agent keeps right.
fn own_labels(config: &KubeletConfig, architecture: &str) -> BTreeMap<String, String> {
    let pairs = [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture),
    ];
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// The Node as it is registered.
pub(super) fn initial(config: &KubeletConfig, architecture: &str, status: NodeStatus) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(config.node_name.clone());
    let mut labels = own_labels(config, architecture);
    labels.extend(config.node_labels.clone());
    node.metadata.labels = Some(labels);
    node.metadata.annotations = Some([(ATTACH_DETACH.to_owned(), "true".to_owned())].into());
    let spec = node.spec.get_or_insert_default();
    if !config.provider_id.is_empty() {
        spec.provider_id = Some(config.provider_id.clone());
    }
    if !config.register_with_taints.is_empty() {
        spec.taints = Some(config.register_with_taints.clone());
    }
    node.status = Some(status);
    node
}

/// What has to be changed of a Node that is there already: labels and the annotation of ours, and a provider's id that was missing. Taints
/// are left to the administrator.
pub(super) fn reconcile(node: &Node, config: &KubeletConfig, architecture: &str) -> Option<Patch> {
    let mut labels = own_labels(config, architecture);
    labels.extend(config.node_labels.clone());
    let known = node.metadata.labels.clone().unwrap_or_default();
    labels.retain(|name, value| known.get(name) != Some(value));
    let annotated = node
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(ATTACH_DETACH));
    let mut metadata = Map::new();
    if !labels.is_empty() {
        metadata.insert("labels".to_owned(), json!(labels));
    }
    if annotated.map(String::as_str) != Some("true") {
        metadata.insert("annotations".to_owned(), json!({ATTACH_DETACH: "true"}));
    }
    let mut patch = Map::new();
    if !metadata.is_empty() {
        patch.insert("metadata".to_owned(), Value::Object(metadata));
    }
    let known = node
        .spec
        .as_ref()
        .and_then(|spec| spec.provider_id.as_deref())
        .unwrap_or_default();
    if known.is_empty() && !config.provider_id.is_empty() {
        patch.insert("spec".to_owned(), json!({"providerID": config.provider_id}));
    }
    (!patch.is_empty()).then_some(Patch::Strategic(Value::Object(patch)))
}
