//! Jobs and CronJobs.

use std::collections::BTreeSet;

use orlop_core::field::Path;
use serde_json::{Value, json};

use super::errors::Errors;
use super::meta::{self, NameForm};
use super::{cron, labels, names, pod};
use crate::doc;

/// A Job.
pub(super) fn job(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    generated_selector(errors, document);
    let spec = doc::get(document, "spec");
    whole_spec(errors, spec);
    let completions = doc::int(spec, "completions").unwrap_or_default();
    if is_indexed(spec) && completions > 0 {
        let name = doc::text(doc::get(document, "metadata"), "name");
        let last = format!("{name}-{}", completions - 1);
        if !names::dns_label(&last).is_empty() {
            errors.invalid(
                &Path::new("metadata").child("name"),
                name,
                format!("will not able to create pod with invalid DNS label: {last}"),
            );
        }
    }
}

fn is_indexed(spec: &Value) -> bool {
    doc::text(spec, "completionMode") == "Indexed"
}

/// A selector that was not chosen by hand finds the pods by the job's own uid and name.
fn generated_selector(errors: &mut Errors, document: &Value) {
    let spec = doc::get(document, "spec");
    if doc::flag(spec, "manualSelector") || doc::get(spec, "selector").is_null() {
        return;
    }
    let meta = doc::get(document, "metadata");
    let (uid, name) = (doc::text(meta, "uid"), doc::text(meta, "name"));
    let own = doc::at(spec, &["template", "metadata", "labels"]);
    let path = Path::new("spec").child("template").child("metadata");
    let expected = [
        ("controller-uid", uid),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
    ];
    for (key, value) in expected {
        match doc::opt_text(own, key) {
            None => errors.required(&path.child("labels").key(key), format!("must be '{value}'")),
            Some(other) if other != value => {
                errors.invalid(
                    &path.child("labels").key(key),
                    own.clone(),
                    format!("must be '{value}'"),
                );
            }
            Some(_) => {}
        }
    }
    let selector = doc::get(spec, "selector");
    let expected: Value = expected
        .into_iter()
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
    if !labels::selects(selector, &expected) {
        errors.invalid(
            &Path::new("spec").child("selector"),
            selector.clone(),
            "`selector` not auto-generated",
        );
    }
}

fn whole_spec(errors: &mut Errors, spec: &Value) {
    let path = Path::new("spec");
    job_spec(errors, spec, &path);
    let selector = doc::get(spec, "selector");
    if selector.is_null() {
        errors.required(&path.child("selector"), "");
    } else {
        labels::selector(errors, spec, "selector", &path);
    }
    let own = doc::at(spec, &["template", "metadata", "labels"]);
    if !labels::selects(selector, own) {
        errors.invalid(
            &path.child("template").child("metadata").child("labels"),
            own.clone(),
            "`selector` does not match template `labels`",
        );
    }
}

/// What jobs and their templates have in common.
fn job_spec(errors: &mut Errors, spec: &Value, path: &Path) {
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        errors.nonnegative(spec, key, path);
    }
    let per_index = doc::has(spec, "backoffLimitPerIndex");
    if doc::has(spec, "maxFailedIndexes") && !per_index {
        errors.required(
            &path.child("backoffLimitPerIndex"),
            "when maxFailedIndexes is specified",
        );
    }
    if let Some(manager) = doc::opt_text(spec, "managedBy") {
        let path = path.child("managedBy");
        if manager.is_empty() {
            errors.required(&path, "");
        } else {
            for (value, complaint) in names::domain_prefixed_path(manager) {
                errors.invalid(&path, value, complaint);
            }
        }
        if manager.len() > 63 {
            errors.too_long(&path, 63);
        }
    }
    errors.if_set_one_of(spec, "completionMode", path, &["NonIndexed", "Indexed"]);
    if is_indexed(spec) {
        indexed(errors, spec, path);
    } else if matches!(doc::text(spec, "completionMode"), "" | "NonIndexed") {
        for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(value) = doc::int(spec, key) {
                errors.invalid(&path.child(key), value, "requires indexed completion mode");
            }
        }
    }
    failure_policy(errors, spec, &path.child("podFailurePolicy"));
    success_policy(errors, spec, &path.child("successPolicy"));
    if doc::has(spec, "podFailurePolicy") {
        errors.if_set_one_of(spec, "podReplacementPolicy", path, &["Failed"]);
    } else {
        errors.if_set_one_of(
            spec,
            "podReplacementPolicy",
            path,
            &["Failed", "TerminatingOrFailed"],
        );
    }
    let template = doc::get(spec, "template");
    pod::template(errors, template, &path.child("template"));
    let restart = doc::text(doc::get(template, "spec"), "restartPolicy");
    let restart_path = path.child("template").child("spec").child("restartPolicy");
    match restart {
        "" | "Always" => errors.required(&restart_path, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if doc::has(spec, "podFailurePolicy") => errors.invalid(
            &restart_path,
            restart,
            "only \"Never\" is supported when podFailurePolicy is specified",
        ),
        "OnFailure" | "Never" => {}
        other => errors.not_supported(&restart_path, other, &["OnFailure", "Never"]),
    }
}

/// Bounds of jobs that run each index once.
fn indexed(errors: &mut Errors, spec: &Value, path: &Path) {
    const SOFT: i64 = 100_000;
    const MOST: i64 = 10_000;
    let of = |key: &str| doc::int(spec, key);
    if of("completions").is_none() {
        errors.required(
            &path.child("completions"),
            "when completion mode is Indexed",
        );
    }
    if let Some(value) = of("parallelism").filter(|value| *value > SOFT) {
        errors.invalid(
            &path.child("parallelism"),
            value,
            "must be less than or equal to 100000 when completion mode is Indexed",
        );
    }
    let most_failed = path.child("maxFailedIndexes");
    if let (Some(failed), Some(completions)) = (of("maxFailedIndexes"), of("completions"))
        && failed > completions
    {
        errors.invalid(
            &most_failed,
            failed,
            "must be less than or equal to completions",
        );
    }
    if let Some(failed) = of("maxFailedIndexes").filter(|failed| *failed > SOFT) {
        errors.invalid(&most_failed, failed, "must be less than or equal to 100000");
    }
    if of("completions").is_some_and(|completions| completions > SOFT)
        && of("backoffLimitPerIndex").is_some()
    {
        const DETAIL: &str = "must be less than or equal to 10000 when completions are above 100000 and used with backoff \
                              limit per index";
        if of("maxFailedIndexes").is_none() {
            errors.required(
                &most_failed,
                "must be specified when completions is above 100000",
            );
        }
        if let Some(value) = of("parallelism").filter(|value| *value > MOST) {
            errors.invalid(&path.child("parallelism"), value, DETAIL);
        }
        if let Some(value) = of("maxFailedIndexes").filter(|value| *value > MOST) {
            errors.invalid(&most_failed, value, DETAIL);
        }
    }
}

fn failure_policy(errors: &mut Errors, spec: &Value, path: &Path) {
    let rules = doc::list(doc::get(spec, "podFailurePolicy"), "rules");
    let path = path.child("rules");
    if rules.len() > 20 {
        errors.too_many(&path, rules.len(), 20);
    }
    let pod = doc::at(spec, &["template", "spec"]);
    let known: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|key| doc::list(pod, key))
        .map(|container| doc::text(container, "name"))
        .collect();
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
        match doc::text(rule, "action") {
            "" => errors.required(
                &path.child("action"),
                "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
            ),
            "FailIndex" if !doc::has(spec, "backoffLimitPerIndex") => {
                errors.invalid(
                    &path.child("action"),
                    "FailIndex",
                    "requires the backoffLimitPerIndex to be set",
                );
            }
            other if !ACTIONS.contains(&other) => {
                errors.not_supported(&path.child("action"), other, ACTIONS)
            }
            _ => {}
        }
        let codes = doc::get(rule, "onExitCodes");
        let conditions = doc::list(rule, "onPodConditions");
        if !codes.is_null() {
            exit_codes(errors, codes, &known, &path.child("onExitCodes"));
        }
        pod_conditions(errors, conditions, &path.child("onPodConditions"));
        if !codes.is_null() && !conditions.is_empty() {
            errors.invalid_whole(
                &path,
                "specifying both OnExitCodes and OnPodConditions is not supported",
            );
        }
        if codes.is_null() && conditions.is_empty() {
            errors.invalid_whole(
                &path,
                "specifying one of OnExitCodes and OnPodConditions is required",
            );
        }
    }
}

fn pod_conditions(errors: &mut Errors, conditions: &[Value], path: &Path) {
    if conditions.len() > 20 {
        errors.too_many(path, conditions.len(), 20);
    }
    for (i, condition) in conditions.iter().enumerate() {
        let path = path.index(i);
        let kind = doc::text(condition, "type");
        errors.all_invalid(&path.child("type"), kind, names::qualified_name(kind));
        let status = doc::text(condition, "status");
        if status.is_empty() {
            errors.required(
                &path.child("status"),
                "valid values: [\"False\" \"True\" \"Unknown\"]",
            );
        } else {
            errors.if_set_one_of(condition, "status", &path, &["False", "True", "Unknown"]);
        }
    }
}

fn exit_codes(errors: &mut Errors, codes: &Value, known: &BTreeSet<&str>, path: &Path) {
    let operator = doc::text(codes, "operator");
    if operator.is_empty() {
        errors.required(&path.child("operator"), "valid values: [\"In\" \"NotIn\"]");
    } else {
        errors.if_set_one_of(codes, "operator", path, &["In", "NotIn"]);
    }
    if let Some(name) = doc::opt_text(codes, "containerName").filter(|name| !known.contains(name)) {
        errors.invalid(
            &path.child("containerName"),
            name,
            "must be one of the container or initContainer names in the pod template",
        );
    }
    let values: Vec<i64> = doc::list(codes, "values")
        .iter()
        .filter_map(Value::as_i64)
        .collect();
    let path = path.child("values");
    if values.is_empty() {
        errors.invalid(&path, json!([]), "at least one value is required");
    } else if values.len() > 255 {
        errors.too_many(&path, values.len(), 255);
    }
    let mut seen = BTreeSet::new();
    for (i, value) in values.iter().enumerate() {
        if operator == "In" && *value == 0 {
            errors.invalid(&path.index(i), 0, "must not be 0 for the In operator");
        }
        if !seen.insert(value) {
            errors.duplicate(&path.index(i), *value);
        }
    }
    if !values.is_sorted() {
        errors.invalid(&path, doc::get(codes, "values").clone(), "must be ordered");
    }
}

fn success_policy(errors: &mut Errors, spec: &Value, path: &Path) {
    let policy = doc::get(spec, "successPolicy");
    if policy.is_null() {
        return;
    }
    if !is_indexed(spec) {
        errors.invalid(path, policy.clone(), "requires indexed completion mode");
        return;
    }
    let rules = doc::list(policy, "rules");
    let path = path.child("rules");
    if rules.is_empty() {
        errors.required(
            &path,
            "at least one rules must be specified when the successPolicy is specified",
        );
    }
    if rules.len() > 20 {
        errors.too_many(&path, rules.len(), 20);
    }
    let completions = doc::int(spec, "completions").unwrap_or_default();
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        let (count, indexes) = (
            doc::int(rule, "succeededCount"),
            doc::opt_text(rule, "succeededIndexes"),
        );
        if count.is_none() && indexes.is_none() {
            errors.required(
                &path,
                "at least one of succeededCount or succeededIndexes must be specified",
            );
        }
        let mut total = 0;
        if let Some(indexes) = indexes {
            let path = path.child("succeededIndexes");
            if indexes.len() > 64 * 1024 {
                errors.too_long(&path, 64 * 1024);
            }
            match count_indexes(indexes, completions) {
                Ok(found) => total = found,
                Err(complaint) => {
                    errors.invalid(
                        &path,
                        indexes,
                        format!("error parsing succeededIndexes: {complaint}"),
                    );
                }
            }
        }
        errors.nonnegative(rule, "succeededCount", &path);
        let path = path.child("succeededCount");
        if let Some(count) = count.filter(|count| *count > completions) {
            errors.invalid(
                &path,
                count,
                format!("must be less than or equal to {completions} (the number of specified completions)"),
            );
        }
        if let Some(count) = count.filter(|count| indexes.is_some() && *count > total) {
            errors.invalid(
                &path,
                count,
                format!(
                    "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
                ),
            );
        }
    }
}

/// How many indexes a text such as `0,3-5` names, each below `completions`.
fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let index = |text: &str| -> Result<i64, String> {
        let index: i64 = text
            .parse()
            .map_err(|_| format!("cannot convert string to integer for index: \"{text}\""))?;
        if index >= completions {
            Err(format!("too large index: \"{text}\""))
        } else {
            Ok(index)
        }
    };
    let mut last: Option<i64> = None;
    let mut total = 0;
    for interval in text.split(',') {
        let limits: Vec<&str> = interval.split('-').collect();
        let (from, to) = match limits[..] {
            [one] => (index(one)?, index(one)?),
            [from, to] => (index(from)?, index(to)?),
            _ => {
                return Err(format!(
                    "the fragment \"{interval}\" violates the requirement that an index interval can have at most two parts \
                     separated by '-'"
                ));
            }
        };
        if limits.len() == 2 && from >= to {
            return Err(format!(
                "non-increasing order, previous: {from}, current: {to}"
            ));
        }
        if let Some(last) = last.filter(|last| *last >= from) {
            return Err(format!(
                "non-increasing order, previous: {last}, current: {from}"
            ));
        }
        total += to - from + 1;
        last = Some(to);
    }
    Ok(total)
}

/// A Job that replaces an older one.
pub(super) fn job_update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    let (spec, before) = (doc::get(new, "spec"), doc::get(old, "spec"));
    let path = Path::new("spec");
    whole_spec(errors, spec);
    let completions = path.child("completions");
    let (now, then) = (
        doc::get(spec, "completions"),
        doc::get(before, "completions"),
    );
    if !is_indexed(spec) {
        errors.immutable(now, then, &completions);
    } else if now != then && !now.is_null() && now != doc::get(spec, "parallelism") {
        errors.invalid(
            &completions,
            now.clone(),
            "can only be modified in tandem with spec.parallelism",
        );
    }
    errors.immutable(
        doc::get(spec, "selector"),
        doc::get(before, "selector"),
        &path.child("selector"),
    );
    let mut allowed = doc::get(before, "template").clone();
    let never_started = !doc::has(doc::get(old, "status"), "startTime");
    if doc::flag(before, "suspend") && never_started {
        scheduling_may_change(&mut allowed, doc::get(spec, "template"));
    }
    errors.immutable(
        doc::get(spec, "template"),
        &allowed,
        &path.child("template"),
    );
    for key in [
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        errors.immutable(doc::get(spec, key), doc::get(before, key), &path.child(key));
    }
}

/// Until a suspended job starts, a queue may steer where its pods go.
fn scheduling_may_change(allowed: &mut Value, template: &Value) {
    let meta = doc::get(template, "metadata");
    for key in ["labels", "annotations"] {
        doc::copy_field(doc::ensure_object(allowed, "metadata"), meta, key);
    }
    let spec = doc::get(template, "spec");
    let to = doc::ensure_object(allowed, "spec");
    for key in ["nodeSelector", "tolerations", "schedulingGates"] {
        doc::copy_field(to, spec, key);
    }
    let node_affinity = doc::at(spec, &["affinity", "nodeAffinity"]).clone();
    if doc::has(spec, "affinity") {
        let affinity = doc::ensure_object(to, "affinity");
        if node_affinity.is_null() {
            doc::remove(affinity, "nodeAffinity");
        } else {
            doc::set(affinity, "nodeAffinity", node_affinity);
        }
    } else if let Some(affinity) = doc::object_mut(to, "affinity") {
        doc::remove(affinity, "nodeAffinity");
        if doc::is_empty(affinity) {
            doc::remove(to, "affinity");
        }
    }
}

fn is_true(status: &Value, kind: &str) -> bool {
    doc::list(status, "conditions").iter().any(|condition| {
        doc::text(condition, "type") == kind && doc::text(condition, "status") == "True"
    })
}

/// The status of a Job: its counters and conditions make sense together and don't run backwards.
pub(super) fn job_status(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    let (status, before) = (doc::get(new, "status"), doc::get(old, "status"));
    let path = Path::new("status");
    for key in ["active", "succeeded", "failed", "ready", "terminating"] {
        errors.nonnegative(status, key, &path);
    }
    let conditions = path.child("conditions");
    let (complete, failed) = (is_true(status, "Complete"), is_true(status, "Failed"));
    let (target, met) = (
        is_true(status, "FailureTarget"),
        is_true(status, "SuccessCriteriaMet"),
    );
    let finished = complete || failed;
    if complete && failed {
        errors.invalid_whole(
            &conditions,
            "cannot set Complete=True and Failed=true conditions",
        );
    }
    if complete && target {
        errors.invalid_whole(
            &conditions,
            "cannot set Complete=True and FailureTarget=true conditions",
        );
    }
    let completed = doc::get(status, "completionTime");
    if !completed.is_null() && !complete {
        errors.invalid(
            &path.child("completionTime"),
            completed.clone(),
            "cannot set completionTime when there is no Complete=True condition",
        );
    }
    if completed.is_null() && complete {
        errors.required(
            &path.child("completionTime"),
            "completionTime is required for Complete jobs",
        );
    }
    let started = doc::get(status, "startTime");
    if let (Some(start), Some(end)) = (started.as_str(), completed.as_str())
        && end < start
    {
        errors.invalid(
            &path.child("completionTime"),
            end,
            "completionTime cannot be set before startTime",
        );
    }
    if failed && !target {
        errors.invalid_whole(
            &conditions,
            "cannot set Failed=True condition without the FailureTarget=true condition",
        );
    }
    if complete && !met {
        errors.invalid_whole(
            &conditions,
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        );
    }
    let active = doc::int(status, "active").unwrap_or_default();
    if active > 0 && finished {
        errors.invalid(
            &path.child("active"),
            active,
            "active>0 is invalid for finished job",
        );
    }
    if started.is_null() && finished {
        errors.required(
            &path.child("startTime"),
            "startTime is required for finished job",
        );
    }
    let uncounted = doc::get(status, "uncountedTerminatedPods");
    if finished
        && ["succeeded", "failed"]
            .iter()
            .any(|key| !doc::list(uncounted, key).is_empty())
    {
        errors.invalid(
            &path.child("uncountedTerminatedPods"),
            uncounted.clone(),
            "uncountedTerminatedPods needs to be empty for finished job",
        );
    }
    let spec = doc::get(new, "spec");
    indexes_status(errors, spec, status, &path);
    let terminating = doc::int(status, "terminating").unwrap_or_default();
    if terminating > 0 && finished {
        errors.invalid(
            &path.child("terminating"),
            terminating,
            "terminating>0 is invalid for finished job",
        );
    }
    if let Some(ready) = doc::int(status, "ready").filter(|ready| *ready > active) {
        errors.invalid(
            &path.child("ready"),
            ready,
            "cannot set more ready pods than active",
        );
    }
    if met && failed {
        errors.invalid_whole(
            &conditions,
            "cannot set SuccessCriteriaMet=True and Failed=true conditions",
        );
    }
    if met && target {
        errors.invalid_whole(
            &conditions,
            "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        );
    }
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if is_true(before, kind) && !is_true(status, kind) {
            errors.invalid_whole(
                &conditions,
                format!("cannot disable the terminal {kind}=True condition"),
            );
        }
    }
    for key in ["failed", "succeeded"] {
        let now = doc::int(status, key).unwrap_or_default();
        if now < doc::int(before, key).unwrap_or_default() {
            errors.invalid(
                &path.child(key),
                now,
                format!("cannot decrease the {key} counter"),
            );
        }
    }
    let was = doc::get(before, "completionTime");
    if !completed.is_null() && !was.is_null() && completed != was {
        errors.invalid(
            &path.child("completionTime"),
            completed.clone(),
            "completionTime cannot be mutated",
        );
    }
    let was = doc::get(before, "startTime");
    if !was.is_null() && was != started && !doc::flag(spec, "suspend") {
        errors.required(
            &path.child("startTime"),
            "startTime cannot be removed for unsuspended job",
        );
    }
    if is_true(before, "SuccessCriteriaMet") && !met {
        errors.invalid_whole(
            &conditions,
            "cannot disable the SuccessCriteriaMet=True condition",
        );
    }
}

fn indexes_status(errors: &mut Errors, spec: &Value, status: &Value, path: &Path) {
    let completed = doc::text(status, "completedIndexes");
    let failed = doc::opt_text(status, "failedIndexes");
    let per_index = doc::has(spec, "backoffLimitPerIndex");
    if let Some(completions) = doc::int(spec, "completions") {
        if let Err(complaint) = count_indexes(completed, completions) {
            errors.invalid(
                &path.child("completedIndexes"),
                completed,
                format!("error parsing completedIndexes: {complaint}"),
            );
        }
        if let Some(failed) = failed.filter(|_| per_index)
            && let Err(complaint) = count_indexes(failed, completions)
        {
            errors.invalid(
                &path.child("failedIndexes"),
                failed,
                format!("error parsing failedIndexes: {complaint}"),
            );
        }
    }
    if !completed.is_empty() && !is_indexed(spec) {
        errors.invalid(
            &path.child("completedIndexes"),
            completed,
            "cannot set non-empty completedIndexes when non-indexed completion mode",
        );
    }
    if let Some(failed) = failed.filter(|_| !per_index) {
        errors.invalid(
            &path.child("failedIndexes"),
            failed,
            "cannot set non-null failedIndexes when backoffLimitPerIndex is null",
        );
    }
}

/// A CronJob.
pub(super) fn cron_job(errors: &mut Errors, document: &Value) {
    meta::object_meta(errors, document, true, NameForm::Subdomain);
    cron_job_spec(errors, doc::get(document, "spec"), None);
    let name = doc::text(doc::get(document, "metadata"), "name");
    if name.len() > 52 {
        errors.invalid(
            &Path::new("metadata").child("name"),
            name,
            "must be no more than 52 characters",
        );
    }
}

/// A CronJob that replaces an older one.
pub(super) fn cron_job_update(errors: &mut Errors, new: &Value, old: &Value) {
    meta::object_meta_update(errors, new, old);
    cron_job_spec(errors, doc::get(new, "spec"), Some(doc::get(old, "spec")));
}

fn cron_job_spec(errors: &mut Errors, spec: &Value, old: Option<&Value>) {
    let path = Path::new("spec");
    let schedule = doc::text(spec, "schedule");
    let zone = doc::opt_text(spec, "timeZone");
    if schedule.is_empty() {
        errors.required(&path.child("schedule"), "");
    } else {
        let own = path.child("schedule");
        if let Err(complaint) = cron::check(schedule) {
            errors.invalid(&own, schedule, complaint);
        }
        if schedule.contains("TZ") {
            if !old.is_some_and(|old| doc::text(old, "schedule").contains("TZ")) {
                errors.invalid(
                    &own,
                    schedule,
                    "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
                );
            } else if zone.is_some() {
                errors.invalid(
                    &own,
                    schedule,
                    "cannot use both timeZone field and TZ or CRON_TZ in schedule",
                );
            }
        }
    }
    errors.nonnegative(spec, "startingDeadlineSeconds", &path);
    if let Some(zone) =
        zone.filter(|zone| old.is_none_or(|old| doc::opt_text(old, "timeZone") != Some(zone)))
    {
        time_zone(errors, zone, &path.child("timeZone"));
    }
    errors.one_of(
        spec,
        "concurrencyPolicy",
        &path,
        &["Allow", "Forbid", "Replace"],
    );
    let template = path.child("jobTemplate").child("spec");
    let job = doc::at(spec, &["jobTemplate", "spec"]);
    job_spec(errors, job, &template);
    let selector = doc::get(job, "selector");
    if !selector.is_null() {
        errors.invalid(
            &template.child("selector"),
            selector.clone(),
            "`selector` will be auto-generated",
        );
    }
    if doc::flag(job, "manualSelector") {
        errors.not_supported(&template.child("manualSelector"), true, &["nil", "false"]);
    }
    errors.nonnegative(spec, "successfulJobsHistoryLimit", &path);
    errors.nonnegative(spec, "failedJobsHistoryLimit", &path);
}

/// A time zone by its name in the IANA database. Names are checked for their form; whether the database knows them is seen when
/// the zone is used.
fn time_zone(errors: &mut Errors, zone: &str, path: &Path) {
    if zone.is_empty() {
        errors.invalid(path, zone, "timeZone must be nil or non-empty string");
        return;
    }
    let good = |part: &str| {
        !matches!(part, "." | "..")
            && !part.starts_with('-')
            && (1..=14).contains(&part.len())
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+'))
    };
    if !zone.split('/').all(good) {
        errors.invalid(path, zone, format!("unknown time zone {zone}"));
        return;
    }
    if zone.eq_ignore_ascii_case("local") {
        errors.invalid(
            path,
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        );
    }
}
