//! Approves what kubelets ask for themselves.

use async_trait::async_trait;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use orlop_core::controller::{Action, Context, Controller, Interests, ReconcileError};
use orlop_core::object::ObjectKey;
use orlop_core::resource::Resource;
use serde_json::json;

use super::{
    IDENTITY, KUBELET_CLIENT, REQUESTS, check_kubelet_client, condition, has_certificate, parse,
    usages,
};

const REVIEWS: Resource = Resource::cluster(
    "authorization.k8s.io",
    "v1",
    "subjectaccessreviews",
    "SubjectAccessReview",
);

/// A permission with which a request is approved.
struct Permission {
    /// The subresource that who asks must be let create.
    subresource: &'static str,
    /// The message of the approval.
    message: &'static str,
    /// Whether it is good only for who asks for themselves.
    own: bool,
}

const PERMISSIONS: [Permission; 2] = [
    Permission {
        subresource: "selfnodeclient",
        message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
        own: true,
    },
    Permission {
        subresource: "nodeclient",
        message: "Auto approving kubelet client certificate after SubjectAccessReview.",
        own: false,
    },
];

/// Approves requests for client certificates of kubelets, from who may create `certificatesigningrequests/nodeclient`, or
/// `…/selfnodeclient` for the node that asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct ApprovingController;

impl ApprovingController {
    /// The controller.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

/// Whether who asks has a permission.
async fn may(
    ctx: &Context,
    request: &CertificateSigningRequest,
    permission: &Permission,
) -> Result<bool, ReconcileError> {
    let spec = &request.spec;
    let review = json!({"spec": {
        "user": spec.username, "uid": spec.uid, "groups": spec.groups, "extra": spec.extra,
        "resourceAttributes": {
            "group": REQUESTS.group, "resource": REQUESTS.plural, "verb": "create",
            "subresource": permission.subresource, "version": "*",
        },
    }});
    let answer = ctx.client().resource(&REVIEWS).create(&review).await?;
    Ok(answer.value()?["status"]["allowed"] == true)
}

#[async_trait]
impl Controller for ApprovingController {
    fn name(&self) -> &str {
        "certificatesigningrequest-approving-controller"
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
        if has_certificate(&request)
            || condition(&request, "Approved").is_some()
            || condition(&request, "Denied").is_some()
            || request.spec.signer_name != KUBELET_CLIENT
        {
            return Ok(Action::Done);
        }
        let asked = parse(&request)?;
        if check_kubelet_client(&asked, &usages(&request)).is_err() {
            return Ok(Action::Done);
        }
        let own = request.spec.username.as_deref() == Some(asked.common_name.as_str());
        let mut tried = Vec::new();
        for permission in PERMISSIONS.iter().filter(|known| own || !known.own) {
            tried.push(permission.subresource);
            if !may(ctx, &request, permission).await? {
                continue;
            }
            let mut approved = (*object.value()?).clone();
            let approval = json!({
                "type": "Approved", "status": "True",
                "reason": "AutoApproved", "message": permission.message,
            });
            match approved["status"]["conditions"].as_array_mut() {
                Some(conditions) => conditions.push(approval),
                None => approved["status"]["conditions"] = json!([approval]),
            }
            let requests = ctx.client().resource(&REQUESTS);
            requests.update_at(Some("approval"), &approved).await?;
            return Ok(Action::Done);
        }
        // The permission may come yet.
        Err(ReconcileError::other(format!(
            "recognized csr {:?} as {tried:?} but subject access review was not approved",
            key.name
        )))
    }
}
