//! What a call fails with: gRPC's codes, and etcd's words, which its clients recognise.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use orlop_core::store::StoreError;
use tonic::Code;

pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(super) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GrpcError {
    pub(super) code: Code,
    pub(super) message: Cow<'static, str>,
}

/// An error that etcd has a name for.
const fn known(code: Code, message: &'static str) -> GrpcError {
    GrpcError {
        code,
        message: Cow::Borrowed(message),
    }
}

pub(super) const EMPTY_KEY: GrpcError =
    known(Code::InvalidArgument, "etcdserver: key is not provided");
pub(super) const KEY_NOT_FOUND: GrpcError =
    known(Code::InvalidArgument, "etcdserver: key not found");
pub(super) const VALUE_PROVIDED: GrpcError =
    known(Code::InvalidArgument, "etcdserver: value is provided");
pub(super) const LEASE_PROVIDED: GrpcError =
    known(Code::InvalidArgument, "etcdserver: lease is provided");
pub(super) const TOO_MANY_OPS: GrpcError = known(
    Code::InvalidArgument,
    "etcdserver: too many operations in txn request",
);
pub(super) const DUPLICATE_KEY: GrpcError = known(
    Code::InvalidArgument,
    "etcdserver: duplicate key given in txn request",
);
pub(super) const REQUEST_TOO_LARGE: GrpcError =
    known(Code::InvalidArgument, "etcdserver: request is too large");
pub(super) const COMPACTED: GrpcError = known(
    Code::OutOfRange,
    "etcdserver: mvcc: required revision has been compacted",
);
pub(super) const FUTURE_REVISION: GrpcError = known(
    Code::OutOfRange,
    "etcdserver: mvcc: required revision is a future revision",
);
pub(super) const NO_SPACE: GrpcError = known(
    Code::ResourceExhausted,
    "etcdserver: mvcc: database space exceeded",
);
pub(super) const LEASE_NOT_FOUND: GrpcError =
    known(Code::NotFound, "etcdserver: requested lease not found");
pub(super) const LEASE_EXISTS: GrpcError =
    known(Code::FailedPrecondition, "etcdserver: lease already exists");
pub(super) const LEASE_TTL_TOO_LARGE: GrpcError =
    known(Code::OutOfRange, "etcdserver: too large lease TTL");
pub(super) const MEMBER_BAD_URLS: GrpcError = known(
    Code::InvalidArgument,
    "etcdserver: given member URLs are invalid",
);
pub(super) const MEMBER_NOT_FOUND: GrpcError =
    known(Code::NotFound, "etcdserver: member not found");
pub(super) const MEMBER_NOT_LEARNER: GrpcError = known(
    Code::FailedPrecondition,
    "etcdserver: can only promote a learner member",
);
pub(super) const NOT_ENOUGH_MEMBERS: GrpcError = known(
    Code::FailedPrecondition,
    "etcdserver: re-configuration failed due to not enough started members",
);
pub(super) const BAD_TRANSFEREE: GrpcError = known(
    Code::FailedPrecondition,
    "etcdserver: bad leader transferee",
);
pub(super) const AUTH_NOT_ENABLED: GrpcError = known(
    Code::FailedPrecondition,
    "etcdserver: authentication is not enabled",
);
pub(super) const BAD_DOWNGRADE: GrpcError = known(
    Code::InvalidArgument,
    "etcdserver: invalid downgrade target version",
);
pub(super) const NO_DOWNGRADE: GrpcError = known(
    Code::FailedPrecondition,
    "etcdserver: no inflight downgrade job",
);
pub(super) const CORRUPT: GrpcError = known(Code::DataLoss, "etcdserver: corrupt cluster");
pub(super) const STOPPED: GrpcError = known(Code::Unavailable, "etcdserver: server stopped");
pub(super) const TIMED_OUT: GrpcError = known(Code::Unavailable, "etcdserver: request timed out");
pub(super) const DEADLINE: GrpcError = known(Code::DeadlineExceeded, "context deadline exceeded");

/// Why a watch cannot be made. These are no errors of the call: they are told in an answer on the stream.
pub(super) const WATCH_EMPTY_RANGE: &str = "mvcc: watcher range is empty";
pub(super) const WATCH_DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

impl GrpcError {
    pub(super) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// As the fields that end an answer.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(2);
        self.write(&mut headers);
        headers
    }

    pub(super) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(GRPC_STATUS, HeaderValue::from(self.code as i32));
        if !self.message.is_empty()
            && let Ok(message) = HeaderValue::from_maybe_shared(percent_encoded(&self.message))
        {
            headers.insert(GRPC_MESSAGE, message);
        }
    }
}

/// A message as gRPC puts it into a header: printable ASCII as it is, the rest and the percent sign as `%XX`.
fn percent_encoded(message: &str) -> Bytes {
    use std::io::Write;
    let mut encoded = Vec::with_capacity(message.len());
    for &byte in message.as_bytes() {
        if (0x20..0x7f).contains(&byte) && byte != b'%' {
            encoded.push(byte);
        } else {
            // Writing to a vector does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded.into()
}

impl From<StoreError> for GrpcError {
    fn from(error: StoreError) -> Self {
        let told = |code: Code, text: &str| Self::new(code, format!("etcdserver: {text}"));
        match &error {
            StoreError::Compacted { .. } => COMPACTED,
            StoreError::FutureRevision { .. } => FUTURE_REVISION,
            StoreError::LeaseNotFound(_) => LEASE_NOT_FOUND,
            StoreError::LeaseExists(_) => LEASE_EXISTS,
            StoreError::KeyNotFound(_) => KEY_NOT_FOUND,
            StoreError::NoSpace(_) => NO_SPACE,
            StoreError::Corrupt(text) => {
                tracing::error!(%text, "the store is damaged");
                CORRUPT
            }
            // Nothing was written, and the client may try again.
            StoreError::Unavailable(text) => told(Code::Unavailable, text),
            // The words by which a client of etcd knows that a write may have taken effect.
            StoreError::OutcomeUnknown(_) => TIMED_OUT,
            StoreError::InvalidRequest(text) => told(Code::InvalidArgument, text),
            other => told(Code::Unknown, &other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_encoded_for_a_header() {
        let error = GrpcError::new(Code::InvalidArgument, "50 % of key \"ä\"\n");
        let headers = error.headers();
        assert_eq!(headers[GRPC_STATUS], "3");
        assert_eq!(headers[GRPC_MESSAGE], "50 %25 of key \"%C3%A4\"%0A");
    }
}
