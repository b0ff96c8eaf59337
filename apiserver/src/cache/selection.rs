//! What a list or a watch asks for.

use std::fmt;

use orlop_api::fields;
use orlop_core::object::Object;
use orlop_core::resource::GroupVersionKind;
use orlop_core::selector::{field, label};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::kind::Bucket;

/// Which objects of a kind: a namespace, a name, labels and fields.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// The namespace; empty for all.
    pub(crate) namespace: String,
    /// Labels.
    pub(crate) labels: label::Selector,
    /// Fields.
    pub(crate) fields: field::Selector,
    /// The kind, for its fields.
    pub(crate) kind: Option<GroupVersionKind>,
}

impl Selection {
    /// Everything in a namespace, or everything.
    pub(crate) fn in_namespace(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            ..Self::default()
        }
    }

    /// Whether there is nothing but perhaps a namespace.
    pub(crate) fn has_no_selectors(&self) -> bool {
        self.labels.requirements().is_empty() && self.fields.terms().is_empty()
    }

    /// Whether an object that lies in the selection's bucket is chosen.
    pub(crate) fn matches(&self, object: &Object) -> bool {
        if !self.namespace.is_empty() && self.namespace != object.namespace() {
            return false;
        }
        if !self.labels.matches(&object.metadata().labels) {
            return false;
        }
        self.fields
            .terms()
            .iter()
            .all(|term| (self.field(object, &term.field) == term.value) != term.negated)
    }

    fn field(&self, object: &Object, field: &str) -> String {
        match field {
            "metadata.name" => object.name().to_owned(),
            "metadata.namespace" => object.namespace().to_owned(),
            _ => match (&self.kind, object.decode::<Outline>()) {
                (Some(kind), Ok(outline)) => fields::value(kind, &outline.0, field),
                _ => String::new(),
            },
        }
    }

    /// The watchers' bucket that holds all changes which may concern the selection.
    pub(super) fn bucket(&self, namespaced: bool, by_node: bool) -> Bucket {
        if let Some(name) = self.fields.exact("metadata.name") {
            if !namespaced {
                return Bucket::Object(name.to_owned());
            }
            if !self.namespace.is_empty() {
                return Bucket::Object(format!("{}/{name}", self.namespace));
            }
        }
        if by_node
            && let Some(node) = self.fields.exact("spec.nodeName")
            && !node.is_empty()
        {
            return Bucket::Node(node.to_owned());
        }
        if self.namespace.is_empty() {
            Bucket::All
        } else {
            Bucket::Namespace(self.namespace.clone())
        }
    }
}

/// The part of a document in which selectable fields stand: what is plain at the top and one level below it, and the pod's addresses,
/// without metadata, which is known anyhow. What is decoded stays with an object as long as that is cached; whole documents would
/// take several times the memory of the objects themselves.
#[derive(Debug)]
pub(super) struct Outline(pub(super) Value);

/// The one list of which there are selectable fields.
const LIST: &str = "podIPs";

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Part { depth: 2 }.deserialize(deserializer).map(Self)
    }
}

/// A part of a document, down to a depth; what lies deeper is null.
#[derive(Clone, Copy)]
struct Part {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Part {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if self.depth == 0 || key == "metadata" {
                fields.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = if key == LIST {
                fields.next_value()?
            } else {
                fields.next_value_seed(Self {
                    depth: self.depth - 1,
                })?
            };
            if !value.is_null() {
                kept.insert(key, value);
            }
        }
        Ok(Value::Object(kept))
    }
}

#[cfg(test)]
mod tests {
    use orlop_core::object::Object;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_outline_is_enough_for_every_selectable_field() {
        let document = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}},
            "reason": "r", "type": "t", "reportingComponent": "c", "reportingController": "d",
            "involvedObject": {"kind": "k", "namespace": "n", "name": "o", "uid": "u", "apiVersion": "v", "resourceVersion": "1", "fieldPath": "f"},
            "regarding": {"kind": "k", "namespace": "n", "name": "o", "uid": "u", "apiVersion": "v", "resourceVersion": "1", "fieldPath": "f"},
            "source": {"component": "s"},
            "spec": {
                "nodeName": "x", "restartPolicy": "Always", "schedulerName": "s", "serviceAccountName": "a", "hostNetwork": true,
                "unschedulable": true, "clusterIP": "10.0.0.1", "type": "ClusterIP", "signerName": "g", "driver": "d",
                "containers": [{"name": "c"}], "securityContext": {"runAsUser": 1},
            },
            "status": {
                "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                "nominatedNodeName": "y", "replicas": 3, "succeeded": 2,
            },
        });
        let object = Object::from_value(document.clone()).unwrap();
        let outline = object.decode::<Outline>().unwrap();
        assert!(outline.0["spec"].get("containers").is_none());
        let mut seen = 0;
        for info in orlop_api::resources::builtin() {
            let kind = info.resource.gvk();
            for field in fields::names(&kind).filter(|field| !field.starts_with("metadata.")) {
                let whole = fields::value(&kind, &document, field);
                assert!(!whole.is_empty(), "the document has no {field}");
                assert_eq!(
                    fields::value(&kind, &outline.0, field),
                    whole,
                    "{kind:?} {field}"
                );
                seen += 1;
            }
        }
        assert!(seen > 30);
    }
}
