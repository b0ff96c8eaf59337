//! An empty server by tonic: it reads a message and answers with an empty one. The bound of what any gRPC server in Rust does that keeps something.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::grpc::Put;

/// Serves until the process ends.
pub(crate) async fn serve(address: SocketAddr) {
    tonic::transport::Server::builder()
        .serve(address, Echo)
        .await
        .expect("a server");
}

/// Every method is the same one.
#[derive(Clone)]
struct Echo;

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<(), Put>::default());
            Ok(grpc.unary(Empty, request).await)
        })
    }
}

/// Looks at nothing, and answers nothing. A message of a read has no more than a key and an end, which a `Put` can hold too.
struct Empty;

impl Service<tonic::Request<Put>> for Empty {
    type Response = tonic::Response<()>;
    type Error = tonic::Status;
    type Future = Ready<Result<Self::Response, tonic::Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), tonic::Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: tonic::Request<Put>) -> Self::Future {
        ready(Ok(tonic::Response::new(())))
    }
}
