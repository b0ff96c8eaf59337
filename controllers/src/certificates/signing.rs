//! Signs what was approved.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop_core::object::ObjectKey;
use orlop_wire::pki::{CertificateAuthority, CertificateRequest};
use serde_json::{Value, json};

use super::{
    CLIENT, IDENTITY, KUBELET_CLIENT, KUBELET_SERVING, LEGACY_UNKNOWN, REQUESTS,
    check_kubelet_client, check_kubelet_serving, condition, has_certificate, parse, usages,
};

/// How long certificates are good that ask for no time, or a longer one (`--cluster-signing-duration`).
const DURATION: Duration = Duration::from_secs(365 * 24 * 3600);
/// The shortest time that anybody gets.
const SHORTEST: Duration = Duration::from_secs(600);

/// The authority of each of Kubernetes' own signers. A signer without one leaves its requests to somebody else.
#[derive(Clone, Default)]
pub struct Signers {
    by_name: BTreeMap<&'static str, Arc<CertificateAuthority>>,
    duration: Option<Duration>,
}

impl fmt::Debug for Signers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signers")
            .field("names", &self.by_name.keys())
            .finish_non_exhaustive()
    }
}

impl Signers {
    /// One authority for all signers (`--cluster-signing-cert-file`).
    #[must_use]
    pub fn all(authority: Arc<CertificateAuthority>) -> Self {
        Self::default()
            .clients(authority.clone())
            .kubelet_clients(authority.clone())
            .kubelet_serving(authority.clone())
            .legacy_unknown(authority)
    }

    /// The authority of `kubernetes.io/kube-apiserver-client`.
    #[must_use]
    pub fn clients(mut self, authority: Arc<CertificateAuthority>) -> Self {
        self.by_name.insert(CLIENT, authority);
        self
    }

    /// The authority of `kubernetes.io/kube-apiserver-client-kubelet`.
    #[must_use]
    pub fn kubelet_clients(mut self, authority: Arc<CertificateAuthority>) -> Self {
        self.by_name.insert(KUBELET_CLIENT, authority);
        self
    }

    /// The authority of `kubernetes.io/kubelet-serving`.
    #[must_use]
    pub fn kubelet_serving(mut self, authority: Arc<CertificateAuthority>) -> Self {
        self.by_name.insert(KUBELET_SERVING, authority);
        self
    }

    /// The authority of `kubernetes.io/legacy-unknown`.
    #[must_use]
    pub fn legacy_unknown(mut self, authority: Arc<CertificateAuthority>) -> Self {
        self.by_name.insert(LEGACY_UNKNOWN, authority);
        self
    }

    /// How long certificates are good that ask for no time, or a longer one. A year by default.
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = Some(duration);
        self
    }

    /// How long a certificate is good for which somebody asked for so many seconds.
    fn validity(&self, asked: Option<i32>) -> Duration {
        let limit = self.duration.unwrap_or(DURATION);
        match asked.and_then(|seconds| u64::try_from(seconds).ok()) {
            Some(seconds) => Duration::from_secs(seconds).max(SHORTEST).min(limit),
            None => limit,
        }
    }
}

/// Signs approved requests to Kubernetes' own signers; what a signer does not sign fails.
#[derive(Clone, Debug)]
pub struct SigningController {
    signers: Signers,
}

impl SigningController {
    /// The controller.
    #[must_use]
    pub fn new(signers: Signers) -> Self {
        Self { signers }
    }
}

/// Why a signer does not sign a request.
fn check(signer: &str, request: &CertificateRequest, usages: &[&str]) -> Result<(), String> {
    match signer {
        CLIENT => {
            let known = ["client auth", "digital signature", "key encipherment"];
            if let Some(other) = usages.iter().find(|usage| !known.contains(usage)) {
                return Err(format!("invalid usage for client certificate: {other}"));
            }
            if !usages.contains(&"client auth") {
                return Err("missing required usage for client certificate: client auth".to_owned());
            }
            Ok(())
        }
        KUBELET_CLIENT => check_kubelet_client(request, usages),
        KUBELET_SERVING => check_kubelet_serving(request, usages),
        _ => Ok(()),
    }
}

#[async_trait]
impl Controller for SigningController {
    fn name(&self) -> &str {
        "certificatesigningrequest-signing-controller"
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
        let request = object.decode::<CertificateSigningRequest>()?;
        let signer = request.spec.signer_name.as_str();
        let Some(authority) = self.signers.by_name.get(signer) else {
            return Ok(Action::Done);
        };
        if has_certificate(&request)
            || condition(&request, "Approved").is_none()
            || condition(&request, "Denied").is_some()
            || condition(&request, "Failed").is_some()
        {
            return Ok(Action::Done);
        }
        let asked = parse(&request)?;
        let usages = usages(&request);
        let mut answered = (*object.value()?).clone();
        match check(signer, &asked, &usages) {
            Err(why) => {
                let failure = json!({
                    "type": "Failed", "status": "True",
                    "reason": "SignerValidationFailure", "message": why,
                });
                if let Some(conditions) = answered["status"]["conditions"].as_array_mut() {
                    conditions.push(failure);
                }
            }
            Ok(()) => {
                let validity = self.signers.validity(request.spec.expiration_seconds);
                let certificate = authority
                    .sign_request(&asked, usages, ctx.env().wall(), validity)
                    .map_err(|error| {
                        ReconcileError::other(format!("error auto signing csr: {error}"))
                    })?;
                let bytes = ByteString(certificate.into_bytes());
                answered["status"]["certificate"] =
                    serde_json::to_value(bytes).unwrap_or(Value::Null);
            }
        }
        let requests = ctx.client().resource(&REQUESTS);
        match requests.update_status(&answered).await {
            Err(status) if !status.is_not_found() => Err(status.into()),
            _ => Ok(Action::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_more_time_than_there_is() {
        let signers = Signers::default().duration(Duration::from_secs(7200));
        for (asked, got) in [
            (None, 7200),
            (Some(3600), 3600),
            (Some(10), 600),
            (Some(90_000), 7200),
            (Some(-1), 7200),
        ] {
            assert_eq!(signers.validity(asked), Duration::from_secs(got));
        }
        assert_eq!(Signers::default().validity(None), DURATION);
    }
}
