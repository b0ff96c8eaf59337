//! What etcd's errors mean.

use std::error::Error;

use orlop_core::store::StoreError;
use tonic::{Code, ConnectError, Status};

/// Why etcd did not do what it was asked, as far as that can be said without knowing what it was asked.
#[derive(Clone, Debug)]
pub(super) enum Refusal {
    Compacted,
    FutureRevision,
    LeaseNotFound,
    LeaseExists,
    KeyNotFound,
    Other(StoreError),
}

impl Refusal {
    /// The error, where the request cannot have met one that needs to be told more of.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Other(error) => error,
            other => StoreError::InvalidRequest(format!("etcd refused unexpectedly: {other:?}")),
        }
    }
}

/// What to do about an error.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is the answer.
    Refused(Refusal),
    /// The token is no longer good. Nothing was done.
    LogIn,
    /// Nothing was done, and another member, or the same one later, may do it.
    NotDone(String),
    /// It may have been done or not.
    Unknown(String),
}

/// Whether a request never left this process.
fn unsent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        // hyper's word for a request that it had not begun to send when the connection ended.
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && error.is_canceled()
        {
            return true;
        }
        source = error.source();
    }
    false
}

/// The words of an error with its causes: tonic's own say little of why there is no connection.
fn words(status: &Status) -> String {
    let mut words = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !words.contains(&more) {
            if !words.is_empty() {
                words.push_str(": ");
            }
            words.push_str(&more);
        }
        source = error.source();
    }
    if words.is_empty() {
        words = status.code().to_string();
    }
    words
}

/// Reads an error. The texts are etcd's interface: its own client goes by them.
pub(super) fn verdict(status: &Status) -> Verdict {
    use Refusal::Other;
    let text = status.message();
    let own = text.strip_prefix("etcdserver: ").unwrap_or(text);
    let refused = |refusal| Verdict::Refused(refusal);
    match own {
        "mvcc: required revision has been compacted" => return refused(Refusal::Compacted),
        "mvcc: required revision is a future revision" => {
            return refused(Refusal::FutureRevision);
        }
        "mvcc: database space exceeded" => {
            return refused(Other(StoreError::NoSpace(text.to_owned())));
        }
        "requested lease not found" => return refused(Refusal::LeaseNotFound),
        "lease already exists" => return refused(Refusal::LeaseExists),
        "key not found" => return refused(Refusal::KeyNotFound),
        "too many requests" => {
            return refused(Other(StoreError::Unavailable(text.to_owned())));
        }
        "invalid auth token" | "revision of auth store is old" | "user name is empty" => {
            return Verdict::LogIn;
        }
        // Said before a request is looked at.
        "no leader" | "not leader" | "not capable" | "rpc not supported for learner" => {
            return Verdict::NotDone(text.to_owned());
        }
        _ => {}
    }
    if unsent(status) {
        return Verdict::NotDone(words(status));
    }
    match status.code() {
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => refused(Other(StoreError::InvalidRequest(words(status)))),
        // The limits of gRPC on the size of messages.
        Code::ResourceExhausted => refused(Other(StoreError::InvalidRequest(words(status)))),
        Code::DataLoss => refused(Other(StoreError::Corrupt(words(status)))),
        _ => Verdict::Unknown(words(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_etcd_says_is_understood() {
        let read = |code, text: &str| verdict(&Status::new(code, text));
        assert!(matches!(
            read(
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted"
            ),
            Verdict::Refused(Refusal::Compacted)
        ));
        assert!(matches!(
            read(
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded"
            ),
            Verdict::Refused(Refusal::Other(StoreError::NoSpace(_)))
        ));
        assert!(matches!(
            read(Code::ResourceExhausted, "etcdserver: too many requests"),
            Verdict::Refused(Refusal::Other(StoreError::Unavailable(_)))
        ));
        assert!(matches!(
            read(Code::Unauthenticated, "etcdserver: invalid auth token"),
            Verdict::LogIn
        ));
        assert!(matches!(
            read(Code::Unavailable, "etcdserver: no leader"),
            Verdict::NotDone(_)
        ));
        for unknown in [
            "etcdserver: request timed out",
            "etcdserver: leader changed",
            "etcdserver: server stopped",
            "connection reset",
        ] {
            assert!(matches!(
                read(Code::Unavailable, unknown),
                Verdict::Unknown(_)
            ));
        }
        for invalid in [
            "etcdserver: duplicate key given in txn request",
            "etcdserver: request is too large",
            "etcdserver: too many operations in txn request",
        ] {
            assert!(matches!(
                read(Code::InvalidArgument, invalid),
                Verdict::Refused(Refusal::Other(StoreError::InvalidRequest(_)))
            ));
        }
    }
}
