//! Certificate signing requests: who may approve and sign for a signer, and what no signer gives out.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest};
use orlop_core::auth::{Attributes, Authorizer, Decision, SYSTEM_MASTERS, UserInfo};
use orlop_core::field::quote;
use orlop_core::status::Status;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::Context;
use crate::names::text_at;

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "certificatesigningrequests";

/// Whether a user holds a verb on a signer, by its name or that of all signers of its domain.
async fn may(authorizer: &dyn Authorizer, user: &UserInfo, verb: &str, signer: &str) -> bool {
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    for name in [signer, &format!("{domain}/*")] {
        let attributes = Attributes::resource(user, verb, GROUP, "signers", "", name);
        if matches!(authorizer.authorize(&attributes).await, Decision::Allow(_)) {
            return true;
        }
    }
    false
}

fn is_subresource(request: &AdmissionRequest, subresource: &str) -> bool {
    request.resource.group == GROUP
        && request.resource.plural == PLURAL
        && request.subresource == subresource
}

/// Lets those approve a request who hold `approve` on its signer.
pub struct CertificateApproval {
    authorizer: Arc<dyn Authorizer>,
}

impl CertificateApproval {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            authorizer: context.authorizer.clone(),
        }
    }
}

#[async_trait]
impl AdmissionPlugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        operation == AdmissionOperation::Update
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let signer = text_at(&request.old_object, "/spec/signerName");
        if !is_subresource(request, "approval")
            || may(&*self.authorizer, &request.user, "approve", signer).await
        {
            return Ok(());
        }
        let why = format!(
            "user not permitted to approve requests with signerName {}",
            quote(signer)
        );
        Err(request.forbidden(&why))
    }
}

/// Lets those issue the certificate of a request, or say that it failed, who hold `sign` on its signer.
pub struct CertificateSigning {
    authorizer: Arc<dyn Authorizer>,
}

impl CertificateSigning {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            authorizer: context.authorizer.clone(),
        }
    }
}

#[async_trait]
impl AdmissionPlugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        operation == AdmissionOperation::Update
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let same = |pointer: &str| {
            let part = |object: &Value| {
                object
                    .pointer(pointer)
                    .filter(|value| !value.is_null())
                    .cloned()
            };
            part(&request.object) == part(&request.old_object)
        };
        let signer = text_at(&request.old_object, "/spec/signerName");
        if !is_subresource(request, "status")
            || same("/status/certificate") && same("/status/conditions")
            || may(&*self.authorizer, &request.user, "sign", signer).await
        {
            return Ok(());
        }
        let why = format!(
            "user not permitted to sign requests with signerName {}",
            quote(signer)
        );
        Err(request.forbidden(&why))
    }
}

/// Refuses requests to the signer of client certificates that would make somebody a member of `system:masters`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CertificateSubjectRestriction;

/// Who a request is about.
pub(super) struct Subject {
    /// The common name; empty without one.
    pub(super) common_name: String,
    /// The organisations.
    organizations: Vec<String>,
}

/// The subject of a PEM encoded request, itself in base64 as JSON has it.
pub(super) fn subject(encoded: &str) -> Result<Subject, String> {
    let pem = STANDARD
        .decode(encoded)
        .map_err(|error| error.to_string())?;
    let pem = String::from_utf8(pem).map_err(|error| error.to_string())?;
    let body: Option<String> = pem
        .split_once("-----BEGIN CERTIFICATE REQUEST-----")
        .and_then(|(_, rest)| rest.split_once("-----END CERTIFICATE REQUEST-----"))
        .map(|(body, _)| body.split_whitespace().collect());
    let body = body.ok_or("PEM block type must be CERTIFICATE REQUEST")?;
    let der = STANDARD.decode(body).map_err(|error| error.to_string())?;
    let (_, request) =
        X509CertificationRequest::from_der(&der).map_err(|error| error.to_string())?;
    let subject = &request.certification_request_info.subject;
    let texts = |names: &mut dyn Iterator<Item = &x509_parser::x509::AttributeTypeAndValue<'_>>| {
        let texts = names.filter_map(|name| name.as_str().ok());
        texts.map(str::to_owned).collect::<Vec<_>>()
    };
    let common_names = texts(&mut subject.iter_common_name());
    Ok(Subject {
        // Of several, the last one counts: so does Go.
        common_name: common_names.into_iter().last().unwrap_or_default(),
        organizations: texts(&mut subject.iter_organization()),
    })
}

#[async_trait]
impl AdmissionPlugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        operation == AdmissionOperation::Create
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), Status> {
        const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
        if !request.is(GROUP, PLURAL) || text_at(&request.object, "/spec/signerName") != SIGNER {
            return Ok(());
        }
        let subject = subject(text_at(&request.object, "/spec/request"))
            .map_err(|error| request.forbidden(&format!("failed to parse CSR: {error}")))?;
        if subject
            .organizations
            .iter()
            .any(|organization| organization == SYSTEM_MASTERS)
        {
            return Err(request.forbidden(&format!(
                "use of {SIGNER} signer with {SYSTEM_MASTERS} group is not allowed"
            )));
        }
        Ok(())
    }
}
