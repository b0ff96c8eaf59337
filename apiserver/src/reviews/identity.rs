//! `SelfSubjectReview` and `TokenReview`: who somebody is.

use orlop_core::auth::UserInfo;
use orlop_core::env::Env;
use orlop_core::status::Status;
use serde_json::{Value, json};

use crate::authentication::{Authentication, time_text};
use crate::names::text_at;

/// Who the request comes from.
///
/// # Errors
/// Never by now: the answer is the same for everybody.
pub fn self_subject_review(user: &UserInfo, env: &Env) -> Result<Value, Status> {
    Ok(json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "SelfSubjectReview",
        "metadata": {"creationTimestamp": time_text(env.wall())},
        "status": {"userInfo": user},
    }))
}

/// Who a token stands for.
///
/// # Errors
/// 400 without a token.
pub async fn token_review(
    mut body: Value,
    authentication: &Authentication,
) -> Result<Value, Status> {
    let namespace = text_at(&body, "/metadata/namespace");
    if !namespace.is_empty() {
        return Err(Status::bad_request(format!(
            "namespace is not allowed on this type: {namespace}"
        )));
    }
    let token = text_at(&body, "/spec/token").to_owned();
    if token.is_empty() {
        return Err(Status::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let audiences: Vec<String> = body
        .pointer("/spec/audiences")
        .and_then(Value::as_array)
        .map(|list| {
            list.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default();
    let mut status = json!({});
    match authentication.review(&token, &audiences).await {
        Ok(Some(found)) => {
            status["authenticated"] = json!(true);
            status["user"] = json!(found.user);
            if !found.audiences.is_empty() {
                status["audiences"] = json!(found.audiences);
            }
        }
        Ok(None) => {}
        Err(error) => status["error"] = json!(error.to_string()),
    }
    // What a Go client would leave out of an empty user is told as an empty one.
    if status.get("user").is_none() {
        status["user"] = json!({});
    }
    body["apiVersion"] = json!("authentication.k8s.io/v1");
    body["kind"] = json!("TokenReview");
    if body.get("metadata").is_none_or(Value::is_null) {
        body["metadata"] = json!({});
    }
    body["status"] = status;
    Ok(body)
}
