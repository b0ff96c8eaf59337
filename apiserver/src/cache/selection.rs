//! What a list or a watch asks for.

use orlop_api::fields;
use orlop_core::object::Object;
use orlop_core::resource::GroupVersionKind;
use orlop_core::selector::{field, label};

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
            _ => match (&self.kind, object.value()) {
                (Some(kind), Ok(value)) => fields::value(kind, &value, field),
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
