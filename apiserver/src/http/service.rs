//! The way of a request: who asks, what is asked, may they, do it, say it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT,
};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use orlop_api::protobuf;
use orlop_api::resources;
use orlop_api::table::IncludeObject;
use orlop_core::auth::{Attributes, Credentials, Scope, UserInfo};
use orlop_core::client::{Operation, Patch};
use orlop_core::resource::GroupVersionKind;
use orlop_core::status::Status;
use orlop_wire::body::{Body, BoxError};
use orlop_wire::listener::PeerInfo;
use serde_json::Value;

use super::negotiate::{self, Accepted, Encoding, Shape};
use super::path::{RequestPath, ResourcePath};
use super::query::Query;
use super::respond::{self, Wish};
use crate::Server;
use crate::authentication::{ImpersonationError, impersonate};
use crate::operations::{Outcome, selected_name};
use crate::registry::{At, Context, parse_json};

/// The largest body, in bytes.
const MAX_BODY: usize = 3 << 20;
/// How long a request may take that is no watch.
const DEADLINE: Duration = Duration::from_secs(60);

/// How many requests may be under way.
#[derive(Debug)]
pub(crate) struct InFlight {
    reading: AtomicUsize,
    writing: AtomicUsize,
}

/// At most so many that only read, …
const MAX_READING: usize = 400;
/// … and so many that write.
const MAX_WRITING: usize = 200;

impl InFlight {
    pub(crate) const fn new() -> Self {
        Self {
            reading: AtomicUsize::new(0),
            writing: AtomicUsize::new(0),
        }
    }

    fn enter(self: &Arc<Self>, writes: bool) -> Option<Ticket> {
        let (count, limit) = if writes {
            (&self.writing, MAX_WRITING)
        } else {
            (&self.reading, MAX_READING)
        };
        if count.fetch_add(1, Ordering::AcqRel) >= limit {
            count.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Ticket {
            in_flight: self.clone(),
            writes,
        })
    }
}

/// A place among the requests under way.
struct Ticket {
    in_flight: Arc<InFlight>,
    writes: bool,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let count = if self.writes {
            &self.in_flight.writing
        } else {
            &self.in_flight.reading
        };
        count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The API server as a service of HTTP requests. Cheap to clone.
#[derive(Clone)]
pub struct HttpService {
    server: Arc<Server>,
    /// Who all requests come from; `None` to authenticate each.
    identity: Option<UserInfo>,
}

impl std::fmt::Debug for HttpService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpService")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl HttpService {
    pub(crate) fn new(server: Arc<Server>, identity: Option<UserInfo>) -> Self {
        Self { server, identity }
    }
}

impl<B> tower_service::Service<Request<B>> for HttpService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        let request = request.map(Body::new);
        Box::pin(async move { Ok(service.answer(request).await) })
    }
}

impl HttpService {
    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let started = self.server.env.now();
        let method = request.method().clone();
        let audit = request.headers().get("audit-id").cloned();
        let mut described = Described::default();
        let mut response = self.dispatch(request, &mut described).await;
        let audit = audit.or_else(|| HeaderValue::from_str(&self.server.env.uuid()).ok());
        if let Some(audit) = audit {
            response.headers_mut().insert("audit-id", audit);
        }
        let elapsed = self.server.env.now().since(started);
        self.server
            .metrics
            .observe(&method, &described, response.status(), elapsed);
        response
    }

    async fn dispatch(&self, request: Request<Body>, described: &mut Described) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let refuse = |status: &Status| respond::status(status, preferred(&parts.headers));
        let user = match self.identify(&parts).await {
            Ok(user) => user,
            Err(status) => return refuse(&status),
        };
        let agent = text(&parts.headers, USER_AGENT.as_str());
        let program: String = agent
            .split('/')
            .next()
            .unwrap_or_default()
            .chars()
            .filter(|c| !c.is_control())
            .take(128)
            .collect();
        let mut cx = Context::of(user, &program);
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let answer = match RequestPath::parse(parts.uri.path()) {
            RequestPath::Other(path) => {
                self.other(&mut cx, &parts.method, &path, &query, &parts.headers)
                    .await
            }
            RequestPath::Resource(path) => {
                self.resource(
                    &mut cx,
                    &parts.method,
                    &path,
                    &query,
                    &parts.headers,
                    body,
                    described,
                )
                .await
            }
        };
        let mut response = answer.unwrap_or_else(|status| refuse(&status));
        respond::warn(&mut response, &cx.warnings);
        response
    }

    /// Who the request comes from, after impersonation.
    async fn identify(&self, parts: &http::request::Parts) -> Result<UserInfo, Status> {
        let user = match &self.identity {
            Some(user) => user.clone(),
            None => {
                let credentials = credentials(parts);
                match self.server.authenticator.authenticate(&credentials).await {
                    Ok(Some(user)) => user,
                    Ok(None) => return Err(Status::unauthorized()),
                    Err(error) => {
                        tracing::debug!(%error, "authentication failed");
                        return Err(Status::unauthorized());
                    }
                }
            }
        };
        match impersonate(&user, &parts.headers, self.server.authorizer.as_ref()).await {
            Ok(other) => Ok(other.unwrap_or(user)),
            Err(ImpersonationError::Forbidden(status)) => Err(*status),
            Err(error) => Err(Status::internal(error)),
        }
    }

    #[allow(clippy::too_many_arguments)] // the parts of one request
    async fn resource(
        &self,
        cx: &mut Context,
        method: &Method,
        path: &ResourcePath,
        query: &Query,
        headers: &HeaderMap,
        body: Body,
        described: &mut Described,
    ) -> Result<Response<Body>, Status> {
        let watch = path.watch_prefix || query.is_watch();
        let verb = verb_of(method, path, watch)?;
        described.verb = verb;
        described.resource.clone_from(&path.resource);
        described.group.clone_from(&path.group);
        let attributes = Attributes {
            user: cx.user.clone(),
            verb: verb.to_owned(),
            scope: Scope::Resource {
                group: path.group.clone(),
                version: path.version.clone(),
                resource: path.resource.clone(),
                subresource: path.subresource.clone(),
                namespace: path.namespace.clone(),
                name: if path.name.is_empty() {
                    selected_name(query.get("fieldSelector"))
                } else {
                    path.name.clone()
                },
            },
            field_selector: query.get("fieldSelector").to_owned(),
        };
        let writes = !attributes.is_read_only();
        // Watches last; they are bounded by their connections.
        let ticket = if verb == "watch" {
            None
        } else {
            self.server.in_flight.enter(writes)
        };
        if ticket.is_none() && verb != "watch" {
            return Err(Status::too_many_requests(
                "too many requests, please try again later",
                1,
            ));
        }
        self.server.authorize(&attributes).await?;
        let found = resources::find(&path.group, &path.version, &path.resource);
        let Some(info) = found.filter(|info| {
            let scoped = info.resource.namespaced || !path.namespaced;
            scoped && (path.subresource.is_empty() || info.subresource(&path.subresource).is_some())
        }) else {
            return Ok(respond::page_not_found());
        };
        let namespace = if info.resource.namespaced {
            path.namespace.clone()
        } else {
            String::new()
        };
        let at = At {
            info,
            namespace,
            name: path.name.clone(),
            subresource: path.subresource.clone(),
        };
        if watch && method == Method::GET && at.subresource.is_empty() {
            let accepted = negotiate::accept_watch(&accept(headers))?;
            let wish = self.wish(accepted, query, headers)?;
            let options = query.watch_options()?;
            let outcome = self
                .server
                .perform(cx, &at, Operation::Watch(options))
                .await?;
            return self.respond(&at, outcome, wish);
        }
        let is_list = method == Method::GET && at.name.is_empty() || verb == "deletecollection";
        let accepted = negotiate::accept(&accept(headers), is_list)?;
        let wish = self.wish(accepted, query, headers)?;
        let limit = deadline(query);
        let work = async {
            let operation = self
                .operation(cx, &at, method, query, headers, body)
                .await?;
            self.server.perform(cx, &at, operation).await
        };
        let outcome = self.server.env.timeout(limit, work).await.map_err(|_| {
            Status::timeout("request did not complete within the allotted timeout", 0)
        })??;
        self.respond(&at, outcome, wish)
    }

    fn wish(&self, accepted: Accepted, query: &Query, headers: &HeaderMap) -> Result<Wish, Status> {
        let asked = query.get("includeObject");
        let include = match IncludeObject::parse(asked) {
            Some(include) => include,
            None if accepted.shape == Shape::Table => {
                let asked = orlop_core::field::quote(asked);
                return Err(Status::bad_request(format!(
                    "unrecognized includeObject value: {asked}"
                )));
            }
            None => IncludeObject::default(),
        };
        let gzip = text(headers, ACCEPT_ENCODING.as_str())
            .split(',')
            .any(|coding| {
                coding
                    .split(';')
                    .next()
                    .is_some_and(|name| name.trim() == "gzip")
            });
        Ok(Wish {
            accepted,
            include,
            pretty: query.flag("pretty"),
            gzip,
        })
    }

    fn respond(&self, at: &At, outcome: Outcome, wish: Wish) -> Result<Response<Body>, Status> {
        let now = self.server.env.wall();
        match outcome {
            Outcome::Object { object, created } => {
                respond::object(at.info, &object, created, &wish, now)
            }
            Outcome::Document { document, created } => {
                Ok(respond::document(&document, created, &wish))
            }
            Outcome::List(page) => respond::list(at.info, &page, &wish, now),
            Outcome::Watch(watch) => Ok(respond::watch(
                at.info,
                *watch,
                wish,
                self.server.env.clone(),
            )),
            Outcome::Status(status) => Ok(respond::status(&status, wish.accepted.encoding)),
        }
    }

    /// The operation that a method, a query and a body ask for.
    async fn operation(
        &self,
        cx: &mut Context,
        at: &At,
        method: &Method,
        query: &Query,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Operation, Status> {
        match *method {
            Method::GET | Method::HEAD if at.name.is_empty() => {
                query.list_options().map(Operation::List)
            }
            Method::GET | Method::HEAD => query.freshness().map(Operation::Get),
            Method::POST => {
                let options = query.write_options("CreateOptions")?;
                let kind = body_kind(at);
                let body = self.document(cx, &kind, headers, body).await?;
                Ok(Operation::Create(body, options))
            }
            Method::PUT => {
                let options = query.write_options("UpdateOptions")?;
                let kind = body_kind(at);
                let body = self.document(cx, &kind, headers, body).await?;
                Ok(Operation::Update(body, options))
            }
            Method::PATCH => {
                let options = query.write_options("PatchOptions")?;
                let patch = self.patch(cx, headers, body).await?;
                Ok(Operation::Patch(patch, options))
            }
            Method::DELETE => {
                let bytes = collect(body).await?;
                let body = if bytes.is_empty() {
                    None
                } else {
                    let kind = GroupVersionKind::new("meta.k8s.io", "v1", "DeleteOptions");
                    Some(parse(
                        cx,
                        &kind,
                        negotiate::content_type(&text(headers, CONTENT_TYPE.as_str()))?,
                        &bytes,
                    )?)
                };
                let options = query.delete_options(body.as_ref())?;
                if at.name.is_empty() {
                    Ok(Operation::DeleteCollection(options, query.list_options()?))
                } else {
                    Ok(Operation::Delete(options))
                }
            }
            _ => Err(Status::method_not_allowed()),
        }
    }

    async fn document(
        &self,
        cx: &mut Context,
        kind: &GroupVersionKind,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Value, Status> {
        let encoding = negotiate::content_type(&text(headers, CONTENT_TYPE.as_str()))?;
        let bytes = collect(body).await?;
        parse(cx, kind, encoding, &bytes)
    }

    async fn patch(
        &self,
        cx: &mut Context,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Patch, Status> {
        let header = text(headers, CONTENT_TYPE.as_str());
        let media_type = header.split(';').next().unwrap_or_default().trim();
        let bytes = collect(body).await?;
        let json = |cx: &mut Context| {
            let parsed = parse_json(&bytes).map_err(|error| {
                let words = json_words(&error, &bytes);
                // Of a strategic merge patch, Kubernetes does not say what it was reading.
                let what = match media_type {
                    "application/strategic-merge-patch+json" => "",
                    _ => "error decoding patch: ",
                };
                Status::bad_request(format!("{what}{words}"))
            })?;
            cx.duplicates = parsed.duplicates;
            cx.body = bytes.clone();
            Ok(parsed.value)
        };
        match media_type {
            "application/json-patch+json" => json(cx).map(Patch::Json),
            "application/merge-patch+json" => json(cx).map(Patch::Merge),
            "application/strategic-merge-patch+json" => json(cx).map(Patch::Strategic),
            "application/apply-patch+yaml" => {
                let document = orlop_wire::yaml::document_from_slice(&bytes).map_err(|error| {
                    Status::bad_request(format!("error decoding YAML: {error}"))
                })?;
                cx.duplicates = document
                    .duplicates
                    .into_iter()
                    .map(|duplicate| duplicate.key.trim_matches('"').to_owned())
                    .collect();
                Ok(Patch::Apply(document.value))
            }
            _ => Err(negotiate::unsupported(&[
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
                "application/apply-patch+yaml",
            ])),
        }
    }
}

/// What the metrics say of a request.
#[derive(Debug, Default)]
pub(crate) struct Described {
    pub(crate) verb: &'static str,
    pub(crate) group: String,
    pub(crate) resource: String,
}

/// The kind of a body: the object's, or that of the subresource.
fn body_kind(at: &At) -> GroupVersionKind {
    at.sub()
        .and_then(|sub| at.info.subresource(sub))
        .map_or_else(|| at.info.resource.gvk(), |sub| sub.kind.clone())
}

fn deadline(query: &Query) -> Duration {
    // Clients write it as Go does: `32s`.
    let asked = query
        .get("timeout")
        .strip_suffix('s')
        .and_then(|seconds| seconds.parse().ok())
        .map(Duration::from_secs);
    asked.map_or(DEADLINE, |asked| {
        asked.clamp(Duration::from_secs(1), DEADLINE)
    })
}

/// The verb of a method on a path.
fn verb_of(method: &Method, path: &ResourcePath, watch: bool) -> Result<&'static str, Status> {
    let named = !path.name.is_empty();
    Ok(match *method {
        Method::GET | Method::HEAD if watch && path.subresource.is_empty() => "watch",
        Method::GET | Method::HEAD if named => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        _ => return Err(Status::method_not_allowed()),
    })
}

/// The form in which refusals are written when nothing else is known yet.
fn preferred(headers: &HeaderMap) -> Encoding {
    negotiate::accept(&accept(headers), false).map_or(Encoding::Json, |accepted| accepted.encoding)
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

/// All `Accept` headers as one.
fn accept(headers: &HeaderMap) -> String {
    let all: Vec<&str> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    all.join(",")
}

fn credentials(parts: &http::request::Parts) -> Credentials {
    let bearer_token = text(&parts.headers, AUTHORIZATION.as_str())
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim().to_owned())
        .filter(|token| !token.is_empty());
    let chain = parts
        .extensions
        .get::<PeerInfo>()
        .and_then(|peer| peer.client_certificate.as_ref());
    let client_certificates = chain
        .into_iter()
        .flat_map(|chain| chain.iter())
        .map(|certificate| certificate.to_vec())
        .collect();
    Credentials {
        bearer_token,
        client_certificates,
    }
}

/// Reads a body whole, up to the limit.
async fn collect(mut body: Body) -> Result<Bytes, Status> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Status::bad_request(format!("the body cannot be read: {error}")))?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > MAX_BODY {
                return Err(Status::too_large(MAX_BODY));
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.freeze())
}

/// Decodes a body of some encoding.
fn parse(
    cx: &mut Context,
    kind: &GroupVersionKind,
    encoding: Encoding,
    bytes: &Bytes,
) -> Result<Value, Status> {
    let unrecognized = |why: String| {
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {why} ({})",
            kind.kind,
            excerpt(bytes)
        ))
    };
    match encoding {
        Encoding::Json => {
            let parsed =
                parse_json(bytes).map_err(|error| unrecognized(json_words(&error, bytes)))?;
            cx.duplicates = parsed.duplicates;
            cx.body = bytes.clone();
            Ok(parsed.value)
        }
        Encoding::Yaml => {
            let document = orlop_wire::yaml::document_from_slice(bytes).map_err(|error| {
                Status::bad_request(format!(
                    "error converting YAML to JSON: {}",
                    error.message()
                ))
            })?;
            cx.duplicates = document
                .duplicates
                .into_iter()
                .map(|duplicate| duplicate.key.trim_matches('"').to_owned())
                .collect();
            Ok(document.value)
        }
        Encoding::Protobuf => protobuf::decode_or(bytes, Some(kind))
            .map_err(|error| Status::bad_request(error.to_string())),
    }
}

/// The start of a body, for messages: as text, or in hexadecimal where it is none.
fn excerpt(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(128)];
    match std::str::from_utf8(head) {
        Ok(text) => text.to_owned(),
        Err(_) => head.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// What is wrong with a JSON text, in the words that clients know.
fn json_words(error: &serde_json::Error, bytes: &[u8]) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let offset = bytes
        .split(|byte| *byte == b'\n')
        .take(error.line().saturating_sub(1))
        .map(|line| line.len() + 1)
        .sum::<usize>()
        + error.column().saturating_sub(1);
    let at = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.get(offset..))
        .and_then(|rest| rest.chars().next());
    match at {
        Some(c) if offset == 0 => format!("invalid character '{c}' looking for beginning of value"),
        Some(c) => format!("invalid character '{c}' in the JSON text at byte {offset}"),
        None => error.to_string(),
    }
}
