//! Watches in protobuf: frames of a length and an event.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::wire::{Reader, WireType};
use super::{decode, encode, forms, table, wire};
use crate::Error;

/// Frames longer than this are refused by [`WatchFrames`]: more than any object may have, with room for its envelope.
const MAX_FRAME: usize = 16 * 1024 * 1024;

/// One frame of a watch of `application/vnd.kubernetes.protobuf;stream=watch`: four bytes of length, big-endian, and
/// the event. `kind` is `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
///
/// # Errors
/// As [`encode`](super::encode()) for the object.
pub fn encode_watch_frame(kind: &str, object: &Value) -> Result<Vec<u8>, Error> {
    let mut body = Vec::with_capacity(512);
    encode::envelope(object, &mut body)?;
    Ok(encode_watch_frame_of(kind, &body))
}

/// The same, for an object that is encoded already: its bytes as [`encode`](super::encode()) made them.
#[must_use]
pub fn encode_watch_frame_of(kind: &str, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(body.len() + kind.len() + 24);
    frame.extend_from_slice(&[0; 4]);
    wire::put_bytes(&mut frame, 1, kind.as_bytes());
    let nested: Result<(), std::convert::Infallible> = wire::put_nested(&mut frame, 2, |out| {
        wire::put_bytes(out, 1, body);
        Ok(())
    });
    let Ok(()) = nested;
    // An event of 4 GiB can't be built from objects of at most a few megabytes.
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// Cuts a stream of bytes into watch events.
#[derive(Debug, Default)]
pub struct WatchFrames {
    pending: Vec<u8>,
}

impl WatchFrames {
    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next event that is complete, as `{"type": …, "object": …}`.
    ///
    /// # Errors
    /// When a frame is longer than 16 MiB or is no event. The stream is lost then.
    pub fn next_event(&mut self) -> Result<Option<Value>, Error> {
        let Some(length) = self.pending.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(decode::malformed(&[], "a frame is too long"));
        }
        let Some(event) = self.pending.get(4..4 + length) else {
            return Ok(None);
        };
        let event = read_event(event)?;
        self.pending.drain(..4 + length);
        Ok(Some(event))
    }
}

fn read_event(bytes: &[u8]) -> Result<Value, Error> {
    let mut reader = Reader::new(bytes);
    let mut event = Map::new();
    let at = [Cow::Borrowed("object")];
    while !reader.is_empty() {
        let fault = |fault| decode::malformed(&[], fault);
        match reader.tag().map_err(fault)? {
            (1, WireType::Length) => {
                event.insert("type".to_owned(), json!(reader.string().map_err(fault)?));
            }
            (2, WireType::Length) => {
                let object = reader.bytes().map_err(fault)?;
                let object = forms::read(table::Special::Raw, object, &at, 0)?;
                event.insert("object".to_owned(), object.unwrap_or(Value::Null));
            }
            (_, wire_type) => reader.skip(wire_type).map_err(fault)?,
        }
    }
    Ok(Value::Object(event))
}
