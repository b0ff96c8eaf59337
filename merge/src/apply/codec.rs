//! `FieldsV1`: field sets as JSON.
//!
//! A member without children is `{}`; a member with children carries `".": {}` beside them.

use serde_json::{Map, Value};

use super::path::PathElement;
use super::set::{Entry, FieldSet};

/// Why a `fieldsV1` could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid fieldsV1 at {key:?}: {reason}")]
pub struct CodecError {
    /// The key that is wrong.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

fn error(key: &str, reason: impl Into<String>) -> CodecError {
    CodecError {
        key: key.to_owned(),
        reason: reason.into(),
    }
}

impl FieldSet {
    /// The set as `fieldsV1`.
    #[must_use]
    pub fn to_fields_v1(&self) -> Value {
        Value::Object(encode(self, false))
    }

    /// Reads a `fieldsV1`. Elements of a kind that this version does not know are skipped, as Kubernetes does.
    ///
    /// # Errors
    /// When the JSON is not one of objects, or a key or value element does not hold JSON.
    pub fn from_fields_v1(fields: &Value) -> Result<Self, CodecError> {
        match fields {
            Value::Null => Ok(Self::new()),
            Value::Object(map) => decode(map).map(|entry| entry.children),
            _ => Err(error("", "must be an object")),
        }
    }
}

fn encode(set: &FieldSet, member: bool) -> Map<String, Value> {
    let mut map = Map::new();
    if member && !set.is_empty() {
        map.insert(".".to_owned(), Value::Object(Map::new()));
    }
    for (element, entry) in &set.entries {
        map.insert(
            print(element),
            Value::Object(encode(&entry.children, entry.member)),
        );
    }
    map
}

fn print(element: &PathElement) -> String {
    match element {
        PathElement::Field(name) => format!("f:{name}"),
        PathElement::Key(keys) => {
            let map: Map<String, Value> = keys
                .iter()
                .map(|(name, value)| (name.to_string(), value.clone()))
                .collect();
            format!("k:{}", Value::Object(map))
        }
        PathElement::Value(value) => format!("v:{value}"),
        PathElement::Index(index) => format!("i:{index}"),
    }
}

fn decode(map: &Map<String, Value>) -> Result<Entry, CodecError> {
    // Nothing below means that the path that ends here is the member.
    let mut here = Entry {
        member: map.is_empty(),
        children: FieldSet::new(),
    };
    for (key, below) in map {
        if key == "." {
            here.member = true;
            continue;
        }
        let Some(element) = parse(key)? else {
            continue;
        };
        let entry = match below {
            Value::Object(below) => decode(below)?,
            Value::Null => Entry {
                member: true,
                children: FieldSet::new(),
            },
            _ => return Err(error(key, "must hold an object")),
        };
        if entry.member || !entry.children.is_empty() {
            here.children.entries.insert(element, entry);
        }
    }
    Ok(here)
}

fn parse(key: &str) -> Result<Option<PathElement>, CodecError> {
    let Some((kind, rest)) = key.split_once(':') else {
        return Err(error(key, "is no path element: there is no colon"));
    };
    let json = || serde_json::from_str::<Value>(rest).map_err(|e| error(key, e.to_string()));
    Ok(match kind {
        "f" => Some(PathElement::field(rest)),
        "v" => Some(PathElement::Value(json()?)),
        "k" => match json()? {
            Value::Object(keys) if !keys.is_empty() => Some(PathElement::key(keys)),
            _ => return Err(error(key, "must be an object with at least one key")),
        },
        "i" => Some(PathElement::Index(
            rest.parse()
                .map_err(|_| error(key, "must be a whole number"))?,
        )),
        _ => None,
    })
}
