//! The status of a job.

use orlop_core::field::Path;
use serde_json::Value;

use super::is_indexed;
use super::policies::count_indexes;
use crate::doc;
use crate::validation::errors::Errors;
use crate::validation::meta;

fn is_true(status: &Value, kind: &str) -> bool {
    doc::list(status, "conditions").iter().any(|condition| {
        doc::text(condition, "type") == kind && doc::text(condition, "status") == "True"
    })
}

/// The status of a Job: its counters and conditions make sense together and don't run backwards.
pub(in crate::validation) fn job_status(errors: &mut Errors, new: &Value, old: &Value) {
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
