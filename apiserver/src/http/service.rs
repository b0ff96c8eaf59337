//! The way of a request: who asks, what is asked, may they, do it, say it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT,
};
use http::{Method, Request, Response};
use orlop_api::resources::{self, ALL_VERBS, Verb};
use orlop_api::table::IncludeObject;
use orlop_core::auth::{Attributes, Credentials, Scope, UserInfo};
use orlop_core::client::{Operation, Patch};
use orlop_core::resource::GroupVersionKind;
use orlop_core::revision::Revision;
use orlop_core::status::{Status, StatusDetails, reason};
use orlop_wire::body::{Body, BoxError};
use orlop_wire::listener::PeerInfo;
use serde_json::Value;

use super::body::{Counted, collect, parse, read_json};
use super::duration;
use super::negotiate::{self, Accepted, Encoding, Shape};
use super::path::{RequestPath, ResourcePath};
use super::query::Query;
use super::respond::{self, Wish};
use crate::Server;
use crate::authentication::{ImpersonationError, WEBSOCKET_BEARER, impersonate};
use crate::connect::{Asked, answer_in_memory, is_connection, needs_connection};
use crate::metrics::LongRunning;
use crate::operations::{Outcome, selected_name};
use crate::registry::{At, Context, decode_delete_options};

/// How long a request may take that is no watch.
const DEADLINE: Duration = Duration::from_secs(60);

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
        if needs_connection(&request) {
            let answer = answer_in_memory(self.clone(), &self.server, request).await;
            return answer.unwrap_or_else(|status| respond::status(&status, Encoding::Json));
        }
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
        let (mut parts, body) = request.into_parts();
        let preferred = preferred(&parts.headers);
        let refuse = |status: &Status| respond::status(status, preferred);
        let user = match self.identify(&parts).await {
            Ok(user) => user,
            Err(Unidentified::Refused(status)) => return refuse(&status),
            Err(Unidentified::Malformed(why)) => return respond::failed(&parts.uri, &why),
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
                self.resource(&mut cx, &mut parts, &path, &query, body, described)
                    .await
            }
        };
        let mut response = answer.unwrap_or_else(|status| refuse(&status));
        respond::warn(&mut response, &cx.warnings);
        response
    }

    /// Who the request comes from, after impersonation.
    async fn identify(&self, parts: &http::request::Parts) -> Result<UserInfo, Unidentified> {
        let user = match &self.identity {
            Some(user) => user.clone(),
            None => {
                let credentials = credentials(parts);
                match self.server.authenticator.authenticate(&credentials).await {
                    Ok(Some(user)) => user,
                    Ok(None) => return Err(Status::unauthorized().into()),
                    Err(error) => {
                        tracing::debug!(%error, "authentication failed");
                        return Err(Status::unauthorized().into());
                    }
                }
            }
        };
        match impersonate(&user, &parts.headers, self.server.authorizer.as_ref()).await {
            Ok(other) => Ok(other.unwrap_or(user)),
            Err(ImpersonationError::Forbidden(status)) => Err((*status).into()),
            Err(error) => Err(Unidentified::Malformed(error.to_string())),
        }
    }

    async fn resource(
        &self,
        cx: &mut Context,
        parts: &mut http::request::Parts,
        path: &ResourcePath,
        query: &Query,
        body: Body,
        described: &mut Described,
    ) -> Result<Response<Body>, Status> {
        let method = &parts.method;
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
        // What lasts is bounded by its connections.
        let connection = is_connection(&path.subresource);
        let lasts = verb == "watch" || connection;
        let ticket = if lasts {
            None
        } else {
            self.server.in_flight.enter(writes)
        };
        if ticket.is_none() && !lasts {
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
            return if resources::has_group(&path.group) {
                Err(no_such_resource())
            } else {
                Ok(respond::page_not_found())
            };
        };
        if method == Method::HEAD && !connection {
            return Err(Status::method_not_allowed());
        }
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
        if connection {
            if info.resource.namespaced != path.namespaced {
                return Ok(respond::page_not_found());
            }
            described.verb = "CONNECT";
            let rest = path.raw_rest(parts.uri.path()).to_owned();
            let asked = Asked {
                parts,
                query,
                rest,
                body,
            };
            let lasting = self.lasting("CONNECT", &at);
            asked.parts.extensions.insert(lasting.clone());
            let response = self.server.connect(cx, &at, asked).await?;
            return Ok(response.map(|body| Body::new(Counted::new(body, lasting))));
        }
        let headers = &parts.headers;
        if watch && method == Method::GET && at.subresource.is_empty() {
            let accepted = negotiate::accept_watch(&accept(headers))?;
            let wish = self.wish(accepted, query, headers)?;
            let mut options = query.watch_options()?;
            if query.wants_no_initial_events() && options.from.is_none_or(Revision::is_zero) {
                options.from = Some(self.server.registry.caches.wait_until_current().await?);
            }
            let outcome = self
                .server
                .perform(cx, &at, Operation::Watch(options))
                .await?;
            let lasting = self.lasting("WATCH", &at);
            let response = self.respond(&at, outcome, wish)?;
            return Ok(response.map(|body| Body::new(Counted::new(body, lasting))));
        }
        // What a resource does not do is said before anything is read.
        let offered = ALL_VERBS.iter().find(|offered| offered.as_str() == verb);
        let offered = offered.ok_or_else(Status::method_not_allowed)?;
        if *offered != Verb::Watch {
            self.server.check_verb(&at, *offered)?;
        }
        let is_list = method == Method::GET && at.name.is_empty() || verb == "deletecollection";
        let accepted = negotiate::accept(&accept(headers), is_list)?;
        let wish = self.wish(accepted, query, headers)?;
        let limit = deadline(query)?;
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

    fn lasting(&self, verb: &'static str, at: &At) -> Arc<LongRunning> {
        let resource = &at.info.resource;
        let metrics = &self.server.metrics;
        Arc::new(metrics.lasting(verb, &resource.group, &resource.plural))
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
                self.server.stopping.cancelled(),
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
                    let encoding = negotiate::content_type(&text(headers, CONTENT_TYPE.as_str()))?;
                    let body = parse(cx, &kind, encoding, &bytes)?;
                    Some(decode_delete_options(cx, body)?)
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
        let media_type = negotiate::media_type(&header);
        let media_type = media_type.as_str();
        let bytes = collect(body).await?;
        let json = |cx: &mut Context| {
            let parsed = read_json(&bytes).map_err(|words| {
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

/// Why it is not known on whose behalf a request comes.
enum Unidentified {
    /// They are not let in.
    Refused(Status),
    /// The headers make no sense.
    Malformed(String),
}

impl From<Status> for Unidentified {
    fn from(status: Status) -> Self {
        Self::Refused(status)
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

/// How long the request may take: what the client asks for, but no longer than the server's own limit.
fn deadline(query: &Query) -> Result<Duration, Status> {
    let text = query.get("timeout");
    if text.is_empty() {
        return Ok(DEADLINE);
    }
    let asked = duration::parse(text).map_err(|why| {
        Status::bad_request(format!(
            "invalid timeout specified in the request URL - {why}"
        ))
    })?;
    Ok(if asked.is_zero() {
        DEADLINE
    } else {
        asked.min(DEADLINE)
    })
}

/// What Kubernetes answers where the group is served and the resource is not.
pub(super) fn no_such_resource() -> Status {
    Status::failure(
        404,
        reason::NOT_FOUND,
        "the server could not find the requested resource",
    )
    .with_details(StatusDetails::default())
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
        // A proxy passes on what it does not know, but only for who may do anything.
        Method::OPTIONS if path.subresource == "proxy" => "",
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
        .filter(|token| !token.is_empty())
        .or_else(|| websocket_token(&parts.headers));
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

/// The bearer token that a browser, which cannot set headers, hides among the protocols that it offers.
fn websocket_token(headers: &HeaderMap) -> Option<String> {
    if !text(headers, "upgrade").eq_ignore_ascii_case("websocket") {
        return None;
    }
    let encoded = headers
        .get_all("sec-websocket-protocol")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|protocol| protocol.trim().strip_prefix(WEBSOCKET_BEARER))?;
    let token = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    String::from_utf8(token).ok()
}
