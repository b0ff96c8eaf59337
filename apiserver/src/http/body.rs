//! Bodies: read up to a limit, and decoded.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use orlop_api::protobuf;
use orlop_core::resource::GroupVersionKind;
use orlop_core::status::Status;
use orlop_wire::body::{Body, BoxError};
use serde_json::Value;

use super::go_json;
use super::negotiate::Encoding;
use crate::metrics::LongRunning;
use crate::registry::{Context, Parsed, parse_json};

/// The largest body, in bytes.
const MAX_BODY: usize = 3 << 20;

/// The body of an answer that lasts, which is counted as long as it does.
pub(super) struct Counted {
    body: Body,
    _lasting: Arc<LongRunning>,
}

impl Counted {
    pub(super) fn new(body: Body, lasting: Arc<LongRunning>) -> Self {
        Self {
            body,
            _lasting: lasting,
        }
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads a body whole, up to the limit.
pub(super) async fn collect(mut body: Body) -> Result<Bytes, Status> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Status::bad_request(format!("the body cannot be read: {error}")))?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > MAX_BODY {
                return Err(Status::too_large(MAX_BODY));
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.freeze())
}

/// Decodes a body of some encoding.
pub(super) fn parse(
    cx: &mut Context,
    kind: &GroupVersionKind,
    encoding: Encoding,
    bytes: &Bytes,
) -> Result<Value, Status> {
    let unrecognized = |why: String| {
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {why} ({})",
            kind.kind,
            excerpt(bytes)
        ))
    };
    match encoding {
        Encoding::Json => {
            let parsed = read_json(bytes).map_err(unrecognized)?;
            cx.duplicates = parsed.duplicates;
            cx.body = bytes.clone();
            Ok(parsed.value)
        }
        Encoding::Yaml => {
            let document = orlop_wire::yaml::document_from_slice(bytes).map_err(|error| {
                Status::bad_request(format!(
                    "error converting YAML to JSON: {}",
                    error.message()
                ))
            })?;
            cx.duplicates = document
                .duplicates
                .into_iter()
                .map(|duplicate| duplicate.key.trim_matches('"').to_owned())
                .collect();
            Ok(document.value)
        }
        Encoding::Protobuf => protobuf::decode_or(bytes, Some(kind))
            .map_err(|error| Status::bad_request(error.to_string())),
    }
}

/// The start of a body, for messages: as text, or in hexadecimal where it is none.
fn excerpt(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(128)];
    match std::str::from_utf8(head) {
        Ok(text) => text.to_owned(),
        Err(_) => head.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// Reads JSON; an error is in the words that clients know. Bytes that are no UTF-8 are replaced, as Go does.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn read_json(bytes: &Bytes) -> Result<Parsed, String> {
    let parsed = match std::str::from_utf8(bytes) {
        Ok(_) => parse_json(bytes),
        Err(_) => parse_json(String::from_utf8_lossy(bytes).as_bytes()),
    };
    parsed.map_err(|error| go_json::refusal(bytes).unwrap_or_else(|| error.to_string()))
}
