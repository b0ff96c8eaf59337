//! JSON to bytes.

use orlop_core::resource::GroupVersionKind;
use serde_json::{Map, Value};

use super::table::{self, Field, Message, Shape, Type};
use super::wire::{self, WireType};
use super::{MAGIC, MAX_DEPTH, forms};
use crate::Error;

/// The number of `items` in every list.
const ITEMS: u32 = 2;

/// The kind of an object, and its message.
fn kind_of(object: &Map<String, Value>) -> Result<(String, String, &'static Message), Error> {
    let text = |name: &str| {
        object
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    match table::get().kind(&GroupVersionKind::from_api_version(&api_version, &kind)) {
        Some(message) => Ok((api_version, kind, message)),
        None => Err(Error::NoProtobuf { api_version, kind }),
    }
}

pub(super) fn envelope(object: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    let empty = Map::new();
    let object = object.as_object().unwrap_or(&empty);
    let (api_version, kind, message) = kind_of(object)?;
    wrap(&api_version, &kind, out, |out| {
        self::message(message, object, out)
    })
}

/// Magic and envelope around a message that `write` appends.
pub(super) fn wrap(
    api_version: &str,
    kind: &str,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    out.extend_from_slice(MAGIC);
    wire::put_nested(out, 1, |out| {
        wire::put_bytes(out, 1, api_version.as_bytes());
        wire::put_bytes(out, 2, kind.as_bytes());
        Ok::<_, Error>(())
    })?;
    wire::put_nested(out, 2, write)?;
    // Encoding and type of the content: none and protobuf, which Kubernetes writes as empty strings.
    wire::put_bytes(out, 3, b"");
    wire::put_bytes(out, 4, b"");
    Ok(())
}

/// The message of an object alone.
pub(super) fn item(object: &Value) -> Result<Vec<u8>, Error> {
    let empty = Map::new();
    let object = object.as_object().unwrap_or(&empty);
    let (_, _, message) = kind_of(object)?;
    let mut out = Vec::with_capacity(512);
    self::message(message, object, &mut out)?;
    Ok(out)
}

/// A list of messages that are encoded already.
pub(super) fn list<T: AsRef<[u8]>>(
    kind: &GroupVersionKind,
    metadata: &Value,
    items: impl IntoIterator<Item = T>,
) -> Result<Vec<u8>, Error> {
    let api_version = kind.api_version();
    let Some(message) = table::get().kind(kind) else {
        return Err(Error::NoProtobuf {
            api_version,
            kind: kind.kind.to_string(),
        });
    };
    let mut out = Vec::with_capacity(4096);
    wrap(&api_version, &kind.kind, &mut out, |out| {
        let head = Map::from_iter([("metadata".to_owned(), metadata.clone())]);
        self::message(message, &head, out)?;
        for item in items {
            wire::put_bytes(out, ITEMS, item.as_ref());
        }
        Ok(())
    })?;
    Ok(out)
}

/// The fields of one message, in the order of their numbers.
pub(super) fn message(
    message: &Message,
    object: &Map<String, Value>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    Encoder { at: Vec::new() }.message(message, object, out)
}

/// JSON of a value that came from JSON.
pub(super) fn json(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

struct Encoder<'a> {
    at: Vec<&'a str>,
}

impl<'a> Encoder<'a> {
    fn mismatch(&self, reason: &'static str) -> Error {
        Error::Mismatch {
            at: self.at.join("."),
            reason,
        }
    }

    fn message(
        &mut self,
        message: &Message,
        object: &'a Map<String, Value>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if self.at.len() > 2 * MAX_DEPTH {
            return Err(self.mismatch("objects are nested too deep"));
        }
        for field in &message.fields {
            if field.shape == Shape::Inline {
                let Type::Message(at) = field.ty else {
                    continue;
                };
                let before = out.len();
                let mut empty = true;
                wire::put_nested(out, field.number, |out| {
                    let start = out.len();
                    self.message(&table::get().messages[at], object, out)?;
                    empty = out.len() == start;
                    Ok::<_, Error>(())
                })?;
                if empty {
                    out.truncate(before);
                }
                continue;
            }
            let Some((name, value)) = object.get_key_value(field.name) else {
                continue;
            };
            if value.is_null() {
                continue;
            }
            self.at.push(name);
            self.field(field, value, out)?;
            self.at.pop();
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, value: &'a Value, out: &mut Vec<u8>) -> Result<(), Error> {
        match field.shape {
            Shape::Inline => Ok(()),
            Shape::Single => self.value(field.ty, field.number, value, out),
            Shape::Repeated => {
                let items = value
                    .as_array()
                    .ok_or_else(|| self.mismatch("expected a list"))?;
                items
                    .iter()
                    .try_for_each(|item| self.value(field.ty, field.number, item, out))
            }
            Shape::Map => {
                let map = value
                    .as_object()
                    .ok_or_else(|| self.mismatch("expected an object"))?;
                for (key, value) in map {
                    wire::put_nested(out, field.number, |out| {
                        wire::put_bytes(out, 1, key.as_bytes());
                        self.at.push(key);
                        self.value(field.ty, 2, value, out)?;
                        self.at.pop();
                        Ok::<_, Error>(())
                    })?;
                }
                Ok(())
            }
        }
    }

    fn value(
        &mut self,
        ty: Type,
        number: u32,
        value: &'a Value,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        match ty {
            Type::String => {
                let text = value
                    .as_str()
                    .ok_or_else(|| self.mismatch("expected a string"))?;
                wire::put_bytes(out, number, text.as_bytes());
            }
            Type::Int32 | Type::Int64 => {
                let fits = |n: &i64| ty == Type::Int64 || i32::try_from(*n).is_ok();
                let int = value
                    .as_i64()
                    .filter(fits)
                    .ok_or_else(|| self.mismatch("expected a whole number"))?;
                wire::put_int(out, number, int);
            }
            Type::Bool => {
                let flag = value
                    .as_bool()
                    .ok_or_else(|| self.mismatch("expected true or false"))?;
                wire::put_int(out, number, i64::from(flag));
            }
            Type::Bytes => {
                let text = value
                    .as_str()
                    .ok_or_else(|| self.mismatch("expected base64"))?;
                let bytes = forms::from_base64(text).map_err(|fault| self.mismatch(fault))?;
                wire::put_bytes(out, number, &bytes);
            }
            Type::Double => {
                let double = value
                    .as_f64()
                    .ok_or_else(|| self.mismatch("expected a number"))?;
                wire::put_tag(out, number, WireType::Fixed64);
                out.extend_from_slice(&double.to_le_bytes());
            }
            Type::Special(special) => wire::put_nested(out, number, |out| {
                // A null in a list or a map is the zero value.
                if value.is_null() {
                    Ok(())
                } else {
                    forms::write(special, value, out)
                }
            })
            .map_err(|fault| self.mismatch(fault))?,
            Type::Message(at) => {
                let message = &table::get().messages[at];
                wire::put_nested(out, number, |out| match value {
                    Value::Null => Ok(()),
                    Value::Object(object) => self.message(message, object, out),
                    _ => Err(self.mismatch("expected an object")),
                })?;
            }
        }
        Ok(())
    }
}
