//! Kubernetes' protobuf bodies, `application/vnd.kubernetes.protobuf`, to JSON and back.
//!
//! One transcoder works for every built-in kind, over a table of field numbers; there is no generated code. What it
//! decodes is the JSON that a client would have sent instead: zero values that Go's `omitempty` leaves out are left
//! out, and times, quantities and the like have their JSON form.
//!
//! A body is the four bytes [`MAGIC`] and an envelope with the kind's name and the message. A watch is a sequence of
//! frames, each a length and an event, see [`encode_watch_frame`] and [`WatchFrames`].
//!
//! ```
//! use serde_json::json;
//!
//! let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}});
//! let bytes = orlop_api::protobuf::encode(&map)?;
//! assert_eq!(orlop_api::protobuf::decode(&bytes)?, map);
//! # Ok::<(), orlop_api::Error>(())
//! ```

mod decode;
mod encode;
mod forms;
mod table;
mod watch;
pub(crate) mod wire;

#[cfg(test)]
mod tests;

use orlop_core::resource::GroupVersionKind;
use serde_json::Value;

use crate::Error;
pub use watch::{WatchFrames, encode_watch_frame, encode_watch_frame_of};

/// The first bytes of every body.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// The media type of a body.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Messages inside messages beyond this depth are refused; no kind of Kubernetes comes near it.
const MAX_DEPTH: usize = 64;

/// Whether a kind has a protobuf form. Custom kinds have none.
#[must_use]
pub fn supports(kind: &GroupVersionKind) -> bool {
    table::get().kind(kind).is_some()
}

/// The scalar fields of a kind with the names that OpenAPI has for their types; lists count by their items.
pub(crate) fn scalar_fields(
    kind: &GroupVersionKind,
) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
    let fields = table::get()
        .kind(kind)
        .into_iter()
        .flat_map(|message| &message.fields);
    fields.filter_map(|field| {
        let ty = match field.ty {
            table::Type::String => "string",
            table::Type::Bool => "boolean",
            table::Type::Int32 | table::Type::Int64 => "integer",
            _ => return None,
        };
        Some((field.name, ty))
    })
}

/// Decodes a body. Its kind is in the envelope.
///
/// # Errors
/// [`Error::NotProtobuf`] without the leading magic, [`Error::NoProtobuf`] for a kind that is not in the table, and
/// [`Error::Malformed`] for everything that is no valid message. Unknown fields are skipped.
pub fn decode(body: &[u8]) -> Result<Value, Error> {
    decode_or(body, None)
}

/// Decodes a body that may leave out its kind, as options sent along with a request may.
///
/// # Errors
/// As [`decode`].
pub fn decode_or(body: &[u8], default: Option<&GroupVersionKind>) -> Result<Value, Error> {
    decode::envelope(body, default, 0)
}

/// Encodes an object, list, status or options by its `apiVersion` and `kind`.
///
/// # Errors
/// [`Error::NoProtobuf`] for a kind that is not in the table, [`Error::Mismatch`] for a value that does not fit the
/// type of its field. Fields that the kind doesn't have are left out.
pub fn encode(object: &Value) -> Result<Vec<u8>, Error> {
    let mut body = Vec::with_capacity(512);
    encode::envelope(object, &mut body)?;
    Ok(body)
}

/// Encodes an object as [`encode_list`] takes it: its message alone, without the envelope that says its kind.
///
/// # Errors
/// As [`encode`].
pub fn encode_item(object: &Value) -> Result<Vec<u8>, Error> {
    encode::item(object)
}

/// Encodes a list of objects that [`encode_item`] has encoded, so that an object in many lists is encoded once. `kind` is the
/// kind of the list, such as `PodList`.
///
/// # Errors
/// As [`encode`].
pub fn encode_list<T: AsRef<[u8]>>(
    kind: &GroupVersionKind,
    metadata: &Value,
    items: impl IntoIterator<Item = T>,
) -> Result<Vec<u8>, Error> {
    encode::list(kind, metadata, items)
}
