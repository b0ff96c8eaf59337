//! Node selectors: what a pod's node affinity asks of nodes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::label::{Expression, Labels, Operator, Requirement};

/// Terms of which one must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelector {
    /// The terms.
    pub node_selector_terms: Vec<NodeSelectorTerm>,
}

/// Conditions on a node's labels and fields that must all be met. A term without conditions matches no node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelectorTerm {
    /// Conditions on labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub match_expressions: Option<Vec<Expression>>,
    /// Conditions on fields; the only field is `metadata.name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub match_fields: Option<Vec<Expression>>,
}

/// A [`NodeSelector`] made ready for matching many nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeMatcher {
    terms: Vec<TermMatcher>,
}

/// A [`NodeSelectorTerm`] made ready for matching many nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TermMatcher {
    /// `None` when a condition is malformed, and in a term without conditions: it matches no node.
    conditions: Option<Vec<Condition>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Label(Requirement),
    Name { is: bool, name: String },
}

impl NodeSelector {
    /// Makes it ready for matching.
    #[must_use]
    pub fn matcher(&self) -> NodeMatcher {
        NodeMatcher {
            terms: self
                .node_selector_terms
                .iter()
                .map(NodeSelectorTerm::matcher)
                .collect(),
        }
    }
}

impl NodeSelectorTerm {
    /// Makes it ready for matching.
    #[must_use]
    pub fn matcher(&self) -> TermMatcher {
        let labels = self.match_expressions.iter().flatten().map(label_condition);
        let fields = self.match_fields.iter().flatten().map(field_condition);
        let conditions: Option<Vec<_>> = labels.chain(fields).collect();
        TermMatcher {
            conditions: conditions.filter(|conditions| !conditions.is_empty()),
        }
    }
}

fn label_condition(expression: &Expression) -> Option<Condition> {
    let operator = match expression.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return None,
    };
    let values = expression.values.clone().unwrap_or_default();
    Requirement::new(&expression.key, operator, values)
        .ok()
        .map(Condition::Label)
}

fn field_condition(expression: &Expression) -> Option<Condition> {
    let is = match expression.operator.as_str() {
        "In" => true,
        "NotIn" => false,
        _ => return None,
    };
    match expression.values.as_deref() {
        Some([name]) if expression.key == "metadata.name" => Some(Condition::Name {
            is,
            name: name.clone(),
        }),
        _ => None,
    }
}

impl NodeMatcher {
    /// Whether one of the terms matches a node.
    #[must_use]
    pub fn matches(&self, name: &str, labels: &(impl Labels + ?Sized)) -> bool {
        self.terms.iter().any(|term| term.matches(name, labels))
    }

    /// The names of the only nodes that can match, if every term asks for one by name.
    #[must_use]
    pub fn names(&self) -> Option<Vec<&str>> {
        let mut names = self
            .terms
            .iter()
            .map(TermMatcher::names)
            .collect::<Option<Vec<_>>>()?
            .concat();
        names.sort_unstable();
        names.dedup();
        Some(names)
    }
}

impl TermMatcher {
    /// Whether all conditions are met.
    #[must_use]
    pub fn matches(&self, name: &str, labels: &(impl Labels + ?Sized)) -> bool {
        self.conditions.as_ref().is_some_and(|conditions| {
            conditions.iter().all(|condition| match condition {
                Condition::Label(requirement) => requirement.matches(labels),
                Condition::Name { is, name: wanted } => (wanted == name) == *is,
            })
        })
    }

    /// The names that the term leaves, if it asks for nodes by name.
    fn names(&self) -> Option<Vec<&str>> {
        let mut named = self
            .conditions
            .iter()
            .flatten()
            .filter_map(|condition| match condition {
                Condition::Name { is: true, name } => Some(name.as_str()),
                _ => None,
            });
        let first = named.next()?;
        Some(if named.all(|name| name == first) {
            vec![first]
        } else {
            Vec::new()
        })
    }
}

/// A pod's `nodeSelector`: labels that a node must have exactly so.
#[must_use]
pub fn has_labels(wanted: &BTreeMap<String, String>, labels: &(impl Labels + ?Sized)) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.label(key) == Some(value.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn matches(terms: Value, name: &str) -> bool {
        let labels = BTreeMap::from(
            [("zone", "a"), ("cores", "8")].map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        let selector: NodeSelector =
            serde_json::from_value(json!({"nodeSelectorTerms": terms})).unwrap();
        selector.matcher().matches(name, &labels)
    }

    #[test]
    fn terms_are_alternatives_and_their_conditions_are_not() {
        let zone = |zone| json!({"key": "zone", "operator": "In", "values": [zone]});
        let more = |than| json!({"key": "cores", "operator": "Gt", "values": [than]});
        let name = |op, name| json!({"key": "metadata.name", "operator": op, "values": [name]});
        for (terms, expected) in [
            (json!([]), false),
            (json!([{}]), false),
            (json!([{"matchExpressions": []}]), false),
            (json!([{"matchExpressions": [zone("a"), more("7")]}]), true),
            (json!([{"matchExpressions": [zone("a"), more("8")]}]), false),
            (
                json!([{"matchExpressions": [zone("b")]}, {"matchExpressions": [more("4")]}]),
                true,
            ),
            (json!([{"matchFields": [name("In", "n1")]}]), true),
            (json!([{"matchFields": [name("NotIn", "n1")]}]), false),
            (
                json!([{"matchFields": [name("In", "n1")], "matchExpressions": [zone("b")]}]),
                false,
            ),
            (json!([{"matchFields": [name("Exists", "n1")]}]), false),
            // A malformed term does not spoil the others.
            (
                json!([{"matchExpressions": [more("x")]}, {"matchExpressions": [zone("a")]}]),
                true,
            ),
            (
                json!([{"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}]),
                false,
            ),
        ] {
            assert_eq!(matches(terms.clone(), "n1"), expected, "{terms}");
        }
    }

    #[test]
    fn names_are_found_where_every_term_has_one() {
        let name = |name| NodeSelectorTerm {
            match_fields: Some(vec![Expression {
                key: "metadata.name".into(),
                operator: "In".into(),
                values: Some(vec![name]),
            }]),
            ..NodeSelectorTerm::default()
        };
        let both = NodeSelector {
            node_selector_terms: vec![name("b".into()), name("a".into())],
        };
        assert_eq!(both.matcher().names(), Some(vec!["a", "b"]));
        let mut open = both.clone();
        open.node_selector_terms.push(NodeSelectorTerm {
            match_expressions: Some(vec![Expression {
                key: "x".into(),
                operator: "Exists".into(),
                values: None,
            }]),
            ..NodeSelectorTerm::default()
        });
        assert_eq!(open.matcher().names(), None);
    }
}
