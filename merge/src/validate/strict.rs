//! Strict decoding: reading a document and finding what a lenient reader would swallow.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{At, Step};
use crate::schema::{Kind, Type};

/// How many errors a document is worth; what follows is not reported.
const MAX_ERRORS: usize = 100;

/// Something that a lenient reader would swallow. Its text is Kubernetes': `unknown field "spec.foo"`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StrictError {
    /// The type has no such field.
    #[error("unknown field \"{0}\"")]
    Unknown(String),
    /// A key stands twice in an object. The last one counts.
    #[error("duplicate field \"{0}\"")]
    Duplicate(String),
}

/// Reads a document, and reports unknown and duplicate fields in the order in which they stand. Unknown fields stay in
/// the value; [`prune`](super::prune) removes them.
///
/// # Errors
/// When the bytes are no JSON.
pub fn decode<'a>(
    ty: impl Into<Type<'a>>,
    json: &[u8],
) -> Result<(Value, Vec<StrictError>), serde_json::Error> {
    let mut errors = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = Decode::new(ty.into(), &mut errors).deserialize(&mut reader)?;
    reader.end()?;
    Ok((value, errors))
}

/// The reader behind [`decode`], for other formats than JSON (YAML): a seed for any deserializer.
pub struct Decode<'a> {
    ty: Option<Type<'a>>,
    at: &'a At<'a>,
    errors: &'a mut Vec<StrictError>,
}

impl<'a> Decode<'a> {
    /// A reader of a whole document.
    pub fn new(ty: Type<'a>, errors: &'a mut Vec<StrictError>) -> Self {
        Self {
            ty: Some(ty),
            at: &At::ROOT,
            errors,
        }
    }
}

fn report(errors: &mut Vec<StrictError>, error: StrictError) {
    if errors.len() < MAX_ERRORS && !errors.contains(&error) {
        errors.push(error);
    }
}

impl<'de> DeserializeSeed<'de> for Decode<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Decode<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number that JSON does not have"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let item = self.ty.and_then(|ty| match ty.kind() {
            Kind::List(list) => Some(list.item()),
            _ => None,
        });
        let mut items = Vec::with_capacity(access.size_hint().unwrap_or(0).min(1024));
        while let Some(value) = access.next_element_seed(Decode {
            ty: item,
            at: &self.at.down(Step::Index(items.len()), None),
            errors: self.errors,
        })? {
            items.push(value);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let at = self.at.down(Step::Field(&key), None);
            let child = match self.ty.map(Type::kind) {
                Some(Kind::Struct(s)) => {
                    let child = s.child(&key);
                    if child.is_none() {
                        report(self.errors, StrictError::Unknown(at.to_string()));
                    }
                    child
                }
                Some(Kind::Map(m)) => Some(m.value()),
                _ => None,
            };
            if map.contains_key(&key) {
                report(self.errors, StrictError::Duplicate(at.to_string()));
            }
            let value = access.next_value_seed(Decode {
                ty: child,
                at: &at,
                errors: self.errors,
            })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
