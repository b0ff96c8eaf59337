//! CertificateSigningRequests: kubelets' are approved, approved ones are signed, old ones are removed.
//!
//! | controller | what it does |
//! |---|---|
//! | [`ApprovingController`] | approves requests of kubelets for their client certificates, if the API lets who asks |
//! | [`SigningController`] | signs what was approved, for the signers that Kubernetes has itself |
//! | [`CleanerController`] | deletes what is done with, or was never looked at |

mod approving;
mod cleaner;
mod signing;
#[cfg(test)]
mod tests;

use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use orlop_core::controller::ReconcileError;
use orlop_core::resource::Resource;
use orlop_wire::pki::CertificateRequest;

pub use self::approving::ApprovingController;
pub use self::cleaner::CleanerController;
pub use self::signing::{Signers, SigningController};

/// The resource.
pub(crate) const REQUESTS: Resource = Resource::cluster(
    "certificates.k8s.io",
    "v1",
    "certificatesigningrequests",
    "CertificateSigningRequest",
);

/// The service account of all three.
const IDENTITY: &str = "certificate-controller";

/// Client certificates for the API.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Client certificates of kubelets.
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Serving certificates of kubelets.
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// Anything, for requests of the first version of the API that named no signer.
const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    let status = request.status.as_ref();
    status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default()
}

/// A condition that holds.
fn condition<'a>(
    request: &'a CertificateSigningRequest,
    kind: &str,
) -> Option<&'a CertificateSigningRequestCondition> {
    conditions(request)
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == "True")
}

fn has_certificate(request: &CertificateSigningRequest) -> bool {
    let status = request.status.as_ref();
    status
        .and_then(|status| status.certificate.as_ref())
        .is_some_and(|certificate| !certificate.0.is_empty())
}

/// What is asked to be certified.
fn parse(request: &CertificateSigningRequest) -> Result<CertificateRequest, ReconcileError> {
    let name = request.metadata.name.as_deref().unwrap_or_default();
    let pem = String::from_utf8_lossy(&request.spec.request.0);
    CertificateRequest::from_pem(&pem)
        .map_err(|error| ReconcileError::other(format!("unable to parse csr {name:?}: {error}")))
}

fn usages(request: &CertificateSigningRequest) -> Vec<&str> {
    let usages = request.spec.usages.iter().flatten();
    usages.map(String::as_str).collect()
}

/// Whether the usages are these, with or without key encipherment, which elliptic keys have no use for.
fn are_usages_of(asked: &[&str], purpose: &str) -> bool {
    let mut rest: Vec<&str> = asked
        .iter()
        .copied()
        .filter(|usage| *usage != "key encipherment")
        .collect();
    rest.sort_unstable();
    rest.dedup();
    let mut wanted = [purpose, "digital signature"];
    wanted.sort_unstable();
    rest == wanted
}

/// Why a request is none of a node's own.
fn check_node(request: &CertificateRequest) -> Result<(), &'static str> {
    if request.organizations != ["system:nodes"] {
        return Err("subject organization is not system:nodes");
    }
    if !request.common_name.starts_with("system:node:") {
        return Err("subject common name does not start with system:node:");
    }
    if !request.email_addresses.is_empty() {
        return Err("Email subjectAltNames are not allowed");
    }
    if !request.uris.is_empty() {
        return Err("URI subjectAltNames are not allowed");
    }
    Ok(())
}

/// Why a request is no kubelet's for its client certificate.
fn check_kubelet_client(request: &CertificateRequest, usages: &[&str]) -> Result<(), String> {
    check_node(request)?;
    if !request.dns_names.is_empty() {
        return Err("DNS subjectAltNames are not allowed".to_owned());
    }
    if !request.ip_addresses.is_empty() {
        return Err("IP subjectAltNames are not allowed".to_owned());
    }
    if !are_usages_of(usages, "client auth") {
        return Err(format!(
            "usages did not match those of a client: {usages:?}"
        ));
    }
    Ok(())
}

/// Why a request is no kubelet's for its serving certificate.
fn check_kubelet_serving(request: &CertificateRequest, usages: &[&str]) -> Result<(), String> {
    check_node(request)?;
    if request.dns_names.is_empty() && request.ip_addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    if !are_usages_of(usages, "server auth") {
        return Err(format!(
            "usages did not match those of a server: {usages:?}"
        ));
    }
    Ok(())
}
