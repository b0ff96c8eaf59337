//! Which fields of a kind field selectors may name, and their values.

use orlop_core::resource::GroupVersionKind;
use serde_json::Value;

use crate::{doc, resources};

/// A field that a selector may not name; its text is what Kubernetes answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnknownField {
    /// For kinds with selectable fields of their own.
    #[error("field label not supported: {0}")]
    NotSupported(String),
    /// For kinds that have none but the two that all have.
    #[error(
        "\"{0}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    )]
    NotKnown(String),
}

/// Where the value of a selectable field stands.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// At the field's own path; absent is empty.
    Here,
    /// At another path.
    At(&'static [&'static str]),
    /// At the field's own path, as a number or a flag with a value where there is none.
    Or(&'static str),
    /// At either of two paths, the second where the first is empty.
    Either(&'static [&'static str], &'static [&'static str]),
    /// The first address of the pod, and its other ones.
    PodIp,
    PodIps,
}

use Source::{At, Either, Here, Or, PodIp, PodIps};

type Fields = &'static [(&'static str, Source)];

const PODS: Fields = &[
    ("spec.nodeName", Here),
    ("spec.restartPolicy", Here),
    ("spec.schedulerName", Here),
    ("spec.serviceAccountName", Here),
    ("spec.hostNetwork", Or("false")),
    ("status.phase", Here),
    ("status.podIP", PodIp),
    ("status.podIPs", PodIps),
    ("status.nominatedNodeName", Here),
];

const CORE_EVENTS: Fields = &[
    ("involvedObject.kind", Here),
    ("involvedObject.namespace", Here),
    ("involvedObject.name", Here),
    ("involvedObject.uid", Here),
    ("involvedObject.apiVersion", Here),
    ("involvedObject.resourceVersion", Here),
    ("involvedObject.fieldPath", Here),
    ("reason", Here),
    ("reportingComponent", Here),
    (
        "source",
        Either(&["source", "component"], &["reportingComponent"]),
    ),
    ("type", Here),
];

const EVENTS: Fields = &[
    ("regarding.kind", Here),
    ("regarding.namespace", Here),
    ("regarding.name", Here),
    ("regarding.uid", Here),
    ("regarding.apiVersion", Here),
    ("regarding.resourceVersion", Here),
    ("regarding.fieldPath", Here),
    ("reason", Here),
    ("reportingController", Here),
    ("type", Here),
];

/// The selectable fields of a kind beyond `metadata.name` and `metadata.namespace`; none for most.
fn own(kind: &GroupVersionKind) -> Fields {
    if resources::find_gvk(kind).is_none() {
        return &[];
    }
    match (&*kind.group, &*kind.kind) {
        ("", "Pod") => PODS,
        ("", "Event") => CORE_EVENTS,
        ("events.k8s.io", "Event") => EVENTS,
        ("", "Node") => &[("spec.unschedulable", Or("false"))],
        ("", "Namespace") => &[("status.phase", Here)],
        ("", "Secret") => &[("type", Here)],
        ("", "Service") => &[("spec.clusterIP", Here), ("spec.type", Here)],
        ("", "ReplicationController") => &[("status.replicas", Or("0"))],
        ("batch", "Job") => &[("status.successful", At(&["status", "succeeded"]))],
        ("certificates.k8s.io", "CertificateSigningRequest") => &[("spec.signerName", Here)],
        ("resource.k8s.io", "ResourceSlice") => &[("spec.nodeName", Here), ("spec.driver", Here)],
        _ => &[],
    }
}

/// The name of a field that a selector names: old names are mapped to the ones in use.
///
/// # Errors
/// [`UnknownField`] for a field by which objects of this kind can't be selected.
pub fn canonical<'a>(kind: &GroupVersionKind, field: &'a str) -> Result<&'a str, UnknownField> {
    if matches!(field, "metadata.name" | "metadata.namespace") {
        return Ok(field);
    }
    let own = own(kind);
    if (&*kind.group, &*kind.kind, field) == ("", "Pod", "spec.host") {
        return Ok("spec.nodeName");
    }
    if own.iter().any(|(name, _)| *name == field) {
        return Ok(field);
    }
    Err(if own.is_empty() {
        UnknownField::NotKnown(field.to_owned())
    } else {
        UnknownField::NotSupported(field.to_owned())
    })
}

/// Whether objects of a kind can be selected by a field.
#[must_use]
pub fn selectable(kind: &GroupVersionKind, field: &str) -> bool {
    canonical(kind, field).is_ok()
}

/// The names of all fields by which objects of a kind can be selected.
pub fn names(kind: &GroupVersionKind) -> impl Iterator<Item = &'static str> + use<> {
    ["metadata.name", "metadata.namespace"]
        .into_iter()
        .chain(own(kind).iter().map(|(name, _)| *name))
}

/// The value of a selectable field of an object; empty where there is none, and for fields that are not selectable.
#[must_use]
pub fn value(kind: &GroupVersionKind, object: &Value, field: &str) -> String {
    let path = |field: &str| text_at(object, &field.split('.').collect::<Vec<_>>());
    let Ok(field) = canonical(kind, field) else {
        return String::new();
    };
    let source = own(kind)
        .iter()
        .find(|(name, _)| *name == field)
        .map_or(Here, |(_, source)| *source);
    match source {
        Here => path(field),
        At(path) => text_or(text_at(object, path), "0"),
        Or(otherwise) => text_or(path(field), otherwise),
        Either(first, second) => {
            let first = text_at(object, first);
            if first.is_empty() {
                text_at(object, second)
            } else {
                first
            }
        }
        PodIp => pod_ips(object).next().unwrap_or_default().to_owned(),
        PodIps => pod_ips(object).collect::<Vec<_>>().join(","),
    }
}

fn pod_ips(object: &Value) -> impl Iterator<Item = &str> {
    let status = doc::get(object, "status");
    let all = doc::list(status, "podIPs");
    // Old writers set the first address only.
    let first = doc::opt_text(status, "podIP").filter(|_| all.is_empty());
    first
        .into_iter()
        .chain(all.iter().map(|ip| doc::text(ip, "ip")))
}

fn text_or(text: String, otherwise: &str) -> String {
    if text.is_empty() {
        otherwise.to_owned()
    } else {
        text
    }
}

fn text_at(object: &Value, path: &[&str]) -> String {
    match doc::at(object, path) {
        Value::String(text) => text.clone(),
        value @ (Value::Number(_) | Value::Bool(_)) => value.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn core(kind: &'static str) -> GroupVersionKind {
        GroupVersionKind::new("", "v1", kind)
    }

    #[test]
    fn pods() {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"nodeName": "a", "hostNetwork": true},
            "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        });
        let value = |field| value(&core("Pod"), &pod, field);
        assert_eq!(value("metadata.name"), "p");
        assert_eq!(value("metadata.namespace"), "n");
        assert_eq!(value("spec.nodeName"), "a");
        assert_eq!(value("spec.host"), "a");
        assert_eq!(value("spec.hostNetwork"), "true");
        assert_eq!(value("status.phase"), "");
        assert_eq!(value("status.podIP"), "10.0.0.1");
        assert_eq!(value("status.podIPs"), "10.0.0.1,fd00::1");
        assert_eq!(value("spec.containers"), "");
    }

    #[test]
    fn numbers_and_flags_have_a_value_where_there_is_none() {
        assert_eq!(
            value(&core("Node"), &json!({}), "spec.unschedulable"),
            "false"
        );
        assert_eq!(
            value(
                &core("ReplicationController"),
                &json!({}),
                "status.replicas"
            ),
            "0"
        );
        let job = GroupVersionKind::new("batch", "v1", "Job");
        assert_eq!(
            value(
                &job,
                &json!({"status": {"succeeded": 3}}),
                "status.successful"
            ),
            "3"
        );
        assert_eq!(value(&job, &json!({}), "status.successful"), "0");
    }

    #[test]
    fn events_of_both_groups() {
        let event = json!({"reportingComponent": "c", "involvedObject": {"kind": "Pod"}});
        assert_eq!(value(&core("Event"), &event, "source"), "c");
        assert_eq!(value(&core("Event"), &event, "involvedObject.kind"), "Pod");
        let newer = GroupVersionKind::new("events.k8s.io", "v1", "Event");
        assert!(selectable(&newer, "regarding.kind") && !selectable(&newer, "involvedObject.kind"));
    }

    #[test]
    fn what_is_said_of_unknown_fields() {
        let error =
            |kind: GroupVersionKind, field| canonical(&kind, field).unwrap_err().to_string();
        assert_eq!(
            error(core("Pod"), "spec.x"),
            "field label not supported: spec.x"
        );
        assert_eq!(
            error(core("ConfigMap"), "data.x"),
            "\"data.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
        let custom = GroupVersionKind::new("example.com", "v1", "Pod");
        assert!(!selectable(&custom, "spec.nodeName") && selectable(&custom, "metadata.name"));
        assert_eq!(
            names(&core("Secret")).collect::<Vec<_>>(),
            ["metadata.name", "metadata.namespace", "type"]
        );
    }
}
