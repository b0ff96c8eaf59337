//! Kinds that are two views of one stored object: `autoscaling/v1` and `v2`, and the two groups of Event.

use orlop_api::resources::ResourceInfo;
use serde_json::{Map, Value, json};

/// Annotations that carry what `autoscaling/v1` has no fields for.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// The fields of an Event under their names in `v1` and in `events.k8s.io/v1`.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// A document of an addressed resource as the kind that it is stored as.
pub(crate) fn to_storage(info: &ResourceInfo, mut document: Value) -> Value {
    let Some(stored) = &info.stored_as else {
        return document;
    };
    match (
        info.resource.kind.as_ref(),
        info.resource.version.as_ref(),
        stored.version.as_ref(),
    ) {
        ("Event", ..) => {
            let to_core = stored.group.is_empty();
            rename_event_fields(&mut document, to_core);
        }
        ("HorizontalPodAutoscaler", "v1", "v2") => autoscaler_to_v2(&mut document),
        ("HorizontalPodAutoscaler", "v2", "v1") => autoscaler_to_v1(&mut document),
        _ => {}
    }
    stamp(&mut document, &stored.api_version());
    document
}

/// A stored document as the addressed resource shows it.
pub(crate) fn from_storage(info: &ResourceInfo, mut document: Value) -> Value {
    let Some(stored) = &info.stored_as else {
        return document;
    };
    match (
        info.resource.kind.as_ref(),
        info.resource.version.as_ref(),
        stored.version.as_ref(),
    ) {
        ("Event", ..) => rename_event_fields(&mut document, info.resource.group.is_empty()),
        ("HorizontalPodAutoscaler", "v1", "v2") => autoscaler_to_v1(&mut document),
        ("HorizontalPodAutoscaler", "v2", "v1") => autoscaler_to_v2(&mut document),
        _ => {}
    }
    stamp(&mut document, &info.resource.api_version());
    document
}

/// The name that a selectable field of an addressed resource has in the stored document.
pub(super) fn stored_field(info: &ResourceInfo, field: &str) -> String {
    if info.stored_as.is_none() || info.resource.kind != "Event" {
        return field.to_owned();
    }
    let (first, rest) = field.split_once('.').unwrap_or((field, ""));
    let to_core = info.storage().group.is_empty();
    let renamed = EVENT_FIELDS.iter().find_map(|(core, events)| {
        let (from, to) = if to_core {
            (events, core)
        } else {
            (core, events)
        };
        (*from == first).then_some(*to)
    });
    let first = renamed.unwrap_or(first);
    if rest.is_empty() {
        first.to_owned()
    } else {
        format!("{first}.{rest}")
    }
}

fn stamp(document: &mut Value, api_version: &str) {
    if let Value::Object(fields) = document {
        fields.insert("apiVersion".to_owned(), api_version.into());
    }
}

fn rename_event_fields(document: &mut Value, to_core: bool) {
    let Value::Object(fields) = document else {
        return;
    };
    for (core, events) in EVENT_FIELDS {
        let (from, to) = if to_core {
            (events, core)
        } else {
            (core, events)
        };
        if let Some(value) = fields.remove(*from) {
            fields.insert((*to).to_owned(), value);
        }
    }
}

fn annotation(document: &mut Value, name: &str) -> Option<Value> {
    let annotations = document
        .pointer_mut("/metadata/annotations")?
        .as_object_mut()?;
    let text = annotations.remove(name)?;
    if annotations.is_empty() {
        super::meta::metadata(document).remove("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn annotate(document: &mut Value, name: &str, value: &Value) {
    let annotations = super::meta::metadata(document)
        .entry("annotations")
        .or_insert_with(|| json!({}));
    if let Value::Object(annotations) = annotations {
        annotations.insert(name.to_owned(), value.to_string().into());
    }
}

fn part<'a>(document: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    document.get_mut(name)?.as_object_mut()
}

/// Whether a metric is the one that `v1` has a field for: the CPU in percent of the requests.
fn is_cpu_utilization(metric: &Value, side: &str) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && metric["resource"][side]["averageUtilization"].is_number()
}

fn autoscaler_to_v1(document: &mut Value) {
    let mut rest = Vec::new();
    if let Some(spec) = part(document, "spec") {
        let metrics = spec.remove("metrics");
        for metric in metrics
            .as_ref()
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            if is_cpu_utilization(metric, "target")
                && !spec.contains_key("targetCPUUtilizationPercentage")
            {
                let percent = metric["resource"]["target"]["averageUtilization"].clone();
                spec.insert("targetCPUUtilizationPercentage".to_owned(), percent);
            } else {
                rest.push(metric.clone());
            }
        }
        let behavior = spec.remove("behavior");
        if let Some(behavior) = behavior {
            annotate(document, BEHAVIOR, &behavior);
        }
    }
    if !rest.is_empty() {
        annotate(document, METRICS, &Value::Array(rest));
    }
    let mut current_rest = Vec::new();
    if let Some(status) = part(document, "status") {
        let metrics = status.remove("currentMetrics");
        for metric in metrics
            .as_ref()
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            if is_cpu_utilization(metric, "current") {
                let percent = metric["resource"]["current"]["averageUtilization"].clone();
                status.insert("currentCPUUtilizationPercentage".to_owned(), percent);
            } else {
                current_rest.push(metric.clone());
            }
        }
        // Both are always written in this version.
        for field in ["currentReplicas", "desiredReplicas"] {
            status.entry(field).or_insert_with(|| json!(0));
        }
        let conditions = status.remove("conditions");
        if let Some(conditions) =
            conditions.filter(|conditions| conditions.as_array().is_some_and(|c| !c.is_empty()))
        {
            annotate(document, CONDITIONS, &conditions);
        }
    }
    if !current_rest.is_empty() {
        annotate(document, CURRENT_METRICS, &Value::Array(current_rest));
    }
}

fn autoscaler_to_v2(document: &mut Value) {
    let metrics = annotation(document, METRICS);
    let behavior = annotation(document, BEHAVIOR);
    let conditions = annotation(document, CONDITIONS);
    let current = annotation(document, CURRENT_METRICS);
    let list = |value: Option<Value>| match value {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    if let Some(spec) = part(document, "spec") {
        let mut all = list(metrics);
        if let Some(percent) = spec.remove("targetCPUUtilizationPercentage") {
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            all.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        if !all.is_empty() {
            spec.insert("metrics".to_owned(), all.into());
        }
        if let Some(behavior) = behavior {
            spec.insert("behavior".to_owned(), behavior);
        }
    }
    if let Some(status) = part(document, "status") {
        let mut all = list(current);
        if let Some(percent) = status.remove("currentCPUUtilizationPercentage") {
            let current = json!({"averageUtilization": percent, "averageValue": "0"});
            all.push(json!({"type": "Resource", "resource": {"name": "cpu", "current": current}}));
        }
        if !all.is_empty() {
            status.insert("currentMetrics".to_owned(), all.into());
        }
        if let Some(conditions) = conditions {
            status.insert("conditions".to_owned(), conditions);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_autoscaler_survives_the_way_there_and_back() {
        let v2 = json!({
            "metadata": {"name": "a"},
            "spec": {
                "maxReplicas": 3,
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "x"}}},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}
                ],
                "behavior": {"scaleDown": {"policies": []}}
            }
        });
        let mut document = v2.clone();
        document["status"] = json!({"desiredReplicas": 0});
        autoscaler_to_v1(&mut document);
        assert_eq!(
            document["status"],
            json!({"currentReplicas": 0, "desiredReplicas": 0})
        );
        document.as_object_mut().unwrap().remove("status");
        assert_eq!(
            document["spec"],
            json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 80})
        );
        autoscaler_to_v2(&mut document);
        assert_eq!(document, v2);
    }

    #[test]
    fn events_have_two_sets_of_names() {
        let core =
            json!({"involvedObject": {"name": "a"}, "message": "m", "count": 2, "reason": "R"});
        let mut document = core.clone();
        rename_event_fields(&mut document, false);
        assert_eq!(
            document,
            json!({"regarding": {"name": "a"}, "note": "m", "deprecatedCount": 2, "reason": "R"})
        );
        rename_event_fields(&mut document, true);
        assert_eq!(document, core);
    }
}
