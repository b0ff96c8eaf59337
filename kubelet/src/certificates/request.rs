//! One certificate, asked for by a CertificateSigningRequest.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use orlop_core::client::{Client, WatchEvent, WatchOptions};
use orlop_core::env::Env;
use orlop_core::object::Object;
use orlop_core::resource::Resource;
use orlop_core::status::Status;
use orlop_wire::pki::{CertificateIdentity, CertificateRequest, KeyAndCertificate, SubjectName};
use serde_json::json;

use super::CertificateError;

const REQUESTS: Resource = Resource::cluster(
    "certificates.k8s.io",
    "v1",
    "certificatesigningrequests",
    "CertificateSigningRequest",
);
/// How long to wait for an administrator or a controller.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How long to wait before watching again.
const PAUSE: Duration = Duration::from_secs(1);

/// What a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Being a client of the API server, as `system:node:<name>`.
    Client,
    /// Serving the node agent's API, under these names.
    Serving(Vec<SubjectName>),
}

impl Purpose {
    fn signer(&self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Serving(_) => "kubernetes.io/kubelet-serving",
        }
    }

    fn usages(&self) -> [&'static str; 2] {
        // No key encipherment: the keys are of elliptic curves.
        match self {
            Self::Client => ["digital signature", "client auth"],
            Self::Serving(_) => ["digital signature", "server auth"],
        }
    }
}

/// Makes a key, asks for its certificate, and waits until it is approved and issued, for at most a quarter of an hour.
///
/// # Errors
/// [`CertificateError::Refused`] when it is denied or fails, [`CertificateError::Api`], [`CertificateError::Late`].
pub async fn request(
    env: &Env,
    client: &Arc<dyn Client>,
    node_name: &str,
    purpose: &Purpose,
) -> Result<KeyAndCertificate, CertificateError> {
    let names = match purpose {
        Purpose::Client => Vec::new(),
        Purpose::Serving(names) => names.clone(),
    };
    let user = format!("system:node:{node_name}");
    let (text, key) = CertificateRequest::create(&user, Some("system:nodes"), names)?;
    let requests = client.resource(&REQUESTS);
    let body = json!({
        "metadata": {"generateName": "csr-"},
        "spec": {
            "request": STANDARD.encode(text),
            "signerName": purpose.signer(),
            "usages": purpose.usages(),
        },
    });
    let made = requests
        .create(&body)
        .await
        .map_err(CertificateError::api)?;
    let name = made.name().to_owned();
    tracing::info!(
        name,
        signer = purpose.signer(),
        "certificate signing request was created, waiting"
    );
    let certificate = env
        .timeout(PATIENCE, issued(env, client, &name))
        .await
        .map_err(|_| CertificateError::Late(name.clone()))??;
    let pair = KeyAndCertificate { certificate, key };
    CertificateIdentity::from_pem(&pair.certificate)?;
    Ok(pair)
}

/// Waits for the certificate of a request.
async fn issued(
    env: &Env,
    client: &Arc<dyn Client>,
    name: &str,
) -> Result<String, CertificateError> {
    loop {
        let options = WatchOptions {
            field_selector: format!("metadata.name={name}"),
            ..WatchOptions::default()
        };
        match client.resource(&REQUESTS).watch(options).await {
            Ok(mut changes) => {
                while let Some(Ok(change)) = changes.next().await {
                    match change {
                        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                            if let Some(done) = outcome(&object) {
                                return done;
                            }
                        }
                        WatchEvent::Deleted(_) => {
                            return Err(CertificateError::Refused(format!(
                                "certificate signing request {name} was deleted"
                            )));
                        }
                        WatchEvent::Bookmark { .. } => {}
                    }
                }
            }
            Err(status) => {
                tracing::warn!(name, error = %status, "cannot watch a certificate signing request")
            }
        }
        env.sleep(PAUSE).await;
    }
}

/// What became of a request, if it is decided.
fn outcome(object: &Object) -> Option<Result<String, CertificateError>> {
    let value = object.value().ok()?;
    let status = &value["status"];
    let conditions = status["conditions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut approved = false;
    for condition in conditions {
        let text = |field: &str| condition[field].as_str().unwrap_or_default();
        let what = match text("type") {
            "Approved" => {
                approved = true;
                continue;
            }
            "Denied" => "is denied",
            "Failed" => "failed",
            _ => continue,
        };
        return Some(Err(CertificateError::Refused(format!(
            "certificate signing request {} {what}, reason: {:?}, message: {:?}",
            object.name(),
            text("reason"),
            text("message")
        ))));
    }
    let certificate = status["certificate"]
        .as_str()
        .filter(|text| approved && !text.is_empty())?;
    let decoded = STANDARD
        .decode(certificate)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    Some(decoded.ok_or_else(|| {
        CertificateError::api(Status::internal(
            "the server issued a certificate that is no PEM",
        ))
    }))
}
