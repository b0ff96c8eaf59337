//! Small answers over plain HTTP.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Request, Response, StatusCode};
use orlop_core::env::{CancelToken, Env};
use orlop_wire::body::Body;
use orlop_wire::listener::Listener;
use tokio::net::TcpListener;
use tower_service::Service;

use crate::Error;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(status: StatusCode, body: String) -> Self {
        Self {
            status,
            content_type: "application/json",
            headers: Vec::new(),
            body,
        }
    }

    pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            headers: Vec::new(),
            body: body.into(),
        }
    }
}

/// What answers a path.
type Routes = dyn Fn(&str) -> Option<Answer> + Send + Sync;

#[derive(Clone)]
struct Handler(Arc<Routes>);

impl Service<Request<Body>> for Handler {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = (self.0)(request.uri().path())
            .unwrap_or_else(|| Answer::text(StatusCode::NOT_FOUND, "404 page not found\n"));
        let mut response = Response::new(Body::from(answer.body));
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        for (name, value) in answer.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        ready(Ok(response))
    }
}

/// Listens on an address; the future that comes back serves until it is cancelled.
pub(crate) async fn serve(
    address: SocketAddr,
    routes: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static,
    env: Env,
    cancel: CancelToken,
) -> Result<impl Future<Output = ()> + Send + 'static, Error> {
    let socket = TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })?;
    let handler = Handler(Arc::new(routes));
    Ok(async move {
        if let Err(error) = Listener::plain()
            .serve(socket, handler, &env, &cancel)
            .await
        {
            tracing::warn!(%error, %address, "no longer served");
        }
    })
}
