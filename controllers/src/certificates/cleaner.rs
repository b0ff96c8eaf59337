//! Removes requests that nobody will look at any more.

use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use orlop_core::client::DeleteOptions;
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop_core::object::ObjectKey;
use orlop_wire::pki::CertificateIdentity;

use super::{IDENTITY, REQUESTS, conditions};

/// How long an answered, denied or failed request is kept.
const ANSWERED: SignedDuration = SignedDuration::from_hours(1);
/// How long a request waits for a decision.
const PENDING: SignedDuration = SignedDuration::from_hours(24);

/// Deletes requests an hour after they were answered, denied or failed, a day after they were made when nobody decided, and when their
/// certificates have expired.
#[derive(Clone, Copy, Debug, Default)]
pub struct CleanerController;

impl CleanerController {
    /// The controller.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

/// When a request has to go.
fn due(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let certificate = request
        .status
        .as_ref()
        .and_then(|status| status.certificate.as_ref())
        .filter(|certificate| !certificate.0.is_empty());
    let conditions = conditions(request);
    let mut dues = Vec::new();
    if conditions.is_empty() {
        let made = request.metadata.creation_timestamp.as_ref();
        dues.extend(made.and_then(|made| made.0.checked_add(PENDING).ok()));
    }
    for condition in conditions {
        let over = match condition.type_.as_str() {
            "Approved" => certificate.is_some(),
            "Denied" | "Failed" => true,
            _ => false,
        };
        let since = condition.last_update_time.as_ref().filter(|_| over);
        dues.extend(since.and_then(|since| since.0.checked_add(ANSWERED).ok()));
    }
    let pem = certificate.map(|certificate| String::from_utf8_lossy(&certificate.0));
    let expires = pem.and_then(|pem| CertificateIdentity::from_pem(&pem).ok());
    dues.extend(expires.map(|identity| identity.not_after));
    dues.into_iter().min()
}

#[async_trait]
impl Controller for CleanerController {
    fn name(&self) -> &str {
        "certificatesigningrequest-cleaner-controller"
    }

    fn identity(&self) -> &str {
        IDENTITY
    }

    fn interests(&self) -> Interests {
        Interests::new().for_each(REQUESTS)
    }

    async fn reconcile(&self, ctx: &Context, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let Some(object) = ctx.store(&REQUESTS).get(key) else {
            return Ok(Action::Done);
        };
        let Some(due) = due(&*object.decode::<CertificateSigningRequest>()?) else {
            return Ok(Action::Done);
        };
        let now = ctx.env().wall();
        if now < due {
            let wait = due.duration_since(now).unsigned_abs();
            return Ok(Action::RequeueAfter(wait.max(Duration::from_secs(1))));
        }
        let options = DeleteOptions {
            uid: Some(object.uid().to_owned()),
            ..DeleteOptions::default()
        };
        let requests = ctx.client().resource(&REQUESTS);
        match requests.delete(&key.name, options).await {
            Err(status) if !status.is_not_found() && !status.is_conflict() => Err(status.into()),
            _ => Ok(Action::Done),
        }
    }
}
