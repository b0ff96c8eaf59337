//! Rows of nodes, namespaces, configuration, access and events.

use std::collections::BTreeSet;

use serde_json::Value;

use super::cells::{Context, NONE, UNKNOWN, join, join_with, quantity, time};
use super::duration::{human_duration, since};
use crate::doc;

pub(super) fn node(cx: &Context<'_>) -> Vec<Value> {
    let conditions = doc::list(cx.at(&["status"]), "conditions");
    // Of conditions of one type the last one counts.
    let ready = conditions.iter().rfind(|c| doc::text(c, "type") == "Ready");
    let mut status = vec![match ready.map(|c| doc::text(c, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if doc::flag(cx.at(&["spec"]), "unschedulable") {
        status.push("SchedulingDisabled");
    }
    let roles: BTreeSet<_> = doc::text_entries(cx.at(&["metadata"]), "labels")
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None => (key == "kubernetes.io/role").then_some(value),
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    let roles = join(roles);
    let addresses = doc::list(cx.at(&["status"]), "addresses");
    let address = |ty: &str| -> Value {
        let found = addresses
            .iter()
            .find(|address| doc::text(address, "type") == ty);
        found
            .map_or(NONE, |address| doc::text(address, "address"))
            .into()
    };
    let info = |field| -> Value { cx.text_or(&["status", "nodeInfo", field], UNKNOWN).into() };
    vec![
        cx.name(),
        join(status).into(),
        if roles.is_empty() {
            NONE.into()
        } else {
            roles.into()
        },
        cx.age(),
        cx.text(&["status", "nodeInfo", "kubeletVersion"]).into(),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

/// Events of both groups: the newer one calls some fields by other names.
pub(super) fn event(cx: &Context<'_>) -> Vec<Value> {
    let either = |old: &'static str, new: &'static str| {
        let value = cx.at(&[old]);
        if value.is_null() {
            cx.at(&[new])
        } else {
            value
        }
    };
    let text = |old, new| either(old, new).as_str().unwrap_or_default();
    let happened = time(cx.at(&["eventTime"]));
    let first = time(either("firstTimestamp", "deprecatedFirstTimestamp")).or(happened);
    let last = time(either("lastTimestamp", "deprecatedLastTimestamp")).or(first);
    let series = cx.at(&["series"]);
    let (last, count) = if series.is_null() {
        // An event that stands for itself has no count.
        (
            last,
            Some(
                either("count", "deprecatedCount")
                    .as_i64()
                    .unwrap_or_default(),
            )
            .filter(|n| *n != 0)
            .unwrap_or(1),
        )
    } else {
        (
            time(doc::get(series, "lastObservedTime")),
            doc::int(series, "count").unwrap_or_default(),
        )
    };
    let about = either("involvedObject", "regarding");
    let (kind, name) = (
        doc::text(about, "kind").to_lowercase(),
        doc::text(about, "name"),
    );
    let about_text = if name.is_empty() {
        kind
    } else {
        format!("{kind}/{name}")
    };
    let source = either("source", "deprecatedSource");
    let first_of = |a: &'static str, b: &str| {
        let own = doc::text(source, a);
        if own.is_empty() {
            b.to_owned()
        } else {
            own.to_owned()
        }
    };
    let component = first_of(
        "component",
        text("reportingComponent", "reportingController"),
    );
    let host = first_of("host", cx.text(&["reportingInstance"]));
    let source = if host.is_empty() {
        component
    } else {
        format!("{component}, {host}")
    };
    vec![
        since(last, cx.now).into(),
        cx.text(&["type"]).into(),
        cx.text(&["reason"]).into(),
        about_text.into(),
        doc::text(about, "fieldPath").into(),
        source.into(),
        text("message", "note").trim().into(),
        since(first, cx.now).into(),
        count.into(),
        cx.name(),
    ]
}

pub(super) fn namespace(cx: &Context<'_>) -> Vec<Value> {
    vec![cx.name(), cx.text(&["status", "phase"]).into(), cx.age()]
}

pub(super) fn component_status(cx: &Context<'_>) -> Vec<Value> {
    let healthy = doc::list(cx.object, "conditions")
        .iter()
        .find(|c| doc::text(c, "type") == "Healthy");
    let status = match healthy.map(|c| doc::text(c, "status")) {
        Some("True") => "Healthy",
        Some(_) => "Unhealthy",
        None => "Unknown",
    };
    let field = |key| -> Value { healthy.map_or("", |c| doc::text(c, key)).into() };
    vec![cx.name(), status.into(), field("message"), field("error")]
}

fn count(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

pub(super) fn config_map(cx: &Context<'_>) -> Vec<Value> {
    vec![
        cx.name(),
        (count(cx.at(&["data"])) + count(cx.at(&["binaryData"]))).into(),
        cx.age(),
    ]
}

pub(super) fn secret(cx: &Context<'_>) -> Vec<Value> {
    vec![
        cx.name(),
        cx.text(&["type"]).into(),
        count(cx.at(&["data"])).into(),
        cx.age(),
    ]
}

pub(super) fn resource_quota(cx: &Context<'_>) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in doc::entries(cx.at(&["status"]), "hard") {
        let used = quantity(cx.at(&["status", "used", resource]));
        let column = if resource.starts_with("limits.") {
            &mut limits
        } else {
            &mut requests
        };
        column.push(format!("{resource}: {used}/{}", quantity(hard)));
    }
    vec![
        cx.name(),
        join_with(requests, ", ").into(),
        join_with(limits, ", ").into(),
        cx.age(),
    ]
}

pub(super) fn role_binding(cx: &Context<'_>) -> Vec<Value> {
    let role = cx.at(&["roleRef"]);
    let role = format!("{}/{}", doc::text(role, "kind"), doc::text(role, "name"));
    let subjects = doc::list(cx.object, "subjects");
    let of = |kind: &str| -> Value {
        let names = subjects
            .iter()
            .filter(|subject| doc::text(subject, "kind") == kind)
            .map(|subject| {
                let name = doc::text(subject, "name");
                if kind == "ServiceAccount" {
                    format!("{}/{name}", doc::text(subject, "namespace"))
                } else {
                    name.to_owned()
                }
            });
        join_with(names, ", ").into()
    };
    vec![
        cx.name(),
        role.into(),
        cx.age(),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}

pub(super) fn certificate_signing_request(cx: &Context<'_>) -> Vec<Value> {
    let conditions = doc::list(cx.at(&["status"]), "conditions");
    let has = |ty: &str| conditions.iter().any(|c| doc::text(c, "type") == ty);
    let mut state = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !cx.text(&["status", "certificate"]).is_empty() {
        state.push_str(",Issued");
    }
    let seconds = cx.at(&["spec", "expirationSeconds"]).as_i64();
    let duration = seconds.map_or_else(
        || NONE.to_owned(),
        |s| human_duration(jiff::SignedDuration::from_secs(s)),
    );
    vec![
        cx.name(),
        cx.age(),
        cx.text_or(&["spec", "signerName"], NONE).into(),
        cx.text(&["spec", "username"]).into(),
        duration.into(),
        state.into(),
    ]
}

pub(super) fn flow_schema(cx: &Context<'_>) -> Vec<Value> {
    let conditions = doc::list(cx.at(&["status"]), "conditions");
    let dangling = conditions
        .iter()
        .find(|c| doc::text(c, "type") == "Dangling");
    let method = cx.at(&["spec", "distinguisherMethod"]);
    vec![
        cx.name(),
        cx.text(&["spec", "priorityLevelConfiguration", "name"])
            .into(),
        cx.int(&["spec", "matchingPrecedence"]).into(),
        if method.is_null() {
            NONE
        } else {
            doc::text(method, "type")
        }
        .into(),
        cx.age(),
        dangling.map_or("?", |c| doc::text(c, "status")).into(),
    ]
}

pub(super) fn priority_level(cx: &Context<'_>) -> Vec<Value> {
    let limited = cx.at(&["spec", "limited"]);
    let queuing = doc::at(limited, &["limitResponse", "queuing"]);
    let number = |of: &Value, field| -> Value {
        if of.is_null() {
            NONE.into()
        } else {
            doc::int(of, field).unwrap_or_default().into()
        }
    };
    vec![
        cx.name(),
        cx.text(&["spec", "type"]).into(),
        number(limited, "nominalConcurrencyShares"),
        number(queuing, "queues"),
        number(queuing, "handSize"),
        number(queuing, "queueLengthLimit"),
        cx.age(),
    ]
}
