//! Jobs and CronJobs.

pub(super) mod cron;
mod cron_job;
mod job;
mod policies;
mod status;

pub(super) use cron_job::{cron_job, cron_job_update};
pub(super) use job::{job, job_update};
pub(super) use status::job_status;

use serde_json::Value;

use crate::doc;

/// Whether the pods of a job have an index each.
fn is_indexed(spec: &Value) -> bool {
    doc::text(spec, "completionMode") == "Indexed"
}
