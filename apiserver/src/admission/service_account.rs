//! Every pod has a service account, and a way to reach the API with it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orlop_core::admission::{AdmissionOperation, AdmissionPlugin, AdmissionRequest, ObjectReader};
use orlop_core::env::Env;
use orlop_core::field::quote;
use orlop_core::object::Object;
use orlop_core::status::Status;
use serde_json::{Value, json};

use super::{Context, list_mut};
use crate::names::{SERVICE_ACCOUNTS, list_at, text_at, text_field};
use crate::pod_references as references;

const DEFAULT: &str = "default";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// The seven seconds over the hour tell the token issuer that nobody asked for just this.
const TOKEN_SECONDS: i64 = 3607;
/// How often the default service account is waited for, which a controller makes soon after its namespace.
const DEFAULT_ATTEMPTS: u32 = 10;

/// Fills in a pod's service account, its pull secrets and the volume with its token; refuses pods whose account is not there.
pub struct ServiceAccount {
    reader: Arc<dyn ObjectReader>,
    env: Env,
}

impl ServiceAccount {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            reader: context.reader.clone(),
            env: context.env.clone(),
        }
    }

    async fn account(&self, request: &AdmissionRequest) -> Result<Object, Status> {
        let name = text_at(&request.object, "/spec/serviceAccountName");
        let namespace = &request.namespace;
        let lookup = async {
            if let Some(account) = self.reader.get(&SERVICE_ACCOUNTS, namespace, name).await? {
                return Ok(Some(account));
            }
            let attempts = if name == DEFAULT { DEFAULT_ATTEMPTS } else { 1 };
            let pause = Duration::from_millis(100 + self.env.random_below(100));
            for attempt in 0..attempts {
                if attempt > 0 {
                    self.env.sleep(pause).await;
                }
                if let Some(account) = self
                    .reader
                    .get_live(&SERVICE_ACCOUNTS, namespace, name)
                    .await?
                {
                    return Ok(Some(account));
                }
            }
            Ok(None)
        };
        let why = match lookup.await {
            Ok(Some(account)) => return Ok(account),
            Ok(None) => format!("serviceaccount {} not found", quote(name)),
            Err(Status { message, .. }) => message,
        };
        Err(request.forbidden(&format!(
            "error looking up service account {namespace}/{name}: {why}"
        )))
    }

    /// Mounts the token into every container that has nothing at its place.
    fn mount(&self, pod: &mut Value) {
        let known = list_at(pod, "/spec/volumes")
            .iter()
            .map(|volume| text_field(volume, "name"));
        let known = known
            .into_iter()
            .find(|name| name.starts_with(VOLUME_PREFIX))
            .map(str::to_owned);
        let is_there = known.is_some();
        let volume = known.unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", self.env.name_suffix(5)));
        let mount = json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH});
        let mut needed = false;
        for kind in ["initContainers", "containers"] {
            let Some(containers) = pod
                .pointer_mut(&format!("/spec/{kind}"))
                .and_then(Value::as_array_mut)
            else {
                continue;
            };
            for container in containers {
                let mounts = list_at(container, "/volumeMounts");
                if mounts
                    .iter()
                    .any(|mount| text_field(mount, "mountPath") == MOUNT_PATH)
                {
                    continue;
                }
                if let Some(mounts) = list_mut(container, &["volumeMounts"]) {
                    mounts.push(mount.clone());
                    needed = true;
                }
            }
        }
        if needed
            && !is_there
            && let Some(volumes) = list_mut(pod, &["spec", "volumes"])
        {
            volumes.push(json!({
                "name": volume,
                "projected": {
                    "defaultMode": 0o644,
                    "sources": [
                        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
                        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                        {"downwardAPI": {"items": [
                            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
                        ]}},
                    ],
                },
            }));
        }
    }
}

fn ignores(request: &AdmissionRequest) -> bool {
    let is_pod = request.resource.group.is_empty() && request.resource.plural == "pods";
    !is_pod
        || !matches!(request.subresource.as_str(), "" | "ephemeralcontainers")
        || !request.object.is_object()
}

fn automounts(account: &Value, pod: &Value) -> bool {
    let said = |value: Option<&Value>| value.and_then(Value::as_bool);
    said(pod.pointer("/spec/automountServiceAccountToken"))
        .or(said(account.get("automountServiceAccountToken")))
        .unwrap_or(true)
}

/// What a mirror pod must not do: its node would get at what it has no right to.
fn check_mirror(pod: &Value) -> Result<(), &'static str> {
    if !text_at(pod, "/spec/serviceAccountName").is_empty() {
        return Err("a mirror pod may not reference service accounts");
    }
    if references::secrets(pod).next().is_some() {
        return Err("a mirror pod may not reference secrets");
    }
    let mut projections = list_at(pod, "/spec/volumes")
        .iter()
        .flat_map(|volume| list_at(volume, "/projected/sources"));
    if projections.any(|source| {
        source
            .get("serviceAccountToken")
            .is_some_and(Value::is_object)
    }) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

/// Whether the account lets its pods use its own secrets only, as a Go program reads a boolean.
fn limits_secrets(account: &Object) -> bool {
    let annotation = account
        .metadata()
        .annotations
        .get("kubernetes.io/enforce-mountable-secrets");
    annotation
        .is_some_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// Checks the secrets that containers take into their environment. `what` is how messages call such a container.
fn check_environment(
    containers: &[Value],
    what: &str,
    allowed: &dyn Fn(&str) -> bool,
    account: &str,
) -> Result<(), String> {
    let rest = |name: &str| {
        format!(
            "referencing secret.secretName=\"{name}\" is not allowed because service account {account} does not reference that secret"
        )
    };
    for container in containers {
        let own = text_field(container, "name");
        for env in list_at(container, "/env") {
            let secret = text_at(env, "/valueFrom/secretKeyRef/name");
            if env
                .pointer("/valueFrom/secretKeyRef")
                .is_some_and(Value::is_object)
                && !allowed(secret)
            {
                return Err(format!(
                    "{what} {own} with envVar {} {}",
                    text_field(env, "name"),
                    rest(secret)
                ));
            }
        }
        for source in list_at(container, "/envFrom") {
            let secret = text_at(source, "/secretRef/name");
            if source.get("secretRef").is_some_and(Value::is_object) && !allowed(secret) {
                return Err(format!("{what} {own} with envFrom {}", rest(secret)));
            }
        }
    }
    Ok(())
}

/// Checks that a pod uses the secrets of its account only.
fn check_secrets(account: &Object, pod: &Value, ephemeral_only: bool) -> Result<(), String> {
    let value = account.value().map_err(|error| error.to_string())?;
    let names = |list: &'static str| {
        let value = value.clone();
        move |name: &str| {
            list_at(&value, list)
                .iter()
                .any(|known| text_field(known, "name") == name)
        }
    };
    let (mountable, pullable) = (names("/secrets"), names("/imagePullSecrets"));
    let account = account.name();
    if ephemeral_only {
        return check_environment(
            list_at(pod, "/spec/ephemeralContainers"),
            "ephemeral container",
            &mountable,
            account,
        );
    }
    for volume in list_at(pod, "/spec/volumes") {
        let secret = text_at(volume, "/secret/secretName");
        if volume.get("secret").is_some_and(Value::is_object) && !mountable(secret) {
            return Err(format!(
                "volume with secret.secretName=\"{secret}\" is not allowed because service account {account} does not reference that secret"
            ));
        }
    }
    check_environment(
        list_at(pod, "/spec/initContainers"),
        "init container",
        &mountable,
        account,
    )?;
    check_environment(
        list_at(pod, "/spec/containers"),
        "container",
        &mountable,
        account,
    )?;
    for (at, reference) in list_at(pod, "/spec/imagePullSecrets").iter().enumerate() {
        let name = text_field(reference, "name");
        if !pullable(name) {
            return Err(format!(
                "imagePullSecrets[{at}].name=\"{name}\" is not allowed because service account {account} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

#[async_trait]
impl AdmissionPlugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, operation: AdmissionOperation) -> bool {
        matches!(
            operation,
            AdmissionOperation::Create | AdmissionOperation::Update
        )
    }

    async fn admit(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        if ignores(request) || request.operation != AdmissionOperation::Create {
            return Ok(());
        }
        if references::is_mirror(&request.object) {
            return check_mirror(&request.object).map_err(|why| request.forbidden(why));
        }
        if text_at(&request.object, "/spec/serviceAccountName").is_empty()
            && let Some(spec) = super::map_at(&mut request.object, &["spec"])
        {
            spec.insert("serviceAccountName".to_owned(), json!(DEFAULT));
            // The older name of the same field.
            spec.insert("serviceAccount".to_owned(), json!(DEFAULT));
        }
        let account = self.account(request).await?;
        let value = account.value().map_err(Status::internal)?;
        if automounts(&value, &request.object) {
            self.mount(&mut request.object);
        }
        let pull = list_at(&value, "/imagePullSecrets");
        if !pull.is_empty()
            && list_at(&request.object, "/spec/imagePullSecrets").is_empty()
            && let Some(secrets) = list_mut(&mut request.object, &["spec", "imagePullSecrets"])
        {
            secrets.extend(
                pull.iter()
                    .map(|reference| json!({"name": text_field(reference, "name")})),
            );
        }
        Ok(())
    }

    async fn validate(&self, request: &AdmissionRequest) -> Result<(), Status> {
        if ignores(request) {
            return Ok(());
        }
        let ephemeral = request.operation == AdmissionOperation::Update
            && request.subresource == "ephemeralcontainers";
        if request.operation != AdmissionOperation::Create && !ephemeral {
            return Ok(());
        }
        if references::is_mirror(&request.object) {
            return check_mirror(&request.object).map_err(|why| request.forbidden(why));
        }
        if text_at(&request.object, "/spec/serviceAccountName").is_empty() {
            let why = format!(
                "no service account specified for pod {}/{}",
                request.namespace, request.name
            );
            return Err(request.forbidden(&why));
        }
        let account = self.account(request).await?;
        if limits_secrets(&account) {
            check_secrets(&account, &request.object, ephemeral)
                .map_err(|why| request.forbidden(&why))?;
        }
        Ok(())
    }
}
