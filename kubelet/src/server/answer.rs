//! Answers.

use std::fmt::Display;
use std::sync::Arc;

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use orlop_wire::body::Body;
use prometheus_client::registry::Registry;
use serde::Serialize;

fn answer(code: u16, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Plain text.
pub(super) fn text(code: u16, body: impl Into<String>) -> Response<Body> {
    answer(code, "text/plain; charset=utf-8", body.into())
}

/// Something that went wrong here.
pub(super) fn internal_error(error: impl Display) -> Response<Body> {
    text(500, error.to_string())
}

/// An endpoint that is there, but not served.
pub(super) fn not_allowed(why: &str) -> Response<Body> {
    text(405, format!("{why}\n"))
}

/// A method that an endpoint does not have.
pub(super) fn method_not_allowed(allowed: &'static str) -> Response<Body> {
    let mut response = text(405, "Method Not Allowed");
    let allowed = HeaderValue::from_static(allowed);
    response.headers_mut().insert(ALLOW, allowed);
    response
}

/// A path that nothing is behind.
pub(super) fn not_found_page() -> Response<Body> {
    text(404, "404 page not found\n")
}

/// JSON.
pub(super) fn json(value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => answer(200, "application/json", bytes),
        Err(error) => internal_error(error),
    }
}

/// Pods as a `PodList`.
pub(super) fn pods(pods: &[Arc<Pod>]) -> Response<Body> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct PodList<'a> {
        kind: &'static str,
        api_version: &'static str,
        metadata: serde_json::Map<String, serde_json::Value>,
        items: Vec<&'a Pod>,
    }
    json(&PodList {
        kind: "PodList",
        api_version: "v1",
        metadata: serde_json::Map::new(),
        items: pods.iter().map(|pod| &**pod).collect(),
    })
}

/// Metrics that are text already.
pub(super) fn metrics(text: String) -> Response<Body> {
    answer(200, "text/plain; version=0.0.4; charset=utf-8", text)
}

/// The metrics of a registry.
pub(super) fn openmetrics(registry: &Arc<Registry>) -> Response<Body> {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, registry) {
        Ok(()) => answer(
            200,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            text,
        ),
        Err(error) => internal_error(error),
    }
}
