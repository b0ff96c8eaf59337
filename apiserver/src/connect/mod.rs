//! Connections through the server: logs, `exec`, `attach` and `portforward` of pods, and the proxies to pods, services and nodes.
//!
//! All of them are one thing: a request goes on, over a connection that the [`NodeConnector`] opens, to a kubelet or to a pod, and what
//! comes back goes to the client; also when it is another protocol from there on. [`options`] reads what is asked for, [`target`] finds
//! whom to ask, [`forward`] passes requests on, and [`rewrite`] mends links in pages that came from behind a proxy.

mod forward;
mod in_memory;
mod options;
mod rewrite;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::header::HeaderValue;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use orlop_core::auth::{Attributes, Scope};
use orlop_core::env::{CancelToken, Env, TaskGroup};
use orlop_core::node::NodeConnector;
use orlop_core::status::Status;
use orlop_wire::body::Body;

pub(crate) use self::in_memory::{answer_in_memory, needs_connection};
use self::options::{LogOptions, StreamOptions};
use self::target::Target;
use crate::Server;
use crate::http::{Query, percent_encode_path};
use crate::registry::{At, Context};

/// What connections through the server need.
pub(crate) struct Connections {
    /// The way to nodes and pods; without one, nothing can be reached.
    pub(crate) connector: Option<Arc<dyn NodeConnector>>,
    /// The streams under way. They end when the server begins to stop.
    pub(crate) tasks: Arc<TaskGroup>,
}

impl Connections {
    pub(crate) fn new(
        connector: Option<Arc<dyn NodeConnector>>,
        env: &Env,
        stopping: &CancelToken,
    ) -> Self {
        Self {
            connector,
            tasks: Arc::new(TaskGroup::with_parent(env.clone(), stopping)),
        }
    }

    /// The connector, or why nothing can be reached.
    fn connector(&self, what: &str) -> Result<&dyn NodeConnector, Status> {
        self.connector.as_deref().ok_or_else(|| {
            Status::unavailable(format!(
                "{what}: this API server was given no node connector"
            ))
        })
    }
}

/// A request for a connection.
pub(crate) struct Asked<'a> {
    /// Its head. What is sent on is made of it.
    pub(crate) parts: &'a mut Parts,
    /// Its query.
    pub(crate) query: &'a Query,
    /// What follows the subresource in the path, still percent-encoded; for proxies.
    pub(crate) rest: String,
    /// What the client sends along.
    pub(crate) body: Body,
}

/// Whether a subresource is a way to a container, a node or a service, instead of a part of an object.
pub(crate) fn is_connection(subresource: &str) -> bool {
    matches!(
        subresource,
        "exec" | "attach" | "portforward" | "proxy" | "log"
    )
}

/// Whether a method is one that a connection may be opened with.
pub(crate) fn allows(subresource: &str, method: &Method) -> bool {
    match subresource {
        "log" => *method == Method::GET,
        "proxy" => true,
        _ => matches!(*method, Method::GET | Method::POST),
    }
}

impl Server {
    /// Opens a connection for an authorised request, and answers with what is at its other end.
    pub(crate) async fn connect(
        &self,
        cx: &mut Context,
        at: &At,
        asked: Asked<'_>,
    ) -> Result<Response<Body>, Status> {
        if !allows(&at.subresource, &asked.parts.method) {
            return Err(Status::method_not_allowed());
        }
        match at.subresource.as_str() {
            "log" => self.log(at, asked).await,
            "proxy" => self.proxy(cx, at, asked).await,
            _ => self.stream(cx, at, asked).await,
        }
    }

    /// The log of a container, as text that comes as it is written.
    async fn log(&self, at: &At, asked: Asked<'_>) -> Result<Response<Body>, Status> {
        let options = LogOptions::parse(asked.query)?;
        options.validate(&at.name)?;
        let pod = self.pod(at, &at.name).await?;
        let container = target::container(&pod, &options.container)?;
        if target::node_name(&pod).is_empty() {
            // Nothing was ever written, and nobody can be asked.
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            return Ok(response);
        }
        let kubelet = self.kubelet_of(at, target::node_name(&pod)).await?;
        let path = format!(
            "/containerLogs/{}/{}/{container}",
            at.namespace,
            percent_encode_path(&at.name)
        );
        let uri = options.uri(&path);
        let what = "logs are not to be had";
        let connector = self.connections.connector(what)?;
        let answer = forward::fetch(&self.connections, &self.env, connector, &kubelet, &uri).await;
        let response = answer.map_err(|why| {
            // In the words of the client that Kubernetes uses here.
            let message = format!(
                "Get \"https://{}:{}{uri}\": {why}",
                kubelet.host, kubelet.port
            );
            Status::failure(500, "", message)
        })?;
        let mut response = forward::checked(response, "pods/log", &at.name).await?;
        let headers = response.headers_mut();
        headers.clear();
        headers.insert("content-type", HeaderValue::from_static("text/plain"));
        headers.insert(
            "cache-control",
            HeaderValue::from_static("no-cache, private"),
        );
        Ok(response)
    }

    /// `exec`, `attach` and `portforward`: the client and the kubelet agree on another protocol.
    async fn stream(
        &self,
        cx: &mut Context,
        at: &At,
        asked: Asked<'_>,
    ) -> Result<Response<Body>, Status> {
        let options = StreamOptions::parse(&at.subresource, asked.query)?;
        // By WebSocket this begins as a GET, which who may only read is let do: it needs what a POST needs.
        if asked.parts.method == Method::GET {
            self.authorize(&create_attributes(cx, at)).await?;
        }
        let options: StreamOptions = options.admitted(
            self.registry
                .admit_connect(cx, at, options.document())
                .await?,
        )?;
        let pod = self.pod(at, &at.name).await?;
        let mut path = format!(
            "/{}/{}/{}",
            options.endpoint(),
            at.namespace,
            percent_encode_path(&at.name)
        );
        if let Some(asked) = options.container() {
            path.push('/');
            path.push_str(&target::container(&pod, asked)?);
        }
        if target::node_name(&pod).is_empty() {
            return Err(Status::bad_request(format!(
                "pod {} does not have a host assigned",
                at.name
            )));
        }
        let kubelet = self.kubelet_of(at, target::node_name(&pod)).await?;
        let uri = options.uri(&path);
        let what = format!(
            "{} is not to be had from node {}",
            at.subresource, kubelet.node
        );
        let connector = self.connections.connector(&what)?;
        if !forward::is_upgrade(&asked.parts.headers) {
            return Err(Status::bad_request("Upgrade request required"));
        }
        let target = Target::Kubelet(kubelet);
        forward::upgrade(
            &self.connections,
            &self.env,
            connector,
            &target,
            &uri,
            asked.parts,
        )
        .await
    }

    /// A proxy to a port of a pod, a service or a node.
    async fn proxy(
        &self,
        cx: &mut Context,
        at: &At,
        asked: Asked<'_>,
    ) -> Result<Response<Body>, Status> {
        let Asked {
            parts,
            query: _,
            rest,
            body,
        } = asked;
        let kind = options::proxy_kind(&at.info.resource.plural);
        let document = options::proxy_document(kind, &rest);
        let document = self.registry.admit_connect(cx, at, document).await?;
        let rest = options::proxy_path(&document, rest);
        let target = match at.info.resource.plural.as_ref() {
            "pods" => self.pod_target(at).await?,
            "services" => self.service_target(at).await?,
            _ => self.node_target(at).await?,
        };
        let what = format!("no way to {} {}", at.info.singular, at.name);
        let connector = self.connections.connector(&what)?;
        let page = rewrite::Page::of(parts, &rest);
        let query = parts.uri.query().map(|query| format!("?{query}"));
        let uri = format!("{rest}{}", query.as_deref().unwrap_or_default());
        if forward::is_upgrade(&parts.headers) {
            let uri = if uri.starts_with('/') {
                uri
            } else {
                format!("/{uri}")
            };
            return forward::upgrade(
                &self.connections,
                &self.env,
                connector,
                &target,
                &uri,
                parts,
            )
            .await;
        }
        if rest.is_empty() && matches!(parts.method, Method::GET | Method::HEAD) {
            return Ok(rewrite::to_directory(parts));
        }
        let uri = if uri.starts_with('/') {
            uri
        } else {
            format!("/{uri}")
        };
        page.say_where(&mut parts.headers);
        let answer = forward::pass_on(
            &self.connections,
            &self.env,
            connector,
            &target,
            &uri,
            parts,
            body,
        );
        let response = answer
            .await
            .map_err(|why| Status::unavailable(format!("error trying to reach service: {why}")))?;
        Ok(page.mend(response, &target.authority()).await)
    }
}

/// Making what is asked for, in place of reading it.
fn create_attributes(cx: &Context, at: &At) -> Attributes {
    let resource = &at.info.resource;
    Attributes {
        user: cx.user.clone(),
        verb: "create".to_owned(),
        scope: Scope::Resource {
            group: resource.group.to_string(),
            version: resource.version.to_string(),
            resource: resource.plural.to_string(),
            subresource: at.subresource.clone(),
            namespace: at.namespace.clone(),
            name: at.name.clone(),
        },
        field_selector: String::new(),
    }
}
