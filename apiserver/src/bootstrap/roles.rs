//! The roles and bindings that a fresh server has, read from `data/rbac.txt`.

use orlop_core::resource::Resource;
use serde_json::{Map, Value, json};

use crate::authorization::{PolicyRule, RoleRef, Subject};
use crate::names::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, RBAC, ROLE_BINDINGS, ROLES};

const DATA: &str = include_str!("../../data/rbac.txt");
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// A role or binding as it is to be.
pub(super) struct Policy {
    pub(super) resource: Resource,
    pub(super) namespace: String,
    pub(super) name: String,
    labels: Vec<String>,
    aggregate: Option<String>,
    pub(super) content: Content,
}

/// What it says.
pub(super) enum Content {
    Rules(Vec<PolicyRule>),
    Binding(RoleRef, Vec<Subject>),
}

impl Policy {
    /// The object to create.
    pub(super) fn object(&self) -> Value {
        let mut labels = Map::new();
        labels.insert(
            "kubernetes.io/bootstrapping".to_owned(),
            json!("rbac-defaults"),
        );
        labels.extend(
            self.labels
                .iter()
                .map(|label| (label.clone(), json!("true"))),
        );
        let mut metadata =
            json!({"name": self.name, "labels": labels, "annotations": {AUTOUPDATE: "true"}});
        if !self.namespace.is_empty() {
            metadata["namespace"] = json!(self.namespace);
        }
        let mut object = json!({"apiVersion": self.resource.api_version(), "kind": self.resource.kind, "metadata": metadata});
        match &self.content {
            Content::Rules(rules) => {
                object["rules"] = json!(rules);
                if let Some(label) = &self.aggregate {
                    object["aggregationRule"] =
                        json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
                }
            }
            Content::Binding(role, subjects) => {
                object["roleRef"] = json!(role);
                object["subjects"] = json!(subjects);
            }
        }
        object
    }
}

/// All of them. Lines that make no sense are left out; a test sees to it that there are none.
pub(super) fn policies() -> Vec<Policy> {
    let mut all: Vec<Policy> = Vec::new();
    for line in DATA
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
    {
        let mut words = line.split_whitespace();
        if line.starts_with(' ') {
            if let (
                Some(Policy {
                    content: Content::Rules(rules),
                    ..
                }),
                Some(rule),
            ) = (all.last_mut(), rule(line))
            {
                rules.push(rule);
            }
            continue;
        }
        let (Some(what), Some(name)) = (words.next(), words.next()) else {
            continue;
        };
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        let (resource, is_role) = match what {
            "clusterrole" => (CLUSTER_ROLES, true),
            "role" => (ROLES, true),
            "clusterbinding" => (CLUSTER_ROLE_BINDINGS, false),
            "binding" => (ROLE_BINDINGS, false),
            _ => continue,
        };
        let mut policy = Policy {
            resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: Vec::new(),
            aggregate: None,
            content: Content::Rules(Vec::new()),
        };
        let label = |name: &str| format!("{RBAC}/{name}");
        if is_role {
            for word in words {
                if let Some(name) = word.strip_prefix('+') {
                    policy.labels.push(label(name));
                } else if let Some(name) = word.strip_prefix("aggregate=") {
                    policy.aggregate = Some(label(name));
                }
            }
        } else {
            let Some((kind, role)) = words.next().and_then(|role| role.split_once('/')) else {
                continue;
            };
            let role = RoleRef {
                api_group: RBAC.to_owned(),
                kind: kind.to_owned(),
                name: role.to_owned(),
            };
            policy.content = Content::Binding(role, words.filter_map(subject).collect());
        }
        all.push(policy);
    }
    all
}

fn list(text: &str, separator: char) -> Vec<String> {
    text.split(separator).map(str::to_owned).collect()
}

fn rule(line: &str) -> Option<PolicyRule> {
    let mut words = line.split_whitespace();
    let (verbs, on) = (list(words.next()?, ','), words.next()?);
    let names = words
        .next()
        .and_then(|names| names.strip_prefix('='))
        .map(|names| list(names, ','));
    Some(match on.split_once(':') {
        Some((groups, resources)) => PolicyRule {
            verbs,
            api_groups: list(groups, '|'),
            resources: list(resources, ','),
            resource_names: names.unwrap_or_default(),
            ..PolicyRule::default()
        },
        None => PolicyRule {
            verbs,
            non_resource_urls: list(on, ','),
            ..PolicyRule::default()
        },
    })
}

fn subject(word: &str) -> Option<Subject> {
    let (kind, name) = word.split_once('=')?;
    let of = |kind: &str| Subject {
        kind: kind.to_owned(),
        api_group: RBAC.to_owned(),
        name: name.to_owned(),
        ..Subject::default()
    };
    match kind {
        "user" => Some(of("User")),
        "group" => Some(of("Group")),
        "account" => {
            let (namespace, name) = name.split_once('/')?;
            Some(Subject {
                kind: "ServiceAccount".to_owned(),
                name: name.to_owned(),
                namespace: namespace.to_owned(),
                ..Subject::default()
            })
        }
        _ => None,
    }
}

/// The rules of the cluster role `system:node`: what every node may do, where it is not a matter of single objects.
#[must_use]
pub fn node_rules() -> Vec<PolicyRule> {
    let node = policies()
        .into_iter()
        .find(|policy| policy.resource == CLUSTER_ROLES && policy.name == "system:node");
    match node.map(|policy| policy.content) {
        Some(Content::Rules(rules)) => rules,
        _ => Vec::new(),
    }
}

/// A fresh role must not be overwritten where its owner said so.
pub(super) fn is_protected(annotations: &std::collections::BTreeMap<String, String>) -> bool {
    annotations
        .get(AUTOUPDATE)
        .is_some_and(|value| value == "false")
}
