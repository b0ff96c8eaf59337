//! Calls: which method, what in, what out.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Body;
use orlop_wire::body::BoxError;
use tonic::Code;
use tower_service::Service;

use super::body::EtcdBody;
use super::error::{DEADLINE, GrpcError, REQUEST_TOO_LARGE};
use super::frame::{Reader, decoded, encoded};
use super::method::{Method, Shape};
use super::metrics::Handled;
use super::watch::Watches;
use super::{EtcdServer, Inner, auth, lease, maintenance, txn};
use crate::etcd::proto::kv::TxnRequest;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

impl<B> Service<Request<B>> for EtcdServer
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<EtcdBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = self.inner.clone();
        Box::pin(async move { Ok(answer(inner, request).await) })
    }
}

/// The pages of a server without its calls.
#[derive(Clone)]
pub(super) struct Pages(pub(super) EtcdServer);

impl<B: Send + 'static> Service<Request<B>> for Pages {
    type Response = Response<EtcdBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = self.0.inner.clone();
        let (parts, _) = request.into_parts();
        Box::pin(async move {
            let (path, query) = (parts.uri.path(), parts.uri.query());
            Ok(inner.page(&parts.method, path, query).await)
        })
    }
}

async fn answer<B>(server: Arc<Inner>, request: Request<B>) -> Response<EtcdBody>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    if !is_grpc(&parts) {
        return server
            .page(&parts.method, parts.uri.path(), parts.uri.query())
            .await;
    }
    let Some(method) = Method::at(parts.uri.path()) else {
        return refusal(&unknown(parts.uri.path()));
    };
    server.metrics.started(method);
    let called = async {
        if let Some(encoding) = compressed(&parts.headers) {
            return Err(GrpcError::new(
                Code::Unimplemented,
                format!("grpc: Decompressor is not installed for grpc-encoding \"{encoding}\""),
            ));
        }
        let limit = timeout(&parts.headers)?;
        match method.about().2 {
            Shape::Unary => {
                let call = async {
                    let message = Reader::new(body, server.message_limit()).only().await?;
                    server.unary(method, message).await
                };
                let message = match limit {
                    None => call.await?,
                    Some(limit) => server
                        .env
                        .timeout(limit, call)
                        .await
                        .unwrap_or(Err(DEADLINE))?,
                };
                server.metrics.handled(method, Code::Ok);
                Ok(EtcdBody::message(message))
            }
            Shape::ServerStream | Shape::BidiStream => {
                let messages = match method {
                    Method::LeaseKeepAlive => lease::keep_alive(server.clone(), body).boxed(),
                    Method::Snapshot => maintenance::snapshot(server.clone()).boxed(),
                    _ => Watches::new(server.clone(), body).boxed(),
                };
                let messages = match limit {
                    None => messages,
                    Some(limit) => {
                        let late = server.env.sleep(limit);
                        Until { messages, late }.boxed()
                    }
                };
                let handled = Handled::new(&server.metrics, method);
                Ok(EtcdBody::stream(messages, handled))
            }
        }
    };
    match called.await {
        Ok(body) => {
            let mut response = Response::new(body);
            response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
            response
        }
        Err(error) => {
            server.metrics.handled(method, error.code);
            refusal(&error)
        }
    }
}

/// An answer that is nothing but an error.
fn refusal(error: &GrpcError) -> Response<EtcdBody> {
    let mut response = Response::new(EtcdBody::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, GRPC);
    if error.code == Code::Unimplemented {
        headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
    }
    error.write(headers);
    response
}

fn is_grpc(parts: &Parts) -> bool {
    parts.method == http::Method::POST
        && parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
            matches!(
                kind.as_bytes().strip_prefix(b"application/grpc"),
                Some([] | [b'+' | b';', ..])
            )
        })
}

fn unknown(path: &str) -> GrpcError {
    let text = match path
        .strip_prefix('/')
        .and_then(|path| path.rsplit_once('/'))
    {
        None => format!("malformed method name: {path:?}"),
        Some((service, method)) => {
            if Method::ALL.iter().any(|known| known.about().0 == service) {
                format!("unknown method {method} for service {service}")
            } else {
                format!("unknown service {service}")
            }
        }
    };
    GrpcError::new(Code::Unimplemented, text)
}

/// How messages are compressed, if they are.
fn compressed(headers: &HeaderMap) -> Option<String> {
    let encoding = headers.get("grpc-encoding")?.as_bytes();
    (encoding != b"identity").then(|| String::from_utf8_lossy(encoding).into_owned())
}

/// How long the client is going to wait.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, GrpcError> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(|text| {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        // Eight digits at most, and no sign.
        if number.len() > 8 || !number.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let number: u64 = number.parse().ok()?;
        Some(match unit {
            "H" => Duration::from_secs(number * 3600),
            "M" => Duration::from_secs(number * 60),
            "S" => Duration::from_secs(number),
            "m" => Duration::from_millis(number),
            "u" => Duration::from_micros(number),
            "n" => Duration::from_nanos(number),
            _ => return None,
        })
    });
    match parsed {
        Some(limit) => Ok(Some(limit)),
        None => Err(GrpcError::new(Code::Internal, "malformed grpc-timeout")),
    }
}

/// Messages until a moment.
struct Until {
    messages: futures::stream::BoxStream<'static, Result<Bytes, GrpcError>>,
    late: BoxFuture<'static, ()>,
}

impl futures::Stream for Until {
    type Item = Result<Bytes, GrpcError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.late.poll_unpin(cx).is_ready() {
            return Poll::Ready(Some(Err(DEADLINE)));
        }
        self.messages.poll_next_unpin(cx)
    }
}

impl Inner {
    /// Does a call that has one message there and one back.
    async fn unary(&self, method: Method, message: Bytes) -> Result<Bytes, GrpcError> {
        let too_large = message.len() > self.options.max_request_bytes;
        // What only reads may be long.
        if too_large && !matches!(method, Method::Range | Method::Txn) {
            return Err(REQUEST_TOO_LARGE);
        }
        match method {
            Method::Range => encoded(&self.range(decoded(message)?).await?),
            Method::Put => encoded(&self.put(decoded(message)?).await?),
            Method::DeleteRange => encoded(&self.delete_range(decoded(message)?).await?),
            Method::Txn => {
                let request: TxnRequest = decoded(message)?;
                if too_large && txn::writes(&request) {
                    return Err(REQUEST_TOO_LARGE);
                }
                encoded(&self.txn(request).await?)
            }
            Method::Compact => encoded(&self.compact(decoded(message)?).await?),
            Method::LeaseGrant => encoded(&self.lease_grant(decoded(message)?).await?),
            Method::LeaseRevoke => encoded(&self.lease_revoke(decoded(message)?).await?),
            Method::LeaseTimeToLive => encoded(&self.lease_time_to_live(decoded(message)?).await?),
            Method::LeaseLeases => encoded(&self.lease_leases(decoded(message)?).await?),
            Method::MemberAdd => encoded(&self.member_add(&decoded(message)?)?),
            Method::MemberRemove => encoded(&self.member_remove(&decoded(message)?)?),
            Method::MemberUpdate => encoded(&self.member_update(&decoded(message)?)?),
            Method::MemberList => encoded(&self.member_list()),
            Method::MemberPromote => encoded(&self.member_promote(&decoded(message)?)?),
            Method::Alarm => encoded(&self.alarm(&decoded(message)?)),
            Method::Status => encoded(&self.status().await?),
            Method::Defragment => encoded(&self.defragment().await?),
            Method::Hash => encoded(&self.hash().await?),
            Method::HashKv => encoded(&self.hash_kv(decoded(message)?).await?),
            Method::MoveLeader => encoded(&self.move_leader(&decoded(message)?)?),
            Method::Downgrade => encoded(&self.downgrade(&decoded(message)?)?),
            Method::AuthStatus => encoded(&self.auth_status().await?),
            Method::AuthDisable => encoded(&self.auth_disable().await?),
            Method::Authenticate => Err(auth::authenticate()),
            _ => Err(auth::unsupported()),
        }
    }
}
