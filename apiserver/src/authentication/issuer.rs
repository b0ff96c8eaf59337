//! Issuing service account tokens: the `token` subresource of service accounts.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use orlop_core::admission::ObjectReader;
use orlop_core::env::Env;
use orlop_core::field::{FieldError, Path, quote};
use orlop_core::object::Object;
use orlop_core::resource::{Resource, split_api_version};
use orlop_core::status::Status;
use serde_json::{Value, json};

use super::jwt::{self, Claims, Private, Reference};
use super::keys::SigningKey;
use crate::names::{NODES, PODS, SECRETS, SERVICE_ACCOUNTS, text_at, text_field};

const GROUP: &str = "authentication.k8s.io";
const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// The seconds that the volume of a pod asks for. Such a token lives a year and warns after its hour: clients that never read their
/// token again go on working.
const PROJECTED_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// Signs tokens for service accounts.
pub struct TokenIssuer {
    issuer: String,
    key: SigningKey,
    audiences: Vec<String>,
    max_seconds: i64,
    extend: bool,
    reader: Arc<dyn ObjectReader>,
    env: Env,
}

/// What a `TokenRequest` is answered with.
#[derive(Debug)]
pub struct IssuedToken {
    /// The `TokenRequest` with its status.
    pub body: Value,
    /// Warnings for the client.
    pub warnings: Vec<String>,
    /// `JTI=…`, for the audit log.
    pub credential_id: String,
}

impl TokenIssuer {
    /// An issuer with a name (an URL), its key, and the audiences of a token whose request names none.
    #[must_use]
    pub fn new(
        issuer: String,
        key: SigningKey,
        audiences: Vec<String>,
        reader: Arc<dyn ObjectReader>,
        env: Env,
    ) -> Self {
        Self {
            issuer,
            key,
            audiences,
            max_seconds: 0,
            extend: true,
            reader,
            env,
        }
    }

    /// The longest life of a token in seconds, zero for no limit (`--service-account-max-token-expiration`).
    #[must_use]
    pub fn max_seconds(mut self, seconds: i64) -> Self {
        self.max_seconds = seconds;
        self
    }

    /// Whether the tokens of pods live longer than they say (`--service-account-extend-token-expiration`, the default).
    #[must_use]
    pub fn extend(mut self, extend: bool) -> Self {
        self.extend = extend;
        self
    }

    /// The name of the issuer.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The key that signs.
    #[must_use]
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Answers a `TokenRequest` for a service account.
    ///
    /// # Errors
    /// 404 when the service account or the bound object is not there, 422 for a bad request, 400 when it cannot be bound to the object,
    /// 409 when the bound object is another one of that name.
    pub async fn issue(
        &self,
        namespace: &str,
        name: &str,
        mut body: Value,
    ) -> Result<IssuedToken, Status> {
        let metadata = Path::new("metadata");
        for (field, wanted, what) in [
            ("name", name, "name"),
            ("namespace", namespace, "namespace"),
        ] {
            let given = text_at(&body, &format!("/metadata/{field}"));
            if !given.is_empty() && given != wanted {
                let detail = format!("must match the service account {what} if specified");
                let error = FieldError::invalid(&metadata.child(field), given, detail);
                return Err(Status::invalid(GROUP, "TokenRequest", name, &[error]));
            }
        }
        let account = self.live(&SERVICE_ACCOUNTS, namespace, name).await?;
        let spec = body.get("spec").cloned().unwrap_or_default();
        let mut audiences: Vec<String> = spec
            .get("audiences")
            .and_then(Value::as_array)
            .map(|list| {
                list.iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect()
            })
            .unwrap_or_default();
        if audiences.is_empty() {
            audiences.clone_from(&self.audiences);
        }
        let mut seconds = spec
            .get("expirationSeconds")
            .and_then(Value::as_i64)
            .unwrap_or(DEFAULT_SECONDS);
        validate_seconds(seconds)?;
        let bound = match spec
            .get("boundObjectRef")
            .filter(|reference| !reference.is_null())
        {
            Some(reference) => self.bind(namespace, name, reference).await?,
            None => Bound::default(),
        };
        let mut warnings = Vec::new();
        if self.max_seconds > 0 && seconds > self.max_seconds {
            let limit = self.max_seconds;
            warnings.push(format!(
                "requested expiration of {seconds} seconds shortened to {limit} seconds"
            ));
            seconds = limit;
        }
        let for_us = audiences
            .iter()
            .all(|audience| self.audiences.contains(audience));
        let extended = self.extend && bound.pod.is_some() && seconds == PROJECTED_SECONDS && for_us;
        let now = self.env.wall();
        let second = now.as_second();
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: format!("system:serviceaccount:{namespace}:{name}"),
            aud: audiences.clone(),
            iat: Some(second),
            nbf: Some(second),
            exp: Some(second + if extended { EXTENDED_SECONDS } else { seconds }),
            jti: self.env.uuid(),
            private: Private {
                namespace: namespace.to_owned(),
                serviceaccount: Reference {
                    name: name.to_owned(),
                    uid: account.uid().to_owned(),
                },
                pod: bound.pod,
                node: bound.node,
                secret: bound.secret,
                warnafter: extended.then_some(second + seconds),
            },
        };
        let token = jwt::sign(&self.key, &claims)
            .map_err(|error| Status::internal(format!("failed to generate token: {error}")))?;
        let expires = now
            .checked_add(SignedDuration::from_secs(seconds))
            .unwrap_or(Timestamp::MAX);

        let Some(document) = body.as_object_mut() else {
            return Err(Status::bad_request("a TokenRequest is an object"));
        };
        document.insert("apiVersion".to_owned(), json!(format!("{GROUP}/v1")));
        document.insert("kind".to_owned(), json!("TokenRequest"));
        let metadata = document.entry("metadata").or_insert_with(|| json!({}));
        metadata["name"] = json!(name);
        metadata["namespace"] = json!(namespace);
        metadata["uid"] = json!(account.uid());
        metadata["creationTimestamp"] = json!(time_text(now));
        document.insert(
            "spec".to_owned(),
            json!({
                "audiences": audiences,
                "expirationSeconds": seconds,
                "boundObjectRef": spec.get("boundObjectRef").cloned().unwrap_or_default(),
            }),
        );
        document.insert(
            "status".to_owned(),
            json!({"token": token, "expirationTimestamp": time_text(expires)}),
        );
        Ok(IssuedToken {
            body,
            warnings,
            credential_id: format!("JTI={}", claims.jti),
        })
    }

    async fn live(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Object, Status> {
        let object = self.reader.get_live(resource, namespace, name).await?;
        object.ok_or_else(|| Status::not_found(resource, name))
    }

    /// What the token is bound to by a reference.
    async fn bind(
        &self,
        namespace: &str,
        account: &str,
        reference: &Value,
    ) -> Result<Bound, Status> {
        let (group, version) = split_api_version(text_field(reference, "apiVersion"));
        let (kind, name) = (text_field(reference, "kind"), text_field(reference, "name"));
        let mut bound = Bound::default();
        let own = |object: &Object| {
            Some(Reference {
                name: name.to_owned(),
                uid: object.uid().to_owned(),
            })
        };
        let object = match (group, kind) {
            ("", "Pod") => {
                let pod = self.live(&PODS, namespace, name).await?;
                let spec = pod.value().map_err(Status::internal)?;
                if text_at(&spec, "/spec/serviceAccountName") != account {
                    return Err(Status::bad_request(format!(
                        "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
                        quote(account)
                    )));
                }
                bound.pod = own(&pod);
                let node = text_at(&spec, "/spec/nodeName");
                if !node.is_empty() {
                    // A node that is not there (yet, or any more) is told by name alone.
                    let uid = self
                        .reader
                        .get(&NODES, "", node)
                        .await?
                        .map(|node| node.uid().to_owned());
                    bound.node = Some(Reference {
                        name: node.to_owned(),
                        uid: uid.unwrap_or_default(),
                    });
                }
                pod
            }
            ("", "Secret") => {
                let secret = self.live(&SECRETS, namespace, name).await?;
                bound.secret = own(&secret);
                secret
            }
            ("", "Node") => {
                let node = self.live(&NODES, "", name).await?;
                bound.node = own(&node);
                node
            }
            _ => {
                return Err(Status::bad_request(format!(
                    "cannot bind token to object of type {group}/{version}, Kind={kind}"
                )));
            }
        };
        let uid = text_field(reference, "uid");
        if !uid.is_empty() && uid != object.uid() {
            let named = Resource {
                plural: kind.to_owned().into(),
                ..PODS
            };
            return Err(Status::conflict(
                &named,
                name,
                &format!(
                    "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
                ),
            ));
        }
        Ok(bound)
    }
}

#[derive(Default)]
struct Bound {
    pod: Option<Reference>,
    node: Option<Reference>,
    secret: Option<Reference>,
}

fn validate_seconds(seconds: i64) -> Result<(), Status> {
    let path = Path::new("spec").child("expirationSeconds");
    let why = if seconds < MIN_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MAX_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    Err(Status::invalid(
        GROUP,
        "TokenRequest",
        "",
        &[FieldError::invalid(&path, seconds, why)],
    ))
}

/// A time as metadata has it: whole seconds.
pub(crate) fn time_text(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .unwrap_or(time)
        .to_string()
}
