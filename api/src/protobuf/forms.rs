//! Messages whose JSON form is not an object of their fields.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Number, Value};

use super::table::Special;
use super::wire::{self, Fault, Reader, WireType};
use super::{MAGIC, decode, encode};
use crate::Error;

/// Decodes a special message. `None` is a zero value that stands for "not set".
pub(super) fn read(
    special: Special,
    bytes: &[u8],
    at: &[Cow<'static, str>],
    depth: usize,
) -> Result<Option<Value>, Error> {
    match special {
        Special::Time | Special::MicroTime => {
            time(special, bytes).map_err(|fault| decode::malformed(at, fault))
        }
        Special::Quantity => quantity(bytes)
            .map(Some)
            .map_err(|fault| decode::malformed(at, fault)),
        Special::IntOrString => int_or_string(bytes)
            .map(Some)
            .map_err(|fault| decode::malformed(at, fault)),
        Special::Strings => strings(bytes)
            .map(Some)
            .map_err(|fault| decode::malformed(at, fault)),
        Special::Raw => raw(bytes, at, depth),
    }
}

fn time(special: Special, bytes: &[u8]) -> Result<Option<Value>, Fault> {
    // Go's zero time is the empty message; the epoch has both fields, with zeros.
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, WireType::Varint) => seconds = reader.int64()?,
            (2, WireType::Varint) => nanos = reader.int32()?,
            (_, wire_type) => reader.skip(wire_type)?,
        }
    }
    const OUT_OF_RANGE: Fault = "a time is out of range";
    let text = if special == Special::Time {
        Timestamp::from_second(seconds)
            .map_err(|_| OUT_OF_RANGE)?
            .to_string()
    } else {
        let micros = nanos.div_euclid(1000) * 1000;
        let time = Timestamp::new(seconds, micros).map_err(|_| OUT_OF_RANGE)?;
        format!("{time:.6}")
    };
    // JSON times have years of four digits.
    if text.starts_with('-') {
        Err(OUT_OF_RANGE)
    } else {
        Ok(Some(Value::String(text)))
    }
}

fn quantity(bytes: &[u8]) -> Result<Value, Fault> {
    let mut text = "0";
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, WireType::Length) => text = reader.string()?,
            (_, wire_type) => reader.skip(wire_type)?,
        }
    }
    Ok(Value::String(
        if text.is_empty() { "0" } else { text }.to_owned(),
    ))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Fault> {
    let (mut is_string, mut number, mut text) = (false, 0, "");
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, WireType::Varint) => is_string = reader.int64()? != 0,
            (2, WireType::Varint) => number = reader.int32()?,
            (3, WireType::Length) => text = reader.string()?,
            (_, wire_type) => reader.skip(wire_type)?,
        }
    }
    Ok(if is_string {
        Value::String(text.to_owned())
    } else {
        Value::Number(Number::from(number))
    })
}

fn strings(bytes: &[u8]) -> Result<Value, Fault> {
    let mut items = Vec::new();
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, WireType::Length) => items.push(Value::String(reader.string()?.to_owned())),
            (_, wire_type) => reader.skip(wire_type)?,
        }
    }
    Ok(Value::Array(items))
}

fn raw(bytes: &[u8], at: &[Cow<'static, str>], depth: usize) -> Result<Option<Value>, Error> {
    let mut content: &[u8] = &[];
    let mut reader = Reader::new(bytes);
    let mut scan = || -> Result<(), Fault> {
        while !reader.is_empty() {
            match reader.tag()? {
                (1, WireType::Length) => content = reader.bytes()?,
                (_, wire_type) => reader.skip(wire_type)?,
            }
        }
        Ok(())
    };
    scan().map_err(|fault| decode::malformed(at, fault))?;
    if content.is_empty() {
        return Ok(None);
    }
    if content.starts_with(MAGIC) {
        return decode::envelope(content, None, depth + 1).map(Some);
    }
    match serde_json::from_slice(content) {
        Ok(Value::Null) => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(decode::malformed(at, "embedded data is not JSON")),
    }
}

/// Encodes a special message. Quantities and times keep their text.
pub(super) fn write(special: Special, value: &Value, out: &mut Vec<u8>) -> Result<(), Fault> {
    match special {
        Special::Time | Special::MicroTime => {
            let text = value.as_str().ok_or("expected a time")?;
            let time: Timestamp = text.parse().map_err(|_| "expected an RFC 3339 time")?;
            // `as_second` and the nanosecond part have the same sign; protobuf counts up from the second before.
            let nanos = time.subsec_nanosecond();
            let (seconds, nanos) = if nanos < 0 {
                (time.as_second() - 1, nanos + 1_000_000_000)
            } else {
                (time.as_second(), nanos)
            };
            let nanos = if special == Special::Time {
                0
            } else {
                nanos / 1000 * 1000
            };
            wire::put_int(out, 1, seconds);
            wire::put_int(out, 2, i64::from(nanos));
        }
        Special::Quantity => match value {
            Value::String(text) => wire::put_bytes(out, 1, text.as_bytes()),
            Value::Number(number) => wire::put_bytes(out, 1, number.to_string().as_bytes()),
            _ => return Err("expected a quantity"),
        },
        Special::IntOrString => {
            let (kind, number, text) = match value {
                Value::String(text) => (1, 0, text.as_str()),
                Value::Number(number) => {
                    let number = number.as_i64().filter(|n| i32::try_from(*n).is_ok());
                    (0, number.ok_or("expected a whole number of 32 bits")?, "")
                }
                _ => return Err("expected a whole number or a string"),
            };
            wire::put_int(out, 1, kind);
            wire::put_int(out, 2, number);
            wire::put_bytes(out, 3, text.as_bytes());
        }
        Special::Strings => {
            for item in value.as_array().ok_or("expected a list of strings")? {
                wire::put_bytes(out, 1, item.as_str().ok_or("expected a string")?.as_bytes());
            }
        }
        Special::Raw => {
            let json = encode::json(value);
            wire::put_bytes(out, 1, &json);
        }
    }
    Ok(())
}

pub(super) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn from_base64(text: &str) -> Result<Vec<u8>, Fault> {
    // Go's decoder passes over line breaks.
    if text.contains(['\r', '\n']) {
        let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        return STANDARD.decode(text).map_err(|_| "expected base64");
    }
    STANDARD.decode(text).map_err(|_| "expected base64")
}
