//! The side that asks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::future::{Either, select};
use http::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use orlop_core::env::Env;
use tokio::io::{AsyncRead, AsyncWrite};

use super::server::accept_key;
use super::{STREAM_PROTOCOL, UpgradedIo};
use crate::Error;
use crate::body::Body;

/// How much of a refusal is read, in bytes.
const MAX_REFUSAL: usize = 1 << 20;

/// What came of asking for an upgrade.
#[derive(Debug)]
pub enum Outcome {
    /// The connection is something else now.
    Switched {
        /// The server's answer, with the protocol that it chose.
        response: Response<()>,
        /// The bytes below.
        io: UpgradedIo,
    },
    /// The server answered as to any other request: a refusal.
    Answered(Response<Bytes>),
}

fn failed(what: impl ToString) -> Error {
    Error::Upgrade(what.to_string())
}

fn value(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(failed)
}

/// A request for `uri` with `Host` (that of the URI, or else `localhost`) and the target in its origin form.
fn request(method: Method, uri: &Uri, upgrade: &'static str) -> Result<Request<Body>, Error> {
    let host = uri.authority().map_or("localhost", |host| host.as_str());
    let target = uri.path_and_query().map_or("/", |path| path.as_str());
    Request::builder()
        .method(method)
        .uri(target)
        .header(HOST, host)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, upgrade)
        .body(Body::empty())
        .map_err(failed)
}

/// A request for SPDY/3.1 with one of `protocols` inside, the favourite first.
///
/// # Errors
/// [`Error::Upgrade`] for what cannot stand in a request.
pub fn spdy_request(method: Method, uri: &Uri, protocols: &[&str]) -> Result<Request<Body>, Error> {
    let mut request = request(method, uri, crate::stream::spdy::PROTOCOL)?;
    for protocol in protocols {
        request
            .headers_mut()
            .append(STREAM_PROTOCOL, value(protocol)?);
    }
    Ok(request)
}

/// A request for a WebSocket with one of `protocols`, the favourite first.
///
/// # Errors
/// [`Error::Upgrade`] for what cannot stand in a request.
pub fn websocket_request(uri: &Uri, protocols: &[&str], env: &Env) -> Result<Request<Body>, Error> {
    let mut request = request(Method::GET, uri, "websocket")?;
    // It only has to differ from request to request.
    let mut key = [0; 16];
    key[..8].copy_from_slice(&env.random_u64().to_be_bytes());
    key[8..].copy_from_slice(&env.random_u64().to_be_bytes());
    let headers = request.headers_mut();
    headers.insert(SEC_WEBSOCKET_KEY, value(&BASE64.encode(key))?);
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    if !protocols.is_empty() {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, value(&protocols.join(", "))?);
    }
    Ok(request)
}

/// Sends a request that asks for an upgrade over a fresh HTTP/1.1 connection, and waits for the answer.
///
/// # Errors
/// [`Error::Upgrade`]: the connection broke, or the server did not answer the key of a WebSocket. To bound it in time, drop the future.
pub async fn connect<IO>(io: IO, request: Request<Body>) -> Result<Outcome, Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let expected = request
        .headers()
        .get(SEC_WEBSOCKET_KEY)
        .map(|key| accept_key(key.as_bytes()));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .map_err(failed)?;
    let mut connection = Box::pin(connection.with_upgrades());
    let answer = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Either::Left(response));
        }
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_REFUSAL).collect().await;
        let body = body.map_err(failed)?.to_bytes();
        Ok::<_, Error>(Either::Right(Response::from_parts(parts, body)))
    };
    // The connection moves as long as it is polled, which is here.
    let answer = match select(Box::pin(answer), &mut connection).await {
        Either::Left((answer, _)) => answer?,
        // It ended, with its answer behind it if there was one.
        Either::Right((ended, answer)) => {
            let answer = answer.await;
            if answer.is_err() {
                ended.map_err(failed)?;
            }
            answer?
        }
    };
    let mut response = match answer {
        Either::Left(response) => response,
        Either::Right(refusal) => return Ok(Outcome::Answered(refusal)),
    };
    if let Some(expected) = expected
        && response
            .headers()
            .get(SEC_WEBSOCKET_ACCEPT)
            .is_none_or(|accept| accept.as_bytes() != expected.as_bytes())
    {
        return Err(failed("the server is no WebSocket server"));
    }
    let upgraded = hyper::upgrade::on(&mut response);
    let io = match select(upgraded, &mut connection).await {
        Either::Left((io, _)) => io,
        Either::Right((_, upgraded)) => upgraded.await,
    };
    Ok(Outcome::Switched {
        response: response.map(drop),
        io: UpgradedIo::new(io.map_err(failed)?),
    })
}
