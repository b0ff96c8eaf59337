//! CronJobs.

use orlop_core::field::Path;
use serde_json::Value;

use super::cron;
use super::job::job_spec;
use crate::doc;
use crate::validation::errors::Errors;
use crate::validation::meta::{self, NameForm};

/// A CronJob.
pub(in crate::validation) fn cron_job(errors: &mut Errors, document: &Value) {
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
pub(in crate::validation) fn cron_job_update(errors: &mut Errors, new: &Value, old: &Value) {
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
