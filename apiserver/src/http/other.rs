//! Paths that are no resource: discovery, OpenAPI, version, health, metrics, and the keys of service account tokens.

use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, VARY,
};
use http::{Method, Response, StatusCode};
use orlop_api::discovery::{Catalog, Form};
use orlop_api::openapi::{self, Documents};
use orlop_api::resources;
use orlop_api::table::IncludeObject;
use orlop_core::auth::{Attributes, Scope};
use orlop_core::status::Status;
use orlop_wire::body::Body;
use serde_json::{Value, json};

use super::query::Query;
use super::service::no_such_resource;
use super::{HttpService, health, negotiate, respond};
use crate::registry::Context;

/// The version of the API that is served.
const MINOR: &str = "36";
const GIT_VERSION: &str = concat!("v1.36.2+orlop.", env!("CARGO_PKG_VERSION"));

/// All paths that answer, for `/`.
const ROOT_PATHS: &[&str] = &[
    "/.well-known/openid-configuration",
    "/api",
    "/api/v1",
    "/apis",
    "/healthz",
    "/livez",
    "/livez/ping",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/readyz",
    "/readyz/ping",
    "/version",
];

impl HttpService {
    /// Answers a path that names no resource.
    pub(super) async fn other(
        &self,
        cx: &mut Context,
        method: &Method,
        path: &str,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Status> {
        let attributes = Attributes {
            user: cx.user.clone(),
            verb: method.as_str().to_lowercase(),
            scope: Scope::Path(path.to_owned()),
            field_selector: String::new(),
        };
        self.server().authorize(&attributes).await?;
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let known = match segments.as_slice() {
            [""] => Some(self.root()),
            ["version"] => Some(plain_json(&version())),
            ["api"] | ["apis"] => return self.discovery_root(segments[0] == "api", headers),
            ["api", version] => self.resource_list("", version, headers)?,
            ["apis", group] => {
                let discovery = Catalog::new(resources::builtin());
                discovery
                    .group(group)
                    .map(|body| negotiated(&body, headers))
                    .transpose()?
            }
            ["apis", group, version] => self.resource_list(group, version, headers)?,
            ["openapi", "v2"] => Some(openapi_v2(headers)),
            ["openapi", "v3"] => {
                let index = Documents::builtin().index();
                let mut response =
                    respond::full(StatusCode::OK, "application/json", index.bytes.clone());
                response
                    .headers_mut()
                    .insert(VARY, HeaderValue::from_static("Accept"));
                Some(response)
            }
            ["openapi", "v3", rest @ ..] => openapi_v3(&rest.join("/"), query, headers),
            ["healthz" | "livez" | "readyz", ..] => {
                return Ok(health::answer(self.server(), &segments, query).await);
            }
            ["metrics"] => Some(self.metrics()),
            ["openid", "v1", "jwks"] => self.server().oidc.as_ref().map(|oidc| {
                let mut response = plain_json(&oidc.keys());
                let headers = response.headers_mut();
                headers.insert(
                    CONTENT_TYPE,
                    HeaderValue::from_static("application/jwk-set+json"),
                );
                headers.insert(
                    CACHE_CONTROL,
                    HeaderValue::from_static("public, max-age=3600"),
                );
                response
            }),
            [".well-known", "openid-configuration"] => self.server().oidc.as_ref().map(|oidc| {
                let mut response = plain_json(&oidc.configuration());
                response.headers_mut().insert(
                    CACHE_CONTROL,
                    HeaderValue::from_static("public, max-age=3600"),
                );
                response
            }),
            _ => None,
        };
        let Some(response) = known else {
            let served = match segments.as_slice() {
                ["api", _] => true,
                ["apis", group, _] => resources::has_group(group),
                _ => false,
            };
            return if served {
                Err(no_such_resource())
            } else {
                Ok(respond::page_not_found())
            };
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(Status::method_not_allowed());
        }
        Ok(response)
    }

    fn root(&self) -> Response<Body> {
        let discovery = Catalog::new(resources::builtin());
        let mut paths: Vec<String> = ROOT_PATHS.iter().map(|path| (*path).to_owned()).collect();
        for group in discovery.groups() {
            paths.push(format!("/apis/{group}"));
            paths.extend(
                discovery
                    .versions(group)
                    .map(|version| format!("/apis/{group}/{version}")),
            );
        }
        paths.sort();
        plain_json(&json!({ "paths": paths }))
    }

    fn discovery_root(&self, core: bool, headers: &HeaderMap) -> Result<Response<Body>, Status> {
        let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
        let form = Form::negotiate(accept).unwrap_or(Form::Plain);
        let discovery = Catalog::new(resources::builtin());
        // The older aggregated form is not served any more: who asks for it and nothing else gets the plain one.
        if form == Form::V2 {
            let body = discovery.aggregated(core, form);
            let bytes = serde_json::to_vec(&body).map_err(Status::internal)?;
            let etag = format!("\"{}\"", digest(&bytes));
            if headers
                .get(IF_NONE_MATCH)
                .is_some_and(|known| known.as_bytes() == etag.as_bytes())
            {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                return Ok(response);
            }
            let mut response = respond::full(StatusCode::OK, form.media_type(), bytes);
            let headers = response.headers_mut();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
            headers.insert(VARY, HeaderValue::from_static("Accept"));
            if let Ok(etag) = HeaderValue::from_str(&etag) {
                headers.insert(ETAG, etag);
            }
            return Ok(response);
        }
        let body = if core {
            discovery.core_versions(&self.server().address)
        } else {
            discovery.group_list()
        };
        let mut response = negotiated(&body, headers)?;
        response
            .headers_mut()
            .insert(VARY, HeaderValue::from_static("Accept"));
        Ok(response)
    }

    fn resource_list(
        &self,
        group: &str,
        version: &str,
        headers: &HeaderMap,
    ) -> Result<Option<Response<Body>>, Status> {
        let discovery = Catalog::new(resources::builtin());
        discovery
            .resources(group, version)
            .map(|body| negotiated(&body, headers))
            .transpose()
    }

    fn metrics(&self) -> Response<Body> {
        let mut text = String::new();
        let encoded = self.server().metrics.encode(self.server(), &mut text);
        match encoded {
            Ok(()) => respond::full(
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                text.into_bytes(),
            ),
            Err(error) => respond::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect()
}

fn plain_json(body: &Value) -> Response<Body> {
    respond::full(StatusCode::OK, "application/json", body.to_string())
}

/// A document in the encoding that the client accepts.
fn negotiated(body: &Value, headers: &HeaderMap) -> Result<Response<Body>, Status> {
    let accept = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    // Discovery forms that are not served are passed over; plain JSON is what remains.
    let encoding = negotiate::accept(accept, false)
        .map_or(negotiate::Encoding::Json, |accepted| accepted.encoding);
    let accepted = negotiate::Accepted {
        encoding,
        shape: negotiate::Shape::Whole,
    };
    let include = IncludeObject::None;
    Ok(respond::document(
        body,
        false,
        &respond::Wish {
            accepted,
            include,
            pretty: false,
            gzip: false,
        },
    ))
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": MINOR,
        "emulationMajor": "1",
        "emulationMinor": MINOR,
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

/// The architecture by the name that clients know.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn openapi_v2(headers: &HeaderMap) -> Response<Body> {
    let accept = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let wants_protobuf = accept
        .split(',')
        .next()
        .is_some_and(|first| first.trim().starts_with(openapi::V2_PROTOBUF));
    let (content_type, document) = if wants_protobuf {
        (openapi::V2_PROTOBUF_ANSWER, openapi::builtin_v2_protobuf())
    } else {
        ("application/json", openapi::builtin_v2())
    };
    cached(document, content_type, headers)
}

fn openapi_v3(path: &str, query: &Query, headers: &HeaderMap) -> Option<Response<Body>> {
    let document = Documents::builtin().get(path)?;
    let mut response = cached(document, "application/json", headers);
    if query.get("hash") == document.hash {
        // The URL names the content: it never changes.
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    Some(response)
}

/// A finished document, or that the client has it already.
fn cached(document: &openapi::Document, content_type: &str, headers: &HeaderMap) -> Response<Body> {
    let etag = format!("\"{}\"", document.hash);
    if headers
        .get(IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == etag.as_bytes())
    {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    let mut response = respond::full(StatusCode::OK, content_type, document.bytes.clone());
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}
