//! Defaults of `apps`, `batch` and `autoscaling`.

use orlop_core::resource::GroupVersionKind;
use serde_json::{Value, json};

use super::{amounts, core, pod};
use crate::doc;
use crate::strategy::TEMPLATE_GENERATION;

/// Fills in the defaults of a workload.
pub(super) fn apply(gvk: &GroupVersionKind, document: &mut Value) {
    match (&*gvk.group, &*gvk.kind) {
        ("apps", "Deployment") => deployment(document),
        ("apps", "ReplicaSet") => {
            let spec = doc::ensure_object(document, "spec");
            doc::default_to(spec, "replicas", 1);
            doc::default_to(spec, "selector", Value::Null);
            pod::template(spec, "template");
        }
        ("apps", "DaemonSet") => daemon_set(document),
        ("apps", "StatefulSet") => stateful_set(document),
        ("batch", "Job") => job(document),
        ("batch", "CronJob") => cron_job(document),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaler(&gvk.version, document),
        ("autoscaling", "Scale") => {
            doc::ensure_object(document, "spec");
            doc::default_to(doc::ensure_object(document, "status"), "replicas", 0);
        }
        _ => {}
    }
}

fn deployment(document: &mut Value) {
    let spec = doc::ensure_object(document, "spec");
    doc::default_to(spec, "replicas", 1);
    let strategy = doc::ensure_object(spec, "strategy");
    doc::default_text(strategy, "type", "RollingUpdate");
    if doc::text(strategy, "type") == "RollingUpdate" {
        let rolling = doc::ensure_object(strategy, "rollingUpdate");
        doc::default_to(rolling, "maxUnavailable", "25%");
        doc::default_to(rolling, "maxSurge", "25%");
    }
    doc::default_to(spec, "revisionHistoryLimit", 10);
    doc::default_to(spec, "progressDeadlineSeconds", 600);
    doc::default_to(spec, "selector", Value::Null);
    pod::template(spec, "template");
    for condition in doc::each_mut(doc::ensure_object(document, "status"), "conditions") {
        doc::default_to(condition, "lastUpdateTime", Value::Null);
        doc::default_to(condition, "lastTransitionTime", Value::Null);
    }
}

fn daemon_set(document: &mut Value) {
    // The old counter of the template's changes, which the API carries as an annotation.
    if doc::annotation(document, TEMPLATE_GENERATION).is_none() {
        let annotations =
            doc::ensure_object(doc::ensure_object(document, "metadata"), "annotations");
        doc::set(annotations, TEMPLATE_GENERATION, "0");
    }
    let spec = doc::ensure_object(document, "spec");
    let strategy = doc::ensure_object(spec, "updateStrategy");
    doc::default_text(strategy, "type", "RollingUpdate");
    if doc::text(strategy, "type") == "RollingUpdate" {
        let rolling = doc::ensure_object(strategy, "rollingUpdate");
        doc::default_to(rolling, "maxUnavailable", 1);
        doc::default_to(rolling, "maxSurge", 0);
    }
    doc::default_to(spec, "revisionHistoryLimit", 10);
    doc::default_to(spec, "selector", Value::Null);
    pod::template(spec, "template");
}

fn stateful_set(document: &mut Value) {
    let spec = doc::ensure_object(document, "spec");
    doc::default_text(spec, "podManagementPolicy", "OrderedReady");
    let strategy = doc::ensure_object(spec, "updateStrategy");
    doc::default_text(strategy, "type", "RollingUpdate");
    if doc::text(strategy, "type") == "RollingUpdate" {
        doc::default_to(
            doc::ensure_object(strategy, "rollingUpdate"),
            "partition",
            0,
        );
    }
    let retention = doc::ensure_object(spec, "persistentVolumeClaimRetentionPolicy");
    doc::default_text(retention, "whenDeleted", "Retain");
    doc::default_text(retention, "whenScaled", "Retain");
    doc::default_to(spec, "replicas", 1);
    doc::default_to(spec, "revisionHistoryLimit", 10);
    doc::default_to(spec, "serviceName", "");
    doc::default_to(spec, "selector", Value::Null);
    pod::template(spec, "template");
    for claim in doc::each_mut(spec, "volumeClaimTemplates") {
        doc::set(claim, "kind", "PersistentVolumeClaim");
        doc::set(claim, "apiVersion", "v1");
        doc::ensure_object(claim, "metadata");
        core::claim(claim);
    }
}

fn job(document: &mut Value) {
    let spec = doc::ensure_object(document, "spec");
    if !doc::has(spec, "completions") && !doc::has(spec, "parallelism") {
        doc::set(spec, "completions", 1);
    }
    doc::default_to(spec, "parallelism", 1);
    let limit = if doc::has(spec, "backoffLimitPerIndex") {
        i64::from(i32::MAX)
    } else {
        6
    };
    doc::default_to(spec, "backoffLimit", limit);
    doc::default_to(spec, "completionMode", "NonIndexed");
    doc::default_to(spec, "suspend", false);
    doc::default_to(spec, "manualSelector", false);
    let replacement = if doc::has(spec, "podFailurePolicy") {
        "Failed"
    } else {
        "TerminatingOrFailed"
    };
    doc::default_to(spec, "podReplacementPolicy", replacement);
    job_spec(spec);
    let labels = doc::at(document, &["spec", "template", "metadata", "labels"]).clone();
    let meta = doc::ensure_object(document, "metadata");
    if doc::is_empty(doc::get(meta, "labels")) && !doc::is_empty(&labels) {
        doc::set(meta, "labels", labels);
    }
}

/// What jobs and the templates of jobs have in common.
fn job_spec(spec: &mut Value) {
    if let Some(policy) = doc::object_mut(spec, "podFailurePolicy") {
        for rule in doc::each_mut(policy, "rules") {
            for condition in doc::each_mut(rule, "onPodConditions") {
                doc::default_text(condition, "status", "True");
            }
        }
    }
    pod::template(spec, "template");
}

fn cron_job(document: &mut Value) {
    let spec = doc::ensure_object(document, "spec");
    doc::default_text(spec, "concurrencyPolicy", "Allow");
    doc::default_to(spec, "suspend", false);
    doc::default_to(spec, "successfulJobsHistoryLimit", 3);
    doc::default_to(spec, "failedJobsHistoryLimit", 1);
    let template = doc::ensure_object(spec, "jobTemplate");
    doc::ensure_object(template, "metadata");
    job_spec(doc::ensure_object(template, "spec"));
}

fn autoscaler(version: &str, document: &mut Value) {
    let spec = doc::ensure_object(document, "spec");
    doc::default_to(spec, "minReplicas", 1);
    doc::default_to(spec, "maxReplicas", 0);
    if version == "v1" {
        return;
    }
    if doc::list(spec, "metrics").is_empty() {
        doc::set(
            spec,
            "metrics",
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]),
        );
    }
    for metric in doc::each_mut(spec, "metrics") {
        for kind in [
            "resource",
            "containerResource",
            "pods",
            "object",
            "external",
        ] {
            if let Some(value) = metric
                .get_mut(kind)
                .and_then(|source| source.get_mut("target"))
                .and_then(|target| target.get_mut("value"))
            {
                amounts::quantity(value, false);
            }
        }
    }
    if let Some(behavior) = doc::object_mut(spec, "behavior") {
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        let up = doc::ensure_object(behavior, "scaleUp");
        doc::default_to(up, "stabilizationWindowSeconds", 0);
        doc::default_to(up, "selectPolicy", "Max");
        doc::default_to(up, "policies", vec![pods, percent.clone()]);
        let down = doc::ensure_object(behavior, "scaleDown");
        doc::default_to(down, "selectPolicy", "Max");
        doc::default_to(down, "policies", vec![percent]);
    }
}
