//! Rows of what runs pods, and of what decides on them.

use serde_json::Value;

use super::cells::{Context, NONE, UNKNOWN, UNSET, int_or_string, join_with, quantity, time};
use super::duration::human_duration;
use crate::doc;

const TEMPLATE: &[&str] = &["spec", "template", "spec"];

pub(super) fn pod_template(cx: &Context<'_>) -> Vec<Value> {
    let [names, images] = cx.containers(&["template", "spec"]);
    vec![
        cx.name(),
        names,
        images,
        cx.labels(&["template", "metadata", "labels"]),
    ]
}

pub(super) fn pod_disruption_budget(cx: &Context<'_>) -> Vec<Value> {
    let bound = |field| {
        int_or_string(cx.at(&["spec", field]))
            .unwrap_or_else(|| "N/A".to_owned())
            .into()
    };
    let allowed = cx.int(&["status", "disruptionsAllowed"]).into();
    vec![
        cx.name(),
        bound("minAvailable"),
        bound("maxUnavailable"),
        allowed,
        cx.age(),
    ]
}

/// Name, counts of replicas and age.
fn replicas(cx: &Context<'_>) -> Vec<Value> {
    vec![
        cx.name(),
        cx.int(&["spec", "replicas"]).into(),
        cx.int(&["status", "replicas"]).into(),
        cx.int(&["status", "readyReplicas"]).into(),
        cx.age(),
    ]
}

pub(super) fn replication_controller(cx: &Context<'_>) -> Vec<Value> {
    let mut cells = replicas(cx);
    cells.extend(cx.containers(TEMPLATE));
    cells.push(cx.labels(&["spec", "selector"]));
    cells
}

pub(super) fn replica_set(cx: &Context<'_>) -> Vec<Value> {
    let mut cells = replicas(cx);
    cells.extend(cx.containers(TEMPLATE));
    cells.push(cx.selector_or_none(&["spec", "selector"]));
    cells
}

pub(super) fn daemon_set(cx: &Context<'_>) -> Vec<Value> {
    let mut cells = vec![cx.name()];
    let counts = [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    ];
    cells.extend(counts.map(|count| Value::from(cx.int(&["status", count]))));
    cells.extend([
        cx.labels(&["spec", "template", "spec", "nodeSelector"]),
        cx.age(),
    ]);
    cells.extend(cx.containers(TEMPLATE));
    cells.push(cx.selector_or_none(&["spec", "selector"]));
    cells
}

fn ready(cx: &Context<'_>) -> Value {
    format!(
        "{}/{}",
        cx.int(&["status", "readyReplicas"]),
        cx.int(&["spec", "replicas"])
    )
    .into()
}

pub(super) fn stateful_set(cx: &Context<'_>) -> Vec<Value> {
    let mut cells = vec![cx.name(), ready(cx), cx.age()];
    cells.extend(cx.containers(TEMPLATE));
    cells
}

pub(super) fn deployment(cx: &Context<'_>) -> Vec<Value> {
    let mut cells = vec![
        cx.name(),
        ready(cx),
        cx.int(&["status", "updatedReplicas"]).into(),
        cx.int(&["status", "availableReplicas"]).into(),
        cx.age(),
    ];
    cells.extend(cx.containers(TEMPLATE));
    cells.push(
        cx.selector(&["spec", "selector"])
            .unwrap_or_else(|_| "<invalid>".to_owned())
            .into(),
    );
    cells
}

pub(super) fn controller_revision(cx: &Context<'_>) -> Vec<Value> {
    let owners = doc::list(cx.at(&["metadata"]), "ownerReferences");
    let controller = owners
        .iter()
        .find(|owner| doc::flag(owner, "controller"))
        .map_or_else(
            || NONE.to_owned(),
            |owner| {
                let (kind, name) = (
                    doc::text(owner, "kind").to_lowercase(),
                    doc::text(owner, "name"),
                );
                match doc::text(owner, "apiVersion").split_once('/') {
                    Some((group, _)) => format!("{kind}.{}/{name}", group.to_lowercase()),
                    None => format!("{kind}/{name}"),
                }
            },
        );
    vec![
        cx.name(),
        controller.into(),
        cx.int(&["revision"]).into(),
        cx.age(),
    ]
}

pub(super) fn job(cx: &Context<'_>) -> Vec<Value> {
    let succeeded = cx.int(&["status", "succeeded"]);
    let completions = match (
        cx.at(&["spec", "completions"]).as_i64(),
        cx.int(&["spec", "parallelism"]),
    ) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism @ 2..) => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let duration = time(cx.at(&["status", "startTime"])).map(|start| {
        let end = time(cx.at(&["status", "completionTime"])).unwrap_or(cx.now);
        human_duration(end.duration_since(start))
    });
    let has = |ty: &str| {
        let conditions = doc::list(cx.at(&["status"]), "conditions");
        conditions
            .iter()
            .find(|c| doc::text(c, "type") == ty)
            .is_some_and(|c| doc::text(c, "status") == "True")
    };
    let status = if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if cx.is_deleted() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else {
        "Running"
    };
    let mut cells = vec![
        cx.name(),
        status.into(),
        completions.into(),
        duration.unwrap_or_default().into(),
        cx.age(),
    ];
    cells.extend(cx.containers(TEMPLATE));
    cells.push(cx.selector_or_none(&["spec", "selector"]));
    cells
}

pub(super) fn cron_job(cx: &Context<'_>) -> Vec<Value> {
    let suspend = match cx.at(&["spec", "suspend"]).as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    };
    let last = cx.at(&["status", "lastScheduleTime"]);
    let last = if last.is_null() {
        NONE.to_owned()
    } else {
        cx.since(&["status", "lastScheduleTime"])
    };
    let mut cells = vec![
        cx.name(),
        cx.text(&["spec", "schedule"]).into(),
        cx.at(&["spec", "timeZone"]).as_str().unwrap_or(NONE).into(),
        suspend.into(),
        doc::list(cx.at(&["status"]), "active").len().into(),
        last.into(),
        cx.age(),
    ];
    cells.extend(cx.containers(&["spec", "jobTemplate", "spec", "template", "spec"]));
    cells.push(cx.selector_or_none(&["spec", "jobTemplate", "spec", "selector"]));
    cells
}

pub(super) fn autoscaler(cx: &Context<'_>) -> Vec<Value> {
    let target = cx.at(&["spec", "scaleTargetRef"]);
    let reference = format!(
        "{}/{}",
        doc::text(target, "kind"),
        doc::text(target, "name")
    );
    let least = cx
        .at(&["spec", "minReplicas"])
        .as_i64()
        .map_or_else(|| UNSET.to_owned(), |n| n.to_string());
    vec![
        cx.name(),
        reference.into(),
        metrics(cx).into(),
        least.into(),
        cx.int(&["spec", "maxReplicas"]).into(),
        cx.int(&["status", "currentReplicas"]).into(),
        cx.age(),
    ]
}

/// What an autoscaler aims at and where it is: the first two metrics, and how many more there are.
fn metrics(cx: &Context<'_>) -> String {
    // autoscaling/v1 has one metric, in fields of its own.
    if let Some(target) = cx.at(&["spec", "targetCPUUtilizationPercentage"]).as_i64() {
        let current = cx
            .at(&["status", "currentCPUUtilizationPercentage"])
            .as_i64();
        return format!(
            "cpu: {}/{target}%",
            current.map_or_else(|| UNKNOWN.to_owned(), |n| format!("{n}%"))
        );
    }
    let specs = doc::list(cx.at(&["spec"]), "metrics");
    let statuses = doc::list(cx.at(&["status"]), "currentMetrics");
    if specs.is_empty() {
        return NONE.to_owned();
    }
    let mut parts: Vec<_> = specs
        .iter()
        .enumerate()
        .map(|(at, spec)| metric(spec, statuses.get(at)))
        .collect();
    const SHOWN: usize = 2;
    let more = parts.len().saturating_sub(SHOWN);
    parts.truncate(SHOWN);
    let text = join_with(parts, ", ");
    if more > 0 {
        format!("{text} + {more} more...")
    } else {
        text
    }
}

fn metric(spec: &Value, status: Option<&Value>) -> String {
    let (key, of_resource) = match doc::text(spec, "type") {
        "External" => ("external", false),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_owned(),
    };
    let source = doc::get(spec, key);
    let target = doc::get(source, "target");
    let now = status
        .map(|status| doc::get(status, key))
        .filter(|status| !status.is_null());
    let amount = |field: &str| {
        let value = now.map(|now| doc::at(now, &["current", field]));
        value
            .filter(|value| !value.is_null())
            .map_or_else(|| UNKNOWN.to_owned(), quantity)
    };
    let percent = |value: &Value| value.as_i64().map(|n| format!("{n}%"));
    let average = doc::get(target, "averageValue");
    if of_resource {
        let name = doc::text(source, "name");
        if !average.is_null() {
            return format!("{name}: {}/{}", amount("averageValue"), quantity(average));
        }
        let current = now.and_then(|now| percent(doc::at(now, &["current", "averageUtilization"])));
        let wanted = percent(doc::get(target, "averageUtilization"));
        let (current, wanted) = (
            current.unwrap_or_else(|| UNKNOWN.to_owned()),
            wanted.unwrap_or_else(|| "<auto>".to_owned()),
        );
        return format!("{name}: {current}/{wanted}");
    }
    match key {
        "pods" => format!("{}/{}", amount("averageValue"), quantity(average)),
        _ if !average.is_null() => {
            format!("{}/{} (avg)", amount("averageValue"), quantity(average))
        }
        _ => format!(
            "{}/{}",
            amount("value"),
            quantity(doc::get(target, "value"))
        ),
    }
}

pub(super) fn scale(cx: &Context<'_>) -> Vec<Value> {
    vec![
        cx.name(),
        cx.int(&["spec", "replicas"]).into(),
        cx.int(&["status", "replicas"]).into(),
        cx.age(),
    ]
}

pub(super) fn priority_class(cx: &Context<'_>) -> Vec<Value> {
    vec![
        cx.name(),
        cx.int(&["value"]).into(),
        doc::flag(cx.object, "globalDefault").into(),
        cx.age(),
        cx.text(&["preemptionPolicy"]).into(),
    ]
}
