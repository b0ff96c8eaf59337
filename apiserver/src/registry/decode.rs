//! From a body to a document that the registry works on: the right kind, known fields only, defaults filled in.

use std::collections::BTreeSet;
use std::fmt;

use orlop_api::{defaults, schema};
use orlop_core::client::FieldValidation;
use orlop_core::field::quote;
use orlop_core::resource::GroupVersionKind;
use orlop_core::status::Status;
use orlop_merge::validate;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Registry;
use super::context::Context;

impl Registry {
    /// Checks that a body is of a kind, drops or refuses what the kind does not know, and fills in its defaults.
    pub(crate) fn decode(
        cx: &mut Context,
        expected: &GroupVersionKind,
        mut body: Value,
        validation: FieldValidation,
    ) -> Result<Value, Status> {
        check_kind(expected, &mut body)?;
        let errors = check_schema(expected, &mut body)
            .map_err(|message| cannot_handle(expected, &message))?;
        report(cx, errors, validation).map_err(|message| cannot_handle(expected, &message))?;
        drop_nulls(expected, &mut body);
        defaults::apply(expected, &mut body);
        Ok(body)
    }

    /// The same for what somebody applies, which gets no defaults: the applier owns only what it says.
    pub(crate) fn check_applied(
        cx: &mut Context,
        expected: &GroupVersionKind,
        applied: &mut Value,
        validation: FieldValidation,
    ) -> Result<(), Status> {
        let unknown =
            check_schema(expected, applied).map_err(|message| cannot_handle(expected, &message))?;
        report(cx, unknown, validation).map_err(Status::bad_request)
    }

    /// The same for a document that a patch made: errors are those of the patch.
    pub(crate) fn decode_patched(
        cx: &mut Context,
        expected: &GroupVersionKind,
        mut document: Value,
        validation: FieldValidation,
    ) -> Result<Value, String> {
        let errors = check_schema(expected, &mut document)?;
        report(cx, errors, validation)?;
        drop_nulls(expected, &mut document);
        defaults::apply(expected, &mut document);
        Ok(document)
    }
}

/// Checks the body of a DELETE: options, in whatever group and version.
pub(crate) fn decode_delete_options(cx: &mut Context, mut body: Value) -> Result<Value, Status> {
    const OPTIONS: GroupVersionKind = GroupVersionKind::new("", "v1", "DeleteOptions");
    // Unknown fields are let pass, as they always were.
    cx.duplicates.clear();
    if let Value::Object(fields) = &mut body {
        let text = |value: Option<Value>| value.and_then(|value| Some(value.as_str()?.to_owned()));
        let version = text(fields.remove("apiVersion")).filter(|version| !version.is_empty());
        let kind = text(fields.get("kind").cloned()).unwrap_or_default();
        if !kind.is_empty() && kind != OPTIONS.kind {
            return Err(Status::bad_request(format!(
                "no kind {} is registered for version {} in scheme \"orlop\"",
                quote(&kind),
                quote(version.as_deref().unwrap_or("v1"))
            )));
        }
    }
    check_kind(&OPTIONS, &mut body)?;
    check_schema(&OPTIONS, &mut body).map_err(|message| cannot_handle(&OPTIONS, &message))?;
    Ok(body)
}

fn cannot_handle(expected: &GroupVersionKind, why: &str) -> Status {
    let GroupVersionKind { version, kind, .. } = expected;
    Status::bad_request(format!(
        "{kind} in version {} cannot be handled as a {kind}: {why}",
        quote(version)
    ))
}

/// Drops what the kind does not know and says what it was. An error is a value of the wrong type.
fn check_schema(expected: &GroupVersionKind, document: &mut Value) -> Result<Vec<String>, String> {
    let Some(schema) = schema::of(expected) else {
        return Ok(Vec::new());
    };
    validate::prune(&schema, document).map_err(|mismatch| mismatch.to_string())
}

/// Takes a field that is null for one that is not there, as the decoder does; kept, the writer would own fields without a value.
fn drop_nulls(expected: &GroupVersionKind, document: &mut Value) {
    if let Some(schema) = schema::of(expected) {
        validate::drop_null_fields(&schema, document);
    }
}

/// Refuses unknown and repeated fields, or warns of them, as the client asked.
fn report(
    cx: &mut Context,
    unknown: Vec<String>,
    validation: FieldValidation,
) -> Result<(), String> {
    let duplicates = std::mem::take(&mut cx.duplicates);
    if unknown.is_empty() && duplicates.is_empty() || validation == FieldValidation::Ignore {
        return Ok(());
    }
    // The document's maps are sorted; messages name the fields as the body has them.
    let order = field_order(&std::mem::take(&mut cx.body));
    let mut unknown = unknown;
    unknown.sort_by_key(|path| {
        order
            .iter()
            .position(|seen| seen == path)
            .unwrap_or(usize::MAX)
    });
    let unknown = unknown
        .into_iter()
        .map(|path| format!("unknown field {}", quote(&path)));
    let all: Vec<String> = duplicates
        .into_iter()
        .map(|path| format!("duplicate field {}", quote(&path)))
        .chain(unknown)
        .collect();
    if validation == FieldValidation::Strict {
        return Err(format!("strict decoding error: {}", all.join(", ")));
    }
    all.into_iter().for_each(|text| cx.warn(text));
    Ok(())
}

/// Fills in `apiVersion` and `kind`, or refuses another kind.
fn check_kind(expected: &GroupVersionKind, body: &mut Value) -> Result<(), Status> {
    let api_version = expected.api_version();
    if body.is_null() {
        // Null decodes to an object without fields.
        *body = Value::Object(Map::new());
    }
    let Value::Object(fields) = body else {
        return Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: json: \
             cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind \
             string \"json:\\\"kind,omitempty\\\"\" }}",
            expected.kind,
            json_type(body),
        )));
    };
    let text = |field: &str| match fields.get(field) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: json: \
             cannot unmarshal {} into Go struct field .{field} of type string",
            expected.kind,
            json_type(other),
        ))),
    };
    let (given_version, given_kind) = (text("apiVersion")?, text("kind")?);
    if (given_version.is_empty() || given_version == api_version)
        && (given_kind.is_empty() || given_kind == expected.kind)
    {
        fields.insert("apiVersion".to_owned(), api_version.into());
        fields.insert("kind".to_owned(), expected.kind.clone().into_owned().into());
        return Ok(());
    }
    let given_version = if given_version.is_empty() {
        api_version.clone()
    } else {
        given_version
    };
    let given_kind = if given_kind.is_empty() {
        expected.kind.to_string()
    } else {
        given_kind
    };
    let given = GroupVersionKind::from_api_version(&given_version, &given_kind);
    if given_version != api_version && given_kind == expected.kind {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )));
    }
    if orlop_api::resources::find_gvk(&given).is_none() {
        return Err(Status::bad_request(format!(
            "no kind {} is registered for version {} in scheme \"orlop\"",
            quote(&given_kind),
            quote(&given_version)
        )));
    }
    Err(Status::bad_request(format!(
        "{given_kind} in version {} cannot be handled as a {}: converting ({}) to ({}): unknown conversion",
        quote(&given.version),
        expected.kind,
        go_type(&given, &given.version),
        go_type(expected, "")
    )))
}

/// `v1.Secret`, or for an internal type `core.ConfigMap`: how messages name the types of a failed conversion.
fn go_type(kind: &GroupVersionKind, version: &str) -> String {
    if !version.is_empty() {
        return format!("{version}.{}", kind.kind);
    }
    let group = kind
        .group
        .split('.')
        .next()
        .filter(|group| !group.is_empty())
        .unwrap_or("core");
    format!("{group}.{}", kind.kind)
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A JSON body with what its form says: repeated fields, and the order of all fields.
pub(crate) struct Parsed {
    /// The document; of a repeated field, the last value.
    pub(crate) value: Value,
    /// The paths of repeated fields, as messages write them.
    pub(crate) duplicates: Vec<String>,
}

/// Parses a JSON body.
///
/// # Errors
/// Where it is not JSON, or nests deeper than 128 levels (the parser's own limit).
pub(crate) fn parse_json(body: &[u8]) -> Result<Parsed, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let mut duplicates = BTreeSet::new();
    let seed = Document {
        path: &Path::Root,
        duplicates: &mut duplicates,
    };
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Parsed {
        value,
        duplicates: duplicates.into_iter().collect(),
    })
}

/// The paths of all fields of a JSON body, in the order in which they stand.
pub(crate) fn field_order(body: &[u8]) -> Vec<String> {
    let mut order = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let _ = Order {
        path: String::new(),
        order: &mut order,
    }
    .deserialize(&mut deserializer);
    order
}

/// Where the parser is: a list on the stack, written out only when somebody wants to read it.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

struct Document<'a> {
    path: &'a Path<'a>,
    duplicates: &'a mut BTreeSet<String>,
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = Path::Item(self.path, list.len());
            let seed = Document {
                path: &path,
                duplicates: self.duplicates,
            };
            match items.next_element_seed(seed)? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let path = Path::Field(self.path, &key);
            let seed = Document {
                path: &path,
                duplicates: self.duplicates,
            };
            let value = entries.next_value_seed(seed)?;
            if map.contains_key(&key) {
                self.duplicates.insert(path.to_string());
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

struct Order<'a> {
    path: String,
    order: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Order<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Order<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0;
        while items
            .next_element_seed(Order {
                path: format!("{}[{index}]", self.path),
                order: self.order,
            })?
            .is_some()
        {
            index += 1;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(key) = entries.next_key::<String>()? {
            let path = if self.path.is_empty() {
                key
            } else {
                format!("{}.{key}", self.path)
            };
            self.order.push(path.clone());
            entries.next_value_seed(Order {
                path,
                order: self.order,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_fields_are_found_and_the_last_value_stays() {
        let parsed = parse_json(br#"{"data":{"a":"1","a":"2"},"l":[{"x":1,"x":2}]}"#).unwrap();
        assert_eq!(parsed.duplicates, ["data.a", "l[0].x"]);
        assert_eq!(parsed.value["data"]["a"], "2");
        assert!(parse_json(br#"{"a":"#).is_err());
        assert!(parse_json(br#"{} x"#).is_err());
        let deep = "[".repeat(100_000);
        assert!(parse_json(deep.as_bytes()).is_err());
    }

    #[test]
    fn the_order_of_fields_is_that_of_the_body() {
        let order = field_order(br#"{"metadata":{"name":"a","foo":1},"bar":[{"z":1}]}"#);
        assert_eq!(
            order,
            [
                "metadata",
                "metadata.name",
                "metadata.foo",
                "bar",
                "bar[0].z"
            ]
        );
    }
}
