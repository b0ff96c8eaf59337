//! A kube-rs client in the same process: the API server's own service, without a socket.

use std::convert::Infallible;
use std::task::{Context, Poll};

use orlop_apiserver::http::HttpService;
use tower_service::Service;

/// The API server's service with the error type that kube-rs wants.
#[derive(Clone)]
struct InProcess(HttpService);

impl Service<http::Request<kube::client::Body>> for InProcess {
    type Response = http::Response<orlop_wire::body::Body>;
    type Error = Infallible;
    type Future = <HttpService as Service<http::Request<kube::client::Body>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<kube::client::Body>) -> Self::Future {
        self.0.call(request)
    }
}

/// A kube-rs client over the service, with `default` as its namespace.
pub(crate) fn client(service: HttpService) -> kube::Client {
    kube::Client::new(InProcess(service), "default")
}
