//! The connection to a container engine, and calls over it.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use orlop_core::env::Env;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::error::CriError;
use crate::messages::Call;

/// How long a call may take when nothing else is said: the kubelet's `runtimeRequestTimeout`.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How large an answer may be: what the kubelet allows.
const ANSWER_LIMIT: usize = 16 << 20;

/// How many calls may wait for their answers at once. Far above what a node does, so that calls that take long by their nature (a stop with
/// its grace, a pull, a probe) hold nobody up; a bound all the same.
const CALLS_AT_ONCE: usize = 1024;

/// How long after a connection broke a call that only reads is made again.
const BEFORE_AGAIN: Duration = Duration::from_millis(100);

/// How often such a call is made again.
const AGAIN: u32 = 2;

/// A container engine behind a Unix socket.
///
/// The connection is made by the first call, and anew by the first call after it broke: an engine that restarts is found again.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    channel: Channel,
    env: Env,
}

impl Engine {
    /// An engine at a socket. Connects to nothing yet.
    pub(crate) fn new(socket: PathBuf, env: Env) -> Self {
        // Over a Unix socket the authority says nothing, but HTTP wants one.
        let endpoint = Endpoint::from_static("http://localhost").concurrency_limit(CALLS_AT_ONCE);
        let socket: Arc<std::path::Path> = socket.into();
        Self {
            channel: endpoint.connect_with_connector_lazy(Dial(socket)),
            env,
        }
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// Makes a call that takes no longer than usual.
    pub(crate) async fn call<C: Call>(&self, request: C) -> Result<C::Answer, Status> {
        self.call_within(request, PATIENCE).await
    }

    /// Makes a call that may take so long.
    pub(crate) async fn call_within<C: Call>(
        &self,
        request: C,
        limit: Duration,
    ) -> Result<C::Answer, Status> {
        let answer = self
            .env
            .timeout(limit, self.call_patiently(request, ANSWER_LIMIT));
        answer.await.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(format!(
                "the engine did not answer within {} s",
                limit.as_secs()
            )))
        })
    }

    /// Makes a call that may take for ever, whose answer may be so large. Dropping the future cancels it at the engine.
    pub(crate) async fn call_patiently<C: Call>(
        &self,
        request: C,
        answer_limit: usize,
    ) -> Result<C::Answer, Status> {
        let mut left = if C::READS { AGAIN } else { 0 };
        loop {
            let mut grpc = self.ready(answer_limit).await;
            let answer = match &mut grpc {
                Ok(grpc) => {
                    let codec: ProstCodec<C, C::Answer> = ProstCodec::default();
                    let path = PathAndQuery::from_static(C::PATH);
                    grpc.unary(Request::new(request.clone()), path, codec).await
                }
                Err(status) => Err(std::mem::replace(status, Status::ok(""))),
            };
            match answer {
                Err(status) if left > 0 && is_broken_connection(&status) => {
                    left -= 1;
                    self.env.sleep(BEFORE_AGAIN).await;
                }
                answer => return answer.map(tonic::Response::into_inner),
            }
        }
    }

    /// Makes a call that is answered by a stream. Engines may answer not before there is something to say.
    pub(crate) async fn stream<C: Call>(&self, request: C) -> Result<Streaming<C::Answer>, Status> {
        let codec: ProstCodec<C, C::Answer> = ProstCodec::default();
        let path = PathAndQuery::from_static(C::PATH);
        let mut grpc = self.ready(ANSWER_LIMIT).await?;
        let answer = grpc.server_streaming(Request::new(request), path, codec);
        Ok(answer.await?.into_inner())
    }

    async fn ready(&self, answer_limit: usize) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(answer_limit);
        grpc.ready()
            .await
            .map_err(|error| Status::from_error(Box::new(error)))?;
        Ok(grpc)
    }
}

/// Whether a failure came from the connection and not from the engine: only then there is another error behind it.
pub(crate) fn is_broken_connection(status: &Status) -> bool {
    status.code() != Code::DeadlineExceeded
        && (std::error::Error::source(status).is_some() || status.code() == Code::Unavailable)
}

/// The path of the socket that an endpoint names: a path, or a URL such as `unix:///run/containerd/containerd.sock`.
pub(crate) fn socket_of(endpoint: &str) -> Result<PathBuf, CriError> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    let path = path.strip_prefix("unix:").unwrap_or(path);
    if path.starts_with('/') && !path.ends_with('/') && !path.contains('\0') {
        Ok(path.into())
    } else {
        Err(CriError::Endpoint(endpoint.to_owned()))
    }
}

/// Connects to a socket.
#[derive(Clone, Debug)]
struct Dial(Arc<std::path::Path>);

impl Service<Uri> for Dial {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let socket = self.0.clone();
        Box::pin(async move {
            let stream = UnixStream::connect(&*socket).await.map_err(|error| {
                // The transport says no more than that it failed.
                std::io::Error::new(error.kind(), format!("{}: {error}", socket.display()))
            })?;
            Ok(TokioIo::new(stream))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_paths_of_sockets() {
        for endpoint in [
            "unix:///run/containerd/containerd.sock",
            "unix:/run/containerd/containerd.sock",
            "/run/containerd/containerd.sock",
        ] {
            let socket = socket_of(endpoint).unwrap();
            assert_eq!(socket, PathBuf::from("/run/containerd/containerd.sock"));
        }
        for endpoint in [
            "",
            "unix://",
            "run/c.sock",
            "tcp://127.0.0.1:1",
            "npipe:////./pipe/c",
            "/run/",
        ] {
            assert_eq!(
                socket_of(endpoint),
                Err(CriError::Endpoint(endpoint.to_owned()))
            );
        }
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_unavailable() {
        let engine = Engine::new("/no/such/socket".into(), Env::tokio());
        let refused = engine
            .call(crate::messages::VersionRequest::default())
            .await;
        let refused = refused.unwrap_err();
        assert!(is_broken_connection(&refused), "{refused:?}");
    }
}
