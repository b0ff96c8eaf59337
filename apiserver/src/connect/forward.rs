//! Passing requests on, over HTTP/1.1, and what comes back; also what is no HTTP any more.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, select};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use orlop_core::env::{CancelToken, Env};
use orlop_core::field::quote;
use orlop_core::node::{KubeletEndpoint, NodeConnector};
use orlop_core::status::{Status, StatusDetails, reason};
use orlop_wire::body::Body;
use orlop_wire::listener::PeerInfo;
use orlop_wire::remote::connect_unverified;
use orlop_wire::stream::io::from_connection;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::Connections;
use super::target::Target;
use crate::authentication::WEBSOCKET_BEARER;
use crate::metrics::LongRunning;

/// How long a connection may take to be opened.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a refusal is read, in bytes.
const MAX_REFUSAL: usize = 50_000;
/// How many bytes the header of an answer may have.
const MAX_HEADER: usize = 256 << 10;

/// Bytes both ways.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Whether a request wants another protocol.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

/// Ends a connection's task when nobody holds the answer any more.
struct EndConnection(CancelToken);

impl Drop for EndConnection {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The body of an answer; its connection lives as long as it.
struct Held {
    body: Incoming,
    _connection: EndConnection,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Opens a connection. The error says why there is none.
async fn dial(
    env: &Env,
    connector: &dyn NodeConnector,
    target: &Target,
) -> Result<Box<dyn Duplex>, String> {
    let opened = async {
        let connection = match target {
            Target::Kubelet(kubelet) => connector.kubelet(kubelet).await,
            Target::Port { address, .. } => connector.dial(*address).await,
        };
        let io = from_connection(connection.map_err(|error| error.to_string())?);
        let io: Box<dyn Duplex> = match target {
            Target::Port { address, tls: true } => {
                let io = connect_unverified(io, address.ip()).await;
                Box::new(io.map_err(|error| error.to_string())?)
            }
            _ => Box::new(io),
        };
        Ok(io)
    };
    match env.timeout(DIAL_TIMEOUT, opened).await {
        Ok(opened) => opened,
        Err(_) => Err(format!("dial tcp {}: i/o timeout", target.authority())),
    }
}

/// Sends one request over a connection of its own.
async fn send(
    connections: &Connections,
    io: Box<dyn Duplex>,
    request: Request<Body>,
) -> Result<(Response<Incoming>, EndConnection), hyper::Error> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEADER)
        .handshake(TokioIo::new(io))
        .await?;
    let token = CancelToken::new();
    let held = EndConnection(token.clone());
    let connection: BoxFuture<'static, hyper::Result<()>> = Box::pin(connection.with_upgrades());
    connections
        .tasks
        .spawn_until_cancelled("proxied connection", async move {
            if let Some(Err(error)) = token.run(connection).await {
                tracing::debug!(%error, "a connection to a node broke");
            }
        });
    let response = sender.send_request(request).await?;
    Ok((response, held))
}

/// What went wrong, with its causes.
fn words(error: &hyper::Error) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

/// A GET of the server's own, from a kubelet.
pub(super) async fn fetch(
    connections: &Connections,
    env: &Env,
    connector: &dyn NodeConnector,
    kubelet: &KubeletEndpoint,
    uri: &str,
) -> Result<Response<Body>, String> {
    let target = Target::Kubelet(kubelet.clone());
    let io = dial(env, connector, &target).await?;
    let request = Request::get(uri)
        .header(HOST, target.authority())
        .header("user-agent", "kube-apiserver")
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    let (response, held) = send(connections, io, request)
        .await
        .map_err(|error| words(&error))?;
    Ok(response.map(|body| {
        Body::new(Held {
            body,
            _connection: held,
        })
    }))
}

/// An answer of a kubelet if it is a good one; else the refusal that Kubernetes makes of it.
pub(super) async fn checked(
    response: Response<Body>,
    resource: &str,
    name: &str,
) -> Result<Response<Body>, Status> {
    let code = response.status().as_u16();
    if (200..=206).contains(&code) {
        return Ok(response);
    }
    let mut text = Vec::new();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(Status::internal)?;
        if let Ok(data) = frame.into_data() {
            text.extend_from_slice(&data[..data.len().min(MAX_REFUSAL - text.len())]);
        }
        if text.len() == MAX_REFUSAL {
            break;
        }
    }
    let text = String::from_utf8_lossy(&text);
    Err(match code {
        500 => Status::internal(text),
        400 => Status::bad_request(text),
        _ => generic(code, resource, name, &text),
    })
}

/// The refusal that Kubernetes makes of a server's answer which is none of its own.
fn generic(code: u16, resource: &str, name: &str, text: &str) -> Status {
    let (why, message) = match code {
        404 => (
            reason::NOT_FOUND,
            "the server could not find the requested resource".to_owned(),
        ),
        409 => (
            reason::CONFLICT,
            "the server reported a conflict".to_owned(),
        ),
        401 => (
            reason::UNAUTHORIZED,
            "the server has asked for the client to provide credentials".to_owned(),
        ),
        403 => (reason::FORBIDDEN, text.to_owned()),
        405 => (
            reason::METHOD_NOT_ALLOWED,
            "the server does not allow this method on the requested resource".to_owned(),
        ),
        422 => (
            reason::INVALID,
            "the server rejected our request due to an error in our request".to_owned(),
        ),
        429 => (
            reason::TOO_MANY_REQUESTS,
            "the server has received too many requests and has asked us to try again later"
                .to_owned(),
        ),
        503 => (
            reason::SERVICE_UNAVAILABLE,
            "the server is currently unable to handle the request".to_owned(),
        ),
        504 => (
            reason::TIMEOUT,
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .to_owned(),
        ),
        code if code >= 500 => (
            reason::INTERNAL_ERROR,
            format!(
                "an error on the server ({}) has prevented the request from succeeding",
                quote(text)
            ),
        ),
        code => (
            "",
            format!(
                "the server responded with the status code {code} but did not return more information"
            ),
        ),
    };
    // Kubernetes puts the verb first, which it does not know here: hence the space.
    let message = format!("{message} ( {resource} {name})");
    Status::failure(code, why, message).with_details(StatusDetails {
        name: name.to_owned(),
        kind: resource.to_owned(),
        ..StatusDetails::default()
    })
}

/// The head of the request that goes on: what concerned this server alone is taken out.
fn head(parts: &mut Parts, target: &Target, uri: &str) -> Result<Request<()>, String> {
    let mut headers = std::mem::take(&mut parts.headers);
    headers.remove("authorization");
    let impersonation: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("impersonate-"))
        .cloned()
        .collect();
    for name in impersonation {
        headers.remove(name);
    }
    without_bearer(&mut headers);
    if !headers.contains_key(HOST) {
        // An HTTP/2 client says it in the URI.
        let authority = parts.uri.authority().map(ToString::to_string);
        let authority = authority.unwrap_or_else(|| target.authority());
        if let Ok(host) = HeaderValue::from_str(&authority) {
            headers.insert(HOST, host);
        }
    }
    let peer = parts.extensions.get::<PeerInfo>();
    if let Some(address) = peer.and_then(|peer| peer.remote_addr) {
        let mut through: Vec<String> = headers
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect();
        through.push(address.ip().to_string());
        if let Ok(value) = HeaderValue::from_str(&through.join(", ")) {
            headers.insert("x-forwarded-for", value);
        }
    }
    let mut request = Request::new(());
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri
        .parse()
        .map_err(|error: http::uri::InvalidUri| error.to_string())?;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Takes a bearer token out of the protocols that a browser offers.
fn without_bearer(headers: &mut HeaderMap) {
    let offered: Vec<String> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|protocol| protocol.trim().to_owned())
        .collect();
    if !offered
        .iter()
        .any(|protocol| protocol.starts_with(WEBSOCKET_BEARER))
    {
        return;
    }
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    let rest: Vec<String> = offered
        .into_iter()
        .filter(|protocol| !protocol.starts_with(WEBSOCKET_BEARER))
        .collect();
    if let Ok(value) = HeaderValue::from_str(&rest.join(","))
        && !rest.is_empty()
    {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
}

/// Takes out what is said from one hop to the next, and what those headers name.
fn without_hops(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    for name in [
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
    ] {
        headers.remove(name);
    }
}

/// Passes a request on, and its answer back.
pub(super) async fn pass_on(
    connections: &Connections,
    env: &Env,
    connector: &dyn NodeConnector,
    target: &Target,
    uri: &str,
    parts: &mut Parts,
    body: Body,
) -> Result<Response<Body>, String> {
    let mut request = head(parts, target, uri)?;
    without_hops(request.headers_mut());
    request.headers_mut().remove("expect");
    let io = dial(env, connector, target).await?;
    let (response, held) = send(connections, io, request.map(|()| body))
        .await
        .map_err(|error| words(&error))?;
    let mut response = response.map(|body| {
        Body::new(Held {
            body,
            _connection: held,
        })
    });
    without_hops(response.headers_mut());
    *response.version_mut() = Version::default();
    Ok(response)
}

/// Passes a request on that wants another protocol, and when both sides have agreed on one, the bytes of both.
///
/// # Errors
/// When the other side cannot be reached, or does neither agree nor refuse. A refusal of the other side is the answer.
pub(super) async fn upgrade(
    connections: &Connections,
    env: &Env,
    connector: &dyn NodeConnector,
    target: &Target,
    uri: &str,
    parts: &mut Parts,
) -> Result<Response<Body>, Status> {
    // Errors of this kind have no reason in Kubernetes, either.
    let failed = |message: String| Status::failure(500, "", message);
    let Some(client) = parts.extensions.remove::<OnUpgrade>() else {
        return Err(failed(
            "unable to upgrade: the connection cannot be used for another protocol".to_owned(),
        ));
    };
    let mut request =
        head(parts, target, uri).map_err(|why| failed(format!("error sending request: {why}")))?;
    request.headers_mut().remove(CONTENT_LENGTH);
    request.headers_mut().remove(TRANSFER_ENCODING);
    let io = dial(env, connector, target)
        .await
        .map_err(|why| failed(format!("error dialing backend: {why}")))?;
    let (mut response, held) = send(connections, io, request.map(|()| Body::empty()))
        .await
        .map_err(|error| failed(format!("error sending request: {}", words(&error))))?;
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        if status.as_u16() < 400 {
            let code = status.as_u16();
            return Err(failed(format!(
                "invalid upgrade response: status code {code}"
            )));
        }
        without_hops(response.headers_mut());
        return Ok(response.map(|body| {
            Body::new(Held {
                body,
                _connection: held,
            })
        }));
    }
    let node = hyper::upgrade::on(&mut response);
    let (node_parts, _) = response.into_parts();
    // Counted until the stream ends, not until it begins.
    let lasting = parts.extensions.remove::<Arc<LongRunning>>();
    connections
        .tasks
        .spawn_until_cancelled("proxied stream", async move {
            let _held = (held, lasting);
            match futures::future::try_join(client, node).await {
                Ok((client, node)) => tunnel(client, node).await,
                Err(error) => tracing::debug!(%error, "a stream did not come about"),
            }
        });
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    *answer.headers_mut() = node_parts.headers;
    Ok(answer)
}

/// Carries bytes both ways until one side ends, which ends the other.
async fn tunnel(client: Upgraded, node: Upgraded) {
    let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(client));
    let (mut from_node, mut to_node) = tokio::io::split(TokioIo::new(node));
    {
        let up = std::pin::pin!(tokio::io::copy(&mut from_client, &mut to_node));
        let down = std::pin::pin!(tokio::io::copy(&mut from_node, &mut to_client));
        select(down, up).await;
    }
    // What was written stays written.
    let _ = to_client.shutdown().await;
    let _ = to_node.shutdown().await;
}

/// Reads a body up to a limit; what is beyond it is an error.
pub(super) async fn read(body: Body, limit: usize) -> Result<Bytes, String> {
    let read = Limited::new(body, limit).collect().await;
    read.map(http_body_util::Collected::to_bytes)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_and_credentials_stay_here() {
        let (mut parts, ()) = Request::get("/api")
            .header("connection", "keep-alive, x-mine")
            .header("x-mine", "1")
            .header("authorization", "Bearer secret")
            .header("impersonate-user", "bob")
            .header("x-yours", "1")
            .header(
                SEC_WEBSOCKET_PROTOCOL,
                "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0",
            )
            .header("x-forwarded-for", "9.9.9.9")
            .extension(PeerInfo::at("1.2.3.4:5".parse().unwrap()))
            .body(())
            .unwrap()
            .into_parts();
        let target = Target::Port {
            address: "10.0.0.1:80".parse().unwrap(),
            tls: false,
        };
        let mut request = head(&mut parts, &target, "/x?y").unwrap();
        without_hops(request.headers_mut());
        let headers = request.headers();
        for gone in ["connection", "x-mine", "authorization", "impersonate-user"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(headers["x-yours"], "1");
        assert_eq!(headers[SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
        assert_eq!(headers["x-forwarded-for"], "9.9.9.9, 1.2.3.4");
        assert_eq!(headers[HOST], "10.0.0.1:80");
        assert_eq!(request.uri(), "/x?y");
    }

    #[test]
    fn refusals_are_told_as_kubernetes_tells_them() {
        let status = generic(404, "pods/log", "web", "no such");
        assert_eq!(
            status.message,
            "the server could not find the requested resource ( pods/log web)"
        );
        assert_eq!(status.reason, reason::NOT_FOUND);
        let status = generic(502, "pods/log", "web", "x\"y");
        assert_eq!(
            status.message,
            "an error on the server (\"x\\\"y\") has prevented the request from succeeding ( pods/log web)"
        );
        assert_eq!(status.reason, reason::INTERNAL_ERROR);
    }
}
