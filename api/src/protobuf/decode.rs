//! Bytes to JSON.

use std::borrow::Cow;

use orlop_core::resource::GroupVersionKind;
use serde_json::{Map, Number, Value};

use super::table::{self, Field, Message, Shape, Special, Type};
use super::wire::{Fault, Reader, WireType};
use super::{MAGIC, MAX_DEPTH, forms};
use crate::Error;

pub(super) fn malformed(at: &[Cow<'static, str>], reason: Fault) -> Error {
    Error::Malformed {
        at: if at.is_empty() {
            ".".to_owned()
        } else {
            at.join(".")
        },
        reason,
    }
}

/// Magic, then `Unknown`: the kind's name, the message, its encoding and its type.
pub(super) fn envelope(
    body: &[u8],
    default: Option<&GroupVersionKind>,
    depth: usize,
) -> Result<Value, Error> {
    let Some(mut reader) = body.strip_prefix(MAGIC).map(Reader::new) else {
        return Err(Error::NotProtobuf);
    };
    let (mut api_version, mut kind) = ("", "");
    let (mut raw, mut encoding, mut content_type): (&[u8], _, _) = (&[], "", "");
    let mut scan = || -> Result<(), Fault> {
        while !reader.is_empty() {
            match reader.tag()? {
                (1, WireType::Length) => {
                    let mut names = Reader::new(reader.bytes()?);
                    while !names.is_empty() {
                        match names.tag()? {
                            (1, WireType::Length) => api_version = names.string()?,
                            (2, WireType::Length) => kind = names.string()?,
                            (_, wire_type) => names.skip(wire_type)?,
                        }
                    }
                }
                (2, WireType::Length) => raw = reader.bytes()?,
                (3, WireType::Length) => encoding = reader.string()?,
                (4, WireType::Length) => content_type = reader.string()?,
                (_, wire_type) => reader.skip(wire_type)?,
            }
        }
        Ok(())
    };
    scan().map_err(|fault| malformed(&[], fault))?;
    if !encoding.is_empty() {
        return Err(malformed(&[], "the content is compressed"));
    }
    if content_type == "application/json" {
        return serde_json::from_slice(raw).map_err(|_| malformed(&[], "the content is not JSON"));
    }
    if !content_type.is_empty() && content_type != super::MEDIA_TYPE {
        return Err(malformed(&[], "the content is neither protobuf nor JSON"));
    }
    let gvk = match default {
        Some(default) if kind.is_empty() => default.clone(),
        _ => GroupVersionKind::from_api_version(api_version, kind),
    };
    let Some(message) = table::get().kind(&gvk) else {
        return Err(Error::NoProtobuf {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        });
    };
    let mut object = self::message(message, raw, depth)?;
    object.insert("apiVersion".to_owned(), Value::String(gvk.api_version()));
    object.insert("kind".to_owned(), Value::String(gvk.kind.into_owned()));
    Ok(Value::Object(object))
}

/// One message from its first byte to its last.
pub(super) fn message(
    message: &Message,
    bytes: &[u8],
    depth: usize,
) -> Result<Map<String, Value>, Error> {
    let mut object = Map::new();
    Decoder { at: Vec::new() }.message(message, bytes, &mut object, depth)?;
    Ok(object)
}

struct Decoder {
    at: Vec<Cow<'static, str>>,
}

impl Decoder {
    fn fault(&self, reason: Fault) -> Error {
        malformed(&self.at, reason)
    }

    fn message(
        &mut self,
        message: &Message,
        bytes: &[u8],
        object: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(self.fault("messages are nested too deep"));
        }
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let (number, wire_type) = reader.tag().map_err(|fault| self.fault(fault))?;
            let Some(field) = message.field(number) else {
                reader.skip(wire_type).map_err(|fault| self.fault(fault))?;
                continue;
            };
            self.at.push(Cow::Borrowed(field.name));
            self.field(field, wire_type, &mut reader, object, depth)?;
            self.at.pop();
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: &Field,
        wire_type: WireType,
        reader: &mut Reader<'_>,
        object: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), Error> {
        match field.shape {
            Shape::Inline => {
                let Type::Message(at) = field.ty else {
                    return Ok(());
                };
                let bytes = self.length(wire_type, reader)?;
                // The parent's path is the JSON path: the message has no name there.
                self.at.pop();
                self.message(&table::get().messages[at], bytes, object, depth + 1)?;
                self.at.push(Cow::Borrowed(field.name));
            }
            Shape::Single => {
                if let Type::Message(at) = field.ty {
                    let bytes = self.length(wire_type, reader)?;
                    // A message sent twice is merged.
                    let inner = object
                        .entry(field.name)
                        .or_insert_with(|| Value::Object(Map::new()));
                    let Value::Object(inner) = inner else {
                        return Ok(());
                    };
                    return self.message(&table::get().messages[at], bytes, inner, depth + 1);
                }
                match self.value(field.ty, wire_type, reader, depth)? {
                    Some(value) if !(field.zero_is_absent && is_zero(&value)) => {
                        object.insert(field.name.to_owned(), value);
                    }
                    _ => {
                        object.remove(field.name);
                    }
                }
            }
            Shape::Repeated => {
                let list = object
                    .entry(field.name)
                    .or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(list) = list else {
                    return Ok(());
                };
                let packable = matches!(
                    field.ty,
                    Type::Int32 | Type::Int64 | Type::Bool | Type::Double
                );
                if packable && wire_type == WireType::Length {
                    let inner = if field.ty == Type::Double {
                        WireType::Fixed64
                    } else {
                        WireType::Varint
                    };
                    let mut packed = Reader::new(self.length(wire_type, reader)?);
                    while !packed.is_empty() {
                        list.extend(self.value(field.ty, inner, &mut packed, depth)?);
                    }
                } else {
                    list.push(
                        self.value(field.ty, wire_type, reader, depth)?
                            .unwrap_or(Value::Null),
                    );
                }
            }
            Shape::Map => {
                let bytes = self.length(wire_type, reader)?;
                let (key, value) = self.entry(field.ty, bytes, depth)?;
                let map = object
                    .entry(field.name)
                    .or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    map.insert(key, value);
                }
            }
        }
        Ok(())
    }

    fn length<'a>(&self, wire_type: WireType, reader: &mut Reader<'a>) -> Result<&'a [u8], Error> {
        if wire_type != WireType::Length {
            return Err(self.fault("a field has the wrong wire type"));
        }
        reader.bytes().map_err(|fault| self.fault(fault))
    }

    /// A key and a value; either is its zero value when it is left out.
    fn entry(&mut self, ty: Type, bytes: &[u8], depth: usize) -> Result<(String, Value), Error> {
        let (mut key, mut value) = ("", None);
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            match reader.tag().map_err(|fault| self.fault(fault))? {
                (1, WireType::Length) => {
                    key = reader.string().map_err(|fault| self.fault(fault))?
                }
                (2, wire_type) => {
                    self.at.push(Cow::Owned(key.to_owned()));
                    value = self.value(ty, wire_type, &mut reader, depth)?;
                    self.at.pop();
                }
                (_, wire_type) => reader.skip(wire_type).map_err(|fault| self.fault(fault))?,
            }
        }
        let value = value.unwrap_or_else(|| match ty {
            Type::String | Type::Bytes => Value::String(String::new()),
            Type::Int32 | Type::Int64 => Value::Number(Number::from(0)),
            Type::Bool => Value::Bool(false),
            Type::Special(Special::Quantity) => Value::String("0".to_owned()),
            Type::Special(Special::Strings) => Value::Array(Vec::new()),
            Type::Message(_) => Value::Object(Map::new()),
            Type::Double | Type::Special(_) => Value::Null,
        });
        Ok((key.to_owned(), value))
    }

    fn value(
        &mut self,
        ty: Type,
        wire_type: WireType,
        reader: &mut Reader<'_>,
        depth: usize,
    ) -> Result<Option<Value>, Error> {
        let scalar = |reader: &mut Reader<'_>| -> Result<Option<Value>, Fault> {
            Ok(Some(match (ty, wire_type) {
                (Type::String, WireType::Length) => Value::String(reader.string()?.to_owned()),
                (Type::Int32, WireType::Varint) => Value::Number(Number::from(reader.int32()?)),
                (Type::Int64, WireType::Varint) => Value::Number(Number::from(reader.int64()?)),
                (Type::Bool, WireType::Varint) => Value::Bool(reader.varint()? != 0),
                (Type::Bytes, WireType::Length) => Value::String(forms::to_base64(reader.bytes()?)),
                (Type::Double, WireType::Fixed64) => {
                    let number = f64::from_le_bytes(reader.fixed64()?);
                    Value::Number(Number::from_f64(number).ok_or("a number is not finite")?)
                }
                (Type::Special(_) | Type::Message(_), WireType::Length) => return Ok(None),
                _ => return Err("a field has the wrong wire type"),
            }))
        };
        if let Some(value) = scalar(reader).map_err(|fault| self.fault(fault))? {
            return Ok(Some(value));
        }
        let bytes = reader.bytes().map_err(|fault| self.fault(fault))?;
        match ty {
            Type::Special(special) => forms::read(special, bytes, &self.at, depth),
            Type::Message(at) => {
                let mut inner = Map::new();
                self.message(&table::get().messages[at], bytes, &mut inner, depth + 1)?;
                Ok(Some(Value::Object(inner)))
            }
            _ => Ok(None),
        }
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}
