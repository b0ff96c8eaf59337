//! What can go wrong in this crate.

/// An error of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The body does not start with the four bytes that mark Kubernetes' protobuf envelope.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix {:?}",
        crate::protobuf::MAGIC
    )]
    NotProtobuf,
    /// A kind that has no protobuf form, as all custom kinds.
    #[error(
        "object {api_version}, Kind={kind} does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    )]
    NoProtobuf {
        /// The `apiVersion` given; may be empty.
        api_version: String,
        /// The `kind` given; may be empty.
        kind: String,
    },
    /// Bytes that are no message of the kind they claim to be.
    #[error("invalid protobuf at {at}: {reason}")]
    Malformed {
        /// The path of the field, by JSON names.
        at: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A JSON value that does not fit the type of its field.
    #[error("{at}: cannot be written as protobuf: {reason}")]
    Mismatch {
        /// The path of the field, by JSON names.
        at: String,
        /// What was expected.
        reason: &'static str,
    },
}
