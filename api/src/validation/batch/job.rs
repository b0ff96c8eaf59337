//! Jobs.

use orlop_core::field::Path;
use serde_json::{Value, json};

use super::is_indexed;
use super::policies::{failure_policy, success_policy};
use crate::doc;
use crate::validation::errors::Errors;
use crate::validation::meta::{self, NameForm};
use crate::validation::pod;
use crate::validation::{labels, names};

/// A Job.
pub(in crate::validation) fn job(errors: &mut Errors, document: &Value) {
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
pub(super) fn job_spec(errors: &mut Errors, spec: &Value, path: &Path) {
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

/// A Job that replaces an older one.
pub(in crate::validation) fn job_update(errors: &mut Errors, new: &Value, old: &Value) {
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
