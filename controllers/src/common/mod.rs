//! What several controllers need: names of resources, pods' states, ownership, expectations.

pub(crate) mod batch;
pub(crate) mod expectations;
pub(crate) mod ownership;
pub(crate) mod pods;
pub(crate) mod resources;
pub(crate) mod services;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use orlop_core::env::Env;
use orlop_core::selector::label;
use orlop_core::status::Status;

/// The wall clock in whole seconds, which is what metadata and conditions hold.
pub(crate) fn now(env: &Env) -> Timestamp {
    Timestamp::from_second(env.wall().as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The same as a field's value.
pub(crate) fn now_time(env: &Env) -> Option<Time> {
    Some(Time(now(env)))
}

/// A selector as a controller takes it: a missing or malformed one selects nothing.
pub(crate) fn selector(selector: Option<&LabelSelector>) -> Option<label::Selector> {
    let selector = selector?;
    let expressions = selector
        .match_expressions
        .iter()
        .flatten()
        .map(|term| label::Expression {
            key: term.key.clone(),
            operator: term.operator.clone(),
            values: term.values.clone(),
        });
    let document = label::LabelSelector {
        match_labels: selector.match_labels.clone(),
        match_expressions: Some(expressions.collect()),
    };
    document.selector().ok()
}

/// Whether a selector has no condition at all.
pub(crate) fn selects_everything(selector: &LabelSelector) -> bool {
    selector
        .match_labels
        .as_ref()
        .is_none_or(std::collections::BTreeMap::is_empty)
        && selector
            .match_expressions
            .as_ref()
            .is_none_or(Vec::is_empty)
}

/// Whether the API refused because the namespace is going: nothing to be done, and nothing to complain of.
pub(crate) fn namespace_is_going(status: &Status) -> bool {
    status.details.as_ref().is_some_and(|details| {
        details
            .causes
            .iter()
            .any(|c| c.reason == "NamespaceTerminating")
    })
}

/// The name of a decoded object.
pub(crate) fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// An annotation as a number.
pub(crate) fn number_annotation<N: std::str::FromStr>(
    metadata: &ObjectMeta,
    name: &str,
) -> Option<N> {
    metadata.annotations.as_ref()?.get(name)?.parse().ok()
}
