//! What the pods of each node refer to, kept from one question to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use orlop_core::admission::ObjectReader;
use orlop_core::object::{Object, ObjectKey};
use orlop_core::revision::Revision;
use orlop_core::status::Status;
use parking_lot::Mutex;
use serde_json::Value;

use crate::names::{PODS, text_at};
use crate::pod_references as references;

/// What a pod refers to, in its own namespace.
#[derive(Debug, Default)]
pub(super) struct References {
    pub(super) namespace: String,
    pub(super) secrets: BTreeSet<String>,
    pub(super) config_maps: BTreeSet<String>,
    pub(super) claims: BTreeSet<String>,
    pub(super) resource_claims: BTreeSet<String>,
    pub(super) service_account: String,
}

impl References {
    /// Those of a pod. A mirror pod has none that count: a node makes such pods itself.
    fn of(pod: &Object) -> Self {
        // Decoded for this alone: the documents are not kept.
        let value: Value = serde_json::from_slice(pod.stored_json()).unwrap_or_default();
        if value.is_null() || references::is_mirror(&value) {
            return Self::default();
        }
        let set = |names: &mut dyn Iterator<Item = &str>| names.map(str::to_owned).collect();
        Self {
            namespace: pod.namespace().to_owned(),
            secrets: set(&mut references::secrets(&value)),
            config_maps: set(&mut references::config_maps(&value)),
            claims: references::claims(&value).collect(),
            resource_claims: set(&mut references::resource_claims(&value)),
            service_account: text_at(&value, "/spec/serviceAccountName").to_owned(),
        }
    }
}

type Known = BTreeMap<ObjectKey, (Revision, Arc<References>)>;

/// The references of one node's pods, as of a revision.
#[derive(Debug, Default)]
pub(super) struct NodeReferences {
    as_of: Revision,
    pods: Known,
}

impl NodeReferences {
    /// Whether some pod of a namespace has a reference.
    pub(super) fn any(&self, namespace: &str, has: impl Fn(&References) -> bool) -> bool {
        let mut all = self.pods.values();
        all.any(|(_, pod)| pod.namespace == namespace && has(pod))
    }

    /// The claims of the node's pods, with their namespaces.
    pub(super) fn claims(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pods.values().flat_map(|(_, pod)| {
            let claims = pod.claims.iter();
            claims.map(|claim| (pod.namespace.as_str(), claim.as_str()))
        })
    }
}

/// The references of all nodes' pods. A node's are made when it asks first, and of a pod that has not changed they are kept: a question
/// costs a look at each of the node's pods, whatever there is elsewhere.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: Mutex<BTreeMap<String, Arc<NodeReferences>>>,
}

impl Graph {
    /// What the pods on a node refer to now.
    pub(super) async fn of(
        &self,
        reader: &dyn ObjectReader,
        node: &str,
    ) -> Result<Arc<NodeReferences>, Status> {
        // Read first: what changes meanwhile is looked at the next time.
        let as_of = reader.last_change(&PODS);
        let known = self.nodes.lock().get(node).cloned();
        if let Some(known) = known.as_ref().filter(|known| known.as_of == as_of) {
            return Ok(known.clone());
        }
        let mut pods = Known::new();
        for pod in reader.pods_on(node).await? {
            let (key, revision) = (pod.key(), pod.revision());
            let same = known
                .as_ref()
                .and_then(|known| known.pods.get(&key))
                .filter(|(at, _)| *at == revision);
            let of = match same {
                Some((_, references)) => references.clone(),
                None => Arc::new(References::of(&pod)),
            };
            pods.insert(key, (revision, of));
        }
        let now = Arc::new(NodeReferences { as_of, pods });
        let mut nodes = self.nodes.lock();
        if now.pods.is_empty() {
            // A node that is gone, or was never there, costs nothing.
            nodes.remove(node);
        } else {
            nodes.insert(node.to_owned(), now.clone());
        }
        Ok(now)
    }

    #[cfg(test)]
    pub(super) fn nodes(&self) -> Vec<String> {
        self.nodes.lock().keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use orlop_core::env::SimEnv;
    use serde_json::json;

    use super::*;
    use crate::testing::Objects;

    fn pod(name: &str, node: &str, secret: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "pr"}, "spec": {
            "nodeName": node, "imagePullSecrets": [{"name": secret}],
        }})
    }

    #[test]
    fn what_has_not_changed_is_not_read_again_and_what_is_gone_is_forgotten() {
        let objects = Objects::new([
            (PODS, pod("a", "n", "sa")),
            (PODS, pod("b", "n", "sb")),
            (PODS, pod("c", "m", "sc")),
        ]);
        SimEnv::new(1).block_on(async move {
            let graph = Graph::default();
            let first = graph.of(&*objects, "n").await.unwrap();
            let has = |of: &NodeReferences, secret: &str| {
                of.any("pr", |pod| pod.secrets.contains(secret))
            };
            assert!(has(&first, "sa") && has(&first, "sb") && !has(&first, "sc"));
            let again = graph.of(&*objects, "n").await.unwrap();
            assert!(Arc::ptr_eq(&first, &again));
            objects.put(&PODS, pod("b", "n", "other"));
            let second = graph.of(&*objects, "n").await.unwrap();
            assert!(has(&second, "sa") && has(&second, "other") && !has(&second, "sb"));
            let key = ObjectKey::new("pr", "a");
            assert!(Arc::ptr_eq(&first.pods[&key].1, &second.pods[&key].1));
            objects.remove(&PODS, "pr", "a");
            objects.remove(&PODS, "pr", "b");
            assert!(!has(&graph.of(&*objects, "n").await.unwrap(), "sa"));
            assert!(graph.nodes().is_empty());
        });
    }
}
