//! When a job has failed, and when it has succeeded.

use std::collections::BTreeSet;

use orlop_core::field::Path;
use serde_json::{Value, json};

use super::is_indexed;
use crate::doc;
use crate::validation::errors::Errors;
use crate::validation::names;

pub(super) fn failure_policy(errors: &mut Errors, spec: &Value, path: &Path) {
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

pub(super) fn success_policy(errors: &mut Errors, spec: &Value, path: &Path) {
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
pub(super) fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
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
