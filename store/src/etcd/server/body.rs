//! The body of an answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};

use super::error::{GRPC_STATUS, GrpcError};
use super::metrics::Handled;

/// The body of an answer: one message, a stream of them, or a page. What ends an answer of gRPC comes as a trailer.
pub struct EtcdBody(Kind);

enum Kind {
    Empty,
    Page(Bytes),
    Message(Bytes),
    Trailers,
    Stream(BoxStream<'static, Result<Bytes, GrpcError>>, Handled),
}

impl std::fmt::Debug for EtcdBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdBody").finish_non_exhaustive()
    }
}

impl EtcdBody {
    pub(super) fn empty() -> Self {
        Self(Kind::Empty)
    }

    pub(super) fn page(text: impl Into<Bytes>) -> Self {
        Self(Kind::Page(text.into()))
    }

    /// One message, with its prefix, and success.
    pub(super) fn message(message: Bytes) -> Self {
        Self(Kind::Message(message))
    }

    /// Messages, with their prefixes.
    pub(super) fn stream(
        messages: impl Stream<Item = Result<Bytes, GrpcError>> + Send + 'static,
        handled: Handled,
    ) -> Self {
        Self(Kind::Stream(messages.boxed(), handled))
    }
}

/// The trailer of success.
fn success() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

impl Body for EtcdBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match std::mem::replace(&mut self.0, Kind::Empty) {
            Kind::Empty => Poll::Ready(None),
            Kind::Page(page) => Poll::Ready(Some(Ok(Frame::data(page)))),
            Kind::Message(message) => {
                self.0 = Kind::Trailers;
                Poll::Ready(Some(Ok(Frame::data(message))))
            }
            Kind::Trailers => Poll::Ready(Some(Ok(Frame::trailers(success())))),
            Kind::Stream(mut messages, handled) => match messages.poll_next_unpin(cx) {
                Poll::Pending => {
                    self.0 = Kind::Stream(messages, handled);
                    Poll::Pending
                }
                Poll::Ready(Some(Ok(message))) => {
                    self.0 = Kind::Stream(messages, handled);
                    Poll::Ready(Some(Ok(Frame::data(message))))
                }
                Poll::Ready(Some(Err(error))) => {
                    handled.ended(error.code);
                    Poll::Ready(Some(Ok(Frame::trailers(error.headers()))))
                }
                Poll::Ready(None) => {
                    handled.ended(tonic::Code::Ok);
                    Poll::Ready(Some(Ok(Frame::trailers(success()))))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Kind::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Page(page) => SizeHint::with_exact(page.len() as u64),
            _ => SizeHint::default(),
        }
    }
}
