//! Messages on the wire: one byte that says whether it is compressed, four for the length, and the message.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Body;
use orlop_wire::body::BoxError;
use prost::Message;
use tonic::Code;

use super::error::GrpcError;

/// The bytes before a message.
const PREFIX: usize = 5;

/// Appends a message with its prefix.
pub(super) fn put<M: Message>(message: &M, out: &mut BytesMut) -> Result<(), GrpcError> {
    let length = message.encoded_len();
    put_prefix(length, out)?;
    message
        .encode(out)
        .map_err(|error| GrpcError::new(Code::Internal, error.to_string()))
}

/// Appends the prefix of a message, and makes room for it.
pub(super) fn put_prefix(length: usize, out: &mut BytesMut) -> Result<(), GrpcError> {
    let Some(told) = u32::try_from(length)
        .ok()
        .filter(|&told| told <= i32::MAX as u32)
    else {
        return Err(GrpcError::new(
            Code::ResourceExhausted,
            format!(
                "trying to send message larger than max ({length} vs. {})",
                i32::MAX
            ),
        ));
    };
    out.reserve(PREFIX + length);
    out.put_u8(0);
    out.put_u32(told);
    Ok(())
}

/// A message with its prefix.
pub(super) fn encoded<M: Message>(message: &M) -> Result<Bytes, GrpcError> {
    let mut out = BytesMut::new();
    put(message, &mut out)?;
    Ok(out.freeze())
}

/// Reads a message.
pub(super) fn decoded<M: Message + Default>(message: Bytes) -> Result<M, GrpcError> {
    M::decode(message).map_err(|error| {
        GrpcError::new(
            Code::Internal,
            format!("grpc: error unmarshalling request: {error}"),
        )
    })
}

/// Takes messages out of the body of a request.
#[derive(Debug)]
pub(super) struct Reader<B> {
    body: Pin<Box<B>>,
    /// What came and was not taken yet.
    rest: Rest,
    ended: bool,
    /// The longest message that is taken.
    limit: usize,
}

/// What came of a message: mostly one piece, which is then handed on as it is.
#[derive(Debug)]
enum Rest {
    Whole(Bytes),
    Pieces(BytesMut),
}

impl<B> Reader<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(body: B, limit: usize) -> Self {
        Self {
            body: Box::pin(body),
            rest: Rest::Whole(Bytes::new()),
            ended: false,
            limit,
        }
    }

    /// The next message; `None` when the client will send no more.
    pub(super) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, GrpcError>>> {
        loop {
            match self.take() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            if self.ended {
                if self.rest.len() == 0 {
                    return Poll::Ready(None);
                }
                self.rest = Rest::Whole(Bytes::new());
                return Poll::Ready(Some(Err(GrpcError::new(
                    Code::Internal,
                    "the request ended within a message",
                ))));
            }
            match ready!(self.body.as_mut().poll_frame(cx)) {
                None => self.ended = true,
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.rest.push(data);
                    }
                    self.ended = self.body.is_end_stream();
                }
                Some(Err(error)) => {
                    let error: BoxError = error.into();
                    return Poll::Ready(Some(Err(GrpcError::new(
                        Code::Cancelled,
                        format!("the request broke off: {error}"),
                    ))));
                }
            }
        }
    }

    /// The one message of a call that has only one.
    pub(super) async fn only(mut self) -> Result<Bytes, GrpcError> {
        let next = std::future::poll_fn(|cx| self.poll_message(cx)).await;
        let message = next
            .unwrap_or_else(|| Err(GrpcError::new(Code::Internal, "the request has no message")))?;
        match std::future::poll_fn(|cx| self.poll_message(cx)).await {
            None => Ok(message),
            Some(Ok(_)) => Err(GrpcError::new(
                Code::Internal,
                "the request has more than one message",
            )),
            Some(Err(error)) => Err(error),
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, GrpcError> {
        let Some(&[compressed, a, b, c, d]) = self.rest.bytes().first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        if compressed != 0 {
            return Err(GrpcError::new(
                Code::Unimplemented,
                "grpc: compressed messages are not taken",
            ));
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > self.limit {
            return Err(GrpcError::new(
                Code::ResourceExhausted,
                format!(
                    "grpc: received message larger than max ({length} vs. {})",
                    self.limit
                ),
            ));
        }
        if self.rest.len() < PREFIX + length {
            return Ok(None);
        }
        Ok(Some(self.rest.split(PREFIX, length)))
    }
}

impl Rest {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Pieces(bytes) => bytes,
        }
    }

    fn len(&self) -> usize {
        self.bytes().len()
    }

    fn push(&mut self, more: Bytes) {
        match self {
            Self::Whole(bytes) if bytes.is_empty() => *bytes = more,
            Self::Whole(bytes) => {
                let mut pieces = BytesMut::with_capacity(bytes.len() + more.len());
                pieces.extend_from_slice(bytes);
                pieces.extend_from_slice(&more);
                *self = Self::Pieces(pieces);
            }
            Self::Pieces(bytes) => bytes.extend_from_slice(&more),
        }
    }

    fn split(&mut self, skip: usize, length: usize) -> Bytes {
        match self {
            Self::Whole(bytes) => {
                bytes.advance(skip);
                bytes.split_to(length)
            }
            Self::Pieces(bytes) => {
                bytes.advance(skip);
                let message = bytes.split_to(length).freeze();
                if bytes.is_empty() {
                    *self = Self::Whole(Bytes::new());
                }
                message
            }
        }
    }
}
