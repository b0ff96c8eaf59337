//! Rules: what matches them, and which of them cover which.

use std::collections::{BTreeMap, BTreeSet};

use orlop_core::auth::{Attributes, Scope};
use orlop_core::field::quote;
use serde::{Deserialize, Deserializer, Serialize};

/// One rule of a role. `*` stands for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    /// The verbs.
    #[serde(deserialize_with = "null_as_default")]
    pub verbs: Vec<String>,
    /// The API groups.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub api_groups: Vec<String>,
    /// The resources: `pods`, `pods/log`, `*/scale`.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub resources: Vec<String>,
    /// The names of objects; empty for all.
    #[serde(
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub resource_names: Vec<String>,
    /// Paths that are no resources; a trailing `*` stands for the rest.
    #[serde(
        rename = "nonResourceURLs",
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub non_resource_urls: Vec<String>,
}

fn null_as_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|own| own == "*" || own == wanted)
}

impl PolicyRule {
    /// A rule that allows everything.
    pub(crate) fn everything() -> [Self; 2] {
        let all = || vec!["*".to_owned()];
        [
            Self {
                verbs: all(),
                api_groups: all(),
                resources: all(),
                ..Self::default()
            },
            Self {
                verbs: all(),
                non_resource_urls: all(),
                ..Self::default()
            },
        ]
    }

    /// Whether the rule allows a request.
    #[must_use]
    pub fn allows(&self, attributes: &Attributes) -> bool {
        if !has(&self.verbs, &attributes.verb) {
            return false;
        }
        match &attributes.scope {
            Scope::Path(path) => self
                .non_resource_urls
                .iter()
                .any(|url| matches_path(url, path)),
            Scope::Resource {
                group,
                resource,
                subresource,
                name,
                ..
            } => {
                has(&self.api_groups, group)
                    && self
                        .resources
                        .iter()
                        .any(|own| matches_resource(own, resource, subresource))
                    && (self.resource_names.is_empty()
                        || self.resource_names.iter().any(|own| own == name))
            }
        }
    }

    /// The rule as messages show it: `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}`.
    fn compact_text(&self) -> String {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let shown = parts
            .into_iter()
            .filter(|(_, values)| !values.is_empty())
            .map(|(name, values)| {
                let values: Vec<String> = values.iter().map(|value| quote(value)).collect();
                format!("{name}:[{}]", values.join(" "))
            });
        format!("{{{}}}", shown.collect::<Vec<_>>().join(", "))
    }
}

fn matches_resource(own: &str, resource: &str, subresource: &str) -> bool {
    if own == "*" {
        return true;
    }
    if subresource.is_empty() {
        return own == resource;
    }
    match own.split_once('/') {
        Some((of, part)) => part == subresource && (of == "*" || of == resource),
        None => false,
    }
}

fn matches_path(own: &str, path: &str) -> bool {
    own == "*"
        || own == path
        || own
            .strip_suffix('*')
            .is_some_and(|start| path.starts_with(start.trim_end_matches('*')))
}

/// The part of `wanted` that no rule of `owned` allows: empty when they cover all. Every part has one verb, one group and one resource
/// (and name), or one verb and one path.
#[must_use]
pub fn covers(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted
        .iter()
        .flat_map(break_down)
        .filter(|part| !owned.iter().any(|own| rule_covers(own, part)))
        .collect()
}

fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |value: &String| vec![value.clone()];
    let mut parts = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let part = PolicyRule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    ..PolicyRule::default()
                };
                if rule.resource_names.is_empty() {
                    parts.push(part);
                } else {
                    let named = |name| PolicyRule {
                        resource_names: one(name),
                        ..part.clone()
                    };
                    parts.extend(rule.resource_names.iter().map(named));
                }
            }
        }
    }
    for url in &rule.non_resource_urls {
        for verb in &rule.verbs {
            parts.push(PolicyRule {
                verbs: one(verb),
                non_resource_urls: one(url),
                ..PolicyRule::default()
            });
        }
    }
    parts
}

fn rule_covers(own: &PolicyRule, part: &PolicyRule) -> bool {
    let all = |own: &[String], part: &[String]| part.iter().all(|wanted| has(own, wanted));
    let resource = |wanted: &String| match wanted.split_once('/') {
        Some((of, sub)) => own
            .resources
            .iter()
            .any(|own| matches_resource(own, of, sub)),
        None => has(&own.resources, wanted),
    };
    let name = own.resource_names.is_empty()
        || (!part.resource_names.is_empty()
            && part
                .resource_names
                .iter()
                .all(|name| own.resource_names.contains(name)));
    let path = |wanted: &String| {
        own.non_resource_urls
            .iter()
            .any(|url| matches_path(url, wanted))
    };
    all(&own.verbs, &part.verbs)
        && all(&own.api_groups, &part.api_groups)
        && part.resources.iter().all(resource)
        && name
        && part.non_resource_urls.iter().all(path)
}

/// The missing parts as messages list them: verbs of the same group, resource and name together, one rule a line.
pub(super) fn describe_missing(missing: &[PolicyRule]) -> String {
    let mut lines = BTreeSet::new();
    let mut merged: BTreeMap<[&[String]; 3], PolicyRule> = BTreeMap::new();
    for part in missing {
        if !part.non_resource_urls.is_empty() {
            lines.insert(part.compact_text());
            continue;
        }
        let rule = merged
            .entry([&part.api_groups, &part.resources, &part.resource_names])
            .or_insert_with(|| PolicyRule {
                verbs: Vec::new(),
                ..part.clone()
            });
        for verb in &part.verbs {
            if !rule.verbs.contains(verb) {
                rule.verbs.push(verb.clone());
            }
        }
    }
    lines.extend(merged.into_values().map(|rule| rule.compact_text()));
    lines.into_iter().collect::<Vec<_>>().join("\n")
}
