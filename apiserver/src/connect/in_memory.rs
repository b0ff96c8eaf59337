//! Other protocols for clients in the same process: they have no connection, so they are given one in memory.

use http::header::{HOST, HeaderValue};
use http::{Request, Response, Version};
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use orlop_core::status::Status;
use orlop_wire::body::Body;
use orlop_wire::listener::{ConnectionLimits, PeerInfo, serve_connection};

use super::forward::is_upgrade;
use crate::Server;
use crate::http::HttpService;

/// How many bytes either side may be ahead of the other.
const BUFFER: usize = 64 << 10;

/// Whether a request wants another protocol and has no connection on which it could be spoken.
pub(crate) fn needs_connection(request: &Request<Body>) -> bool {
    request.version() != Version::HTTP_2
        && is_upgrade(request.headers())
        && request.extensions().get::<OnUpgrade>().is_none()
}

/// Answers a request over a connection in memory: the answer can be upgraded as one from a socket can.
///
/// # Errors
/// When the request is no HTTP/1.1.
pub(crate) async fn answer_in_memory(
    service: HttpService,
    server: &Server,
    mut request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let (near, far) = tokio::io::duplex(BUFFER);
    let tasks = &server.connections.tasks;
    let peer = request.extensions().get::<PeerInfo>().cloned();
    let (env, stop) = (server.env.clone(), tasks.token());
    tasks.spawn_until_cancelled("connection in memory", async move {
        let peer = peer.unwrap_or_default();
        let limits = ConnectionLimits::in_memory();
        let served = serve_connection(far, peer, service, &limits, &env, &stop).await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection in memory broke");
        }
    });
    let (mut sender, connection) = http1::handshake(TokioIo::new(near))
        .await
        .map_err(Status::internal)?;
    let connection = connection.with_upgrades();
    tasks.spawn_until_cancelled("client in memory", async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection in memory broke");
        }
    });
    let authority = request.uri().authority().map(ToString::to_string);
    if !request.headers().contains_key(HOST) {
        let host = authority.and_then(|authority| HeaderValue::from_str(&authority).ok());
        let host = host.unwrap_or(HeaderValue::from_static("localhost"));
        request.headers_mut().insert(HOST, host);
    }
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = path.into();
    }
    let response = sender.send_request(request).await;
    response
        .map(|response| response.map(Body::new))
        .map_err(Status::internal)
}
