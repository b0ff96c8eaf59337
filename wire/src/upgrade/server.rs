//! The side that is asked.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{
    CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;

use super::{ACCEPTED_STREAM_PROTOCOLS, STREAM_PROTOCOL, UpgradedIo};
use crate::Error;
use crate::body::Body;

/// What every WebSocket server appends to a client's key (RFC 6455, section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The answer to a WebSocket client's key.
pub(super) fn accept_key(key: &[u8]) -> String {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(GUID.as_bytes());
    BASE64.encode(hash.finish())
}

/// The words of a header that is a list, over all its lines.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    words(headers, name).any(|have| have.eq_ignore_ascii_case(word))
}

/// Whether a request asks for its connection to become something else.
pub fn is_upgrade<B>(request: &Request<B>) -> bool {
    has_word(request.headers(), &CONNECTION, "upgrade") && request.headers().contains_key(UPGRADE)
}

/// Whether it is to become a WebSocket.
pub fn is_websocket<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET
        && is_upgrade(request)
        && has_word(request.headers(), &UPGRADE, "websocket")
}

/// Whether it is to speak SPDY/3.1.
pub fn is_spdy<B>(request: &Request<B>) -> bool {
    is_upgrade(request) && has_word(request.headers(), &UPGRADE, crate::stream::spdy::PROTOCOL)
}

/// The bytes below, once the answer has been sent. Resolves to [`UpgradedIo`].
#[derive(Debug)]
pub struct Upgrading(OnUpgrade);

impl Future for Upgrading {
    type Output = Result<UpgradedIo, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(
            ready!(Pin::new(&mut self.0).poll(cx))
                .map(UpgradedIo::new)
                .map_err(|error| Error::Upgrade(error.to_string())),
        )
    }
}

/// An upgrade that was agreed on.
#[derive(Debug)]
pub struct Accepted {
    /// The protocol inside that was chosen; empty if the client named none.
    pub protocol: String,
    /// What to answer.
    pub response: Response<Body>,
    /// The bytes below, for a task to wait for: they come after the answer was sent.
    pub io: Upgrading,
}

fn refuse(code: StatusCode, message: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::from(message.into() + "\n"));
    *response.status_mut() = code;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

fn upgrading<B>(request: &mut Request<B>) -> Upgrading {
    Upgrading(hyper::upgrade::on(request))
}

/// Answers that the connection is something else now, with the headers of somebody else's answer: for who passes an upgrade on.
pub fn switch<B>(request: &mut Request<B>, headers: HeaderMap) -> (Response<Body>, Upgrading) {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    (response, upgrading(request))
}

fn switched<B>(request: &mut Request<B>, to: &'static str) -> (Response<Body>, Upgrading) {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(to));
    switch(request, headers)
}

/// Agrees to a WebSocket with one of `protocols`, of which the client's favourite is taken. An empty one in the list lets in clients
/// that name none.
///
/// # Errors
/// What to answer instead: 400 for what is no WebSocket's beginning, 403 for a client that knows none of the protocols.
pub fn websocket<B>(
    request: &mut Request<B>,
    protocols: &[&str],
) -> Result<Accepted, Box<Response<Body>>> {
    let headers = request.headers();
    let bad = |what: &str| Box::new(refuse(StatusCode::BAD_REQUEST, what));
    if !is_websocket(request) {
        return Err(bad("not websocket protocol"));
    }
    if headers
        .get(SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return Err(bad("missing or bad WebSocket Version"));
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .ok_or_else(|| bad("missing or bad WebSocket-Key"))?;
    let accept = accept_key(key.as_bytes());
    let wanted: Vec<&str> = words(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
    let chosen = if wanted.is_empty() {
        protocols.contains(&"").then(String::new)
    } else {
        wanted
            .iter()
            .find(|protocol| protocols.contains(protocol))
            .map(|protocol| (*protocol).to_owned())
    };
    let Some(protocol) = chosen else {
        return Err(Box::new(refuse(
            StatusCode::FORBIDDEN,
            "bad WebSocket protocol",
        )));
    };
    let (mut response, io) = switched(request, "websocket");
    let headers = response.headers_mut();
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let (false, Ok(chosen)) = (protocol.is_empty(), HeaderValue::from_str(&protocol)) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, chosen);
    }
    Ok(Accepted {
        protocol,
        response,
        io,
    })
}

/// Agrees to SPDY/3.1 with one of `protocols` inside, of which the client's favourite is taken. A client that names none, as those of
/// Kubernetes 1.0 do, gets none.
///
/// # Errors
/// What to answer instead: 400 for a request that asks for something else, 403 for a client that knows none of the protocols.
pub fn spdy<B>(
    request: &mut Request<B>,
    protocols: &[&str],
) -> Result<Accepted, Box<Response<Body>>> {
    if !is_spdy(request) {
        return Err(Box::new(refuse(
            StatusCode::BAD_REQUEST,
            "unable to upgrade: missing upgrade headers in request",
        )));
    }
    let name = HeaderName::from_static(STREAM_PROTOCOL);
    let wanted: Vec<&str> = words(request.headers(), &name).collect();
    let chosen = wanted.iter().find(|protocol| protocols.contains(protocol));
    let protocol = match chosen {
        Some(chosen) => (*chosen).to_owned(),
        None if wanted.is_empty() => String::new(),
        None => {
            let why = format!(
                "unable to upgrade: unable to negotiate protocol: client supports {wanted:?}, server accepts {protocols:?}"
            );
            let mut response = refuse(StatusCode::FORBIDDEN, why);
            for protocol in protocols {
                if let Ok(value) = HeaderValue::from_str(protocol) {
                    response
                        .headers_mut()
                        .append(ACCEPTED_STREAM_PROTOCOLS, value);
                }
            }
            return Err(Box::new(response));
        }
    };
    let (mut response, io) = switched(request, crate::stream::spdy::PROTOCOL);
    if let (false, Ok(chosen)) = (protocol.is_empty(), HeaderValue::from_str(&protocol)) {
        response.headers_mut().insert(name, chosen);
    }
    Ok(Accepted {
        protocol,
        response,
        io,
    })
}
