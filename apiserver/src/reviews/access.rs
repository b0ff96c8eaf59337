//! The access reviews: what somebody may do.

use std::collections::BTreeMap;

use orlop_core::auth::{Attributes, Authorizer, Decision, Scope, UserInfo};
use orlop_core::field::{FieldError, Path};
use orlop_core::status::Status;
use serde::Deserialize;
use serde_json::{Map, Value, json};

const GROUP: &str = "authorization.k8s.io";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    resource_attributes: Option<ResourceAttributes>,
    non_resource_attributes: Option<NonResourceAttributes>,
    user: Option<String>,
    groups: Option<Vec<String>>,
    extra: Option<BTreeMap<String, Option<Vec<String>>>>,
    uid: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ResourceAttributes {
    namespace: String,
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    name: String,
    field_selector: Option<Selector>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Selector {
    raw_selector: String,
    requirements: Vec<Requirement>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Requirement {
    key: String,
    operator: String,
    values: Vec<String>,
}

impl Selector {
    /// The part that is a plain selector: requirements of other forms only narrow the question, and leaving them out asks for more.
    fn text(&self) -> String {
        if !self.raw_selector.is_empty() {
            return self.raw_selector.clone();
        }
        let plain = self.requirements.iter().filter_map(|wanted| {
            match (wanted.operator.as_str(), wanted.values.as_slice()) {
                ("In", [value]) => Some(format!("{}={value}", wanted.key)),
                ("NotIn", [value]) => Some(format!("{}!={value}", wanted.key)),
                _ => None,
            }
        });
        plain.collect::<Vec<_>>().join(",")
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NonResourceAttributes {
    path: String,
    verb: String,
}

fn spec(body: &Value) -> Result<Spec, Status> {
    match body.get("spec") {
        None | Some(Value::Null) => Ok(Spec::default()),
        Some(spec) => {
            Spec::deserialize(spec).map_err(|error| Status::bad_request(error.to_string()))
        }
    }
}

impl Spec {
    fn validate(&self, needs_user: bool) -> Vec<FieldError> {
        let path = Path::new("spec");
        let mut errors = Vec::new();
        match (&self.resource_attributes, &self.non_resource_attributes) {
            (Some(_), Some(other)) => errors.push(FieldError::invalid(
                &path.child("nonResourceAttributes"),
                json!({"Path": other.path, "Verb": other.verb}),
                "cannot be specified in combination with resourceAttributes",
            )),
            (None, None) => errors.push(FieldError::invalid(
                &path.child("resourceAttributes"),
                Value::Null,
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )),
            _ => {}
        }
        let nobody = self.user.as_deref().unwrap_or_default().is_empty()
            && self.groups.as_ref().is_none_or(Vec::is_empty);
        if needs_user && nobody {
            errors.push(FieldError::invalid(
                &path.child("user"),
                "",
                "at least one of user or group must be specified",
            ));
        }
        errors
    }

    fn subject(&self) -> UserInfo {
        let extra = self.extra.iter().flatten();
        UserInfo {
            name: self.user.clone().unwrap_or_default(),
            uid: self.uid.clone().unwrap_or_default(),
            groups: self.groups.clone().unwrap_or_default(),
            extra: extra
                .map(|(key, values)| (key.clone(), values.clone().unwrap_or_default()))
                .collect(),
        }
    }

    fn attributes(&self, user: UserInfo) -> Attributes {
        if let Some(asked) = &self.resource_attributes {
            let version = if asked.version.is_empty() {
                "*"
            } else {
                &asked.version
            };
            return Attributes {
                user,
                verb: asked.verb.clone(),
                scope: Scope::Resource {
                    group: asked.group.clone(),
                    version: version.to_owned(),
                    resource: asked.resource.clone(),
                    subresource: asked.subresource.clone(),
                    namespace: asked.namespace.clone(),
                    name: asked.name.clone(),
                },
                field_selector: asked
                    .field_selector
                    .as_ref()
                    .map(Selector::text)
                    .unwrap_or_default(),
            };
        }
        let asked = self.non_resource_attributes.as_ref();
        Attributes {
            user,
            verb: asked.map(|asked| asked.verb.clone()).unwrap_or_default(),
            scope: Scope::Path(asked.map(|asked| asked.path.clone()).unwrap_or_default()),
            field_selector: String::new(),
        }
    }
}

/// Metadata without what the server itself writes into it.
fn own_metadata(body: &Value, and: &[&str]) -> Map<String, Value> {
    let mut metadata = body
        .get("metadata")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    metadata.remove("managedFields");
    for field in and {
        metadata.remove(*field);
    }
    metadata.retain(|_, value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    });
    metadata
}

fn must_be_empty(body: &Value, and: &[&str], detail: &str) -> Option<FieldError> {
    if own_metadata(body, and).is_empty() {
        return None;
    }
    let shown = body.get("metadata").cloned().unwrap_or_default();
    Some(FieldError::invalid(&Path::new("metadata"), shown, detail))
}

fn refuse(kind: &str, errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid(GROUP, kind, "", errors))
    }
}

async fn answer(
    mut body: Value,
    kind: &str,
    attributes: &Attributes,
    authorizer: &dyn Authorizer,
) -> Value {
    let (allowed, denied, reason) = match authorizer.authorize(attributes).await {
        Decision::Allow(reason) => (true, false, reason),
        Decision::Deny(reason) => (false, true, reason),
        Decision::NoOpinion(reason) => (false, false, reason),
    };
    let mut status = json!({"allowed": allowed});
    if denied {
        status["denied"] = json!(true);
    }
    if !reason.is_empty() {
        status["reason"] = json!(reason);
    }
    body["apiVersion"] = json!(format!("{GROUP}/v1"));
    body["kind"] = json!(kind);
    if body.get("metadata").is_none_or(Value::is_null) {
        body["metadata"] = json!({});
    }
    body["status"] = status;
    body
}

/// Whether some user may do something.
///
/// # Errors
/// 422 when the question is not one.
pub async fn subject_access_review(
    body: Value,
    authorizer: &dyn Authorizer,
) -> Result<Value, Status> {
    const KIND: &str = "SubjectAccessReview";
    let spec = spec(&body)?;
    let mut errors = spec.validate(true);
    errors.extend(must_be_empty(&body, &[], "must be empty"));
    refuse(KIND, &errors)?;
    Ok(answer(body, KIND, &spec.attributes(spec.subject()), authorizer).await)
}

/// Whether some user may do something in a namespace, which the URL names: who may ask this in one namespace need not be allowed to
/// ask it in all.
///
/// # Errors
/// 422 when the question is not one, 400 when it is about another namespace.
pub async fn local_subject_access_review(
    body: Value,
    namespace: &str,
    authorizer: &dyn Authorizer,
) -> Result<Value, Status> {
    const KIND: &str = "LocalSubjectAccessReview";
    let spec = spec(&body)?;
    let own = body
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let mut errors = spec.validate(true);
    errors.extend(must_be_empty(
        &body,
        &["namespace"],
        "must be empty except for namespace",
    ));
    if let Some(asked) = spec
        .resource_attributes
        .as_ref()
        .filter(|asked| asked.namespace != own)
    {
        let path = Path::new("spec")
            .child("resourceAttributes")
            .child("namespace");
        errors.push(FieldError::invalid(
            &path,
            asked.namespace.as_str(),
            "must match metadata.namespace",
        ));
    }
    if let Some(asked) = &spec.non_resource_attributes {
        let path = Path::new("spec").child("nonResourceAttributes");
        let shown = json!({"Path": asked.path, "Verb": asked.verb});
        errors.push(FieldError::invalid(
            &path,
            shown,
            "disallowed on this kind of request",
        ));
    }
    refuse(KIND, &errors)?;
    if namespace.is_empty() {
        return Err(Status::bad_request(format!(
            "namespace is required on this type: {namespace}"
        )));
    }
    if namespace != own {
        return Err(Status::bad_request(format!(
            "spec.resourceAttributes.namespace must match namespace: {namespace}"
        )));
    }
    Ok(answer(body, KIND, &spec.attributes(spec.subject()), authorizer).await)
}

/// Whether the one who asks may do something.
///
/// # Errors
/// 422 when the question is not one.
pub async fn self_subject_access_review(
    body: Value,
    user: &UserInfo,
    authorizer: &dyn Authorizer,
) -> Result<Value, Status> {
    const KIND: &str = "SelfSubjectAccessReview";
    let spec = spec(&body)?;
    let mut errors = spec.validate(false);
    errors.extend(must_be_empty(&body, &[], "must be empty"));
    refuse(KIND, &errors)?;
    Ok(answer(body, KIND, &spec.attributes(user.clone()), authorizer).await)
}

/// All that the one who asks may do in a namespace, as far as it can be told.
///
/// # Errors
/// 400 without a namespace.
pub async fn self_subject_rules_review(
    body: &Value,
    user: &UserInfo,
    authorizer: &dyn Authorizer,
) -> Result<Value, Status> {
    let namespace = body
        .pointer("/spec/namespace")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let rules = authorizer.rules(user, namespace).await;
    let mut status = json!({
        "resourceRules": rules.resource_rules,
        "nonResourceRules": rules.non_resource_rules,
        "incomplete": rules.incomplete,
    });
    if !rules.error.is_empty() {
        status["evaluationError"] = json!(rules.error);
    }
    Ok(json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "SelfSubjectRulesReview",
        "metadata": {},
        "spec": {},
        "status": status,
    }))
}
